"""Labels into segments: names, colours, terms, values; and everything of the user's left as it was."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from Rep3DLabelLib.errors import BadAnswer, LocalProblem
from Rep3DLabelLib.labels import LABEL_TAG, Code, Label
from Rep3DLabelLib.scene import Scene
from Rep3DLabelLib.scene.terms import colour_of, serialise_term, tag_of, tags_of

from tests.extension import scene_samples as samples
from tests.extension.scene_samples import ENTRIES, add_own, draw, label_file, loaded_label, voxels_of

VALUES = {"Anterior": 1, "Posterior": 2, "Cyst": 7}
LIVER = Label(
    "Liver",
    1,
    None,
    Code("123037004", "SCT", "Anatomical Structure"),
    Code("10200004", "SCT", "Liver"),
    Code("7771000", "SCT", "Left"),
    Code("818983003", "SCT", "Abdomen"),
)


class Editor:
    """The segment editor's undo, as the real one does it."""

    def __init__(self, slicer):
        self.history, self.calls, self.works = slicer.vtkSegmentationHistory(), 0, True

    def save(self, node) -> bool:
        self.calls += 1
        return self.works and self.history.GetSegmentation() is node.GetSegmentation() and self.history.SaveState()


@pytest.fixture
def editor(bench):
    made = Editor(bench.slicer)
    yield made
    made.history.SetSegmentation(None)


@pytest.fixture
def scene(bench, editor):
    made = Scene(bench.slicer, undo=editor.save)
    yield made
    made.close()


@pytest.fixture
def volume(scene, tmp_path):
    return samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7), np.int16), samples.oblique()))


@pytest.fixture
def node(scene, volume, editor):
    made = scene.segmentation_for(volume, ENTRIES)
    editor.history.SetSegmentation(made.GetSegmentation())
    return made


def label_map(seed: int = 0) -> np.ndarray:
    label = np.zeros((5, 6, 7), np.uint8)
    label[1:4, 1:5, 2:6] = np.random.default_rng(seed).choice([0, 1, 2, 7], (3, 4, 4))
    return label


def a_label(tmp_path, label=None, values=VALUES):
    return loaded_label(tmp_path, label_map() if label is None else label, values, samples.oblique())


# ---- segments for labels


def test_a_new_segmentation_has_a_segment_for_each_label(node):
    segmentation = node.GetSegmentation()
    assert list(segmentation.GetSegmentIDs()) == ["rep3d_1", "rep3d_2", "rep3d_7"]
    for each in ENTRIES:
        segment = segmentation.GetSegment(f"rep3d_{each.value}")
        assert (segment.GetName(), tag_of(segment, LABEL_TAG)) == (each.name, each.name)
    assert segmentation.GetSegment("rep3d_1").GetColor() == pytest.approx((200 / 255, 30 / 255, 40 / 255))


def test_it_is_found_again(scene, volume, node):
    assert scene.segmentation_for(volume, ENTRIES) is node
    assert scene.segmentation_for(volume, ENTRIES, create=False) is node


def test_a_segmentation_of_the_users_is_not_taken(bench, scene, volume):
    own = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    own.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    assert scene.segmentation_for(volume, ENTRIES, create=False) is None
    assert scene.segmentation_for(volume, ENTRIES) is not own


def test_missing_segments_are_added_and_renamed_ones_stay(scene, node):
    node.GetSegmentation().GetSegment("rep3d_2").SetName("Tail")
    node.GetSegmentation().GetSegment("rep3d_2").SetColor(0.1, 0.2, 0.3)
    scene.ensure_segments(node, [*ENTRIES, Label("New", 9)])
    names = [(s.id, s.name, s.label) for s in scene.segment_names(node)]
    assert names == [
        ("rep3d_1", "Anterior", "Anterior"),
        ("rep3d_2", "Tail", "Posterior"),
        ("rep3d_7", "Cyst", "Cyst"),
        ("rep3d_9", "New", "New"),
    ]
    assert node.GetSegmentation().GetSegment("rep3d_2").GetColor() == pytest.approx((0.1, 0.2, 0.3))


def test_an_id_that_is_taken_gets_another_one(bench, scene, volume):
    node = scene.segmentation_for(volume, [])
    node.GetSegmentation().AddEmptySegment("rep3d_1", "The user's")
    scene.ensure_segments(node, ENTRIES)
    names = [(s.name, s.label) for s in scene.segment_names(node)]
    assert names == [("The user's", ""), ("Anterior", "Anterior"), ("Posterior", "Posterior"), ("Cyst", "Cyst")]


def test_colours_without_one_from_the_server_are_stable_and_different():
    colours = [colour_of(Label("x", value)) for value in range(1, 120)]
    assert colours == [colour_of(Label("y", value)) for value in range(1, 120)]
    assert len({tuple(round(part, 2) for part in colour) for colour in colours}) > 100
    nearest = min(np.linalg.norm(np.subtract(a, b)) for n, a in enumerate(colours[:12]) for b in colours[:n])
    assert nearest > 0.15


# ---- terminology


def parse(bench, text):
    made = bench.slicer.vtkSlicerTerminologyEntry()
    logic = bench.slicer.modules.terminologies.logic()
    assert logic.DeserializeTerminologyEntry(text, made)
    assert logic.SerializeTerminologyEntry(made) == text
    return made


def test_terms_are_read_by_slicer(bench, scene, volume):
    node = scene.segmentation_for(volume, [LIVER])
    text = tag_of(node.GetSegmentation().GetSegment("rep3d_1"), "TerminologyEntry")
    found = parse(bench, text)
    got = [found.GetCategoryObject(), found.GetTypeObject(), found.GetTypeModifierObject(), found.GetRegionObject()]
    for coded, part in zip(got, ("category", "type", "modifier", "region"), strict=True):
        wanted = getattr(LIVER, part)
        assert (coded.GetCodeValue(), coded.GetCodingSchemeDesignator(), coded.GetCodeMeaning()) == (
            wanted.value,
            wanted.scheme,
            wanted.meaning,
        )
    assert found.GetTerminologyContextName() == "Segmentation category and type - 3D Slicer General Anatomy list"


def test_signs_that_part_a_term_are_replaced(bench):
    odd = replace(LIVER, type=Code("1^2", "99~X", "A|b\nc"), modifier=None, region=None)
    found = parse(bench, serialise_term(odd))
    assert found.GetTypeObject().GetCodeValue() == "1-2"
    assert found.GetTypeObject().GetCodingSchemeDesignator() == "99-X"
    assert found.GetTypeObject().GetCodeMeaning() == "A-b c"


@pytest.mark.parametrize("label", [Label("Liver", 1), replace(LIVER, category=None), replace(LIVER, type=None)])
def test_what_is_no_term_leaves_slicers_own(bench, scene, volume, label):
    node = scene.segmentation_for(volume, [label])
    plain = tag_of(bench.slicer.vtkSegment(), "TerminologyEntry")
    assert tag_of(node.GetSegmentation().GetSegment("rep3d_1"), "TerminologyEntry") == plain
    assert serialise_term(label) == ""


def test_all_tags_of_a_segment_are_found(bench):
    segment = bench.slicer.vtkSegment()
    tags = {"a": "1", "b:c": "x: y", "Segmentation.Status": "completed", "long name": "two\nlines: 3", "e": ""}
    segment.SetName("Color: 1\nName: x")
    segment.RemoveTag("TerminologyEntry")
    for name, value in tags.items():
        segment.SetTag(name, value)
    assert tags_of(segment) == tags


# ---- voxels


def test_a_label_arrives_in_its_segments(scene, node, editor, tmp_path):
    assert not scene.drawn_segments(node)
    assert scene.apply_label(node, a_label(tmp_path), ENTRIES, "undo") is node
    for name, value in VALUES.items():
        np.testing.assert_array_equal(voxels_of(node, f"rep3d_{value}"), label_map() == value, err_msg=name)
    assert scene.drawn_segments(node)
    assert scene.drawn_segments(node) == {"rep3d_1", "rep3d_2", "rep3d_7"}
    assert node.GetSegmentation().GetNumberOfLayers() == 1


def test_labels_go_by_name_whatever_the_order_and_values(scene, volume, tmp_path):
    node = scene.segmentation_for(volume, list(reversed(ENTRIES)))
    node.GetSegmentation().SetSegmentIndex("rep3d_1", 0)
    swapped = {"Cyst": 1, "Anterior": 2, "Posterior": 7}
    scene.apply_label(node, a_label(tmp_path, values=swapped), ENTRIES)
    for name, segment in (("Anterior", "rep3d_1"), ("Posterior", "rep3d_2"), ("Cyst", "rep3d_7")):
        np.testing.assert_array_equal(voxels_of(node, segment), label_map() == swapped[name])


@pytest.mark.parametrize("value, dtype", [(255, np.uint8), (256, np.uint16), (40000, np.uint16), (5, np.int64)])
def test_large_values(scene, volume, tmp_path, value, dtype):
    entries = [Label("Big", value)]
    label = np.where(label_map() == 2, value, 0).astype(dtype)
    node = scene.segmentation_for(volume, entries)
    scene.apply_label(node, a_label(tmp_path, label, {"Big": value}), entries)
    np.testing.assert_array_equal(samples.mask(scene.snapshot(node), f"rep3d_{value}"), label_map() == 2)


def test_a_label_that_is_not_there_any_more_becomes_empty(scene, node, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    scene.apply_label(node, a_label(tmp_path, np.where(label_map() == 1, 1, 0).astype(np.uint8)), ENTRIES)
    assert scene.drawn_segments(node) == {"rep3d_1"}
    scene.apply_label(node, a_label(tmp_path, np.zeros((5, 6, 7), np.uint8)), ENTRIES)
    assert not scene.drawn_segments(node)


def test_a_label_without_an_entry_gets_a_segment(scene, node, tmp_path):
    scene.apply_label(node, a_label(tmp_path, values={**VALUES, "Other": 9}), ENTRIES)
    assert scene.segment_names(node)[-1].label == "Other"


def test_own_segments_and_display_stay(scene, node, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    everywhere = np.ones((5, 6, 7), np.uint8)
    own = add_own(node, "Mine", everywhere)
    node.GetSegmentation().SetSegmentIndex(own, 0)
    display = node.GetDisplayNode()
    display.SetSegmentVisibility("rep3d_1", False)
    display.SetSegmentOpacity2DFill("rep3d_2", 0.25)
    before = voxels_of(node, own)
    scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    np.testing.assert_array_equal(voxels_of(node, own), before)
    assert before.any()
    np.testing.assert_array_equal(voxels_of(node, "rep3d_2"), label_map(5) == 2)
    assert node.GetSegmentation().GetNthSegmentID(0) == own
    assert not display.GetSegmentVisibility("rep3d_1")
    assert display.GetSegmentOpacity2DFill("rep3d_2") == 0.25


def test_an_own_segment_in_the_same_image_keeps_its_voxels(bench, scene, node, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    corner = np.zeros((5, 6, 7), np.uint8)
    corner[0, 0, :] = 1
    own = add_own(node, "Mine", corner)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    assert node.GetSegmentation().GetNumberOfLayers() == 1  # as the segment editor leaves it
    scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    np.testing.assert_array_equal(voxels_of(node, own), corner > 0)
    for value in VALUES.values():
        np.testing.assert_array_equal(voxels_of(node, f"rep3d_{value}"), label_map(5) == value)
    shared = node.GetSegmentation().GetSegment(own).GetRepresentation(samples.BINARY)
    assert len(np.unique(samples.array_of(shared))) == 2  # nothing without an owner stays in it
    draw(node, own, np.ones((2, 2, 2), np.uint8))
    np.testing.assert_array_equal(
        voxels_of(node, "rep3d_2") & ~voxels_of(node, own), (label_map(5) == 2) & ~voxels_of(node, own)
    )


def test_a_copy_that_the_user_made_of_a_label_segment_is_the_users(bench, scene, node, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    copy = bench.slicer.vtkSegment()
    copy.DeepCopy(node.GetSegmentation().GetSegment("rep3d_1"))
    copy.SetName("Anterior before")
    node.GetSegmentation().AddSegment(copy, "backup", "rep3d_1")
    before = voxels_of(node, "backup")
    scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    np.testing.assert_array_equal(voxels_of(node, "backup"), before)
    np.testing.assert_array_equal(voxels_of(node, "rep3d_1"), label_map(5) == 1)


def test_surfaces_of_the_voxels_before_are_dropped_and_made_again(bench, scene, node, tmp_path):
    def shown() -> bool:
        return bool(node.GetSegmentation().ContainsRepresentation("Closed surface"))

    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    assert scene.surfaces_again() and not shown()
    assert node.CreateClosedSurfaceRepresentation()
    scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    assert not shown() and scene.surfaces_again() and shown()
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    bench.scene.RemoveNode(node)
    assert scene.surfaces_again() and not shown()


# ---- undo


def test_undo_gives_back_every_voxel(scene, node, editor, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    hand = np.zeros((5, 6, 7), np.uint8)
    hand[4, :, :3] = 1
    draw(node, "rep3d_2", hand)
    own = add_own(node, "Mine", np.ones((5, 6, 7), np.uint8))
    before = {name: voxels_of(node, name) for name in node.GetSegmentation().GetSegmentIDs()}
    assert editor.calls == 1  # the first write had nothing to lose, but the editor's list of states is kept whole
    assert scene.apply_label(node, a_label(tmp_path, label_map(5), {**VALUES, "Other": 9}), ENTRIES) is node
    assert editor.calls == 2
    np.testing.assert_array_equal(voxels_of(node, "rep3d_2"), label_map(5) == 2)
    assert editor.history.RestorePreviousState()
    assert list(node.GetSegmentation().GetSegmentIDs()) == list(before)
    for name, mask in before.items():
        np.testing.assert_array_equal(voxels_of(node, name), mask, err_msg=name)
    assert before[own].any() and before["rep3d_2"].sum() == hand.sum()
    assert editor.history.RestoreNextState()
    np.testing.assert_array_equal(voxels_of(node, "rep3d_2"), label_map(5) == 2)


def test_undo_of_a_write_beside_an_own_segment_in_the_same_image(scene, node, editor, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    corner = np.zeros((5, 6, 7), np.uint8)
    corner[0, 0, :] = 1
    own = add_own(node, "Mine", corner)
    node.GetSegmentation().CollapseBinaryLabelmaps(False)
    scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    assert editor.history.RestorePreviousState()
    np.testing.assert_array_equal(voxels_of(node, own), corner > 0)
    for value in VALUES.values():
        np.testing.assert_array_equal(voxels_of(node, f"rep3d_{value}"), (label_map() == value) & (corner == 0))


def test_without_undo_a_new_segmentation_is_made(scene, volume, node, editor, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    editor.works = False
    made = scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    assert made is not node and made.GetName() == "case auto-segmentation"
    np.testing.assert_array_equal(voxels_of(node, "rep3d_1"), label_map() == 1)
    np.testing.assert_array_equal(voxels_of(made, "rep3d_1"), label_map(5) == 1)
    again = scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    assert again.GetName() not in (made.GetName(), node.GetName())
    assert scene.segmentation_for(volume, ENTRIES) is again


def test_without_undo_nothing_to_lose_is_written_in_place(scene, node, editor, tmp_path):
    editor.works = False
    own = add_own(node, "Mine", np.ones((5, 6, 7), np.uint8))
    assert scene.apply_label(node, a_label(tmp_path), ENTRIES) is node
    assert voxels_of(node, own).all()


def test_mode_new_always_makes_one(scene, node, editor, tmp_path):
    made = scene.apply_label(node, a_label(tmp_path), ENTRIES, "new")
    assert made is not node and not scene.drawn_segments(node) and editor.calls == 0
    with pytest.raises(ValueError, match="'undo' or 'new'"):
        scene.apply_label(node, a_label(tmp_path), ENTRIES, "other")


def test_a_segmentation_of_other_geometry_is_not_written_to(bench, scene, node, editor, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    calls = editor.calls
    transform = bench.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    node.SetAndObserveTransformNodeID(transform.GetID())
    made = scene.apply_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    assert made is not node and made.GetParentTransformNode() is None and editor.calls == calls


# ---- refusals


def test_a_label_that_does_not_fit_changes_nothing(scene, node, editor, tmp_path):
    scene.apply_label(node, a_label(tmp_path), ENTRIES)
    calls = editor.calls
    good = label_file(tmp_path, label_map(5), VALUES, samples.oblique())
    moved = samples.oblique()
    moved[0, 3] += 0.05
    for bad in (replace(good, shape=(7, 6, 4)), replace(good, ijk_to_ras=samples.as_tuples(moved))):
        with pytest.raises(BadAnswer):
            scene.apply_label(node, replace(samples.loaded(good), file=bad), [*ENTRIES, Label("More", 8)])
    for bad in (replace(good, extent=(0, 90, 0, 5, 0, 4)), replace(good, extent=(0, 1, 0, 1, 0, 1))):
        with pytest.raises(BadAnswer):
            scene.begin_label(bad)
    with pytest.raises(LocalProblem):
        scene.begin_label(replace(good, voxels=str(tmp_path / "none.npy")))
    np.testing.assert_array_equal(voxels_of(node, "rep3d_1"), label_map() == 1)
    assert editor.calls == calls and len(scene.segment_names(node)) == 3


def test_a_stored_label_is_loaded_into_an_empty_segmentation_only(scene, node, editor, tmp_path):
    scene.load_label(node, a_label(tmp_path), ENTRIES)
    assert editor.calls == 0
    np.testing.assert_array_equal(voxels_of(node, "rep3d_7"), label_map() == 7)
    with pytest.raises(LocalProblem, match="is not empty any more"):
        scene.load_label(node, a_label(tmp_path, label_map(5)), ENTRIES)
    np.testing.assert_array_equal(voxels_of(node, "rep3d_7"), label_map() == 7)


def test_painting_on_after_a_label_came(scene, node, tmp_path):
    """A label segment with no voxel in the shared image can be drawn like any other."""
    scene.apply_label(node, a_label(tmp_path, np.where(label_map() == 1, 1, 0).astype(np.uint8)), ENTRIES)
    stroke = np.zeros((5, 6, 7), np.uint8)
    stroke[2, 2:4, 2:4] = 1
    draw(node, "rep3d_2", stroke)
    np.testing.assert_array_equal(voxels_of(node, "rep3d_2"), stroke > 0)
    assert voxels_of(node, "rep3d_1").sum() == (label_map() == 1).sum()  # overlap is allowed, nothing is overwritten
