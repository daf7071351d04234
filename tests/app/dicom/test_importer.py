"""Taking DICOM series into a studies folder: each once, whatever shares its UID; what is left out is named."""

from __future__ import annotations

import errno
import shutil
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from lib.dicom import importer
from lib.dicom.importer import DicomImport
from lib.dicom.privacy import Privacy
from pydicom.dataset import Dataset

from rep3d.imaging.dicom import convert_series
from rep3d.imaging.dicom.pseudonyms import Pseudonyms
from tests.rep3d.imaging.test_dicom import write_series


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    (tmp_path / "studies" / "rep3d").mkdir(parents=True)
    return tmp_path / "studies"


def dicom(studies: Path, mode: str = "off") -> DicomImport:
    return DicomImport(studies, studies / "rep3d" / "dicom.json", Privacy(mode, studies, Pseudonyms(studies / "rep3d")))


def take(studies: Path, mode: str = "off") -> dict:
    return dicom(studies, mode).run()


def test_two_patients_under_one_uid_are_two_images(studies: Path) -> None:
    write_series(studies / "patient1")
    assert list(take(studies)["imported"]) == ["patient1_Abdomen"]
    write_series(studies / "patient2", lambda data, n: setattr(data, "PatientID", "2"))
    write_series(studies / "nameless", lambda data, n: setattr(data, "ImagePositionPatient", [7, 0, 2.5 * n]))
    found = take(studies)
    assert (sorted(found["imported"]), found["failed"]) == (["nameless_Abdomen", "patient2_Abdomen"], {})
    shutil.move(studies / "patient2", studies / "moved")  # it is the same series wherever it lies
    again = take(studies)
    assert (again["imported"], again["failed"], again["known"]) == ({}, {}, 3)


def test_files_at_the_top_and_files_that_are_left_out(studies: Path) -> None:
    write_series(studies)
    write_series(studies / "patient", uid="1.2.9")
    (studies / "patient" / "half.dcm").write_bytes(bytes(128) + b"DICM\x02\0\0\0UL\x04")
    write_series(studies / "labels", uid="1.2.10")  # folders of ours hold other things
    found = take(studies)
    assert sorted(found["imported"]) == ["Abdomen", "patient_Abdomen"]
    assert list(found["failed"]) == ["patient/half.dcm"]
    (told,) = dicom(studies).passed_over()
    assert (told.file, told.remedy) == ("patient/half.dcm", "Export it again.") and "half.dcm is" in told.reason


def test_links_out_of_the_folder_are_left_out_and_not_opened(studies: Path, tmp_path: Path) -> None:
    away = write_series(tmp_path / "away", uid="1.2.9")
    write_series(studies / "patient")
    (studies / "patient" / "LINK").symlink_to(min(away.iterdir()))
    (studies / "patient" / "scan.nii.gz").symlink_to(min(away.iterdir()))  # not this module's to tell
    (studies / "patient" / "within.dcm").symlink_to(min((studies / "patient").glob("*.dcm")))
    found = take(studies)
    assert list(found["imported"]) == ["patient_Abdomen"] and list(found["failed"]) == ["patient/LINK"]
    assert "a link that leads out" in found["failed"]["patient/LINK"]["error"]


def test_a_series_that_grew_is_named_and_its_image_stays(studies: Path) -> None:
    folder = write_series(studies / "patient")
    last = (folder / "92.dcm").read_bytes()
    (folder / "92.dcm").unlink()
    take(studies)
    before = (studies / "patient_Abdomen.nii.gz").read_bytes()
    (folder / "92.dcm").write_bytes(last)
    found = take(studies)
    assert found["imported"] == {} and (studies / "patient_Abdomen.nii.gz").read_bytes() == before
    (told,) = found["failed"].values()
    assert "image patient_Abdomen was made of it when it had other files" in told["error"]
    folder.rename(studies / "whole")  # what the message says to do
    assert list(take(studies)["imported"]) == ["whole_Abdomen"]


@pytest.mark.parametrize("mode", ["on", "off"])
def test_what_an_earlier_version_took_in_is_known(studies: Path, mode: str) -> None:
    write_series(studies / "patient")
    (studies / "rep3d" / "dicom.json").write_text(
        '{"imported": {"1.2.3.4": {"image": "old", "source": "patient", "time": "2026-01-01"}}, "failed": {}}'
    )
    found = take(studies, mode)
    assert (found["imported"], found["failed"], found["known"]) == ({}, {}, 1)


@pytest.mark.parametrize(
    "error", [ValueError("odd"), RecursionError(), MemoryError(), OSError(errno.ENOSPC, "No space")]
)
def test_whatever_befalls_one_series_the_others_come_in(
    studies: Path, monkeypatch: pytest.MonkeyPatch, error: Exception
) -> None:
    write_series(studies / "good")
    write_series(studies / "bad", uid="1.2.9")
    real = importer.convert_series

    def convert(series: importer.DicomSeries, output: Path) -> None:
        if series.uid == "1.2.9":
            output.write_bytes(b"half of it")
            raise error
        real(series, output)

    monkeypatch.setattr(importer, "convert_series", convert)
    found = take(studies)
    assert list(found["imported"]) == ["good_Abdomen"] and found["failed"]["1.2.9"]["error"]
    assert ("disk is full" in found["failed"]["1.2.9"]["error"]) == isinstance(error, OSError)
    assert [file.name for file in (studies / "rep3d").iterdir()] == ["dicom.json"]


def test_echoes_of_one_uid_are_images_each(studies: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        data.EchoTime, data.PatientName = "80", "Miller^John"

    write_series(studies / "mr")
    for file in write_series(studies / "second", change).iterdir():
        data = pydicom.dcmread(file)
        data.PixelData = np.full(20, 7).astype("<i2").tobytes()
        data.save_as(studies / "mr" / f"b{file.name}")
    shutil.rmtree(studies / "second")
    found = take(studies)
    assert sorted(found["imported"]) == ["mr_Abdomen", "mr_Abdomen_2"] and "Miller" not in str(found)
    means = {nib.load(studies / f"{image}.nii.gz").get_fdata().mean() for image in found["imported"]}
    assert len(means) == 2 and 7 - 1024 in means
    assert take(studies) == {"imported": {}, "failed": {}, "known": 2}


def test_what_was_taken_in_by_name_is_known_by_code_and_still_told_when_it_grew(studies: Path) -> None:
    folder = write_series(studies / "Miller")
    last = (folder / "92.dcm").read_bytes()
    (folder / "92.dcm").unlink()
    assert list(take(studies)["imported"]) == ["Miller_Abdomen"]
    again = take(studies, "on")
    assert (again["imported"], again["failed"], again["known"]) == ({}, {}, 1)
    (folder / "92.dcm").write_bytes(last)
    (told,) = take(studies, "on")["failed"].values()
    assert "made of it when it had other files" in told["error"] and told["source"].startswith("DICOM-")
    assert list(studies.glob("*.nii.gz")) == [studies / "Miller_Abdomen.nii.gz"]


def test_two_series_of_one_patient_and_a_damaged_key(studies: Path) -> None:
    write_series(studies / "a")
    write_series(studies / "b", uid="1.2.9")
    one, other = take(studies, "on")["imported"]
    assert one.split("-")[:2] == other.split("-")[:2] and one != other
    key = studies / "rep3d" / "identities.key"
    before = key.read_bytes()
    key.write_bytes(before[:20])
    (told,) = take(studies, "on")["failed"].values()  # and the server starts
    assert told["source"] == "identities.key" and "backup" in told["error"] and key.read_bytes() == before[:20]
    key.write_bytes(before)
    assert take(studies, "on") == {"imported": {}, "failed": {}, "known": 2}


def test_the_way_back_outlives_a_line_that_was_cut(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path)
    records = [
        {"series": f"2.25.{n}", "patient": "p", "image": f"CT-p-{n}", "uids": {f"2.25.{n}": "1.2"}} for n in (1, 2)
    ]
    names.note(records[:1])
    with (tmp_path / "identities.jsonl").open("ab") as file:
        file.write(b'{"series": "2.25.2", "uid')
    names.note(records)  # the first is there
    assert names.find("p") == records[::-1] and names.find("CT-p-2_2") == records[1:]
    assert len((tmp_path / "identities.jsonl").read_bytes().splitlines()) == 3


@pytest.mark.parametrize("mode", ["on", "off"])
def test_an_image_leads_back_to_its_series_wherever_that_lies_now(studies: Path, mode: str) -> None:
    for name in ("one", "two"):  # under one UID
        write_series(studies / name, lambda data, n, name=name: setattr(data, "PatientID", name))
    images = take(studies, mode)["imported"]
    found = {image: dicom(studies, mode).series_of(image) for image in images}
    assert {series.folder.name for series in found.values()} == {"one", "two"}
    for image, series in found.items():
        values = np.asanyarray(nib.load(studies / f"{image}.nii.gz").dataobj)
        convert_series(series, studies / "rep3d" / "again.nii.gz")
        np.testing.assert_array_equal(values, np.asanyarray(nib.load(studies / "rep3d" / "again.nii.gz").dataobj))
    shutil.move(studies / "one", studies / "moved")
    assert {dicom(studies, mode).series_of(image).folder.name for image in images} == {"moved", "two"}
    shutil.rmtree(studies / "moved")
    assert [dicom(studies, mode).series_of(image) is None for image in images].count(True) == 1
    assert dicom(studies, mode).series_of("case_1") is None
