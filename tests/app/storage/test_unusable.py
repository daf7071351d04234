"""Images that nobody can use, and labels that do not fit: found out once, remembered, looked at again on a change."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from lib.channels import Channels
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore

from rep3d.errors import ImageError, OutOfMemoryError
from tests.app.data import AFFINE, LABELS, SHAPE, unchanged, write_image, write_label, write_nifti

COLOUR = np.zeros(SHAPE, [("R", "u1"), ("G", "u1"), ("B", "u1")])
TILTED = np.array([[1.0, 0.2, 0.0, 0.0], [0.0, 1.0, 0.0, 0.0], [0.0, 0.0, 1.0, 0.0], [0.0, 0.0, 0.0, 1.0]])
HEADERS = {  # told by the header alone
    "channels": (np.zeros((*SHAPE, 2), np.int16), "not three-dimensional"),
    "colour": (COLOUR, "one number each"),
    "flat": (np.zeros(SHAPE[:2], np.int16), "not three-dimensional"),
    "complex": (np.zeros(SHAPE, np.complex64), "one number each"),
}


def _store(studies: Path) -> Rep3DDatastore:
    return Rep3DDatastore(studies, Workspace(studies / "rep3d"), LABELS, auto_reload=False, read_only=False)


def _cut(file: Path, left: int) -> Path:
    file.write_bytes(file.read_bytes()[:left])
    return file


def _odd(studies: Path) -> None:
    for name, (values, _) in HEADERS.items():
        write_nifti(studies / f"{name}.nii.gz", values)
    write_nifti(studies / "tilted.nii.gz", np.ones(SHAPE, np.int16), TILTED)
    _cut(write_image(studies / "cut.nii.gz"), 2000)
    (studies / "text.nii.gz").write_text("no image")
    write_image(studies / "good.nii.gz")


def test_what_is_wrong_is_told_without_reading_voxels(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _odd(tmp_path)
    monkeypatch.setattr("lib.channels.read_channels", lambda file, count: pytest.fail(f"{file} was read"))
    with unchanged(tmp_path):
        store = _store(tmp_path)
        store.unusable.look_at_all()
        (tmp_path / "datastore_v2.json").unlink()
    reasons = store.unusable.reasons()
    assert set(reasons) == {*HEADERS, "tilted", "text"}  # only its voxels say that "cut" is
    assert all(words in reasons[name] for name, (_, words) in HEADERS.items())
    assert "right angle" in reasons["tilted"] and "damaged" in reasons["text"]


def test_voxels_are_read_once_and_a_restart_reads_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.storage.unusable._WORTH_WRITING", 1)
    _odd(tmp_path)
    store = _store(tmp_path)
    assert store.unusable.check("good") is None
    reason = store.unusable.check("cut")
    assert reason and "cut short" in reason
    store.unusable.look_at_all()
    for name in ("channels.read_channels", "channels.channels_grid", "storage.unusable.stored_grid"):
        monkeypatch.setattr(f"lib.{name}", lambda file, *count: pytest.fail(f"{file} was read again"))
    for again in (store, _store(tmp_path)):
        again.unusable.look_at_all()
        assert again.unusable.check("cut") == again.unusable.reasons()["cut"] == reason
        assert again.unusable.check("good") is None


def test_a_file_that_changed_is_looked_at_again(tmp_path: Path) -> None:
    file = _cut(write_image(tmp_path / "copying.nii.gz"), 2000)
    store = _store(tmp_path)
    assert store.unusable.check("copying") and set(store.unusable.reasons()) == {"copying"}
    with pytest.raises(ImageError, match="cut short"):
        store.unusable.refuse("copying")
    write_image(file)
    assert store.unusable.reasons() == {} and store.unusable.check("copying") is None
    store.unusable.refuse("copying")
    _cut(file, 2000)
    assert store.unusable.check("copying")


def test_processes_tell_each_other(tmp_path: Path) -> None:
    """The scoring runs in a process of its own; what it found out is known to the server."""
    _cut(write_image(tmp_path / "cut.nii.gz"), 2000)
    server, child = _store(tmp_path), _store(tmp_path)
    server.unusable.look_at_all()
    assert child.unusable.check("cut")
    assert set(server.unusable.reasons()) == {"cut"}


def test_want_of_memory_is_not_the_images_fault(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_image(tmp_path / "large.nii.gz")
    store = _store(tmp_path)
    for error in (OutOfMemoryError("4 GB"), MemoryError()):

        def read(file: Path, count: int, error: Exception = error) -> None:
            raise error

        monkeypatch.setattr("lib.channels.read_channels", read)
        assert store.unusable.check("large") is None and store.unusable.reasons() == {}


def test_an_image_of_other_channels_is_unusable_and_what_is_remembered_goes_with_their_number(tmp_path: Path) -> None:
    for name, channels in (("one", 1), ("two", 2), ("three", 3)):
        write_nifti(tmp_path / f"{name}.nii.gz", np.ones((*SHAPE, channels)[: 3 + (channels > 1)], np.int16))
    for names, usable, words in (
        (("T1", "T2"), "two", {"one": "1 channel, where 2 are needed", "three": "3 channels, where 2 are needed"}),
        ((), "one", {"two": "not three-dimensional", "three": "not three-dimensional"}),
        (("a", "b", "c"), "three", {"one": "1 channel, where 3", "two": "2 channels, where 3"}),
    ):
        store = _store(tmp_path)  # anew, over what the one before remembered
        store.channels = Channels(names)
        store.unusable.look_at_all()
        reasons = store.unusable.reasons()
        assert set(reasons) == set(words) and all(told in reasons[name] for name, told in words.items())
        assert all(f"{name}.nii.gz" in told for name, told in reasons.items())
        assert store.unusable.check(usable) is None
        store.unusable.save()


def test_a_tilted_image_that_was_annotated_elsewhere_stays_in_use(tmp_path: Path) -> None:
    write_nifti(tmp_path / "tilted.nii.gz", np.ones(SHAPE, np.int16), TILTED)
    write_nifti(tmp_path / "labels" / "final" / "tilted.nii.gz", np.ones(SHAPE, np.uint8), TILTED)
    store = _store(tmp_path)
    store.unusable.look_at_all()
    assert store.unusable.reasons() == {} and store.unusable.labels() == []
    store.remove_label("tilted", "final")
    assert set(store.unusable.reasons()) == {"tilted"}


def test_labels_that_do_not_fit_are_named(tmp_path: Path) -> None:
    final = tmp_path / "labels" / "final"
    for name in ("fits", "moved", "text"):
        write_image(tmp_path / f"{name}.nii.gz")
    write_label(final / "fits.nii.gz")
    write_nifti(final / "moved.nii.gz", np.ones(SHAPE, np.uint8), AFFINE + np.eye(4)[:, [3, 0, 1, 2]] * 9)
    (final / "text.nii.gz").write_text("no label")
    store = _store(tmp_path)
    store.unusable.look_at_all()
    found = {one.file: one.reason for one in store.unusable.labels()}
    assert set(found) == {"labels/final/moved.nii.gz", "labels/final/text.nii.gz"}
    write_label(final / "moved.nii.gz")
    store.unusable.look_at_all()
    assert [one.file for one in store.unusable.labels()] == ["labels/final/text.nii.gz"]


def test_a_case_that_cannot_be_read_costs_no_other_its_place_in_the_archive(tmp_path: Path) -> None:
    for number in range(3):
        write_image(tmp_path / f"case_{number}.nii.gz", number)
        write_label(tmp_path / "labels" / "final" / f"case_{number}.nii.gz", number)
    store = _store(tmp_path)
    (tmp_path / "case_1.nii.gz").unlink()  # and nobody noticed yet
    archive = Path(store.get_dataset_archive(None))
    with zipfile.ZipFile(archive) as packed:
        names, left_out = packed.namelist(), json.loads(packed.read("left_out.json"))
    archive.unlink()
    assert [name for name in names if "/" in name] == [
        f"{kind}/case_{number}.nii.gz" for number in (0, 2) for kind in ("image", "label")
    ]
    assert set(left_out) == {"case_1"} and "case_1.nii.gz" in left_out["case_1"]


BROKEN = {
    "cut": lambda file: _cut(write_label(file), 300),
    "colour": lambda file: write_nifti(file, COLOUR),
    "wide": lambda file: (
        file.parent.mkdir(parents=True),
        nib.save(nib.Nifti1Image(np.full(SHAPE, 2**63, np.uint64), AFFINE, dtype=np.uint64), file),
    ),
    "folder": lambda file: file.mkdir(parents=True),
    "link": lambda file: (file.parent.mkdir(parents=True), file.symlink_to("nowhere.nii.gz")),
}


@pytest.mark.parametrize("kind", BROKEN)
def test_a_label_can_always_be_submitted_over_a_broken_one(tmp_path: Path, kind: str) -> None:
    studies = tmp_path / "studies"
    write_image(studies / "case.nii.gz")
    place = studies / "labels" / "final" / "case.nii.gz"
    BROKEN[kind](place)
    store = _store(studies)
    new = write_label(tmp_path / "new.nii.gz")
    assert store.save_label("case", str(new), "final", {"user": "anna"}) == "case"
    assert place.read_bytes() == new.read_bytes()
    kept = list((studies / "rep3d" / "history" / "case").glob("*.nii.gz"))
    assert len(kept) == (0 if kind == "link" else 1) and store.get_label_info("case", "final")["user"] == "anna"
