"""Which task file a data set suggests: spacing, intensity, patch and network, each with its reason in words.

The rules are nnU-Net's where it has one (Isensee et al. 2021, Nature Methods 18; its ``dataset_fingerprint`` and
``default_experiment_planner``): the median spacing, but a finer one across thick slices; for CT the window that holds
99 in 100 labelled voxels, else each image's own scale; the largest patch that memory allows, cut like the median image.
docs/plan.md has them all.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from rep3d.errors import TaskError
from rep3d.imaging.outliers import along_axes
from rep3d.inference.sliding import fit_window
from rep3d.planning.fingerprint import Fingerprint
from rep3d.planning.inspecting import CaseFacts
from rep3d.tasks.config import Channel, Intensity, TaskConfig, Term
from rep3d.tasks.file import TaskFile, TrainingHints
from rep3d.tasks.registry import TASKS, matching_task, same_modality

__all__ = ["Proposal", "propose"]

_ANISOTROPIC = 3.0  # times the other sides: slices so thick are looked at more closely, as in nnU-Net
_ANATOMY = "123037004"  # SNOMED CT: anatomical structure
_LONGEST_SIDE = {False: 128, True: 192}  # voxels of a patch, on a CPU and on a GPU
_RESOLUTIONS = {
    "task": "A GPU works at this voxel size and patch.",
    "auto": "On a CPU the minutes of a training decide whether it works at larger voxels, and it says so. Set it "
    "to task to work at these.",
}
_SHARE = 0.8  # of the memory is planned for; the rest is the images', and what was not measured


@dataclass(frozen=True)
class Proposal:
    """A task file, and why it is so.

    Attributes:
        file: what is proposed.
        reasons: what is proposed, to why, in words.
    """

    file: TaskFile
    reasons: Mapping[str, str]


def propose(
    name: str,
    labels: Mapping[str, int],
    modality: str | None,
    facts: Sequence[CaseFacts],
    found: Fingerprint,
    preset: str,
    stride: int,
    step: Callable[[tuple[int, ...]], int],
    memory: int,
    *,
    on_gpu: bool = False,
    channels: Sequence[str] = (),
    ignore: int | None = None,
) -> Proposal:
    """Return the task file that a data set suggests.

    Args:
        name: of the task.
        labels: label name to voxel value.
        modality: what the data set says, ``"CT"``, ``"MRI"``, ...; None where it says nothing.
        facts: of its cases.
        found: what they measure together.
        preset: the network to train.
        stride: voxels that each side of its patches is a multiple of.
        step: says of a patch (D, H, W) how many bytes a training step on it takes.
        memory: bytes that a training may take.
        on_gpu: whether they are a GPU's.
        channels: names of the images' channels where there are several, such as ``"CT"`` or ``"T1"``.
        ignore: value in label maps of which nothing is known; None where there is none.

    Raises:
        TaskError: if the task would be an impossible one.
    """
    spacing, why_spacing = _spacing(facts)
    scaled = [_intensity(told, found, number) for number, told in enumerate(channels or [modality])]
    intensity, kind, why_intensity = scaled[0]
    if channels:
        kind = modality
        why_intensity = " ".join(f"{name}: {why}" for name, (_, _, why) in zip(channels, scaled, strict=True))
    extents = np.array([along_axes(one.grid.extent, one.grid.axis_codes) for one in facts])
    median = tuple(max(1, round(float(length))) for length in np.median(extents, axis=0) / spacing)
    patch, why_patch = _patch(preset, stride, median, step, memory, _LONGEST_SIDE[on_gpu])
    known = matching_task(labels, kind)
    task = TaskConfig(
        name=name,
        labels=labels,
        spacing=spacing,
        intensity=intensity,
        roi_size=patch,
        description=f"{', '.join(labels)} ({kind or 'unknown modality'})",
        terms=_terms(labels, kind),
        modality=kind or "",
        channels=tuple(Channel(name, scale) for name, (scale, _, _) in zip(channels, scaled, strict=False)),
        ignore=ignore,
    )
    resolution = "task" if on_gpu else "auto"
    reasons = {
        "spacing": why_spacing + _fine_enough(spacing, found),
        "intensity": why_intensity,
        "roi_size": why_patch,
        "preset": f"Planned for {'a GPU' if on_gpu else 'a CPU'} and {memory / 1e9:.3g} GB.",
        "resolution": _RESOLUTIONS[resolution],
        "empty_labels": "A case without any label is left out; set it to use where an image has no structure.",
    }
    if known is not None:
        reasons["name"] = f"The labels are those of the registered task {known.name}, which has settings of its own."
    hints = TrainingHints(preset=preset, resolution=resolution, empty_labels="skip")
    return Proposal(TaskFile(task, hints), reasons)


def _spacing(facts: Sequence[CaseFacts]) -> tuple[tuple[float, float, float], str]:
    sides = np.array([along_axes(one.grid.spacing, one.grid.axis_codes) for one in facts])
    shapes = np.array([along_axes(one.grid.shape, one.grid.axis_codes) for one in facts])
    chosen, shape = np.median(sides, axis=0), np.median(shapes, axis=0)
    words = "The median of the images."
    thick = int(np.argmax(chosen))
    others = [axis for axis in range(3) if axis != thick]
    if chosen[thick] > _ANISOTROPIC * chosen[others].max() and shape[thick] * _ANISOTROPIC < shape[others].min():
        finer = max(float(np.percentile(sides[:, thick], 10)), float(chosen[others].max()))
        if finer < chosen[thick]:
            words = (
                f"The median of the images, but across the thick slices ({chosen[thick]:.3g} mm) the tenth percentile, "
                f"so that thinner ones keep what they show."
            )
        chosen[thick] = finer
    x, y, z = (float(side) for side in chosen.round(3))
    return (x, y, z), words


def _fine_enough(spacing: Sequence[float], found: Fingerprint) -> str:
    if (thinnest := found.thinnest) is None:
        return ""
    name, mm = thinnest
    return f" The thinnest structure, {name}, is {mm:.3g} mm thick: {mm / sorted(spacing)[1]:.1f} voxels."


def _intensity(modality: str | None, found: Fingerprint, channel: int) -> tuple[Intensity, str | None, str]:
    """Return how a channel's intensities are scaled, which kind of image that takes it for, and why."""
    told = (modality or "").strip()
    ct = told.upper().startswith("CT") if told else found.air
    if not ct:
        kind = "MRI" if told and same_modality(told, "MRI") else told or None
        why = f"the images are {told}" if told else "the data set names no modality, and the values are not those of CT"
        return Intensity("zscore", 0.5, 99.5), kind, f"Each image by its own percentiles and mean: {why}."
    low, high = math.floor(found.channels[channel].low), math.ceil(found.channels[channel].high)
    if low >= high:
        raise TaskError(
            f"All labelled voxels have the value {low:g}: there is nothing to tell structures by. Are these the images?"
        )
    words = f"99 in 100 labelled voxels are from {low} to {high} HU, a window for all images."
    if not told:
        words += " No modality is named; most images have whole numbers that reach down to those of air."
    if channel == 0 and found.intensity.low >= 0:  # of the others it is not measured
        words += " No image has a value below 0, as air and fat have in HU: are these CT images?"
    return Intensity("window", float(low), float(high)), "CT", words


def _terms(labels: Mapping[str, int], modality: str | None) -> dict[str, Term]:
    """Return what labels of the names of registered organs stand for; no tumour, which is one of some organ's."""
    known = matching_task(labels, modality)
    if known is not None:
        return {name: known.terms[name] for name in labels if name in known.terms}
    organs = {name.casefold(): term for task in TASKS.values() for name, term in task.terms.items()}
    found = {name: organs[name.casefold()] for name in labels if name.casefold() in organs}
    return {name: term for name, term in found.items() if term.category and term.category.value == _ANATOMY}


def _patch(
    preset: str,
    stride: int,
    median: tuple[int, ...],
    step: Callable[[tuple[int, ...]], int],
    memory: int,
    longest: int,
) -> tuple[tuple[int, int, int], str]:
    """Return the largest patch (D, H, W) that fits, and why: the median image's shape, cut where it is longest."""
    whole = fit_window(median, median, stride)
    patch = fit_window((longest,) * 3, median, stride)
    bound = f"sides of {longest} voxels"
    while step(patch) > memory * _SHARE and math.prod(patch) > 2 * stride**3:
        # As in nnU-Net: the side is cut that is longest beside the median image's.
        cut = max((axis for axis in range(3) if patch[axis] > stride), key=lambda axis: patch[axis] / median[axis])
        patch = fit_window(tuple(side - stride * (axis == cut) for axis, side in enumerate(patch)), median, stride)
        bound = f"{memory / 1e9:.3g} GB of memory"
    voxels, needed = " x ".join(map(str, median)), step(patch)
    words = (
        f"It holds the median image of {voxels} voxels."
        if patch == whole
        else f"The median image has {voxels} voxels; the patch is as much of it as {bound} allow."
    )
    words += f" A training step takes about {needed / 1e9:.1f} GB."
    if needed > memory * _SHARE:
        words += f" That is more than {memory / 1e9:.3g} GB allow: choose a smaller network with --preset."
    return (patch[0], patch[1], patch[2]), words
