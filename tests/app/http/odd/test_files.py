"""Odd images and labels meet a real server: used rightly, or refused by name; one never stops the others."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import requests

from tests.app.data import AFFINE, LABELS, SHAPE, write_image, write_label, write_nifti
from tests.app.server import AppServer
from tests.rep3d.imaging.odd_nifti import write_odd

STRAIGHT = np.diag([-2.0, 3.0, 4.0, 1.0])


def _send(server: AppServer, path: str, field: str, file: Path) -> requests.Response:
    return server.put(path, files={field: (file.name, file.read_bytes())})


def _voxels(server: AppServer, path: str) -> tuple[dict, bytes]:
    line, _, content = server.get(f"/rep3d/voxels/{path}").content.partition(b"\n")
    return json.loads(line), content


def test_an_image_in_micrometres_and_a_label_of_64_bits(server: AppServer, studies: Path, tmp_path: Path) -> None:
    micro = STRAIGHT.copy()
    micro[:3] *= 1000
    voxels = np.random.default_rng(0).integers(0, 99, SHAPE).astype("i2")
    image = write_odd(tmp_path / "micro.nii.gz", voxels, micro, xyzt_units=3)
    assert _send(server, "/datastore/?image=micro", "file", image).ok
    np.testing.assert_allclose(_voxels(server, "images/micro")[0]["affine"], STRAIGHT)
    label = np.zeros(SHAPE, np.uint64)
    label[3:6, 3:6, 3:6] = LABELS["tail"]
    sent = write_odd(tmp_path / "sent.nii.gz", label, STRAIGHT, xyzt_units=2)  # as ITK writes it, in mm
    answer = _send(server, "/datastore/label?image=micro&tag=final", "label", sent)
    assert answer.ok, answer.text
    about, content = _voxels(server, "labels/micro")
    np.testing.assert_array_equal(np.frombuffer(content, "u1").reshape(SHAPE, order="F"), label)
    np.testing.assert_allclose(about["affine"], STRAIGHT)
    stored = nib.load(studies / "labels" / "final" / "micro.nii.gz")
    np.testing.assert_allclose(stored.affine, micro)
    assert stored.header["xyzt_units"] == 3 and stored.get_data_dtype() == np.uint8
    assert server.request("DELETE", "/datastore/image?id=micro").ok


def test_a_header_that_says_two_things_is_refused(server: AppServer, tmp_path: Path) -> None:
    mirrored = STRAIGHT @ np.diag([-1, 1, 1, 1])
    image = write_odd(tmp_path / "two.nii.gz", np.ones(SHAPE, "i2"), STRAIGHT, sform=mirrored)
    answer = _send(server, "/datastore/?image=two", "file", image)
    assert answer.status_code == 422
    assert "image two says two things of where its voxels lie" in answer.json()["detail"]


def test_an_image_too_large_for_the_machine_is_refused_in_words(server: AppServer, tmp_path: Path) -> None:
    image = write_odd(tmp_path / "scout.nii.gz", np.ones((60, 60, 60), "i2"), np.diag([50.0, 50.0, 50.0, 1.0]))
    assert _send(server, "/datastore/?image=scout", "file", image).ok
    answer = server.post("/infer/rep3d?image=scout")
    assert answer.status_code == 422
    detail = answer.json()["detail"]
    assert "memory to bring image scout (60x60x60 voxels of 50x50x50 mm)" in detail and "GB are needed" in detail
    assert server.request("DELETE", "/datastore/image?id=scout").ok


def test_a_broken_label_blocks_neither_its_case_nor_its_correction(
    server: AppServer, studies: Path, tmp_path: Path
) -> None:
    good = write_label(tmp_path / "good.nii.gz", 4)
    broken = studies / "labels" / "final" / "broken.nii.gz"
    writers = [
        lambda: write_nifti(broken, np.full(SHAPE, 1.5, np.float32)),
        lambda: write_nifti(broken, np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])),
        lambda: write_odd(broken, np.full(SHAPE, 2**60, np.uint64), AFFINE),
        lambda: broken.write_bytes(good.read_bytes()[:300]),
    ]
    image = write_image(tmp_path / "broken.nii.gz", 4)
    assert _send(server, "/datastore/?image=broken", "file", image).ok
    for write in writers:
        assert _send(server, "/datastore/label?image=broken&tag=final", "label", good).ok
        write()
        assert server.get("/rep3d/cases/broken").ok
        assert server.get("/rep3d/cases/broken/thumbnail.png").status_code in (200, 422)
        answer = _send(server, "/datastore/label?image=broken&tag=final", "label", good)
        assert answer.ok, answer.text
        assert server.get("/rep3d/voxels/labels/broken").ok
    assert server.request("DELETE", "/datastore/image?id=broken").ok
