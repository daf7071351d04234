"""Training and the versions that come of it."""

from __future__ import annotations

from typing import Any

from ..i18n import tr
from ..view import TrainingView, VersionRow, View
from .parts import (
    CommandButtons,
    Section,
    frame_style,
    listed,
    set_number,
    set_text,
    short_time,
    show_widget,
    time_left,
)
from .qt_table import Cell, Row, Table

__all__ = ["TrainingSection", "VersionsSection"]


class TrainingSection(Section):
    """Train, watch, stop."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        ui.trainingErrorFrame.setStyleSheet(frame_style("trainingErrorFrame", "red"))
        buttons.add(ui.trainButton, "train", self.train)
        buttons.add(ui.trainAnewButton, "train_anew", workflow.train_anew)
        buttons.add(ui.stopTrainingButton, "stop_training", workflow.stop_training)
        buttons.add(ui.curvesButton, "show_curves", workflow.show_curves)

    def train(self) -> None:
        """Start a training, or go on with one that was stopped."""
        self._workflow.train()

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.training

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, training = self._ui, view.training
        set_text(ui.trainingHeadline, training.headline or tr("No training has run yet."))
        show_widget(ui.trainingBar, training.is_active or training.progress > 0)
        set_number(ui.trainingBar, training.progress)
        resumable = training.resumable and not training.is_active
        ui.trainButton.setText(tr("Resume") if resumable else tr("Train"))
        show_widget(ui.trainAnewButton, resumable)
        set_text(ui.trainingNumbers, _numbers(training))
        left_out = listed(training.left_out, "\n")
        told = [tr("Cases that were left out:\n{cases}").format(cases=left_out)] if left_out else []
        set_text(ui.trainingDice, "\n".join(filter(None, (_dice(training), *training.notes, *told))))
        set_text(ui.trainingError, training.error)
        show_widget(ui.trainingErrorFrame, bool(training.error))
        ui.trainingError.setToolTip("\n".join(training.log[-10:]))


def _numbers(training: TrainingView) -> str:
    parts = []
    if training.loss is not None:
        parts.append(tr("Loss {value:.3f}").format(value=training.loss))
    if training.dice is not None:
        parts.append(tr("Dice {value:.3f}").format(value=training.dice))
    if training.is_active and training.eta_seconds is not None:
        parts.append(time_left(training.eta_seconds))
    return ", ".join(parts)


def _dice(training: TrainingView) -> str:
    if len(training.dice_labels) < 2:
        return ""
    scores = [f"{name} {value:.3f}" for name, value in training.dice_labels.items()]
    return tr("Dice on the validation cases: {scores}").format(scores=", ".join(scores))


class VersionsSection(Section):
    """Versions of the model; which one segments."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        self._rows: dict[str, VersionRow] = {}
        self.table = Table(ui.versionsTable, (56, 48, 84), fit=8, selected=self.selected)
        buttons.add(ui.publishButton, "publish", self.publish, self.why_not_publish)
        buttons.add(ui.rollBackButton, "roll_back", workflow.roll_back)

    def publish(self) -> None:
        """Publish the selected version."""
        if self.table.key:
            self._workflow.publish(self.table.key)

    def selected(self, key: str) -> None:
        """Tell about the selected version."""
        self._draw_text()

    def why_not_publish(self) -> str:
        """Return what keeps the selected version from being published, "" if nothing."""
        row = self._rows.get(self.table.key)
        if row is None:
            return tr("Select a version first.")
        if row.published:
            return tr("This version is published already.")
        return "" if row.available else tr("The weights of this version are no longer there.")

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.versions

    def draw(self, view: View) -> None:
        """See `Section`."""
        self._rows = {row.version: row for row in view.versions}
        self.table.show([_version(row) for row in view.versions])
        self._draw_text()

    def _draw_text(self) -> None:
        row = self._rows.get(self.table.key)
        parts = [row.origin, row.decision] if row else []
        set_text(self._ui.versionText, "\n".join(part for part in parts if part))


def _version(row: VersionRow) -> Row:
    name = tr("{version} (published)").format(version=row.version) if row.published else row.version
    tip = row.decision or row.origin
    dice = tr("not measured") if row.dice is None else f"{row.dice:.3f}"
    return Row(
        row.version,
        (
            Cell(name, tip, bold=row.published),
            Cell("–" if row.dice is None else dice, dice, right=True),
            Cell(str(row.cases), tr("Cases that it was trained on"), right=True),
            Cell(short_time(row.created), row.created, right=True),
        ),
    )
