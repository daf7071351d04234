"""Submitting labels over HTTP: by name, changed only as asked for, the original kept; what is unclear is refused."""

from __future__ import annotations

import io
import json
import uuid
import zipfile
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import requests
import SimpleITK as sitk

from tests.app.data import AFFINE, LABELS, SHAPE, unchanged, write_image, write_label, write_nifti
from tests.app.nrrd_files import segments, write_nrrd
from tests.app.server import AppServer

HEAD, TAIL = LABELS["head"], LABELS["tail"]


@pytest.fixture
def case(server: AppServer, tmp_path: Path) -> str:
    """Return a new case without a label."""
    name = f"submitted-{uuid.uuid4().hex}"
    image = write_image(tmp_path / f"{name}.nii.gz", 7)
    assert server.put("/datastore/image", files={"file": (image.name, image.read_bytes())}).json() == {"image": name}
    return name


@pytest.fixture
def truth(tmp_path: Path) -> np.ndarray:
    """Return the true label of :func:`case`."""
    return np.asanyarray(nib.load(write_label(tmp_path / "truth.nii.gz", 7)).dataobj)


def submit(server: AppServer, case: str, file: Path, **params: Any) -> requests.Response:
    """Submit a final label."""
    return server.put(
        "/datastore/label",
        params={"image": case, "tag": "final"},
        files={"label": (file.name, file.read_bytes())},
        data={"params": json.dumps(params)},
    )


def stored(server: AppServer, case: str, tmp_path: Path) -> nib.Nifti1Image:
    """Return the current label."""
    answer = server.get("/datastore/label", params={"label": case, "tag": "final"})
    name = answer.headers["content-disposition"].split("filename=")[1].strip('"')
    path = tmp_path / "stored" / name
    path.parent.mkdir(exist_ok=True)
    path.write_bytes(answer.content)
    return nib.load(path)


def info(server: AppServer, case: str) -> dict:
    return server.get("/datastore/label/info", params={"label": case, "tag": "final"}).json()


def refused(answer: requests.Response, *words: str, status: int = 422) -> None:
    assert answer.status_code == status, answer.text
    for word in words:
        assert word in answer.json()["detail"], answer.text


# By name -----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "described",
    [
        {"label_info": [{"name": "head", "idx": 1}, {"name": "tail", "idx": 2}]},  # as 3D Slicer's plug-in sends it
        {"label_info": {"head": 1, "tail": 2}},
        {"labels": {"background": 0, "head": 1, "tail": 2}},
    ],
    ids=["list", "mapping", "labels"],
)
def test_other_values_are_remapped_by_name(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path, described: dict
) -> None:
    sent = write_nifti(tmp_path / "sent.nii.gz", np.where(truth == TAIL, 2, truth).astype(np.uint8))
    answer = submit(server, case, sent, user="anna", **described)
    assert answer.json() == {"image": case, "label": case, "remapped": {"2": TAIL}}
    kept = stored(server, case, tmp_path)
    np.testing.assert_array_equal(np.asanyarray(kept.dataobj), truth)
    np.testing.assert_allclose(kept.affine, AFFINE, atol=1e-6)
    facts = info(server, case)
    assert facts["remapped"] == {"2": TAIL}
    (original,) = [e for e in server.get(f"/rep3d/cases/{case}/history").json() if e["reason"] == "original"]
    assert (original["entry"], original["author"]) == (facts["original"], "anna")
    assert server.get(f"/rep3d/cases/{case}/history/{original['entry']}").content == sent.read_bytes()


def test_swapped_values_come_right(server: AppServer, case: str, truth: np.ndarray, tmp_path: Path) -> None:
    swapped = np.select([truth == HEAD, truth == TAIL], [TAIL, HEAD], 0).astype(np.int16)
    answer = submit(
        server,
        case,
        write_nifti(tmp_path / "s.nii", swapped),
        label_info=[{"name": "head", "idx": TAIL}, {"name": "tail", "idx": HEAD}],
    )
    assert answer.json()["remapped"] == {str(TAIL): HEAD, str(HEAD): TAIL}
    np.testing.assert_array_equal(np.asanyarray(stored(server, case, tmp_path).dataobj), truth)


def test_what_needs_no_change_is_kept_byte_for_byte(server: AppServer, case: str, tmp_path: Path) -> None:
    label = write_label(tmp_path / "label.nii.gz", 7)
    names = [{"name": "head", "idx": HEAD}, {"name": "tail", "idx": TAIL}]
    assert submit(server, case, label, label_info=names).json() == {"image": case, "label": case}
    assert server.get("/datastore/label", params={"label": case, "tag": "final"}).content == label.read_bytes()
    assert not {"remapped", "resampled", "converted"} & set(info(server, case))


@pytest.mark.parametrize(
    ("described", "words"),
    [
        ([{"name": "liver", "idx": 1}], ["liver", "head", "tail"]),
        ([{"name": "head", "idx": 1}, {"name": "Tail", "idx": 3}], ["Tail"]),
        ([{"name": "tail", "idx": 1}], ["without a name", "[3]"]),  # 3 could be anybody's
        ([{"name": "head", "idx": 1}, {"name": "tail", "idx": 1}], ["two names for the voxel value 1"]),
        ([{"name": "head", "idx": 1}, {"name": "head", "idx": 3}], ["'head' two values"]),
        ([{"name": "head", "idx": 0}, {"name": "tail", "idx": 3}], ["for the background"]),
        ([{"name": "head", "idx": -1}], ["whole numbers"]),
        ([{"name": "head", "idx": "one"}], ["whole numbers"]),
        ([{"idx": 1}], ["NAME"]),
        ("head", ["NAME"]),
    ],
)
def test_unclear_names_are_refused(
    server: AppServer, studies: Path, case: str, tmp_path: Path, described: Any, words: list[str]
) -> None:
    label = write_label(tmp_path / "label.nii.gz", 7)
    with unchanged(studies):
        refused(submit(server, case, label, label_info=described), *words)


# Geometry and content ----------------------------------------------------------------------------------------


def test_empty_label_only_where_it_is_meant(server: AppServer, studies: Path, case: str, tmp_path: Path) -> None:
    nothing = write_nifti(tmp_path / "nothing.nii.gz", np.zeros(SHAPE, np.uint8))
    with unchanged(studies):
        refused(submit(server, case, nothing), "is empty", '"empty"')
        refused(submit(server, case, nothing, empty="yes"), "true or false")
    assert submit(server, case, nothing, empty=True).ok
    assert info(server, case)["empty"] is True
    assert server.get(f"/rep3d/cases/{case}").json()["labels"] == {}


def test_flipped_label_is_put_right_only_when_asked(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    # The same structures in the same places, stored from the other end.
    flip = AFFINE @ np.array([[-1, 0, 0, SHAPE[0] - 1], [0, 1, 0, 0], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    flipped = write_nifti(tmp_path / "flipped.nii.gz", truth[::-1].copy(), flip)
    with unchanged(studies):
        refused(submit(server, case, flipped), "does not lie on the voxels", '"resample"')
    answer = submit(server, case, flipped, resample=True)
    assert set(answer.json()) == {"image", "label", "resampled"}
    np.testing.assert_array_equal(np.asanyarray(stored(server, case, tmp_path).dataobj), truth)
    facts = info(server, case)["resampled"]
    assert facts["ml_before"] == facts["ml_after"] == pytest.approx((truth > 0).sum() * 1.2 * 1.01 / 1000, rel=0.02)
    reasons = [entry["reason"] for entry in server.get(f"/rep3d/cases/{case}/history").json()]
    assert reasons == ["current", "original"]


def test_each_label_is_stored_on_the_images_own_affine_to_the_bit(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    # As programs do that keep affines in single precision: within what is taken for the same grid, but not the same.
    near = AFFINE.copy()
    near[:3, 3] += 0.02
    label = write_nifti(tmp_path / "near.nii.gz", truth, near)
    own = nib.load(studies / f"{case}.nii.gz").affine
    assert not np.array_equal(nib.load(label).affine, own)
    answer = submit(server, case, label, user="anna")
    assert answer.json() == {"image": case, "label": case}
    kept = stored(server, case, tmp_path)
    np.testing.assert_array_equal(kept.affine, own)
    np.testing.assert_array_equal(np.asanyarray(kept.dataobj), truth)
    assert submit(server, case, label, user="anna").json()["duplicate"] is True  # it says the same
    # One that an older server stored as it came is put right when it is made the current one again.
    assert submit(server, case, write_nifti(tmp_path / "other.nii.gz", np.roll(truth, 1, 0)), user="anna").ok
    (entry,) = [e for e in server.get(f"/rep3d/cases/{case}/history").json() if e["entry"]]
    write_nifti(studies / "rep3d" / "history" / case / entry["file"], truth, near)
    assert server.post(f"/rep3d/cases/{case}/history/{entry['entry']}/restore", json={"user": "anna"}).ok
    np.testing.assert_array_equal(stored(server, case, tmp_path).affine, own)


def test_finer_label_is_resampled_by_nearest_neighbour(
    server: AppServer, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    fine = AFFINE @ np.array([[0.5, 0, 0, -0.25], [0, 0.5, 0, -0.25], [0, 0, 0.5, -0.25], [0, 0, 0, 1.0]])
    doubled = truth.repeat(2, 0).repeat(2, 1).repeat(2, 2)
    assert submit(server, case, write_nifti(tmp_path / "fine.nii.gz", doubled, fine), resample=True).ok
    np.testing.assert_array_equal(np.asanyarray(stored(server, case, tmp_path).dataobj), truth)


def test_label_of_another_place_is_refused_even_then(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    far = AFFINE.copy()
    far[:3, 3] += 500
    label = write_nifti(tmp_path / "far.nii.gz", truth, far)
    with unchanged(studies):
        refused(submit(server, case, label, resample=True), "outside", "another image")
        refused(submit(server, case, label, resample=True, empty=True), "outside")


@pytest.mark.parametrize(
    "values",
    [
        np.full(SHAPE, 0.5),
        np.full(SHAPE, np.nan, np.float32),
        np.full(SHAPE, np.inf, np.float32),
        np.full(SHAPE, -1, np.int8),
        np.full(SHAPE, 9, np.uint8),
        np.full((*SHAPE, 2), HEAD, np.uint8),
        np.full((24, 20, 17), HEAD, np.uint8),
    ],
    ids=["float", "nan", "infinite", "negative", "unknown", "4D", "shape"],
)
def test_what_is_no_label_map_is_refused(
    server: AppServer, studies: Path, case: str, tmp_path: Path, values: np.ndarray
) -> None:
    label = write_nifti(tmp_path / "odd.nii.gz", values)
    with unchanged(studies):
        refused(submit(server, case, label), f"he label for image {case}")


def test_whole_numbers_stored_as_floats_are_fine(
    server: AppServer, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    assert submit(server, case, write_nifti(tmp_path / "float.nii.gz", truth.astype(np.float32))).ok


# Other formats -----------------------------------------------------------------------------------------------


def _as_itk(server: AppServer, case: str, values: np.ndarray, tmp_path: Path) -> sitk.Image:
    path = write_nifti(tmp_path / "itk.nii.gz", values)
    return sitk.ReadImage(str(path))


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_label_maps_of_other_formats(
    server: AppServer, case: str, truth: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    file = tmp_path / f"label{suffix}"
    sitk.WriteImage(_as_itk(server, case, truth, tmp_path), str(file), useCompression=True)
    assert submit(server, case, file).json()["converted"] == {"from": suffix}
    kept = stored(server, case, tmp_path)
    np.testing.assert_array_equal(np.asanyarray(kept.dataobj), truth)
    np.testing.assert_allclose(kept.affine, AFFINE, atol=1e-5)


def test_slicer_segmentation_is_put_in_its_place(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    # As 3D Slicer writes one layer: cut down to the segments, with names and values in the file itself.
    label = _as_itk(server, case, np.where(truth == TAIL, 2, truth).astype(np.uint8), tmp_path)
    low, high = np.argwhere(truth > 0).min(0).tolist(), np.argwhere(truth > 0).max(0).tolist()
    cut = label[low[0] : high[0] + 1, low[1] : high[1] + 1, low[2] : high[2] + 1]
    for number, (name, value) in enumerate({"head": 1, "tail": 2}.items()):
        cut.SetMetaData(f"Segment{number}_Name", name)
        cut.SetMetaData(f"Segment{number}_LabelValue", str(value))
        cut.SetMetaData(f"Segment{number}_Layer", "0")
    file = tmp_path / "s.seg.nrrd"
    sitk.WriteImage(cut, str(file))
    wrong = [{"name": "head", "idx": 2}, {"name": "tail", "idx": 3}]  # the file itself knows better
    answer = submit(server, case, file, label_info=wrong)
    assert answer.json()["remapped"] == {"2": TAIL}, answer.text
    np.testing.assert_array_equal(np.asanyarray(stored(server, case, tmp_path).dataobj), truth)
    with unchanged(studies):
        refused(submit(server, case, file, label_info=[{"name": "liver", "idx": 1}]), "liver")


def test_overlapping_segments_are_refused(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    layer = _as_itk(server, case, truth, tmp_path)
    file = tmp_path / "two.seg.nrrd"
    sitk.WriteImage(sitk.Compose(layer, layer), str(file))
    text = tmp_path / "text.nrrd"
    text.write_text("this is no image")
    with unchanged(studies):
        refused(submit(server, case, file), "one layer")
        refused(submit(server, case, text), f"label for image {case}", "cannot be read")


def test_segments_are_stored_by_name_or_not_at_all(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path
) -> None:
    file = tmp_path / "s.seg.nrrd"
    layers = [(truth == HEAD).astype(np.uint8), (truth == TAIL).astype(np.uint8)]
    both = [*segments(("head", 0, 1), ("tail", 1, 1))]
    odd = {
        "that no segment names": write_nrrd(tmp_path / "1.seg.nrrd", [truth], segments(("head", 0, HEAD))),
        "two names for": write_nrrd(tmp_path / "2.seg.nrrd", [layers[0]], segments(("head", 0, 1), ("tail", 0, 1))),
        "overlap": write_nrrd(tmp_path / "3.seg.nrrd", [layers[0], layers[0]], both),
        "UTF-8": write_nrrd(tmp_path / "4.seg.nrrd", [layers[0]], segments(("t\udcc3te", 0, 1))),
        "without the name": write_nrrd(tmp_path / "5.seg.nrrd", [truth]),
        "lie in the patient": write_nrrd(tmp_path / "6.nrrd", [truth], fields={"space": "scanner-xyz"}),
    }
    for words, sent in odd.items():
        refused(submit(server, case, sent), words, f"he label for image {case}")
    twice = server.put(
        "/datastore/label",
        params={"image": case},
        files={"label": (file.name, odd["overlap"].read_bytes())},
        data={"params": '{"label_info": {"head": 1, "head": 3}}'},
    )
    refused(twice, "'head' is there twice")
    assert not list((studies / "labels").rglob(f"{case}*")) and not (studies / "rep3d" / "history" / case).exists()
    # Layers without overlap, one of two names for the head: each voxel keeps its name.
    third = np.zeros(SHAPE, np.uint8)
    third[0, 0, 0] = 9
    write_nrrd(file, [*layers, third], [*both, ("Segment2_Name", "head"), ("Segment2_LabelValue", "9")])
    answer = submit(server, case, file)
    assert answer.json()["converted"] == {"from": ".seg.nrrd", "joined": ["head"]}, answer.text
    expected = truth.copy()
    expected[0, 0, 0] = HEAD
    np.testing.assert_array_equal(np.asanyarray(stored(server, case, tmp_path).dataobj), expected)


@pytest.mark.parametrize("suffix", [".nrrd", ".mha"])
def test_labels_that_name_another_file_are_refused(
    server: AppServer, studies: Path, case: str, truth: np.ndarray, tmp_path: Path, suffix: str
) -> None:
    secret = tmp_path / "secret.raw"  # of the server's computer: what it holds must not come back in a message
    secret.write_bytes(np.full(truth.size, 77, np.uint8).tobytes())
    sizes = " ".join(map(str, truth.shape))
    headers = {
        ".mha": ["NDims = 3", f"DimSize = {sizes}", "ElementType = MET_UCHAR", f"ElementDataFile = {secret}"],
        ".nrrd": [
            "NRRD0004",
            "type: uchar",
            "dimension: 3",
            f"sizes: {sizes}",
            "encoding: raw",
            f"data file: {secret}",
        ],
    }
    file = tmp_path / f"label{suffix}"
    file.write_text("\n".join([*headers[suffix], ""]))
    with unchanged(studies):
        refused(submit(server, case, file, resample=True), "names another file")


# Again, and by others ----------------------------------------------------------------------------------------


def test_a_retry_changes_nothing(server: AppServer, studies: Path, case: str, tmp_path: Path) -> None:
    label, other = write_label(tmp_path / "a.nii.gz", 7), write_label(tmp_path / "b.nii.gz", 8)
    uncompressed = write_label(tmp_path / "c.nii", 7)
    assert submit(server, case, label, user="anna").json() == {"image": case, "label": case}
    with unchanged(studies):
        for file in (label, uncompressed):
            assert submit(server, case, file, user="anna").json()["duplicate"] is True
    assert "duplicate" not in submit(server, case, other, user="anna").json()
    assert "duplicate" not in submit(server, case, other, user="ben").json()
    history = server.get(f"/rep3d/cases/{case}/history").json()
    assert [(entry["author"], entry["reason"]) for entry in history] == [
        ("ben", "current"),
        ("anna", "replaced"),
        ("anna", "replaced"),
    ]


def test_source_version_is_kept(server: AppServer, case: str, tmp_path: Path) -> None:
    label = write_label(tmp_path / "a.nii.gz", 7)
    assert submit(server, case, label, model="rep3d", model_version="v7", prediction={"dice": {"head": 1}}).ok
    facts = info(server, case)
    assert facts["source"] == {"model": "rep3d", "version": "v7"}
    assert "prediction" not in facts  # only the server says that


def test_reload_builds_no_second_app(server: AppServer, case: str, tmp_path: Path) -> None:
    # Two apps in one server would each write their own list of the labels.
    built = server.log.count("Initializing App from")
    assert server.post("/reload").json() == {}
    assert submit(server, case, write_label(tmp_path / "a.nii.gz", 3), user="anna").status_code == 200
    assert server.log.count("Initializing App from") == built > 0
    content = server.get("/datastore/dataset").content
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        assert f"label/{case}.nii.gz" in archive.namelist()
