"""A server on this computer that misbehaves on request.

It is a real HTTP server on a free port, because what the client has to survive (slow, cut, closed and garbled
connections) happens below the level at which a mocked session could show it.
"""

from __future__ import annotations

import contextlib
import json
import socket
import struct
import threading
import time
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from urllib.parse import parse_qsl, unquote, urlsplit

__all__ = ["INFO", "STATUS", "Answer", "FakeServer", "Received"]

INFO = {
    "name": "Rep3D Label",
    "description": "Large-kernel segmentation",
    "version": "0.1.0",
    "labels": ["Anterior", "Posterior"],
    "models": {"rep3d": {"type": "segmentation", "description": "Rep3D", "labels": {"Anterior": 1, "Posterior": 2}}},
    "trainers": {"rep3d": {"description": "Trains Rep3D"}},
    "strategies": {"random": {"description": "Random"}, "uncertainty": {"description": "Most uncertain first"}},
    "scoring": {"uncertainty": {"description": "Mean entropy"}},
    "datastore": {"total": 12, "completed": 3, "label_tags": {"final": 3, "original": 5}},
    "rep3d": {"labels": {"Posterior": 2, "Anterior": 1}, "version": "7", "device": "cpu"},
}

STATUS = {
    "server": {"version": "0.1.0"},
    "cases": {"total": 12, "labelled": 3, "stamp": "s"},
    "default_model": "rep3d",
    "models": {"rep3d": {"version": "7"}},
}


@dataclass
class Answer:
    """What to answer.

    Attributes:
        content: The body; a value that is not bytes is sent as JSON.
        status, headers: As in HTTP.
        delay: Seconds to wait before the answer.
        until: An event to wait for before the answer.
        cut_after: Close the connection after this many bytes of the body, although all are announced.
        announce: Whether to announce the length of the body.
        raw: Bytes to send instead of an HTTP answer.
        reset: Reset the connection instead of answering.
        pause: Seconds to stop in the middle of the body.
    """

    content: object = b""
    status: int = 200
    headers: dict[str, str] = field(default_factory=dict)
    delay: float = 0.0
    until: threading.Event | None = None
    cut_after: int | None = None
    announce: bool = True
    raw: bytes | None = None
    reset: bool = False
    pause: float = 0.0


@dataclass
class Received:
    """A request as it arrived: path and query are decoded, `target` is the request line's own."""

    method: str
    path: str
    query: dict[str, str]
    headers: dict[str, str]
    body: bytes
    target: str


class FakeServer:
    """The server: `answers` holds what to answer to a method and path, one after the other, the last for ever."""

    def __init__(self) -> None:
        self.answers: dict[tuple[str, str], list[Answer]] = {}
        self.received: list[Received] = []
        self.hold = 0.0  # seconds before a request's body is read
        self.on("GET", "/info/", INFO)
        self.on("GET", "/rep3d/status", STATUS)
        fake = self

        class Handler(BaseHTTPRequestHandler):
            def handle_any(self) -> None:
                fake.handle(self)

            do_GET = do_POST = do_PUT = do_DELETE = handle_any

            def log_message(self, format: str, *args: object) -> None:
                """Be quiet."""

        self.http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.http.daemon_threads = True
        self.http.block_on_close = False  # a slow answer that nobody waits for must not hold up the tests
        self.url = f"http://127.0.0.1:{self.http.server_port}"
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def on(self, method: str, path: str, content: object = b"", **how: object) -> None:
        """Answer this from now on; see `Answer`."""
        self.answers[(method, path)] = [Answer(content, **how)]  # type: ignore[arg-type]

    def then(self, method: str, path: str, content: object = b"", **how: object) -> None:
        """Answer this after what was to be answered so far."""
        self.answers.setdefault((method, path), []).append(Answer(content, **how))  # type: ignore[arg-type]

    def stats(self, stats: dict[str, object]) -> None:
        """Let the server report these numbers about its latest training."""
        self.on("GET", "/rep3d/status", {**STATUS, "models": {"rep3d": {"version": "7", "training": stats}}})

    def place(self, path: str) -> str:
        """Return the path under which the answers to a request are."""
        return path

    def requests_to(self, path: str) -> list[Received]:
        """Return what arrived for a path."""
        return [request for request in self.received if request.path == path]

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        parts = urlsplit(handler.path)
        path = unquote(parts.path)
        time.sleep(self.hold)
        body = handler.rfile.read(int(handler.headers.get("Content-Length", 0)))
        query = dict(parse_qsl(parts.query, keep_blank_values=True))
        headers = {key.lower(): value for key, value in handler.headers.items()}
        self.received.append(Received(handler.command, path, query, headers, body, handler.path))
        queue = self.answers.get((handler.command, self.place(path))) or [Answer({"detail": "Not Found"}, 404)]
        answer = queue.pop(0) if len(queue) > 1 else queue[0]
        handler.close_connection = True
        time.sleep(answer.delay)
        if answer.until is not None:
            answer.until.wait()
        with contextlib.suppress(OSError):  # the client gave up, as some tests want it to
            self.reply(handler, answer)

    def reply(self, handler: BaseHTTPRequestHandler, answer: Answer) -> None:
        if answer.reset:
            handler.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
            handler.connection.close()
            return
        if answer.raw is not None:
            handler.wfile.write(answer.raw)
            return
        content, headers = answer.content, dict(answer.headers)
        if not isinstance(content, bytes):
            content = json.dumps(content).encode()
            headers.setdefault("Content-Type", "application/json")
        handler.send_response(answer.status)
        for key, value in headers.items():
            handler.send_header(key, value)
        if answer.announce:
            handler.send_header("Content-Length", str(len(content)))
        handler.end_headers()
        content = content[: answer.cut_after]
        half = len(content) // 2 if answer.pause else len(content)
        handler.wfile.write(content[:half])
        handler.wfile.flush()
        time.sleep(answer.pause)
        handler.wfile.write(content[half:])
