"""The clinician's state machine: what happens in which order, and what is never lost, whatever goes wrong."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
from Rep3DLabelLib.client.answers import Sample, SubmittedLabel
from Rep3DLabelLib.client.answers_cases import Case, DicomUpload, HistoryEntry
from Rep3DLabelLib.client.answers_status import BatchStatus
from Rep3DLabelLib.client.answers_train import TrainStatus
from Rep3DLabelLib.client.answers_versions import Version
from Rep3DLabelLib.connection import ConnectionReport
from Rep3DLabelLib.errors import LocalProblem
from Rep3DLabelLib.images.compose import Overlap
from Rep3DLabelLib.images.peaks import Peak
from Rep3DLabelLib.labels import SegmentName
from Rep3DLabelLib.view import COMMANDS, HistoryRow, Options
from Rep3DLabelLib.workflow import rules

from tests.extension.fakes import INFO, MODEL, READY_REPORT, URL, VOLUME, Bench, FakeNode, overview


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    return Bench(tmp_path)


@pytest.fixture
def ready(bench: Bench) -> Bench:
    return bench.connect()


# Connection ----------------------------------------------------------------------------------------------------


def test_a_connection_shows_models_strategies_and_is_remembered(ready: Bench) -> None:
    assert ready.view.connection.state == "ready"
    assert ready.view.model == "rep3d" and ready.view.strategy == "hybrid"
    assert ready.settings.addresses == [URL]


@pytest.mark.parametrize("state", ["unreachable", "untrusted", "not_allowed", "wrong_app", "busy", "failed"])
def test_each_kind_of_failed_connection_is_told_apart_and_can_be_tried_again(bench: Bench, state: str) -> None:
    bench.flow.connect(URL)
    assert bench.view.connection.state == "connecting"
    bench.worker.answer("test", ConnectionReport(state, f"it is {state}"))
    assert (bench.view.connection.state, bench.view.connection.message) == (state, f"it is {state}")
    assert bench.view.enabled["connect"] == ""
    assert bench.view.enabled["next_sample"]  # nobody knows yet which server it is


def test_a_helper_that_dies_while_connecting_leaves_the_button_usable(bench: Bench) -> None:
    bench.flow.connect(URL)
    bench.worker.fail("test", "HelperEnded", "the helper process ended")
    assert bench.view.connection.state == "failed"
    assert bench.view.enabled["connect"] == ""


def test_a_lost_server_is_tried_again_and_comes_back_by_itself(ready: Bench) -> None:
    ready.tick(20)
    ready.worker.fail("overview", "ServerUnreachable", "nothing listens", state="unreachable")
    assert ready.view.connection.state == "unreachable"
    ready.tick(6)
    assert ready.worker.waiting("test") == 1
    ready.tick(60)
    assert ready.worker.waiting("test") == 1  # one try at a time
    ready.worker.answer("test", READY_REPORT)
    assert ready.view.connection.state == "ready"


def test_a_wrong_key_is_not_tried_again_and_again(ready: Bench) -> None:
    ready.tick(20)
    ready.worker.fail("overview", "NotAllowedError", "wrong key", state="not_allowed")
    ready.tick(100)
    assert ready.worker.waiting("test") == 0


def test_the_answer_of_an_earlier_address_does_not_count(bench: Bench) -> None:
    bench.flow.connect("http://a:1")
    first = bench.worker.job("test")
    bench.worker.fail("test", "ServerTimeout", "slow", state="busy")
    bench.flow.connect(URL)
    assert first.done is not None
    first.done(ConnectionReport("wrong_app", "late"))
    assert bench.view.connection.state == "connecting"


def test_a_known_server_that_is_busy_can_be_asked_and_another_one_that_is_busy_cannot(ready: Bench) -> None:
    ready.flow.connect(URL)
    ready.worker.answer("test", ConnectionReport("busy", "later"))
    assert ready.view.enabled["next_sample"] == ""
    ready.flow.connect("http://other:8000")
    ready.worker.answer("test", ConnectionReport("busy", "later"))
    ready.flow.next_sample()  # requests would still go to the first one
    assert ready.worker.waiting("next_sample") == 0 and "Connect" in ready.view.message.text


def test_a_case_of_one_server_is_never_submitted_to_another(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.connect("http://other:8000")
    ready.worker.answer("test", replace(READY_REPORT, url="http://other:8000"))
    assert ready.view.connection.state == "wrong_address"
    assert "belongs to" in ready.view.connection.message
    assert ready.flow._context.server["url"] == URL
    ready.flow.submit()
    assert ready.worker.waiting("measure") == 0


# Next sample ---------------------------------------------------------------------------------------------------


def test_a_sample_is_loaded_shown_and_handed_to_the_editor(ready: Bench) -> None:
    ready.fetch()
    assert ready.view.sample.reason == "most unsure"
    assert ready.view.activity is None and not ready.view.edited
    segmentation, volume = ready.screen.editing
    assert volume.image_id == "case_1"
    assert [name.name for name in segmentation.names.values()] == ["head", "tail"]
    assert [row.name for row in ready.view.labels] == ["head", "tail"]


def test_a_second_click_does_nothing_but_say_why(ready: Bench) -> None:
    ready.flow.next_sample()
    ready.flow.next_sample()
    ready.flow.submit()
    ready.flow.auto_segment()
    assert ready.worker.waiting("next_sample") == 1
    assert ready.worker.asked.count("infer") == 0
    assert ready.view.message.level == "warning"


def test_edits_made_while_the_next_case_is_on_its_way_are_kept(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.flow.next_sample()
    ready.draw(rep3d_1=5)
    ready.worker.answer("next_sample", ready.value("case_2"))
    ready.tick()
    ready.draw(rep3d_1=6)
    for _ in range(3):
        ready.tick()
    assert ready.view.sample.id == "case_2"
    assert [row.image_id for row in ready.view.drafts] == ["case_1"]


def test_a_case_whose_label_does_not_fit_leaves_the_case_in_hand(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.tick(3)
    segmentation = ready.screen.editing[0]
    ready.flow.open_case("case_2")
    ready.scene.problem = LocalProblem("It does not fit.")
    ready.worker.answer("open_case", ready.value("case_2", label=ready.inferred().label))
    for _ in range(3):
        ready.tick()
    assert ready.view.sample.id == "case_1" and ready.screen.editing[0] is segmentation
    assert ready.view.activity is None and "does not fit" in ready.view.message.text
    assert ("taken out", "case_2") in ready.scene.log


@pytest.mark.parametrize("kind", ["NoSampleLeft", "ServerUnreachable", "BadAnswer", "HelperEnded", "InternalError"])
def test_a_failed_fetch_leaves_the_case_in_hand_and_the_buttons_usable(ready: Bench, kind: str) -> None:
    ready.fetch("case_1")
    ready.flow.next_sample()
    ready.worker.fail("next_sample", kind, "no luck")
    assert ready.view.sample.id == "case_1"
    assert ready.view.activity is None
    assert ready.view.message.level == ("info" if kind == "NoSampleLeft" else "error")
    assert "no luck" in ready.view.message.text
    assert ready.view.enabled["next_sample"] == ""


def test_a_cancelled_fetch_leaves_the_case_in_hand_also_if_it_arrives_later(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.flow.next_sample()
    job = ready.worker.job("next_sample")
    ready.flow.cancel()
    assert job.dropped and ready.view.activity is None
    assert job.done is not None
    job.done(ready.value("case_2"))
    ready.tick()
    ready.tick()
    assert ready.view.sample.id == "case_1"


def test_cancelling_while_the_image_loads_leaves_the_case_in_hand(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.flow.next_sample()
    ready.worker.answer("next_sample", ready.value("case_2", leased_until="2026-01-01T00:00:00+00:00"))
    ready.tick()
    ready.flow.cancel()
    ready.tick()
    assert ready.scene.loads[-1].cancelled
    assert ready.view.sample.id == "case_1" and ready.view.activity is None
    assert ready.worker.job("release").args["image_id"] == "case_2"


def test_the_case_in_hand_is_not_given_back_when_fetching_it_again_is_cancelled(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.flow.next_sample()
    assert ready.worker.job("next_sample").args["keep"] == ["case_1"]
    ready.worker.answer("next_sample", ready.value("case_1", leased_until="2026-01-01T00:00:00+00:00"))
    ready.tick()
    ready.flow.cancel()
    ready.tick()
    assert ready.scene.loads[-1].cancelled and ready.worker.waiting("release") == 0


def test_edits_are_kept_before_the_next_sample_without_a_question(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.fetch("case_2")
    assert not ready.screen.questions
    assert [draft.image_id for draft in ready.view.drafts] == ["case_1"]
    assert not ready.view.edited


def test_edits_that_cannot_be_kept_are_left_only_after_a_question(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.drafts.folder.parent.joinpath("drafts").write_text("in the way")
    ready.flow.next_sample()
    assert [question.key for question in ready.screen.questions] == ["lose_edits"]
    question, answer = ready.screen.open.pop()
    answer(question.default)
    assert ready.worker.waiting("next_sample") == 0 and ready.view.sample.id == "case_1"
    ready.flow.next_sample()
    ready.screen.open.pop()[1]("lose")
    assert ready.worker.waiting("next_sample") == 1


def test_working_files_of_earlier_cases_are_removed_one_at_a_time(ready: Bench) -> None:
    earlier, strange = ready.folder / "case0", ready.folder / "other.txt"
    earlier.mkdir()
    for name in ("image.nii.gz", "voxels.npy", "label.npy"):
        (earlier / name).write_bytes(b"large")
    strange.write_text("not a case's")
    ready.fetch("case_1")
    for left in (2, 1, 0):
        ready.tick()
        assert len(list(earlier.iterdir())) == left
    ready.tick()
    assert not earlier.exists() and strange.exists()


def test_an_untouched_case_is_given_back_and_a_worked_on_one_is_not(ready: Bench) -> None:
    ready.fetch("case_1").fetch("case_2")
    assert ready.worker.job("release").args["image_id"] == "case_1"
    ready.worker.answer("release")
    ready.draw(rep3d_1=1).fetch("case_3")
    assert ready.worker.waiting("release") == 0


def test_what_is_drawn_while_a_segmentation_is_taken_over_is_kept_first(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.scene.label_steps = 3
    ready.segment()
    assert ready.view.activity.text == "Taking the segmentation over"
    ready.draw(rep3d_1=6)
    ready.tick()
    ready.draw(rep3d_1=8)
    ready.tick()
    ready.tick()
    assert ready.view.activity is None and ready.screen.editing[0].drawn["rep3d_1"] == 7
    assert [draft.image_id for draft in ready.drafts.list()] == ["case_1"]


def test_a_segmentation_is_not_used_when_its_case_goes_while_it_is_taken_over(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.scene.label_steps = 5
    ready.segment()
    ready.scene.going()
    for _ in range(6):
        ready.tick()
    assert ready.view.sample is None and ready.view.activity is None and "too late" in ready.view.message.text


def test_closing_the_scene_while_a_segmentation_is_taken_over(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.scene.label_steps = 5
    ready.segment()
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    for _ in range(6):
        ready.tick()
    assert ready.view.sample is None and ready.view.activity is None
    ready.scene.label_steps = 1
    ready.fetch("case_2").segment()
    assert ready.screen.editing[0].drawn["rep3d_1"] == 7


def test_cancelling_while_a_label_loads_leaves_the_case_in_hand(ready: Bench) -> None:
    ready.fetch("case_1")
    ready.scene.label_steps = 5
    ready.flow.open_case("case_2")
    ready.worker.answer("open_case", ready.value("case_2", label=ready.inferred().label))
    ready.tick()
    ready.flow.cancel()
    ready.tick()
    assert ready.scene.loads[-1].cancelled and ready.view.sample.id == "case_1"


def test_auto_run_segments_a_new_sample_but_not_one_with_a_label_or_unsent_work(ready: Bench) -> None:
    ready.flow.set_options(Options(auto_run=True))
    ready.flow.next_sample()
    ready.worker.answer("next_sample", ready.value("case_1"))
    ready.tick()
    ready.tick()
    ready.tick()
    assert ready.view.activity.name == "auto_segment"
    ready.worker.answer("infer", ready.inferred())
    ready.draw(rep3d_1=9)
    ready.flow.open_case("case_2")
    label = ready.inferred().label
    ready.worker.answer("open_case", ready.value("case_2", label=label))
    ready.tick()
    ready.tick()
    ready.tick()
    assert ready.worker.waiting("infer") == 0
    assert ready.view.labels[0].voxels == 7
    ready.flow.open_case("case_1")
    ready.worker.answer("open_case", ready.value("case_1"))
    ready.tick()
    ready.tick()
    ready.tick()
    assert ready.worker.waiting("infer") == 0 and "unsent work" in ready.view.message.text


# Auto-segment --------------------------------------------------------------------------------------------------


def test_a_segmentation_goes_behind_an_undo_point(ready: Bench) -> None:
    ready.fetch().segment()
    assert ("undo point",) in ready.scene.log
    assert ready.view.sample.source == "model v1" and not ready.view.edited
    assert [(row.voxels, row.ml) for row in ready.view.labels] == [(7, pytest.approx(0.014)), (0, 0.0)]


def test_edits_before_a_segmentation_are_a_draft_of_their_own(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5).segment()
    assert len(ready.drafts.of(URL, "case_1")) == 1
    before = ready.drafts.of(URL, "case_1")[0].key
    ready.draw(rep3d_1=8)
    ready.tick(3)
    assert len(ready.drafts.of(URL, "case_1")) == 2
    assert before in {draft.key for draft in ready.drafts.of(URL, "case_1")}
    assert not ready.screen.questions


def test_without_an_undo_point_it_goes_into_a_new_segmentation(ready: Bench) -> None:
    ready.fetch()
    before = ready.screen.editing[0]
    ready.scene.undo_works = False
    ready.draw(rep3d_1=5).segment()
    assert ready.screen.editing[0] is not before
    assert before.drawn == {"rep3d_1": 5}
    assert "new segmentation" in ready.view.message.text


def test_without_a_draft_on_disk_it_goes_into_a_new_segmentation(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    before = ready.screen.editing[0]
    ready.drafts.folder.write_text("in the way")
    ready.segment()
    assert ready.screen.editing[0] is not before and before.drawn == {"rep3d_1": 5}


def test_edits_made_while_it_is_computed_are_kept_too(ready: Bench) -> None:
    ready.fetch()
    ready.flow.auto_segment()
    ready.draw(rep3d_3=4)
    ready.worker.answer("infer", ready.inferred())
    assert len(ready.drafts.of(URL, "case_1")) == 1


def test_a_segmentation_for_a_case_that_is_gone_is_not_used(ready: Bench) -> None:
    ready.fetch()
    ready.flow.auto_segment()
    job = ready.worker.job("infer")
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    assert job.dropped and ready.view.activity is None and ready.view.sample is None


def test_cancelling_a_segmentation_drops_its_job(ready: Bench) -> None:
    ready.fetch()
    ready.flow.auto_segment()
    ready.flow.cancel()  # the worker tells the server, once, see test_jobs.py
    assert ready.worker.job("infer").dropped and ready.view.activity is None
    assert ready.worker.asked[-1] == "infer"


@pytest.mark.parametrize("kind", ["ServerUnreachable", "ServerTimeout", "BadAnswer", "ConflictError", "HelperEnded"])
def test_a_failed_segmentation_changes_nothing(ready: Bench, kind: str) -> None:
    ready.fetch().draw(rep3d_1=5)
    drawn = dict(ready.screen.editing[0].drawn)
    ready.flow.auto_segment()
    ready.worker.fail("infer", kind, "it broke")
    assert ready.screen.editing[0].drawn == drawn and ready.view.edited
    assert ready.view.activity is None and "it broke" in ready.view.message.text
    assert ready.view.enabled["auto_segment"] == ""


def test_a_scene_that_cannot_take_it_says_so_and_goes_on(ready: Bench) -> None:
    ready.fetch()
    ready.flow.auto_segment()
    ready.scene.problem = LocalProblem("Expected the segmentation in the scene, but it is gone.")
    ready.worker.answer("infer", ready.inferred())
    assert "it is gone" in ready.view.message.text and ready.view.activity is None


def test_a_mistake_of_ours_is_raised_and_leaves_no_grey_button(ready: Bench) -> None:
    ready.fetch()
    ready.flow.auto_segment()
    with pytest.raises(AttributeError):
        ready.worker.answer("infer", ())
    assert ready.view.activity is None and ready.view.enabled["auto_segment"] == ""


def test_without_a_trained_model_the_button_says_what_to_do(bench: Bench) -> None:
    info = replace(INFO, models={"rep3d": replace(MODEL, version=None)})
    bench.flow.connect(URL)
    bench.worker.answer("test", replace(READY_REPORT, info=info))
    bench.tick()
    bench.worker.answer("overview", overview(version=None))
    bench.fetch()
    assert "Train" in bench.view.enabled["auto_segment"]
    bench.flow.auto_segment()
    assert bench.worker.waiting("infer") == 0 and "Train" in bench.view.message.text


def test_uncertainty_is_shown_on_request_and_places_are_visited_in_turn(ready: Bench) -> None:
    ready.fetch()
    peaks = (Peak((1.0, 2.0, 3.0), 0.6), Peak((4.0, 5.0, 6.0), 0.5))
    ready.segment(uncertainty=VOLUME, peaks=peaks)
    assert ready.view.activity is not None  # it is still being loaded
    ready.tick()
    ready.tick()
    assert ready.view.activity is None
    assert ready.view.uncertainty.available and not ready.view.uncertainty.visible
    ready.flow.show_uncertainty(True)
    assert ready.scene.log[-1] == ("overlay", True)
    for _ in range(3):
        ready.flow.jump_to_uncertain()
    jumps = [entry[1] for entry in ready.scene.log if entry[0] == "jump"]
    assert jumps == [(1.0, 2.0, 3.0), (4.0, 5.0, 6.0), (1.0, 2.0, 3.0)]
    ready.fetch("case_2")
    assert ("overlay removed",) in ready.scene.log and not ready.view.uncertainty.available


# Editing and drafts --------------------------------------------------------------------------------------------


def test_edits_are_on_disk_within_seconds_and_measured(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    assert ready.view.edited and not ready.drafts.list()
    ready.tick(1)
    assert not ready.drafts.list()
    ready.tick(1.5)
    assert len(ready.drafts.list()) == 1
    ready.worker.answer("measure", ready.measured(counts={1: 5, 3: 0}))
    assert ready.view.labels[0].voxels == 5 and ready.view.draft_time


def test_continuous_editing_is_kept_every_few_seconds(ready: Bench) -> None:
    ready.fetch()
    for _ in range(20):
        ready.draw(rep3d_1=5)
        ready.tick(1)
    assert len(ready.drafts.list()) == 1


def test_a_full_disk_is_told_once_in_a_while_and_tried_again(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.drafts.folder.write_text("in the way")
    ready.tick(3)
    assert "only in this window" in ready.view.message.text
    number = ready.view.message.number
    ready.tick(1)
    assert ready.view.message.number == number
    ready.drafts.folder.unlink()
    ready.tick(30)
    assert len(ready.drafts.list()) == 1


def test_closing_the_scene_keeps_the_edits_and_offers_them_again(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    assert ready.view.sample is None and not ready.view.edited
    assert [row.image_id for row in ready.view.drafts] == ["case_1"]
    assert "case_1" in ready.view.message.text
    ready.flow.restore_draft(ready.view.drafts[0].key)
    ready.worker.answer("open_case", ready.value("case_1"))
    ready.tick()
    ready.tick()
    ready.tick()
    assert ready.view.edited and ready.view.sample.source.startswith("unsent work")
    assert not ready.view.drafts  # it is in hand now


def test_a_label_on_its_way_can_be_given_up_but_not_while_a_question_is_open(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.submit()
    assert ready.view.enabled["cancel"]
    ready.worker.answer("measure", ready.measured())
    job = ready.worker.job("submit")
    assert not ready.view.enabled["cancel"]
    ready.flow.cancel()
    assert job.dropped and ready.view.activity is None and ready.view.edited and ready.view.message.level == "warning"
    ready.worker.answer("submit", SubmittedLabel("case_1"))  # nobody waits for it any more
    assert ready.view.edited and len(ready.drafts.list()) == 1
    ready.draw(rep3d_1=6).tick(3)
    assert len(ready.drafts.list()) == 1
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    ready.worker.fail("submit", "ConflictError", "lent", detail="lent to ben")
    assert ready.view.enabled["cancel"]
    ready.screen.open.pop()[1]("submit")
    assert not ready.view.enabled["cancel"]
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    assert not ready.view.edited and not ready.drafts.list()


def test_a_restored_draft_goes_when_its_label_was_submitted(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    ready.flow.restore_draft(ready.view.drafts[0].key)
    ready.worker.answer("open_case", ready.value("case_1"))
    ready.tick()
    ready.tick()
    ready.tick()
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    assert not ready.drafts.list() and not ready.view.edited


def test_a_draft_of_another_server_is_not_opened_here(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    key = ready.view.drafts[0].key
    path = ready.drafts.folder / f"{key}.json"
    path.write_text(path.read_text().replace(URL, "http://elsewhere"))
    ready.flow.restore_draft(key)
    assert ready.worker.waiting("open_case") == 0 and "elsewhere" in ready.view.message.text


def test_a_damaged_draft_is_told_and_stays(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    key = ready.view.drafts[0].key
    ready.drafts.path(key).write_bytes(b"garbage")
    ready.flow.restore_draft(key)
    assert ready.view.message.level == "error" and ready.view.activity is None
    (row,) = ready.view.drafts
    assert ready.drafts.path(row.key).read_bytes() == b"garbage"


@pytest.mark.skipif(not Path("/proc/self/maps").exists(), reason="/proc tells which files are mapped")
def test_a_restored_draft_is_not_held_open(ready: Bench) -> None:
    """On Windows it could not be written again."""
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    ready.fetch("case_2").draw(rep3d_1=5)  # is kept before the draft comes
    ready.flow.restore_draft(ready.view.drafts[0].key)
    assert ".seg.nrrd" in Path("/proc/self/maps").read_text()
    ready.worker.answer("open_case", ready.value("case_1"))
    ready.tick()
    ready.tick()
    ready.tick()
    assert ready.view.sample.id == "case_1" and ".seg.nrrd" not in Path("/proc/self/maps").read_text()


@pytest.fixture
def second(ready: Bench, tmp_path: Path) -> Bench:
    """Another Slicer of the same user, after he has drawn in the first one."""
    folder = tmp_path / "other"
    folder.mkdir()
    ready.fetch("case_1").draw(rep3d_1=5).tick(3)
    other = Bench(folder).connect()
    other.drafts.folder = ready.drafts.folder
    other.tick()
    return other


def restore(bench: Bench) -> None:
    bench.flow.restore_draft(bench.drafts.list()[0].key)
    bench.worker.answer("open_case", bench.value("case_1"))
    bench.tick()
    bench.tick()
    bench.tick()
    assert bench.view.sample.id == "case_1" and bench.view.edited


def test_work_that_another_slicer_has_taken_over_is_kept_here_too(ready: Bench, second: Bench) -> None:
    restore(second)
    assert len(ready.drafts.list()) == 1
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    assert len(ready.drafts.list()) == 2 and "kept as unsent work" in ready.view.message.text


def test_work_that_another_slicer_has_taken_over_is_written_again_at_once(ready: Bench, second: Bench) -> None:
    restore(second)
    (taken,) = ready.drafts.list()
    ready.tick(1)
    (mine,) = {draft.key for draft in ready.drafts.list()} - {taken.key}
    second.drafts.discard(mine)
    assert len(ready.drafts.list()) == 1
    ready.flow.next_sample()
    assert {draft.key for draft in ready.drafts.list()} == {taken.key, mine}


def test_while_a_label_is_sent_no_other_draft_is_written_without_edits(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    ready.tick(30)
    assert len(ready.drafts.list()) == 1
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    ready.tick(30)
    assert not ready.drafts.list()


def test_unsent_work_is_not_replaced_by_an_empty_case_when_its_question_comes_too_late(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5).tick(3)
    ready.fetch("case_2").draw(rep3d_1=5)
    key = next(draft.key for draft in ready.drafts.list())
    ready.scene.problem = LocalProblem("no room")
    ready.flow.restore_draft(key)
    (_, answer) = ready.screen.open.pop()
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    answer("lose")
    assert ready.worker.waiting("open_case") == 0 and "restore it again" in ready.view.message.text


def test_a_draft_is_not_held_open_when_its_case_cannot_be_fetched(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    for number in range(2, 6):
        (ready.folder / f"case{number}").write_text("in the way")
    ready.flow.restore_draft(ready.view.drafts[0].key)
    assert ready.view.activity is None and ready.view.message.level == "error"
    assert ready.flow._sampling._unsent is None and len(ready.view.drafts) == 1


def test_a_case_with_unsent_work_stays_lent_when_opening_it_is_cancelled(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5).tick(3)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    ready.flow.open_case("case_1")
    assert ready.worker.job("open_case").args["keep"] == ["case_1"]
    ready.worker.answer("open_case", ready.value("case_1", leased_until="2026-01-01T00:00:00+00:00"))
    ready.tick()
    ready.flow.cancel()
    ready.tick()
    assert ready.scene.loads[-1].cancelled and ready.worker.waiting("release") == 0


def test_a_case_that_is_opened_again_is_not_given_back_late(ready: Bench) -> None:
    ready.fetch("case_1").fetch("case_2")
    late = ready.worker.job("release")
    assert late.args["image_id"] == "case_1"
    ready.flow.open_case("case_1")
    assert late.dropped


def test_an_activity_is_ended_by_nothing_that_began_before_it(ready: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("Rep3DLabelLib.workflow.editing._LARGE", 0)  # writes from the next tick on
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.flow.submit()
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    ready.flow.next_sample()
    ready.tick()
    ready.tick()
    assert ready.view.activity.name == "next_sample"


def test_nothing_keeps_a_submitted_case_in_memory(ready: Bench) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    work = weakref.ref(ready.flow._context.work)
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    ready.fetch("case_2").tick()
    gc.collect()
    assert work() is None


def test_edits_whose_draft_is_being_written_when_sending_is_given_up_go_into_one_draft(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.fetch("case_1").draw(rep3d_1=5)
    ready.flow.submit()
    ready.worker.answer("measure", ready.measured())
    monkeypatch.setattr("Rep3DLabelLib.workflow.editing._LARGE", 0)
    ready.draw(rep3d_1=6).tick(3)  # begins to write
    ready.flow.cancel()
    ready.tick(3)
    ready.tick(3)
    ready.tick(3)
    assert len(ready.drafts.list()) == 1 and ready.view.draft_time


def test_two_who_have_the_same_draft_in_hand_do_not_write_over_each_other(ready: Bench, tmp_path: Path) -> None:
    other = tmp_path / "other"
    other.mkdir()
    first = ready.fetch("case_1").draw(rep3d_1=5)
    first.tick(3)
    (kept,) = first.drafts.list()
    second = Bench(other).connect()
    second.drafts.folder = first.drafts.folder  # another Slicer of the same user
    second.flow.tick()
    second.flow.restore_draft(kept.key)
    second.worker.answer("open_case", second.value("case_1"))
    second.tick()
    second.tick()
    second.tick()
    assert second.view.sample.id == "case_1"
    first.draw(rep3d_1=6).tick(3)
    second.draw(rep3d_1=7).tick(3)
    keys = {draft.key for draft in first.drafts.list()}
    assert len(keys) == 2 and kept.key in keys
    second.flow.submit()
    second.worker.answer("measure", second.measured())
    second.worker.answer("submit", SubmittedLabel("case_1"))
    assert [draft.key for draft in first.drafts.list()] == [kept.key]


def test_discarding_asks_and_puts_the_file_aside(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.scene_closing()
    ready.flow.scene_closed()
    key = ready.view.drafts[0].key
    ready.flow.discard_draft(key)
    ready.screen.open.pop()[1]("keep")
    assert ready.view.drafts
    ready.screen.answers["discard_draft"] = "discard"
    ready.flow.discard_draft(key)
    assert not ready.view.drafts
    assert (ready.drafts.folder / "discarded" / f"{key}.seg.nrrd").exists()


def test_the_end_of_a_session_keeps_edits_and_ends_what_was_started(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.shutdown()
    assert len(ready.drafts.list()) == 1 and ready.worker.closed
    assert ready.worker.waiting("release") == 0


# Submit --------------------------------------------------------------------------------------------------------


def _submit(bench: Bench, **measured: object) -> None:
    bench.flow.submit()
    bench.worker.answer("measure", bench.measured(**measured))


def test_a_label_is_made_on_the_image_and_sent_by_name(ready: Bench) -> None:
    ready.fetch().segment().draw(rep3d_1=5)
    _submit(ready)
    params = ready.worker.job("submit").args["params"]
    assert params == {
        "label_info": [{"name": "head", "idx": 1}, {"name": "tail", "idx": 3}],
        "model_version": "v1",
    }
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    assert not ready.view.edited and not ready.drafts.list()
    assert "Submitted case_1" in ready.view.message.text
    assert len(list((ready.drafts.folder / "sent").glob("*.seg.nrrd"))) == 1


def test_values_follow_names_whatever_the_order_of_segments(ready: Bench) -> None:
    ready.fetch()
    node: FakeNode = ready.screen.editing[0]
    node.names = dict(reversed(node.names.items()))
    ready.draw(rep3d_1=5)
    ready.flow.submit()
    job = ready.worker.job("measure")
    assert job.args["values"] == {"rep3d_3": 3, "rep3d_1": 1}
    assert job.args["priority"] == ["rep3d_3", "rep3d_1"]


@pytest.mark.parametrize(
    "kind", ["ServerUnreachable", "ConnectionCut", "ServerTimeout", "InvalidRequestError", "HelperEnded"]
)
def test_a_failed_submission_loses_nothing_and_can_be_repeated(ready: Bench, kind: str) -> None:
    ready.fetch().draw(rep3d_1=5)
    _submit(ready)
    ready.worker.fail("submit", kind, "not taken")
    assert ready.view.edited and len(ready.drafts.list()) == 1
    assert ready.view.activity is None and "not taken" in ready.view.message.text
    _submit(ready)
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    assert not ready.view.edited


def test_without_a_draft_nothing_is_sent(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.drafts.folder.write_text("in the way")
    ready.flow.submit()
    assert ready.worker.waiting("measure") == 0
    assert ready.view.activity is None and ready.view.edited and "Nothing was sent" in ready.view.message.text


def test_edits_made_while_it_is_sent_stay_edits(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    _submit(ready)
    ready.draw(rep3d_1=6)
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    assert ready.view.edited
    ready.tick(3)
    assert len(ready.drafts.list()) == 1


def test_what_is_sent_is_not_written_over_by_edits_made_meanwhile(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    ready.flow.submit()
    job = ready.worker.job("measure")
    draft = Path(job.args["draft"])
    before = draft.read_bytes()
    ready.screen.editing[0].names["mine"] = SegmentName("mine", "vessel")
    ready.draw(mine=3)
    ready.tick(3)
    assert draft.read_bytes() == before and len(ready.drafts.list()) == 2
    assert job.done is not None
    job.done(ready.measured())
    assert ready.worker.job("submit").args["draft"] == str(draft)
    ready.worker.fail("submit", "ServerUnreachable")
    assert len(ready.drafts.list()) == 2 and ready.view.edited  # neither state is lost


def test_a_large_draft_is_written_a_little_at_each_tick_and_the_latest_state_wins(
    ready: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    ready.fetch().draw(rep3d_1=5)
    written = ready.write_slowly(monkeypatch)
    ready.tick(3)
    assert not written
    ready.flow.submit()  # takes the place of what was being written
    assert ready.view.activity.name == "submit" and ready.worker.waiting("measure") == 0
    for _ in range(6):
        ready.tick()
    assert len(written) == 1 and ready.worker.waiting("measure") == 1


def test_overlaps_are_told_before_anything_is_flattened(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    overlap = Overlap("rep3d_1", "rep3d_3", 12)
    _submit(ready, overlaps=(overlap,))
    question, answer = ready.screen.open.pop()
    assert question.key == "overlaps" and "12 voxels" in question.text and "'head' and 'tail'" in question.text
    assert ready.worker.waiting("submit") == 0
    answer("back")
    assert ready.worker.waiting("submit") == 0 and ready.view.edited and ready.view.activity is None
    ready.screen.answers["overlaps"] = "submit"
    _submit(ready, overlaps=(overlap,))
    assert ready.worker.waiting("submit") == 1


def test_an_empty_label_and_voxels_outside_are_asked_about(ready: Bench) -> None:
    ready.fetch()
    ready.screen.answers.update(empty="submit", outside="submit")
    _submit(ready, counts={1: 0, 3: 0})
    assert ready.worker.job("submit").args["params"]["empty"] is True
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    _submit(ready, outside=4)
    assert "4 voxels" in ready.screen.questions[-1].text
    assert "empty" not in ready.worker.job("submit").args["params"]


def test_segments_that_are_no_labels_are_named_before_they_are_left_out(ready: Bench) -> None:
    ready.fetch()
    node = ready.screen.editing[0]
    node.names["mine"] = SegmentName("mine", "vessel")
    node.names["idle"] = SegmentName("idle", "never drawn")
    ready.draw(rep3d_1=5, mine=3)
    ready.flow.submit()
    question, answer = ready.screen.open.pop()
    assert "vessel" in question.text and "never drawn" not in question.text
    assert ready.worker.waiting("measure") == 0
    answer("leave_out")
    assert ready.worker.job("measure").args["values"] == {"rep3d_1": 1, "rep3d_3": 3}


def test_a_segment_renamed_to_another_label_is_not_guessed_at(ready: Bench) -> None:
    ready.fetch()
    node = ready.screen.editing[0]
    node.names["rep3d_1"] = SegmentName("rep3d_1", "Tail", "head")
    ready.draw(rep3d_1=5)
    ready.flow.submit()
    assert ready.worker.waiting("measure") == 0
    assert "made for the label 'head'" in ready.view.message.text and ready.view.edited


def test_a_lent_case_is_submitted_only_if_the_user_says_so(ready: Bench) -> None:
    ready.fetch().draw(rep3d_1=5)
    _submit(ready)
    ready.worker.fail("submit", "ConflictError", "409", detail="image case_1 is lent to anna")
    ready.screen.open.pop()[1]("submit")
    assert ready.worker.job("submit").args["params"]["override_lease"] is True


def test_auto_advance_fetches_the_next_one(ready: Bench) -> None:
    ready.flow.set_options(Options(auto_advance=True))
    ready.fetch().draw(rep3d_1=5)
    _submit(ready)
    ready.worker.answer("submit", SubmittedLabel("case_1"))
    assert ready.worker.waiting("next_sample") == 1


# Training, versions, batch, cases ------------------------------------------------------------------------------


def _poll(bench: Bench, **value: object) -> None:
    bench.tick(11)
    bench.worker.answer("overview", overview(**value))


def test_a_training_is_watched_to_its_end_and_the_decision_is_told(ready: Bench) -> None:
    ready.flow.train()
    ready.flow.train()
    assert ready.worker.waiting("train_start") == 1
    assert ready.view.training.state == "submitted" and ready.view.training.progress == 0
    ready.worker.answer("train_start", TrainStatus("submitted"))
    running = TrainStatus(
        "running",
        progress=0.4,
        iteration=40,
        iterations=100,
        loss=0.5,
        eta_seconds=30,
        losses=((10, 0.9), (40, 0.5)),
        validations=((40, 0.7),),
        validation={"head": 0.6, "tail": 0.8},
        phase="validating",
        device="cpu",
    )
    _poll(ready, train=running)
    training = ready.view.training
    assert (training.progress, training.eta_seconds, training.loss) == (0.4, 30, 0.5)
    assert training.dice == pytest.approx(0.7) and training.losses == ((10, 0.9), (40, 0.5))
    assert ("curves", 2, 1) in ready.scene.log
    ready.flow.show_curves()
    assert ready.screen.charts == ["chart"]
    assert training.headline == "Measuring on the held-out cases, step 40 of 100, cpu"
    done = replace(running, state="done", progress=1.0, version_made="v2", reason="it is better")
    _poll(ready, train=done, version="v2")
    assert "v2. It is better. " in ready.view.message.text and "in use now" in ready.view.message.text
    assert ready.view.models[0].version == "v2"
    assert ready.worker.waiting("versions") == 1


def test_resume_goes_on_with_what_was_stopped_or_says_why_not(ready: Bench) -> None:
    _poll(ready, train=TrainStatus("stopped", resumable=True))
    ready.flow.train()
    assert ready.worker.job("train_start").args["settings"] == {"resume": True}
    ready.worker.fail("train_start", "ConflictError", "its labels changed since")
    assert "its labels changed since" in ready.view.message.text and ready.view.training.resumable
    ready.flow.train()
    ready.worker.answer("train_start", TrainStatus("submitted"))
    assert "goes on" in ready.view.message.text
    _poll(ready, train=TrainStatus("done", progress=1.0))
    ready.flow.train()
    assert ready.worker.job("train_start").args["settings"] == {}


def test_a_training_that_can_be_resumed_is_given_up_only_after_a_question(ready: Bench) -> None:
    assert "press Train" in ready.view.enabled["train_anew"]
    _poll(ready, train=TrainStatus("idle", resumable=True))
    ready.flow.train_anew()
    question, answer = ready.screen.open.pop()
    assert question.default == "keep" and "gives it up" in question.text
    answer("keep")
    assert ready.worker.waiting("train_start") == 0
    ready.screen.answers["train_anew"] = "anew"
    ready.flow.train_anew()
    assert ready.worker.job("train_start").args["settings"] == {"resume": False}


def test_a_version_that_was_not_published_is_told_as_such(ready: Bench) -> None:
    ready.flow.train()
    ready.worker.answer("train_start", TrainStatus("submitted"))
    _poll(ready, train=TrainStatus("running", progress=0.1))
    _poll(ready, train=TrainStatus("done", progress=1.0, version_made="v2", reason="it is worse"))
    assert "v2. It is worse. " in ready.view.message.text and "stays v1" in ready.view.message.text


def test_an_error_of_the_training_is_told_in_words_and_never_as_complete(ready: Bench) -> None:
    ready.flow.train()
    ready.worker.answer("train_start", TrainStatus("submitted"))
    _poll(ready, train=TrainStatus("running", progress=0.99))
    _poll(ready, train=TrainStatus("error", progress=0.99, error="out of memory"))
    assert "out of memory" in ready.view.message.text and ready.view.training.progress < 1
    assert ready.view.enabled["train"] == ""


def test_a_refused_training_gives_the_button_back(ready: Bench) -> None:
    ready.flow.train()
    ready.worker.fail("train_start", "ConflictError", "no labelled case")
    assert ready.view.training.error == "no labelled case" and ready.view.enabled["train"] == ""


def test_the_server_is_asked_one_question_at_a_time(ready: Bench) -> None:
    for _ in range(10):
        ready.tick(20)
    assert ready.worker.waiting("overview") == 1


def test_what_keeps_a_server_from_saving_is_told_once(ready: Bench) -> None:
    _poll(ready, problems=("The disk is full.",), left_out=("a.nrrd: No NIfTI.",))
    assert (ready.view.message.level, ready.view.message.text) == ("warning", "The disk is full.")
    assert ready.view.left_out == ("a.nrrd: No NIfTI.",)
    number = ready.view.message.number
    _poll(ready, problems=("The disk is full.",))
    assert ready.view.message.number == number and ready.view.left_out == ()


def test_publishing_and_rolling_back(ready: Bench) -> None:
    versions = (Version("v1", True), Version("v2", mean_score=0.81, cases=2))
    _poll(ready, versions_stamp="b")
    ready.worker.answer("versions", versions)
    assert [(row.version, row.dice, row.cases) for row in ready.view.versions] == [("v2", 0.81, 2), ("v1", None, 0)]
    ready.flow.publish("v2")
    ready.worker.answer("publish", Version("v2", True))
    assert "v2 is in use" in ready.view.message.text
    ready.worker.answer("versions", versions)
    ready.flow.roll_back()
    ready.worker.fail("roll_back", "ConflictError", "there is none before")
    assert "there is none before" in ready.view.message.text


@pytest.mark.parametrize(("before", "level"), [("running", "warning"), ("stopping", "info")])
def test_a_batch_that_stops_without_being_told_to_is_a_warning(ready: Bench, before: str, level: str) -> None:
    ready.flow.start_batch()
    ready.worker.answer("batch_start", BatchStatus("running", total=4))
    _poll(ready, batch=BatchStatus(before, done=2, total=4))
    _poll(ready, batch=BatchStatus("stopped", done=2, total=4, error="start it again to go on"))
    assert ready.view.message.level == level and "2 of 4 segmented: start it again" in ready.view.message.text


def test_a_batch_shows_its_progress_and_what_failed(ready: Bench) -> None:
    ready.flow.start_batch()
    ready.flow.start_batch()
    assert ready.worker.waiting("batch_start") == 1
    ready.worker.answer("batch_start", BatchStatus("running", total=4))
    _poll(ready, batch=BatchStatus("running", done=2, total=4))
    assert (ready.view.batch.done, ready.view.batch.total) == (2, 4)
    _poll(ready, batch=BatchStatus("done", done=3, total=4, failed={"case_9": "cannot be read"}))
    assert ready.view.message.level == "warning" and "cannot be read" in ready.view.message.text


def test_the_case_list_is_read_on_request_and_kept_true(ready: Bench) -> None:
    _poll(ready, cases_stamp="b")
    assert ready.worker.waiting("cases") == 0
    ready.flow.refresh_cases()
    case = Case("case_1", "submitted", author="anna", labels={"head": 1.234}, dice=0.8, role="training")
    ready.worker.answer("cases", (case,))
    row = ready.view.cases[0]
    assert (row.id, row.author, row.labels, row.has_label) == ("case_1", "anna", "head 1.23 ml", True)
    assert (row.dice, row.role) == (0.8, "training")
    _poll(ready, cases_stamp="c")
    assert ready.worker.waiting("cases") == 1


def test_an_earlier_label_is_made_current_and_opened(ready: Bench) -> None:
    got: list[tuple[HistoryRow, ...]] = []
    ready.flow.history("case_1", got.append)
    entries = (HistoryEntry(None, "final", "ben", "", "current"), HistoryEntry("x", "final", reason="replaced"))
    ready.worker.answer("history", (*entries, HistoryEntry("y", "final", reason="original")))
    assert [(row.entry, row.restorable) for row in got[0]] == [("", False), ("x", True), ("y", False)]
    assert got[0][0].text == "ben, final, present label"
    ready.flow.restore_label("case_1", "x")
    ready.worker.answer("restore", SubmittedLabel("case_1"))
    assert ready.worker.waiting("open_case") == 1


def test_a_review_is_recorded_and_taken_back(ready: Bench) -> None:
    ready.flow.refresh_cases()
    ready.worker.answer("cases", (Case("case_1", "submitted", score=0.5), Case("case_2", "new")))
    for done, state in ((True, "reviewed"), (False, "submitted")):
        ready.flow.review("case_1")
        ready.flow.review("case_1")  # a second click
        assert ready.worker.waiting("review") == 1
        assert ready.worker.answer("review", Case("case_1", state)).args["done"] is done
        assert [(row.id, row.state, row.score) for row in ready.view.cases] == [
            ("case_1", state, 0.5),
            ("case_2", "new", None),
        ]
    ready.flow.review("case_1")
    ready.worker.fail("review", "ConflictError", "it has no label")
    assert "it has no label" in ready.view.message.text and ready.view.cases[0].state == "submitted"


# Uploads, local server -----------------------------------------------------------------------------------------


def test_a_volume_of_the_scene_becomes_a_case(ready: Bench) -> None:
    ready.flow.upload_volume(FakeNode("CT Abdomen: 3 mm"), "")
    ready.tick()
    assert ready.worker.job("upload_image").args["image_id"] == "CT_Abdomen_3_mm"
    ready.worker.answer("upload_image", Sample("CT_Abdomen_3_mm", "CT_Abdomen_3_mm"))
    assert ready.worker.job("open_case").args["image_id"] == "CT_Abdomen_3_mm"


def test_an_upload_without_a_volume_or_of_one_that_cannot_be_is_told(ready: Bench) -> None:
    ready.flow.upload_volume(None)
    assert "Choose a volume" in ready.view.message.text
    ready.scene.problem = LocalProblem("Expected a scalar volume.")
    ready.flow.upload_volume(FakeNode("a"))
    assert "Expected a scalar volume" in ready.view.message.text and ready.view.activity is None


def test_a_dicom_folder_is_sent_and_what_failed_is_told(ready: Bench) -> None:
    ready.flow.upload_dicom("/data/series")
    ready.worker.answer(
        "upload_dicom", DicomUpload(("a",), ("c",), (("b", "no geometry"),), (("a", "text is burnt in"),))
    )
    assert (
        "New on the server: a." in ready.view.message.text
        and "Already there: c." in ready.view.message.text
        and "no geometry" in ready.view.message.text
        and "a may show its patient's name: text is burnt in." in ready.view.message.text
    )


class _Local:
    """A local server that a test moves from state to state."""

    def __init__(self) -> None:
        self.state, self.url, self.message = "starting", "http://127.0.0.1:9", ""
        self.lines: list[str] = []

    def start(self) -> None:
        """Note that it has been started."""

    def stop(self) -> None:
        self.state = "stopping"

    def poll(self) -> str:
        return self.state

    def log_lines(self, count: int) -> list[str]:
        return self.lines[-count:]


def test_a_local_server_is_connected_to_when_it_is_ready(bench: Bench) -> None:
    local = _Local()
    bench.locals.append(local)
    bench.flow.start_local_server("python", "app", "studies", "a,b")
    assert bench.view.local.state == "starting" and bench.settings.local.labels == "a,b"
    assert bench.worker.waiting("test") == 0
    local.state, local.lines = "running", ["ready"]
    bench.tick()
    assert bench.worker.job("test").args["server"]["url"] == local.url
    assert bench.view.local.log == ("ready",)
    bench.flow.stop_local_server()
    local.state = "stopped"
    bench.tick()
    assert bench.view.local.state == "stopped" and "has ended" in bench.view.message.text


def test_a_local_server_that_does_not_start_is_told_in_its_own_words(bench: Bench) -> None:
    local = _Local()
    bench.locals.append(local)
    bench.flow.start_local_server("python", "app", "studies", "")
    local.state, local.message = "failed", "no labels are known"
    bench.tick()
    assert "no labels are known" in bench.view.message.text and bench.view.enabled["start_local_server"] == ""


def test_a_server_that_outlived_its_slicer_is_connected_to_and_can_be_stopped(tmp_path: Path) -> None:
    local = _Local()
    local.state = "running"
    bench = Bench(tmp_path, left=local)
    bench.tick()
    assert bench.worker.job("test").args["server"]["url"] == local.url
    bench.flow.stop_local_server()
    assert bench.view.local.state == "stopping"


# Rules ---------------------------------------------------------------------------------------------------------


def test_every_command_has_a_rule_and_is_refused_where_it_is_not_enabled(bench: Bench) -> None:
    assert set(rules.enabled(bench.view)) == set(COMMANDS)
    calls: dict[str, Callable[[], None]] = {
        "next_sample": bench.flow.next_sample,
        "auto_segment": bench.flow.auto_segment,
        "cancel": bench.flow.cancel,
        "submit": bench.flow.submit,
        "train": bench.flow.train,
        "train_anew": bench.flow.train_anew,
        "stop_training": bench.flow.stop_training,
        "publish": lambda: bench.flow.publish("v1"),
        "roll_back": bench.flow.roll_back,
        "start_batch": bench.flow.start_batch,
        "stop_batch": bench.flow.stop_batch,
        "refresh_cases": bench.flow.refresh_cases,
        "open_case": lambda: bench.flow.open_case("a"),
        "restore_label": lambda: bench.flow.restore_label("a", "b"),
        "review": lambda: bench.flow.review("a"),
        "upload_volume": lambda: bench.flow.upload_volume(FakeNode("a")),
        "upload_dicom": lambda: bench.flow.upload_dicom("/a"),
        "show_uncertainty": lambda: bench.flow.show_uncertainty(True),
        "jump_to_uncertain": bench.flow.jump_to_uncertain,
        "show_curves": bench.flow.show_curves,
        "restore_draft": lambda: bench.flow.restore_draft("a"),
        "stop_local_server": bench.flow.stop_local_server,
    }
    for name, call in calls.items():
        assert bench.view.enabled[name], name
        call()
        assert bench.view.message.text == bench.view.enabled[name], name
    assert not bench.worker.asked
