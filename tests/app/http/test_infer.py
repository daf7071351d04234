"""Segmenting over HTTP with the real server: what comes back, several at once, cancelling, boxes, DICOM folders."""

from __future__ import annotations

import dataclasses
import gzip
import io
import json
import shutil
import threading
import time
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from requests_toolbelt import MultipartDecoder

from rep3d.checkpoint import Checkpoint, load_checkpoint, save_checkpoint
from rep3d.nn.rep3d import Rep3D
from tests.app.data import AFFINE, CONF, LABELS, SHAPE, publish_small_model, unchanged, write_image, write_nifti
from tests.app.http.test_bad_input import refused
from tests.app.server import AppServer
from tests.rep3d.imaging.test_dicom import write_series

BIG = (150, 140, 90)


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server over two small images, a large one, and folders of DICOM series, with a model that knows one
    label."""
    studies = tmp_path_factory.mktemp("studies")
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    noise = np.random.default_rng(0).normal(100, 40, BIG).astype(np.int16)
    write_nifti(studies / "big.nii.gz", noise)
    write_series(studies / "scanner" / "ct")
    (studies / "scanner_ct_Abdomen.nii").write_text("a file of that name, which is somebody's")
    publish_small_model(studies, {"tail": 1, "another": 2})
    # Images are named after folders and descriptions only where patients are no secret.
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), {**CONF, "deidentify": "off"}) as running:
        yield running


def segment(server: AppServer, image: str, status: int = 200, **params: Any) -> tuple[dict[str, Any], nib.Nifti1Image]:
    """Ask for a segmentation; return the facts and the label map."""
    answer = server.post("/infer/rep3d", params={"image": image}, data={"params": json.dumps(params)})
    assert answer.status_code == status, answer.text
    parts = {}
    for part in MultipartDecoder.from_response(answer).parts:
        name = part.headers[b"Content-Disposition"].decode().split('name="')[1].split('"')[0]
        parts[name] = part.content
    return json.loads(parts["params"]), read(parts["image"])


def read(content: bytes) -> nib.Nifti1Image:
    """Return a NIfTI image from its compressed bytes."""
    holder = nib.FileHolder(fileobj=io.BytesIO(gzip.decompress(content)))
    return nib.Nifti1Image.from_file_map({"header": holder, "image": holder})


def test_facts_that_come_with_a_result(server: AppServer) -> None:
    facts, label = segment(server, "case_0")
    assert label.shape == SHAPE
    np.testing.assert_allclose(label.affine, AFFINE, atol=1e-5)
    # The model calls "tail" 1; the server's value for it is 3. "head" it has never met, "another" the server has not.
    values = np.asanyarray(label.dataobj)
    assert set(np.unique(values)) <= {0, LABELS["tail"]}
    assert facts["missing_labels"] == ["head"]
    assert facts["label_names"] == LABELS
    assert set(facts["volumes_ml"]) == set(facts["confidence"]) == set(LABELS)
    voxel_ml = abs(np.linalg.det(AFFINE[:3, :3])) / 1000
    assert facts["volumes_ml"]["tail"] == pytest.approx((values == 3).sum() * voxel_ml, abs=1e-3)
    assert facts["volumes_ml"]["head"] == 0 and facts["confidence"]["head"] is None
    assert facts["model"] == "rep3d" and facts["version"] == "v1"
    assert facts["device"] == "cpu" and facts["fallback"] is None
    assert facts["request_id"] and "uncertainty_map" not in facts


def test_uncertainty_map_can_be_fetched_with_nothing_but_urllib(server: AppServer) -> None:
    facts, label = segment(server, "case_0", uncertainty=True, request_id="slicer-1", views=2)
    assert facts["request_id"] == "slicer-1"
    with urllib.request.urlopen(server.url + facts["uncertainty_map"], timeout=30) as answer:
        unsure = read(answer.read())
    assert unsure.shape == label.shape
    np.testing.assert_allclose(unsure.affine, label.affine, atol=1e-6)
    values = unsure.get_fdata()
    assert values.min() >= 0 and values.max() <= 1 and values.max() > 0
    refused(server.get("/rep3d/requests/nobody/uncertainty"), 404, "There is no uncertainty map")


def test_box_is_all_that_is_segmented(server: AppServer, tmp_path: Path) -> None:
    _, whole = segment(server, "case_0")
    _, part = segment(server, "case_0", box={"voxels": [[4, 5, 6], [20, 15, 16]]})
    inside = np.zeros(SHAPE, bool)
    inside[4:20, 5:15, 6:16] = True
    assert not np.asanyarray(part.dataobj)[~inside].any()
    assert part.shape == whole.shape


@pytest.mark.parametrize(
    ("params", "words"),
    [
        ({"views": 0}, "views"),
        ({"views": "many"}, "views"),
        ({"box": [1, 2]}, "box"),
        ({"box": {"voxels": [[90, 0, 0], [99, 9, 9]]}}, "box"),
        ({"box": {"ras": [[900, 900, 900], [901, 901, 901]]}}, "box"),
        ({"uncertainty": "yes"}, "uncertainty"),
        ({"stage": "fine"}, "stage must be all or coarse"),
        ({"request_id": "../x"}, "request_id"),
        ({"request_id": 3}, "request_id"),
        ({"tta": True}, "There is no setting"),
        ({"shown_as": "x"}, "There is no setting"),
        ({"cancelled": 1}, "There is no setting"),
    ],
)
def test_impossible_settings_are_422(server: AppServer, params: dict[str, Any], words: str) -> None:
    with unchanged(server.studies):
        answer = server.post("/infer/rep3d", params={"image": "case_0"}, data={"params": json.dumps(params)})
        refused(answer, 422, words)


def test_what_monai_labels_own_clients_send_along_is_accepted(server: AppServer) -> None:
    segment(server, "case_0", client_id="user-xyz", device="cpu", result_extension=".nii.gz", logging="INFO")


def _running(server: AppServer) -> dict[str, Any]:
    return {one["id"]: one for one in server.get("/rep3d/requests").json()}


def _wait_for(server: AppServer, request_id: str) -> dict[str, Any]:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline:
        found = _running(server).get(request_id)
        if found and found["state"] == "running":
            return found
        time.sleep(0.02)
    raise AssertionError(f"{request_id} never ran: {server.log[-2000:]}")


def _in_thread(server: AppServer, request_id: str, **params: Any) -> tuple[threading.Thread, list[requests.Response]]:
    answers: list[requests.Response] = []
    data = {"params": json.dumps({"request_id": request_id, **params})}

    def run() -> None:
        answers.append(server.post("/infer/rep3d", params={"image": "big"}, data=data))

    thread = threading.Thread(target=run)
    thread.start()
    return thread, answers


def test_two_requests_at_once_do_not_wait_for_each_other_and_agree_with_one_alone(server: AppServer) -> None:
    _, alone = segment(server, "case_1")
    thread, answers = _in_thread(server, "long", views=8)
    assert _wait_for(server, "long")["image"] == "big"
    _, together = segment(server, "case_1")
    assert "long" in _running(server)  # the small image was done while the large one still ran
    np.testing.assert_array_equal(np.asanyarray(together.dataobj), np.asanyarray(alone.dataobj))
    answer = server.post(
        "/infer/rep3d", params={"image": "case_1"}, data={"params": json.dumps({"request_id": "long"})}
    )
    refused(answer, 409, "running already")
    assert server.request("DELETE", "/rep3d/requests/long").json()["state"] == "cancelling"
    thread.join(60)
    refused(answers[0], 409, "cancelled")
    assert _running(server) == {}


def test_cancelled_request_leaves_nothing_and_unknown_ones_are_404(server: AppServer) -> None:
    refused(server.request("DELETE", "/rep3d/requests/nobody"), 404, "No request named")
    with unchanged(server.studies):
        thread, answers = _in_thread(server, "stopped", views=8, uncertainty=True)
        _wait_for(server, "stopped")
        started = time.monotonic()
        server.request("DELETE", "/rep3d/requests/stopped")
        thread.join(60)
        assert time.monotonic() - started < 10
        refused(answers[0], 409, "cancelled")
    refused(server.get("/rep3d/requests/stopped/uncertainty"), 404)


def test_last_prediction_for_an_image_of_the_folder_is_kept(server: AppServer) -> None:
    _, label = segment(server, "case_1")
    kept = server.studies / "rep3d" / "predictions" / "case_1.nii.gz"
    np.testing.assert_array_equal(np.asanyarray(nib.load(kept).dataobj), np.asanyarray(label.dataobj))
    before = kept.read_bytes()
    segment(server, "case_1", box={"voxels": [[0, 0, 0], [9, 9, 9]]})
    assert kept.read_bytes() == before  # part of a label would compare badly with a submission


def test_new_model_answers_the_next_request(server: AppServer) -> None:
    path = server.studies / "rep3d" / "models" / "rep3d" / "published.pt"
    other = server.studies.parent / "other"
    shutil.move(publish_small_model(other, LABELS), other / "new.pt")
    keep = path.read_bytes()
    try:
        shutil.copy(other / "new.pt", path.with_name("new.tmp"))
        path.with_name("new.tmp").replace(path)
        assert segment(server, "case_0")[0]["missing_labels"] == []
        shutil.move(publish_small_model(other, {"nothing of ours": 1}), other / "foreign.pt")
        (other / "foreign.pt").replace(path)
        answer = server.post("/infer/rep3d", params={"image": "case_0"})
        refused(answer, 409, "nothing of ours", "was trained for the labels")
    finally:
        path.with_name("old.tmp").write_bytes(keep)
        path.with_name("old.tmp").replace(path)
    assert segment(server, "case_0")[0]["missing_labels"] == ["head"]


def test_of_a_model_with_two_stages_the_coarse_one_can_be_asked_for_alone(server: AppServer) -> None:
    path = server.studies / "rep3d" / "models" / "rep3d" / "published.pt"
    keep, one = path.read_bytes(), load_checkpoint(path)
    assert segment(server, "case_0", stage="coarse")[0]["stage"] == "all"  # there is but one
    fine = Checkpoint(
        Rep3D(dataclasses.replace(one.model.config, in_channels=one.task.out_channels)),
        one.task,  # type: ignore[arg-type]
    )
    try:
        save_checkpoint(path, one.model, one.task, one.info, fine)
        first, coarse = segment(server, "case_0", stage="coarse")
        both, label = segment(server, "case_0", uncertainty=True)
        assert (first["stage"], both["stage"]) == ("coarse", "all")
        assert coarse.shape == label.shape == SHAPE
        versions = server.get("/rep3d/models/rep3d/versions").json()
        assert "v1" in json.dumps(versions)
    finally:
        path.with_name("old.tmp").write_bytes(keep)
        path.with_name("old.tmp").replace(path)


def test_series_that_are_there_at_the_start_become_images_beside_what_is_there(server: AppServer) -> None:
    image = server.studies / "scanner_ct_Abdomen_2.nii.gz"
    assert nib.load(image).shape == (5, 4, 6)
    assert (server.studies / "scanner_ct_Abdomen.nii").read_text().startswith("a file of that name")
    assert "scanner_ct_Abdomen_2" in server.get("/datastore/?output=all").json()["objects"]
    record = json.loads((server.studies / "rep3d" / "dicom.json").read_text())
    assert record["imported"]["1.2.3.4"]["source"] == "scanner/ct"


def test_dicom_series_below_the_studies_folder_become_images(server: AppServer, shared_data: Path) -> None:
    source = shared_data / "dicom_mr" / "hippocampus_crop"
    shutil.copytree(source, server.studies / "patient 7" / "hippo")
    shutil.copytree(shared_data / "dicom_mr" / "brain_t1", server.studies / "damaged")
    sorted((server.studies / "damaged").iterdir())[5].unlink()
    found = server.post("/rep3d/dicom/import").json()
    assert list(found["imported"]) == ["patient_7_hippo_HippoCrop"]
    assert "1 of its slices are missing" in next(iter(found["failed"].values()))["error"]
    image = server.studies / "patient_7_hippo_HippoCrop.nii.gz"
    assert nib.load(image).shape == (35, 51, 32)
    assert "patient_7_hippo_HippoCrop" in server.get("/datastore/?output=all").json()["objects"]
    with unchanged(server.studies):
        again = server.post("/rep3d/dicom/import").json()
    assert again["imported"] == {} and again["known"] == 2
    facts, label = segment(server, "patient_7_hippo_HippoCrop")
    assert label.shape == (35, 51, 32)
    # A folder of the server's disk is no image that may be named.
    refused(server.post("/infer/rep3d", params={"image": str(source)}), 404, "There is no image")
    refused(server.post("/infer/rep3d", params={"image": "patient 7/hippo"}), 404, "There is no image")
