"""Versions of a model on disk: kept, published, rolled back, deleted."""
