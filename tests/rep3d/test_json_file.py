"""State files: written whole, locked, typed; a damaged one is named and kept, never written over in silence."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import pytest

from rep3d.errors import DamagedFileError
from rep3d.files import make_folder
from rep3d.json_file import JsonFile, found_damage, json_object


def _numbers(content: Any) -> dict[str, int]:
    return {str(key): int(value) for key, value in json_object(content)["numbers"].items()}


def _file(path: Path, begins_anew: bool = True, aside: Path | None = None) -> JsonFile[dict[str, int]]:
    return JsonFile(path, _numbers, "all numbers", dict, begins_anew, aside)


DAMAGED = {
    "empty": b"",
    "cut": b'{"numbers": {"a": 1, "b"',
    "no JSON": b"\x00\x01",
    "no text": b'{"numbers": {"\xff": 1}}',
    "another type": b"[]",
    "another shape": b'{"numbers": [1]}',
    "other values": b'{"numbers": {"a": "x"}}',
    "without a key": b"{}",
    "too deep": b'{"numbers": ' + b"[" * 100_000,
}


def test_what_is_written_is_read(tmp_path: Path) -> None:
    file = _file(tmp_path / "deep" / "n.json")
    assert file.read() == {}
    file.write({"numbers": {"Größe": 3}})
    assert file.read() == {"Größe": 3}
    assert "Größe" in file.path.read_text(encoding="utf-8")
    assert [path.name for path in file.path.parent.iterdir()] == ["n.json"]


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_damage_is_kept_aside_and_told(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "n.json"
    path.write_bytes(content)
    assert _file(path).read() == {}
    (kept,) = tmp_path.glob("n.json.damaged-*")
    assert kept.read_bytes() == content
    (damage,) = found_damage(tmp_path)
    assert (damage.file, damage.kept, damage.lost) == (path, kept, "all numbers")
    for words in (str(path), damage.reason, "Lost: all numbers", str(kept)):
        assert words in caplog.text
    file = _file(path)
    file.write({"numbers": {"a": 1}})
    assert (file.read(), found_damage(tmp_path)) == ({"a": 1}, [damage])  # told until the server ends


@pytest.mark.parametrize("content", DAMAGED.values(), ids=DAMAGED)
def test_what_cannot_be_made_up_again_stays(tmp_path: Path, content: bytes, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "n.json"
    path.write_bytes(content)
    file = _file(path, begins_anew=False)
    for _ in range(2):
        with pytest.raises(DamagedFileError, match=r"n\.json: the file is damaged .* Lost: all numbers"):
            file.read()
    assert path.read_bytes() == content
    assert caplog.text.count("Lost: all numbers") == 1
    assert [damage.kept for damage in found_damage(tmp_path)] == [None]
    path.write_text('{"numbers": {"a": 1}}')  # a copy is put back
    assert (file.read(), found_damage(tmp_path)) == ({"a": 1}, [])


def test_a_file_that_cannot_be_read_is_not_damaged(tmp_path: Path) -> None:
    (tmp_path / "n.json").mkdir()  # as a drive that fails: what is there may be whole
    with pytest.raises(OSError):
        _file(tmp_path / "n.json").read()
    assert list(tmp_path.glob("*.damaged-*")) == []


def test_two_damaged_files_are_both_kept(tmp_path: Path) -> None:
    path, aside = tmp_path / "run" / "n.json", tmp_path
    path.parent.mkdir()
    for content in ("one", "two"):
        path.write_text(content)
        assert _file(path, aside=aside).read() == {}
    assert sorted(kept.read_text() for kept in aside.glob("n.json.damaged-*")) == ["one", "two"]


def test_an_interrupted_write_leaves_the_old_content(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = _file(tmp_path / "n.json")
    file.write({"numbers": {"a": 1}})

    def fail(*_: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("rep3d.files.os.fsync", fail)
    with pytest.raises(OSError, match="no space"):
        file.write({"numbers": {"a": 2}})
    assert file.read() == {"a": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["n.json"]


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_the_folder_is_brought_to_the_disk_after_the_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced = []
    real = os.fsync

    def fsync(handle: int) -> None:
        synced.append((os.path.isdir(f"/proc/self/fd/{handle}"), (tmp_path / "n.json").exists()))
        real(handle)

    monkeypatch.setattr("rep3d.files.os.fsync", fsync)
    _file(tmp_path / "n.json").write({"numbers": {}})
    assert synced == [(False, False), (True, True)]


_ADD = """
import sys
from pathlib import Path
from tests.rep3d.test_json_file import add
add(Path(sys.argv[1]), 20)
"""


def add(path: Path, times: int) -> None:
    """Count up, as several processes and threads do at once."""
    file = _file(path)
    for _ in range(times):
        with file.locked(), file.locked():
            numbers = file.read()
            file.write({"numbers": {"a": numbers.get("a", 0) + 1}})


def test_nobody_comes_in_between(tmp_path: Path) -> None:
    path = tmp_path / "n.json"
    command = [sys.executable, "-c", _ADD, str(path)]
    processes = [subprocess.Popen(command, cwd=Path(__file__).parents[2]) for _ in range(2)]
    threads = [threading.Thread(target=add, args=(path, 20)) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert [process.wait(120) for process in processes] == [0, 0]
    assert json.loads(path.read_text()) == {"numbers": {"a": 100}}


def test_a_drive_without_locks_is_written_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown(self: object) -> None:
        raise NotImplementedError("FileSystem does not appear to support flock")

    monkeypatch.setattr("rep3d.json_file.FileLock.acquire", unknown)
    add(tmp_path / "n.json", 2)
    assert _file(tmp_path / "n.json").read() == {"a": 2}


@pytest.mark.skipif(os.name == "nt", reason="Windows opens no folders")
def test_a_new_folder_is_on_the_disk_before_what_is_in_it(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[Path] = []
    monkeypatch.setattr("rep3d.files.sync_folder", synced.append)
    make_folder(tmp_path / "history" / "case")
    assert synced == [tmp_path / "history", tmp_path]
    make_folder(tmp_path / "history" / "case")
    assert len(synced) == 2
