"""Cases whose images are copies of each other: one patient, counted twice, or trained and measured on at a time.

Copies are found by what their files contain, unpacked: another name, another level of compression, none at all do not
matter. The last bytes of a compressed file are a checksum and the size of what it unpacks to, so nothing is unpacked
but what may be a copy. An image that another program has written anew, with another header, is not seen as a copy.
"""

from __future__ import annotations

import gzip
import hashlib
import zlib
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path

from rep3d.data.cases import Case, DataSet, LeftOut

__all__ = ["copies", "without_copies"]

_BLOCK = 1 << 20


def copies(cases: Sequence[Case], usable: Callable[[Case], bool]) -> list[LeftOut]:
    """Return the cases whose image is that of another case, with the reason; files that cannot be read are none.

    The labels that belong to copies may differ; which of them is right cannot be told, so the first usable one counts.

    Args:
        cases: the cases.
        usable: whether a case can be trained on; asked of copies alone.
    """
    alike: dict[tuple[tuple[int, int] | None, ...], list[Case]] = {}
    for case in cases:
        marks = tuple(map(_mark, case.channels))
        if None not in marks:
            alike.setdefault(marks, []).append(case)
    found = []
    for group in alike.values():
        same_images: dict[tuple[str | None, ...], list[Case]] = {}
        for case in group if len(group) > 1 else ():
            same_images.setdefault(tuple(map(_content, case.channels)), []).append(case)
        for content, alike_cases in same_images.items():
            if None in content or len(alike_cases) == 1:
                continue
            kept = next(filter(usable, alike_cases), alike_cases[0])
            found += [_left_out(case, kept) for case in alike_cases if case is not kept]
    return sorted(found, key=lambda entry: entry.id)


def _left_out(case: Case, kept: Case) -> LeftOut:
    same = _content(case.label) == _content(kept.label)
    labels = "their label maps are the same" if same else "their label maps differ: see which one is right"
    words = f"it is a copy of {kept.image.name}, and {labels}. One case must not count twice: remove either."
    return LeftOut(case.id, case.image.name, words)


def without_copies(data: DataSet, usable: Callable[[Case], bool]) -> DataSet:
    """Return a data set in which each image is there once; the others are left out, with the reason.

    Args:
        data: the data set.
        usable: see :func:`copies`.
    """
    found = copies(data.cases, usable)
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
