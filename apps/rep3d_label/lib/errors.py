"""The app's own errors, beside those of :mod:`rep3d.errors`; :mod:`lib.api.errors` says what each is over HTTP.

A message is for whoever works with the images: what is wrong, and what to do.
"""

from __future__ import annotations

import torch

from rep3d.errors import DiskFullError, Rep3DError, causes, said

__all__ = [
    "OUT_OF_MEMORY",
    "BusyError",
    "ConflictError",
    "DiskFullError",
    "ForbiddenError",
    "NoModelError",
    "NotFoundError",
    "RequestError",
    "ReservedError",
    "SlowClientError",
    "StartupError",
    "TooManySessionsError",
    "TooManyWaitingError",
    "UnknownKeyError",
    "UploadTooLargeError",
    "WaitError",
    "WrongHostError",
    "in_words",
    "is_out_of_memory",
]

OUT_OF_MEMORY = "Not enough memory for this now. Try again when less is running."


class StartupError(Exception):
    """The server cannot start.

    Args:
        sentences: what is wrong, and what to do.
    """

    def __init__(self, *sentences: str) -> None:
        super().__init__(f"Rep3D Label cannot start: {' '.join(sentences)}")


class RequestError(Rep3DError):
    """What was sent cannot be used as it is."""


class NotFoundError(Rep3DError):
    """There is nothing of the name that was asked for."""


class ForbiddenError(Rep3DError):
    """It is not for this person to do, or for nobody in this way."""


class ConflictError(Rep3DError):
    """The state of the server forbids it now.

    Attributes:
        reason: a word for programs, where there is more than one thing to do about it.
    """

    reason: str | None = None


class ImageReplacedError(ConflictError):
    """The image is another than the one that a label was drawn on."""

    reason = "image_replaced"


class LabelReplacedError(ConflictError):
    """The label is another than the one that a client means to replace."""

    reason = "label_replaced"


class ReservedError(ConflictError):
    """The image is reserved for somebody else."""

    reason = "reserved"


class NoModelError(ConflictError):
    """There is no trained model to work with."""

    def __init__(self) -> None:
        super().__init__("There is no trained model yet. Submit at least one label, then start a training.")


class BusyError(Rep3DError):
    """It is not possible this moment; the same request may succeed in a little while."""


class TooManyWaitingError(BusyError):
    """One user has as many requests waiting as one may."""


class TooManySessionsError(BusyError):
    """One user has as many sessions open as one may."""


class SlowClientError(Rep3DError):
    """A request comes so slowly that waiting for it is of no use."""


class UnknownKeyError(Rep3DError):
    """There is no key or token with the request, or one that lets nobody in."""


class UploadTooLargeError(Rep3DError):
    """More was sent at once than is taken."""


class WaitError(Rep3DError):
    """Too many wrong keys came from one address, which has to wait."""


class WrongHostError(Rep3DError):
    """A request is for a name that is not this server's."""


def is_out_of_memory(error: BaseException) -> bool:
    """Return whether something failed for want of memory, however it was wrapped on its way up."""
    return any(
        isinstance(cause, (MemoryError, torch.OutOfMemoryError)) or "can't allocate memory" in str(cause)
        for cause in causes(error)
    )


def in_words(error: BaseException) -> str:
    """Return an error as the record of a job says it."""
    return OUT_OF_MEMORY if is_out_of_memory(error) else said(error)
