"""What is known of the cases, without a server: quick with hundreds of them; roles, scores, agreement, pictures."""

from __future__ import annotations

import io
import json
import shutil
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from types import SimpleNamespace

import nibabel as nib
import numpy as np
import pytest
from lib.cases.assignment import next_sample
from lib.cases.book import CaseBook
from lib.cases.leases import LeaseBook
from lib.cases.reviews import Reviews
from lib.cases.thumbnails import render
from lib.channels import ONE
from lib.errors import ConflictError
from lib.labels.facts import FactsCache
from lib.paths import Workspace
from lib.storage.datastore import Rep3DDatastore
from PIL import Image

from rep3d.evaluation.metrics import dice_of_files
from rep3d.imaging.nifti import read_label
from rep3d.tasks.colours import label_colours
from tests.app.data import LABELS, unchanged, write_image, write_label, write_nifti

FACTS = {"version": "v3", "created": "2024-05-01T00:00:00+00:00"}


class Folder:
    """A studies folder with all that reads it."""

    def __init__(self, folder: Path, cases: int) -> None:
        self.path = folder
        self.workspace = Workspace(folder / "rep3d")
        self.model = self.workspace.model("rep3d")
        self.model.root.mkdir(parents=True)
        for number in range(cases):
            write_image(folder / f"case_{number:03}.nii.gz", number % 3)
        self.open()

    def open(self) -> None:
        """Read everything anew, as after a restart."""
        self.store = Rep3DDatastore(self.path, self.workspace, LABELS, auto_reload=False, read_only=False)
        self.leases = LeaseBook(self.workspace.leases)
        published = SimpleNamespace(facts=lambda: FACTS)
        served = {"rep3d": SimpleNamespace(setup=SimpleNamespace(workspace=self.model), published=published)}
        reviews = Reviews(self.workspace.reviews)
        self.book = CaseBook(self.store, LABELS, self.leases, reviews, served)  # type: ignore[arg-type]


@pytest.fixture
def folder(tmp_path: Path) -> Folder:
    (tmp_path / "studies").mkdir()
    return Folder(tmp_path / "studies", 3)


def _copies(folder: Path, first: Path, name: str, count: int) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    for number in range(count):
        shutil.copy(first, folder / f"{name}_{number:03}.nii.gz")


@pytest.mark.timed
def test_five_hundred_cases_are_listed_in_no_time(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    image, label = write_image(tmp_path / "i.nii.gz", 0), write_label(tmp_path / "l.nii.gz", 0)
    _copies(studies, image, "case", 500)
    _copies(studies / "labels" / "final", label, "case", 250)
    folder = Folder(studies, 0)
    for number in range(250, 350):
        folder.store.predictions.keep(f"case_{number:03}", label, {"model": "rep3d", "version": "v3"})
    folder.book.cases()
    deadline = time.monotonic() + 60
    while any(case["labels"] is None for case in folder.book.cases()[:250]):
        assert time.monotonic() < deadline
        time.sleep(0.05)
    began = time.perf_counter()
    cases = folder.book.cases()
    assert time.perf_counter() - began < 1.0
    states = [case["state"] for case in cases]
    assert [states.count(state) for state in ("submitted", "predicted", "new")] == [250, 100, 150]
    assert set(cases[0]["labels"]) == set(LABELS)
    json.dumps(cases, allow_nan=False)


def test_facts_about_labels_survive_a_restart(folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    label = write_label(tmp_path / "l.nii.gz", 0)
    folder.store.save_label("case_000", str(label), "final", {"user": "anna"})
    before = folder.book.case("case_000")
    folder.open()
    monkeypatch.setattr("lib.labels.facts.read_label", lambda file: pytest.fail(f"{file} was read again"))
    assert folder.book.case("case_000") == before


def test_a_list_does_not_wait_until_all_headers_are_read(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("lib.cases.book._LOOK_SECONDS", 0.0)
    write_nifti(folder.path / "case_002.nii.gz", np.zeros((8, 8, 8, 3)))
    unread = folder.book.cases()
    assert [(case["id"], case["state"], case["image"]) for case in unread] == [
        (f"case_{number:03}", "new", {"error": None}) for number in range(3)
    ]
    folder.store.unusable.look_at_all()
    read = folder.book.cases()
    assert [case["state"] for case in read] == ["new", "new", "unusable"]
    assert read[0]["image"] == folder.book.case("case_000")["image"] and read[0]["image"]["shape"]


def test_whatever_one_case_raises_the_others_are_listed(folder: Folder, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(image_id: str) -> dict[str, object] | None:
        if image_id == "case_001":
            raise TypeError("of no kind that is expected")
        return None

    monkeypatch.setattr(folder.store.predictions, "facts", fail)
    monkeypatch.setattr(folder.store.predictions, "images", lambda: set(folder.store.list_images()))
    cases = folder.book.cases()
    assert [case["id"] for case in cases] == ["case_000", "case_001", "case_002"]
    assert "of no kind" in cases[1]["error"] and [case["error"] for case in (cases[0], cases[2])] == [None, None]
    assert set(cases[1]) == set(cases[0]) and folder.book.case("case_001")["error"] == cases[1]["error"]
    json.dumps(cases, allow_nan=False)


@pytest.mark.parametrize("content", ["{broken", "[]", '{"x": 3}', '{"x": {"stamp": [], "counts": {}, "digest": ""}}'])
def test_damaged_notes_are_no_reason_not_to_start(folder: Folder, tmp_path: Path, content: str) -> None:
    label = write_label(tmp_path / "l.nii.gz", 0)
    folder.store.save_label("case_000", str(label), "final", {"user": "anna"})
    for file in (folder.workspace.label_facts, folder.workspace.reviews, folder.workspace.leases):
        file.write_text(content)
    folder.open()
    assert folder.book.case("case_000")["state"] == "submitted"
    assert set(folder.book.case("case_000")["labels"]) == set(LABELS)


def test_entries_of_older_servers_are_listed(folder: Folder, tmp_path: Path) -> None:
    old = folder.workspace.history / "case_000"
    old.mkdir(parents=True)
    write_label(old / "final-20240501T080000.000000Z.nii.gz", 0)
    facts = {"user": "anna", "image": "case_000", "tag": "final", "replaced": "2024-05-01T08:00:00+00:00"}
    (old / "final-20240501T080000.000000Z.json").write_text(json.dumps(facts))
    (entry,) = folder.book.history("case_000")
    assert (entry["entry"], entry["reason"], entry["author"]) == ("final-20240501T080000.000000Z", "replaced", "anna")
    assert folder.store.restore_label("case_000", entry["entry"], "ben").duplicate is False
    assert folder.book.case("case_000")["author"] == "anna"


def test_changed_files_are_read_again(tmp_path: Path) -> None:
    cache = FactsCache(tmp_path / "facts.json")
    label = write_nifti(tmp_path / "l.nii.gz", np.ones((3, 4, 5), np.uint8))
    assert dict(cache.of(label).counts) == {1: 60}
    write_nifti(label, np.pad(np.ones((3, 4, 5), np.uint8), 1))
    assert cache.known(label) is None
    assert dict(cache.of(label).counts) == {0: 150, 1: 60}


def test_roles_and_scores_of_the_published_version(folder: Folder) -> None:
    folder.model.roles.write_text(json.dumps({"case_000": "training", "case_001": "validation"}))
    scores = {"case_002": {"entropy": 0.4, "margin": 0.2}}
    folder.model.scores.write_text(json.dumps({**FACTS, "scores": scores}))
    cases = folder.book.cases("rep3d")
    assert [case["role"] for case in cases] == ["training", "validation", None]
    assert [case["score"] for case in cases] == [None, None, 0.4]
    assert cases[2]["scores"] == {"entropy": 0.4, "margin": 0.2}
    folder.model.scores.write_text(json.dumps({**FACTS, "version": "v2", "scores": scores}))
    assert [case["score"] for case in folder.book.cases()] == [None] * 3


@pytest.mark.parametrize("at_once", [True, False])
def test_submission_is_compared_with_the_last_prediction(
    folder: Folder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, at_once: bool
) -> None:
    if not at_once:
        monkeypatch.setattr("lib.storage.datastore._COMPARE_AT_ONCE", 0)
    old, new, label = (write_label(tmp_path / f"{seed}.nii.gz", seed) for seed in (0, 1, 2))
    folder.store.keep_prediction("case_000", old, {"model": "rep3d", "version": "v1"})
    folder.store.keep_prediction("case_000", new, {"model": "rep3d", "version": "v2"})
    folder.store.save_label("case_000", str(label), "final", {"user": "anna"})
    deadline = time.monotonic() + 20
    while (found := folder.book.case("case_000")["prediction"]) is None:
        assert time.monotonic() < deadline
        time.sleep(0.02)
    assert (found["model"], found["version"]) == ("rep3d", "v2")
    expected = dice_of_files(new, label, LABELS)
    assert found["dice"] == {name: pytest.approx(value, abs=1e-4) for name, value in expected.items()}
    assert folder.book.case("case_000")["source"] == {"model": "rep3d", "version": "v2"}
    # A later prediction does not change what the submission was compared with.
    folder.store.keep_prediction("case_000", label, {"model": "rep3d", "version": "v3"})
    folder.open()
    assert folder.book.case("case_000")["prediction"] == found


def test_structure_that_neither_has_is_no_disagreement(folder: Folder, tmp_path: Path) -> None:
    values = read_label(write_label(tmp_path / "l.nii.gz", 0))[0]
    head = write_nifti(tmp_path / "head.nii.gz", np.where(values == LABELS["head"], values, 0).astype(np.uint8))
    folder.store.keep_prediction("case_000", head, {"model": "rep3d", "version": "v1"})
    folder.store.save_label("case_000", str(head), "final", {})
    assert folder.book.case("case_000")["prediction"]["dice"] == {"head": 1.0, "tail": None}


def test_removed_image_leaves_nothing_to_the_next_of_its_name(folder: Folder, tmp_path: Path) -> None:
    label, other = write_label(tmp_path / "l.nii.gz", 0), write_label(tmp_path / "o.nii.gz", 1)
    folder.store.keep_prediction("case_000", other, {"model": "rep3d", "version": "v1"})
    for file in (label, other):
        folder.store.save_label("case_000", str(file), "final", {"user": "anna"})
    folder.store.remove_image("case_000")
    (removed,) = folder.workspace.removed.iterdir()
    assert len(list((removed / "history").glob("final-*.nii.gz"))) == 1
    folder.store.add_image("case_000", str(write_image(tmp_path / "new.nii.gz", 2)), None)
    assert folder.book.case("case_000")["state"] == "new"
    assert folder.book.history("case_000") == []


def test_child_processes_only_read(folder: Folder, tmp_path: Path) -> None:
    label = write_label(tmp_path / "l.nii.gz", 0)
    folder.store.save_label("case_000", str(label), "final", {"user": "anna"})
    folder.store.save_label("case_000", str(write_label(tmp_path / "o.nii.gz", 1)), "final", {"user": "anna"})
    entry = folder.store.history.entries("case_000")[0]["entry"]
    child = Rep3DDatastore(folder.path, folder.workspace, LABELS, auto_reload=False, read_only=True)
    with unchanged(folder.path):
        for write in (
            lambda: child.save_label("case_001", str(label), "final", {}),
            lambda: child.keep_prediction("case_001", label, {}),
            lambda: child.restore_label("case_000", entry, None),
            lambda: child.remove_image("case_000"),
        ):
            with pytest.raises(ConflictError, match="Only the server writes"):
                write()


def test_strategies_get_the_candidates(folder: Folder) -> None:
    seen = []

    def strategy(request: dict, datastore: Rep3DDatastore) -> dict:
        seen.append(request["candidates"])
        return {"id": request["candidates"][0]}

    folder.leases.take("case_000", "ben")
    sample = next_sample(strategy, {"annotator": "anna"}, folder.store, folder.leases)  # type: ignore[arg-type]
    assert (sample["id"], sample["user"]) == ("case_001", "anna")
    assert seen == [["case_001", "case_002"]]


def _first(request: dict, datastore: Rep3DDatastore) -> dict:
    return {"id": request["candidates"][0]}


def test_nobody_waits_for_a_choice_and_a_choice_that_came_too_late_is_made_again(folder: Folder) -> None:
    seen = []

    def slow(request: dict, datastore: Rep3DDatastore) -> dict:
        seen.append(request["candidates"])
        if len(seen) == 1:  # meanwhile another asks, in a thread of its own as the server does
            with ThreadPoolExecutor(1) as pool:
                other = pool.submit(next_sample, _first, {"annotator": "ben"}, folder.store, folder.leases)
                assert other.result(10)["id"] == "case_000"
        return _first(request, datastore)

    sample = next_sample(slow, {"annotator": "anna"}, folder.store, folder.leases)  # type: ignore[arg-type]
    assert sample["id"] == "case_001"
    assert seen == [["case_000", "case_001", "case_002"], ["case_001", "case_002"]]


def test_who_asks_twice_at_once_gets_two_images(folder: Folder) -> None:
    gate = threading.Barrier(2, timeout=10)
    tries: dict[int, int] = {}

    def together(request: dict, datastore: Rep3DDatastore) -> dict:
        me = threading.get_ident()
        tries[me] = tries.get(me, 0) + 1
        if tries[me] == 1:
            gate.wait()
        return _first(request, datastore)

    with ThreadPoolExecutor(2) as pool:
        asked = [pool.submit(next_sample, together, {"annotator": "anna"}, folder.store, folder.leases) for _ in "ab"]
    assert {one.result()["id"] for one in asked} == {"case_000", "case_001"}


# Pictures ----------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("axes", ["RAS", "LPS", "PIR", "SLA", "IRP"])
def test_patients_right_is_on_the_left_and_the_front_on_top(tmp_path: Path, axes: str) -> None:
    ras = np.zeros((20, 30, 10), np.uint8)
    ras[14:18, 22:28, 6] = 1  # right, in front
    canonical = nib.Nifti1Image(ras, np.diag([1, 1, 3, 1]))
    turn = nib.orientations.ornt_transform(nib.io_orientation(np.eye(4)), nib.orientations.axcodes2ornt(axes))
    label = canonical.as_reoriented(turn)
    assert "".join(nib.aff2axcodes(label.affine)) == axes
    nib.save(label, tmp_path / "l.nii.gz")
    png = render(tmp_path / "l.nii.gz", ONE, tmp_path / "l.nii.gz", {1: (255, 0, 0)}, 60)
    picture = np.asarray(Image.open(io.BytesIO(png))).astype(int)
    assert picture.shape == (60, 40, 3)  # 30 x 20 mm
    red = picture[..., 0] - picture[..., 1] > 100
    rows, columns = np.nonzero(red)
    assert (rows.min(), rows.max(), columns.min(), columns.max()) == (4, 15, 4, 11)


def test_every_label_has_a_colour_of_its_own() -> None:
    colours = label_colours({"liver": 6, "a": 1, "b": 2, "c": 3})
    assert len(set(colours.values())) == 4
    assert colours["liver"] == (150, 52, 44)  # the registered one
