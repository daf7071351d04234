"""The stand-in of the segment editor where nodes and scenes come and go: as strict as qMRMLSegmentEditorWidget."""

from __future__ import annotations

import numpy as np
import pytest


def _image(bench, name: str):
    return bench.slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), name=name)


def _segmentation(bench, image, name: str):
    node = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", name)
    node.SetReferenceImageGeometryParameterFromVolumeNode(image)
    node.GetSegmentation().AddEmptySegment("one", "one")
    return node


@pytest.fixture
def cases(bench, toy):
    """Return two images with a segmentation each, the second of which is edited."""
    images = [_image(bench, name) for name in "ab"]
    nodes = [_segmentation(bench, image, image.GetName()) for image in images]
    toy.ui.editor.setSegmentationNode(nodes[1])
    assert toy.ui.editor.sourceVolumeNode() is images[1] and _backgrounds(bench) == {images[1].GetID()}
    return images, nodes


def _backgrounds(bench) -> set[str]:
    logics = bench.app.layoutManager().mrmlSliceLogics()
    return {logic.GetSliceCompositeNode().GetBackgroundVolumeID() for logic in logics}


@pytest.mark.parametrize("batch", [False, True])
def test_it_jumps_to_another_segmentation_and_its_image_when_its_own_is_deleted(bench, toy, cases, batch) -> None:
    images, nodes = cases
    editor = toy.ui.editor
    editor.setActiveEffectByName("Paint")
    for logic in bench.app.layoutManager().mrmlSliceLogics():
        logic.GetSliceCompositeNode().SetForegroundVolumeID("something")
    if batch:
        bench.scene.StartState(bench.scene.BatchProcessState)
    bench.scene.RemoveNode(nodes[1])
    if batch:
        assert editor.mrmlSegmentEditorNode().GetSegmentationNode() is None
        bench.scene.EndState(bench.scene.BatchProcessState)
    assert editor.segmentationNode() is nodes[0] and editor.sourceVolumeNode() is images[0]
    assert _backgrounds(bench) == {images[0].GetID()} and editor.activeEffect() is None
    assert not [
        logic
        for logic in bench.app.layoutManager().mrmlSliceLogics()
        if logic.GetSliceCompositeNode().GetForegroundVolumeID()
    ]
    bench.scene.RemoveNode(nodes[0])
    assert editor.segmentationNode() is None and editor.mrmlSegmentEditorNode().GetSegmentationNode() is None


def test_an_import_makes_it_jump_and_takes_the_choices_of_a_saved_editor_over(bench, toy, cases, tmp_path) -> None:
    images, nodes = cases
    editor = toy.ui.editor
    editor.mrmlSegmentEditorNode().SetSingletonTag("Toy")
    other = bench.slicer.vtkMRMLScene()
    saved = other.AddNewNodeByClass("vtkMRMLSegmentationNode", "saved")
    node = bench.slicer.vtkMRMLSegmentEditorNode()
    node.SetSingletonTag("Toy")
    other.AddNode(node)
    node.SetAndObserveSegmentationNode(saved)
    node.SetActiveEffectName("Paint")
    other.SetURL(str(tmp_path / "other.mrml"))
    assert other.Commit()
    bench.scene.SetURL(other.GetURL())
    bench.scene.Import()
    assert editor.mrmlSegmentEditorNode().GetSegmentationNode() is not nodes[1]
    assert editor.segmentationNode() is nodes[0]  # the list was made anew


def test_what_is_undone_is_told_once_and_without_saying_of_what(bench, toy, cases) -> None:
    _, nodes = cases
    editor, segmentation = toy.ui.editor, nodes[1].GetSegmentation()
    for number in range(5):
        segmentation.AddEmptySegment(f"more {number}", f"more {number}")
    editor.saveStateForUndo()
    for number in range(5):
        segmentation.RemoveSegment(f"more {number}")
    told = []
    event = bench.slicer.vtkSegmentation.SegmentAdded
    nodes[1].AddObserver(event, lambda caller, name: told.append(name))
    editor.undo()
    assert segmentation.GetNumberOfSegments() == 6 and len(told) == 1


def test_a_closed_scene_leaves_it_on_nothing(bench, toy, cases) -> None:
    editor = toy.ui.editor
    editor.mrmlSegmentEditorNode().SetSingletonTag("Toy")  # else it goes with the scene
    bench.scene.Clear(False)
    assert editor.segmentationNode() is None and editor.sourceVolumeNode() is None
