"""The whole module on the bench, its helper process aside: a test answers what is asked of that, with real images."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
from Rep3DLabelLib.client.answers import Sample, SegmentationFacts
from Rep3DLabelLib.images import segnrrd
from Rep3DLabelLib.worker import jobs
from Rep3DLabelLib.worker.results import Fetched, Segmented

from tests.extension.clinician import MODULE
from tests.extension.fakes import INFO, LABELS, READY_REPORT, URL, FakeWorker, overview
from tests.extension.scene_samples import draw, label_file, mask, volume_file, voxels_of
from tests.slicerbench import driver
from tests.slicerbench.callbacks import timed

__all__ = ["SHAPE", "InSlicer"]

SHAPE = (4, 5, 6)  # K, J, I


class InSlicer:
    """The open module, and a folder for the files that the helper would write.

    Args:
        bench: The bench (`tests.slicerbench.bench.Bench`).
        monkeypatch: Puts the noting worker into the place of the helper.
        folder: For the files.
    """

    def __init__(self, bench: Any, monkeypatch: Any, folder: Path) -> None:
        self.bench, self.folder, self.worker = bench, folder, FakeWorker()
        monkeypatch.setattr(jobs, "Worker", lambda place: self.worker)
        self.opened = bench.open_module(MODULE)
        self.editor = self.opened.ui.segmentEditor

    @property
    def flow(self) -> Any:
        return self.opened.widget.workflow

    @property
    def view(self) -> Any:
        return self.flow.view

    @property
    def drafts(self) -> Any:
        """What is kept on disk."""
        return self.flow._context.drafts

    @property
    def node(self) -> Any:
        """The segmentation that the panel has handed to the editor last."""
        return self.editor.segmentationNode()

    def tick(self, count: int = 6) -> None:
        """Let the module go on."""
        for _ in range(count):
            with timed("tick"):
                self.opened.widget.panel.tick()
        driver.spin()

    def connect(self, labels: tuple = LABELS) -> InSlicer:
        """Connect to a server with these labels."""
        model = replace(INFO.models["rep3d"], labels=labels)
        names = {label.name: label.value for label in labels}
        info = replace(INFO, labels=names, models={"rep3d": model})
        self.flow.connect(URL)
        self.worker.answer("test", replace(READY_REPORT, info=info))
        self.tick()
        self.worker.answer("overview", overview())
        self.worker.answer("versions", ())
        return self

    def fetch(self, image_id: str = "case_1") -> Any:
        """Have a case in hand, by Next sample; return its segmentation."""
        self.flow.next_sample()
        self.answer_case("next_sample", image_id)
        return self.node

    def answer_case(self, op: str, image_id: str = "case_1") -> None:
        """Have the image of a case come, without a label."""
        self.wait_for(op)
        voxels = np.arange(np.prod(SHAPE), dtype=np.int16).reshape(SHAPE)
        volume = volume_file(self.folder, voxels, name=image_id)
        with timed("answer"):
            self.worker.answer(op, Fetched(Sample(image_id, image_id), volume, None))
        self.tick()
        assert self.view.sample is not None and self.view.sample.id == image_id, self.view.message

    def wait_for(self, op: str) -> None:
        """Let the module go on until it asks the helper for something; what was drawn is kept before that."""
        for _ in range(100):
            if self.worker.waiting(op):
                return
            self.tick(1)
        raise AssertionError(f"nobody asked for {op!r}: {self.view.activity} {self.view.message}")

    def draw(self, node: Any, name: str, value: int = 1) -> np.ndarray:
        """Draw as the segment editor does: an undo point, then one block of voxels; return where."""
        where = np.zeros(SHAPE, np.uint8)
        where[value % 3, 1:3, 1:4] = 1
        self.editor.saveStateForUndo()
        draw(node, node.GetSegmentation().GetSegmentIdBySegmentName(name), where)
        driver.spin()
        return where.astype(bool)

    def voxels(self, node: Any, name: str) -> np.ndarray:
        """Return where a segment is."""
        return voxels_of(node, node.GetSegmentation().GetSegmentIdBySegmentName(name))

    def drawn_in(self, draft: Any, segment: str) -> np.ndarray:
        """Return where a segment is in a file of unsent work."""
        return mask(segnrrd.read(Path(draft)), segment)

    def segmented(self, labels: tuple = LABELS, uncertainty: bool = False) -> Any:
        """Return a segmentation as the worker gives it: each label in a row of its own."""
        label = np.zeros(SHAPE, np.uint8)
        for number, entry in enumerate(labels):
            label.reshape(-1, 2)[number] = entry.value
        values = {entry.name: entry.value for entry in labels}
        file = label_file(self.folder, label, values)
        facts = SegmentationFacts(values, "v1", "cpu", 1.5)
        unsure = volume_file(self.folder, label / 255, name="unsure") if uncertainty else None
        return Segmented(facts, file, uncertainty=unsure)

    def segment(self, **what: Any) -> None:
        """Have the case segmented."""
        self.flow.auto_segment()
        with timed("answer"):
            self.worker.answer("infer", self.segmented(**what))
        self.tick()

    def backgrounds(self) -> set[str]:
        """Return the names of the images in the slice views."""
        return {_name(self.bench, composite.GetBackgroundVolumeID()) for composite in self._composites()}

    def foregrounds(self) -> set[str]:
        """Return the names of what lies over them."""
        return {_name(self.bench, composite.GetForegroundVolumeID()) for composite in self._composites()}

    def _composites(self) -> list[Any]:
        logics = self.bench.app.layoutManager().mrmlSliceLogics()
        return [logic.GetSliceCompositeNode() for logic in logics]


def _name(bench: Any, node_id: str | None) -> str:
    node = bench.scene.GetNodeByID(node_id) if node_id else None
    return node.GetName() if node is not None else ""
