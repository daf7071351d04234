"""Whether models differ, told from their evaluations on the same cases, pair by pair.

What makes a case hard counts for both alike, so only the differences within cases are looked at: their mean with an
interval, Wilcoxon's signed-rank test, which asks nothing of their distribution, and how many of the ranks speak for one
side. Many labels are many chances to be wrong, so their p values are corrected (Holm). Where there are too few cases
for the test to say anything, that is said.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Any

import numpy as np
from scipy.stats import rankdata, wilcoxon

from rep3d.errors import Rep3DError
from rep3d.evaluation.evaluation import METRICS, CaseScores, Evaluation, Mean, Metric, mean_with_interval
from rep3d.evaluation.gate import paired
from rep3d.files import utc_now

__all__ = ["LEAST_PAIRS", "Comparison", "Difference", "compare", "holm"]

SIGNIFICANT = 0.05
LEAST_PAIRS = 6
"""With fewer pairs a two-sided Wilcoxon test cannot reach 0.05: 2 / 2^5 is 0.0625."""
COMPARED = ("dice", "nsd", "hd95", "volume-off")
"""The metrics of which more or less is better."""
_DIGITS = 12  # behind which a difference is rounding


@dataclass(frozen=True)
class Difference:
    """How two models differ in one number.

    Attributes:
        metric: what is compared.
        first: the name of one model.
        second: that of the other one.
        label: the label; None for the mean over a case's labels.
        differences: case id to second minus first.
        first_mean: mean of the first over these cases.
        second_mean: and of the second.
        mean: mean difference with its interval.
        effect: matched-pairs rank-biserial correlation, from -1 (the first is higher in all cases) to 1; None where no
            case differs.
        p: of Wilcoxon's test; None where too few cases differ to test.
        corrected: the same after Holm's correction: over all labels and pairs of models; that of the mean over labels,
            over the pairs of models.
        tests: how many it was corrected for.
    """

    metric: Metric
    first: str
    second: str
    label: str | None
    differences: Mapping[str, float]
    first_mean: float
    second_mean: float
    mean: Mean
    effect: float | None
    p: float | None
    corrected: float | None = None
    tests: int = 1

    @property
    def title(self) -> str:
        """The label's name, or what stands for all of them."""
        return "Mean over labels" if self.label is None else self.label

    @property
    def differing(self) -> int:
        """In how many cases the two differ."""
        return sum(value != 0 for value in self.differences.values())

    def shown(self, value: float) -> str:
        """Return a difference with its sign."""
        return "-" if math.isnan(value) else f"{value:+.{self.metric.digits}f}"

    @property
    def better(self) -> str | None:
        """The model that the test says is better; None where it does not tell."""
        if self.corrected is None or self.corrected >= SIGNIFICANT or not self.effect:
            return None
        return self.second if (self.effect > 0) == (self.metric.better > 0) else self.first

    @property
    def verdict(self) -> str:
        """What can be said, in words."""
        shown = self.metric.shown
        count = len(self.differences)
        if not count:
            return "no case has a number from both"
        if count < LEAST_PAIRS:
            return f"too few cases to tell: {count}, and with fewer than {LEAST_PAIRS} no difference can reach p = 0.05"
        if not self.differing:
            return f"the same in all {count} cases"
        if self.p is None:
            return f"too few cases to tell: only {self.differing} of {count} differ, and {LEAST_PAIRS} are needed"
        if self.better is not None:
            against = self.effect is not None and (self.effect > 0) != (self.mean.mean > 0)
            if against:
                return f"{self.better} is better in most cases, though not in the mean"
            ends = self.mean.low or 0.0, self.mean.high or 0.0
            low, high = sorted(math.copysign(1, self.mean.mean) * end for end in ends)
            return f"{self.better} is better by {shown(abs(self.mean.mean))} ({shown(low)} to {shown(high)})"
        if self.tests * 2.0 ** (1 - self.differing) >= SIGNIFICANT:
            needed = next(n for n in range(1, 99) if self.tests * 2.0 ** (1 - n) < SIGNIFICANT)
            return (
                f"too few cases to tell one of {self.tests} tests apart: {self.differing} differ, {needed} are needed"
            )
        return f"no difference can be told from {count} cases"

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        numbers = {"first_mean": self.first_mean, "second_mean": self.second_mean}
        return {
            "metric": self.metric.key,
            "first": self.first,
            "second": self.second,
            "label": self.label,
            "cases": len(self.differences),
            "differing": self.differing,
            **{name: None if math.isnan(value) else value for name, value in numbers.items()},
            "difference": self.mean.to_dict(),
            "rank_biserial": self.effect,
            "p": self.p,
            "p_holm": self.corrected,
            "tests": self.tests,
            "better": self.better,
            "verdict": self.verdict,
            "differences": dict(self.differences),
        }


@dataclass(frozen=True)
class Comparison:
    """All differences between some models.

    Attributes:
        names: the models.
        cases: ids of the cases that they are compared on.
        labels: the labels, likewise.
        differences: for each metric and pair of models first the mean over labels, then each label.
        notes: what is not compared, and why, in words.
    """

    names: tuple[str, ...]
    cases: tuple[str, ...]
    labels: tuple[str, ...]
    differences: tuple[Difference, ...]
    notes: tuple[str, ...]

    @property
    def metrics(self) -> list[Metric]:
        """What is compared."""
        return list(dict.fromkeys(row.metric for row in self.differences))

    @property
    def pairs(self) -> list[tuple[str, str]]:
        """The pairs of models."""
        return list(combinations(self.names, 2))

    def of(self, metric: Metric, pair: tuple[str, str]) -> list[Difference]:
        """Return the rows of a metric and a pair of models."""
        return [row for row in self.differences if row.metric == metric and (row.first, row.second) == pair]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return {
            "format": "rep3d-comparison",
            "format_version": 1,
            "created": utc_now(),
            "models": list(self.names),
            "cases": list(self.cases),
            "labels": list(self.labels),
            "notes": list(self.notes),
            "differences": [row.to_dict() for row in self.differences],
        }


def compare(evaluations: Mapping[str, Evaluation]) -> Comparison:
    """Compare evaluations on the cases that all of them have and that none of their models was trained on.

    Args:
        evaluations: name to evaluation, two or more.

    Raises:
        Rep3DError: if there are fewer; if they have no case or no label in common; if a case's truth, or a label's
            value, is not the same in all.
    """
    if len(evaluations) < 2:
        raise Rep3DError(f"A comparison needs two evaluations or more, got {len(evaluations)}.")
    _require_same_truth(evaluations)
    notes: list[str] = []
    cases = _common({name: [case.id for case in one.cases] for name, one in evaluations.items()}, "case", notes)
    labels = _common({name: list(one.labels) for name, one in evaluations.items()}, "label", notes)
    trained = sorted({case.id for one in evaluations.values() for case in one.cases if case.trained_on} & set(cases))
    if trained:
        notes.append(f"A model was trained on these cases, which are left out: {', '.join(trained)}.")
        cases = [case for case in cases if case not in trained]
    if not cases or not labels:
        what = "label" if cases else "case that none of the models was trained on" if trained else "case"
        raise Rep3DError(f"These evaluations cannot be compared: they have no {what} in common.")
    compared = list(COMPARED)
    tolerances = {name: one.tolerance_mm for name, one in evaluations.items()}
    if len(set(tolerances.values())) > 1:
        compared.remove("nsd")
        told = ", ".join(f"{name} {value:g} mm" for name, value in tolerances.items())
        notes.append(f"Surface Dice is not compared: the tolerances differ ({told}).")
    found = {name: {case.id: case for case in one.cases} for name, one in evaluations.items()}
    rows: list[Difference] = []
    for key in compared:
        pairs = [
            (first, second, _pairs(found[first], found[second], cases, labels, METRICS[key]))
            for first, second in combinations(evaluations, 2)
        ]
        # The mean over labels is one question, the labels are another one; each is corrected for its own tests.
        means = _corrected([_difference(METRICS[key], *pair, None) for pair in pairs])
        each = _corrected([_difference(METRICS[key], *pair, label) for pair in pairs for label in labels])
        for index, mean in enumerate(means):
            rows += [mean, *each[index * len(labels) : (index + 1) * len(labels)]]
    return Comparison(tuple(evaluations), tuple(cases), tuple(labels), tuple(rows), tuple(notes))


_Pairs = Mapping[str, Mapping[str, tuple[float, float]]]  # case id to label to both values


def _pairs(
    first: Mapping[str, CaseScores],
    second: Mapping[str, CaseScores],
    cases: Sequence[str],
    labels: Sequence[str],
    metric: Metric,
) -> _Pairs:
    """Return both numbers wherever both are defined.

    Of Dice and surface Dice that is also where only one model drew what is not there, as the gate counts it: to leave
    it out was right, which is 1.
    """
    found: dict[str, Mapping[str, tuple[float, float]]] = {}
    for case in cases:
        one, other = (_defined(scores[case], labels, metric) for scores in (first, second))
        if metric.key in ("dice", "nsd"):
            found[case] = paired(one, other)
        else:
            found[case] = {name: (one[name], other[name]) for name in one if name in other}
    return found


def _defined(case: CaseScores, labels: Sequence[str], metric: Metric) -> dict[str, float]:
    values = {name: metric.value(case.scores[name]) for name in labels if name in case.scores}
    return {name: value for name, value in values.items() if not math.isnan(value)}


def _difference(metric: Metric, first: str, second: str, pairs: _Pairs, label: str | None) -> Difference:
    """Return the difference of a label, or of the cases' means over their labels, not corrected yet."""
    values: dict[str, tuple[float, float]] = {}
    for case, both in pairs.items():
        chosen = list(both.values()) if label is None else [both[label]] if label in both else []
        if chosen:
            one, other = np.mean(chosen, axis=0)
            values[case] = float(one), float(other)
    differences = {case: round(other - one, _DIGITS) for case, (one, other) in values.items()}
    means = np.mean(list(values.values()), axis=0) if values else (math.nan, math.nan)
    effect, p = _signed_ranks(list(differences.values()))
    mean = mean_with_interval(list(differences.values()))
    return Difference(metric, first, second, label, differences, float(means[0]), float(means[1]), mean, effect, p)


def _signed_ranks(differences: Sequence[float]) -> tuple[float | None, float | None]:
    """Return the rank-biserial correlation and the p value; cases that do not differ say nothing to either."""
    array = np.array([value for value in differences if value != 0])
    if not len(array):
        return None, None
    ranks = rankdata(np.abs(array))
    effect = float((ranks * np.sign(array)).sum() / ranks.sum())
    return effect, float(wilcoxon(array).pvalue) if len(array) >= LEAST_PAIRS else None


def _corrected(rows: Sequence[Difference]) -> list[Difference]:
    tested = [row.p for row in rows if row.p is not None]
    corrected = iter(holm(tested))
    return [
        replace(row, corrected=None if row.p is None else next(corrected), tests=max(1, len(tested))) for row in rows
    ]


def holm(p: Sequence[float]) -> list[float]:
    """Return p values corrected for their number by Holm's step-down method, in the same order."""
    corrected, largest = [0.0] * len(p), 0.0
    for rank, index in enumerate(np.argsort(p)):
        largest = max(largest, min(1.0, (len(p) - rank) * p[index]))
        corrected[index] = largest
    return corrected


def _common(found: Mapping[str, Sequence[str]], what: str, notes: list[str]) -> list[str]:
    """Return what all have, in the order of the first; what only some have is noted."""
    shared = set.intersection(*map(set, found.values()))
    for name, ids in found.items():
        if more := [id_ for id_ in ids if id_ not in shared]:
            notes.append(f"Not in all evaluations, but in {name}: {what}{'s' * (len(more) > 1)} {', '.join(more)}.")
    return [id_ for id_ in next(iter(found.values())) if id_ in shared]


def _require_same_truth(evaluations: Mapping[str, Evaluation]) -> None:
    known: dict[tuple[str, str], tuple[str, object]] = {}
    for name, one in evaluations.items():
        facts: dict[tuple[str, str], object] = {("case", case.id): case.label_hash for case in one.cases}
        facts |= {("label", label): value for label, value in one.labels.items()}
        for what, fact in facts.items():
            other, before = known.setdefault(what, (name, fact))
            if fact != before:
                kind = "true label map" if what[0] == "case" else "voxel value"
                raise Rep3DError(
                    f"{other} and {name} cannot be compared: the {kind} of {what[0]} {what[1]} is not the same in "
                    f"both. Measure both again on the same labels, with rep3d evaluate."
                )
