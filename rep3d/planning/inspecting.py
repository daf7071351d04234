"""Each file of a data set looked at once: what it measures, what is wrong with it, and a few slices to show.

Headers first, to know how many cases fit into memory at a time; then each case by the same function that says what a
training leaves out (:func:`rep3d.training.preparing.read_checked`). Cases are read in threads: unpacking, sorting and
counting leave Python's lock alone. No torch here.
"""

from __future__ import annotations

import math
import os
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass
from functools import partial

import numpy as np

from rep3d.data.cases import Case, DataSet, LeftOut
from rep3d.data.copies import without_copies
from rep3d.errors import Rep3DError
from rep3d.imaging.channels import channels_grid, count_channels
from rep3d.imaging.grid import Geometry
from rep3d.imaging.thickness import label_thickness
from rep3d.memory import free_and_total
from rep3d.planning.pictures import Slice, slices_of
from rep3d.training.preparing import (
    CheckedCase,
    as_left_out,
    can_be_used,
    left_out_if_empty,
    read_checked,
    unusual_headers,
)

__all__ = ["CaseFacts", "Defect", "Inspection", "inspect"]

_SAMPLE = 10_000  # labelled voxels of a case that stand for all of them
_BYTES = 24  # per voxel of a case that is read: image in floats, label map, what is drawn from both
_SHARE = 0.5  # of the free memory
_MOST_AT_ONCE = 8  # more than a disk delivers


@dataclass(frozen=True)
class CaseFacts:
    """What was measured of a case.

    Attributes:
        id: of the case.
        grid: where its voxels lie.
        low: lowest intensity.
        high: highest one.
        whole: whether all intensities are whole numbers, as those of CT are.
        samples: (C, N) float32, intensities of each channel in labelled voxels, at most 10,000 drawn at random.
        mean: of all labelled voxels, in the first channel as all that follows; NaN without any.
        sd: their standard deviation.
        volumes: label name to volume in ml, of the labels that are there.
        thickness: label name to mm at the thickest place.
        slices: what is shown of it; none of most cases.
    """

    id: str
    grid: Geometry
    low: float
    high: float
    whole: bool
    samples: np.ndarray
    mean: float
    sd: float
    volumes: Mapping[str, float]
    thickness: Mapping[str, float]
    slices: tuple[Slice, ...] = ()


@dataclass(frozen=True)
class Defect:
    """Something that is wrong with a file, or may be.

    Attributes:
        entry: the case, the file, and what is wrong.
        used: whether `rep3d train` uses the case all the same, with a warning.
    """

    entry: LeftOut
    used: bool

    @property
    def rule(self) -> str:
        """What a training does about it."""
        return "used, with a warning" if self.used else "left out"


@dataclass(frozen=True)
class Inspection:
    """A data set, looked at.

    Attributes:
        found: how many cases there are, those that cannot be used included.
        facts: of those that can be used, by id.
        defects: by case and file.
    """

    found: int
    facts: tuple[CaseFacts, ...]
    defects: tuple[Defect, ...]


def inspect(
    data: DataSet,
    labels: Mapping[str, int],
    show: Collection[str] = (),
    report: Callable[[int, int], None] = lambda done, of: None,
    channels: int = 1,
    ignore: int | None = None,
) -> Inspection:
    """Read a data set, each file once.

    Args:
        data: the data set.
        labels: label name to voxel value.
        show: ids of the cases of which slices are kept.
        report: called with how many cases were read, and of how many.
        channels: of an image.
        ignore: value in label maps of which nothing is known; None where there is none.
    """
    look = partial(_look_at, labels=labels, channels=channels, ignore=ignore)
    once = without_copies(data, lambda case: can_be_used(case, labels, channels, ignore))
    found: list[CaseFacts] = []
    defects = [Defect(entry, used=False) for entry in once.left_out]
    for done, result in enumerate(_each(once.cases, look, show), start=1):
        if isinstance(result, LeftOut):
            defects.append(Defect(result, used=False))
        else:
            found.append(result)
        report(done, len(once.cases))
    files = {case.id: case.image.name for case in once.cases}
    usable = {facts.id for facts in found}
    for id_, words in unusual_headers(once.cases).items():
        if id_ not in usable:
            continue
        reason = f"{words}. Is its header right? Look at left and right, and at its size, beside another image."
        defects.append(Defect(LeftOut(id_, files[id_], reason), used=True))
    return Inspection(
        data.found,
        tuple(sorted(found, key=lambda facts: facts.id)),
        tuple(sorted(defects, key=lambda defect: (defect.used, defect.entry.id, defect.entry.file))),
    )


def _each(
    cases: Sequence[Case], look: Callable[..., CaseFacts | LeftOut], show: Collection[str]
) -> Iterator[CaseFacts | LeftOut]:
    with ThreadPoolExecutor(_workers(cases)) as pool:
        futures = [pool.submit(look, case, show=case.id in show) for case in cases]
        try:
            for future in as_completed(futures):
                yield future.result()
        finally:
            pool.shutdown(wait=True, cancel_futures=True)  # after Ctrl-C: what is being read ends, no more begins


def _workers(cases: Sequence[Case]) -> int:
    """Return how many cases to read at a time: as many as there are cores, and no more than memory allows."""
    largest = 1
    for case in cases:
        try:
            count = count_channels(case.channels)
            largest = max(largest, math.prod(channels_grid(case.channels, count).shape) * (1 + count) // 2)
        except Rep3DError:  # it is said where it is read
            continue
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    free, _ = free_and_total()
    return max(1, min(cores, _MOST_AT_ONCE, len(cases), int(free * _SHARE / (largest * _BYTES))))


def _look_at(
    case: Case, show: bool, labels: Mapping[str, int], channels: int, ignore: int | None
) -> CaseFacts | LeftOut:
    try:
        read = read_checked(case, labels, channels, ignore)
        known = case.known(labels)
        empty = left_out_if_empty(case, sum(read.counts.get(value, 0) for value in known.values()))
        return _facts(case, read, known, ignore, show) if empty is None else empty
    except Exception as error:  # as in a training: no list of kinds of errors decides
        return as_left_out(case, error)


def _facts(case: Case, read: CheckedCase, labels: Mapping[str, int], ignore: int | None, show: bool) -> CaseFacts:
    image, grid = read.channels[0], read.grid
    drawn_in = (read.label > 0) if ignore is None else (read.label > 0) & (read.label != ignore)
    inside = image[drawn_in].astype(np.float32)
    random = np.random.default_rng(0)
    drawn = random.integers(0, len(inside), _SAMPLE) if len(inside) > _SAMPLE else random.permutation(len(inside))
    return CaseFacts(
        id=case.id,
        grid=grid,
        low=float(image.min()),
        high=float(image.max()),
        whole=image.dtype.kind in "iu" or bool((inside == np.rint(inside)).all()),
        samples=np.stack([channel[drawn_in][drawn].astype(np.float32) for channel in read.channels]),
        mean=float(inside.mean(dtype=np.float64)),
        sd=float(inside.std(dtype=np.float64)),
        volumes={name: read.counts[value] * grid.voxel_ml for name, value in labels.items() if value in read.counts},
        thickness=label_thickness(read.label, grid, labels),
        slices=slices_of(image, read.label, grid) if show else (),
    )
