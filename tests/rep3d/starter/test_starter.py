"""What a starter model says of itself and leaves to those trained on from it; which one fits; who only measures."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from rep3d.checkpoint import HALF_PRECISION, load_checkpoint, read_checkpoint_task, save_checkpoint
from rep3d.errors import CheckpointError
from rep3d.imaging.marks import image_mark
from rep3d.nn.zoo import build_network, preset_config
from rep3d.starter.facts import inherited, is_starter, starter_words
from rep3d.starter.images import starter_images
from rep3d.starter.models import FOLDER, matching_starter, starters
from rep3d.starter.split import is_held_out
from rep3d.tasks.config import TaskConfig
from rep3d.versions.store import VersionStore

FACTS = {
    "name": "toy",
    "data": "Toys",
    "attribution": "A. Maker",
    "licence": "CC-BY-SA 4.0",
    "licence_url": "https://creativecommons.org/licenses/by-sa/4.0/",
    "cases": 8,
    "held_out": 2,
    "dice": {"a": 0.75, "b": 0.5},
}


def write_starter(path: Path, labels: dict[str, int], modality: str = "MRI", **info: object) -> Path:
    """Write an untrained network as a starter model."""
    torch.manual_seed(0)
    network = build_network(preset_config("segresnet", 1, len(labels) + 1))
    task = TaskConfig("toy", labels, roi_size=(32, 32, 32), modality=modality)
    known = {"version": "v1", "created": "2026-01-01T00:00:00+00:00", "cases": ["x"], "preset": "segresnet"}
    save_checkpoint(path, network, task, {**known, "precision": HALF_PRECISION, "starter": FACTS, **info})
    return path


def test_half_precision_is_half_as_large_and_said(tmp_path: Path) -> None:
    half = write_starter(tmp_path / "half.pt", {"a": 1})
    single = write_starter(tmp_path / "single.pt", {"a": 1}, precision=None)
    assert half.stat().st_size < 0.55 * single.stat().st_size
    one, other = load_checkpoint(half), load_checkpoint(single)
    assert one.info["precision"] == "float16"
    for name, tensor in one.model.state_dict().items():
        exact = other.model.state_dict()[name]
        assert tensor.dtype == exact.dtype
        torch.testing.assert_close(tensor, exact, rtol=2**-10, atol=1e-6)
    again = tmp_path / "again.pt"
    save_checkpoint(again, one.model, one.task, one.info)
    assert all(map(torch.equal, load_checkpoint(again).model.state_dict().values(), one.model.state_dict().values()))


def test_a_precision_that_is_not_said_or_not_known_is_refused(tmp_path: Path) -> None:
    path = write_starter(tmp_path / "half.pt", {"a": 1})
    content = torch.load(path, weights_only=True)
    for said, words in (
        (None, "half precision, and its facts do not say so"),
        ("int4", "float32 or float16, not 'int4'"),
    ):
        content["info"]["precision"] = said
        torch.save(content, path)
        with pytest.raises(CheckpointError, match=words):
            load_checkpoint(path)


def test_weights_that_half_precision_cannot_hold_are_refused(tmp_path: Path) -> None:
    checkpoint = load_checkpoint(write_starter(tmp_path / "half.pt", {"a": 1}))
    with torch.no_grad():
        next(p for p in checkpoint.model.parameters() if p.dim() > 1).fill_(1e6)
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        save_checkpoint(tmp_path / "large.pt", checkpoint.model, checkpoint.task, checkpoint.info)


def test_words_name_source_licence_and_descent() -> None:
    words = starter_words({"starter": FACTS})
    assert words is not None
    for part in ("Starter model toy", "8 cases of Toys (A. Maker)", "2 others", "a 0.750, b 0.500", "CC-BY-SA 4.0"):
        assert part in words
    child = {"starter": inherited({"starter": FACTS})}
    grandchild = {"starter": inherited(child)}
    assert is_starter({"starter": FACTS}) and not is_starter(child) and child == grandchild
    told = starter_words(grandchild)
    assert told is not None and told.startswith("Descends from the starter model toy") and "A. Maker" in told
    assert "0.750" not in told
    for nothing in ({}, {"starter": None}, {"starter": {"name": "x"}}, {"starter": "x"}):
        assert (starter_words(nothing), inherited(nothing), is_starter(nothing)) == (None, None, False)


def test_a_starter_fits_by_label_names_and_modality(tmp_path: Path) -> None:
    path = write_starter(tmp_path / "toy.pt", {"a": 1, "b": 2})
    write_starter(tmp_path / "unsaid.pt", {"a": 1, "b": 2}, starter=None)
    (tmp_path / "damaged.pt").write_bytes(b"PK")
    assert [starter.path for starter in starters(tmp_path)] == [path]
    found = matching_starter(["b", "a"], "MR", tmp_path)
    assert found is not None and (found.path, found.trained_on) == (path, {"x"})
    for labels, modality in ((["a"], None), (["a", "b", "c"], None), (["A", "b"], None), (["a", "b"], "CT")):
        assert matching_starter(labels, modality, tmp_path) is None


def test_a_starter_becomes_the_first_version_only(tmp_path: Path) -> None:
    file = write_starter(tmp_path / "toy.pt", {"a": 1})
    store = VersionStore(tmp_path / "model")
    assert store.is_new()
    record = store.begin_with(file)
    assert record is not None
    assert (record.version, record.origin, record.starter, record.cases) == ("v1", "starter", FACTS, ["x"])
    assert (store.published(), store.publications()[0]["reason"]) == ("v1", "the starter model: none was trained yet")
    assert store.size("v1") == file.stat().st_size and file.stat().st_mode & 0o200
    assert store.begin_with(file) is None and not store.is_new()
    assert [each.version for each in store.list()] == ["v1"]


def test_about_a_fifth_is_held_out_for_ever() -> None:
    ids = [f"case_{number}" for number in range(2000)]
    assert 340 < sum(map(is_held_out, ids)) < 460
    assert [id_ for id_ in ids[:14] if is_held_out(id_)] == ["case_2", "case_6", "case_10", "case_13"]
    split = json.loads((FOLDER / "hippocampus_split.json").read_text(encoding="utf-8"))
    assert (len(split["training"]), len(split["held_out"])) == (169, 39)
    assert all(map(is_held_out, split["held_out"])) and not any(map(is_held_out, split["training"]))


def test_its_images_are_known_whatever_they_are_called(shared_data: Path) -> None:
    _, info = read_checkpoint_task(FOLDER / "hippocampus.pt")
    known = starter_images(info)
    assert sorted(known) == sorted(info["trained_on"])
    assert starter_images({"starter": inherited(info)}) == known and starter_images({}) == {}
    for id_, marks in list(known.items())[::40]:
        assert [image_mark(next((shared_data / "hippocampus" / "imagesTr").glob(f"{id_}*")))] == marks
