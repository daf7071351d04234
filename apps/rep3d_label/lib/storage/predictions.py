"""The last prediction for each image, kept so that a submission can be compared with what its author was shown."""

from __future__ import annotations

import math
import os
import threading
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lib.paths import copy_whole, utc_now
from rep3d.errors import LabelError
from rep3d.evaluation.metrics import dice_per_label
from rep3d.files import Stamp, file_stamp
from rep3d.imaging.grid import same_grid
from rep3d.imaging.nifti import read_label
from rep3d.json_file import JsonFile, json_object

__all__ = ["Predictions"]


class Predictions:
    """One prediction per image: its file, and beside it what is known about it, as JSON.

    Args:
        folder: where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._guard = threading.RLock()
        self._read: dict[str, tuple[Stamp, dict[str, Any]]] = {}

    def file(self, image_id: str) -> Path:
        """Return the file of the prediction; it may not exist."""
        return self._folder / f"{image_id}.nii.gz"

    def images(self) -> set[str]:
        """Return the ids of the images that have a prediction."""
        try:
            return {name.removesuffix(".json") for name in os.listdir(self._folder)}
        except FileNotFoundError:
            return set()

    def _facts_file(self, image_id: str) -> JsonFile[dict[str, Any]]:
        lost = f"which version made the last prediction for image {image_id}: its label is compared with none"
        return JsonFile(self._folder / f"{image_id}.json", json_object, lost, dict, begins_anew=True)

    def facts(self, image_id: str) -> dict[str, Any] | None:
        """Return what is known about the prediction (``model``, ``version``, ``time``, ...), or None where there is
        none."""
        file = self._facts_file(image_id)
        try:
            stamp = file_stamp(file.path)
        except FileNotFoundError:
            return None
        with self._guard:
            known = self._read.get(image_id)
            if known is None or known[0] != stamp:
                known = self._read[image_id] = stamp, file.read()
        return known[1] or None

    def check(self) -> None:
        """Read all facts, so that damaged ones are told."""
        for file in sorted(self._folder.glob("*.json")):
            self.facts(file.stem)

    def keep(self, image_id: str, file: Path, facts: Mapping[str, Any]) -> None:
        """Keep a prediction instead of the one before.

        Args:
            image_id: the image.
            file: the label map, ``.nii.gz``, with the server's voxel values; it is copied.
            facts: ``model``, ``version`` and more.
        """
        self._folder.mkdir(parents=True, exist_ok=True)
        with self._guard:
            # Without facts there is no prediction: a crash in between never pairs a file with another one's facts.
            known = self._facts_file(image_id)
            known.path.unlink(missing_ok=True)
            copy_whole(file, self.file(image_id))
            known.write({"time": utc_now(), **facts})

    def remove(self, image_id: str) -> None:
        """Forget the prediction of an image."""
        with self._guard:
            self._facts_file(image_id).path.unlink(missing_ok=True)
            self.file(image_id).unlink(missing_ok=True)

    def compare(self, image_id: str, label: Path, labels: Mapping[str, int]) -> dict[str, Any] | None:
        """Return how far a label agrees with the prediction of its image.

        Args:
            image_id: the image.
            label: the label's file.
            labels: label name to voxel value.

        Returns:
            ``model``, ``version`` and ``time`` of the prediction, and ``dice``: label name to Dice, None for a label
            that neither has. None where there is no prediction on this grid.
        """
        with self._guard:
            facts = self.facts(image_id)
            if facts is None:
                return None
            try:
                predicted, grid = read_label(self.file(image_id))
            except LabelError:
                return None
        drawn, drawn_grid = read_label(label)
        if not same_grid(grid, drawn_grid):
            return None
        # One label at a time: a large volume with fifteen labels would need gigabytes at once.
        dice = {name: dice_per_label(predicted, drawn, {name: value})[name] for name, value in labels.items()}
        known = {key: facts.get(key) for key in ("model", "version", "time")}
        return {**known, "dice": {name: None if math.isnan(x) else round(x, 4) for name, x in dice.items()}}
