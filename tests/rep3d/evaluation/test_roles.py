"""The frozen split: a case keeps its role for ever, and nothing that was trained on is ever validated on."""

from __future__ import annotations

import hashlib
import json
from pathlib import Path

import numpy as np
import pytest

from rep3d.errors import Rep3DError
from rep3d.evaluation.roles import CaseRoles
from rep3d.json_file import found_damage


def _ids(count: int, first: int = 0) -> list[str]:
    return [f"case_{number}" for number in range(first, first + count)]


def _by_hash(ids: list[str]) -> list[str]:
    return sorted(ids, key=lambda id_: hashlib.sha256(id_.encode()).hexdigest())


@pytest.fixture
def roles(tmp_path: Path) -> CaseRoles:
    return CaseRoles(tmp_path / "roles.json")


@pytest.mark.parametrize("count", [0, 1, 4])
def test_few_cases_all_train(roles: CaseRoles, count: int) -> None:
    split = roles.assign(_ids(count))
    assert (split.training, split.validation, split.kind) == (tuple(_ids(count)), (), "training-only")


@pytest.mark.parametrize(("count", "held_out"), [(5, 1), (7, 1), (8, 2), (12, 2), (13, 3), (40, 8)])
def test_a_fifth_validates_in_the_order_of_the_hash(roles: CaseRoles, count: int, held_out: int) -> None:
    split = roles.assign(_ids(count))
    assert set(split.validation) == set(_by_hash(_ids(count))[:held_out])
    assert set(split.training) == set(_ids(count)) - set(split.validation)
    assert split.kind == "held-out"


def test_fifth_case_validates_where_four_were_trained_on(roles: CaseRoles) -> None:
    roles.assign(_ids(4))
    split = roles.assign(_ids(5))
    assert (split.validation, split.training) == (("case_4",), tuple(_ids(4)))
    # Six and seven cases need one validation case, eight need two: whichever comes last, as all others have a role.
    assert roles.assign(_ids(7)).validation == ("case_4",)
    assert roles.assign(_ids(8)).validation == ("case_4", "case_7")


def test_no_case_changes_its_role_however_they_come_and_go(tmp_path: Path) -> None:
    random = np.random.default_rng(0)
    roles, seen = CaseRoles(tmp_path / "roles.json"), dict[str, str]()
    trained: set[str] = set()
    for _ in range(60):
        chosen = sorted(random.choice(_ids(30), int(random.integers(0, 30)), replace=False).tolist())
        split = CaseRoles(tmp_path / "roles.json").assign(chosen)
        assert sorted([*split.training, *split.validation]) == chosen
        for role, ids in (("training", split.training), ("validation", split.validation)):
            for id_ in ids:
                assert seen.setdefault(id_, role) == role
        trained |= set(split.training)
        assert not trained & set(split.validation)
    assert roles.read() == seen
    assert 0 < sum(role == "validation" for role in seen.values()) < len(seen) / 2


def test_what_another_model_was_trained_on_never_validates(roles: CaseRoles) -> None:
    first = _by_hash(_ids(10))[:2]
    assert not set(first) & set(roles.assign(_ids(10), trained=first).validation)
    # A checkpoint that was trained on a validation case is published by hand: that case measures nothing any more.
    (held_out, *_) = roles.assign(_ids(10)).validation
    split = roles.assign([*_ids(10), "new_1", "new_2"], trained=[held_out])
    assert held_out in split.training
    assert len(split.validation) == 2


def test_one_case_at_least_is_left_to_train_on(roles: CaseRoles) -> None:
    roles.assign(_ids(40))
    validating = roles.assign(_ids(40)).validation
    # Only validation cases are left: there is nothing to train on, and they stay what they are.
    assert roles.assign(validating).training == ()
    # One more comes: it trains, although a second one to validate would be due.
    assert roles.assign([*validating, "new"]).training == ("new",)
    assert roles.assign(validating[:3]).kind == "held-out"


def test_without_a_change_nothing_is_written(roles: CaseRoles, tmp_path: Path) -> None:
    roles.assign(_ids(6))
    before = (tmp_path / "roles.json").stat().st_mtime_ns
    roles.assign(_ids(3))
    assert (tmp_path / "roles.json").stat().st_mtime_ns == before


@pytest.mark.parametrize("content", ["{half", "[]", json.dumps({"a": "both"}), json.dumps({"a": ["training"]})])
def test_damaged_roles_are_refused_and_left_alone(roles: CaseRoles, tmp_path: Path, content: str) -> None:
    (tmp_path / "roles.json").write_text(content)
    with pytest.raises(Rep3DError, match="Put a copy back"):
        roles.assign(_ids(3))
    assert (tmp_path / "roles.json").read_text() == content


def test_damaged_roles_are_made_anew_from_versions(roles: CaseRoles, tmp_path: Path) -> None:
    file = tmp_path / "roles.json"
    assert not roles.mend(["a"], ["b"])
    assert not file.exists()
    file.write_text('{"a": "training", "b": "vali')
    assert roles.mend(["a", "c"], ["b", "c"])
    assert roles.read() == {"a": "training", "b": "validation", "c": "training"}
    (damage,) = found_damage(tmp_path)
    assert damage.kept is not None and damage.kept.read_text() == '{"a": "training", "b": "vali'
    assert not roles.mend([], [])
