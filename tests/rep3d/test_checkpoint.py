"""Checkpoints carry all that inference needs, cannot run code, and refuse what is damaged or contradictory."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint, read_checkpoint_task, save_checkpoint
from rep3d.errors import CheckpointError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import TaskConfig

CONFIG = Rep3DConfig(out_channels=3, dims=(2, 2, 2, 2), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
TASK = TaskConfig("toy", {"Head": 1, "Tail": 2}, (1.0, 1.0, 1.0), roi_size=(32, 32, 32))


@pytest.fixture
def model() -> Rep3D:
    torch.manual_seed(0)
    return Rep3D(CONFIG).eval()


def test_round_trip_gives_the_same_model_task_and_facts(model: Rep3D, tmp_path: Path) -> None:
    path = tmp_path / "deep" / "model.pt"
    save_checkpoint(path, model, TASK, {"version": "v3", "cases": ["a", "b"]})
    loaded = load_checkpoint(path)
    assert isinstance(loaded, Checkpoint)
    assert (loaded.task, loaded.version, loaded.model.config) == (TASK, "v3", CONFIG)
    assert loaded.info["cases"] == ["a", "b"]
    x = torch.randn(1, 1, 32, 32, 32)
    with torch.no_grad():
        torch.testing.assert_close(loaded.model(x), model(x), rtol=0, atol=0)
    assert not loaded.model.training
    assert read_checkpoint_task(path) == (TASK, loaded.info)
    assert [p.name for p in path.parent.iterdir()] == ["model.pt"]


def test_files_load_without_running_code(model: Rep3D, tmp_path: Path) -> None:
    save_checkpoint(tmp_path / "model.pt", model, TASK, {})
    torch.load(tmp_path / "model.pt", weights_only=True)

    class Attack:
        def __reduce__(self) -> tuple:
            return (Path.touch, (tmp_path / "ran",))

    torch.save({"format": "rep3d-checkpoint", "x": Attack()}, tmp_path / "evil.pt")
    with pytest.raises(CheckpointError):
        load_checkpoint(tmp_path / "evil.pt")
    assert not (tmp_path / "ran").exists()


@pytest.mark.parametrize("content", [b"", b"text", b"PK\x03\x04 cut", b"\x80\x02cos\nsystem\n."])
def test_damaged_files_are_refused_and_left_alone(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "model.pt"
    path.write_bytes(content)
    for read in (load_checkpoint, read_checkpoint_task):
        with pytest.raises(CheckpointError, match="model.pt is damaged, or is no Rep3D model file") as refused:
            read(path)
        assert not any(word in str(refused.value) for word in ("weights_only", "torch", "miniz", "archive"))
    assert path.read_bytes() == content


def test_missing_and_foreign_files_are_refused(model: Rep3D, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="There is no model file"):
        load_checkpoint(tmp_path / "gone.pt")
    torch.save(model.state_dict(), tmp_path / "foreign.pt")
    with pytest.raises(CheckpointError, match="another kind"):
        load_checkpoint(tmp_path / "foreign.pt")


def _change(path: Path, **changes: object) -> None:
    content = torch.load(path, weights_only=True)
    content.update(changes)
    torch.save(content, path)


def test_contradictions_are_refused(model: Rep3D, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, TASK, {})
    two = TaskConfig("two", {"Head": 1}, roi_size=(32, 32, 32))
    _change(path, task=two.to_dict())
    with pytest.raises(CheckpointError, match="output channels"):
        load_checkpoint(path)
    _change(path, task={"name": "x"})
    with pytest.raises(CheckpointError, match="settings"):
        load_checkpoint(path)
    _change(path, task=TASK.to_dict(), config={**CONFIG.to_dict(), "dims": [4, 2, 2, 2]})
    with pytest.raises(CheckpointError, match="weights do not fit"):
        load_checkpoint(path)
    segresnet = {"network": "segresnet", "in_channels": 1, "out_channels": 3, "settings": {}}
    _change(path, format_version=2, config=segresnet)
    with pytest.raises(CheckpointError, match="network cannot be built .segresnet: expected the settings"):
        load_checkpoint(path)
    _change(path, format_version=99)
    with pytest.raises(CheckpointError, match="the format 99; this rep3d reads 1 to 3"):
        load_checkpoint(path)


def test_nan_weights_are_refused_on_loading_and_on_saving(model: Rep3D, tmp_path: Path) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, TASK, {})
    before = path.read_bytes()
    with torch.no_grad():
        next(model.parameters()).view(-1)[0] = float("nan")
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        save_checkpoint(path, model, TASK, {})
    assert path.read_bytes() == before
    _change(path, state_dict=model.state_dict())
    with pytest.raises(CheckpointError, match="NaN or infinity"):
        load_checkpoint(path)


def test_a_model_of_another_task_is_not_saved(model: Rep3D, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="2 output channels"):
        save_checkpoint(tmp_path / "model.pt", model, TaskConfig("two", {"Head": 1}), {})
    assert not (tmp_path / "model.pt").exists()


def test_an_interrupted_save_leaves_the_old_file(model: Rep3D, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.pt"
    save_checkpoint(path, model, TASK, {"version": "v1"})

    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("rep3d.checkpoint.torch.save", fail)
    with pytest.raises(OSError, match="no space"):
        save_checkpoint(path, model, TASK, {"version": "v2"})
    assert load_checkpoint(path).version == "v1"
    assert [p.name for p in tmp_path.iterdir()] == ["model.pt"]
