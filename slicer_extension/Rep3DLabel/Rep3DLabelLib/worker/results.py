"""What the helper process makes of the server's answers and of files, beside the answers themselves."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..client.answers import Sample, SegmentationFacts
from ..images.compose import Overlap
from ..images.files import LabelFile, VolumeFile
from ..images.peaks import Peak

__all__ = ["Fetched", "Measured", "Segmented"]


@dataclass(frozen=True)
class Fetched:
    """A case: the sample, its image, and its label if it has one."""

    sample: Sample
    volume: VolumeFile
    label: LabelFile | None = None


@dataclass(frozen=True)
class Segmented:
    """A segmentation by the model; `uncertainty` and `peaks`, its highest places, only where it was asked for."""

    facts: SegmentationFacts
    label: LabelFile
    uncertainty: VolumeFile | None = None
    peaks: tuple[Peak, ...] = ()


@dataclass(frozen=True)
class Measured:
    """What a draft is as a label map.

    Attributes:
        counts: Voxel value -> voxels.
        overlaps: Voxels that segments of different labels both claim.
        outside: Voxels drawn beyond the image.
        voxel_ml: Volume of a voxel in ml.
    """

    counts: Mapping[int, int]
    overlaps: tuple[Overlap, ...]
    outside: int
    voxel_ml: float
