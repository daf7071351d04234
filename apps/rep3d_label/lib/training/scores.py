"""Dice of a version on the held-out cases, measured as a user would: files in, files out.

What was measured is kept, so that the published version is not measured anew with each training: only on cases that
are new, or whose label was corrected.
"""

from __future__ import annotations

import logging
import math
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from lib.errors import in_words
from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.predictor import Predictor
from rep3d.json_file import JsonFile, json_object

__all__ = ["VersionScores", "scores_of_versions"]

logger = logging.getLogger(__name__)

_KEPT = 20  # versions; older ones are measured anew if they are published again


class VersionScores:
    """Scores of a model's versions.

    Args:
        path: the JSON file that keeps them; it may be removed at any time.
        labels: label name to voxel value in the label files.
        device: where to compute.
    """

    def __init__(self, path: Path, labels: Mapping[str, int], device: str | None) -> None:
        self._file = scores_of_versions(path)
        self._labels = dict(labels)
        self._device = device

    def measure(
        self,
        checkpoint: Callable[[], Checkpoint],
        identity: str,
        cases: Sequence[Case],
        hashes: Mapping[str, str],
        on_case: Callable[[int, int], None],
    ) -> dict[str, dict[str, float]]:
        """Dice of a version on cases.

        Args:
            checkpoint: loads it; called only if something is to be measured.
            identity: what tells it from all other versions.
            cases: what to measure on.
            hashes: case id to SHA-256 of its label file.
            on_case: called with the numbers of cases done and to do.

        Returns:
            Case id to label name to Dice. A label that is neither in the case nor drawn has no entry; one that the
            version does not know counts as not drawn. A case whose image cannot be read is left out.
        """
        known = self._read().get(identity, {})
        scores = {
            case.id: known[case.id]["dice"]
            for case in cases
            if case.id in known and known[case.id]["label"] == hashes[case.id]
        }
        todo = [case for case in cases if case.id not in scores]
        on_case(len(scores), len(cases))
        if todo:
            predictor = Predictor(checkpoint(), self._device, values=self._labels)
            with tempfile.TemporaryDirectory(prefix="rep3d-scores-") as folder:
                for case in todo:
                    file = Path(folder) / "found.nii.gz"
                    try:
                        predictor.segment(case.image, file)
                        dice = dice_of_files(file, case.label, self._labels)
                    except Exception as error:  # whatever is wrong with one case, the others are measured
                        logger.warning("validation: case %s left out: %s", case.id, in_words(error))
                        continue
                    scores[case.id] = {name: value for name, value in dice.items() if not math.isnan(value)}
                    on_case(len(scores), len(cases))
            self._keep(identity, {id_: {"label": hashes[id_], "dice": dice} for id_, dice in scores.items()})
        return {case.id: scores[case.id] for case in cases if case.id in scores}

    def _read(self) -> dict[str, dict[str, Any]]:
        content = self._file.read()
        return dict(content["versions"]) if content.get("labels") == self._labels else {}

    def _keep(self, identity: str, cases: Mapping[str, Any]) -> None:
        versions = self._read()
        versions[identity] = {**versions.pop(identity, {}), **cases}  # the last one is the youngest
        recent = dict(list(versions.items())[-_KEPT:])
        self._file.write({"labels": self._labels, "versions": recent}, allow_nan=False)


def scores_of_versions(path: Path) -> JsonFile[dict[str, Any]]:
    """Return the file that keeps them: ``labels``, and ``versions`` with the scores of each case; empty where none
    is."""
    lost = "what versions scored on single cases: measured again when it is needed"
    return JsonFile(path, _parsed, lost, dict, begins_anew=True)


def _parsed(content: Any) -> dict[str, Any]:
    for cases in json_object(content, labels=dict, versions=dict)["versions"].values():
        for case in cases.values():
            json_object(case, label=str, dice=dict)
    return dict(content)
