"""A prepared case in one file, from which patches are cut without reading it: whole, or found to be damaged.

The file begins with a line of three numbers (format, bytes of the head, checksum of its text) and a head in JSON; the
arrays follow, each from a whole page on. It is checked in blocks when it is opened: all of them where the file is not
known to be as it was when that was done last, else some at random. So whatever writes to it is found at once, and a
disk that forgets bits in time, while an image of a gigabyte is ready at once, too.
"""

from __future__ import annotations

import json
import math
import random
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rep3d.files import whole_file
from rep3d.training.volumes.prepared import Prepared

__all__ = ["open_volume", "read_head", "write_volume"]

_FORMAT = 1
_PAGE = 4096
_FIRST = 64  # bytes of the first line
_BLOCK = 1 << 20
_SAMPLE = 8  # blocks
_ARRAYS = ("image", "label", "positions")


def write_volume(path: Path, ready: Prepared, facts: Mapping[str, Any]) -> None:
    """Write a prepared case, whole or not at all.

    Args:
        path: the file.
        ready: the case.
        facts: what else to say in the head, as plain JSON types.
    """
    arrays = [np.ascontiguousarray(getattr(ready, name)) for name in _ARRAYS]
    described, start = {}, 0
    for name, array in zip(_ARRAYS, arrays, strict=True):
        bytes_ = array.reshape(-1).view(np.uint8).data
        checks = [zlib.crc32(bytes_[first : first + _BLOCK]) for first in range(0, len(bytes_), _BLOCK)]
        described[name] = {"type": array.dtype.str, "shape": array.shape, "start": start, "checks": checks}
        start += _whole_pages(array.nbytes)
    text = json.dumps(
        {**facts, "counts": ready.counts, "known": ready.known, "mark": ready.mark, "arrays": described, "size": start}
    ).encode()
    line = f"{_FORMAT} {len(text)} {zlib.crc32(text)}".encode().ljust(_FIRST - 1) + b"\n"
    with whole_file(path) as file:
        file.write((line + text).ljust(_whole_pages(_FIRST + len(text)), b" "))
        for array in arrays:
            file.write(array.reshape(-1).view(np.uint8).data)
            file.write(b"\0" * (_whole_pages(array.nbytes) - array.nbytes))


def read_head(path: Path) -> dict[str, Any] | None:
    """Return what the head of a file says; None where it is damaged or is not there."""
    try:
        with path.open("rb") as file:
            format_, size, check = map(int, file.read(_FIRST).split())
            text = file.read(min(size, path.stat().st_size))
        if format_ != _FORMAT or len(text) != size or zlib.crc32(text) != check:
            return None
        head = json.loads(text)
        head["begin"] = _whole_pages(_FIRST + size)
        return head if path.stat().st_size == head["begin"] + head["size"] else None
    except (OSError, ValueError):
        return None


def open_volume(path: Path, all_of_it: bool) -> Prepared | None:
    """Return a case from its file, memory-mapped; None where the file is damaged or is not there.

    Args:
        path: the file.
        all_of_it: whether to check each block, and not just some.
    """
    head = read_head(path)
    if head is None:
        return None
    # NumPy's memory map would keep the file open, and hundreds of cases would use up what a process may open.
    content = torch.from_file(str(path), shared=False, size=head["begin"] + head["size"], dtype=torch.uint8).numpy()
    blocks, found = [], {}
    for name in _ARRAYS:
        entry = head["arrays"][name]
        kind = np.dtype(entry["type"])
        first = head["begin"] + entry["start"]
        last = first + kind.itemsize * math.prod(entry["shape"])
        found[name] = content[first:last].view(kind).reshape(entry["shape"])
        blocks += [
            (content[start : min(start + _BLOCK, last)], check)
            for start, check in zip(range(first, last, _BLOCK), entry["checks"], strict=True)
        ]
    if not all_of_it and len(blocks) > _SAMPLE:
        blocks = random.sample(blocks, _SAMPLE)
    if any(zlib.crc32(block.data) != check for block, check in blocks):
        return None
    known = None if head["known"] is None else tuple(head["known"])
    arrays = found["image"], found["label"], tuple(head["counts"]), found["positions"]
    return Prepared(*arrays, known=known, mark=head["mark"], mapped=True)


def _whole_pages(size: int) -> int:
    return -(-size // _PAGE) * _PAGE
