"""Images that have a file for each channel, in the list of the studies folder: one image each, and nothing lost."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from lib.channels import ONE, Channels
from lib.errors import ConflictError
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore
from lib.storage.entries import FINAL

from tests.app.data import LABELS, SHAPE, unchanged, write_image, write_label, write_nifti

TWO = Channels(("T1", "T2"))


def _store(studies: Path, channels: Channels = TWO) -> Rep3DDatastore:
    workspace = Workspace(studies / "rep3d")
    return Rep3DDatastore(studies, workspace, LABELS, auto_reload=False, read_only=False, channels=channels)


def _files(store: Rep3DDatastore) -> dict[str, list[str]]:
    return {id_: [file.name for file in store.channels.files(store.image_file(id_))] for id_ in store.list_images()}


def _reasons(store: Rep3DDatastore) -> dict[str, str]:
    return {one.file: one.reason for one in store.passed_over()}


def _write(studies: Path, *names: str) -> None:
    for name in names:
        write_image(studies / name)


def test_files_that_belong_together_are_one_image(tmp_path: Path) -> None:
    _write(
        tmp_path, "a_0000.nii.gz", "a_0001.nii.gz", "b_0000.NII.GZ", "b_0001.nii", "lone_0000.nii.gz", "x_0001.nii.gz"
    )
    for name in ("case_0000.nii.gz", "case_0001.nii.gz", "whole.nii.gz"):
        write_nifti(tmp_path / name, np.ones((*SHAPE, 2), np.int16))
    with unchanged(tmp_path):
        store = _store(tmp_path)
        (tmp_path / "datastore_v2.json").unlink()
    assert _files(store) == {
        "a": ["a_0000.nii.gz", "a_0001.nii.gz"],
        "b": ["b_0000.NII.GZ", "b_0001.nii"],
        **{name: [f"{name}.nii.gz"] for name in ("lone_0000", "x_0001", "case_0000", "case_0001", "whole")},
    }
    assert _reasons(store) == {}
    store.unusable.look_at_all()
    assert set(store.unusable.reasons()) == {"lone_0000", "x_0001"}


def test_a_second_file_for_a_channel_or_an_image_is_named(tmp_path: Path) -> None:
    _write(tmp_path, *(f"{name}_{number:04d}.nii.gz" for name in "ab" for number in range(2)), "a_0001.nii")
    write_nifti(tmp_path / "b.nii.gz", np.ones((*SHAPE, 2), np.int16))
    store = _store(tmp_path)
    assert _files(store) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"], "b": ["b.nii.gz"]}
    assert _reasons(store) == {
        "a_0001.nii": "a_0001.nii.gz is used, which has the same name.",
        **{f"b_{number:04d}.nii.gz": "b.nii.gz is used, which has the same name." for number in range(2)},
    }


def test_an_image_stays_with_the_files_that_it_had(tmp_path: Path) -> None:
    """Its label was drawn on those."""
    _write(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    store = _store(tmp_path)
    store.submit_label("a", write_label(tmp_path / "rep3d" / "l.nii.gz"), FINAL, {"user": "anna"})
    write_nifti(tmp_path / "a.nii.gz", np.ones((*SHAPE, 2), np.int16))
    for opened in (store, _store(tmp_path)):
        opened.refresh()
        assert _files(opened) == {"a": ["a_0000.nii.gz", "a_0001.nii.gz"]} and opened.misfit("a") is None
        assert _reasons(opened) == {"a.nii.gz": "a_0000.nii.gz is used, which has the same name."}


def test_a_channel_that_is_no_file_of_the_folder_makes_no_image(tmp_path: Path) -> None:
    outside, studies = tmp_path / "outside", tmp_path / "studies"
    studies.mkdir()
    outside.mkdir()
    _write(outside, "t2.nii.gz")
    _write(studies, "a_0000.nii.gz", "a_0001.nii.gz")
    store = _store(studies)
    assert list(_files(store)) == ["a"]
    (studies / "a_0001.nii.gz").unlink()
    (studies / "a_0001.nii.gz").symlink_to(outside / "t2.nii.gz")
    with pytest.raises(ConflictError, match="leads out of the studies folder"):
        store.image_file("a")
    store.refresh()
    assert _files(store) == {}
    assert _reasons(store) == {
        "a_0000.nii.gz": "Another channel, a_0001.nii.gz, cannot be used.",
        "a_0001.nii.gz": "It is a link that leads out of the studies folder.",
    }


def test_a_label_stays_with_its_image_while_files_come_and_go(tmp_path: Path) -> None:
    _write(tmp_path, "a_0000.nii.gz")
    store = _store(tmp_path)
    assert list(_files(store)) == ["a_0000"]  # the second file is still being copied
    _write(tmp_path, "a_0001.nii.gz")
    store.refresh()
    assert list(_files(store)) == ["a"]
    store.submit_label("a", write_label(tmp_path / "rep3d" / "l.nii.gz"), FINAL, {"user": "anna"})
    store.note_image("a")
    (tmp_path / "a_0001.nii.gz").rename(tmp_path / "rep3d" / "away.nii.gz")
    store.refresh()
    assert list(_files(store)) == ["a_0000"] and "labels/final/a.nii.gz" in _reasons(store)
    (tmp_path / "rep3d" / "away.nii.gz").rename(tmp_path / "a_0001.nii.gz")
    store.refresh()
    assert store.get_label_info("a", FINAL)["user"] == "anna" and store.misfit("a") is None
    write_image(tmp_path / "a_0001.nii.gz", 1)  # another one: the label was not drawn on it
    assert "others than those that its label was drawn on" in (store.misfit("a") or "")


def test_another_number_of_channels_makes_other_images_of_the_same_files(tmp_path: Path) -> None:
    _write(tmp_path, "a_0000.nii.gz", "a_0001.nii.gz")
    label = write_label(tmp_path / "rep3d" / "l.nii.gz")
    alone = _store(tmp_path, ONE)
    assert sorted(_files(alone)) == ["a_0000", "a_0001"]
    alone.submit_label("a_0001", label, FINAL, {"user": "bert"})
    both = _store(tmp_path)
    assert sorted(_files(both)) == ["a"] and "labels/final/a_0001.nii.gz" in _reasons(both)
    both.submit_label("a", label, FINAL, {"user": "anna"})
    again = _store(tmp_path, ONE)
    assert sorted(_files(again)) == ["a_0000", "a_0001"] and "labels/final/a.nii.gz" in _reasons(again)
    assert again.get_label_info("a_0001", FINAL)["user"] == "bert" and again.misfit("a_0001") is None
    assert _store(tmp_path).get_label_info("a", FINAL)["user"] == "anna"
