"""Saving and loading trained models, with all that is needed to use them.

A checkpoint carries the weights, the network's settings, the task (labels, spacing, intensity, orientation) and where
the model came from. It holds plain tensors and plain JSON types only, so it loads with ``weights_only=True``: opening a
file from somebody else cannot run code.

A version of two stages is one file, too: what it is to everybody is its coarse stage, which is a model of its own; the
fine stage beside it sees the image and what the coarse one made of it.

Weights are stored in single precision, or in half of it where the facts say so (``"precision": "float16"``), for a file
that is to be small; they are used in single precision either way.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import torch

from rep3d.errors import CheckpointError, Rep3DError, machine_error
from rep3d.files import whole_file
from rep3d.nn.config import NetworkConfig, Rep3DConfig
from rep3d.nn.network import Network
from rep3d.nn.zoo import build_network
from rep3d.tasks.config import TaskConfig

__all__ = [
    "HALF_PRECISION",
    "TUNED",
    "Checkpoint",
    "load_checkpoint",
    "read_checkpoint_task",
    "save_checkpoint",
    "write_atomically",
]

_FORMAT = "rep3d-checkpoint"
_FORMAT_VERSION = 1  # of a Rep3D
_OTHERS_VERSION = 2  # of another network of the registry, which releases before it cannot read
_STAGES_VERSION = 3  # of two stages: a release that knew of one would use the coarse one alone, and not say so
HALF_PRECISION = "float16"
"""What a checkpoint's ``info["precision"]`` says where its file holds weights in half precision."""
TUNED = "tuned"
"""Under which of a checkpoint's facts is what was measured of a faster way, see :mod:`rep3d.inference.tuned`."""
_PRECISIONS = {None: torch.float32, "float32": torch.float32, HALF_PRECISION: torch.float16}


@dataclass(frozen=True)
class Checkpoint:
    """A trained model and what it is for.

    Attributes:
        model: the network in its training form, in eval mode, on the CPU.
        task: the task it was trained for.
        info: plain JSON facts about its origin: ``version``, ``parent``, ``created`` (ISO time, UTC), ``cases`` (ids),
            ``preset``, ``iterations``, ``loss``; ``precision``, in which its file holds the weights, where that is not
            single; ``tuned``, a faster way of computing it.
        fine: the second stage, at its own spacing, for the same labels; its network sees the image and the coarse
            stage's probability of each label. None where there is one stage.

    Raises:
        CheckpointError: if the two stages do not fit each other.
    """

    model: Network
    task: TaskConfig
    info: dict[str, Any] = field(default_factory=dict)
    fine: Checkpoint | None = None

    def __post_init__(self) -> None:
        if self.fine is None:
            return
        task, fine = self.task, self.fine.task
        if self.fine.fine is not None:
            raise CheckpointError("A fine stage cannot have a fine stage of its own.")
        if (fine.labels, fine.orientation) != (task.labels, task.orientation):
            raise CheckpointError(
                f"The two stages do not fit each other: expected the labels {dict(task.labels)} and the orientation "
                f"{task.orientation} of the coarse one, got {dict(fine.labels)} and {fine.orientation}."
            )
        if fine.channels != task.channels or self.fine.model.in_channels != task.in_channels + len(task.labels):
            raise CheckpointError(
                f"The fine stage does not fit the coarse one: expected {task.in_channels + len(task.labels)} input "
                f"channels ({task.in_channels} of the image and {len(task.labels)} labels), got "
                f"{self.fine.model.in_channels} with images of {fine.in_channels}."
            )

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


def save_checkpoint(
    path: Path | str, model: Network, task: TaskConfig, info: Mapping[str, Any], fine: Checkpoint | None = None
) -> None:
    """Write a checkpoint atomically: readers see the old file or the new one, never a part.

    Args:
        path: file to write; its folder is made.
        model: the network in its training form (not re-parameterised).
        task: the task it was trained for.
        info: plain JSON facts, see :class:`Checkpoint`. With ``"precision": "float16"`` kernels and matrices are
            rounded to half precision in the file; biases and statistics, which are few, are not.
        fine: the second stage, where there is one.

    Raises:
        CheckpointError: if a model does not fit its task, or has weights that are not finite, or the stages do not fit
            each other.
    """
    path = Path(path)
    content = _stage_content(Checkpoint(model, task, dict(info), fine), path)
    if fine is not None:
        stages = [content, _stage_content(fine, path)]
        content = {"format_version": _STAGES_VERSION, "stages": stages}
    write_atomically(path, {"format": _FORMAT, **content})


def _stage_content(stage: Checkpoint, path: Path) -> dict[str, Any]:
    model, task = stage.model, stage.task
    if model.config.out_channels != task.out_channels:
        raise CheckpointError(
            f"saving {path.name}: expected a model with {task.out_channels} output channels for the labels "
            f"{list(task.label_names)} and background, got {model.config.out_channels}"
        )
    kind = _precision(stage.info, path)
    state = {name: _stored(tensor.detach().cpu(), kind) for name, tensor in model.state_dict().items()}
    _refuse_not_finite(state, path)
    return {
        "format_version": _FORMAT_VERSION if isinstance(model.config, Rep3DConfig) else _OTHERS_VERSION,
        "config": model.config.to_dict(),
        "task": task.to_dict(),
        "info": dict(stage.info),
        "state_dict": state,
    }


def _stored(tensor: torch.Tensor, kind: torch.dtype) -> torch.Tensor:
    return tensor.to(kind) if tensor.is_floating_point() and tensor.dim() > 1 else tensor


def _precision(info: Mapping[str, Any], path: Path) -> torch.dtype:
    """Return in what the facts say that weights are stored."""
    said = info.get("precision")
    if said not in _PRECISIONS:
        known = " or ".join(str(name) for name in _PRECISIONS if name)
        raise CheckpointError(
            f"{path} cannot be used: its precision must be {known}, not {said!r}. Update rep3d, or correct it."
        )
    return _PRECISIONS[said]


def _in_single_precision(state: Mapping[str, torch.Tensor], kind: torch.dtype, path: Path) -> dict[str, torch.Tensor]:
    """Return weights as they are used; what is rounded in the file must be said to be."""
    if kind != torch.float16 and any(tensor.dtype == torch.float16 for tensor in state.values()):
        raise CheckpointError(
            f"{path} cannot be used: it holds weights in half precision, and its facts do not say so (precision). Save "
            f"it anew with save_checkpoint."
        )
    return {name: tensor.float() if tensor.dtype == torch.float16 else tensor for name, tensor in state.items()}


def _read(path: Path, mmap: bool = False) -> list[dict[str, Any]]:
    """Return what a file says of each stage, the coarse one first."""
    if not path.is_file():
        raise CheckpointError(f"There is no model file {path}. Is the name right?")
    try:
        content = torch.load(path, map_location="cpu", weights_only=True, mmap=mmap)
    except Exception as error:  # bytes that are no pickle can make the unpickler raise anything at all
        if (lacking := machine_error(error)) is not None:
            raise lacking from error
        if isinstance(error, OSError) and error.strerror:
            raise CheckpointError(f"{path} cannot be read ({error.strerror}).") from error
        raise CheckpointError(  # PyTorch's own words would advise to load it in a way that can run code
            f"{path} is damaged, or is no Rep3D model file. Move it away, or put a good copy in its place."
        ) from error
    if not isinstance(content, dict) or content.get("format") != _FORMAT:
        raise CheckpointError(f"{path} is no Rep3D model file, but another kind of PyTorch file.")
    stages = content.get("stages") if content.get("format_version") == _STAGES_VERSION else [content]
    if not isinstance(stages, list) or len(stages) not in (1, 2) or not all(isinstance(each, dict) for each in stages):
        raise CheckpointError(f"{path} cannot be used: expected two stages in it, got {type(stages).__name__}.")
    for stage in stages:
        if stage.get("format_version") not in (_FORMAT_VERSION, _OTHERS_VERSION):
            raise CheckpointError(
                f"{path} has the format {stage.get('format_version')!r}; this rep3d reads {_FORMAT_VERSION} to "
                f"{_STAGES_VERSION}. Update rep3d."
            )
    return stages


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
    content = _read(path, mmap=True)[0]
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
    coarse, *others = [_built(stage, path) for stage in _read(path)]
    if not others:
        return coarse
    try:
        return replace(coarse, fine=others[0])
    except CheckpointError as error:
        raise CheckpointError(f"{path} cannot be used: {error}") from error


def _built(content: Mapping[str, Any], path: Path) -> Checkpoint:
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
    if config.in_channels not in (task.in_channels, task.in_channels + len(task.labels)):  # the latter: a fine stage
        raise CheckpointError(
            f"{path} cannot be used: its images have {task.in_channels} channels, its network takes "
            f"{config.in_channels}."
        )
    _refuse_not_finite(state, path)
    state = _in_single_precision(state, _precision(info, path), path)
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
