"""Scores and features of the images: kept, resumed, never mistaken for another model's; and what is chosen by them."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
import torch
from lib.active import watch as scoring_watch
from lib.active.knowledge import Knowledge, current_scores, read_knowledge, write_knowledge
from lib.active.scoring import UncertaintyScoring, missing_work, score_unlabelled
from lib.active.strategies import all_strategies
from lib.active.watch import ScoringWatch
from lib.errors import NoModelError, NotFoundError
from lib.models.published import PublishedModel
from lib.paths import ModelWorkspace, Workspace
from lib.storage.datastore import Rep3DDatastore

from rep3d.active.strategies import STRATEGIES, ImageScore
from rep3d.errors import CheckpointError, ImageError
from tests.app.data import LABELS, publish_small_model, write_image, write_label

FACTS = {"version": "v3", "created": "2024-05-01T00:00:00+00:00"}


class _Studies:
    """A studies folder with four images, of which the last has a final label, and a model that says what it is told."""

    def __init__(self, folder: Path) -> None:
        self.workspace = Workspace(folder / "rep3d")
        self.place: ModelWorkspace = self.workspace.model("rep3d")
        self.place.root.mkdir(parents=True)
        for number in range(4):
            write_image(folder / f"case_{number}.nii.gz", number)
        self.store = Rep3DDatastore(folder, self.workspace, LABELS, auto_reload=False, read_only=False)
        label = write_label(folder.parent / "up" / "l.nii.gz", 3)
        self.store.save_label("case_3", str(label), "final", {})
        self.facts: dict[str, Any] = dict(FACTS)
        self.asked: list[tuple[str, str]] = []
        self.before_each: Callable[[str], None] = lambda image: None
        setup = SimpleNamespace(workspace=self.place, conf=SimpleNamespace(score_minutes=5.0))
        published = SimpleNamespace(facts=lambda: self.facts, predictor=lambda: self, path=self.place.published)
        self.served: Any = {"rep3d": SimpleNamespace(name="rep3d", setup=setup, published=published)}
        self.published: Any = published

    # The predictor ------------------------------------------------------------------------------------------------

    def _note(self, kind: str, image: tuple[Path, ...]) -> str:
        name = image[0].name.split(".")[0]
        self.asked.append((kind, name))
        self.before_each(name)
        return name

    def _said(self, doubt: float) -> torch.Tensor:
        return torch.tensor([doubt, 1 - doubt])[:, None, None, None].expand(2, 4, 4, 4)

    def probabilities(self, image: tuple[Path, ...]) -> torch.Tensor:
        return self._said(0.5 if self._note("look", image) == "case_1" else 0.1)

    def view_probabilities(self, image: tuple[Path, ...], views: int) -> Iterator[torch.Tensor]:
        plain = 0.5 if self._note("views", image) == "case_1" else 0.1
        for number in range(views):
            yield self._said(plain - 0.02 * number)

    def features(self, image: tuple[Path, ...]) -> np.ndarray:
        return np.array([float(self._note("features", image)[-1]), 1.0], np.float32)

    # What is asked of the app ---------------------------------------------------------------------------------------

    def score(self, seconds: float = 60.0, views: bool = False) -> dict[str, float]:
        return score_unlabelled(self.store, self.published, self.place, seconds, views=views)

    def known(self) -> Knowledge:
        return read_knowledge(self.place, self.facts)

    def choose(self, strategy: str, **request: Any) -> dict[str, Any] | None:
        chosen: Any = all_strategies(self.served, "rep3d")[strategy](request, self.store)
        return chosen


@pytest.fixture
def studies(tmp_path: Path) -> _Studies:
    (tmp_path / "studies").mkdir()
    return _Studies(tmp_path / "studies")


# Scoring ------------------------------------------------------------------------------------------------------------


def test_one_look_at_each_image_then_the_views(studies: _Studies) -> None:
    scores = studies.score(views=True)
    assert scores["case_1"] == pytest.approx(1)
    assert scores["case_0"] < 0.6
    kinds = [kind for kind, _ in studies.asked]
    assert kinds.index("views") > max(index for index, kind in enumerate(kinds) if kind != "views")
    known = studies.known()
    assert set(known.features) == {f"case_{number}" for number in range(4)}  # the labelled one's too
    assert set(known.scores) == {"case_0", "case_1", "case_2"}
    assert all(score.variance is not None and 0 < score.variance < 1 for score in known.scores.values())
    assert known.features["case_2"].tolist() == [2.0, 1.0]


def test_what_is_known_is_not_computed_again(studies: _Studies) -> None:
    studies.score()
    assert sorted(kind for kind, _ in studies.asked) == ["features"] * 4 + ["look"] * 3
    studies.asked.clear()
    studies.score()
    assert studies.asked == []
    studies.score(views=True)
    assert [kind for kind, _ in studies.asked] == ["views"] * 3


def test_scores_survive_a_kill_in_the_middle(studies: _Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.active.scoring._WRITE_EVERY_SECONDS", 0.0)

    def killed(name: str) -> None:
        if len(studies.asked) == 6:
            raise KeyboardInterrupt

    studies.before_each = killed
    with pytest.raises(KeyboardInterrupt):
        studies.score()
    done = studies.known()
    assert done.features and len(done.features) < 4
    studies.before_each = lambda name: None
    studies.asked.clear()
    studies.score()
    assert {name for _, name in studies.asked} == {f"case_{number}" for number in range(4)} - set(done.features)


def test_time_limit(studies: _Studies) -> None:
    assert studies.score(seconds=0) == {}
    assert studies.asked == []


def test_images_that_cannot_be_read_are_left_out_and_said(studies: _Studies) -> None:
    def damaged(name: str) -> None:
        if name == "case_1":
            raise ImageError("case_1: damaged")

    studies.before_each = damaged
    assert set(studies.score()) == {"case_0", "case_2"}
    assert studies.known().failed == {"case_1": "case_1: damaged"}
    studies.before_each = lambda name: None
    assert set(studies.score()) == {"case_0", "case_1", "case_2"}  # it may have been repaired
    assert studies.known().failed == {}


@pytest.mark.parametrize("error", [TypeError("of no kind that is expected"), MemoryError(), IndexError()])
def test_whatever_one_image_raises_the_others_are_scored(studies: _Studies, error: Exception) -> None:
    def fail(name: str) -> None:
        if name == "case_1":
            raise error

    studies.before_each = fail
    assert set(studies.score()) == {"case_0", "case_2"}
    assert set(studies.known().failed) == {"case_1"} and studies.store.unusable.reasons() == {}


def test_unusable_images_are_left_out_and_named_until_they_are_mended(studies: _Studies) -> None:
    file = studies.store.image_file("case_1")
    whole = file.read_bytes()
    file.write_bytes(whole[:2000])

    def read(name: str) -> None:
        if name == "case_1":
            raise ImageError("its voxels cannot be read")

    studies.before_each = read
    publish_small_model(studies.place.root).rename(studies.place.published)
    method = UncertaintyScoring(studies.served)
    for _ in range(2):
        result = method({}, studies.store)["rep3d"]
        assert result["scored"] == 2 and set(result["failed"]) == {"case_1"}
    assert sum(name == "case_1" for _, name in studies.asked) == 1  # it is not tried again and again
    assert missing_work(studies.store, studies.known()) == []
    file.write_bytes(whole)
    assert {id_ for _, id_ in missing_work(studies.store, studies.known())} == {"case_1"}


def test_scores_of_another_model_never_count(studies: _Studies) -> None:
    studies.score()
    assert current_scores(studies.place, {**FACTS, "created": "later"}) == {}
    assert current_scores(studies.place, {}) == {}
    later = {**FACTS, "version": "v4"}
    assert read_knowledge(studies.place, later) == Knowledge()
    # Only the scores' file is the new model's: a kill between the two writes.
    studies.place.scores.write_text(json.dumps({**later, "scores": {"case_0": {"entropy": 0.1}}}))
    assert read_knowledge(studies.place, later).features == {}


def test_a_publication_during_a_scoring_begins_it_anew(studies: _Studies) -> None:
    def publish(name: str) -> None:
        if len(studies.asked) == 4:
            studies.facts = {**FACTS, "version": "v4"}

    studies.before_each = publish
    assert set(studies.score()) == {"case_0", "case_1", "case_2"}
    content = json.loads(studies.place.scores.read_text())
    assert content["version"] == "v4"
    assert len(studies.known().features) == 4
    assert len(studies.asked) > 7  # those before the publication were done again


def test_damaged_files_are_as_good_as_none(studies: _Studies) -> None:
    studies.score()
    studies.place.features.write_bytes(b"PK half a file")
    assert studies.known().features == {}
    studies.place.scores.write_text("{half")
    assert studies.known() == Knowledge()
    assert set(studies.score()) == {"case_0", "case_1", "case_2"}


def test_scores_of_an_older_server_are_read(studies: _Studies) -> None:
    studies.place.scores.write_text(json.dumps({**FACTS, "scores": {"case_0": 0.25}, "failed": {}}))
    assert studies.known().scores == {"case_0": ImageScore(entropy=0.25)}


def test_with_a_real_model(studies: _Studies) -> None:
    path = publish_small_model(studies.place.root)
    model = PublishedModel(path, LABELS, "cpu")
    scores = score_unlabelled(studies.store, model, studies.place, 60, views=True)
    known = read_knowledge(studies.place, model.facts())
    assert set(scores) == set(known.scores) == {"case_0", "case_1", "case_2"}
    for score in known.scores.values():
        assert all(0 <= (score.value(measure) or 0) <= 1 for measure in ("entropy", "margin", "variance"))
        assert score.variance is not None
    assert {vector.shape for vector in known.features.values()} == {(16,)}
    assert missing_work(studies.store, known) == []


def test_scoring_on_request_refuses_what_cannot_be(studies: _Studies) -> None:
    method = UncertaintyScoring(studies.served)
    with pytest.raises(NoModelError, match="no trained model yet"):
        method.check()
    publish_small_model(studies.place.root).rename(studies.place.published)
    assert method({"model": "rep3d"}, studies.store) == {"rep3d": {"scored": 3, "version": "v3", "failed": {}}}
    with pytest.raises(NotFoundError, match="There is no model"):
        method({"model": "other"}, studies.store)


# Choosing -----------------------------------------------------------------------------------------------------------


def test_all_strategies_are_served_with_their_description(studies: _Studies) -> None:
    served = all_strategies(studies.served, "rep3d")
    assert {name: strategy.info()["description"] for name, strategy in served.items()} == dict(STRATEGIES)
    assert {"random", "first", "entropy", "margin", "tta", "coreset", "hybrid", "uncertainty"} == set(served)


def test_the_candidates_of_the_request_are_kept_to(studies: _Studies) -> None:
    studies.score(views=True)
    for name in STRATEGIES:
        for only in ("case_0", "case_2"):
            choice = studies.choose(name, candidates=[only, "case_3", "unknown"])
            assert choice is not None and choice["id"] == only
        assert studies.choose(name, candidates=[]) is None
    assert studies.choose("entropy") == {
        "id": "case_1",
        "score": pytest.approx(1),
        "used_strategy": "entropy",
        "version": "v3",
    }
    chosen = studies.choose("uncertainty")
    assert chosen is not None and (chosen["id"], chosen["used_strategy"]) == ("case_1", "uncertainty")
    assert studies.choose("first") == {"id": "case_0", "used_strategy": "first"}


def test_what_is_labelled_or_lent_to_others_counts_as_covered(studies: _Studies) -> None:
    vectors = {"case_0": 0.0, "case_1": 9.0, "case_2": 4.0, "case_3": 0.5}
    features = {id_: np.array([value], np.float32) for id_, value in vectors.items()}
    scores = {id_: ImageScore(0.5, 0.5) for id_ in ("case_0", "case_1", "case_2")}
    write_knowledge(studies.place, FACTS, Knowledge(scores, features))
    far = studies.choose("coreset")
    assert far is not None and (far["id"], far["used_strategy"]) == ("case_1", "coreset")
    lent = studies.choose("coreset", candidates=["case_0", "case_2"])  # somebody else works on case_1
    assert lent is not None and lent["id"] == "case_2"


def test_fall_back_is_said(studies: _Studies) -> None:
    for name in ("entropy", "uncertainty", "margin", "tta", "coreset", "hybrid"):
        choice = studies.choose(name)
        assert choice is not None and choice["used_strategy"] == "random"
        assert "of the published model yet: chosen at random" in choice["reason"]
    studies.score()
    choice = studies.choose("tta")
    assert choice is not None and (choice["used_strategy"], choice["id"]) == ("entropy", "case_1")
    assert "chosen by entropy" in choice["reason"]
    studies.facts = {**FACTS, "version": "v4"}  # a new model: the old one's scores are not shown as current
    choice = studies.choose("entropy")
    assert choice is not None and choice["used_strategy"] == "random" and "score" not in choice
    studies.facts = {}
    choice = studies.choose("hybrid")
    assert choice is not None and choice["reason"] == "no trained model yet: chosen at random"


def test_damaged_model_and_unknown_model(studies: _Studies) -> None:
    def damaged() -> dict:
        raise CheckpointError("published.pt: damaged")

    studies.published.facts = damaged
    choice = studies.choose("hybrid")
    assert choice is not None and "damaged" in choice["reason"] and choice["used_strategy"] == "random"
    assert studies.choose("first") == {"id": "case_0", "used_strategy": "first"}
    with pytest.raises(NotFoundError, match="There is no model"):
        studies.choose("random", model="other")


# The watch ----------------------------------------------------------------------------------------------------------


class _Tasks:
    """MONAI Label's processes, as far as the watch sees them."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.by_method: dict[str, list[dict[str, Any]]] = {"train": [], "scoring": []}
        monkeypatch.setattr(scoring_watch, "tasks", lambda method: self.by_method[method])
        monkeypatch.setattr(scoring_watch, "stop_background_task", self.stop)
        monkeypatch.setattr(scoring_watch.scoring, "run_method", self.run)

    def run(self, method: str, params: dict[str, Any]) -> None:
        self.by_method["scoring"].append({"status": "RUNNING", "request": {"method": method, **params}})

    def stop(self, method: str) -> None:
        self.by_method[method][-1]["status"] = "STOPPED"

    def end(self, method: str, status: str = "DONE") -> None:
        self.by_method[method][-1]["status"] = status


def test_the_watch_completes_scores_once_and_again_when_something_changed(
    studies: _Studies, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tasks = _Tasks(monkeypatch)
    watch = ScoringWatch(studies.served, studies.store)
    assert watch.look()
    assert tasks.by_method["scoring"][-1]["request"] == {"method": "uncertainty", "model": "rep3d", "background": True}
    assert not watch.look()  # it runs
    tasks.end("scoring", "ERROR")
    assert not watch.look()  # it did not get anywhere: once is enough
    studies.score(views=True)
    assert not watch.look()
    studies.facts = {**FACTS, "version": "v4"}  # published by hand, or rolled back
    assert watch.look()
    studies.score(views=True)
    tasks.end("scoring")
    assert not watch.look()
    studies.store.add_image("new", str(write_image(tmp_path / "up" / "new.nii.gz", 8)), {})
    assert watch.look()


def test_a_training_comes_first(studies: _Studies, monkeypatch: pytest.MonkeyPatch) -> None:
    tasks = _Tasks(monkeypatch)
    watch = ScoringWatch(studies.served, studies.store)
    tasks.by_method["train"].append({"status": "SUBMITTED", "request": {}})
    assert not watch.look()
    tasks.end("train")
    assert watch.look()
    tasks.by_method["train"].append({"status": "RUNNING", "request": {}})
    assert not watch.look()
    assert tasks.by_method["scoring"][-1]["status"] == "STOPPED"
    tasks.end("train")
    assert watch.look()  # it was interrupted, so it gets another chance
    tasks.end("scoring")
    tasks.run("uncertainty", {})  # asked for by a person: not stopped by a training
    tasks.by_method["train"].append({"status": "RUNNING", "request": {}})
    assert not watch.look()
    assert tasks.by_method["scoring"][-1]["status"] == "RUNNING"


def test_no_watch_without_a_model_or_when_it_is_switched_off(
    studies: _Studies, monkeypatch: pytest.MonkeyPatch
) -> None:
    _Tasks(monkeypatch)
    watch = ScoringWatch(studies.served, studies.store)
    studies.served["rep3d"].setup.conf.score_minutes = 0
    assert not watch.look()
    studies.served["rep3d"].setup.conf.score_minutes = 5.0
    studies.facts = {}
    assert not watch.look()
    studies.facts = dict(FACTS)
    write_knowledge(studies.place, FACTS, Knowledge({}, {}, {f"case_{number}": "damaged" for number in range(4)}))
    assert not watch.look()  # nothing but images that cannot be read
