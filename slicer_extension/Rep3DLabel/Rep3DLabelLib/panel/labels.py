"""Labels with their volumes, and the places where the model is uncertain."""

from __future__ import annotations

from typing import Any

from ..i18n import tr
from ..view import LabelRow, View
from .parts import CommandButtons, Section, set_text
from .qt_table import Cell, Row, Table

__all__ = ["LabelsSection"]


class LabelsSection(Section):
    """Table of labels; uncertainty."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        self.table = Table(ui.labelsTable, (84, 84), fit=12)
        buttons.add(ui.showUncertaintyCheckBox, "show_uncertainty", self.show_uncertainty)
        buttons.add(ui.jumpButton, "jump_to_uncertain", workflow.jump_to_uncertain)

    def show_uncertainty(self, checked: bool) -> None:
        """Show or hide the overlay."""
        self.touched()
        self._workflow.show_uncertainty(bool(checked))

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.labels, view.uncertainty

    def draw(self, view: View) -> None:
        """See `Section`."""
        self.table.show([_row(label) for label in view.labels])
        uncertainty = view.uncertainty
        self._ui.showUncertaintyCheckBox.setChecked(uncertainty.visible)
        parts = []
        if uncertainty.available and uncertainty.mean is not None:
            parts.append(tr("Mean uncertainty {value:.3f}").format(value=uncertainty.mean))
        if uncertainty.place:
            parts.append(tr("place {number} of {all}").format(number=uncertainty.place, all=uncertainty.places))
        elif uncertainty.available and uncertainty.places:
            parts.append(tr("{all} places to look at").format(all=uncertainty.places))
        text = ", ".join(parts)
        set_text(self._ui.uncertaintyText, text[:1].upper() + text[1:])


def _row(label: LabelRow) -> Row:
    if label.ml is not None:
        volume = f"{label.ml:.2f} ml" if label.ml < 100 else f"{label.ml:.0f} ml"
    else:
        volume = "" if label.voxels is None else tr("{count} voxels").format(count=label.voxels)
    tip = "" if label.voxels is None else tr("{count} voxels").format(count=label.voxels)
    sure = "" if label.confidence is None else f"{label.confidence:.2f}"
    name_tip = tr("{name}, value {value} on the server").format(name=label.name, value=label.value)
    return Row(
        label.name,
        (
            Cell(label.name, name_tip, colour=label.colour),
            Cell(volume, tip, right=True),
            Cell(sure, tr("The model's own confidence, 0 to 1; it is not a measured accuracy."), right=True),
        ),
    )
