"""The result of a connection test: one word for a program, one or two sentences for a user.

"It does not work" has many causes with different remedies; the word tells them apart so that an interface can lead to
the right field.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from .errors import (
    BadAnswer,
    ClientError,
    InvalidAddress,
    NotAllowedError,
    ServerBusy,
    ServerTimeout,
    ServerUnreachable,
    TlsError,
    WrongAppError,
)

if TYPE_CHECKING:  # the words must not cost those who need no HTTP its import
    from .client.answers import ServerInfo

__all__ = [
    "BUSY",
    "FAILED",
    "NOT_ALLOWED",
    "READY",
    "UNREACHABLE",
    "UNTRUSTED",
    "WRONG_ADDRESS",
    "WRONG_APP",
    "ConnectionReport",
    "report_of_error",
    "report_of_info",
]

READY = "ready"
BUSY = "busy"
UNREACHABLE = "unreachable"
UNTRUSTED = "untrusted"
NOT_ALLOWED = "not_allowed"
WRONG_APP = "wrong_app"
WRONG_ADDRESS = "wrong_address"
FAILED = "failed"

_STATES: tuple[tuple[type[ClientError], str], ...] = (  # the first that fits; subclasses stand before their bases
    (TlsError, UNTRUSTED),
    (ServerUnreachable, UNREACHABLE),
    (ServerBusy, BUSY),
    (ServerTimeout, BUSY),  # a MONAI Label server answers nobody while it computes a segmentation
    (NotAllowedError, NOT_ALLOWED),
    (WrongAppError, WRONG_APP),
    (BadAnswer, WRONG_APP),
    (InvalidAddress, WRONG_ADDRESS),
)


@dataclass(frozen=True)
class ConnectionReport:
    """Result of a connection test.

    Attributes:
        state: READY; BUSY (there, but does not answer now); UNREACHABLE (nothing answers); UNTRUSTED (encryption);
            NOT_ALLOWED (API key); WRONG_APP (another program answers); WRONG_ADDRESS; FAILED (the server is broken).
        message: For the user.
        info: The server's description in state READY, else None.
    """

    state: str
    message: str
    info: ServerInfo | None = None


def report_of_error(error: ClientError) -> ConnectionReport:
    """Return the report about a server that cannot be used."""
    return ConnectionReport(next((state for kind, state in _STATES if isinstance(error, kind)), FAILED), str(error))


def report_of_info(info: ServerInfo) -> ConnectionReport:
    """Return the report about a server that has described itself."""
    model = f"model version {info.published_version}" if info.published_version else "no trained model yet"
    if info.model_error:
        model = f"the published model cannot be used ({info.model_error})"
    name = info.name or "Rep3D Label"
    return ConnectionReport(READY, f"Connected to {name}: {info.total} images, {model}.", info)
