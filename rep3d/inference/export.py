"""Writes a trained network for other programs: as ONNX, or as a `torch.export` program that loads with PyTorch alone.

Both hold the folded network with its large kernels as plain convolutions, so no code of ours is needed to run them, for
any number of images of any size the network takes. Both are made from one program captured by `torch.export`; PyTorch
2.6 and later turn it into ONNX. (Their older exporter, which traces, is deprecated, and cannot tell which sizes it has
fixed.) A file is put in its place only after it was opened again and computed what the network computes.
"""

from __future__ import annotations

import importlib.util
import json
import logging
import os
import tempfile
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import nn
from torch.export import Dim, ExportedProgram

from rep3d.checkpoint import Checkpoint
from rep3d.errors import ExportError, MissingComponentError, machine_error
from rep3d.inference.engines import TOLERANCE
from rep3d.inference.sliding import fit_window
from rep3d.nn.fold import reparameterize, replace_modules
from rep3d.nn.lrbm import DepthwiseConv3d
from rep3d.nn.network import Network
from rep3d.output import check_output
from rep3d.starter.facts import starter_words

__all__ = ["Exported", "export_onnx", "export_program"]

INSTALL_ONNX = 'pip install onnx onnxscript "ml_dtypes<0.6"'  # later ones want NumPy 2, MONAI Label wants NumPy 1
_ONNX_NEEDS = ("onnx", "onnxscript")
_AXES = ("batch", "channels", "depth", "height", "width")


@dataclass(frozen=True)
class Exported:
    """A file that was written and checked.

    Attributes:
        path: The file.
        size: Its bytes.
        checked_with: What opened it again: ``onnxruntime``, ``torch``, or ``onnx.checker``, which computes nothing.
        max_error: Largest difference of a probability from the network's; None where nothing was computed.
    """

    path: Path
    size: int
    checked_with: str
    max_error: float | None


def export_onnx(source: Checkpoint | Network, path: Path | str, roi_size: Sequence[int] | None = None) -> Exported:
    """Write a network as one ONNX file, in float32, with the input ``image`` and the output ``logits``.

    Both are of shape (batch, channels, depth, height, width); each side is a multiple of the network's stride (16 for
    Rep3D), at least two of them (a side of one in ``roi_size`` is fixed at that). The logits of channel i belong to the
    i-th value of the property ``values``.
    The file's properties say in JSON what the task is: ``labels``, ``spacing``, ``orientation``, ``intensity``, ...

    Args:
        source: A trained network, with its task or without.
        path: File to write, ``.onnx``; one that is there is replaced.
        roi_size: Window (D, H, W) in voxels to export for; the task's own if not given.

    Raises:
        MissingComponentError: If packages are missing.
        OutputError, DiskFullError: If the file cannot be written.
        ExportError: If the network cannot be exported, or the file computes something else.
    """
    missing = [name for name in _ONNX_NEEDS if importlib.util.find_spec(name) is None]
    if missing:
        raise MissingComponentError(
            f"Writing ONNX needs packages that are not installed: {', '.join(missing)}. Run: {INSTALL_ONNX}"
        )
    job = _Job(source, path, ".onnx", roi_size)
    program = job.capture()
    with warnings.catch_warnings(), _failing_as_export_error("ONNX"):
        warnings.simplefilter("ignore")  # about PyTorch's own insides
        logging.getLogger("torch.onnx").setLevel(logging.ERROR)  # it misses torchvision, which nothing here needs
        converted = torch.onnx.export(
            program, (), dynamo=True, input_names=["image"], output_names=["logits"], opset_version=20, verbose=False
        )
    assert converted is not None, "torch.onnx.export returns the program when it is given no file"
    model = converted.model_proto
    for name, value in job.facts.items():
        model.metadata_props.add(key=name, value=json.dumps(value))
    for tensor in (*model.graph.input, *model.graph.output):
        for dimension, axis in zip(tensor.type.tensor_type.shape.dim, _AXES, strict=True):
            if dimension.dim_param:
                dimension.dim_param = axis
    del model.graph.value_info[:]  # optional, and in terms of the axes' old names
    return job.write(lambda file: _save_onnx(model, file), _run_onnx)


def export_program(source: Checkpoint | Network, path: Path | str, roi_size: Sequence[int] | None = None) -> Exported:
    """Write a network as a `torch.export` program: ``torch.export.load(path).module()(image)`` returns the logits.

    Shapes are as for `export_onnx`; the facts about the task are in the archive's extra file ``rep3d.json``.

    Args:
        source: A trained network, with its task or without.
        path: File to write, ``.pt2``; one that is there is replaced.
        roi_size: Window (D, H, W) in voxels to export for; the task's own if not given.

    Raises:
        OutputError, DiskFullError: If the file cannot be written.
        ExportError: If the network cannot be exported, or the file computes something else.
    """
    job = _Job(source, path, ".pt2", roi_size)
    program = job.capture()
    extra = {"rep3d.json": json.dumps(job.facts)}
    return job.write(lambda file: torch.export.save(program, file, extra_files=extra), _run_program)


_Run = Callable[[torch.Tensor], torch.Tensor]


class _Job:
    """What both formats share: the network to export, the checks before, and the comparison after.

    Args:
        source: See `export_onnx`.
        path: See `export_onnx`.
        suffix: What ``path`` must end in.
        roi_size: See `export_onnx`.
    """

    def __init__(
        self, source: Checkpoint | Network, path: Path | str, suffix: str, roi_size: Sequence[int] | None
    ) -> None:
        network: nn.Module = source.model if isinstance(source, Checkpoint) else source
        room = sum(tensor.nbytes for tensor in network.parameters()) // 2  # folding leaves some out
        self._path = check_output(path, (suffix,), room=room, make_folder=True)  # before the long part
        self.facts: dict[str, Any] = {}
        if isinstance(source, Checkpoint):
            task = source.task
            self.facts = task.to_dict() | {"values": [0, *task.label_values], "version": source.version}
            if words := starter_words(source.info):  # whoever passes the file on has to say so
                self.facts["attribution"] = words
            roi_size = roi_size or task.roi_size
        if roi_size is None:
            raise ExportError("roi_size: expected (D, H, W) in voxels, as a network without a task has none; got None.")
        if not isinstance(network, Network):
            raise ExportError(f"expected a network of rep3d.nn.zoo, got {type(network).__name__}.")
        model = reparameterize(network)
        self._model = model.to("cpu", torch.float32).requires_grad_(False)
        self._sides = _checked_sides(tuple(roi_size), model.stride)
        self.facts["roi_size"] = list(self._sides)
        # Before the large kernels become plain convolutions: so they are checked, too.
        self._images = [_random_image(self._small_shape(strides, batch)) for strides, batch in ((2, 1), (3, 2))]
        with torch.no_grad():
            self._expected = [model(image).softmax(1) for image in self._images]

    def capture(self) -> ExportedProgram:
        """Return the network as a program for any batch and, where a side is not of one stride only, any size.

        Of a network that takes decisions on the size of images, it is one for a single image of the window's size.
        """
        plain = replace_modules(self._model, _plain_convolution).eval()
        if not self._model.any_size:
            with _failing_as_export_error("torch.export"):
                return torch.export.export(plain, (self._images[0],))
        shapes: dict[int, Any] = {0: Dim("batch", min=1)}
        for axis, (name, side) in enumerate(zip(_AXES[2:], self._sides, strict=True), start=2):
            if side > self._model.stride:
                shapes[axis] = self._model.stride * Dim(f"{name}_strides", min=2)
        # Two images: a dimension of one would be taken for fixed.
        example = torch.zeros(2, self._model.in_channels, *self._sides)
        with _failing_as_export_error("torch.export"):
            return torch.export.export(plain, (example,), dynamic_shapes=(shapes,))

    def write(self, save: Callable[[Path], None], load: Callable[[Path], tuple[str, _Run | None]]) -> Exported:
        """Write a file next to its place, check it there, and move it.

        Args:
            save: Writes the file.
            load: Opens it; returns the name of what did, and the network (images to logits), if that can compute.
        """
        with tempfile.TemporaryDirectory(prefix=f".{self._path.name[:50]}.", dir=self._path.parent) as folder:
            file = Path(folder) / f"network{self._path.suffix.lower()}"
            with _failing_as_export_error(self._path.suffix):
                save(file)
                checked_with, error = self._check(*load(file))
            if error is not None and not error <= TOLERANCE:
                raise ExportError(
                    f"{self._path} was not written: with {checked_with} its probabilities would differ by {error:.1e}"
                    f" from the network's, more than {TOLERANCE}. Try other versions of the packages."
                )
            os.replace(file, self._path)
        return Exported(self._path, self._path.stat().st_size, checked_with, error)

    def _check(self, checked_with: str, run: _Run | None) -> tuple[str, float | None]:
        """Return who checked, and the largest error in probability (NaN if any is) unless nothing could compute."""
        if run is None:
            return checked_with, None
        errors = [
            (run(image).softmax(1) - expected).abs().max()
            for image, expected in zip(self._images, self._expected, strict=True)
        ]
        return checked_with, torch.stack(errors).max().item()

    def _small_shape(self, strides: int, batch: int) -> tuple[int, ...]:
        """Return the shape of a small batch whose sides are that many strides, but for those that are fixed."""
        if not self._model.any_size:
            return (1, self._model.in_channels, *self._sides)
        stride = self._model.stride
        sides = (stride if side == stride else strides * stride for side in self._sides)
        return (batch, self._model.in_channels, *sides)


def _checked_sides(roi_size: tuple[int, ...], stride: int) -> tuple[int, ...]:
    """Return the window, rounded up to multiples of the stride as inference does."""
    if len(roi_size) != 3 or any(side < 1 for side in roi_size):
        raise ExportError(f"roi_size: expected three positive numbers of voxels (D, H, W), got {roi_size!r}.")
    return fit_window(roi_size, roi_size, stride)


def _random_image(shape: tuple[int, ...]) -> torch.Tensor:
    return torch.randn(shape, generator=torch.Generator().manual_seed(0))


def _plain_convolution(module: nn.Module) -> nn.Module | None:
    """Return PyTorch's own form of our depthwise convolution, with the same weights; None for other modules."""
    if not isinstance(module, DepthwiseConv3d):
        return None
    channels, side = module.weight.shape[0], module.weight.shape[-1]
    plain = nn.Conv3d(
        channels, channels, side, padding=side // 2, groups=channels, bias=module.bias is not None, device="meta"
    )
    plain.weight, plain.bias = module.weight, module.bias
    return plain


def _save_onnx(model: Any, file: Path) -> None:
    import onnx

    functions = [node for function in model.functions for node in function.node]
    for node in (*model.graph.node, *functions):
        del node.metadata_props[:]  # lines of our code, with its place on this disk
    onnx.save(model, file)
    onnx.checker.check_model(file, full_check=True)


def _run_onnx(file: Path) -> tuple[str, _Run | None]:
    if importlib.util.find_spec("onnxruntime") is None:
        return "onnx.checker", None
    import onnxruntime

    session = onnxruntime.InferenceSession(file, providers=["CPUExecutionProvider"])
    return "onnxruntime", lambda image: torch.from_numpy(session.run(["logits"], {"image": image.numpy()})[0])


def _run_program(file: Path) -> tuple[str, _Run | None]:
    return "torch", torch.export.load(file).module()


@contextmanager
def _failing_as_export_error(what: str) -> Iterator[None]:
    """Turn whatever an exporter raises (there is no common class) into our error, with the first one as its cause."""
    try:
        yield
    except Exception as error:
        if (lacking := machine_error(error)) is not None:
            raise lacking from error
        reason = " ".join(str(error).split())[:300] or type(error).__name__
        raise ExportError(
            f"{what}: this network could not be exported with PyTorch {torch.__version__}: {reason}"
        ) from error
