"""Watching and stopping transfers: numbers that are true, and nothing left of what was stopped."""

from __future__ import annotations

import gzip
import os
import threading
import time

import pytest
from Rep3DLabelLib.client.multipart import MultipartUpload
from Rep3DLabelLib.client.transfers import Watch
from Rep3DLabelLib.errors import Cancelled, ClientError

IMAGE = gzip.compress(os.urandom(500_000))


@pytest.mark.parametrize("announce", [True, False])
def test_a_download_tells_how_far_it_is(server, client, tmp_path, announce):
    server.on("GET", "/datastore/image", IMAGE, announce=announce)
    seen = []
    client.download_image("a", tmp_path / "a.nii.gz", progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (len(IMAGE), len(IMAGE) if announce else None) and len(seen) > 3
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_an_upload_tells_how_far_it_is(server, client, tmp_path):
    server.on("PUT", "/datastore/image", {"image": "a"})
    (tmp_path / "a.nii.gz").write_bytes(IMAGE)
    seen = []
    client.upload_image(tmp_path / "a.nii.gz", progress=lambda done, total: seen.append((done, total)))
    length = len(server.received[-1].body)
    assert seen[-1] == (length, length) and all(total == length for _, total in seen)


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_a_download_that_is_stopped_leaves_no_file(server, client, tmp_path, asked):
    server.on("GET", "/datastore/image", IMAGE)
    server.on("GET", "/datastore/label", IMAGE)
    (tmp_path / "a.nii.gz").write_bytes(b"old")
    left = [asked]

    def stop():
        left[0] -= 1
        return left[0] < 0

    for call in (
        client.download_image,
        lambda image, target, stop: client.download_label(image, "final", target, stop=stop),
    ):
        left[0] = asked
        with pytest.raises(Cancelled, match="on request"):
            call("a", tmp_path / "a.nii.gz", stop=stop)
        assert os.listdir(tmp_path) == ["a.nii.gz"] and (tmp_path / "a.nii.gz").read_bytes() == b"old"
    assert issubclass(Cancelled, ClientError)


def test_a_download_is_stopped_from_another_thread(server, client, tmp_path):
    server.on("GET", "/datastore/image", IMAGE, pause=0.5)
    wanted = threading.Event()
    threading.Timer(0.2, wanted.set).start()
    begin = time.monotonic()
    with pytest.raises(Cancelled):
        client.download_image("a", tmp_path / "a.nii.gz", stop=wanted.is_set)
    assert time.monotonic() - begin < 2 and os.listdir(tmp_path) == []


def test_an_upload_that_is_stopped_is_not_complete(server, client, tmp_path):
    server.on("PUT", "/datastore/label", {"label": "a"})
    (tmp_path / "a.nii.gz").write_bytes(bytes(40_000_000))
    done = [0]
    with pytest.raises(Cancelled):
        client.submit_label(
            "a", tmp_path / "a.nii.gz", progress=lambda now, total: done.append(now), stop=lambda: done[-1] > 1_000_000
        )
    assert done[-1] < 2_000_000
    time.sleep(0.2)
    assert all(len(request.body) < int(request.headers["content-length"]) for request in server.received)


def test_an_upload_that_has_left_is_not_called_stopped(tmp_path):
    """Once all is on the way the server may have stored it: the answer has to be waited for."""
    (tmp_path / "a.nii").write_bytes(bytes(1000))
    stopped = []
    with MultipartUpload("file", tmp_path / "a.nii", {}, Watch(stop=lambda: bool(stopped))) as upload:
        assert len(upload.read(-1)) + len(upload.read(-1)) + len(upload.read(-1)) == len(upload)
        stopped.append(True)
        assert upload.read(-1) == b""


def test_a_segmentation_that_is_stopped_leaves_no_file(server, client, tmp_path):
    server.on("POST", "/infer/rep3d", IMAGE, headers={"Content-Type": "multipart/form-data; boundary=b"})
    with pytest.raises(Cancelled):
        client.infer("a", tmp_path / "l.nii.gz", stop=lambda: True)
    assert os.listdir(tmp_path) == []
