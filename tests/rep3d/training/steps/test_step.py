"""A step in parts is the step of the whole; too little memory is met by smaller parts, and said."""

from __future__ import annotations

from typing import Any

import pytest
import torch
from torch import nn

from rep3d.errors import OutOfMemoryError
from rep3d.training.steps.step import Step, averaged, lacks_memory
from rep3d.training.worker import Worker

BATCH = {"image": torch.rand(5, 1, 4, 4, 4, generator=torch.Generator().manual_seed(1)), "label": torch.ones(5, 1)}


class _Narrow:
    """Calls a network as a device would whose memory holds only so many patches."""

    def __init__(self, most: int) -> None:
        self.most = most
        self.sizes: list[int] = []

    def __call__(self, images: torch.Tensor, network: nn.Module) -> torch.Tensor:
        self.sizes.append(len(images))
        if len(images) > self.most:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory. Tried to allocate 20.00 GiB.")
        return network(images)


def _made(micro_batch: int = 0, most: int = 9) -> tuple[Step, nn.Module, _Narrow]:
    torch.manual_seed(0)
    network = nn.Sequential(nn.Flatten(), nn.Linear(64, 3), nn.Tanh(), nn.Linear(3, 1))
    inferer = _Narrow(most)
    optimizer = torch.optim.AdamW(network.parameters(), 0.1)
    return Step(Worker(torch.device("cpu")), network, optimizer, nn.MSELoss(), inferer, micro_batch), network, inferer


def _after(step: Step, network: nn.Module, steps: int = 3) -> tuple[list[float], list[torch.Tensor]]:
    losses = [step(None, BATCH)["loss"] for _ in range(steps)]
    return losses, [parameter.detach().clone() for parameter in network.parameters()]


def test_micro_batches_make_the_step_of_the_whole_batch() -> None:
    step, network, _ = _made()
    losses, weights = _after(step, network)
    assert losses[2] < losses[0] and step.note is None
    for size in (1, 2, 3):
        again, other, inferer = _made(micro_batch=size)
        found, parts = _after(again, other)
        assert found == pytest.approx(losses, rel=1e-5) and max(inferer.sizes) == size and again.note is None
        torch.testing.assert_close(parts, weights, rtol=1e-4, atol=1e-5)


def test_too_little_memory_is_met_by_smaller_parts_once_and_said() -> None:
    step, network, inferer = _made(most=1)
    losses, weights = _after(step, network)
    assert inferer.sizes == [5, 2, *[1] * 15]  # it is not tried again in the next step
    assert step.micro_batch == 1 and step.note is not None and "1 patch at a time" in step.note
    plain, other, _ = _made(micro_batch=1)
    expected, whole = _after(plain, other)
    assert losses == expected and all(torch.equal(*pair) for pair in zip(weights, whole, strict=True))


def test_a_patch_that_does_not_fit_alone_is_said_and_other_errors_stay_what_they_are() -> None:
    step, _, _ = _made(most=0)
    with pytest.raises(
        OutOfMemoryError, match=r"on cpu for a training step on a single patch of 4 x 4 x 4 voxels.*--p"
    ):
        step(None, BATCH)
    wrong, _, _ = _made()
    with pytest.raises(RuntimeError, match="shapes cannot be multiplied"):
        wrong(None, {**BATCH, "image": torch.rand(5, 1, 3, 3, 3)})


def test_what_says_that_memory_is_short_is_known() -> None:
    with pytest.raises(RuntimeError) as short:
        torch.empty(2**60, dtype=torch.uint8)
    assert lacks_memory(short.value) and lacks_memory(MemoryError()) and lacks_memory(torch.cuda.OutOfMemoryError("x"))
    assert not lacks_memory(RuntimeError("mat1 and mat2 shapes cannot be multiplied"))


def test_averaged_weights_and_statistics_follow_the_formula() -> None:
    torch.manual_seed(0)
    network: Any = nn.Sequential(nn.Conv3d(1, 2, 1), nn.BatchNorm3d(2), nn.Flatten(), nn.Linear(128, 1))
    average = averaged(network, 0.9)
    optimizer = torch.optim.SGD(network.parameters(), 0.1)
    step = Step(Worker(torch.device("cpu")), network, optimizer, nn.MSELoss(), _Narrow(9), average=average)
    expected: dict[str, torch.Tensor] = {}
    for _ in range(4):
        step(None, BATCH)
        for name, tensor in network.state_dict().items():
            if tensor.is_floating_point():
                expected[name] = 0.9 * expected[name] + 0.1 * tensor if name in expected else tensor.clone()
    found = average.module.state_dict()
    assert {name.rpartition(".")[2] for name in expected} >= {"running_mean", "weight"}
    for name, tensor in expected.items():
        torch.testing.assert_close(found[name], tensor)
        assert not torch.equal(found[name], network.state_dict()[name])
