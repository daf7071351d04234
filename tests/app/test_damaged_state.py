"""Each state file damaged, one by one: the server starts, says which and what is lost, keeps it, and loses no label."""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from lib import app as app_module
from lib.app import Rep3DLabelApp
from lib.errors import RequestError, StartupError
from lib.models.served import ServedModel
from lib.training.cases import find_cases, split_cases
from monailabel.config import settings

from rep3d.errors import DamagedFileError
from tests.app.data import snapshot, write_nifti
from tests.app.old_studies import ANSWERS, OLD, old_studies

Start = Callable[[], Rep3DLabelApp]

MODEL = "rep3d/models/rep3d"
V2 = f"{MODEL}/versions/v2/version.json"
REPLACED = next(e for e in ANSWERS["/rep3d/cases/case_1/history"] if e["reason"] == "replaced")["entry"]
ENTRY = f"rep3d/history/case_1/{REPLACED}.json"

# File, words of what is lost.
FILES = {
    "datastore_v2.json": "who submitted which label",
    "rep3d/labels.json": "which voxel value stands for which label name",
    "rep3d/leases.json": "who works on which image",
    "rep3d/reviews.json": "which labels were reviewed",
    "rep3d/auto_train.json": "how many labels came since the last training",
    "rep3d/label_facts.json": "nothing",
    "rep3d/dicom.json": "which DICOM series were taken in",
    "rep3d/predictions/case_1.json": "which version made the last prediction for image case_1",
    ENTRY: "author and origin of the earlier label",
    f"{MODEL}/roles.json": "which cases trained and which only measured",
    f"{MODEL}/train_status.json": "what the last training did",
    f"{MODEL}/run/run.json": "cannot be resumed",
    f"{MODEL}/scores.json": "the scores of images",
    f"{MODEL}/validation_scores.json": "what versions scored on single cases",
    f"{MODEL}/publications.json": "who published which version",
    V2: "what is known about version v2",
}
DAMAGES: dict[str, Callable[[bytes], bytes]] = {
    "cut": lambda content: content[: len(content) // 2],
    "no JSON": lambda content: b"\x00" * len(content),
    "type": lambda content: b"[3]",
    "empty": lambda content: b"",
}


@pytest.fixture
def studies(tmp_path: Path) -> Path:
    return old_studies(tmp_path / "studies")


@pytest.fixture
def start(studies: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """Build the app as a server does that starts, with no setting but the device."""
    monkeypatch.setattr(app_module, "server_is_starting", lambda: True)
    monkeypatch.setattr(app_module, "check_port", lambda *_: None)
    monkeypatch.setattr(app_module, "hold_folder", lambda _: None)
    monkeypatch.setattr(app_module, "make_incoming_folder", lambda: None)
    monkeypatch.setattr(ServedModel, "load", lambda _: None)  # the network is not asked, and takes seconds
    monkeypatch.setattr(settings, "MONAI_LABEL_DATASTORE_AUTO_RELOAD", False)
    monkeypatch.setattr(settings, "MONAI_LABEL_SESSION_PATH", str(tmp_path / "sessions"))
    yield lambda: Rep3DLabelApp(str(app_module.__file__), str(studies), {"device": "cpu"})


def _damage(studies: Path, file: str, how: str) -> bytes:
    path = studies / file
    content = DAMAGES[how](path.read_bytes())
    path.write_bytes(content)
    return content


def _told(app: Rep3DLabelApp, file: str) -> dict[str, Any]:
    """Return what the status says of a damaged file; those of single images are looked through in the background."""
    deadline = time.monotonic() + 30
    while not (found := [one for one in app.dashboard.status()["damaged"] if one["file"] == file]):
        assert time.monotonic() < deadline
        time.sleep(0.02)
    (one,) = found
    return one


def _labels(folder: Path) -> dict[str, str]:
    return {file: digest for file, digest in snapshot(folder).items() if ".nii" in file}


def _known(app: Rep3DLabelApp) -> dict[str, dict[str, Any]]:
    """Return what is known of all cases whose labels have been read, by id."""
    return {case["id"]: app.case_book.case(case["id"]) for case in app.case_book.cases()}


@pytest.mark.parametrize("how", DAMAGES)
@pytest.mark.parametrize("file", FILES)
def test_the_server_starts_and_tells(
    studies: Path, start: Start, caplog: pytest.LogCaptureFixture, file: str, how: str
) -> None:
    content = _damage(studies, file, how)
    app = start()
    told = _told(app, file)
    assert FILES[file] in told["lost"]
    assert (studies / told["kept"]).read_bytes() == content
    for words in (str(studies / file), told["lost"], told["kept"]):
        assert words in caplog.text
    assert _labels(studies) == _labels(OLD / "studies")
    # What the labels say is as before, whatever was lost.
    assert dict(app.setup.labels) == {"head": 1, "tail": 3}
    before = {case["id"]: case for case in ANSWERS["/rep3d/cases"]}
    now = _known(app)
    assert {id_: case["labels"] for id_, case in now.items()} == {id_: case["labels"] for id_, case in before.items()}
    if file != "datastore_v2.json":
        assert [case["author"] for case in now.values()] == [case["author"] for case in before.values()]
    assert [case["role"] for case in now.values()] == [case["role"] for case in before.values()]
    for id_ in now:
        earlier = [entry["entry"] for entry in ANSWERS[f"/rep3d/cases/{id_}/history"] if entry["entry"]]
        assert [entry["entry"] for entry in app.case_book.history(id_) if entry["entry"]] == earlier
    versions = app.served["rep3d"].versions
    assert ([record.version for record in versions.list()], versions.published()) == (["v1", "v2"], "v2")


def test_told_until_the_kept_file_is_removed(studies: Path, start: Start) -> None:
    _damage(studies, "rep3d/leases.json", "cut")
    kept = studies / _told(start(), "rep3d/leases.json")["kept"]
    assert _told(start(), "rep3d/leases.json")["kept"] == kept.relative_to(studies).as_posix()


def test_facts_before_the_end_of_a_list_that_was_cut_off_are_kept(studies: Path, start: Start) -> None:
    _damage(studies, "datastore_v2.json", "cut")
    now = _known(start())
    before = {case["id"]: case for case in ANSWERS["/rep3d/cases"]}
    assert now.keys() == before.keys()
    kept = [id_ for id_ in now if now[id_]["author"] is not None]
    assert len(kept) >= 2
    assert all((now[id_]["author"], now[id_]["time"]) == (before[id_]["author"], before[id_]["time"]) for id_ in kept)


def test_an_earlier_label_whose_record_is_damaged_is_there_but_not_restored(studies: Path, start: Start) -> None:
    _damage(studies, ENTRY, "cut")
    app = start()
    (entry,) = [known for known in app.case_book.history("case_1") if known["entry"] == REPLACED]
    assert (entry["reason"], entry["author"], entry["tag"]) == ("unknown", None, "final")
    before = next(e for e in ANSWERS["/rep3d/cases/case_1/history"] if e["entry"] == REPLACED)
    assert entry["replaced"] == before["replaced"]
    file, _ = app.datastore().history.find("case_1", REPLACED)
    assert file.is_file()
    with pytest.raises(RequestError, match="may be a client's own"):
        app.datastore().restore_label("case_1", REPLACED, "anna")


def test_a_map_that_is_not_certain_is_not_made_up(studies: Path, start: Start) -> None:
    """A label of value 5 was drawn when a label was served that no version and no prediction names."""
    values = write_nifti(studies.parent / "five.nii.gz", _five(studies)).read_bytes()
    (studies / "labels" / "final" / "case_0.nii.gz").write_bytes(values)
    content = _damage(studies, "rep3d/labels.json", "cut")
    before = snapshot(studies)
    with pytest.raises(StartupError, match=r"labels\.json.*Put a copy of that file back"):
        start()
    assert snapshot(studies) == before
    assert (studies / "rep3d" / "labels.json").read_bytes() == content


def _five(studies: Path) -> np.ndarray:
    values = np.asanyarray(nib.load(studies / "labels" / "final" / "case_0.nii.gz").dataobj)
    return np.where(values == 1, 5, values).astype(np.uint8)


def test_roles_that_are_damaged_later_stop_the_training_only(studies: Path, start: Start) -> None:
    app = start()
    content = _damage(studies, f"{MODEL}/roles.json", "cut")
    assert {case["role"] for case in app.case_book.cases()} == {None}
    assert _told(app, f"{MODEL}/roles.json")["kept"] is None
    served = app.served["rep3d"]
    with pytest.raises(DamagedFileError, match=r"roles\.json"):
        split_cases(served.setup, served.versions, find_cases(served.setup, app.datastore()))
    assert (studies / MODEL / "roles.json").read_bytes() == content


def test_a_list_that_is_damaged_while_the_server_runs_is_written_again(studies: Path, start: Start) -> None:
    app = start()
    before = json.loads((studies / "datastore_v2.json").read_text())
    content = _damage(studies, "datastore_v2.json", "cut")
    app.datastore().refresh()
    told = _told(app, "datastore_v2.json")
    assert (studies / told["kept"]).read_bytes() == content
    assert json.loads((studies / "datastore_v2.json").read_text()) == before
