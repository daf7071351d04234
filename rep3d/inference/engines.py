"""What runs the network's arithmetic in inference: PyTorch, or OpenVINO where that is faster.

On a CPU nearly all of the time goes into the decoder's small convolutions, which OpenVINO computes about twice as fast
as PyTorch. The encoder's large kernels stay with PyTorch and `rep3d.nn.fastconv`: OpenVINO would visit every tap.
Networks without such kernels are its alone. Both sides compute in float32. In bfloat16, which takes half the time,
OpenVINO computes only for a version whose Dice was measured with it (`rep3d.inference.tuned`). OpenVINO is optional;
where it is missing or fails, PyTorch does all of it.
"""

from __future__ import annotations

import importlib.util
import logging
import math
import os
import sys
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, suppress
from typing import Any

import torch
from torch import nn
from torch.utils.flop_counter import FlopCounterMode

from rep3d.errors import ConfigError
from rep3d.nn.network import BorrowedNetwork, Network

__all__ = ["BFLOAT16", "ENGINES", "FLOAT32", "Engine", "OpenVinoEngine", "TorchEngine", "can_compute", "choose_engine"]

ENGINES = ("auto", "torch", "openvino")
ENVIRONMENT_VARIABLE = "REP3D_ENGINE"
INSTALL_OPENVINO = "pip install openvino"
WORTH_CONVERTING = 1e11  # multiply-adds: on two cores two seconds of PyTorch, of which OpenVINO saves one
_ASK_MILLISECONDS = 100
FLOAT32, BFLOAT16 = "float32", "bfloat16"
TOLERANCE = 1e-3  # largest difference between two probabilities
_TOLERANCES = {FLOAT32: TOLERANCE, BFLOAT16: 0.1}  # bfloat16's is no measure of quality, which is Dice: of what works
_HINTS = {FLOAT32: "f32", BFLOAT16: "bf16"}
_SKILLS = {FLOAT32: "FP32", BFLOAT16: "BF16"}  # as OpenVINO calls what a processor has instructions for

Check = Callable[[], None]

_logger = logging.getLogger(__name__)


@contextmanager
def _asking(model: nn.Module, check: Check | None) -> Iterator[None]:
    """Call ``check`` before each layer of a network, for as long as this lasts."""
    asked = [] if check is None else [each.register_forward_pre_hook(lambda *_: check()) for each in model.modules()]
    try:
        yield
    finally:
        for hook in asked:
            hook.remove()


class TorchEngine:
    """The network as it is, on its own device.

    Attributes:
        name: One of `ENGINES`, but not ``auto``.

    Args:
        model: Maps images to logits.
    """

    name = "torch"

    def __init__(self, model: nn.Module) -> None:
        self._model = model

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor, check: Check | None = None) -> torch.Tensor:
        """Map images (B, in_channels, D, H, W) to logits (B, out_channels, D, H, W).

        Args:
            images: what to map.
            check: called every now and then meanwhile; what it raises ends the call.
        """
        with _asking(self._model, check):
            return self._model(images)

    def release(self) -> None:
        """Give back memory that is only needed during a call: none here, where PyTorch has it."""


class OpenVinoEngine:
    """What a network's `Network.encode` does in PyTorch, the rest in OpenVINO, on the CPU.

    Compiled once, for windows of any size and number. The weights are then in memory twice: OpenVINO keeps its own copy
    of the decoder's, rearranged. Uses as many threads as PyTorch did when the engine was made. Not for use from several
    threads at once.

    Args:
        model: The network, on the CPU in float32; it is not changed, and must not change while the engine lives.
        precision: In which OpenVINO computes, ``float32`` or ``bfloat16``; images and logits are float32.

    Raises:
        ImportError: If OpenVINO is not installed.
        RuntimeError: If OpenVINO cannot convert or compile the decoder, or computes something else than PyTorch.
    """

    name = "openvino"

    def __init__(self, model: Network, precision: str = FLOAT32) -> None:
        openvino = _import_openvino()
        self._model = model
        self._tolerance = _TOLERANCES[precision]
        if precision != FLOAT32:
            self.name = f"openvino {precision}"
        image, stages = _example(model)
        decoder = _Decoder(model)
        with torch.no_grad(), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # the tracer's, about shapes: the decoder takes no decision on a shape
            traced = torch.jit.trace(decoder, (image, *stages), check_trace=False)
        with _root_logger_kept():
            converted = openvino.convert_model(traced)  # traced above, as OpenVINO would run the decoder several times
        settings = {
            "INFERENCE_PRECISION_HINT": _HINTS[precision],  # without it, bfloat16 where the processor has it
            "INFERENCE_NUM_THREADS": torch.get_num_threads(),
            "PERFORMANCE_HINT": "LATENCY",
            "ENABLE_CPU_PINNING": False,  # a training may run on the same cores
        }
        self._compiled = openvino.Core().compile_model(converted, "CPU", settings)
        self._request = self._compiled.create_infer_request()
        self._check(image, stages)
        if isinstance(model, BorrowedNetwork):  # whose code may decide on a shape: the tracer would keep that decision
            self._check(*_example(model, (1, 2, 3)))

    @torch.inference_mode()
    def __call__(self, images: torch.Tensor, check: Check | None = None) -> torch.Tensor:
        """Map images to logits, as :meth:`TorchEngine.__call__`."""
        with _asking(self._model, check):
            stages = self._model.encode(images)
        return self._decode(images, stages, check)

    def release(self) -> None:
        """Free the buffers for the decoder's maps; the next call makes them again."""
        self._compiled.release_memory()

    def _decode(self, image: torch.Tensor, stages: Sequence[torch.Tensor], check: Check | None = None) -> torch.Tensor:
        maps = [tensor.numpy() for tensor in (image, *stages)]
        self._request.start_async(maps, share_inputs=True)
        try:
            while not self._request.wait_for(_ASK_MILLISECONDS):
                if check is not None:
                    check()
        except BaseException:
            self._request.cancel()
            with suppress(RuntimeError):  # that it was cancelled
                self._request.wait()
            raise
        return torch.from_numpy(self._request.get_output_tensor(0).data.copy())

    @torch.inference_mode()
    def _check(self, image: torch.Tensor, stages: Sequence[torch.Tensor]) -> None:
        expected = self._model.decode(image, stages).softmax(1)
        difference = (self._decode(image, stages).softmax(1) - expected).abs().max().item()
        if not difference <= self._tolerance:
            raise RuntimeError(
                f"its probabilities differ from PyTorch's by {difference:.1e}, expected {self._tolerance}"
            )


Engine = TorchEngine | OpenVinoEngine


def can_compute(precision: str) -> bool:
    """Return whether OpenVINO is here, and the processor has instructions for a precision."""
    if importlib.util.find_spec("openvino") is None:
        return False
    skills = _import_openvino().Core().get_property("CPU", "OPTIMIZATION_CAPABILITIES")
    return _SKILLS[precision] in skills


def choose_engine(
    model: nn.Module,
    device: torch.device,
    name: str | None = None,
    voxels: float = math.inf,
    precision: str = FLOAT32,
) -> Engine:
    """Return the engine of that name, or the fastest at hand.

    ``auto`` is OpenVINO on a CPU where it is installed, else PyTorch. Starting OpenVINO takes a second or more, so for
    decoding less than `WORTH_CONVERTING` multiply-adds in all (one small image, say) ``auto`` stays with PyTorch.

    Where ``auto`` meets an OpenVINO that fails to start, a warning is logged and PyTorch takes its place.

    Args:
        model: The folded network, on ``device``.
        device: Where the network computes.
        name: One of `ENGINES`; None for the environment variable ``REP3D_ENGINE``, or ``auto`` where that is not set.
        voxels: How many voxels the engine will get to see, over all windows of all images.
        precision: In which OpenVINO computes, if it is chosen.

    Raises:
        ConfigError: If the name is unknown, or OpenVINO is asked for and not installed or not possible.
    """
    origin = "engine"
    if name is None:
        origin, name = ENVIRONMENT_VARIABLE, os.environ.get(ENVIRONMENT_VARIABLE) or "auto"
    if name not in ENGINES:
        raise ConfigError(f"{origin}: expected one of {list(ENGINES)}, got {name!r}.")
    obstacle = None if name == "torch" else _openvino_obstacle(model, device)
    if name == "openvino" and obstacle is not None:
        raise ConfigError(f"{origin} 'openvino': {obstacle}")
    if name == "torch" or obstacle is not None:
        return TorchEngine(model)
    assert isinstance(model, Network), "_openvino_obstacle refuses all else"
    if name == "auto" and voxels * _decoding_work(model) < WORTH_CONVERTING:
        return TorchEngine(model)
    try:
        engine = OpenVinoEngine(model, precision)
    except Exception as error:  # OpenVINO raises errors of many kinds; none may keep a model from being used
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        if name == "openvino":
            raise ConfigError(f"{origin} 'openvino': it cannot run this network ({reason}). Use 'auto'.") from error
        _logger.warning("OpenVINO cannot run this network, PyTorch takes its place: %s", reason)
        return TorchEngine(model)
    _logger.info("OpenVINO runs the decoder in %s", precision)
    return engine


def _decoding_work(model: Network) -> float:
    """Multiply-adds that `Network.decode` takes per voxel of the image, counted on a small one."""
    image, stages = _example(model)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        model.decode(image, stages)
    return counter.get_total_flops() / 2 / image[0, 0].numel()


def _openvino_obstacle(model: nn.Module, device: torch.device) -> str | None:
    """Say what speaks against OpenVINO and what to do; None if nothing does."""
    if device.type != "cpu":
        return f"expected the device 'cpu', got '{device}'. Use another engine or device."
    if not isinstance(model, Network):
        return f"expected a network of the registry, got {type(model).__name__}. Use the engine 'torch'."
    if not model.any_size:
        return "it cannot run a transformer of MONAI's. Use the engine 'torch'."
    if importlib.util.find_spec("openvino") is None:
        return f"it is not installed. Say: {INSTALL_OPENVINO}"
    return None


def _import_openvino() -> Any:
    """Import OpenVINO without its telemetry.

    Where the package ``openvino_telemetry`` is installed, OpenVINO reports its use to its makers without asking. A
    hospital's server must not do that. OpenVINO works without the package, so it is made to look absent.
    """
    sys.modules.setdefault("openvino_telemetry", None)  # type: ignore[arg-type]
    import openvino

    return openvino


@contextmanager
def _root_logger_kept() -> Iterator[None]:
    """Undo what OpenVINO's converter does to the root logger where it fails: it silences all below errors."""
    root = logging.getLogger()
    level, handlers, filters = root.level, list(root.handlers), list(root.filters)
    try:
        yield
    finally:
        root.setLevel(level)
        root.handlers[:], root.filters[:] = handlers, filters


def _example(model: Network, strides: Sequence[int] = (2, 1, 1)) -> tuple[torch.Tensor, list[torch.Tensor]]:
    """Return a small random image, of so many strides, and its stage outputs, on the model's device."""
    weight = next(model.parameters())
    shape = (1, model.in_channels, *(count * model.stride for count in strides))
    image = torch.randn(shape, generator=torch.Generator().manual_seed(0)).to(weight)
    with torch.no_grad():
        return image, list(model.encode(image))


class _Decoder(nn.Module):
    """`Network.decode` with one argument per map, as a tracer wants it."""

    def __init__(self, model: Network) -> None:
        super().__init__()
        self.model = model

    def forward(self, image: torch.Tensor, *stages: torch.Tensor) -> torch.Tensor:
        return self.model.decode(image, stages)
