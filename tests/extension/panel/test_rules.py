"""Rules of the panel: it never waits, its keys are the module's, the wheel scrolls, everything explains itself."""

from __future__ import annotations

import xml.etree.ElementTree as ElementTree
from collections.abc import Iterator

import pytest
from Rep3DLabelLib.view import Question

from tests.extension.panel_samples import MODULE, STATES, OpenPanel, disconnected, everything, with_sample

UI = MODULE / "Resources" / "UI" / "Rep3DLabel.ui"
INTERACTIVE = {
    "QPushButton",
    "QToolButton",
    "QComboBox",
    "QCheckBox",
    "QSpinBox",
    "QLineEdit",
    "QTableWidget",
    "QPlainTextEdit",
    "QProgressBar",
    "ctkPathLineEdit",
    "ctkCollapsibleButton",
    "qMRMLNodeComboBox",
}
ASK = Question("k", "Title", "Text?", (("yes", "Do it"), ("no", "Leave it")), "no")


@pytest.fixture
def opened(bench) -> Iterator[OpenPanel]:
    panel = OpenPanel(bench, everything(with_sample()))
    yield panel
    panel.close()


def _box(bench):
    from tests.slicerbench.dialogs import open_dialogs

    (box,) = open_dialogs()
    return box


def test_a_question_does_not_stop_the_program(opened: OpenPanel, bench) -> None:
    answers: list[str] = []
    opened.panel.ask(ASK, answers.append)
    assert answers == [] and opened.panel.questions.current == ASK
    before = opened.workflow.ticks
    opened.panel.tick()
    assert opened.workflow.ticks > before
    box = _box(bench)
    assert box.text == "Text?" and box.windowTitle == "Title"
    [button for button in box.buttons() if button.text.replace("&", "") == "Do it"][0].click()
    bench.app.processEvents()
    assert answers == ["yes"] and opened.panel.questions.current is None


def test_closing_a_question_does_no_harm(opened: OpenPanel, bench) -> None:
    answers: list[str] = []
    opened.panel.ask(ASK, answers.append)
    _box(bench).close()
    bench.app.processEvents()
    assert answers == ["no"]


def test_questions_wait_for_each_other(opened: OpenPanel, bench) -> None:
    answers: list[tuple[int, str]] = []
    opened.panel.ask(ASK, lambda key: answers.append((1, key)))
    opened.panel.ask(ASK, lambda key: answers.append((2, key)))
    _box(bench).buttons()[0].click()
    bench.app.processEvents()
    assert len(answers) == 1
    _box(bench).close()
    bench.app.processEvents()
    assert [number for number, _ in answers] == [1, 2] and answers[1] == (2, "no")


def test_an_answer_may_ask_again(opened: OpenPanel, bench) -> None:
    answers: list[str] = []
    opened.panel.ask(ASK, lambda key: opened.panel.ask(ASK, answers.append))
    _box(bench).close()
    bench.app.processEvents()
    _box(bench).close()
    bench.app.processEvents()
    assert answers == ["no"]


def test_the_end_answers_open_questions_without_harm(opened: OpenPanel, bench) -> None:
    answers: list[str] = []
    opened.panel.ask(ASK, answers.append)
    opened.panel.ask(ASK, answers.append)
    opened.panel.questions.close()
    assert answers == ["no", "no"]


def _press(opened: OpenPanel, keys: str) -> None:
    from PySide6 import QtGui
    from PySide6.QtTest import QTest

    combination = QtGui.QKeySequence(keys)[0]
    opened.root.activateWindow()
    opened.bench.app.processEvents()
    QTest.keyClick(opened.root, combination.key(), combination.keyboardModifiers())
    opened.bench.app.processEvents()


@pytest.mark.parametrize(
    ("keys", "command"),
    [
        ("Ctrl+Shift+N", "next_sample"),
        ("Ctrl+Shift+G", "auto_segment"),
        ("Ctrl+Shift+Return", "submit"),
        ("Ctrl+Shift+J", "jump_to_uncertain"),
        ("Ctrl+Shift+X", "cancel"),
    ],
)
def test_keys_command_while_the_module_is_open_only(opened: OpenPanel, keys: str, command: str) -> None:
    _press(opened, keys)
    assert opened.commands == [(command,)]
    opened.panel.exit()
    _press(opened, keys)
    assert opened.commands == []
    opened.panel.enter()
    _press(opened, keys)
    assert opened.commands == [(command,)]


def test_keys_are_not_those_of_slicer_or_its_segment_editor(opened: OpenPanel) -> None:
    """A key that two have in one window does nothing at all."""
    from Rep3DLabelLib.panel.shortcuts import KEYS

    found = opened.bench.slicer.util.mainWindow().findChildren(opened.bench.qt.QShortcut)
    taken = {shortcut.key.toString() for shortcut in found}
    assert {*"1234567890ZYQWI/*,.<>", "Shift+1", "Esc", "Space", "Ctrl+Z"} <= taken  # the editor's, while it is open
    taken |= {"Ctrl+Shift+A", "Ctrl+Shift+T", "Ctrl+Shift+Space"}  # of qMRMLMarkupsToolBar
    for keys in KEYS.values():
        assert keys.startswith("Ctrl+Shift+") and keys not in taken, keys
    assert len(set(KEYS.values())) == len(KEYS)


def test_keys_are_shown_below_the_buttons(opened: OpenPanel) -> None:
    assert opened.ui.nextSampleKey.text == "Ctrl+Shift+N" and opened.ui.submitKey.text == "Ctrl+Shift+Return"


@pytest.mark.parametrize(
    "name", ["strategyComboBox", "modelComboBox", "deviceComboBox", "viewsSpinBox", "serverComboBox"]
)
def test_the_wheel_changes_no_field(opened: OpenPanel, name: str) -> None:
    from PySide6 import QtCore, QtGui, QtWidgets

    opened.ui.optionsSection.collapsed = False
    field = getattr(opened.ui, name)
    field.setFocus()
    before = opened.workflow.view
    shown = field.currentText if field.inherits("QComboBox") else field.text
    for delta in (120, -120, -120):
        point = QtCore.QPointF(5, 5)
        event = QtGui.QWheelEvent(
            point,
            field.mapToGlobal(point),
            QtCore.QPoint(),
            QtCore.QPoint(0, delta),
            QtCore.Qt.MouseButton.NoButton,
            QtCore.Qt.KeyboardModifier.NoModifier,
            QtCore.Qt.ScrollPhase.NoScrollPhase,
            False,
        )
        QtWidgets.QApplication.sendEvent(field, event)
        assert not event.isAccepted()  # goes on to what scrolls
    assert (field.currentText if field.inherits("QComboBox") else field.text) == shown
    assert opened.workflow.view == before and opened.commands == []


def test_every_interactive_widget_has_a_tooltip() -> None:
    root = ElementTree.parse(UI).getroot()
    without = [
        element.get("name")
        for element in root.iter("widget")
        if element.get("class") in INTERACTIVE
        and not any(
            given.get("name") == "toolTip" and given.findtext("string") for given in element.findall("property")
        )
    ]
    assert without == []


def test_every_field_has_a_name_for_screen_readers() -> None:
    root = ElementTree.parse(UI).getroot()
    named = {given.findtext("cstring") for given in root.iter("property") if given.get("name") == "buddy"}
    for element in root.iter("widget"):
        fields = {"QComboBox", "QLineEdit", "QSpinBox", "ctkPathLineEdit", "qMRMLNodeComboBox"}
        if element.get("class") in fields and element.get("name") not in named:
            names = {given.get("name") for given in element.findall("property")}
            assert "accessibleName" in names or element.get("name") == "draftsComboBox", element.get("name")


def test_the_keyboard_reaches_everything_in_order() -> None:
    root = ElementTree.parse(UI).getroot()
    order = [stop.text for stop in root.iter("tabstop")]
    reachable = INTERACTIVE - {"QProgressBar", "ctkCollapsibleButton"}
    widgets = [element.get("name") for element in root.iter("widget") if element.get("class") in reachable]
    assert order == widgets  # as they stand on the panel


def test_no_scrolling_inside_scrolling() -> None:
    classes = {element.get("class") for element in ElementTree.parse(UI).getroot().iter("widget")}
    assert not classes & {"QScrollArea", "QTabWidget"}


def test_the_segment_editor_is_embedded_with_settings_of_its_own(opened: OpenPanel, slicer) -> None:
    editor = opened.ui.segmentEditor
    node = editor.mrmlSegmentEditorNode()
    assert node.GetSingletonTag() == "Rep3DLabel"
    assert not editor.segmentationNodeSelectorVisible and not editor.sourceVolumeNodeSelectorVisible
    volume = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    assert opened.panel.save_undo(segmentation) is False  # nothing to be undone
    opened.panel.edit(segmentation, volume)
    assert editor.segmentationNode() == segmentation and editor.sourceVolumeNode() == volume
    assert opened.panel.save_undo(segmentation) is True
    opened.panel.edit(None, None)
    assert editor.segmentationNode() is None


def test_a_closed_scene_leaves_a_usable_editor(opened: OpenPanel, slicer) -> None:
    opened.panel.editor.scene_closing()
    slicer.mrmlScene.Clear(0)
    opened.panel.editor.scene_closed()
    assert opened.ui.segmentEditor.mrmlSegmentEditorNode().GetScene() is slicer.mrmlScene


def test_leaving_the_module_puts_the_tools_down(opened: OpenPanel, slicer) -> None:
    segmentation = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
    opened.panel.edit(segmentation, None)
    opened.ui.segmentEditor.setActiveEffectByName("Paint")
    opened.panel.exit()
    assert opened.ui.segmentEditor.activeEffect() is None


def test_long_words_can_be_broken_and_short_ones_are_left() -> None:
    from Rep3DLabelLib.panel.parts import soft

    assert soft("Cannot write here.") == "Cannot write here."
    path = "/home/a/very/long/path/with-parts_and_more/image.nii.gz"
    broken = soft(path)
    assert broken.replace("\u200b", "") == path
    assert max(len(part) for part in broken.split("\u200b")) <= 18
    assert max(len(part) for part in soft("x" * 100).split("\u200b")) <= 18


def test_qt_settings_are_a_mapping(bench) -> None:
    from Rep3DLabelLib.panel.qt_settings import QtStore
    from Rep3DLabelLib.settings import Settings

    store = QtStore(bench.app.userSettings())
    settings = Settings(store)
    settings.remember("http://a")
    settings.keep_key("http://a", "k")
    again = Settings(QtStore(bench.app.userSettings()))
    assert again.addresses == ["http://a"] and again.api_key("http://a") == "k"
    assert sorted(store) == ["addresses", "keys"] and len(store) == 2
    del store["keys"]
    assert "keys" not in store
    with pytest.raises(KeyError):
        store["keys"]


def test_the_first_thing_to_do_is_said_in_every_state() -> None:
    from Rep3DLabelLib.panel.work import next_step

    assert "Connect" in next_step(disconnected())
    assert all(next_step(make()) for make, _ in STATES.values())
