"""Whatever comes over HTTP: a clear 4xx answer, and the studies folder as it was, byte for byte."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import requests

from tests.app.data import AFFINE, SHAPE, unchanged, write_image, write_label, write_nifti
from tests.app.server import AppServer

TRAVERSALS = ["../../outside", "..", "/tmp/outside", "a/b", "a\\b", ".hidden", "", " ", "x" * 200, "a\nb", "final.."]


def refused(answer: requests.Response, status: int, *words: str) -> None:
    """Assert status and wording of a refusal."""
    assert answer.status_code == status, answer.text
    detail = answer.json()["detail"]
    assert isinstance(detail, str)
    for word in words:
        assert word in detail


def upload(server: AppServer, path: str, field: str, file: Path, **options) -> requests.Response:
    """Return a PUT or POST of one file as a form field."""
    method = options.pop("method", "PUT")
    name = options.pop("name", file.name)
    return server.request(method, path, files={field: (name, file.read_bytes())}, **options)


@pytest.fixture
def text_file(tmp_path: Path) -> Path:
    """Return a text file that is named like an image."""
    path = tmp_path / "text.nii.gz"
    path.write_text("this is no image")
    return path


@pytest.fixture
def good_image(tmp_path: Path) -> Path:
    return write_image(tmp_path / "good.nii.gz", 40)


@pytest.fixture
def good_label(tmp_path: Path) -> Path:
    return write_label(tmp_path / "label.nii.gz", 0)


# Segmenting --------------------------------------------------------------------------------------------------


def test_unknown_image_is_404(server: AppServer, studies: Path) -> None:
    with unchanged(studies):
        refused(server.post("/infer/rep3d", params={"image": "nobody"}), 404, "There is no image 'nobody'")


@pytest.mark.parametrize("model", ["other", "..%2fx", "rep3d2"])
def test_unknown_model_is_404(server: AppServer, studies: Path, model: str) -> None:
    with unchanged(studies):
        answer = server.post(f"/infer/{model}", params={"image": "case_1"})
    assert answer.status_code == 404


def test_files_of_the_server_are_out_of_reach(server: AppServer, studies: Path, good_image: Path) -> None:
    # The stock server segments any file of its disk that is named.
    for path in (str(good_image), "/etc/passwd", str(studies / "case_1.nii.gz"), "../case_1", str(studies)):
        refused(server.post("/infer/rep3d", params={"image": path}), 404, "There is no image")
        hidden = {"params": json.dumps({"image": path})}
        refused(server.post("/infer/rep3d", params={"image": "case_1"}, data=hidden), 422, "'image'")


def test_file_that_is_no_image_is_422(server: AppServer, studies: Path, text_file: Path) -> None:
    with unchanged(studies):
        refused(upload(server, "/infer/rep3d", "file", text_file, method="POST"), 422, "is no NIfTI image")
        refused(upload(server, "/infer/rep3d", "file", text_file, method="POST", name="a.txt"), 422, "'a.txt'")
        refused(upload(server, "/datastore/image?image=new", "file", text_file), 422, "image new", "NIfTI")
        refused(upload(server, "/datastore/image?image=new", "file", text_file, name="a.txt"), 422, ".nii.gz")


@pytest.mark.parametrize("shape", [(8, 8), (8, 8, 8, 3)])
def test_image_of_other_dimensions_is_422(server: AppServer, studies: Path, tmp_path: Path, shape: tuple) -> None:
    image = write_nifti(tmp_path / "odd.nii.gz", np.zeros(shape, np.int16))
    with unchanged(studies):
        refused(upload(server, "/datastore/image?image=odd", "file", image), 422, "three-dimensional")
        refused(upload(server, "/infer/rep3d", "file", image, method="POST"), 422, "three-dimensional")


def test_damaged_image_is_422(server: AppServer, studies: Path, tmp_path: Path, good_image: Path) -> None:
    half = tmp_path / "half.nii.gz"
    half.write_bytes(good_image.read_bytes()[:2000])
    with unchanged(studies):
        refused(upload(server, "/datastore/image?image=half", "file", half), 422, "image half")


@pytest.mark.parametrize("params", ["{broken", "[1]", "3", '"text"', "null"])
def test_params_that_are_no_json_object_are_422(
    server: AppServer, studies: Path, params: str, good_image: Path, good_label: Path
) -> None:
    data = {"params": params}
    with unchanged(studies):
        refused(server.post("/infer/rep3d", params={"image": "case_1"}, data=data), 422, "JSON")
        refused(upload(server, "/datastore/image?image=new", "file", good_image, data=data), 422, "JSON")
        refused(upload(server, "/datastore/label?image=case_0", "label", good_label, data=data), 422, "JSON")
        info = {"info": params}
        refused(server.put("/datastore/image/info", params={"image": "case_0"}, data=info), 422, "JSON")
        refused(server.put("/datastore/label/info?label=case_0&tag=final", data=info), 422, "JSON")


def test_a_body_that_is_no_object_is_told_once(server: AppServer) -> None:
    answer = server.post("/rep3d/voxels/infer/rep3d", params={"image": "case_1"}, json=[1])
    assert answer.status_code == 422 and answer.json()["detail"] == "request body: a JSON object is expected."


def test_request_without_image_is_422(server: AppServer) -> None:
    refused(server.post("/infer/rep3d"), 422, "image=")
    refused(server.post("/infer/rep3d", params={"image": "case_1", "output": "dicom_seg"}), 422, "dicom_seg")
    refused(server.post("/infer/rep3d", params={"image": "case_1", "output": "nonsense"}), 422, "output")


@pytest.mark.parametrize("session", ["../../etc", "nobody", "0" * 36])
def test_unknown_session_is_404(server: AppServer, session: str) -> None:
    refused(server.post("/infer/rep3d", params={"session_id": session}), 404, "session")


def test_prediction_never_takes_a_persons_place(server: AppServer, studies: Path) -> None:
    params = {"params": json.dumps({"save_label": True, "label_tag": "final"})}
    with unchanged(studies):
        refused(server.post("/infer/rep3d", params={"image": "case_0"}, data=params), 422, "label_tag")
        for save in (True, False):
            params = {"params": json.dumps({"save_label": save, "label_tag": "../../x"})}
            refused(server.post("/infer/rep3d", params={"image": "case_0"}, data=params), 422, "label tag")


def test_what_is_not_offered_says_so(server: AppServer, studies: Path) -> None:
    with unchanged(studies):
        refused(server.post("/batch/infer/other"), 404, "'other'")
        refused(server.post("/infer/wsi_v2/rep3d"), 404, "whole-slide")


# Images and labels -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", [name for name in TRAVERSALS if name])
def test_image_ids_lead_nowhere_else(server: AppServer, studies: Path, good_image: Path, name: str) -> None:
    names = sorted(studies.parent.iterdir())
    with unchanged(studies):
        for path in ("/datastore/image", "/datastore/"):
            refused(upload(server, path, "file", good_image, params={"image": name}), 422, "image id")
    assert sorted(studies.parent.iterdir()) == names


@pytest.mark.parametrize("tag", [tag for tag in TRAVERSALS if tag])
def test_label_tags_lead_nowhere_else(server: AppServer, studies: Path, good_label: Path, tag: str) -> None:
    with unchanged(studies):
        refused(
            upload(server, "/datastore/label", "label", good_label, params={"image": "case_0", "tag": tag}),
            422,
            "label tag",
        )


def test_image_is_never_overwritten(server: AppServer, studies: Path, good_image: Path) -> None:
    with unchanged(studies):
        refused(upload(server, "/datastore/image?image=case_0", "file", good_image), 409, "image case_0 already")
        refused(upload(server, "/datastore/image?image=case_0.nii.gz", "file", good_image), 409, "image case_0 already")
        refused(upload(server, "/datastore/image", "file", good_image, name="case_0.nii.gz"), 409, "case_0")


def test_label_for_unknown_image_is_404(server: AppServer, studies: Path, good_label: Path) -> None:
    with unchanged(studies):
        refused(upload(server, "/datastore/label?image=nobody", "label", good_label), 404, "'nobody'")
        refused(upload(server, "/datastore/label?image=../case_0", "label", good_label), 404, "image")


def test_label_that_is_no_image_is_422(server: AppServer, studies: Path, text_file: Path, good_label: Path) -> None:
    # The stock server overwrites the good label with it.
    with unchanged(studies):
        refused(upload(server, "/datastore/label?image=case_0", "label", text_file), 422, "The label for image case_0")
        refused(upload(server, "/datastore/label?image=case_0", "label", good_label, name="l.png"), 422, "'.png'")


def _other_geometries() -> dict[str, tuple[tuple[int, ...], np.ndarray]]:
    shifted, flipped, scaled = AFFINE.copy(), AFFINE.copy(), AFFINE.copy()
    shifted[0, 3] += 1.0
    flipped[:, 0] *= -1
    scaled[:3, :3] *= 1.1
    return {
        "shape": ((24, 20, 17), AFFINE),
        "shifted": (SHAPE, shifted),
        "flipped": (SHAPE, flipped),
        "scaled": (SHAPE, scaled),
        "standard": (SHAPE, np.eye(4)),
    }


@pytest.mark.parametrize("kind", _other_geometries())
def test_label_of_another_geometry_is_422(server: AppServer, studies: Path, tmp_path: Path, kind: str) -> None:
    shape, affine = _other_geometries()[kind]
    label = write_nifti(tmp_path / "other.nii.gz", np.ones(shape, np.uint8), affine)
    with unchanged(studies):
        answer = upload(server, "/datastore/label?image=case_0&tag=final", "label", label)
        refused(answer, 422, "he label for image case_0", "does not lie on the voxels of image", "Draw the label")


@pytest.mark.parametrize("values", [np.full(SHAPE, 2, np.uint8), np.full(SHAPE, -1, np.int16), np.full(SHAPE, 1.5)])
def test_label_with_other_values_is_422(server: AppServer, studies: Path, tmp_path: Path, values: np.ndarray) -> None:
    label = write_nifti(tmp_path / "values.nii.gz", values)
    with unchanged(studies):
        answer = upload(server, "/datastore/label?image=case_0", "label", label)
        refused(answer, 422, "The label for image case_0", "value")


def test_what_is_not_there_cannot_be_removed_or_described(server: AppServer, studies: Path) -> None:
    with unchanged(studies):
        refused(server.request("DELETE", "/datastore/image?id=nobody"), 404, "nobody")
        refused(server.request("DELETE", "/datastore/label?id=case_1&tag=final"), 404, "case_1")
        refused(server.request("DELETE", "/datastore/label?id=case_0&tag=../final"), 404, "tag")
        refused(server.get("/datastore/image?image=nobody"), 404)
        refused(server.get("/datastore/label?label=case_1&tag=final"), 404)
        refused(server.get("/datastore/image/info?image=nobody"), 404)
        refused(server.get("/datastore/label/info?label=case_1&tag=final"), 404)


def test_missing_parameters_are_named(server: AppServer) -> None:
    refused(server.put("/datastore/label"), 422, "image", "label")


# Training, scoring, choosing ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "words"),
    [
        ({"iterations": 0}, "iterations"),
        ({"iterations": "many"}, "iterations"),
        ({"learning_rate": -1}, "learning_rate"),
        ({"score_minutes": "x"}, "score_minutes"),
        ({"preset": "base"}, "preset"),
        ({"max_epochs": 50}, "max_epochs"),
    ],
)
def test_impossible_training_settings_are_422(server: AppServer, studies: Path, settings: dict, words: str) -> None:
    with unchanged(studies):
        refused(server.post("/train/rep3d", json=settings), 422, words)
    assert server.get("/train/").status_code == 404  # nothing was started


def test_training_requests_that_cannot_be_met(server: AppServer, studies: Path) -> None:
    with unchanged(studies):
        refused(server.post("/train/other", json={}), 404, "'other'")
        refused(server.post("/train/rep3d?run_sync=true", json={}), 422, "run_sync")
        refused(server.post("/train/rep3d", json=[1]), 422, "request body")
        refused(server.post("/scoring/other"), 404, "scoring method")
        refused(server.post("/activelearning/other"), 404, "strategy", "'other'")


def test_model_file_changes_by_training_only(server: AppServer, studies: Path, text_file: Path) -> None:
    with unchanged(studies):
        refused(upload(server, "/model/rep3d", "file", text_file), 403, "training")
        refused(server.request("DELETE", "/model/rep3d"), 403, "training")
    published = (studies / "rep3d" / "models" / "rep3d" / "published.pt").read_bytes()
    assert server.get("/model/rep3d").content == published


def test_a_computer_without_nvidias_tool_says_so(server: AppServer) -> None:
    answer = server.get("/logs/gpu")
    if answer.ok:
        pytest.skip("this machine has nvidia-smi")
    refused(answer, 501, "no nvidia-smi")


def test_the_good_label_survived_all_this(server: AppServer, studies: Path, tmp_path: Path) -> None:
    expected = np.asanyarray(nib.load(write_label(tmp_path / "expected.nii.gz", 0)).dataobj)
    kept = np.asanyarray(nib.load(studies / "labels" / "final" / "case_0.nii.gz").dataobj)
    assert np.array_equal(kept, expected)
