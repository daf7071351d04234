"""A clinician at the module on the bench: clicks, looks, corrects. No shortcut past the user interface but drawing."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np

from tests.slicerbench import driver

MODULE = Path(__file__).resolve().parents[2] / "slicer_extension" / "Rep3DLabel" / "Rep3DLabel.py"

__all__ = ["MODULE", "Clinician"]


class Clinician:
    """The open module, and what a person does with it.

    Args:
        bench: The bench (`tests.slicerbench.bench.Bench`).
    """

    def __init__(self, bench: Any) -> None:
        self.bench = bench
        self.opened = bench.open_module(MODULE)
        self.ui = self.opened.widget.ui
        self.slicer = bench.slicer

    @property
    def flow(self) -> Any:
        return self.opened.widget.workflow

    @property
    def view(self) -> Any:
        return self.flow.view

    @property
    def message(self) -> str:
        """What the message line says."""
        return str(self.ui.messageLabel.text)

    def wait(self, until: Callable[[], object], seconds: float = 60.0) -> object:
        """Let the module go on until something holds."""
        return driver.wait(until, seconds, lambda: f"{self.view.activity} {self.view.connection} {self.view.message}")

    def open(self, section: str) -> None:
        """Open a section of the panel."""
        getattr(self.ui, section).collapsed = False
        driver.spin()

    def click(self, button: str) -> None:
        """Click a button as soon as it is drawn as usable."""
        widget = getattr(self.ui, button)
        driver.wait(lambda: widget.enabled, 2, lambda: f"{button} to be usable; it says: {widget.toolTip}")
        driver.click(widget)

    def connect(self, url: str) -> None:
        """Type an address and connect."""
        driver.type_text(self.ui.serverComboBox, url)
        self.click("connectButton")
        self.wait(lambda: self.view.connection.state == "ready")

    def idle(self) -> bool:
        return self.view.activity is None

    def next_sample(self) -> str:
        """Fetch the next sample and return its id."""
        before = self.view.sample
        self.click("nextSampleButton")
        self.wait(lambda: self.idle() and self.view.sample is not None and self.view.sample != before)
        return str(self.view.sample.id)

    def auto_segment(self) -> None:
        """Have it segmented."""
        self.click("autoSegmentButton")
        self.wait(self.idle)
        assert self.view.message.level == "info", self.view.message

    @property
    def segmentation(self) -> Any:
        return self.ui.segmentEditor.segmentationNode()

    @property
    def volume(self) -> Any:
        return self.ui.segmentEditor.sourceVolumeNode()

    def voxels(self, name: str) -> np.ndarray:
        """Return a segment's voxels on the volume's grid, (K, J, I)."""
        segment = self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        return self.slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment, self.volume)

    def draw(self, name: str, voxels: np.ndarray) -> None:
        """Give a segment new voxels (K, J, I on the volume's grid), as an effect of the editor would."""
        segment = self.segmentation.GetSegmentation().GetSegmentIdBySegmentName(name)
        driver.edit_segment(self.ui.segmentEditor, segment, voxels.astype(np.uint8), self.volume)

    def draw_over(self, name: str, voxels: np.ndarray) -> None:
        """As `draw`, with the editor set to leave other segments as they are where both are drawn."""
        slicer, segmentation = self.slicer, self.segmentation.GetSegmentation()
        segment = segmentation.GetSegmentIdBySegmentName(name)
        segmentation.SeparateSegmentLabelmap(segment)  # as the editor does before it draws over others
        self.draw(name, voxels)
        assert np.array_equal(
            slicer.util.arrayFromSegmentBinaryLabelmap(self.segmentation, segment, self.volume).astype(bool), voxels
        )

    def in_scene(self, label: Path) -> np.ndarray:
        """Return a label file's voxels as they lie in the scene's volume: by position in space, whatever the axes
        are."""
        file = nib.load(label)
        matrix = np.array(
            [[self._matrix().GetElement(row, column) for column in range(4)] for row in range(4)], np.float64
        )
        steps = np.linalg.inv(file.affine) @ matrix  # index in the scene -> index in the file
        whole = np.rint(steps)
        assert np.allclose(steps, whole, atol=1e-3)
        values = np.asarray(file.dataobj).reshape(file.shape[:3])
        k, j, i = np.indices(self.slicer.util.arrayFromVolume(self.volume).shape)
        index = np.tensordot(whole[:3, :3], np.stack([i, j, k]), 1) + whole[:3, 3].reshape(3, 1, 1, 1)
        return values[tuple(index.astype(int))]

    def _matrix(self) -> Any:
        matrix = self.slicer.vtkMRMLSliceNode().GetXYToRAS()
        made = type(matrix)()
        self.volume.GetIJKToRASMatrix(made)
        return made

    def correct(self, label: Path, values: dict[str, int]) -> None:
        """Make the segments what the expert drew."""
        expert = self.in_scene(label)
        for name, value in values.items():
            self.draw(name, expert == value)

    def submit(self) -> None:
        """Submit, and wait until the server has it."""
        self.click("submitButton")
        self.wait(self.idle)
        assert "Submitted" in self.message, self.message
