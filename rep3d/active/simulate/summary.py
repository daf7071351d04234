"""What a simulation's numbers say: means over seeds, paired differences, labels needed for 95 % of full-data Dice.

Intervals are 95 % Student-t intervals over seeds. A seed is another split, first batch and initialisation. With three
seeds such an interval is two and a half standard deviations wide to either side: that is what three runs are worth.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from scipy import stats

from rep3d.errors import ConfigError

__all__ = ["BASELINE", "SHARE_OF_FULL", "interval", "labels_to_reach", "summarise"]

BASELINE = "random"
SHARE_OF_FULL = 0.95


def interval(values: Sequence[float]) -> dict[str, float | int | None]:
    """Return the mean of some values, one per seed, with a 95 % Student-t interval.

    Returns:
        ``mean``, ``low``, ``high`` (both None with fewer than two values) and ``n``.

    Raises:
        ConfigError: if there are no values.
    """
    if not values:
        raise ConfigError("interval: expected at least one value, got none")
    mean, count = float(np.mean(values)), len(values)
    if count < 2:
        return {"mean": mean, "low": None, "high": None, "n": count}
    half = float(stats.t.ppf(0.975, count - 1) * np.std(values, ddof=1) / np.sqrt(count))
    return {"mean": mean, "low": mean - half, "high": mean + half, "n": count}


def labels_to_reach(labels: Sequence[int], dice: Sequence[float], target: float) -> float | None:
    """Return the number of labels at which a curve first reaches a value, interpolated; None where it never does.

    A curve that begins above the target gives its first number of labels: it may have been there earlier.
    """
    for index, value in enumerate(dice):
        if value >= target:
            if index == 0:
                return float(labels[0])
            share = (target - dice[index - 1]) / (value - dice[index - 1])
            return float(labels[index - 1] + share * (labels[index] - labels[index - 1]))
    return None


def summarise(
    runs: Mapping[str, Mapping[int, Sequence[Mapping[str, Any]]]], reference: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return the summary that ``results.json`` carries.

    Args:
        runs: strategy to seed to rounds, each with ``labels`` and ``mean`` (mean Dice).
        reference: seed to the round that was trained on the whole pool.

    Returns:
        ``full`` (Dice of the reference), and for each strategy in ``strategies``: ``labels``; ``dice``, an interval for
        each number of labels; ``difference``, the same for the paired difference to `BASELINE` (where that was
        played); ``area``, the mean height of the curve; and ``labels_to_95``.
    """
    summary: dict[str, Any] = {
        "interval": "95 % Student-t interval over seeds",
        "full": interval([_dice(reference[seed]) for seed in sorted(reference)]) if reference else None,
        "strategies": {},
    }
    for strategy, by_seed in runs.items():
        seeds = sorted(by_seed)
        labels = [int(round_["labels"]) for round_ in by_seed[seeds[0]]]
        curves = {seed: [_dice(round_) for round_ in by_seed[seed]] for seed in seeds}
        entry: dict[str, Any] = {
            "labels": labels,
            "dice": [interval([curves[seed][i] for seed in seeds]) for i in range(len(labels))],
            "area": interval([_area(labels, curves[seed]) for seed in seeds]),
            "labels_to_95": _reached(labels, curves, reference),
        }
        paired = [seed for seed in seeds if seed in runs.get(BASELINE, {})]
        if strategy != BASELINE and paired:
            baseline = {seed: [_dice(round_) for round_ in runs[BASELINE][seed]] for seed in paired}
            entry["difference"] = [
                interval([curves[seed][i] - baseline[seed][i] for seed in paired]) for i in range(len(labels))
            ]
            areas = [_area(labels, curves[seed]) - _area(labels, baseline[seed]) for seed in paired]
            entry["area_difference"] = interval(areas)
        summary["strategies"][strategy] = entry
    return summary


def _reached(
    labels: Sequence[int], curves: Mapping[int, Sequence[float]], reference: Mapping[int, Mapping[str, Any]]
) -> dict[str, Any]:
    """Return labels to reach 95 % of the Dice that the same seed reached with the whole pool."""
    seeds = [seed for seed in curves if seed in reference]
    by_seed = {seed: labels_to_reach(labels, curves[seed], SHARE_OF_FULL * _dice(reference[seed])) for seed in seeds}
    found = [value for value in by_seed.values() if value is not None]
    complete = bool(seeds) and len(found) == len(seeds)
    return {
        "seeds": {str(seed): value for seed, value in by_seed.items()},
        "reached": len(found),
        "of": len(seeds),
        # A mean over those that got there would flatter a strategy that often does not.
        **(interval(found) if complete else {"mean": None, "low": None, "high": None, "n": len(found)}),
    }


def _dice(round_: Mapping[str, Any]) -> float:
    return float(round_["mean"]) if round_["mean"] is not None else 0.0


def _area(labels: Sequence[int], dice: Sequence[float]) -> float:
    """Return the mean height of a curve between its first and its last number of labels."""
    if len(labels) < 2:
        return float(dice[0])
    x, y = np.asarray(labels, float), np.asarray(dice, float)
    return float(((y[1:] + y[:-1]) / 2 * np.diff(x)).sum() / (x[-1] - x[0]))
