"""Faults of this computer and of the person at it, by real clicks on the bench.

No room, a helper that dies, hasty clicks, a scene or module that closes in the middle, nodes and segments that change
under the work.

The rules are those of `test_faults_server.py`.
"""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import pytest
from PySide6 import QtCore
from PySide6.QtTest import QTest
from Rep3DLabelLib.workflow import editing

from tests.extension.fault_server import HANG, IMAGE, INFER, LABEL, FaultServer
from tests.extension.troubled import TroubledClinician
from tests.slicerbench import driver

# Button of an action, and the request that it makes.
ACTIONS = [
    ("nextSampleButton", "POST", "/activelearning/first"),
    ("nextSampleButton", "GET", IMAGE),
    ("autoSegmentButton", "POST", INFER),
    ("submitButton", "PUT", LABEL),
]


@pytest.fixture(autouse=True)
def hasty(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "_AFTER_FAILURE", 0.3)


def begun(person: TroubledClinician, server: FaultServer, button: str, method: str, path: str) -> None:
    """Have an action begin whose answer does not come."""
    before = server.asked(method, path)
    # What is sent is answered in the end, since a second one waits for its turn.
    server.on(method, path, {}, delay=HANG if method != "PUT" else 1.0)
    person.click(button)
    person.wait(lambda: server.asked(method, path) > before)


# ---- no room


def test_no_place_for_drafts(person: TroubledClinician, server: FaultServer) -> None:
    folder = person.drafts.folder
    folder.parent.mkdir(parents=True, exist_ok=True)
    folder.write_text("not a folder")
    mine = person.begin(server.url)
    person.told("Your edits are only in this window", "Check free space and permissions")
    person.fails("submitButton", "Nothing was sent", "Check free space and permissions")
    assert not server.stored("case_0")
    person.click("nextSampleButton")
    person.answer("Stay here")
    person.wait(person.idle)
    assert np.array_equal(person.voxels("head").astype(bool), mine) and person.view.sample.id == "case_0"
    folder.unlink()  # what the message says has been done
    person.unharmed(mine)
    person.submit()
    assert len(server.stored("case_0")) == 1


def test_auto_segment_without_a_place_for_drafts_loses_nothing(person: TroubledClinician, server: FaultServer) -> None:
    person.drafts.folder.parent.mkdir(parents=True, exist_ok=True)
    person.drafts.folder.write_text("not a folder")
    mine = person.begin(server.url)
    before = person.segmentation
    person.click("autoSegmentButton")
    person.told("Your edits are not on disk", level="warning")
    assert person.segmentation is not before
    person.next_sample()
    assert person.slicer.mrmlScene.GetNodeByID(before.GetID()) is before  # it is the only place where the edits are
    segment = before.GetSegmentation().GetSegmentIdBySegmentName("head")
    kept = person.slicer.util.arrayFromSegmentBinaryLabelmap(before, segment, person.volume)
    assert np.array_equal(kept.astype(bool), mine)


@pytest.fixture
def tiny_disk(tmp_path: Path) -> Iterator[Path]:
    """Yield a disk of 64 KiB."""
    folder = tmp_path / "tiny"
    folder.mkdir()
    if os.geteuid() or os.system(f"mount -t tmpfs -o size=64k tmpfs {folder} 2>/dev/null"):
        pytest.skip("mounting a small disk needs root")
    yield folder
    os.system(f"umount -l {folder}")


def test_a_full_disk_for_drafts(person: TroubledClinician, server: FaultServer, tiny_disk: Path) -> None:
    (tiny_disk / "filler").write_bytes(bytes(64 * 1024 - 4096))
    person.drafts.folder.parent.mkdir(parents=True, exist_ok=True)
    person.drafts.folder.symlink_to(tiny_disk)
    mine = person.begin(server.url)
    everywhere = np.random.default_rng(0).integers(0, 2, mine.shape).astype(bool)
    person.draw("head", everywhere)
    person.told("Your edits are only in this window", "No space left on device")
    assert not list(tiny_disk.glob("*.part"))
    (tiny_disk / "filler").unlink()
    person.unharmed(everywhere)
    person.drafts.folder.unlink()


def test_a_full_disk_for_the_session(person: TroubledClinician, server: FaultServer, tiny_disk: Path) -> None:
    mine = person.begin(server.url)
    folder = Path(person.opened.widget._folder)
    (folder / "case2").symlink_to(tiny_disk)
    (tiny_disk / "filler").write_bytes(bytes(60 * 1024))
    person.fails("nextSampleButton", "No space left on device", "Check free space")
    person.unharmed(mine)
    (folder / "case3").write_text("not a folder")
    person.fails("nextSampleButton", "Cannot write to")
    person.unharmed(mine)
    assert person.view.sample.id == "case_0"
    person.next_sample()


# ---- the helper process dies


@pytest.mark.parametrize(("button", "method", "path"), ACTIONS)
def test_the_helper_dies(person: TroubledClinician, server: FaultServer, button: str, method: str, path: str) -> None:
    mine = person.begin(server.url)
    begun(person, server, button, method, path)
    os.kill(person.worker.pid, signal.SIGKILL)
    person.told("The helper process ended", "Try again")
    person.unharmed(mine)
    server.works()
    if button == "nextSampleButton":
        person.next_sample()
        person.on_disk(mine)
    elif button == "autoSegmentButton":
        person.auto_segment()
        person.on_disk(mine)
    else:
        person.submit()
        assert len(server.stored("case_0")) == 1


def test_the_helper_dies_while_something_is_started(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    for section in ("trainingSection", "batchSection", "versionsSection"):
        person.open(section)
    person.wait(lambda: person.view.versions)
    for button, method, path in (
        ("trainButton", "POST", "/train/rep3d"),
        ("startBatchButton", "POST", "/rep3d/models/rep3d/batch"),
        ("rollBackButton", "POST", "/rep3d/models/rep3d/rollback"),
        ("connectButton", "GET", "/info/"),
    ):
        begun(person, server, button, method, path)
        os.kill(person.worker.pid, signal.SIGKILL)
        if button != "connectButton":
            person.told("The helper process ended", "Try again")
        server.works()
        person.wait(lambda: person.view.connection.state == "ready")
        person.unharmed(mine)
        person.usable()
        assert getattr(person.ui, button).enabled


# ---- hasty clicks


def twice(widget: Any) -> None:
    """Two clicks before anything can happen in between."""
    for _ in range(2):
        QTest.mouseClick(widget, QtCore.Qt.MouseButton.LeftButton)
    driver.spin()


def test_double_clicks_do_it_once(person: TroubledClinician, server: FaultServer) -> None:
    driver.type_text(person.ui.serverComboBox, server.url)
    twice(person.ui.connectButton)
    person.wait(lambda: person.view.connection.state == "ready")
    assert server.asked("GET", "/info/") == 1
    for section in ("trainingSection", "batchSection", "versionsSection", "casesSection"):
        person.open(section)
    person.wait(lambda: person.view.versions)
    server.on("POST", "/rep3d/models/rep3d/rollback", {"version": "v1"})
    for button, method, path in (
        *ACTIONS,
        ("trainButton", "POST", "/train/rep3d"),
        ("startBatchButton", "POST", "/rep3d/models/rep3d/batch"),
        ("rollBackButton", "POST", "/rep3d/models/rep3d/rollback"),
        ("refreshCasesButton", "GET", "/rep3d/cases"),
    ):
        if button == "submitButton":
            person.paint()
        before = server.asked(method, path)
        driver.wait(lambda button=button: getattr(person.ui, button).enabled, 3)
        twice(getattr(person.ui, button))
        person.wait(person.idle)
        person.wait(lambda m=method, p=path, n=before: server.asked(m, p) > n)
        driver.spin(0.15)
        assert server.asked(method, path) == before + 1, button
    assert len(server.stored("case_1")) == 1


@pytest.mark.parametrize(("button", "method", "path"), ACTIONS[1:3])
def test_other_buttons_while_one_runs(
    person: TroubledClinician, server: FaultServer, button: str, method: str, path: str
) -> None:
    mine = person.begin(server.url)
    begun(person, server, button, method, path)
    driver.spin(0.1)
    asked = len(server.received)
    for other, command in (
        ("nextSampleButton", person.flow.next_sample),
        ("autoSegmentButton", person.flow.auto_segment),
        ("submitButton", person.flow.submit),
    ):
        widget = getattr(person.ui, other)
        assert not widget.enabled and "Wait until this has ended" in widget.toolTip
        command()  # as a shortcut, or another front end, would
        driver.spin(0.06)
        assert "Wait until this has ended" in person.message
    assert not [request for request in server.received[asked:] if request.method == "PUT" or "infer" in request.path]
    assert person.view.activity is not None
    server.die()
    person.wait(person.idle)
    person.unharmed(mine)


def test_a_sample_of_the_server_before_is_not_used(person: TroubledClinician, server: FaultServer) -> None:
    other = FaultServer()
    person.connect(server.url)
    server.on("POST", "/activelearning/first", {"id": "case_0", "name": "case_0"}, delay=0.7)
    person.click("nextSampleButton")
    person.connect(other.url)
    person.told("another server", level="warning")
    assert person.view.sample is None
    person.next_sample()
    person.paint()
    person.submit()
    assert not server.stored("case_0") and len(other.stored("case_0")) == 1
    other.die()


# ---- the scene or the module closes in the middle


@pytest.mark.parametrize(("button", "method", "path"), ACTIONS)
def test_the_scene_is_closed(
    person: TroubledClinician, server: FaultServer, button: str, method: str, path: str
) -> None:
    mine = person.begin(server.url)
    begun(person, server, button, method, path)
    person.slicer.mrmlScene.Clear(0)
    person.told("kept as unsent work", level="warning")
    assert person.view.sample is None
    person.on_disk(mine)
    server.works()
    person.click("restoreDraftButton")
    person.wait(lambda: person.idle() and person.view.sample is not None)
    person.unharmed(mine)
    person.submit()
    assert not person.view.drafts and len(server.stored("case_0")) == 1


@pytest.mark.parametrize(("button", "method", "path"), ACTIONS)
def test_the_module_is_closed(
    person: TroubledClinician, server: FaultServer, bench: Any, button: str, method: str, path: str
) -> None:
    mine = person.begin(server.url)
    begun(person, server, button, method, path)
    helper, folder = psutil.Process(person.worker.pid), Path(person.opened.widget._folder)
    person.opened.close()
    person.on_disk(mine)
    driver.wait(lambda: not helper.is_running() or helper.status() == "zombie", 5)
    assert not folder.exists()
    server.works()
    person.slicer.mrmlScene.Clear(0)
    again = TroubledClinician(bench)
    again.connect(server.url)
    again.click("restoreDraftButton")
    again.wait(lambda: again.idle() and again.view.sample is not None)
    again.unharmed(mine)


# ---- nodes and segments change under the work


@pytest.mark.parametrize("what", ["segmentation", "volume"])
@pytest.mark.parametrize(("button", "method", "path"), [*ACTIONS[1:], ("", "", "")])
def test_a_node_is_deleted_by_hand(
    person: TroubledClinician, server: FaultServer, what: str, button: str, method: str, path: str
) -> None:
    mine, deleted = person.begin(server.url), threading.Event()
    if button:
        answer = server.answers[(method, path)][-1]
        server.on(method, path, answer.content, headers=answer.headers, until=deleted)
        before = server.asked(method, path)
        person.click(button)
        person.wait(lambda: server.asked(method, path) > before)
    person.slicer.mrmlScene.RemoveNode(getattr(person, what))
    driver.spin(0.2)
    deleted.set()
    person.wait(person.idle)
    if not button and what == "segmentation":
        person.told("was removed from the scene", "kept as unsent work", level="warning")
        assert person.view.sample is None and not person.view.edited
    if button == "autoSegmentButton":
        person.told(*(("The image of", "open it again") if what == "volume" else ("was not used",)), level=None)
    if button != "submitButton":
        person.on_disk(mine)
    else:
        assert len(server.stored("case_0")) == 1
    server.works()
    person.usable()
    person.next_sample()
    person.paint()
    person.submit()
    assert person.view.sample.id != "case_0"


def test_segments_are_renamed_deleted_and_added(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    segments = person.segmentation.GetSegmentation()
    head = segments.GetSegmentIdBySegmentName("head")
    segments.GetSegment(head).SetName("Tail")
    person.fails(
        "submitButton",
        "Nothing was sent",
        "segment 'Tail' was made for the label 'head'",
        "Give the segment its name back",
    )
    assert not server.stored("case_0")
    segments.GetSegment(head).SetName("head")
    extra = segments.AddEmptySegment("mine", "a tumour of mine")
    driver.edit_segment(person.ui.segmentEditor, extra, np.roll(mine, 4, 0).astype(np.uint8), person.volume)
    segments.RemoveSegment(segments.GetSegmentIdBySegmentName("tail"))
    person.click("submitButton")
    person.answer("Go back")
    person.told("Nothing was sent", level="info")
    person.unharmed(mine)
    person.click("submitButton")
    person.answer("Submit without them")
    person.wait(person.idle)
    assert "Submitted" in person.message and len(server.stored("case_0")) == 1
    person.auto_segment()  # "tail" is made again, "a tumour of mine" stays
    names = [segments.GetNthSegment(n).GetName() for n in range(segments.GetNumberOfSegments())]
    assert sorted(names) == ["a tumour of mine", "head", "tail"]
    assert np.array_equal(person.voxels("a tumour of mine").astype(bool), np.roll(mine, 4, 0))
