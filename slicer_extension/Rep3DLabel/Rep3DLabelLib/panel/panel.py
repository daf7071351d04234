"""The panel: draws what the workflow shows, hands it what the user does, and keeps nothing of its own.

One timer lets the workflow go on and draws what has changed; nothing here waits.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import qt

from ..settings import Settings
from ..view import Question
from .batch import BatchSection
from .cases import CasesSection
from .editor import EditorSection
from .labels import LabelsSection
from .local import LocalSection
from .options import OptionsSection
from .parts import CommandButtons, Icons, Section, widgets_below
from .qt_keys import SpaceGuard
from .qt_questions import Questions
from .qt_wheel import WheelGuard
from .server import ServerSection
from .shortcuts import Shortcuts, key_text
from .training import TrainingSection, VersionsSection
from .work import ActivitySection, CaseSection, ChoiceSection, DraftsSection, MessageSection

__all__ = ["TICK_MS", "Panel"]

TICK_MS = 50
_SMALL_TEXTS = (
    "choiceText",
    "caseText",
    "versionText",
    "caseDetails",
    "uncertaintyText",
    "trainingDice",
    "batchText",
    "nextSampleKey",
    "autoSegmentKey",
    "submitKey",
)
_FIELDS = ("QComboBox", "QAbstractSpinBox", "QAbstractSlider")
_CLOSED = (  # sections that are closed at first
    "accessSection",
    "localSection",
    "trainingSection",
    "versionsSection",
    "casesSection",
    "batchSection",
    "optionsSection",
)


class Panel:
    """The user interface of the module; a `ports.Screen`.

    Args:
        root: The widget that the .ui file made.
        ui: Its named widgets as attributes (`slicer.util.childWidgetVariables`).
        settings: What is remembered.
        icons: Folder of the pictures.
        window: The main window, where there is one.
    """

    def __init__(self, root: Any, ui: Any, settings: Settings, icons: Path, window: Any = None) -> None:
        self._root, self.ui, self._settings = root, ui, settings
        self._icons = Icons(icons)
        self._window = window if window is not None else root
        self._workflow: Any = None
        self._sections: list[Section] = []
        self._tables: list[Any] = []
        self._buttons = CommandButtons()
        self._shortcuts: Shortcuts | None = None
        self._entered = False
        self.editor = EditorSection(ui)
        self.questions = Questions(self._window)
        self._guard = WheelGuard(root)
        for field in widgets_below(root, _FIELDS, ui.segmentEditor):
            if not field.inherits("QScrollBar"):
                field.installEventFilter(self._guard)
        self._space = SpaceGuard(root)
        self._space.watch(self._window, widgets_below(root, ("QAbstractButton",), ui.segmentEditor))
        for name in _CLOSED:
            getattr(ui, name).collapsed = True
        for name in _SMALL_TEXTS:
            label = getattr(ui, name)
            font = qt.QFont(label.font)
            if font.pointSizeF() > 0:  # -1 where the font is given in pixels
                font.setPointSizeF(font.pointSizeF() * 0.9)
                label.setFont(font)
        self._timer = qt.QTimer(root)
        self._timer.setInterval(TICK_MS)
        self._timer.connect("timeout()", self.tick)

    def use(self, workflow: Any) -> None:
        """Be the interface of a workflow from now on; called once."""
        ui, icons, buttons = self.ui, self._icons, self._buttons
        self._workflow = workflow
        labels = LabelsSection(ui, workflow, buttons)
        versions = VersionsSection(ui, workflow, buttons)
        cases = CasesSection(ui, workflow, buttons)
        self._sections = [
            ServerSection(ui, workflow, self._settings, icons, buttons),
            LocalSection(ui, workflow, self._settings, icons, buttons),
            DraftsSection(ui, workflow, buttons),
            ChoiceSection(ui, workflow, icons, buttons),
            ActivitySection(ui, workflow, buttons),
            MessageSection(ui, icons),
            CaseSection(ui),
            labels,
            TrainingSection(ui, workflow, buttons),
            versions,
            cases,
            BatchSection(ui, workflow, buttons),
            OptionsSection(ui, workflow),
        ]
        self._tables = [labels.table, versions.table, cases.table]
        self._shortcuts = Shortcuts(self._window, workflow)
        for label, command in (
            (ui.nextSampleKey, "next_sample"),
            (ui.autoSegmentKey, "auto_segment"),
            (ui.submitKey, "submit"),
        ):
            label.setText(key_text(command))
        self.draw()
        self._timer.start()

    # ---- time

    def tick(self) -> None:
        """Let the workflow go on, and draw what has changed."""
        try:
            self._workflow.tick()
        finally:
            self.draw()
            for table in self._tables:
                table.step()

    def draw(self) -> None:
        """Draw what differs from what is drawn."""
        view = self._workflow.view
        for section in self._sections:
            section.refresh(view)
        self._buttons.draw(view.enabled)

    # ---- Slicer's module events

    def enter(self) -> None:
        """Note that the module is shown."""
        self._entered = True
        self.editor.enter()
        if self._shortcuts is not None:
            self._shortcuts.switch(True)

    def exit(self) -> None:
        """Another module is shown; the workflow goes on."""
        self._entered = False
        self.editor.exit()
        if self._shortcuts is not None:
            self._shortcuts.switch(False)

    def close(self) -> None:
        """Stop for good; the widgets go too, since each of them observes the scene."""
        self._timer.stop()
        self.questions.close()
        if self._shortcuts is not None:
            self._shortcuts.close()
        self._root.deleteLater()

    # ---- ports.Screen

    def ask(self, question: Question, answer: Callable[[str], None]) -> None:
        """Show a question and return at once."""
        self.questions.ask(question, answer)

    def edit(self, segmentation: Any, volume: Any) -> None:
        """Hand a segmentation to the segment editor."""
        self.editor.edit(segmentation, volume)

    def save_undo(self, segmentation: Any) -> bool:
        """Make an undo point of a segmentation."""
        return self.editor.save_undo(segmentation)

    def show_chart(self, chart: Any) -> None:
        """Show curves beside the slice views."""
        self.editor.show_chart(chart)
