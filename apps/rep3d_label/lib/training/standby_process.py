"""The process that waits for the next training with everything imported: what it does, in itself.

It is started by :mod:`lib.training.standby` and asks for one line on its standard input, with which it becomes the
process that MONAI Label would have started. Until then it opens nothing of the studies folder and asks for no GPU;
when its input is closed, as the end of the server does however it ends, it ends, too.
"""

from __future__ import annotations

import importlib
import json
import os
import runpy
import sys
import threading
import time

import psutil

__all__ = ["CHILD_MODULE", "READY", "TAKEN", "took_up_at"]

CHILD_MODULE = "monailabel.interfaces.utils.app"  # which MONAI Label runs in a process of its own
READY = "ready for a training"
TAKEN = "took up a training"
# torch._dynamo is imported by the first optimizer that is made. numpy and scipy first: the threads that they start keep
# the priority of the thread that imported them.
_NUMBERS = ("numpy", "scipy.linalg")
_IMPORTED = (CHILD_MODULE, "lib.boot.environment", "lib.app", "torch._dynamo")

_took_up_at = 0.0


def took_up_at() -> float:
    """Return when this process took up its training, in ``time.time()``'s seconds; 0 where it did not wait for one."""
    return _took_up_at


def _main() -> None:
    global _took_up_at
    for name in _NUMBERS:
        importlib.import_module(name)
    threading.Thread(target=_import, name="import", daemon=True).start()
    line = sys.stdin.readline()
    if not line:
        os._exit(0)
    _took_up_at = time.time()
    print(TAKEN, flush=True)
    request = json.loads(line)
    with open(os.devnull, "rb") as nothing:
        os.dup2(nothing.fileno(), 0)
    os.environ.update(request["environment"])
    os.environ["MONAI_LABEL_RELOAD_APP_LIB"] = "false"  # else it imports this app's modules once more
    sys.argv[1:] = request["arguments"]
    sys.modules.pop(CHILD_MODULE)
    runpy.run_module(CHILD_MODULE, run_name="__main__", alter_sys=True)


def _import() -> None:
    """Import everything without taking a core from anybody, and say so."""
    own = psutil.Process()
    if sys.platform == "linux":  # where a thread has a priority of its own: that of a process could not be raised again
        os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), 19)
    elif sys.platform == "win32":
        before = own.nice()
        own.nice(psutil.IDLE_PRIORITY_CLASS)
    try:
        for name in _IMPORTED:
            importlib.import_module(name)
    except BaseException as error:
        print(f"{type(error).__name__}: {error}", flush=True)
        os._exit(1)
    if sys.platform == "win32":
        own.nice(before)
    print(READY, flush=True)


if __name__ == "__main__":
    from lib.training import standby_process  # the module that others import, which this one, run by its name, is not

    standby_process._main()
