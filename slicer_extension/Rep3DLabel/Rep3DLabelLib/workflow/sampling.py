"""Fetching a case: the next most useful one, a certain one, or unsent work on one.

The case in hand stays in the scene until the new one is there, so a failed download leaves the user where he was.
"""

from __future__ import annotations

import contextlib
import shutil
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from ..client.answers import Sample
from ..drafts import Draft
from ..errors import ClientError
from ..i18n import tr
from ..images.files import LabelFile
from ..images.segnrrd import SegmentationData
from ..view import WARNING, SampleView, UncertaintyView
from ..worker.jobs import Job, JobError
from ..worker.results import Fetched
from .context import Context, Work, local_time
from .editing import Editing
from .presenting import counts_by_value, voxel_ml

__all__ = ["Sampling"]

FINAL = "final"


class Sampling:
    """Brings cases into the scene.

    Args:
        context: Shared state.
        editing: Drafts.
        leaving: Called before the case in hand goes.
        arrived: Called when a case without a label is ready.
    """

    def __init__(
        self, context: Context, editing: Editing, leaving: Callable[[], None], arrived: Callable[[], None]
    ) -> None:
        self._context, self._editing = context, editing
        self._leaving, self._arrived = leaving, arrived
        self._server = ""  # that the latest fetch is from
        self._fetch = 0  # number of the latest fetch; an older one's answers are not wanted any more
        # The draft that is being fetched a case for, in this place only: as long as its data lives, its file is open.
        self._unsent: tuple[Draft, SegmentationData] | None = None
        self._releases: dict[str, Job] = {}  # image id -> its giving back, which may still wait

    # ---- commands

    def next_sample(self) -> None:
        """Fetch the case that the server would like to be labelled next."""
        if not self._context.refused("next_sample"):
            self._editing.before_leaving(self._ask_next)

    def open_case(self, image_id: str) -> None:
        """Fetch a case with its label, if it has one."""
        if not self._context.refused("open_case"):
            self._editing.before_leaving(lambda: self._open(image_id))

    def open_now(self, image_id: str) -> None:
        """Go on with a case as part of what runs in the foreground already."""
        self._editing.before_leaving(lambda: self._open(image_id))

    def restore_draft(self, key: str) -> None:
        """Fetch the case of a draft and put the draft on it."""
        context = self._context
        if context.refused("restore_draft"):
            return
        self._unsent = None
        try:
            draft = context.drafts.find(key)
            if draft.server != context.url:
                text = tr("This work belongs to the server {server}: connect to it first.")
                raise ClientError(text.format(server=draft.server))
            self._unsent = context.drafts.read(context.drafts.take_over(draft).key)
        except ClientError as error:
            context.fail(error)
            return
        finally:
            self._editing.list_drafts()
        self._editing.before_leaving(lambda: self._open(draft.image_id, unsent=True), self._stay)

    def cancel(self) -> None:
        """Give up what is being fetched; the case in hand stays."""
        self._fetch += 1
        self._unsent = None

    def forget(self) -> None:
        """Note that the scene is gone, and the case in hand with it."""
        self.cancel()
        self.drop()

    def drop(self) -> None:
        """There is no case in hand any more; one that is being fetched comes all the same."""
        self._editing.take(None)
        self._context.update(sample=None, labels=(), uncertainty=UncertaintyView())

    # ---- steps

    def _stay(self) -> None:
        self._unsent = None
        self._context.end()

    def _ask_next(self) -> None:
        context = self._context
        context.begin("next_sample", tr("Asking for the next sample"), cancellable=True)
        self._start("next_sample", {"strategy": context.view.strategy})

    def _open(self, image_id: str, unsent: bool = False) -> None:
        context = self._context
        context.begin("open_case", tr("Opening {case}").format(case=image_id), cancellable=True)
        if unsent and self._unsent is None:  # the scene was closed while a question was open
            context.end(tr("The unsent work was not opened; restore it again from the list."), WARNING)
            return
        label = None if unsent else FINAL
        self._keep_lease(image_id)
        self._start("open_case", {"image_id": image_id, "label": label}, unsent)

    def _start(self, op: str, args: Mapping[str, object], unsent: bool = False) -> None:
        context = self._context
        if not unsent:
            self._unsent = None
        self._server = context.url
        self._fetch += 1
        fetch = self._fetch
        folder = context.folder / f"case{fetch}"
        try:
            folder.mkdir(parents=True, exist_ok=True)
        except OSError as error:
            self._unsent = None
            context.fail(ClientError(tr("Cannot write to {folder}: {why}").format(folder=folder, why=error)))
            return

        def done(value: Fetched) -> None:
            if fetch == self._fetch:
                self._load(value, fetch)

        def failed(error: JobError) -> None:
            if fetch != self._fetch:
                return
            self._unsent = None
            if error.kind == "NoSampleLeft":  # the work is done: no failure
                context.end(error.message)
            else:
                context.fail(error)

        asked = {**args, "folder": str(folder), "keep": sorted(self._worked_on())}
        context.foreground(op, asked, done, failed, self._progress)

    def _progress(self, event: Mapping[str, Any]) -> None:
        texts = {
            "asking": tr("Asking for the next sample"),
            "downloading": tr("Downloading the image"),
            "decoding": tr("Reading the image"),
        }
        total = event.get("total")
        fraction = min(1.0, event["done"] / total) if total else None
        self._context.progress(texts.get(str(event.get("stage")), ""), fraction)

    def _load(self, value: Fetched, fetch: int) -> None:
        """Copy the image into the scene, a slab at each tick."""
        context = self._context
        self._keep_lease(value.sample.id)
        context.job = None
        context.progress(tr("Loading the image"), None)
        load = context.scene.begin_volume(value.volume, value.sample.name, value.sample.id)
        label = context.scene.begin_label(value.label) if value.label and not self._unsent else None
        layers = context.scene.begin_restore(self._unsent[1]) if self._unsent else None

        def step() -> bool:
            if fetch != self._fetch:
                load.cancel()
                self._not_taken(value)
                return True
            if (label is not None and not label.step()) or (layers is not None and not layers.step()):
                return False
            if not load.step():
                context.progress(tr("Loading the image"), load.progress)
                return False
            self._prepare(value, load.node, label and label.label, layers and layers.images)
            return True

        context.tasks.append(step)

    def _prepare(self, value: Fetched, volume: Any, label: Any, images: Any) -> None:
        """Make the segmentation; if that fails, the case in hand is still there.

        Args:
            value: The case.
            volume: Its volume node.
            label: Its label as the scene has loaded it, None for none.
            images: The voxels of unsent work on it, None for none.
        """
        context, scene, fetch = self._context, self._context.scene, self._fetch
        unsent, self._unsent = self._unsent, None
        if context.url != self._server:  # an id means another image there
            scene.remove(volume)
            text = tr("{case} is a sample of another server, {server}, and was not used.")
            context.end(text.format(case=value.sample.name, server=self._server), WARNING)
            return
        model, info, source = context.view.model, context.info, tr("empty")
        entries, labels = (info.labels_of(model), info.labels) if info else ((), {})
        image_id, name = value.sample.id, value.sample.name
        try:
            if unsent:
                draft, data = unsent
                segmentation = scene.restore(volume, data, entries, name, images)
                source = tr("unsent work of {time}").format(time=local_time(draft.time))
            else:
                segmentation = scene.segmentation_for(volume, entries)
                if label:
                    scene.load_label(segmentation, label, entries)
                    source = tr("submitted label")
                draft = context.drafts.new(context.url, image_id, name, model, source)
        except ClientError:
            scene.remove(volume)
            self._not_taken(value)
            raise
        work = Work(image_id, name, value.volume, volume, segmentation, entries, labels, model, draft)
        if unsent:
            work.revision = work.kept = 1
            work.kept_in = draft.key

        def leave() -> bool:
            if fetch == self._fetch:
                # What was edited while this case was on its way is kept, too.
                self._editing.before_leaving(
                    lambda: self._replace(work, value.sample, label and value.label, source), stay
                )
            else:
                stay()
            return True

        def stay() -> None:
            scene.remove(segmentation)
            scene.remove(volume)
            self._not_taken(value)
            if fetch == self._fetch:
                context.end()

        context.tasks.append(leave)

    def _replace(self, work: Work, sample: Sample, label: LabelFile | None, source: str) -> None:
        """Take the new case into hand and the old one out of the scene."""
        context, before = self._context, self._context.work
        self._editing.take(None)  # what is removed now is no edit of the user's
        self._leaving()
        context.scene.remove_sample(work.volume, work.segmentation)
        context.scene.show_volume(work.volume)
        context.update(
            sample=SampleView(
                id=work.image_id,
                name=work.name,
                reason=sample.reason,
                leased_until=local_time(sample.leased_until),
                source=source,
            ),
            uncertainty=UncertaintyView(),
        )
        self._editing.show_labels(work.entries)
        self._editing.take(work)
        if label:
            self._editing.show_counts(counts_by_value(label), voxel_ml(label))
        self._give_back(before, work)
        unsent = [draft for draft in context.drafts.of(work.draft.server, work.image_id) if draft.key != work.draft.key]
        hint = "" if label else tr("{case} is ready.").format(case=work.name)
        if unsent:
            hint = tr("There is unsent work of {time} on this case: restore it from the list of unsent work.").format(
                time=local_time(unsent[0].time)
            )
        context.end(hint)
        context.tasks.append(_others_removed(context.folder, Path(work.grid.voxels).parent))
        if not label and not work.edited and not unsent:
            self._arrived()

    def _worked_on(self) -> set[str]:
        """Return the cases of this server that the user has in hand or has unsent work on."""
        context = self._context
        found = {draft.image_id for draft in context.drafts.list() if draft.server == context.url}
        return found if context.work is None else found | {context.work.image_id}

    def _not_taken(self, value: Fetched) -> None:
        """Free a case for others that was fetched and is not wanted after all."""
        image_id = value.sample.id
        if value.sample.leased_until and self._context.url == self._server and image_id not in self._worked_on():
            self._release(image_id)

    def _give_back(self, before: Work | None, now: Work) -> None:
        """Free a case for others that was fetched and left untouched."""
        if before is None or before.image_id == now.image_id or before.edited or before.sent:
            return
        if before.draft.server == now.draft.server:
            self._release(before.image_id)

    def _release(self, image_id: str) -> None:
        def done(value: Any) -> None:
            self._releases.pop(image_id, None)

        self._releases[image_id] = self._context.background("release", {"image_id": image_id}, done)

    def _keep_lease(self, image_id: str) -> None:
        """Give the case back no more: it is wanted again."""
        job = self._releases.pop(image_id, None)
        if job is not None:
            self._context.worker.drop(job)


def _others_removed(folder: Path, keep: Path) -> Callable[[], bool]:
    """Return a task that removes the working files of earlier cases, one at each tick, since they are large.

    What is still open elsewhere goes at the end of the session.
    """
    others = [case for case in folder.glob("case*") if case != keep and case not in keep.parents]
    files = [file for case in others for file in case.rglob("*") if not file.is_dir()]

    def remove() -> bool:
        if files:
            with contextlib.suppress(OSError):
                files.pop().unlink()
            return False
        for case in others:
            shutil.rmtree(case, ignore_errors=True)
        return True

    return remove
