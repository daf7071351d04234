"""Names that may become file names: image ids and label tags.

They arrive over HTTP and become paths, so a name is accepted only if it cannot lead anywhere else.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterable, Mapping
from typing import Any, TypeVar

from lib.errors import NotFoundError, RequestError

__all__ = ["LONGEST_FILE_NAME", "checked_name", "checked_tag", "fails_on_windows", "known", "split_suffix"]

_Found = TypeVar("_Found")

LONGEST_FILE_NAME = 200  # bytes: names of files that are written on the way are longer by 46, and systems allow 255
_LONGEST_ENDING = 10
_PLAIN = re.compile(r"\w[\w .,+=()@-]{0,126}")
_DEVICE = re.compile(r"con|prn|aux|nul|conin\$|conout\$|(com|lpt)[0-9\u00b9\u00b2\u00b3]", re.IGNORECASE)


def fails_on_windows(name: str) -> bool:
    """Return whether Windows takes a name for a device or cuts its end, so that a folder with it cannot move there."""
    return name.endswith((".", " ")) or bool(_DEVICE.fullmatch(name.partition(".")[0].rstrip(" ")))


def checked_name(kind: str, name: str) -> str:
    """Return the name, if it is a plain one.

    Args:
        kind: what it names, for the message.
        name: the name.

    Raises:
        RequestError: if it has separators, leading dots, "..", or other characters that are not plain.
    """
    long = LONGEST_FILE_NAME - _LONGEST_ENDING
    if not _PLAIN.fullmatch(name) or ".." in name or fails_on_windows(name) or len(name.encode()) > long:
        raise RequestError(
            f"{name[:200]!r} cannot be used as {kind}. Use letters, digits, spaces and . , _ + = ( ) @ -, beginning "
            f"with a letter or digit, at most 127 characters ({long} bytes), and no name that Windows keeps for itself "
            f"(CON, NUL, COM1 ...)."
        )
    return name


def checked_tag(tag: str, others: Iterable[str]) -> str:
    """Return a label tag, if it is a plain name and no other's in other letters: some systems take both for one folder.

    Args:
        tag: the tag.
        others: tags that there are.

    Raises:
        RequestError: if it is not.
    """
    checked_name("label tag", tag)
    for other in others:
        if other != tag and _folded(other) == _folded(tag):
            raise RequestError(
                f"The label tag {tag!r} differs from {other!r} in capitals or the form of letters only, and some "
                f"systems take both for one folder. Use {other!r}, or another name."
            )
    return tag


def _folded(name: str) -> str:
    return unicodedata.normalize("NFKC", unicodedata.normalize("NFKC", name).casefold())


def split_suffix(file_name: str, suffixes: tuple[str, ...]) -> tuple[str, str]:
    """Split a file name at the end into name and image suffix.

    Args:
        file_name: such as ``"case.1.nii.gz"``.
        suffixes: longer ones first, such as ``(".nii.gz", ".nii")``.

    Returns:
        ``("case.1", ".nii.gz")``, the suffix as the file has it, perhaps in capitals; empty where it has none of them.
    """
    for suffix in suffixes:
        if file_name.lower().endswith(suffix):
            return file_name[: -len(suffix)], file_name[-len(suffix) :]
    return file_name, ""


def known(kind: str, name: Any, found: Mapping[str, _Found]) -> _Found:
    """Return what has a name that a client sent.

    Args:
        kind: what it names, for the message.
        name: the name, whatever came.
        found: what there is, by name.

    Raises:
        NotFoundError: where there is none of that name.
    """
    if not isinstance(name, str) or name not in found:
        raise NotFoundError(f"There is no {kind} {str(name)[:200]!r}. Choose one of: {', '.join(sorted(found))}.")
    return found[name]
