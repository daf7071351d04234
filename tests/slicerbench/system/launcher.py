"""`PythonSlicer`: no Python, but a launcher that starts one, with all that comes of its being two processes.

Read off CTK's AppLauncher (Base/ctkAppLauncher.cpp: `runProcess`, `applicationFinished`; its pull request 100 for
standard input, which was seen to work on macOS): the child has the launcher's own standard streams. No signal is passed
on: what ends the launcher leaves its child running. A child's exit code becomes the launcher's; a child that crashes is
reported in words, with exit code 1.
"""

from __future__ import annotations

import sys
from pathlib import Path

_SCRIPT = """#!{python} -IS
import os, signal, sys
signal.signal(signal.SIGINT, signal.SIG_DFL)
python = {python!r}
child = os.posix_spawn(python, [python, *sys.argv[1:]], os.environ)
code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
if code < 0:
    print("error: [" + python + "] exit abnormally - Report the problem.", file=sys.stderr)
    code = 1
sys.exit(code)
"""


def make_launcher(folder: Path) -> Path:
    """Write the launcher of this process's Python into a folder and return it."""
    launcher = folder / "PythonSlicer"
    launcher.write_text(_SCRIPT.format(python=sys.executable), encoding="utf-8")
    launcher.chmod(0o755)
    return launcher
