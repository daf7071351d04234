"""Leaving nothing behind when the server ends: no folder of uploads, no running training, no inference to wait for."""

from __future__ import annotations

import atexit
import os
import shutil
import signal
import tempfile
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import FrameType

import psutil
from monailabel.utils.async_tasks.utils import processes, stop_background_task

__all__ = ["clear_incoming_folders", "make_incoming_folder", "stop_with_server"]


_PREFIX = "rep3d-label-"


def clear_incoming_folders() -> None:
    """Remove the temporary folders of servers that were killed; their names say whose they are."""
    for folder in Path(tempfile.gettempdir()).glob(f"{_PREFIX}*-*"):
        pid = folder.name.removeprefix(_PREFIX).partition("-")[0]
        ours = os.name == "nt" or folder.lstat().st_uid == os.getuid()
        if pid.isdigit() and ours and folder.is_dir() and not folder.is_symlink() and not psutil.pid_exists(int(pid)):
            shutil.rmtree(folder, ignore_errors=True)


def make_incoming_folder() -> None:
    """Give this process a temporary folder that only its user can look into, and remove it when the process ends.

    MONAI Label writes uploads to the process's temporary folder under names of its own; in a folder of ours they can be
    told from every other file of this computer.
    """
    tempfile.tempdir = tempfile.mkdtemp(prefix=f"{_PREFIX}{os.getpid()}-")
    atexit.register(shutil.rmtree, tempfile.tempdir, ignore_errors=True)


def stop_with_server(cancel_requests: Callable[[], None]) -> None:
    """End training and scoring processes, and inference, as soon as the server is asked to end.

    Otherwise Python waits for the processes (a thread of MONAI Label's reads their output, and Python joins it before
    anything that waits for the main thread's end may run), and uvicorn for each answer, so that a stopped server lives
    on for as long as these last.

    Args:
        cancel_requests: cancels all inference; it may wait for a lock.
    """
    if threading.current_thread() is threading.main_thread():
        before = signal.getsignal(signal.SIGTERM)

        def end_in_order(number: int, frame: FrameType | None) -> None:
            for end in (cancel_requests, _stop_children):
                threading.Thread(target=end, name=end.__name__, daemon=True).start()
            # The server framework ends a terminated process by raising the signal once more, which skips all clean-up;
            # after an interrupt it returns normally.
            if callable(before):
                before(signal.SIGINT, frame)

        for signal_number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signal_number, end_in_order)


def _stop_children() -> None:
    while True:  # until the process ends, as one that was waiting may just begin
        for method in ("train", "scoring"):
            if processes(method):
                stop_background_task(method)
        time.sleep(0.1)
