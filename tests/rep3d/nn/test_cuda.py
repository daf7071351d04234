"""What only a CUDA device can show: values, gradients, lower precision, CUDA graphs, training."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from rep3d.nn.config import Rep3DConfig
from rep3d.nn.fastconv.conv3d import depthwise_conv3d
from rep3d.nn.fold import reparameterize
from rep3d.nn.rep3d import Rep3D

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="no CUDA device on this machine")

SHAPES = [(1, 48, 48), (2, 24, 24), (2, 48, 12), (2, 96, 6)]  # batch, channels, side
SMALL = Rep3DConfig(dims=(8, 16, 16, 24), hidden_size=24, kernel_size=21)


@pytest.fixture(autouse=True)
def full_precision(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.backends.cuda.matmul, "allow_tf32", False)
    monkeypatch.setattr(torch.backends.cudnn, "allow_tf32", False)
    torch.manual_seed(0)


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    return ((actual.double() - expected.double()).abs().max() / expected.double().abs().max()).item()


@pytest.mark.parametrize(("batch", "channels", "side"), SHAPES)
def test_values_and_gradients_equal_conv3d_on_the_cpu(batch: int, channels: int, side: int) -> None:
    """Four channels of each shape are compared: on a CPU PyTorch takes minutes for all."""
    x = torch.randn(batch, channels, side, side, side, device="cuda", requires_grad=True)
    weight = torch.randn(channels, 1, 21, 21, 21, device="cuda", requires_grad=True)
    upstream = torch.randn_like(x)
    y = depthwise_conv3d(x, weight)
    grad_x, grad_weight = torch.autograd.grad(y, (x, weight), upstream)
    few = slice(channels - 4, channels)
    x_few, weight_few = (t.detach().cpu()[s].requires_grad_() for t, s in ((x, (slice(None), few)), (weight, few)))
    expected = F.conv3d(x_few, weight_few, padding=10, groups=4)
    assert relative_error(y[:, few].cpu(), expected) < 5e-6
    reference = depthwise_conv3d(x_few.double(), weight_few.double())
    expected_x, expected_weight = torch.autograd.grad(reference, (x_few, weight_few), upstream[:, few].cpu().double())
    assert relative_error(grad_x[:, few].cpu(), expected_x) < 5e-6
    assert relative_error(grad_weight[few].cpu(), expected_weight) < 5e-6


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_autocast(dtype: torch.dtype) -> None:
    x, weight = torch.randn(1, 8, 24, 24, 24, device="cuda"), torch.randn(8, 1, 21, 21, 21, device="cuda")
    with torch.autocast("cuda", dtype):
        y = depthwise_conv3d(x, weight)
    assert y.dtype == dtype
    assert relative_error(y, depthwise_conv3d(x, weight)) < 2 * torch.finfo(dtype).eps


def test_kept_spectrum_follows_the_weight() -> None:
    x, weight = (
        torch.randn(1, 8, 24, 24, 24, device="cuda"),
        torch.nn.Parameter(torch.randn(8, 1, 21, 21, 21).cuda(), False),
    )
    with torch.no_grad():
        first, second = depthwise_conv3d(x, weight), depthwise_conv3d(x, weight)
        weight.mul_(2)
        third = depthwise_conv3d(x, weight)
    assert torch.equal(first, second)
    assert relative_error(third, 2 * first) < 1e-6


def test_folded_network_equals_the_cpu_and_can_be_captured_in_a_graph() -> None:
    network = Rep3D(SMALL).eval()
    folded = reparameterize(network)
    image = torch.randn(1, 1, 48, 48, 48)
    with torch.inference_mode():
        expected = folded(image).softmax(1)
    folded.cuda()
    static = image.cuda()
    with torch.no_grad():
        stream = torch.cuda.Stream()
        stream.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(stream):
            for _ in range(3):
                eager = folded(static)
        torch.cuda.current_stream().wait_stream(stream)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            captured = folded(static)
        graph.replay()
    torch.cuda.synchronize()
    assert relative_error(eager.softmax(1).cpu(), expected) < 1e-4
    assert torch.equal(captured, eager)


@pytest.mark.parametrize("precision", [torch.float32, torch.bfloat16])
def test_a_training_step_moves_every_parameter(precision: torch.dtype) -> None:
    network = Rep3D(SMALL).cuda().train()
    image = torch.randn(1, 1, 48, 48, 48, device="cuda")
    for _ in range(2):  # what is before the generator's last norm learns from the second step on
        network.zero_grad()
        with torch.autocast("cuda", precision, enabled=precision != torch.float32):
            loss = F.cross_entropy(network(image).float(), (image[:, 0] > 0).long())
        loss.backward()
        torch.optim.SGD(network.parameters(), lr=0.1).step()
    silent = [name for name, p in network.named_parameters() if p.grad is None or not p.grad.isfinite().all()]
    assert not silent
