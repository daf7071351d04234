"""The one way from a file to what the network sees.

Training and inference both start with :func:`preparation`; only the augmentation differs. Most of it is MONAI's;
reading and resampling are ours, to the same result, because a large image spent most of its time there.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Hashable, Mapping, Sequence
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import torch
from monai.data import MetaTensor
from monai.data.utils import compute_shape_offset, zoom_affine
from monai.transforms import (
    ClipIntensityPercentiles,
    Compose,
    MapTransform,
    NormalizeIntensity,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandGaussianNoised,
    RandGaussianSmoothd,
    RandScaleIntensityd,
    RandShiftIntensityd,
    ScaleIntensityRange,
    Spacing,
    ToTensord,
)
from monai.utils import convert_to_tensor

from rep3d.imaging.channels import Files, as_files, read_channels
from rep3d.imaging.grid import Geometry, same_grid
from rep3d.imaging.marks import voxel_mark
from rep3d.imaging.nifti import read_label
from rep3d.imaging.resampling import axis_maps, interpolate_axis, nearest_axis
from rep3d.memory import require_memory
from rep3d.tasks.config import Intensity, TaskConfig

__all__ = ["ImageSteps", "augmentation", "paper_augmentation", "preparation", "task_grid"]

_SAME_SPACING_MM = 1e-3  # a difference that is not worth resampling for
_BYTES = 16  # per voxel of the new grid, at the peak: two neighbours of each voxel, what they came from, and the result
_BYTES_SHEARED = 64  # the same where MONAI resamples, with the coordinates of each voxel in double precision


class ReadVolumed(MapTransform):
    """Reads NIfTI files into MetaTensors (C, X, Y, Z) in the type they are stored in: a large image is half the size.

    The metadata gain ``stored_shape`` and ``stored_affine``, the grid of the file. What is called ``"label"`` is read
    as a label map, on the very grid of ``"image"``: single precision in headers must not part the two. ``"mark"`` is
    then what the image is known by (:func:`rep3d.imaging.marks.voxel_mark`). In images, what is not finite becomes the
    lowest value.

    Args:
        keys: which entries: the files of an image (:data:`rep3d.imaging.channels.Files`), or a label map's.
        channels: of an image.

    Raises:
        ImageError: if a file is no readable three-dimensional image with finite real values, or the image has another
            number of channels.
        LabelError: if a label map has values that are no label's.
    """

    def __init__(self, keys: Hashable | Sequence[Hashable], channels: int = 1) -> None:
        super().__init__(keys)
        self.channels = channels

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        grids: dict[Hashable, Geometry] = {}
        for key in self.key_iterator(result):
            if key == "label":
                voxels, grid = read_label(result[key])
                read = [voxels]
                if "image" in grids and same_grid(grid, grids["image"]):
                    grid = grids["image"]
            else:
                read, grid = read_channels(result[key], self.channels)
                if "label" in self.keys:
                    result["mark"] = voxel_mark(read, grid)
            grids[key] = grid
            kind = np.result_type(*(voxels.dtype for voxels in read)).newbyteorder("=")
            if kind.kind in "ub" and kind.itemsize > 1 or kind.itemsize > 4:  # PyTorch computes with few such types
                kind = np.dtype(np.int32 if kind == np.uint16 else np.float32)
            parts = [torch.from_numpy(np.ascontiguousarray(voxels.T, dtype=kind)) for voxels in read]
            tensor = (parts[0][None] if len(parts) == 1 else torch.stack(parts)).permute(0, 3, 2, 1)
            meta = {
                "filename_or_obj": str(as_files(result[key])[0]),
                "spatial_shape": grid.shape,
                "stored_shape": grid.shape,
                "stored_affine": grid.affine,
            }
            result[key] = MetaTensor(tensor, affine=torch.as_tensor(grid.affine), meta=meta)
        return result


class ParallelSpacingd(MapTransform):
    """What MONAI's Spacingd does, one axis after the other, which is exact and much faster.

    Where an affine is sheared, so that the new grid is not parallel to the old one, Spacingd does it.

    Args:
        keys: which entries.
        pixdim: voxel size in mm along the stored axes.
        modes: ``"bilinear"`` or ``"nearest"`` for each key.
    """

    def __init__(self, keys: Sequence[Hashable], pixdim: Sequence[float], modes: Sequence[str]) -> None:
        super().__init__(keys)
        self.pixdim = np.asarray(pixdim, dtype=np.float64)
        self.modes = modes
        self._monai = {
            key: Spacing(pixdim, mode=mode, padding_mode="border", scale_extent=False)
            for key, mode in zip(self.keys, modes, strict=True)
        }

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key, mode in self.key_iterator(result, self.modes):
            result[key] = self._spaced(result[key], key, mode)
        return result

    def _spaced(self, volume: MetaTensor, key: Hashable, mode: str) -> MetaTensor:
        shape = tuple(volume.shape[1:])
        old = volume.affine.numpy()
        sides = np.linalg.norm(old[:3, :3], axis=0)
        target = _spaced_grid(Geometry(shape, old), self.pixdim)
        new = target.affine
        self._require_memory(volume, sides, target, _BYTES)
        maps = axis_maps(shape, old, target.shape, new)
        if maps is None:
            self._require_memory(volume, sides, target, _BYTES_SHEARED)
            return convert_to_tensor(self._monai[key](volume.to(torch.float32)), track_meta=True)
        voxels: torch.Tensor = volume.as_tensor()
        along_one = interpolate_axis if mode == "bilinear" else nearest_axis
        # The axis that shrinks the volume the most comes first.
        for axis in sorted(range(3), key=lambda axis: len(maps[axis].position) / shape[axis]):
            voxels = along_one(voxels, 1 + axis, maps[axis])
        meta = {name: value for name, value in volume.meta.items() if name != "affine"}
        # What is nearest needs no other type: a large label map stays a quarter of the size.
        voxels = voxels.float() if mode == "bilinear" else voxels
        return MetaTensor(voxels.contiguous(), affine=torch.as_tensor(new), meta=meta)

    @staticmethod
    def _require_memory(volume: MetaTensor, sides: np.ndarray, target: Geometry, each: int) -> None:
        def in_words(shape: Sequence[int], voxel: Sequence[float]) -> str:
            return f"{'x'.join(map(str, shape))} voxels of {'x'.join(f'{side:.4g}' for side in voxel)} mm"

        name = Path(volume.meta["filename_or_obj"]).name
        require_memory(
            each * math.prod(target.shape) * len(volume),
            f"to bring {name} ({in_words(volume.shape[1:], sides.tolist())}) to the model's voxel size "
            f"({in_words(target.shape, target.spacing)})",
            "Are the voxel sizes in its header right?",
        )


class ScaleIntensityd(MapTransform):
    """Scales the voxel values of each channel as its :class:`~rep3d.tasks.config.Intensity` says."""

    def __init__(self, keys: Hashable | Sequence[Hashable], intensities: Sequence[Intensity]) -> None:
        super().__init__(keys)
        self.scales = [_scale(intensity) for intensity in intensities]

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            volume = result[key]
            if len(self.scales) == 1:
                result[key] = convert_to_tensor(self.scales[0](volume), track_meta=True)
                continue
            plain = volume.as_tensor()
            parts = [torch.as_tensor(scale(plain[i : i + 1])) for i, scale in enumerate(self.scales)]
            meta = {name: value for name, value in volume.meta.items() if name != "affine"}
            result[key] = MetaTensor(torch.cat(parts), affine=volume.affine, meta=meta)
        return result


def _scale(intensity: Intensity) -> Callable[[torch.Tensor], Any]:
    if intensity.mode == "window":
        return ScaleIntensityRange(intensity.low, intensity.high, 0.0, 1.0, clip=True)
    return Compose([ClipIntensityPercentiles(intensity.low, intensity.high), NormalizeIntensity()])


class ChannelIndicesd(MapTransform):
    """Makes channel indices of voxel values, slice by slice: MONAI's MapLabelValued holds the map in 64 bits, twice.

    Args:
        keys: which entries: (1, D, H, W), each voxel one of the values.
        channels: voxel value to channel index.
    """

    def __init__(self, keys: Hashable, channels: Mapping[int, int]) -> None:
        super().__init__(keys)
        self.table = np.zeros(max(channels) + 1, np.uint8 if max(channels.values()) < 256 else np.int32)
        self.table[list(channels)] = list(channels.values())

    def __call__(self, data: Mapping[Hashable, Any]) -> dict[Hashable, Any]:
        result = dict(data)
        for key in self.key_iterator(result):
            values = result[key].as_tensor().numpy()
            found = np.empty(values.shape, self.table.dtype)
            for plane in range(values.shape[1]):
                found[:, plane] = self.table[values[:, plane].astype(np.intp)]
            meta = {name: value for name, value in result[key].meta.items() if name != "affine"}
            result[key] = MetaTensor(torch.from_numpy(found), affine=result[key].affine, meta=meta)
        return result


def preparation(
    task: TaskConfig,
    with_label: bool = False,
    other_values: Collection[int] = (),
    annotated: Collection[str] | None = None,
) -> Callable[[Mapping[str, Any]], dict[str, Any]]:
    """From files to tensors on the task's grid.

    Args:
        task: the task.
        with_label: also read ``"label"``, whose voxel values become channel indices 0 .. ``out_channels - 1``, and the
            value that the task ignores ``out_channels``, in the smallest type that holds them. It must have passed
            :func:`rep3d.imaging.labels.check_label`.
        other_values: voxel values of labels that are not this task's; they become background.
        annotated: the labels that were annotated; what the label map has of others becomes background. None for all.

    Returns:
        A transform from ``{"image": files[, "label": path]}`` to MetaTensors, the image (C, D, H, W) as float32, scaled
        as the task says, the label (1, D, H, W), at the task's orientation and spacing (mm). It raises ImageError,
        LabelError or OutOfMemoryError for files that are not usable, or do not fit into memory at that spacing.
    """
    keys = ["image", "label"] if with_label else ["image"]
    modes = ["bilinear", "nearest"] if with_label else ["bilinear"]
    steps: list[Callable[..., Any]] = [
        ReadVolumed(keys, task.in_channels),
        Orientationd(keys, axcodes=task.orientation, labels=None),
        ParallelSpacingd(keys, task.spacing, modes),
        ScaleIntensityd("image", task.intensities),
    ]
    if with_label:
        channels = {0: 0, **dict.fromkeys(other_values, 0)}
        for index, name in enumerate(task.label_names, 1):
            channels[task.labels[name]] = index if annotated is None or name in annotated else 0
        if task.ignore is not None:
            channels[task.ignore] = task.out_channels
        steps.append(ChannelIndicesd("label", channels))

    def prepare(data: Mapping[str, Any]) -> dict[str, Any]:
        result = dict(data)
        for step in steps:  # not MONAI's Compose, which makes a RuntimeError of what a step raises
            result = step(result)
        return result

    return prepare


def task_grid(task: TaskConfig, grid: Geometry) -> Geometry:
    """Return the grid onto which :func:`preparation` brings an image of this grid."""
    turn = nib.orientations.ornt_transform(
        nib.io_orientation(grid.affine), nib.orientations.axcodes2ornt(task.orientation)
    )
    shape = tuple(grid.shape[axis] for axis in np.argsort(turn[:, 0]))
    turned = Geometry(shape, grid.affine @ nib.orientations.inv_ornt_aff(turn, grid.shape))
    return _spaced_grid(turned, np.asarray(task.spacing, dtype=np.float64))


def _spaced_grid(grid: Geometry, spacing: np.ndarray) -> Geometry:
    sides = np.linalg.norm(grid.affine[:3, :3], axis=0)
    kept = np.abs(sides - spacing) < _SAME_SPACING_MM
    affine = zoom_affine(grid.affine, np.where(kept, sides, spacing), diagonal=False)
    shape, offset = compute_shape_offset(grid.shape, grid.affine, affine, scale_extent=False)
    affine[:3, 3] = offset[:3]
    return Geometry(tuple(int(n) for n in shape), affine)


class ImageSteps:
    """:func:`preparation` of an image alone, step by step: what needs an image between two steps, or on two grids.

    Args:
        task: the task.
    """

    def __init__(self, task: TaskConfig) -> None:
        self._read = ReadVolumed("image", task.in_channels)
        self._turned = Orientationd("image", axcodes=task.orientation, labels=None)
        self._spaced = ParallelSpacingd(["image"], task.spacing, ["bilinear"])
        self._scaled = ScaleIntensityd("image", task.intensities)

    def read(self, image: Files) -> MetaTensor:
        """Return the voxels (C, X, Y, Z) of an image in the type they are stored in, in the task's orientation."""
        return convert_to_tensor(self._turned(self._read({"image": image}))["image"], track_meta=True)

    def spaced(self, image: MetaTensor) -> MetaTensor:
        """Return such an image at the task's spacing (C, D, H, W) in float32, its intensities as they are stored."""
        return self._spaced({"image": image})["image"]

    def scaled(self, image: MetaTensor) -> MetaTensor:
        """Return such an image with its intensities scaled, as the network sees it."""
        result: MetaTensor = self._scaled({"image": image})["image"]
        return result


def augmentation(task: TaskConfig, width: float = 1.0) -> Compose:
    """Random changes of a patch for training.

    Where there is a third entry, ``"beside"`` (K, D, H, W), it keeps its place beside the image.

    The paper's recipe (intensity shift 0.1 with p 0.5, rotation pi/30 about z, scale 0.1) is for hundreds of cases.
    Here there may be one, and a structure of another size, pose or brightness must be found all the same: all of them
    are varied about as widely as in nnU-Net (Isensee et al. 2021, Nature Methods 18), and nearly always.

    Args:
        task: the task, whose ``roi_size`` is the patch.
        width: how widely, from 0 (pose and size by less than half as much) to 1.

    Returns:
        A transform of a dictionary with ``"image"`` and ``"label"``, patches (C, D, H, W) and (1, D, H, W). Brightness
        and contrast of several channels vary by themselves.
    """
    keys = ["image", "label"]
    several = task.in_channels > 1
    upright = next(axis for axis, letter in enumerate(task.orientation) if letter in "SI")

    def between(narrow: float, wide: float) -> float:
        return narrow + width * (wide - narrow)

    turned, tilted, scaled = between(np.pi / 15, np.pi / 6), np.pi / 15, between(0.12, 0.3)
    return Compose(
        [
            RandAffined(
                [*keys, "beside"],
                prob=between(0.8, 0.9),
                rotate_range=tuple(turned if axis == upright else tilted for axis in range(3)),
                scale_range=((-scaled / (1 + scaled), scaled),) * 3,
                translate_range=tuple(side / between(12, 8) for side in task.roi_size),
                mode=("bilinear", "nearest", "bilinear"),
                padding_mode="border",
                allow_missing_keys=True,
            ),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5, channel_wise=several),
            RandScaleIntensityd("image", factors=0.3, prob=0.5 * width, channel_wise=several),
            RandAdjustContrastd("image", prob=0.3, gamma=(between(0.7, 0.6), between(1.5, 1.7))),
            RandGaussianSmoothd("image", (0.3, 1.0), (0.3, 1.0), (0.1, 0.5), prob=0.15 * width),
            RandGaussianNoised("image", prob=0.2, std=0.1),
            ToTensord([*keys, "beside"], track_meta=False, allow_missing_keys=True),
        ]
    )


def paper_augmentation(task: TaskConfig, width: float = 1.0) -> Compose:
    """Random changes of a patch as in the paper (arXiv 2505.19603): the counterpart of :func:`augmentation`.

    Intensities are shifted by up to 0.1 in half of the patches; each is turned by up to 6 degrees about the axis from
    foot to head and scaled by up to 10 % along each axis. What comes in from outside the patch mirrors its rim, as by
    default in MONAI.

    Args:
        task: the task.
        width: without effect, as the paper's does not widen; there for the sake of :func:`augmentation`.

    Returns:
        A transform of a dictionary with ``"image"`` and ``"label"``, patches (1, D, H, W).
    """
    keys = ["image", "label"]
    return Compose(
        [
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            RandAffined(
                keys,
                prob=1.0,
                rotate_range=tuple(np.pi / 30 if letter in "SI" else 0.0 for letter in task.orientation),
                scale_range=(0.1, 0.1, 0.1),
                mode=("bilinear", "nearest"),
                padding_mode="reflection",
            ),
            ToTensord(keys, track_meta=False),
        ]
    )
