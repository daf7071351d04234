"""NIfTI in and out, compared with nibabel bit for bit."""

from __future__ import annotations

import gzip
import itertools
import struct
import sys
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from Rep3DLabelLib.errors import BadAnswer, Cancelled, LocalProblem
from Rep3DLabelLib.images import nifti
from Rep3DLabelLib.images.grids import index_map, is_left_handed

SHAPE = (5, 6, 7)
ORIENTATIONS = [
    (order, signs) for order in itertools.permutations(range(3)) for signs in itertools.product((1, -1), repeat=3)
]
LABELS = {"a": 1, "b": 2, "c": 3}


def rotation(x: float, z: float) -> np.ndarray:
    """A rotation about x, then about z, in radians."""
    about_x = [[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]]
    about_z = [[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]]
    return np.array(about_z) @ np.array(about_x)


def oblique(order: tuple[int, ...] = (0, 1, 2), signs: tuple[int, ...] = (1, 1, 1)) -> np.ndarray:
    """An oblique, anisotropic grid whose axes are permuted and flipped."""
    affine = np.eye(4)
    turn = np.zeros((3, 3))
    for row, (axis, sign) in enumerate(zip(order, signs, strict=True)):
        turn[row, axis] = sign
    affine[:3, :3] = rotation(0.31, 0.17) @ turn @ np.diag([0.71, 0.93, 2.57])
    affine[:3, 3] = [113.7, -87.3, 41.9]
    return affine


def save(path: Path, values: np.ndarray, affine: np.ndarray | None, kind: type = nib.Nifti1Image, **codes: int) -> Path:
    image = kind(values, affine)
    image.header.set_data_dtype(values.dtype)
    if "sform" in codes:
        image.set_sform(affine, codes["sform"])
    if "qform" in codes:
        image.set_qform(affine, codes["qform"])
    nib.save(image, path)
    return path


def expected(path: Path) -> tuple[np.ndarray, np.ndarray]:
    """What nibabel reads, as (K, J, I) with the slices of a left-handed grid reversed, and the affine in the file."""
    image = nib.load(path)
    values = np.asarray(image.dataobj)
    values = values.reshape(values.shape[:3] + (1,) * (3 - min(values.ndim, 3)))
    voxels = values.transpose(2, 1, 0)
    return (voxels[::-1] if np.linalg.det(image.affine) < 0 else voxels), image.affine


def check(path: Path, folder: Path) -> dict:
    """Reads an image and compares it with what nibabel reads; then a random label map goes out and comes back."""
    volume = nifti.read_volume(path, folder)
    voxels, affine = expected(path)
    header = nifti.read_grid(path)
    assert np.array_equal(header.affine, affine)
    got = np.load(volume["voxels"])
    assert got.shape == voxels.shape == tuple(volume["shape"][::-1])
    assert np.array_equal(got, voxels.astype(got.dtype))
    grid = np.array(volume["ijk_to_ras"])
    assert np.linalg.det(grid) > 0
    k, j, i = (length - 1 for length in got.shape)
    at = k if np.linalg.det(affine) < 0 else 0
    assert np.allclose(grid @ (i, j, at, 1), affine @ (i, j, 0, 1), atol=1e-9)

    label = np.random.default_rng(3).integers(0, 4, got.shape).astype(np.uint8)
    target = path.with_name(f"label_{path.name}")
    extent = (0, i, 0, j, 0, k)
    assert nifti.write_label(path, label, extent, grid, target) == 0
    back, label_affine = expected(target)
    assert np.array_equal(back, label) and back.dtype == np.uint8
    assert np.array_equal(label_affine, affine)
    found = nifti.read_label(target, path, folder, LABELS)
    assert np.array_equal(np.load(found["voxels"]), label) and found["extent"] == list(extent)
    assert found["ijk_to_ras"] == volume["ijk_to_ras"]
    assert found["counts"] == {name: int((label == value).sum()) for name, value in LABELS.items()}
    return volume


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS, ids=str)
def test_every_orientation_comes_back_voxel_by_voxel(tmp_path: Path, order: tuple, signs: tuple) -> None:
    values = np.random.default_rng(1).integers(-1000, 1000, SHAPE).astype(np.int16)
    path = save(tmp_path / "image.nii.gz", values, oblique(order, signs))
    assert is_left_handed(nifti.read_grid(path).affine) == (np.linalg.det(oblique(order, signs)) < 0)
    check(path, tmp_path)


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize(
    "codes", [{"sform": 1, "qform": 0}, {"sform": 0, "qform": 1}, {"sform": 4, "qform": 2}], ids=str
)
@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1), (1, -1, -1)], ids=str)
def test_sform_qform_and_versions(tmp_path: Path, suffix: str, kind: type, codes: dict, signs: tuple) -> None:
    values = np.random.default_rng(1).integers(0, 255, SHAPE).astype(np.uint8)
    check(save(tmp_path / f"image{suffix}", values, oblique((1, 0, 2), signs), kind, **codes), tmp_path)


def test_a_sform_and_a_qform_that_differ(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.zeros(SHAPE, np.uint8), np.eye(4))
    image.set_sform(oblique(), 1)
    image.set_qform(np.diag([2.0, 3.0, 4.0, 1.0]), 1)
    nib.save(image, tmp_path / "image.nii")
    check(tmp_path / "image.nii", tmp_path)


@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
def test_neither_sform_nor_qform(tmp_path: Path, kind: type) -> None:
    image = kind(np.zeros(SHAPE, np.uint8), None)
    image.header.set_zooms((0.5, 0.7, 3.3))
    nib.save(image, tmp_path / "image.nii")
    check(tmp_path / "image.nii", tmp_path)


@pytest.mark.parametrize("turns", [(3.1415926, 0.0), (0.0, 3.1415926), (3.14159, 3.14159), (1e-4, 2.5)], ids=str)
def test_rotations_by_half_a_turn(tmp_path: Path, turns: tuple[float, float]) -> None:
    """The quaternion's first part is nearly 0 there, and is computed from the others."""
    affine = np.eye(4)
    affine[:3, :3] = rotation(*turns) @ np.diag([0.5, 1.5, -2.5])
    check(save(tmp_path / "image.nii", np.zeros(SHAPE, np.uint8), affine, sform=0, qform=1), tmp_path)


@pytest.mark.parametrize("dtype", ["u1", "i1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8"])
@pytest.mark.parametrize("kind", [nib.Nifti1Image, nib.Nifti2Image])
@pytest.mark.parametrize("order", "<>")
def test_types_and_byte_orders(tmp_path: Path, dtype: str, kind: type, order: str) -> None:
    values = np.random.default_rng(2).integers(0, 120, SHAPE).astype(order + dtype)
    image = kind(values, oblique(), kind.header_class(endianness=order))
    image.set_data_dtype(dtype)
    nib.save(image, tmp_path / "image.nii.gz")
    content = gzip.decompress((tmp_path / "image.nii.gz").read_bytes())
    assert struct.unpack(f"{order}i", content[:4])[0] == kind.header_class.sizeof_hdr
    volume = check(tmp_path / "image.nii.gz", tmp_path)
    assert np.load(volume["voxels"]).dtype == np.dtype(dtype)
    own = nifti.read_grid(tmp_path / "label_image.nii.gz").fields
    same = ("dim", "pixdim", "qform_code", "sform_code", "quatern", "qoffset", "srow", "xyzt_units", "sizeof_hdr")
    image_fields = nifti.read_grid(tmp_path / "image.nii.gz").fields
    for name in same:  # the bytes, not only the numbers
        assert own[name].tobytes() == image_fields[name].tobytes(), name
    assert nib.load(tmp_path / "label_image.nii.gz").header.endianness == order


@pytest.mark.parametrize(
    ("dtype", "slope", "inter", "result"),
    [
        (np.uint8, 1, -10, np.int16),
        (np.int16, 1, -1024, np.int32),
        (np.uint8, 2, 0, np.int16),
        (np.int16, 0.5, 3.25, np.float32),
        (np.float32, 2.0, 1.0, np.float32),
        (np.int16, 0, 7, np.int16),
        (np.int16, np.nan, 7, np.int16),
        (np.uint16, -1, 0, np.int32),
    ],
)
def test_scaling(tmp_path: Path, dtype: type, slope: float, inter: float, result: type) -> None:
    path = save(tmp_path / "image.nii", np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype), oblique())
    content = bytearray(path.read_bytes())
    content[112:120] = struct.pack("<ff", slope, inter)
    path.write_bytes(content)
    assert np.load(check(path, tmp_path)["voxels"]).dtype == result


@pytest.mark.parametrize("shape", [(4, 5, 6, 1), (4, 5, 6, 1, 1), (4, 5), (4, 5, 1), (1, 1, 1)], ids=str)
def test_axes_of_one_element(tmp_path: Path, shape: tuple[int, ...]) -> None:
    check(save(tmp_path / "image.nii.gz", np.ones(shape, np.int16), oblique((0, 1, 2), (-1, 1, 1))), tmp_path)


def test_a_header_with_an_extension_and_words_of_a_patient(tmp_path: Path) -> None:
    image = nib.Nifti1Image(np.ones(SHAPE, np.int16), oblique())
    image.header["descrip"] = b"DOE^JANE"
    image.header["intent_code"] = 3
    image.header.extensions.append(nib.nifti1.Nifti1Extension("comment", b"DOE^JANE" * 20))
    nib.save(image, tmp_path / "image.nii")
    check(tmp_path / "image.nii", tmp_path)
    assert b"DOE" not in (tmp_path / "label_image.nii").read_bytes()


def test_the_display_window_ignores_what_is_not_finite(tmp_path: Path) -> None:
    values = np.linspace(0, 1000, 1000, dtype=np.float32).reshape(10, 10, 10)
    values[0, 0, :3] = np.nan, np.inf, -np.inf
    volume = nifti.read_volume(save(tmp_path / "image.nii", values, np.eye(4)), tmp_path)
    assert volume["low"] == pytest.approx(5, abs=4) and volume["high"] == pytest.approx(995, abs=4)
    flat = nifti.read_volume(save(tmp_path / "flat.nii", np.full(SHAPE, 3.0), np.eye(4)), tmp_path)
    assert (flat["low"], flat["high"]) == (3.0, 4.0)
    empty = nifti.read_volume(save(tmp_path / "nan.nii", np.full(SHAPE, np.nan), np.eye(4)), tmp_path)
    assert empty["low"] < empty["high"]


def test_an_image_of_many_slabs_tells_how_far_it_is_and_can_be_stopped(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(nifti, "_SLAB_BYTES", 100)
    path = save(tmp_path / "image.nii.gz", np.random.default_rng(0).normal(size=SHAPE), oblique((0, 1, 2), (-1, 1, 1)))
    told: list[tuple[int, int]] = []
    got = nifti.read_volume(path, tmp_path, lambda done, total: told.append((done, total)))
    assert np.array_equal(np.load(got["voxels"]), expected(path)[0])
    assert [done for done, _ in told] == [30 * n for n in range(1, 8)] and {total for _, total in told} == {210}

    def stop(done: int, total: int) -> None:
        raise Cancelled("stopped")

    before = set(tmp_path.iterdir())
    with pytest.raises(Cancelled):
        nifti.read_volume(path, tmp_path, stop)
    assert set(tmp_path.iterdir()) == before  # no half file
    check(path, tmp_path)


# ---- label maps


@pytest.mark.parametrize(("order", "signs"), ORIENTATIONS[::5], ids=str)
@pytest.mark.parametrize("left_handed", [False, True])
def test_a_segmentation_with_other_axes_goes_back_to_its_image(
    tmp_path: Path, order: tuple[int, int, int], signs: tuple, left_handed: bool
) -> None:
    """A segmentation may have been made on a reoriented copy of the image: the same voxels in another order."""
    affine = oblique((0, 1, 2), (-1, 1, 1) if left_handed else (1, 1, 1))
    path = save(tmp_path / "image.nii.gz", np.zeros(SHAPE, np.int16), affine)
    label = np.random.default_rng(5).integers(0, 300, SHAPE).astype(np.uint16)  # in the axis order of the file
    own = nifti.read_grid(path).affine
    to_file = np.eye(4)  # index in the reordered array -> index in the file
    moved = label.transpose(order)
    for axis, (source, sign) in enumerate(zip(order, signs, strict=True)):
        to_file[source] = 0
        to_file[source, axis] = sign
        to_file[source, 3] = 0 if sign > 0 else SHAPE[source] - 1
    moved = moved[tuple(slice(None, None, sign) for sign in signs)]
    ends = [number for length in moved.shape for number in (0, length - 1)]
    outside = nifti.write_label(path, moved.transpose(2, 1, 0), ends, own @ to_file, tmp_path / "label.nii.gz")
    assert outside == 0
    back = nib.load(tmp_path / "label.nii.gz")
    assert np.array_equal(np.asarray(back.dataobj), label) and np.array_equal(back.affine, nib.load(path).affine)


@pytest.mark.parametrize("signs", [(1, 1, 1), (-1, 1, 1)], ids=str)
def test_a_part_of_the_image_and_what_lies_outside_of_it(tmp_path: Path, signs: tuple) -> None:
    path = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique((2, 0, 1), signs))
    volume = nifti.read_volume(path, tmp_path)
    label = np.random.default_rng(0).integers(1, 4, (4, 5, 6)).astype(np.uint8)
    outside = nifti.write_label(path, label, (-2, 3, 3, 7, 5, 8), volume["ijk_to_ras"], tmp_path / "label.nii")
    full = np.zeros(SHAPE[::-1], np.uint8)
    full[5:7, 3:6, 0:4] = label[:2, :3, 2:]
    assert np.array_equal(expected(tmp_path / "label.nii")[0], full)
    assert outside == label.size - 24
    found = nifti.read_label(tmp_path / "label.nii", path, tmp_path, LABELS)
    assert found["extent"] == [0, 3, 3, 5, 5, 6] and np.array_equal(np.load(found["voxels"]), full[5:7, 3:6, 0:4])


def test_a_label_map_without_labels(tmp_path: Path) -> None:
    path = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique())
    nothing = np.zeros((0, 0, 0), np.uint8)
    assert nifti.write_label(path, nothing, (0, -1, 0, -1, 0, -1), oblique(), tmp_path / "label.nii.gz") == 0
    found = nifti.read_label(tmp_path / "label.nii.gz", path, tmp_path, LABELS)
    assert (found["voxels"], found["extent"]) == (None, None)
    assert found["counts"] == {"a": 0, "b": 0, "c": 0} and found["shape"] == list(SHAPE)


def test_the_same_label_gives_the_same_bytes(tmp_path: Path) -> None:
    path = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique())
    label = np.ones(SHAPE[::-1], np.uint8)
    for name in ("one.nii.gz", "two.nii.gz"):
        nifti.write_label(path, label, (0, 4, 0, 5, 0, 6), nifti.read_grid(path).affine, tmp_path / name)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "two.nii.gz").read_bytes()


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda affine: affine @ np.diag([1, 1, 1.01, 1]), "beside them"),
        (lambda affine: affine + [[0, 0, 0, 0.3], [0] * 4, [0] * 4, [0] * 4], "beside them"),
        (lambda affine: affine @ np.diag([2, 1, 1, 1]), "of another size"),
        (lambda affine: np.zeros((4, 4)), "of another size"),
        (lambda affine: affine * np.nan, "of another size"),
    ],
    ids=["stretched", "shifted", "twice", "zero", "nan"],
)
def test_a_segmentation_on_other_voxels_is_refused(tmp_path: Path, change, words: str) -> None:
    path = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique())
    with pytest.raises(BadAnswer, match=words):
        label = np.ones(SHAPE[::-1], np.uint8)
        nifti.write_label(path, label, (0, 4, 0, 5, 0, 6), change(oblique()), tmp_path / "label.nii")
    assert not (tmp_path / "label.nii").exists()


def test_a_label_map_on_another_grid_is_refused(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique())
    other = save(tmp_path / "other.nii", np.ones((5, 6, 8), np.uint8), oblique())
    with pytest.raises(BadAnswer, match="5 x 6 x 8 voxels instead of 5 x 6 x 7"):
        nifti.read_label(other, image, tmp_path, LABELS)
    moved = oblique()
    moved[0, 3] += 0.01
    with pytest.raises(BadAnswer, match="beside the image's"):
        nifti.read_label(save(tmp_path / "b.nii", np.ones(SHAPE, np.uint8), moved), image, tmp_path, LABELS)
    flipped = save(tmp_path / "c.nii", np.ones(SHAPE, np.uint8), oblique((0, 1, 2), (-1, 1, 1)))
    with pytest.raises(BadAnswer, match="beside the image's"):
        nifti.read_label(flipped, image, tmp_path, LABELS)


@pytest.mark.parametrize("bad", [0.5, -1.0, 70000.0, np.nan])
def test_values_that_no_label_can_have_are_refused(tmp_path: Path, bad: float) -> None:
    image = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique())
    label = save(tmp_path / "label.nii", np.full(SHAPE, bad, np.float32), oblique())
    with pytest.raises(BadAnswer, match="whole numbers from 0 to 65535"):
        nifti.read_label(label, image, tmp_path, LABELS)


def test_a_value_that_is_no_label_is_refused_or_named(tmp_path: Path) -> None:
    image = save(tmp_path / "image.nii", np.zeros(SHAPE, np.int16), oblique())
    values = np.zeros(SHAPE, np.float64)
    values[1, 2, 3] = 9
    label = save(tmp_path / "label.nii", values, oblique())
    with pytest.raises(BadAnswer, match=r"\[9\]"):
        nifti.read_label(label, image, tmp_path, LABELS)
    found = nifti.read_label(label, image, tmp_path, LABELS, strangers=True)
    assert found["values"]["label 9"] == 9 and found["counts"]["label 9"] == 1
    assert found["extent"] == [1, 1, 2, 2, 3, 3]


def test_two_grids_that_are_a_whole_number_of_voxels_apart() -> None:
    moved = oblique()
    moved[:3, 3] += moved[:3, :3] @ [3, -2, 1]
    way = index_map(moved, oblique(), SHAPE, "image")
    assert (way.axes, way.signs, way.offsets) == ((0, 1, 2), (1, 1, 1), (3, -2, 1))


# ---- an image out of the scene


@pytest.mark.parametrize("dtype", [np.uint8, np.int16, np.float32, np.float64, bool, np.float16])
def test_an_image_of_the_scene_is_written(tmp_path: Path, dtype: type) -> None:
    voxels = np.random.default_rng(0).integers(0, 2, SHAPE[::-1]).astype(dtype)
    np.save(tmp_path / "voxels.npy", voxels)
    nifti.write_volume(tmp_path / "voxels.npy", oblique(), tmp_path / "image.nii.gz")
    image = nib.load(tmp_path / "image.nii.gz")
    assert np.array_equal(np.asarray(image.dataobj).transpose(2, 1, 0), voxels)
    assert np.array_equal(image.affine, oblique().astype(np.float32))
    check(tmp_path / "image.nii.gz", tmp_path)


@pytest.mark.parametrize("voxels", [np.zeros((2, 2)), np.zeros((2, 2, 2), complex), np.zeros((0, 2, 2))], ids=str)
def test_an_image_that_cannot_be_written(tmp_path: Path, voxels: np.ndarray) -> None:
    np.save(tmp_path / "voxels.npy", voxels)
    with pytest.raises(LocalProblem, match="3D array of numbers"):
        nifti.write_volume(tmp_path / "voxels.npy", np.eye(4), tmp_path / "image.nii.gz")
    with pytest.raises(LocalProblem, match="Cannot read the voxels"):
        nifti.write_volume(tmp_path / "none.npy", np.eye(4), tmp_path / "image.nii.gz")


# ---- bad files


@pytest.fixture
def good(tmp_path: Path) -> bytes:
    values = np.random.default_rng(0).integers(0, 1000, (20, 20, 20)).astype(np.int16)
    return save(tmp_path / "good.nii", values, oblique()).read_bytes()


def refused(path: Path, content: bytes, words: str) -> None:
    path.write_bytes(content)
    before = set(path.parent.iterdir())
    with pytest.raises(BadAnswer, match=words):
        nifti.read_volume(path, path.parent)
    assert set(path.parent.iterdir()) == before


def put(content: bytes, place: int, layout: str, *values: float) -> bytes:
    packed = struct.pack(layout, *values)
    return content[:place] + packed + content[place + len(packed) :]


def test_files_that_are_cut_or_damaged(tmp_path: Path, good: bytes) -> None:
    packed = gzip.compress(good)
    refused(tmp_path / "a.nii.gz", packed[:-10], "cut or damaged")
    refused(tmp_path / "a.nii.gz", packed[: len(packed) // 2], "cut or damaged")
    refused(tmp_path / "a.nii.gz", packed[:-8] + b"\0" * 8, "cut or damaged")  # the checksum
    refused(tmp_path / "a.nii.gz", packed[:5000] + b"\xff" * 2000 + packed[7000:], "cut or damaged")
    refused(tmp_path / "a.nii.gz", gzip.compress(good[:-100]), "cut or damaged")
    refused(tmp_path / "a.nii", good[:-1], "it was cut")
    refused(tmp_path / "a.nii", good[:300], "another kind of file")
    refused(tmp_path / "a.nii", b"", "another kind of file")
    refused(tmp_path / "a.nii.gz", b"<html>" * 100, "another kind of file")
    refused(tmp_path / "a.nii.gz", gzip.compress(b"garbage" * 200), "another kind of file")
    refused(tmp_path / "a.nii", put(good, 344, "4s", b"ni1\0"), "half of a pair")
    refused(tmp_path / "a.nii", put(good, 344, "4s", b"xyz\0"), "another kind of file")


def test_headers_that_make_no_sense(tmp_path: Path, good: bytes) -> None:
    refused(tmp_path / "a.nii", put(good, 40, "<8h", 3, 20, 0, 20, 1, 1, 1, 1), "size of a 3D image")
    refused(tmp_path / "a.nii", put(good, 40, "<8h", 3, 20, -5, 20, 1, 1, 1, 1), "size of a 3D image")
    refused(tmp_path / "a.nii", put(good, 40, "<8h", 0, 20, 20, 20, 1, 1, 1, 1), "size of a 3D image")
    refused(tmp_path / "a.nii", put(good, 40, "<8h", 4, 10, 20, 20, 2, 1, 1, 1), "10 x 20 x 20 x 2")
    refused(tmp_path / "a.nii", put(good, 40, "<8h", 3, 30000, 30000, 30000, 1, 1, 1, 1), "it was cut")
    refused(
        tmp_path / "a.nii.gz", gzip.compress(put(good, 40, "<8h", 3, *[30000] * 3, 1, 1, 1, 1)), "it was cut"
    )  # and no memory is asked for
    refused(tmp_path / "a.nii", put(good, 70, "<h", 128), "plain numbers")
    refused(tmp_path / "a.nii", put(good, 112, "<ff", 1.0, np.nan), "finite intercept")
    refused(tmp_path / "a.nii", put(good, 280, "<4f", np.nan, 0, 0, 0), "finite voxel sizes")
    refused(tmp_path / "a.nii", put(good, 280, "<12f", *[0] * 12), "finite voxel sizes above 0")
    sheared = [1, 0.1, 0, 0, 0, 1, 0, 0, 0, 0, 1, 0]
    refused(tmp_path / "a.nii", put(good, 280, "<12f", *sheared), r"off by 5.7 degrees .* Resample")
    no_turn = put(put(good, 252, "<hh", 1, 0), 256, "<3f", 1, 1, 1)
    refused(tmp_path / "a.nii", no_turn, "Expected a rotation")


def test_files_that_are_not_there_or_cannot_be_written(tmp_path: Path, good: bytes) -> None:
    with pytest.raises(LocalProblem, match="Cannot read"):
        nifti.read_volume(tmp_path / "none.nii", tmp_path)
    with pytest.raises(LocalProblem, match="Cannot read"):
        nifti.read_volume(tmp_path, tmp_path)
    with pytest.raises(LocalProblem, match="Cannot write"):
        nifti.read_volume(tmp_path / "good.nii", tmp_path / "none")
    with pytest.raises(LocalProblem, match="Cannot write"):
        label = np.ones((1, 1, 1), np.uint8)
        nifti.write_label(tmp_path / "good.nii", label, [0] * 6, oblique(), tmp_path / "none" / "label.nii")


def test_no_nibabel_is_needed() -> None:
    source = (Path(nifti.__file__).parent).glob("*.py")
    assert not [path.name for path in source if "import nibabel" in path.read_text() or "scipy" in path.read_text()]
    assert sys.modules["Rep3DLabelLib.images.nifti"]
