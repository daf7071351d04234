"""Training a fine stage on top of a coarse one."""
