"""The one way from a file to what the network sees.

Training and inference both start with :func:`preparation`; only the augmentation differs. All of it is MONAI's.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Mapping, Sequence
from typing import Any

import numpy as np
import torch
from monai.data import MetaTensor
from monai.transforms import (
    ClipIntensityPercentiles,
    Compose,
    LoadImaged,
    MapLabelValued,
    MapTransform,
    NormalizeIntensity,
    Orientationd,
    RandAdjustContrastd,
    RandAffined,
    RandCropByPosNegLabeld,
    RandGaussianNoised,
    RandShiftIntensityd,
    ScaleIntensityRange,
    Spacingd,
    SpatialPadd,
    ToTensord,
)
from monai.utils import convert_to_tensor

from rep3d.tasks import Intensity, TaskConfig

__all__ = ["augmentation", "preparation"]


class ScaleIntensityd(MapTransform):
    """Scales voxel values as an :class:`~rep3d.tasks.Intensity` says; values that are not finite become the lowest."""

    def __init__(self, keys: Hashable | Sequence[Hashable], intensity: Intensity) -> None:
        super().__init__(keys)
        self.scale: Callable[[torch.Tensor], Any]
        if intensity.mode == "window":
            self.scale = ScaleIntensityRange(intensity.low, intensity.high, 0.0, 1.0, clip=True)
        else:
            self.scale = Compose([ClipIntensityPercentiles(intensity.low, intensity.high), NormalizeIntensity()])

    def __call__(self, data: Mapping[Hashable, MetaTensor]) -> dict[Hashable, MetaTensor]:
        result = dict(data)
        for key in self.key_iterator(result):
            image: torch.Tensor = result[key]
            finite = torch.isfinite(image)
            if not bool(finite.all()):
                image = torch.where(finite, image, image[finite].min())
            result[key] = convert_to_tensor(self.scale(image), track_meta=True)
        return result


def preparation(task: TaskConfig, with_label: bool = False) -> Compose:
    """From files to tensors on the task's grid.

    Args:
        task: the task.
        with_label: also read ``"label"``, whose voxel values become channel indices 0 .. ``out_channels - 1``.

    Returns:
        A transform from ``{"image": path[, "label": path]}`` to MetaTensors (1, D, H, W): the image as float32,
        scaled as the task says, at the task's orientation and spacing (mm).
    """
    keys = ["image", "label"] if with_label else ["image"]
    modes = ["bilinear", "nearest"] if with_label else ["bilinear"]
    steps: list[Callable[..., Any]] = [
        LoadImaged(keys, reader="NibabelReader", image_only=True, ensure_channel_first=True, dtype=np.float32),
        Orientationd(keys, axcodes=task.orientation, labels=None),
        Spacingd(keys, pixdim=task.spacing, mode=modes, padding_mode="border", scale_extent=False),
        ScaleIntensityd("image", task.intensity),
    ]
    if with_label:
        values = [0, *task.label_values]
        steps.append(MapLabelValued("label", values, list(range(len(values))), dtype=np.int64))
    return Compose(steps)


def augmentation(task: TaskConfig, crops: int = 2) -> Compose:
    """Random patches for training.

    The paper's recipe (crops centred on foreground and background 1:1, intensity shift 0.1 with p 0.5, rotation pi/30
    about z, scale 0.1) is for hundreds of cases. Here there may be one, so more is varied, and more widely: pose,
    position, contrast and noise.

    Args:
        task: the task, whose ``roi_size`` is the patch.
        crops: patches per case.

    Returns:
        A transform from :func:`preparation`'s output to a list of ``crops`` dictionaries with (1, D, H, W) patches.
    """
    keys = ["image", "label"]
    return Compose(
        [
            SpatialPadd(keys, task.roi_size),
            RandCropByPosNegLabeld(keys, "label", task.roi_size, pos=1, neg=1, num_samples=crops),
            RandAffined(
                keys,
                prob=0.8,
                rotate_range=(np.pi / 15, np.pi / 15, np.pi / 15),
                scale_range=(0.12, 0.12, 0.12),
                translate_range=tuple(side // 12 for side in task.roi_size),
                mode=("bilinear", "nearest"),
                padding_mode="border",
            ),
            RandShiftIntensityd("image", offsets=0.1, prob=0.5),
            RandAdjustContrastd("image", prob=0.3, gamma=(0.7, 1.5)),
            RandGaussianNoised("image", prob=0.2, std=0.1),
            ToTensord(keys, track_meta=False),
        ]
    )
