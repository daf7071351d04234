"""DICOM files that arrive packed as a .zip file: looked through first, then unpacked under names of ours.

A packed file names its own paths, sizes and kinds, and any of them may lie. So nothing is written where an entry says;
the files of DICOM images get numbers, in a folder of ours, and everything else in the packed file is left out. What an
honest program would not have packed (absolute paths, links, devices) is refused all the same: it is no export of a
scanner, and something else is wrong.
"""

from __future__ import annotations

import shutil
import stat
import struct
import zipfile
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, BinaryIO

from lib.errors import DiskFullError, RequestError
from rep3d.imaging.dicom.files import HEAD, looks_like_dicom, named_dicom

__all__ = ["Limits", "unpack_dicom"]

_BLOCK = 1 << 20
_SPARE = 256 << 20  # bytes of the disk that stay free
_DIRECTORY_ENTRY = 4096  # bytes of the list of contents per file, at most
_LONGEST_NAME = 1024


@dataclass(frozen=True)
class Limits:
    """How much may come at once.

    Attributes:
        files: entries of the packed file.
        bytes: of all files unpacked.
    """

    files: int = 20_000
    bytes: int = 4 << 30


def unpack_dicom(packed: BinaryIO, target: Path, limits: Limits | None = None) -> int:
    """Write the DICOM files of a .zip file into a new folder; where it is refused, there is no such folder.

    Args:
        packed: the .zip file.
        target: the folder to make; its parent exists.
        limits: how much to accept.

    Returns:
        How many DICOM files there are.

    Raises:
        RequestError: for what is no such file, is damaged, tries to be something else or holds no DICOM file.
        DiskFullError: where the disk has no room.
    """
    limits = limits or Limits()
    with _refused_in_words():
        _check_directory(packed, limits)
        with zipfile.ZipFile(packed) as archive:
            entries = _checked_entries(archive, limits)
            # The images that will be made of them need about as much as they do.
            _check_space(target.parent, 2 * sum(entry.file_size for entry in entries))
            target.mkdir()
            try:
                count = _write(archive, entries, target, limits)
                if not count:
                    raise _refusal(f"The .zip file holds no DICOM files, but {len(entries)} others.")
            except BaseException:
                shutil.rmtree(target, ignore_errors=True)
                raise
    return count


def _refusal(words: str) -> RequestError:
    return RequestError(f"{words} Nothing was changed.")


@contextmanager
def _refused_in_words() -> Iterator[None]:
    try:
        yield
    except NotImplementedError as error:
        raise _refusal(f"The .zip file is packed in an unusual way ({error}). Pack it again.") from error
    except (zipfile.BadZipFile, zlib.error, EOFError, struct.error, UnicodeDecodeError, ValueError) as error:
        raise _refusal(f"The file is no .zip file, or a damaged one ({error}). Send it again.") from error
    except OSError as error:
        raise DiskFullError(
            f"The DICOM files cannot be written: {error.strerror or error}. Nothing was changed."
        ) from error


def _check_directory(packed: BinaryIO, limits: Limits) -> None:
    """Refuse a list of contents that would fill the memory when it is read."""
    size = packed.seek(0, 2)
    packed.seek(max(0, size - (1 << 16) - 22))
    end = packed.read()
    place = end.rfind(b"PK\x05\x06")
    packed.seek(0)
    if place < 0 or len(end) < place + 22:
        raise _refusal("The file is no .zip file, or only a part of one. Send it again.")
    length = struct.unpack_from("<I", end, place + 12)[0]
    long_form = place - 76  # where Python looks for it, too: a record of 56 bytes and its locator of 20
    if long_form >= 0 and end[place - 20 : place - 16] == b"PK\x06\x07" and end[long_form:][:4] == b"PK\x06\x06":
        length = struct.unpack_from("<Q", end, long_form + 40)[0]
    if length > limits.files * _DIRECTORY_ENTRY:
        raise _too_many(limits)


def _too_many(limits: Limits) -> RequestError:
    return _refusal(f"The .zip file has more than {limits.files} files. Send fewer series at once.")


def _too_large(limits: Limits) -> RequestError:
    return _refusal(f"Unpacked, the .zip file has more than {limits.bytes / 2**30:g} GiB. Send fewer series at once.")


def _checked_entries(archive: zipfile.ZipFile, limits: Limits) -> list[zipfile.ZipInfo]:
    """Return the files in it, after a look at what each says about itself."""
    entries = archive.infolist()
    if len(entries) > limits.files:
        raise _too_many(limits)
    for entry in entries:
        _check_name(entry.orig_filename)
        kind = stat.S_IFMT(entry.external_attr >> 16)
        if kind not in (0, stat.S_IFREG, stat.S_IFDIR):
            raise _refusal(f"The .zip file holds a link or a device, {entry.filename[:200]!r}. Pack files only.")
        if entry.compress_type not in (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED):
            raise _refusal(f"The .zip file is packed in an unusual way ({entry.compress_type}). Pack it with deflate.")
        if entry.flag_bits & 1:
            raise _refusal("The .zip file is encrypted. Pack it without a password.")
    files = [entry for entry in entries if not entry.is_dir()]
    if sum(entry.file_size for entry in files) > limits.bytes:
        raise _too_large(limits)
    return files


def _check_name(name: str) -> None:
    parts = name.replace("\\", "/").removesuffix("/").split("/")
    strange = any(part in ("", "..") or part[1:2] == ":" for part in parts)
    if strange or len(name) > _LONGEST_NAME or any(ord(sign) < 32 for sign in name):
        raise _refusal(f"The .zip file holds a file named {name[:200]!r}, which leads elsewhere. Pack it again.")


def _check_space(folder: Path, needed: int) -> None:
    free = shutil.disk_usage(folder).free
    if free < needed + _SPARE:
        raise DiskFullError(
            f"The server's disk has {free / 2**20:.0f} MiB left, and unpacking needs "
            f"{(needed + _SPARE) / 2**20:.0f} MiB. Make room, or send fewer series at once. Nothing was changed."
        )


def _write(archive: zipfile.ZipFile, entries: list[zipfile.ZipInfo], target: Path, limits: Limits) -> int:
    """Write the DICOM files, and what is named so and is none, which is told by name; return how many are some."""
    count = written = total = 0
    folders: dict[str, int] = {}  # what lies in one folder stays together: some series share an identifier
    for entry in entries:
        with archive.open(entry) as source:
            block = _head(source)
            is_dicom = looks_like_dicom(block)
            if not (is_dicom or named_dicom(entry.filename)):
                continue
            folder = target / f"{folders.setdefault(entry.filename.rpartition('/')[0], len(folders)):03}"
            folder.mkdir(exist_ok=True)
            with (folder / f"{written:05}.dcm").open("xb") as out:
                while block:
                    total += len(block)
                    if total > limits.bytes:
                        raise _too_large(limits)
                    out.write(block)
                    block = source.read(_BLOCK)
                if out.tell() != entry.file_size:
                    raise zipfile.BadZipFile(f"{entry.file_size} bytes announced, {out.tell()} found")
            count += is_dicom
            written += 1
    if len(folders) == 1:
        for file in folder.iterdir():
            file.rename(target / file.name)
        folder.rmdir()
    return count


def _head(source: IO[bytes]) -> bytes:
    head = b""
    while len(head) < HEAD and (block := source.read(HEAD - len(head))):
        head += block
    return head
