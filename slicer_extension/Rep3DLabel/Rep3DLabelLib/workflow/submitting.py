"""Submit: from the segments in the scene to a label on the server, without losing or changing a voxel in silence.

First the segments are kept as a draft, then the worker makes one label map of it on the image's own grid; what would be
lost on the way (overlaps, segments that are no labels, voxels outside the image) is said before anything is sent.
"""

from __future__ import annotations

import weakref
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any

from ..client.answers import SubmittedLabel
from ..drafts import Draft
from ..errors import ClientError
from ..i18n import tr
from ..labels import Assignment, SegmentName, assign, plain_name
from ..view import ERROR, INFO, WARNING, Question
from ..worker.jobs import JobError
from ..worker.results import Measured
from .context import Context, Work, local_time
from .editing import Editing, names_of

__all__ = ["Submitting"]

_BACK = "back"
# Errors after which nobody here knows whether the server has the label.
_PERHAPS_SENT = frozenset(("ConnectionCut", "ServerTimeout", "BadAnswer", "HelperEnded"))


class Submitting:
    """Labels for the server.

    Args:
        context: Shared state.
        editing: Drafts.
        submitted: Called when a label has been accepted.
    """

    def __init__(self, context: Context, editing: Editing, submitted: Callable[[], None]) -> None:
        self._context, self._editing, self._submitted = context, editing, submitted
        self._sending: Callable[[], _Sending | None] = lambda: None  # the latest submission, as long as it lives

    def submit(self) -> None:
        """Send the label of the case in hand."""
        context = self._context
        if context.refused("submit") or context.work is None:
            return
        work = context.work
        if work.draft.server != context.url:  # an id means another image there
            text = tr("Nothing was sent: the case belongs to {server}. Connect to it first.")
            context.fail(ClientError(text.format(server=work.draft.server)))
            return
        context.begin("submit", tr("Checking the segments"))
        try:
            names = names_of(context.scene, work)
            drawn = context.scene.drawn_segments(work.segmentation)
            on_grid = context.scene.is_on_grid(work.segmentation)
        except ClientError as error:
            context.fail(error, tr("Nothing was sent."))
            return
        revision = work.revision
        self._editing.keep_then(
            lambda: self._check(work, names, drawn, on_grid, revision),
            lambda error: context.fail(error, tr("Nothing was sent.")),
        )

    def _check(self, work: Work, names: list[SegmentName], drawn: set[str], on_grid: bool, revision: int) -> None:
        """Look at what the segments mean, once they are kept as they are."""
        context = self._context
        if context.work is not work:
            if context.runs("submit"):
                context.end()
            return
        found = assign(names, work.labels)
        draft = work.draft
        work.draft = self._editing.new_draft(work, draft.source)  # what is sent is not written over by later edits
        doubts = _meanings([segment for segment in names if segment.id in drawn], found, work.labels)
        if not on_grid:
            doubts.append(
                tr(
                    "The segmentation is not on the voxels of the image (a transform, another geometry or surfaces): "
                    "each voxel of the image takes what is nearest to it."
                )
            )
        send = _Sending(self, context, work, draft, found, names, revision, doubts)
        self._sending = weakref.ref(send)
        conflicts = [segment for segment in found.conflicts if segment.id in drawn]
        unknown = [segment for segment in found.unknown if segment.id in drawn]
        if conflicts:
            send.give_up()
            context.end(
                tr("Nothing was sent: {what}. Give the segment its name back, or draw under the other label.").format(
                    what=", ".join(
                        tr("segment '{name}' was made for the label '{label}'").format(name=c.name, label=c.label)
                        for c in conflicts
                    )
                ),
                ERROR,
            )
        elif unknown:
            text = tr(
                "These segments are no labels of the model '{model}' and would be left out: {names}.\n\n"
                "Its labels are: {labels}. They stay in the scene."
            ).format(
                model=work.model, names=", ".join(segment.name for segment in unknown), labels=", ".join(work.labels)
            )
            choices = (("leave_out", tr("Submit without them")), (_BACK, tr("Go back")))
            send.ask(Question("unknown_segments", tr("Segments without a label"), text, choices, _BACK), send.measure)
        else:
            send.measure()

    def cancel(self) -> None:
        """Wait no longer for the server's answer to a label that is on its way; the work stays as if it had failed."""
        sending = self._sending()
        if sending is not None:
            sending.give_up()
        text = tr(
            "The server has not confirmed the label yet, and may still get it. What is sent next waits for that, five "
            "minutes at most."
        )
        self._context.end(f"{text} {_again()}", WARNING)

    def stop_saving(self) -> None:
        """Write edits no further; they are written anew, to the draft of the case in hand."""
        self._editing.stop_saving()

    def show_counts(self, measured: Measured) -> None:
        """Show the volumes of what is being sent."""
        self._editing.show_counts(measured.counts, measured.voxel_ml)

    def accepted(self, work: Work, draft: Draft, revision: int, answer: SubmittedLabel) -> None:
        """Note that the server has the label that was made of a draft."""
        context = self._context
        work.sent, note = max(work.sent, revision), ""
        try:
            context.drafts.sent(draft.key)
        except ClientError as error:
            note = f" {error}"
        for is_so, text in (
            (answer.duplicate, tr(" The server had exactly this label already.")),
            (answer.remapped, tr(" Values were changed to the server's, by name.")),
            (answer.resampled, tr(" It was resampled onto the image.")),
        ):
            note += text if is_so else ""
        now = local_time(context.now().astimezone().isoformat())
        if context.view.sample is not None and context.work is work:
            source = context.view.sample.source if work.edited else tr("submitted label")
            sample = replace(context.view.sample, submitted=now, source=source)
            context.update(sample=sample, edited=work.edited, draft_time="")
        self._editing.list_drafts()
        context.end(tr("Submitted {case}.").format(case=work.name) + note)
        self._submitted()


class _Sending:
    """One submission on its way, from a draft that nothing else writes to."""

    def __init__(
        self,
        owner: Submitting,
        context: Context,
        work: Work,
        draft: Draft,
        found: Assignment,
        names: list[SegmentName],
        revision: int,
        doubts: list[str],
    ) -> None:
        self._owner, self._context, self._work, self._draft = owner, context, work, draft
        self._found, self._names, self._revision, self._doubts = found, names, revision, doubts
        self._params: dict[str, Any] = {
            "label_info": [{"name": name, "idx": value} for name, value in work.labels.items()]
        }
        if work.version:
            self._params["model_version"] = work.version
        self._on_its_way = False

    def give_up(self) -> None:
        """Nothing is sent: the draft is that of the case in hand again, unless later edits have one of their own."""
        if not self._context.drafts.path(self._work.draft.key).exists():
            self._owner.stop_saving()  # to the draft that is not there yet
            self._work.draft = self._draft

    def ask(self, question: Question, go: Callable[[], None]) -> None:
        """Ask whether to go on."""
        self._context.job = None
        self._context.progress(tr("Waiting for your answer"), cancellable=False)

        def answer(choice: str) -> None:
            if self._context.work is not self._work:  # the scene was closed meanwhile; the draft is in the list
                return
            if choice == question.default:
                self.give_up()
                self._context.end(tr("Nothing was sent."), INFO)
            else:
                go()

        self._context.screen.ask(question, answer)

    def measure(self) -> None:
        """Find out what the label map would be."""
        self._context.progress(tr("Checking the label map"))
        self._context.foreground("measure", self._as_label(), self._measured, self._failed)

    def _as_label(self) -> dict[str, object]:
        path = self._context.drafts.path(self._draft.key)
        return self._work.draft_as_label(path, self._found.values, self._names)

    def _measured(self, value: Measured) -> None:
        """Say what the label map cannot hold, then send it."""
        self._owner.show_counts(value)
        doubts = list(self._doubts)
        names = {segment.id: segment.name for segment in self._names}
        for overlap in value.overlaps:
            doubts.append(
                tr("'{first}' and '{second}' overlap in {voxels} voxels; they become '{first}'.").format(
                    first=names.get(overlap.first, overlap.first),
                    second=names.get(overlap.second, overlap.second),
                    voxels=overlap.voxels,
                )
            )
        if value.outside:
            doubts.append(tr("{voxels} voxels lie outside the image and are left out.").format(voxels=value.outside))
        if not any(value.counts.values()):
            self._params["empty"] = True
            doubts.append(tr("Nothing is segmented: the label says that none of the structures is in the image."))
        if not doubts:
            self._send()
            return
        text = "\n".join(doubts) + "\n\n" + tr("Submit all the same?")
        choices = (("submit", tr("Submit")), (_BACK, tr("Go back")))
        known = (("overlaps", value.overlaps), ("empty", "empty" in self._params), ("outside", value.outside))
        key = next((word for word, is_so in known if is_so), "segments")
        self.ask(Question(key, tr("Before it is sent"), text, choices, _BACK), self._send)

    def _send(self) -> None:
        self._on_its_way = True
        self._context.progress(tr("Sending the label"), cancellable=True)
        args = {**self._as_label(), "image_id": self._work.image_id, "params": self._params}
        self._context.foreground("submit", args, self._accepted, self._failed)

    def _accepted(self, answer: SubmittedLabel) -> None:
        self._owner.accepted(self._work, self._draft, self._revision, answer)

    def _failed(self, error: JobError) -> None:
        if (
            error.kind == "ConflictError"
            and any(word in error.detail for word in ("lent", "reserved"))
            and "override_lease" not in self._params
        ):
            choices = (("submit", tr("Submit all the same")), (_BACK, tr("Go back")))
            text = tr("{why}\n\nSubmit your label all the same? Theirs, if there is one, stays in the history.")
            question = Question("lent", tr("Someone else works on this"), text.format(why=error.detail), choices, _BACK)
            self._params["override_lease"] = True
            self.ask(question, self._send)
            return
        self.give_up()
        what = tr("Not submitted; your work is kept here and as a draft.")
        if error.kind in _PERHAPS_SENT and self._on_its_way:
            what = f"{tr('The server has not confirmed the label.')} {_again()}"
        self._context.fail(error, what)


def _again() -> str:
    return tr(
        "Your work is kept here and as a draft. Submit again: a label that the server has already is not stored twice."
    )


def _meanings(segments: list[SegmentName], found: Assignment, labels: Mapping[str, int]) -> list[str]:
    """Say which segments are sent under another name than they have, or together with another one."""
    texts = []
    for label, value in labels.items():
        names = [segment.name for segment in segments if found.values.get(segment.id) == value]
        if len(names) > 1:
            together = ", ".join(f"'{name}'" for name in names)
            texts.append(tr("{segments} are sent together as '{label}'.").format(segments=together, label=label))
        elif names and plain_name(names[0]) != plain_name(label):
            text = tr("Segment '{name}' was made for the label '{label}' and is sent as '{label}'.")
            texts.append(text.format(name=names[0], label=label))
    return texts
