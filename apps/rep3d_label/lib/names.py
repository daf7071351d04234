"""Names that may become file names: image ids and label tags.

They arrive over HTTP and become paths, so a name is accepted only if it cannot lead anywhere else.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, TypeVar

from lib.errors import NotFoundError, RequestError

__all__ = ["checked_name", "known", "split_suffix"]

_Found = TypeVar("_Found")

_PLAIN = re.compile(r"\w[\w .,+=()@-]{0,126}")


def checked_name(kind: str, name: str) -> str:
    """Return the name, if it is a plain one.

    Args:
        kind: what it names, for the message.
        name: the name.

    Raises:
        RequestError: if it has separators, leading dots, "..", or other characters that are not plain.
    """
    if not _PLAIN.fullmatch(name) or ".." in name or name.endswith((".", " ")):
        raise RequestError(
            f"{name[:200]!r} cannot be used as {kind}. Use letters, digits, spaces and . , _ + = ( ) @ -, beginning "
            f"with a letter or digit, at most 127 characters."
        )
    return name


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
