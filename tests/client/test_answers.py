"""What the client makes of the server's JSON: label values, and a training's state that says no more than is true."""

from __future__ import annotations

import pytest
from Rep3DLabelLib.client.answers import parse_info, parse_segmentation
from Rep3DLabelLib.client.answers_cases import parse_case
from Rep3DLabelLib.client.answers_status import parse_state
from Rep3DLabelLib.client.answers_train import TrainStatus, parse_task, parse_train
from Rep3DLabelLib.client.answers_versions import parse_version
from Rep3DLabelLib.connection import report_of_info
from Rep3DLabelLib.errors import BadAnswer, WrongAppError
from Rep3DLabelLib.workflow.segmenting import _headline


def train(state, stats, stale=None, error=""):
    return parse_train(TrainStatus(state, "t", error), stats, stale)


@pytest.mark.parametrize(
    "labels",
    [["Anterior"], {"A": 0}, {"A": -1}, {"A": 1.0}, {"A": "1"}, {"A": True}, {"A": None}, {"A": 1, "B": 1}],
)
def test_an_unusable_label_map_is_refused(labels):
    with pytest.raises(BadAnswer, match="labels cannot be used"):
        parse_info({"models": {"rep3d": {}}, "rep3d": {"labels": labels}}, "rep3d")


def test_labels_come_from_the_apps_own_block_first():
    answer = {"models": {"rep3d": {"labels": {"A": 1}}}, "rep3d": {"labels": {"B": 2}}}
    assert parse_info(answer, "rep3d").labels == {"B": 2}
    assert parse_info({"models": answer["models"]}, "rep3d").labels == {"A": 1}


def test_a_server_without_a_published_model_is_still_ours():
    info = parse_info({"models": {}, "rep3d": {"labels": {"A": 1}, "version": None}}, "rep3d")
    assert info.published_version is None and info.models == {} and info.total == 0


def test_a_damaged_model_is_told():
    info = parse_info({"models": {}, "rep3d": {"labels": {}, "error": "weights are not finite"}}, "rep3d")
    assert info.model_error == "weights are not finite" and info.model_error in report_of_info(info).message


@pytest.mark.parametrize("answer", [None, [], "x", {}, {"models": []}, {"models": {}}, {"models": {"deepedit": {}}}])
def test_other_servers_are_refused(answer):
    with pytest.raises(WrongAppError):
        parse_info(answer, "rep3d")


@pytest.mark.parametrize("answer", [None, [], {}, {"status": 3}])
def test_what_is_no_task_is_refused(answer):
    with pytest.raises(BadAnswer):
        parse_task(answer)


def test_a_task_state_that_is_not_known():
    assert parse_task({"status": "PAUSED"}).state == "unknown"
    assert not parse_task({"status": "PAUSED"}).is_active


@pytest.mark.parametrize(
    ("lines", "error"),
    [
        (["x", "rep3d.errors.NoCasesError: No label.", "cleanup"], "NoCasesError: No label."),
        (["ValueError: first", "KeyError: 'second'"], "KeyError: 'second'"),
        (["[INFO] no Error here", "Killed"], "The process ended with an error; its last line was: Killed"),
        ([], "The process ended with an error before it wrote anything; look at the server's log."),
    ],
)
def test_an_error_is_put_into_words(lines, error):
    assert parse_task({"status": "ERROR", "details": lines}).error == error
    assert parse_task({"status": "DONE", "details": lines}).error == ""


@pytest.mark.parametrize("state", ["idle", "submitted", "running", "error", "stopped", "unknown"])
@pytest.mark.parametrize("iteration", [0, 1, 99, 100, 101, 10**9])
@pytest.mark.parametrize("stale", [None, True, False])
@pytest.mark.parametrize("phase", ["training", "done"])
def test_only_a_training_that_is_done_is_at_100_percent(state, iteration, stale, phase):
    status = train(state, {"phase": phase, "iteration": iteration, "iterations": 100}, stale)
    assert 0.0 <= status.progress < 1.0
    done = train("done", {"phase": phase, "iteration": iteration, "iterations": 100}, stale)
    assert (done.state, done.progress) == ("done", 1.0)


def test_numbers():
    stats = {"phase": "training", "iteration": 30, "iterations": 40, "loss": 0.5, "eta_seconds": 9, "device": "cuda"}
    status = train("running", stats)
    assert (status.progress, status.iteration, status.iterations, status.loss) == (0.75, 30, 40, 0.5)
    assert (status.eta_seconds, status.device, status.phase) == (9.0, "cuda", "training")
    assert train("stopped", stats).eta_seconds is None
    told = {"forecast": "about 9 steps", "resolution": " 2 mm ", "shortfall": None}
    assert train("running", {**stats, **told}).notes == ("2 mm", "about 9 steps")
    assert train("running", stats).notes == ()


@pytest.mark.parametrize("bad", [None, "x", float("nan"), float("inf"), True, [1]])
def test_numbers_that_are_none(bad):
    status = train("running", {"iteration": bad, "iterations": bad, "loss": bad, "eta_seconds": bad})
    assert (status.progress, status.iteration, status.iterations) == (0.0, None, None)
    assert (status.loss, status.eta_seconds) == (None, None)
    assert train("running", {"iteration": 1, "iterations": 0}).progress == 0.0


@pytest.mark.parametrize(
    ("state", "phase", "stale", "shown"),
    [
        ("running", "training", None, True),
        ("running", "training", True, False),
        ("running", "done", None, True),
        ("running", "done", False, True),
        ("running", "scoring", None, True),
        ("submitted", "training", None, False),
        ("idle", "done", None, False),
        ("error", "training", None, True),
        ("error", "done", None, False),
        ("error", "error", None, True),
        ("stopped", "done", None, False),
        ("done", "done", None, True),
    ],
)
def test_numbers_of_an_earlier_training_are_left_out(state, phase, stale, shown):
    status = train(state, {"phase": phase, "iteration": 5, "iterations": 10, "loss": 1.0}, stale)
    assert (status.iteration == 5, status.loss == 1.0, status.phase == phase) == (shown,) * 3


def test_a_reported_error_beats_a_clean_exit_and_an_old_one_does_not():
    assert train("done", {"phase": "training", "error": "loss is not finite"}).state == "error"
    assert train("done", {"phase": "training", "error": "loss is not finite"}).error == "loss is not finite"
    assert train("done", {"error": "old"}, stale=True).state == "done"
    assert train("error", {"error": "in words"}, error="ValueError: x").error == "in words"
    assert train("error", {"error": "old"}, stale=True, error="ValueError: x").error == "ValueError: x"
    assert train("running", {"error": "old"}).error == ""


def test_all_that_a_training_tells():
    stats = {
        **{"phase": "validating", "iteration": 300, "iterations": 300, "version_made": "v4"},
        **{"validation": {"A": 0.5, "B": None}, "resumable": {"started": "t"}},
        **{"losses": [[1, 0.9], [2, float("nan")], "x", [3], [4, 0.5]], "validations": [[2, 0.6]]},
        **{"decision": {"published": False, "reason": "no better"}},
    }
    status = train("running", stats)
    assert (status.progress, status.validation, status.version_made) == (0.99, {"A": 0.5}, "v4")
    assert status.losses == ((1, 0.9), (4, 0.5)) and status.validations == ((2, 0.6),)
    assert (status.reason, status.resumable) == ("no better", False)
    assert train("stopped", stats).resumable and train("idle", stats).resumable
    assert not train("stopped", {**stats, "resumable": None}).resumable
    nothing = train("running", dict.fromkeys(stats, "rubbish"))
    assert (nothing.validation, nothing.losses, nothing.reason) == (None, (), "")


def test_a_training_that_its_server_did_not_survive():
    stats = {
        "phase": "interrupted",
        "error": "the server ended",
        "iteration": 5,
        "iterations": 10,
        "resumable": {"a": 1},
    }
    status = train("idle", stats)
    assert (status.state, status.phase, status.error, status.progress) == (
        "idle",
        "interrupted",
        "the server ended",
        0.0,
    )
    assert status.resumable and not status.is_active
    assert not train("submitted", stats).resumable and train("submitted", stats).phase == ""


def test_models_are_typed():
    term = {
        "colour": [1, 2, 3],
        "category": {"value": "c", "scheme": "SCT", "meaning": "C"},
        "type": {"value": "t", "scheme": "SCT"},
        "region": "x",
    }
    facts = {
        "labels": {"B": 2, "A": 1},
        "terms": {"A": term, "B": {"colour": [1, 2, 256]}},
        "version": "v3",
        "error": None,
    }
    answer = {
        "models": {"kits": {"description": "Kidney"}, "rep3d": {}},
        "trainers": {"kits": {}},
        "rep3d": {
            **{"labels": {"A": 1, "B": 2}, "default_model": "kits", "default_strategy": "hybrid"},
            "models": {"kits": {**facts, "preset": "tiny", "notes": ["n"]}},
        },
    }
    info = parse_info(answer, "rep3d")
    kits = info.models["kits"]
    assert info.default_strategy == "hybrid" and (kits.trainable, info.models["rep3d"].trainable) == (True, False)
    assert (kits.version, kits.error, info.labels) == ("v3", "", {"A": 1, "B": 2})
    one, two = info.labels_of("kits")
    assert (one.name, one.value, one.colour, two.name, two.colour) == ("A", 1, (1, 2, 3), "B", None)
    assert (one.category.meaning, one.type, one.region) == ("C", None, None) and info.labels_of("none") == ()
    facts = {**facts, "colours": {"A": [9, 9, 9], "B": [4, 5, 6]}}
    answer["rep3d"]["models"]["kits"] = facts
    assert [label.colour for label in parse_info(answer, "rep3d").labels_of("kits")] == [(9, 9, 9), (4, 5, 6)]
    own = answer["rep3d"]
    with pytest.raises(BadAnswer, match="labels cannot be used"):
        parse_info({**answer, "rep3d": {**own, "models": {"kits": {"labels": {"A": 0}}}}}, "rep3d")


def test_what_a_server_leaves_out_is_read_with_its_reasons():
    """As `/rep3d/status` tells it; an older server tells none of it."""
    groups = [{"reason": "No NIfTI.", "remedy": "Convert them.", "count": 9, "files": [f"{n}.nrrd" for n in range(9)]}]
    answer = {
        "server": {"problems": ["The disk is full."]},
        "damaged": [{"file": "rep3d/leases.json", "kept": None, "lost": "who works on which image"}],
        "passed_over": {"total": 9, "groups": groups},
        "models": {},
    }
    state, _ = parse_state(answer, None)
    assert state.problems == ("The disk is full.",)
    assert state.left_out == (
        "rep3d/leases.json is damaged. Lost: who works on which image.",
        "0.nrrd, 1.nrrd, 2.nrrd, 3.nrrd, 4.nrrd and 4 more: No NIfTI. Convert them.",
    )
    older, _ = parse_state({"server": {"version": "1"}, "models": {}}, None)
    assert (older.problems, older.left_out) == ((), ())
    assert parse_case({"id": "a", "state": "submitted", "label_error": "cut short"}).label_error == "cut short"
    assert train("running", {"skipped": {"case_1": "It is empty."}}).left_out == {"case_1": "It is empty."}


def test_whose_data_a_model_was_made_of_reaches_the_panel():
    words = "Starter model hippocampus, trained on 169 cases ... CC-BY-SA 4.0"
    facts = parse_segmentation({"label_names": {"A": 1}, "version": "v1", "attribution": words})
    assert _headline(facts, into_new=False).endswith(f"then submit. {words}")
    assert parse_segmentation({"label_names": {"A": 1}, "attribution": None}).attribution == ""
    assert parse_version({"version": "v1", "origin": "starter", "attribution": words}).origin == words
    assert parse_version({"version": "v2", "origin": "trained", "attribution": None}).origin == "trained"
