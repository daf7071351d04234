"""``rep3d explain``: shows a trained network's masks, kernels and receptive fields, alone or beside another network.

`rep3d.explain.fields` measures and says how, `rep3d.explain.page` draws; this module finds the networks and what to
show them, and writes the files.
"""

from __future__ import annotations

import json
import platform
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timezone
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import torch

from rep3d import __version__
from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.errors import ConfigError, ImageError
from rep3d.explain.fields import Explanation, Inputs, view_model
from rep3d.explain.page import page
from rep3d.files import write_text
from rep3d.imaging.nifti import geometry
from rep3d.imaging.transforms import preparation
from rep3d.inference.predictor import choose_device, fit_window
from rep3d.nn.config import PRESETS
from rep3d.nn.rep3d import Rep3D
from rep3d.output import check_output_folder
from rep3d.tasks.config import TaskConfig

__all__ = ["VARIANTS", "explain"]

PAGE, NUMBERS = "explain.html", "explain.json"
_ROOM = 1_000_000  # bytes
# What a checkpoint can be compared with besides another checkpoint: its own settings, changed so, with fresh weights.
VARIANTS: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {"untrained": {}, "prior": {"spatial_prior": "fixed"}, "plain": {"spatial_prior": "none"}}
)


def explain(
    checkpoint: Path | str,
    out: Path | str,
    compare: Path | str | None = None,
    images: Sequence[Path | str] = (),
    inputs: int = 8,
    device: str | None = None,
    seed: int = 0,
    *,
    logits: bool = False,
) -> Path:
    """Show the masks, kernels and effective receptive fields of a trained network, alone or beside another one.

    Writes ``explain.html``, a page that needs nothing else, and ``explain.json`` with its numbers.

    Args:
        checkpoint: the trained network.
        out: folder to write into; made if missing. Of what is there, only the two files are replaced.
        compare: another checkpoint, or ``"untrained"`` (the same settings, fresh weights), ``"prior"`` (fresh weights
            under the fixed prior) or ``"plain"`` (fresh weights, no mask).
        images: NIfTI files; random patches of them, prepared as the task says, are the inputs. Without any, the inputs
            are standard-normal noise.
        inputs: how many inputs to average over, in all. An image no larger than the window gives but one.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or None for the best at hand.
        seed: of the patches, the noise and the fresh weights.
        logits: also measure the logits of the voxel in the middle. They are slower, and no local measure: the decoder's
            instance norms let every voxel of the input act on every logit.

    Returns:
        The page's path.

    Raises:
        CheckpointError: if a checkpoint cannot be used.
        ImageError: if an image cannot be read, is not three-dimensional or is too small.
        ConfigError: if a network is no Rep3D, ``compare`` is neither a file nor a variant, the two networks take
            different inputs, ``inputs`` is not positive or the device is not there.
        OutputError, DiskFullError: if ``out`` cannot be written.
    """
    if inputs < 1:
        raise ConfigError(f"inputs: expected 1 or more, got {inputs}")
    if not 0 <= seed < 2**63:
        raise ConfigError(f"seed: expected a whole number from 0 to 2^63 - 1, got {seed}")
    chosen = choose_device(device)
    first = load_checkpoint(checkpoint)
    network = _rep3d(checkpoint, first)
    subjects = [(Path(checkpoint).name, first.version, network)]
    if compare is not None:
        name, version, model = _compared(compare, network, seed)
        if name == subjects[0][0]:  # two files of one name are told apart by their folders
            subjects = [(_with_folder(checkpoint), first.version, network)]
            name = _with_folder(compare)
        subjects.append((name, version, model))
    shown = _read_patches(images, first.task, network, inputs, seed) if images else None
    shown = shown or _noise(first.task, network, inputs, seed)
    others = [compare] if compare is not None and str(compare) not in VARIANTS else []
    # Before the long part, and after all that may be refused: that leaves no empty folder.
    folder = check_output_folder(out, (PAGE, NUMBERS), (checkpoint, *others, *images), room=_ROOM)
    target = folder / PAGE
    models = tuple(view_model(*subject, shown.tensor.to(chosen), logits) for subject in subjects)
    facts = {
        "Seed": str(seed),
        "Device": torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else f"CPU ({platform.machine()})",
        "Software": f"rep3d {__version__}, PyTorch {torch.__version__}, Python {platform.python_version()}",
        "Made": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
    }
    explanation = Explanation(first.task, models, shown, facts)
    write_text(target, page(explanation))
    write_text(folder / NUMBERS, json.dumps(explanation.to_dict(), indent=1))
    return target


def _compared(compare: Path | str, model: Rep3D, seed: int) -> tuple[str, str, Rep3D]:
    """Name, version and network of what the checkpoint is compared with."""
    if str(compare) in VARIANTS:
        config = replace(model.config, **VARIANTS[str(compare)])
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            return str(compare), "fresh weights", Rep3D(config).eval()
    if not Path(compare).is_file():
        raise ConfigError(f"compare: expected a checkpoint file or one of {list(VARIANTS)}, got {str(compare)!r}")
    other = load_checkpoint(compare)
    compared = _rep3d(compare, other)
    if compared.in_channels != model.in_channels:
        raise ConfigError(
            f"compare: expected a network with {model.in_channels} input channels like the explained one, got"
            f" {compared.in_channels} in {Path(compare).name}"
        )
    return Path(compare).name, other.version, compared


def _rep3d(path: Path | str, checkpoint: Checkpoint) -> Rep3D:
    """Return the network of a checkpoint, whose masks and kernels are what a page shows."""
    if not isinstance(checkpoint.model, Rep3D):
        raise ConfigError(
            f"{Path(path).name} holds a {type(checkpoint.model).__name__}, which is no Rep3D and has no masks to show."
            f" Choose a model trained with one of the presets {', '.join(PRESETS)}."
        )
    return checkpoint.model


def _with_folder(path: Path | str) -> str:
    return "/".join(Path(path).resolve().parts[-2:])


def _noise(task: TaskConfig, model: Rep3D, count: int, seed: int) -> Inputs:
    window = fit_window(task.roi_size, task.roi_size, model.stride)
    generator = torch.Generator().manual_seed(seed)
    return Inputs(torch.randn(count, model.in_channels, *window, generator=generator), ())


def _read_patches(images: Sequence[Path | str], task: TaskConfig, model: Rep3D, count: int, seed: int) -> Inputs:
    """Random patches, in turn from each image, all of one size and no two the same.

    They lie within the images: the padding that a sliding window adds to small images is perfectly flat, and in flat
    regions the stem's normalisation amplifies every change, so that padding would outshine the image.
    """
    if model.in_channels != 1:
        raise ConfigError(f"images: expected a network with 1 input channel, got {model.in_channels}; leave them out")
    prepared = []
    for path in images:
        geometry(path)  # refuses what is no three-dimensional image
        volume = preparation(task)({"image": str(path)})["image"].as_tensor()
        if volume.ndim != 4 or volume.shape[0] != 1:
            raise ImageError(f"{Path(path).name} is not three-dimensional: its shape is {tuple(volume.shape[1:])}.")
        prepared.append(volume)
    shapes = [tuple(volume.shape[1:]) for volume in prepared]
    room = tuple(min(sides) // model.stride * model.stride for sides in zip(*shapes, strict=True))
    if min(room) < model.stride or max(room) < 2 * model.stride:
        raise ImageError(
            f"The images are too small: all need room for one patch of at least {model.stride} voxels along each axis"
            f" and {2 * model.stride} along one; they have {shapes} at the task's spacing of {task.spacing} mm. Give"
            " larger images."
        )
    window = fit_window(task.roi_size, room, model.stride)
    random = np.random.default_rng(seed)
    tensors, patches = [], []
    for index, (path, volume) in enumerate(zip(images, prepared, strict=True)):
        starts = [length - side + 1 for length, side in zip(volume.shape[1:], window, strict=True)]
        wanted = len(range(index, count, len(prepared)))
        for flat in random.choice(np.prod(starts), min(wanted, int(np.prod(starts))), replace=False):
            start = tuple(int(i) for i in np.unravel_index(flat, starts))
            tensors.append(volume[(slice(None), *(slice(i, i + n) for i, n in zip(start, window, strict=True)))])
            patches.append((Path(path).name, start))
    return Inputs(torch.stack(tensors), tuple(patches))
