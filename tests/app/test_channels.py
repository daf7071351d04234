"""Images of several channels through the server: as those of one, and those of another number are named."""

from __future__ import annotations

import gzip
import io
import tempfile
import time
import zipfile
from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from lib.cases.thumbnails import render
from lib.channels import ONE, Channels
from lib.labels.fit import voxel_digest
from lib.labels.submission import SubmitOptions, prepare_label
from lib.models.published import PublishedModel
from PIL import Image

from rep3d.errors import CheckpointError, ImageError
from tests.app.data import AFFINE, CONF, LABELS, SHAPE, publish_small_model, write_image, write_label, write_nifti
from tests.app.nrrd_files import segments, write_nrrd
from tests.app.server import AppServer
from tests.voxel_bodies import VOXELS, packed, unpacked

TWO = Channels(("T1", "T2"))


def _two(path: Path, seed: int = 0, order: int = 1) -> Path:
    """Write an image whose first channel is :func:`write_image`'s, and whose second one shows it inverted; -1 for the
    other order."""
    voxels = np.asarray(nib.load(write_image(path, seed)).dataobj)
    return write_nifti(path, np.stack([voxels, 300 - voxels][::order], -1))


def _parted(folder: Path, name: str, seed: int = 0) -> tuple[Path, Path]:
    """Write the two channels of :func:`_two` as a file each."""
    voxels = np.asarray(nib.load(write_image(folder / f"{name}_0000.nii.gz", seed)).dataobj)
    return folder / f"{name}_0000.nii.gz", write_nifti(folder / f"{name}_0001.nii.gz", 300 - voxels)


# ---- parts


def test_files_of_other_channels_are_refused_by_name(tmp_path: Path) -> None:
    one, two = write_image(tmp_path / "one.nii.gz"), _two(tmp_path / "two.nii.gz")
    assert TWO.grid(two).shape == ONE.grid(one).shape == SHAPE
    first, second = TWO.read(two)[0]
    assert np.array_equal(first, ONE.read(one)[0][0]) and np.array_equal(second, 300 - first)
    with pytest.raises(ImageError, match=r"one.nii.gz: 1 channel, where 2 are needed.*4D file, or a file for each"):
        TWO.grid(one)
    with pytest.raises(ImageError, match=r"two.nii.gz is not three-dimensional"):
        ONE.grid(two)


def test_a_file_for_each_channel_is_read_as_one_image(tmp_path: Path) -> None:
    files, whole = _parted(tmp_path, "a"), _two(tmp_path / "whole.nii.gz")
    assert TWO.files(files[0]) == files and TWO.files(whole) == (whole,) and ONE.files(files[0]) == files[:1]
    assert voxel_digest(files[0], TWO) == voxel_digest(whole, TWO)
    before = TWO.stamp(files[0])
    write_image(files[1], 1)
    assert TWO.stamp(files[0]) != before
    now = TWO.stamp(files[0])
    for source, target in ((files[0], tmp_path / "aside"), files[::-1], (tmp_path / "aside", files[1])):
        source.rename(target)
    assert TWO.stamp(files[0]) != now  # swapped
    write_image(tmp_path / "a_0002.nii.gz")
    with pytest.raises(ImageError, match=r"a_0000.nii.gz, a_0001.nii.gz, a_0002.nii.gz: 3 channels, where 2 are"):
        TWO.grid(files[0])
    (tmp_path / "a_0002.nii.gz").unlink()
    write_nifti(files[1], np.zeros((*SHAPE[:2], 2), np.int16))
    with pytest.raises(ImageError, match=r"a_0001.nii.gz does not lie on the voxels of a_0000.nii.gz"):
        TWO.read(files[0])


def test_files_of_four_dimensions_may_be_numbered_as_channels_are(tmp_path: Path) -> None:
    for number in range(3):
        _two(tmp_path / f"case_{number:04d}.nii.gz")
    first = tmp_path / "case_0000.nii.gz"
    assert TWO.files(first) == (first,)
    write_image(first)  # the wrong image: it costs no other one
    assert TWO.files(first) == (first,)


def test_a_published_model_of_other_channels_answers_nothing(tmp_path: Path) -> None:
    path = publish_small_model(tmp_path, channels=TWO.names)
    assert PublishedModel(path, LABELS, "cpu", TWO).predictor().task.in_channels == 2
    with pytest.raises(
        CheckpointError, match=r"images of 2 channels \(T1, T2\), and this server has .* of one channel"
    ):
        PublishedModel(path, LABELS, "cpu").facts()


def test_each_channel_tells_whether_an_image_is_still_the_same(tmp_path: Path) -> None:
    image = _two(tmp_path / "a.nii.gz")
    before = voxel_digest(image, TWO)
    voxels = np.asarray(nib.load(image).dataobj).astype(np.float32)
    write_nifti(image, voxels)
    assert voxel_digest(image, TWO) == before
    voxels[0, 0, 0, 1] += 1
    write_nifti(image, voxels)
    assert voxel_digest(image, TWO) != before


def test_a_picture_shows_the_first_channel(tmp_path: Path) -> None:
    one, two = write_image(tmp_path / "one.nii.gz"), _two(tmp_path / "two.nii.gz")
    label = write_label(tmp_path / "label.nii.gz")
    colours = {1: (255, 0, 0), 3: (0, 255, 0)}
    assert render(two, TWO, label, colours, 64) == render(one, ONE, label, colours, 64)


def test_what_slicer_cut_to_its_segments_is_put_in_place(tmp_path: Path) -> None:
    """It lies on a part of the image's grid, whose file has a fourth axis."""
    image = _two(tmp_path / "a.nii.gz")
    whole = np.zeros(SHAPE, np.uint8)
    whole[3:9, 2:8, 4:9] = 1
    origin = np.diag([-1, -1, 1]) @ (AFFINE[:3, :3] @ (3, 2, 4) + AFFINE[:3, 3])
    place = {"space origin": "(" + ",".join(map(repr, origin.tolist())) + ")"}
    sent = write_nrrd(tmp_path / "s.seg.nrrd", [whole[3:9, 2:8, 4:9]], segments(("head", 0, 1)), place)
    with tempfile.TemporaryDirectory() as scratch:
        prepared = prepare_label(sent, image, TWO, LABELS, {}, SubmitOptions(), Path(scratch))
        assert np.array_equal(np.asarray(nib.load(prepared.file).dataobj), whole)


# ---- a server


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server for two channels with five images, two of them of two files, and two of other numbers."""
    studies = tmp_path_factory.mktemp("studies")
    for number in (0, 2):
        _two(studies / f"case_{number}.nii.gz", number)
    for number in (1, 3):
        _parted(studies, f"case_{number}", number)
    _two(studies / "swapped.nii.gz", 3, order=-1)
    write_image(studies / "alone.nii.gz")
    write_nifti(studies / "three.nii.gz", np.ones((*SHAPE, 3), np.int16))
    publish_small_model(studies, channels=TWO.names)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as server:
        yield server


def _segmented(server: AppServer, image: str) -> tuple[np.ndarray, str]:
    """Return the label map of an image, after a look at its grid, and the version that made it."""
    answer = server.post("/rep3d/voxels/infer/rep3d", params={"image": image}, json={})
    assert answer.ok, answer.text
    about, arrays = unpacked(answer.content)
    assert about["shape"] == list(SHAPE) and np.allclose(about["affine"], AFFINE, atol=1e-6)
    return arrays["label"], about["params"]["version"]


def test_the_whole_way_of_images_of_two_channels(running: AppServer, tmp_path: Path) -> None:
    server = running
    told = server.get("/info/").json()["rep3d"]
    assert told["channels"] == told["models"]["rep3d"]["channels"] == ["T1", "T2"] and told["error"] is None
    cases = {case["id"]: case for case in server.get("/rep3d/cases").json()}
    assert {name: case["state"] for name, case in cases.items()} == {
        **{f"case_{number}": "new" for number in range(4)},
        **{"swapped": "new", "alone": "unusable", "three": "unusable"},
    }
    assert cases["case_0"]["image"]["shape"] == list(SHAPE)
    assert "alone.nii.gz: 1 channel, where 2 are needed" in cases["alone"]["error"]
    assert "three.nii.gz: 3 channels, where 2 are needed" in cases["three"]["error"]
    before, version = _segmented(server, "case_3")
    assert version == "v1" and set(np.unique(before)) == {0, *LABELS.values()}
    assert not np.array_equal(_segmented(server, "swapped")[0], before)  # it looks at each of them
    answer = server.post("/infer/rep3d", params={"image": "alone", "output": "image"})
    assert (answer.status_code, "1 channel, where 2 are needed" in answer.text) == (422, True), answer.text
    picture = server.get("/rep3d/cases/case_0/thumbnail.png")
    assert picture.ok and Image.open(io.BytesIO(picture.content)).format == "PNG"
    # A label as a file, and one as voxels.
    for number in range(2):
        label = write_label(tmp_path / f"{number}.nii.gz", number)
        if number:
            body = packed({"label": np.asarray(nib.load(label).dataobj)}, AFFINE)
            answer = server.put(f"/rep3d/voxels/labels/case_{number}", data=body, headers=VOXELS)
        else:
            files = {"label": ("l.nii.gz", label.read_bytes())}
            answer = server.put("/datastore/label", params={"image": f"case_{number}"}, files=files)
        assert answer.ok, answer.text
        stored = unpacked(server.get(f"/rep3d/voxels/labels/case_{number}").content)[1]["label"]
        assert np.array_equal(stored, np.asarray(nib.load(label).dataobj))
    assert server.put("/datastore/label", params={"image": "alone"}, files=files).status_code == 422
    assert server.post("/train/rep3d", json={"iterations": 1, "score_minutes": 1}).ok
    stats = server.wait_for_training()
    assert (stats["phase"], stats["error"], stats["skipped"], stats["found"]) == ("done", None, {}, 2), stats
    assert server.post("/rep3d/models/rep3d/versions/v2/publish", json={"by": "anna", "reason": "to look at"}).ok
    assert _segmented(server, "case_3")[1] == "v2"
    assert server.post("/scoring/uncertainty", params={"run_sync": True}, json={"model": "rep3d"}).ok
    scores = {case["id"]: case["score"] for case in server.get("/rep3d/cases").json()}
    left = ("case_2", "case_3", "swapped")
    assert all(scores[name] is not None for name in left) and scores["alone"] is None
    sample = server.post("/activelearning/entropy", json={"client_id": "anna"}).json()
    assert sample["id"] == max(left, key=lambda name: scores[name])


def test_an_image_of_two_files_is_sent_whole_and_removed_whole(running: AppServer, tmp_path: Path) -> None:
    server = running
    files = _parted(tmp_path, "moved", 5)
    sent = [file.rename(server.studies / file.name) for file in files]
    until = time.monotonic() + 30
    while "moved" not in {case["id"] for case in server.get("/rep3d/cases").json()}:
        assert time.monotonic() < until
        time.sleep(0.2)
    whole = nib.Nifti1Image.from_bytes(gzip.decompress(server.get("/datastore/image?image=moved").content))
    assert whole.shape == (*SHAPE, 2) and np.allclose(whole.affine, AFFINE, atol=1e-6)
    voxels = np.asarray(whole.dataobj)
    for number, file in enumerate(sent):
        assert np.array_equal(voxels[..., number], np.asarray(nib.load(file).dataobj))
        about, arrays = unpacked(server.get(f"/rep3d/voxels/images/moved?channel={number}").content)
        assert np.array_equal(arrays["image"], voxels[..., number])
    # A label that was drawn on it is refused where the second file was replaced meanwhile.
    second = sent[1].read_bytes()
    write_image(sent[1], 6)
    label = {"label": np.asarray(nib.load(write_label(tmp_path / "l.nii.gz")).dataobj)}
    body = packed(label, AFFINE, {"drawn_on": about["params"]["mark"]})
    answer = server.put("/rep3d/voxels/labels/moved", data=body, headers=VOXELS)
    assert answer.status_code == 409 and "image moved was changed or replaced" in answer.json()["detail"], answer.text
    sent[1].write_bytes(second)
    assert server.put("/rep3d/voxels/labels/moved", data=packed(label, AFFINE), headers=VOXELS).ok
    archive = zipfile.ZipFile(io.BytesIO(server.get("/datastore/dataset").content))
    assert {f"image/{file.name}" for file in sent} <= set(archive.namelist())
    assert server.request("DELETE", "/datastore/image?id=moved").ok
    assert not any(file.exists() for file in sent)
    removed = next((server.studies / "rep3d" / "removed").glob("moved-*"))
    assert {file.name for file in removed.rglob("*.nii.gz")} == {
        "moved_0000.nii.gz",
        "moved_0001.nii.gz",
        "moved.nii.gz",
    }


def test_one_channel_of_an_image_can_be_asked_for(running: AppServer) -> None:
    voxels = np.asarray(nib.load(running.studies / "case_2.nii.gz").dataobj)
    for asked, number in (("", 0), ("?channel=0", 0), ("?channel=1", 1)):
        about, arrays = unpacked(running.get(f"/rep3d/voxels/images/case_2{asked}").content)
        assert np.array_equal(arrays["image"], voxels[..., number])
        assert {**about["params"], "mark": ""} == {"mark": "", "channel": number, "channels": ["T1", "T2"]}
    for asked, words in (("2", "2 channels (T1, T2); 0 is T1, 1 is T2"), ("-1", "no channel -1"), ("T1", "channel")):
        answer = running.get(f"/rep3d/voxels/images/case_2?channel={asked}")
        assert answer.status_code in (400, 422) and words in answer.json()["detail"], answer.text
    answer = running.get("/rep3d/voxels/images/alone")
    assert (answer.status_code, "image alone: 1 channel" in answer.text) == (422, True)


def test_a_server_for_one_channel_has_channel_0_and_no_names(server: AppServer) -> None:
    plain = server.get("/rep3d/voxels/images/case_0").content
    assert server.get("/rep3d/voxels/images/case_0?channel=0").content == plain and set(
        unpacked(plain)[0]["params"]
    ) == {"mark"}
    answer = server.get("/rep3d/voxels/images/case_0?channel=1")
    assert answer.status_code in (400, 422) and "has one channel" in answer.json()["detail"]
    assert server.get("/info/").json()["rep3d"]["channels"] == []


def test_what_is_sent_must_have_the_channels(running: AppServer, tmp_path: Path) -> None:
    one, two = write_image(tmp_path / "one.nii.gz").read_bytes(), _two(tmp_path / "two.nii.gz").read_bytes()
    answer = running.put("/datastore/image", params={"image": "sent"}, files={"file": ("sent.nii.gz", two)})
    assert answer.ok, answer.text
    assert _segmented(running, "sent")[0].shape == SHAPE
    kept = gzip.decompress((running.studies / "sent.nii.gz").read_bytes())
    assert kept[352:] == gzip.decompress(two)[352:]  # behind the header, whose texts are taken out
    refused = running.put("/datastore/image", params={"image": "small"}, files={"file": ("small.nii.gz", one)})
    assert refused.status_code == 422 and "image small: 1 channel, where 2 are needed" in refused.json()["detail"]
    body = packed({"image": np.ones(SHAPE, np.int16)}, AFFINE)
    refused = running.put("/rep3d/voxels/images/small", data=body, headers=VOXELS)
    assert refused.status_code == 422 and "1 channel, where 2 are needed" in refused.json()["detail"]
    opened = running.put("/session/", files={"files": ("two.nii.gz", two)})
    assert opened.ok, opened.text
    session = opened.json()["session_id"]
    answer = running.post("/infer/rep3d", params={"session_id": session, "output": "image"})
    assert answer.ok and nib.Nifti1Image.from_bytes(gzip.decompress(answer.content)).shape == SHAPE
    refused = running.put("/session/", files={"files": ("one.nii.gz", one)})
    assert refused.status_code == 422 and "the image: 1 channel" in refused.json()["detail"]
