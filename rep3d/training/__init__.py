"""Cases to checkpoint."""
