"""Files that are no images are refused; what is written lies on the image's grid, voxel for voxel."""

from __future__ import annotations

import gzip
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.errors import ConfigError, ImageError, LabelError, OutOfMemoryError
from rep3d.imaging.grid import same_grid
from rep3d.imaging.labels import check_label
from rep3d.imaging.limits import VARIABLE, max_voxels
from rep3d.imaging.nifti import geometry, read_image, read_label, stored_grid, write_label
from tests.rep3d.imaging.grids import AFFINES, OBLIQUE

LABELS = {"Head": 1, "Tail": 2}


def test_geometry_of_an_oblique_image(image: Path) -> None:
    grid = geometry(image)
    assert grid.shape == (5, 6, 7)
    np.testing.assert_allclose(grid.affine, OBLIQUE, atol=1e-6)
    np.testing.assert_allclose(grid.spacing, np.linalg.norm(OBLIQUE[:3, :3], axis=0))
    assert grid.axis_codes == ("R", "A", "S")
    assert grid.voxel_ml == pytest.approx(abs(np.linalg.det(OBLIQUE[:3, :3])) / 1000)


def test_a_trailing_axis_of_one_is_harmless(write_nifti: Callable[..., Path]) -> None:
    assert geometry(write_nifti("x.nii", np.zeros((4, 5, 6, 1), np.float32))).shape == (4, 5, 6)


@pytest.mark.parametrize(
    ("name", "content"),
    [
        ("text.nii.gz", b"not an image"),
        ("text.nii", b"not an image" * 100),
        ("empty.nii.gz", b""),
        ("gzip.nii.gz", gzip.compress(b"not an image either" * 50, mtime=0)),
        ("picture.png", b"\x89PNG\r\n"),
    ],
)
def test_files_that_are_no_images(tmp_path: Path, name: str, content: bytes) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    with pytest.raises(ImageError, match=name):
        geometry(path)


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(ImageError, match="does not exist"):
        geometry(tmp_path / "gone.nii.gz")


def test_a_cut_image_is_refused(image: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.nii.gz"
    cut.write_bytes(image.read_bytes()[:400])
    with pytest.raises(ImageError):
        geometry(cut)


@pytest.mark.parametrize("shape", [(4, 5), (4, 5, 6, 2), (4, 5, 6, 1, 3)])
def test_other_than_three_dimensions_is_refused(write_nifti: Callable[..., Path], shape: tuple[int, ...]) -> None:
    with pytest.raises(ImageError, match="three-dimensional"):
        geometry(write_nifti("x.nii.gz", np.zeros(shape, np.float32)))


def test_colour_is_refused(write_nifti: Callable[..., Path]) -> None:
    colour = np.zeros((3, 3, 3), dtype=[("R", "u1"), ("G", "u1"), ("B", "u1")])
    with pytest.raises(ImageError, match="not one number each"):
        geometry(write_nifti("rgb.nii.gz", colour))


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e38, -1e13])
@pytest.mark.parametrize("kind", ["f4", "f8"])
def test_what_is_no_intensity_is_refused_with_its_place(
    write_nifti: Callable[..., Path], value: float, kind: str
) -> None:
    voxels = np.ones((4, 5, 6), kind)
    voxels[1, 2, 3] = value
    words = "not a number" if np.isnan(value) else "too large for an intensity"
    with pytest.raises(ImageError, match=rf"x.nii has the value .* at voxel \(1, 2, 3\), which is {words}"):
        read_image(write_nifti("x.nii", voxels))
    voxels[1, 2, 3] = -1e12
    assert read_image(write_nifti("y.nii", voxels))[0].min() == np.dtype(kind).type(-1e12)


def _packed(head: bytes, stored: bytes, behind: bytes = b"") -> bytes:
    return gzip.compress(head + stored + behind, 1)


def test_a_packed_file_is_read_to_its_checksum_and_no_further(image: Path, tmp_path: Path) -> None:
    whole = gzip.decompress(image.read_bytes())
    head, stored = whole[:352], whole[352:]
    good = _packed(head, stored)
    flipped = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]  # of the checksum; one of a voxel changes nothing else
    lying = head[:42] + np.array([5, 6, 7 * 40], "<i2").tobytes() + head[48:]
    far = head[:108] + np.float32(4096).tobytes() + head[112:348] + b"\1\0\0\0"  # a further text follows
    bombs = {
        "wrong checksum": (flipped, "cut short or damaged"),
        "cut in its trailer": (good[:-3], "cut short or damaged"),
        "without a trailer": (good[:-8], "cut short or damaged"),
        "goes on": (_packed(head, stored, bytes(1 << 22)), "goes on behind the voxels"),
        "goes on in another member": (good + gzip.compress(bytes(1 << 22)), "goes on behind the voxels"),
        "rubbish behind": (good + b"rubbish", "cut short or damaged"),
        "less than its header says": (_packed(lying, stored, b""), "damaged"),
        "a text of a gigabyte": (_packed(far + np.array([1 << 30, 6], "<i4").tobytes(), bytes(1 << 24)), "damaged"),
    }
    file = tmp_path / "bomb.nii.gz"
    for name, (content, words) in bombs.items():
        file.write_bytes(content)
        tracemalloc.start()
        for read, error in ((read_image, ImageError), (read_label, LabelError)):
            with pytest.raises(error, match=f"bomb.nii.gz .*{words}"):
                read(file)
        assert tracemalloc.get_traced_memory()[1] < 4 << 20, name
        tracemalloc.stop()
    fine = (good, good + bytes(512), _packed(head, stored[:100]) + gzip.compress(stored[100:]))
    for content in (*fine, _packed(head, stored, bytes(1000))):  # tapes and some programs fill up the last block
        file.write_bytes(content)
        np.testing.assert_array_equal(read_image(file)[0], read_image(image)[0])


def test_so_many_voxels_and_no_more(image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "210")
    assert read_image(image)[0].size == 210
    monkeypatch.setenv(VARIABLE, "209")
    for read, error in ((stored_grid, ImageError), (read_image, ImageError), (read_label, LabelError)):
        with pytest.raises(error, match="5 x 6 x 7 voxels by its header, 210 in all, and at most 209"):
            read(image)
    for text in ("", "0", "-1", "1e9", "many"):
        monkeypatch.setenv(VARIABLE, text)
        with pytest.raises(ConfigError, match="whole number"):
            max_voxels()


@pytest.mark.parametrize("affine", AFFINES)
@pytest.mark.parametrize("suffix", [".nii.gz", ".nii"])
def test_written_labels_read_back_voxel_and_grid_exact(
    write_nifti: Callable[..., Path], tmp_path: Path, affine: np.ndarray, suffix: str
) -> None:
    image = write_nifti("image.nii.gz", np.zeros((5, 6, 7), np.float32), affine)
    values = np.random.default_rng(0).integers(0, 3, (5, 6, 7))
    write_label(values, image, tmp_path / f"label{suffix}")
    read, grid = read_label(tmp_path / f"label{suffix}")
    np.testing.assert_array_equal(read, values)
    assert same_grid(grid, geometry(image), tolerance_voxels=1e-4)
    check_label(tmp_path / f"label{suffix}", image, LABELS)


def test_header_codes_of_the_image_are_kept(tmp_path: Path) -> None:
    affine = AFFINES[3]
    source = nib.Nifti1Image(np.zeros((3, 4, 5), np.int16), affine)
    source.set_qform(affine, code=1)
    source.set_sform(affine, code=2)
    nib.save(source, tmp_path / "image.nii.gz")
    write_label(np.zeros((3, 4, 5), int), tmp_path / "image.nii.gz", tmp_path / "label.nii.gz")
    header = nib.load(tmp_path / "label.nii.gz").header
    assert (int(header["qform_code"]), int(header["sform_code"])) == (1, 2)


def test_values_above_255_survive(image: Path, tmp_path: Path) -> None:
    values = np.zeros((5, 6, 7), int)
    values[0, 0, 0] = 40000
    write_label(values, image, tmp_path / "label.nii.gz")
    assert read_label(tmp_path / "label.nii.gz")[0].max() == 40000


def test_write_refuses_another_shape(image: Path, tmp_path: Path) -> None:
    with pytest.raises(LabelError, match="shape"):
        write_label(np.zeros((5, 6, 8), int), image, tmp_path / "label.nii.gz")
    assert not (tmp_path / "label.nii.gz").exists()


def test_stored_grid_needs_the_header_only(image: Path, tmp_path: Path) -> None:
    cut = tmp_path / "cut.nii"
    whole = gzip.decompress(image.read_bytes())
    cut.write_bytes(whole[: len(whole) // 2])
    assert same_grid(stored_grid(cut), geometry(image))
    with pytest.raises(ImageError):
        geometry(cut)


def test_labels_come_in_a_type_that_everything_computes_with(write_nifti: Callable[..., Path]) -> None:
    for kind in (np.uint8, np.int16, np.uint16, np.int64, np.uint64, np.float64):
        for largest, expected in ((255, np.uint8), (32000, np.uint16)):
            if kind == np.uint8 and largest > 255:
                continue
            values, _ = read_label(write_nifti("label.nii.gz", np.full((2, 3, 4), largest, kind)))
            assert values.dtype == expected and (values == largest).all(), kind


def test_want_of_memory_is_told_from_a_damaged_header(
    image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def no_memory(*_: object, **__: object) -> None:
        raise MemoryError

    large = tmp_path / "large.nii.gz"  # the header alone, as of a file of gigabytes
    header = bytearray(gzip.decompress(image.read_bytes())[:352])
    header[42:48] = np.array([1000, 1000, 1000], "<i2").tobytes()
    large.write_bytes(gzip.compress(bytes(header)))
    monkeypatch.setattr("rep3d.imaging.nifti._read_voxels", no_memory)
    for read, error in ((read_image, ImageError), (read_label, LabelError)):
        with pytest.raises(OutOfMemoryError, match=f"Not enough memory to read .* in {image.name}"):
            read(image)
        with pytest.raises(error, match="large.nii.gz is damaged: its header announces"):
            read(large)
