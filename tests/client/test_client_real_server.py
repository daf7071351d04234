"""Each topic of the client against a real server once: the addresses and fields are those that the app has."""

from __future__ import annotations

import time

import pytest
from Rep3DLabelLib.client import Rep3DClient
from Rep3DLabelLib.errors import ConflictError, NotFoundError

from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer


@pytest.fixture(scope="module")
def real(tmp_path_factory):
    studies = tmp_path_factory.mktemp("studies")
    for number in range(3):
        write_image(studies / f"case_{number}.nii.gz", number)
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as running:
        yield running


@pytest.fixture
def anna(real):
    return Rep3DClient(real.url, client_id="anna")


def test_info_and_status(anna):
    info, status = anna.info(), anna.server_status()
    model = info.models[info.default_model]
    assert dict(model.labels) == {"head": 1, "tail": 3} == dict(info.labels)
    assert (model.version, model.error, model.preset, model.trainable) == ("v1", "", "tiny", True)
    assert all(info.strategies.values()) and "hybrid" in info.strategies
    assert [(label.name, label.value) for label in status.models["rep3d"].labels] == [("head", 1), ("tail", 3)]
    assert all(label.colour for label in status.models["rep3d"].labels)
    assert (status.total, status.models["rep3d"].batch.phase) == (3, "never")
    both, train = anna.overview()
    assert both.cases_stamp == status.cases_stamp and train.state == "idle" and train.resumable is None


def test_leases_labels_history_reviews(anna, real, tmp_path):
    ben = Rep3DClient(real.url, client_id="ben")
    assert anna.take_lease("case_0").user == "anna" and anna.case("case_0").lease.user == "anna"
    with pytest.raises(ConflictError, match="anna"):
        ben.take_lease("case_0")
    assert anna.release_lease("case_0") is True and anna.release_lease("case_0") is False
    first, second = write_label(tmp_path / "1.nii.gz", 0), write_label(tmp_path / "2.nii.gz", 1)
    anna.submit_label("case_0", first)
    ben.submit_label("case_0", second)
    now, before = anna.history("case_0")
    assert (now.author, before.author, before.reason) == ("ben", "anna", "replaced")
    assert anna.download_history("case_0", before.entry, tmp_path / "old.nii.gz").read_bytes() == first.read_bytes()
    assert anna.restore("case_0", before.entry)["duplicate"] is False
    assert anna.download_label("case_0", "final", tmp_path / "now.nii.gz").read_bytes() == first.read_bytes()
    case = anna.review("case_0")
    assert case.state == "reviewed" and set(case.labels) == {"head", "tail"} and min(case.labels.values()) > 0
    assert anna.take_review_back("case_0").state == "submitted"
    assert [case.id for case in anna.cases(state="submitted")] == ["case_0"] and len(anna.cases("rep3d")) == 3
    with pytest.raises(NotFoundError):
        anna.take_review_back("case_0")


def test_versions(anna):
    found = anna.versions()
    assert (found.published, [version.version for version in found.versions]) == ("v1", ["v1"])
    assert anna.publish("rep3d", "v1", "the same again").published
    with pytest.raises(ConflictError):
        anna.roll_back("rep3d", "none before")
    with pytest.raises(NotFoundError):
        anna.publish("rep3d", "v9")


def test_segmentation_batch_and_uncertainty(anna, tmp_path):
    made = anna.infer("case_1", tmp_path, params={"uncertainty": True, "request_id": "r1"})
    assert anna.download_uncertainty(made.params["request_id"], tmp_path / "u.nii.gz").stat().st_size > 0
    assert anna.running_requests() == () and anna.cancel("r1") is False
    assert anna.batch_start().phase in ("running", "done")
    until = time.monotonic() + 60
    while anna.batch_status().is_active:
        assert time.monotonic() < until
        time.sleep(0.1)
    status = anna.batch_status()
    assert (status.phase, status.progress, status.failed) == ("done", 1.0, {})
    assert anna.batch_stop().phase == "done"


def test_a_training_tells_all(anna, tmp_path):
    anna.submit_label("case_2", write_label(tmp_path / "2.nii.gz", 2))
    labelled = sum("final" in case.tags for case in anna.cases())
    anna.train_start(settings={"iterations": 2, "score_minutes": 0})
    status = anna.wait_for_training(poll_seconds=0.3, timeout=120)
    assert (status.state, status.progress, status.error) == ("done", 1.0, ""), status.log
    assert status.version_made and status.decision["reason"] and status.validation_kind == "training-only"
    assert (status.cases, status.validation_cases, status.model) == (labelled, 0, "rep3d")
    assert status.losses and status.memory_mb > 0 and status.phase_text == "Done"
