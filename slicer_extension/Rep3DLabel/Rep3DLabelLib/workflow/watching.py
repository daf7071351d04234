"""What goes on at the server, as far as the user sees it: training, versions, cases, batch segmentation.

The server is asked every two seconds while something runs there, else every ten; one question at a time, so that a
slow server is not asked faster than it answers.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..i18n import tr
from ..view import ERROR, INFO, WARNING, BatchView, TrainingView
from ..worker.jobs import JobError
from .desk import Desk
from .telling import batch_view, case_rows, training_view, version_rows

__all__ = ["Watching"]

_BUSY_SECONDS, _QUIET_SECONDS = 2.0, 10.0


class Watching:
    """Training, versions, cases and batch segmentation of the chosen model."""

    def __init__(self, desk: Desk) -> None:
        self._desk = desk
        self._asked = False
        self._next = 0.0
        self._stamps: dict[str, str] = {}
        self._wants_cases = False
        self._last_training = ""  # state of the latest answer
        self._model = ""
        self._under_way: set[str] = set()  # what the server was asked to change and has not answered yet

    # ---- polling

    def tick(self) -> None:
        """Ask the server how it goes, when it is time to."""
        desk = self._desk
        if not desk.view.connection.usable or self._asked or desk.clock() < self._next:
            return
        if not desk.view.model:
            return
        self._asked = True
        model = desk.view.model

        def done(value: Mapping[str, Any]) -> None:
            self._heard()
            if model == desk.view.model:
                self._show(model, value)

        def failed(error: JobError) -> None:
            self._heard()
            desk.note_connection(error)

        desk.call("overview", {"model": model}, done, failed)

    def soon(self) -> None:
        """Ask at the next tick: something has changed."""
        self._next = 0.0

    def forget(self) -> None:
        """Another server or model: what is known is of no use."""
        self._stamps.clear()
        self._last_training = ""
        self.soon()
        self._desk.update(training=TrainingView(), versions=(), cases=(), batch=BatchView())
        if self._wants_cases:
            self._read_cases()

    def _heard(self) -> None:
        self._asked = False
        view = self._desk.view
        active = view.training.is_active or view.batch.is_active
        self._next = self._desk.clock() + (_BUSY_SECONDS if active else _QUIET_SECONDS)

    def _show(self, model: str, value: Mapping[str, Any]) -> None:
        desk = self._desk
        training, batch = training_view(value["train"]), batch_view(value.get("batch") or {})
        ended = self._last_training in ("submitted", "running") and not training.is_active
        batch_before = desk.view.batch
        self._last_training = training.state
        version = str(value.get("version") or "")
        models = tuple(
            replace(known, version=version, error=known.error if version == known.version else "")
            if known.name == model
            else known
            for known in desk.view.models
        )
        published_before = next((known.version for known in desk.view.models if known.name == model), "")
        desk.update(
            training=training,
            batch=batch,
            models=models,
            total=int(value.get("total") or 0),
            completed=int(value.get("completed") or 0),
        )
        if training.losses and desk.view.training.is_active:
            desk.scene.show_curves(training.losses, training.validations)
        endings = [self._training_end(training, version, published_before)] if ended else []
        if batch_before.is_active and not batch.is_active:
            endings.append(_batch_end(batch, batch_before))
        if endings:
            level = next((word for word in (ERROR, WARNING) if any(word == worst for worst, _ in endings)), INFO)
            desk.say(level, " ".join(text for _, text in endings))
        elif version and published_before and version != published_before:
            desk.say(INFO, tr("Version {version} is in use now.").format(version=version))
        if ended or self._changed("versions", value.get("versions_stamp")):
            self.read_versions()
        if self._changed("cases", value.get("cases_stamp")) and self._wants_cases:
            self._read_cases()
        if training.is_active or batch.is_active:
            self._next = min(self._next, desk.clock() + _BUSY_SECONDS)

    def _changed(self, what: str, stamp: Any) -> bool:
        known, now = self._stamps.get(what), str(stamp)
        self._stamps[what] = now
        return known != now

    def _training_end(self, training: TrainingView, version: str, before: str) -> tuple[str, str]:
        """Return level and words about a training that has ended."""
        if training.losses:
            self._desk.scene.show_curves(training.losses, training.validations)
        if training.state == "error":
            return ERROR, tr("The training failed: {why}").format(why=training.error)
        if training.state == "idle":  # the server has been started again, and knows of none
            why = training.error or tr("The server was restarted while it trained.")
            return WARNING, tr("The training was interrupted: {why} Press Train to train again.").format(why=why)
        if training.state == "done":
            used = tr(" It is in use now.") if version != before else tr(" The version in use stays {version}.")
            return INFO, training.headline + used.format(version=version or tr("none"))
        return INFO, training.headline

    # ---- commands

    def train(self, settings: Mapping[str, object]) -> None:
        """Start a training."""
        desk = self._desk
        if desk.refused("train"):
            return
        wanted = dict(settings)
        if desk.view.options.device:
            wanted.setdefault("device", desk.view.options.device)
        # At once, so that a second click meets a training that runs.
        desk.update(training=TrainingView(state="submitted", headline=tr("Starting")))
        self._last_training = "submitted"

        def done(value: Mapping[str, Any]) -> None:
            desk.say(INFO, tr("The training has begun. You can go on segmenting meanwhile."))
            self.soon()

        def failed(error: JobError) -> None:
            self._last_training = ""
            desk.update(training=TrainingView(state="error", headline=tr("Not started."), error=error.message))
            desk.note_connection(error)
            desk.say(ERROR, error.message)
            self.soon()

        desk.call("train_start", {"model": desk.view.model, "settings": wanted}, done, failed)

    def stop_training(self) -> None:
        """Stop the training."""
        desk = self._desk
        if desk.refused("stop_training"):
            return
        desk.update(training=replace(desk.view.training, headline=tr("Stopping")))
        self._do("train_stop", {}, lambda value: self.soon())

    def publish(self, version: str) -> None:
        """Put a version into use."""
        if not self._desk.refused("publish"):
            args = {"model": self._desk.view.model, "version": version, "reason": tr("published from 3D Slicer")}
            self._do("publish", args, self._published)

    def roll_back(self) -> None:
        """Put the version that was in use before back into use."""
        if not self._desk.refused("roll_back"):
            args = {"model": self._desk.view.model, "reason": tr("rolled back from 3D Slicer")}
            self._do("roll_back", args, self._published)

    def _published(self, record: Mapping[str, Any]) -> None:
        self._desk.say(INFO, tr("Version {version} is in use now.").format(version=record.get("version", "?")))
        self.read_versions()
        self.soon()

    def read_versions(self) -> None:
        """List the versions anew."""
        desk = self._desk
        model = desk.view.model

        def done(answer: Mapping[str, Any]) -> None:
            if model == desk.view.model:
                desk.update(versions=version_rows(answer))

        desk.background("versions", {"model": model}, done)

    def start_batch(self) -> None:
        """Segment all images that have no label."""
        desk = self._desk
        if desk.refused("start_batch"):
            return
        desk.update(batch=BatchView("running", 0, 0, 0, tr("Starting")))

        def failed(error: JobError) -> None:
            desk.update(batch=BatchView())
            desk.note_connection(error)
            desk.say(ERROR, error.message)
            self.soon()  # it may have been started all the same

        args = {"model": desk.view.model, "images": "unlabeled", "views": desk.view.options.views}
        desk.call("batch_start", args, self._batch, failed)

    def stop_batch(self) -> None:
        """Stop segmenting them."""
        if not self._desk.refused("stop_batch"):
            self._do("batch_stop", {"model": self._desk.view.model}, self._batch)

    def _batch(self, state: Mapping[str, Any]) -> None:
        self._desk.update(batch=batch_view(state))
        self.soon()

    def refresh_cases(self) -> None:
        """List the cases, and keep the list true from now on."""
        if not self._desk.refused("refresh_cases"):
            self._wants_cases = True
            self._read_cases(self._do)

    def _read_cases(self, ask: Callable[[str, Mapping[str, object], Any], None] | None = None) -> None:
        desk = self._desk
        model = desk.view.model

        def done(answer: Mapping[str, Any]) -> None:
            if model == desk.view.model:
                desk.update(cases=case_rows(answer["cases"]))

        (ask or desk.background)("cases", {"model": model}, done)

    def history(self, image_id: str, done: Callable[[list[Mapping[str, Any]]], None]) -> None:
        """Call `done` with the labels of a case, the current one first."""
        self._do("history", {"image_id": image_id}, lambda answer: done(list(answer["entries"])))

    def restore_label(self, image_id: str, entry: str, done: Callable[[], None]) -> None:
        """Make an earlier label the current one; the present one goes into the history."""

        def restored(answer: Mapping[str, Any]) -> None:
            self.soon()
            done()

        self._do("restore", {"image_id": image_id, "entry": entry}, restored)

    def _do(self, op: str, args: Mapping[str, object], done: Any) -> None:
        """Have the worker do something that is no activity of the foreground, once at a time; say what goes wrong."""
        desk = self._desk
        if op in self._under_way:  # a second click
            return
        self._under_way.add(op)

        def answered(value: Any) -> None:
            self._under_way.discard(op)
            done(value)

        def failed(error: JobError) -> None:
            self._under_way.discard(op)
            desk.note_connection(error)
            desk.say(ERROR, error.message)
            self.soon()

        desk.call(op, args, answered, failed)


def _batch_end(batch: BatchView, before: BatchView) -> tuple[str, str]:
    """Return level and words about a batch segmentation that has ended, and that was as it was `before`."""
    if not batch.phase:  # the server has been started again, and knows of none
        return WARNING, tr("The batch segmentation was interrupted: the server was restarted. Start it again to go on.")
    words = tr("Batch: {done} of {total} segmented").format(done=batch.done, total=batch.total)
    if batch.failed:
        words += tr(", {count} failed").format(count=batch.failed)
    unasked = batch.phase == "stopped" and before.phase == "running"  # the server ended, or somebody else stopped it
    level = WARNING if batch.failed or batch.phase == "error" or unasked else INFO
    return level, f"{words}: {batch.text}" if batch.text else f"{words}."
