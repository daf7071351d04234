"""Prepared cases on disk: read again as they were, made anew where anything is another or damaged, within bounds."""

from __future__ import annotations

import os
import shutil
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.data.cases import Case
from rep3d.errors import ConfigError, LabelError, OutOfMemoryError
from rep3d.files import file_hash
from rep3d.tasks.config import Intensity, TaskConfig
from rep3d.training.train import train
from rep3d.training.volumes import file, hashes, prepared, store
from rep3d.training.volumes.prepared import Prepared, make_ready
from rep3d.training.volumes.store import PREPARING, VolumeStore, volume_store
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_checkpoint


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> Iterator[list[str]]:
    """Return the ids of the cases that were prepared, in order."""
    ids: list[str] = []

    def noting(case: Case, *rest: object) -> Prepared:
        ids.append(case.id)
        return make_ready(case, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(store, "make_ready", noting)
    yield ids


def _get(folder: Path, *cases: Case, task: TaskConfig = TASK, other: tuple[int, ...] = ()) -> list[Prepared]:
    with volume_store(folder, task, other, True) as volumes:
        return [volumes.get(case) for case in cases]


def _volumes(folder: Path) -> list[Path]:
    return sorted(folder.glob("*.volume"))


def _assert_same(got: Prepared, expected: Prepared) -> None:
    assert got.counts == expected.counts
    for name in ("image", "label", "positions"):
        one, other = getattr(got, name), getattr(expected, name)
        assert one.dtype == other.dtype
        np.testing.assert_array_equal(one, other)


def test_a_kept_case_is_read_as_it_was_made_without_its_files_being_read_again(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    cases = [ball_case(tmp_path, seed) for seed in (1, 2)]
    expected = [make_ready(case, TASK) for case in cases]
    for got, known in zip(_get(tmp_path / "kept", *cases), expected, strict=True):
        _assert_same(got, known)
    read: list[Path] = []
    monkeypatch.setattr(hashes, "file_hash", lambda path: (read.append(path), file_hash(path))[1])
    checked: list[bool] = []
    opened = file.open_volume
    monkeypatch.setattr(
        store, "open_volume", lambda path, all_of_it: (checked.append(all_of_it), opened(path, all_of_it))[1]
    )
    for got, known in zip(_get(tmp_path / "kept", *cases), expected, strict=True):
        _assert_same(got, known)
    assert made == ["case_1", "case_2"] and read == [] and checked == [False, False]
    os.utime(cases[0].image, ns=(1, 1))  # touched: its content is read once more, and is the same
    shutil.copytree(tmp_path / "kept", tmp_path / "copy", copy_function=shutil.copyfile)
    _get(tmp_path / "copy", *cases)
    assert (
        made == ["case_1", "case_2"]
        and [path.name for path in read] == [cases[0].image.name]
        and checked[2:] == [True, True]
    )


@pytest.mark.parametrize("damage", ["empty", "short", "longer", "bit", "touched bit", "head", "other", "folder"])
def test_what_was_changed_or_cut_short_is_made_anew_and_said(
    tmp_path: Path, made: list[str], damage: str, caplog: pytest.LogCaptureFixture
) -> None:
    case, folder = ball_case(tmp_path, 1), tmp_path / "kept"
    _get(folder, case)
    [kept] = _volumes(folder)
    content, times = kept.read_bytes(), kept.stat()
    if damage == "bit":  # an old disk: nothing tells of it but the content, of which so small a file is checked whole
        content = content[:9000] + bytes([content[9000] ^ 1]) + content[9001:]
    changed = {
        "empty": b"",
        "short": content[:-1],
        "longer": content + b"\0",
        "touched bit": content[:-5000] + bytes([content[-5000] ^ 1]) + content[-4999:],
        "head": content[:100] + b"9" + content[101:],
        "other": os.urandom(len(content)),
    }.get(damage, content)
    kept.write_bytes(changed)
    if damage == "bit":
        os.utime(kept, ns=(times.st_atime_ns, times.st_mtime_ns))
    if damage == "folder":
        kept.unlink()
        kept.mkdir()
    [got] = _get(folder, case)
    _assert_same(got, make_ready(case, TASK))
    assert made == ["case_1", "case_1"]
    assert f"prepared volumes {kept.name} were changed or cut short on disk; they are made anew" in caplog.text
    if damage != "folder":
        _get(folder, case)
        assert made == ["case_1", "case_1"]


def test_damage_in_a_large_file_is_found_by_its_time_of_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of a file that is as it was, eight random blocks are checked; of one that was written to, all."""
    monkeypatch.setattr(file, "_BLOCK", 4096)
    label = np.zeros((40, 32, 32), np.uint8)
    label[5, 5, 5] = 1
    image = np.random.default_rng(0).random(label.shape).astype(np.float16)
    ready = Prepared(image[None], label, *prepared.class_positions(label, 2))
    path = tmp_path / "x.volume"
    file.write_volume(path, ready, {})
    found = file.open_volume(path, all_of_it=True)
    assert found is not None
    _assert_same(found, ready)
    with path.open("r+b") as content:
        content.seek(path.stat().st_size // 2)
        content.write(b"\x77" * 10)
    assert file.open_volume(path, all_of_it=True) is None
    assert any(
        file.open_volume(path, all_of_it=False) is None for _ in range(60)
    )  # 1 block of 30 or 90, of which 8 are looked at


def test_another_content_task_or_release_is_prepared_anew_and_the_old_ones_go(
    tmp_path: Path, made: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    case, folder = ball_case(tmp_path, 1), tmp_path / "kept"
    _get(folder, case)
    tasks = [replace(TASK, spacing=(2, 1, 1)), replace(TASK, orientation="LPS"), replace(TASK, intensity=Intensity())]
    tasks[2] = replace(TASK, intensity=Intensity("window", 0, 255))
    for task in tasks:
        _get(folder, case, task=task)
    _get(folder, case, other=(9,))
    assert len(made) == len(_volumes(folder)) == 5  # another task may come back
    _get(folder, case, task=replace(TASK, name="x", roi_size=(16, 16, 16), labels={"Other name": 3}))
    assert len(made) == 5
    label = nib.load(case.label)
    values = np.asarray(label.dataobj)
    values[0, 0, 0] = 3
    nib.save(nib.Nifti1Image(values, label.affine), case.label)
    [got] = _get(folder, case)
    assert int(got.label[0, 0, 0]) == 1 and len(made) == 6 and len(_volumes(folder)) == 1  # what was corrected is gone
    monkeypatch.setattr(store, "PREPARING", PREPARING + 1)
    _get(folder, case)
    assert len(made) == 7 and len(_volumes(folder)) == 1


@pytest.mark.parametrize("gone", ["image", "label"])
def test_a_patients_volumes_go_with_the_image_or_the_label(tmp_path: Path, gone: str) -> None:
    cases, folder = [ball_case(tmp_path, seed) for seed in (1, 2)], tmp_path / "kept"
    _get(folder, *cases)
    (folder / f".x.{'0' * 32}.part").write_bytes(b"half a patient")  # of a process that was killed
    getattr(cases[0], gone).unlink()
    _get(folder, cases[1])
    assert len(_volumes(folder)) == 1 and not list(folder.glob("*.part")) and not list(folder.glob(".*.part"))
    assert getattr(cases[0], gone).name not in (folder / "index.json").read_text()
    moved = tmp_path / "moved"  # with all that it keeps, as a studies folder may be
    moved.mkdir()
    for entry in (folder, cases[1].image, cases[1].label):
        shutil.move(entry, moved / entry.name)
    before = _volumes(moved / "kept")
    _get(moved / "kept", Case("case_2", moved / cases[1].image.name, moved / cases[1].label.name))
    assert _volumes(moved / "kept") == before


def test_the_oldest_go_first_and_none_that_is_in_use(tmp_path: Path) -> None:
    cases, folder = [ball_case(tmp_path, seed) for seed in (1, 2, 3, 4)], tmp_path / "kept"
    _get(folder, *cases[:3])
    sizes = [path.stat().st_size for path in _volumes(folder)]
    by_case = {file.read_head(path)["case"]: path for path in _volumes(folder)}  # type: ignore[index]
    for age, id_ in enumerate(("case_2", "case_1", "case_3")):
        state = by_case[id_].stat()
        os.utime(by_case[id_], ns=(10**18 + age, state.st_mtime_ns))
    volumes = VolumeStore(folder, TASK, most=int(2.5 * max(sizes)))
    used = [volumes.get(cases[1]), volumes.get(cases[3])]
    left = {file.read_head(path)["case"] for path in _volumes(folder)}  # type: ignore[index]
    assert left == {"case_2", "case_4"}  # case_2 was the oldest, and is in use now
    tight = VolumeStore(folder, TASK, most=10)
    used += [tight.get(case) for case in cases]
    assert len(_volumes(folder)) == 4  # over the bound while the run lasts
    tight.end()
    assert _volumes(folder) == [] and all(int(volume.label.sum()) > 0 for volume in used)


def test_a_full_disk_is_said_once_and_memory_takes_over_as_long_as_it_can(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    cases, folder = [ball_case(tmp_path, seed) for seed in (1, 2)], tmp_path / "kept"

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(store, "write_volume", full)
    for got, case in zip(_get(folder, *cases), cases, strict=True):
        _assert_same(got, make_ready(case, TASK))
    assert caplog.text.count("held in memory from case case_1 on: The disk is full") == 1
    assert [path.name for path in folder.iterdir() if path.suffix not in (".json", ".lock")] == []
    monkeypatch.undo()
    monkeypatch.setattr(store, "_LEFT_FREE", 10**18)
    assert len(_get(folder, *cases)) == 2 and "GB free on the disk" in caplog.text and _volumes(folder) == []
    monkeypatch.setattr(store, "require_memory", lambda needed, *rest: _refuse(needed))
    with pytest.raises(OutOfMemoryError):
        _get(folder, cases[0])


def _refuse(needed: int) -> None:
    assert needed > 32**3 * 3
    raise OutOfMemoryError("no memory")


def test_a_folder_that_cannot_be_written_costs_nothing_but_the_keeping(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    (tmp_path / "kept").write_bytes(b"a file")
    [got] = _get(tmp_path / "kept", case)
    _assert_same(got, make_ready(case, TASK))
    assert (tmp_path / "kept").read_bytes() == b"a file"


def test_a_case_that_cannot_be_used_says_why_each_time_and_nothing_is_kept(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    for _ in range(2):
        with pytest.raises(LabelError, match=r"unexpected values: \[3\]"):
            _get(tmp_path / "kept", case, task=replace(TASK, labels={"Ball": 4}))
    assert _volumes(tmp_path / "kept") == []


def test_a_file_that_changes_while_it_is_read_is_not_kept(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = ball_case(tmp_path, 1)

    def slow(case: Case, *rest: object) -> Prepared:
        ready = make_ready(case, *rest)  # type: ignore[arg-type]
        ball_case(tmp_path, 1, np.diag([2.0, 1, 1, 1]))
        return ready

    monkeypatch.setattr(store, "make_ready", slow)
    [got] = _get(tmp_path / "kept", case)
    assert got.label.shape == (32, 32, 32) and _volumes(tmp_path / "kept") == []


def test_a_second_training_beside_the_first_leaves_its_unfinished_files_alone(tmp_path: Path) -> None:
    case, folder = ball_case(tmp_path, 1), tmp_path / "kept"
    with volume_store(folder, TASK, (), True):
        half = folder / f".x.{'0' * 32}.part"
        half.write_bytes(b"half")
        _get(folder, case)
        assert half.exists() and len(_volumes(folder)) == 1


def test_training_keeps_what_it_was_told_to_and_else_leaves_nothing(tmp_path: Path, made: list[str]) -> None:
    cases, other = [ball_case(tmp_path, seed) for seed in (1, 2)], ball_case(tmp_path, 7)
    there = sorted(path.name for path in tmp_path.iterdir())
    output, kept = tmp_path / "out" / "model.pt", tmp_path / "kept"
    start, settings = small_checkpoint(), replace(SETTINGS, iterations=1)
    first = train(cases, TASK, settings, output, start, validation=[other])
    assert [path.name for path in output.parent.iterdir()] == ["model.pt"] and len(made) == 3
    again = train(cases, TASK, settings, output, start, validation=[other], prepared=kept)
    assert again.info["validation"] == first.info["validation"] and again.info["loss"] == first.info["loss"]
    assert len(made) == 6 and len(_volumes(kept)) == 3
    assert [path.name for path in output.parent.iterdir()] == ["model.pt"]
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted([*there, "kept", "out"])
    assert (first.info["sampling"], first.info["loss_function"]) == ("balanced", "balanced")
    with pytest.raises(ConfigError):
        train(cases, TASK, SETTINGS, output, start, validation=cases)
    assert [path.name for path in output.parent.iterdir()] == ["model.pt"]
