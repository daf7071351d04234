"""What lies in the studies folder and is not used: each thing named once, with the reason, and nothing touched."""

from __future__ import annotations

import os
import time
from pathlib import Path

import pytest
from lib.boot.checks import check_writable
from lib.errors import ConflictError, RequestError, StartupError
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore
from lib.storage.passed_over import PassedOver, grouped

from tests.app.data import LABELS, unchanged, write_image, write_label


def _store(studies: Path) -> Rep3DDatastore:
    return Rep3DDatastore(studies, Workspace(studies / "rep3d"), LABELS, auto_reload=False, read_only=False)


def _touch(studies: Path, *names: str) -> None:
    for name in names:
        (studies / name).parent.mkdir(parents=True, exist_ok=True)
        (studies / name).write_bytes(b"")


def _reasons(store: Rep3DDatastore) -> dict[str, str]:
    return {one.file: one.reason for one in store.passed_over()}


ODD = {
    "sub-01/anat/sub-01_T1w.nii.gz": "subfolder",
    "patient/SCAN.NII": "subfolder",
    "imagesTs/CASE_0000.nii.gz": "subfolder",
    "labelsTr/CASE.nii.gz": "label map of another layout",
    "scan.nrrd": "no NIfTI file",
    "sub/scan.MHA": "no NIfTI file",
    "scan.img": "no NIfTI file",
    "scan.mgz": "no NIfTI file",
    "scan.nii.bz2": "no NIfTI file",
    "export.zip": "archive",
    ".hidden.nii.gz": "hidden",
    ".nii.gz": "no name",
    "a\tb.nii.gz": "characters",
    "a\\b.nii.gz": "characters",
    f"{'x' * 220}.nii.gz": "too long",
    f"{'ü' * 110}.nii.gz": "too long",
    "labels/case.nii.gz": "label map of another layout",
    "labels/final/nobody.nii.gz": "no image of this name",
    "labels/final/.good.nii.gz": "hidden",
    "CON.nii.gz": "Windows",
    "nul.1.nii.gz": "Windows",
    "com1 .nii": "Windows",
    "end .nii.gz": "Windows",
    "end..nii.gz": "Windows",
    "labels/final/AUX.nii.gz": "Windows",
}
SILENT = ("._good.nii.gz", "notes.txt", "sub/t1.json", ".git/x.nii.gz", "rep3d/x.nii.gz", "sub/IM0001", ".DS_Store")
FINE = ("SCAN.NII.GZ", "Bild 1 (süß).Nii", "a.b.nii.gz", "good.nii.gz")


def test_each_thing_is_used_or_named(tmp_path: Path) -> None:
    _touch(tmp_path, *ODD, *SILENT, *FINE)
    with unchanged(tmp_path):
        store = _store(tmp_path)
        found = _reasons(store)
        (tmp_path / "datastore_v2.json").unlink()
    assert set(found) == set(ODD)
    assert not [name for name, words in ODD.items() if words not in found[name]]
    assert sorted(store.list_images()) == sorted(["SCAN", "Bild 1 (süß)", "a.b", "good"])
    assert all(one.remedy for one in store.passed_over())


def test_links_and_folders(tmp_path: Path) -> None:
    studies, away = tmp_path / "studies", tmp_path / "away"
    write_image(away / "there.nii.gz")
    write_image(studies / "below" / "here.nii.gz")
    (studies / "folder.nii.gz").mkdir()
    os.mkfifo(studies / "pipe.nii.gz")
    os.link(away / "there.nii.gz", studies / "hard.nii.gz")  # which is the file itself, under a name in the folder
    for name, target in {
        "linked.nii.gz": studies / "below" / "here.nii.gz",
        "relative.nii.gz": Path("below/here.nii.gz"),
        "outside.nii.gz": away / "there.nii.gz",
        "up.nii.gz": Path("../away/there.nii.gz"),
        "by_way_of.nii.gz": studies / "elsewhere" / "there.nii.gz",
        "broken.nii.gz": away / "gone.nii.gz",
        "loop.nii.gz": studies / "loop.nii.gz",
        "elsewhere": away,
    }.items():
        (studies / name).symlink_to(target)
    store = _store(studies)
    assert sorted(store.list_images()) == ["hard", "linked", "relative"] and store.unusable.check("linked") is None
    found = _reasons(store)
    outside = {"outside.nii.gz", "up.nii.gz", "by_way_of.nii.gz"}
    assert {name for name, why in found.items() if "leads out of the studies folder" in why} == outside
    assert set(found) - outside == {
        *("folder.nii.gz", "pipe.nii.gz", "broken.nii.gz", "loop.nii.gz", "elsewhere", "below/here.nii.gz"),
    }
    assert "folder with the name" in found["folder.nii.gz"] and "not there" in found["broken.nii.gz"]
    assert "no ordinary file" in found["pipe.nii.gz"]
    # What was taken up before is let go of, at once where somebody asks, and when the folder is looked through.
    (studies / "linked.nii.gz").unlink()
    (studies / "linked.nii.gz").symlink_to(away / "there.nii.gz")
    with pytest.raises(ConflictError, match="Image linked is a link that leads out of the studies folder"):
        store.image_file("linked")
    store.refresh()
    assert sorted(store.list_images()) == ["hard", "relative"]
    with unchanged(away):
        store.save_label("hard", str(write_label(tmp_path / "label.nii.gz")), "final", {})
        store.remove_image("hard")


def test_folders_of_labels_are_those_with_a_tag_for_a_name(tmp_path: Path) -> None:
    studies, away = tmp_path / "studies", tmp_path / "away"
    write_image(studies / "case.nii.gz")
    for tag in ("final", "mine", "FINAL", "\ufb01nal", "Original", "con", "a b.", ".hidden"):
        write_label(studies / "labels" / tag / "case.nii.gz")
    write_label(away / "case.nii.gz")
    (studies / "labels" / "away").symlink_to(away)
    store = _store(studies)
    assert set(store.files_of("case").tags) == {"final", "mine"}
    odd = {name for name in _reasons(store) if name.startswith("labels/")}
    assert odd == {f"labels/{name}" for name in ("FINAL", "\ufb01nal", "Original", "con", "a b.", "away")}
    label = str(write_label(tmp_path / "label.nii.gz", 1))
    with unchanged(studies), unchanged(away):
        for tag in ("Final", "FINAL", "\ufb01nal", "ORIGINAL", "Mine", "nul", "COM\u00b9.x", "x" * 128, "\u00fc" * 100):
            with pytest.raises(RequestError):
                store.save_label("case", label, tag, {})
        with pytest.raises(ConflictError, match="labels/away leads out of the studies folder"):
            store.save_label("case", label, "away", {})
    assert store.save_label("case", label, "other", {}) == "case"
    check_writable(studies)
    (studies / "labels" / "final").rename(away / "final")
    (studies / "labels" / "final").symlink_to(away / "final")
    with pytest.raises(StartupError, match="labels/final is a link that leads out"):
        check_writable(studies)


def test_a_folder_that_cannot_be_read_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "closed").mkdir()
    _touch(tmp_path, "open/scan.nii.gz")
    store, scandir = _store(tmp_path), os.scandir

    def refuse(path: str) -> object:
        if Path(path).name == "closed":
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", refuse)
    found = _reasons(store)
    assert set(found) == {"closed", "open/scan.nii.gz"} and "cannot be read" in found["closed"]


def test_a_name_that_is_no_text_is_told_and_harms_nobody(tmp_path: Path) -> None:
    write_image(tmp_path / "good.nii.gz")
    (tmp_path / os.fsdecode(b"\xff.nii.gz")).write_bytes(b"")
    store = _store(tmp_path)
    assert store.list_images() == ["good"]
    (one,) = store.passed_over()
    assert "characters" in one.reason and one.file.encode() == b"\\udcff.nii.gz"


def test_of_two_files_of_one_name_the_one_in_use_stays(tmp_path: Path) -> None:
    write_image(tmp_path / "both.nii.gz", 1)
    write_image(tmp_path / "new.nii.gz", 1)
    write_image(tmp_path / "new.nii", 2)
    assert _store(tmp_path).image_file("both").name == "both.nii.gz"
    write_image(tmp_path / "both.nii", 2)
    for _ in range(2):  # after a restart, too
        store = _store(tmp_path)
        assert (store.image_file("both").name, store.image_file("new").name) == ("both.nii.gz", "new.nii")
        assert _reasons(store) == {
            "both.nii": "both.nii.gz is used, which has the same name.",
            "new.nii.gz": "new.nii is used, which has the same name.",
        }


def test_the_decathlons_layout(tmp_path: Path) -> None:
    _touch(tmp_path, "dataset.json", "imagesTr/CASE_0000.nii.gz", "labelsTr/CASE.nii.gz")
    store = _store(tmp_path)
    assert store.list_images() == ["CASE_0000"] and set(_reasons(store)) == {"labelsTr/CASE.nii.gz"}
    _touch(tmp_path, "late.nii.gz")  # the folder of the images is settled by now
    assert "imagesTr" in _reasons(_store(tmp_path))["late.nii.gz"]


def test_labels_in_capitals_are_replaced_like_others(tmp_path: Path) -> None:
    write_image(tmp_path / "studies" / "SCAN.NII.GZ")
    old = write_label(tmp_path / "studies" / "labels" / "final" / "SCAN.NII.GZ", 1)
    store = _store(tmp_path / "studies")
    assert store.get_labeled_images() == ["SCAN"]
    before = old.read_bytes()
    assert store.save_label("SCAN", str(write_label(tmp_path / "new.nii.gz", 0)), "final", {}) == "SCAN"
    assert [file.name for file in old.parent.iterdir()] == ["SCAN.nii.gz"]
    (entry,) = store.history.entries("SCAN")
    assert store.history.find("SCAN", entry["entry"])[0].read_bytes() == before


def test_removing_leaves_what_a_link_leads_to(tmp_path: Path) -> None:
    away = tmp_path / "studies" / "away"
    image, label = write_image(away / "i.nii.gz"), write_label(away / "l.nii.gz")
    final = tmp_path / "studies" / "labels" / "final"
    final.mkdir(parents=True)
    for name in ("one", "two"):
        (tmp_path / "studies" / f"{name}.nii.gz").symlink_to(image)
        (final / f"{name}.nii.gz").symlink_to(label)
    store = _store(tmp_path / "studies")
    with unchanged(away):
        store.remove_label("one", "final")
        store.remove_image("two")
    assert store.list_images() == ["one"] and not list(final.iterdir())
    (removed,) = (tmp_path / "studies" / "rep3d" / "removed").iterdir()
    assert (removed / "two.nii.gz").read_bytes() == image.read_bytes()
    assert (removed / "final" / "two.nii.gz").read_bytes() == label.read_bytes()


@pytest.mark.timed
def test_thousands_of_files_take_no_time(tmp_path: Path) -> None:
    for folder in range(50):
        _touch(tmp_path, *(f"sub-{folder}/anat/{number}.nii.gz" for number in range(100)))
    store = _store(tmp_path)
    began = time.perf_counter()
    shown = grouped(store.passed_over())
    assert time.perf_counter() - began < 2.0
    (group,) = shown["groups"]
    assert shown["total"] == group["count"] == 5000 and len(group["files"]) == 50


@pytest.mark.parametrize("count", [0, 3])
def test_what_has_one_reason_is_shown_together(count: int) -> None:
    found = [PassedOver(f"{number}.nrrd", "Reason.", "Remedy.") for number in range(count)]
    shown = grouped([*found, PassedOver("x.zip", "Other.", "Remedy.")])
    assert shown["total"] == count + 1
    assert [group["reason"] for group in shown["groups"]] == (["Reason.", "Other."] if count else ["Other."])
