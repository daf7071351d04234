"""The bench runs modules as Slicer does: a real scene, a module's life, dialogs, clicks, the stall meter."""

from __future__ import annotations

import subprocess
import sys
import time
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

ROOT = Path(__file__).parents[3]


@pytest.fixture
def volume(bench, write_nifti):
    """Return a volume of 4 x 5 x 6 voxels with 30 bright ones, loaded from a file."""
    voxels = np.zeros((4, 5, 6), dtype=np.int16)
    voxels[1] = 200
    affine = np.array([[-2.0, 0, 0, 10], [0, -3, 0, 20], [0, 0, 4, -30], [0, 0, 0, 1]])
    return bench.slicer.util.loadVolume(str(write_nifti("image.nii.gz", voxels, affine)))


class TestTheScene:
    def test_slice_views_have_nodes_and_logics(self, bench, volume):
        manager = bench.app.layoutManager()
        assert manager.sliceViewNames() == ("Red", "Green", "Yellow")
        red = manager.sliceWidget("Red")
        assert red.mrmlSliceNode().GetName() == "Red" and red.mrmlSliceNode().GetOrientation() == "Axial"
        assert red.sliceLogic().GetSliceCompositeNode().GetBackgroundVolumeID() == volume.GetID()
        bench.slicer.util.setSliceViewerLayers(background=None, fit=True)
        assert red.mrmlSliceCompositeNode().GetBackgroundVolumeID() is None

    def test_closing_the_scene_leaves_the_slice_views(self, bench, volume):
        bench.scene.Clear(False)
        assert bench.slicer.util.getNodes("vtkMRMLScalarVolumeNode*") == {}
        assert bench.app.layoutManager().sliceWidget("Green").mrmlSliceNode() is not None

    def test_a_label_file_becomes_segments_and_comes_back(self, bench, write_nifti, tmp_path):
        slicer = bench.slicer
        voxels = np.zeros((4, 5, 6), dtype=np.uint8)
        voxels[1, 2:4], voxels[2, 0, 0] = 1, 2
        affine = np.diag([2.0, 3.0, 4.0, 1.0])
        label = slicer.util.loadLabelVolume(str(write_nifti("label.nii.gz", voxels, affine)))
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        assert slicer.modules.segmentations.logic().ImportLabelmapToSegmentationNode(label, node)
        assert node.GetSegmentation().GetNumberOfSegments() == 2
        assert slicer.util.saveNode(label, str(tmp_path / "out.nii.gz"))
        saved = nib.load(tmp_path / "out.nii.gz")
        assert np.array_equal(np.asarray(saved.dataobj), voxels) and np.allclose(saved.affine, affine)
        assert slicer.util.saveNode(node, str(tmp_path / "out.seg.nrrd"))
        again = slicer.util.loadSegmentation(str(tmp_path / "out.seg.nrrd"))
        assert again.GetSegmentation().GetNumberOfSegments() == 2

    def test_errors_of_vtk_fail_a_test(self, bench):
        with bench.problems.expected("invalid orientation preset name"):
            bench.app.layoutManager().sliceWidget("Red").mrmlSliceNode().GetSliceOrientationPreset("Sideways")
        bench.problems.check()

    def test_settings_are_not_the_users(self, bench):
        settings = bench.qt.QSettings()
        settings.setValue("Rep3D/Url", "http://x")
        settings.sync()
        for each in (settings, bench.app.userSettings(), bench.app.settings()):
            assert Path(each.fileName()).is_relative_to(bench.folder)
        assert bench.app.userSettings().value("Rep3D/Url") == "http://x"
        assert bench.app.userSettings().value("Rep3D/None") is None and settings.value("Rep3D/None", 3) == 3
        with pytest.raises(TypeError):
            settings.value("Rep3D/Url", type=str)


class TestAModule:
    def test_the_toy_is_opened_and_clicked(self, bench, toy, driver, volume, tmp_path):
        assert not toy.ui.applyButton.enabled and toy.ui.statusLabel.text == "Choose a volume"
        with pytest.raises(AssertionError, match="disabled"):
            driver.click(toy.ui.applyButton)
        driver.choose(toy.ui.inputSelector, volume)
        driver.type_text(toy.ui.thresholdSpin, "150")
        assert toy.ui.statusLabel.text.startswith("Ready: image")
        driver.click(toy.ui.applyButton)
        assert toy.ui.statusLabel.text == "30 voxels"
        node = toy.ui.editor.segmentationNode()
        assert node.GetName() == "Toy" and toy.ui.editor.currentSegmentID() == "bright"
        assert driver.screenshot(toy.parent, tmp_path / "toy.png").stat().st_size > 5000

    def test_an_edit_is_undone_and_redone(self, bench, toy, driver, volume):
        editor, util = toy.ui.editor, bench.slicer.util
        driver.choose(toy.ui.inputSelector, volume)
        driver.click(toy.ui.applyButton)

        def voxels():
            return int((util.arrayFromSegmentBinaryLabelmap(editor.segmentationNode(), "bright", volume) > 0).sum())

        undo, redo = editor.findChild("QPushButton", "UndoButton"), editor.findChild("QPushButton", "RedoButton")
        assert voxels() == 30 and not undo.enabled
        empty = np.zeros(util.arrayFromVolume(volume).shape, dtype=np.uint8)
        driver.edit_segment(editor, "bright", empty, volume)
        assert voxels() == 0 and undo.enabled
        driver.click(undo)
        assert voxels() == 30 and redo.enabled
        editor.installKeyboardShortcuts()
        views = bench.slicer.util.mainWindow().centralWidget()
        driver.press(views, "Y")
        assert voxels() == 0
        driver.press(views, "Z")
        assert voxels() == 30
        driver.shortcut("Ctrl+Y")
        assert voxels() == 0
        driver.shortcut("Ctrl+Z")
        assert voxels() == 30
        editor.uninstallKeyboardShortcuts()
        with pytest.raises(AssertionError, match="expected one shortcut"):
            driver.shortcut("Ctrl+Z")

    def test_the_editor_s_keys_choose_effects_and_segments(self, bench, toy, driver):
        editor, views = toy.ui.editor, bench.slicer.util.mainWindow().centralWidget()
        node = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        segments = [node.GetSegmentation().AddEmptySegment(name) for name in "ab"]
        editor.setSegmentationNode(node)
        editor.installKeyboardShortcuts()
        names = editor.availableEffectNames()
        for keys, name in (("1", names[0]), ("0", names[9]), ("Shift+2", names[11]), ("Esc", ""), ("Space", names[11])):
            driver.press(views, keys)
            assert toy.widget.editorNode.GetActiveEffectName() == name, keys
        driver.press(views, "Shift+2")  # once more puts it down
        assert editor.activeEffect() is None
        for keys, segment in (("W", 1), (".", 1), ("Q", 0), ("/", 0)):
            driver.press(views, keys)
            assert editor.currentSegmentID() == segments[segment], keys
        editor.uninstallKeyboardShortcuts()
        driver.press(views, "1")
        assert editor.activeEffect() is None

    def test_the_editor_s_selectors_follow_and_lead(self, bench, toy, driver, volume):
        editor, got = toy.ui.editor, []
        editor.connect("segmentationNodeChanged(vtkMRMLSegmentationNode*)", got.append)
        editor.connect("sourceVolumeNodeChanged(vtkMRMLVolumeNode*)", got.append)
        nodes = [bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name) for name in "ab"]
        editor.setSegmentationNode(nodes[0])
        editor.setSourceVolumeNode(volume)
        chosen = editor.findChild("qMRMLNodeComboBox", "SegmentationNodeComboBox")
        assert chosen.currentNode() is nodes[0] and got == [nodes[0], volume]
        driver.choose(chosen, nodes[1])
        assert editor.segmentationNode() is nodes[1] and got[2:] == [None, nodes[1]]  # it has no reference image
        assert editor.sourceVolumeNode() is None
        editor.segmentationNodeSelectorVisible = False
        assert not chosen.visible

    def test_segments_are_added_and_removed_by_buttons(self, bench, toy, driver):
        editor = toy.ui.editor
        editor.setSegmentationNode(bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode"))
        driver.click(editor.findChild("QPushButton", "AddSegmentButton"))
        first = editor.currentSegmentID()
        driver.click(editor.findChild("QPushButton", "AddSegmentButton"))
        table = editor.findChild("qMRMLSegmentsTableView", "SegmentsTableView")
        assert table.segmentCount == 2 and table.selectedSegmentIDs() == (editor.currentSegmentID(),)
        driver.click(editor.findChild("QPushButton", "RemoveSegmentButton"))
        assert table.displayedSegmentIDs() == (first,)
        editor.setActiveEffectByName("Paint")
        editor.activeEffect().setParameter("BrushSphere", 1)
        assert toy.widget.editorNode.GetAttribute("Paint.BrushSphere") == "1"
        with pytest.raises(ValueError, match="expected one of"):
            editor.setActiveEffectByName("Pain")

    def test_the_source_volume_needs_a_segmentation(self, toy, volume):
        with pytest.raises(RuntimeError, match="before setSegmentationNode"):
            toy.ui.editor.setSourceVolumeNode(volume)

    def test_its_life_is_that_of_slicer(self, bench, toy, driver):
        events = toy.python.EVENTS
        assert events == ["setup", "enter"]
        driver.wait(lambda: toy.widget.ticks > 1, 5)
        toy.exit()
        toy.enter()
        toy.close()
        assert events == ["setup", "enter", "exit", "enter", "exit", "cleanup"]
        assert not hasattr(bench.slicer.modules, "toylab")

    def test_it_is_reloaded(self, bench, toy):
        before = toy.widget
        bench.slicer.util.reloadScriptedModule("ToyLab")
        assert toy.widget is not before and toy.widget is bench.slicer.modules.ToyLabWidget
        assert toy.ui.applyButton.text == "Apply"

    def test_its_own_test_runs(self, bench, toy):
        from tests.slicerbench.slm import run_module_test

        run_module_test(toy)
        assert toy.python.EVENTS[-1] == "tested"

    def test_closing_the_scene_reaches_the_panel(self, bench, toy, driver, volume):
        driver.choose(toy.ui.inputSelector, volume)
        bench.scene.Clear(False)
        driver.spin()
        assert not toy.ui.applyButton.enabled

    def test_the_end_of_slicer(self, bench):
        got = []
        bench.app.connect("aboutToQuit()", lambda: got.append(1))
        bench.app.aboutToQuit.emit()
        assert got == [1]


class TestDialogs:
    def test_a_message_is_noted(self, bench, toy, driver, volume):
        driver.choose(toy.ui.inputSelector, volume)
        driver.type_text(toy.ui.thresholdSpin, "9000")
        with bench.problems.expected("nothing is brighter"):
            driver.click(toy.ui.applyButton)
        assert "nothing is brighter than 9000" in bench.dialogs.texts()[0]

    def test_questions_need_an_answer(self, bench):
        util = bench.slicer.util
        bench.dialogs.answer("Sure?", bench.qt.QMessageBox.Yes)
        assert util.confirmYesNoDisplay("Sure?") is True
        bench.dialogs.answer("Sure?", "No")
        assert util.confirmYesNoDisplay("Sure?") is False
        with pytest.raises(AssertionError, match="prepare the answer"):
            util.confirmOkCancelDisplay("Really?")
        bench.dialogs.reset()
        bench.dialogs.answer("a file", "/tmp/x.nii.gz")
        assert bench.qt.QFileDialog.getOpenFileName(None, "Choose a file") == "/tmp/x.nii.gz"
        bench.dialogs.answer("never asked", "x")
        with pytest.raises(AssertionError, match="no dialog asked"):
            bench.dialogs.check()
        bench.dialogs.reset()

    def test_a_dialog_that_does_not_wait_is_answered_by_a_click(self, bench, qt, driver):
        from tests.slicerbench.dialogs import open_dialogs

        got = []
        box = qt.QMessageBox(bench.slicer.util.mainWindow())
        box.text = "Drop the draft?"
        keep = box.addButton("Keep it", qt.QMessageBox.RejectRole)
        box.connect("buttonClicked(QAbstractButton*)", lambda button: got.append(button.text))
        box.open()
        driver.spin()
        assert open_dialogs() == [box]
        driver.click(keep)
        assert got == ["Keep it"] and open_dialogs() == []


@pytest.mark.timed
class TestTheStallMeter:
    def test_a_block_of_200_ms_is_seen(self, bench, qt, driver):
        from tests.slicerbench.stall import stall_meter

        def block():
            time.sleep(0.2)

        button, timer = qt.QPushButton("x"), qt.QTimer()
        button.connect("clicked()", block)
        with stall_meter() as meter:
            button.click()
        assert 0.2 <= meter.longest < 0.4 and "block" in meter.where
        timer.connect("timeout()", block)
        timer.start(1)
        with stall_meter() as meter:
            driver.wait(lambda: meter.runs, 5)
        timer.stop()
        assert meter.longest >= 0.2 and meter.longest_turn >= 0.2
        with pytest.raises(AssertionError, match="stood still"):
            meter.check(0.1)

    def test_a_block_in_an_event_handler_is_seen(self, bench, qt, driver):
        from tests.slicerbench.stall import stall_meter

        class Slow(qt.QWidget):
            def timerEvent(self, event):
                time.sleep(0.2)

        slow = Slow()
        number = slow.startTimer(1)
        with stall_meter() as meter:
            driver.spin(0.05)
        slow.killTimer(number)
        assert meter.longest == 0.0 and meter.longest_turn >= 0.2

    def test_an_idle_loop_is_none(self, bench, qt, driver):
        from tests.slicerbench.stall import stall_meter

        timer = qt.QTimer()
        timer.connect("timeout()", lambda: None)
        timer.start(5)
        with stall_meter() as meter:
            driver.spin(0.3)
        timer.stop()
        assert len(meter.runs) > 5 and meter.longest < 0.05
        meter.check(0.1)


def test_waiting_in_vain_says_for_what(driver):
    with pytest.raises(AssertionError, match="waited 0.05 s in vain for: the moon"):
        driver.wait(lambda: False, 0.05, "the moon")


def test_pictures_show_letters_not_boxes(bench, qt, driver, tmp_path):
    pictures = set()
    for letter in "IMO":
        label = qt.QLabel(letter)
        label.resize(30, 30)
        pictures.add(driver.screenshot(label, tmp_path / f"{letter}.png").read_bytes())
    assert len(pictures) == 3


def test_without_slicer_core_the_bench_says_so():
    code = "import sys; sys.modules['slicer'] = None; from tests.slicerbench import install; install()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, cwd=ROOT, timeout=60)
    assert done.returncode == 1 and "ModuleNotFoundError" in done.stderr
