"""A job in the helper process: what it was asked, how it tells how far it is, and how it is stopped."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..client.client import Rep3DClient, Timeouts
from ..connection import FAILED, report_of_error
from ..errors import BadAnswer, Cancelled, ClientError, LocalProblem

__all__ = ["Task", "failure_of"]

_TELL_SECONDS = 0.1
_CANCEL_TRIES = 20
_CANCEL_SECONDS = 0.5


class _Clients:
    """One client per server and user: a client remembers which training it started."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._made: dict[tuple[object, ...], Rep3DClient] = {}

    def get(self, server: Mapping[str, Any]) -> Rep3DClient:
        times = server.get("timeouts") or {}
        key = (*(str(server.get(name)) for name in ("url", "api_key", "verify", "client_id")), *sorted(times.items()))
        with self._lock:
            if key not in self._made:
                self._made[key] = Rep3DClient(
                    str(server.get("url") or ""),
                    api_key=server.get("api_key") or None,
                    timeouts=Timeouts(**times),
                    verify=server.get("verify", True),
                    client_id=server.get("client_id") or None,
                )
            return self._made[key]


_clients = _Clients()


class Task:
    """A job.

    Args:
        id, op: Of the job.
        server: "url", "api_key", "verify", "client_id"; "timeouts" where they are not the client's own.
        args: Of the operation.
        write: Takes what is to be told.
        folder: For files that the operation needs for itself.
    """

    def __init__(
        self,
        id: int,
        op: str,
        server: Mapping[str, Any],
        args: Mapping[str, Any],
        write: Callable[[Mapping[str, Any]], None],
        folder: Path,
    ) -> None:
        self.id, self.op, self.args, self.folder = id, op, args, folder
        self._server, self._write = server, write
        self._stopped = threading.Event()
        self._ended = threading.Event()
        self._request = ""
        self._told: tuple[str, float] = ("", 0.0)

    @property
    def client(self) -> Rep3DClient:
        """The client of the server that was named.

        Raises:
            ClientError: The address, the key or the certificates cannot be such.
        """
        return _clients.get(self._server)

    # ---- how far it is

    def tell(self, stage: str, done: int = 0, total: int | None = None) -> None:
        """Tell how far it is: at once when a stage begins, else ten times a second."""
        now = time.monotonic()
        before, when = self._told
        if stage != before or now - when >= _TELL_SECONDS:
            self._told = (stage, now)
            self._write({"id": self.id, "progress": {"stage": stage, "done": done, "total": total}})

    def teller(self, stage: str, stoppable: bool = True) -> Callable[[int, int | None], None]:
        """Return a function that tells how far a stage is, and stops the job if it is not wanted any more."""

        def tell(done: int, total: int | None) -> None:
            if stoppable:
                self.check()
            self.tell(stage, done, total)

        return tell

    # ---- stopping it

    def stop(self) -> bool:
        """Return whether nobody wants the result any more."""
        return self._stopped.is_set()

    def check(self) -> None:
        """Go on only if the result is still wanted.

        Raises:
            Cancelled: It is not.
        """
        if self.stop():
            raise Cancelled("Stopped on request.")

    def computes(self, request_id: str) -> None:
        """Remember that the server computes something under this name, to be cancelled there with the job."""
        self.check()
        self._request = request_id

    def ended(self) -> None:
        """Note that the server has answered: there is nothing to cancel any more."""
        self._ended.set()

    def cancel(self) -> list[threading.Thread]:
        """Stop it: return the threads that tell the server so."""
        self._stopped.set()
        if not self._request or self._ended.is_set():
            return []
        thread = threading.Thread(target=self._cancel_there, daemon=True)
        thread.start()
        return [thread]

    def _cancel_there(self) -> None:
        for _ in range(_CANCEL_TRIES):  # the request may still be on its way
            try:
                if self.client.cancel(self._request):
                    return
            except ClientError:
                pass  # nobody wants the result, nor to know
            if self._ended.wait(_CANCEL_SECONDS):
                return


def failure_of(error: Exception) -> tuple[dict[str, Any], bool]:
    """Return an error as it is told, and whether it is a mistake of ours, whose traceback belongs in the log."""
    if isinstance(error, OSError):
        error = LocalProblem(f"A file cannot be used: {error}. Check free space and permissions.")
    elif isinstance(error, MemoryError):
        error = LocalProblem("There is not enough memory for this image. Close other programs, and try again.")
    if not isinstance(error, ClientError):
        message = f"The module made a mistake ({type(error).__name__}: {error}). Its log says more."
        return {"kind": "InternalError", "message": message, "status": None, "detail": "", "state": FAILED}, True
    # One answer that cannot be used, such as a cut download, does not make the server another program.
    one_answer = isinstance(error, BadAnswer)
    return {
        "kind": type(error).__name__,
        "message": str(error),
        "status": getattr(error, "status", None),
        "detail": getattr(error, "detail", ""),
        "state": FAILED if one_answer else report_of_error(error).state,
    }, False
