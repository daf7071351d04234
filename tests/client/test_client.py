"""The client's operations against an HTTP server: what is sent and understood, and that files come whole."""

from __future__ import annotations

import ast
import gzip
import json
import os
import sys
from pathlib import Path

import pytest
import Rep3DLabelLib
from Rep3DLabelLib import connection
from Rep3DLabelLib.client import Rep3DClient
from Rep3DLabelLib.client.multipart import parse_multipart
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
from requests_toolbelt import MultipartEncoder

ODD_ID = "Jürgen #1 50%&tag=x/ä +.nii"
IMAGE = gzip.compress(os.urandom(200_000))
LABEL = gzip.compress(bytes(range(256)) * 300)


def infer_answer(label=LABEL, params=None, filename="tmpx.nii.gz"):
    """Build an answer as the real server does."""
    fields = {"params": (None, json.dumps({} if params is None else params), "application/json")}
    if label is not None:
        fields["image"] = (filename, label, "application/octet-stream")
    encoder = MultipartEncoder(fields=fields)
    return encoder.to_string(), {"Content-Type": encoder.content_type}


def sent_form(request):
    return parse_multipart(request.body, request.headers["content-type"])


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
    assert {"client", "transport", "errors", "multipart"} <= {module.stem for module in seen}


# ---- the server


def test_info_is_typed(client):
    info = client.info()
    assert (info.name, info.version) == ("Rep3D Label", "0.1.0")
    assert list(info.labels.items()) == [("Anterior", 1), ("Posterior", 2)]
    assert info.models["rep3d"].description == "Rep3D"
    assert info.strategies == {"random": "Random", "uncertainty": "Most uncertain first"}
    assert info.trainers == {"rep3d": "Trains Rep3D"} and info.scoring == {"uncertainty": "Mean entropy"}
    assert (info.published_version, info.device) == ("7", "cpu")
    assert (info.total, info.completed, info.label_tags) == (12, 3, {"final": 3, "original": 5})


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
        ({"status": 404, "content": b"nothing here"}, connection.WRONG_APP, "another program"),
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
    server.on("POST", "/activelearning/random", {"id": ODD_ID, "name": "Case 1", "ts": 5})
    sample = connect(client_id="anna").next_sample("random")
    assert (sample.id, sample.name, sample.info["ts"]) == (ODD_ID, "Case 1", 5)
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


def test_download_image_with_an_odd_id(server, client, tmp_path):
    server.on("GET", "/datastore/image", IMAGE)
    path = client.download_image(ODD_ID, tmp_path / "a.nii.gz")
    assert path.read_bytes() == IMAGE
    assert server.received[-1].query == {"image": ODD_ID}
    assert os.listdir(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize(
    ("name", "stored"),
    [
        ('attachment; filename="scan.nii.gz"', "scan.nii.gz"),
        ("attachment; filename*=utf-8''J%C3%BCrgen%201.nii.gz", "Jürgen 1.nii.gz"),
        ('attachment; filename="../../evil.nii.gz"', "evil.nii.gz"),
        ('attachment; filename=".."', "a_b.nii.gz"),
        ("", "a_b.nii.gz"),
    ],
)
def test_download_into_a_folder_keeps_a_safe_name(server, client, tmp_path, name, stored):
    server.on("GET", "/datastore/image", IMAGE, headers={"Content-Disposition": name} if name else {})
    folder = tmp_path / "in" / "here"
    folder.mkdir(parents=True)
    assert client.download_image("a/b", folder) == folder / stored
    assert os.listdir(folder) == [stored]


@pytest.mark.parametrize(
    "answer",
    [
        {"content": IMAGE, "cut_after": 5000},
        {"content": IMAGE[:-9], "announce": False},
        {"content": IMAGE[:5000]},
        {"content": b""},
        {"content": b"not compressed"},
        {"content": b"<html><title>Login</title></html>", "headers": {"Content-Type": "text/html"}},
        {"content": {}},
        {"content": IMAGE, "headers": {"Content-Disposition": 'attachment; filename="a.nrrd"'}},
    ],
)
def test_a_bad_download_leaves_the_old_file_alone(server, client, tmp_path, answer):
    server.on("GET", "/datastore/image", **answer)
    target = tmp_path / "a.nii.gz"
    target.write_bytes(b"old")
    with pytest.raises(BadAnswer):
        client.download_image("a", target)
    assert target.read_bytes() == b"old" and os.listdir(tmp_path) == ["a.nii.gz"]


@pytest.mark.parametrize("kind", ["text/html; charset=utf-8", "application/json"])
def test_a_web_page_is_not_stored_as_an_image(server, client, tmp_path, kind):
    server.on("GET", "/datastore/image", b"not an image", headers={"Content-Type": kind})
    with pytest.raises(BadAnswer, match="Expected an image file"):
        client.download_image("a", tmp_path / "a.nii")
    assert os.listdir(tmp_path) == []


def test_a_download_that_stalls_times_out(server, connect, tmp_path):
    server.on("GET", "/datastore/image", IMAGE, pause=0.8)
    with pytest.raises(ServerTimeout):
        connect(timeouts={"transfer": 0.2}).download_image("a", tmp_path / "a.nii.gz")
    assert os.listdir(tmp_path) == []


def test_an_uncompressed_download_that_is_cut(server, client, tmp_path):
    """Slicer's urllib3 may be older than 2.0, which does not compare the length with what came."""
    server.on("GET", "/datastore/image", bytes(100_000), cut_after=90_000)
    with pytest.raises(BadAnswer, match="cut"):
        client.download_image("a", tmp_path / "a.nii")
    assert os.listdir(tmp_path) == []


def test_a_download_needs_its_folder(server, client, tmp_path):
    server.on("GET", "/datastore/image", IMAGE)
    with pytest.raises(LocalProblem, match="folder"):
        client.download_image("a", tmp_path / "missing" / "a.nii.gz")


def test_an_uncompressed_image_is_not_checked_as_compressed(server, client, tmp_path):
    server.on("GET", "/datastore/image", b"n+1 data")
    assert client.download_image("a", tmp_path / "a.nii").read_bytes() == b"n+1 data"


def test_unknown_image(server, client, tmp_path):
    server.on("GET", "/datastore/image", {"detail": "There is no image 'a'"}, status=404)
    with pytest.raises(NotFoundError, match="no image 'a'") as caught:
        client.download_image("a", tmp_path / "a.nii.gz")
    assert (caught.value.status, caught.value.detail) == (404, "There is no image 'a'")


def test_download_label(server, client, tmp_path):
    server.on("GET", "/datastore/label", LABEL)
    assert client.download_label(ODD_ID, "final", tmp_path / "l.nii.gz").read_bytes() == LABEL
    assert server.received[-1].query == {"label": ODD_ID, "tag": "final"}


def test_upload_image(server, connect, tmp_path):
    server.on("PUT", "/datastore/image", {"image": "p.1.final"})
    source = tmp_path / "p.1.final.nii.gz"
    source.write_bytes(IMAGE)
    assert connect(client_id="anna").upload_image(source) == "p.1.final"
    request = server.received[-1]
    assert request.query == {"image": "p.1.final"}
    assert request.headers["content-length"] == str(len(request.body)) and "transfer-encoding" not in request.headers
    form = sent_form(request)
    assert form["file"].content == IMAGE and json.loads(form["params"].content) == {"client_id": "anna"}
    assert form["file"].filename == "file.nii.gz"  # the server takes all after the first dot for the suffix


def test_submit_label(server, client, tmp_path):
    server.on("PUT", "/datastore/label", {"image": ODD_ID, "label": "l7", "note": "kept"})
    source = tmp_path / "l.nii.gz"
    source.write_bytes(LABEL)
    done = client.submit_label(ODD_ID, source, params={"minutes": 3})
    assert (done.image_id, done.label_id, done.tag, done.answer["note"]) == (ODD_ID, "l7", "final", "kept")
    request = server.received[-1]
    assert request.query == {"image": ODD_ID, "tag": "final"}
    assert sent_form(request)["label"].content == LABEL
    assert json.loads(sent_form(request)["params"].content) == {"minutes": 3}


def test_a_refused_label_says_why(server, client, tmp_path):
    detail = [
        {"loc": ["query", "image"], "msg": "Field required", "type": "missing"},
        {"loc": ["body", "label"], "msg": "Value error", "type": "value_error"},
    ]
    server.on("PUT", "/datastore/label", {"detail": detail}, status=422)
    source = tmp_path / "l.nii.gz"
    source.write_bytes(LABEL)
    with pytest.raises(InvalidRequestError, match="query image: Field required; body label: Value error"):
        client.submit_label("a", source)


@pytest.mark.parametrize("trouble", [{"reset": True}, {"status": 503}, {"content": {}, "delay": 0.6}])
def test_an_upload_is_never_sent_twice(server, connect, tmp_path, trouble):
    server.on("PUT", "/datastore/label", **trouble)
    source = tmp_path / "l.nii.gz"
    source.write_bytes(LABEL)
    with pytest.raises((ServerUnreachable, ServerBusy, ServerTimeout)):
        connect(timeouts={"transfer": 0.2}).submit_label("a", source)
    assert len(server.received) == 1


@pytest.mark.parametrize("content", [None, b""])
def test_a_missing_or_empty_file_is_not_sent(server, client, tmp_path, content):
    source = tmp_path / "l.nii.gz"
    if content is not None:
        source.write_bytes(content)
    with pytest.raises(LocalProblem):
        client.submit_label("a", source)
    assert not server.received


def test_datastore(server, client):
    objects = {
        "b": {"image": {"ext": ".nii.gz", "info": {"ts": 1}}, "labels": {"original": {}, "final": {}}},
        "a": {"image": {"ext": ".nii.gz", "info": {}}, "labels": {}},
    }
    server.on("GET", "/datastore/", {"name": "store", "objects": objects})
    store = client.datastore()
    assert [(case.id, case.tags) for case in store.cases] == [("a", ()), ("b", ("final", "original"))]
    assert [case.id for case in store.with_tag("final")] == ["b"] and store.cases[1].info == {"ts": 1}
    assert server.received[-1].query == {"output": "all"}


# ---- segmentation


def test_infer(server, client, tmp_path):
    content, headers = infer_answer(params={"uncertainty": 0.25, "name": "ä"})
    server.on("POST", "/infer/rep3d", content, headers=headers)
    result = client.infer(ODD_ID, tmp_path / "l.nii.gz", params={"device": "cpu"})
    assert result.label_path.read_bytes() == LABEL and result.params == {"uncertainty": 0.25, "name": "ä"}
    request = server.received[-1]
    assert request.query == {"image": ODD_ID, "output": "all"}
    assert request.body == b"params=%7B%22device%22%3A+%22cpu%22%7D"


def test_infer_file(server, client, tmp_path):
    content, headers = infer_answer()
    server.on("POST", "/infer/rep3d", content, headers=headers)
    source = tmp_path / "Müller.nii.gz"
    source.write_bytes(IMAGE)
    result = client.infer_file(source, tmp_path, params={"device": "cpu"})
    assert result.label_path == tmp_path / "tmpx.nii.gz" and result.label_path.read_bytes() == LABEL
    request = server.received[-1]
    assert request.query == {"output": "all"}
    form = sent_form(request)
    assert form["file"].content == IMAGE and json.loads(form["params"].content) == {"device": "cpu"}
    assert b"ller" not in request.body.replace(IMAGE, b"")  # file names often are patients' names


@pytest.mark.parametrize("cut", [100, 40_000])
def test_a_cut_segmentation_is_not_kept(server, client, tmp_path, cut):
    content, headers = infer_answer(os.urandom(80_000), filename="l.nii")
    target = tmp_path / "l.nii"
    server.on("POST", "/infer/rep3d", content, headers=headers, cut_after=cut)
    with pytest.raises(BadAnswer):
        client.infer("a", target)
    server.on("POST", "/infer/rep3d", content[:cut], headers=headers)
    with pytest.raises(BadAnswer):
        client.infer("a", target)
    assert os.listdir(tmp_path) == []


@pytest.mark.parametrize("answer", [{"content": {"note": "no label"}}, {"content": None}, {"content": b"\x00\xff"}])
def test_an_answer_without_a_label_is_bad(server, client, tmp_path, answer):
    server.on("POST", "/infer/rep3d", **answer)
    with pytest.raises(BadAnswer):
        client.infer("a", tmp_path / "l.nii.gz")
    content, headers = infer_answer(label=None)
    server.on("POST", "/infer/rep3d", content, headers=headers)
    with pytest.raises(BadAnswer, match="image"):
        client.infer("a", tmp_path / "l.nii.gz")


def test_no_model_yet(server, client, tmp_path):
    server.on("POST", "/infer/rep3d", {"detail": "Train first"}, status=409)
    with pytest.raises(ConflictError, match="Train first"):
        client.infer("a", tmp_path / "l.nii.gz")


def test_inference_has_its_own_time_limit(server, connect, tmp_path):
    content, headers = infer_answer()
    server.on("POST", "/infer/rep3d", content, headers=headers, delay=0.5)
    assert connect(timeouts={"read": 0.1, "infer": 5.0}).infer("a", tmp_path / "l.nii.gz").params == {}
    with pytest.raises(ServerTimeout, match="0.1 s"):
        connect(timeouts={"read": 5.0, "infer": 0.1}).infer("a", tmp_path / "l.nii.gz")


def test_server_failure(server, client, tmp_path):
    server.on("POST", "/infer/rep3d", b"Internal Server Error", status=500)
    with pytest.raises(ServerFailed, match="log") as caught:
        client.infer("a", tmp_path / "l.nii.gz")
    assert caught.value.status == 500
