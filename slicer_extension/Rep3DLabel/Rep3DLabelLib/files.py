"""Writing files: whole or not at all."""

from __future__ import annotations

import os
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from .errors import LocalProblem

__all__ = ["atomic_target"]


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
