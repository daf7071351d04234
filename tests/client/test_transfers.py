"""Watching and stopping transfers: numbers that are true, and nothing left of what was stopped."""

from __future__ import annotations

import os
import threading
import time

import numpy as np
import pytest
from Rep3DLabelLib.client.transfers import FileBody, Watch
from Rep3DLabelLib.errors import Cancelled, ClientError, LocalProblem

from tests.voxel_bodies import VOXELS, packed, voxels_of

IMAGE = np.random.default_rng(0).integers(0, 255, (100, 90, 80)).astype(np.uint8)
CONTENT = packed({"image": IMAGE, "label": IMAGE})


@pytest.mark.parametrize("announce", [True, False])
def test_a_download_tells_how_far_it_is(server, client, tmp_path, announce):
    server.on("GET", "/rep3d/voxels/images/a", CONTENT, announce=announce, headers=VOXELS)
    seen = []
    client.image("a", tmp_path, progress=lambda done, total: seen.append((done, total)))
    assert seen[-1] == (2 * IMAGE.size,) * 2 and len(seen) > 3
    assert [done for done, _ in seen] == sorted({done for done, _ in seen})


def test_an_upload_tells_how_far_it_is(server, client, tmp_path):
    server.on("PUT", "/rep3d/voxels/images/a", {"image": "a"})
    seen = []
    source = voxels_of(IMAGE, tmp_path / "a.raw")
    client.add_image("a", source, progress=lambda done, total: seen.append((done, total)))
    length = len(server.received[-1].body)
    assert seen[-1] == (length, length) and all(total == length for _, total in seen) and len(seen) > 1


@pytest.mark.parametrize("asked", [0, 1, 3])
def test_a_download_that_is_stopped_leaves_no_file(server, client, tmp_path, asked):
    server.on("GET", "/rep3d/voxels/images/a", CONTENT, headers=VOXELS)
    server.on("GET", "/rep3d/voxels/labels/a", CONTENT, headers=VOXELS)
    left = [asked]

    def stop():
        left[0] -= 1
        return left[0] < 0

    for call in (client.image, lambda image, folder, stop: client.label(image, "final", folder, stop=stop)):
        left[0] = asked
        with pytest.raises(Cancelled, match="on request"):
            call("a", tmp_path, stop=stop)
        assert os.listdir(tmp_path) == []
    assert issubclass(Cancelled, ClientError)


def test_a_download_is_stopped_from_another_thread(server, client, tmp_path):
    server.on("GET", "/rep3d/voxels/images/a", CONTENT, pause=0.5, headers=VOXELS)
    wanted = threading.Event()
    threading.Timer(0.2, wanted.set).start()
    begin = time.monotonic()
    with pytest.raises(Cancelled):
        client.image("a", tmp_path, stop=wanted.is_set)
    assert time.monotonic() - begin < 2 and os.listdir(tmp_path) == []


def test_an_upload_that_is_stopped_is_not_complete(server, client, tmp_path):
    server.on("PUT", "/rep3d/voxels/labels/a", {"label": "a"})
    source, done = voxels_of(np.zeros((400, 400, 250), np.uint8), tmp_path / "a.raw"), [0]
    with pytest.raises(Cancelled):
        client.submit_label(
            "a", source, progress=lambda now, total: done.append(now), stop=lambda: done[-1] > 1_000_000
        )
    assert done[-1] < 2_000_000 and os.listdir(tmp_path) == ["a.raw"]
    time.sleep(0.2)
    assert all(len(request.body) < int(request.headers["content-length"]) for request in server.received)


def test_an_upload_that_has_left_is_not_called_stopped(tmp_path):
    """Once all is on the way the server may have stored it: the answer has to be waited for."""
    (tmp_path / "a").write_bytes(bytes(1000))
    stopped = []
    with FileBody(tmp_path / "a", {}, Watch(stop=lambda: bool(stopped))) as body:
        blocks = iter(body)
        assert len(next(blocks)) == len(body) == 1000
        stopped.append(True)
        assert list(blocks) == []


def test_a_file_that_becomes_shorter_meanwhile_is_told(tmp_path):
    (tmp_path / "a").write_bytes(bytes(1_000_000))
    with FileBody(tmp_path / "a", {}, Watch()) as body:
        blocks = iter(body)
        next(blocks)
        os.truncate(tmp_path / "a", 300_000)
        with pytest.raises(LocalProblem, match="became shorter"):
            list(blocks)


def test_a_segmentation_that_is_stopped_leaves_no_file(server, client, tmp_path):
    server.on("POST", "/rep3d/voxels/infer/rep3d", CONTENT, headers=VOXELS)
    with pytest.raises(Cancelled):
        client.infer("a", tmp_path, stop=lambda: True)
    assert os.listdir(tmp_path) == []
