"""A child process with all that it starts: begun in a clean environment, ended as a whole, told from all others.

Nothing here waits. On Linux and macOS the child leads a session of its own, whose processes get signals together; a
descendant that begins yet another session escapes that. On Windows `taskkill` ends the tree.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import IO, BinaryIO

__all__ = ["Child", "clean_environment", "end_tree_on_windows", "process_command", "process_mark"]

# Beginnings of the names of variables.
_LEAKS = ("PYTHON", "__PYVENV", "VIRTUAL_ENV", "LD_LIBRARY_PATH", "LD_PRELOAD", "DYLD_", "QT_", "QML", "SLICER", "VTK_",
          "ITK_", "CTK_", "SSL_CERT_", "TCL_", "TK_")  # fmt: skip
_PATHS = ("PATH", "Path")


def clean_environment(environment: Mapping[str, str] | None = None) -> dict[str, str]:
    """Return the environment for another Python: what leads to Slicer's own libraries and Python is taken out.

    Args:
        environment: To begin with; in Slicer, best `slicer.util.startupEnvironment()`. None: this process's own.
    """
    source = dict(os.environ if environment is None else environment)
    home = source.get("SLICER_HOME", "") or os.environ.get("SLICER_HOME", "")
    clean = {name: value for name, value in source.items() if not name.upper().startswith(_LEAKS)}
    for name in _PATHS:
        if home and name in clean:
            parts = clean[name].split(os.pathsep)
            clean[name] = os.pathsep.join(part for part in parts if not _is_below(part, home))
    # Lines of the log at once and in UTF-8; idle threads that sleep, because Slicer needs the cores, too.
    return {"OMP_WAIT_POLICY": "PASSIVE", **clean, "PYTHONUNBUFFERED": "1", "PYTHONUTF8": "1"}


def _is_below(part: str, home: str) -> bool:
    folder, root = os.path.normcase(os.path.normpath(part)), os.path.normcase(os.path.normpath(home))
    return folder == root or folder.startswith(root + os.sep)


class Child:
    """A process in a session of its own.

    Args:
        command: Program and arguments.
        environment: Its whole environment.
        folder: Its working folder; None for that of this process.
        output: Receives what it and its children print; a file, or None for a pipe that `read_output` reads.
        errors: Receives its standard error, where `output` is None.
        fed: Whether it reads what is written to `input`; else its input is empty.

    Raises:
        OSError: It cannot be started.
    """

    def __init__(
        self,
        command: Sequence[str],
        environment: Mapping[str, str],
        folder: Path | None,
        output: BinaryIO | None,
        errors: BinaryIO | None = None,
        fed: bool = False,
    ) -> None:
        options: dict[str, object] = {"start_new_session": True}
        if sys.platform == "win32":
            options = {"creationflags": subprocess.CREATE_NO_WINDOW | subprocess.CREATE_NEW_PROCESS_GROUP}
        self._process: subprocess.Popen[bytes] = subprocess.Popen(  # type: ignore[call-overload]
            list(command),
            stdin=subprocess.PIPE if fed else subprocess.DEVNULL,
            stdout=subprocess.PIPE if output is None else output,
            stderr=(errors or subprocess.DEVNULL) if output is None else subprocess.STDOUT,
            env=dict(environment),
            cwd=str(folder) if folder is not None else None,
            close_fds=True,
            **options,
        )

    @property
    def pid(self) -> int:
        """Its number."""
        return self._process.pid

    @property
    def input(self) -> IO[bytes] | None:
        """The pipe to its standard input, None where it is not fed."""
        return self._process.stdin

    def poll(self) -> int | None:
        """Return its exit code, None while it runs; what it leaves behind is killed before its number is free again."""
        if self._process.returncode is None and self._has_ended():
            self.kill()
            return self._process.wait()
        return self._process.returncode

    def terminate(self) -> None:
        """Ask it and all that it started to end in order; on Windows there is only `kill`."""
        if sys.platform == "win32":
            self.kill()
        else:
            self._signal(signal.SIGTERM)

    def kill(self) -> None:
        """End it and all that it started at once."""
        if self._process.returncode is not None:
            return
        if sys.platform == "win32":
            end_tree_on_windows(self.pid)
        else:
            self._signal(signal.SIGKILL)

    def read_output(self) -> bytes:
        """Return what it has written to its pipe; only after it has ended, as this waits for the end."""
        stream = self._process.stdout
        if stream is None:
            return b""
        with stream:
            return stream.read()

    def _has_ended(self) -> bool:
        if sys.platform == "win32" or not hasattr(os, "waitid"):
            return self._process.poll() is not None
        # Not reaped yet: as long as it is there, no other process can have its number, or lead a group of that number.
        try:
            return os.waitid(os.P_PID, self.pid, os.WEXITED | os.WNOHANG | os.WNOWAIT) is not None
        except ChildProcessError:
            return True

    def _signal(self, number: int) -> None:
        if self._process.returncode is None:
            # Gone; macOS says the latter for a group of ended processes.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)


def end_tree_on_windows(pid: int) -> None:
    """End a process and all that it started at once, without waiting for that."""
    if sys.platform == "win32":
        subprocess.Popen(
            ["taskkill", "/T", "/F", "/PID", str(pid)],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            creationflags=subprocess.CREATE_NO_WINDOW,
        )


def process_mark(pid: int) -> str:
    """Return what tells a process from a later one of the same number, "" if there is none that can be looked at.

    That is the time of its start, on Linux counted from a boot that is named, too.
    """
    if sys.platform == "win32":
        return _mark_on_windows(pid)
    try:
        if sys.platform != "linux":
            return _ask_ps(pid, "lstart=")
        status = Path(f"/proc/{pid}/stat").read_text(encoding="utf-8", errors="replace")
        fields = status.rpartition(")")[2].split()  # the name before it may hold anything
        if fields[0] in ("Z", "X"):  # it has ended
            return ""
        boot = Path("/proc/sys/kernel/random/boot_id").read_text(encoding="ascii").strip()
        return f"{boot} {fields[19]}"
    except (OSError, IndexError, subprocess.SubprocessError):
        return ""


def process_command(pid: int) -> str:
    """Return the command line of a process, "" if it cannot be known."""
    try:
        if sys.platform == "linux":
            return Path(f"/proc/{pid}/cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
        return "" if sys.platform == "win32" else _ask_ps(pid, "command=")
    except (OSError, subprocess.SubprocessError):
        return ""


def _ask_ps(pid: int, what: str) -> str:
    shown = subprocess.run(
        ["ps", "-ww", "-o", what, "-p", str(pid)], stdin=subprocess.DEVNULL, capture_output=True, timeout=2, check=False
    )
    return " ".join(shown.stdout.decode("utf-8", "replace").split())


def _mark_on_windows(pid: int) -> str:
    if sys.platform != "win32":
        return ""
    import ctypes
    from ctypes import wintypes

    kernel = ctypes.WinDLL("kernel32", use_last_error=True)
    kernel.OpenProcess.restype = wintypes.HANDLE
    handle = kernel.OpenProcess(0x1000, False, pid)  # PROCESS_QUERY_LIMITED_INFORMATION
    if not handle:
        return ""
    try:
        times = [wintypes.FILETIME() for _ in range(4)]
        code = wintypes.DWORD()
        if not kernel.GetProcessTimes(wintypes.HANDLE(handle), *map(ctypes.byref, times)):
            return ""
        if not kernel.GetExitCodeProcess(wintypes.HANDLE(handle), ctypes.byref(code)) or code.value != 259:
            return ""  # 259: still active
        return f"{times[0].dwHighDateTime}:{times[0].dwLowDateTime}"
    finally:
        kernel.CloseHandle(wintypes.HANDLE(handle))
