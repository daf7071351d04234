"""Who works on what, and what is known of each case, over HTTP."""

from __future__ import annotations

import gzip
import io
import json
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
from PIL import Image

from tests.app.data import CONF, LABELS, publish_small_model, unchanged, write_image, write_label, write_nifti
from tests.app.server import AppServer


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server with four images that nobody has touched; each test takes its own."""
    studies = tmp_path_factory.mktemp("cases")
    for number in range(4):
        write_image(studies / f"case_{number}.nii.gz", number)
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), {**CONF, "lease_minutes": "30"}) as server:
        yield server


@pytest.fixture
def clean(running: AppServer) -> Iterator[AppServer]:
    """Yield the server without labels and leases, before and after."""
    yield running
    for lease in running.get("/rep3d/leases").json():
        assert running.request("DELETE", f"/rep3d/leases/{lease['image']}").ok
    for case in running.get("/rep3d/cases").json():
        for tag in case["tags"]:
            assert running.request("DELETE", f"/datastore/label?id={case['id']}&tag={tag}").ok


def ask(server: AppServer, user: str | None = None, strategy: str = "first") -> requests.Response:
    """Ask for the next sample."""
    return server.post(f"/activelearning/{strategy}", json={"client_id": user} if user else {})


def submit(server: AppServer, case: str, label: Path, **params: Any) -> requests.Response:
    """Submit a final label."""
    return server.put(
        "/datastore/label",
        params={"image": case, "tag": "final"},
        files={"label": (label.name, label.read_bytes())},
        data={"params": json.dumps(params)},
    )


def refused(answer: requests.Response, status: int, *words: str) -> None:
    assert answer.status_code == status, answer.text
    for word in words:
        assert word in answer.json()["detail"], answer.text


def state(server: AppServer, case: str) -> str:
    return str(server.get(f"/rep3d/cases/{case}").json()["state"])


@pytest.fixture
def label(tmp_path: Path) -> Path:
    return write_label(tmp_path / "label.nii.gz", 0)


# Samples and leases ------------------------------------------------------------------------------------------


def test_two_annotators_never_get_the_same(clean: AppServer) -> None:
    anna, ben = ask(clean, "anna").json(), ask(clean, "ben").json()
    assert (anna["id"], ben["id"]) == ("case_0", "case_1")
    assert (anna["user"], ben["user"]) == ("anna", "ben")
    assert anna["name"] == "case_0.nii.gz" and "path" not in anna
    left = [(lease["image"], lease["user"], lease["until"]) for lease in clean.get("/rep3d/leases").json()]
    assert left == [("case_0", "anna", anna["leased_until"]), ("case_1", "ben", ben["leased_until"])]
    assert state(clean, "case_0") == "leased"
    assert clean.get("/rep3d/cases/case_0").json()["lease"]["user"] == "anna"
    # Who asks again wants another one, and only then his own again.
    assert [ask(clean, "anna").json()["id"] for _ in range(2)] == ["case_2", "case_3"]
    assert ask(clean, "anna").json()["id"] == "case_0"


def test_many_who_ask_at_once_get_different_cases(clean: AppServer) -> None:
    with ThreadPoolExecutor(8) as pool:
        answers = list(pool.map(lambda number: ask(clean, f"user {number}", "random"), range(8)))
    given = [answer.json()["id"] for answer in answers if answer.ok]
    assert sorted(given) == [f"case_{number}" for number in range(4)]
    assert [answer.status_code for answer in answers if not answer.ok] == [404] * 4


def test_every_strategy_keeps_to_what_is_free(clean: AppServer) -> None:
    for number in range(3):
        assert clean.post(f"/rep3d/leases/case_{number}", json={"user": "anna"}).ok
    for strategy in clean.get("/info/").json()["strategies"]:
        assert ask(clean, "ben", strategy).json()["id"] == "case_3", strategy


def test_no_case_left_says_why(clean: AppServer, tmp_path: Path) -> None:
    for number in range(4):
        user = "anna" if number < 2 else "carl"
        assert clean.post(f"/rep3d/leases/case_{number}", json={"user": user}).ok
    with unchanged(clean.studies):
        refused(
            ask(clean, "ben"), 404, "No image is left", "the 4 that are not annotated", "reserved for others", "until "
        )
        refused(ask(clean, "ben", "nonsense"), 404, "strategy", "'nonsense'")
    for number in range(4):
        label = write_label(tmp_path / f"{number}.nii.gz", number)
        assert submit(clean, f"case_{number}", label, user="anna" if number < 2 else "carl").ok
    assert clean.get("/rep3d/leases").json() == []
    with unchanged(clean.studies):
        refused(ask(clean, "ben"), 404, "all 4 are annotated")


def test_submitting_to_anothers_case_is_refused(clean: AppServer, label: Path) -> None:
    assert ask(clean, "anna").json()["id"] == "case_0"
    with unchanged(clean.studies):
        for params in ({"user": "ben"}, {"client_id": "ben"}, {}):
            refused(submit(clean, "case_0", label, **params), 409, "case_0", "reserved for anna until ")
        refused(clean.post("/rep3d/leases/case_0", json={"user": "ben"}), 409, "reserved for anna")
    assert submit(clean, "case_0", label, client_id="anna").ok
    assert clean.get("/rep3d/leases").json() == []
    assert submit(clean, "case_1", label, user="ben").ok  # nobody had it


def test_a_lease_can_be_overridden(clean: AppServer, label: Path) -> None:
    assert ask(clean, "anna").json()["id"] == "case_0"
    refused(submit(clean, "case_0", label, user="ben", override_lease="yes"), 422, "override_lease")
    assert submit(clean, "case_0", label, user="ben", override_lease=True).ok
    assert clean.get("/rep3d/cases/case_0").json()["author"] == "ben"
    assert clean.get("/rep3d/leases").json() == []


def test_who_names_nobody_is_known_by_address(clean: AppServer, label: Path) -> None:
    assert ask(clean).json()["user"] == "127.0.0.1"
    refused(submit(clean, "case_0", label, user=["anna"]), 422, "user")
    assert submit(clean, "case_0", label, user="anna").ok  # from the same address


def test_leases_can_be_ended(clean: AppServer) -> None:
    ask(clean, "anna")
    assert clean.request("DELETE", "/rep3d/leases/case_0").json()["user"] == "anna"
    assert state(clean, "case_0") == "new"
    with unchanged(clean.studies):
        refused(clean.request("DELETE", "/rep3d/leases/case_0"), 404, "case_0")
        refused(clean.post("/rep3d/leases/nobody", json={"user": "anna"}), 404, "nobody")


# Cases -------------------------------------------------------------------------------------------------------


def test_from_new_to_reviewed(clean: AppServer, label: Path, tmp_path: Path) -> None:
    assert state(clean, "case_2") == "new"
    predicted = clean.post("/infer/rep3d", params={"image": "case_2", "output": "image"})
    assert predicted.ok, predicted.text
    case = clean.get("/rep3d/cases/case_2").json()
    assert (case["state"], case["labels"]) == ("predicted", None)
    assert (case["predicted"]["model"], case["predicted"]["version"]) == ("rep3d", "v1")

    assert submit(clean, "case_2", label, user="anna", submission="a name").ok
    case = clean.get("/rep3d/cases/case_2").json()
    assert case["submission"] == "a name"
    truth = np.asanyarray(nib.load(label).dataobj)
    voxel_ml = abs(np.linalg.det(nib.load(label).affine[:3, :3])) / 1000
    assert case["state"] == "submitted"
    assert case["labels"] == {
        name: {"voxels": int((truth == value).sum()), "ml": pytest.approx((truth == value).sum() * voxel_ml, abs=1e-4)}
        for name, value in LABELS.items()
    }
    assert (case["author"], case["source"]) == ("anna", {"model": "rep3d", "version": "v1"})
    assert case["image"] == {"shape": [24, 20, 18], "spacing": [1.005, 1.005, 1.2], "axes": "LAS"}
    drawn = np.asanyarray(nib.Nifti1Image.from_bytes(_gunzip(predicted.content)).dataobj)
    for name, value in LABELS.items():
        a, b = drawn == value, truth == value
        expected = 2 * (a & b).sum() / (a.sum() + b.sum())
        assert case["prediction"]["dice"][name] == pytest.approx(expected, abs=1e-4)
    assert (case["prediction"]["model"], case["prediction"]["version"]) == ("rep3d", "v1")

    for remark in (7, "x" * 501):
        refused(clean.post("/rep3d/cases/case_2/review", json={"user": "ben", "remark": remark}), 422, "remark")
    reviewed = clean.post("/rep3d/cases/case_2/review", json={"user": "ben", "remark": "too thin"}).json()
    assert (reviewed["state"], reviewed["review"]["user"]) == ("reviewed", "ben")
    assert clean.get("/rep3d/cases/case_2").json()["review"]["remark"] == "too thin"
    assert [case["id"] for case in clean.get("/rep3d/cases?state=reviewed").json()] == ["case_2"]
    assert submit(clean, "case_2", label, user="anna").json()["duplicate"] is True
    assert state(clean, "case_2") == "reviewed"  # a retry is no new label
    assert submit(clean, "case_2", write_label(tmp_path / "o.nii.gz", 1), user="anna").ok
    assert state(clean, "case_2") == "submitted"
    clean.post("/rep3d/cases/case_2/review", json={"user": "ben"})
    assert clean.request("DELETE", "/rep3d/cases/case_2/review").json()["state"] == "submitted"
    refused(clean.request("DELETE", "/rep3d/cases/case_2/review"), 404, "review")


def _gunzip(content: bytes) -> bytes:
    return gzip.decompress(content) if content[:2] == b"\x1f\x8b" else content


def test_cases_refuse_what_they_do_not_know(clean: AppServer) -> None:
    with unchanged(clean.studies):
        refused(clean.get("/rep3d/cases?state=odd"), 422, "'odd'", "submitted")
        refused(clean.get("/rep3d/cases?model=odd"), 404, "'odd'")
        refused(clean.get("/rep3d/cases/nobody"), 404, "nobody")
        refused(clean.get("/rep3d/cases/nobody/history"), 404, "nobody")
        refused(clean.get("/rep3d/cases/nobody/thumbnail.png"), 404, "nobody")
        refused(clean.post("/rep3d/cases/case_3/review"), 409, "no final label")
        refused(clean.get("/rep3d/cases/case_3/thumbnail.png?size=100000"), 422, "size")


def test_labels_put_there_by_hand_are_read_in_the_background(clean: AppServer) -> None:
    final = clean.studies / "labels" / "final"
    write_label(final / "case_3.nii.gz", 5)  # none that was ever submitted: that one would have its author again
    (final / "case_1.nii.gz").write_text("this is no label")
    deadline = time.monotonic() + 20
    while True:
        cases = {case["id"]: case for case in clean.get("/rep3d/cases").json()}
        if cases["case_3"]["labels"]:
            break
        assert time.monotonic() < deadline
        time.sleep(0.1)
    assert set(cases["case_3"]["labels"]) == set(LABELS)
    assert cases["case_3"]["state"] == "submitted"
    assert cases["case_3"]["author"] is None
    assert clean.get("/rep3d/cases/case_1").json()["labels"] is None
    refused(clean.post("/rep3d/cases/case_1/review"), 422, "case_1")


# Earlier labels ----------------------------------------------------------------------------------------------


def test_history_and_restore(clean: AppServer, tmp_path: Path) -> None:
    first, second = write_label(tmp_path / "1.nii.gz", 1), write_label(tmp_path / "2.nii.gz", 2)
    start = len(clean.get("/rep3d/cases/case_1/history").json())
    assert submit(clean, "case_1", first, user="anna", model_version="v3").ok
    assert submit(clean, "case_1", second, user="ben").ok
    current, earlier = clean.get("/rep3d/cases/case_1/history").json()[:2]
    assert (current["entry"], current["author"], current["reason"]) == (None, "ben", "current")
    assert (earlier["author"], earlier["reason"], earlier["source"]["version"]) == ("anna", "replaced", "v3")
    assert earlier["time"] and earlier["replaced"] and earlier["tag"] == "final"
    path = f"/rep3d/cases/case_1/history/{earlier['entry']}"
    assert clean.get(path).content == first.read_bytes()

    assert clean.post("/rep3d/leases/case_1", json={"user": "carl"}).ok
    with unchanged(clean.studies):
        refused(clean.post(f"{path}/restore", json={"user": "ben"}), 409, "carl")
    clean.request("DELETE", "/rep3d/leases/case_1")
    assert clean.post("/rep3d/leases/case_1", json={"user": "ben"}).ok
    assert clean.post(f"{path}/restore", json={"user": "ben"}).json()["duplicate"] is False
    assert clean.get("/rep3d/leases").json() == []  # as after any other submission
    assert clean.get("/datastore/label?label=case_1&tag=final").content == first.read_bytes()
    entries = clean.get("/rep3d/cases/case_1/history").json()
    assert len(entries) == start + 3  # the current one, the second, and the first, which stays
    assert (entries[0]["author"], entries[0]["changes"]["restored"]["by"]) == ("anna", "ben")
    assert clean.get(f"/rep3d/cases/case_1/history/{entries[1]['entry']}").content == second.read_bytes()
    with unchanged(clean.studies):  # it is the current one already
        assert clean.post(f"{path}/restore", json={"user": "anna"}).json()["duplicate"] is True


@pytest.mark.parametrize("entry", ["%2e%2e%2fx", "..%2F..%2F..%2Fdatastore_v2", "final", "*", "final-*"])
def test_history_leads_nowhere_else(clean: AppServer, label: Path, entry: str) -> None:
    assert submit(clean, "case_0", label, user="anna").ok
    with unchanged(clean.studies):
        for answer in (
            clean.get(f"/rep3d/cases/case_0/history/{entry}"),
            clean.post(f"/rep3d/cases/case_0/history/{entry}/restore"),
        ):
            assert answer.status_code in (404, 405), answer.text


def test_originals_are_not_restored(clean: AppServer, label: Path, tmp_path: Path) -> None:
    truth = np.asanyarray(nib.load(label).dataobj)
    other = write_nifti(tmp_path / "other.nii.gz", np.where(truth == 3, 2, truth).astype(np.uint8))
    assert submit(clean, "case_0", other, label_info={"head": 1, "tail": 2}).ok
    original = next(e for e in clean.get("/rep3d/cases/case_0/history").json() if e["reason"] == "original")
    with unchanged(clean.studies):
        refused(clean.post(f"/rep3d/cases/case_0/history/{original['entry']}/restore"), 422, "as it was sent")


# Pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.timed
def test_thumbnail_shows_image_and_label(clean: AppServer, label: Path) -> None:
    def picture(size: int = 120) -> np.ndarray:
        answer = clean.get(f"/rep3d/cases/case_0/thumbnail.png?size={size}")
        assert answer.headers["content-type"] == "image/png", answer.text
        return np.asarray(Image.open(io.BytesIO(answer.content)).convert("RGB")).astype(int)

    plain = picture()
    assert max(plain.shape[:2]) == 120
    assert (plain.max(-1) == plain.min(-1)).all()  # grey
    assert submit(clean, "case_0", label).ok
    drawn = picture()
    assert (drawn.max(-1) - drawn.min(-1)).max() > 100  # coloured outlines
    began = time.perf_counter()
    np.testing.assert_array_equal(picture(), drawn)
    assert time.perf_counter() - began < 1.0
    assert max(picture(64).shape[:2]) == 64
    folder = clean.studies / "rep3d" / "thumbnails" / "case_0"
    assert len(list(folder.glob("120-*.png"))) == 1
