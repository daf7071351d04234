"""DICOM series: what is complete is converted with the right geometry and values, what is not is refused in words."""

from __future__ import annotations

import os
import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
import SimpleITK as sitk
from pydicom.dataset import Dataset, FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, JPEGLSLossless, generate_uid

from rep3d.errors import ImageError
from rep3d.imaging.dicom import as_nifti, convert_series, find_series, only_series

COUNT = 6


def _write_slice(folder: Path, number: int, uid: str, change: Callable[[Dataset], object] | None = None) -> Path:
    """Return one axial CT slice of 4 rows and 5 columns: the value at (row, column) is 100 * number + 10 * row +
    column."""
    meta = FileMetaDataset()
    meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
    meta.MediaStorageSOPInstanceUID = generate_uid()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    path = folder / f"{97 - number}.dcm"  # names in no useful order
    data = FileDataset(str(path), {}, file_meta=meta, preamble=b"\0" * 128)
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SOPClassUID, data.SOPInstanceUID = meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID
    data.Modality, data.SeriesDescription = "CT", "Abdomen"
    data.PatientID, data.PatientName, data.StudyInstanceUID = "1", "A^B", "1.2.3"
    data.SeriesInstanceUID, data.InstanceNumber = uid, number
    data.ImagePositionPatient = [-10.0, 20.0, 30.0 + 2.5 * number]
    data.ImageOrientationPatient = [1.0, 0.0, 0.0, 0.0, 1.0, 0.0]
    data.PixelSpacing, data.SliceThickness = [0.8, 0.6], 2.5
    data.Rows, data.Columns, data.SamplesPerPixel, data.PhotometricInterpretation = 4, 5, 1, "MONOCHROME2"
    data.BitsAllocated, data.BitsStored, data.HighBit, data.PixelRepresentation = 16, 16, 15, 1
    data.RescaleSlope, data.RescaleIntercept = 1, -1024
    row, column = np.mgrid[:4, :5]
    data.PixelData = (100 * number + 10 * row + column).astype("<i2").tobytes()
    if change:
        change(data)
    data.save_as(path, write_like_original=False)
    return path


def write_series(folder: Path, change: Callable[[Dataset, int], object] | None = None, uid: str = "1.2.3.4") -> Path:
    """Return a CT series of 5 x 4 x 6 voxels, each slice changed as wanted."""
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(COUNT):
        _write_slice(folder, number, uid, (lambda data, n=number: change(data, n)) if change else None)
    return folder


def test_values_and_geometry_of_a_hand_made_series(tmp_path: Path) -> None:
    series = convert_series(write_series(tmp_path / "ct"), tmp_path / "ct.nii.gz")
    assert (series.uid, series.modality, series.description) == ("1.2.3.4", "CT", "Abdomen")
    image = nib.load(tmp_path / "ct.nii.gz")
    values = np.asanyarray(image.dataobj)
    assert values.shape == (5, 4, COUNT) and values.dtype.kind == "i"
    assert values[3, 2, 4] == 400 + 20 + 3 - 1024
    # Column spacing 0.6 along L, row spacing 0.8 along P, both negative in RAS.
    np.testing.assert_allclose(image.affine, [[-0.6, 0, 0, 10], [0, -0.8, 0, -20], [0, 0, 2.5, 30], [0, 0, 0, 1]])
    assert image.header["sform_code"] == image.header["qform_code"] == 1


def test_slices_scaled_each_in_their_own_way(tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        data.RescaleSlope, data.RescaleIntercept = 0.5 + number, 0

    convert_series(write_series(tmp_path / "pet", change), tmp_path / "pet.nii.gz")
    values = nib.load(tmp_path / "pet.nii.gz").get_fdata()
    assert values[3, 2, 4] == pytest.approx(423 * 4.5)
    assert values[1, 0, 1] == pytest.approx(101 * 1.5)


@pytest.mark.parametrize("name", ["brain_t1", "hippocampus_crop"])
def test_real_series_agree_with_simpleitk(shared_data: Path, tmp_path: Path, name: str) -> None:
    folder = shared_data / "dicom_mr" / name
    convert_series(folder, tmp_path / "ours.nii.gz")
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    sitk.WriteImage(reader.Execute(), str(tmp_path / "theirs.nii.gz"))
    ours, theirs = nib.load(tmp_path / "ours.nii.gz"), nib.load(tmp_path / "theirs.nii.gz")
    np.testing.assert_allclose(ours.affine, theirs.affine, atol=1e-5)
    np.testing.assert_array_equal(np.asarray(ours.dataobj), np.asarray(theirs.dataobj))


def test_series_are_found_in_subfolders_and_other_files_passed_over(tmp_path: Path) -> None:
    write_series(tmp_path / "patient" / "a", uid="1.2.3.4")
    write_series(tmp_path / "patient" / "b", uid="1.2.3.5")
    (tmp_path / "patient" / "notes.txt").write_text("nothing")
    (tmp_path / "patient" / "half.dcm").write_bytes(b"\0" * 128 + b"DICM" + b"rubbish")
    found = find_series(tmp_path)
    assert [one.uid for one in found.series] == ["1.2.3.4", "1.2.3.5"]
    assert [one.folder.name for one in found.series] == ["a", "b"]
    assert [one.files[0].name for one in found.left_out] == ["half.dcm"]
    with pytest.raises(ImageError, match=r"holds 2 DICOM series: .*1\.2\.3\.4.*1\.2\.3\.5"):
        only_series(tmp_path)
    with as_nifti(tmp_path / "patient" / "a") as file:
        assert nib.load(file).shape == (5, 4, COUNT)
    assert not file.exists()


def test_a_folder_without_images_is_refused(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("nothing")
    with pytest.raises(ImageError, match="holds no DICOM images"):
        only_series(tmp_path)


def _set(**values: object) -> Callable[[Dataset, int], None]:
    def change(data: Dataset, number: int) -> None:
        if number == 3:
            for name, value in values.items():
                setattr(data, name, value)

    return change


def _at(position: Callable[[int], list[float]]) -> Callable[[Dataset, int], None]:
    def change(data: Dataset, number: int) -> None:
        data.ImagePositionPatient = position(number)

    return change


def _without(name: str) -> Callable[[Dataset, int], None]:
    def change(data: Dataset, number: int) -> None:
        delattr(data, name)

    return change


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (
            _at(lambda n: [0.0, 0.0, 2.5 * (n if n < 3 else n + 2)]),
            "2 of its slices are missing; there should be one every 2.5 mm",
        ),
        (_at(lambda n: [0.0, 0.0, 2.5 * n + 0.4 * n * n]), "slices at uneven distances"),
        (_at(lambda n: [0.0, 0.0, 2.5 * (n // 2)]), "more than one slice at 3 positions"),
        (_at(lambda n: [0.0, 0.5 * n, 2.5 * n]), "gantry tilt"),
        (_set(ImageOrientationPatient=[0.0, 1.0, 0.0, 0.0, 0.0, -1.0]), "94.dcm is the only slice in its direction"),
        (_set(Rows=2, PixelData=b"\0" * 20), "94.dcm is the only slice in its direction, size"),
        (_set(NumberOfFrames=2, PixelData=b"\0" * 80), "multi-frame"),
        (
            _set(SamplesPerPixel=3, PhotometricInterpretation="RGB", PlanarConfiguration=0),
            r"94.dcm is a colour image \(RGB\)",
        ),
        (_without("ImagePositionPatient"), "does not say where it lies in space: its ImagePositionPatient is missing"),
    ],
)
def test_what_is_no_complete_even_stack_is_refused(
    tmp_path: Path, change: Callable[[Dataset, int], None], words: str
) -> None:
    folder = write_series(tmp_path / "series", change)
    with pytest.raises(ImageError, match=words):
        convert_series(folder, tmp_path / "out.nii.gz")
    assert not (tmp_path / "out.nii.gz").exists()


def test_pixels_that_cannot_be_read_are_refused(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series")
    for file in folder.iterdir():
        data = pydicom.dcmread(file)
        data.file_meta.TransferSyntaxUID = JPEGLSLossless
        data.PixelData = pydicom.encaps.encapsulate([b"no picture" * 4])
        data["PixelData"].is_undefined_length = True
        data.save_as(file)
    with pytest.raises(
        ImageError, match=r"97.dcm .* cannot be read: it is damaged, or compressed .* \(JPEG-LS Lossless"
    ):
        convert_series(folder, tmp_path / "out.nii.gz")


def test_one_slice_takes_its_thickness(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "series")
    for file in sorted(folder.iterdir())[1:]:
        os.unlink(file)
    convert_series(folder, tmp_path / "out.nii.gz")
    image = nib.load(tmp_path / "out.nii.gz")
    assert image.shape == (5, 4, 1) and image.affine[2, 2] == 2.5


def test_a_missing_slice_of_a_real_series_is_noticed(shared_data: Path, tmp_path: Path) -> None:
    shutil.copytree(shared_data / "dicom_mr" / "brain_t1", tmp_path / "series")
    sorted((tmp_path / "series").iterdir())[9].unlink()
    with pytest.raises(ImageError, match="1 of its slices are missing"):
        convert_series(tmp_path / "series", tmp_path / "out.nii.gz")
