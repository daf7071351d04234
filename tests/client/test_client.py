"""The client's operations against an HTTP server: what is sent and understood, and that files come whole."""

from __future__ import annotations

import ast
import gzip
import json
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import Rep3DLabelLib
from Rep3DLabelLib import connection
from Rep3DLabelLib.client import Rep3DClient
from Rep3DLabelLib.errors import (
    BadAnswer,
    ConflictError,
    InvalidRequestError,
    LocalProblem,
    NoSampleLeft,
    NotFoundError,
    ServerBusy,
    ServerFailed,
    ServerTimeout,
    ServerUnreachable,
    WrongAppError,
)

from tests.voxel_bodies import VOXELS, array_of, packed, unpacked, voxels_of

ODD_ID = "Jürgen #1 50%&tag=x/ä +.nii"
QUOTED = "J%C3%BCrgen%20%231%2050%25%26tag%3Dx%2F%C3%A4%20%2B.nii"
AFFINE = np.array([[-0.7, 0.1, 0, 12.5], [0.1, 0.7, 0, -9], [0, 0, 3.1, 1 / 3], [0, 0, 0, 1]])
IMAGE = np.random.default_rng(0).integers(-1000, 2000, (40, 50, 60)).astype(np.int16)
LABEL = (IMAGE > 1500).astype(np.uint8)
FACTS = {"label_names": {"a": 1}, "version": "v1"}


def test_the_client_imports_only_the_standard_library_and_requests():
    """Slicer's Python has no more; all that the client imports of its own package is followed."""
    folder = Path(Rep3DLabelLib.__file__).parent
    pending, seen = [folder / "__init__.py", folder / "client" / "__init__.py"], set()
    while pending:
        module = pending.pop()
        seen.add(module)
        tree = ast.parse(module.read_text(encoding="utf-8"), feature_version=(3, 9))
        for node in ast.walk(tree):
            roots = []
            if isinstance(node, ast.Import):
                roots = [alias.name.partition(".")[0] for alias in node.names]
            elif isinstance(node, ast.ImportFrom) and node.level == 0:
                roots = [(node.module or "").partition(".")[0]]
            elif isinstance(node, ast.ImportFrom):
                assert node.module, f"{module} imports a package"
                found = module.parents[node.level - 1] / f"{node.module.replace('.', '/')}.py"
                assert found.is_relative_to(folder), f"{module} imports from outside its package"
                pending += [found] if found not in seen else []
            for root in roots:
                assert root == "requests" or root in sys.stdlib_module_names, f"{module} imports {root}"
    assert {"client", "transport", "errors", "voxels"} <= {module.stem for module in seen}


# ---- the server


def test_info_is_typed(client):
    info = client.info()
    assert (info.name, info.version) == ("Rep3D Label", "0.1.0")
    assert list(info.labels.items()) == [("Anterior", 1), ("Posterior", 2)]
    assert info.models["rep3d"].description == "Rep3D"
    assert info.strategies == {"random": "Random", "uncertainty": "Most uncertain first"}
    assert info.models["rep3d"].trainable and not info.models["rep3d"].error
    assert (info.published_version, info.device) == ("7", "cpu")
    assert (info.total, info.completed) == (12, 3)


def test_connection_is_ready(client):
    report = client.test_connection()
    assert report.state == connection.READY and client.is_alive()
    assert report.info is not None and "12 images" in report.message and "version 7" in report.message


@pytest.mark.parametrize(
    ("answer", "state", "word"),
    [
        ({"status": 401, "content": {"detail": "Could not validate credentials"}}, connection.NOT_ALLOWED, "API key"),
        ({"status": 403, "content": {"detail": "Role needed"}}, connection.NOT_ALLOWED, "Role needed"),
        ({"status": 503, "content": b"<html><title>Maintenance</title>"}, connection.BUSY, "Maintenance"),
        ({"status": 429, "content": {"detail": "later"}}, connection.BUSY, "later"),
        ({"content": {}, "delay": 0.6}, connection.BUSY, "0.2 s"),
        ({"status": 500, "content": b"Internal Server Error"}, connection.FAILED, "Internal Server Error"),
        ({"status": 404, "content": b"nothing here"}, connection.WRONG_APP, "Another program"),
        ({"content": b"<!DOCTYPE html><html><title>PACS</title></html>"}, connection.WRONG_APP, "PACS"),
        ({"content": {"models": {"spleen": {}}, "name": "Radiology"}}, connection.WRONG_APP, "Radiology"),
        ({"content": [1, 2]}, connection.WRONG_APP, "MONAI Label"),
        ({"status": 302, "headers": {"Location": "https://x/info/"}}, connection.WRONG_APP, "https://x/info/"),
    ],
)
def test_connection_tells_the_causes_apart(server, connect, answer, state, word):
    server.on("GET", "/info/", **answer)
    client = connect(timeouts={"read": 0.2})
    report = client.test_connection()
    assert report.state == state and word in report.message and report.info is None
    assert not client.is_alive()


def test_connection_to_nobody(server):
    client = Rep3DClient(server.url)
    server.http.shutdown()
    server.http.server_close()
    report = client.test_connection()
    assert report.state == connection.UNREACHABLE and "refused" in report.message


def test_an_address_without_tls_is_not_trusted(server):
    client = Rep3DClient(server.url.replace("http://", "https://"))
    assert client.test_connection().state == connection.UNTRUSTED


def test_info_refuses_another_app(server, client):
    server.on("GET", "/info/", {"name": "Radiology", "models": {"spleen": {}}})
    with pytest.raises(WrongAppError, match="spleen"):
        client.info()


# ---- samples, images, labels


def test_next_sample(server, connect):
    server.on("POST", "/activelearning/random", {"id": ODD_ID, "name": "Case 1", "reason": "r", "leased_until": None})
    sample = connect(client_id="anna").next_sample("random")
    assert (sample.id, sample.name, sample.strategy) == (ODD_ID, "Case 1", "random")
    assert (sample.reason, sample.leased_until) == ("r", "")
    assert json.loads(server.received[-1].body) == {"client_id": "anna"}


@pytest.mark.parametrize("answer", [{"status": 404, "content": {"detail": "all are labelled"}}, {"content": {}}])
def test_no_sample_left(server, client, answer):
    server.on("POST", "/activelearning/random", **answer)
    with pytest.raises(NoSampleLeft):
        client.next_sample("random")


def test_an_unknown_strategy_is_not_taken_for_the_end(server, client):
    with pytest.raises(NotFoundError):
        client.next_sample("no such / strategy")
    assert server.received[0].target == "/activelearning/no%20such%20%2F%20strategy"


@pytest.mark.parametrize("name", ["", "..", "."])
def test_a_name_that_leads_elsewhere_is_not_sent(server, client, name):
    with pytest.raises(LocalProblem):
        client.next_sample(name)
    assert not server.received


@pytest.mark.parametrize("encoding", ["gzip", ""])
def test_an_images_voxels(server, client, tmp_path, encoding):
    content = packed({"image": IMAGE}, AFFINE)
    headers = {**VOXELS, "Content-Encoding": encoding} if encoding else VOXELS
    server.on("GET", f"/rep3d/voxels/images/{ODD_ID}", gzip.compress(content) if encoding else content, headers=headers)
    voxels = client.image(ODD_ID, tmp_path)
    assert np.array_equal(array_of(voxels), IMAGE) and np.array_equal(voxels.affine, AFFINE)
    assert (voxels.shape, voxels.dtype) == (IMAGE.shape, "<i2")
    assert server.received[-1].target == f"/rep3d/voxels/images/{QUOTED}"
    assert server.received[-1].headers["accept-encoding"] == "identity"  # on this computer
    assert os.listdir(tmp_path) == [voxels.path.name]


def test_a_labels_voxels(server, client, tmp_path):
    server.on("GET", "/rep3d/voxels/labels/a", packed({"label": LABEL}, AFFINE), headers=VOXELS)
    assert np.array_equal(array_of(client.label("a", "final", tmp_path)), LABEL)
    assert server.received[-1].query == {"tag": "final"}


GOOD = packed({"image": IMAGE})


@pytest.mark.parametrize(
    "answer",
    [
        {"content": GOOD, "cut_after": 5000},
        {"content": GOOD[:5000], "announce": False},
        {"content": GOOD[:20], "announce": False},
        {"content": GOOD + b"x"},
        {"content": GOOD[:-1] + b"x"},
        {"content": gzip.compress(GOOD)[:-5000], "announce": False, "headers": {**VOXELS, "Content-Encoding": "gzip"}},
        {"content": packed({"image": IMAGE}, dtype="<f4")},
        {"content": packed({"image": IMAGE}, dtype="O")},
        {"content": packed({"image": IMAGE}, dtype=None)},
        {"content": packed({"image": IMAGE}, shape=[40, 50])},
        {"content": packed({"image": IMAGE}, shape="big")},
        {"content": packed({"image": IMAGE}, affine=[[1, 0], [0, 1]])},
        {"content": packed({"image": IMAGE}, crc32=1)},
        {"content": packed({"image": IMAGE}, bytes=7)},
        {"content": packed({"other": IMAGE})},
        {"content": b""},
        {"content": b"[]\n"},
        {"content": b"\n"},
        {"content": b"x" * 3_000_000},
        {"content": b"<html><title>Login</title></html>", "headers": {"Content-Type": "text/html"}},
        {"content": {}, "headers": {"Content-Type": "application/json"}},
    ],
)
def test_bad_voxels_leave_no_file(server, client, tmp_path, answer):
    server.on("GET", "/rep3d/voxels/images/a", **{"headers": VOXELS, **answer})
    with pytest.raises(BadAnswer):
        client.image("a", tmp_path)
    assert os.listdir(tmp_path) == [] or answer["content"] == packed({"other": IMAGE})


def test_a_download_that_stalls_times_out(server, connect, tmp_path):
    server.on("GET", "/rep3d/voxels/images/a", GOOD, headers=VOXELS, pause=0.8)
    with pytest.raises(ServerTimeout):
        connect(timeouts={"transfer": 0.2}).image("a", tmp_path)
    assert os.listdir(tmp_path) == []


def test_a_download_needs_its_folder(server, client, tmp_path):
    server.on("GET", "/rep3d/voxels/images/a", GOOD, headers=VOXELS)
    with pytest.raises(LocalProblem, match="Cannot write"):
        client.image("a", tmp_path / "missing")


def test_unknown_image(server, client, tmp_path):
    server.on("GET", "/rep3d/voxels/images/a", {"detail": "There is no image 'a'"}, status=404)
    with pytest.raises(NotFoundError, match="no image 'a'") as caught:
        client.image("a", tmp_path)
    assert (caught.value.status, caught.value.detail) == (404, "There is no image 'a'")


def test_add_image(server, connect, tmp_path):
    server.on("PUT", "/rep3d/voxels/images/p.1.final", {"image": "p.1.final"})
    assert connect(client_id="anna").add_image("p.1.final", voxels_of(IMAGE, tmp_path / "v.raw", AFFINE)) == "p.1.final"
    request = server.received[-1]
    assert request.headers["content-length"] == str(len(request.body)) and "transfer-encoding" not in request.headers
    about, arrays = unpacked(request.body)
    assert np.array_equal(arrays["image"], IMAGE) and np.array_equal(about["affine"], AFFINE)
    assert about["params"] == {"client_id": "anna"} and os.listdir(tmp_path) == ["v.raw"]
    server.on("PUT", "/rep3d/voxels/images/a", {})
    with pytest.raises(BadAnswer, match="did not confirm"):
        connect().add_image("a", voxels_of(IMAGE, tmp_path / "v.raw"))


def test_submit_label(server, client, tmp_path):
    server.on("PUT", f"/rep3d/voxels/labels/{ODD_ID}", {"image": ODD_ID, "label": "l7", "duplicate": True})
    done = client.submit_label(ODD_ID, voxels_of(LABEL, tmp_path / "v.raw", AFFINE), params={"minutes": 3})
    assert (done.image_id, done.duplicate, done.remapped, done.resampled) == (ODD_ID, True, False, False)
    request = server.received[-1]
    assert request.query == {"tag": "final"} and request.headers["content-type"] == VOXELS["Content-Type"]
    about, arrays = unpacked(request.body)
    assert np.array_equal(arrays["label"], LABEL) and about["params"] == {"minutes": 3}
    server.on("PUT", "/rep3d/voxels/labels/a", ["stored"])
    with pytest.raises(BadAnswer, match="did not confirm"):
        client.submit_label("a", voxels_of(LABEL, tmp_path / "v.raw"))


def test_voxels_are_compressed_on_their_way_to_another_computer(server, client, tmp_path):
    client._transport.packs = True
    server.on("PUT", "/rep3d/voxels/labels/a", {"label": "a"})
    client.submit_label("a", voxels_of(LABEL, tmp_path / "v.raw"))
    request = server.received[-1]
    assert request.headers["content-encoding"] == "gzip" and len(request.body) < LABEL.size / 2
    assert np.array_equal(unpacked(gzip.decompress(request.body))[1]["label"], LABEL)
    assert not Rep3DClient("127.0.0.1:1")._transport.packs and Rep3DClient("server.example:1")._transport.packs


def test_a_refused_label_says_why(server, client, tmp_path):
    detail = [
        {"loc": ["query", "image"], "msg": "Field required", "type": "missing"},
        {"loc": ["body", "label"], "msg": "Value error", "type": "value_error"},
    ]
    server.on("PUT", "/rep3d/voxels/labels/a", {"detail": detail}, status=422)
    with pytest.raises(InvalidRequestError, match="query image: Field required; body label: Value error"):
        client.submit_label("a", voxels_of(LABEL, tmp_path / "v.raw"))


@pytest.mark.parametrize("trouble", [{"reset": True}, {"status": 503}, {"content": {}, "delay": 0.6}])
def test_an_upload_is_never_sent_twice(server, connect, tmp_path, trouble):
    server.on("PUT", "/rep3d/voxels/labels/a", **trouble)
    with pytest.raises((ServerUnreachable, ServerBusy, ServerTimeout)):
        connect(timeouts={"transfer": 0.2}).submit_label("a", voxels_of(LABEL, tmp_path / "v.raw"))
    assert len(server.received) == 1 and os.listdir(tmp_path) == ["v.raw"]


def test_a_missing_file_is_not_sent(server, client, tmp_path):
    source = voxels_of(LABEL, tmp_path / "v.raw")
    source.path.unlink()
    with pytest.raises(LocalProblem):
        client.submit_label("a", source)
    assert not server.received


# ---- segmentation


def test_infer(server, client, tmp_path):
    told = {**FACTS, "uncertainty": 0.25, "device": "cpu", "latencies": {"total": 1.5}, "missing_labels": ["b"]}
    told.update(confidence={"a": 0.9, "b": None}, fallback="on the CPU")
    shares = np.linspace(0, 1, LABEL.size, dtype=np.float32).reshape(LABEL.shape)
    content = packed({"label": LABEL, "uncertainty": shares}, AFFINE, told)
    server.on("POST", "/rep3d/voxels/infer/rep3d", content, headers=VOXELS)
    result = client.infer(ODD_ID, tmp_path, params={"views": 2})
    assert np.array_equal(array_of(result.label), LABEL) and np.array_equal(array_of(result.uncertainty), shares)
    facts = result.facts
    assert (facts.labels, facts.version, facts.device, facts.seconds) == ({"a": 1}, "v1", "cpu", 1.5)
    assert (facts.uncertainty, facts.confidence, facts.missing, facts.note) == (0.25, {"a": 0.9}, ("b",), "on the CPU")
    request = server.received[-1]
    assert request.query == {"image": ODD_ID} and json.loads(request.body) == {"views": 2}


@pytest.mark.parametrize(
    "answer",
    [
        {"content": {"note": "no label"}},
        {"content": None},
        {"content": packed({"image": LABEL}, None, FACTS), "headers": VOXELS},
        {"content": packed({"label": LABEL}), "headers": VOXELS},
        {"content": packed({"label": LABEL}, None, {"label_names": {"a": "1"}}), "headers": VOXELS},
    ],
)
def test_an_answer_without_a_label_is_bad(server, client, tmp_path, answer):
    server.on("POST", "/rep3d/voxels/infer/rep3d", **answer)
    with pytest.raises(BadAnswer):
        client.infer("a", tmp_path)


def test_no_model_yet(server, client, tmp_path):
    server.on("POST", "/rep3d/voxels/infer/rep3d", {"detail": "Train first"}, status=409)
    with pytest.raises(ConflictError, match="Train first"):
        client.infer("a", tmp_path)


def test_inference_has_its_own_time_limit(server, connect, tmp_path):
    server.on("POST", "/rep3d/voxels/infer/rep3d", packed({"label": LABEL}, None, FACTS), headers=VOXELS, delay=0.5)
    assert connect(timeouts={"read": 0.1, "infer": 5.0}).infer("a", tmp_path).facts.version == "v1"
    with pytest.raises(ServerTimeout, match="0.1 s"):
        connect(timeouts={"read": 5.0, "infer": 0.1}).infer("a", tmp_path)


def test_server_failure(server, client, tmp_path):
    server.on("POST", "/rep3d/voxels/infer/rep3d", b"Internal Server Error", status=500)
    with pytest.raises(ServerFailed, match="log") as caught:
        client.infer("a", tmp_path)
    assert caught.value.status == 500
