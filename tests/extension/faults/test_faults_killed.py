"""A real server process with our app is killed under a clinician's hands, and started again at the same port."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import psutil
import pytest
from Rep3DLabelLib.workflow import connecting, editing

from tests.app.data import CONF, LABELS, publish_small_model, write_image
from tests.app.server import AppServer
from tests.extension.troubled import TroubledClinician


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    studies = tmp_path_factory.mktemp("studies")
    for number in range(4):
        write_image(studies / f"case_{number}.nii.gz", number)
    publish_small_model(studies)
    conf = {**CONF, "iterations": "3000", "preset": "tiny", "score_minutes": "0", "strategy": "first"}
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), conf) as running:
        yield running


def kill(server: AppServer) -> None:
    """End the server and all that it has started, as a power cut does."""
    process = psutil.Process(server.pid)
    family = [process, *process.children(recursive=True)]  # it first: it must not see the others end
    for one in family:
        one.kill()
    psutil.wait_procs(family, 5)


def start_again(server: AppServer) -> None:
    server.launch()
    server.wait_until_ready()


def labels(server: AppServer) -> list[Path]:
    return sorted((server.studies / "labels" / "final").glob("*.nii*"))


@pytest.mark.slow
def test_killed_at_work_at_training_and_at_a_batch(bench, server: AppServer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(editing, "_IDLE", 0.1)
    monkeypatch.setattr(connecting, "_RETRY_SECONDS", 0.5)
    person = TroubledClinician(bench)
    person.connect(server.url)
    case = person.next_sample()
    mine = person.paint()

    person.submit()
    stored = labels(server)
    assert len(stored) == 1 and not person.view.drafts
    assert np.array_equal(person.in_scene(stored[0]) == LABELS["head"], mine)
    before = stored[0].read_bytes()

    # In a training, and with edits.
    mine = person.paint(6)
    person.open("trainingSection")
    person.open("batchSection")
    person.click("trainButton")
    person.wait(lambda: person.view.training.state == "running", 60)
    person.wait(lambda: person.view.training.losses, 60)
    kill(server)
    if person.view.connection.state == "ready":  # not noticed yet
        person.fails("submitButton", "Not submitted", "kept here and as a draft", state="unreachable")
    person.unharmed(mine, case)
    start_again(server)
    person.wait(lambda: person.view.connection.state == "ready", 60)
    person.told("The training was interrupted", "Press Train", level="warning")
    assert not person.view.training.is_active and person.ui.trainButton.enabled
    # Nothing was lost, and nothing was changed that was not submitted.
    person.unharmed(mine, case)
    assert labels(server) == stored and stored[0].read_bytes() == before
    person.submit()
    assert len(labels(server)) == 1 and nib.load(labels(server)[0]).shape == (24, 20, 18)
    assert np.array_equal(person.in_scene(labels(server)[0]) == LABELS["head"], mine)

    # In a batch.
    person.click("startBatchButton")
    person.wait(lambda: person.view.batch.total)
    assert person.view.batch.is_active
    kill(server)
    person.wait(lambda: person.view.connection.state == "unreachable", 60)
    start_again(server)
    person.told("it again to go on", level="warning")  # whether or not the server had written down that it ran
    person.click("startBatchButton")
    person.wait(lambda: person.view.batch.phase == "done", 60)
    assert person.view.batch.done == 3
