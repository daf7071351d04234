"""From what went wrong with a request to the error of ours that says what to do about it.

requests and urllib3 wrap one cause in several exceptions, differently in each version that Slicer has shipped, so the
cause itself (a refused connection, an unknown host, ...) is looked for.
"""

from __future__ import annotations

import http.client
import json
import re
import socket
import ssl
from collections.abc import Iterator

import requests

from ..errors import (
    BadAnswer,
    ClientError,
    ConflictError,
    ConnectionCut,
    InvalidAddress,
    InvalidRequestError,
    NotAllowedError,
    NotFoundError,
    RequestRefused,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
    TlsError,
)

__all__ = ["cut_message", "describe_body", "error_of_exception", "error_of_status"]

_DETAIL_LIMIT = 1000
_REFUSALS: dict[int, tuple[type[RequestRefused], str]] = {
    401: (NotAllowedError, "Check the API key."),
    403: (NotAllowedError, "Check the API key and its rights."),
    404: (NotFoundError, "Check the name, and refresh the list from the server."),
    409: (ConflictError, "The server's present state does not allow it: change that first."),
    413: (RequestRefused, "The file is larger than the server, or a proxy before it, accepts: raise that limit."),
    422: (InvalidRequestError, "Correct what was sent; sending it again unchanged will not help."),
}


def error_of_exception(
    error: requests.RequestException, url: str, what: str, wait: float, in_body: bool
) -> ClientError:
    """Return the error of ours for one of requests.

    Args:
        error: What requests raised.
        url: Address of the server.
        what: Method and path of the request.
        wait: Its read time-out in seconds.
        in_body: Whether the answer's status and headers had come already.
    """
    causes = list(_causes(error))
    names = {type(cause).__name__ for cause in causes}

    def has(*kinds: type[BaseException]) -> bool:
        return any(isinstance(cause, kinds) for cause in causes)

    reason = next((cause.strerror for cause in causes if isinstance(cause, OSError) and cause.strerror), str(error))
    if isinstance(error, (requests.exceptions.InvalidURL, requests.exceptions.InvalidSchema)):
        return InvalidAddress(f"'{url}' cannot be the address of a server: {error}. Correct it.")
    if has(ssl.SSLError, requests.exceptions.SSLError):
        reason = next((str(cause) for cause in causes if isinstance(cause, ssl.SSLError)), reason)
        return TlsError(
            f"The encrypted connection to {url} cannot be trusted: {reason}. If the server speaks no https, use "
            "http:// in the address; if it has a certificate of its own, give that file as the certificates to trust."
        )
    if isinstance(error, requests.exceptions.ProxyError):
        return ServerUnreachable(f"The proxy between here and {url} does not work: {reason}. Check the proxy settings.")
    if isinstance(error, requests.ConnectTimeout):
        return ServerUnreachable(f"Nothing answers at {url}. Check the address, the network and the firewall.")
    if has(socket.gaierror):
        return ServerUnreachable(f"The host name in {url} is not known here. Check its spelling and the network.")
    if has(ConnectionRefusedError):
        return ServerUnreachable(
            f"Nothing listens at {url} (connection refused). Check that the server is running and the port is right."
        )
    if "NewConnectionError" not in names and (
        has(TimeoutError, socket.timeout, requests.Timeout) or "ReadTimeoutError" in names
    ):
        return ServerTimeout(
            f"No answer came from {url} in {wait:g} s ({what}). The server is busy, or the work "
            "takes longer than that: look at the server before you try again."
        )
    if in_body:
        return BadAnswer(cut_message(what, str(error)))
    if has(ConnectionError):
        return ConnectionCut(
            f"The connection to {url} was closed before an answer came ({what}). The server may "
            "have been stopped, or the port expects https://. Check at the server whether the request was carried out."
        )
    if has(http.client.HTTPException):
        return BadAnswer(
            f"{url} answers with something else than HTTP ({error}). Another program uses this port, or "
            "it expects https://: check the address."
        )
    return ServerUnreachable(f"There is no connection to {url}: {reason}. Check the address and the network.")


def error_of_status(response: requests.Response, url: str, what: str, content: bytes) -> ClientError:
    """Return the error that an answer's status stands for.

    Args:
        response: An answer whose status is not 2xx.
        url: Address of the server.
        what: Method and path of the request.
        content: The body, or its beginning.
    """
    status = response.status_code
    if status < 400:
        target = response.headers.get("Location", "nowhere")
        return BadAnswer(
            f"{url} redirects to {target} instead of answering ({what}). Enter the address that it "
            "redirects to (often https:// instead of http://), or log in where it leads."
        )
    detail = _detail(content, response)
    said = detail or "no reason given"
    if status in (429, 503):
        wait = response.headers.get("Retry-After", "")
        later = float(wait) if re.fullmatch(r"\d{1,6}", wait) else None
        when = "in a moment" if later is None else f"in {later:g} s"
        return ServerBusy(f"The server is busy ({what}, {status}): {said}. Try again {when}.", status, detail, later)
    if status == 507:
        return ServerFailed(f"The server has no room for it ({what}, {status}): {said}.", status, detail)
    if status >= 500:
        return ServerFailed(
            f"The server failed at {what} ({status}): {said}. Look at the server's log for the cause.", status, detail
        )
    kind, remedy = _REFUSALS.get(status, (RequestRefused, "Check that the server's version fits this client."))
    return kind(f"The server refused {what} ({status}): {said}. {remedy}", status, detail)


def cut_message(what: str, reason: str) -> str:
    """Return the message about an answer that ended early."""
    return f"The answer was cut ({what}): {reason}. Check the network and try again."


def describe_body(content: bytes, response: requests.Response) -> str:
    """Describe a body that is not what was expected, in a few words."""
    text = content.decode("utf-8", "replace")
    if "html" in response.headers.get("Content-Type", "") or re.match(r"\s*<(!doctype\s+)?html", text, re.IGNORECASE):
        title = re.search(r"<title[^>]*>(.*?)</title>", text, re.IGNORECASE | re.DOTALL)
        return f"a web page ('{' '.join(title.group(1).split())[:100]}')" if title else "a web page"
    return f"{' '.join(text.split())[:100]!r}" if text.strip() else "an empty answer"


def _causes(error: BaseException) -> Iterator[BaseException]:
    """Yield an error and everything that is wrapped in it."""
    pending: list[object] = [error]
    seen: set[int] = set()
    while pending:
        item = pending.pop()
        if isinstance(item, BaseException) and id(item) not in seen:
            seen.add(id(item))
            yield item
            pending += [*item.args, getattr(item, "reason", None), item.__cause__, item.__context__]


def _detail(content: bytes, response: requests.Response) -> str:
    """Return the reason that an error answer gives, in one line."""
    try:
        answer = json.loads(content)
    except ValueError:
        return describe_body(content, response) if content.strip() else ""
    detail = answer.get("detail", answer) if isinstance(answer, dict) else answer
    if isinstance(detail, list):
        return "; ".join(map(_render_problem, detail))[:_DETAIL_LIMIT]
    text = detail if isinstance(detail, str) else json.dumps(detail, ensure_ascii=False)
    return text.strip(" +.")[:_DETAIL_LIMIT]  # MONAI Label decorates some with plus signs


def _render_problem(problem: object) -> str:
    """Render one entry of the list that FastAPI gives as the reason of a 422."""
    if not isinstance(problem, dict):
        return str(problem)
    place = " ".join(str(step) for step in problem.get("loc", ()))
    return f"{place}: {problem.get('msg', '')}" if place else str(problem.get("msg", problem))
