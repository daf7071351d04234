"""MONAI Label's radiology app, made ready to be compared with: a copy of its own, fitted to the images.

Its ``segmentation`` model has the voxel size (1.5 mm) and the patch (96^3) of abdominal CT written into
``lib/configs/segmentation.py``. As delivered it would pad each hippocampus of about 36x50x35 voxels to 96^3 and spend
most of its minutes on zeros. So the two lines are set to the images, as a careful user does; all else stays its own.
"""

from __future__ import annotations

import filecmp
import json
import re
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path
from typing import Any

__all__ = ["AppChanges", "RadiologyApp", "changed_source", "versions_of"]

_PACKAGES = ("monailabel", "monai", "pytorch-ignite", "torch", "torchvision", "numpy")
_ASK = (
    "import json, sys; from importlib.metadata import version; print(json.dumps({p: version(p) for p in sys.argv[1:]}))"
)
_CONFIG = "lib/configs/segmentation.py"
_TRAINER = "lib/trainers/segmentation.py"


@dataclass(frozen=True)
class AppChanges:
    """What is changed in the app's files; None leaves the app's own value.

    Attributes:
        spacing: voxel size in mm along R, A, S that images are resampled to (its own: 1.5 each).
        roi_size: patch in voxels (its own: 96 each); multiples of 8.
        learning_rate: of AdamW (its own: 1e-4).
    """

    spacing: tuple[float, float, float] | None = None
    roi_size: tuple[int, int, int] | None = None
    learning_rate: float | None = None


def changed_source(text: str, pattern: str, replacement: str) -> str:
    """Replace the one place of a source file that matches.

    Raises:
        ValueError: if there is none, or more than one: the app is another version than this was written for.
    """
    text, count = re.subn(pattern, replacement, text)
    if count != 1:
        raise ValueError(f"radiology app: expected {pattern!r} once, found it {count} times. Use monailabel 0.8.5.")
    return text


class RadiologyApp:
    """A copy of the app, as its models are written into its folder.

    Args:
        python: interpreter of the environment that has it.
        source: the app's folder, or None for the one that was installed with monailabel.
        folder: where the copy goes; kept as it is if it exists already.
        changes: what to change in the copy.
    """

    def __init__(self, python: Path, source: Path | None, folder: Path, changes: AppChanges) -> None:
        self.python = python
        self.folder = folder
        if folder.exists():
            return
        prefix = subprocess.run(
            [python, "-c", "import sys; print(sys.prefix)"], check=True, capture_output=True, text=True
        ).stdout.strip()
        source = source or Path(prefix) / "monailabel" / "sample-apps" / "radiology"
        if not (source / _CONFIG).is_file():
            raise FileNotFoundError(f"expected the radiology app with {_CONFIG} in {source}, found none")
        shutil.copytree(source, folder, ignore=shutil.ignore_patterns("__pycache__", "model", "logs"))
        for file, value, pattern, replacement in (
            (_CONFIG, changes.spacing, r"self\.target_spacing = \(.*?\)", f"self.target_spacing = {changes.spacing}"),
            (_CONFIG, changes.roi_size, r"self\.roi_size = \(.*?\)", f"self.roi_size = {changes.roi_size}"),
            (_TRAINER, changes.learning_rate, r"\blr=1e-4", f"lr={changes.learning_rate}"),
        ):
            if value is not None:
                text = changed_source((folder / file).read_text(), pattern, replacement)
                (folder / file).write_text(text)

    @property
    def published(self) -> Path:
        """The weights that answer requests; absent before the first training."""
        return self.folder / "model" / "segmentation.pt"

    def publish_best(self) -> None:
        """Publish the best weights of the last training, should the stop have come between saving and publishing."""
        best = self.folder / "model" / "segmentation" / "train_01" / "model.pt"
        if best.exists() and not (self.published.exists() and filecmp.cmp(best, self.published, shallow=False)):
            shutil.copy(best, self.published)


def versions_of(python: Path) -> dict[str, Any]:
    """Return versions of what the radiology app runs on, in the environment of this interpreter."""
    found = subprocess.run([python, "-c", _ASK, *_PACKAGES], check=True, capture_output=True, text=True).stdout
    return dict(json.loads(found))
