"""The gate: figures computed by hand, and what each case of doubt leads to."""

from __future__ import annotations

import json
import math

import pytest

from rep3d.evaluation.gate import decide, label_means, unmeasured

OLD = {"a": {"liver": 0.80, "tumour": 0.40}, "b": {"liver": 0.90, "tumour": 0.50}}


def test_better_on_the_same_cases_is_published() -> None:
    new = {"a": {"liver": 0.82, "tumour": 0.44}, "b": {"liver": 0.91, "tumour": 0.51}}
    decision = decide(new, OLD, margin=0.01)
    assert decision.published
    assert decision.measured
    # Case a gains (0.02 + 0.04) / 2, case b 0.01: 0.02 in the mean.
    assert decision.difference == pytest.approx(0.02)
    assert decision.labels == pytest.approx({"liver": 0.015, "tumour": 0.025})
    for figure in ("0.670", "0.650", "+0.020", "2 held-out cases", "+0.01"):
        assert figure in decision.reason
    assert json.loads(json.dumps(decision.to_dict()))["margin"] == 0.01


@pytest.mark.parametrize(("margin", "published"), [(0.019, True), (0.021, False)])
def test_margin(margin: float, published: bool) -> None:
    new = {"a": {"liver": 0.82, "tumour": 0.42}, "b": {"liver": 0.92, "tumour": 0.52}}
    decision = decide(new, OLD, margin)
    assert decision.published is published
    assert decision.reason.startswith("published" if published else "kept")


def test_equal_is_not_better() -> None:
    decision = decide(OLD, OLD, margin=0.0)
    assert (decision.published, decision.difference) == (False, 0.0)


def test_a_better_mean_does_not_pay_for_a_lost_label() -> None:
    new = {"a": {"liver": 0.99, "tumour": 0.33}, "b": {"liver": 0.99, "tumour": 0.45}}
    decision = decide(new, OLD, margin=0.0)
    assert decision.difference is not None and decision.difference > 0.03
    assert not decision.published
    assert "tumour lost 0.060" in decision.reason
    assert decide(new, OLD, margin=0.0, tolerance=0.07).published


def test_paired_means_weigh_each_case_once() -> None:
    # Over all labels of all cases the new one would be worse; case by case it is better.
    old = {"a": {"x": 0.5}, "b": {"x": 0.5, "y": 0.5, "z": 0.5}}
    new = {"a": {"x": 0.6}, "b": {"x": 0.5, "y": 0.48, "z": 0.46}}
    decision = decide(new, old, margin=0.0)
    assert decision.published
    assert decision.difference == pytest.approx((0.1 - 0.02) / 2)


def test_label_that_the_old_version_does_not_know_counts_as_not_drawn() -> None:
    old = {"a": {"liver": 0.8}}
    assert decide({"a": {"liver": 0.8, "tumour": 0.3}}, old, margin=0.0).difference == pytest.approx(0.15)
    # Drawing nothing where there is nothing is right: a new label drawn by mistake is a loss.
    assert decide({"a": {"liver": 0.8, "tumour": 0.0}}, old, margin=0.0).difference == pytest.approx(-0.5)


def test_no_longer_drawing_what_is_not_there_is_a_gain() -> None:
    assert decide({"a": {"liver": 0.8}}, {"a": {"liver": 0.8, "tumour": 0.0}}).published


@pytest.mark.parametrize("bad", [math.nan, math.inf])
def test_scores_that_are_not_finite_are_kept(bad: float) -> None:
    decision = decide({"a": {"liver": bad}}, None)
    assert (decision.published, "liver is not finite" in decision.reason) == (False, True)


def test_first_version_is_published_with_its_score() -> None:
    decision = decide({"a": {"liver": 0.7}}, None)
    assert (decision.published, decision.measured, decision.difference) == (True, True, None)
    assert "0.700 on 1 held-out case;" in decision.reason


def test_held_out_cases_without_any_label_measure_nothing() -> None:
    assert not decide({"a": {}}, {"a": {}}).published
    first = decide({"a": {}}, None)
    assert (first.published, first.measured) == (True, False)


def test_other_cases_are_no_comparison() -> None:
    with pytest.raises(ValueError, match="'b'"):
        decide({"a": {"liver": 1.0}}, OLD)


def test_unmeasured_versions_say_so_and_replace_no_measured_one() -> None:
    decision = unmeasured(3, measured_before=False)
    assert (decision.published, decision.measured) == (True, False)
    assert "fewer than 5 annotated cases (3)" in decision.reason
    assert not unmeasured(3, measured_before=True).published
    assert "all 6 annotated cases have been trained on" in unmeasured(6, measured_before=False).reason
    assert "minutes were used up" in unmeasured(6, measured_before=False, out_of_time=True).reason


def test_label_means() -> None:
    assert label_means({"a": {"x": 0.5, "y": 1.0}, "b": {"x": 0.7}}) == pytest.approx({"x": 0.6, "y": 1.0})
