"""Each topic of the client against a real server once: the addresses and fields are those that the app has."""

from __future__ import annotations

import time

import numpy as np
import pytest
from Rep3DLabelLib.client import Rep3DClient
from Rep3DLabelLib.errors import ConflictError, NotFoundError

from rep3d.demo.voxels import as_voxels
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer
from tests.voxel_bodies import array_of


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


def test_info_and_overview(anna):
    info, overview = anna.info(), anna.overview()
    model = info.models[info.default_model]
    assert [(label.name, label.value) for label in model.labels] == [("head", 1), ("tail", 3)]
    assert dict(info.labels) == {"head": 1, "tail": 3} and all(label.colour for label in model.labels)
    assert (model.version, model.error, model.trainable, info.device_name) == ("v1", "", True, "CPU")
    assert all(info.strategies.values()) and "hybrid" in info.strategies
    assert (overview.state.total, overview.state.batch.phase, overview.state.version) == (3, "never", "v1")
    assert overview.state.cases_stamp and overview.train.state == "idle" and not overview.train.resumable


def label(folder, seed):
    return as_voxels(write_label(folder / f"{seed}.nii.gz", seed), folder / f"{seed}.raw")


def test_leases_labels_history_reviews(anna, real, tmp_path):
    ben = Rep3DClient(real.url, client_id="ben")
    assert anna.take_lease("case_0").user == "anna"
    with pytest.raises(ConflictError, match="anna"):
        ben.take_lease("case_0")
    assert anna.release_lease("case_0") is True and anna.release_lease("case_0") is False
    first, second = label(tmp_path, 0), label(tmp_path, 1)
    assert not anna.submit_label("case_0", first).duplicate and anna.submit_label("case_0", first).duplicate
    ben.submit_label("case_0", second)
    now, before = anna.history("case_0")
    assert (now.author, before.author, before.reason) == ("ben", "anna", "replaced")
    assert anna.restore("case_0", before.entry).duplicate is False
    assert np.array_equal(array_of(anna.label("case_0", "final", tmp_path)), array_of(first))
    case = anna.review("case_0")
    assert case.state == "reviewed" and set(case.labels) == {"head", "tail"} and min(case.labels.values()) > 0
    assert anna.take_review_back("case_0").state == "submitted"
    states = {case.id: case.state for case in anna.cases("rep3d")}
    assert (len(states), states["case_0"]) == (3, "submitted")
    with pytest.raises(NotFoundError):
        anna.take_review_back("case_0")


def test_the_list_of_cases_changes_with_scores_roles_and_volumes(anna, real):
    """What the list is read anew for; Slicer showed stale ones for as long as nothing else changed."""
    space = real.studies / "rep3d"
    for name in ("label_facts.json", "models/rep3d/scores.json", "models/rep3d/roles.json"):
        stamp = anna.overview().state.cases_stamp
        file = space / name
        before = file.read_bytes() if file.exists() else None
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_bytes((before or b"{}") + b"\n")
        assert anna.overview().state.cases_stamp != stamp, name


def test_versions(anna):
    (version,) = anna.versions()
    assert (version.version, version.published, version.available) == ("v1", True, True)
    assert anna.publish("rep3d", "v1", "the same again").published
    with pytest.raises(ConflictError):
        anna.roll_back("rep3d", "none before")
    with pytest.raises(NotFoundError):
        anna.publish("rep3d", "v9")


def test_segmentation_and_batch(anna, tmp_path):
    made = anna.infer("case_1", tmp_path, params={"uncertainty": True, "request_id": "r1"})
    assert made.label.shape == made.uncertainty.shape and dict(made.facts.labels) == {"head": 1, "tail": 3}
    assert array_of(made.uncertainty).min() >= 0 and array_of(made.uncertainty).max() <= 1
    assert anna.cancel("r1") is False
    assert anna.batch_start().phase in ("running", "done")
    until = time.monotonic() + 60
    while anna.overview().state.batch.is_active:
        assert time.monotonic() < until
        time.sleep(0.1)
    status = anna.batch_stop()
    assert (status.phase, status.progress, status.failed) == ("done", 1.0, {})


def test_a_training_tells_all(anna, tmp_path):
    anna.submit_label("case_2", label(tmp_path, 2))
    anna.train_start(settings={"iterations": 2, "score_minutes": 0})
    status = anna.wait_for_training(poll_seconds=0.3, timeout=120)
    assert (status.state, status.progress, status.error) == ("done", 1.0, ""), status.log
    assert status.version_made and status.reason and status.model == "rep3d"
    assert status.losses and status.phase == "done"
