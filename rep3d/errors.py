"""The errors that Rep3D raises on purpose.

One family, so that a caller can tell "your input or your set-up is wrong, and here is what to do" (any of these) from a
defect of ours (anything else). Each message says what was expected, what came, and what to do.
"""

from __future__ import annotations

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DamagedFileError",
    "ExportError",
    "ImageError",
    "InferenceCancelled",
    "LabelError",
    "MissingComponentError",
    "NoCasesError",
    "OutOfMemoryError",
    "Rep3DError",
    "TaskError",
    "TooLargeError",
    "TrainingError",
    "UnknownVersionError",
    "VersionError",
]


class Rep3DError(Exception):
    """Base of all errors below."""


class ConfigError(Rep3DError):
    """A network setting, or the shape of a tensor given to the network, is not possible."""


class TaskError(Rep3DError):
    """A task definition (labels, spacing, intensity, orientation) is missing or contradicts itself."""


class CheckpointError(Rep3DError):
    """A checkpoint is missing, damaged, of another format, or belongs to another task."""


class DamagedFileError(Rep3DError):
    """A file of ours is not what was written to it.

    Args:
        message: which file, and what is lost.
        reason: what is wrong with it.
    """

    def __init__(self, message: str, reason: str = "") -> None:
        super().__init__(message)
        self.reason = reason


class ExportError(Rep3DError):
    """A network cannot be exported, or the exported one computes something else; nothing was written."""


class ImageError(Rep3DError):
    """A file is not a readable three-dimensional image."""


class InferenceCancelled(Rep3DError):
    """A segmentation was no longer wanted before it was done; nothing was written."""


class LabelError(Rep3DError):
    """A label map does not fit its image or its task."""


class MissingComponentError(Rep3DError):
    """A package that this needs is not installed here."""


class NoCasesError(Rep3DError):
    """Training was asked for without a single labelled case."""


class OutOfMemoryError(Rep3DError):
    """This machine has not enough memory for it; nothing was written."""


class TooLargeError(OutOfMemoryError):
    """What was asked for needs more memory than there is here at all: waiting does not help."""


class TrainingError(Rep3DError):
    """A training run failed (for instance, its loss became infinite); nothing was published."""


class VersionError(Rep3DError):
    """The state of a model's versions forbids what was asked for, such as to delete the published one."""


class UnknownVersionError(VersionError):
    """There is no version of that name."""
