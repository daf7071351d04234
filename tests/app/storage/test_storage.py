"""What the app writes: whole files, a training status that outlives its process."""

from __future__ import annotations

import json
import time
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest
from lib.errors import ConflictError, NotFoundError, RequestError
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore
from lib.training.status import TrainStatus, read_status
from monailabel.datastore.local import LocalDatastoreModel
from watchdog.events import FileCreatedEvent

from rep3d.errors import LabelError
from rep3d.files import write_text
from tests.app.data import LABELS, unchanged, write_image, write_label


@pytest.fixture
def workspace(tmp_path: Path) -> Workspace:
    found = Workspace(tmp_path / "rep3d")
    found.prepare("rep3d")
    return found


@pytest.fixture
def datastore(tmp_path: Path, workspace: Workspace) -> Rep3DDatastore:
    for number in range(3):
        write_image(tmp_path / f"case_{number}.nii.gz", number)
    return Rep3DDatastore(tmp_path, workspace, LABELS, auto_reload=False, read_only=False)


def test_interrupted_write_leaves_the_old_file(tmp_path: Path) -> None:
    file = tmp_path / "file.json"
    write_text(file, "old")
    with unchanged(tmp_path), pytest.raises(UnicodeEncodeError):
        write_text(file, "new \ud800")


def test_leftovers_of_a_killed_process_are_removed(workspace: Workspace) -> None:
    model = workspace.model("rep3d")
    (model.root / ".published.pt.123.part").write_text("half")
    model.published.write_text("whole")
    workspace.clear()
    assert [file.name for file in model.root.iterdir()] == ["published.pt"]


def test_a_checkpoint_put_into_the_folder_becomes_the_default_models(workspace: Workspace) -> None:
    workspace.adopted.write_text("a checkpoint")
    workspace.prepare("kits")
    assert (workspace.model("kits").published.read_text(), workspace.adopted.exists()) == ("a checkpoint", False)


def test_progress_is_written_once_a_second_and_each_phase_at_once(tmp_path: Path) -> None:
    time = [0.0]
    path = tmp_path / "status.json"
    status = TrainStatus(path, clock=lambda: time[0])
    seen = []
    for second, changes in [
        (0, {"iteration": 1}),
        (0.5, {"iteration": 2}),
        (1.2, {"iteration": 3}),
        (1.3, {"phase": "x"}),
    ]:
        time[0] = second
        status.update(changes)
        content = json.loads(path.read_text())
        seen.append((content["iteration"], content["phase"]))
    assert seen == [(1, "starting"), (1, "starting"), (3, "starting"), (3, "x")]


def test_a_run_that_ended_stays_ended(tmp_path: Path) -> None:
    path = tmp_path / "status.json"
    TrainStatus(path).update({"phase": "done", "version": "v2"})
    assert read_status(path, [])["phase"] == "done"
    path.write_text("{half")
    assert read_status(path, []) == {}


def test_a_child_process_cannot_write(datastore: Rep3DDatastore, workspace: Workspace, tmp_path: Path) -> None:
    # Its copy of the registry ages; writing it would erase a label that the server registered meanwhile.
    label = write_label(tmp_path / "up" / "l.nii.gz", 0)
    child = Rep3DDatastore(tmp_path, workspace, LABELS, auto_reload=False, read_only=True)
    with unchanged(tmp_path):
        for call in (
            lambda: child.save_label("case_0", str(label), "final", {}),
            lambda: child.add_image("new", str(tmp_path / "case_0.nii.gz"), {}),
            lambda: child.remove_image("case_0"),
            lambda: child.update_image_info("case_0", {"a": 1}),
            lambda: child.set_name("x"),
        ):
            with pytest.raises(ConflictError, match="read only"):
                call()
    assert child.labelled_cases() == []


def test_folder_that_was_empty_when_first_served(tmp_path: Path, workspace: Workspace) -> None:
    Rep3DDatastore(tmp_path, workspace, LABELS, auto_reload=False, read_only=False).set_name("x")
    write_image(tmp_path / "imagesTr" / "case.nii.gz")
    (tmp_path / "dataset.json").write_text("{}")
    again = Rep3DDatastore(tmp_path, workspace, LABELS, auto_reload=False, read_only=False)
    assert again.list_images() == ["case"]


def test_labels_of_one_second_do_not_collide_in_the_history(
    datastore: Rep3DDatastore, workspace: Workspace, tmp_path: Path
) -> None:
    labels = [write_label(tmp_path / "up" / f"{seed}.nii.gz", seed) for seed in range(4)]
    for label in labels:
        datastore.save_label("case_0", str(label), "final", {})
    kept = sorted((workspace.history / "case_0").glob("*.nii.gz"))
    assert [file.read_bytes() for file in kept] == [label.read_bytes() for label in labels[:3]]


def test_coarse_clock_replaces_nothing_in_the_history(
    datastore: Rep3DDatastore, workspace: Workspace, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    times = iter(["1", "1", "1", "2"])
    monkeypatch.setattr("lib.storage.history.file_time", lambda: next(times))
    labels = [write_label(tmp_path / "up" / f"{seed}.nii.gz", seed) for seed in range(3)]
    for label in labels:
        datastore.save_label("case_0", str(label), "final", {})
    kept = sorted((workspace.history / "case_0").glob("*.nii.gz"))
    assert [file.read_bytes() for file in kept] == [label.read_bytes() for label in labels[:2]]


def test_facts_that_are_added_later_change_no_author(datastore: Rep3DDatastore, tmp_path: Path) -> None:
    datastore.save_label("case_0", str(write_label(tmp_path / "up" / "a.nii.gz")), "final", {"user": "anna"})
    before = dict(datastore.get_label_info("case_0", "final"))
    datastore.update_label_info("case_0", "final", {"user": "admin", "source": {"version": "v9"}, "note": "checked"})
    assert datastore.get_label_info("case_0", "final") == {**before, "note": "checked"}


def test_a_failed_comparison_does_not_fail_the_submission(
    datastore: Rep3DDatastore, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    label = write_label(tmp_path / "up" / "a.nii.gz")
    datastore.keep_prediction("case_0", label, {"version": "v1"})

    def removed_meanwhile(*_: object) -> None:
        raise LabelError("gone")

    monkeypatch.setattr(datastore.predictions, "compare", removed_meanwhile)
    datastore.save_label("case_0", str(label), "final", {})
    assert "prediction" not in datastore.get_label_info("case_0", "final")


def test_the_watch_of_the_folder_outlives_an_error(datastore: Rep3DDatastore, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails() -> None:
        raise FileNotFoundError("labels/john")

    monkeypatch.setattr(datastore, "refresh", fails)
    # It must not raise: that would end the watcher's thread.
    datastore._on_any_event(FileCreatedEvent("labels/john/a.nii.gz"))


def test_archive_of_the_labelled_cases(datastore: Rep3DDatastore, tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match="No image is annotated yet"):
        datastore.get_dataset_archive(None)
    for number in range(3):
        label = write_label(tmp_path / "up" / f"{number}.nii.gz", number)
        datastore.save_label(f"case_{number}", str(label), "final", {})
    for limit, count in ((None, 3), (2, 2), (0, 3), (9, 3)):
        file = Path(datastore.get_dataset_archive(limit))
        with zipfile.ZipFile(file) as archive:
            assert len([name for name in archive.namelist() if name.startswith("label/")]) == count
            assert "case_0" in json.loads(archive.read("metadata.json"))["objects"]
            assert archive.read("image/case_0.nii.gz") == (tmp_path / "case_0.nii.gz").read_bytes()
        file.unlink()


@pytest.mark.parametrize("text", ['"\\ud800"', "[" * 195 + "]" * 195])
def test_facts_that_would_make_the_registry_unreadable_are_refused(
    datastore: Rep3DDatastore, tmp_path: Path, text: str
) -> None:
    label = str(write_label(tmp_path / "up" / "a.nii.gz"))
    facts = {"note": json.loads(text)}
    with unchanged(tmp_path):
        for call in (
            lambda: datastore.save_label("case_0", label, "final", facts),
            lambda: datastore.update_image_info("case_0", facts),
        ):
            with pytest.raises(RequestError, match="cannot be stored"):
                call()
    LocalDatastoreModel.model_validate_json((tmp_path / "datastore_v2.json").read_bytes())


def test_an_image_that_is_renamed_into_place_is_noticed(tmp_path: Path, workspace: Workspace) -> None:
    watched = Rep3DDatastore(tmp_path, workspace, LABELS, auto_reload=True, read_only=False)
    try:
        write_image(tmp_path / "elsewhere" / "case.nii.gz").rename(tmp_path / "case.nii.gz")  # into the folder
        _wait_for(lambda: watched.list_images() == ["case"])
        (tmp_path / "case.nii.gz").rename(tmp_path / "case_1.nii.gz")
        _wait_for(lambda: watched.list_images() == ["case_1"])
    finally:
        watched._observer.stop()


def _wait_for(condition: Callable[[], bool]) -> None:
    end = time.monotonic() + 20
    while not condition():
        assert time.monotonic() < end
        time.sleep(0.1)
