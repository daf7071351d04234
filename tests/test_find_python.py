"""`make` takes a Python that can hold the environment, and otherwise names one that the system offers."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

SCRIPT = Path(__file__).parent.parent / "scripts" / "find_python.sh"
Run = Callable[..., "subprocess.CompletedProcess[str]"]

pytestmark = pytest.mark.skipif(shutil.which("sh") is None, reason="needs a shell")


@pytest.fixture
def program(tmp_path: Path) -> Callable[[str, str], None]:
    """Put a program, written for the shell, on the only folder of the PATH."""
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin" / "grep").symlink_to(str(shutil.which("grep")))

    def add(name: str, text: str) -> None:
        path = tmp_path / "bin" / name
        path.write_text(f"#!/bin/sh\n{text}\n")
        path.chmod(0o755)

    return add


@pytest.fixture
def run(tmp_path: Path) -> Run:
    (tmp_path / "os-release").write_text('NAME=Old\nPRETTY_NAME="Old Linux 7"\n')
    environment = {"PATH": str(tmp_path / "bin"), "REP3D_OS_RELEASE": str(tmp_path / "os-release")}
    shell = str(shutil.which("sh"))
    return lambda *named: subprocess.run(
        [shell, str(SCRIPT), *named], env=environment, capture_output=True, text=True, timeout=60
    )


def python(version: str, venv: bool = True) -> str:
    return f'case "$2" in *version*) echo {version} ;; *venv*) exit {0 if venv else 1} ;; esac'


def apt(*offered: str) -> str:
    """Return what apt-cache answers about `policy NAME`."""
    cases = "".join(f"{name}) echo '  Candidate: 3.0-1' ;; " for name in offered)
    return f"case \"$2\" in {cases} *) echo '  Candidate: (none)' ;; esac"


@pytest.mark.parametrize("version", ["3.10", "3.11", "3.12", "3.13", "3.14"])
def test_the_systems_own_python(tmp_path: Path, program, run: Run, version: str) -> None:
    program("python3", python(version))
    result = run()
    assert (result.returncode, result.stdout) == (0, f"{tmp_path}/bin/python3\n"), result.stderr


def test_one_without_venv_is_passed_over(tmp_path: Path, program, run: Run) -> None:
    program("python3.11", python("3.11", venv=False))
    program("python3.14", python("3.14"))
    program("python3.12", "exit 127")  # one of pyenv's that is not in use
    assert run().stdout == f"{tmp_path}/bin/python3.14\n"


def test_the_one_that_is_named_or_none(tmp_path: Path, program, run: Run) -> None:
    program("python3.11", python("3.11"))
    program("mine", python("3.13"))
    program("old", python("3.9"))
    assert run("mine").stdout == f"{tmp_path}/bin/mine\n"
    result = run("old")
    assert (result.returncode, result.stdout) == (2, "")
    assert "Expected Python 3.10 to 3.14 at 'old', found none (old is 3.9)." in result.stderr


def test_venv_is_missing(program, run: Run) -> None:
    program("python3", python("3.13", venv=False))
    program("apt-get", "exit 1")
    program("apt-cache", apt("python3.13-venv", "python3.11-venv"))
    result = run()
    assert (result.returncode, result.stdout) == (2, "")
    assert "Python 3.13 is here, but not its module venv" in result.stderr
    assert "Install it: sudo apt-get install python3.13-venv\n" in result.stderr


@pytest.mark.parametrize(
    ("programs", "words"),
    [
        ({"apt-get": "", "apt-cache": apt("python3.12-venv")}, "Install it: sudo apt-get install python3.12-venv\n"),
        (
            {"apt-get": "", "apt-cache": apt()},
            "Old Linux 7 offers none (unless its lists are old: sudo apt-get update).",
        ),
        ({"dnf": '[ "$3" = python3.12 ]'}, "Install it: sudo dnf install python3.12\n"),
        ({"dnf": "exit 1"}, "Old Linux 7 offers none.\n"),
        ({"brew": ""}, "Install it: brew install python@3.11\n"),
        ({}, "Old Linux 7 offers none.\n"),
    ],
)
def test_no_python_at_all(program, run: Run, programs: dict[str, str], words: str) -> None:
    for name, text in programs.items():
        program(name, text)
    program("python3", python("3.8"))
    result = run()
    assert (result.returncode, result.stdout) == (2, "")
    assert "Expected Python 3.10 to 3.14, found none (python3 is 3.8)." in result.stderr
    assert words in result.stderr and "make PYTHON=/path/to/python3" in result.stderr
