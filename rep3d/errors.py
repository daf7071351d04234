"""The errors that Rep3D raises on purpose.

One family, so that a caller can tell "your input or your set-up is wrong, and here is what to do" (any of these) from a
defect of ours (anything else). Each message says what was expected, what came, and what to do.
"""

from __future__ import annotations

import errno
from collections.abc import Iterator, Mapping
from typing import Any

__all__ = [
    "CheckpointError",
    "ConfigError",
    "DamagedFileError",
    "DiskFullError",
    "ExportError",
    "ImageError",
    "InferenceCancelled",
    "LabelError",
    "MissingComponentError",
    "NoCasesError",
    "OutOfMemoryError",
    "OutputError",
    "Rep3DError",
    "ResumeError",
    "TaskError",
    "TooLargeError",
    "TrainingError",
    "UnknownVersionError",
    "VersionError",
    "causes",
    "machine_error",
    "said",
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


class DiskFullError(Rep3DError):
    """The disk takes no more of it; what was there before stays whole."""


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


class OutputError(Rep3DError):
    """The file or folder to write cannot be used, or is one of the inputs; nothing was written."""


class TooLargeError(OutOfMemoryError):
    """What was asked for needs more memory than there is here at all: waiting does not help."""


class TrainingError(Rep3DError):
    """A training run failed (for instance, its loss became infinite); nothing was published."""


class ResumeError(TrainingError):
    """An interrupted training cannot go on; what it kept stays.

    Attributes:
        changed: what has changed since, by name, with its value then and now.
    """

    def __init__(self, message: str, changed: Mapping[str, tuple[Any, Any]] | None = None) -> None:
        super().__init__(message, changed)
        self.changed = dict(changed or {})

    def __str__(self) -> str:
        return str(self.args[0])


class VersionError(Rep3DError):
    """The state of a model's versions forbids what was asked for, such as to delete the published one."""


class UnknownVersionError(VersionError):
    """There is no version of that name."""


_NO_ROOM = {
    errno.ENOSPC: "The disk is full",
    getattr(errno, "EDQUOT", errno.ENOSPC): "This account may take no more room on the disk (its quota is used up)",
    errno.EFBIG: "The file would be larger than the disk, or this account, allows",
    errno.EROFS: "The disk takes nothing: it is read-only",
}
_NO_DEVICE = ("invalid device ordinal", "no CUDA-capable device is detected", "No CUDA GPUs are available")
_TORN = ("unexpected pos", "PytorchStreamWriter failed")  # of PyTorch, where the operating system's error is lost
_NO_TEMPORARY = "No usable temporary directory"  # Python's words where not one takes a few bytes
_STILL_WHOLE = (
    "What was being written was not kept; all that was whole before stays. Make room, or choose another disk."
)


def causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and what led to it, however it was wrapped on its way up."""
    cause: BaseException | None = error
    seen = set[int]()  # an error that was raised from itself leads round and round
    while cause is not None and id(cause) not in seen:
        yield cause
        seen.add(id(cause))
        cause = cause.__cause__ or (None if cause.__suppress_context__ else cause.__context__)


def machine_error(error: BaseException) -> Rep3DError | None:
    """Return, in our words, what the machine lacks (room on the disk, a device) where an error came of that.

    PyTorch says "unexpected pos" where a disk is full, and other libraries what they like; the operating system's own
    error is found below theirs.

    Returns:
        None where it came of something else.
    """
    chain = list(causes(error))
    for cause in chain:  # first: what the operating system says is more exact than what others make of it
        if isinstance(cause, DiskFullError):
            return cause
        if isinstance(cause, OSError) and cause.errno in _NO_ROOM:
            where = f" ({cause.filename})" if cause.filename else ""
            return DiskFullError(f"{_NO_ROOM[cause.errno]}{where}. {_STILL_WHOLE}")
    for cause in chain:
        if isinstance(cause, FileNotFoundError) and _NO_TEMPORARY in str(cause):
            return DiskFullError(f"No disk has room for temporary files. {_STILL_WHOLE} TMPDIR says where these go.")
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in _NO_DEVICE):
            return ConfigError("The GPU that was asked for is not there (any more). Use the device 'auto' or 'cpu'.")
        if isinstance(cause, RuntimeError) and any(words in str(cause) for words in _TORN):
            return DiskFullError(f"The file could not be written to its end. {_STILL_WHOLE}")
    return None


def said(error: BaseException) -> str:
    """Return what an error says to people: our own words, else its kind and what it says, on one line."""
    ours = machine_error(error) or error
    words = " ".join(str(ours).split())[:500]
    return (
        words if isinstance(ours, Rep3DError) else f"{type(ours).__name__}: {words}" if words else type(ours).__name__
    )
