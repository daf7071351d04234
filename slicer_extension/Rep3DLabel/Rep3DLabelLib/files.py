"""Writing what the server sends: whole or not at all.

A download goes into a temporary file beside its target and takes the target's name only once it is complete, so that a
cut connection leaves neither half a file nor a damaged older one.
"""

from __future__ import annotations

import gzip
import os
import re
import uuid
import zlib
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import BadAnswer, LocalProblem

__all__ = ["atomic_target", "check_image_file", "image_suffix", "resolve_target"]

_DOUBLE_SUFFIXES = (".nii.gz", ".seg.nrrd")
_IMAGE_SUFFIXES = frozenset({".nii", ".nii.gz", ".nrrd", ".seg.nrrd", ".nhdr", ".mha", ".mhd"})


def image_suffix(name: str | Path) -> str:
    """Return the image suffix of a file name in lower case (".nii.gz", ".nrrd"), "" if it has none.

    Only known double suffixes count as such: "patient.12.nii.gz" gives ".nii.gz".
    """
    lower = Path(name).name.lower()
    for suffix in _DOUBLE_SUFFIXES:
        if lower.endswith(suffix):
            return suffix
    return Path(lower).suffix


def resolve_target(target: str | Path, server_name: str, fallback_name: str) -> Path:
    """Return the file to write.

    Args:
        target: A file, or an existing folder, in which the file keeps the server's name.
        server_name: Name that the server gives the file, "" if none; only its last component is used.
        fallback_name: Name in a folder if the server gives none.

    Raises:
        LocalProblem: The folder does not exist.
        BadAnswer: The server's file is of another format than the target's name says.
    """
    path = Path(target)
    server_name = server_name.replace("\\", "/").rpartition("/")[2]
    if path.is_dir():
        return path / (_safe_name(server_name) or _safe_name(fallback_name) or "image")
    if not path.parent.is_dir():
        raise LocalProblem(
            f"Expected an existing folder to write to, but there is no '{path.parent}'. Create it first."
        )
    wanted, came = image_suffix(path), image_suffix(server_name)
    if wanted in _IMAGE_SUFFIXES and came in _IMAGE_SUFFIXES and wanted != came:
        raise BadAnswer(
            f"Expected a {wanted} file for '{path.name}', but the server sent a {came} file. "
            "Give a folder as the target to keep the server's name."
        )
    return path


def _safe_name(name: str) -> str:
    return re.sub(r'[<>:"/\\|?*\x00-\x1f]', "_", name).strip(". ")


@contextmanager
def atomic_target(target: Path) -> Iterator[Path]:
    """Give a temporary file's path; move it to `target` if the block ends well, remove it otherwise.

    Raises:
        LocalProblem: The file cannot be written (no space, no permission, or open in another program).
    """
    part = target.with_name(f".{uuid.uuid4().hex}.part")
    try:
        yield part
        os.replace(part, target)
    except OSError as error:
        raise LocalProblem(
            f"Cannot write '{target}': {error.strerror or error}. Check free space and permissions, and that no other "
            "program has the file open."
        ) from error
    finally:
        part.unlink(missing_ok=True)


def check_image_file(part: Path, name: str) -> None:
    """Refuse a file that cannot be whole.

    A compressed file is read to its end, where its length and checksum stand: a connection that ends early without an
    announced length shows nowhere else, and neither does a file that was cut on the server.

    Args:
        part: The file.
        name: The name that it is to have.

    Raises:
        BadAnswer: It is empty, or its name ends in .gz and it is not one complete gzip file.
    """
    if not part.stat().st_size:
        raise BadAnswer(f"Expected an image for '{name}', but the server sent an empty file. Check it on the server.")
    if not name.lower().endswith(".gz"):
        return
    try:
        with gzip.open(part) as stream:
            while stream.read(1 << 20):
                pass
    except (EOFError, gzip.BadGzipFile, zlib.error) as error:
        raise BadAnswer(
            f"Expected a complete compressed image for '{name}', but it is cut or damaged ({error}). Try again; if it "
            "happens again, check the file on the server."
        ) from error
