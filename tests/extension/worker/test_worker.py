"""The helper process from the inside, and each of its operations against a real server with the app."""

from __future__ import annotations

import json
import sys
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
from Rep3DLabelLib.client.answers import Sample, SubmittedLabel
from Rep3DLabelLib.client.answers_train import TrainStatus
from Rep3DLabelLib.images.files import VolumeFile
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry, write
from Rep3DLabelLib.worker.jobs import JobError, Worker
from Rep3DLabelLib.worker.main import Answers, Crew
from Rep3DLabelLib.worker.ops import OPS

from tests.app.data import AFFINE, CONF, LABELS, publish_small_model, write_image, write_label
from tests.app.server import AppServer
from tests.rep3d.imaging.test_dicom import write_series

# ---- the crew


def crew(at_once: int = 2) -> tuple[Crew, list[str], dict[str, threading.Event]]:
    """Return a crew whose jobs, "lane:name", wait until a test lets them go; and the names of those that have begun."""
    begun: list[str] = []
    gates: dict[str, threading.Event] = {}

    def run(job: str) -> None:
        begun.append(job)
        gates.setdefault(job, threading.Event()).wait(5)

    return Crew(run, lambda job: job.partition(":")[0], at_once), begun, gates


def eventually(begun: list[str], *expected: str) -> bool:
    deadline = time.monotonic() + 2
    while sorted(begun) != sorted(expected) and time.monotonic() < deadline:
        time.sleep(0.005)
    time.sleep(0.05)
    return sorted(begun) == sorted(expected)


def let_go(gates: dict[str, threading.Event], *jobs: str) -> None:
    for job in jobs:
        gates.setdefault(job, threading.Event()).set()


def test_so_many_at_once() -> None:
    team, begun, gates = crew()
    for number, job in enumerate((":a", ":b", ":c")):
        team.add(number, job)
    assert eventually(begun, ":a", ":b")
    let_go(gates, ":b")
    assert eventually(begun, ":a", ":b", ":c")
    let_go(gates, ":a", ":c")


def test_a_lane_keeps_its_order_and_holds_up_nobody_else() -> None:
    team, begun, gates = crew()
    for number, job in enumerate(("w:a", "w:b", ":c", "w:d")):
        team.add(number, job)
    assert eventually(begun, "w:a", ":c")
    let_go(gates, "w:a")
    assert eventually(begun, "w:a", ":c", "w:b")
    let_go(gates, "w:b", ":c")
    assert eventually(begun, "w:a", ":c", "w:b", "w:d")
    let_go(gates, "w:d")


def test_a_cancelled_job_makes_room_unless_it_is_in_a_lane() -> None:
    team, begun, gates = crew(1)
    for number, job in enumerate((":a", ":b", "w:c", "w:d")):
        team.add(number, job)
    assert team.cancel(1) is None  # it waited: forgotten
    assert team.cancel(7) is None
    assert team.cancel(0) == ":a"
    assert eventually(begun, ":a", "w:c")
    assert team.cancel(2) == "w:c"
    assert eventually(begun, ":a", "w:c")
    let_go(gates, "w:c")
    assert eventually(begun, ":a", "w:c", "w:d")
    let_go(gates, "w:d", ":a")


# ---- the file of answers


def test_a_short_key_does_not_change_paths_and_names(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers")
    answers.keep_secret("case")
    answers.write({"id": 1, "done": {"id": "case_1", "image": "/data/case_1.nii.gz"}})
    answers.write({"id": 2, "failed": {"message": "the key case was refused", "status": None}})
    done, failed = map(json.loads, (tmp_path / "answers").read_text().splitlines())
    assert done["done"] == {"id": "case_1", "image": "/data/case_1.nii.gz"}
    assert failed["failed"] == {"message": "the key *** was refused", "status": None}


def test_answers_hide_secrets_and_go_on_in_another_file(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers-0.jsonl", limit=100)
    answers.keep_secret('s3c"ret')
    answers.keep_secret("")
    for number in range(8):
        answers.write({"id": number, "done": f'the key is s3c"ret, {number}'})
    lines = []
    name = "answers-0.jsonl"
    while name:
        events = [json.loads(line) for line in (tmp_path / name).read_text().splitlines()]
        name = events.pop()["next"] if "next" in events[-1] else ""
        lines += events
    assert [line["done"] for line in lines] == [f"the key is ***, {number}" for number in range(8)]
    assert len(list(tmp_path.iterdir())) > 2
    answers.remove()


def test_a_key_that_is_added_while_an_answer_is_looked_through_ends_nothing(tmp_path: Path) -> None:
    """Another thread takes a job with another key while an answer is written."""
    answers = Answers(tmp_path / "answers.jsonl")
    answers.keep_secret("first-of-the-keys")

    class Adding(str):
        """A text in which looking for a key adds another one."""

        def replace(self, *args: Any) -> str:
            answers.keep_secret(f"another-key-{len(answers._secrets)}")
            return str.replace(self, *args)

    assert answers.hide(Adding("it is first-of-the-keys")) == "it is ***"


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        answers.write({"id": 1, "done": float("nan")})
    answers.write({"id": 2, "done": None})
    assert (tmp_path / "answers.jsonl").read_text() == '{"id": 2, "done": null}\n'


def test_the_operations_of_the_contract_are_there() -> None:
    names = "test next_sample open_case infer measure submit upload_image upload_dicom train_start train_stop overview"
    names += " versions publish roll_back batch_start batch_stop cases history restore review release"
    assert set(names.split()) == set(OPS)
    assert {OPS[name].lane for name in ("submit", "train_start", "release")} == {"write"}
    assert {OPS[name].lane for name in ("train_stop", "batch_stop", "overview", "test")} == {""}


# ---- against the app


class Client:
    """Asks the worker and waits."""

    def __init__(self, worker: Worker, url: str) -> None:
        self.worker, self.url, self.told = worker, url, []

    def ask(self, op: str, user: str = "somebody", **args: Any) -> Any:
        ended: list[Any] = []
        server = {"url": self.url, "api_key": None, "verify": True, "client_id": user}
        self.told = []
        self.worker.submit(op, {"server": server, **args}, ended.append, ended.append, self.told.append)
        deadline = time.monotonic() + 120
        while not ended and time.monotonic() < deadline:
            self.worker.poll()
            time.sleep(0.01)
        return ended[0]

    def __call__(self, op: str, **args: Any) -> Any:
        value = self.ask(op, **args)
        assert not isinstance(value, JobError), value
        return value


@pytest.fixture(scope="module")
def studies(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("studies")
    for number in range(5):
        write_image(folder / f"case_{number}.nii.gz", number)
    write_label(folder / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(folder)
    return folder


@pytest.fixture(scope="module")
def app(studies: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as running:
        yield running


@pytest.fixture(scope="module")
def call(app: AppServer, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Client]:
    worker = Worker(tmp_path_factory.mktemp("helper"), sys.executable)
    yield Client(worker, app.url)
    worker.close()


def test_what_the_server_is(call: Client) -> None:
    report = call("test")
    assert (report.state, report.url) == ("ready", call.url)
    labels = report.info.labels_of(report.info.default_model)
    assert {label.name: label.value for label in labels} == LABELS == report.info.labels
    assert all(len(label.colour) == 3 for label in labels)
    model = report.info.models["rep3d"]
    assert model.trainable and model.version == "v1" and model.error == ""
    assert report.info.device_name == "CPU" and report.info.total == 5 and "hybrid" in report.info.strategies


def draft(path: Path, volume: VolumeFile, seed: int) -> np.ndarray:
    """Return a draft with a random head and tail and a segment that is none of the labels, on the grid of a volume."""
    shape = volume.shape
    rng = np.random.default_rng(seed)
    layer = np.zeros(shape[::-1], np.uint8)
    layer[4:14, 3:15, 5:20] = rng.integers(0, 3, (10, 12, 15))
    own = np.zeros_like(layer)
    own[6:9, 6:9, 6:9] = 1
    segments = (
        SegmentEntry("rep3d_1", "head", (1, 0, 0), 0, 2),  # the value in Slicer is not that on the server
        SegmentEntry("rep3d_3", "tail", (0, 1, 0), 0, 1),
        SegmentEntry("mine", "mine", (0, 0, 1), 1, 1),
    )
    ends = [number for length in shape for number in (0, length - 1)]
    write(path, SegmentationData((layer, own), tuple(ends), tuple(shape), np.array(volume.ijk_to_ras), segments))
    return np.where(layer == 2, 1, np.where(layer == 1, 3, 0)).astype(np.uint8)


def test_a_case_from_the_first_question_to_the_submitted_label(call: Client, studies: Path, tmp_path: Path) -> None:
    fetched = call("next_sample", strategy="first", folder=str(tmp_path))
    sample, volume = fetched.sample, fetched.volume
    assert sample.id == "case_1" and sample.strategy == "first" and sample.leased_until and fetched.label is None
    assert [told["stage"] for told in call.told][0] == "asking"
    image = nib.load(studies / "case_1.nii.gz")
    voxels = np.load(volume.voxels)
    assert np.array_equal(voxels, np.asarray(image.dataobj).transpose(2, 1, 0)[::-1])  # it is left-handed
    assert np.linalg.det(image.affine) < 0 < np.linalg.det(np.array(volume.ijk_to_ras))
    assert np.array_equal(volume.affine, image.affine)

    found = call("infer", image_id="case_1", model="rep3d", views=2, uncertainty=True, folder=str(tmp_path))
    assert found.facts.labels == LABELS == found.label.values and found.label.shape == volume.shape
    assert found.label.ijk_to_ras == volume.ijk_to_ras == found.uncertainty.ijk_to_ras
    assert sum(found.label.counts.values()) > 0 and found.uncertainty.shape == volume.shape
    assert 1 <= len(found.peaks) <= 5 and found.peaks[0].value > 0

    label = draft(tmp_path / "draft.seg.nrrd", volume, 1)
    asked = {
        "draft": str(tmp_path / "draft.seg.nrrd"),
        "values": {"rep3d_1": 1, "rep3d_3": 3},
        "priority": ["rep3d_3", "rep3d_1"],
        "shape": volume.shape,
        "affine": volume.affine,
    }
    measured = call("measure", **asked)
    assert measured.counts == {1: int((label == 1).sum()), 3: int((label == 3).sum())}
    assert (measured.overlaps, measured.outside) == ((), 0)
    assert measured.voxel_ml == pytest.approx(abs(np.linalg.det(image.affine)) / 1000)
    overlapping = call("measure", **{**asked, "values": {"rep3d_1": 1, "mine": 3}})
    assert [(one.first, one.second) for one in overlapping.overlaps] == [("rep3d_1", "mine")]

    assert call("submit", image_id="case_1", params={}, **asked) == SubmittedLabel("case_1")
    assert call("submit", image_id="case_1", params={}, **asked).duplicate
    stored = nib.load(studies / "labels" / "final" / "case_1.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj).transpose(2, 1, 0)[::-1], label)
    assert np.array_equal(stored.affine, image.affine)

    again = call("open_case", image_id="case_1", folder=str(tmp_path), label="final")
    full = np.zeros_like(label)
    i0, i1, j0, j1, k0, k1 = again.label.extent
    full[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = np.load(again.label.voxels)
    assert np.array_equal(full, label) and again.sample.leased_until
    assert again.label.counts == {"head": measured.counts[1], "tail": measured.counts[3]}
    refused = call.ask("open_case", user="somebody else", image_id="case_1", folder=str(tmp_path))
    assert refused.kind == "ConflictError" and refused.status == 409
    assert call("release", image_id="case_1") is True and call("release", image_id="case_1") is False

    label = draft(tmp_path / "draft.seg.nrrd", volume, 2)
    call("submit", image_id="case_1", params={}, **asked)
    entries = call("history", image_id="case_1")
    assert len(entries) == 2 and entries[0].entry is None
    call("restore", image_id="case_1", entry=entries[1].entry)
    stored = nib.load(studies / "labels" / "final" / "case_1.nii.gz")
    assert int((np.asarray(stored.dataobj) == 1).sum()) == measured.counts[1]
    assert call("review", image_id="case_1", done=True).state == "reviewed"
    assert call("review", image_id="case_1", done=False).state == "submitted"
    left = [path.name for path in (*tmp_path.iterdir(), *call.worker.log.parent.iterdir())]
    assert not [name for name in left if name.endswith((".raw", ".body", ".part"))], left


def test_a_label_of_another_grid_is_refused_before_it_is_sent(call: Client, tmp_path: Path) -> None:
    grid = tuple(map(tuple, np.diag([1.0, 1.0, 1.3, 1.0]).tolist()))
    draft(tmp_path / "draft.seg.nrrd", VolumeFile("", (24, 20, 18), grid, 0.0, 1.0, grid), 1)
    asked = {"draft": str(tmp_path / "draft.seg.nrrd"), "values": {"rep3d_1": 1}, "priority": []}
    error = call.ask("measure", **asked, shape=[24, 20, 18], affine=AFFINE.tolist())
    assert error.kind == "BadAnswer" and "does not lie on the voxels of the image" in error.message


def test_an_image_of_the_scene_is_uploaded(call: Client, studies: Path, tmp_path: Path) -> None:
    original = np.array(nib.load(write_image(tmp_path / "a.nii.gz", 8)).dataobj)
    np.save(tmp_path / "voxels.npy", original.transpose(2, 1, 0))
    affine = np.diag([1.0, 1.0, 1.2, 1.0])
    sent = call(
        "upload_image", voxels=str(tmp_path / "voxels.npy"), ijk_to_ras=affine.tolist(), image_id="from_the_scene"
    )
    assert sent == Sample("from_the_scene", "from_the_scene")
    stored = nib.load(studies / "from_the_scene.nii.gz")
    assert np.array_equal(stored.dataobj, original) and np.allclose(stored.affine, affine)
    again = call("open_case", image_id="from_the_scene", folder=str(tmp_path), label="final")
    assert np.array_equal(np.load(again.volume.voxels), original.transpose(2, 1, 0)) and again.label is None
    call("release", image_id="from_the_scene")


def test_errors_of_the_server_come_in_words(call: Client, tmp_path: Path) -> None:
    error = call.ask("next_sample", strategy="no such", folder=str(tmp_path))
    assert error.kind == "NotFoundError" and error.status == 404
    error = call.ask("open_case", image_id="no such", folder=str(tmp_path))
    assert error.kind == "NotFoundError"
    error = call.ask("publish", model="rep3d", version="v99", reason="")
    assert error.kind == "NotFoundError"


def test_models_versions_training_and_batch(call: Client) -> None:
    (version,) = call("versions", model="rep3d")
    assert version.version == "v1" and version.published
    assert call("overview", model="rep3d").train == TrainStatus("idle")
    assert call("train_start", model="rep3d", settings={"iterations": 2, "score_minutes": 0}).is_active
    deadline = time.monotonic() + 120
    while (view := call("overview", model="rep3d")).train.is_active and time.monotonic() < deadline:
        time.sleep(0.3)
    assert view.train.state == "done", view.train
    assert view.train.version_made == "v2" and view.train.progress == 1.0 and view.train.losses
    assert view.state.batch.phase == "never" and view.state.total >= 5 and view.state.versions_stamp
    assert call("train_stop") is False
    back = "v1" if view.state.version == "v2" else "v2"
    assert call("publish", model="rep3d", version=back, reason="a test").version == back
    assert call("roll_back", model="rep3d", reason="a test").version == view.state.version
    cases = {case.id: case for case in call("cases", model="rep3d")}
    assert cases["case_0"].state == "submitted" and cases["case_0"].role == "training"
    assert call("batch_start", model="rep3d", views=1).phase in ("running", "done")
    while call("overview", model="rep3d").state.batch.is_active and time.monotonic() < deadline:
        time.sleep(0.3)
    batch = call("batch_stop", model="rep3d")
    assert batch.phase == "done" and batch.progress == 1.0 and batch.failed == {}


def test_dicom_files_are_packed_under_neutral_names_and_sent(call: Client, tmp_path: Path) -> None:
    for file in write_series(tmp_path / "DOE^JANE" / "series", uid="1.2.3.99").iterdir():
        file.with_suffix("").write_bytes(file.read_bytes()[132:])  # as old scanners wrote them, without the mark
        file.unlink()
    # Another person under the same UID: the folders are what tells them apart.
    write_series(tmp_path / "DOE^JANE" / "other", lambda data, n: setattr(data, "PixelData", bytes(40)), "1.2.3.99")
    (tmp_path / "DOE^JANE" / "notes.txt").write_text("nothing")
    came = call("upload_dicom", folder=str(tmp_path / "DOE^JANE"))
    assert len(came.images) == 2 and came.failed == (), came
    assert {told["stage"] for told in call.told} >= {"packing", "sending"}
    opened = [call("open_case", image_id=image, folder=str(tmp_path), label=None) for image in came.images]
    assert [one.volume.shape for one in opened] == [(5, 4, 6)] * 2
    assert {int(np.load(one.volume.voxels).max()) for one in opened} == {-1024, 534 - 1024}
    assert not list(call.worker.log.parent.glob("*.zip"))
    (tmp_path / "empty").mkdir()
    error = call.ask("upload_dicom", folder=str(tmp_path / "empty"))
    assert error.kind == "LocalProblem" and "DICOM files" in error.message


def test_a_start_is_quick(tmp_path: Path) -> None:
    """On a slow computer Slicer's Python starts in a second; the module must not make it several."""
    call, start = Client(Worker(tmp_path, sys.executable), "http://127.0.0.1:9"), time.monotonic()
    call.ask("cases")
    assert time.monotonic() - start < 5  # 0.3 s on a computer that does nothing else
    call.worker.close()
