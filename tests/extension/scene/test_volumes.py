"""Volumes into the scene and out of it: every voxel, every place, and nothing half done."""

from __future__ import annotations

import itertools
from dataclasses import replace

import numpy as np
import pytest
from Rep3DLabelLib.errors import BadAnswer, LocalProblem
from Rep3DLabelLib.scene import Scene
from Rep3DLabelLib.scene.volumes import ijk_to_ras

from tests.extension import scene_samples as samples
from tests.extension.scene_samples import save_volume

GRIDS = {
    "identity": np.eye(4),
    "anisotropic": np.diag([0.35, 0.35, 5.0, 1.0]),
    "lps": np.diag([-1.0, -1.0, 1.0, 1.0]),
    "left_handed": np.diag([-0.8, 1.1, 1.4, 1.0]),
    "permuted": np.array([[0, 0, 2.5, 10], [1.2, 0, 0, -4], [0, 0.9, 0, 7], [0, 0, 0, 1]]),
    "oblique": samples.oblique(),
    "oblique_flipped": samples.oblique(flips=(-1, 1, -1)),
    "tiny": samples.oblique(spacing=(0.011, 0.013, 0.017)),
}


@pytest.fixture
def scene(bench):
    made = Scene(bench.slicer)
    yield made
    made.close()


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("dtype", ["uint8", "int16", "uint16", "int32", "float32", "float64"])
def test_voxels_and_geometry_are_exact(bench, scene, tmp_path, grid, dtype):
    voxels = np.random.default_rng(0).integers(0, 200, (5, 6, 7)).astype(dtype)
    node = samples.load(scene, samples.volume_file(tmp_path, voxels, GRIDS[grid]))
    seen = bench.slicer.util.arrayFromVolume(node)
    assert seen.dtype == dtype
    np.testing.assert_array_equal(seen, voxels)
    np.testing.assert_allclose(ijk_to_ras(node), GRIDS[grid], atol=1e-9, rtol=0)


@pytest.mark.parametrize(
    "dtype, kept", [("bool", "uint8"), (">i2", "int16"), ("float16", "float32"), ("int64", "int64")]
)
def test_types_that_vtk_lacks_are_converted(bench, scene, tmp_path, dtype, kept):
    voxels = np.random.default_rng(0).integers(0, 2, (3, 4, 5)).astype(dtype)
    node = samples.load(scene, samples.volume_file(tmp_path, voxels))
    seen = bench.slicer.util.arrayFromVolume(node)
    assert seen.dtype == np.dtype(kept)
    np.testing.assert_array_equal(seen, voxels)


def test_the_window_is_the_files_and_not_computed(bench, scene, tmp_path):
    volume = replace(samples.volume_file(tmp_path, np.arange(210, dtype=np.int16).reshape(5, 6, 7)), low=-40, high=160)
    display = samples.load(scene, volume).GetDisplayNode()
    assert (display.GetAutoWindowLevel(), display.GetWindow(), display.GetLevel()) == (0, 200, 60)
    flat = samples.load(scene, replace(volume, low=3, high=3)).GetDisplayNode()
    assert flat.GetWindow() > 0


def test_a_volume_appears_only_when_it_is_whole(bench, scene, tmp_path):
    voxels = np.zeros((40, 300, 300), np.float64)
    loading = scene.begin_volume(samples.volume_file(tmp_path, voxels), "big", "big")
    before = bench.scene.GetNumberOfNodes()
    steps, fractions = 1, [loading.progress]
    while not loading.step():
        assert loading.node is None and bench.scene.GetNumberOfNodes() == before
        fractions.append(loading.progress)
        steps += 1
    assert loading.step() and loading.progress == 1.0
    assert fractions == sorted(fractions) and fractions[0] == 0.0
    assert loading.node.GetName() == "big"
    assert loading.node.GetAttribute("Rep3DLabel.Image") == "big"
    assert bench.scene.GetNumberOfNodes() == before + 2


def test_a_load_that_is_cancelled_leaves_nothing(bench, scene, tmp_path):
    before = samples.counts(bench.scene)
    loading = scene.begin_volume(samples.volume_file(tmp_path, np.zeros((5, 6, 7))), "case", "case")
    loading.cancel()
    assert loading.step() and loading.node is None
    assert samples.counts(bench.scene) == before


def test_the_server_is_written_on_nodes(scene, tmp_path):
    scene.server = "http://localhost:8000"
    node = samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7))))
    assert node.GetAttribute("Rep3DLabel.Server") == "http://localhost:8000"


def test_names_are_made_unique(scene, tmp_path):
    volume = samples.volume_file(tmp_path, np.zeros((5, 6, 7)))
    names = {samples.load(scene, volume).GetName() for _ in range(3)}
    assert len(names) == 3


def test_bad_files_are_refused(scene, tmp_path):
    volume = samples.volume_file(tmp_path, np.zeros((5, 6, 7)))
    with pytest.raises(LocalProblem, match="Cannot read"):
        scene.begin_volume(replace(volume, voxels=str(tmp_path / "none.npy")), "a", "a")
    with pytest.raises(BadAnswer, match="shape"):
        scene.begin_volume(replace(volume, shape=(7, 6, 4)), "a", "a")
    (tmp_path / "bad.npy").write_bytes(b"no array")
    with pytest.raises(BadAnswer):
        scene.begin_volume(replace(volume, voxels=str(tmp_path / "bad.npy")), "a", "a")


@pytest.mark.parametrize("grid", ["left_handed", "oblique"])
def test_a_snapshot_of_a_volume_is_exact(scene, tmp_path, grid):
    voxels = np.random.default_rng(1).normal(size=(5, 6, 7)).astype(np.float32)
    node = samples.load(scene, samples.volume_file(tmp_path, voxels, GRIDS[grid]))
    geometry = save_volume(scene, node, tmp_path / "out.npy")
    np.testing.assert_array_equal(np.load(tmp_path / "out.npy"), voxels)
    np.testing.assert_allclose(geometry["ijk_to_ras"], GRIDS[grid], atol=1e-9)
    assert geometry["voxels"] == str(tmp_path / "out.npy")


def test_a_snapshot_of_a_volume_whose_extent_begins_elsewhere(bench, scene, tmp_path):
    voxels = np.arange(210, dtype=np.int16).reshape(5, 6, 7)
    node = samples.load(scene, samples.volume_file(tmp_path, voxels, samples.oblique()))
    node.GetImageData().SetExtent(2, 8, 0, 5, -1, 3)
    geometry = save_volume(scene, node, tmp_path / "out.npy")
    np.testing.assert_allclose(
        np.array(geometry["ijk_to_ras"]) @ (0, 0, 0, 1), samples.oblique() @ (2, 0, -1, 1), atol=1e-9
    )


def test_a_snapshot_that_cannot_be_written_leaves_no_file(scene, tmp_path):
    node = samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7))))
    with pytest.raises(LocalProblem, match="Cannot write"):
        save_volume(scene, node, tmp_path / "none" / "out.npy")
    save = scene.begin_volume_snapshot(node, tmp_path / "out.npy")
    save.cancel()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["image.npy"]


def test_volumes_that_a_server_would_see_otherwise_are_refused(bench, scene, tmp_path):
    util, out = bench.slicer.util, tmp_path / "out.npy"
    node = samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7), np.int16)))

    transform = bench.scene.AddNewNodeByClass("vtkMRMLLinearTransformNode", "Moved")
    node.SetAndObserveTransformNodeID(transform.GetID())
    with pytest.raises(LocalProblem, match="transform 'Moved'"):
        save_volume(scene, node, out)
    node.SetAndObserveTransformNodeID(None)

    label = bench.scene.AddNewNodeByClass("vtkMRMLLabelMapVolumeNode", "L")
    label.SetAndObserveImageData(node.GetImageData())
    with pytest.raises(LocalProblem, match="label map"):
        save_volume(scene, label, out)

    colour = bench.scene.AddNewNodeByClass("vtkMRMLVectorVolumeNode", "RGB")
    util.updateVolumeFromArray(colour, np.zeros((2, 3, 4, 3), np.uint8))
    with pytest.raises(LocalProblem, match="has 3"):
        save_volume(scene, colour, out)

    empty = bench.scene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "Nothing")
    with pytest.raises(LocalProblem, match="has no voxels"):
        save_volume(scene, empty, out)

    model = bench.scene.AddNewNodeByClass("vtkMRMLModelNode", "M")
    with pytest.raises(LocalProblem, match="vtkMRMLModelNode, not a volume"):
        save_volume(scene, model, out)
    with pytest.raises(LocalProblem, match="This is none"):
        save_volume(scene, None, out)
    assert not out.exists()


def test_a_frame_of_a_sequence_is_refused(bench, scene, tmp_path):
    node = samples.load(scene, samples.volume_file(tmp_path, np.zeros((5, 6, 7), np.int16)))
    sequence = bench.scene.AddNode(bench.slicer.vtkMRMLSequenceNode())
    sequence.SetDataNodeAtValue(node, "0")
    browser = bench.scene.AddNode(bench.slicer.vtkMRMLSequenceBrowserNode())
    browser.SetName("Heart")
    browser.SetAndObserveMasterSequenceNodeID(sequence.GetID())
    browser.AddProxyNode(node, sequence, False)
    with pytest.raises(LocalProblem, match="sequence 'Heart'"):
        save_volume(scene, node, tmp_path / "out.npy")


def test_all_flips_of_an_oblique_grid(bench, scene, tmp_path):
    voxels = np.arange(210, dtype=np.int16).reshape(5, 6, 7)
    for flips in itertools.product((1, -1), repeat=3):
        matrix = samples.oblique(flips=flips)
        node = samples.load(scene, samples.volume_file(tmp_path, voxels, matrix))
        np.testing.assert_allclose(ijk_to_ras(node), matrix, atol=1e-9, rtol=0)
