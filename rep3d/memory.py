"""How much memory this process may use, asked before the step that needs it.

A container or a job often may use less than the machine has, and whoever takes more is ended without a word. So what
counts is the smallest of what the machine, the process's cgroups (v1 or v2) and its address space leave.
"""

from __future__ import annotations

import ctypes
from collections.abc import Iterator
from pathlib import Path

import psutil

from rep3d.errors import OutOfMemoryError, TooLargeError

try:
    import resource
except ImportError:  # Windows, which has no such limit
    resource = None  # type: ignore[assignment]

__all__ = ["free_and_total", "give_back", "require_memory"]

_OWN_GROUPS = Path("/proc/self/cgroup")
_GROUPS = Path("/sys/fs/cgroup")
_V1 = "memory/", "memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file"
_V2 = "", "memory.max", "memory.current", "inactive_file"


def require_memory(needed: int, what: str, remedy: str) -> None:
    """Refuse what would not fit into memory.

    Args:
        needed: bytes, at the peak.
        what: what needs them, as it follows "Not enough memory".
        remedy: what to do, one sentence or more.

    Raises:
        TooLargeError: if it would not fit though nothing else ran, with both sizes.
        OutOfMemoryError: if it does not fit now, with both sizes.
    """
    free, total = free_and_total()
    if needed > total:
        raise TooLargeError(
            f"Not enough memory {what}: {needed / 1e9:.1f} GB are needed, and all that may be used here is "
            f"{total / 1e9:.1f} GB. {remedy}"
        )
    if needed > free:
        raise OutOfMemoryError(
            f"Not enough memory {what}: {needed / 1e9:.1f} GB are needed, {free / 1e9:.1f} GB are free. {remedy} "
            f"Or try again when less is running."
        )


def free_and_total() -> tuple[int, int]:
    """Return the bytes that this process can still take, and those that it could if nothing else ran."""
    machine = psutil.virtual_memory()
    limits = [(machine.available, machine.total), *((limit - used, limit) for limit, used in _group_limits())]
    if resource is not None:
        limit, _ = resource.getrlimit(resource.RLIMIT_AS)
        if limit != resource.RLIM_INFINITY:
            limits.append((limit - psutil.Process().memory_info().vms, limit))
    return max(0, min(free for free, _ in limits)), min(total for _, total in limits)


def give_back() -> None:
    """Return what was freed to the system. glibc keeps it, in as many heaps as there are threads; others do not."""
    try:
        ctypes.CDLL(None).malloc_trim(0)
    except (AttributeError, OSError, TypeError):  # not glibc; Windows
        return


def _group_limits() -> Iterator[tuple[int, int]]:
    """Yield the limit and the use, in bytes, of each cgroup that this process is in."""
    try:
        lines = _OWN_GROUPS.read_text().splitlines()
    except OSError:  # not Linux
        return
    for line in lines:
        _, controllers, place = line.split(":", 2)
        if controllers and "memory" not in controllers.split(","):
            continue
        below, limit, used, cache = _V1 if controllers else _V2
        # In a container the place may be the host's word for it; what is there is the container's own group, above.
        parts = [part for part in place.split("/") if part not in ("", "..")]
        for depth in range(len(parts), -1, -1):
            group = _GROUPS.joinpath(below, *parts[:depth])
            try:
                most, taken = int((group / limit).read_text()), int((group / used).read_text())
                stat = dict(row.split() for row in (group / "memory.stat").read_text().splitlines())
                yield most, taken - int(stat.get(cache, 0))  # what was read from files is given up when need be
            except (OSError, ValueError):  # no such group, or "max": no limit
                continue
