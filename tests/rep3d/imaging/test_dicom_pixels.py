"""The values of DICOM slices: each file's own rescaling, sign, bits, order of bytes and compression."""

from __future__ import annotations

import io
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from PIL import Image
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    RLELossless,
)

from rep3d import memory
from rep3d.errors import ImageError, OutOfMemoryError, TooLargeError
from rep3d.imaging.dicom import convert_series, decompress, files, find_series, pixels
from rep3d.imaging.limits import VARIABLE
from tests.rep3d.imaging.test_dicom import write_series

Change = Callable[[Dataset, int], object]
STORED = np.fromfunction(lambda x, y, z: 100 * z + 10 * y + x, (5, 4, 6))  # what write_series writes


def converted(folder: Path, change: Change | None = None) -> np.ndarray:
    """Return the values of the image that is made of a series."""
    write_series(folder / "series", change)
    convert_series(folder / "series", folder / "out.nii.gz")
    return np.asanyarray(nib.load(folder / "out.nii.gz").dataobj)


def refused(folder: Path, change: Change | None = None) -> str:
    with pytest.raises(ImageError) as caught:
        converted(folder, change)
    assert not (folder / "out.nii.gz").exists()
    return str(caught.value)


def _set(**values: object) -> Change:
    return lambda data, number: [setattr(data, name, value) for name, value in values.items()]


def _without(*names: str) -> Change:
    return lambda data, number: [delattr(data, name) for name in names]


def _on_one(change: Change) -> Change:
    return lambda data, number: change(data, number) if number == 3 else None


def test_monochrome1_keeps_its_values(tmp_path: Path) -> None:
    # That small values are shown bright is for the screen; HU stay HU. (SimpleITK would turn them round.)
    values = converted(tmp_path, _set(PhotometricInterpretation="MONOCHROME1"))
    np.testing.assert_array_equal(values, STORED - 1024)


@pytest.mark.parametrize("signed", [0, 1])
@pytest.mark.parametrize("high", [11, 15])
def test_bits_that_are_not_stored_do_not_count(tmp_path: Path, signed: int, high: int) -> None:
    def change(data: Dataset, number: int) -> None:
        data.BitsStored, data.HighBit, data.PixelRepresentation = 12, high, signed
        numbers = np.arange(20) - (10 if signed else 0)
        rubbish = 0xA000 if high == 11 else 0x000A
        data.PixelData = (((numbers & 0xFFF) << (high - 11)) | rubbish).astype("<u2").tobytes()
        data.add_new(0x60000010, "US", 4)  # an overlay in the upper bits
        data.add_new(0x60000011, "US", 5)
        data.add_new(0x60000100, "US", 16)
        data.add_new(0x60000102, "US", 12)

    values = converted(tmp_path, change)
    np.testing.assert_array_equal(values[:, :, 2].T.ravel(), np.arange(20) - (10 if signed else 0) - 1024)


def test_slices_of_both_signs(tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        data.PixelRepresentation = number % 2
        data.PixelData = np.full(20, -5 if number % 2 else 65000).astype("<i4").astype("<u2").tobytes()

    values = converted(tmp_path, change)
    assert (values[:, :, ::2] == 65000 - 1024).all() and (values[:, :, 1::2] == -5 - 1024).all()


@pytest.mark.parametrize(("bits", "kind"), [(8, "<u1"), (16, "<u2"), (32, "<u4")])
def test_whole_numbers_of_any_width(tmp_path: Path, bits: int, kind: str) -> None:
    largest = 2**bits - 1

    def change(data: Dataset, number: int) -> None:
        data.BitsAllocated = data.BitsStored = bits
        data.HighBit, data.PixelRepresentation = bits - 1, 0
        data.PixelData = np.full(20, largest).astype(kind).tobytes()

    values = converted(tmp_path, change)
    assert (values == largest - 1024).all()
    assert values.dtype == {8: np.int16, 16: np.int32, 32: np.float64}[bits]


def test_what_is_not_said_of_the_scale(tmp_path: Path) -> None:
    for number, change in enumerate([_without("RescaleSlope", "RescaleIntercept"), _set(RescaleSlope="")]):
        (tmp_path / f"{number}").mkdir()
        values = converted(tmp_path / f"{number}", change)
        np.testing.assert_array_equal(values, STORED - (1024 if number else 0))  # an intercept counts by itself
    words = refused(tmp_path, _on_one(_without("RescaleSlope", "RescaleIntercept")))
    assert "1 of its slices, such as 94.dcm (instance 3), do not say how their values are scaled" in words


def test_padding_stays_as_it_is_stored(tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        data.PixelPaddingValue = -2000
        data.PixelData = np.full(20, -2000).astype("<i2").tobytes()

    assert (converted(tmp_path, change) == -3024).all()


@pytest.mark.parametrize("syntax", [ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian])
def test_orders_of_bytes(tmp_path: Path, syntax: str) -> None:
    def change(data: Dataset, number: int) -> None:
        data.file_meta.TransferSyntaxUID = syntax
        data.is_little_endian, data.is_implicit_VR = syntax != ExplicitVRBigEndian, syntax == ImplicitVRLittleEndian
        if syntax == ExplicitVRBigEndian:
            data.PixelData = np.frombuffer(data.PixelData, "<i2").astype(">i2").tobytes()

    np.testing.assert_array_equal(converted(tmp_path, change), STORED - 1024)


def test_a_deflated_file_is_unpacked_no_further_than_a_slice_can_be(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(files, "_LARGEST", 32 << 20)

    def change(data: Dataset, number: int) -> None:
        data.file_meta.TransferSyntaxUID = DeflatedExplicitVRLittleEndian
        data.add_new(0x00091010, "OB", bytes(files._LARGEST if number == 3 else 2))

    folder = write_series(tmp_path / "series", change)
    assert sum(file.stat().st_size for file in folder.iterdir()) < 1 << 20
    tracemalloc.start()
    found = find_series(folder)
    assert tracemalloc.get_traced_memory()[1] < 8 << 20
    tracemalloc.stop()
    (left,) = found.left_out
    assert left.files[0].name == "94.dcm" and "more than 32 MiB" in left.error


def test_voxels_are_counted_before_any_pixels_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (series,) = find_series(write_series(tmp_path / "series")).series
    for file in series.slices:
        file.path.write_bytes(bytes(4000))  # reading it would fail in another way
    monkeypatch.setenv(VARIABLE, "119")
    with pytest.raises(ImageError, match="CT Abdomen .*: it has 5 x 4 x 6 voxels by its header, 120 in all"):
        convert_series(series, tmp_path / "out.nii.gz")


def test_what_a_few_bytes_announce_costs_no_memory(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def huge(data: Dataset, number: int) -> None:
        jpeg_2000(data, tmp_path)
        content = bytearray(data.PixelData)
        place = content.index(b"\xff\x51") + 6  # width and height, and those of a tile
        for at in (0, 4, 16, 20):
            content[place + at : place + at + 4] = (60_000).to_bytes(4, "big")
        data.PixelData = bytes(content)

    words = refused(tmp_path, huge)
    assert re.search(r"9\d.dcm .* cannot be read", words), words
    monkeypatch.setattr(pixels, "_MOST_RLE", 100)
    assert "too many run lengths" in refused(tmp_path / "rle", lambda data, number: data.compress(RLELossless))


def test_run_length_compression(tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        data.Rows = data.Columns = 200  # compressed, it is smaller than its pixels
        data.PixelData = np.full(40_000, number).astype("<i2").tobytes()
        data.compress(RLELossless)

    values = converted(tmp_path, change)
    np.testing.assert_array_equal(values, np.broadcast_to(np.arange(6) - 1024, (200, 200, 6)))


def jpeg_lossless(data: Dataset, folder: Path) -> None:
    writer = sitk.ImageFileWriter()
    writer.SetFileName(str(folder / "packed.dcm"))
    writer.UseCompressionOn()
    writer.SetCompressor("JPEG")
    writer.Execute(sitk.GetImageFromArray(data.pixel_array[None]))
    packed = pydicom.dcmread(folder / "packed.dcm")
    assert packed.file_meta.TransferSyntaxUID in pydicom.uid.JPEGTransferSyntaxes
    data.file_meta.TransferSyntaxUID, data["PixelData"] = packed.file_meta.TransferSyntaxUID, packed["PixelData"]


def jpeg_2000(data: Dataset, folder: Path) -> None:
    packed = io.BytesIO()
    Image.fromarray(data.pixel_array.astype(np.uint16)).save(packed, "JPEG2000", irreversible=False, no_jp2=True)
    data.file_meta.TransferSyntaxUID = JPEG2000Lossless
    data.PixelData = pydicom.encaps.encapsulate([packed.getvalue()])
    data["PixelData"].is_undefined_length = True
    data.PixelRepresentation = 0


@pytest.mark.parametrize("pack", [jpeg_lossless, jpeg_2000])
@pytest.mark.parametrize("colours", ["MONOCHROME1", "MONOCHROME2"])
def test_usual_compressions(tmp_path: Path, pack: Callable[[Dataset, Path], None], colours: str) -> None:
    folder = write_series(tmp_path / "series", _set(PhotometricInterpretation=colours))
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        pack(data, tmp_path)
        data.save_as(path)
    convert_series(folder, tmp_path / "out.nii.gz")
    np.testing.assert_array_equal(np.asanyarray(nib.load(tmp_path / "out.nii.gz").dataobj), STORED - 1024)


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (_on_one(lambda data, n: setattr(data, "PixelData", data.PixelData[:20])), "94.dcm .* cut short or damaged"),
        (_on_one(_without("PixelData")), "94.dcm .* has no pixels"),
        (_on_one(_set(BitsAllocated=12, BitsStored=12)), "94.dcm .* stores 12 of 12 bits"),
        (_on_one(_set(BitsAllocated=64, BitsStored=64, PixelData=bytes(160))), "94.dcm .* stores 64 of 64 bits"),
        (_set(Rows=4000, Columns=5000), r"announces 40 MB of pixels, and the file has 0\.00\d* MB"),
        (
            _on_one(lambda data, n: (delattr(data, "PixelData"), data.add_new(0x7FE00008, "OF", bytes(80)))),
            "floating point",
        ),
    ],
)
def test_damaged_pixels_are_told_by_file(tmp_path: Path, change: Change, words: str) -> None:
    message = refused(tmp_path, change)
    assert re.search(words, message), message


def test_a_decoder_that_crashes_costs_its_series_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_series(tmp_path / "series")
    for path in folder.iterdir():
        data = pydicom.dcmread(path)
        jpeg_2000(data, tmp_path)
        data.save_as(path)
    for line in ("os.abort()", "import time; time.sleep(60)"):  # as SimpleITK does on some damaged files
        child = tmp_path / "child.py"
        child.write_text(f"import os, sys\nsys.stdin.readline()\n{line}\n")
        monkeypatch.setattr(decompress, "_CHILD", child)
        monkeypatch.setattr(decompress, "_SECONDS", 0.5)
        with pytest.raises(ImageError, match=r"97\.dcm .* it is damaged, or compressed .*JPEG 2000"):
            convert_series(folder, tmp_path / "out.nii.gz")


def test_a_file_that_is_cut_is_named(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series")
    whole = (folder / "95.dcm").read_bytes()
    for kept in (len(whole) - 1, len(whole) - 30, len(whole) - 45, 400, 133):
        (folder / "95.dcm").write_bytes(whole[:kept])
        with pytest.raises(ImageError, match=r"95\.dcm"):
            convert_series(folder, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


@pytest.mark.parametrize(("free", "kind"), [((400, 10**12), OutOfMemoryError), ((400, 400), TooLargeError)])
def test_memory_is_asked_for_before_pixels_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, free: tuple[int, int], kind: type[Exception]
) -> None:
    (series,) = find_series(write_series(tmp_path / "series")).series
    for file in series.slices:
        file.path.write_bytes(bytes(4000))  # reading it would fail in another way
    monkeypatch.setattr(memory, "free_and_total", lambda: free)
    with pytest.raises(kind, match=r"CT Abdomen .*for its 5 x 4 x 6 voxels: 0\.0 GB are needed.* 0\.0 GB"):
        convert_series(series, tmp_path / "out.nii.gz")
