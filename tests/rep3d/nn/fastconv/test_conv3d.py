"""The fast depthwise convolution against PyTorch's own: values, gradients, types, threads, and its spectrum cache."""

from __future__ import annotations

import gc
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import pytest
import torch
import torch.nn.functional as F

from rep3d.errors import ConfigError
from rep3d.nn.fastconv import chunks as channel_chunks
from rep3d.nn.fastconv import conv3d
from rep3d.nn.fastconv.conv3d import depthwise_conv3d
from rep3d.nn.fastconv.spectra import SpectrumCache
from rep3d.nn.lrbm import DepthwiseConv3d

MAPS = [(6, 6, 6), (7, 5, 6), (1, 9, 4), (12, 10, 11), (2, 3, 17), (1, 1, 1)]
KERNELS = [(3, 3, 3), (7, 7, 7), (21, 21, 21), (5, 1, 9)]


@pytest.fixture
def always_transforms(monkeypatch: pytest.MonkeyPatch) -> None:
    """Use the transforms at any size, so that small tests exercise them."""
    monkeypatch.setattr(conv3d, "_transforms_pay", lambda voxels, taps, training: voxels > 0)


@pytest.fixture
def spectrum_cache(monkeypatch: pytest.MonkeyPatch) -> SpectrumCache:
    """Return an empty cache in place of the process's."""
    cache = SpectrumCache(max_bytes=1 << 20, max_entry_bytes=1 << 19)
    monkeypatch.setattr(conv3d, "_kernel_spectra", cache)
    return cache


def reference(x: torch.Tensor, weight: torch.Tensor, bias: torch.Tensor | None = None) -> torch.Tensor:
    return F.conv3d(x, weight, bias, padding=[k // 2 for k in weight.shape[2:]], groups=x.shape[1])


def leaf(*shape: int, dtype: torch.dtype = torch.float64) -> torch.Tensor:
    return torch.randn(*shape, dtype=dtype).requires_grad_()


def relative_error(actual: torch.Tensor, expected: torch.Tensor) -> float:
    assert actual.shape == expected.shape and actual.dtype == expected.dtype
    return ((actual - expected).abs().max() / expected.abs().max()).item()


def assert_same_with_gradients(
    actual: torch.Tensor, expected: torch.Tensor, inputs: tuple[torch.Tensor, ...], upstream: torch.Tensor | None = None
) -> None:
    """Two results and their gradients agree; without ``upstream``, those of the sum of squares."""
    assert relative_error(actual, expected) < 1e-13
    mine, theirs = (
        torch.autograd.grad(y, inputs, 2 * y.detach() if upstream is None else upstream) for y in (actual, expected)
    )
    for gradient, exact in zip(mine, theirs, strict=True):
        assert relative_error(gradient, exact) < 1e-13


@pytest.fixture(autouse=True)
def seed() -> None:
    torch.manual_seed(0)


@pytest.mark.usefixtures("always_transforms")
class TestTransforms:
    @pytest.mark.parametrize("kernel", KERNELS)
    @pytest.mark.parametrize("shape", MAPS)
    def test_values_and_gradients_equal_conv3d(self, shape: tuple[int, ...], kernel: tuple[int, ...]) -> None:
        inputs = leaf(2, 3, *shape), leaf(3, 1, *kernel), leaf(3)
        expected = reference(*inputs)
        actual = depthwise_conv3d(*inputs)
        upstream = torch.randn_like(expected)
        assert relative_error(actual, expected) < 1e-13
        for mine, theirs in zip(
            torch.autograd.grad(actual, inputs, upstream), torch.autograd.grad(expected, inputs, upstream), strict=True
        ):
            assert relative_error(mine, theirs) < 1e-13

    def test_taps_that_reach_no_voxel_have_zero_gradient(self) -> None:
        x, weight = leaf(1, 1, 2, 4, 4), leaf(1, 1, 7, 7, 7)
        (gradient,) = torch.autograd.grad(depthwise_conv3d(x, weight).sum(), weight)
        assert gradient[:, :, [0, 1, 5, 6]].count_nonzero() == 0
        assert gradient[:, :, 2:5].abs().min() > 0

    def test_gradcheck(self) -> None:
        assert torch.autograd.gradcheck(depthwise_conv3d, (leaf(2, 2, 3, 2, 4), leaf(2, 1, 5, 3, 5), leaf(2)))

    @pytest.mark.parametrize("frozen", ["x", "weight"])
    def test_either_gradient_alone(self, frozen: str) -> None:
        x, weight = leaf(2, 2, 5, 6, 4), leaf(2, 1, 5, 5, 5)
        wanted = x if frozen == "weight" else weight
        (x if frozen == "x" else weight).requires_grad_(False)
        (mine,) = torch.autograd.grad(depthwise_conv3d(x, weight).square().sum(), wanted)
        (theirs,) = torch.autograd.grad(reference(x, weight).square().sum(), wanted)
        assert relative_error(mine, theirs) < 1e-13

    @pytest.mark.parametrize("layout", ["transposed", "channels_last", "strided", "expanded gradient"])
    def test_any_strides(self, layout: str) -> None:
        x, weight = torch.randn(2, 4, 6, 5, 8).double(), torch.randn(4, 1, 5, 5, 5).double()
        if layout == "transposed":
            x, weight = x.transpose(2, 4), weight.transpose(2, 4)
        elif layout == "channels_last":
            x = x.to(memory_format=torch.channels_last_3d)
        elif layout == "strided":
            x = x[..., ::2]
        x.requires_grad_()
        weight.requires_grad_()
        expected, actual = reference(x, weight), depthwise_conv3d(x, weight)
        upstream = torch.ones(()).double().expand_as(expected) if layout == "expanded gradient" else expected.detach()
        assert_same_with_gradients(actual, expected, (x, weight), upstream)

    @pytest.mark.parametrize("channels", [1, 7, 12])
    def test_chunks_that_do_not_divide_the_channels(self, channels: int, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(channel_chunks, "CPU_CHUNK_BYTES", 5 * 8 * 8**3)  # five channels of 8^3 float64 numbers
        x, weight = leaf(2, channels, 6, 6, 6), leaf(channels, 1, 5, 5, 5)
        expected, actual = reference(x, weight), depthwise_conv3d(x, weight)
        assert_same_with_gradients(actual, expected, (x, weight))

    def test_float32_rounds_no_worse_than_conv3d(self) -> None:
        x, weight = torch.randn(1, 4, 16, 16, 16), torch.randn(4, 1, 21, 21, 21)
        exact = reference(x.double(), weight.double())
        assert relative_error(depthwise_conv3d(x, weight).double(), exact) < 2e-6

    @pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
    def test_half_precision_is_rounded_once(self, dtype: torch.dtype) -> None:
        x, weight, bias = leaf(1, 3, 6, 6, 6, dtype=dtype), leaf(3, 1, 5, 5, 5, dtype=dtype), leaf(3, dtype=dtype)
        exact = reference(x.float(), weight.float(), bias.float())
        y = depthwise_conv3d(x, weight, bias)
        assert relative_error(y, exact.to(dtype)) < torch.finfo(dtype).eps
        y.sum().backward()
        assert all(tensor.grad is not None and tensor.grad.dtype == dtype for tensor in (x, weight, bias))

    def test_autocast_computes_in_float32_and_returns_what_conv3d_returns(self) -> None:
        x, weight = leaf(1, 3, 6, 6, 6, dtype=torch.float32), leaf(3, 1, 5, 5, 5, dtype=torch.float32)
        exact = reference(x, weight)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            assert reference(x, weight).dtype == torch.bfloat16
            y = depthwise_conv3d(x, weight)
            assert depthwise_conv3d(x.double(), weight.double()).dtype == torch.float64
        assert relative_error(y, exact.to(torch.bfloat16)) < torch.finfo(torch.bfloat16).eps
        y.float().square().sum().backward()
        assert x.grad is not None and x.grad.dtype == torch.float32
        (expected,) = torch.autograd.grad(exact.square().sum(), x)
        assert relative_error(x.grad, expected) < 0.02

    def test_no_second_derivative_rather_than_a_wrong_one(self) -> None:
        x, weight = leaf(1, 1, 4, 4, 4), leaf(1, 1, 3, 3, 3)
        (gradient,) = torch.autograd.grad(depthwise_conv3d(x, weight).square().sum(), x, create_graph=True)
        with pytest.raises(RuntimeError, match="rep3d.depthwise_conv3d_backward"):
            gradient.sum().backward()

    def test_inference_mode_does_not_spoil_later_training(self) -> None:
        x, weight = torch.randn(1, 2, 9, 8, 7).double(), torch.nn.Parameter(torch.randn(2, 1, 5, 5, 5).double())
        with torch.inference_mode():
            first = depthwise_conv3d(x, weight)
        second = depthwise_conv3d(x, weight)
        second.sum().backward()
        assert torch.equal(first, second)

    def test_threads_do_not_share_buffers(self) -> None:
        weight = torch.nn.Parameter(torch.randn(4, 1, 7, 7, 7))
        inputs = [torch.randn(1, 4, 8 + i % 3, 10, 9) for i in range(12)]
        with torch.no_grad():
            expected = [depthwise_conv3d(x, weight) for x in inputs]

        def infer(x: torch.Tensor) -> torch.Tensor:
            with torch.no_grad():
                for _ in range(5):
                    y = depthwise_conv3d(x, weight)
            return y

        interval = sys.getswitchinterval()
        sys.setswitchinterval(1e-6)  # so that threads take turns within a call
        try:
            with ThreadPoolExecutor(4) as pool:
                actual = list(pool.map(infer, inputs))
        finally:
            sys.setswitchinterval(interval)
        assert all(relative_error(a, e) < 1e-6 for a, e in zip(actual, expected, strict=True))

    def test_saves_only_its_inputs_for_the_backward_pass(self) -> None:
        x, weight = leaf(1, 2, 6, 6, 6), leaf(2, 1, 5, 5, 5)
        saved: list[torch.Tensor] = []

        def pack(tensor: torch.Tensor) -> torch.Tensor:
            saved.append(tensor)
            return tensor

        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            depthwise_conv3d(x, weight)
        assert [tensor.data_ptr() for tensor in saved] == [x.data_ptr(), weight.data_ptr()]

    @pytest.mark.parametrize("bound", [1, 6 * 8 * 10**3, 5 * 6 * 8 * 10**3])
    def test_the_bound_on_the_workspace_does_not_change_the_values(self, bound: int) -> None:
        x, weight = leaf(2, 7, 8, 8, 8), leaf(7, 1, 5, 5, 5)
        actual, expected = depthwise_conv3d(x, weight, workspace_bytes=bound), reference(x, weight)
        assert_same_with_gradients(actual, expected, (x, weight))

    def test_is_one_step_for_the_compiler(self) -> None:
        x, weight, bias = leaf(2, 3, 6, 7, 6), leaf(3, 1, 5, 5, 5), leaf(3)
        compiled = torch.compile(depthwise_conv3d, backend="aot_eager", fullgraph=True)
        expected, actual = depthwise_conv3d(x, weight, bias), compiled(x, weight, bias)
        assert torch.equal(actual, expected)
        for mine, theirs in zip(
            torch.autograd.grad(actual.square().sum(), (x, weight, bias)),
            torch.autograd.grad(expected.square().sum(), (x, weight, bias)),
            strict=True,
        ):
            assert torch.equal(mine, theirs)

    @pytest.mark.parametrize("strict", [False, True])
    def test_is_one_step_in_an_exported_program(self, strict: bool) -> None:
        layer, x = DepthwiseConv3d(3, 5).eval(), torch.randn(2, 3, 6, 7, 6)
        program = torch.export.export(layer, (x,), strict=strict)
        assert any("rep3d.depthwise_conv3d" in str(node.target) for node in program.graph.nodes)
        with torch.no_grad():
            assert torch.equal(program.module()(x), layer(x))

    def test_half_precision_saves_its_inputs_as_they_are(self) -> None:
        x, weight = leaf(1, 2, 6, 6, 6, dtype=torch.bfloat16), leaf(2, 1, 5, 5, 5, dtype=torch.bfloat16)
        saved: list[torch.Tensor] = []
        with torch.autograd.graph.saved_tensors_hooks(lambda t: saved.append(t) or t, lambda t: t):
            y = depthwise_conv3d(x, weight)
        assert [tensor.dtype for tensor in saved] == [torch.bfloat16] * 2
        y.sum().backward()
        assert x.grad is not None and x.grad.dtype == torch.bfloat16

    def test_keeps_the_contract_of_an_operator(self) -> None:
        """Fake shapes, strides, aliasing and autograd registration, as PyTorch itself checks them."""
        x, weight = leaf(2, 3, 6, 7, 6), leaf(3, 1, 5, 5, 5)
        torch.library.opcheck(conv3d._convolve, (x, weight, False, 1 << 20))
        with torch.no_grad():
            torch.library.opcheck(conv3d._convolve_backward, (x * 2, x, weight, True, False, 1 << 20))


class TestChoice:
    """What is handed to PyTorch's own convolution."""

    @pytest.mark.parametrize("training", [False, True])
    def test_small_maps_crop_the_kernel(self, training: bool) -> None:
        x, weight, bias = leaf(2, 3, 3, 2, 4), leaf(3, 1, 21, 21, 21), leaf(3)
        with torch.set_grad_enabled(training):
            actual = depthwise_conv3d(x, weight, bias)
        expected = reference(x, weight, bias)
        assert relative_error(actual, expected) < 1e-14
        if training:
            (mine,) = torch.autograd.grad(actual.square().sum(), weight)
            (theirs,) = torch.autograd.grad(expected.square().sum(), weight)
            assert relative_error(mine, theirs) < 1e-14

    def test_complex_numbers(self) -> None:
        x, weight = torch.randn(1, 2, 4, 4, 4, dtype=torch.complex64), torch.randn(2, 1, 3, 3, 3, dtype=torch.complex64)
        assert torch.equal(depthwise_conv3d(x, weight), reference(x, weight))

    def test_empty_batch(self) -> None:
        weight = torch.randn(2, 1, 21, 21, 21, requires_grad=True)
        depthwise_conv3d(torch.randn(1, 2, 24, 24, 24), weight).sum().backward()  # leaves numbers in the buffers
        weight.grad = None
        y = depthwise_conv3d(torch.randn(0, 2, 24, 24, 24), weight)
        y.sum().backward()
        assert y.shape == (0, 2, 24, 24, 24)
        assert weight.grad is not None and weight.grad.count_nonzero() == 0

    def test_different_types_are_refused_as_by_conv3d(self) -> None:
        with pytest.raises(RuntimeError):
            depthwise_conv3d(torch.randn(1, 2, 4, 4, 4), torch.randn(2, 1, 3, 3, 3).double())


@pytest.mark.parametrize(
    ("x_shape", "weight_shape", "bias_shape", "message"),
    [
        ((2, 4, 4, 4), (2, 1, 3, 3, 3), None, r"\(B, C, D, H, W\), got \(2, 4, 4, 4\)"),
        ((1, 2, 4, 4, 4), (3, 1, 3, 3, 3), None, r"expected kernels of shape \(2, 1, Kz, Ky, Kx\).*got \(3, 1"),
        ((1, 2, 4, 4, 4), (2, 2, 3, 3, 3), None, "expected kernels of shape"),
        ((1, 2, 4, 4, 4), (2, 1, 3, 3), None, "expected kernels of shape"),
        ((1, 2, 4, 4, 4), (2, 1, 3, 4, 3), None, r"odd kernel sides.*\(3, 4, 3\)"),
        ((1, 2, 4, 4, 4), (2, 1, 3, 3, 3), (3,), r"bias of shape \(2,\), got \(3,\)"),
    ],
)
def test_refuses_shapes_that_do_not_fit(
    x_shape: tuple[int, ...], weight_shape: tuple[int, ...], bias_shape: tuple[int, ...] | None, message: str
) -> None:
    bias = None if bias_shape is None else torch.zeros(bias_shape)
    with pytest.raises(ConfigError, match=message):
        depthwise_conv3d(torch.zeros(x_shape), torch.zeros(weight_shape), bias)


@pytest.mark.parametrize("bound", [0, -1])
def test_refuses_a_workspace_of_nothing(bound: int) -> None:
    with pytest.raises(ConfigError, match=f"positive number of bytes, got {bound}"):
        depthwise_conv3d(torch.zeros(1, 1, 4, 4, 4), torch.zeros(1, 1, 3, 3, 3), workspace_bytes=bound)


@pytest.mark.usefixtures("always_transforms")
class TestSpectrumCache:
    @pytest.fixture
    def x(self) -> torch.Tensor:
        return torch.randn(1, 2, 6, 7, 8)

    @pytest.fixture(autouse=True)
    def no_grad(self) -> Iterator[None]:
        with torch.no_grad():
            yield

    def check(self, x: torch.Tensor, weight: torch.nn.Parameter) -> None:
        assert relative_error(depthwise_conv3d(x, weight), reference(x, weight)) < 1e-5

    def test_second_call_uses_the_kept_spectrum(
        self, x: torch.Tensor, spectrum_cache: SpectrumCache, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        weight = torch.nn.Parameter(torch.randn(2, 1, 5, 5, 5))
        first = depthwise_conv3d(x, weight)
        computed: list[int] = []
        monkeypatch.setattr(conv3d, "_kernel_spectrum", lambda *_, **__: computed.append(1))
        assert torch.equal(depthwise_conv3d(x, weight), first)
        assert not computed and len(spectrum_cache._entries) == 1

    @pytest.mark.parametrize("change", ["optimizer", "load_state_dict", "in place", "through data", "other data"])
    def test_a_changed_weight_is_noticed(self, x: torch.Tensor, change: str) -> None:
        module = torch.nn.Module()
        weight = module.weight = torch.nn.Parameter(torch.randn(2, 1, 5, 5, 5))
        self.check(x, weight)
        if change == "optimizer":
            weight.grad = torch.randn_like(weight)
            torch.optim.AdamW([weight], lr=0.5).step()
        elif change == "load_state_dict":
            module.load_state_dict({"weight": torch.randn(2, 1, 5, 5, 5)})
        elif change == "in place":
            weight[0, 0, 2, 2, 2] += 1
        elif change == "through data":
            weight.data.mul_(2)
        else:
            weight.data = torch.randn(2, 1, 5, 5, 5)
        self.check(x, weight)

    def test_map_shapes_have_their_own_spectra(self, x: torch.Tensor) -> None:
        weight = torch.nn.Parameter(torch.randn(2, 1, 21, 21, 21))
        for shape in [(6, 7, 8), (9, 5, 6), (6, 7, 8), (5, 7, 8)]:
            self.check(torch.randn(1, 2, *shape), weight)

    def test_float64_and_float32_do_not_mix(self, x: torch.Tensor) -> None:
        weight = torch.nn.Parameter(torch.randn(2, 1, 5, 5, 5))
        self.check(x, weight)
        weight.data = weight.data.double()
        self.check(x.double(), weight)

    def test_dead_parameters_leave_nothing_behind(self, x: torch.Tensor, spectrum_cache: SpectrumCache) -> None:
        weight = torch.nn.Parameter(torch.randn(2, 1, 5, 5, 5))
        self.check(x, weight)
        del weight
        gc.collect()
        assert not spectrum_cache._entries

    def test_size_is_bounded_and_the_oldest_go_first(self, x: torch.Tensor, spectrum_cache: SpectrumCache) -> None:
        weights = [torch.nn.Parameter(torch.randn(2, 1, 5, 5, 5)) for _ in range(200)]
        for weight in weights:
            depthwise_conv3d(x, weight)
        kept = {key[0] for key in spectrum_cache._entries}
        assert sum(entry.size for entry in spectrum_cache._entries.values()) <= 1 << 20
        assert id(weights[-1]) in kept and id(weights[0]) not in kept

    def test_temporary_kernels_are_not_kept(self, x: torch.Tensor, spectrum_cache: SpectrumCache) -> None:
        depthwise_conv3d(x, torch.randn(2, 1, 5, 5, 5))
        assert not spectrum_cache._entries
