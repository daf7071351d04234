"""The extension as Slicer builds and loads it: metadata, every file listed, icons, the module and its own tests."""

from __future__ import annotations

import re
import shutil
import sys
import xml.etree.ElementTree as ElementTree
from pathlib import Path

import psutil
import pytest

from tests.slicerbench.system.open_files import files_as_on_windows

EXTENSION = Path(__file__).resolve().parents[2] / "slicer_extension"
MODULE = EXTENSION / "Rep3DLabel"


def _values(path: Path) -> dict[str, str]:
    return dict(re.findall(r'set\((\w+)\s+"([^"]*)"\)', path.read_text(encoding="utf-8")))


def _listed() -> set[str]:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8").replace("${MODULE_NAME}", "Rep3DLabel")
    blocks = re.findall(r"set\(MODULE_PYTHON_(?:SCRIPTS|RESOURCES)\n(.*?)\)", text, re.DOTALL)
    assert len(blocks) == 2
    return {line.strip() for block in blocks for line in block.splitlines() if line.strip()}


def test_metadata_is_complete() -> None:
    values = _values(EXTENSION / "CMakeLists.txt")
    for name in ("HOMEPAGE", "CATEGORY", "CONTRIBUTORS", "DESCRIPTION", "ICONURL", "SCREENSHOTURLS", "DEPENDS"):
        assert values.get(f"EXTENSION_{name}"), name
    text = (EXTENSION / "CMakeLists.txt").read_text(encoding="utf-8")
    steps = ("project(Rep3DLabel)", "find_package(Slicer REQUIRED)", "include(${Slicer_USE_FILE})")
    steps += ("add_subdirectory(Rep3DLabel)", "include(${Slicer_EXTENSION_GENERATE_CONFIG})")
    steps += ("include(${Slicer_EXTENSION_CPACK})",)
    places = [text.index(step) for step in steps]
    assert places == sorted(places)


def test_every_file_is_installed() -> None:
    there = {
        str(path.relative_to(MODULE))
        for path in MODULE.rglob("*")
        if path.is_file() and path.name != "CMakeLists.txt" and "__pycache__" not in path.parts
    }
    assert _listed() == there


def test_tests_are_registered() -> None:
    text = (MODULE / "CMakeLists.txt").read_text(encoding="utf-8")
    assert "slicer_add_python_unittest(SCRIPT ${MODULE_NAME}.py)" in text and "add_subdirectory(Testing)" in text
    cases = (MODULE / "Testing" / "Python" / "CMakeLists.txt").read_text(encoding="utf-8")
    for path in (MODULE / "Testing" / "Python").glob("*.py"):
        assert f"slicer_add_python_unittest(SCRIPT {path.name})" in cases


def test_the_ui_file_names_only_classes_of_slicer_qt_and_ctk() -> None:
    root = ElementTree.parse(MODULE / "Resources" / "UI" / "Rep3DLabel.ui").getroot()
    custom = {element.findtext("class") for element in root.iter("customwidget")}
    used = {element.get("class") for element in root.iter("widget")}
    assert {name for name in used if not str(name).startswith("Q")} == custom
    names = [element.get("name") for element in root.iter("widget")]
    assert len(names) == len(set(names))


def test_the_icon(bench) -> None:
    for path in (EXTENSION / "Rep3DLabel.png", MODULE / "Resources" / "Icons" / "Rep3DLabel.png"):
        picture = bench.qt.QPixmap(str(path))
        assert (picture.width(), picture.height()) == (128, 128)


@pytest.fixture
def opened(bench):
    return bench.open_module(MODULE / "Rep3DLabel.py")


def test_the_module_opens_leaves_and_ends(opened, bench) -> None:
    module = opened.parent_module
    assert module.title == "Rep3D Label" and module.categories == ["Segmentation"] and module.contributors
    assert module.helpText and module.acknowledgementText and module.icon is not None
    folder = opened.widget._folder
    assert folder.is_dir() and str(folder).startswith(bench.app.temporaryPath)
    assert not opened.ui.nextSampleButton.enabled and opened.ui.connectButton.enabled
    opened.exit()
    opened.enter()
    opened.close()
    assert not folder.exists() and opened.widget.workflow is None


@pytest.mark.skipif(sys.platform != "linux", reason="which files are open is read in /proc")
def test_on_windows_too_nothing_is_left_of_the_folder(opened) -> None:
    from Rep3DLabelLib.worker.helper import Helper

    folder, worker = opened.widget._folder, opened.widget.workflow._context.worker
    from tests.slicerbench import driver

    worker.submit("measure", {}, failed=lambda error: None)
    driver.wait(lambda: worker.poll() or not worker.pending)
    (helper,) = psutil.Process(worker.pid).children()
    helper.suspend()  # as one that takes its time to end
    with files_as_on_windows():
        opened.close()
        assert worker.log.exists()  # the helper has it open
        helper.resume()
        Helper.end_all()
        assert not folder.exists()


def test_a_server_is_suggested_no_python_of_slicer(bench) -> None:
    """The PATH that Slicer gives itself begins with its own programs; what counts is that in which it was started."""
    programs = Path(shutil.which("PythonSlicer")).parent
    own = programs / "python3"
    own.write_text("#!/bin/sh\n")
    own.chmod(0o755)
    try:
        path = bench.open_module(MODULE / "Rep3DLabel.py").ui.localPython.currentPath
    finally:
        own.unlink()
    assert path and not path.startswith(str(programs))


@pytest.mark.parametrize("version", [(5, 6, 2), (5, 8, 1)])
def test_light_boxes_are_turned_off_where_the_editor_cannot_draw_in_them(bench, version) -> None:
    bench.app.pretend(*version)
    boxes = bench.app.layoutManager().light_boxes()
    boxes.update(("Red", "Green"))
    opened = bench.open_module(MODULE / "Rep3DLabel.py")
    assert not boxes
    status = bench.slicer.util.mainWindow().statusBar()
    assert "Light box" in status.currentMessage()
    opened.exit()
    status.clearMessage()
    opened.enter()
    assert not status.currentMessage()


def test_a_closed_scene_leaves_it_usable(opened, bench) -> None:
    bench.scene.Clear(0)
    bench.app.processEvents()
    assert opened.ui.segmentEditor.mrmlSegmentEditorNode() is not None
    assert opened.ui.connectButton.enabled


def test_a_reload_leaves_nothing_of_the_panel_before_and_enters_the_new_one(bench) -> None:
    """Slicer calls neither exit() nor enter(), and deletes no widget, when a module is reloaded."""
    from tests.slicerbench import driver

    closed = bench.core.observers()
    opened = bench.open_module(MODULE / "Rep3DLabel.py")
    shown, keys, before = bench.core.observers(), _keys(bench), opened.widget
    volume = bench.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode")
    before.panel.edit(bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"), volume)
    opened.ui.segmentEditor.setActiveEffectByName("Paint")
    bench.scene.RemoveNode(before.ui.segmentEditor.segmentationNode())
    bench.scene.RemoveNode(volume)
    bench.slicer.util.reloadScriptedModule("Rep3DLabel")
    driver.spin()
    before.enter()  # as Slicer did until its pull request 7351 of late 2023
    assert bench.core.observers() == shown and _keys(bench) == keys
    editor = opened.ui.segmentEditor
    assert editor._d.views and not editor.mrmlSegmentEditorNode().GetActiveEffectName()
    assert opened.ui.connectButton.enabled
    before.exit()
    assert _keys(bench) == keys
    opened.exit()
    assert not _keys(bench)
    opened.close()
    driver.spin()
    assert bench.core.observers() == closed


def _keys(bench) -> list[str]:
    """Return the keys that work in the main window."""
    found = bench.slicer.util.mainWindow().findChildren(bench.qt.QShortcut)
    return sorted(shortcut.key.toString() for shortcut in found if shortcut.enabled)


def test_drafts_outlive_the_session_and_lie_outside_slicers_cache(opened, bench) -> None:
    kept = opened.python._kept_folder()
    assert kept.name == "Rep3DLabel"
    assert not str(kept).startswith((bench.app.cachePath, bench.app.temporaryPath))


def test_the_modules_own_tests_pass(opened) -> None:
    from tests.slicerbench.slm import run_module_test

    run_module_test(opened)
