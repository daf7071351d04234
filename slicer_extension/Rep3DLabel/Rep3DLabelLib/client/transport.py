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
from .transfers import FileBody, Watch
from .voxels import MEDIA_TYPE, Voxels, receive

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

    Attributes:
        url: The server's address as used.
        timeouts: Time limits.
        packs: Whether voxels are compressed on their way.

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
        host = urlsplit(self.url).hostname or ""
        here = host in ("localhost", "::1") or host.startswith("127.")
        self.packs = not here  # on one computer, compressing takes longer than it saves
        if session is None:
            session = requests.Session()
            session.trust_env = not here
        key = (api_key or "").strip()
        if key and not re.fullmatch(r"[\x21-\x7e]+", key):
            raise LocalProblem(
                "This cannot be an API key: keys have plain letters, digits and signs only. Copy the key again."
            )
        if isinstance(verify, str) and not Path(verify).exists():
            raise LocalProblem(f"There is no file '{verify}' with certificates to trust. Correct the path.")
        self._auth = _Bearer(key) if key else None
        self._session = session
        self._verify = verify

    def get_json(self, path: str, query: Mapping[str, str] | None = None) -> object:
        """GET a JSON answer."""
        with self.send("GET", path, query=query) as response:
            return self.read_json(response)

    def read_json(self, response: requests.Response) -> object:
        """Return the decoded JSON of an answer whose body is still unread.

        Raises:
            ServerTimeout: It stopped coming.
            BadAnswer: It ended early, or is a web page or otherwise no JSON.
        """
        content = b"".join(self._blocks(response, Watch()))
        try:
            return json.loads(content)
        except ValueError as error:
            raise BadAnswer(
                f"{response.url} answers with {describe_body(content, response)}, which no Rep3D Label server does. "
                "Check that the address is that of the server and not of a web page or proxy."
            ) from error

    @contextmanager
    def send(
        self,
        method: str,
        path: str,
        query: Mapping[str, str] | None = None,
        body: Mapping[str, object] | None = None,
        upload: FileBody | None = None,
        read: float | None = None,
    ) -> Iterator[requests.Response]:
        """Send a request and give the successful answer, its body still unread.

        Args:
            method: HTTP method. A GET is sent once more if the connection is cut before an answer; nothing else is.
            path: Path below the server's address, quoted.
            query: Query parameters, not quoted.
            body: Sent as JSON unless None.
            upload: Sent as it is, block by block.
            read: Seconds to wait for (the next byte of) the answer, by default `timeouts.read`.

        Raises:
            ClientError: Any of its subclasses, see the module `errors`.
        """
        wait = self.timeouts.read if read is None else read
        packs = self.packs and path.startswith("/rep3d/voxels/")
        headers = {"Connection": "close", "Accept-Encoding": "gzip" if packs else "identity"}
        if upload is not None:
            headers.update(upload.headers)

        def attempt() -> requests.Response:
            with self._translated(method, path, wait):
                return self._session.request(
                    method,
                    self.url + path,
                    params=query,
                    json=body,  # type: ignore[arg-type]
                    data=upload,
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

    def receive(
        self, response: requests.Response, folder: str | Path, watch: Watch
    ) -> tuple[dict[str, Voxels], dict[str, object]]:
        """Write the arrays of an answer to files in a folder, see `voxels.receive`.

        Raises:
            ServerTimeout: They stopped coming.
            BadAnswer: They are cut or damaged, or it is another answer.
            Cancelled: They are no longer wanted.
        """
        blocks = self._blocks(response, watch)
        if MEDIA_TYPE not in response.headers.get("Content-Type", ""):
            content = next(blocks, b"")
            raise BadAnswer(
                f"{response.url} answers with {describe_body(content, response)} instead of voxels. Check that the "
                "address leads to the server and not to a web page or proxy, and that both are of the same release."
            )
        return receive(blocks, Path(folder), watch)

    def _blocks(self, response: requests.Response, watch: Watch) -> Iterator[bytes]:
        path = urlsplit(response.url).path
        length = response.headers.get("Content-Length", "")
        announced = int(length) if length.isdigit() else None
        blocks = response.iter_content(_BLOCK)
        while True:
            watch.ask()
            with self._translated("GET", path, self.timeouts.transfer, in_body=True):
                block = next(blocks, b"")
            if not block:
                break
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
