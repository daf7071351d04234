"""The widgets inside the stand-in of qMRMLSegmentEditorWidget, with the names and settings of its .ui file."""

from __future__ import annotations

from PySide6 import QtWidgets

from tests.slicerbench.widgets.effects import NAMES
from tests.slicerbench.widgets.node_combo import qMRMLNodeComboBox
from tests.slicerbench.widgets.segments_table import qMRMLSegmentsTableView

_SELECTORS = (
    ("Segmentation:", "SegmentationNodeComboBox", "vtkMRMLSegmentationNode", {"renameEnabled": True}),
    (
        "Source volume:",
        "SourceVolumeNodeComboBox",
        "vtkMRMLScalarVolumeNode",
        {"noneEnabled": True, "addEnabled": False, "renameEnabled": True},
    ),
)


def build(editor: QtWidgets.QWidget) -> None:
    """Put the widgets into an editor, and into its `_d`."""
    private, layout = editor._d, QtWidgets.QVBoxLayout(editor)
    layout.setContentsMargins(0, 0, 0, 0)
    form = QtWidgets.QFormLayout()
    layout.addLayout(form)
    private.rows = []
    selectors = []
    for label, name, kind, settings in _SELECTORS:
        selector, text = qMRMLNodeComboBox(editor), QtWidgets.QLabel(label, editor)
        selector.setObjectName(name)
        selector.nodeTypes = [kind]
        for setting, value in settings.items():
            setattr(selector, setting, value)
        form.addRow(text, selector)
        private.rows.append((text, selector))
        selectors.append(selector)
    private.segmentation_selector, private.volume_selector = selectors
    selectors[0].currentNodeChanged.connect(editor._segmentation_chosen)
    selectors[1].currentNodeChanged.connect(editor._volume_chosen)
    buttons = QtWidgets.QHBoxLayout()
    layout.addLayout(buttons)
    private.buttons = {}
    for name, text, action in (
        ("AddSegmentButton", "Add", editor._add_segment),
        ("RemoveSegmentButton", "Remove", editor._remove_segment),
        ("UndoButton", "Undo", editor.undo),
        ("RedoButton", "Redo", editor.redo),
    ):
        button = private.buttons[name] = QtWidgets.QPushButton(text, editor)
        button.setObjectName(name)
        button.clicked.connect(action)
        buttons.addWidget(button)
    private.table = qMRMLSegmentsTableView(editor)
    private.table.setObjectName("SegmentsTableView")
    private.table.setSelectionMode(1)
    private.table.selectionChanged.connect(editor._row_selected)
    layout.addWidget(private.table)
    grid = QtWidgets.QGridLayout()
    layout.addLayout(grid)
    for index, name in enumerate(NAMES):
        button = QtWidgets.QToolButton(editor)
        button.setText(name)
        button.setCheckable(True)
        button.setObjectName(name)
        button.clicked.connect(_effect_action(editor, name))
        private.buttons[name] = button
        grid.addWidget(button, index // 4, index % 4)


def _effect_action(editor: QtWidgets.QWidget, name: str):
    return lambda checked: editor.setActiveEffectByName(name if checked else "")
