"""The segmentations that run or wait now, to be seen and cancelled, and the second volumes of those that ended."""

from __future__ import annotations

import tempfile
import threading
import time
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import ConflictError, ForbiddenError, NotFoundError
from lib.lanes.inference import Turn
from lib.paths import utc_now

__all__ = ["RunningRequest", "RunningRequests"]

KEPT_MAPS = 20
KEPT_SECONDS = 1800.0


@dataclass
class RunningRequest:
    """A segmentation that runs, or waits until it may.

    Attributes:
        id: its name, by which it can be cancelled.
        model: name of the model.
        image: id of the image; ``"upload"`` for one that came with the request.
        user: who asked, if known.
        started: time in UTC.
        waits: its place in the lane, while it waits.
    """

    id: str
    model: str
    image: str
    user: str | None
    started: str = field(default_factory=utc_now)
    waits: Turn | None = None
    _cancelled: threading.Event = field(default_factory=threading.Event)

    def cancelled(self) -> bool:
        """Return whether it is no longer wanted; asked all the time while it runs."""
        return self._cancelled.is_set()

    def cancel(self) -> None:
        """Make it end, or lose its place."""
        self._cancelled.set()
        if self.waits:
            self.waits.cancel()

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "id": self.id,
            "model": self.model,
            "image": self.image,
            "user": self.user,
            "started": self.started,
            "state": "cancelling" if self._cancelled.is_set() else "waiting" if self.waits else "running",
        }


class RunningRequests:
    """All of them, and what they leave for their clients to fetch."""

    def __init__(self) -> None:
        self._guard = threading.Lock()
        self._running: dict[str, RunningRequest] = {}
        self._maps: OrderedDict[str, tuple[float, Path]] = OrderedDict()
        self._folder: Path | None = None

    @contextmanager
    def running(
        self, request_id: str, model: str, image: str, user: str | None, gone: threading.Event | None = None
    ) -> Iterator[RunningRequest]:
        """List a request for as long as it runs; ``gone`` is set when its client has gone away.

        Raises:
            ConflictError: if one of that name runs.
        """
        with self._listed(
            RunningRequest(request_id, model, image, user, _cancelled=gone or threading.Event())
        ) as request:
            yield request

    @contextmanager
    def waiting(self, request_id: str, model: str, image: str, user: str | None, turn: Turn) -> Iterator[None]:
        """List a request for as long as it waits; raises as :meth:`running`."""
        with self._listed(RunningRequest(request_id, model, image, user, waits=turn)):
            yield

    @contextmanager
    def _listed(self, request: RunningRequest) -> Iterator[RunningRequest]:
        with self._guard:
            if request.id in self._running:
                raise ConflictError(f"A request named {request.id!r} is running already. Choose another name.")
            self._running[request.id] = request
        try:
            yield request
        finally:
            with self._guard:
                del self._running[request.id]

    def all(self) -> list[dict[str, Any]]:
        """Return those that run or wait, oldest first."""
        with self._guard:
            return [request.to_dict() for request in self._running.values()]

    def cancel(self, request_id: str, by: str | None = None) -> dict[str, Any]:
        """Cancel one.

        Args:
            request_id: its name.
            by: who wants that; None for whoever may cancel all.

        Raises:
            NotFoundError: where there is none of that name.
            ForbiddenError: if it is another's.
        """
        with self._guard:
            request = self._running.get(request_id)
        if request is None:
            raise NotFoundError(f"No request named {request_id[:200]!r} is running. It may have ended.")
        if by is not None and request.user != by:
            raise ForbiddenError("That segmentation is another user's. Only an administrator may cancel it.")
        request.cancel()
        return request.to_dict()

    def cancel_all(self) -> None:
        """Cancel those that run or wait."""
        with self._guard:
            requests = list(self._running.values())
        for request in requests:
            request.cancel()

    # Second volumes -------------------------------------------------------------------------------------------

    def new_map(self, request_id: str) -> Path:
        """Return where a request may write its second volume."""
        with self._guard:
            if self._folder is None:
                # Below the process's folder for uploads, which goes with the process, and out of reach of clients.
                self._folder = Path(tempfile.mkdtemp(prefix="maps-"))
            return self._folder / f"{request_id}.nii.gz"

    def keep_map(self, request_id: str, file: Path) -> None:
        """Keep a second volume for half an hour; of more than twenty the oldest goes."""
        with self._guard:
            self._maps.pop(request_id, None)
            self._maps[request_id] = (time.monotonic(), file)
            self._drop_old()

    def map_file(self, request_id: str) -> Path:
        """Return the second volume of a request; NotFoundError where there is none, or none any more."""
        with self._guard:
            self._drop_old()
            if request_id not in self._maps or not self._maps[request_id][1].exists():
                raise NotFoundError(
                    f"There is no uncertainty map of request {request_id[:200]!r}. Maps are made where they are asked "
                    f"for, and kept for {KEPT_SECONDS / 60:g} minutes: segment the image again."
                )
            return self._maps[request_id][1]

    def _drop_old(self) -> None:
        while self._maps:
            request_id, (made, file) = next(iter(self._maps.items()))
            if len(self._maps) <= KEPT_MAPS and time.monotonic() - made < KEPT_SECONDS:
                return
            del self._maps[request_id]
            file.unlink(missing_ok=True)
