"""The server fails, by real clicks on the bench: it dies in each state and comes back, or is slow.

After each fault the message says what happened and what can be done, no button is stuck, what was drawn is in the scene
and on disk, and the same action works as soon as the server does. `test_faults_answers.py` has answers that cannot be
used, `test_faults_here.py` the faults of this computer.
"""

from __future__ import annotations

import numpy as np
import pytest

from tests.extension.fault_server import HANG, IMAGE, INFER, INFO, LABEL, FaultServer, status
from tests.extension.troubled import TroubledClinician
from tests.slicerbench import driver
from tests.slicerbench.stall import stall_meter

# ---- it dies, and comes back


def test_dead_while_connecting_and_alive_at_the_next_try(person: TroubledClinician, server: FaultServer) -> None:
    server.on("GET", "/info/", INFO, delay=HANG)
    driver.type_text(person.ui.serverComboBox, server.url)
    person.click("connectButton")
    person.wait(lambda: server.asked("GET", "/info/"))
    server.die()
    person.wait(lambda: person.view.connection.state == "unreachable", 10)
    assert "Check that the server is running" in person.view.connection.message
    assert person.ui.connectButton.enabled and person.ui.nextSampleButton.toolTip.endswith("Connect to a server first.")
    server.come_back()
    person.wait(lambda: person.view.connection.state == "ready", 10)  # by itself
    person.usable()
    assert person.next_sample() == "case_0"


def test_dead_while_idle_with_edits(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    server.die()
    person.click("submitButton")
    person.told("Not submitted", "kept here and as a draft", "Check that the server is running", state="unreachable")
    person.unharmed(mine)
    mine = person.paint(6)  # one can go on drawing
    person.unharmed(mine)
    server.come_back()
    person.wait(lambda: person.view.connection.state == "ready", 10)
    person.usable()
    person.submit()
    assert len(server.stored("case_0")) == 1 and not person.view.edited and not person.view.drafts


@pytest.mark.parametrize(
    ("button", "method", "path", "words"),
    [
        ("nextSampleButton", "POST", "/activelearning/first", ()),
        ("nextSampleButton", "GET", IMAGE, ()),
        ("autoSegmentButton", "POST", INFER, ()),
        ("submitButton", "PUT", LABEL, ("has not confirmed", "Submit again")),
    ],
)
def test_dead_during_an_action(
    person: TroubledClinician, server: FaultServer, button: str, method: str, path: str, words: tuple[str, ...]
) -> None:
    mine = person.begin(server.url)
    before = server.asked(method, path)
    content = server.answers[(method, path)][-1]
    server.on(
        method,
        path,
        content.content,
        headers=content.headers,
        **({"pause": HANG} if path == IMAGE else {"delay": HANG}),
    )
    person.click(button)
    person.wait(lambda: server.asked(method, path) > before, 10)
    driver.spin(0.1)
    server.die()
    person.wait(person.idle, 20)
    person.wait(lambda: person.view.connection.state == "unreachable", 10)
    person.told(*words, state="unreachable")
    person.unharmed(mine)
    server.come_back()
    person.reconnect()
    person.usable()
    if button == "submitButton":
        assert len(server.stored("case_0")) == 1  # it had arrived; only the answer had not
        server.on("PUT", LABEL, {"image": "case_0", "label": "case_0", "duplicate": True})
        person.submit()
        assert "exactly this label already" in person.message
        assert len(server.stored("case_0")) == 1 and not person.view.drafts
    elif button == "autoSegmentButton":
        person.auto_segment()
        assert person.voxels("head").any() and not np.array_equal(person.voxels("head").astype(bool), mine)
        person.on_disk(mine)
    else:
        person.next_sample()
        person.on_disk(mine)


def test_dead_before_the_label_has_arrived(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    server.hold = HANG  # it reads nothing
    person.click("submitButton")
    person.wait(lambda: person.view.activity and person.view.activity.text == "Sending the label", 10)
    driver.spin(0.3)
    server.die()
    person.told("kept here and as a draft", state="unreachable")
    person.unharmed(mine)
    assert not server.stored("case_0")
    server.come_back()
    person.reconnect()
    person.submit()
    assert len(server.stored("case_0")) == 1 and not person.view.drafts


def test_dead_during_training_and_batch(person: TroubledClinician, server: FaultServer) -> None:
    mine = person.begin(server.url)
    person.open("trainingSection")
    person.open("batchSection")
    person.click("trainButton")
    server.on("GET", "/train/", {"id": "1", "status": "RUNNING", "details": []})
    batch = {"phase": "running", "total": 3, "done": 1}
    server.on(
        "GET", "/rep3d/status", status(batch=batch, training={"iteration": 3, "iterations": 9, "phase": "training"})
    )
    person.click("startBatchButton")
    person.wait(lambda: person.view.training.state == "running" and person.view.batch.done == 1, 10)
    server.die()
    person.wait(lambda: person.view.connection.state == "unreachable", 10)
    assert "Check that the server is running" in person.view.connection.message
    person.usable()
    server.come_back()
    lost = {"phase": "interrupted", "error": "The server was stopped while it trained. Start it again."}
    server.on("GET", "/rep3d/status", status(training=lost))
    person.wait(lambda: not person.view.training.is_active and not person.view.batch.is_active, 10)
    person.told("The server was stopped while it trained", "The batch segmentation was interrupted", level="warning")
    person.unharmed(mine)
    for button in ("trainButton", "startBatchButton"):
        assert getattr(person.ui, button).enabled


# ---- it is slow


@pytest.mark.timed
def test_slow_answers_leave_the_panel_alive_and_can_be_cancelled(
    person: TroubledClinician, server: FaultServer
) -> None:
    mine = person.begin(server.url)
    for button, method, path in (
        ("nextSampleButton", "POST", "/activelearning/first"),
        ("nextSampleButton", "GET", IMAGE),
        ("autoSegmentButton", "POST", INFER),
    ):
        server.works()
        server.on(method, path, b"x", delay=HANG)
        server.on("DELETE", "/rep3d/requests/", {})
        with stall_meter() as meter:
            person.click(button)
            driver.spin(0.5)
            assert person.view.activity is not None and person.ui.progressBar.isVisible()
            person.click("cancelButton")
        meter.check(0.1)
        person.told("Cancelled", level="info")
        person.unharmed(mine)
    server.works()
    person.auto_segment()


def test_a_label_that_the_server_does_not_confirm_can_be_given_up_and_sent_again(
    person: TroubledClinician, server: FaultServer
) -> None:
    mine = person.begin(server.url)
    server.on("PUT", LABEL, {"image": "case_0", "label": "case_0"}, delay=3.0)
    person.click("submitButton")
    person.wait(lambda: not person.view.enabled["cancel"])
    person.wait(lambda: server.asked("PUT", LABEL))
    person.click("cancelButton")
    person.told("has not confirmed", "Submit again", level="warning")
    person.unharmed(mine)
    server.on("PUT", LABEL, {"image": "case_0", "label": "case_0", "duplicate": True})
    person.click("submitButton")
    person.told("Submitted", "exactly this label already", level="info")
    assert (
        len([request for request in server.received if request.path.startswith(LABEL)]) == 2
        and not person.drafts.list()
    )


def test_a_connection_that_hangs_can_be_given_up(person: TroubledClinician, server: FaultServer) -> None:
    server.on("GET", "/info/", INFO, delay=HANG)
    driver.type_text(person.ui.serverComboBox, server.url)
    person.click("connectButton")
    person.wait(lambda: person.ui.disconnectButton.isVisible())
    assert person.view.connection.state == "connecting"
    person.click("disconnectButton")
    assert person.view.connection.state == "disconnected"
    server.works()
    person.connect(server.url)
    person.usable()
