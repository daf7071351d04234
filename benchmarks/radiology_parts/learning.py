"""The learning part of ``radiology.py``: apps in turn through the same submissions; can be interrupted and resumed."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
from measuring import write_result
from rich.console import Console

from radiology_parts.systems import System
from rep3d.data.cohort import Cohort
from rep3d.evaluation.metrics import dice_of_files, mean_dice

__all__ = ["Learning", "beside"]

# What is kept of the apps' own account of a training.
_STATS = ("version", "iteration", "iterations", "epoch", "best_metric", "loss", "cases", "stopped", "skipped", "phase")


def beside(ours: Mapping[str, float], theirs: Mapping[str, float]) -> dict[str, Any]:
    """Return two apps on the same held-out cases.

    Args:
        ours: case id to Dice, mean over labels.
        theirs: the same of the other app.

    Returns:
        ``difference`` of the means (ours - theirs) with its 95 % interval from 10,000 paired bootstrap samples,
        ``ratio`` of the means (None if theirs is 0), and in how many cases ours is better.
    """
    pairs = np.array([[ours[case], theirs[case]] for case in ours])
    differences = pairs[:, 0] - pairs[:, 1]
    drawn = np.random.default_rng(0).integers(0, len(differences), (10_000, len(differences)))
    low, high = np.percentile(differences[drawn].mean(1), [2.5, 97.5])
    mean_ours, mean_theirs = pairs.mean(0)
    return {
        "difference": round(float(differences.mean()), 4),
        "interval_95": [round(float(low), 4), round(float(high), 4)],
        "ratio": round(float(mean_ours / mean_theirs), 3) if mean_theirs > 0 else None,
        "ours_better_in": f"{int((differences > 0).sum())} of {len(differences)}",
    }


class Learning:
    """Submits, trains and measures, app by app.

    Args:
        cohort: the cases to submit, in their order, and those held out.
        systems: the apps, in the order of their turns.
        cases: numbers of submitted cases at which to train.
        settings: ``minutes`` and ``seed`` of the trainings, and all else on which the figures depend.
        record: file with the steps done so far; a run with other settings is refused.
        reference: name of the app to which the others are compared, and whose time they get at least.
        console: for progress.
    """

    def __init__(
        self,
        cohort: Cohort,
        systems: Sequence[System],
        cases: Sequence[int],
        settings: Mapping[str, Any],
        record: Path,
        reference: str,
        console: Console,
    ) -> None:
        self._cohort, self._systems, self._cases = cohort, systems, sorted(cases)
        self._settings, self._record = dict(settings), record
        self._reference, self._console = reference, console
        self._steps: list[dict[str, Any]] = []
        if record.exists():
            found = json.loads(record.read_text(encoding="utf-8"))
            if found["settings"] != self._settings:
                raise SystemExit(
                    f"{record}: expected a run with {self._settings}, got {found['settings']}. Move it away."
                )
            self._steps = found["steps"]

    def run(self) -> dict[str, Any]:
        """Do all steps that are not done.

        Returns:
            ``steps``, one for each app and number of cases, and ``beside``: number of cases -> other app -> comparison.
        """
        for number, cases in enumerate(self._cases):
            before = self._cases[number - 1] if number else 0
            for system in self._systems:
                if self._find(system.name, cases) is None:
                    self._steps.append(self._step(system, before, cases))
                    write_result(self._record, {"settings": self._settings, "steps": self._steps})
        return {
            "settings": self._settings,
            "submitted": [case.id for case in self._cohort.pool],
            "held_out": [case.id for case in self._cohort.held_out],
            "steps": self._steps,
            "beside": {
                str(cases): {
                    system.name: beside(ours["dice_per_case"], theirs["dice_per_case"])
                    for system in self._systems
                    if (ours := self._find(self._reference, cases))
                    and system.name != self._reference
                    and (theirs := self._find(system.name, cases))
                }
                for cases in self._cases
            },
        }

    def _find(self, system: str, cases: int) -> dict[str, Any] | None:
        return next((step for step in self._steps if step["system"] == system and step["cases"] == cases), None)

    def _step(self, system: System, before: int, cases: int) -> dict[str, Any]:
        self._console.print(f"{system.name}: {cases} cases")
        self._restore(system, before)
        label_info = [{"name": name, "idx": value} for name, value in self._cohort.labels.items()]
        reference = self._find(self._reference, cases)
        seconds = float(reference["training_seconds"]) if reference else None
        with system.served() as server:
            for case in self._cohort.pool[before:cases]:
                server.submit(case, label_info)
            trained = system.train(server, self._settings["minutes"], seconds, self._settings["seed"])
            scores = {}
            folder = system.folder / f"segmented_{cases}"
            folder.mkdir(exist_ok=True)
            for case in self._cohort.held_out:
                output = folder / f"{case.id}.nii.gz"
                output.write_bytes(server.segment(Path(case.image)).label)
                scores[case.id] = dice_of_files(output, case.label, self._cohort.labels)
        self._keep(system, cases)
        step = {
            "system": system.name,
            "cases": cases,
            "training_seconds": round(trained.seconds, 1),
            "status": trained.status,
            "published": system.has_published,
            "stats": {name: trained.stats[name] for name in _STATS if name in trained.stats},
            "dice": round(mean_dice(scores), 4),
            "dice_per_label": {
                label: round(float(np.nanmean([case[label] for case in scores.values()])), 4)
                for label in self._cohort.labels
            },
            "dice_per_case": {case: round(float(np.nanmean(list(dice.values()))), 4) for case, dice in scores.items()},
        }
        self._console.print(f"  Dice {step['dice']:.3f} after {step['training_seconds']:.0f} s {step['stats']}")
        return step

    def _keep(self, system: System, cases: int) -> None:
        """Keep the app's state after a step, from which the next one begins even if it was interrupted once."""
        for name in ("studies", "app"):
            kept = system.folder / f"after_{cases}" / name
            shutil.rmtree(kept, ignore_errors=True)
            if (system.folder / name).exists():
                shutil.copytree(system.folder / name, kept, symlinks=True)

    def _restore(self, system: System, cases: int) -> None:
        """Bring the app to its state after the step with so many cases; 0 for the very beginning."""
        for name in ("studies", "app"):
            shutil.rmtree(system.folder / name, ignore_errors=True)
            kept = system.folder / f"after_{cases}" / name
            if cases and kept.exists():
                shutil.copytree(kept, system.folder / name, symlinks=True)
        system.folder.mkdir(parents=True, exist_ok=True)
