"""Refusing to start, clearly, and knowing in which process we run.

A server that starts on a wrong footing destroys data or shows noise as a segmentation, so everything that can be
known to be wrong is refused before a single file is touched. MONAI Label builds the app twice, in the server and
again in a child process for each training or scoring; the two must not behave alike, because the child holds a copy
of the datastore that ages while the server goes on.
"""

from __future__ import annotations

import errno
import logging
import os
import socket
import sys
import tempfile
from pathlib import Path

from filelock import BaseFileLock, FileLock, Timeout

from lib.errors import StartupError
from rep3d.errors import DiskFullError, machine_error
from rep3d.files import leads_out

__all__ = [
    "check_port",
    "check_writable",
    "hold_folder",
    "in_child_process",
    "in_server_process",
    "mark_started",
    "say_once",
    "server_is_starting",
]

_CHILD_MODULE = "monailabel.interfaces.utils.app"
_SERVER_MODULE = "monailabel.app"
_STARTED = "rep3d_label_started"
_held: list[BaseFileLock] = []  # for the life of the process


def in_child_process() -> bool:
    """Return whether this is a training or scoring process that MONAI Label started from its server."""
    spec = getattr(sys.modules["__main__"], "__spec__", None)
    return spec is not None and spec.name == _CHILD_MODULE


def in_server_process() -> bool:
    """Return whether this is the process that answers HTTP requests (not a child, not a test that builds the app by
    hand)."""
    return _SERVER_MODULE in sys.modules and not in_child_process()


def server_is_starting() -> bool:
    """Return whether the server is about to start (MONAI Label's ``POST /reload`` builds the app again in one that
    runs)."""
    return in_server_process() and not getattr(sys.modules[_SERVER_MODULE].app.state, _STARTED, False)


def mark_started() -> None:
    """Record that the server has started."""
    setattr(sys.modules[_SERVER_MODULE].app.state, _STARTED, True)


def check_port(host: str, port: int) -> None:
    """Refuse a port that another program listens on.

    Raises:
        StartupError: if the server could not listen there.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        if os.name != "nt":  # as uvicorn does: a port in TIME_WAIT is free; on Windows this flag would hide a listener
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host, port))
        except OSError as error:
            raise StartupError(
                f"It cannot listen on {host} port {port} ({error.strerror}).",
                "Another program uses that port, perhaps an earlier server: stop it, or choose another with --port.",
            ) from error


def check_writable(folder: Path) -> None:
    """Refuse a studies folder that labels could not be written to.

    Raises:
        StartupError: if a file cannot be made in it, or in the folder of our own data below it, or if a folder below
            it leads elsewhere.
    """
    for place in (folder, *(folder / name for name in ("rep3d", "labels", "labels/final", "labels/original"))):
        if place != folder and not place.exists():
            continue
        if leads_out(place, folder):
            raise StartupError(
                f"It would write outside of the studies folder: {place} is a link that leads out of it.",
                "Move what it leads to into the studies folder, or choose another one with --studies.",
            )
        try:
            with tempfile.TemporaryFile(dir=place):
                pass
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):  # that may change, and there is much to see meanwhile
                continue
            raise StartupError(
                f"It could not keep labels in {place}, which cannot be written ({error.strerror}).",
                "Give the server's user write permission on it, or choose another folder with --studies.",
            ) from error


def hold_folder(folder: Path) -> None:
    """Keep other servers away from a studies folder until this process ends, however it ends.

    Two servers would each overwrite the list of images and labels with what they know of it.

    Raises:
        StartupError: if another server holds it.
        DiskFullError: if the disk has no room to say so.
    """
    own = folder / "rep3d"
    own.mkdir(parents=True, exist_ok=True)
    lock = FileLock(own / "server.lock", timeout=0, thread_local=False)
    try:
        lock.acquire()
    except Timeout as error:
        raise StartupError(
            f"Another server runs on the studies folder {folder} already.",
            "Use that one, or stop it first.",
        ) from error
    except (OSError, NotImplementedError) as error:  # some network file systems know no locks
        if isinstance(full := machine_error(error), DiskFullError):
            raise full from error
        logging.getLogger(__name__).warning("cannot lock %s (%s): start no second server on it", own, error)
    else:
        _held.append(lock)


class _WithoutTraceback(logging.Filter):
    """Drops the server framework's traceback of a :class:`StartupError`, which has been logged as one message."""

    def filter(self, record: logging.LogRecord) -> bool:
        return f"{StartupError.__name__}: " not in record.getMessage()


def say_once(error: StartupError, logger: logging.Logger) -> None:
    """Log why the server does not start, and keep the traceback that would follow it out of the log."""
    logging.getLogger("uvicorn.error").addFilter(_WithoutTraceback())
    logger.critical("%s", error)
