"""Between the server's voxels and the files that the scene reads: each voxel stays where it is, on any grid."""

from __future__ import annotations

import itertools
import sys
from pathlib import Path

import numpy as np
import pytest
from Rep3DLabelLib.errors import BadAnswer, Cancelled, LocalProblem
from Rep3DLabelLib.images import voxels
from Rep3DLabelLib.images.compose import compose, on_grid
from Rep3DLabelLib.images.grids import index_map
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry

from tests.voxel_bodies import array_of, voxels_of

SHAPE = (5, 6, 7)
LABELS = {"a": 1, "b": 3}
GRIDS = [(axes, flips) for axes in ((0, 1, 2), (2, 0, 1), (1, 0, 2)) for flips in itertools.product((1, -1), repeat=3)]


def oblique(axes: tuple[int, int, int] = (0, 1, 2), flips: tuple[int, int, int] = (1, 1, 1)) -> np.ndarray:
    """Return a grid turned about two axes, with unequal voxels, whose axes are permuted and reversed."""
    a, b = 0.31, -0.47
    about_z = np.array([[np.cos(a), -np.sin(a), 0], [np.sin(a), np.cos(a), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(b), -np.sin(b)], [0, np.sin(b), np.cos(b)]])
    matrix = np.eye(4)
    matrix[:3, :3] = (about_z @ about_x @ np.diag(np.multiply((0.7, 1.3, 2.9), flips)))[:, list(axes)]
    matrix[:3, 3] = (-31.7, 12.25, 88.125)
    return matrix


def ras_of(array: np.ndarray, affine: np.ndarray) -> dict[tuple[float, ...], float]:
    """Each voxel (I, J, K) by where it lies, RAS in mm."""
    found = {}
    for place in np.ndindex(array.shape):
        at = tuple(float(part) for part in np.round(affine @ (*place, 1.0), 6)[:3])
        found[at] = float(array[place])
    return found


@pytest.mark.parametrize(("axes", "flips"), GRIDS)
def test_voxels_stay_where_they_are_and_slicer_gets_a_right_handed_grid(tmp_path: Path, axes, flips) -> None:
    array, affine = np.random.default_rng(0).integers(-9, 9, SHAPE).astype(np.int16), oblique(axes, flips)
    made = voxels.volume_file(voxels_of(array, tmp_path / "v.raw", affine), tmp_path, "image")
    matrix = np.array(made.ijk_to_ras)
    assert np.linalg.det(matrix[:3, :3]) > 0 and made.shape == SHAPE and np.array_equal(made.affine, affine)
    assert ras_of(np.load(made.voxels).transpose(2, 1, 0), matrix) == ras_of(array, affine)
    assert [path.name for path in tmp_path.iterdir()] == [Path(made.voxels).name]


@pytest.mark.parametrize("dtype", ["|u1", "|i1", "<i2", "<u2", "<i4", "<u4", "<f4", "<f8"])
def test_types_stay_what_they_are(tmp_path: Path, dtype: str) -> None:
    array = np.random.default_rng(0).integers(0, 99, SHAPE).astype(dtype)
    made = voxels.volume_file(voxels_of(array, tmp_path / "v.raw"), tmp_path, "image")
    assert np.load(made.voxels).dtype == np.dtype(dtype) and np.array_equal(np.load(made.voxels), array.transpose())


def test_the_window_leaves_out_what_is_rare_or_not_finite(tmp_path: Path) -> None:
    array = np.random.default_rng(0).normal(100, 10, (60, 60, 60)).astype(np.float32)
    array.flat[:9] = [np.nan, np.inf, -np.inf, 1e9, -1e9, 1e9, 1e9, 1e9, 1e9]
    made = voxels.volume_file(voxels_of(array, tmp_path / "v.raw"), tmp_path, "image")
    assert made.low == pytest.approx(74, abs=2) and made.high == pytest.approx(126, abs=2)
    for array in (np.full(SHAPE, np.nan), np.full(SHAPE, 7.0)):
        flat = voxels.volume_file(voxels_of(array, tmp_path / "v.raw"), tmp_path, "image")
        assert flat.high == flat.low + 1


def test_slices_are_told_and_a_stop_leaves_no_file(tmp_path: Path) -> None:
    told: list[tuple[int, int]] = []
    array = np.zeros(SHAPE, np.uint8)
    voxels.volume_file(voxels_of(array, tmp_path / "v.raw"), tmp_path, "a", lambda *done: told.append(done))
    assert told == [(n, 7) for n in range(1, 8)]

    def stop(done: int, total: int) -> None:
        raise Cancelled("no more")

    folder = tmp_path / "stopped"
    folder.mkdir()
    with pytest.raises(Cancelled):
        voxels.volume_file(voxels_of(array, tmp_path / "v.raw"), folder, "a", stop)
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("affine", "words"),
    [
        (np.array([[1, 0.1, 0, 0], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1]]), "5.7 degrees off"),
        (np.diag([0.0, 1, 1, 1]), "damaged"),
        (np.diag([np.nan, 1, 1, 1]), "damaged"),
    ],
)
def test_a_grid_that_slicer_cannot_show_is_refused_in_words(tmp_path: Path, affine: np.ndarray, words: str) -> None:
    with pytest.raises(BadAnswer, match=words):
        voxels.volume_file(voxels_of(np.zeros(SHAPE, np.uint8), tmp_path / "v.raw", affine), tmp_path, "image")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(LocalProblem, match="Cannot write"):
        voxels.volume_file(voxels_of(np.zeros(SHAPE, np.uint8), tmp_path / "v.raw"), tmp_path / "none", "image")


# ---- labels


@pytest.mark.parametrize("dtype", ["|u1", "<u2"])
@pytest.mark.parametrize(("axes", "flips"), GRIDS)
def test_a_label_comes_into_the_scene_and_goes_back_as_it_was(tmp_path: Path, axes, flips, dtype: str) -> None:
    label, affine = np.zeros(SHAPE, dtype), oblique(axes, flips)
    label[1:4, 2:5, 1:6] = np.random.default_rng(1).choice([0, 1, 3], (3, 3, 5))
    made = voxels.label_file(voxels_of(label, tmp_path / "v.raw", affine), tmp_path, LABELS)
    i0, i1, j0, j1, k0, k1 = made.extent
    full = np.zeros(SHAPE[::-1], dtype)
    full[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = np.load(made.voxels)
    assert ras_of(full.transpose(), np.array(made.ijk_to_ras)) == ras_of(label, affine)
    assert made.counts == {name: int((label == value).sum()) for name, value in LABELS.items()}
    assert full[k0].any() and full[k1].any() and full[:, j0].any() and full[:, :, i1].any()  # it is cropped to this
    ends = tuple(number for length in SHAPE for number in (0, length - 1))
    segments = tuple(SegmentEntry(name, name, (1, 0, 0), 0, value) for name, value in LABELS.items())
    data = SegmentationData((full,), ends, SHAPE, np.array(made.ijk_to_ras), segments)
    composed = compose(on_grid(data, affine, SHAPE, "image"), LABELS, [])
    sent = voxels.label_to_send(composed.label, composed.extent, SHAPE, affine.tolist(), tmp_path / "s.raw")
    assert np.array_equal(array_of(sent), label) and np.array_equal(sent.affine, affine)


def test_a_label_without_a_voxel(tmp_path: Path) -> None:
    made = voxels.label_file(voxels_of(np.zeros(SHAPE, np.uint8), tmp_path / "v.raw"), tmp_path, LABELS)
    assert (made.voxels, made.extent, made.counts) == (None, None, {"a": 0, "b": 0})
    nothing = np.zeros((0, 0, 0), np.uint8)
    sent = voxels.label_to_send(nothing, (0, -1, 0, -1, 0, -1), SHAPE, np.eye(4).tolist(), tmp_path / "s.raw")
    assert not array_of(sent).any() and sent.shape == SHAPE


def test_a_value_that_is_no_label_is_refused_or_named(tmp_path: Path) -> None:
    label = np.zeros(SHAPE, np.uint8)
    label[1, 2, 3] = 9
    with pytest.raises(BadAnswer, match=r"\[9\]"):
        voxels.label_file(voxels_of(label, tmp_path / "v.raw"), tmp_path, LABELS)
    made = voxels.label_file(voxels_of(label, tmp_path / "v.raw"), tmp_path, LABELS, strangers=True)
    assert made.values["label 9"] == 9 and made.counts["label 9"] == 1 and made.extent == (1, 1, 2, 2, 3, 3)


def test_a_label_of_another_type_is_refused(tmp_path: Path) -> None:
    with pytest.raises(BadAnswer, match="float32"):
        voxels.label_file(voxels_of(np.zeros(SHAPE, np.float32), tmp_path / "v.raw"), tmp_path, LABELS)


def test_two_grids_that_are_a_whole_number_of_voxels_apart() -> None:
    moved = oblique()
    moved[:3, 3] += moved[:3, :3] @ [3, -2, 1]
    way = index_map(moved, oblique(), SHAPE, "image")
    assert (way.axes, way.signs, way.offsets) == ((0, 1, 2), (1, 1, 1), (3, -2, 1))


# ---- an image out of the scene


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool, np.float16, np.int64])
def test_an_image_of_the_scene_is_sent(tmp_path: Path, dtype: type) -> None:
    array = np.random.default_rng(0).integers(0, 2, SHAPE[::-1]).astype(dtype)
    np.save(tmp_path / "v.npy", array)
    sent = voxels.image_to_send(tmp_path / "v.npy", oblique().tolist(), tmp_path / "s.raw")
    assert np.array_equal(array_of(sent).transpose(), array) and np.array_equal(sent.affine, oblique())
    assert np.dtype(sent.dtype).str in ("|u1", "<i2", "<f4", "<f8")


@pytest.mark.parametrize("array", [np.zeros((2, 2)), np.zeros((2, 2, 2), complex), np.zeros((0, 2, 2))], ids=str)
def test_an_image_that_cannot_be_sent(tmp_path: Path, array: np.ndarray) -> None:
    np.save(tmp_path / "v.npy", array)
    with pytest.raises(LocalProblem, match="no 3D image of numbers"):
        voxels.image_to_send(tmp_path / "v.npy", np.eye(4).tolist(), tmp_path / "s.raw")
    with pytest.raises(LocalProblem, match="Cannot read the voxels"):
        voxels.image_to_send(tmp_path / "none.npy", np.eye(4).tolist(), tmp_path / "s.raw")


def test_no_nibabel_is_needed() -> None:
    sources = Path(voxels.__file__).parent.glob("*.py")
    assert not [path.name for path in sources if "nibabel" in path.read_text() or "scipy" in path.read_text()]
    assert sys.modules["Rep3DLabelLib.images.voxels"]
