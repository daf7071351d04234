"""The Slicer module does what the table of docs/workflow.md says, row by row, with a worker that is played."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from Rep3DLabelLib.client.answers import SubmittedLabel
from Rep3DLabelLib.client.answers_train import TrainStatus
from Rep3DLabelLib.client.answers_versions import Version
from Rep3DLabelLib.errors import LocalProblem
from Rep3DLabelLib.images.compose import Overlap
from Rep3DLabelLib.labels import SegmentName

from tests.extension.fakes import INFO, MODEL, READY_REPORT, URL, Bench, overview
from tests.rules_table import Row, rows

ROWS = rows("Slicer")
CASE, OTHER = "case_1", "case_9"
ANSWERS = {
    "lose_edits": "lose",
    "discard_draft": "discard",
    "train_anew": "anew",
    "empty": "submit",
    "lent": "submit",
    "overlaps": "submit",
    "unknown_segments": "leave_out",
}
TRAININGS = {"training runs": TrainStatus("running"), "training can be resumed": TrainStatus("stopped", resumable=True)}
EDITS = ("edits", "edits that cannot be kept")


def _connected(bench: Bench, facts: tuple[str, ...]) -> None:
    model = replace(MODEL, version=None) if "no trained model" in facts else MODEL
    completed = 0 if "no label submitted" in facts else 1
    bench.flow.connect(URL)
    bench.worker.answer("test", replace(READY_REPORT, info=replace(INFO, models={"rep3d": model}, completed=completed)))
    bench.tick()
    training = next((status for fact, status in TRAININGS.items() if fact in facts), None)
    bench.worker.answer("overview", overview(training, completed=completed, version=model.version))
    count = 1 if "one version" in facts else 2 if "two versions" in facts else 0
    bench.worker.answer("versions", tuple(Version(f"v{number}") for number in range(1, count + 1)))


def _situation(bench: Bench, facts: tuple[str, ...], monkeypatch: pytest.MonkeyPatch) -> None:
    """Bring a workflow into a situation."""
    if facts != ("not connected",):
        _connected(bench, facts)
    if "unsent work" in facts:
        bench.fetch(OTHER).draw(rep3d_1=2)
        bench.flow.scene_closing()
        bench.flow.scene_closed()
    if "untouched case" in facts or set(EDITS) & set(facts):
        bench.fetch(CASE)
    if "a segment without a label" in facts:
        bench.screen.editing[0].names["odd"] = SegmentName("odd", "cyst", "")
        bench.draw(odd=3)
    if "edits that cannot be kept" in facts:

        def refuse(*arguments: object) -> Iterator[float]:
            yield 0.5
            raise LocalProblem("the disk is full")

        monkeypatch.setattr(bench.drafts, "save_in_steps", refuse)
    if set(EDITS) & set(facts):
        bench.draw(rep3d_1=5)
    if "not connected" in facts and len(facts) > 1:
        bench.tick(20)
        bench.worker.fail("overview", "ServerUnreachable", "nothing listens", state="unreachable")
    if "something runs" in facts:
        (bench.flow.auto_segment if "edits" in facts else bench.flow.next_sample)()


def _act(bench: Bench, row: Row) -> None:
    """Give the command, and let everything come that it asks for."""
    flow = bench.flow
    acts: dict[str, Callable[[], object]] = {
        "open_case": lambda: flow.open_case("case_2"),
        "restore_draft": lambda: flow.restore_draft(bench.view.drafts[0].key),
        "discard_draft": lambda: flow.discard_draft(bench.view.drafts[0].key),
        "restore_label": lambda: flow.restore_label("case_2", "entry"),
        "publish": lambda: flow.publish("v1"),
    }
    acts.get(row.command, getattr(flow, row.command))()
    for _ in range(8):
        bench.tick()
        for op in ("restore", "next_sample", "open_case", "infer", "measure", "submit"):
            if bench.worker.waiting(op):
                _answer(bench, op, row.situation)


def _answer(bench: Bench, op: str, facts: tuple[str, ...]) -> None:
    if op == "submit" and "reserved for another" in facts and len(bench.screen.questions) == 0:
        bench.worker.fail("submit", "ConflictError", "reserved", "Image case_1 is reserved for Ben")
        return
    overlaps = (Overlap("rep3d_1", "rep3d_3", 4),) if "segments overlap" in facts else ()
    counts = {1: 0, 3: 0} if "nothing is segmented" in facts else {1: 5, 3: 2}
    answers = {
        "restore": lambda: SubmittedLabel("case_2"),
        "next_sample": lambda: bench.value("case_2"),
        "open_case": lambda: bench.value(str(bench.worker.job("open_case").args["image_id"])),
        "infer": bench.inferred,
        "measure": lambda: bench.measured(counts=counts, overlaps=overlaps),
        "submit": lambda: SubmittedLabel(CASE),
    }
    bench.worker.answer(op, answers[op]())


def _drafts(bench: Bench, image: str) -> list[str]:
    return [draft.key for draft in bench.drafts.list() if draft.image_id == image]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_the_table_holds(row: Row, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bench = Bench(tmp_path)
    bench.screen.answers = dict(ANSWERS)
    _situation(bench, row.situation, monkeypatch)
    unsent = _drafts(bench, OTHER)
    reason = bench.view.enabled[row.command]
    assert bool(reason) is not row.possible, reason
    _act(bench, row)
    # Whether edits may be lost is asked again when the next case is there: more may have been drawn meanwhile.
    assert tuple(dict.fromkeys(question.key for question in bench.screen.questions)) == row.asked
    drawn = bench.screen.editing[0].drawn if bench.screen.editing[0] else {}
    in_hand = bench.view.sample and bench.view.sample.id
    if row.edits == "stay":
        assert in_hand == CASE and drawn["rep3d_1"] == 5 and bench.view.edited
    elif row.edits == "kept":
        assert in_hand != CASE and len(_drafts(bench, CASE)) == 1
    elif row.edits == "kept, undo":
        assert ("undo point",) in bench.scene.log and len(_drafts(bench, CASE)) == 1
    elif row.edits == "undo":
        assert any(line[0] == "given away" for line in bench.scene.log) and in_hand == CASE
    elif row.edits == "sent":
        assert "submit" in bench.worker.asked and not bench.view.edited and _drafts(bench, CASE) == []
    elif row.edits == "lost":
        lost = OTHER if row.command == "discard_draft" else CASE
        assert _drafts(bench, lost) == [] and in_hand != CASE
    else:
        assert row.edits == "none" and not bench.view.edited or row.command == "restore_draft"
    if row.command not in ("discard_draft", "restore_draft"):
        assert _drafts(bench, OTHER) == unsent
