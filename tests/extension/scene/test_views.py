"""Slice views, curves, and what is left in the scene afterwards."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from Rep3DLabelLib.errors import LocalProblem
from Rep3DLabelLib.scene import Scene

from tests.extension import scene_samples as samples
from tests.extension.scene_samples import ENTRIES, add_own, loaded_label, save_volume

VALUES = {"Anterior": 1, "Posterior": 2, "Cyst": 7}


@pytest.fixture
def scene(bench):
    made = Scene(bench.slicer, undo=lambda node: True)
    yield made
    made.close()


@pytest.fixture
def volume(scene, tmp_path):
    return samples.load(scene, samples.volume_file(tmp_path, np.ones((5, 6, 7), np.int16), samples.oblique()))


@pytest.fixture
def overlay(scene, tmp_path):
    voxels = np.zeros((5, 6, 7), np.float32)
    voxels[2, 3, 4] = 0.8
    return samples.load(scene, samples.volume_file(tmp_path, voxels, samples.oblique(), "u"), "Uncertainty", "")


def composites(bench):
    return [bench.core.views.composite_node(name) for name in ("Red", "Green", "Yellow")]


def test_a_volume_is_shown_in_all_views(bench, scene, volume):
    scene.show_volume(volume)
    assert [c.GetBackgroundVolumeID() for c in composites(bench)] == [volume.GetID()] * 3


def test_without_an_application_too(bench, volume):
    class Bare:
        def __getattr__(self, name):
            if name == "app":
                raise AttributeError(name)
            return getattr(bench.slicer, name)

    made = Scene(Bare(), bench.scene)
    made.show_volume(volume)
    assert [c.GetBackgroundVolumeID() for c in composites(bench)] == [volume.GetID()] * 3
    made.close()


def test_an_overlay_is_clear_where_it_is_zero(bench, scene, volume, overlay):
    scene.show_volume(volume)
    scene.show_overlay(overlay, True, 0.4)
    for composite in composites(bench):
        assert composite.GetForegroundVolumeID() == overlay.GetID()
        assert composite.GetForegroundOpacity() == pytest.approx(0.4)
        assert composite.GetBackgroundVolumeID() == volume.GetID()
    display = overlay.GetDisplayNode()
    assert display.GetApplyThreshold() == 1
    assert 0 < display.GetLowerThreshold() < 0.1 and display.GetUpperThreshold() > 0.8
    assert (display.GetWindowLevelMin(), display.GetWindowLevelMax()) == (0, pytest.approx(0.8))
    name = bench.scene.GetNodeByID(display.GetColorNodeID()).GetName()
    assert name in ("Inferno", "Magma", "Plasma", "Viridis", "Iron")


def test_hiding_it_gives_back_what_was_there(bench, scene, volume, overlay, tmp_path):
    pet = samples.load(scene, samples.volume_file(tmp_path, np.ones((5, 6, 7)), name="pet"), "pet", "pet")
    red, green, _ = composites(bench)
    red.SetForegroundVolumeID(pet.GetID())
    red.SetForegroundOpacity(0.15)
    before = [(c.GetForegroundVolumeID(), c.GetForegroundOpacity()) for c in composites(bench)]
    scene.show_overlay(overlay, True)
    scene.show_overlay(overlay, True, 0.9)
    scene.show_overlay(overlay, False)
    assert [(c.GetForegroundVolumeID(), c.GetForegroundOpacity()) for c in composites(bench)] == before
    scene.show_overlay(overlay, True)
    green.SetForegroundVolumeID(pet.GetID())  # the user's choice stays
    green.SetForegroundOpacity(0.7)
    scene.remove_overlay(overlay)
    assert (green.GetForegroundVolumeID(), green.GetForegroundOpacity()) == (pet.GetID(), 0.7)
    assert red.GetForegroundVolumeID() == pet.GetID()
    scene.remove_overlay(overlay)  # a second time does nothing


def test_an_overlay_whose_predecessor_is_gone(bench, scene, overlay, tmp_path):
    pet = samples.load(scene, samples.volume_file(tmp_path, np.ones((5, 6, 7)), name="pet"), "pet", "pet")
    red = composites(bench)[0]
    red.SetForegroundVolumeID(pet.GetID())
    scene.show_overlay(overlay, True)
    bench.scene.RemoveNode(pet)
    scene.show_overlay(overlay, False)
    assert not red.GetForegroundVolumeID()


@pytest.mark.parametrize("voxels", [np.zeros((5, 6, 7), np.float32), np.full((5, 6, 7), np.nan, np.float32)])
def test_an_overlay_of_nothing(bench, scene, tmp_path, voxels):
    volume = replace(samples.volume_file(tmp_path, voxels), low=0.0, high=0.0)
    node = samples.load(scene, volume, "Uncertainty", "")
    scene.show_overlay(node, True)
    assert node.GetDisplayNode().GetWindow() == 1


def test_jump(bench, scene):
    scene.jump((12.5, -7.25, 31.0))
    for index, name in ((2, "Red"), (1, "Green"), (0, "Yellow")):
        node = bench.core.views.slice_node(name)
        matrix = node.GetSliceToRAS()
        assert [matrix.GetElement(row, 3) for row in range(3)] == pytest.approx([12.5, -7.25, 31.0]), (index, name)


# ---- curves


def table_of(chart, number):
    table = chart.GetNthPlotSeriesNode(number).GetTableNode().GetTable()
    return [[table.GetValue(r, c).ToDouble() for c in range(2)] for r in range(table.GetNumberOfRows())]


def test_curves_show_what_was_measured(bench, scene):
    chart = scene.show_curves([(0, 1.5), (10, 1.0)], [])
    assert [chart.GetNthPlotSeriesNode(n).GetName() for n in range(chart.GetNumberOfPlotSeriesNodes())] == [
        "Training loss"
    ]
    assert table_of(chart, 0) == [[0, 1.5], [10, 1.0]]
    scene.show_curves([(0, 1.5), (10, 1.0), (20, 0.5)], [[20, 0.7]])
    assert chart.GetNumberOfPlotSeriesNodes() == 2
    assert table_of(chart, 0)[-1] == [20, 0.5] and table_of(chart, 1) == [[20, 0.7]]
    series = chart.GetNthPlotSeriesNode(1)
    columns = [series.GetTableNode().GetTable().GetColumnName(n) for n in range(2)]
    assert columns == [series.GetXColumnName(), series.GetYColumnName()]
    scene.show_curves([], [])
    assert chart.GetNumberOfPlotSeriesNodes() == 0


def test_curves_are_updated_in_place(bench, scene):
    chart = scene.show_curves([(0, 1.0)], [(0, 0.1)])
    before = samples.counts(bench.scene)
    for number in range(50):
        assert scene.show_curves([(n, 1.0) for n in range(number)], [(n, 0.5) for n in range(number)]) is chart
    assert samples.counts(bench.scene) == before


def test_curves_that_the_user_removed_are_made_anew(bench, scene):
    chart = scene.show_curves([(0, 1.0)], [(0, 0.1)])
    before = samples.counts(bench.scene)
    bench.scene.RemoveNode(chart.GetNthPlotSeriesNode(0).GetTableNode())
    assert scene.show_curves([(0, 1.0)], [(0, 0.1)]).GetNumberOfPlotSeriesNodes() == 2
    assert samples.counts(bench.scene) == before
    bench.scene.Clear(0)
    bench.core.clear()
    assert scene.show_curves([(0, 1.0)], []).GetNumberOfPlotSeriesNodes() == 1


# ---- what is left


def run_sample(bench, scene, tmp_path, number):
    volume = samples.load(
        scene, samples.volume_file(tmp_path, np.ones((5, 6, 7), np.int16)), f"s{number}", f"s{number}"
    )
    scene.remove_sample(volume)
    node = scene.segmentation_for(volume, ENTRIES)
    scene.show_volume(volume)
    scene.watch(node, lambda: None)
    label = np.random.default_rng(number).choice([0, 1, 2, 7], (5, 6, 7)).astype(np.uint8)
    scene.apply_label(node, loaded_label(tmp_path, label, VALUES), ENTRIES)
    add_own(node, "Mine", np.ones((2, 2, 2), np.uint8))
    node.AddDefaultStorageNode()
    volume.AddDefaultStorageNode()
    scene.apply_label(node, loaded_label(tmp_path, label, VALUES), ENTRIES, "new")
    data = scene.snapshot(node)
    scene.restore(volume, data, ENTRIES, "draft")
    overlay = samples.load(scene, samples.volume_file(tmp_path, np.ones((5, 6, 7))), "u", "")
    scene.show_overlay(overlay, True)
    scene.show_curves([(0, 1.0)], [(0, 0.5)])
    return volume


def test_twenty_samples_leave_nothing(bench, scene, tmp_path):
    run_sample(bench, scene, tmp_path, 0)
    after_one = samples.counts(bench.scene)
    for number in range(1, 20):
        run_sample(bench, scene, tmp_path, number)
        assert samples.counts(bench.scene) == after_one, number
    scene.remove_sample()
    left = samples.counts(bench.scene)
    gone = {name for name in after_one if name not in left}
    assert {"vtkMRMLScalarVolumeNode", "vtkMRMLScalarVolumeDisplayNode", "vtkMRMLSegmentationNode"} <= gone
    assert {"vtkMRMLSegmentationDisplayNode", "vtkMRMLSegmentationStorageNode"} <= gone
    assert all(not c.GetForegroundVolumeID() for c in composites(bench))


def test_nodes_of_the_user_stay(bench, scene, volume, tmp_path):
    node = scene.segmentation_for(volume, ENTRIES)
    own_volume = bench.slicer.vtkMRMLScalarVolumeNode()
    own_volume.Copy(volume)  # a clone has our attributes and shares our display node
    bench.scene.AddNode(own_volume)
    own_segmentation = bench.scene.AddNewNodeByClass("vtkMRMLSegmentationNode", "mine")
    own_segmentation.SetReferenceImageGeometryParameterFromVolumeNode(volume)
    model = bench.scene.AddNewNodeByClass("vtkMRMLModelNode", "mine too")
    kept = own_volume.GetDisplayNodeID()
    scene.remove_sample()
    for each in (own_volume, own_segmentation, model):
        assert bench.scene.GetNodeByID(each.GetID()) is each
    assert kept and bench.scene.GetNodeByID(kept) is not None
    assert volume.GetScene() is None and node.GetScene() is None


def test_nodes_that_are_gone_are_refused_in_words(bench, scene, volume, overlay, tmp_path):
    node = scene.segmentation_for(volume, ENTRIES)
    data = scene.snapshot(node)
    label = loaded_label(tmp_path, np.ones((5, 6, 7), np.uint8), VALUES, samples.oblique())
    loading = scene.begin_volume(samples.volume_file(tmp_path, np.ones((5, 6, 7))), "late", "late")
    scene.watch(node, lambda: None)
    scene.show_overlay(overlay, True)
    bench.scene.Clear(0)
    calls = [
        lambda: scene.show_volume(volume),
        lambda: save_volume(scene, volume, tmp_path / "x.npy"),
        lambda: scene.segmentation_for(volume, ENTRIES),
        lambda: scene.ensure_segments(node, ENTRIES),
        lambda: scene.apply_label(node, label, ENTRIES),
        lambda: scene.load_label(node, label, ENTRIES),
        lambda: scene.snapshot(node),
        lambda: scene.is_on_grid(node),
        lambda: scene.restore(volume, data, ENTRIES, "x"),
        lambda: scene.drawn_segments(node),
        lambda: scene.segment_names(node),
        lambda: scene.watch(node, lambda: None),
        lambda: scene.show_overlay(overlay, True),
    ]
    for call in calls:
        with pytest.raises(LocalProblem, match="was removed"):
            call()
    scene.remove_overlay(overlay)
    scene.remove_sample()
    scene.unwatch()
    scene.jump((0, 0, 0))
    loading.cancel()
    bench.core.clear()


def test_a_label_for_a_segmentation_whose_image_is_gone(bench, scene, volume, tmp_path):
    node = scene.segmentation_for(volume, ENTRIES)
    bench.scene.RemoveNode(volume)
    label = loaded_label(tmp_path, np.ones((5, 6, 7), np.uint8), VALUES, samples.oblique())
    with pytest.raises(LocalProblem, match="The image of .* was removed"):
        scene.apply_label(node, label, ENTRIES)
    scene.remove_sample()


def test_a_saved_scene_is_recognised(bench, scene, volume, tmp_path):
    node = scene.segmentation_for(volume, ENTRIES)
    path = tmp_path / "scene.mrml"
    bench.scene.SetURL(str(path))
    assert bench.scene.Commit()
    assert "Rep3DLabel.Image:case" in path.read_text()
    assert "rep3dVolume" in path.read_text() and node.GetAttribute("Rep3DLabel.Role") == "segmentation"
