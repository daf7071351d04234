"""What a data set is like, what is wrong with it, and which task file it suggests: ``rep3d plan``."""
