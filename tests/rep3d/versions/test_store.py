"""Versions of a model on disk: what is kept, published, rolled back, and what a crash at any step leaves."""

from __future__ import annotations

import os
import shutil
import threading
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any, NoReturn

import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint, read_checkpoint_task, save_checkpoint
from rep3d.errors import CheckpointError, UnknownVersionError, VersionError
from rep3d.json_file import found_damage
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import TaskConfig
from rep3d.versions.record import VersionRecord, version_number
from rep3d.versions.store import VersionStore

TASK = TaskConfig("test", {"head": 1, "tail": 3}, roi_size=(32, 32, 32))


@pytest.fixture(scope="module")
def network() -> Rep3D:
    return Rep3D(
        Rep3DConfig(
            in_channels=1,
            out_channels=3,
            dims=(4, 8, 8, 16),
            depths=(1, 1, 1, 1),
            hidden_size=16,
            kernel_size=5,
            generator_kernel=3,
        )
    ).eval()


def _trained(network: Rep3D, mark: float, **facts: Any) -> Checkpoint:
    """Return a checkpoint that can be told from others by one of its weights."""
    with torch.no_grad():
        network.out.conv.conv.bias[0] = mark
    return Checkpoint(network, TASK, {"created": f"2024-01-0{int(mark)}", "cases": ["a"], **facts})


def _mark(path: Path) -> float:
    return load_checkpoint(path).model.out.conv.conv.bias[0].item()


@pytest.fixture
def store(tmp_path: Path, network: Rep3D) -> VersionStore:
    """Three versions, published one after the other."""
    found = VersionStore(tmp_path / "model")
    for mark in (1, 2, 3):
        found.add(_trained(network, mark), VersionRecord())
        found.publish(f"v{mark}", "anna", f"better {mark}")
    return found


def test_a_version_is_kept_with_its_facts(tmp_path: Path, network: Rep3D) -> None:
    store = VersionStore(tmp_path)
    record = VersionRecord(run="r", case_scores={"x": {"head": 0.5, "tail": 0.7}}, scores={"head": 0.5, "tail": 0.7})
    added = store.add(
        _trained(network, 1, parent="v7", iterations=9, loss=0.5, minutes=1.5, stopped="iterations"), record
    )
    assert (added.version, added.parent, added.cases, added.labels) == ("v1", "v7", ["a"], {"head": 1, "tail": 3})
    assert (added.iterations, added.loss, added.minutes, added.stopped, added.run) == (9, 0.5, 1.5, "iterations", "r")
    assert added.mean_score == pytest.approx(0.6)
    assert store.list() == [added] == [store.get("v1")]
    assert store.published() is None
    assert load_checkpoint(store.checkpoint("v1")).version == "v1"
    assert store.size("v1") == store.checkpoint("v1").stat().st_size > 1000


def test_publishing_replaces_one_file_and_says_who_and_why(store: VersionStore) -> None:
    assert store.published() == "v3"
    assert _mark(store.root / "published.pt") == 3
    assert [(e["version"], e["by"], e["reason"]) for e in store.publications()] == [
        (f"v{n}", "anna", f"better {n}") for n in (1, 2, 3)
    ]
    assert not list(store.root.rglob("*.part"))
    store.publish("v3", "bert", "again")  # nothing to do, and nothing to tell
    assert len(store.publications()) == 3


@pytest.mark.skipif(os.name == "nt", reason="about hard links")
def test_published_file_takes_no_space_of_its_own(store: VersionStore) -> None:
    assert os.path.samefile(store.root / "published.pt", store.checkpoint("v3"))
    assert store.checkpoint("v3").stat().st_mode & 0o222 == 0


def test_a_faster_way_is_kept_in_the_weights_file_and_answers_at_once(store: VersionStore) -> None:
    before, tuned = {name: _mark(store.checkpoint(name)) for name in ("v2", "v3")}, {"way": {"overlap": 0.25}}
    for name in before:
        assert store.keep_tuned(name, tuned) == store.get(name)
        assert store.get(name).tuned == load_checkpoint(store.checkpoint(name)).info["tuned"] == tuned
    assert {name: _mark(store.checkpoint(name)) for name in before} == before
    assert store.published() == "v3" and len(store.publications()) == 3
    assert read_checkpoint_task(store.root / "published.pt")[1]["tuned"] == tuned
    if os.name != "nt":
        assert os.path.samefile(store.root / "published.pt", store.checkpoint("v3"))
        assert store.checkpoint("v3").stat().st_mode & 0o222 == 0
    with pytest.raises(UnknownVersionError):
        store.keep_tuned("v9", {})


def test_without_hard_links_it_is_a_copy(store: VersionStore, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*arguments: object) -> NoReturn:
        raise OSError("no links here")

    monkeypatch.setattr(os, "link", refuse)
    store.publish("v1", "anna", "")
    assert store.published() == "v1"
    assert not os.path.samefile(store.root / "published.pt", store.checkpoint("v1"))


def test_roll_back_goes_back_step_by_step(store: VersionStore) -> None:
    assert store.rollback("bert").version == store.published() == "v2"
    assert store.rollback("bert", "worse still").version == store.published() == "v1"
    assert [(e["version"], e["rollback"]) for e in store.publications()[-2:]] == [("v2", True), ("v1", True)]
    with pytest.raises(VersionError, match="before v1 is kept"):
        store.rollback("bert")
    store.publish("v3", "anna", "")
    assert store.rollback("bert").version == "v1"


def test_roll_back_skips_what_was_deleted(store: VersionStore) -> None:
    store.delete("v2", "anna")
    assert store.rollback("bert").version == "v1"


def test_deleting_frees_the_space_and_keeps_the_record_and_the_name(store: VersionStore, network: Rep3D) -> None:
    with pytest.raises(VersionError, match="is published, so it cannot be deleted"):
        store.delete("v3", "anna")
    store.publish("v1", "anna", "")
    store.delete("v3", "anna")
    assert [record.version for record in store.list()] == ["v1", "v2"]
    assert store.size("v3") == 0
    assert store.get("v3").deleted is not None
    for call in (store.checkpoint, store.delete, lambda name: store.publish(name, "anna", "")):
        with pytest.raises(UnknownVersionError, match="deleted on .* by anna"):
            call("v3")
    assert store.add(_trained(network, 4), VersionRecord()).version == "v4"


@pytest.mark.parametrize("name", ["v9", "", "../model", "v0", "v1/../v2", "V1"])
def test_unknown_versions(store: VersionStore, name: str) -> None:
    for call in (store.get, store.checkpoint, store.delete, lambda name: store.publish(name, "anna", "")):
        with pytest.raises(UnknownVersionError, match="There are: v1, v2, v3"):
            call(name)


def test_version_names() -> None:
    assert [version_number(name) for name in ("v1", "v12", "v01", "x", "v1\n")] == [1, 12, None, None, None]


def test_publishing_only_in_place_of_a_certain_version(store: VersionStore) -> None:
    with pytest.raises(VersionError, match="to replace v2, but v3 is published by now"):
        store.publish("v1", "training", "", instead_of="v2")
    assert store.publish("v1", "training", "", instead_of="v3").version == "v1"


def test_weights_that_were_replaced_are_not_published(store: VersionStore) -> None:
    file = store.checkpoint("v1")
    file.unlink()
    shutil.copyfile(store.checkpoint("v2"), file)
    with pytest.raises(CheckpointError, match="it holds the weights of 'v2', not of v1"):
        store.publish("v1", "anna", "")
    assert store.published() == "v3"


def test_damaged_published_file_is_replaced_by_a_version(store: VersionStore) -> None:
    published = store.root / "published.pt"
    published.unlink()
    published.write_bytes(b"half")
    with pytest.raises(CheckpointError):
        store.published()
    store.publish("v2", "anna", "repair")
    assert store.published() == "v2"


def test_damaged_record_is_named_and_hides_no_other(store: VersionStore) -> None:
    (store.root / "versions" / "v2" / "version.json").write_text("{half")
    assert [record.version for record in store.list()] == ["v1", "v3"]
    with pytest.raises(VersionError, match="v2"):
        store.get("v2")
    store.publish("v1", "anna", "")


@pytest.mark.parametrize("text", ["", "{half", "[]", '{"version": "v1"}', '{"version": "v3", "cases": 3}'])
def test_damaged_record_is_made_anew_from_its_weights(store: VersionStore, text: str) -> None:
    record = store.root / "versions" / "v3" / "version.json"
    before = store.get("v3")
    replace(before, scores={"head": 0.9}, case_scores={"x": {"head": 0.9}}).write(record)
    record.write_text(text)
    assert store.adopt() is None
    made = store.get("v3")
    assert (made.created, made.cases, made.labels, made.parent) == (before.created, ["a"], TASK.labels, before.parent)
    assert (made.measured, store.published()) == (False, "v3")  # what was measured is on no record any more
    (kept,) = record.parent.glob("version.json.damaged-*")
    assert kept.read_text() == text
    (damage,) = found_damage(store.root)
    assert (damage.file, damage.kept, "scores" in damage.lost) == (record, kept, True)


def test_damaged_record_without_readable_weights_keeps_its_name(store: VersionStore) -> None:
    folder = store.root / "versions" / "v2"
    (folder / "version.json").write_text("{half")
    store.checkpoint("v1").replace(folder / "model.pt")  # of another version
    store.adopt()
    with pytest.raises(UnknownVersionError):
        store.get("v2")
    assert (folder / "model.pt").exists()
    assert store.add(load_checkpoint(store.checkpoint("v3")), VersionRecord()).version == "v4"


@pytest.mark.parametrize("text", ["", "{half", "[]", '{"publications": [{"by": "anna"}]}'])
def test_damaged_log_of_publications_begins_anew(store: VersionStore, text: str) -> None:
    log = store.root / "publications.json"
    log.write_text(text)
    assert store.publications() == []
    (damage,) = found_damage(store.root)
    assert damage.file == log and damage.kept is not None and damage.kept.read_text() == text
    store.publish("v1", "anna", "by hand")
    assert [entry["version"] for entry in store.publications()] == ["v1"]


def test_adopts_a_checkpoint_that_was_put_there(tmp_path: Path, network: Rep3D) -> None:
    store = VersionStore(tmp_path)
    assert store.adopt() is None
    foreign = _trained(network, 5, version="v4", cases=["x", "y"])
    save_checkpoint(tmp_path / "published.pt", foreign.model, TASK, foreign.info)
    before = (tmp_path / "published.pt").read_bytes()
    adopted = store.adopt()
    assert adopted is not None
    assert (adopted.version, adopted.origin, adopted.cases, adopted.adopted_as) == ("v4", "adopted", ["x", "y"], None)
    assert (tmp_path / "published.pt").read_bytes() == before
    assert store.adopt() is None
    assert store.add(_trained(network, 6), VersionRecord()).version == "v5"


def test_adopted_checkpoint_names_the_cases_of_all_its_runs(tmp_path: Path, network: Rep3D) -> None:
    foreign = _trained(network, 5, cases=["x"], trained_on=["w", "x"])
    save_checkpoint(tmp_path / "published.pt", foreign.model, TASK, foreign.info)
    adopted = VersionStore(tmp_path).adopt()
    assert adopted is not None
    assert adopted.cases == ["w", "x"]  # none of which may measure it


@pytest.mark.parametrize("name", ["v2", "unversioned", "best-model"])
def test_adopted_checkpoint_whose_name_is_taken_or_none_gets_the_next(
    store: VersionStore, network: Rep3D, name: str
) -> None:
    foreign = _trained(network, 9, version=name)
    save_checkpoint(store.root / "published.pt", foreign.model, TASK, foreign.info)
    adopted = store.adopt()
    assert adopted is not None
    assert (adopted.version, adopted.adopted_as, store.published()) == ("v4", name, "v4")
    assert (_mark(store.root / "published.pt"), _mark(store.checkpoint("v2"))) == (9, 2)
    assert store.rollback("anna").version == "v3"


def test_checkpoint_put_in_place_by_hand_is_kept_when_another_is_published(store: VersionStore, network: Rep3D) -> None:
    foreign = _trained(network, 9, version="v1")
    save_checkpoint(store.root / "published.pt", foreign.model, TASK, foreign.info)
    assert store.publish("v1", "anna", "").version == store.published() == "v1"
    assert _mark(store.root / "published.pt") == 1
    assert (store.get("v4").adopted_as, _mark(store.checkpoint("v4"))) == ("v1", 9)
    assert store.rollback("anna").version == "v4"
    assert store.rollback("anna").version == "v3"


def test_roll_back_from_a_damaged_file(store: VersionStore) -> None:
    (store.root / "published.pt").unlink()
    (store.root / "published.pt").write_bytes(b"half")
    assert store.rollback("anna").version == store.published() == "v3"


def test_several_at_once_do_not_collide(store: VersionStore, network: Rep3D) -> None:
    trained = _trained(network, 4)
    names: list[str] = []

    def work() -> None:
        own = VersionStore(store.root)  # as another process would
        for _ in range(3):
            name = own.add(trained, VersionRecord()).version
            own.publish(name, "thread", "")
            names.append(name)

    threads = [threading.Thread(target=work) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert sorted(names, key=version_number) == [f"v{n}" for n in range(4, 16)]
    assert store.published() == store.publications()[-1]["version"]


# Killed at any step ---------------------------------------------------------------------------------------------------

CHANGES = ("replace", "rename", "link", "unlink", "mkdir", "chmod", "fsync")


def _run_until_killed(action: Callable[[], object], step: int) -> bool:
    """Run an action in a process that dies at once, as by SIGKILL, before its n-th change of the disk.

    Returns:
        Whether it died.
    """
    child = os.fork()
    if child == 0:
        torch.set_num_threads(1)  # the parent's threads are not here: waiting for them would last for ever
        made = [0]

        def dying(change: Callable[..., Any]) -> Callable[..., Any]:
            def call(*arguments: Any, **options: Any) -> Any:
                made[0] += 1
                if made[0] == step:
                    os._exit(9)
                return change(*arguments, **options)

            return call

        for name in CHANGES:
            setattr(os, name, dying(getattr(os, name)))
        try:
            action()
        except BaseException:
            os._exit(1)
        os._exit(0)
    status = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert status in (0, 9)
    return status == 9


@pytest.mark.skipif(not hasattr(os, "fork"), reason="needs fork")
@pytest.mark.parametrize(
    "what",
    ["add", "publish", *(pytest.param(one, marks=pytest.mark.slow) for one in ("rollback", "delete", "adopt", "tune"))],
)
def test_killed_at_any_step(tmp_path: Path, store: VersionStore, network: Rep3D, what: str) -> None:
    trained = _trained(network, 4)
    actions: dict[str, Callable[[VersionStore], object]] = {
        "add": lambda found: found.add(trained, VersionRecord()),
        "publish": lambda found: found.publish("v1", "bert", "killed"),
        "rollback": lambda found: found.rollback("bert"),
        "delete": lambda found: found.delete("v1", "bert"),
        "adopt": lambda found: found.adopt(),
        "tune": lambda found: found.keep_tuned("v3", {"way": {}}),
    }
    if what == "adopt":
        foreign = replace(trained, info={**trained.info, "version": "v2"})
        save_checkpoint(store.root / "published.pt", foreign.model, TASK, foreign.info)
    shutil.move(store.root, tmp_path / "before")
    step = 0
    while True:
        step += 1
        shutil.rmtree(store.root, ignore_errors=True)
        shutil.copytree(tmp_path / "before", store.root)
        killed = _run_until_killed(lambda: actions[what](VersionStore(store.root)), step)
        after = VersionStore(store.root)
        # Before any repair, what answers requests is whole.
        assert _mark(store.root / "published.pt") in (1, 2, 3, 4)
        assert read_checkpoint_task(store.root / "published.pt")[1]["version"] == after.published()
        after.adopt()  # as the next start of a server does
        assert [path for path in store.root.rglob(".*") if path.name != ".versions.lock" and path.is_dir()] == []
        names = [record.version for record in after.list()]
        for name in names:
            assert read_checkpoint_task(after.checkpoint(name))[1]["version"] == name
        assert after.published() in names
        assert after.publications()[-1]["version"] == after.published()
        # And the work goes on.
        added = after.add(trained, VersionRecord()).version
        assert added not in names
        after.publish(added, "anna", "")
        assert after.rollback("anna").version != added
        if not killed:
            break
    assert step > {"add": 5, "publish": 4, "rollback": 4, "delete": 2, "adopt": 9, "tune": 4}[what]


def test_readers_never_see_a_part(store: VersionStore) -> None:
    seen: set[float] = set()
    done = threading.Event()

    def read() -> None:
        while not done.is_set():
            seen.add(_mark(store.root / "published.pt"))

    reader = threading.Thread(target=read)
    reader.start()
    for number in range(30):
        store.publish(f"v{number % 3 + 1}", "anna", "")
    done.set()
    reader.join()
    assert seen <= {1, 2, 3}
    assert len(store.publications()) == 33
