"""A server on a folder in which many state files are damaged at once: it starts, tells each, and loses no label."""

from __future__ import annotations

from pathlib import Path

from tests.app.data import snapshot
from tests.app.old_studies import ANSWERS, OLD, old_studies
from tests.app.server import AppServer

MODEL = "rep3d/models/rep3d"
DAMAGED = (
    "datastore_v2.json",
    "rep3d/labels.json",
    "rep3d/leases.json",
    "rep3d/reviews.json",
    "rep3d/auto_train.json",
    "rep3d/label_facts.json",
    "rep3d/dicom.json",
    f"{MODEL}/roles.json",
    f"{MODEL}/train_status.json",
    f"{MODEL}/run/run.json",
    f"{MODEL}/scores.json",
    f"{MODEL}/validation_scores.json",
    f"{MODEL}/batch.json",
    f"{MODEL}/publications.json",
)


def test_a_server_on_damaged_state(tmp_path: Path) -> None:
    studies = old_studies(tmp_path / "studies")
    (studies / MODEL / "batch.json").touch()
    for file in DAMAGED:
        content = (studies / file).read_bytes()
        (studies / file).write_bytes(content[: len(content) // 2])
    (tmp_path / "scratch").mkdir()
    with AppServer(studies, tmp_path / "scratch", {"device": "cpu"}) as server:
        told = {one["file"]: one for one in server.get("/rep3d/status").json()["damaged"]}
        assert set(told) == set(DAMAGED)
        log = server.log
        for file, one in told.items():
            assert (studies / one["kept"]).is_file()
            assert str(studies / file) in log and one["lost"] in log
        voxels = {file: digest for file, digest in snapshot(OLD / "studies").items() if ".nii" in file}
        now = snapshot(studies)
        assert {file: now.get(file) for file in voxels} == voxels
        assert server.get("/info/").json()["rep3d"]["labels"] == {"head": 1, "tail": 3}
        for before in ANSWERS["/rep3d/cases"]:
            case = server.get(f"/rep3d/cases/{before['id']}").json()
            assert [case[key] for key in ("labels", "role")] == [before[key] for key in ("labels", "role")]
        answer = server.post("/infer/rep3d", params={"image": "case_6", "output": "json"})
        assert answer.json()["version"] == "v2"
