"""Which DICOM files make a volume together: patients and kinds are told apart, and what is left out is named."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from rep3d.errors import ImageError
from rep3d.imaging.dicom import DicomSeries, convert_series, find_series
from tests.rep3d.imaging.test_dicom import write_series

Change = Callable[[Dataset, int], object]


def values(series: DicomSeries, folder: Path) -> np.ndarray:
    convert_series(series, folder / "out.nii.gz")
    return np.asanyarray(nib.load(folder / "out.nii.gz").dataobj)


def two(folder: Path, tags: dict[str, tuple[object, object]], beside: bool = True, **shared: object) -> Path:
    """Return a folder with two stacks under one UID, of which the second has larger values; in one folder, or two."""
    for which in (0, 1):

        def change(data: Dataset, number: int, which: int = which) -> None:
            for tag, pair in {**{tag: (value, value) for tag, value in shared.items()}, **tags}.items():
                setattr(data, tag, pair[which])
            data.PixelData = np.full(20, 1000 * which).astype("<i2").tobytes()

        target = write_series(folder / f"{which}", change)
        if beside:
            for file in target.iterdir():
                file.rename(folder / f"{which}-{file.name}")
            target.rmdir()
    return folder


@pytest.mark.parametrize(
    "tags",
    [
        {"PatientID": ("1", "2")},
        {"PatientName": ("A^B", "C^D")},
        {"StudyInstanceUID": ("1.2.3", "1.2.4")},
        {"FrameOfReferenceUID": ("1.2.3", "1.2.4")},
        {"EchoTime": ("10", "80")},
        {"ImageType": (["ORIGINAL", "PRIMARY", "M"], ["ORIGINAL", "PRIMARY", "P"])},
        {"TemporalPositionIdentifier": (1, 2)},
        {"TriggerTime": ("0", "40")},
        {"AcquisitionNumber": (1, 2)},
        {"AcquisitionTime": ("101500", "101700.5")},
        {"Modality": ("CT", "PT")},
    ],
)
def test_what_shares_a_series_uid_is_told_apart(tmp_path: Path, tags: dict[str, tuple[object, object]]) -> None:
    found = find_series(two(tmp_path / "in", tags))
    assert [len(one.slices) for one in found.series] == [6, 6] and found.left_out == []
    assert {one.part for one in found.series} == {"part 1 of 2", "part 2 of 2"}
    assert len({one.fingerprint for one in found.series}) == 2
    assert sorted(np.unique(values(one, tmp_path)).tolist() for one in found.series) == [[-1024], [-24]]


def test_a_film_is_not_parted_into_images(tmp_path: Path) -> None:
    for phase in range(22):

        def change(data: Dataset, number: int, phase: int = phase) -> None:
            data.TriggerTime, data.ImagePositionPatient = str(40 * phase), [0, 0, 2.5 * (number % 2)]

        for file in sorted(write_series(tmp_path / f"{phase}", change).iterdir())[:2]:
            file.rename(tmp_path / f"{phase}-{file.name}")
        shutil.rmtree(tmp_path / f"{phase}")
    with pytest.raises(ImageError, match="more than one slice at 42 positions"):
        convert_series(tmp_path, tmp_path / "out.nii.gz")


def test_patients_are_never_put_into_one_volume(tmp_path: Path) -> None:
    # Slices of the one lie exactly between those of the other: a stack without a fault, of two people.
    def change(data: Dataset, number: int) -> None:
        data.PatientID = str(number % 2)

    found = find_series(write_series(tmp_path / "in", change))
    assert sorted(sorted({file.text("PatientID") for file in one.slices}) for one in found.series) == [["0"], ["1"]]
    # Without any names left, the folders that they lie in tell them apart.
    for which in (0, 1):
        write_series(
            tmp_path / "nameless" / f"{which}",
            lambda data, n, which=which: setattr(data, "ImagePositionPatient", [0, 0, 5 * n + 2.5 * which]),
        )
    found = find_series(tmp_path / "nameless")
    assert [(one.folder.name, len(one.slices)) for one in found.series] == [("0", 6), ("1", 6)]
    # In one folder nothing does: refused.
    for file in (tmp_path / "nameless" / "1").iterdir():
        data = pydicom.dcmread(file)
        data.ImagePositionPatient[2] -= 2.5
        data.save_as(tmp_path / "nameless" / "0" / f"b{file.name}")
        file.unlink()
    with pytest.raises(ImageError, match="more than one slice at 6 positions"):
        convert_series(tmp_path / "nameless", tmp_path / "out.nii.gz")


def test_numbers_that_run_twice_tell_two_stacks(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in", lambda data, n: setattr(data, "InstanceNumber", n // 2 + 1))
    with pytest.raises(ImageError, match="its instance numbers are there 2 times each"):
        convert_series(folder, tmp_path / "out.nii.gz")
    write_series(folder, lambda data, n: setattr(data, "InstanceNumber", n % 3 + 1))  # counted anew half-way
    assert values(find_series(folder).series[0], tmp_path).shape == (5, 4, 6)


def test_a_series_over_several_folders_is_one_and_copies_count_once(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in" / "a")
    (tmp_path / "in" / "b").mkdir()
    for name in ("92.dcm", "93.dcm"):
        (folder / name).rename(tmp_path / "in" / "b" / name)
    (one,) = find_series(tmp_path / "in").series
    assert len(one.slices) == 6 and one.part == ""
    shutil.copytree(tmp_path / "in" / "a", tmp_path / "in" / "copy of a")
    (again,) = find_series(tmp_path / "in").series
    assert again.fingerprint == one.fingerprint
    assert values(again, tmp_path)[3, 2, 5] == 500 + 20 + 3 - 1024


def test_a_file_that_goes_away_meanwhile_costs_its_series_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    shutil.copytree(write_series(tmp_path / "in" / "a"), tmp_path / "in" / "copy of a")
    write_series(tmp_path / "in" / "b", uid="1.2.9")

    def gone(*arguments: object, shallow: bool) -> bool:
        raise FileNotFoundError(2, "No such file", "97.dcm")

    monkeypatch.setattr("filecmp.cmp", gone)
    found = find_series(tmp_path)
    assert [one.uid for one in found.series] == ["1.2.9"]
    assert len(found.left_out[0].files) == 12 and "97.dcm" in found.left_out[0].error


def test_directions_and_sizes_are_told_apart(tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        if number >= 3:
            data.ImageOrientationPatient, data.ImagePositionPatient = [0, 1, 0, 0, 0, -1], [3 * number, 0, 0]

    found = find_series(write_series(tmp_path / "planes", change))
    assert [len(one.slices) for one in found.series] == [3, 3]
    assert {nib.aff2axcodes(_affine(one, tmp_path)) for one in found.series} == {("L", "P", "S"), ("P", "I", "R")}

    def scouts(data: Dataset, number: int) -> None:
        data.ImageOrientationPatient = [[1, 0, 0, 0, 1, 0], [0, 1, 0, 0, 0, -1], [1, 0, 0, 0, 0, -1]][number % 3]
        data.ImagePositionPatient = [100.0 * (number // 3)] * 3
        if number > 2:
            data.Rows, data.PixelData = 2, data.PixelData[:20]

    found = find_series(write_series(tmp_path / "scouts", scouts))
    assert found.series == []
    assert "6 files such as 92.dcm: each is the only slice in its direction" in str(found.left_out[0])


def _affine(series: DicomSeries, folder: Path) -> np.ndarray:
    convert_series(series, folder / "out.nii.gz")
    return np.asarray(nib.load(folder / "out.nii.gz").affine)


def test_missing_identifiers(tmp_path: Path) -> None:
    def nameless(data: Dataset, number: int) -> None:
        for tag in ("SeriesInstanceUID", "StudyInstanceUID", "PatientID", "PatientName", "SOPInstanceUID"):
            setattr(data, tag, "")
        data.InstanceNumber = None if number % 2 else 1
        if number == 5:
            del data.InstanceNumber, data.SeriesDescription

    for name in ("a", "b"):
        write_series(tmp_path / "in" / name, nameless)
        (tmp_path / "in" / name / "92.dcm").unlink()  # it has another description
    found = find_series(tmp_path / "in")
    assert [(one.folder.name, len(one.slices), one.uid) for one in found.series] == [("a", 5, ""), ("b", 5, "")]
    assert "no UID" in str(found.series[0])
    assert values(found.series[0], tmp_path).shape == (5, 4, 5)


def test_files_without_the_mark_and_with_any_name(tmp_path: Path) -> None:
    folder = write_series(tmp_path / "in")
    for number, file in enumerate(sorted(folder.iterdir())):
        data = pydicom.dcmread(file)
        if number % 3 < 2:  # as old scanners wrote them: no mark, no header of the file
            data.preamble = None
            del data.file_meta
            data.is_implicit_VR = number % 3 == 0
            data.save_as(folder / ["IM0001", "X1.DCM"][number % 3].replace("1", str(number)), write_like_original=True)
            file.unlink()
        else:
            file.rename(folder / f"{number} of 6.IMA.7")
    (folder / "notes.txt").write_text("nothing")
    (folder / "thumbs.db").write_bytes(b"\x08\x00" + bytes(range(250)))  # begins as old DICOM may
    (folder / "viewer.exe").write_bytes(b"MZ" + bytes(300))
    found = find_series(tmp_path)
    assert found.left_out == [] and len(found.series[0].slices) == 6
    np.testing.assert_array_equal(values(found.series[0], tmp_path)[0, 0], 100 * np.arange(6) - 1024)


def _object(path: Path, sop_class: str, **tags: object) -> None:
    file = next(write_series(path.parent / "model").iterdir())
    data = pydicom.dcmread(file)
    data.SOPClassUID = data.file_meta.MediaStorageSOPClassUID = sop_class
    data.SeriesInstanceUID = f"9.{sop_class}"
    for tag, value in tags.items():
        if value is None:
            delattr(data, tag)
        else:
            setattr(data, tag, value)
    data.save_as(path)
    shutil.rmtree(path.parent / "model")


def test_what_is_no_volume_is_named_with_the_reason(tmp_path: Path) -> None:
    no_image = {"Rows": None, "Columns": None, "PixelData": None}
    uid = pydicom.uid
    _object(tmp_path / "contours", uid.RTStructureSetStorage, **no_image)
    _object(tmp_path / "report", uid.ComprehensiveSRStorage, **no_image)
    _object(tmp_path / "paper", uid.EncapsulatedPDFStorage, **no_image)
    _object(tmp_path / "labels", uid.SegmentationStorage, NumberOfFrames=3, PixelData=bytes(120))
    _object(tmp_path / "enhanced", uid.EnhancedMRImageStorage, NumberOfFrames=2, PixelData=bytes(80))
    _object(tmp_path / "shot", uid.SecondaryCaptureImageStorage, ImagePositionPatient=None)
    _object(tmp_path / "scout", uid.CTImageStorage, ImageType=["ORIGINAL", "PRIMARY", "LOCALIZER"])
    _object(tmp_path / "colour", uid.CTImageStorage, PhotometricInterpretation="RGB", SamplesPerPixel=3)
    _object(tmp_path / "palette", uid.CTImageStorage, PhotometricInterpretation="PALETTE COLOR")
    _object(tmp_path / "DICOMDIR", uid.MediaStorageDirectoryStorage, **no_image)
    (tmp_path / "empty.dcm").touch()
    (tmp_path / "text.DCM").write_text("no DICOM at all" * 20)
    (tmp_path / "half").write_bytes(bytes(128) + b"DICM\x02\0\0\0UL\x04")
    found = find_series(tmp_path)
    told = {one.files[0].name: one.error for one in found.left_out}
    assert found.series == []
    for name, words in {
        "contours": "RT Structure Set Storage, and holds no image",
        "report": "Comprehensive SR Storage, and holds no image",
        "paper": "Encapsulated PDF Storage, and holds no image",
        "labels": "Segmentation Storage, a multi-frame file",
        "enhanced": "Enhanced MR Image Storage, a multi-frame file",
        "shot": "Secondary Capture Image Storage, and does not say where it lies",
        "scout": "is a localizer",
        "colour": "a colour image (RGB)",
        "palette": "a colour image (PALETTE COLOR)",
        "empty.dcm": "is empty",
        "text.DCM": "is no DICOM file",
        "half": "a damaged DICOM file",
    }.items():
        assert words in told.pop(name)
    assert told == {}  # a DICOMDIR only lists other files
