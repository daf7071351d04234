"""Loads the weights of the Rep3D authors' own code (Lee et al., arXiv 2505.19603) into our network.

No weights were public when this was written. The names below are those of their repository leeh43/Rep3D as it was then:
a network ``REP3D`` with the modules ``rep3d``, ``encoder1..5``, ``decoder1..5`` and ``out``, named as ours are. Each of
its blocks holds

    dwconv.weight                        the large kernel (C, 1, K, K, K), without a bias
    norm.*                               BatchNorm
    prior_map                            the prior 1 / (1 + distance), a buffer (C, 1, K, K, K)
    prior_conv, norm_w, prior_conv2, norm_w2      the mask generator

Two things about that code decide how its weights are to be read. Its forward, unless told to ``deploy``, assigns the
masked kernel back to ``dwconv.weight``. And its generator normalises over an axis of length one, which leaves nothing
of its input: what it adds to the prior is the one number ``norm_w2.bias``.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import torch

from rep3d.errors import CheckpointError, ConfigError
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.lrbm import distance_prior
from rep3d.nn.rep3d import Rep3D

__all__ = ["load_authors_state_dict"]

PRIORS = ("in_weights", "fold")

_WRAPPERS = ("state_dict", "model")
_PREFIXES = ("module.", "_orig_mod.")  # of DistributedDataParallel and of torch.compile
_KERNEL = re.compile(r"(rep3d\.stages\.(\d+)\.(\d+)\.)dwconv\.weight")
_MASK_PARTS = re.compile(r"rep3d\.stages\.\d+\.\d+\.(prior_map|(prior_conv|prior_conv2|norm_w|norm_w2)\.(weight|bias))")

State = dict[str, torch.Tensor]


def load_authors_state_dict(state: Mapping[str, Any], *, prior: str = "in_weights") -> Rep3D:
    """Build a Rep3D with plain kernels (spatial prior ``none``) that computes what the authors' network does.

    The sizes of the network are read from the tensors. A bias on a large kernel is accepted and moved into the
    BatchNorm behind it.

    Args:
        state: Their state dict, or a dictionary that holds it as ``state_dict`` or ``model``; the prefixes of
            `DistributedDataParallel` and `torch.compile` are taken off.
        prior: ``in_weights`` if ``dwconv.weight`` is the kernel that convolves already; the default, because the
            authors' forward writes it there, so it is what a network saved after any forward pass holds, and what
            their ``deploy`` uses as it is. ``fold`` if it is still to be multiplied by the mask, as it would be after
            training by corrected code. Wrong logits show the wrong choice: compare the Dice with the one published.

    Returns:
        The network in eval mode, in float32 on the CPU; `rep3d.nn.fold.reparameterize` folds it further.

    Raises:
        ConfigError: If ``prior`` is unknown, or the kernels are even.
        CheckpointError: If tensors are missing, unknown, of the wrong shape or not finite, or if a mask is to be
            folded whose generator is not the published one.
    """
    if prior not in PRIORS:
        raise ConfigError(f"prior: expected one of {list(PRIORS)}, got {prior!r}.")
    tensors = _unwrap(state)
    config = _config_of(tensors)
    model = Rep3D(config)
    expected = model.state_dict()
    mask_parts = {name: tensor for name, tensor in tensors.items() if _MASK_PARTS.fullmatch(name)}
    weights = {name: tensor for name, tensor in tensors.items() if name not in mask_parts}
    if prior == "fold":
        _fold_masks(weights, mask_parts)
    _move_biases(weights)
    for name in expected:
        if name.endswith("num_batches_tracked"):  # counts training steps; absent from what old PyTorch versions saved
            weights.setdefault(name, expected[name])
    _check(weights, expected)
    model.load_state_dict(weights)
    return model.eval()


def _unwrap(state: Mapping[str, Any]) -> State:
    """Return the tensors by the names that the network itself has for them."""
    for wrapper in _WRAPPERS:
        if isinstance(state, Mapping) and isinstance(state.get(wrapper), Mapping):
            state = state[wrapper]
    if not isinstance(state, Mapping):
        raise CheckpointError(f"expected a state dict, got {type(state).__name__}; pass model.state_dict()")
    while prefix := next((p for p in _PREFIXES if state and all(name.startswith(p) for name in state)), None):
        state = {name[len(prefix) :]: value for name, value in state.items()}
    others = [name for name, value in state.items() if not isinstance(value, torch.Tensor)]
    if others:
        raise CheckpointError(
            f"expected a state dict of tensors, or a dictionary that holds one as one of {list(_WRAPPERS)}, got other"
            f" values at {others[:5]}; pass the state dict alone"
        )
    broken = [name for name, tensor in state.items() if tensor.is_floating_point() and not tensor.isfinite().all()]
    if broken:
        raise CheckpointError(f"expected finite weights, got NaN or infinity in {broken[:5]} ({len(broken)} tensors)")
    return {name: tensor.detach().cpu() for name, tensor in state.items()}


def _config_of(tensors: State) -> Rep3DConfig:
    """Read the sizes of the network from its tensors."""

    def shape_of(name: str, rank: int = 5) -> tuple[int, ...]:
        if name not in tensors:
            raise CheckpointError(
                f"expected the state dict of the authors' REP3D network, with a tensor {name!r}; got {len(tensors)}"
                f" others, such as {sorted(tensors)[:3]}"
            )
        if tensors[name].dim() != rank:
            raise CheckpointError(f"{name}: expected {rank} axes, got shape {tuple(tensors[name].shape)}")
        return tuple(tensors[name].shape)

    stem = shape_of("rep3d.downsample_layers.0.0.weight")
    blocks = [match for name in tensors if (match := _KERNEL.fullmatch(name))]
    return Rep3DConfig(
        in_channels=stem[1],
        out_channels=shape_of("out.conv.conv.weight")[0],
        dims=(stem[0], *(shape_of(f"rep3d.downsample_layers.{stage}.1.weight")[0] for stage in (1, 2, 3))),
        depths=tuple(max(1, sum(int(match[2]) == stage for match in blocks)) for stage in range(4)),
        hidden_size=shape_of("encoder5.layer.conv1.conv.weight")[0],
        kernel_size=shape_of("rep3d.stages.0.0.dwconv.weight")[-1],
        spatial_prior="none",
    )


def _fold_masks(weights: State, mask_parts: State) -> None:
    """Multiply the masks into the kernels, in place of the dictionary's entries."""
    for name in [name for name in weights if _KERNEL.fullmatch(name)]:
        block, kernel = name.removesuffix("dwconv.weight"), weights[name].double()
        mask = mask_parts.get(f"{block}prior_map", distance_prior(kernel.shape[-1])).double()
        generator = [part for part in mask_parts if part.startswith(block) and not part.endswith("prior_map")]
        # The fixed prior has no generator; one without its last part is refused below.
        correction = mask_parts.get(f"{block}norm_w2.bias", torch.zeros(0 if generator else 1)).double()
        if correction.numel() != 1 or mask.shape not in (kernel.shape, kernel.shape[2:]):
            raise CheckpointError(
                f"{block}: expected the published mask generator (norm_w2.bias of one number, prior_map of shape"
                f" {tuple(kernel.shape)}), got shapes {tuple(correction.shape)} and {tuple(mask.shape)}; fold the mask"
                " by the code it was trained with and load the result with prior='in_weights'"
            )
        weights[name] = (kernel * (mask + correction)).to(weights[name])


def _move_biases(weights: State) -> None:
    """Move biases of large kernels into the running mean of the BatchNorm behind: norm(y + bias) is the same."""
    for name in [name for name in weights if _KERNEL.fullmatch(name)]:
        block = name.removesuffix("dwconv.weight")
        mean, bias = weights.get(f"{block}norm.running_mean"), weights.get(f"{block}dwconv.bias")
        if mean is not None and bias is not None and mean.shape == bias.shape:  # else `_check` will name the bias
            weights[f"{block}norm.running_mean"] = mean - weights.pop(f"{block}dwconv.bias")


def _check(weights: State, expected: State) -> None:
    missing, unknown = sorted(set(expected) - set(weights)), sorted(set(weights) - set(expected))
    if missing or unknown:
        raise CheckpointError(
            f"expected the tensors of the authors' REP3D network; missing: {missing[:10]} ({len(missing)}), unknown:"
            f" {unknown[:10]} ({len(unknown)})"
        )
    wrong = [name for name in expected if weights[name].shape != expected[name].shape]
    if wrong:
        shapes = [f"{name}: expected {tuple(expected[name].shape)}, got {tuple(weights[name].shape)}" for name in wrong]
        raise CheckpointError(f"{len(wrong)} tensors do not fit the network; {'; '.join(shapes[:5])}")
