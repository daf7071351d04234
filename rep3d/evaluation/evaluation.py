"""An evaluation: what was measured of many cases, and what it comes to.

It is written as one JSON file, from which `rep3d compare` reads it again, as one row of CSV per case and label, and as
a page (`rep3d.evaluation.page`).
"""

from __future__ import annotations

import csv
import io
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from rep3d.data.cases import LeftOut
from rep3d.errors import Rep3DError
from rep3d.evaluation.scoring import LabelScore
from rep3d.files import utc_now, write_text
from rep3d.json_file import JsonFile, json_object
from rep3d.json_text import parse_json

__all__ = [
    "EVALUATION",
    "METRICS",
    "TABLE",
    "CaseScores",
    "Evaluation",
    "Mean",
    "Metric",
    "case_values",
    "mean_with_interval",
    "read_evaluation",
]

EVALUATION, TABLE = "evaluation.json", "scores.csv"
_FORMAT = "rep3d-evaluation"
_RESAMPLES = 5000
_MOST_NAMED = 20  # cases, in a sentence
_CHUNK = 1 << 22  # numbers drawn at a time


@dataclass(frozen=True)
class Metric:
    """What is measured.

    Attributes:
        key: its name in files and options.
        title: for people, with its unit.
        value: takes it from a label's scores; NaN where it is not defined.
        better: 1 where more is better, -1 where less is, 0 where neither: an error with a sign.
        digits: behind the point.
    """

    key: str
    title: str
    value: Callable[[LabelScore], float]
    better: int
    digits: int

    def shown(self, value: float | None) -> str:
        """Return a value as people read it; "-" where there is none."""
        return "-" if value is None or math.isnan(value) else f"{value:.{self.digits}f}"


METRICS: dict[str, Metric] = {
    metric.key: metric
    for metric in (
        Metric("dice", "Dice", lambda score: score.dice, 1, 3),
        Metric("hd95", "HD95, mm", lambda score: score.hd95_mm, -1, 2),
        Metric("nsd", "Surface Dice", lambda score: score.nsd, 1, 3),
        Metric("volume-ml", "Volume error, ml", lambda score: score.volume_error_ml, 0, 2),
        Metric("volume-percent", "Volume error, %", lambda score: score.volume_error_percent, 0, 1),
        Metric("volume-off", "Volume off by, %", lambda score: abs(score.volume_error_percent), -1, 1),
    )
}
"""What is measured of each label, by name."""


@dataclass(frozen=True)
class Mean:
    """A mean over cases.

    Attributes:
        mean: NaN where no case has a value.
        low: lower end of the 95 % interval; None for fewer than two cases.
        high: its upper end.
        count: the cases that it is over.
        undefined: further cases in which the label is in one map only, so that the number is not defined.
    """

    mean: float
    low: float | None
    high: float | None
    count: int
    undefined: int = 0

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {**vars(self), "mean": None if math.isnan(self.mean) else self.mean}


@dataclass(frozen=True)
class CaseScores:
    """What was measured of a case.

    Attributes:
        id: of the case.
        label_hash: SHA-256 of the file of the truth.
        trained_on: whether the model learned from it: its scores then say nothing about new images.
        scores: label name to its scores; a label that was not scored in this case has no entry.
    """

    id: str
    label_hash: str
    trained_on: bool
    scores: Mapping[str, LabelScore]

    def dice(self) -> dict[str, float]:
        """Dice of each label; NaN where neither map has it."""
        return {name: score.dice for name, score in self.scores.items()}


@dataclass(frozen=True)
class Evaluation:
    """All that was measured.

    Attributes:
        name: of the model, or of the folder of predictions.
        source: where it comes from, fact to value: file, version, checksum.
        data: the data set's folder.
        labels: label name to voxel value.
        tolerance_mm: of the surface Dice.
        cases: what was measured, by id.
        failed: the cases that could not be measured.
        created: when, UTC, ISO 8601.
        trained_on_known: whether it is known which cases the model was trained on.
        notes: what else to know, in sentences.
    """

    name: str
    source: Mapping[str, str]
    data: str
    labels: Mapping[str, int]
    tolerance_mm: float
    cases: tuple[CaseScores, ...]
    failed: tuple[LeftOut, ...] = ()
    created: str = ""
    trained_on_known: bool = True
    notes: tuple[str, ...] = ()

    @property
    def fresh(self) -> tuple[CaseScores, ...]:
        """The cases that the model was not trained on, as far as is known."""
        return tuple(case for case in self.cases if not case.trained_on)

    @property
    def counted(self) -> tuple[CaseScores, ...]:
        """The cases that means are over: those not trained on; where there is no other, those trained on."""
        return self.fresh or self.cases

    @property
    def empty(self) -> tuple[CaseScores, ...]:
        """The cases whose true label map has none of the labels that are measured there."""
        return tuple(
            case
            for case in self.cases
            if case.scores and not any(score.volume_true_ml for score in case.scores.values())
        )

    @property
    def remarks(self) -> tuple[str, ...]:
        """What to know about the means, in sentences."""
        unknown = "It is not known which cases the model was trained on: if these are some, the numbers are too good."
        remarks = self.notes if self.trained_on_known else (*self.notes, unknown)
        if not self.empty:
            return remarks
        ids = [case.id for case in self.empty]
        more = f" and {len(ids) - _MOST_NAMED} more" if len(ids) > _MOST_NAMED else ""
        return (
            *remarks,
            f"There is no label in the truth of {', '.join(ids[:_MOST_NAMED])}{more}. What is predicted there all the "
            f"same counts as Dice 0. Was it forgotten to annotate?",
        )

    def mean(self, metric: Metric, label: str | None = None) -> Mean:
        """Return the mean over :attr:`counted` of a label, or of each case's mean over its labels for None."""
        if label is None:
            return mean_with_interval([case_values(case.scores, metric) for case in self.counted])
        found = [case.scores[label] for case in self.counted if label in case.scores]
        return mean_with_interval([metric.value(score) for score in found if score.scored])

    def worst(self, count: int) -> list[CaseScores]:
        """Return the cases of the lowest mean Dice, the worst first."""
        by_dice = {case.id: case_values(case.scores, METRICS["dice"]) for case in self.counted}
        found = [case for case in self.counted if not math.isnan(by_dice[case.id])]
        return sorted(found, key=lambda case: by_dice[case.id])[:count]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "format": _FORMAT,
            "format_version": 1,
            "name": self.name,
            "source": dict(self.source),
            "data": self.data,
            "created": self.created or utc_now(),
            "labels": dict(self.labels),
            "tolerance_mm": self.tolerance_mm,
            "interval": f"95 %, percentiles of {_RESAMPLES} bootstrap samples of the cases, seed 0",
            "trained_on_known": self.trained_on_known,
            "means_over_cases_trained_on": bool(self.cases) and not self.fresh,
            "empty_truth": [case.id for case in self.empty],
            "notes": list(self.notes),
            "remarks": list(self.remarks),
            "means": {
                key: {
                    "all labels": self.mean(metric).to_dict(),
                    "labels": {name: self.mean(metric, name).to_dict() for name in self.labels},
                }
                for key, metric in METRICS.items()
            },
            "cases": {
                case.id: {
                    "label_sha256": case.label_hash,
                    "trained_on": case.trained_on,
                    "scores": {name: score.to_dict() for name, score in case.scores.items()},
                }
                for case in self.cases
            },
            "failed": [entry.to_dict() for entry in self.failed],
        }

    def to_csv(self) -> str:
        """Return a row for each case and label; what is not defined is empty."""
        out = io.StringIO()
        writer = csv.writer(out, lineterminator="\n")
        volumes = ["volume_true_ml", "volume_predicted_ml"]
        writer.writerow(["case", "label", "trained_on", "present_in", *METRICS, *volumes])
        for case in self.cases:
            for name, score in case.scores.items():
                numbers = [metric.value(score) for metric in METRICS.values()]
                numbers += [score.volume_true_ml, score.volume_predicted_ml]
                shown = ["" if math.isnan(number) else f"{number:.6g}" for number in numbers]
                writer.writerow([case.id, name, int(case.trained_on), score.presence, *shown])
        return out.getvalue()

    def write(self, folder: Path) -> None:
        """Write the JSON file and the table into a folder."""
        file: JsonFile[Any] = JsonFile(folder / EVALUATION, json_object, "an evaluation", dict, begins_anew=False)
        file.write(self.to_dict(), allow_nan=False)
        write_text(folder / TABLE, self.to_csv())


def case_values(scores: Mapping[str, LabelScore], metric: Metric) -> float:
    """Return a case's mean over the labels for which a number is defined; NaN where there is none."""
    found = [value for score in scores.values() if not math.isnan(value := metric.value(score))]
    return sum(found) / len(found) if found else math.nan


def mean_with_interval(values: Sequence[float], seed: int = 0) -> Mean:
    """Return the mean of values with its 95 % interval by the bootstrap: cases are drawn again, with replacement.

    Args:
        values: one per case; NaN is counted as undefined.
        seed: of the draws; the same values give the same interval.
    """
    array = np.asarray(values, float)
    found = array[~np.isnan(array)]
    undefined = len(array) - len(found)
    if len(found) < 2:
        return Mean(float(found[0]) if len(found) else math.nan, None, None, len(found), undefined)
    random = np.random.default_rng(seed)
    rows = max(1, _CHUNK // len(found))
    means = [
        found[random.integers(0, len(found), (min(rows, _RESAMPLES - done), len(found)))].mean(axis=1)
        for done in range(0, _RESAMPLES, rows)
    ]
    low, high = np.percentile(np.concatenate(means), (2.5, 97.5))
    return Mean(float(found.mean()), float(low), float(high), len(found), undefined)


def read_evaluation(place: Path) -> Evaluation:
    """Return an evaluation from its folder or its JSON file.

    Raises:
        Rep3DError: if there is none, or it is damaged.
    """
    file = place / EVALUATION if place.is_dir() else place
    try:
        content = json_object(parse_json(file.read_bytes()), labels=dict, cases=dict)
        if content.get("format") != _FORMAT or content.get("format_version") != 1:
            raise ValueError("it is another kind of file, or of a later version")
        cases = tuple(
            CaseScores(
                id_,
                str(case["label_sha256"]),
                bool(case["trained_on"]),
                {name: LabelScore.from_dict(score) for name, score in case["scores"].items()},
            )
            for id_, case in content["cases"].items()
        )
        failed = tuple(LeftOut(**entry) for entry in content["failed"])
        return Evaluation(
            content["name"],
            content["source"],
            content["data"],
            content["labels"],
            float(content["tolerance_mm"]),
            cases,
            failed,
            content["created"],
            bool(content.get("trained_on_known", "Model file" in content["source"])),
            tuple(content.get("notes", ())),
        )
    except OSError as error:
        raise Rep3DError(
            f"{place} holds no evaluation ({file.name}: {error.strerror}). Give the folder that rep3d evaluate wrote."
        ) from error
    except (AttributeError, KeyError, TypeError, ValueError) as error:
        raise Rep3DError(
            f"{file} cannot be read as an evaluation ({error}). Measure again with rep3d evaluate."
        ) from error
