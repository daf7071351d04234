"""Keys pressed as on a keyboard: in a window where the Segment Editor has its own, the panel's widgets keep theirs."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.extension.panel_samples import MODULE, OpenPanel, everything, with_sample


@pytest.fixture
def opened(bench) -> Iterator[OpenPanel]:
    """Return a panel in whose window the editor has its keys, and was painting until a moment ago."""
    panel = OpenPanel(bench, everything(with_sample()))
    panel.editor = panel.ui.segmentEditor
    panel.editor.setSegmentationNode(bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
    panel.editor.installKeyboardShortcuts(panel.root)
    panel.editor.setActiveEffectByName("Paint")
    panel.editor.setActiveEffectByName("")
    yield panel
    panel.close()


def _effect(opened: OpenPanel) -> str:
    effect = opened.editor.activeEffect()
    return effect.name if effect is not None else ""


def _buttons(widget, editor) -> list:
    """Return the buttons of our own below a widget, sections included."""
    found = []
    for child in widget.children():
        if child is not editor and not child.inherits("ctkPathLineEdit"):
            found += [child] if child.inherits("QAbstractButton") else []
            found += _buttons(child, editor)
    return found


def test_space_presses_the_button_that_has_the_focus_and_no_tool(opened: OpenPanel, driver) -> None:
    buttons, pressed = _buttons(opened.root, opened.editor), []
    for button in buttons:
        if button.inherits("ctkCollapsibleButton"):
            button.collapsed = False
    usable = [button for button in buttons if button.visible and button.enabled]
    assert {"connectButton", "submitButton", "optionsSection", "autoRunCheckBox"} <= {one.objectName for one in usable}
    for button in usable:
        button.connect("clicked(bool)", pressed.append)
        driver.press(button, "Space")
        assert len(pressed) == 1, button.objectName
        pressed.clear()
        if button.inherits("ctkCollapsibleButton"):
            driver.press(button, "Space")
            pressed.clear()
        assert _effect(opened) == "", button.objectName


def test_elsewhere_space_is_the_editor_s_again(opened: OpenPanel, driver, bench) -> None:
    table = opened.editor.findChild("qMRMLSegmentsTableView", "SegmentsTableView").findChild("QTableWidget")
    driver.press(opened.ui.connectButton, "Space")
    driver.press(table, "Space")
    assert _effect(opened) == "Paint"
    driver.press(opened.ui.connectButton, "Esc")  # all other keys stay the editor's
    assert _effect(opened) == ""
    driver.press(opened.ui.connectButton, "1")
    assert _effect(opened) == "Threshold"


def test_a_click_leaves_the_keyboard_where_it_was(opened: OpenPanel, driver) -> None:
    """Who clicks Auto-segment and goes on with Space wants the last tool, not another segmentation."""
    driver.press(opened.editor.findChild("QToolButton", "Paint"), "Esc")
    had = opened.root.focusWidget()
    for name in ("connectButton", "autoSegmentButton", "optionsSection", "autoRunCheckBox"):
        opened.ui.optionsSection.collapsed = False
        driver.click(getattr(opened.ui, name))
        assert opened.root.focusWidget() is had, name


def test_fields_take_what_is_typed(opened: OpenPanel, driver) -> None:
    typed = "1 zyqw/*,.<>i 0"
    driver.type_text(opened.ui.serverComboBox, typed)
    assert opened.ui.serverComboBox.currentText == typed and _effect(opened) == ""


def test_the_module_is_left_while_a_button_has_the_focus(bench, driver) -> None:
    """Space works again, in a module that has it, and here after coming back."""
    module = bench.open_module(MODULE / "Rep3DLabel.py")
    editor, window = module.ui.segmentEditor, bench.slicer.util.mainWindow()
    own = bench.qt.QShortcut(bench.qt.QKeySequence("Space"), window)
    own.setEnabled(False)  # of somebody who does not want it now
    driver.press(module.ui.connectButton, "I")
    keys = [key for key in window.findChildren(bench.qt.QShortcut) if key.key.toString() == "Space"]
    assert len(keys) == 2 and not any(key.enabled for key in keys)
    module.exit()
    module.enter()
    driver.press(window.centralWidget(), "Esc")
    keys = [key for key in window.findChildren(bench.qt.QShortcut) if key.key.toString() == "Space"]
    assert [key.enabled for key in keys if key is not own] == [True] and not own.enabled
    assert editor.activeEffect() is None
    own.delete()
