"""Edits by the user are noticed; our own writes, and how things are shown, are not."""

from __future__ import annotations

import gc
import weakref

import numpy as np
import pytest
from Rep3DLabelLib.labels import Label
from Rep3DLabelLib.scene import Scene
from Rep3DLabelLib.scene.names import edit_events, source_representation

from tests.extension import scene_samples as samples
from tests.extension.scene_samples import ENTRIES, add_own, draw, loaded_label

VALUES = {"Anterior": 1, "Posterior": 2, "Cyst": 7}


@pytest.fixture
def scene(bench):
    made = Scene(bench.slicer, undo=lambda node: True)
    yield made
    made.close()


@pytest.fixture
def volume(scene, tmp_path):
    return samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7), np.int16)))


@pytest.fixture
def node(scene, volume, tmp_path):
    made = scene.segmentation_for(volume, ENTRIES)
    label = np.random.default_rng(0).choice([0, 1, 2, 7], (5, 6, 7)).astype(np.uint8)
    scene.apply_label(made, loaded_label(tmp_path, label, VALUES), ENTRIES)
    return made


@pytest.fixture
def edits(scene, node):
    seen: list[int] = []
    scene.watch(node, lambda: seen.append(1))
    return seen


def modify(node):
    node.GetSegmentation().GetSegment("rep3d_1").GetRepresentation(samples.BINARY).Modified()


EDITS = {
    "paint": lambda node: draw(node, "rep3d_2", np.ones((2, 2, 2), np.uint8)),
    "voxels": modify,
    "add": lambda node: node.GetSegmentation().AddEmptySegment("New", "New"),
    "add_drawn": lambda node: add_own(node, "New", np.ones((2, 2, 2), np.uint8)),
    "remove": lambda node: node.GetSegmentation().RemoveSegment("rep3d_2"),
    "rename": lambda node: node.GetSegmentation().GetSegment("rep3d_2").SetName("Other"),
    "reorder": lambda node: node.GetSegmentation().SetSegmentIndex("rep3d_2", 0),
    "term": lambda node: node.GetSegmentation().GetSegment("rep3d_2").SetTag("TerminologyEntry", "x~y"),
}
NO_EDITS = {
    "colour": lambda node: node.GetSegmentation().GetSegment("rep3d_2").SetColor(0.5, 0.1, 0.9),
    "visibility": lambda node: node.GetDisplayNode().SetSegmentVisibility("rep3d_2", False),
    "opacity": lambda node: node.GetDisplayNode().SetOpacity(0.3),
    "surface": lambda node: node.CreateClosedSurfaceRepresentation(),
    "node_name": lambda node: node.SetName("x"),
    "selection": lambda node: node.SetSelected(1),
    "attribute": lambda node: node.SetAttribute("x", "y"),
}


@pytest.mark.parametrize("name", EDITS)
def test_an_edit_is_noticed(node, edits, name):
    EDITS[name](node)
    assert edits


@pytest.mark.parametrize("name", NO_EDITS)
def test_what_is_no_edit_is_not(node, edits, name):
    NO_EDITS[name](node)
    assert not edits


def test_undo_is_an_edit(bench, scene, node):
    history = bench.slicer.vtkSegmentationHistory()
    history.SetSegmentation(node.GetSegmentation())
    history.SaveState()
    draw(node, "rep3d_2", np.ones((2, 2, 2), np.uint8))
    seen: list[int] = []
    scene.watch(node, lambda: seen.append(1))
    assert history.RestorePreviousState()
    assert seen
    history.SetSegmentation(None)


def test_a_transform_is_an_edit(bench, node, edits):
    transform = bench.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert edits


def test_our_own_writes_are_not(scene, volume, node, edits, tmp_path):
    data = scene.snapshot(node)
    label = np.random.default_rng(1).choice([0, 1, 2, 7], (5, 6, 7)).astype(np.uint8)
    scene.apply_label(node, loaded_label(tmp_path, label, {**VALUES, "More": 9}), ENTRIES)
    scene.ensure_segments(node, [*ENTRIES, Label("New", 8)])
    scene.restore(volume, data, ENTRIES, "again")
    scene.drawn_segments(node), scene.snapshot(node), scene.segment_names(node)
    assert not edits
    modify(node)
    assert len(edits) == 1


def test_a_write_of_ours_that_fails_does_not_make_it_deaf(scene, node, edits, tmp_path):
    label = loaded_label(tmp_path, np.ones((5, 6, 7), np.uint8), VALUES)
    with pytest.raises(AttributeError):
        scene.ensure_segments(node, [Label("Bad", 30, [1, 2, 3], 5), None])
    edits.clear()
    modify(node)
    assert edits and label


def test_unwatch_and_watching_another(scene, volume, node, edits):
    other = scene.segmentation_for(volume, ENTRIES)
    scene.unwatch()
    modify(node)
    assert not edits
    scene.watch(other, lambda: edits.append(2))
    scene.watch(other, lambda: edits.append(3))
    modify(other)
    assert edits == [3]


def test_it_ends_with_the_node(bench, scene, node, edits):
    bench.scene.RemoveNode(node)
    assert not edits
    modify(node)
    assert not edits
    scene.unwatch()


def test_it_ends_with_the_scene_and_closing_is_no_edit(bench, scene, node, edits):
    bench.scene.Clear(0)
    assert not edits


def test_nothing_is_held_after_the_node_is_gone(bench, scene, volume, tmp_path):
    made = scene.segmentation_for(volume, ENTRIES)
    scene.apply_label(made, loaded_label(tmp_path, np.ones((5, 6, 7), np.uint8), VALUES), ENTRIES)
    image = weakref.ref(made.GetSegmentation().GetSegment("rep3d_1").GetRepresentation(samples.BINARY))
    reference, gone = weakref.ref(made), []
    made.AddObserver("DeleteEvent", lambda caller, event: gone.append(1))
    scene.watch(made, lambda: None)
    scene.remove_sample()
    del made
    gc.collect()
    assert gone and reference() is None and image() is None


def test_a_scene_object_that_was_closed_is_released(bench):
    made = Scene(bench.slicer)
    reference = weakref.ref(made)
    made.close()
    del made
    gc.collect()
    assert reference() is None


def test_a_scene_object_that_was_not_closed_is_released_too(bench):
    reference = weakref.ref(Scene(bench.slicer))
    gc.collect()
    assert reference() is None
    bench.scene.Clear(0)


def test_names_of_older_versions():
    class Old:
        MasterRepresentationModified, SegmentAdded, SegmentRemoved, SegmentsOrderModified = range(4)

        def GetMasterRepresentationName(self):
            return "Binary labelmap"

    class Slicer:
        vtkSegmentation = Old

    assert edit_events(Slicer) == (0, 1, 2, 3)
    assert source_representation(Old()) == "Binary labelmap"
