"""What changes while something else is under way: nothing is lost, nothing stays grey, nothing is sent unseen."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from Rep3DLabelLib.client.answers import ModelInfo, SubmittedLabel
from Rep3DLabelLib.labels import Label, SegmentName
from Rep3DLabelLib.view import Options

from tests.extension.fakes import INFO, READY_REPORT, URL, VOLUME, Bench, overview


@pytest.fixture
def ready(tmp_path: Path) -> Bench:
    return Bench(tmp_path).connect()


@pytest.fixture
def slow(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Make drafts take three ticks to write; return their keys when they are whole."""
    monkeypatch.setattr(ready.drafts, "save", lambda draft, data: draft)
    return ready.write_slowly(monkeypatch)


def _remove_segmentation(bench: Bench) -> None:
    bench.scene.going()
    for _ in range(6):
        bench.tick()


def test_edits_made_while_the_case_is_left_are_kept_before_it_goes(ready: Bench, slow: list[str]) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.open_case("case_2")
    ready.tick()
    ready.draw(rep3d_1=6)  # the draft that is being written does not have this
    for _ in range(10):
        ready.tick()
        assert len(slow) == 2 or ready.worker.waiting("open_case") == 0
    assert ready.worker.waiting("open_case") == 1


@pytest.mark.parametrize("what", ["open_case", "auto_segment", "submit"])
def test_a_segmentation_removed_while_it_is_kept_leaves_no_grey_button(
    ready: Bench, slow: list[str], what: str
) -> None:
    ready.fetch().draw(rep3d_1=5)
    begin: dict[str, Callable[[], object]] = {
        "open_case": lambda: ready.flow.open_case("case_2"),
        "auto_segment": ready.segment,
        "submit": ready.flow.submit,
    }
    begin[what]()
    assert ready.view.activity is not None
    _remove_segmentation(ready)
    assert ready.view.sample is None
    if what == "open_case":
        assert ready.worker.waiting("open_case") == 1  # what was left is kept, so the next one comes
    else:
        assert ready.view.activity is None and ready.view.enabled["next_sample"] == ""
    assert ready.worker.waiting("measure") == 0


def test_a_segmentation_removed_while_the_uncertainty_loads_leaves_no_grey_button(ready: Bench) -> None:
    ready.fetch().segment(uncertainty=VOLUME)
    assert ready.view.activity is not None
    _remove_segmentation(ready)
    assert ready.view.activity is None and ready.scene.loads[-1].cancelled


def test_a_segmentation_does_not_empty_the_labels_of_a_model_chosen_meanwhile(ready: Bench) -> None:
    other = ModelInfo("other", "", (Label("liver", 7),))
    info = replace(INFO, labels={**INFO.labels, "liver": 7}, models={**INFO.models, "other": other})
    ready.flow.connect(URL)
    ready.worker.answer("test", replace(READY_REPORT, info=info))
    ready.fetch()
    ready.flow.auto_segment()
    ready.flow.choose_model("other")
    ready.worker.answer("infer", ready.inferred())
    assert ("labels of", "head", "tail") in ready.scene.log and ("labels of", "liver") not in ready.scene.log


@pytest.mark.parametrize(
    ("names", "words"),
    [
        ({"rep3d_1": SegmentName("rep3d_1", "cyst", "head")}, "'cyst' was made for the label 'head'"),
        ({"copy": SegmentName("copy", "old head", "head")}, "'head', 'old head' are sent together as 'head'"),
    ],
)
def test_a_segment_sent_under_another_name_or_with_another_is_told_first(
    ready: Bench, names: dict[str, SegmentName], words: str
) -> None:
    ready.fetch()
    ready.screen.editing[0].names.update(names)
    ready.draw(rep3d_1=5, copy=3)
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    question, answer = ready.screen.open.pop()
    assert words in question.text and ready.worker.waiting("submit") == 0
    answer("submit")
    assert ready.worker.waiting("submit") == 1


def test_a_resampled_segmentation_is_told_before_it_is_sent(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.scene.on_grid = False
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    assert "not on the voxels of the image" in ready.screen.open.pop()[0].text
    assert ready.worker.waiting("submit") == 0


def test_no_sample_left_is_no_failure_and_what_was_said_of_the_label_stays(ready: Bench) -> None:
    ready.flow.set_options(Options(auto_advance=True))
    ready.fetch().draw(rep3d_1=5)
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    ready.worker.answer("submit", SubmittedLabel("case_1", remapped=True))
    assert ready.view.activity.name == "next_sample" and "Values were changed" in ready.view.message.text
    ready.worker.fail("next_sample", "NoSampleLeft", "No image is left to label: all are done.")
    assert (ready.view.message.level, ready.view.activity) == ("info", None)
    ready.tick(11)
    ready.worker.answer("overview", overview())
