"""Snapshots: every voxel of every segment, whatever the user did to the segmentation; and back into the scene."""

from __future__ import annotations

import numpy as np
import pytest
from Rep3DLabelLib.errors import LocalProblem
from Rep3DLabelLib.images import compose, segnrrd, voxels
from Rep3DLabelLib.labels import Label
from Rep3DLabelLib.scene import Scene
from Rep3DLabelLib.scene.layers import Layer, stack
from Rep3DLabelLib.scene.terms import tags_of

from tests.extension import scene_samples as samples
from tests.extension.scene_samples import ENTRIES, add_own, draw, loaded_label, mask, voxels_of
from tests.voxel_bodies import array_of
from tests.voxel_bodies import voxels_of as sent_voxels

VALUES = {"Anterior": 1, "Posterior": 2, "Cyst": 7}


@pytest.fixture
def scene(bench):
    made = Scene(bench.slicer)
    yield made
    made.close()


def open_case(scene, tmp_path, matrix=None, shape=(5, 6, 7)):
    matrix = samples.oblique() if matrix is None else matrix
    volume = samples.load(scene, samples.volume_file(tmp_path, np.zeros(shape, np.int16), matrix))
    return volume, scene.segmentation_for(volume, ENTRIES)


def random_label(seed=0, shape=(5, 6, 7)):
    return np.random.default_rng(seed).choice([0, 1, 2, 7], shape).astype(np.uint8)


def check(scene, node):
    """Assert that what the snapshot says of each segment is what Slicer says of it."""
    data = scene.snapshot(node)
    segmentation = node.GetSegmentation()
    assert [segment.id for segment in data.segments] == list(segmentation.GetSegmentIDs())
    for each in data.segments:
        segment = segmentation.GetSegment(each.id)
        assert (each.name, dict(each.tags)) == (segment.GetName(), tags_of(segment))
        assert each.colour == pytest.approx(segment.GetColor())
        np.testing.assert_array_equal(mask(data, each.id), voxels_of(node, each.id), err_msg=each.id)
    assert {layer.dtype.name for layer in data.layers} <= {"uint8", "uint16"}
    return data


def same(first, second):
    """Two snapshots have the same segments with the same voxels, in and beyond the image."""
    assert [(s.id, s.name, s.colour, dict(s.tags)) for s in first.segments] == [
        (s.id, s.name, pytest.approx(s.colour), dict(s.tags)) for s in second.segments
    ]
    for segment in first.segments:
        assert places(first, segment.id) == places(second, segment.id)
    assert first.shape == second.shape
    np.testing.assert_allclose(first.ijk_to_ras, second.ijk_to_ras, atol=1e-9)


def places(data, identifier):
    segment = next(each for each in data.segments if each.id == identifier)
    if not data.layers:
        return set()
    found = np.argwhere(data.layers[segment.layer] == segment.value)
    return {tuple(p) for p in (found + (data.extent[4], data.extent[2], data.extent[0])).tolist()}


def test_nothing_drawn(scene, tmp_path):
    volume, node = open_case(scene, tmp_path)
    data = check(scene, node)
    assert data.layers == () and len(data.segments) == 3
    assert data.shape == (7, 6, 5) and scene.is_on_grid(node)
    same(data, scene.snapshot(scene.restore(volume, data, ENTRIES, "again")))


def test_layers_overlaps_extents_and_empty_segments(scene, tmp_path):
    volume, node = open_case(scene, tmp_path)
    scene.apply_label(node, loaded_label(tmp_path, random_label(), VALUES, samples.oblique()), ENTRIES)
    add_own(node, "All", np.ones((5, 6, 7), np.uint8))
    add_own(node, "Dot", np.ones((1, 1, 1), np.uint8), (6, 5, 4))
    node.GetSegmentation().AddEmptySegment("Empty", "Empty")
    add_own(node, "Erased", np.zeros((2, 2, 2), np.uint8))
    node.GetSegmentation().SetSegmentIndex("Dot", 0)
    node.GetSegmentation().GetSegment("Dot").SetTag("Segmentation.Status", "completed")
    data = check(scene, node)
    assert {s.id for s in data.segments if not mask(data, s.id).any()} == {"Empty", "Erased"}
    assert scene.drawn_segments(node) == {"rep3d_1", "rep3d_2", "rep3d_7", "All", "Dot"}
    made = scene.restore(volume, data, ENTRIES, "again")
    assert made is not node
    same(data, check(scene, made))


def test_one_voxel(scene, tmp_path):
    volume, node = open_case(scene, tmp_path)
    draw(node, "rep3d_2", np.ones((1, 1, 1), np.uint8), (3, 2, 1))
    data = check(scene, node)
    assert data.extent == (3, 3, 2, 2, 1, 1)
    same(data, scene.snapshot(scene.restore(volume, data, ENTRIES, "again")))


def test_voxels_beyond_the_image_are_kept(scene, tmp_path):
    volume, node = open_case(scene, tmp_path)
    add_own(node, "Beyond", np.ones((9, 10, 11), np.uint8), (-2, -2, -2))
    data = check(scene, node)
    assert data.extent == (-2, 8, -2, 7, -2, 6) and len(places(data, "Beyond")) == 990
    assert scene.is_on_grid(node)
    same(data, scene.snapshot(scene.restore(volume, data, ENTRIES, "again")))


def test_three_hundred_segments(scene, tmp_path):
    volume, node = open_case(scene, tmp_path, shape=(20, 30, 40))
    rng = np.random.default_rng(3)
    for number in range(300):
        corner = tuple(int(x) for x in rng.integers(0, 15, 3))
        add_own(node, f"S{number}", rng.integers(0, 2, (4, 5, 6)).astype(np.uint8), corner)
    data = check(scene, node)
    same(data, scene.snapshot(scene.restore(volume, data, ENTRIES, "again")))


@pytest.mark.parametrize("kind", ["uint8", "int16", "uint16", "int32", "uint32", "float32"])
def test_voxel_types_that_slicer_may_have(bench, scene, tmp_path, kind):
    _, node = open_case(scene, tmp_path)
    values = random_label().astype(kind) * (100 if kind != "uint8" else 1)
    image = samples.new_label_image(bench.slicer, values, (0, 6, 0, 5, 0, 4), samples.oblique(), kind)
    for value in (1, 2, 7):
        segment = node.GetSegmentation().GetSegment(f"rep3d_{value}")
        segment.SetLabelValue(value * (100 if kind != "uint8" else 1))
        segment.AddRepresentation(samples.BINARY, image)
    check(scene, node)


def test_values_too_large_for_16_bits_are_renumbered(bench, scene, tmp_path):
    _, node = open_case(scene, tmp_path)
    values = random_label().astype(np.int32) * 100000
    image = samples.new_label_image(bench.slicer, values, (0, 6, 0, 5, 0, 4), samples.oblique(), np.int32)
    for value in (1, 2, 7):
        segment = node.GetSegmentation().GetSegment(f"rep3d_{value}")
        segment.SetLabelValue(value * 100000)
        segment.AddRepresentation(samples.BINARY, image)
    check(scene, node)


def test_a_snapshot_is_a_copy(scene, tmp_path):
    _, node = open_case(scene, tmp_path)
    draw(node, "rep3d_1", np.ones((5, 6, 7), np.uint8))
    data = scene.snapshot(node)
    draw(node, "rep3d_1", np.ones((1, 1, 1), np.uint8))
    assert len(places(data, "rep3d_1")) == 210


# ---- stacking layers


def test_packing_gives_the_same_voxels_in_fewer_arrays():
    rng = np.random.default_rng(0)
    layers = []
    for number in range(60):
        k, j, i = (int(x) for x in rng.integers(0, 12, 3))
        voxels = rng.integers(0, 4, (3, 4, 5)).astype(np.int16)
        layers.append(Layer(voxels, (i, i + 4, j, j + 3, k, k + 2), {f"{number}a": 1, f"{number}b": 3}))
    names = [*(name for layer in layers for name in layer.values), "empty"]
    plain, extent, where = stack(layers, names)
    packed, extent_packed, where_packed = stack(layers, names, plain_bytes=0)
    assert extent == extent_packed and len(packed) < len(plain) == 60
    for name in names:
        a, b = where[name], where_packed[name]
        np.testing.assert_array_equal(plain[a[0]] == a[1], packed[b[0]] == b[1], err_msg=name)
    assert len(set(where_packed.values())) == len(names)


def test_values_of_empty_segments_are_no_voxels_value():
    voxels = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    arrays, _, where = stack([Layer(voxels, (0, 15, 0, 15, 0, 0), {"a": 255})], ["a", "b", "c"])
    assert arrays[0].dtype == np.uint16
    assert not (arrays[0] == where["b"][1]).any() and where["b"] != where["c"]


# ---- other geometry


def test_another_reference_geometry_is_resampled(bench, scene, tmp_path):
    """Oversampled twice, as 'Specify geometry' of the segment editor does: voxels take their nearest."""
    matrix = np.diag([1.0, 2.0, 3.0, 1.0])
    _, node = open_case(scene, tmp_path, matrix)
    fine = np.zeros((10, 12, 14), np.uint8)
    fine[2:6, 4:8, 6:12] = 1
    half = matrix @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1]])
    add_own(node, "Fine", fine, matrix=half)
    assert not scene.is_on_grid(node)
    data = scene.snapshot(node)
    wanted = np.zeros((5, 6, 7), bool)
    wanted[1:3, 2:4, 3:6] = True
    np.testing.assert_array_equal(mask(data, "Fine"), wanted)


def test_a_segmentation_made_on_another_volume(bench, scene, tmp_path):
    volume, node = open_case(scene, tmp_path, np.eye(4))
    flipped = np.diag([-1.0, 1.0, -1.0, 1.0])
    flipped[:3, 3] = (6, 0, 4)
    other = samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7)), flipped), "other", "other")
    node.SetReferenceImageGeometryParameterFromVolumeNode(other)
    drawn = random_label(2) == 1
    add_own(node, "On the other", drawn.astype(np.uint8), matrix=flipped)
    assert not scene.is_on_grid(node)
    data = scene.snapshot(node)
    np.testing.assert_array_equal(mask(data, "On the other"), drawn[::-1, :, ::-1])
    assert scene.segmentation_for(volume, ENTRIES) is node


def test_a_transform_over_the_segmentation(bench, scene, tmp_path):
    import vtk

    volume, node = open_case(scene, tmp_path, np.eye(4))
    draw(node, "rep3d_1", np.ones((2, 2, 2), np.uint8), (1, 1, 1))
    transform = bench.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode")
    matrix = vtk.vtkMatrix4x4()
    matrix.SetElement(0, 3, 2.0)
    transform.SetMatrixTransformToParent(matrix)
    node.SetAndObserveTransformNodeID(transform.GetID())
    assert not scene.is_on_grid(node)
    wanted = np.zeros((5, 6, 7), bool)
    wanted[1:3, 1:3, 3:5] = True
    np.testing.assert_array_equal(mask(scene.snapshot(node), "rep3d_1"), wanted)
    volume.SetAndObserveTransformNodeID(transform.GetID())  # both moved: nothing moved between them
    assert scene.is_on_grid(node)
    wanted = np.zeros((5, 6, 7), bool)
    wanted[1:3, 1:3, 1:3] = True
    np.testing.assert_array_equal(mask(scene.snapshot(node), "rep3d_1"), wanted)


def test_a_surface_as_source_is_turned_into_voxels(bench, scene, tmp_path):
    _, node = open_case(scene, tmp_path, np.eye(4), (20, 20, 20))
    block = np.zeros((20, 20, 20), np.uint8)
    block[5:15, 5:15, 5:15] = 1
    draw(node, "rep3d_1", block)
    node.CreateClosedSurfaceRepresentation()
    node.SetSourceRepresentationToClosedSurface()
    node.RemoveBinaryLabelmapRepresentation()
    assert not scene.is_on_grid(node)
    found = mask(scene.snapshot(node), "rep3d_1")
    assert 2 * (found & (block > 0)).sum() / (found.sum() + block.sum()) > 0.85
    assert not node.GetSegmentation().ContainsRepresentation(samples.BINARY)  # left as it was


def test_work_is_not_lost_with_its_image(bench, scene, tmp_path):
    volume, node = open_case(scene, tmp_path)
    draw(node, "rep3d_1", np.ones((2, 2, 2), np.uint8), (1, 1, 1))
    before = scene.snapshot(node)
    bench.scene.RemoveNode(volume)
    same(before, scene.snapshot(node))


def test_work_on_another_image_is_not_restored(scene, bench, tmp_path):
    _, node = open_case(scene, tmp_path)
    data = scene.snapshot(node)
    other = samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7)), np.eye(4)), "b", "b")
    before = samples.counts(bench.scene)
    with pytest.raises(LocalProblem, match="lies elsewhere"):
        scene.restore(other, data, ENTRIES, "again")
    assert samples.counts(bench.scene) == before


def test_restore_adds_labels_that_the_model_has_gained(scene, tmp_path):
    volume, node = open_case(scene, tmp_path)
    made = scene.restore(volume, scene.snapshot(node), [*ENTRIES, Label("New", 9)], "again")
    assert [segment.label for segment in scene.segment_names(made)] == ["Anterior", "Posterior", "Cyst", "New"]


# ---- to a file and back


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_a_draft_is_read_by_slicer_and_by_us(bench, scene, tmp_path, flips):
    matrix = samples.oblique(flips=flips)
    volume, node = open_case(scene, tmp_path, matrix)
    scene.apply_label(node, loaded_label(tmp_path, random_label(), VALUES, matrix), ENTRIES)
    add_own(node, "Mine", (random_label(4) > 1).astype(np.uint8))
    add_own(node, "Beyond", np.ones((2, 2, 2), np.uint8), (-1, -1, -1))
    data = scene.snapshot(node)
    path = tmp_path / "draft.seg.nrrd"
    segnrrd.write(path, data)
    same(data, segnrrd.read(path))
    same(data, scene.snapshot(scene.restore(volume, segnrrd.read(path), ENTRIES, "again")))
    loaded = bench.slicer.util.loadSegmentation(str(path))
    loaded.SetNodeReferenceID("rep3dVolume", volume.GetID())
    for segment in data.segments:
        np.testing.assert_array_equal(voxels_of(loaded, segment.id), mask(data, segment.id), err_msg=segment.id)


@pytest.mark.parametrize("flips", [(1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)])
def test_what_is_drawn_is_what_is_sent(bench, scene, tmp_path, flips):
    """The server's voxels -> volume -> segments -> snapshot -> label map -> the server, on the image's own grid."""
    affine = samples.oblique(flips=flips)
    image = sent_voxels(np.arange(210, dtype=np.int16).reshape(7, 6, 5), tmp_path / "image.raw", affine)
    file = voxels.volume_file(image, tmp_path, "image")
    node = scene.segmentation_for(samples.load(scene, file), ENTRIES)
    ras = affine @ (4, 1, 3, 1)  # one voxel, named by its place in the patient
    back = np.linalg.inv(samples.grid_matrix(node)) @ ras
    i, j, k = (int(x) for x in np.rint(back[:3]))
    draw(node, "rep3d_7", np.ones((1, 1, 1), np.uint8), (i, j, k))
    data = compose.on_grid(scene.snapshot(node), np.array(file.affine), file.shape, "image")
    made = compose.compose(data, {"rep3d_1": 1, "rep3d_2": 2, "rep3d_7": 7}, [s.id for s in data.segments])
    sent = voxels.label_to_send(made.label, made.extent, file.shape, file.affine, tmp_path / "label.raw")
    np.testing.assert_array_equal(np.argwhere(array_of(sent) == 7), [[4, 1, 3]])
    np.testing.assert_array_equal(sent.affine, affine)


def test_layers_come_into_memory_one_in_each_step(scene, bench, tmp_path):
    layers = tuple(np.full((2, 3, 4), value, np.uint8) for value in (1, 2, 3))
    data = segnrrd.SegmentationData(layers, (0, 3, 0, 2, 0, 1), (4, 3, 2), np.eye(4), ())
    load = scene.begin_restore(data)
    assert [load.step() for _ in range(4)] == [False, False, True, True]
    assert [int(samples.array_of(image).min()) for image in load.images] == [1, 2, 3]
