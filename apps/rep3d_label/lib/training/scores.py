"""Dice of a version on the held-out cases, measured as a user would: files in, files out.

What was measured is kept, so that the published version is not measured anew with each training: only on cases that
are new, or whose label was corrected.
"""

from __future__ import annotations

import math
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.predictor import Predictor
from rep3d.inference.tuned import PLAIN
from rep3d.json_file import JsonFile, json_object
from rep3d.training.preparing import left_out_for
from rep3d.training.validation import shuffled
from rep3d.versions.record import VersionRecord

__all__ = ["VersionScores", "identity_of", "scores_of_versions"]

_KEPT = 20  # versions; older ones are measured anew if they are published again


class VersionScores:
    """Scores of a model's versions.

    Args:
        path: the JSON file that keeps them; it may be removed at any time.
        labels: label name to voxel value in the label files.
        device: where to compute.

    Attributes:
        left_out: ids of cases that could not be measured, with the reason.
        case_seconds: what measuring a case takes, loading the model included; None where nothing told yet.
        seconds: spent on measuring so far.
        out_of_time: ids of cases for which there was no time.
    """

    def __init__(self, path: Path, labels: Mapping[str, int], device: str | None) -> None:
        self._file = scores_of_versions(path)
        self._labels = dict(labels)
        self._device = device
        self.left_out: dict[str, str] = {}
        self.case_seconds: float | None = None
        self.seconds = 0.0
        self.out_of_time: set[str] = set()

    def missing(self, identity: str, cases: Sequence[Case], hashes: Mapping[str, str | None]) -> list[Case]:
        """Return the cases on which a version is not measured yet, as :meth:`measure` would."""
        known = self._read().get(identity, {})
        return [case for case in cases if case.id not in known or known[case.id]["label"] != hashes.get(case.id)]

    def know(
        self,
        identity: str,
        scores: Mapping[str, Mapping[str, float]],
        hashes: Mapping[str, str | None],
        now: Mapping[str, str],
    ) -> None:
        """Take over what a training measured itself, on labels that are still the same.

        Args:
            identity: what tells the version from all others.
            scores: case id to label name to Dice, as :meth:`measure` gives them.
            hashes: case id to SHA-256 of the label file as it was then.
            now: and as it is.
        """
        same = {id_: dict(dice) for id_, dice in scores.items() if id_ in now and hashes.get(id_) == now[id_]}
        if same:
            self._keep(identity, {id_: {"label": now[id_], "dice": dice} for id_, dice in same.items()})

    def measure(
        self,
        checkpoint: Callable[[], Checkpoint],
        identity: str,
        cases: Sequence[Case],
        hashes: Mapping[str, str],
        on_case: Callable[[int, int], None],
        until: float = math.inf,
    ) -> dict[str, dict[str, float]]:
        """Dice of a version on cases.

        Args:
            checkpoint: loads it; called only if something is to be measured.
            identity: what tells it from all other versions.
            cases: what to measure on.
            hashes: case id to SHA-256 of its label file.
            on_case: called with the numbers of cases done and to do.
            until: no case is begun that would end later, in ``time.monotonic()``'s seconds.

        Returns:
            Case id to label name to Dice. A label that is neither in the case nor drawn has no entry; one that the
            version does not know counts as not drawn. A case that cannot be measured is left out.
        """
        known, todo = self._read().get(identity, {}), self.missing(identity, cases, hashes)
        scores = {case.id: known[case.id]["dice"] for case in cases if case not in todo}
        on_case(len(scores), len(cases))
        if todo:
            begun = time.monotonic()
            predictor: Predictor | None = None
            with tempfile.TemporaryDirectory(prefix="rep3d-scores-") as folder:
                for number, case in enumerate(shuffled(todo)):  # if not all, then each time the same ones
                    if time.monotonic() + (self.case_seconds or 0.0) > until:
                        self.out_of_time.add(case.id)
                        continue
                    # Plainly, as a new version is: what was tuned for the published one must not count.
                    predictor = predictor or Predictor(checkpoint(), self._device, values=self._labels, way=PLAIN)
                    file = Path(folder) / "found.nii.gz"
                    try:
                        predictor.segment(case.channels, file)
                        dice = dice_of_files(file, case.label, self._labels)
                    except Exception as error:  # whatever it is, it costs this case only
                        self.left_out[case.id] = left_out_for(case, error).reason
                        continue
                    scores[case.id] = {name: value for name, value in dice.items() if not math.isnan(value)}
                    self.case_seconds = (time.monotonic() - begun) / (number + 1)
                    on_case(len(scores), len(cases))
            self.seconds += time.monotonic() - begun
            self._keep(identity, {id_: {"label": hashes[id_], "dice": dice} for id_, dice in scores.items()})
        return {case.id: scores[case.id] for case in cases if case.id in scores}

    def compare(
        self,
        new: tuple[str, Callable[[], Checkpoint]],
        published: tuple[str, Callable[[], Checkpoint]] | None,
        cases: Sequence[Case],
        hashes: Mapping[str, str],
        on_case: Callable[[bool, int, int], None],
        until: float,
    ) -> tuple[dict[str, dict[str, float]], dict[str, dict[str, float]]]:
        """Dice of a new version and of the published one on the same cases, within the same time.

        Args:
            new: what tells the new version from all others, and what loads it.
            published: likewise; None where none is published.
            cases: what to measure on.
            hashes: case id to SHA-256 of its label file.
            on_case: called with whether it is the new version, and the numbers of cases done and to do.
            until: as for :meth:`measure`.

        Returns:
            As :meth:`measure`, of both.
        """
        now, rest = time.monotonic(), 0.0
        if published is not None:
            rest = len(self.missing(published[0], cases, hashes)) / max(1, len(cases))
        first = now + (until - now) / (1.0 + rest)  # the published one needs its share
        scores = self.measure(new[1], new[0], cases, hashes, lambda *counts: on_case(True, *counts), first)
        if published is None or not scores:
            return scores, {}
        both = [case for case in cases if case.id in scores]
        identity, load = published
        return scores, self.measure(load, identity, both, hashes, lambda *counts: on_case(False, *counts), until)

    def _read(self) -> dict[str, dict[str, Any]]:
        content = self._file.read()
        return dict(content["versions"]) if content.get("labels") == self._labels else {}

    def _keep(self, identity: str, cases: Mapping[str, Any]) -> None:
        versions = self._read()
        versions[identity] = {**versions.pop(identity, {}), **cases}  # the last one is the youngest
        recent = dict(list(versions.items())[-_KEPT:])
        self._file.write({"labels": self._labels, "versions": recent}, allow_nan=False)


def identity_of(record: VersionRecord) -> str:
    """Return what tells a version's scores from those of all others."""
    return record.run or f"{record.version} {record.created}"


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
