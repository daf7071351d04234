"""What can go wrong between the client and the server, one class per kind of remedy.

A user does different things about a wrong address, a wrong key, a busy server and a refused label; the class tells them
apart and the message says what was expected, what came, and what to do. Everything the client raises on purpose is a
`ClientError`.
"""

from __future__ import annotations

__all__ = [
    "BadAnswer",
    "Cancelled",
    "ClientError",
    "ConflictError",
    "ConnectionCut",
    "InvalidAddress",
    "InvalidRequestError",
    "LocalProblem",
    "NoSampleLeft",
    "NotAllowedError",
    "NotFoundError",
    "RequestRefused",
    "ServerBusy",
    "ServerFailed",
    "ServerTimeout",
    "ServerUnreachable",
    "TlsError",
    "UnsuccessfulAnswer",
    "WaitTimeout",
    "WrongAppError",
]


class ClientError(Exception):
    """Base of all errors below."""


class InvalidAddress(ClientError):
    """The text given as the server's address cannot be one; nothing was sent."""


class LocalProblem(ClientError):
    """A file, folder or argument on this computer is missing or unusable."""


class ServerUnreachable(ClientError):
    """Nothing answers at the address: connection refused, unknown host name, or no connection in time."""


class TlsError(ServerUnreachable):
    """The encrypted connection could not be set up: certificate not trusted, or the port does not speak https."""


class ConnectionCut(ServerUnreachable):
    """The connection was closed before an answer came; a request that changes something may have been carried out."""


class ServerTimeout(ClientError):
    """The server accepted the connection but did not answer in time; it may still be working on the request."""


class WaitTimeout(ClientError):
    """Waiting for a background task was given up; the task goes on at the server."""


class UnsuccessfulAnswer(ClientError):
    """An answer that is no success.

    Attributes:
        status: HTTP status.
        detail: The server's own words, "" if it gave none.
    """

    def __init__(self, message: str, status: int, detail: str = "") -> None:
        super().__init__(message)
        self.status = status
        self.detail = detail


class ServerBusy(UnsuccessfulAnswer):
    """The server asks to come back later (status 429 or 503).

    Attributes:
        retry_after: Seconds after which the server wants to be asked again, None if it did not say.
    """

    def __init__(self, message: str, status: int, detail: str = "", retry_after: float | None = None) -> None:
        super().__init__(message, status, detail)
        self.retry_after = retry_after


class RequestRefused(UnsuccessfulAnswer):
    """The server understood the request and refused it (status 4xx); sending it again unchanged will not help."""


class NotAllowedError(RequestRefused):
    """The API key is missing, wrong, or not enough for this action (status 401 or 403)."""


class NotFoundError(RequestRefused):
    """The server knows no such image, label, model, strategy or task (status 404)."""


class ConflictError(RequestRefused):
    """Not possible in the server's present state (status 409): no trained model yet, training runs already."""


class InvalidRequestError(RequestRefused):
    """The label, image or settings sent are not acceptable (status 422)."""


class ServerFailed(UnsuccessfulAnswer):
    """The server broke while it handled the request (status 5xx)."""


class BadAnswer(ClientError):
    """An answer came, but not one that this server's interface allows: a web page, garbage, or a part of a file."""


class WrongAppError(ClientError):
    """A server answers at the address, but it does not run Rep3D Label."""


class NoSampleLeft(ClientError):
    """Every image of the server's data store has been labelled, or is being labelled by someone else."""


class Cancelled(ClientError):
    """A transfer was stopped by who had asked for it; a download leaves no file, an upload was not complete."""
