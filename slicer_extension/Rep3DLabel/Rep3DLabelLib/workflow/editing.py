"""Edits are noticed, kept on disk within seconds, and offered again.

The rule that all others follow: nothing that could lose an edit begins before the edit is in a draft.
"""

from __future__ import annotations

from collections.abc import Callable, Generator, Iterable, Mapping
from dataclasses import replace
from typing import Any

from ..drafts import Draft
from ..errors import ClientError, LocalProblem
from ..i18n import tr
from ..labels import Label, SegmentName, assign
from ..view import ERROR, DraftRow, LabelRow, Question
from ..worker.results import Measured
from .context import Context, Work, local_time

__all__ = ["Editing", "names_of"]

_IDLE, _LONGEST, _AFTER_FAILURE = 2.0, 15.0, 20.0  # seconds
_BUDGET = 0.02  # seconds of writing at each tick
_LARGE = 16 << 20  # bytes


class Editing:
    """Drafts of the case in hand.

    Args:
        context: Shared state.
        gone: Called after the user has taken the segmentation out of the scene; what was edited is kept.
    """

    def __init__(self, context: Context, gone: Callable[[], None]) -> None:
        self._context, self._gone = context, gone
        self._not_before = 0.0
        self._measured: tuple[str, int] | None = None  # draft and revision that was measured last
        self._measuring = False
        self._saving: Generator[float, None, Draft] | None = None  # a draft that is being written, tick by tick
        self._go_on: Callable[[], None] | None = None  # what waits for it

    # ---- noticing and keeping

    def take(self, work: Work | None) -> None:
        """Have a case in hand from now on, None for none."""
        context = self._context
        context.scene.unwatch()
        context.work = work
        if work is None:
            context.screen.edit(None, None)
        else:
            context.scene.watch(work.segmentation, self.edited, self.going)
            context.screen.edit(work.segmentation, work.volume)
        context.update(edited=bool(work and work.edited), draft_time="")
        self.list_drafts()

    def edited(self) -> None:
        """Note that the user has changed the segmentation."""
        work = self._context.work
        if work is None:
            return
        now = self._context.clock()
        first = work.changed_at[0] if work.revision > work.kept else now
        work.revision += 1
        work.changed_at = (first, now)
        if not self._context.view.edited:
            self._context.update(edited=True)

    def going(self) -> None:
        """Keep the segmentation while it is there: the user takes it out of the scene."""
        work, waiting = self._context.work, self.stop_saving()
        try:
            self.keep()
        except ClientError as error:
            self._context.say(ERROR, tr("Your edits could not be kept: {why}").format(why=error))

        def gone() -> bool:  # not before it is out
            self._context.scene.views_back()
            if self._context.work is work:
                self._gone()
            if waiting is not None:
                waiting()
            return True

        self._context.tasks.append(gone)

    def keep(self) -> None:
        """Write the segmentation to its draft now, however long it takes; for when there is no later.

        Raises:
            LocalProblem: It cannot be kept; it is still in the scene.
        """
        context, work = self._context, self._context.work
        self.stop_saving()
        if work is None or self.is_kept(work):
            return
        revision = work.revision
        self._kept(work, context.drafts.save(work.draft, context.scene.snapshot(work.segmentation)), revision)

    def keep_then(self, go: Callable[[], None], failed: Callable[[ClientError], None]) -> None:
        """Write the segmentation as it is now to its draft, a little at each tick; then call `go`, or else `failed`."""
        context, work = self._context, self._context.work
        if work is None:
            go()
            return
        self.stop_saving()
        revision = work.revision
        try:
            data = context.scene.snapshot(work.segmentation)
        except ClientError as error:
            failed(error)
            return
        steps = self._saving = context.drafts.save_in_steps(work.draft, data)
        self._go_on = go

        def step() -> bool:
            if self._saving is not steps:  # a later state is being written instead
                return True
            try:
                saved = self._write_some(steps)
            except ClientError as error:
                self._saving = self._go_on = None
                failed(error)
                return True
            if saved is None:
                return False
            self._saving = self._go_on = None
            self._kept(work, saved, revision)
            go()
            return True

        # Copying large layers has taken its time already: they are written from the next tick on.
        if sum(layer.nbytes for layer in data.layers) > _LARGE or not step():
            context.tasks.append(step)

    def _write_some(self, steps: Generator[float, None, Draft]) -> Draft | None:
        """Write for a moment; return the draft when it is whole."""
        end = self._context.clock() + _BUDGET
        try:
            while self._context.clock() <= end:
                next(steps)
        except StopIteration as stop:
            saved: Draft = stop.value
            return saved
        return None

    def is_kept(self, work: Work) -> bool:
        """Return whether what was edited is on disk; another Slicer of the user may have taken the draft over."""
        if work.revision > work.kept:
            return False
        return not work.edited or not work.kept_in or self._context.drafts.path(work.kept_in).exists()

    def stop_saving(self) -> Callable[[], None] | None:
        """Write no further; return what has waited for it, None if nothing was being written."""
        steps, waiting = self._saving, self._go_on
        self._saving = self._go_on = None
        if steps is None:
            return None
        steps.close()
        return waiting

    def _kept(self, work: Work, saved: Draft, revision: int) -> None:
        if revision >= work.kept:
            work.kept, work.kept_in = revision, saved.key
        if work.draft.key == saved.key:
            work.draft = saved
        if self._context.work is work:
            self._context.update(draft_time=local_time(saved.time))

    def seal_then(self, go: Callable[[], None], failed: Callable[[ClientError], None]) -> None:
        """As `keep_then`, with all edits so far, as a draft that later edits do not replace."""
        work = self._context.work
        if work is None or not work.edited:
            go()
            return

        def kept() -> None:
            work.draft = self.new_draft(work, work.draft.source)
            self.list_drafts()
            go()

        self._keep_all_then(work, kept, failed)

    def _keep_all_then(self, work: Work, go: Callable[[], None], failed: Callable[[ClientError], None]) -> None:
        """As `keep_then`, and again as long as the user edits what is being written."""

        def kept() -> None:
            if self._context.work is work and work.revision > work.kept:
                self.keep_then(kept, failed)
            else:
                go()

        self.keep_then(kept, failed)

    def new_draft(self, work: Work, source: str) -> Draft:
        """Return a draft for the next stretch of work on a case."""
        return self._context.drafts.new(work.draft.server, work.image_id, work.name, work.model, source)

    def before_leaving(self, go: Callable[[], None], stay: Callable[[], None] | None = None) -> None:
        """Keep the edits, then go on; where they cannot be kept, the user decides.

        Args:
            go: Begins an activity, or ends it.
            stay: Called instead of it where the user wants to stay.
        """
        context, work = self._context, self._context.work
        if work is None or not work.edited or self.is_kept(work):
            go()
            return

        def failed(error: ClientError) -> None:
            context.progress(tr("Waiting for your answer"))
            question = Question(
                "lose_edits",
                tr("Edits cannot be kept"),
                tr("{why}\n\nGoing on would lose what you edited in {case}.").format(why=error, case=work.name),
                (("lose", tr("Go on and lose them")), ("stay", tr("Stay here"))),
                "stay",
            )
            context.screen.ask(question, lambda answer: go() if answer == "lose" else (stay or context.end)())

        context.begin("keep", tr("Keeping your edits"))
        self._keep_all_then(work, go, failed)

    def tick(self) -> None:
        """Keep what the user has edited, a moment after the hand rests or at the latest every few seconds."""
        context, work = self._context, self._context.work
        if work is None:
            return
        now = context.clock()
        due = now - work.changed_at[1] >= _IDLE or now - work.changed_at[0] >= _LONGEST
        if due and now >= self._not_before and self._saving is None and not self.is_kept(work):
            self.keep_then(lambda: None, self._not_kept)
        if work.kept:
            self._measure(work)

    def _not_kept(self, error: ClientError) -> None:
        self._not_before = self._context.clock() + _AFTER_FAILURE
        self._context.say(ERROR, tr("Your edits are only in this window: {why}").format(why=error))

    def _measure(self, work: Work) -> None:
        """Have the volumes of what was kept counted."""
        wanted = (work.draft.key, work.kept)
        if self._measuring or self._measured == wanted or not self._context.drafts.path(work.draft.key).exists():
            return
        self._measuring = True

        def done(value: Measured) -> None:
            self._measuring = False
            if self._context.work is work:
                self.show_counts(value.counts, value.voxel_ml)

        def failed(error: Any) -> None:
            self._measuring = False

        self._measured = wanted
        segments = names_of(self._context.scene, work)
        path, values = self._context.drafts.path(work.draft.key), assign(segments, work.labels).values
        self._context.call("measure", work.draft_as_label(path, values, segments), done, failed)

    def show_counts(
        self, counts: Mapping[int, int], voxel_ml: float, confidence: Mapping[str, float] | None = None
    ) -> None:
        """Show how large each label is; `counts` has voxels by value, `voxel_ml` is the volume of one."""
        rows = []
        for row in self._context.view.labels:
            voxels = counts.get(row.value, 0)
            rows.append(replace(row, voxels=voxels, ml=voxels * voxel_ml, confidence=(confidence or {}).get(row.name)))
        self._context.update(labels=tuple(rows))

    def show_labels(self, entries: Iterable[Label]) -> None:
        """List a model's labels, not measured yet."""
        grey = (127, 127, 127)
        rows = tuple(LabelRow(label.name, label.value, label.colour or grey) for label in entries)
        self._context.update(labels=rows)

    # ---- drafts

    def list_drafts(self) -> None:
        """Show the unsent work that is not in hand now."""
        current = self._context.work.draft.key if self._context.work else ""
        rows = [
            DraftRow(draft.key, draft.image_id, draft.name or draft.image_id, local_time(draft.time), draft.server)
            for draft in self._context.drafts.list()
            if draft.key != current
        ]
        self._context.update(drafts=tuple(rows))

    def discard(self, key: str) -> None:
        """Ask, then take a draft off the list."""
        row = next((row for row in self._context.view.drafts if row.key == key), None)
        if row is None or self._context.refused("discard_draft"):
            return
        question = Question(
            "discard_draft",
            tr("Throw unsent work away"),
            tr("Throw away the unsent work of {time} on {case}?").format(time=row.time, case=row.name),
            (("discard", tr("Throw away")), ("keep", tr("Keep"))),
            "keep",
        )

        def answer(choice: str) -> None:
            if choice == "discard":
                try:
                    self._context.drafts.discard(key)
                except LocalProblem as error:
                    self._context.say(ERROR, str(error))
                self.list_drafts()

        self._context.screen.ask(question, answer)


def names_of(scene: Any, work: Work) -> list[SegmentName]:
    """Return the segments of the case in hand, in the order of the list."""
    return list(scene.segment_names(work.segmentation))
