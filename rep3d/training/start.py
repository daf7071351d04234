"""What a training may begin from: a whole model of its task, or, for a new task, the encoder of another one's."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import torch

from rep3d.checkpoint import Checkpoint
from rep3d.errors import CheckpointError
from rep3d.nn.config import NetworkConfig, Rep3DConfig
from rep3d.nn.network import Network, head_of
from rep3d.nn.unetr import UnetrSegmenter
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.dataset_json import several
from rep3d.tasks.registry import same_modality
from rep3d.training.snapshots import start_mark

__all__ = ["as_fine_stage", "check_channels", "check_encoder", "check_start", "encoder_mark", "with_encoder_of"]

_KINDS = frozenset({"CT", "MR", "MRI"})  # of other words it is not known whether they mean the same


def check_start(task: TaskConfig, start: Checkpoint | None, preset: str) -> None:
    """Make sure that training for a task can begin from a model.

    Raises:
        CheckpointError: if the model has other labels or channels, or is a network of another preset.
    """
    if start is None:
        return
    if start.task.labels != task.labels:
        raise CheckpointError(
            f"The model to go on from has other labels: expected {dict(task.labels)}, got "
            f"{dict(start.task.labels)}. Train from nothing, or use the checkpoint of this task."
        )
    check_channels(start.task, task.channel_names)
    known = start.info.get("preset")
    if known not in (None, preset):
        raise CheckpointError(
            f"The model to go on from is a network of the preset {known}, not {preset}. Train with the preset {known}, "
            f"or from nothing."
        )


def check_channels(task: TaskConfig, names: Sequence[str]) -> None:
    """Make sure that a model's images are those of a data set.

    Args:
        task: of the model.
        names: of the data set's channels; a single one is the modality, or says nothing.

    Raises:
        CheckpointError: if they are others, or in another order, or CT where MR is needed.
    """
    if task.channel_names != several(names):
        known = ", ".join(task.channel_names) or "one"
        raise CheckpointError(
            f"The model takes images with other channels: it knows {known}, and the data set has "
            f"{', '.join(names) or 'one'}. Train from nothing, or use a model of these channels."
        )
    kind = names[0] if len(names) == 1 else None
    if not same_modality(task.modality, kind) and {task.modality.upper(), str(kind).upper()} <= _KINDS:
        raise CheckpointError(
            f"The model is for {task.modality}, and the images of the data set are {kind}: it would see them as if "
            f"they were {task.modality}. Use a model of that kind, or train a new one (--start-from takes the encoder)."
        )


def with_encoder_of(network: Network, checkpoint: Checkpoint) -> Network:
    """Return a network whose encoder is that of a trained one; the given ones stay as they are.

    What is taken: of networks with an encoder of their own (Rep3D, CSLA, 3D UX-Net) its weights and statistics, of
    others all but the head. A layer whose shape differs (it sees other input channels, or patches of another size)
    stays as it was initialised.

    Args:
        network: a network for the new task.
        checkpoint: a network with the same settings, but for the channels of image and logits.

    Raises:
        CheckpointError: if its settings are others; the message names them.
    """
    check_encoder(network.config, checkpoint)
    new = copy.deepcopy(network)
    inside = f"{new.encoder_name}." if isinstance(new, UnetrSegmenter) else ""
    head = head_of(new)
    kept, trained = new.state_dict(), checkpoint.model.state_dict()
    others = {name.rpartition(".")[0] for name, tensor in kept.items() if trained[name].shape != tensor.shape}
    others |= {name for name, module in new.named_modules() if module is head}
    taken = {name: trained[name] for name in kept if name.startswith(inside) and name.rpartition(".")[0] not in others}
    with torch.no_grad():
        new.load_state_dict({**kept, **taken})
    return new


def as_fine_stage(network: Network, coarse: Checkpoint) -> Network:
    """Return the network of a fine stage as it begins: with the coarse one's weights, and without a say in the result.

    What it sees beside the image counts nothing at first, and its head is zero, so that both stages together begin as
    the coarse one alone (see :func:`rep3d.inference.fine.corrected`).

    Args:
        network: with the coarse one's settings, but for the channels of its images.
        coarse: the coarse stage; another network gives nothing but the head of zeros.
    """
    new = copy.deepcopy(network)
    known, weights = coarse.model.state_dict(), new.state_dict()
    with torch.no_grad():
        for name, weight in weights.items():
            there = known.get(name)
            if there is None or there.shape[:1] + there.shape[2:] != weight.shape[:1] + weight.shape[2:]:
                continue
            if there.dim() < 2:
                weight.copy_(there)
            else:
                weight.zero_()[:, : there.shape[1]] = there
        for parameter in head_of(new).parameters():
            parameter.zero_()
    return new


def check_encoder(config: Rep3DConfig | NetworkConfig, checkpoint: Checkpoint) -> None:
    """Make sure that a network with these settings can take the encoder of a checkpoint.

    Raises:
        CheckpointError: if it cannot.
    """
    wanted, known = (_without_channels(each) for each in (config, checkpoint.model.config))
    differ = sorted(name for name in {**wanted, **known} if wanted.get(name) != known.get(name))
    differ = ["network"] if "network" in differ else differ
    if differ:
        said = ", ".join(f"{name} {known.get(name)} where {wanted.get(name)} is needed" for name in differ[:4])
        preset = checkpoint.info.get("preset")
        remedy = f"Train with the preset {preset}" if preset else "Train with its preset"
        raise CheckpointError(
            f"The encoder of {checkpoint.task.name} {checkpoint.version} is of another network: {said}. {remedy}, or "
            f"begin with another model's encoder."
        )


def _without_channels(config: Rep3DConfig | NetworkConfig) -> dict[str, Any]:
    settings = replace(config, in_channels=1, out_channels=1).to_dict()
    if isinstance(config, Rep3DConfig):
        return {"network": "rep3d", **settings}
    return {**settings.pop("settings"), **settings, "img_size": None}  # the size of patches is the task's


def encoder_mark(checkpoint: Checkpoint) -> dict[str, Any]:
    """Return what tells whose encoder a training began with: task, version and a checksum of the weights."""
    version, checksum = start_mark(checkpoint)
    return {"task": checkpoint.task.name, "version": version, "checksum": f"{checksum:08x}"}
