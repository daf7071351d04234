"""The module while nodes and scenes come and go, on a bench as strict as Slicer: nothing goes into the wrong place."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from Rep3DLabelLib.client.answers import SubmittedLabel
from Rep3DLabelLib.labels import Label
from Rep3DLabelLib.worker.results import Measured

from tests.extension.in_slicer import InSlicer
from tests.slicerbench.callbacks import timed


@pytest.fixture
def here(bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> InSlicer:
    return InSlicer(bench, monkeypatch, tmp_path).connect()


def test_the_next_case_takes_the_place_of_the_one_before(here: InSlicer, bench) -> None:
    bench.slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), name="other")
    here.fetch("case_1")
    node = here.fetch("case_2")
    assert here.node is node and here.backgrounds() == {"case_2"}
    assert here.editor.sourceVolumeNode().GetName() == "case_2" and not here.editor._d.logged
    assert [volume.GetName() for volume in bench.slicer.util.getNodesByClass("vtkMRMLScalarVolumeNode")] == [
        "other",
        "case_2",
    ]


def _save(bench, folder: Path) -> str:
    """Save the scene as File > Save does, all nodes with their files; return its address."""
    folder.mkdir()
    assert bench.app.applicationLogic().SaveSceneToSlicerDataBundleDirectory(str(folder))
    return str(next(folder.glob("*.mrml")))


def _add(bench, address: str) -> None:
    bench.scene.SetURL(address)
    assert bench.scene.Import()


def test_a_case_comes_and_is_segmented(here: InSlicer) -> None:
    node = here.fetch()
    mine = here.draw(node, "head")
    assert here.view.edited and here.backgrounds() == {"case_1"}
    here.segment()
    assert here.node is node and not here.view.edited
    here.editor.undo()
    assert np.array_equal(here.voxels(node, "head"), mine) and here.view.edited


@pytest.mark.parametrize("entered", [True, False])
def test_a_scene_with_our_editor_is_added(here: InSlicer, bench, tmp_path: Path, entered: bool) -> None:
    first = here.fetch("case_1")
    here.draw(first, "head")
    here.editor.setActiveEffectByName("Paint")
    address = _save(bench, tmp_path / "saved")
    node = here.fetch("case_2")
    if not entered:
        here.opened.exit()
    here.segment(uncertainty=True)
    here.flow.show_uncertainty(True)
    assert here.foregrounds() == {"Uncertainty of case_2"}
    _add(bench, address)
    assert here.node is node and here.editor.mrmlSegmentEditorNode().GetSegmentationNode() is node
    assert here.editor.sourceVolumeNode().GetName() == "case_2" and here.backgrounds() == {"case_2"}
    assert here.foregrounds() == {"Uncertainty of case_2"}
    assert here.editor.activeEffect() is None and not here.editor._d.views  # no tool that nobody has taken
    assert not here.view.edited
    here.draw(node, "tail")
    assert here.view.edited
    bench.scene.RemoveNode(bench.slicer.util.getNode("Uncertainty of case_2"))
    _add(bench, address)
    assert here.node is node and not here.foregrounds() & {"Uncertainty of case_2"}


def test_without_a_case_an_added_scene_is_not_edited_here(here: InSlicer, bench, tmp_path: Path) -> None:
    here.draw(here.fetch(), "head")
    address = _save(bench, tmp_path / "saved")
    bench.scene.Clear(False)
    here.tick()
    assert here.view.sample is None and len(here.view.drafts) == 1
    _add(bench, address)
    here.tick()
    assert here.node is None and here.editor.activeEffect() is None
    assert bench.scene.GetFirstNodeByClass("vtkMRMLSegmentationNode") is not None


def test_a_scene_that_is_added_with_other_files_leaves_the_editor_on_the_case(
    here: InSlicer, bench, tmp_path: Path
) -> None:
    here.fetch("case_1")
    address = _save(bench, tmp_path / "saved")
    own = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "own")
    node = here.fetch("case_2")
    bench.scene.StartState(bench.scene.BatchProcessState)
    _add(bench, address)
    bench.scene.EndState(bench.scene.BatchProcessState)
    assert here.node is node and own.GetScene() is bench.scene


def test_an_undo_point_of_another_segmentation_is_none_for_the_case(here: InSlicer, bench) -> None:
    node = here.fetch()
    mine = here.draw(node, "head")
    own = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "own")
    here.editor.setSegmentationNode(own)
    here.segment()
    assert here.node is not node and here.node.GetName() == "case_1 auto-segmentation"
    assert np.array_equal(here.voxels(node, "head"), mine) and here.voxels(here.node, "head").any()
    here.editor.undo()
    assert np.array_equal(here.voxels(node, "head"), mine)


def test_surfaces_that_were_shown_are_made_again(here: InSlicer) -> None:
    node = here.fetch()
    here.draw(node, "head")
    here.segment()
    assert not node.GetSegmentation().ContainsRepresentation("Closed surface")  # nobody has asked for them
    assert node.CreateClosedSurfaceRepresentation()
    here.segment()
    segmentation = node.GetSegmentation()
    assert segmentation.ContainsRepresentation("Closed surface")
    surface = segmentation.GetSegment(segmentation.GetSegmentIdBySegmentName("tail")).GetRepresentation(
        "Closed surface"
    )
    assert surface.GetNumberOfPoints() > 0
    assert not here.view.edited  # a surface is no edit


def test_forty_labels_do_not_draw_the_views_forty_times(bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    labels = tuple(Label(f"label {value}", value) for value in range(1, 41))
    here = InSlicer(bench, monkeypatch, tmp_path).connect(labels)
    node = here.fetch()
    here.draw(node, "label 7")
    here.segment(labels=labels)
    assert here.node is node and len(here.voxels(node, "label 40").nonzero()[0]) == 2
    (draft,) = here.view.drafts
    with timed("restore"):
        here.flow.restore_draft(draft.key)
    here.answer_case("open_case")
    assert here.node is not node and here.voxels(here.node, "label 7").sum() == 6


@pytest.mark.parametrize("batch", [False, True])
def test_the_segmentation_of_the_case_is_deleted(here: InSlicer, bench, batch: bool) -> None:
    other = bench.slicer.util.addVolumeFromArray(np.zeros((3, 4, 5), np.int16), name="other")
    own = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "own")
    own.SetReferenceImageGeometryParameterFromVolumeNode(other)
    node = here.fetch()
    for logic in bench.app.layoutManager().mrmlSliceLogics():
        logic.GetSliceCompositeNode().SetForegroundVolumeID(other.GetID())
    here.segment(uncertainty=True)
    here.flow.show_uncertainty(True)
    here.draw(node, "head")
    if batch:
        bench.scene.StartState(bench.scene.BatchProcessState)
    bench.scene.RemoveNode(node)
    if batch:
        bench.scene.EndState(bench.scene.BatchProcessState)
    here.tick()
    assert here.view.sample is None and len(here.view.drafts) == 1
    assert here.node is None and here.editor.mrmlSegmentEditorNode().GetSegmentationNode() is None
    assert here.backgrounds() == {"case_1"} and here.foregrounds() == {"other"}
    assert not own.GetSegmentation().GetNumberOfSegments()


# ---- bad input


def _clone(bench, node):
    """Clone a node as the Data module does (vtkSlicerSubjectHierarchyModuleLogic::CloneSubjectHierarchyItem)."""
    clone = bench.scene.CreateNodeByClass(node.GetClassName())
    clone.UnRegister(None)
    clone.Copy(node)
    clone.SetName(f"{node.GetName()} copy")
    bench.scene.AddNode(clone)
    display = bench.scene.AddNewNodeByClass(node.GetDisplayNode().GetClassName())
    display.Copy(node.GetDisplayNode())
    clone.SetAndObserveDisplayNodeID(display.GetID())
    return clone


def _segmentations(bench) -> list:
    return bench.slicer.util.getNodesByClass("vtkMRMLSegmentationNode")


def test_a_scene_saved_in_the_middle_of_a_case_is_opened_where_no_server_is(
    bench, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    before = InSlicer(bench, monkeypatch, tmp_path).connect()
    mine = before.draw(before.fetch(), "head")
    address = _save(bench, tmp_path / "saved")
    before.opened.close()
    bench.scene.Clear(False)
    here = InSlicer(bench, monkeypatch, tmp_path)
    _add(bench, address)
    here.tick()
    (saved,) = _segmentations(bench)
    assert np.array_equal(here.voxels(saved, "head"), mine)
    assert here.node is None and here.view.sample is None
    assert len(here.view.drafts) == 1  # and it is offered as unsent work, too
    node = here.connect().fetch()
    here.segment()
    assert here.node is node and node is not saved
    assert np.array_equal(here.voxels(saved, "head"), mine) and saved.GetScene() is bench.scene


def test_scenes_with_our_cases_are_added_twice_and_only_the_case_in_hand_is_written_to(
    here: InSlicer, bench, tmp_path: Path
) -> None:
    first = here.draw(here.fetch("case_1"), "head", 1)
    saved = [_save(bench, tmp_path / "first")]
    here.draw(here.fetch("case_2"), "head", 2)
    saved.append(_save(bench, tmp_path / "second"))
    node = here.fetch("case_2")
    for address in (*saved, *saved):
        _add(bench, address)
        here.tick()
    others = [other for other in _segmentations(bench) if other is not node]
    assert len(others) == 4 and here.node is node
    drawn = [here.voxels(other, "head") for other in others]
    assert np.array_equal(drawn[0], first) and np.array_equal(drawn[2], first)
    here.segment()
    assert here.node is node and here.voxels(node, "tail").any()
    mine = here.draw(node, "tail")
    here.flow.submit()
    here.wait_for("measure")
    assert np.array_equal(here.drawn_in(here.worker.job("measure").args["draft"], "rep3d_3"), mine)
    for other, before in zip(others, drawn, strict=True):
        assert np.array_equal(here.voxels(other, "head"), before)
    here.worker.answer("measure", Measured({1: 6, 3: 6}, (), 0, 0.001))
    here.worker.answer("submit", SubmittedLabel("case_2"))
    here.fetch("case_3")
    assert [other for other in _segmentations(bench) if other in others] == others


@pytest.mark.parametrize("what", ["deleted", "deleted at the last moment", "cloned and deleted", "cloned and renamed"])
def test_the_segmentation_is_changed_while_the_model_segments(here: InSlicer, bench, what: str) -> None:
    node = here.fetch()
    mine = here.draw(node, "head")
    here.flow.auto_segment()
    clone = _clone(bench, node) if "cloned" in what else None
    if "deleted" in what:
        bench.scene.RemoveNode(node)
        assert len(here.drafts.list()) == 1
    else:
        node.SetName("mine")
        node.GetSegmentation().GetSegment("rep3d_1").SetName("another")
    if what != "deleted at the last moment":
        here.tick()
    here.worker.answer("infer", here.segmented())
    here.tick()
    assert here.view.activity is None
    (draft,) = here.drafts.list()
    assert np.array_equal(here.drawn_in(here.drafts.path(draft.key), "rep3d_1"), mine)
    if clone is not None:
        assert np.array_equal(here.voxels(clone, "head"), mine) and not here.voxels(clone, "tail").any()
    if "deleted" in what:
        assert here.view.sample is None and here.node is None
    else:
        assert here.node is node and here.voxels(node, "tail").any()


@pytest.mark.parametrize("what", ["deleted", "cloned and renamed"])
@pytest.mark.parametrize("accepted", [True, False])
def test_the_segmentation_is_changed_while_its_label_is_sent(here: InSlicer, bench, what: str, accepted: bool) -> None:
    node = here.fetch()
    mine = here.draw(node, "head")
    here.flow.submit()
    here.wait_for("measure")
    here.worker.answer("measure", Measured({1: 6, 3: 0}, (), 0, 0.001))
    if what == "deleted":
        bench.scene.RemoveNode(node)
    else:
        clone = _clone(bench, node)
        node.GetSegmentation().GetSegment("rep3d_1").SetName("another")
    here.tick()
    sent = here.worker.job("submit").args
    assert sent["image_id"] == "case_1" and np.array_equal(here.drawn_in(sent["draft"], "rep3d_1"), mine)
    if accepted:
        here.worker.answer("submit", SubmittedLabel("case_1"))
    else:
        here.worker.fail("submit", "ServerUnreachable")
    here.tick()
    assert here.view.activity is None and len(here.drafts.list()) == (0 if accepted else 1)
    if what == "deleted":
        assert here.node is None
    else:
        assert here.node is node and here.view.edited  # the new name is not at the server
        assert np.array_equal(here.voxels(clone, "head"), mine)
