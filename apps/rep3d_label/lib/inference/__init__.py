"""Inference: one image, or many."""
