"""Auto-segment, which never destroys edits, and the uncertainty that comes with it.

A segmentation that arrives goes behind an undo point of the segment editor, and what was edited before is kept as a
draft of its own; where there can be no undo point, it goes into a new segmentation. So there is nothing to ask.
"""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from ..errors import ClientError
from ..i18n import tr
from ..view import INFO, WARNING, UncertaintyView
from .desk import Desk, Work
from .editing import Editing
from .telling import counts_by_value, mapping, number, voxel_ml

__all__ = ["Segmenting"]

_Entries = list[Mapping[str, Any]]


class Segmenting:
    """Segmentations by the model."""

    def __init__(self, desk: Desk, editing: Editing) -> None:
        self._desk, self._editing = desk, editing
        self._request = ""
        self._overlay: Any = None

    # ---- commands

    def auto_segment(self) -> None:
        """Have the server segment the case in hand."""
        desk = self._desk
        if desk.refused("auto_segment") or desk.work is None:
            return
        work, options, entries = desk.work, desk.view.options, desk.work.entries
        self._request = uuid.uuid4().hex
        desk.begin("auto_segment", tr("Segmenting {case}").format(case=work.name), cancellable=True)
        args = {
            "image_id": work.image_id,
            "image": work.image,
            "model": work.model,
            "views": options.views,
            "uncertainty": options.uncertainty,
            "request_id": self._request,
            "folder": str(Path(work.image).parent),  # goes with the case
            "extra": {},
        }
        desk.foreground("infer", args, lambda value: self._arrived(work, entries, value))

    def cancel(self) -> None:
        """Tell the server that the segmentation is not wanted any more."""
        self._desk.background("cancel", {"request_id": self._request})

    def show_uncertainty(self, visible: bool) -> None:
        """Show or hide the uncertainty over the image."""
        desk = self._desk
        if desk.refused("show_uncertainty") or self._overlay is None:
            return
        desk.scene.show_overlay(self._overlay, bool(visible))
        desk.update(uncertainty=replace(desk.view.uncertainty, visible=bool(visible)))

    def jump_to_uncertain(self) -> None:
        """Move all slice views to the next most uncertain place."""
        desk = self._desk
        if desk.refused("jump_to_uncertain") or desk.work is None:
            return
        place = desk.view.uncertainty.place % len(desk.work.peaks)
        desk.scene.jump(desk.work.peaks[place]["ras"])
        desk.update(uncertainty=replace(desk.view.uncertainty, place=place + 1))

    # ---- steps

    def _arrived(self, work: Work, entries: _Entries, value: Mapping[str, Any]) -> None:
        """Take a segmentation over.

        Args:
            work: The case that it is of.
            entries: Labels of the model that made it; the user may have chosen another one since.
            value: What the worker gives.
        """
        desk = self._desk
        desk.progress(tr("Taking the segmentation over"), None, cancellable=False)
        load = desk.scene.begin_label(value["label"])

        def failed(error: ClientError) -> None:
            # Without a draft, what was edited is not written over, undo or not.
            before = work.segmentation
            self._write(work, entries, {**value, "label": load.label}, "new")
            desk.scene.give_away(before)  # the only place where the edits are must not go with the sample
            text = tr("Your edits are not on disk, but in '{name}' in the scene, which stays there: {why}")
            desk.say(WARNING, text.format(name=before.GetName(), why=error))

        def write() -> None:
            self._write(work, entries, {**value, "label": load.label}, desk.view.options.into)

        def step() -> bool:
            if not desk.runs("auto_segment"):  # the scene was closed
                return True
            if desk.work is not work:  # another case, or a closed scene: nothing to write to
                text = tr("The segmentation of {case} came too late and was not used.")
                desk.end(text.format(case=work.name), WARNING)
                return True
            if not load.step():
                return False
            self._editing.seal_then(write, failed)
            return True

        if not step():
            desk.tasks.append(step)

    def _write(self, work: Work, entries: _Entries, value: Mapping[str, Any], mode: str) -> None:
        desk, params = self._desk, value["params"]
        if desk.work is not work:
            if desk.runs("auto_segment"):
                desk.end()
            return
        before = work.segmentation
        node = desk.scene.apply_label(before, value["label"], entries, mode)
        work.segmentation = node
        work.version = str(params.get("version") or "")
        work.sent = work.kept = work.revision
        source = tr("model {version}").format(version=work.version)
        work.draft = self._editing.new_draft(work, source)
        self._editing.take(work)
        if desk.view.sample is not None:
            desk.update(sample=replace(desk.view.sample, source=source))
        label = value["label"]
        sure = {name: number(value) for name, value in mapping(params.get("confidence")).items()}
        self._editing.show_counts(counts_by_value(label), voxel_ml(label["ijk_to_ras"]), sure)
        work.peaks = list(value.get("peaks") or ())
        self._finish(work, value, node is not before)

    def _finish(self, work: Work, value: Mapping[str, Any], into_new: bool) -> None:
        desk = self._desk
        visible = desk.view.uncertainty.visible
        self._drop_overlay()
        text = _headline(work, value["params"], into_new)
        odd = value["params"].get("fallback") or value["params"].get("uncertainty_error")
        level = WARNING if odd else INFO
        if not value.get("uncertainty"):
            desk.end(text, level)
            return
        load = desk.scene.begin_volume(value["uncertainty"], tr("Uncertainty of {case}").format(case=work.name), "")

        def step() -> bool:
            if desk.work is not work or not desk.runs("auto_segment"):
                load.cancel()
                if desk.runs("auto_segment"):
                    desk.end()
                return True
            if not load.step():
                return False
            self._overlay = load.node
            mean = number(value["params"].get("uncertainty"))
            desk.update(uncertainty=UncertaintyView(True, False, len(work.peaks), 0, mean))
            desk.end(text, level)
            if visible:
                self.show_uncertainty(True)
            return True

        desk.tasks.append(step)

    def forget(self) -> None:
        """The nodes of the case are gone, or about to go."""
        self._drop_overlay()

    def _drop_overlay(self) -> None:
        if self._overlay is not None:
            self._desk.scene.remove_overlay(self._overlay)
            self._overlay = None
        self._desk.update(uncertainty=UncertaintyView())


def _headline(work: Work, params: Mapping[str, Any], into_new: bool) -> str:
    """Return one line about a segmentation: by which version, on what, how long; and what is not as usual."""
    seconds = number(mapping(params.get("latencies")).get("total"))
    parts = [tr("Segmented by {version}").format(version=work.version or tr("the model"))]
    if seconds is not None:
        parts.append(tr("in {seconds:.1f} s on {device}").format(seconds=seconds, device=params.get("device", "?")))
    text = " ".join(parts) + ". " + tr("Check and correct it, then submit.")
    if into_new:
        text += " " + tr("It is a new segmentation; the one before is still in the scene.")
    missing = params.get("missing_labels")
    if isinstance(missing, list) and missing:
        text += " " + tr("The model does not know: {labels}.").format(labels=", ".join(map(str, missing)))
    if params.get("uncertainty_error"):
        text += " " + tr("There is no uncertainty map: {why}").format(why=params["uncertainty_error"])
    if params.get("fallback"):
        text += f" {params['fallback']}"
    return text
