"""In which precision a network is trained where nobody says so, and that it is the one that somebody asked for."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from rep3d.training import precision
from rep3d.training.precision import MixedPrecision
from rep3d.training.settings import TrainSettings
from rep3d.training.train import train
from tests.rep3d.balls import TASK, ball_case, small_checkpoint

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    ("name", "units", "expected"),
    [
        ("AMD EPYC", (), "float32"),
        ("AMD EPYC", ("avx512_bf16",), "bfloat16"),
        ("Intel(R) Xeon(R) Processor", ("avx512_bf16",), "float32"),
        ("Intel(R) Xeon(R) Processor", ("avx512_bf16", "amx_tile"), "bfloat16"),
    ],
)
def test_bfloat16_is_taken_by_itself_on_processors_that_are_fast_at_it(
    monkeypatch: pytest.MonkeyPatch, name: str, units: tuple[str, ...], expected: str
) -> None:
    monkeypatch.setattr(precision, "processor_name", lambda: name)
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.setattr(torch.cpu, f"_is_{unit}_supported", lambda there=unit in units: there, raising=False)
    assert MixedPrecision(CPU).precision == expected
    assert MixedPrecision(CPU, precision="float32").precision == "float32"
    assert MixedPrecision(CPU, precision="bfloat16").precision == "bfloat16"


def test_a_release_of_pytorch_that_cannot_tell_computes_in_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    for unit in ("amx_tile", "avx512_bf16"):
        monkeypatch.delattr(torch.cpu, f"_is_{unit}_supported", raising=False)
    assert MixedPrecision(CPU).precision == "float32"


@pytest.mark.parametrize("asked", ["float32", "bfloat16"])
def test_the_network_is_run_in_it_and_the_model_says_so(tmp_path: Path, asked: str) -> None:
    seen: list[torch.dtype] = []

    def network(windows: torch.Tensor) -> torch.Tensor:
        seen.append(torch.nn.functional.conv3d(windows, torch.ones(1, 1, 1, 1, 1)).dtype)
        return windows

    logits = MixedPrecision(CPU, precision=asked)(torch.zeros(1, 1, 4, 4, 4), network)
    assert seen == [getattr(torch, asked)] and logits.dtype == torch.float32
    settings = TrainSettings(iterations=2, crops=1, device="cpu", precision=asked)
    trained = train([ball_case(tmp_path, 1)], TASK, settings, tmp_path / "model.pt", small_checkpoint())
    assert trained.info["trained_in"] == asked
    assert all(
        weight.dtype == torch.float32 for weight in trained.model.state_dict().values() if weight.is_floating_point()
    )
