"""Checkpoint and image to label map."""
