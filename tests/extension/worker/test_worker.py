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
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry, write
from Rep3DLabelLib.worker.jobs import JobError, Worker
from Rep3DLabelLib.worker.main import Answers, Crew
from Rep3DLabelLib.worker.ops import OPS

from tests.app.data import CONF, LABELS, publish_small_model, write_image, write_label
from tests.app.server import AppServer
from tests.rep3d.imaging.test_dicom import write_series

# ---- the crew


def crew(at_once: int = 2) -> tuple[Crew, list[str], dict[str, threading.Event]]:
    """A crew whose jobs, "lane:name", wait until a test lets them go; and the names of those that have begun."""
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


def test_what_is_no_json_is_not_written(tmp_path: Path) -> None:
    answers = Answers(tmp_path / "answers.jsonl")
    with pytest.raises(ValueError, match="JSON"):
        answers.write({"id": 1, "done": float("nan")})
    answers.write({"id": 2, "done": None})
    assert (tmp_path / "answers.jsonl").read_text() == '{"id": 2, "done": null}\n'


def test_the_operations_of_the_contract_are_there() -> None:
    names = "test next_sample open_case read_image write_image infer measure compose submit upload_image upload_dicom"
    names += " train_start train_status train_stop overview versions publish roll_back batch_start batch_status"
    names += " batch_stop cases history restore review release take cancel"
    assert set(names.split()) == set(OPS)
    assert {OPS[name].lane for name in ("submit", "train_start", "release")} == {"write"}
    assert {OPS[name].lane for name in ("train_stop", "batch_stop", "cancel", "overview", "test")} == {""}


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
    assert report["state"] == "ready" and report["url"] == call.url
    info = report["info"]
    model = info["models"][info["default_model"]]
    assert model["labels"] == LABELS and info["labels"] == LABELS
    assert [(entry["name"], entry["value"]) for entry in model["entries"]] == [("head", 1), ("tail", 3)]
    assert all(len(entry["colour"]) == 3 for entry in model["entries"])
    assert model["trainable"] and model["version"] == "v1" and model["error"] == ""
    assert info["device_name"] == "CPU" and info["total"] == 5 and "hybrid" in info["strategies"]


def draft(path: Path, volume: dict[str, Any], seed: int) -> np.ndarray:
    """A draft with a random head and tail and a segment that is none of the labels, on the grid of a volume."""
    shape = volume["shape"]
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
    write(path, SegmentationData((layer, own), tuple(ends), tuple(shape), np.array(volume["ijk_to_ras"]), segments))
    return np.where(layer == 2, 1, np.where(layer == 1, 3, 0)).astype(np.uint8)


def test_a_case_from_the_first_question_to_the_submitted_label(call: Client, studies: Path, tmp_path: Path) -> None:
    sample = call("next_sample", strategy="first", folder=str(tmp_path))
    assert sample["id"] == "case_1" and sample["strategy"] == "first" and sample["leased_until"]
    assert [told["stage"] for told in call.told][0] == "asking"
    image = nib.load(studies / "case_1.nii.gz")
    voxels = np.load(sample["volume"]["voxels"])
    assert np.array_equal(voxels, np.asarray(image.dataobj).transpose(2, 1, 0)[::-1])  # it is left-handed
    assert np.linalg.det(image.affine) < 0 < np.linalg.det(np.array(sample["volume"]["ijk_to_ras"]))

    found = call(
        "infer",
        image_id="case_1",
        image=sample["image"],
        model="rep3d",
        views=2,
        uncertainty=True,
        request_id="mine-1",
        folder=str(tmp_path),
    )
    assert found["params"]["label_names"] == LABELS and found["params"]["request_id"] == "mine-1"
    assert found["label"]["values"] == LABELS and found["label"]["shape"] == sample["volume"]["shape"]
    assert found["label"]["ijk_to_ras"] == sample["volume"]["ijk_to_ras"]
    counts = found["label"]["counts"]
    volumes = found["params"]["volumes_ml"]
    assert all(counts[name] * 1.2 / 1000 * 1.01 == pytest.approx(volumes[name], abs=1e-3) for name in LABELS)
    assert found["uncertainty"]["shape"] == sample["volume"]["shape"]
    assert np.allclose(found["uncertainty"]["ijk_to_ras"], sample["volume"]["ijk_to_ras"], atol=1e-5)
    assert 1 <= len(found["peaks"]) <= 5 and found["peaks"][0]["value"] > 0

    label = draft(tmp_path / "draft.seg.nrrd", sample["volume"], 1)
    asked = {
        "draft": str(tmp_path / "draft.seg.nrrd"),
        "values": {"rep3d_1": 1, "rep3d_3": 3},
        "priority": ["rep3d_3", "rep3d_1"],
        "image": sample["image"],
    }
    measured = call("measure", **asked)
    assert measured["counts"] == {"1": int((label == 1).sum()), "3": int((label == 3).sum())}
    assert (measured["overlaps"], measured["outside"]) == ([], 0)
    assert measured["voxel_ml"] == pytest.approx(abs(np.linalg.det(image.affine)) / 1000)
    overlapping = call("measure", **{**asked, "values": {"rep3d_1": 1, "mine": 3}})
    assert [(one["first"], one["second"]) for one in overlapping["overlaps"]] == [("rep3d_1", "mine")]

    composed = call("compose", **asked, out=str(tmp_path / "out.nii.gz"))
    assert composed == {**measured, "path": str(tmp_path / "out.nii.gz")}
    answer = call("submit", image_id="case_1", path=composed["path"], tag="final", params={})
    assert answer["label"]
    stored = nib.load(studies / "labels" / "final" / "case_1.nii.gz")
    assert np.array_equal(np.asarray(stored.dataobj).transpose(2, 1, 0)[::-1], label)
    assert np.array_equal(stored.affine, image.affine)

    again = call("open_case", image_id="case_1", folder=str(tmp_path), label="final", entry=None, lease=True)
    full = np.zeros_like(label)
    i0, i1, j0, j1, k0, k1 = again["label"]["extent"]
    full[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = np.load(again["label"]["voxels"])
    assert np.array_equal(full, label)
    assert again["case"]["state"] in ("submitted", "leased") and again["leased_until"]
    assert again["label"]["counts"] == {"head": measured["counts"]["1"], "tail": measured["counts"]["3"]}
    refused = call.ask("open_case", user="somebody else", image_id="case_1", folder=str(tmp_path), lease=True)
    assert refused.kind == "ConflictError" and refused.status == 409
    assert call("release", image_id="case_1") == {} == call("release", image_id="case_1")

    label = draft(tmp_path / "draft.seg.nrrd", sample["volume"], 2)
    call("compose", **asked, out=str(tmp_path / "out.nii.gz"))
    call("submit", image_id="case_1", path=composed["path"], tag="final", params={})
    entries = call("history", image_id="case_1")["entries"]
    assert len(entries) == 2 and entries[0]["entry"] is None
    older = entries[1]["entry"]
    earlier = call("open_case", image_id="case_1", folder=str(tmp_path), label=None, entry=older, lease=False)
    assert earlier["label"]["counts"]["head"] == measured["counts"]["1"]
    call("restore", image_id="case_1", entry=older)
    stored = nib.load(studies / "labels" / "final" / "case_1.nii.gz")
    assert int((np.asarray(stored.dataobj) == 1).sum()) == measured["counts"]["1"]
    assert call("review", image_id="case_1", done=True)["state"] == "reviewed"
    assert call("review", image_id="case_1", done=False)["state"] == "submitted"
    left = [path.name for path in tmp_path.iterdir()]
    assert not [name for name in left if name.startswith("transfer-") or name.endswith(".part")], left


def test_a_label_of_another_grid_is_refused_before_it_is_sent(call: Client, studies: Path, tmp_path: Path) -> None:
    volume = {"shape": [24, 20, 18], "ijk_to_ras": np.diag([1.0, 1.0, 1.3, 1.0]).tolist()}
    draft(tmp_path / "draft.seg.nrrd", volume, 1)
    asked = {"draft": str(tmp_path / "draft.seg.nrrd"), "values": {"rep3d_1": 1}, "priority": []}
    error = call.ask("measure", **asked, image=str(studies / "case_2.nii.gz"))
    assert error.kind == "BadAnswer" and "voxels of 'case_2.nii.gz'" in error.message


def test_an_image_of_the_scene_is_uploaded_and_segmented(call: Client, tmp_path: Path) -> None:
    original = np.array(nib.load(write_image(tmp_path / "a.nii.gz", 8)).dataobj)
    np.save(tmp_path / "voxels.npy", original.transpose(2, 1, 0))
    affine = np.diag([1.0, 1.0, 1.2, 1.0]).tolist()
    path = str(tmp_path / "scene.nii.gz")
    call("write_image", voxels=str(tmp_path / "voxels.npy"), ijk_to_ras=affine, path=path)
    found = call("infer", image_path=path, image=path, model="rep3d", views=1, uncertainty=False, folder=str(tmp_path))
    assert found["uncertainty"] is None and found["peaks"] == []
    sent = call("upload_image", path=path, image_id="from_the_scene")
    assert sent == {"id": "from_the_scene"}
    again = call("open_case", image_id="from_the_scene", folder=str(tmp_path), label=None, entry=None, lease=False)
    assert np.array_equal(np.load(again["volume"]["voxels"]), original.transpose(2, 1, 0)) and again["label"] is None


def test_errors_of_the_server_come_in_words(call: Client, tmp_path: Path) -> None:
    error = call.ask("next_sample", strategy="no such", folder=str(tmp_path))
    assert error.kind == "NotFoundError" and error.status == 404
    error = call.ask("open_case", image_id="no such", folder=str(tmp_path))
    assert error.kind == "NotFoundError"
    error = call.ask("publish", model="rep3d", version="v99", reason="")
    assert error.kind == "NotFoundError"


def test_models_versions_training_and_batch(call: Client) -> None:
    versions = call("versions", model="rep3d")
    assert versions["published"] == "v1" and versions["versions"][0]["version"] == "v1"
    idle = call("train_status", model="rep3d")
    assert idle["state"] == "idle" and idle["losses"] == [] and idle["log"] == []
    started = call("train_start", model="rep3d", settings={"iterations": 2, "score_minutes": 0})
    assert started["state"] in ("submitted", "running")
    deadline = time.monotonic() + 120
    while call("train_status", model="rep3d")["state"] in ("submitted", "running") and time.monotonic() < deadline:
        time.sleep(0.3)
    view = call("overview", model="rep3d")
    assert view["train"]["state"] == "done", view["train"]
    assert view["train"]["version_made"] == "v2" and view["train"]["progress"] == 1.0 and view["train"]["losses"]
    assert view["batch"]["phase"] == "never" and view["total"] >= 5 and view["versions_stamp"]
    assert call("train_stop", model="rep3d")["state"] == "done"
    back = "v1" if view["version"] == "v2" else "v2"
    assert call("publish", model="rep3d", version=back, reason="a test")["version"] == back
    assert call("roll_back", model="rep3d", reason="a test")["version"] == view["version"]
    cases = {case["id"]: case for case in call("cases", model="rep3d")["cases"]}
    assert cases["case_0"]["state"] == "submitted" and "labels" in cases["case_0"]
    batch = call("batch_start", model="rep3d", images="unlabeled", views=1)
    assert batch["phase"] in ("running", "done")
    while call("batch_status", model="rep3d")["active"] and time.monotonic() < deadline:
        time.sleep(0.3)
    batch = call("batch_status", model="rep3d")
    assert batch["phase"] == "done" and batch["progress"] == 1.0 and batch["failed"] == {}
    assert call("batch_stop", model="rep3d")["phase"] == "done"
    assert call("cancel", request_id="none") == {}
    assert call("take", image_id="case_3")["user"]
    assert call("release", image_id="case_3") == {}


def test_dicom_files_are_packed_under_neutral_names_and_sent(call: Client, tmp_path: Path) -> None:
    write_series(tmp_path / "DOE^JANE" / "series", uid="1.2.3.99")
    (tmp_path / "DOE^JANE" / "notes.txt").write_text("nothing")
    came = call("upload_dicom", folder=str(tmp_path / "DOE^JANE"))
    assert len(came["images"]) == 1 and came["failed"] == [], came
    assert {told["stage"] for told in call.told} >= {"packing", "sending"}
    opened = call("open_case", image_id=came["images"][0], folder=str(tmp_path), label=None, entry=None, lease=False)
    assert opened["volume"]["shape"] == [5, 4, 6] and np.load(opened["volume"]["voxels"]).min() == -1024
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
