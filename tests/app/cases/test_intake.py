"""What follows when a label is accepted: the same, whichever way it came, and never a failure of its own."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from lib.cases.intake import LabelIntake
from lib.cases.leases import LeaseBook
from lib.cases.reviews import Reviews
from lib.errors import ReservedError
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore, Submission
from lib.training.cases import models_taught

from tests.app.data import LABELS, write_image, write_label


class Office:
    """A studies folder with one image, and what follows from its labels."""

    def __init__(self, folder: Path) -> None:
        write_image(folder / "case.nii.gz", 0)
        self.workspace = Workspace(folder / "rep3d")
        self.store = Rep3DDatastore(folder, self.workspace, LABELS, auto_reload=False, read_only=False)
        self.leases = LeaseBook(self.workspace.leases)
        self.reviews = Reviews(self.workspace.reviews)
        self.counted: list[Submission] = []
        self.intake = LabelIntake(self.leases, self.reviews, self.counted.append)

    def take(
        self, store: Callable[[], Submission], user: str = "anna", override: bool = False, tag: str = "final"
    ) -> Any:
        return self.intake.take("case", tag, {user}, override, store)

    @property
    def holder(self) -> str | None:
        lease = self.leases.holder("case")
        return lease.user if lease else None


@pytest.fixture
def office(tmp_path: Path) -> Office:
    (tmp_path / "studies").mkdir()
    return Office(tmp_path / "studies")


@pytest.fixture
def ways(office: Office, tmp_path: Path) -> dict[str, Callable[[], Submission]]:
    """Each way by which a person's label comes in."""
    first, second = (write_label(tmp_path / f"{n}.nii.gz", n) for n in range(2))
    office.store.submit_label("case", first, "final", {"user": "anna"})
    office.store.submit_label("case", second, "final", {"user": "anna"})
    (entry,) = office.store.history.entries("case")
    return {
        "submitted": lambda: office.store.submit_label("case", first, "final", {"user": "anna"}),
        "restored": lambda: office.store.restore_label("case", entry["entry"], "anna"),
    }


@pytest.mark.parametrize("way", ["submitted", "restored"])
def test_each_way_ends_the_lease_and_the_review_and_counts(
    office: Office, ways: dict[str, Callable[[], Submission]], way: str
) -> None:
    digest = office.store.label_facts.of(office.store.labelled_cases()[0].label).digest
    office.reviews.add("case", digest, "ben")
    office.leases.take("case", "anna")
    accepted = office.take(ways[way])
    assert (accepted.duplicate, office.holder, office.counted) == (False, None, [accepted])
    assert not office.reviews.remove("case")
    office.leases.take("case", "anna")
    again = office.take(ways[way])  # the same once more: there is nothing new to count
    assert (again.duplicate, office.holder, office.counted) == (True, None, [accepted])


@pytest.mark.parametrize("way", ["submitted", "restored"])
def test_a_lease_that_another_took_meanwhile_stays(
    office: Office, ways: dict[str, Callable[[], Submission]], way: str
) -> None:
    def slowly() -> Submission:
        office.leases.take("case", "ben")
        return ways[way]()

    assert office.take(slowly).duplicate is False
    assert office.holder == "ben"


def test_a_reserved_image_is_refused_before_anything_is_read(office: Office) -> None:
    office.leases.take("case", "ben")
    with pytest.raises(ReservedError, match="reserved for ben"):
        office.take(lambda: pytest.fail("the label was read"))
    assert office.holder == "ben"


def test_who_overrides_a_lease_ends_that_one_only(office: Office, ways: dict[str, Callable[[], Submission]]) -> None:
    office.leases.take("case", "ben")
    office.take(ways["submitted"], override=True)
    assert office.holder is None

    def slowly() -> Submission:
        office.leases.release("case")
        office.leases.take("case", "carl")
        return ways["restored"]()

    office.leases.take("case", "ben")
    office.take(slowly, override=True)
    assert office.holder == "carl"


def test_a_prediction_changes_nothing_but_itself(office: Office, tmp_path: Path) -> None:
    office.leases.take("case", "ben")
    label = write_label(tmp_path / "p.nii.gz", 0)
    office.take(lambda: office.store.submit_label("case", label, "draft", {}), tag="draft")
    assert (office.holder, office.counted) == ("ben", [])


def test_what_follows_cannot_make_a_stored_label_a_failure(
    office: Office, ways: dict[str, Callable[[], Submission]], monkeypatch: pytest.MonkeyPatch
) -> None:
    def fails(*_: Any) -> None:
        raise OSError(28, "No space left on device")

    office.leases.take("case", "anna")
    monkeypatch.setattr(office.leases._file, "write", fails)
    intake = LabelIntake(office.leases, office.reviews, fails)
    assert intake.take("case", "final", {"anna"}, False, ways["submitted"]).duplicate is False


def test_which_models_learn_from_it_needs_no_second_look(
    office: Office, ways: dict[str, Callable[[], Submission]], monkeypatch: pytest.MonkeyPatch
) -> None:
    accepted = office.take(ways["submitted"])
    monkeypatch.setattr("lib.labels.facts.read_label", lambda file: pytest.fail("read again"))

    def model(labels: dict[str, int], others: tuple[int, ...] = ()) -> Any:
        return SimpleNamespace(setup=SimpleNamespace(labels=labels, other_values=others))

    served = {"own": model(LABELS), "another": model({"liver": 9}, (1, 3)), "part": model({"head": 1}, (3, 9))}
    assert models_taught(served, accepted) == ["own", "part"]
