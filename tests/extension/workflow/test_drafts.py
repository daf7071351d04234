"""Unsent work on disk: whole or as it was, never listed under the wrong case, never gone at once."""

from __future__ import annotations

import json
import os
from datetime import datetime, timedelta
from pathlib import Path

import numpy as np
import pytest
from Rep3DLabelLib.drafts import Draft, Drafts
from Rep3DLabelLib.errors import LocalProblem
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry
from Rep3DLabelLib.labels import LABEL_TAG

SERVER = "http://127.0.0.1:8000"


class Clock:
    """Local time, a minute later at each question."""

    def __init__(self) -> None:
        self.time = datetime(2026, 1, 2, 14, 0)

    def __call__(self) -> datetime:
        self.time += timedelta(minutes=1)
        return self.time


def data(value: int = 1) -> SegmentationData:
    """Return a small segmentation."""
    layer = np.zeros((3, 4, 5), np.uint8)
    layer[1, 2, 3] = value
    segment = SegmentEntry("rep3d_1", "Kopf (α)", (0.25, 0.5, 0.75), 0, value, {LABEL_TAG: "head"})
    return SegmentationData((layer,), (0, 4, 0, 3, 0, 2), (5, 4, 3), np.eye(4), (segment,))


@pytest.fixture
def drafts(tmp_path: Path) -> Drafts:
    return Drafts(tmp_path / "new" / "drafts", Clock())


def keep(drafts: Drafts, image_id: str = "case_1", server: str = SERVER) -> Draft:
    return drafts.save(drafts.new(server, image_id, f"Case {image_id}", "rep3d", "empty"), data())


def test_a_draft_comes_back_as_it_was(drafts: Drafts) -> None:
    draft = keep(drafts)
    about, found = drafts.read(draft.key)
    assert about == draft and draft.time == "2026-01-02T14:02:00"
    assert np.array_equal(found.layers[0], data().layers[0])
    assert found.segments[0].name == "Kopf (α)" and found.segments[0].tags[LABEL_TAG] == "head"


def test_saving_again_replaces_its_own_earlier_state_only(drafts: Drafts) -> None:
    first, second = keep(drafts), keep(drafts)
    assert first.key != second.key
    drafts.save(first, data())
    assert [draft.key for draft in drafts.list()] == [first.key, second.key]  # the latest first


def test_drafts_belong_to_a_case_of_a_server(drafts: Drafts) -> None:
    keep(drafts, "case_1")
    keep(drafts, "case_2")
    keep(drafts, "case_1", "http://other")
    assert [draft.image_id for draft in drafts.of(SERVER, "case_1")] == ["case_1"]


@pytest.mark.parametrize("image_id", ["a/b\\c:d*?", "../../etc/passwd", "ü" * 120, ""])
def test_no_name_of_a_case_leads_out_of_the_folder(drafts: Drafts, image_id: str) -> None:
    draft = keep(drafts, image_id)
    assert drafts.path(draft.key).parent == drafts.folder and drafts.path(draft.key).exists()
    assert drafts.read(draft.key)[0].image_id == image_id


@pytest.mark.parametrize("how", ["sent", "discard"])
def test_what_was_sent_or_thrown_away_is_put_aside_and_thirty_are_kept(drafts: Drafts, how: str) -> None:
    for _ in range(32):
        getattr(drafts, how)(keep(drafts).key)
    assert not drafts.list()
    folder = drafts.folder / ("sent" if how == "sent" else "discarded")
    assert len(list(folder.glob("*.seg.nrrd"))) == len(list(folder.glob("*.json"))) == 30


@pytest.mark.parametrize("content", [None, "{", "[]", '{"time": 5}'])
def test_a_draft_without_its_facts_is_offered_all_the_same(drafts: Drafts, content: str | None) -> None:
    draft = keep(drafts)
    about = drafts.folder / f"{draft.key}.json"
    about.unlink()
    if content is not None:
        about.write_text(content)
    (found,) = drafts.list()
    assert found.key == draft.key and found.time
    assert drafts.read(draft.key)[1].segments


def test_a_folder_that_cannot_be_written_is_told_and_nothing_is_half_there(tmp_path: Path) -> None:
    (tmp_path / "drafts").write_text("a file")
    drafts = Drafts(tmp_path / "drafts")
    with pytest.raises(LocalProblem, match="Check free space"):
        drafts.save(drafts.new(SERVER, "a", "a", "m", ""), data())
    assert (tmp_path / "drafts").read_text() == "a file" and not drafts.list()


def test_a_failed_save_leaves_the_earlier_state(drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    draft = keep(drafts)
    before = drafts.path(draft.key).read_bytes()

    def full(*args: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.replace", full)
    with pytest.raises(LocalProblem, match="No space left"):
        drafts.save(draft, data(7))
    assert drafts.path(draft.key).read_bytes() == before
    assert not [path for path in drafts.folder.iterdir() if path.name.endswith(".part")]


def test_a_crash_while_a_draft_is_written_leaves_none_without_its_case(drafts: Drafts) -> None:
    steps = drafts.save_in_steps(drafts.new(SERVER, "case_1", "a", "m", ""), data())
    next(steps)
    (about,) = drafts.folder.glob("*.json")
    assert json.loads(about.read_text())["image_id"] == "case_1" and not drafts.list()


def test_a_draft_that_is_taken_over_leaves_its_old_key_to_who_has_it_in_hand(drafts: Drafts) -> None:
    draft = keep(drafts)
    mine = drafts.take_over(draft)
    assert mine.key != draft.key and drafts.list() == (mine,)
    assert drafts.read(mine.key)[0].time == draft.time and drafts.read(mine.key)[1].segments
    assert not list(drafts.folder.glob(f"{draft.key}*"))
    drafts.save(draft, data(7))
    assert drafts.read(mine.key)[1].layers[0].max() == 1 and drafts.read(draft.key)[1].layers[0].max() == 7


def test_a_draft_that_cannot_be_taken_over_stays_as_it_was(drafts: Drafts, monkeypatch: pytest.MonkeyPatch) -> None:
    gone = drafts.new(SERVER, "case_1", "a", "m", "")
    draft = keep(drafts)
    with pytest.raises(LocalProblem, match="any more"):
        drafts.take_over(gone)

    replace = os.replace

    def refused(source: Path, target: Path) -> None:
        if source.name.endswith(".seg.nrrd"):
            raise PermissionError(13, "Permission denied")
        replace(source, target)

    monkeypatch.setattr("os.replace", refused)
    with pytest.raises(LocalProblem, match="Permission denied"):
        drafts.take_over(draft)
    assert drafts.list() == (draft,) and len(list(drafts.folder.iterdir())) == 2


def test_a_draft_that_is_gone_is_told(drafts: Drafts) -> None:
    with pytest.raises(LocalProblem, match="any more"):
        drafts.read("20260101-000000-abc")


def test_the_facts_are_plain_json(drafts: Drafts) -> None:
    draft = keep(drafts)
    assert json.loads((drafts.folder / f"{draft.key}.json").read_text())["server"] == SERVER
