"""Which Python a server can be started with: suggestions, and the question to one of them, asked without waiting."""

from __future__ import annotations

import json
import os
import shutil
import sys
import time
from collections.abc import Callable, Mapping
from pathlib import Path

from ..processes import Child

__all__ = ["AppSearch", "candidate_pythons", "find_app", "python_of"]

_SECONDS = 60.0
_OLDEST, _NEWEST = 10, 14  # of Python 3
# Asked in the other Python. Nothing heavy is imported: only where things are is looked up.
_QUESTION = """
import importlib.util, json, sys
found = {"version": list(sys.version_info[:2])}
for name in ("monailabel", "distutils"):
    found[name] = importlib.util.find_spec(name) is not None
try:
    from rep3d.demo.checkout import APP
    found["app"] = str(APP)
except Exception as error:
    found["error"] = f"{type(error).__name__}: {error}"
print(json.dumps(found))
"""


def python_of(path: str | Path, environment: Mapping[str, str] | None = None) -> Path | None:
    """Return the Python that is meant by a file, by the folder of an environment, or by a name on the PATH.

    The path is not resolved: an environment's Python is a link, and its place makes it the environment's.

    Args:
        path: The file, folder or name.
        environment: Whose PATH is meant, by default that of this process, which in Slicer begins with Slicer's own.
    """
    text = str(path).strip()
    if not text:
        return None
    given = Path(text).expanduser()
    if given.is_dir():
        inside = (given / "bin" / "python", given / "Scripts" / "python.exe", given / "python.exe")
        return next((file for file in inside if file.is_file()), None)
    if given.is_file():
        return given if os.access(given, os.X_OK) else None
    found = shutil.which(text, path=_search_path(environment)) if os.path.basename(text) == text else None
    return Path(found) if found else None


def _search_path(environment: Mapping[str, str] | None) -> str | None:
    return None if environment is None else environment.get("PATH", environment.get("Path", ""))


def candidate_pythons(environment: Mapping[str, str] | None = None, app: Path | None = None) -> tuple[Path, ...]:
    """Return Pythons that are there and may have the server installed, the likeliest first; none of them is started.

    Args:
        environment: Whose PATH to look through; in Slicer, best `slicer.util.startupEnvironment()`.
        app: Folder of the app, if it is known; an environment may lie beside it.
    """
    known = dict(os.environ if environment is None else environment)
    repositories = [app.parent.parent] if app else []
    if len(Path(__file__).resolve().parents) > 4:
        repositories.append(Path(__file__).resolve().parents[4])
    places: list[Path | None] = [python_of(folder / name) for folder in repositories for name in (".venv", "venv")]
    places += [python_of(known[name]) for name in ("VIRTUAL_ENV", "CONDA_PREFIX") if known.get(name)]
    minors = range(_NEWEST, _OLDEST - 1, -1)
    for name in ("python3", "python", *(f"python3.{minor}" for minor in minors)):
        found = shutil.which(name, path=_search_path(known))
        places.append(Path(found) if found else None)
    if sys.platform == "win32":
        roots = [Path(known.get("LOCALAPPDATA", "")) / "Programs" / "Python", Path(known.get("PROGRAMFILES", ""))]
        places += [python_of(root / f"Python3{minor}") for root in roots for minor in minors]
    home = known.get("SLICER_HOME") or os.environ.get("SLICER_HOME", "")
    own = Path(sys.prefix).resolve() if home else None  # Slicer's own Python cannot hold the server
    usable = [place for place in places if place is not None and (own is None or own not in place.resolve().parents)]
    return tuple(dict.fromkeys(usable))


class AppSearch:
    """Finds the folder of the app that belongs to a Python environment, by asking that Python in a child process.

    Args:
        python: The Python.
        environment: Its whole environment, see `processes.clean_environment`.
        folder: Where it works.
        clock: Seconds.

    Attributes:
        app: The folder; None while it is not known, or if there is none.
        message: If there is none, why, and what to do; else "".
    """

    def __init__(
        self,
        python: Path,
        environment: Mapping[str, str],
        folder: Path,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self.app: Path | None = None
        self.message = ""
        self._python = python
        self._clock = clock
        self._until = clock() + _SECONDS
        self._child: Child | None = None
        try:
            self._child = Child([str(python), "-c", _QUESTION], environment, folder, None)
        except OSError as error:
            self.message = f"The Python at '{python}' cannot be started: {error.strerror or error}."

    def poll(self) -> bool:
        """Return whether the answer is there; never waits."""
        child = self._child
        if child is None:
            return True
        code = child.poll()
        if code is None and self._clock() < self._until:
            return False
        self._child = None
        if code is None:
            child.kill()
            self.message = f"'{self._python}' did not answer within {_SECONDS:g} s. Choose another Python."
            return True
        self._understand(child.read_output())
        return True

    def stop(self) -> None:
        """Give the question up."""
        if self._child is not None:
            self._child.kill()

    def _understand(self, output: bytes) -> None:
        lines = output.decode("utf-8", "replace").strip().splitlines()
        try:
            answer = json.loads(lines[-1]) if lines else {}
        except ValueError:
            answer = {}
        version = answer.get("version") if isinstance(answer, dict) else None
        if not isinstance(version, list):
            self.message = f"'{self._python}' does not answer as a Python does. Choose another file."
        elif not (3, _OLDEST) <= tuple(version) <= (3, _NEWEST):
            self.message = (
                f"The server needs Python 3.{_OLDEST} to 3.{_NEWEST}, but '{self._python}' is {version[0]}."
                f"{version[1]}. Choose another Python."
            )
        elif not answer.get("monailabel"):
            self.message = (
                f"MONAI Label is not installed in the environment of '{self._python}'. Choose "
                "the Python of the environment in which Rep3D Label was installed."
            )
        elif not answer.get("distutils"):
            self.message = (
                f"MONAI Label needs the module distutils, which the environment of '{self._python}' lacks. Install it "
                f"there: '{self._python}' -m pip install setuptools==80.9.0"
            )
        elif not answer.get("app") or not Path(answer["app"]).is_dir():
            said = answer.get("error") or f"no folder {answer.get('app')}"
            self.message = (
                f"Rep3D Label's app was not found with '{self._python}' ({said}). Choose the Python of the "
                "environment in which it was installed, or name the folder of the app (apps/rep3d_label)."
            )
        else:
            self.app = Path(answer["app"])


def find_app(python: str | Path, environment: Mapping[str, str], folder: Path) -> AppSearch | None:
    """Begin to look for the app of a Python environment; None where there is no such Python."""
    found = python_of(python, environment)
    return AppSearch(found, environment, folder) if found else None
