"""Voxels over HTTP: what comes is what the files mean, what is sent is stored to the bit; bad input changes nothing."""

from __future__ import annotations

import gzip
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests

from tests.app.data import AFFINE, LABELS, SHAPE, unchanged, write_nifti
from tests.app.server import AppServer
from tests.voxel_bodies import VOXELS, packed, unpacked

Store = Callable[[nib.spatialimages.SpatialImage], str]
LABEL = np.random.default_rng(3).choice([0, *LABELS.values()], SHAPE).astype(np.uint8)


@pytest.fixture
def store(server: AppServer, studies: Path) -> Iterator[Store]:
    """Put an image file into the studies folder, and give its id; all are gone afterwards."""
    names = []

    def put(image: nib.spatialimages.SpatialImage) -> str:
        names.append(f"voxels-{uuid.uuid4().hex}")
        nib.save(image, studies / f"{names[-1]}.nii.gz")
        assert server.post("/reload").ok
        return names[-1]

    yield put
    for name in names:
        assert server.request("DELETE", "/datastore", params={"id": name}).ok
    server.post("/reload")


@pytest.fixture
def case(store: Store) -> str:
    """Return an image without a label."""
    return store(nib.Nifti1Image(np.random.default_rng(0).normal(100, 9, SHAPE).astype(np.int16), AFFINE))


def get(server: AppServer, path: str, **options: Any) -> tuple[dict[str, Any], dict[str, np.ndarray]]:
    answer = server.get(f"/rep3d/voxels/{path}", **options)
    assert answer.ok, answer.text
    assert answer.headers["content-type"] == VOXELS["Content-Type"]
    return unpacked(answer.content)


def put(server: AppServer, path: str, body: bytes, **headers: str) -> requests.Response:
    return server.put(f"/rep3d/voxels/{path}", data=body, headers={**VOXELS, **headers})


def label_file(studies: Path, case: str) -> nib.Nifti1Image:
    return nib.load(studies / "labels" / "final" / f"{case}.nii.gz")


# ---- images


@pytest.mark.parametrize("dtype", ["uint8", "int8", "int16", "uint16", "int32", "uint32", "float32", "float64", ">i2"])
@pytest.mark.parametrize("affine", [AFFINE, AFFINE[:, [2, 0, 1, 3]] @ np.diag([1, -1, 0.5, 1])], ids=["own", "turned"])
def test_an_image_is_what_its_file_means(server: AppServer, store: Store, dtype: str, affine: np.ndarray) -> None:
    image = nib.Nifti1Image(np.random.default_rng(1).integers(0, 99, (5, 6, 7)).astype(dtype), affine)
    about, arrays = get(server, f"images/{store(image)}")
    assert np.array_equal(arrays["image"], image.get_fdata()) and arrays["image"].dtype.kind == np.dtype(dtype).kind
    assert np.array_equal(about["affine"], image.affine.astype(np.float32)) and about["shape"] == [5, 6, 7]


def test_scaled_values_and_a_trailing_axis(server: AppServer, store: Store) -> None:
    image = nib.Nifti1Image(np.arange(210, dtype=np.int16).reshape(5, 6, 7, 1), AFFINE)
    image.header.set_slope_inter(2.0, -1024.0)
    _, arrays = get(server, f"images/{store(image)}")
    assert np.array_equal(arrays["image"], np.arange(210).reshape(5, 6, 7) * 2.0 - 1024)


@pytest.mark.parametrize("encoding", ["gzip", "identity"])
def test_voxels_are_compressed_where_that_is_wanted(server: AppServer, case: str, encoding: str) -> None:
    answer = server.get(f"/rep3d/voxels/images/{case}", headers={"Accept-Encoding": encoding}, stream=True)
    assert answer.headers.get("content-encoding", "identity") == encoding
    raw = answer.raw.read()
    assert unpacked(gzip.decompress(raw) if encoding == "gzip" else raw)[0]["shape"] == list(SHAPE)


@pytest.mark.parametrize(
    ("image", "words"),
    [
        (nib.Nifti1Image(np.zeros((4, 5, 6, 2), np.int16), AFFINE), "4 x 5 x 6 x 2|4, 5, 6, 2"),
        (nib.Nifti1Image(np.zeros((4, 5, 6), np.complex64), AFFINE), "complex"),
        (nib.Nifti1Image(np.zeros((4, 5, 6), [("R", "u1"), ("G", "u1"), ("B", "u1")]), AFFINE), "voxel"),
        (nib.Nifti1Image(np.full((4, 5, 6), np.nan, np.float32), AFFINE), "finite|number"),
    ],
    ids=["4D", "complex", "colour", "nothing finite"],
)
def test_an_image_that_cannot_be_used_is_told_in_words(server: AppServer, store: Store, image: Any, words: str) -> None:
    name = store(image)
    answer = server.get(f"/rep3d/voxels/images/{name}")
    assert answer.status_code == 422
    assert any(word in answer.json()["detail"] for word in words.split("|")), answer.text


def test_what_is_not_there_is_404(server: AppServer, case: str) -> None:
    for path in ("images/none", "labels/none", f"labels/{case}", f"labels/{case}?tag=other"):
        answer = server.get(f"/rep3d/voxels/{path}")
        assert answer.status_code == 404 and answer.json()["detail"], path
    assert put(server, "labels/none", packed({"label": LABEL}, AFFINE)).status_code == 404
    answer = server.post("/rep3d/voxels/infer/none", params={"image": case}, json={})
    assert answer.status_code == 404
    assert server.post("/rep3d/voxels/infer/rep3d", params={"image": "none"}, json={}).status_code == 404


@pytest.mark.parametrize("dtype", ["|u1", "<i2", "<f4", "<f8"])
@pytest.mark.parametrize("encoding", ["gzip", ""])
def test_an_image_is_added(server: AppServer, studies: Path, dtype: str, encoding: str) -> None:
    name = f"added-{uuid.uuid4().hex}"
    voxels = np.random.default_rng(2).integers(0, 99, (5, 6, 7)).astype(dtype)
    body = packed({"image": voxels}, AFFINE, {"client_id": "anna"})
    answer = put(server, f"images/{name}", gzip.compress(body) if encoding else body, **{"Content-Encoding": encoding})
    assert answer.json() == {"image": name}
    file = nib.load(studies / f"{name}.nii.gz")
    assert np.array_equal(file.dataobj, voxels) and file.header.get_xyzt_units()[0] == "mm"
    assert np.array_equal(file.affine, AFFINE.astype(np.float32))
    with unchanged(studies):
        assert put(server, f"images/{name}", body).status_code == 409
    assert server.request("DELETE", "/datastore", params={"id": name}).ok


# ---- labels


def test_a_label_is_stored_on_the_images_own_affine_and_comes_back_as_it_was(
    server: AppServer, studies: Path, case: str
) -> None:
    off = AFFINE.copy()
    off[0, 3] += 0.02  # as close as software that rounds
    answer = put(server, f"labels/{case}", packed({"label": LABEL}, off, {"client_id": "anna"}))
    assert answer.json() == {"image": case, "label": case}
    assert np.array_equal(label_file(studies, case).dataobj, LABEL)
    assert np.array_equal(label_file(studies, case).affine, nib.load(studies / f"{case}.nii.gz").affine)
    about, arrays = get(server, f"labels/{case}?tag=final")
    assert np.array_equal(arrays["label"], LABEL)
    assert about["affine"] == get(server, f"images/{case}")[0]["affine"]
    again = put(server, f"labels/{case}", packed({"label": LABEL.astype(np.uint16)}, off, {"client_id": "anna"}))
    assert again.json()["duplicate"] is True
    assert put(server, f"labels/{case}", packed({"label": LABEL[::-1]}, AFFINE, {"client_id": "anna"})).ok
    _, earlier = server.get(f"/rep3d/cases/{case}/history").json()
    assert np.array_equal(get(server, f"labels/{case}?entry={earlier['entry']}")[1]["label"], LABEL)
    assert server.get(f"/rep3d/voxels/labels/{case}?entry=..%2F..%2Fnone").status_code == 404


def test_a_label_that_came_as_a_file_lies_on_the_images_own_affine_too(
    server: AppServer, studies: Path, case: str, tmp_path: Path
) -> None:
    """The server stored it as it came, 0.02 mm off; the module for Slicer refused to open such a case."""
    off = AFFINE.copy()
    off[:3, 3] += 0.02
    file = write_nifti(tmp_path / "label.nii.gz", LABEL, off)
    form = {"label": (file.name, file.read_bytes())}
    assert server.put("/datastore/label", params={"image": case}, files=form).ok
    image = nib.load(studies / f"{case}.nii.gz")
    assert np.array_equal(label_file(studies, case).affine, image.affine)
    assert np.array_equal(get(server, f"labels/{case}")[1]["label"], LABEL)


def test_an_old_label_that_lies_a_little_off_is_served_where_the_image_is(
    server: AppServer, studies: Path, store: Store, tmp_path: Path
) -> None:
    name = store(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE))
    for shift, status in ((0.02, 200), (2.0, 422)):
        off = AFFINE.copy()
        off[0, 3] += shift
        write_nifti(studies / "labels" / "final" / f"{name}.nii.gz", LABEL, off)
        assert server.post("/reload").ok
        answer = server.get(f"/rep3d/voxels/labels/{name}")
        assert answer.status_code == status, answer.text
        if status == 200:
            about, arrays = unpacked(answer.content)
            assert np.array_equal(arrays["label"], LABEL)
            assert about["affine"] == get(server, f"images/{name}")[0]["affine"]
        else:
            assert "does not lie on the voxels of image" in answer.json()["detail"]


def test_names_and_params_count_as_with_a_file(server: AppServer, studies: Path, case: str) -> None:
    swapped = {"client_id": "anna", "label_info": [{"name": "head", "idx": 3}, {"name": "tail", "idx": 1}]}
    answer = put(server, f"labels/{case}", packed({"label": LABEL}, AFFINE, swapped))
    assert answer.json()["remapped"] == {"1": 3, "3": 1}
    expected = np.select([LABEL == 1, LABEL == 3], [3, 1], 0)
    assert np.array_equal(get(server, f"labels/{case}")[1]["label"], expected)
    assert np.array_equal(label_file(studies, case).dataobj, expected)
    with unchanged(studies):
        empty = packed({"label": np.zeros(SHAPE, np.uint8)}, AFFINE)
        assert put(server, f"labels/{case}", empty).status_code == 422
    empty = packed({"label": np.zeros(SHAPE, np.uint8)}, AFFINE, {"empty": True})
    assert put(server, f"labels/{case}", empty).ok and not get(server, f"labels/{case}")[1]["label"].any()


def test_a_reserved_image_is_respected(server: AppServer, studies: Path, case: str) -> None:
    assert server.post(f"/rep3d/leases/{case}", json={"client_id": "ben"}).ok
    body = packed({"label": LABEL}, AFFINE, {"client_id": "anna"})
    with unchanged(studies):
        answer = put(server, f"labels/{case}", body)
    assert answer.status_code == 409 and "ben" in answer.json()["detail"]
    body = packed({"label": LABEL}, AFFINE, {"client_id": "anna", "override_lease": True})
    assert put(server, f"labels/{case}", body).ok


def test_a_label_is_stored_only_on_the_image_and_over_the_label_that_were_seen(
    server: AppServer, studies: Path, case: str
) -> None:
    def send(label: np.ndarray, **expected: Any) -> requests.Response:
        return put(server, f"labels/{case}", packed({"label": label}, AFFINE, {"submission": "one", **expected}))

    def known() -> dict[str, Any]:
        found = server.get(f"/rep3d/cases/{case}").json()
        return {"time": found["time"], "submission": found["submission"]}

    mark, other = get(server, f"images/{case}")[0]["params"]["mark"], np.roll(LABEL, 1, 0)
    assert send(LABEL, drawn_on=mark, replaces={}).ok
    with unchanged(studies):
        answer = send(other, replaces={})
        assert (answer.status_code, answer.json()["reason"]) == (409, "label_replaced")
        assert send(other, replaces={**known(), "submission": "two"}).status_code == 409
        assert send(LABEL, replaces={}).json()["duplicate"]  # the answer to the first was lost
        assert send(other, replaces=3).status_code == send(other, drawn_on=3).status_code == 422
    assert send(other, drawn_on=mark, replaces=known()).ok
    file = studies / f"{case}.nii.gz"
    nib.save(nib.Nifti1Image(np.zeros(SHAPE, np.int16), AFFINE), file)
    with unchanged(studies):
        answer = send(LABEL, drawn_on=mark)
    assert (answer.status_code, answer.json()["reason"]) == (409, "image_replaced")
    assert send(LABEL, drawn_on=get(server, f"images/{case}")[0]["params"]["mark"]).ok


GOOD = packed({"label": LABEL}, AFFINE)
FAR = AFFINE @ np.array([[1, 0, 0, 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
BAD = {
    "no body": b"",
    "no line": b"x" * 2_000_000,
    "no JSON": b"{]\n" + LABEL.tobytes(),
    "another JSON": b"[1]\n",
    "cut": GOOD[:-1],
    "only the line": GOOD.partition(b"\n")[0] + b"\n",
    "more": GOOD + b"\0",
    "damaged": GOOD[:-1] + bytes([GOOD[-1] ^ 1]),
    "wrong checksum": packed({"label": LABEL}, AFFINE, crc32=7),
    "checksum of text": packed({"label": LABEL}, AFFINE, crc32="7"),
    "wrong size": packed({"label": LABEL}, AFFINE, bytes=7),
    "size of text": packed({"label": LABEL}, AFFINE, bytes="many"),
    "two arrays": packed({"label": LABEL, "other": LABEL}, AFFINE),
    "objects": packed({"label": LABEL}, AFFINE, dtype="|O"),
    "big endian": packed({"label": LABEL}, AFFINE, dtype=">u1"),
    "complex": packed({"label": LABEL.astype(np.complex64)}, AFFINE),
    "no type": packed({"label": LABEL}, AFFINE, dtype=None),
    "fractions": packed({"label": LABEL.astype(np.float32) / 2}, AFFINE),
    "negative": packed({"label": LABEL.astype(np.int16) - 1}, AFFINE),
    "too high": packed({"label": LABEL.astype(np.int32) * 70_000}, AFFINE),
    "no label's value": packed({"label": LABEL * 3}, AFFINE),
    "another shape": packed({"label": LABEL[:-1]}, AFFINE),
    "turned": packed({"label": np.ascontiguousarray(LABEL.transpose(1, 0, 2))}, AFFINE),
    "two axes": packed({"label": LABEL}, AFFINE, shape=[24, 360]),
    "negative shape": packed({"label": LABEL}, AFFINE, shape=[-24, -20, 18]),
    "huge": packed({"label": LABEL}, AFFINE, shape=[30000, 30000, 30000]),
    "shape of text": packed({"label": LABEL}, AFFINE, shape="24"),
    "elsewhere": packed({"label": LABEL}, FAR),
    "flipped": packed({"label": LABEL}, AFFINE @ np.diag([-1, 1, 1, 1])),
    "no affine": packed({"label": LABEL}, "none"),
    "flat affine": packed({"label": LABEL}, np.diag([1, 1, 0, 1])),
    "affine of NaN": packed({"label": LABEL}, np.full((4, 4), np.nan)),
    "ragged affine": packed({"label": LABEL}, [[1, 0], [0]]),
    "params of text": packed({"label": LABEL}, AFFINE, "x"),  # type: ignore[arg-type]
    "params of NaN": packed({"label": LABEL}, AFFINE, {"a": float("nan")}),
}


@pytest.mark.parametrize("what", BAD)
def test_bad_voxels_are_refused_in_words_and_change_nothing(
    server: AppServer, studies: Path, case: str, what: str
) -> None:
    with unchanged(studies):
        answer = put(server, f"labels/{case}", BAD[what])
        assert answer.status_code == 422, (answer.status_code, answer.text)
        assert len(answer.json()["detail"]) > 20 and "Traceback" not in answer.text
        if what not in ("fractions", "negative", "too high", "no label's value", "another shape"):
            name = f"bad-{uuid.uuid4().hex}"
            if what not in ("turned", "elsewhere", "flipped"):  # which are fine for an image of its own
                assert put(server, f"images/{name}", BAD[what]).status_code == 422
    assert server.get(f"/rep3d/voxels/labels/{case}").status_code == 404


@pytest.mark.parametrize(
    ("body", "encoding"),
    [
        (gzip.compress(GOOD)[:-9], "gzip"),
        (gzip.compress(GOOD)[:200], "gzip"),
        (gzip.compress(GOOD) + b"more", "gzip"),
        (GOOD, "gzip"),
        (gzip.compress(GOOD), "br"),
        (gzip.compress(GOOD.partition(b"\n")[0] + b"\n" + bytes(300_000_000)), "gzip"),
    ],
    ids=["cut", "half", "more", "not packed", "unknown", "a bomb"],
)
def test_bodies_packed_wrongly(server: AppServer, studies: Path, case: str, body: bytes, encoding: str) -> None:
    with unchanged(studies):
        answer = put(server, f"labels/{case}", body, **{"Content-Encoding": encoding})
    assert answer.status_code == 422 and "voxels" in answer.json()["detail"].lower()


# ---- segmentations


def test_a_segmentation_is_the_one_that_comes_as_a_file(server: AppServer, case: str, tmp_path: Path) -> None:
    answer = server.post(
        "/rep3d/voxels/infer/rep3d", params={"image": case}, json={"uncertainty": True, "request_id": f"r-{case}"}
    )
    about, arrays = unpacked(answer.content)
    assert about["params"]["label_names"] == LABELS and about["params"]["version"] == "v1"
    assert about["affine"] == get(server, f"images/{case}")[0]["affine"]
    stock = server.post("/infer/rep3d", params={"image": case, "output": "image"})
    (tmp_path / "stock.nii.gz").write_bytes(stock.content)
    assert np.array_equal(nib.load(tmp_path / "stock.nii.gz").dataobj, arrays["label"])
    (tmp_path / "map.nii.gz").write_bytes(server.get(f"/rep3d/requests/r-{case}/uncertainty").content)
    assert np.allclose(nib.load(tmp_path / "map.nii.gz").get_fdata(), arrays["uncertainty"], atol=1e-6)
    assert arrays["uncertainty"].min() >= 0 and arrays["uncertainty"].max() <= 1
    assert set(unpacked(server.post("/rep3d/voxels/infer/rep3d", params={"image": case}).content)[1]) == {"label"}


@pytest.mark.parametrize("params", [{"views": 99}, {"nonsense": 1}, {"uncertainty": "yes"}, {"request_id": "a/b"}])
def test_settings_of_a_segmentation_are_checked(server: AppServer, case: str, params: dict[str, Any]) -> None:
    answer = server.post("/rep3d/voxels/infer/rep3d", params={"image": case}, json=params)
    assert answer.status_code == 422 and answer.json()["detail"]
