"""Ends a training whose server is gone: nobody could stop it, or see its progress, any more."""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time

import psutil

from lib.training.status import TrainStatus

__all__ = ["GONE", "watch_server"]

logger = logging.getLogger(__name__)

GONE = "The server is gone, so this training was ended."
_SECONDS = 0.5


def watch_server(status: TrainStatus) -> None:
    """End this process and its children soon after its parent is gone, whatever it is doing.

    Args:
        status: where to say so.
    """
    threading.Thread(target=_watch, args=(os.getppid(), status), name="watch-server", daemon=True).start()


def _watch(server: int, status: TrainStatus) -> None:
    # A process without its parent gets another one, except on Windows.
    while os.getppid() == server and psutil.pid_exists(server):
        time.sleep(_SECONDS)
    logger.warning("training: %s", GONE)
    try:
        status.update({"phase": "interrupted", "eta_seconds": None, "error": GONE})
    finally:
        for child in psutil.Process().children(recursive=True):
            with contextlib.suppress(psutil.NoSuchProcess):
                child.kill()
        os._exit(1)
