"""What a training may begin from, and how a network gets the encoder of another one."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.errors import CheckpointError, ConfigError
from rep3d.inference.predictor import Predictor
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.network import Network
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.zoo import build_model
from rep3d.training import loop as training_loop
from rep3d.training.start import with_encoder_of
from rep3d.training.train import train
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_checkpoint, small_config

CONFIG = Rep3DConfig(dims=(4, 4, 4, 4), depths=(1, 1, 1, 1), hidden_size=4, kernel_size=3)


def checkpoint_of(model: Network) -> Checkpoint:
    """Return a checkpoint none of whose numbers are those of a fresh network."""
    with torch.no_grad():
        for tensor in model.state_dict().values():
            tensor.add_(1)
    return Checkpoint(model.eval(), TASK, {"version": "v7", "preset": "tiny"})


def taken(network: Network, checkpoint: Checkpoint) -> set[str]:
    """Return which tensors a network has from a checkpoint; all others must be as they were."""
    before = {name: tensor.clone() for name, tensor in network.state_dict().items()}
    after, trained = with_encoder_of(network, checkpoint).state_dict(), checkpoint.model.state_dict()
    found = {name for name in before if not torch.equal(before[name], after[name])}
    assert all(torch.equal(after[name], trained[name]) for name in found)
    assert all(torch.equal(tensor, before[name]) for name, tensor in network.state_dict().items())
    return found


def test_the_encoder_of_another_task_is_taken_and_nothing_else() -> None:
    trained = checkpoint_of(Rep3D(CONFIG))
    encoder = {name for name in trained.model.state_dict() if name.startswith("rep3d.")}
    assert taken(Rep3D(replace(CONFIG, out_channels=5)), trained) == encoder
    stem = {f"rep3d.downsample_layers.0.0.{kind}" for kind in ("weight", "bias")}
    assert taken(Rep3D(replace(CONFIG, in_channels=2)), trained) == encoder - stem


def test_of_other_networks_all_but_the_head_is_taken() -> None:
    settings = {"features": (4, 4, 8, 8, 8, 4)}
    trained = checkpoint_of(build_model("basicunet", **settings))
    body = {name for name in trained.model.state_dict() if "final_conv" not in name}
    assert taken(build_model("basicunet", 1, 2, **settings), trained) == body
    assert taken(build_model("basicunet", 1, 4, **settings), trained) == body


@pytest.mark.parametrize(
    ("network", "words"),
    [
        (lambda: Rep3D(replace(CONFIG, decoder="half")), "decoder full where half is needed.*the preset tiny"),
        (lambda: Rep3D(replace(CONFIG, kernel_size=5)), "kernel_size 3 where 5 is needed"),
        (lambda: build_model("segresnet"), "network rep3d where segresnet is needed"),
    ],
)
def test_another_network_is_refused_in_words(network: object, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        with_encoder_of(network(), checkpoint_of(Rep3D(CONFIG)))  # type: ignore[operator]


def test_a_training_begins_with_an_encoder_and_says_so(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_loop, "preset_config", small_config)
    cases, encoder = [ball_case(tmp_path, 1)], small_checkpoint()
    settings = replace(SETTINGS, iterations=1, learning_rate=1e-6)
    trained = train(cases, TASK, settings, tmp_path / "model.pt", encoder=encoder)
    name = "rep3d.stages.0.0.dwconv.weight"
    torch.testing.assert_close(trained.model.state_dict()[name], encoder.model.state_dict()[name], rtol=0, atol=1e-4)
    origin = trained.info["encoder_from"]
    assert (origin["task"], origin["version"], len(origin["checksum"])) == ("balls", "v1", 8)
    went_on = train(cases, TASK, settings, tmp_path / "model.pt", trained)
    assert went_on.info["encoder_from"] == origin and went_on.version == "v2"
    with pytest.raises(ConfigError, match="Give one of the two"):
        train(cases, TASK, settings, tmp_path / "model.pt", trained, encoder=encoder)
    other = replace(settings, preset="segresnet")
    with pytest.raises(CheckpointError, match="of the preset tiny, not segresnet"):
        train(cases, TASK, other, tmp_path / "model.pt", trained)
    assert load_checkpoint(tmp_path / "model.pt").version == "v2"


def test_another_network_is_trained_on_patches_of_its_stride_and_segments(tmp_path: Path) -> None:
    case = ball_case(tmp_path, 1)
    task = replace(TASK, roi_size=(20, 30, 32))
    settings = replace(SETTINGS, iterations=1, preset="segresnet:base")
    trained = train([case], task, settings, tmp_path / "model.pt", encoder=None)
    assert (trained.info["preset"], trained.task.roi_size) == ("segresnet", (24, 32, 32))
    predictor = Predictor.load(tmp_path / "model.pt", "cpu", "torch")
    assert set(predictor.segment(case.image, tmp_path / "found.nii.gz").volumes_ml) == {"Ball"}
    assert predictor.features(case.image).shape == (32,)
    with pytest.raises(CheckpointError, match="network rep3d where segresnet is needed"):
        train([case], task, settings, tmp_path / "model.pt", encoder=small_checkpoint())
