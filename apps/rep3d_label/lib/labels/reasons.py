"""Why a label is in the history."""

from __future__ import annotations

__all__ = ["ORIGINAL", "REMOVED", "REPLACED", "UNKNOWN"]

REPLACED = "replaced"  # another label took its place
REMOVED = "removed"  # it was taken away
ORIGINAL = "original"  # it is what was submitted for a label that was stored with other voxel values or another grid
UNKNOWN = "unknown"  # the record of it is damaged
