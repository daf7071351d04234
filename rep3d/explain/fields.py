"""What a trained network's kernels look like, and which voxels it listens to: the numbers behind ``rep3d explain``.

Two things are measured. Neither needs labels.

Learning-rate fields (Lee et al., arXiv 2505.19603). A block convolves with W_eff = W * M. Since dL/dW = M * dL/dW_eff,
one SGD step with rate lr moves W_eff[k] by lr * M[k]^2 * dL/dW_eff[k] while the mask is held fixed: the field is M^2.
Adam divides the gradient of W by its own size, which takes out one factor M: its field is |M|, as far as Adam's eps is
negligible.

Effective receptive fields (Ding et al., arXiv 2203.06717; ``erf/visualize_erf.py`` and ``erf/analyze_erf.py`` in their
repository RepLKNet-pytorch). The contribution of an input voxel is the gradient of the central output, ReLU'd and
summed over output channels, with respect to that voxel; its positive part, summed over input channels, is averaged over
several inputs. The high-contribution area is the smallest centred square, here cube, that holds more than a share t of
it. The output is a stage's map before its normalisation, as theirs is. Two things differ:

- Their cube lies around the middle of the input. Here it lies around the patch of the input that the measured output
  sits on, which for a deep stage of an even map is some voxels off the middle: on inputs of 96 voxels that matters.
- They take log10(contribution + 1) before they measure the area, so that the result depends on the scale of the
  gradients. Here the shares are of the contribution itself; those of the logarithm are kept beside them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch

from rep3d.errors import Rep3DError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.fold import reparameterize
from rep3d.nn.lrbm import LRBMConv3d
from rep3d.nn.rep3d import Rep3D, Rep3DBlock
from rep3d.nn.unetr import StagedEncoder
from rep3d.tasks.config import TaskConfig

__all__ = [
    "SHARES",
    "BlockView",
    "Cubes",
    "Explanation",
    "Inputs",
    "ModelView",
    "Profile",
    "ReceptiveField",
    "centred_cubes",
    "contribution",
    "radial_profile",
    "view_model",
]

SHARES = (0.2, 0.5, 0.99)  # of the contribution, as in RepLKNet's table


@dataclass(frozen=True)
class Profile:
    """A quantity of the taps against their distance from the centre, all arrays of shape (R,).

    Attributes:
        distance: the distances that occur, in taps, ascending.
        taps: taps at that distance.
        mean: mean over these taps.
        low: smallest value among them.
        high: largest value among them.
    """

    distance: np.ndarray
    taps: np.ndarray
    mean: np.ndarray
    low: np.ndarray
    high: np.ndarray


def radial_profile(volume: np.ndarray) -> Profile:
    """Sort the taps of kernels, shape (..., Kz, Ky, Kx), by distance from the centre; leading axes are pooled."""
    offsets = [np.arange(side) - side // 2 for side in volume.shape[-3:]]
    squared = offsets[0][:, None, None] ** 2 + offsets[1][:, None] ** 2 + offsets[2] ** 2
    distances, ring, taps = np.unique(squared.ravel(), return_inverse=True, return_counts=True)
    rows = np.asarray(volume, dtype=np.float64).reshape(-1, squared.size)
    low, high = np.full(len(distances), np.inf), np.full(len(distances), -np.inf)
    np.minimum.at(low, ring, rows.min(0))
    np.maximum.at(high, ring, rows.max(0))
    return Profile(np.sqrt(distances), taps, np.bincount(ring, rows.mean(0)) / taps, low, high)


@dataclass(frozen=True)
class Cubes:
    """What centred cubes of growing size hold of a volume, arrays of shape (R,), the last one all of it.

    Attributes:
        side: side of the cube in voxels, 1, 3, 5, ..., but never more than the longest side of the volume.
        share: part of the volume's sum inside the cube.
        ratio: part of the volume's voxels inside the cube. Where a cube reaches over the edge, only voxels count.
    """

    side: np.ndarray
    share: np.ndarray
    ratio: np.ndarray

    def reach(self, share: float) -> int:
        """Return how far the smallest cube that holds more than ``share`` (0 to below 1) reaches from its centre."""
        return int(np.argmax(self.share > share))

    def smallest(self, share: float) -> tuple[int, float]:
        """Return side and volume ratio of that cube."""
        index = self.reach(share)
        return int(self.side[index]), float(self.ratio[index])


def centred_cubes(volume: np.ndarray, centre: Sequence[int]) -> Cubes:
    """Measure the cubes around a voxel.

    Args:
        volume: shape (D, H, W), nowhere negative.
        centre: the voxel.

    Raises:
        Rep3DError: if the volume is zero everywhere, or not finite.
    """
    total = volume.sum(dtype=np.float64)
    if not (np.isfinite(total) and total > 0):
        raise Rep3DError(
            f"The receptive field cannot be measured: the middle of the output is not active for any input (sum"
            f" {total}). Give other images or more inputs."
        )
    offsets = [np.abs(np.arange(side) - middle) for side, middle in zip(volume.shape, centre, strict=True)]
    reach = np.maximum(np.maximum(offsets[0][:, None, None], offsets[1][:, None]), offsets[2]).ravel()
    share = np.cumsum(np.bincount(reach, volume.ravel().astype(np.float64))) / total
    share[-1] = 1.0  # it is, but for rounding
    side = np.minimum(2 * np.arange(len(share)) + 1, max(volume.shape))
    return Cubes(side, share, np.cumsum(np.bincount(reach)) / volume.size)


def contribution(function: Callable[[torch.Tensor], torch.Tensor], x: torch.Tensor) -> torch.Tensor:
    """Return how much each voxel of one input contributes to the central output, as RepLKNet defines it.

    Args:
        function: maps (1, C, D, H, W) to (1, C', D', H', W').
        x: the input, shape (1, C, D, H, W).

    Returns:
        Shape (D, H, W), nowhere negative.
    """
    x = x.detach().requires_grad_()
    output = function(x)
    z, y, width = (side // 2 for side in output.shape[2:])
    (gradient,) = torch.autograd.grad(output[:, :, z, y, width].relu().sum(), x)
    return gradient.relu().sum((0, 1))


@dataclass(frozen=True)
class BlockView:
    """The mask and kernel of one block.

    Attributes:
        stage: from 1.
        block: from 1, within its stage.
        prior: P, shape (K, K, K), or None for a plain kernel.
        mask: M, shape (1 or C, K, K, K), or None.
        kernel: |W_eff|, mean over the channels, shape (K, K, K).
        channels: of the block.
        map_shape: (D, H, W) of the map that the block convolves, on the inputs used.
    """

    stage: int
    block: int
    prior: np.ndarray | None
    mask: np.ndarray | None
    kernel: np.ndarray
    channels: int
    map_shape: tuple[int, ...]

    def profiles(self) -> dict[str, Profile]:
        """Return profiles by name: ``kernel`` and, if masked, ``prior``, ``mask``, ``adam_field``, ``sgd_field``."""
        volumes = {"kernel": self.kernel}
        if self.prior is not None and self.mask is not None:
            fields = {"mask": self.mask, "adam_field": np.abs(self.mask), "sgd_field": self.mask**2}
            volumes = {"prior": self.prior, **fields, **volumes}
        return {name: radial_profile(volume) for name, volume in volumes.items()}

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; the volumes themselves are left out."""
        profiles = self.profiles()
        rings = profiles["kernel"]
        return {
            "stage": self.stage,
            "block": self.block,
            "channels": self.channels,
            "masks": 0 if self.mask is None else len(self.mask),
            "negative_mask_taps": 0 if self.mask is None else int((self.mask < 0).sum()),
            "map_shape": list(self.map_shape),
            "distance": _numbers(rings.distance),
            "taps": rings.taps.tolist(),
            "profiles": {
                name: {"mean": _numbers(p.mean), "min": _numbers(p.low), "max": _numbers(p.high)}
                for name, p in profiles.items()
            },
        }


@dataclass(frozen=True)
class ReceptiveField:
    """The effective receptive field of one output.

    Attributes:
        output: ``"stage 1"`` to ``"stage 4"``, or ``"logits"``.
        stride: voxels of the input per voxel of the output, along each axis.
        centre: the voxel of the input that the central output lies over.
        contribution: mean over the inputs, shape (D, H, W).
    """

    output: str
    stride: int
    centre: tuple[int, ...]
    contribution: np.ndarray

    def cubes(self) -> Cubes:
        """Return what cubes around the centre hold."""
        return centred_cubes(self.contribution, self.centre)

    def log_cubes(self) -> Cubes:
        """Return what they hold of log10(contribution + 1), as RepLKNet's script measures it."""
        return centred_cubes(np.log10(self.contribution + 1), self.centre)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types; the volume itself is left out."""
        cubes = self.cubes()
        return {
            "output": self.output,
            "stride": self.stride,
            "centre": list(self.centre),
            "high_contribution": _high_contribution(cubes),
            "high_contribution_log10": _high_contribution(self.log_cubes()),
            "cubes": {
                "side": cubes.side.tolist(),
                "share": _numbers(cubes.share),
                "volume_ratio": _numbers(cubes.ratio),
            },
        }


@dataclass(frozen=True)
class ModelView:
    """A network, seen.

    Attributes:
        name: file name of the checkpoint, or name of the variant.
        version: of the checkpoint; ``"fresh weights"`` for a variant.
        config: its settings.
        blocks: all blocks of the encoder, in order.
        fields: receptive fields of the four stages, and of the logits where asked for.
    """

    name: str
    version: str
    config: Rep3DConfig
    blocks: tuple[BlockView, ...]
    fields: tuple[ReceptiveField, ...]


@dataclass(frozen=True)
class Inputs:
    """What the networks were shown.

    Attributes:
        tensor: shape (N, C, D, H, W), as the task prepares images, or noise.
        patches: file name and first voxel (D, H, W) on the task's grid of each patch; empty for noise.
    """

    tensor: torch.Tensor
    patches: tuple[tuple[str, tuple[int, ...]], ...]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types, without the voxels."""
        return {
            "kind": "patches of images" if self.patches else "standard-normal noise",
            "count": len(self.tensor),
            "shape": list(self.tensor.shape[2:]),
            "patches": [{"image": name, "start": list(start)} for name, start in self.patches],
        }


@dataclass(frozen=True)
class Explanation:
    """All that the page shows.

    Attributes:
        task: the explained checkpoint's task; it prepares the inputs of both models.
        models: the explained one, and the one it is compared with, if any.
        inputs: what they were shown, both the same.
        facts: seed, device, versions and time, for people.
    """

    task: TaskConfig
    models: tuple[ModelView, ...]
    inputs: Inputs
    facts: dict[str, str]

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        models = [
            {
                "name": model.name,
                "version": model.version,
                "config": model.config.to_dict(),
                "blocks": [block.to_dict() for block in model.blocks],
                "receptive_fields": [field.to_dict() for field in model.fields],
            }
            for model in self.models
        ]
        return {"facts": self.facts, "task": self.task.to_dict(), "inputs": self.inputs.to_dict(), "models": models}


@torch.no_grad()
def _blocks(model: Rep3D, window: tuple[int, ...]) -> tuple[BlockView, ...]:
    encoder = model.get_submodule(model.encoder_name)
    assert isinstance(encoder, StagedEncoder)
    views = []
    for stage, blocks in enumerate(encoder.stages, start=1):
        for number, block in enumerate(blocks.children(), start=1):
            assert isinstance(block, Rep3DBlock)
            conv = block.dwconv
            mask = conv.mask() if isinstance(conv, LRBMConv3d) else None
            prior = conv.prior if isinstance(conv, LRBMConv3d) else None
            kernel = conv.effective_weight().double()
            views.append(
                BlockView(
                    stage,
                    number,
                    None if prior is None else prior[0, 0].double().numpy(),
                    None if mask is None else mask[:, 0].double().numpy(),
                    kernel.abs().mean((0, 1)).numpy(),
                    len(kernel),
                    tuple(side // 2**stage for side in window),
                )
            )
    return tuple(views)


def view_model(name: str, version: str, model: Rep3D, inputs: torch.Tensor, logits: bool) -> ModelView:
    """Look at a network; leave it as it is.

    Args:
        name: see `ModelView`.
        version: see `ModelView`.
        model: the network in its training form, in eval mode, on the CPU.
        inputs: shape (N, C, D, H, W), on the device to compute on.
        logits: whether to measure the receptive field of the logits too.
    """
    window = tuple(inputs.shape[2:])
    blocks = _blocks(model, window)
    # The folded form computes the same outputs, without the generators. No gradients of weights are needed.
    folded = reparameterize(model).to(inputs.device).requires_grad_(False)
    assert isinstance(folded, Rep3D)
    encoder = folded.get_submodule(folded.encoder_name)
    assert isinstance(encoder, StagedEncoder)
    steps = [
        torch.nn.Sequential(downsample, stage)
        for downsample, stage in zip(encoder.downsample_layers, encoder.stages, strict=True)
    ]
    fields = [
        _field(f"stage {depth}", 2**depth, torch.nn.Sequential(*steps[:depth]), inputs)
        for depth in range(1, len(steps) + 1)
    ]
    if logits:
        fields.append(_field("logits", 1, folded, inputs))
    return ModelView(name, version, model.config, blocks, tuple(fields))


def _field(output: str, stride: int, function: torch.nn.Module, inputs: torch.Tensor) -> ReceptiveField:
    mean = sum(contribution(function, x[None]).double().cpu() for x in inputs) / len(inputs)
    assert isinstance(mean, torch.Tensor)
    # Output o lies over the input voxels o * stride ... (o + 1) * stride - 1; the lower of the two in the middle.
    centre = tuple(side // stride // 2 * stride + (stride - 1) // 2 for side in inputs.shape[2:])
    return ReceptiveField(output, stride, centre, mean.numpy())


def _high_contribution(cubes: Cubes) -> list[dict[str, float]]:
    found = [(share, *cubes.smallest(share)) for share in SHARES]
    return [{"share": share, "side": side, "volume_ratio": float(f"{ratio:.6g}")} for share, side, ratio in found]


def _numbers(values: np.ndarray) -> list[float]:
    """Six digits are more than any figure shows, and keep the file small."""
    return [float(f"{value:.6g}") for value in values]
