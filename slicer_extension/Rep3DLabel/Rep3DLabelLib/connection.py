"""Where a server is, and the result of a connection test: one word for a program, a sentence or two for a user.

"It does not work" has many causes with different remedies; the word tells them apart so that an interface can lead to
the right field.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TYPE_CHECKING
from urllib.parse import urlsplit

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
    "normalise_address",
    "plain_address",
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

_HOST = re.compile(r"[0-9a-f:.]*:[0-9a-f:.]*|(?:\w[\w-]{0,62}\.)*\w[\w-]{0,62}\.?")

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


def normalise_address(text: str) -> str:
    """Return a server's address as scheme://host[:port][/path], with http:// if no scheme is given.

    Raises:
        InvalidAddress: The text cannot be the address of a server.
    """
    address = text.strip().rstrip("/")
    example = "Enter it like http://localhost:8000 or https://server.hospital.org/rep3d."
    problem = ""
    if "://" not in address:
        if address.lower().startswith(("http:", "https:")):
            problem = "the two slashes after 'http:' or 'https:' are missing"
        address = f"http://{address}"
    try:
        parts = urlsplit(address)
        host, port = parts.hostname or "", parts.port
    except ValueError as error:
        raise InvalidAddress(f"'{text}' cannot be the address of a server: {error}. {example}") from error
    if re.search(r"[\s\x00-\x1f\\]", address):
        problem = "it contains a space or a backslash"
    elif parts.scheme.lower() not in ("http", "https"):
        problem = f"'{parts.scheme}' is not http or https"
    elif not problem and not _HOST.fullmatch(host):
        problem = "it names no host"
    elif "@" in parts.netloc:
        problem = "a user name or key does not belong into the address; use the field for the API key"
    elif parts.query or parts.fragment:
        problem = "it goes on after '?' or '#'"
    elif port == 0 or parts.netloc.endswith(":"):
        problem = "the port is missing"
    if problem:
        shown = "This" if "@" in parts.netloc else f"'{text}'"  # never repeat what may be a password
        raise InvalidAddress(f"{shown} cannot be the address of a server: {problem}. {example}")
    return f"{parts.scheme.lower()}://{parts.netloc}{parts.path}"


def plain_address(address: str) -> str:
    """Return an address as `normalise_address` does, and what cannot be one as it is, without blanks around it."""
    try:
        return normalise_address(address)
    except InvalidAddress:
        return address.strip()


@dataclass(frozen=True)
class ConnectionReport:
    """Result of a connection test.

    Attributes:
        state: READY; BUSY (there, but does not answer now); UNREACHABLE (nothing answers); UNTRUSTED (encryption);
            NOT_ALLOWED (API key); WRONG_APP (another program answers); WRONG_ADDRESS; FAILED (the server is broken).
        message: For the user.
        info: The server's description in state READY, else None.
        url: The address as it was understood, "" if it was not.
    """

    state: str
    message: str
    info: ServerInfo | None = None
    url: str = ""


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
