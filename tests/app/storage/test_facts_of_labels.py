"""What is known about a label lives as long as the label does: files that go and come back, copies, kills."""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lib.cases.reviews import Reviews
from lib.errors import BusyError, RequestError
from lib.labels.facts import LabelFacts
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore
from lib.training.cases import find_cases
from watchdog.events import FileCreatedEvent, FileDeletedEvent, FileMovedEvent

from rep3d.errors import LabelError
from rep3d.imaging.nifti import read_image, read_label
from tests.app.data import AFFINE, LABELS, snapshot, unchanged, write_image, write_label, write_nifti


class Killed(BaseException):
    """Stands for a kill: nobody catches it."""


class Folder:
    """A studies folder with an image, and a server's datastore on it."""

    def __init__(self, path: Path, scratch: Path) -> None:
        self.path = path
        self.workspace = Workspace(path / "rep3d")
        self.image = write_image(path / "case.nii.gz")
        self.label = path / "labels" / "final" / "case.nii.gz"
        self.sent = [write_label(scratch / f"{seed}.nii.gz", seed) for seed in range(3)]
        self.start()

    def start(self) -> None:
        """Read everything anew, as after a restart."""
        self.workspace.prepare("rep3d")
        self.store = Rep3DDatastore(self.path, self.workspace, LABELS, auto_reload=False, read_only=False)

    def submit(self, user: str, seed: int = 0, **facts: Any) -> dict[str, Any]:
        self.store.save_label("case", str(self.sent[seed]), "final", {"user": user, "model_version": "v7", **facts})
        return self.known()

    def known(self) -> dict[str, Any]:
        return dict(self.store.get_label_info("case", "final"))


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    return Folder(tmp_path / "studies", tmp_path / "sent")


def _digest(file: Path) -> str:
    return LabelFacts.of(read_label(file)[0]).digest


def _rewritten(file: Path, how: str) -> None:
    """Replace a file by a copy of it."""
    content, temporary = file.read_bytes(), file.with_name(".copy")
    temporary.write_bytes(content)
    if how == "in place":
        shutil.copyfile(temporary, file)
        temporary.unlink()
    elif how == "atomic, with its time":
        os.utime(temporary, ns=(0, file.stat().st_mtime_ns))
        os.replace(temporary, file)
    else:
        os.replace(temporary, file)


@pytest.mark.parametrize("running", [True, False])
@pytest.mark.parametrize("what", ["image", "label", "both"])
def test_files_that_were_away_for_a_moment(folder: Folder, tmp_path: Path, what: str, running: bool) -> None:
    before = folder.submit("anna", params={"seconds": 3})
    folder.store.update_image_info("case", {"note": "left knee"})
    files = [file for file, name in ((folder.image, "image"), (folder.label, "label")) if what in (name, "both")]
    look: Callable[[], None] = folder.store.refresh if running else folder.start
    for file in files:
        file.rename(tmp_path / f"away-{file.parent.name}")
    look()
    assert ("case" in folder.store.list_images(), folder.store.labelled_cases()) == (what == "label", [])
    look()  # what is away stays away, however often it is looked for
    for file in files:
        (tmp_path / f"away-{file.parent.name}").rename(file)
    folder.store.refresh() if running else folder.start()
    assert folder.known() == before
    assert folder.store.get_image_info("case")["note"] == "left knee"
    assert folder.store.misfit("case") is None


@pytest.mark.parametrize("how", ["in place", "atomic", "atomic, with its time"])
@pytest.mark.parametrize("running", [True, False])
def test_files_that_were_replaced_by_copies(folder: Folder, how: str, running: bool) -> None:
    before = folder.submit("anna")
    for file in (folder.image, folder.label):
        _rewritten(file, how)
    folder.store.refresh() if running else folder.start()
    assert (folder.known(), folder.store.misfit("case")) == (before, None)


def test_image_that_comes_back_under_another_type(folder: Folder) -> None:
    before = folder.submit("anna")
    voxels, _ = read_image(folder.image)
    folder.image.unlink()
    write_nifti(folder.path / "case.nii", voxels.astype("float32"))
    folder.start()
    assert (folder.known(), folder.store.misfit("case")) == (before, None)


@pytest.mark.parametrize("running", [True, False])
def test_a_label_put_there_by_hand_has_no_author(folder: Folder, tmp_path: Path, running: bool) -> None:
    folder.submit("anna")
    kept = folder.label.read_bytes()
    folder.submit("anna", 1)
    shutil.copyfile(folder.sent[2], folder.label)
    folder.store.refresh() if running else folder.start()
    assert not {"user", "time", "source"} & folder.known().keys()
    folder.store.refresh()
    folder.start()
    assert "user" not in folder.known()
    # Anna's own first label, put back from a copy, is hers again.
    folder.label.write_bytes(kept)
    folder.start()
    assert (folder.known()["user"], _digest(folder.label)) == ("anna", _digest(folder.sent[0]))


@pytest.mark.parametrize("point", ["copy", "record", "replace", "list", "cache", "follows"])
def test_author_and_voxels_change_together(folder: Folder, monkeypatch: pytest.MonkeyPatch, point: str) -> None:
    folder.submit("anna", 0)
    real_replace = os.replace

    def kill(*_: Any, **__: Any) -> None:
        raise Killed

    def replace(source: Any, target: Any) -> None:
        if Path(target) == folder.label:
            raise Killed
        real_replace(source, target)

    with monkeypatch.context() as patch:
        if point == "copy":
            patch.setattr("lib.storage.history.copy_whole", kill)
        elif point == "record":
            patch.setattr(folder.store.records, "put", kill)
        elif point == "replace":
            patch.setattr(os, "replace", replace)
        elif point == "list":
            patch.setattr(folder.store, "_update_datastore_file", kill)
        elif point == "cache":
            patch.setattr(folder.store.label_facts, "save", kill)
        else:
            patch.setattr(folder.store, "_compare", kill)
        with pytest.raises(Killed):
            folder.submit("ben", 1)
    folder.start()
    author = {_digest(folder.sent[0]): "anna", _digest(folder.sent[1]): "ben"}[_digest(folder.label)]
    assert author == ("anna" if point in ("copy", "record", "replace") else "ben")
    assert folder.known()["user"] == author
    folder.start()
    assert folder.known()["user"] == author
    assert json.loads((folder.path / "datastore_v2.json").read_text())["objects"]["case"]["labels"]["final"][
        "info"
    ] == (folder.known())


def test_a_label_of_another_type_takes_the_place_whole_or_not_at_all(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    folder.submit("anna", 0)
    folder.sent[1] = write_label(tmp_path / "plain.nii", 1)

    def kill(*_: Any) -> None:
        raise Killed

    with monkeypatch.context() as patch, pytest.raises(Killed):
        patch.setattr(folder.store, "_update_datastore_file", kill)
        folder.submit("ben", 1)
    folder.start()
    (case,) = folder.store.labelled_cases()
    assert (case.label.name, folder.known()["user"]) == ("case.nii", "ben")


def test_what_is_refused_on_a_full_disk_is_not_stored(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    folder.submit("anna", 0)

    def full(*_: Any, **__: Any) -> None:
        raise OSError(28, "No space left on device")

    for place in ("lib.storage.history.copy_whole", "lib.storage.history._file", "lib.storage.bound.whole_file"):
        with unchanged(folder.path), monkeypatch.context() as patch, pytest.raises(OSError, match="No space"):
            patch.setattr(place, full)
            folder.submit("ben", 1)
    # Stored, and only the list could not be written: that is no failure, and is mended.
    with monkeypatch.context() as patch:
        patch.setattr(folder.store, "_update_datastore_file", full)
        assert folder.submit("ben", 1)["user"] == "ben"
    folder.start()
    assert (folder.known()["user"], _digest(folder.label)) == ("ben", _digest(folder.sent[1]))


def test_a_removal_that_fails_removes_nothing(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    before = folder.submit("anna", 0)
    real_unlink, real_move = Path.unlink, shutil.move

    def unlink(self: Path, missing_ok: bool = False) -> None:
        if self == folder.label:
            raise PermissionError(13, "denied")
        real_unlink(self, missing_ok)

    def move(source: Any, target: Any) -> None:
        if Path(source) == folder.label and "removed" in str(target):
            raise PermissionError(13, "denied")
        real_move(source, target)

    with unchanged(folder.path), monkeypatch.context() as patch:
        patch.setattr(Path, "unlink", unlink)
        with pytest.raises(PermissionError):
            folder.store.remove_label("case", "final")
    with unchanged(folder.path), monkeypatch.context() as patch:
        patch.setattr("shutil.move", move)
        with pytest.raises(PermissionError):
            folder.store.remove_image("case")
    assert folder.known() == before
    folder.store.remove_image("case")
    write_image(folder.image)
    shutil.copyfile(folder.sent[0], folder.label)
    folder.start()
    assert "user" not in folder.known()  # another image of this id inherits nothing


def test_image_with_other_voxels_or_another_grid(folder: Folder) -> None:
    before = folder.submit("anna", 0)
    for image, words in (
        (lambda: write_image(folder.image, 5), "voxels of image case are others"),
        (lambda: write_nifti(folder.image, read_image(folder.image)[0], AFFINE + 1), "drawn on another image"),
    ):
        image()
        folder.start()
        reason = folder.store.misfit("case") or ""
        assert words in reason and "submit it again" in reason
        model: Any = SimpleNamespace(labels=LABELS, other_values=())
        assert find_cases(model, folder.store).skipped == {"case": reason}
        assert folder.known() == before
    write_image(folder.image, 5)
    folder.store.refresh()
    # Submitted again by the same author, it is a label of the image that is there now.
    assert folder.submit("anna", 0)["time"] >= before["time"]
    assert folder.store.misfit("case") is None
    folder.start()
    assert folder.store.misfit("case") is None


def test_the_whole_folder_is_away(folder: Folder, tmp_path: Path) -> None:
    before = folder.submit("anna", 0)
    stored = snapshot(folder.path)
    folder.path.rename(tmp_path / "unmounted")
    folder.store.refresh()
    with pytest.raises(BusyError, match="studies folder is not there"):
        folder.store.update_label_info("case", "final", {"note": 1})
    assert not folder.path.exists()
    (tmp_path / "unmounted").rename(folder.path)
    folder.store.refresh()
    assert (folder.known(), snapshot(folder.path)) == (before, stored)


def test_what_an_older_server_knew_is_put_on_record(folder: Folder, tmp_path: Path) -> None:
    before = folder.submit("anna", 0)
    shutil.rmtree(folder.workspace.label_records)
    folder.start()
    assert folder.known() == before
    folder.image.rename(tmp_path / "away")
    folder.store.refresh()
    (tmp_path / "away").rename(folder.image)
    folder.store.refresh()
    assert folder.known() == before
    shutil.rmtree(folder.workspace.label_records)
    folder.start()
    folder.store.put_on_record()
    (folder.path / "datastore_v2.json").unlink()
    folder.start()
    assert folder.known() == before


def test_a_damaged_record_costs_nothing_but_itself(folder: Folder) -> None:
    before = folder.submit("anna", 0)
    folder.store.records.file("case").write_text("{half")
    folder.start()
    assert folder.known() == before


def test_review_and_later_facts_are_of_the_label(folder: Folder, tmp_path: Path) -> None:
    folder.submit("anna", 0)
    folder.store.update_label_info("case", "final", {"note": "checked"})
    reviews = Reviews(folder.workspace.reviews)
    reviews.add("case", _digest(folder.label), "carl")
    for _ in range(2):
        folder.image.rename(tmp_path / "away")
        folder.start()
        (tmp_path / "away").rename(folder.image)
        folder.start()
        assert (folder.known()["user"], folder.known()["note"]) == ("anna", "checked")
    (case,) = folder.store.labelled_cases()
    review = Reviews(folder.workspace.reviews).of("case", _digest(case.label))
    assert review is not None and review["user"] == "carl"


def test_facts_are_bounded(folder: Folder) -> None:
    known = folder.submit("anna", 0, notes="x" * 100_000, more="y" * 10)
    assert (known["left_out"], known["more"], known["user"]) == (["notes"], "y" * 10, "anna")
    for add in (
        lambda: folder.store.update_label_info("case", "final", {"notes": "x" * 100_000}),
        lambda: folder.store.update_image_info("case", {"notes": "x" * 100_000}),
    ):
        with unchanged(folder.path), pytest.raises(RequestError, match="At most 64 KiB"):
            add()
    for number in range(12):
        folder.submit(f"user {number}", number % 3)
    assert len(folder.store.records.of("case", "final")) <= 4
    for number in range(31):
        folder.store.save_label("case", str(folder.sent[0]), f"tag-{number}", None)
    with (
        unchanged(folder.path),
        pytest.raises(RequestError, match="32 different tags.* them: final, tag-0"),
    ):
        folder.store.save_label("case", str(folder.sent[0]), "another", None)
    folder.store.save_label("case", str(folder.sent[1]), "tag-0", None)


def test_names_that_are_too_many_to_be_kept_still_count(folder: Folder) -> None:
    label_info = [{"name": name, "idx": value} for name, value in LABELS.items()] * 2000  # more than is kept
    with pytest.raises(LabelError, match="does not know: strange"):
        folder.submit("anna", 0, label_info=[*label_info, {"name": "strange", "idx": 2}])
    assert folder.submit("anna", 0, label_info=label_info)["left_out"] == ["label_info"]


def test_only_the_servers_own_changes_are_not_looked_for(folder: Folder, tmp_path: Path) -> None:
    folder.submit("anna", 0)
    stored = FileMovedEvent(str(folder.label.with_name(".case.part")), str(folder.label))
    assert folder.store._is_known(stored)
    away = tmp_path / "final" / folder.label.name
    away.parent.mkdir()
    os.link(folder.label, away)
    assert not folder.store._is_known(FileMovedEvent(str(folder.label), str(away)))
    assert not folder.store._is_known(FileCreatedEvent(str(folder.image)))
    _rewritten(folder.label, "in place")
    assert not folder.store._is_known(stored)
    folder.label.unlink()
    assert not folder.store._is_known(FileDeletedEvent(str(folder.label)))
