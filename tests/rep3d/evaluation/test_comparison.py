"""Comparisons: figures computed by hand, and a verdict that says no more than the cases allow."""

from __future__ import annotations

import json
import math
from collections.abc import Sequence
from dataclasses import replace

import pytest

from rep3d.errors import Rep3DError
from rep3d.evaluation.comparison import Difference, compare, holm
from rep3d.evaluation.evaluation import METRICS, CaseScores, Evaluation
from rep3d.evaluation.page import comparison_page
from rep3d.evaluation.scoring import LabelScore

NAN = math.nan


def evaluation(dice: Sequence[float], trained: Sequence[int] = (), labels: Sequence[str] = ("a",)) -> Evaluation:
    """Return one of as many cases, each of whose labels has this Dice, and an HD95 of ten times what lacks to 1."""
    cases = tuple(
        CaseScores(
            f"c{n}", f"h{n}", n in trained, {x: LabelScore(value, 10 - 10 * value, value, 1.0, value) for x in labels}
        )
        for n, value in enumerate(dice)
    )
    return Evaluation("m", {}, "data", {x: n + 1 for n, x in enumerate(labels)}, 2.0, cases)


def row(first: Evaluation, second: Evaluation, metric: str = "dice", label: str | None = "a") -> Difference:
    rows = compare({"A": first, "B": second}).differences
    return next(one for one in rows if one.metric.key == metric and one.label == label)


BASE = [0.5, 0.55, 0.6, 0.65, 0.7, 0.72, 0.74]


def moved(*steps: float) -> tuple[Evaluation, Evaluation]:
    return evaluation(BASE[: len(steps)]), evaluation([d + s for d, s in zip(BASE, steps, strict=False)])


def test_six_cases_that_agree_are_enough_and_five_are_not() -> None:
    six = row(*moved(0.01, 0.02, 0.03, 0.04, 0.05, 0.06))
    assert six.p == pytest.approx(2 / 2**6) and six.effect == 1.0 and six.better == "B"
    assert six.mean.mean == pytest.approx(0.035) and six.verdict.startswith("B is better by 0.035 (0.02")
    five = row(*moved(0.1, 0.2, 0.21, 0.22, 0.25))
    assert five.p is None and five.effect == 1.0 and five.better is None
    assert five.verdict == "too few cases to tell: 5, and with fewer than 6 no difference can reach p = 0.05"


def test_less_is_better_of_distances() -> None:
    found = row(*moved(0.01, 0.02, 0.03, 0.04, 0.05, 0.06), metric="hd95")
    assert found.mean.mean == pytest.approx(-0.35) and found.effect == -1.0 and found.better == "B"


def test_the_rank_biserial_correlation_by_hand() -> None:
    # Ranks of the absolute differences: 1 2 3 4 5 6; those of 0.02 and 0.05 are against: (21 - 7 - 7) / 21.
    found = row(*moved(0.01, -0.02, 0.03, 0.04, -0.05, 0.06))
    assert found.effect == pytest.approx((1 + 3 + 4 + 6 - 2 - 5) / 21)
    assert found.better is None and found.verdict == "no difference can be told from 6 cases"


def test_cases_that_do_not_differ_say_nothing() -> None:
    assert row(*moved(0, 0, 0, 0, 0, 0)).verdict == "the same in all 6 cases"
    found = row(*moved(0.1, 0, 0, 0, 0, 0.1, 0.1))
    assert found.p is None and found.verdict == "too few cases to tell: only 3 of 7 differ, and 6 are needed"


def test_holm_by_hand() -> None:
    assert holm([0.01, 0.04, 0.03, 0.5]) == pytest.approx([0.04, 0.09, 0.09, 0.5])
    assert holm([0.9, 0.8]) == pytest.approx([1.0, 1.0]) and holm([]) == []


def test_many_labels_need_more_cases() -> None:
    labels = [f"l{n}" for n in range(13)]
    steps = [0.01, 0.02, 0.03, 0.04, 0.05, 0.06, 0.07]
    first, second = (
        evaluation(values, labels=labels) for values in (BASE, [d + s for d, s in zip(BASE, steps, strict=True)])
    )
    found = row(first, second, label="l0")
    assert found.p == pytest.approx(2 / 2**7) and found.corrected == pytest.approx(13 * 2 / 2**7)
    assert found.verdict == "too few cases to tell one of 13 tests apart: 7 differ, 10 are needed"
    mean = row(first, second, label=None)
    assert mean.corrected == mean.p and mean.better == "B"


def test_what_only_one_drew_where_nothing_is_counts_as_the_gate_does() -> None:
    first = evaluation([0.5] * 6)
    none, drawn = LabelScore(NAN, NAN, NAN, 0.0, 0.0), LabelScore(0.0, NAN, 0.0, 0.0, 1.0)
    one, other = (
        replace(first, cases=(*first.cases[:5], replace(first.cases[5], scores={"a": x}))) for x in (none, drawn)
    )
    assert row(one, other).differences["c5"] == -1.0
    assert "c5" not in row(one, other, metric="hd95").differences


def test_what_is_not_compared_is_told() -> None:
    first, second = (
        evaluation(BASE, trained=[1], labels=("a", "b")),
        evaluation(BASE[:6], trained=[2], labels=("b", "c")),
    )
    found = compare({"A": first, "B": replace(second, labels={"b": 2, "c": 9}, tolerance_mm=1.0)})
    assert found.cases == ("c0", "c3", "c4", "c5") and found.labels == ("b",)
    told = " ".join(found.notes)
    assert "in A: case c6." in told and "in A: label a." in told and "in B: label c." in told
    assert "trained on these cases, which are left out: c1, c2." in told
    assert "tolerances differ (A 2 mm, B 1 mm)" in told and {m.key for m in found.metrics} == {
        "dice",
        "hd95",
        "volume-off",
    }


def test_other_truths_other_values_and_nothing_in_common_are_refused() -> None:
    first = evaluation(BASE)
    corrected = replace(first, cases=(replace(first.cases[0], label_hash="other"), *first.cases[1:]))
    with pytest.raises(Rep3DError, match="A and B cannot be compared: the true label map of case c0 is not the same"):
        compare({"A": first, "B": corrected})
    with pytest.raises(Rep3DError, match="the voxel value of label a"):
        compare({"A": first, "B": replace(first, labels={"a": 4})})
    with pytest.raises(Rep3DError, match="no case that none of the models was trained on"):
        compare({"A": first, "B": evaluation(BASE, trained=range(7))})
    with pytest.raises(Rep3DError, match="two evaluations or more"):
        compare({"A": first})


def test_three_are_compared_in_pairs_and_shown_on_one_page() -> None:
    names = ("<b>A", "B", "C")
    found = compare({name: evaluation([d + n / 100 for d in BASE]) for n, name in enumerate(names)})
    assert found.pairs == [("<b>A", "B"), ("<b>A", "C"), ("B", "C")]
    label = found.of(METRICS["dice"], ("B", "C"))[1]
    assert label.tests == 3 and label.p is not None and label.corrected == pytest.approx(3 * label.p)
    assert json.loads(json.dumps(found.to_dict(), allow_nan=False))["models"] == list(names)
    page = comparison_page(found)
    assert "<b>A" not in page and "&lt;b&gt;A" in page and "http" not in page and page.count('class="chart"') == 12
