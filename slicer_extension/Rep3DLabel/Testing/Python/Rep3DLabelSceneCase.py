"""Voxels through the scene of the application that runs this: what goes in comes out, whatever the orientation."""

from __future__ import annotations

import tempfile
import unittest
from pathlib import Path

import numpy as np
import slicer
from Rep3DLabelLib.images import segnrrd
from Rep3DLabelLib.images.files import LabelFile, VolumeFile
from Rep3DLabelLib.labels import Label
from Rep3DLabelLib.scene import Scene

ENTRIES = [Label("head", 1, (200, 30, 30)), Label("tail", 3, (30, 30, 200))]


class Rep3DLabelSceneCase(unittest.TestCase):
    """An oblique, anisotropic volume of a few voxels."""

    def setUp(self):
        """Make a volume in an empty scene, and a label in a file."""
        slicer.mrmlScene.Clear(0)
        self.folder = tempfile.TemporaryDirectory()
        turn = np.array([[0.8, -0.6, 0], [0.6, 0.8, 0], [0, 0, 1]])
        self.ijk_to_ras = np.eye(4)
        self.ijk_to_ras[:3, :3] = turn @ np.diag([0.7, 1.1, 2.5])
        self.ijk_to_ras[:3, 3] = (-11.0, 7.5, 30.0)
        voxels = np.arange(7 * 6 * 5, dtype=np.int16).reshape(7, 6, 5)
        path = Path(self.folder.name) / "volume.npy"
        np.save(path, voxels)
        grid = self.ijk_to_ras.tolist()
        self.volume = VolumeFile(str(path), (5, 6, 7), grid, 0.0, 200.0, grid)
        self.scene = Scene(slicer)

    def tearDown(self):
        """Leave nothing behind."""
        slicer.mrmlScene.Clear(0)
        self.folder.cleanup()

    def test_label_and_draft_are_voxel_exact(self):
        """A label comes into the scene, out as a draft, and back, with every voxel in its place."""
        load = self.scene.begin_volume(self.volume, "case", "case")
        while not load.step():
            pass
        node = self.scene.segmentation_for(load.node, ENTRIES)
        label = np.zeros((7, 6, 5), np.uint8)
        label[2:5, 1:4, 1:3] = 1
        label[5, 4, 4] = 3
        path = Path(self.folder.name) / "label.npy"
        np.save(path, label)
        values, counts = {"head": 1, "tail": 3}, {"head": 18, "tail": 1}
        file = LabelFile(str(path), (0, 4, 0, 5, 0, 6), (5, 6, 7), self.ijk_to_ras.tolist(), counts, values)
        loading = self.scene.begin_label(file)
        while not loading.step():
            pass
        node = self.scene.apply_label(node, loading.label, ENTRIES, "undo")
        draft = Path(self.folder.name) / "draft.seg.nrrd"
        segnrrd.write(draft, self.scene.snapshot(node))
        kept = segnrrd.read(draft)
        np.testing.assert_allclose(kept.ijk_to_ras, self.ijk_to_ras, atol=1e-6)
        self.assertEqual(kept.shape, (5, 6, 7))
        found = np.zeros((7, 6, 5), np.uint8)
        i0, i1, j0, j1, k0, k1 = kept.extent
        for segment in kept.segments:
            value = {"head": 1, "tail": 3}[segment.name]
            part = found[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1]
            part[kept.layers[segment.layer] == segment.value] = value
        np.testing.assert_array_equal(found, label)
