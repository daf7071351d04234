"""Cases whose images are copies of each other: one patient, counted twice, or trained and measured on at a time.

Copies are found by what their files contain, unpacked: another name, another level of compression, none at all do not
matter. The last bytes of a compressed file are a checksum and the size of what it unpacks to, so nothing is unpacked
but what may be a copy. An image that another program has written anew, with another header, is not seen as a copy.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from rep3d.data.cases import Case, DataSet, LeftOut

__all__ = ["copies", "without_copies"]

_BLOCK = 1 << 20


def copies(cases: Sequence[Case]) -> list[LeftOut]:
    """Return the cases whose image is that of a case before them, with the reason; files that cannot be read are none.

    The labels that belong to copies may differ; which of them is right cannot be told, so the first one's counts.
    """
    alike: dict[tuple[tuple[int, int] | None, ...], list[Case]] = {}
    for case in cases:
        marks = tuple(map(_mark, case.channels))
        if None not in marks:
            alike.setdefault(marks, []).append(case)
    found = []
    for group in alike.values():
        firsts: dict[tuple[str | None, ...], Case] = {}
        for case in group if len(group) > 1 else ():
            content = tuple(map(_content, case.channels))
            if None in content or (first := firsts.setdefault(content, case)) is case:
                continue
            same = _content(case.label) == _content(first.label)
            labels = "their label maps are the same" if same else "their label maps differ: see which one is right"
            found.append(
                LeftOut(
                    case.id,
                    case.image.name,
                    f"it is a copy of {first.image.name}, and {labels}. One case must not count twice: remove either.",
                )
            )
    return sorted(found, key=lambda entry: entry.id)


def without_copies(data: DataSet) -> DataSet:
    """Return a data set in which each image is there once; the others are left out, with the reason."""
    found = copies(data.cases)
    ids = {entry.id for entry in found}
    left_out = tuple(sorted((*data.left_out, *found), key=lambda one: (one.id, one.file)))
    return replace(data, cases=tuple(case for case in data.cases if case.id not in ids), left_out=left_out)


def _mark(path: Path) -> tuple[int, int] | None:
    """Return the checksum and the size (modulo 2^32) of a file's content, unpacked; None where it cannot be read."""
    try:
        with path.open("rb") as file:
            if path.suffix.lower() == ".gz":
                file.seek(-8, 2)
                end = file.read(8)
                return int.from_bytes(end[:4], "little"), int.from_bytes(end[4:], "little")
            checksum = size = 0
            while block := file.read(_BLOCK):
                checksum, size = zlib.crc32(block, checksum), size + len(block)
            return checksum, size % 2**32
    except (OSError, ValueError):
        return None


def _content(path: Path) -> str | None:
    """Return the SHA-256 of a file's content, unpacked; None where it cannot be read."""
    digest = hashlib.sha256()
    try:
        with gzip.open(path) if path.suffix.lower() == ".gz" else path.open("rb") as file:
            while block := file.read(_BLOCK):
                digest.update(block)
    except (OSError, EOFError, zlib.error):
        return None
    return digest.hexdigest()
