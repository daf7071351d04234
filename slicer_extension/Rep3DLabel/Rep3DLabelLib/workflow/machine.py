"""The clinician's work as a state machine: what can be done now, what happens then, what is shown.

Connect, fetch the next sample, segment it, correct it, submit it, train, go on. No Qt and no Slicer in here: the scene,
the user interface and the worker are given, so that the panel in Slicer and the browser front end do the same thing and
tests can run it without either. All commands return at once; `tick` must be called about twenty times a second.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

from ..drafts import Drafts
from ..errors import ClientError
from ..i18n import tr
from ..ports import Screen
from ..settings import Settings
from ..view import ERROR, INFO, WARNING, HistoryRow, Options, View
from ..worker.jobs import Worker
from .batch import Batch
from .cases import Cases
from .connecting import Connecting
from .context import Context
from .editing import Editing
from .polling import Polling
from .sampling import Sampling
from .segmenting import Segmenting
from .submitting import Submitting
from .training import Training
from .uploading import Uploading
from .versions import Versions

__all__ = ["Workflow"]


class Workflow:
    """Everything that a user interface can ask for.

    Args:
        worker: Does what would block.
        scene: Slicer's scene.
        screen: The user interface.
        drafts: Unsent work.
        settings: What is remembered.
        folder: For the session's working files; its maker removes it at the end.
        launcher: Makes local servers, and finds one that was left running (`local.launcher`); None: there are none.
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
        launcher: Any = None,
        clock: Callable[[], float] = time.monotonic,
        now: Callable[[], datetime] = datetime.now,
    ) -> None:
        self._context = context = Context(worker, scene, screen, drafts, settings, folder, clock, now)
        self._editing = Editing(context, self._segmentation_gone)
        self._segmenting = Segmenting(context, self._editing)
        self._sampling = Sampling(context, self._editing, self._segmenting.forget, self._sample_ready)
        self._submitting = Submitting(context, self._editing, self._submitted)
        self._training, self._versions = Training(context), Versions(context)
        self._batch, self._cases = Batch(context), Cases(context)
        self._polling = Polling(context, self._training, self._versions, self._batch, self._cases)
        self._connecting = Connecting(context, self._changed_model, launcher)
        self._uploading = Uploading(context, self._editing, self._sampling.open_now)
        self._editing.list_drafts()

    @property
    def view(self) -> View:
        """What is to be shown."""
        return self._context.view

    @property
    def settings(self) -> Settings:
        """What is remembered from session to session."""
        return self._context.settings

    def observe(self, callback: Callable[[], None]) -> None:
        """Have a function called after each change of the view."""
        self._context.observe(callback)

    # ---- connection

    def connect(self, url: str, api_key: str = "", verify: bool | str = True) -> None:
        """Connect to a server, or test the connection again."""
        self._connecting.connect(url, api_key, verify)

    def disconnect(self) -> None:
        """Stop asking the server; the case in hand stays."""
        self._connecting.disconnect()

    def choose_model(self, name: str) -> None:
        """Use another model of the server from now on."""
        self._connecting.choose_model(name)

    def choose_strategy(self, name: str) -> None:
        """Have the next samples chosen in another way."""
        self._connecting.choose_strategy(name)

    def set_options(self, options: Options) -> None:
        """Change the options, and remember them."""
        self._context.settings.save_options(options)
        self._context.update(options=options)
        self._connecting.set_user()

    # ---- the case in hand

    def next_sample(self) -> None:
        """Fetch the case that would teach the model most."""
        self._sampling.next_sample()

    def open_case(self, image_id: str) -> None:
        """Fetch a certain case, with its label."""
        self._sampling.open_case(image_id)

    def auto_segment(self) -> None:
        """Have the case segmented; what was edited stays within reach."""
        self._segmenting.auto_segment()

    def submit(self) -> None:
        """Send the label."""
        self._submitting.submit()

    def cancel(self) -> None:
        """Give up what runs in the foreground."""
        context = self._context
        if context.refused("cancel") or context.view.activity is None:
            return
        name = context.view.activity.name
        if context.job is not None:
            context.worker.drop(context.job)  # which tells the server, where it computes something
        self._sampling.cancel()
        if name == "submit":
            self._submitting.cancel()
        else:
            context.end(tr("Cancelled."))

    def show_uncertainty(self, visible: bool) -> None:
        """Show or hide the uncertainty over the image."""
        self._segmenting.show_uncertainty(visible)

    def jump_to_uncertain(self) -> None:
        """Go to the next most uncertain place."""
        self._segmenting.jump_to_uncertain()

    def restore_draft(self, key: str) -> None:
        """Go on with unsent work."""
        self._sampling.restore_draft(key)

    def discard_draft(self, key: str) -> None:
        """Throw unsent work away, after a question."""
        self._editing.discard(key)

    # ---- learning

    def train(self, settings: Mapping[str, object] | None = None) -> None:
        """Start a training; one that was stopped or interrupted goes on."""
        self._training.train(settings or {})

    def train_anew(self) -> None:
        """Start a new training instead of going on with one that was stopped or interrupted."""
        self._training.train_anew()

    def stop_training(self) -> None:
        """Stop the training."""
        self._training.stop()

    def show_curves(self) -> None:
        """Show loss and Dice beside the slice views."""
        context = self._context
        if not context.refused("show_curves"):
            training = context.view.training
            context.screen.show_chart(context.scene.show_curves(training.losses, training.validations))

    def publish(self, version: str) -> None:
        """Put a version into use."""
        self._versions.publish(version)

    def roll_back(self) -> None:
        """Put the version before into use again."""
        self._versions.roll_back()

    # ---- many cases

    def start_batch(self) -> None:
        """Segment all images without a label."""
        self._batch.start()

    def stop_batch(self) -> None:
        """Stop that."""
        self._batch.stop()

    def refresh_cases(self) -> None:
        """List the cases."""
        self._cases.refresh()

    def history(self, image_id: str, done: Callable[[tuple[HistoryRow, ...]], None]) -> None:
        """Call `done` with the earlier labels of a case, the current one first."""
        self._cases.history(image_id, done)

    def restore_label(self, image_id: str, entry: str) -> None:
        """Make an earlier label of a case the current one again, and open it."""
        if not self._context.refused("restore_label"):
            self._cases.restore_label(image_id, entry, lambda: self._sampling.open_case(image_id))

    def review(self, image_id: str) -> None:
        """Record that the label of a case was reviewed, or take that back."""
        self._cases.review(image_id)

    def upload_volume(self, node: Any, image_id: str = "") -> None:
        """Add a volume of the scene to the server, and open it as a case."""
        self._uploading.upload_volume(node, image_id)

    def upload_dicom(self, folder: str) -> None:
        """Add the DICOM series of a folder to the server."""
        self._uploading.upload_dicom(folder)

    # ---- a server on this computer

    def start_local_server(self, python: str, app: str, studies: str, labels: str = "") -> None:
        """Start a server on this computer and connect to it."""
        self._connecting.start_local(python, app, studies, labels)

    def stop_local_server(self) -> None:
        """Stop it."""
        self._connecting.stop_local()

    # ---- events

    def tick(self) -> None:
        """Take what has come, and do what is due; a few milliseconds."""
        context = self._context
        context.worker.poll()
        for task in tuple(context.tasks):
            try:
                ended = task()
            except ClientError as error:
                ended = True
                context.fail(error)
            except BaseException:
                context.tasks.remove(task)
                context.end(tr("The module made a mistake; see the Python console."), ERROR)
                raise
            if ended and task in context.tasks:
                context.tasks.remove(task)
        self._editing.tick()
        self._polling.tick()
        self._connecting.tick()

    def scene_closing(self) -> None:
        """Keep what was edited: the scene is about to be closed."""
        work = self._context.work
        if work is None or not work.edited:
            return
        try:
            self._editing.keep()
        except ClientError as error:
            self._context.say(ERROR, tr("Your edits could not be kept: {why}").format(why=error))

    def scene_closed(self) -> None:
        """Note that the scene was closed: there is no case in hand any more."""
        context = self._context
        work = context.work
        self._editing.stop_saving()
        self._segmenting.forget()
        self._sampling.forget()
        self._editing.list_drafts()
        if context.view.activity is not None and context.view.activity.name != "upload_dicom":
            if context.job is not None:
                context.worker.drop(context.job)
            context.end(tr("The scene was closed, and what ran for it was stopped."))
        if work is not None and work.edited and self._editing.is_kept(work):
            context.say(WARNING, tr("Your work on {case} is kept as unsent work.").format(case=work.name))

    def views_changed(self) -> None:
        """Note that others may have changed what the views show."""
        self._segmenting.show_again()

    def shutdown(self) -> None:
        """End the session: keep edits, give an untouched case back, end the worker and the local server."""
        self.scene_closing()
        work = self._context.work
        if work is not None and not work.edited and not work.sent:
            self._context.background("release", {"image_id": work.image_id})
        self._connecting.close()
        self._context.worker.close()

    # ---- between the parts

    def _segmentation_gone(self) -> None:
        """Note that the user has taken the segmentation of the case in hand out of the scene, and with it the case."""
        context, work = self._context, self._context.work
        if work is None:
            return
        self._segmenting.forget()
        self._sampling.drop()
        if context.runs("submit") and context.job is None:  # nothing is on its way yet, and there is nobody to ask
            context.end()
        text = tr("The segmentation of {case} was removed from the scene. Open the case again to go on with it.")
        kept = self._editing.is_kept(work)
        if work.edited and kept:
            text = tr("The segmentation of {case} was removed from the scene. Your work is kept as unsent work.")
        if not work.edited or kept:
            context.say(WARNING, text.format(case=work.name))

    def _sample_ready(self) -> None:
        if self._context.view.options.auto_run and not self._context.view.enabled["auto_segment"]:
            self._segmenting.auto_segment()

    def _submitted(self) -> None:
        context, message = self._context, self._context.view.message
        context.news = True
        if context.view.options.auto_advance:
            self._sampling.next_sample()
            if context.view.activity is not None:  # what was said of the label stays to be read meanwhile
                context.say(message.level, message.text)

    def _changed_model(self) -> None:
        """Another model's labels are used from now on, for the case in hand too."""
        context = self._context
        work = context.work
        if work is not None and context.info is not None and work.model != context.view.model:
            work.model, work.entries = context.view.model, context.info.labels_of(context.view.model)
            work.labels = context.info.labels
            context.scene.ensure_segments(work.segmentation, work.entries)
            self._editing.show_labels(work.entries)
            context.say(INFO, tr("The labels of {model} were added to the segmentation.").format(model=work.model))
        self._polling.forget()
