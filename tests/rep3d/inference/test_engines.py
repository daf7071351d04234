"""Engines: each computes what the network computes, and whatever speaks against one is said or leads to PyTorch."""

from __future__ import annotations

import importlib.util
import logging
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from rep3d.checkpoint import Checkpoint
from rep3d.errors import ConfigError, InferenceCancelled
from rep3d.inference import engines
from rep3d.inference.engines import OpenVinoEngine, TorchEngine, choose_engine
from rep3d.inference.predictor import Predictor
from rep3d.nn.config import PRESETS, NetworkConfig, Rep3DConfig
from rep3d.nn.fold import reparameterize
from rep3d.nn.network import BorrowedNetwork
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.unetr import UnetrSegmenter
from rep3d.nn.zoo import build_model
from rep3d.tasks.config import Intensity, TaskConfig

CPU = torch.device("cpu")
SMALL = Rep3DConfig(out_channels=3, dims=(4, 6, 8, 10), depths=(1, 1, 1, 1), hidden_size=12, kernel_size=5)
MIDDLE = replace(SMALL, in_channels=2, dims=(12, 24, 48, 96), hidden_size=160, kernel_size=9)
TINY = replace(PRESETS["tiny"], out_channels=3)
HALF = replace(MIDDLE, decoder="half")
TASK = TaskConfig("toy", {"Tail": 7, "Head": 2}, (1.0, 1.0, 1.0), Intensity("window", 0, 100), "RAS", (32, 32, 32))

needs_openvino = pytest.mark.skipif(
    importlib.util.find_spec("openvino") is None, reason=f"OpenVINO is not installed: {engines.INSTALL_OPENVINO}"
)


@pytest.fixture(autouse=True)
def _no_engine_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REP3D_ENGINE", raising=False)


def network(config: Rep3DConfig, seed: int = 0) -> UnetrSegmenter:
    """Return a folded network whose probabilities are spread over (0, 1)."""
    torch.manual_seed(seed)
    model = Rep3D(config)
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim == 1:
                parameter.add_(torch.randn_like(parameter) * 0.3)
        model.out.conv.conv.weight.mul_(4)
    folded = reparameterize(model)
    assert isinstance(folded, UnetrSegmenter)
    return folded


def probabilities(model: Callable[[torch.Tensor], torch.Tensor], images: torch.Tensor) -> torch.Tensor:
    with torch.no_grad():
        return model(images).softmax(1)


@needs_openvino
class TestOpenVino:
    @pytest.mark.parametrize(("config", "seed"), [(SMALL, 0), (MIDDLE, 1), (TINY, 2), (TINY, 3), (HALF, 1)])
    def test_has_the_probabilities_of_pytorch(self, config: Rep3DConfig, seed: int) -> None:
        model = network(config, seed)
        images = torch.randn(1, config.in_channels, 32, 48, 32) * 2 + 1
        expected = probabilities(model, images)
        assert expected.min() < 0.02 and expected.max() > 0.98, "nearly constant, so this test would prove nothing"
        actual = probabilities(OpenVinoEngine(model), images)
        torch.testing.assert_close(actual, expected, rtol=0, atol=1e-3)

    @pytest.mark.parametrize("name", ["rep3d", "basicunet"])
    def test_takes_windows_of_any_size_and_number_one_after_the_other(self, name: str) -> None:
        model = network(SMALL) if name == "rep3d" else build_model(name, features=(4, 4, 8, 8, 8, 4)).eval()
        engine = OpenVinoEngine(model)
        for shape in [
            (1, 1, 32, 32, 32),
            (2, 1, 16, 48, 32),
            (1, 1, 48, 16, 16),
            (3, 1, 32, 16, 16),
            (1, 1, 32, 32, 32),
        ]:
            images = torch.randn(shape)
            torch.testing.assert_close(probabilities(engine, images), probabilities(model, images), rtol=0, atol=1e-3)

    def test_a_result_stays_when_the_next_is_computed_and_after_release(self) -> None:
        engine = OpenVinoEngine(network(SMALL))
        images = torch.randn(2, 1, 1, 32, 16, 16)
        first = engine(images[0])
        kept = first.clone()
        second = engine(images[1])
        engine.release()
        assert torch.equal(first, kept) and not torch.equal(first, second)
        torch.testing.assert_close(engine(images[0]), kept, rtol=0, atol=1e-5)

    def test_takes_maps_that_are_not_contiguous(self) -> None:
        model = network(SMALL)
        images = torch.randn(1, 1, 32, 16, 48).transpose(2, 4)
        actual = probabilities(OpenVinoEngine(model), images)
        torch.testing.assert_close(actual, probabilities(model, images), rtol=0, atol=1e-3)

    def test_leaves_the_model_and_the_random_numbers_alone(self) -> None:
        model = network(SMALL)
        before = {name: (sorted(vars(module)), module.training) for name, module in model.named_modules()}
        weights = {name: value.clone() for name, value in model.state_dict().items()}
        torch.manual_seed(5)
        OpenVinoEngine(model)
        drawn = torch.rand(1)
        torch.manual_seed(5)
        assert torch.equal(drawn, torch.rand(1))
        assert {n: (sorted(vars(m)), m.training) for n, m in model.named_modules()} == before
        assert all(torch.equal(weights[name], value) for name, value in model.state_dict().items())
        assert not any(module._forward_hooks or module._forward_pre_hooks for module in model.modules())

    def test_computes_in_float32_with_the_threads_of_pytorch_and_pins_none(self) -> None:
        compiled = OpenVinoEngine(network(SMALL))._compiled
        assert str(compiled.get_property("INFERENCE_PRECISION_HINT").get_type_name()) == "f32"
        assert compiled.get_property("INFERENCE_NUM_THREADS") == torch.get_num_threads()
        assert not compiled.get_property("ENABLE_CPU_PINNING")

    def test_is_imported_without_its_telemetry(self, tmp_path: Path) -> None:
        (tmp_path / "openvino_telemetry.py").write_text("import sys; sys.exit('telemetry was imported')")
        script = (
            f"import sys; sys.path.insert(0, {str(tmp_path)!r})\n"
            "from rep3d.inference.engines import _import_openvino\n"
            "_import_openvino()"
        )
        subprocess.run([sys.executable, "-c", script], check=True, timeout=60)

    def test_different_probabilities_lead_to_pytorch_and_a_warning(
        self, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
    ) -> None:
        decode = OpenVinoEngine._decode
        monkeypatch.setattr(OpenVinoEngine, "_decode", lambda self, *maps: decode(self, *maps) * 1.1)
        with caplog.at_level(logging.WARNING):
            assert choose_engine(network(SMALL), CPU).name == "torch"
        assert "differ" in caplog.text

    def test_a_network_it_cannot_convert_leads_to_pytorch_and_a_warning(self, caplog: pytest.LogCaptureFixture) -> None:
        model = network(SMALL)
        model.decoder1 = _Unconvertible()  # type: ignore[assignment]
        with caplog.at_level(logging.WARNING):
            engine = choose_engine(model, CPU)
        assert engine.name == "torch" and "OpenVINO" in caplog.text
        with pytest.raises(ConfigError, match="openvino.*cannot run this network"):
            choose_engine(model, CPU, "openvino")
        images = torch.randn(1, 1, 32, 16, 16)
        torch.testing.assert_close(probabilities(engine, images), probabilities(model, images))

    def test_auto_takes_it_where_enough_work_awaits_it(self) -> None:
        model = network(TINY)
        assert choose_engine(model, CPU).name == "openvino"
        assert choose_engine(model, CPU, "auto", voxels=2 * 96**3).name == "openvino"
        assert choose_engine(model, CPU, "auto", voxels=2 * 48 * 64 * 48).name == "torch"
        assert choose_engine(model, CPU, "openvino", voxels=1).name == "openvino"

    def test_a_predictor_segments_with_it_as_with_pytorch(
        self, write_nifti: Callable[..., Path], tmp_path: Path
    ) -> None:
        checkpoint = Checkpoint(Rep3D(SMALL).eval(), TASK, {})
        image = write_nifti("image.nii.gz", np.random.default_rng(0).uniform(0, 100, (40, 33, 20)).astype(np.float32))
        plain, fast = Predictor(checkpoint, "cpu", "torch"), Predictor(checkpoint, "cpu")
        assert fast.segment(image, tmp_path / "found.nii.gz").engine == "openvino"
        assert plain.segment(image, tmp_path / "found.nii.gz").engine == "torch"
        difference = torch.as_tensor(plain.probabilities(image)) - torch.as_tensor(fast.probabilities(image))
        assert difference.abs().max() < 1e-3

    def test_a_predictor_for_one_image_takes_it_only_if_the_image_is_large_enough(
        self, write_nifti: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        image = write_nifti("image.nii.gz", np.zeros((40, 33, 20), np.float32))
        checkpoint = Checkpoint(Rep3D(SMALL).eval(), TASK, {})
        small = Predictor(checkpoint, "cpu", single_image=True).segment(image, tmp_path / "found.nii.gz")
        monkeypatch.setattr(engines, "WORTH_CONVERTING", 1e6)
        large = Predictor(checkpoint, "cpu", single_image=True).segment(image, tmp_path / "found.nii.gz")
        assert (small.engine, large.engine) == ("torch", "openvino")


class _Unconvertible(nn.Module):
    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.linalg.eigvals(x @ x.transpose(-1, -2)).real.unsqueeze(-1) + x


def test_pytorch_is_the_model_itself() -> None:
    model = network(SMALL)
    images = torch.randn(2, 1, 32, 16, 16)
    engine = TorchEngine(model)
    assert torch.equal(probabilities(engine, images), probabilities(model, images))
    assert not engine(images).requires_grad


def test_the_engine_is_named_by_argument_or_else_by_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    model = network(SMALL)
    assert choose_engine(model, CPU, "torch").name == "torch"
    monkeypatch.setenv("REP3D_ENGINE", "tourch")
    with pytest.raises(ConfigError, match=r"REP3D_ENGINE.*'auto', 'torch', 'openvino'.*'tourch'"):
        choose_engine(model, CPU)
    assert choose_engine(model, CPU, "torch").name == "torch"
    monkeypatch.setenv("REP3D_ENGINE", "torch")
    assert choose_engine(model, CPU).name == "torch"
    with pytest.raises(ConfigError, match="warp"):
        choose_engine(model, CPU, "warp")


def test_openvino_asked_for_but_not_installed_is_refused_with_the_pip_line(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    with pytest.raises(ConfigError, match="pip install"):
        choose_engine(network(SMALL), CPU, "openvino")
    assert choose_engine(network(SMALL), CPU, "auto").name == "torch"


def test_openvino_is_for_the_cpu_and_for_unetr_decoders() -> None:
    model = network(SMALL)
    with pytest.raises(ConfigError, match="cuda"):
        choose_engine(model, torch.device("cuda"), "openvino")
    assert choose_engine(model, torch.device("cuda")).name == "torch"
    with pytest.raises(ConfigError, match="UNETR"):
        choose_engine(nn.Conv3d(1, 2, 1), CPU, "openvino")
    decides_on_sizes = BorrowedNetwork(nn.Conv3d(1, 2, 1), NetworkConfig("swinunetr", 1, 2, {}), 32, any_size=False)
    assert choose_engine(decides_on_sizes, CPU).name == "torch"
    with pytest.raises(ConfigError, match="transformer"):
        choose_engine(decides_on_sizes, CPU, "openvino")
    assert choose_engine(nn.Conv3d(1, 2, 1), CPU).name == "torch"


def test_work_is_counted_as_by_hand() -> None:
    """All but the small deep levels of a narrow decoder, in taps times channels in and out, at each level's size."""
    config = replace(SMALL, dims=(4, 4, 4, 4), hidden_size=4)
    full = (1 * 4 + 4 * 4) * 27 + 1 * 4 + (4 * 4) * 1 + (8 * 4 + 4 * 4) * 27 + 8 * 4 + 2 * 4 * 4 * 27 + 4 * 3
    lower = 2 * 4 * 4 * 27 + (8 * 4 + 4 * 4) * 27 + 8 * 4 + 4 * 4
    levels = [1 / 8, 1 / 64, 1 / 512]
    expected = full + lower * sum(levels) + 2 * 4 * 4 * 27 / 4096
    assert engines._decoding_work(network(config)) == pytest.approx(expected, rel=1e-3)


@pytest.mark.parametrize("name", ["torch", pytest.param("openvino", marks=needs_openvino)])
def test_a_call_can_be_ended_in_the_middle(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engines, "_ASK_MILLISECONDS", 1)
    model = network(MIDDLE)
    engine, images, asked = choose_engine(model, CPU, name), torch.randn(1, 2, 64, 64, 64), 0
    expected = engine(images)

    def end_later() -> None:
        nonlocal asked
        asked += 1
        if asked == 5:
            raise InferenceCancelled("enough")

    with pytest.raises(InferenceCancelled, match="enough"):
        engine(images, end_later)
    assert asked == 5
    if isinstance(engine, OpenVinoEngine):
        with torch.inference_mode(), pytest.raises(InferenceCancelled):
            asked = 4
            engine._decode(images, list(model.encode(images)), end_later)
    torch.testing.assert_close(engine(images, lambda: None), expected, rtol=0, atol=1e-5)  # nothing is left of it
    assert not any(module._forward_pre_hooks for module in model.modules())
