"""Files that lie about themselves, by every way in and in the folder already: refused in words, and nothing is kept.

The server takes 1 MiB at once and 10,000 voxels, so that little data shows what a bound of gigabytes does.
"""

from __future__ import annotations

import base64
import gzip
import hashlib
import http.client
import io
import json
import os
import time
import zipfile
import zlib
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
import requests
from pydicom.dataset import Dataset

from tests.app.data import CONF, LABELS, SHAPE, publish_small_model, unchanged, write_image, write_label
from tests.app.nrrd_files import segments, write_nrrd
from tests.app.server import AppServer
from tests.rep3d.imaging.odd_nifti import write_odd
from tests.rep3d.imaging.test_dicom import write_series
from tests.voxel_bodies import VOXELS, packed

MOST_VOXELS = 10_000
NAMES = segments(*((name, 0, value) for name, value in LABELS.items()))
Ways = dict[str, Callable[[bytes], requests.Response]]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server with small bounds, over a folder in which odd files lie already."""
    studies, away = tmp_path_factory.mktemp("studies"), tmp_path_factory.mktemp("away")
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    label = write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    for name, content in IMAGES.items():
        (studies / f"odd {name}.nii.gz").write_bytes(content[0])
    for name in ("CON", "nul.1", "end ", "x" * 210):
        write_image(studies / f"{name}.nii.gz")
    (studies / "outside.nii.gz").symlink_to(write_image(away / "outside.nii.gz"))
    write_label(studies / "labels" / "FINAL" / "case_1.nii.gz")
    write_image(studies / "badly labelled.nii.gz")
    label.with_name("badly labelled.nii.gz").write_bytes(_flipped(label.read_bytes()))
    publish_small_model(studies)
    bounds = {"max_upload": "1", "max_voxels": str(MOST_VOXELS)}
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), {**CONF, **bounds}) as running:
        yield running


def _ways(server: AppServer) -> Ways:
    """Return all ways in for a NIfTI file."""

    def form(method: str, path: str, part: str) -> Callable[[bytes], requests.Response]:
        return lambda content: server.request(method, path, files={part: ("file.nii.gz", content)})

    return {
        "image": form("PUT", "/datastore/image?image=new", "file"),
        "image, older address": form("PUT", "/datastore/?image=new", "file"),
        "session": form("PUT", "/session/", "files"),
        "segmenting": form("POST", "/infer/rep3d", "file"),
        "label": form("PUT", "/datastore/label?image=case_0", "label"),
    }


def _flipped(content: bytes) -> bytes:
    """Return a packed file with another checksum."""
    return content[:-8] + bytes([content[-8] ^ 1]) + content[-7:]


def _bytes(voxels: np.ndarray, spacing: tuple[float, float, float] = (1, 1, 1), **fields: Any) -> bytes:
    file = Path(os.environ.get("TMPDIR", "/tmp")) / f"attack-{os.getpid()}.nii.gz"
    try:
        return write_odd(file, voxels, np.diag([*spacing, 1.0]), **fields).read_bytes()
    finally:
        file.unlink()


def _with(value: float) -> np.ndarray:
    voxels = np.ones(SHAPE, np.float32)
    voxels[1, 2, 3] = value
    return voxels


ONES = np.ones(SHAPE, np.uint8)
FINE = _bytes(ONES)
ELSEWHERE = np.ones((22, 22, 22), np.uint8)
# What each is, and what is said of it.
IMAGES: dict[str, tuple[bytes, str]] = {
    "too many voxels": (_bytes(ELSEWHERE), "22 x 22 x 22 voxels by its header, 10,648 in all, and at most 10,000"),
    "voxels of terabytes": (
        _bytes(ONES, dim=[3, 9999, 9999, 9999, 1, 1, 1, 1]),
        "999,700,029,999 in all",
    ),
    "few bytes, a large promise": (
        _bytes(np.ones((1, 1, 1), "u1"), dim=[3, 1, 1, 9999, 1, 1, 1, 1], datatype=64),
        "damaged",
    ),
    "a packed file that goes on": (gzip.compress(gzip.decompress(FINE) + bytes(1 << 24)), "goes on behind"),
    "another member that goes on": (FINE + gzip.compress(bytes(1 << 24)), "goes on behind"),
    "a wrong checksum": (_flipped(FINE), "cut short or damaged"),
    "a trailer that is cut": (FINE[:-3], "cut short or damaged"),
    "no trailer": (FINE[:-8], "cut short or damaged"),
    "rubbish behind": (FINE + b"rubbish", "cut short or damaged"),
    "voxels far behind the header": (_bytes(ONES, vox_offset=1e9), "damaged"),
    "NaN": (_bytes(_with(np.nan)), "(1, 2, 3)"),
    "infinity": (_bytes(_with(-np.inf)), "(1, 2, 3)"),
    "1e38": (_bytes(_with(1e38)), "(1, 2, 3)"),
    "voxels of 100 mm": (_bytes(ONES, (100, 1, 1)), "no scanner makes"),
    "voxels of 1e-4 mm": (_bytes(ONES, (1, 1, 1e-4)), "no scanner makes"),
}


def _refused(server: AppServer, answer: requests.Response, status: int, words: str = "") -> None:
    """Assert a refusal in words, without a path, and that nothing of it is left in the temporary folder."""
    assert answer.status_code == status, answer.text
    assert set(answer.json()) == {"detail"} and words in answer.json()["detail"], answer.text
    for secret in (str(server.studies), str(server.studies.parent), "/tmp", "Traceback", ".py", "Error:"):
        assert secret not in answer.text, answer.text
    assert _left_behind(server) == []


def _left_behind(server: AppServer) -> list[str]:
    scratch = server.log_file.parent
    places = [*(scratch / "tmp").glob("rep3d-label-*"), scratch / "sessions"]
    assert len(places) == 2
    return [str(file) for place in places for file in place.rglob("*") if file.is_file()]


@pytest.mark.parametrize("name", IMAGES)
def test_a_file_that_lies_about_itself_comes_in_nowhere(server: AppServer, name: str) -> None:
    content, words = IMAGES[name]
    with unchanged(server.studies):
        for way, send in _ways(server).items():
            if way == "label" and name in ("NaN", "infinity", "1e38"):
                words = "a whole number from 0 to 65535"
            _refused(server, send(content), 422, words)


NRRD: dict[str, tuple[dict[str, str | None], bytes | None, str]] = {
    "gigabytes in 67 bytes": ({"sizes": "2048 2048 2048"}, b"", "8,589,934,592 in all"),
    "a promise": ({"sizes": "20 20 20"}, b"", "announces 8,000 bytes of voxels, and 0 follow"),
    "a wrong checksum": ({"encoding": "gzip"}, _flipped(gzip.compress(bytes(8640))), "damaged"),
    "a trailer that is cut": ({"encoding": "gzip"}, gzip.compress(bytes(8640))[:-3], "damaged"),
    "one that goes on": ({"encoding": "gzip"}, gzip.compress(bytes(1 << 24)), "more follow"),
}


@pytest.mark.parametrize("name", NRRD)
@pytest.mark.parametrize("file", ["label.nrrd", "label.seg.nrrd"])
def test_a_segmentation_that_lies_about_itself(server: AppServer, tmp_path: Path, name: str, file: str) -> None:
    fields, body, words = NRRD[name]
    content = write_nrrd(tmp_path / file, [np.ones(SHAPE, np.uint8)], NAMES, fields, body).read_bytes()
    with unchanged(server.studies):
        answer = server.put("/datastore/label?image=case_0", files={"label": (file, content)})
        _refused(server, answer, 422, words)


def _voxels(server: AppServer, path: str, body: bytes, **headers: str) -> requests.Response:
    return server.put(f"/rep3d/voxels/{path}", data=body, headers={**VOXELS, **headers})


def test_voxels_that_lie_about_themselves(server: AppServer) -> None:
    ones = np.ones(SHAPE, np.uint8)
    zipped = {"Content-Encoding": "gzip"}
    good = packed({"image": ones})
    with unchanged(server.studies):
        for path in ("images/new", "labels/case_0"):
            for body, headers, words in (
                (packed({"image": ELSEWHERE}), {}, "10,648 in all"),
                (packed({"image": ones}, shape=[20000, 20000, 20000]), {}, "in all"),
                (good[:-1] + b"\2", {}, "damaged on their way"),
                (gzip.compress(good)[:-4], zipped, "bytes"),
                (_flipped(gzip.compress(good)), zipped, "damaged"),
                (gzip.compress(good + bytes(1 << 24)), zipped, "got more"),
                (gzip.compress(bytes(1 << 24)), zipped, "expected a line of JSON"),
            ):
                _refused(server, _voxels(server, path, body, **headers), 422, words)
        for value in (np.nan, np.inf, 1e38):
            _refused(server, _voxels(server, "images/new", packed({"image": _with(value)})), 422, "(1, 2, 3)")
        for spacing in (100, 1e-4):
            body = packed({"image": ones}, np.diag([spacing, 1, 1, 1.0]))
            _refused(server, _voxels(server, "images/new", body), 422)


def _zip(*files: tuple[str, bytes]) -> bytes:
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, data in files:
            archive.writestr(name, data)
    return content.getvalue()


def _series(folder: Path, change: Callable[[Dataset, int], object] | None = None) -> bytes:
    return _zip(*((file.name, file.read_bytes()) for file in write_series(folder, change).iterdir()))


def _large(data: Dataset, number: int) -> None:
    data.Rows = data.Columns = 50
    data.PixelData = bytes(5000)


def test_dicom_that_lies_about_itself(server: AppServer, tmp_path: Path) -> None:
    with unchanged(server.studies):
        bomb = _zip(*((f"{number}.dcm", bytes(128) + b"DICM" + bytes(1 << 20)) for number in range(3)))
        _refused(server, server.put("/rep3d/dicom", data=bomb), 422, "Unpacked, the .zip file has more than")
        answer = server.put("/rep3d/dicom", files={"file": ("dicom.zip", _series(tmp_path / "large", _large))})
        assert answer.json()["images"] == [] and answer.json()["folder"] is None, answer.text
        assert "50 x 50 x 6 voxels by its header, 15,000 in all" in answer.json()["failed"][0]["error"]
        assert "/tmp" not in answer.text


# How much comes, and whether it comes unharmed ---------------------------------------------------------------


def _parts(size: int) -> Iterator[bytes]:
    """Yield a form with a file of so many bytes."""
    yield b'--x\r\nContent-Disposition: form-data; name="file"; filename="a.nii.gz"\r\n\r\n'
    for _ in range(size >> 16):
        yield bytes(1 << 16)
    yield b"\r\n--x--\r\n"


# Where something else is wrong first, that is the answer to what comes without its length.
LARGE = [
    ("PUT", "/datastore/image?image=new", 413),
    ("PUT", "/datastore/?image=new", 413),
    ("PUT", "/datastore/label?image=case_0", 413),
    ("PUT", "/session/", 413),
    ("POST", "/infer/rep3d", 413),
    ("PUT", "/rep3d/dicom", 413),
    ("PUT", "/rep3d/voxels/images/new", 422),
    ("PUT", "/rep3d/voxels/labels/case_0", 422),
    ("PUT", "/model/rep3d", 403),
    ("POST", "/train/rep3d", 413),
    ("PUT", "/datastore/label/info?label=case_0&tag=final", 413),
    ("POST", "/rep3d/login", 422),
]


@pytest.mark.parametrize(("method", "path", "status"), LARGE)
def test_too_much_is_refused_while_it_comes(server: AppServer, method: str, path: str, status: int) -> None:
    form = {"Content-Type": "multipart/form-data; boundary=x"}
    with unchanged(server.studies):
        # With its length: at once, before any of it is sent. Without: after as much as may come.
        connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
        connection.putrequest(method, path)
        for name, value in {**form, "Content-Length": str(1 << 40), "Expect": "100-continue"}.items():
            connection.putheader(name, value)
        connection.endheaders()
        answer = connection.getresponse()
        said = json.loads(answer.read())["detail"]
        connection.close()
        assert answer.status == 413 and "more than 1 MiB" in said and "max_upload" in said
        _refused(server, server.request(method, path, data=_parts(8 << 20), headers=form), status)


def test_what_is_held_in_memory_is_small(server: AppServer) -> None:
    """A form has few parts, and what is no form of files counts as a small request."""
    with unchanged(server.studies):
        parts = [("file", (f"{number}.nii.gz", b"x")) for number in range(5)]
        assert server.put("/datastore/image", files=parts).status_code == 400
        fields = {f"field {number}": "x" for number in range(20)}
        assert server.put("/datastore/image", files=parts[:1], data=fields).status_code == 400
        for kind in ("application/json", "application/x-www-form-urlencoded", "text/plain"):
            answer = server.put("/datastore/image", data=bytes(2 << 20), headers={"Content-Type": kind})
            _refused(server, answer, 413)


def _digest(content: bytes, kind: str = "sha256") -> str:
    return f"sha-{kind[3:]}=:{base64.b64encode(hashlib.new(kind, content).digest()).decode()}:"


def test_a_voxel_that_was_flipped_on_its_way_is_noticed(server: AppServer, tmp_path: Path) -> None:
    label = gzip.decompress(write_label(tmp_path / "label.nii.gz", 1).read_bytes())  # no checksum of its own
    flipped = label[:-1] + bytes([label[-1] ^ 1])
    ways = [
        ("PUT", "/datastore/label?image=case_1", "label"),
        ("PUT", "/datastore/image?image=new", "file"),
        ("PUT", "/session/", "files"),
        ("POST", "/infer/rep3d", "file"),
    ]
    with unchanged(server.studies):
        for method, path, part in ways:
            for header, value, words in (
                ("Repr-Digest", _digest(label), "was damaged on its way"),
                ("Repr-Digest", _digest(label, "sha512"), "was damaged on its way"),
                ("Content-Digest", _digest(label), "What was sent was damaged on its way"),
                ("Content-Digest", "sha-256=:%%%:", "must be such as sha-256"),
                ("Repr-Digest", "md5=:AAAA:", "must be such as sha-256"),
            ):
                answer = server.request(method, path, files={part: ("a.nii", flipped)}, headers={header: value})
                _refused(server, answer, 422, words)
        body = packed({"image": np.ones(SHAPE, np.uint8)})
        for header in ("Repr-Digest", "Content-Digest"):
            for path in ("images/new", "labels/case_1"):
                answer = _voxels(server, path, body, **{header: _digest(body[:-1] + b"\2")})
                _refused(server, answer, 422, "damaged on its way")
            answer = server.put("/rep3d/dicom", data=_zip(("a.dcm", b"")), headers={header: _digest(b"")})
            _refused(server, answer, 422, "damaged on its way")
    method, path, part = ways[0]
    sent = requests.Request(method, f"{server.url}{path}", files={part: ("a.nii", label)}).prepare()
    sent.headers["Content-Digest"] = f"{_digest(sent.body, 'sha512')}, {_digest(sent.body)}"
    sent.headers["Repr-Digest"] = _digest(label)
    with requests.Session() as session:
        assert session.send(sent, timeout=60).status_code == 200
    assert server.request("DELETE", "/datastore/label?id=case_1&tag=final").ok


# Names -------------------------------------------------------------------------------------------------------

ODD_NAMES = ["CON", "Aux.1", "COM\u00b9", "nul .a", "end.", "\u00fc" * 100, "x" * 300]


@pytest.mark.parametrize("name", ODD_NAMES)
def test_names_that_are_none_everywhere(server: AppServer, tmp_path: Path, name: str) -> None:
    label = write_label(tmp_path / "label.nii.gz", 0).read_bytes()
    with unchanged(server.studies):
        for params in ({"image": name}, {}):
            answer = server.put("/datastore/image", params=params, files={"file": (f"{name}.nii.gz", FINE)})
            _refused(server, answer, 422, "cannot be used as image id")
        body = packed({"image": np.ones(SHAPE, np.uint8)})
        _refused(server, _voxels(server, f"images/{requests.utils.quote(name)}", body), 422, "cannot be used as image")
        for tag in (name, "Final", "FINAL", "\ufb01nal", "fi\uff4eal", "Original"):
            params = {"image": "case_0", "tag": tag}
            answer = server.put("/datastore/label", params=params, files={"label": ("l.nii.gz", label)})
            _refused(server, answer, 422, "label tag")
            asked = {"params": json.dumps({"save_label": True, "label_tag": tag})}
            _refused(server, server.post("/infer/rep3d?image=case_0", data=asked), 422, "label tag")
    # Under a long name of the client's own, a good file is no worse.
    long = {"file": (f"{name}.{'y' * 300}.nii.gz", FINE)}
    assert server.post("/infer/rep3d?output=json", files=long).status_code == 200


# What lies in the folder already -----------------------------------------------------------------------------


def test_what_lies_in_the_folder_already_is_named_and_harms_nobody(server: AppServer) -> None:
    odd = {f"odd {name}" for name in IMAGES}
    for name in (*odd, "badly labelled"):
        for path in (f"/rep3d/voxels/images/{name}", f"/rep3d/cases/{name}/thumbnail.png", f"/rep3d/leases/{name}"):
            answer = server.request("POST" if "leases" in path else "GET", path, json={} if "leases" in path else None)
            if not answer.ok:
                _refused(server, answer, 422)
    status = server.get("/rep3d/status").json()
    said = {one["id"]: one["reason"] for one in status["unusable"]}
    assert set(said) == odd
    for name, (_, words) in IMAGES.items():
        assert words in said[f"odd {name}"]
    passed = {file: group["reason"] for group in status["passed_over"]["groups"] for file in group["files"]}
    for file, words in {
        "outside.nii.gz": "leads out of the studies folder",
        "CON.nii.gz": "Windows",
        "nul.1.nii.gz": "Windows",
        "end .nii.gz": "Windows",
        f"{'x' * 210}.nii.gz": "too long",
        "labels/FINAL": "no folder of labels",
    }.items():
        assert words in passed[file]
    assert server.get("/datastore/image?image=outside").status_code == 404
    answer = server.get("/rep3d/voxels/labels/badly labelled")
    _refused(server, answer, 422, "cut short or damaged")
    assert server.post("/activelearning/first", json={}).json()["id"] == "case_1"


def test_the_server_is_well_after_all_this(server: AppServer, tmp_path: Path) -> None:
    label = write_label(tmp_path / "label.nii.gz", 1).read_bytes()
    assert server.put("/datastore/label?image=case_1", files={"label": ("l.nii.gz", label)}).ok
    assert server.post("/infer/rep3d?image=case_1").ok
    assert "Something went wrong" not in server.log and "Traceback" not in server.log


# Memory ------------------------------------------------------------------------------------------------------


@pytest.mark.slow
def test_refusals_give_their_memory_back(tmp_path: Path) -> None:
    """Forty-eight files of 33 or 130 MB unpacked, four at a time. glibc keeps up to 64 MB in each of a few heaps."""
    studies = tmp_path / "studies"
    write_image(studies / "case_0.nii.gz")
    publish_small_model(studies)
    shape = (320, 320, 320)
    voxels = np.zeros(shape, np.float32)
    voxels[0, 0, 0] = np.nan
    image = gzip.compress(gzip.decompress(_bytes(voxels)), 1)
    other = _bytes(np.zeros(shape, np.uint8))
    layers = write_nrrd(
        tmp_path / "s.seg.nrrd",
        [np.zeros((2, 2, 2), np.uint8)],
        NAMES,
        {"sizes": "320 320 320", "encoding": "gzip"},
        gzip.compress(bytes(320**3)),
    ).read_bytes()
    body = zlib.compress(packed({"image": voxels}), 1)
    with AppServer(studies, tmp_path, CONF) as server:
        ways = [
            lambda: server.put("/datastore/image?image=new", files={"file": ("a.nii.gz", image)}),
            lambda: server.put("/session/", files={"files": ("a.nii.gz", image)}),
            lambda: server.post("/infer/rep3d", files={"file": ("a.nii.gz", image)}),
            lambda: server.put("/datastore/label?image=case_0", files={"label": ("a.nii.gz", other)}),
            lambda: server.put("/datastore/label?image=case_0", files={"label": ("a.seg.nrrd", layers)}),
            lambda: _voxels(server, "images/new", body, **{"Content-Encoding": "gzip"}),
        ]
        assert server.post("/infer/rep3d?image=case_0").ok

        def resident() -> int:
            assert server._process is not None
            return int(psutil.Process(server._process.pid).memory_info().rss)

        fresh = resident()
        for way in ways:
            assert way().status_code == 422
        before = resident()
        with ThreadPoolExecutor(4) as pool:
            answers = pool.map(lambda number: ways[number % len(ways)]().status_code, range(48))
            assert set(answers) == {422}
        time.sleep(2)
        print(f"MiB: {fresh >> 20} before, {before >> 20} after one of each, {resident() >> 20} at the end")
        assert resident() < fresh + (256 << 20)
