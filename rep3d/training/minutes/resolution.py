"""At which voxel size a training works, chosen from the images, the structures, the machine's speed and the minutes.

A few hundred steps on patches that hold the whole image teach more than a few dozen on parts of it at full resolution:
on a CPU and within minutes that decides whether organs are found at all. So the voxels are as fine as the minutes allow
and no finer than the structures ask for; with more minutes, or a GPU, they get finer by themselves, down to the task's
own. What the choice rests on is measured by ``benchmarks/minutes.py``.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from rep3d.checkpoint import Checkpoint
from rep3d.data.cases import Case
from rep3d.errors import said
from rep3d.imaging.channels import Files, channels_grid
from rep3d.imaging.nifti import read_label
from rep3d.imaging.outliers import along_axes
from rep3d.imaging.thickness import label_thickness
from rep3d.inference.sliding import fit_window
from rep3d.json_file import JsonFile, json_object
from rep3d.nn.network import Network
from rep3d.nn.zoo import preset_stride
from rep3d.tasks.config import TaskConfig
from rep3d.training.minutes.speed import measure_step
from rep3d.training.precision import MixedPrecision
from rep3d.training.settings import TrainSettings
from rep3d.training.snapshots import RESOLUTION_FILE

__all__ = ["Resolution", "at_resolution", "lengths_along", "plan_resolution", "thicknesses"]

_ACROSS = 8.0  # voxels across the thinnest structure are enough
_FEWEST_ACROSS = 1.5  # below, a structure can hardly be learned, which is said
_COARSEST_BY_CHOICE = 4.0  # mm; only want of time makes voxels larger
_STEP = 1.12  # from one voxel size that is considered to the next
_COARSEST = 12.0  # mm
_ALWAYS = 64**3  # voxels of a patch that is affordable everywhere
_MAX_SIDE = 128  # voxels of a patch on a CPU; on a GPU the task's patch bounds it


@dataclass(frozen=True)
class Resolution:
    """At which voxel size to work.

    Attributes:
        spacing: voxel size in mm, in the task's orientation.
        roi_size: patch (D, H, W) in voxels.
        words: the choice and its reasons, for people.
        steps: how many steps the minutes will about allow; None where that was not measured.
    """

    spacing: tuple[float, float, float]
    roi_size: tuple[int, int, int]
    words: str
    steps: int | None = None


def at_resolution(
    task: TaskConfig,
    cases: Sequence[Case],
    settings: TrainSettings,
    device: torch.device,
    network: Callable[[], Network],
    start: Checkpoint | None = None,
    state: Path | None = None,
) -> tuple[TaskConfig, dict[str, Any]]:
    """Return the task at the resolution that a training works at, and what that rests on.

    What was measured for the model that the training starts from is not measured again on the same machine.

    Args:
        task: the task; its own voxel size is kept in what is returned, so that a later training may get back to it.
        cases: what will be trained on.
        settings: minutes and steps.
        device: where.
        network: makes the network that will be trained.
        start: what the training starts from.
        state: folder of the run; one that is resumed works at the resolution that it began with.
    """
    earlier = dict(start.info.get("resolution") or {}) if start else {}
    own = earlier.get("own")
    if own:
        task = replace(task, spacing=tuple(own["spacing"]), roi_size=tuple(own["roi_size"]))
    kept = _kept(state)
    asked = {"task": task.to_dict(), "cases": [case.id for case in cases], "settings": repr(settings)}
    facts = kept.read() if kept else {}
    if facts.pop("asked", None) != asked:
        stride = start.model.stride if start else preset_stride(settings.preset)
        precision = MixedPrecision(device, precision=settings.precision).precision
        machine = f"{settings.preset} in {precision} on {device.type}, {torch.get_num_threads()} threads"
        speed = earlier.get("seconds_per_voxel") if earlier.get("machine") == machine else None
        known = earlier.get("thickness") or {}
        thickness = known if set(task.labels) <= set(known) else thicknesses(cases, task.labels)

        def seconds_per_voxel() -> float:
            nonlocal speed
            if speed is None:
                made = network()
                speed = measure_step(made, made.in_channels, device, precision)
            return speed

        chosen = plan_resolution(
            task,
            [case.channels for case in cases],
            thickness,
            settings.max_minutes,
            stride,
            seconds_per_voxel,
            on_gpu=device.type == "cuda",
            known=start.task.spacing if start else None,
            iterations=settings.iterations,
            patches=settings.batch * settings.crops,
        )
        facts = {
            "spacing": list(chosen.spacing),
            "roi_size": list(chosen.roi_size),
            "words": chosen.words,
            "own": {"spacing": list(task.spacing), "roi_size": list(task.roi_size)},
            "thickness": thickness,
            "machine": machine,
            "seconds_per_voxel": speed,
        }
        if kept:
            kept.write({"asked": asked, **facts})
    return replace(task, spacing=tuple(facts["spacing"]), roi_size=tuple(facts["roi_size"])), facts


def _kept(state: Path | None) -> JsonFile[dict[str, Any]] | None:
    if state is None:
        return None
    return JsonFile(state / RESOLUTION_FILE, json_object, "at which voxel size an interrupted run worked", dict, True)


def thicknesses(cases: Sequence[Case], labels: Mapping[str, int], most: int = 6) -> dict[str, float]:
    """Return how thick each structure is at its thickest place, in mm, median over cases.

    Args:
        cases: labelled cases; up to ``most`` are read, one that cannot be read does not count.
        labels: label name to voxel value.
        most: see above.

    Returns:
        Label name to mm; labels that are in none of the cases are left out.
    """
    found: dict[str, list[float]] = {name: [] for name in labels}
    for case in cases[:most]:
        try:
            values, grid = read_label(case.label)
        except Exception:  # the training names it, and why
            continue
        for name, value in label_thickness(values, grid, case.known(labels)).items():
            found[name].append(value)
    return {name: float(np.median(each)) for name, each in found.items() if each}


def plan_resolution(
    task: TaskConfig,
    images: Sequence[Files],
    thickness: Mapping[str, float],
    minutes: float,
    stride: int,
    seconds_per_voxel: Callable[[], float],
    *,
    on_gpu: bool = False,
    known: tuple[float, float, float] | None = None,
    iterations: int | None = None,
    patches: int = 1,
) -> Resolution:
    """Choose the voxel size and the patch.

    Args:
        task: its spacing is the finest, its patch bounds the patch on a GPU.
        images: what will be trained on; those that cannot be read do not count.
        thickness: of the structures, see :func:`thicknesses`.
        minutes: time for the steps.
        stride: of the network.
        seconds_per_voxel: measures what a training step takes per voxel of its patch; asked only where it matters.
        on_gpu: whether a GPU trains.
        known: the spacing of the model that the training starts from; kept unless another is clearly better.
        iterations: steps that are not exceeded whatever the minutes; None for no such bound.
        patches: of a step.
    """
    _, extents = lengths_along(images, task.orientation, channels=task.in_channels)
    if not len(extents):
        return Resolution(task.spacing, task.roi_size, "")
    median = np.median(extents, axis=0)
    finest = np.asarray(task.spacing)
    thinnest = min(thickness.values(), default=_COARSEST_BY_CHOICE * _ACROSS)
    enough = min(max(min(finest), thinnest / _ACROSS), _COARSEST_BY_CHOICE)
    bound = task.roi_size if on_gpu else (_MAX_SIDE,) * 3

    def at(side: float) -> tuple[tuple[float, float, float], tuple[int, ...], int]:
        """Return the spacing, the patch, and how many voxels a patch of the whole image would have."""
        x, y, z = (float(round(max(own, side), 3)) for own in finest)
        shape = tuple(max(1, round(length / voxel)) for length, voxel in zip(median, (x, y, z), strict=True))
        return (x, y, z), fit_window(bound, shape, stride), math.prod(fit_window(shape, shape, stride))

    speed: float | None = None
    side = enough
    while True:
        spacing, patch, whole = at(side)
        if on_gpu or whole <= _ALWAYS or side >= _COARSEST:
            break
        speed = seconds_per_voxel() if speed is None else speed
        if 60.0 * minutes / (speed * patches * whole) >= min(_wanted_steps(minutes), iterations or math.inf):
            break
        side *= _STEP
    if known is not None and _alike(known, spacing):
        spacing, patch, _ = known, *at(min(known))[1:]
    steps = None if speed is None else max(1, int(60.0 * minutes / (speed * patches * math.prod(patch))))
    return Resolution(
        spacing, (patch[0], patch[1], patch[2]), _words(task, spacing, patch, median, thickness, minutes, steps), steps
    )


def _wanted_steps(minutes: float) -> float:
    """Return how many steps pay more than finer voxels would: measured, see the module."""
    return 160.0 * math.sqrt(minutes)


def _alike(one: Sequence[float], other: Sequence[float]) -> bool:
    """Return whether two spacings are so close that a model need not get used to another one."""
    return all(0.8 < a / b < 1.25 for a, b in zip(one, other, strict=True))


def lengths_along(
    images: Sequence[Files], orientation: str, problems: list[str] | None = None, channels: int = 1
) -> tuple[np.ndarray, np.ndarray]:
    """Return voxel sides and extents of images in mm along the axes of an orientation, each (images, 3).

    Args:
        images: image files, of which only the headers are read; one whose header cannot be read does not count.
        orientation: such as ``"RAS"``.
        problems: gains what is wrong with those that cannot be read.
        channels: of each image.
    """
    spacings, extents = [], []
    for image in images:
        try:
            grid = channels_grid(image, channels)
        except Exception as error:  # the training says it of each case
            if problems is not None:
                problems.append(said(error))
            continue
        spacings.append(along_axes(grid.spacing, grid.axis_codes, orientation))
        extents.append(along_axes(grid.extent, grid.axis_codes, orientation))
    return np.asarray(spacings), np.asarray(extents)


def _words(
    task: TaskConfig,
    spacing: Sequence[float],
    patch: Sequence[int],
    extent: np.ndarray,
    thickness: Mapping[str, float],
    minutes: float,
    steps: int | None,
) -> str:
    def listed(values: Sequence[float]) -> str:
        return " x ".join(f"{value:.3g}" for value in values)

    words = f"Voxels of {listed(spacing)} mm"
    if not np.allclose(spacing, task.spacing, rtol=1e-3):
        words += f" (the task's own: {listed(task.spacing)} mm)"
    whole = all(side * voxel >= length - voxel for side, voxel, length in zip(patch, spacing, extent, strict=True))
    words += f", patches of {listed(patch)} voxels, {'which hold a whole image' if whole else 'parts of an image'}"
    if steps is not None:
        words += f"; about {steps} steps in {minutes:.3g} minutes"
    thin = {name: mm for name, mm in thickness.items() if mm < _FEWEST_ACROSS * sorted(spacing)[1]}
    if thin and not np.allclose(spacing, task.spacing, rtol=1e-3):
        names = ", ".join(f"{name} ({mm:.1f} mm thick)" for name, mm in sorted(thin.items(), key=lambda item: item[1]))
        words += f". Too thin for such voxels, hardly to be found yet: {names}. More minutes or a GPU make them finer"
    return f"{words}."
