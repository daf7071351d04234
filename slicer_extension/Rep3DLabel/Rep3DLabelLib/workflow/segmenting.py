"""Auto-segment, which never destroys edits, and the uncertainty that comes with it.

A segmentation that arrives goes behind an undo point of the segment editor, and what was edited before is kept as a
draft of its own; where there can be no undo point, it goes into a new segmentation. So there is nothing to ask.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

from ..client.answers import SegmentationFacts
from ..errors import ClientError
from ..i18n import tr
from ..labels import Label
from ..view import INFO, WARNING, UncertaintyView
from ..worker.results import Segmented
from .context import Context, Work
from .editing import Editing
from .presenting import counts_by_value, voxel_ml

__all__ = ["Segmenting"]


class Segmenting:
    """Segmentations by the model."""

    def __init__(self, context: Context, editing: Editing) -> None:
        self._context, self._editing = context, editing
        self._overlay: Any = None

    # ---- commands

    def auto_segment(self) -> None:
        """Have the server segment the case in hand."""
        context = self._context
        if context.refused("auto_segment") or context.work is None:
            return
        work, options, entries = context.work, context.view.options, context.work.entries
        context.begin("auto_segment", tr("Segmenting {case}").format(case=work.name), cancellable=True)
        args = {
            "image_id": work.image_id,
            "model": work.model,
            "views": options.views,
            "uncertainty": options.uncertainty,
            "folder": str(Path(work.grid.voxels).parent),  # goes with the case
        }
        context.foreground("infer", args, lambda value: self._arrived(work, entries, value))

    def show_uncertainty(self, visible: bool) -> None:
        """Show or hide the uncertainty over the image."""
        context = self._context
        if context.refused("show_uncertainty") or self._overlay is None:
            return
        context.scene.show_overlay(self._overlay, bool(visible))
        context.update(uncertainty=replace(context.view.uncertainty, visible=bool(visible)))

    def show_again(self) -> None:
        """Lay the uncertainty over the image again where it is meant to be seen and is in no view."""
        scene = self._context.scene
        if self._overlay is not None and self._context.view.uncertainty.visible and scene.is_hidden(self._overlay):
            scene.show_overlay(self._overlay, True)

    def jump_to_uncertain(self) -> None:
        """Move all slice views to the next most uncertain place."""
        context = self._context
        if context.refused("jump_to_uncertain") or context.work is None:
            return
        place = context.view.uncertainty.place % len(context.work.peaks)
        context.scene.jump(context.work.peaks[place].ras)
        context.update(uncertainty=replace(context.view.uncertainty, place=place + 1))

    # ---- steps

    def _arrived(self, work: Work, entries: tuple[Label, ...], value: Segmented) -> None:
        """Take a segmentation over.

        Args:
            work: The case that it is of.
            entries: Labels of the model that made it; the user may have chosen another one since.
            value: What the worker gives.
        """
        context = self._context
        context.progress(tr("Taking the segmentation over"), None, cancellable=False)
        load = context.scene.begin_label(value.label)

        def failed(error: ClientError) -> None:
            # Without a draft, what was edited is not written over, undo or not.
            before = work.segmentation
            self._write(work, entries, value, load.label, "new")
            context.scene.give_away(before)  # the only place where the edits are must not go with the sample
            text = tr("Your edits are not on disk, but in '{name}' in the scene, which stays there: {why}")
            context.say(WARNING, text.format(name=before.GetName(), why=error))

        def write() -> None:
            self._write(work, entries, value, load.label, context.view.options.into)

        def step() -> bool:
            if not context.runs("auto_segment"):  # the scene was closed
                return True
            if context.work is not work:  # another case, or a closed scene: nothing to write to
                text = tr("The segmentation of {case} came too late and was not used.")
                context.end(text.format(case=work.name), WARNING)
                return True
            if not load.step():
                return False
            self._editing.seal_then(write, failed)
            return True

        if not step():
            context.tasks.append(step)

    def _write(self, work: Work, entries: tuple[Label, ...], value: Segmented, loaded: Any, mode: str) -> None:
        context, facts = self._context, value.facts
        if context.work is not work:
            if context.runs("auto_segment"):
                context.end()
            return
        before = work.segmentation
        node = context.scene.apply_label(before, loaded, entries, mode)
        context.tasks.append(context.scene.surfaces_again)
        work.segmentation = node
        work.version = facts.version
        work.sent = work.kept = work.revision
        source = tr("model {version}").format(version=work.version)
        work.draft = self._editing.new_draft(work, source)
        self._editing.take(work)
        if context.view.sample is not None:
            context.update(sample=replace(context.view.sample, source=source))
        self._editing.show_counts(counts_by_value(value.label), voxel_ml(value.label), facts.confidence)
        work.peaks = value.peaks
        self._finish(work, value, node is not before)

    def _finish(self, work: Work, value: Segmented, into_new: bool) -> None:
        context = self._context
        visible = context.view.uncertainty.visible
        self._drop_overlay()
        text = _headline(value.facts, into_new)
        level = WARNING if value.facts.note or value.facts.uncertainty_error else INFO
        if value.uncertainty is None:
            context.end(text, level)
            return
        load = context.scene.begin_volume(value.uncertainty, tr("Uncertainty of {case}").format(case=work.name), "")

        def step() -> bool:
            if context.work is not work or not context.runs("auto_segment"):
                load.cancel()
                if context.runs("auto_segment"):
                    context.end()
                return True
            if not load.step():
                return False
            self._overlay = load.node
            mean = value.facts.uncertainty
            context.update(uncertainty=UncertaintyView(True, False, len(work.peaks), 0, mean))
            context.end(text, level)
            if visible:
                self.show_uncertainty(True)
            return True

        context.tasks.append(step)

    def forget(self) -> None:
        """Note that the nodes of the case are gone, or about to go."""
        self._drop_overlay()

    def _drop_overlay(self) -> None:
        if self._overlay is not None:
            self._context.scene.remove_overlay(self._overlay)
            self._overlay = None
        self._context.update(uncertainty=UncertaintyView())


def _headline(facts: SegmentationFacts, into_new: bool) -> str:
    """Return one line about a segmentation: by which version, on what, how long; and what is not as usual."""
    parts = [tr("Segmented by {version}").format(version=facts.version or tr("the model"))]
    if facts.seconds is not None:
        parts.append(tr("in {seconds:.1f} s on {device}").format(seconds=facts.seconds, device=facts.device or "?"))
    text = " ".join(parts) + ". " + tr("Check and correct it, then submit.")
    if into_new:
        text += " " + tr("It is a new segmentation; the one before is still in the scene.")
    if facts.missing:
        text += " " + tr("The model does not know: {labels}.").format(labels=", ".join(facts.missing))
    if facts.uncertainty_error:
        text += " " + tr("There is no uncertainty map: {why}").format(why=facts.uncertainty_error)
    return " ".join(filter(None, (text, facts.note, facts.attribution)))
