"""A patient's name, id, dates and UIDs in every place that DICOM and NIfTI files have for them, and a real server."""

from __future__ import annotations

import gzip
import io
import json
import os
import stat
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pydicom
import pytest
from dicomanonymizer.dicom_anonymization_databases import dicomfields_2026c as table
from nibabel.nifti1 import Nifti1Extension
from pydicom.dataset import Dataset
from pydicom.sequence import Sequence
from typer.testing import CliRunner

from rep3d.cli.main import app as commands
from rep3d.errors import ImageError
from rep3d.imaging.dicom import find_series
from rep3d.imaging.dicom.deidentify import METHOD, deidentify_file, deidentify_series
from rep3d.imaging.dicom.pseudonyms import Pseudonyms
from rep3d.imaging.nameless import copy_nameless
from tests.app.data import AFFINE, CONF, LABELS, SHAPE, publish_small_model, write_image
from tests.app.http.test_dicom_upload import pack
from tests.app.server import AppServer
from tests.rep3d.imaging.test_dicom import write_series

SECRET = "Zuckmayer"  # stands in each place that a file has for text
DATE, PLACE = "19640229", "1.2.826.77777"  # in each place for a date, and in front of each UID


def _fill(data: Dataset, depth: int = 0) -> None:
    """Put a patient into every attribute of the table that can have one, and where no table says so."""
    for tag in sorted({tag for tag in table.ALL_TAGS if len(tag) == 2 and tag[0] > 8}):
        if tag in data or not pydicom.datadict.dictionary_has_tag(tag):
            continue
        kind = pydicom.datadict.dictionary_VR(tag)
        if kind == "SQ" and depth < 2:
            item = Dataset()
            item.PatientName, item.ReferencedSOPInstanceUID = SECRET, f"{PLACE}.9"
            item.add_new(0x00091001, "LO", SECRET)
            data.add_new(tag, kind, Sequence([item]))
        elif kind in ("LO", "SH", "ST", "LT", "UT", "PN", "AE", "UC"):
            data.add_new(tag, kind, SECRET)
        elif kind in ("DA", "DT"):
            data.add_new(tag, kind, DATE)
        elif kind == "UI":
            data.add_new(tag, kind, f"{PLACE}.{tag[1]}")
        elif kind in ("OB", "UN"):
            data.add_new(tag, kind, SECRET.encode() + b"\0")


def fill(data: Dataset, number: int) -> None:
    """Put a patient into all of a slice."""
    data.PatientName, data.PatientID, data.PatientBirthDate = f"{SECRET}^Anna", f"{SECRET}-1", DATE
    data.SeriesDescription, data.StudyDate = f"CT {SECRET}", DATE
    data.StudyInstanceUID, data.FrameOfReferenceUID = f"{PLACE}.1", f"{PLACE}.2"
    data.SOPInstanceUID = data.file_meta.MediaStorageSOPInstanceUID = f"{PLACE}.3.{number}"
    _fill(data)
    data.add_new(0x00090010, "LO", "GEMS")
    data.add_new(0x00091001, "LO", SECRET)
    data.add_new(0x60003000, "OW", SECRET.encode() + b"\0")
    data.add_new(0x60004000, "LT", SECRET)
    data.add_new(0x50003000, "OW", SECRET.encode() + b"\0")
    data.add_new(0x00089998, "LO", SECRET)  # in no dictionary
    kept = Dataset()  # a sequence that the table does not name
    kept.PatientID, kept.StudyInstanceUID, kept.CodeMeaning = SECRET, f"{PLACE}.8", "Abdomen"
    data.AnatomicRegionSequence = Sequence([kept])
    data.ImagePositionPatient = ["-10.1234567890123456789", "20.0", str(30 + 2.5 * number)]  # longer than allowed
    data.preamble = SECRET.encode().ljust(128, b"\0")


def names_patient(content: bytes) -> list[str]:
    """Return what of the patient stands in some bytes."""
    return [word for word in (SECRET, DATE, PLACE) if word.encode() in content]


def all_told(server: AppServer) -> bytes:
    """Return all that a server has written and says, but for what leads back and the hospital's own files."""
    own = {server.studies / "Zuckmayer", server.studies / "rep3d" / "identities.jsonl"}
    files = [file for file in server.studies.rglob("*") if file.is_file() and not own & {file, *file.parents}]
    unpacked = [gzip.decompress(file.read_bytes()) if file.suffix == ".gz" else file.read_bytes() for file in files]
    names = "\n".join(str(file.relative_to(server.studies)) for file in files).encode()
    answers = [
        server.get(path).content for path in ("/rep3d/status", "/rep3d/cases", "/datastore/?output=all", "/info/")
    ]
    return b"\n".join([*unpacked, names, *answers, server.log.encode()])


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server in whose folder a hospital's own series lie: a good one, one with a gap, and a damaged file."""
    studies = tmp_path_factory.mktemp("studies")
    write_image(studies / "case_0.nii.gz")
    publish_small_model(studies)
    write_series(studies / SECRET / "good", fill, f"{PLACE}.5")
    (write_series(studies / SECRET / "gap", fill, f"{PLACE}.6") / "94.dcm").unlink()
    (studies / SECRET / f"{SECRET}.dcm").write_bytes(bytes(128) + b"DICM" + b"\2\0\0\0UL\4")
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as running:
        yield running


def test_no_patient_in_names_logs_answers_and_files(server: AppServer, tmp_path: Path) -> None:
    (own,) = [case["id"] for case in server.get("/rep3d/cases").json() if case["id"] != "case_0"]
    folder = write_series(
        tmp_path / SECRET, lambda data, n: (fill(data, n), setattr(data, "BurnedInAnnotation", "YES"))
    )
    told = server.put("/rep3d/dicom", files={"file": (f"{SECRET}.zip", pack(folder))}).json()
    (image,) = told["images"]
    assert (told["failed"], told["warnings"][0]["image"]) == ([], image) and "burnt" in told["warnings"][0]["reason"]
    assert image.rpartition("-")[0] == own.rpartition("-")[0]  # one patient
    assert server.get("/rep3d/status").json()["warnings"][0]["id"] == image
    # The same series as the hospital's own: it is known, so that nobody labels it twice.
    again = server.put("/rep3d/dicom", files={"file": ("a.zip", pack(server.studies / SECRET / "good"))}).json()
    assert [one["image"] for one in again["known"]] == [own] and again["folder"] is None
    listed = server.get("/rep3d/status").json()["passed_over"]["groups"]
    codes = [file for group in listed for file in group["files"]]
    assert len(codes) == 2 and all(code.startswith("DICOM-") for code in codes)
    assert "rep3d dicom-map" in json.dumps(listed)
    for case in (own, image):
        assert server.get(f"/rep3d/cases/{case}/thumbnail.png").ok
    assert names_patient(all_told(server)) == []

    # Voxels and places are those of the files.
    values = [np.asanyarray(nib.load(server.studies / f"{case}.nii.gz").dataobj) for case in (own, image)]
    assert np.array_equal(*values) and values[0][3, 2, 4] == 400 + 20 + 3 - 1024
    # Only the server's user may read what leads back, and who may finds the patient.
    for name in ("identities.key", "identities.jsonl"):
        assert os.name == "nt" or stat.S_IMODE((server.studies / "rep3d" / name).stat().st_mode) == 0o600
    new = pydicom.dcmread(next((server.studies / told["folder"]).glob("*.dcm")), stop_before_pixels=True)
    for word in (image, new.PatientID, new.SeriesInstanceUID, new.SOPInstanceUID, told["folder"]):
        found = CliRunner().invoke(commands, ["dicom-map", word, "--studies", str(server.studies)])
        assert found.exit_code == 0 and f"{SECRET}^Anna" in found.stdout and f"{PLACE}.3." in found.stdout, word
    place = CliRunner().invoke(commands, ["dicom-map", codes[0], "--studies", str(server.studies)])
    assert SECRET in place.stdout
    assert CliRunner().invoke(commands, ["dicom-map", "1.2", "--studies", str(server.studies)]).exit_code != 0


def test_no_patient_in_a_dicom_segmentation(server: AppServer, tmp_path: Path) -> None:
    """It refers to the codes of the files, whether they were sent or are the hospital's own."""
    pytest.importorskip("highdicom")
    sent = write_series(tmp_path / "sent", fill, f"{PLACE}.7")
    (uploaded,) = server.put("/rep3d/dicom", files={"file": ("a.zip", pack(sent))}).json()["images"]
    cases = [case["id"] for case in server.get("/rep3d/cases").json()]
    own_code = f"{int(Pseudonyms(server.studies / 'rep3d').code('uid', f'{PLACE}.5'), 16):032x}"[:8]
    (own,) = [case for case in cases if case.endswith(own_code)]
    for image, series in ((own, f"{PLACE}.5"), (uploaded, f"{PLACE}.7")):
        answer = server.post("/infer/rep3d", params={"image": image, "output": "dicom_seg"})
        assert answer.status_code == 200 and answer.headers["content-type"] == "application/dicom", answer.text
        assert names_patient(answer.content) == []
        data = pydicom.dcmread(io.BytesIO(answer.content))
        assert data.PatientIdentityRemoved == "YES" and data.PatientID == data.PatientName == image.split("-")[1]
        assert [segment.SegmentLabel for segment in data.SegmentSequence] == sorted(LABELS, key=LABELS.get)
        label = server.post("/infer/rep3d", params={"image": image, "output": "image"}).content
        (tmp_path / "label.nii.gz").write_bytes(label)
        values = np.asanyarray(nib.load(tmp_path / "label.nii.gz").dataobj)
        assert data.pixel_array.sum() == np.count_nonzero(values) > 0
        referenced = data.ReferencedSeriesSequence[0]
        found = CliRunner().invoke(
            commands, ["dicom-map", referenced.SeriesInstanceUID, "--studies", str(server.studies)]
        )
        assert series in found.stdout and SECRET in found.stdout
    assert names_patient(all_told(server)) == []
    refused = server.post("/infer/rep3d", params={"image": "case_0", "output": "dicom_seg"})
    assert refused.status_code == 422 and "came as DICOM" in refused.json()["detail"]


@pytest.mark.parametrize("patient", [f"{SECRET}^A", "0123456789ab"])
def test_a_file_that_only_says_that_this_was_done_to_it(server: AppServer, tmp_path: Path, patient: str) -> None:
    def pretend(data: Dataset, number: int) -> None:
        data.PatientName = data.PatientID = patient
        data.DeidentificationMethod, data.PatientIdentityRemoved = METHOD, "YES"
        data.PatientComments = data.ProtocolName = SECRET
        data.add_new(0x00090010, "LO", SECRET)

    folder = write_series(tmp_path / "series", pretend, f"2.25.{len(patient)}")
    told = server.put("/rep3d/dicom", files={"file": ("a.zip", pack(folder))}).json()
    assert len(told["images"]) == 1, told
    assert names_patient(json.dumps(told).encode() + all_told(server)) == []


@pytest.mark.parametrize("suffix", [".nii", ".nii.gz"])
def test_nothing_but_an_image_is_kept_of_a_file(tmp_path: Path, suffix: str) -> None:
    """What stands behind the voxels goes, and so does the header of a second part of a packed file."""
    values = np.random.default_rng(0).integers(0, 900, SHAPE).astype(np.int16)
    nib.save(nib.Nifti1Image(values, AFFINE), tmp_path / "image.nii")
    plain = (tmp_path / "image.nii").read_bytes()
    second = io.BytesIO()
    with gzip.GzipFile(SECRET, "wb", fileobj=second) as packing:
        packing.write(plain[1000:])
    contents = [plain + SECRET.encode()]
    if suffix == ".nii.gz":
        contents = [gzip.compress(contents[0]), gzip.compress(plain[:1000]) + second.getvalue()]
    for content in contents:
        source, target = tmp_path / f"sent{suffix}", tmp_path / f"kept{suffix}"
        source.write_bytes(content)
        copy_nameless(source, target)
        raw = target.read_bytes()
        assert names_patient(raw) == []
        assert (gzip.decompress(raw) if suffix == ".nii.gz" else raw) == plain
    source.write_bytes(clean := gzip.compress(plain) if suffix == ".nii.gz" else plain)
    copy_nameless(source, target)
    assert target.read_bytes() == clean


def test_no_patient_in_what_nifti_headers_and_sessions_say(server: AppServer, tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    image = nib.Nifti1Image(rng.integers(0, 900, SHAPE).astype(np.int16), AFFINE)
    image.header["descrip"], image.header["db_name"], image.header["aux_file"] = SECRET, SECRET, SECRET
    image.header["intent_name"] = SECRET
    image.header.extensions.append(Nifti1Extension("comment", SECRET.encode()))
    image.header.set_slope_inter(2.0, -7.0)
    for suffix in (".nii", ".nii.gz"):
        file = tmp_path / f"{SECRET}{suffix}"
        nib.save(image, file)  # the header of gzip has the file's name
        with file.open("rb") as content:
            answer = server.put("/datastore/image", params={"image": f"sent{suffix[4:]}"}, files={"file": content})
        stored = server.studies / f"{answer.json()['image']}{suffix}"
        raw = stored.read_bytes()
        assert names_patient(raw + (gzip.decompress(raw) if suffix == ".nii.gz" else b"")) == []
        before, after = nib.load(file), nib.load(stored)
        assert np.array_equal(before.get_fdata(), after.get_fdata()) and np.array_equal(before.affine, after.affine)
        keep = ("dim", "pixdim", "qform_code", "sform_code", "scl_slope", "xyzt_units", "vox_offset")
        assert all(np.array_equal(before.header[field], after.header[field], equal_nan=True) for field in keep)
    name = f"{SECRET}.nii.gz"
    sent = server.put("/session/", files={"files": (name, (tmp_path / name).read_bytes())})
    (kept,) = (server.log_file.parent / "sessions" / sent.json()["session_id"]).glob("*.nii.gz")
    content = gzip.decompress(kept.read_bytes()) + str(kept).encode() + sent.content + server.log.encode()
    assert names_patient(content) == []


def test_refuse_and_off(tmp_path: Path) -> None:
    from lib.dicom.privacy import Privacy
    from lib.errors import RequestError

    names = Pseudonyms(tmp_path / "rep3d")
    folder = write_series(tmp_path / "named")
    with pytest.raises(RequestError, match="PatientName, PatientID.*Nothing was changed") as refused:
        Privacy("refuse", tmp_path, names).receive(folder, "named")
    assert "A^B" not in str(refused.value)
    anonymous = write_series(tmp_path / "anonymous", lambda data, n: setattr(data, "PatientIdentityRemoved", "YES"))
    before = {file: file.read_bytes() for file in (*anonymous.iterdir(), *folder.iterdir())}
    assert Privacy("refuse", tmp_path, names).receive(anonymous, "x") == ([], [])
    assert Privacy("off", tmp_path, names).receive(folder, "x") == ([], [])
    assert {file: file.read_bytes() for file in before} == before


def test_the_whole_profile_on_a_file(tmp_path: Path) -> None:
    names = Pseudonyms(tmp_path)
    original = write_series(tmp_path / "own", fill, f"{PLACE}.5")
    sent = write_series(tmp_path / "sent", fill, f"{PLACE}.5")
    notes = [deidentify_file(file, names) for file in sorted(sent.iterdir())]
    for file in sent.iterdir():
        assert names_patient(file.read_bytes()) == []
        data = pydicom.dcmread(file)
        assert not any(element.tag.is_private for element in data.iterall())
        assert (data.PatientIdentityRemoved, data.DeidentificationMethodCodeSequence[0].CodeValue) == ("YES", "113100")
        assert data.AnatomicRegionSequence[0].CodeMeaning == "Abdomen" and data.PatientBirthDate == ""
        assert data.PatientName == data.PatientID == notes[0]["patient"]
        assert data.file_meta.MediaStorageSOPInstanceUID == data.SOPInstanceUID
    with pytest.MonkeyPatch.context() as patch, pytest.raises(ImageError, match="no slice of a volume has so many"):
        patch.setattr("rep3d.imaging.dicom.files._LARGEST", 1000)
        deidentify_file(next(original.iterdir()), names)
    # The files that stay as they are, are told of as if it had been done to them.
    (told,), (done,) = (
        [deidentify_series(one, names) for one in find_series(place).series] for place in (original, sent)
    )
    assert (told.uid, told.fingerprint, str(told)) == (done.uid, done.fingerprint, str(done))
    assert deidentify_file(next(sent.iterdir()), names) is None  # once is enough
    assert Pseudonyms(tmp_path).uid("1.2.3") == names.uid("1.2.3") != Pseudonyms(tmp_path / "other").uid("1.2.3")
