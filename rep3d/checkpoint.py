"""Saving and loading trained models, with all that is needed to use them.

A checkpoint carries the weights, the network's settings, the task (labels, spacing, intensity, orientation) and where
the model came from. It holds plain tensors and plain JSON types only, so it loads with ``weights_only=True``: opening a
file from somebody else cannot run code.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import torch

from rep3d.errors import CheckpointError, Rep3DError, machine_error
from rep3d.files import whole_file
from rep3d.nn.config import NetworkConfig, Rep3DConfig
from rep3d.nn.network import Network
from rep3d.nn.zoo import build_network
from rep3d.tasks.config import TaskConfig

__all__ = ["Checkpoint", "load_checkpoint", "read_checkpoint_task", "save_checkpoint", "write_atomically"]

_FORMAT = "rep3d-checkpoint"
_FORMAT_VERSION = 1  # of a Rep3D
_OTHERS_VERSION = 2  # of another network of the registry, which releases before it cannot read


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what it is for.

    Attributes:
        model: the network in its training form, in eval mode, on the CPU.
        task: the task it was trained for.
        info: plain JSON facts about its origin: ``version``, ``parent``, ``created`` (ISO time, UTC), ``cases`` (ids),
            ``preset``, ``iterations``, ``loss``.
    """

    model: Network
    task: TaskConfig
    info: dict[str, Any] = field(default_factory=dict)

    @property
    def version(self) -> str:
        """Name of this model version, such as ``"v3"``; ``"unversioned"`` where none was recorded."""
        return str(self.info.get("version", "unversioned"))


def write_atomically(path: Path, content: Mapping[str, Any]) -> None:
    """Write tensors and plain values with ``torch.save``; readers see the old file or the new one, never a part.

    Args:
        path: file to write; its folder is made.
        content: what to write.
    """
    path.parent.mkdir(parents=True, exist_ok=True)
    with whole_file(path) as file:
        torch.save(content, file)


def save_checkpoint(path: Path | str, model: Network, task: TaskConfig, info: Mapping[str, Any]) -> None:
    """Write a checkpoint atomically: readers see the old file or the new one, never a part.

    Args:
        path: file to write; its folder is made.
        model: the network in its training form (not re-parameterised).
        task: the task it was trained for.
        info: plain JSON facts, see :class:`Checkpoint`.

    Raises:
        CheckpointError: if the model does not fit the task, or has weights that are not finite.
    """
    path = Path(path)
    if model.config.out_channels != task.out_channels:
        raise CheckpointError(
            f"saving {path.name}: expected a model with {task.out_channels} output channels for the labels "
            f"{list(task.label_names)} and background, got {model.config.out_channels}"
        )
    state = {name: tensor.detach().cpu() for name, tensor in model.state_dict().items()}
    _refuse_not_finite(state, path)
    content = {
        "format": _FORMAT,
        "format_version": _FORMAT_VERSION if isinstance(model.config, Rep3DConfig) else _OTHERS_VERSION,
        "config": model.config.to_dict(),
        "task": task.to_dict(),
        "info": dict(info),
        "state_dict": state,
    }
    write_atomically(path, content)


def _read(path: Path, mmap: bool = False) -> dict[str, Any]:
    if not path.is_file():
        raise CheckpointError(f"There is no model file {path}. Is the name right?")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # bytes that are no pickle can make the unpickler raise anything at all
        reason = str(error).splitlines()[0] if str(error) else type(error).__name__
        raise CheckpointError(
            f"{path} is damaged, or is no Rep3D model file ({reason}). Move it away, or put a good copy in its place."
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no Rep3D model file, but another kind of PyTorch file.")
    if content.get("format_version") not in (_FORMAT_VERSION, _OTHERS_VERSION):
        raise CheckpointError(
            f"{path} has the format {content.get('format_version')!r}; this rep3d reads {_FORMAT_VERSION} and "
            f"{_OTHERS_VERSION}. Update rep3d."
        )
    return content


def _refuse_not_finite(state: Mapping[str, torch.Tensor], path: Path) -> None:
    bad = [name for name, tensor in state.items() if tensor.is_floating_point() and not torch.isfinite(tensor).all()]
    if bad:
        raise CheckpointError(f"{path} cannot be used: NaN or infinity in the weights {bad[:3]} ({len(bad)} tensors).")


def read_checkpoint_task(path: Path | str) -> tuple[TaskConfig, dict[str, Any]]:
    """Task and facts of a checkpoint, without building its network.

    Raises:
        CheckpointError: as :func:`load_checkpoint`.
    """
    path = Path(path)
    content = _read(path, mmap=True)
    try:
        return TaskConfig.from_dict(content["task"]), dict(content["info"])
    except (KeyError, TypeError, Rep3DError) as error:
        raise CheckpointError(f"{path} cannot be used: its task is not possible ({error}).") from error


def load_checkpoint(path: Path | str) -> Checkpoint:
    """Load a checkpoint onto the CPU, in eval mode.

    Raises:
        CheckpointError: if the file is missing, damaged, of another kind, has weights that are not finite, or its parts
            contradict each other.
    """
    path = Path(path)
    content = _read(path)
    try:
        kind = Rep3DConfig if content["format_version"] == _FORMAT_VERSION else NetworkConfig
        config = kind.from_dict(content["config"])
        task = TaskConfig.from_dict(content["task"])
        state, info = content["state_dict"], dict(content["info"])
    except (KeyError, TypeError, Rep3DError) as error:
        raise CheckpointError(f"{path} cannot be used: its settings are not possible ({error}).") from error
    if config.out_channels != task.out_channels:
        raise CheckpointError(
            f"{path} cannot be used: its labels need {task.out_channels} output channels, "
            f"its network has {config.out_channels}."
        )
    _refuse_not_finite(state, path)
    try:
        model = build_network(config)
    except Exception as error:  # whatever a network of MONAI's raises for settings that a file may hold
        if (lacking := machine_error(error)) is not None:
            raise lacking from error
        raise CheckpointError(f"{path} cannot be used: its network cannot be built ({error}).") from error
    try:
        model.load_state_dict(state)
    except RuntimeError as error:
        raise CheckpointError(
            f"{path} cannot be used: its weights do not fit its settings ({str(error).splitlines()[0]})."
        ) from error
    return Checkpoint(model.eval(), task, info)
