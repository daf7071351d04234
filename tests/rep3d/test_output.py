"""Where an output may not be written is known before the work, and an input is never overwritten."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace

import pytest

from rep3d.errors import ConfigError, DiskFullError, ImageError, OutputError, causes, machine_error, said
from rep3d.files import whole_file
from rep3d.output import check_output, check_output_folder

NIFTI = (".nii.gz", ".nii")


@pytest.fixture
def scan(tmp_path: Path) -> Path:
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(b"the patient's only one")
    return path


def _hard_link(scan: Path) -> Path:
    link = scan.with_name("hard.nii.gz")
    os.link(scan, link)
    return link


def _link(scan: Path) -> Path:
    link = scan.with_name("soft.nii.gz")
    link.symlink_to(scan)
    return link


def _through_a_linked_folder(scan: Path) -> Path:
    (scan.parent / "here").symlink_to(scan.parent)
    return scan.parent / "here" / scan.name


@pytest.mark.parametrize(
    "spelled",
    [
        lambda scan: scan,
        lambda scan: scan.parent / "." / "x" / ".." / scan.name,
        lambda scan: Path(os.path.relpath(scan)),
        _hard_link,
        _link,
        _through_a_linked_folder,
    ],
)
def test_an_input_is_never_overwritten(scan: Path, spelled: Callable[[Path], Path]) -> None:
    (scan.parent / "x").mkdir()
    with pytest.raises(OutputError, match="is the same file as .*scan.nii.gz, which is read"):
        check_output(spelled(scan), NIFTI, (None, scan))
    with pytest.raises(OutputError, match="same file"):  # an input that is not there yet: two outputs of one name
        check_output(scan.parent / "new.nii", NIFTI, (scan.parent / "x" / ".." / "new.nii",))


def _make(place: Path) -> None:
    (place / "folder.nii").mkdir()
    (place / "file").write_text("x")
    (place / "lost.nii").symlink_to(place / "nowhere")
    (place / "protected.nii").write_text("x")
    os.mkfifo(place / "pipe.nii")


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("out.mha", "must end in .nii.gz or .nii"),
        ("out", "must end in"),
        (".nii", "must end in"),
        ("folder.nii", "is a folder"),
        ("gone/out.nii", "there is no folder .*gone. Make it"),
        ("file/out.nii", "there is no folder .*file"),
        ("lost.nii", "is a link to .*nowhere"),
        ("pipe.nii", "protected, or no ordinary file"),
        ("x" * 300 + ".nii", "File name too long"),
        ("a\0b.nii", "null"),
    ],
)
def test_what_cannot_be_written_is_said_before_the_work(tmp_path: Path, name: str, words: str) -> None:
    _make(tmp_path)
    before = sorted(tmp_path.iterdir())
    with pytest.raises(OutputError, match=f"OUTPUT: .*{words}"):
        check_output(tmp_path / name, NIFTI, option="OUTPUT")
    assert sorted(tmp_path.iterdir()) == before


def test_what_can_be_written_is_left_as_it_is(tmp_path: Path, scan: Path) -> None:
    assert check_output(scan, NIFTI).read_bytes() == b"the patient's only one"  # may be replaced: it is no input
    assert check_output(tmp_path / "OUT.NII.GZ", NIFTI, (scan,)) == tmp_path / "OUT.NII.GZ"
    assert check_output(tmp_path / "new" / "m.pt", (".pt",), make_folder=True).parent.is_dir()
    assert list((tmp_path / "new").iterdir()) == [] and not (tmp_path / "OUT.NII.GZ").exists()
    longest = tmp_path / ("ü" * 123 + ".nii")  # 250 bytes; the hidden name beside it must not be longer than 255
    with whole_file(check_output(longest, NIFTI)) as file:
        file.write(b"x")
    assert longest.read_bytes() == b"x"


def test_protected_places_are_refused(tmp_path: Path, scan: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(os, "access", lambda path, mode: False)  # root may write everywhere
    with pytest.raises(OutputError, match="protected"):
        check_output(scan, NIFTI)

    def refuse(**options: object) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr("tempfile.TemporaryFile", refuse)
    with pytest.raises(OutputError, match="Permission denied"):
        check_output(tmp_path / "new.nii", NIFTI)

    def read_only(**options: object) -> None:
        raise OSError(errno.EROFS, "Read-only file system")

    monkeypatch.setattr("tempfile.TemporaryFile", read_only)
    with pytest.raises(DiskFullError, match="it is read-only"):
        check_output_folder(tmp_path / "out")


def test_room_on_the_disk_is_asked_for_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(shutil, "disk_usage", lambda folder: SimpleNamespace(free=3_000_000))
    with pytest.raises(DiskFullError, match=r"at least 4\.0 MB, and 3\.0 MB are free"):
        check_output(tmp_path / "m.pt", (".pt",), room=4_000_000)
    with pytest.raises(DiskFullError, match=r"--out: .*3\.0 MB are free"):
        check_output_folder(tmp_path / "out", room=4_000_000)
    assert check_output(tmp_path / "m.pt", (".pt",), room=2_000_000)


def test_a_folder_is_refused_where_it_is_a_file_or_its_files_are_inputs(tmp_path: Path, scan: Path) -> None:
    with pytest.raises(OutputError, match="--out: .*cannot be written"):
        check_output_folder(scan)
    with pytest.raises(OutputError, match="same file"):
        check_output_folder(tmp_path, ("results.json", scan.name), (scan,))
    assert check_output_folder(tmp_path / "a" / "b").is_dir()


@pytest.mark.parametrize(
    ("error", "kind", "words"),
    [
        (OSError(errno.ENOSPC, "No space left on device", "/data/x"), DiskFullError, "The disk is full (/data/x)"),
        (OSError(errno.EDQUOT, "Disk quota exceeded"), DiskFullError, "quota"),
        (OSError(errno.EFBIG, "File too large"), DiskFullError, "larger than the disk"),
        (OSError(errno.EROFS, "Read-only file system"), DiskFullError, "read-only"),
        (RuntimeError("[enforce fail] . unexpected pos 704 vs 598"), DiskFullError, "could not be written to its end"),
        (RuntimeError("PytorchStreamWriter failed writing file"), DiskFullError, "could not be written to its end"),
        (RuntimeError("CUDA error: invalid device ordinal"), ConfigError, "GPU that was asked for is not there"),
    ],
)
def test_what_the_machine_lacks_is_said_in_our_words(error: Exception, kind: type[Exception], words: str) -> None:
    wrapped = ValueError("odd")
    wrapped.__cause__ = error
    for seen in (error, wrapped):
        ours = machine_error(seen)
        assert type(ours) is kind and words in str(ours) and said(seen) == str(ours)
    with pytest.raises(DiskFullError) as caught:
        full = DiskFullError("full")
        raise full from full  # an error may be its own cause, which leads nowhere
    assert machine_error(caught.value) is full and list(causes(full)) == [full]
    assert machine_error(ImageError("cut")) is None and said(ImageError("cut")) == "cut"
    assert said(KeyError("x")) == "KeyError: 'x'" and said(ValueError()) == "ValueError"
