"""Batch segmentation, and images that are added to the server."""

from __future__ import annotations

from typing import Any

import slicer

from ..i18n import tr
from ..view import View
from .parts import CommandButtons, Section, set_number, set_text, show_widget

__all__ = ["BatchSection"]


class BatchSection(Section):
    """Many cases at once."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        ui.uploadVolumeSelector.setMRMLScene(slicer.mrmlScene)
        buttons.add(ui.startBatchButton, "start_batch", workflow.start_batch)
        buttons.add(ui.stopBatchButton, "stop_batch", workflow.stop_batch)
        buttons.add(ui.uploadVolumeButton, "upload_volume", self.upload_volume, self.why_no_volume)
        buttons.add(ui.uploadDicomButton, "upload_dicom", self.upload_dicom, self.why_no_folder)

    def upload_volume(self) -> None:
        """Add the chosen volume."""
        node = self._ui.uploadVolumeSelector.currentNode()
        if node is not None:
            self._workflow.upload_volume(node)

    def upload_dicom(self) -> None:
        """Add the series of a folder."""
        folder = self._ui.dicomPath.currentPath.strip()
        if folder:
            self._ui.dicomPath.addCurrentPathToHistory()
            self._workflow.upload_dicom(folder)

    def why_no_volume(self) -> str:
        """Return why no volume can be sent, "" if one can."""
        return "" if self._ui.uploadVolumeSelector.currentNode() is not None else tr("Choose a volume first.")

    def why_no_folder(self) -> str:
        """Return why no folder can be sent, "" if one can."""
        return "" if self._ui.dicomPath.currentPath.strip() else tr("Choose a folder first.")

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.batch

    def draw(self, view: View) -> None:
        """See `Section`."""
        batch = view.batch
        show_widget(self._ui.batchBar, batch.is_active)
        set_number(self._ui.batchBar, batch.done / batch.total if batch.total else None)
        parts = [batch.text]
        if batch.total:
            parts.append(tr("{done} of {total} cases").format(done=batch.done, total=batch.total))
        if batch.failed:
            parts.append(tr("{count} failed").format(count=batch.failed))
        set_text(self._ui.batchText, ", ".join(part for part in parts if part))
