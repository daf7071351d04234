"""Slicer's scene: `scene` is all that others use, the other files a subject each. Knows MRML, but not Qt or HTTP."""

from .scene import Scene

__all__ = ["Scene"]
