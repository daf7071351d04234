"""What the parts of the workflow share: the view, the worker, the foreground activity, the case in hand.

Whatever goes wrong ends in one place, `Context.fail`: the activity is over, the connection's state is what the error
says, and the user is told. So no button stays grey after a failure.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, replace
from datetime import datetime
from pathlib import Path
from typing import Any

from ..client.answers import ServerInfo
from ..connection import FAILED, NOT_ALLOWED, READY, UNREACHABLE, UNTRUSTED, WRONG_APP
from ..drafts import Draft, Drafts
from ..errors import ClientError
from ..i18n import tr
from ..images.files import VolumeFile
from ..images.peaks import Peak
from ..labels import Label, SegmentName
from ..ports import Screen
from ..settings import Settings
from ..view import ERROR, INFO, WARNING, Activity, ConnectionView, Message, View
from ..worker.jobs import Job, JobError, Worker
from . import rules

__all__ = ["Context", "Work", "local_time"]

# What an error says about the connection itself; other errors are about one request.
_CONNECTION_LOST = frozenset((UNREACHABLE, UNTRUSTED, NOT_ALLOWED, WRONG_APP))
# Errors about one request that another program at the address would give as well: ask who is there.
_DOUBTFUL = frozenset(("BadAnswer", "NotFoundError", "ServerFailed"))


@dataclass
class Work:
    """The case in hand.

    Attributes:
        image_id, name: As the server calls the image.
        grid: Its voxels, and where they are.
        volume, segmentation: MRML nodes.
        entries: Labels of the model.
        labels: All label names of the server -> voxel value.
        model: The model that the entries are of.
        draft: Where edits are kept; a new one for each stretch of work.
        revision: Number of edits so far.
        kept: Revision that the draft on disk has.
        kept_in: Key of that draft.
        sent: Revision that the server has.
        version: Version of the model whose segmentation is being corrected, "" if none.
        changed_at: Clock at the first edit that is not kept, and at the latest edit.
        peaks: The most uncertain places.
    """

    image_id: str
    name: str
    grid: VolumeFile
    volume: Any
    segmentation: Any
    entries: tuple[Label, ...]
    labels: Mapping[str, int]
    model: str
    draft: Draft
    revision: int = 0
    kept: int = 0
    kept_in: str = ""
    sent: int = 0
    version: str = ""
    changed_at: tuple[float, float] = (0.0, 0.0)
    peaks: tuple[Peak, ...] = ()

    def draft_as_label(
        self, path: Path, values: Mapping[str, int], segments: Iterable[SegmentName]
    ) -> dict[str, object]:
        """Return what the worker needs to know to make a label map of a draft.

        Args:
            path: The draft.
            values: Segment id -> voxel value.
            segments: All, in the order of the list; where they overlap, the first one keeps the voxel.
        """
        return {
            "draft": str(path),
            "values": dict(values),
            "priority": [segment.id for segment in segments],
            "shape": self.grid.shape,
            "affine": self.grid.affine,
        }

    @property
    def edited(self) -> bool:
        """Whether there are edits that the server does not have."""
        return self.revision > self.sent


class Context:
    """Shared state.

    Args:
        worker: Does what would block.
        scene: Slicer's scene.
        screen: The user interface.
        drafts: Unsent work.
        settings: What is remembered.
        folder: For the session's working files; its maker removes it.
        clock: Monotonic seconds.
        now: Local time.
    """

    def __init__(
        self,
        worker: Worker,
        scene: Any,
        screen: Screen,
        drafts: Drafts,
        settings: Settings,
        folder: Path,
        clock: Callable[[], float],
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self.worker, self.scene, self.screen = worker, scene, screen
        self.drafts, self.settings = drafts, settings
        self.folder, self.clock, self.now = folder, clock, now
        self.server: dict[str, object] = {}  # what requests are sent to
        self.url = ""  # its address, as it is written on drafts
        self.info: ServerInfo | None = None
        self.work: Work | None = None
        self.job: Job | None = None  # of the foreground activity, to be dropped when it is cancelled
        self.tasks: list[Callable[[], bool]] = []  # each is called once per tick until it returns True
        self.doubtful = False  # whether to find out if the server is still there
        self.news = False  # whether something has changed at the server, so that it is to be asked at the next tick
        self._under_way: set[str] = set()  # what the server was asked to do once and has not answered yet
        self._observers: list[Callable[[], None]] = []
        self._numbers = itertools.count(1)
        self.view = View(options=settings.options)
        self.update()

    # ---- what is shown

    def observe(self, callback: Callable[[], None]) -> None:
        """Have a function called after each change of the view."""
        self._observers.append(callback)

    def update(self, **changes: Any) -> None:
        """Change the view, and tell who watches it."""
        changed = replace(self.view, **changes)
        changed = replace(changed, enabled=rules.enabled(changed))
        if changed != self.view:
            self.view = changed
            for callback in self._observers:
                callback()

    def say(self, level: str, text: str) -> None:
        """Show one line."""
        self.update(message=Message(level, text, next(self._numbers)))

    def refused(self, command: str) -> bool:
        """Return whether a command cannot be used now, and tell the user why."""
        reason = self.view.enabled[command]
        if reason:
            self.say(WARNING, reason)
        return bool(reason)

    # ---- the one activity in the foreground

    def begin(self, name: str, text: str, cancellable: bool = False) -> None:
        """Start it; whoever starts it makes sure that `end` or `fail` is called."""
        self.update(activity=Activity(name, text, None, cancellable), message=Message(INFO, "", next(self._numbers)))

    def runs(self, name: str) -> bool:
        """Return whether the activity of this name goes on; it may have been cancelled, or have gone with the scene."""
        return self.view.activity is not None and self.view.activity.name == name

    def progress(self, text: str, fraction: float | None = None, cancellable: bool | None = None) -> None:
        """Say what it does now."""
        activity = self.view.activity
        if activity is not None:
            may = activity.cancellable if cancellable is None else cancellable
            self.update(activity=replace(activity, text=text, progress=fraction, cancellable=may))

    def end(self, text: str = "", level: str = INFO) -> None:
        """End it."""
        self.job = None
        self.update(activity=None)
        if text:
            self.say(level, text)

    def fail(self, error: JobError | ClientError, what: str = "") -> None:
        """End it, as it did not work; say so, and what is known of the connection now."""
        self.note_connection(error)
        message = error.message if isinstance(error, JobError) else str(error)
        self.end(f"{what} {message}".strip(), ERROR)

    def note_connection(self, error: JobError | ClientError) -> None:
        """Let the state of the connection follow an error that is about it."""
        state = getattr(error, "state", FAILED)
        self.doubtful = self.doubtful or getattr(error, "kind", "") in _DOUBTFUL
        if state in _CONNECTION_LOST and self.view.connection.state == READY:
            message = error.message if isinstance(error, JobError) else str(error)
            self.update(connection=ConnectionView(state, message, self.view.connection.url))

    # ---- what the worker does

    def call(
        self,
        op: str,
        args: Mapping[str, object],
        done: Callable[[Any], None],
        failed: Callable[[JobError], None] | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> Job:
        """Have the worker do something for the present server; a failure is told unless `failed` is given."""
        on_failure = failed or self.fail

        def finish(value: Any) -> None:
            try:
                done(value)
            except ClientError as error:
                on_failure(JobError(type(error).__name__, str(error), None, "", FAILED))
            except BaseException:  # a mistake of ours: usable again, and seen in the Python console
                self.end(
                    tr("The module made a mistake; see the Python console. Your segmentation is untouched."), ERROR
                )
                raise

        return self.worker.submit(op, {**args, "server": self.server}, finish, on_failure, progress)

    def foreground(
        self,
        op: str,
        args: Mapping[str, object],
        done: Callable[[Any], None],
        failed: Callable[[JobError], None] | None = None,
        progress: Callable[[Mapping[str, Any]], None] | None = None,
    ) -> None:
        """As `call`, as the job of the activity."""
        self.job = self.call(op, args, done, failed, progress)

    def once(self, op: str, args: Mapping[str, object], done: Callable[[Any], None] = lambda value: None) -> None:
        """As `call`, for what is no activity, once at a time: a second click is left out. Ask for news afterwards."""
        if op in self._under_way:
            return
        self._under_way.add(op)

        def answered(value: Any) -> None:
            self._under_way.discard(op)
            self.news = True
            done(value)

        def failed(error: JobError) -> None:
            self._under_way.discard(op)
            self.news = True
            self.note_connection(error)
            self.say(ERROR, error.message)

        self.call(op, args, answered, failed)

    def background(self, op: str, args: Mapping[str, object], done: Callable[[Any], None] = lambda value: None) -> Job:
        """As `call`, for what is nice to have: a failure shows in the connection's state only."""
        return self.call(op, args, done, self.note_connection)


def local_time(text: str) -> str:
    """Return an ISO time as hours and minutes here ("14:05"), with the date if it is not today; "" if it is none."""
    try:
        moment = datetime.fromisoformat(text.replace("Z", "+00:00")).astimezone()
    except (ValueError, OverflowError, OSError):  # the latter two for years that this system has no times for
        return ""
    today = datetime.now().astimezone().date()
    return moment.strftime("%H:%M" if moment.date() == today else "%Y-%m-%d %H:%M")
