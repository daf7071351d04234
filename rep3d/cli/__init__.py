"""The command ``rep3d``."""
