"""HTTP as the client needs it: one request with its time-outs; whatever goes wrong with it is an error of ours.

Redirects are not followed: a redirected PUT becomes a GET, and would lose a label silently. Connections are not kept
open: a request that changes something must not be lost on a connection that the server has just closed, because it is
never sent twice.
"""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, fields
from pathlib import Path
from urllib.parse import urlsplit

import requests
import requests.auth

from ..connection import normalise_address
from ..errors import BadAnswer, ConnectionCut, LocalProblem
from .failures import cut_message, describe_body, error_of_exception, error_of_status
from .multipart import MultipartUpload
from .transfers import Watch

__all__ = ["Timeouts", "Transport"]

_BLOCK = 1 << 16


@dataclass(frozen=True)
class Timeouts:
    """Time limits in seconds. A limit on waiting counts from the last byte that came, not from the start.

    Attributes:
        connect: Setting up a connection.
        read: Waiting for a short answer.
        action: Waiting for the start of a task or the choice of a sample, for which the server may read all cases.
        infer: Waiting for a segmentation.
        transfer: Waiting while an image or label is sent or received.
        send: Setting up a connection for an upload and sending each block of it. Longer than `connect`, because a
            MONAI Label server reads nothing while it computes a segmentation for somebody else.
    """

    connect: float = 5.0
    read: float = 30.0
    action: float = 120.0
    infer: float = 600.0
    transfer: float = 300.0
    send: float = 120.0

    def __post_init__(self) -> None:
        for item in fields(self):
            value = getattr(self, item.name)
            if not math.isfinite(value) or value <= 0:
                raise ValueError(f"Expected a time-out above 0 seconds for '{item.name}', got {value!r}.")


class _Bearer(requests.auth.AuthBase):
    """Sends the API key. As an auth object, because requests replaces a plain header by what a .netrc file says."""

    def __init__(self, key: str) -> None:
        self._key = key

    def __call__(self, request: requests.PreparedRequest) -> requests.PreparedRequest:
        request.headers["Authorization"] = f"Bearer {self._key}"
        return request


class Transport:
    """Sends requests to one server.

    Args:
        url: The server's address, see `connection.normalise_address`.
        api_key: Sent as a bearer token with each request; None or "" for a server without keys.
        session: Injected for tests or special proxies; by default a session of its own, which ignores proxy settings
            of the environment for a server on this computer.
        timeouts: Time limits.
        verify: Check certificates (True), do not (False), or the path of the certificates to trust.

    Raises:
        InvalidAddress: The address cannot be one.
        LocalProblem: The API key contains characters that cannot be sent, or there are no certificates at the path.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        session: requests.Session | None = None,
        timeouts: Timeouts | None = None,
        verify: bool | str = True,
    ) -> None:
        self.url = normalise_address(url)
        self.timeouts = timeouts or Timeouts()
        if session is None:
            session = requests.Session()
            host = urlsplit(self.url).hostname or ""
            session.trust_env = not (host in ("localhost", "::1") or host.startswith("127."))
        key = (api_key or "").strip()
        if key and not re.fullmatch(r"[\x21-\x7e]+", key):
            raise LocalProblem("Expected an API key of plain letters, digits and signs. Copy the key again.")
        if isinstance(verify, str) and not Path(verify).exists():
            raise LocalProblem(
                f"Expected certificates to trust in '{verify}', but there is no such file. Correct the path."
            )
        self._auth = _Bearer(key) if key else None
        self._session = session
        self._verify = verify

    def get_json(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """GET a JSON answer."""
        with self.send("GET", path, query=query) as response:
            return self.read_json(response)

    def read_json(self, response: requests.Response) -> object:
        """Return the decoded JSON of an answer whose body is still unread; raises what its two steps do."""
        return self.decode_json(self.read_all(response), response)

    @contextmanager
    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        form: Mapping[str, str] | None = None,
        upload: MultipartUpload | None = None,
        read: float | None = None,
    ) -> Iterator[requests.Response]:
        """Send a request and give the successful answer, its body still unread.

        Args:
            method: HTTP method. A GET is sent once more if the connection is cut before an answer; nothing else is.
            path: Path below the server's address, quoted.
            query: Query parameters, not quoted.
            body: Sent as JSON unless None.
            form: Sent as a form.
            upload: Sent as multipart form.
            read: Seconds to wait for (the next byte of) the answer, by default `timeouts.read`.

        Raises:
            ClientError: Any of its subclasses, see the module `errors`.
        """
        wait = self.timeouts.read if read is None else read
        headers = {"Connection": "close", "Accept-Encoding": "identity"}
        data: object = form
        if upload is not None:
            headers["Content-Type"] = upload.content_type
            data = upload

        def attempt() -> requests.Response:
            with self._translated(method, path, wait):
                return self._session.request(
                    method,
                    self.url + path,
                    params=query,
                    json=body,  # type: ignore[arg-type]
                    data=data,  # type: ignore[arg-type]
                    headers=headers,
                    auth=self._auth,
                    timeout=(self.timeouts.connect if upload is None else self.timeouts.send, wait),
                    allow_redirects=False,
                    stream=True,
                    verify=self._verify,
                )

        response = None
        if method == "GET":
            try:
                response = attempt()
            except ConnectionCut:
                response = None
        if response is None:
            response = attempt()
        with response:
            self._check(response)
            yield response

    def read_all(self, response: requests.Response, watch: Watch | None = None) -> bytes:
        """Return the whole body.

        Raises:
            ServerTimeout: It stopped coming.
            BadAnswer: It ended early.
            Cancelled: It is no longer wanted.
        """
        return b"".join(self._blocks(response, watch or Watch()))

    def save(self, response: requests.Response, part: Path, watch: Watch | None = None) -> None:
        """Write the whole body to a file; raises what `read_all` does."""
        with part.open("xb") as stream:
            for block in self._blocks(response, watch or Watch()):
                stream.write(block)

    def decode_json(self, content: bytes, response: requests.Response) -> object:
        """Return the decoded JSON of a body.

        Raises:
            BadAnswer: It is a web page or otherwise no JSON.
        """
        try:
            return json.loads(content)
        except ValueError as error:
            raise BadAnswer(
                f"Expected JSON from {response.url}, got {describe_body(content, response)}. "
                "Check that the address is that of a MONAI Label server and not of a web page or proxy."
            ) from error

    def _blocks(self, response: requests.Response, watch: Watch) -> Iterator[bytes]:
        path = urlsplit(response.url).path
        length = response.headers.get("Content-Length", "")
        announced = int(length) if length.isdigit() else None
        blocks, done = response.iter_content(_BLOCK), 0
        while True:
            watch.ask()
            with self._translated("GET", path, self.timeouts.transfer, in_body=True):
                block = next(blocks, b"")
            if not block:
                break
            done += len(block)
            watch.tell(done, announced)
            yield block
        came = response.raw.tell()  # bytes on the wire; urllib3 before 2.0 does not compare them itself
        if announced is not None and came != announced:
            raise BadAnswer(cut_message(path, f"{came} of {announced} bytes came"))

    @contextmanager
    def _translated(self, method: str, path: str, wait: float, in_body: bool = False) -> Iterator[None]:
        """Raise an error of ours for each error of requests."""
        try:
            yield
        except requests.RequestException as error:
            raise error_of_exception(error, self.url, f"{method} {path}", wait, in_body) from error

    def _check(self, response: requests.Response) -> None:
        """Raise the error that the status stands for."""
        if 200 <= response.status_code < 300:
            return
        method, path = response.request.method or "", urlsplit(response.url).path
        with self._translated(method, path, self.timeouts.read, in_body=True):
            content = next(response.iter_content(_BLOCK), b"")
        raise error_of_status(response, self.url, f"{method} {path}", content)
