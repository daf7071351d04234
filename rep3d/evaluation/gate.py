"""Whether a new version of a model may take the place of the published one.

Both are measured on the same cases, which neither was trained on, and compared case by case: what makes a case hard
then counts for both alike. A mean can hide that a small organ is no longer found, so no single label may lose much.

The cases are also those on which a run chooses its best weights, so a new version's scores are slightly optimistic;
the margin is there for that, too.
"""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import Any

from rep3d.evaluation.roles import LEAST_CASES

__all__ = ["LABEL_TOLERANCE", "MARGIN", "Decision", "Scores", "decide", "label_means", "paired", "unmeasured"]

MARGIN = 0.005
"""Mean Dice by which a new version must be better."""
LABEL_TOLERANCE = 0.05
"""Mean Dice that a single label may lose."""

Scores = Mapping[str, Mapping[str, float]]
"""Case id to label name to Dice; a label that is neither in the case nor drawn has no entry."""


@dataclass(frozen=True)
class Decision:
    """What was decided about a version, and why.

    Attributes:
        published: whether it is to be published.
        measured: whether the decision rests on scores.
        reason: in words, with the figures.
        margin: mean Dice by which it had to be better; None where nothing was compared.
        difference: mean Dice by which it is better, mean over cases; None where nothing was compared.
        labels: label name to the same for that label alone.
    """

    published: bool
    measured: bool
    reason: str
    margin: float | None = None
    difference: float | None = None
    labels: Mapping[str, float] | None = None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return asdict(self)


def unmeasured(labelled: int, measured_before: bool, out_of_time: bool = False) -> Decision:
    """Return the decision about a version that was not measured.

    Args:
        labelled: the labelled cases that there were.
        measured_before: whether the published version was measured; an unmeasured one does not replace it.
        out_of_time: whether cases are held out, and there was no time to measure on them.
    """
    if out_of_time:
        why = "not measured: its minutes were used up; allow more"
    elif labelled < LEAST_CASES:
        why = f"not measured: fewer than {LEAST_CASES} annotated cases ({labelled})"
    else:
        why = f"not measured: all {labelled} annotated cases have been trained on; the next one submitted is held out"
    if measured_before:
        return Decision(False, False, f"{why}; kept, as the published version was measured")
    return Decision(True, False, f"{why}; published without a claim of accuracy")


def decide(new: Scores, old: Scores | None, margin: float = MARGIN, tolerance: float = LABEL_TOLERANCE) -> Decision:
    """Compare a new version with the published one.

    Args:
        new: scores of the new version on the held-out cases.
        old: scores of the published one on the same cases; None where none is published. A label that it does not know
            counts as not drawn.
        margin: mean Dice by which the new one must be better, more than.
        tolerance: mean Dice that a single label may lose at most.

    Raises:
        ValueError: if the two were not measured on the same cases.
    """
    if old is not None and set(old) != set(new):
        raise ValueError(f"gate: expected scores of the same cases, got {sorted(set(old) ^ set(new))} in one of two")
    bad = sorted({name for scores in new.values() for name, dice in scores.items() if not math.isfinite(dice)})
    if bad:
        return Decision(False, True, f"kept: its Dice of {', '.join(bad)} is not finite", margin)
    if not any(new.values()):
        return Decision(old is None, False, "not measured: the held-out cases contain none of the labels")
    cases = f"{len(new)} held-out case{'s' if len(new) > 1 else ''}"
    if old is None:
        reason = f"the first version: mean Dice {_mean_of_cases(new):.3f} on {cases}; there is nothing to compare with"
        return Decision(True, True, reason)
    pairs = {case: paired(new[case], old[case]) for case in new}
    per_case = [sum(n - o for n, o in case.values()) / len(case) for case in pairs.values() if case]
    difference = sum(per_case) / len(per_case)
    per_label: dict[str, list[float]] = {}
    for case in pairs.values():
        for name, (n, o) in case.items():
            per_label.setdefault(name, []).append(n - o)
    labels = {name: sum(values) / len(values) for name, values in sorted(per_label.items())}
    worst = min(labels, key=lambda name: labels[name])
    figures = (
        f"mean Dice {_mean_of_pairs(pairs, 0):.3f} against {_mean_of_pairs(pairs, 1):.3f} of the published version on "
        f"the same {cases} ({difference:+.3f})"
    )
    if labels[worst] < -tolerance:
        return Decision(
            False, True, f"kept: {worst} lost {-labels[worst]:.3f}, more than {tolerance:g}; {figures}",
            margin, difference, labels,
        )  # fmt: skip
    if difference <= margin:
        return Decision(
            False, True, f"kept: {figures}, and more than {margin:+g} is needed", margin, difference, labels
        )
    return Decision(True, True, f"published: {figures}, more than the {margin:+g} needed", margin, difference, labels)


def label_means(scores: Scores) -> dict[str, float]:
    """Return the mean Dice of each label over the cases that have it; NaN counts as not to have it."""
    found: dict[str, list[float]] = {}
    for case in scores.values():
        for name, dice in case.items():
            if not math.isnan(dice):
                found.setdefault(name, []).append(dice)
    return {name: sum(values) / len(values) for name, values in found.items()}


def paired(new: Mapping[str, float], old: Mapping[str, float]) -> dict[str, tuple[float, float]]:
    """Return both scores of each label that either has one for, the new one first.

    A label without a score is neither in the case nor drawn. Where the other version drew it all the same, leaving it
    out was right, which counts as 1. Where the other version found it, it is in the case, and this version, which does
    not know the label, drew nothing: 0.
    """
    return {
        name: (new[name] if name in new else _absent(old[name]), old[name] if name in old else _absent(new[name]))
        for name in sorted({*new, *old})
    }


def _absent(other: float) -> float:
    return 0.0 if other > 0 else 1.0


def _mean_of_cases(scores: Scores) -> float:
    means = [sum(case.values()) / len(case) for case in scores.values() if case]
    return sum(means) / len(means)


def _mean_of_pairs(pairs: Mapping[str, Mapping[str, tuple[float, float]]], which: int) -> float:
    return _mean_of_cases({id_: {name: pair[which] for name, pair in case.items()} for id_, case in pairs.items()})
