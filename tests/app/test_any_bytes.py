"""Whatever bytes a file has: what comes out is what it is, or an error of the project's own.

Bytes of good files are replaced, cut off and added. The slow tests try many more.
"""

from __future__ import annotations

import gzip
import io
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pydicom
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st
from lib.dicom.upload import unpack_dicom
from lib.labels.formats import as_nifti
from lib.storage.voxels import Receiver
from pydicom.uid import DeflatedExplicitVRLittleEndian

from rep3d.errors import Rep3DError
from rep3d.imaging.dicom import convert_series, find_series
from rep3d.imaging.nifti import read_image, read_label, stored_grid
from tests.app.data import SHAPE, write_nifti
from tests.app.nrrd_files import segments, write_nrrd
from tests.rep3d.imaging.test_dicom import write_series
from tests.voxel_bodies import packed

VOXELS = np.random.default_rng(0).integers(0, 3, SHAPE).astype(np.uint8)


def _nifti(file: Path) -> None:
    for read in (stored_grid, read_image, read_label):
        try:
            read(file)
        except Rep3DError as refusal:
            assert file.name in str(refusal) and str(file.parent) not in str(refusal)


def _label(file: Path) -> None:
    as_nifti(file, file.parent / "image.nii.gz", file.parent)


def _series(file: Path) -> None:
    for series in find_series(file.parent).series:
        convert_series(series, file.parent / "out.nii")


def _zip(file: Path) -> None:
    with file.open("rb") as content:
        unpack_dicom(content, file.parent / "out")


def _voxels(file: Path) -> None:
    receiver = Receiver(file.with_name("received"), "gzip" if file.suffix == ".gz" else "")
    try:
        receiver.feed(file.read_bytes())
        receiver.finish()
    finally:
        receiver.close()


def _slice(folder: Path, deflated: bool) -> bytes:
    def change(data: pydicom.Dataset, number: int) -> None:
        if deflated:
            data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian

    return min(write_series(folder, change).iterdir()).read_bytes()


def _good(folder: Path) -> dict[str, tuple[bytes, Callable[[Path], None]]]:
    """Return good files by name, and how each is read."""
    keys = segments(("A", 0, 1), ("B", 0, 2))
    nifti = write_nifti(folder / "image.nii", VOXELS).read_bytes()
    gzipped = {"encoding": "gzip"}
    slices = {name: _slice(folder / name, name == "deflated") for name in ("plain", "deflated")}
    parts = io.BytesIO()
    with zipfile.ZipFile(parts, "w", zipfile.ZIP_DEFLATED) as archive:
        for number in range(3):
            archive.writestr(f"{number}.dcm", slices["plain"])
    place = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
    values = zlib.compress(VOXELS.tobytes(order="F"))
    sizes = f"CompressedDataSize = {len(values)}\nDimSize = {' '.join(map(str, SHAPE))}\n"
    mha = f"NDims = 3\n{place}CompressedData = True\n{sizes}"
    body = packed({"image": VOXELS})
    return {
        "x.nii": (nifti, _nifti),
        "x.nii.gz": (gzip.compress(nifti), _nifti),
        "x.nrrd": (write_nrrd(folder / "x.nrrd", [VOXELS]).read_bytes(), _label),
        "x.seg.nrrd": (
            write_nrrd(folder / "x.seg.nrrd", [VOXELS], keys, gzipped, gzip.compress(VOXELS.tobytes("F"))).read_bytes(),
            _label,
        ),
        "x.mha": (f"{mha}ElementType = MET_UCHAR\nElementDataFile = LOCAL\n".encode() + values, _label),
        "x.dcm": (slices["plain"], _series),
        "deflated.dcm": (slices["deflated"], _series),
        "x.zip": (parts.getvalue(), _zip),
        "voxels": (body, _voxels),
        "voxels.gz": (gzip.compress(body), _voxels),
    }


with TemporaryDirectory() as made:
    GOOD = _good(Path(made))
NAMES = sorted(GOOD)
IMAGE = gzip.compress(GOOD["x.nii"][0])

changes = st.lists(
    st.tuples(st.one_of(st.integers(0, 400), st.integers(0, 1 << 20)), st.binary(min_size=1, max_size=40)), max_size=4
)
cuts = st.one_of(st.none(), st.integers(0, 600), st.integers(1, 20).map(lambda left: -left))
tails = st.sampled_from([b"", b"", b"", b"\0", bytes(1000), b"rubbish"])


def _meet(name: str, replaced: list[tuple[int, bytes]], cut: int | None, tail: bytes) -> None:
    good, read = GOOD[name]
    content = bytearray(good)
    for place, noise in replaced:
        place %= len(good)
        content[place : place + len(noise)] = noise
    with TemporaryDirectory() as folder:
        file = Path(folder) / name
        file.with_name("image.nii.gz").write_bytes(IMAGE)
        file.write_bytes(content[:cut] + tail)
        try:
            read(file)
        except Rep3DError as refusal:
            assert str(file.parent) not in str(refusal)


@pytest.mark.parametrize("name", NAMES)
@given(changes, cuts, tails)
@example([(272, b"\0")], None, b"")  # a DICOM transfer syntax that nobody knows
@example([(325, b"\x80")], None, b"")  # a NRRD key that is no text
@settings(max_examples=15, derandomize=True, deadline=None)
def test_only_errors_of_ours(name: str, replaced: list[tuple[int, bytes]], cut: int | None, tail: bytes) -> None:
    _meet(name, replaced, cut, tail)


@pytest.mark.slow
@pytest.mark.parametrize("name", NAMES)
@given(changes, cuts, tails)
@settings(max_examples=1500, deadline=None)
def test_only_errors_of_ours_many(name: str, replaced: list[tuple[int, bytes]], cut: int | None, tail: bytes) -> None:
    _meet(name, replaced, cut, tail)


@pytest.mark.parametrize("name", NAMES)
def test_the_good_files_are_read(name: str, tmp_path: Path) -> None:
    (tmp_path / "image.nii.gz").write_bytes(IMAGE)
    (tmp_path / name).write_bytes(GOOD[name][0])
    GOOD[name][1](tmp_path / name)
