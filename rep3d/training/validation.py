"""Measuring a network during its training, on cases that it is not trained on, as `rep3d evaluate` measures a model.

What is compared are the images' own voxels: the network's probabilities are brought there from the task's grid and only
then decided, as in :class:`rep3d.inference.predictor.Predictor`, and the truth is the label map as it was drawn. On the
task's grid both would be coarser than what users get, and a small structure could be missing from the truth.
"""

from __future__ import annotations

import math
import time
import zlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import Any

import numpy as np
import torch

from rep3d.data.cases import Case, LeftOut, listed
from rep3d.data.splits import hash_order
from rep3d.errors import ConfigError, NoCasesError
from rep3d.evaluation.gate import label_means
from rep3d.evaluation.metrics import Overlap, mean_dice, overlaps
from rep3d.imaging.channels import channels_grid
from rep3d.imaging.grid import Geometry, Place
from rep3d.imaging.labels import check_grid
from rep3d.imaging.nifti import read_label
from rep3d.imaging.transforms import task_grid
from rep3d.inference.sliding import OVERLAP, check_memory, count_windows, fit_window
from rep3d.inference.stage import kept_type
from rep3d.inference.streaming import slab_axis, streamed_labels
from rep3d.tasks.config import TaskConfig
from rep3d.training.preparing import each_case, read_checked
from rep3d.training.volumes.prepared import Prepared

__all__ = [
    "BestWeights",
    "DrawnCase",
    "ValidationTimes",
    "Validator",
    "as_drawn",
    "choose_validation",
    "measured_cases",
    "refuse_overlap",
    "require_one_to_measure",
    "shuffled",
]

_OVERLAP = 0.25  # of windows; half of what inference takes, for a third of the time
_SHARE = 0.1  # of the time that validations may cost, the last one aside
_LEAST_APART = 0.05  # of the run


def refuse_overlap(cases: Sequence[Case], validation: Sequence[Case]) -> None:
    """Make sure that no case is both trained on and validated on.

    Raises:
        ConfigError: naming the cases that are.
    """
    both = sorted({case.id for case in cases} & {case.id for case in validation})
    if both:
        raise ConfigError(
            f"Cases to measure on must not be trained on, but {both[:5]} ({len(both)} cases) are in both lists. "
            f"Leave them out of one."
        )


def shuffled(cases: Sequence[Case]) -> list[Case]:
    """Return cases in an order that depends on the ids alone and has nothing to do with how they are named."""
    return sorted(cases, key=lambda case: hash_order(case.id))


def measured_cases(validation: Sequence[Case], most: int = 8) -> list[Case]:
    """Return the cases that are measured during a run: all up to so many, else the same ones each time; 0 for all."""
    return sorted(shuffled(validation)[: most or None], key=lambda case: case.id)


def require_one_to_measure(
    held_out: Sequence[Case], labels: Mapping[str, int], channels: int, ignore: int | None
) -> None:
    """Refuse a training whose held-out cases are all of no use: it would run to its end without being measured.

    Args:
        held_out: what is to be measured; none is fine.
        labels, channels, ignore: see :func:`rep3d.training.preparing.read_checked`.

    Raises:
        NoCasesError: naming each with the reason.
    """
    left_out: list[LeftOut] = []
    for case in held_out:
        if each_case([case], lambda one: read_checked(one, labels, channels, ignore), left_out):
            return
    if left_out:
        raise NoCasesError(f"None of the held-out cases can be measured: the training is not begun. {listed(left_out)}")


def choose_validation(
    cases: Sequence[Case], count: int, seen: Callable[[Case], bool] = lambda case: False
) -> tuple[list[Case], list[Case]]:
    """Split labelled cases into those to train on and those to validate on, the same way each time.

    Args:
        cases: all cases.
        count: cases to validate on.
        seen: whether the model, or its encoder, was trained on a case, which can then no longer validate it.

    Returns:
        Training cases and validation cases, each in the order given.

    Raises:
        ConfigError: if there are too few cases for that.
    """
    fresh = (case.id for case in shuffled(cases) if not seen(case))  # images are read for that: no more than needed
    chosen = set(islice(fresh, max(0, count)))
    if len(chosen) != count or count >= len(cases):
        free = len(chosen) + sum(1 for _ in fresh)
        raise ConfigError(
            f"Cannot hold out {count} cases: expected from 0 to {max(0, min(free, len(cases) - 1))}. "
            f"{len(cases)} are there, the model was trained on {len(cases) - free} of them, and one must be left "
            f"to train on."
        )
    return [case for case in cases if case.id not in chosen], [case for case in cases if case.id in chosen]


@dataclass(frozen=True)
class DrawnCase:
    """A case to measure on, with its label map as it was drawn.

    The truth is kept packed, a map of a whole CT in a megabyte or so: a label map that somebody corrects or removes
    meanwhile changes nothing in a run, and memory does not hold the maps of all cases.

    Attributes:
        id: of the case.
        image: (C, D, H, W) float16 on the task's grid; it may be memory-mapped.
        window: the sliding window's sides.
        seen: the task's grid.
        grid: the image's own.
        labels: label name to voxel value, of those that were annotated.
        along: the axis of the label map that its planes lie across.
        planes: zlib's form of each.
        kind: the type of their voxels.
        seconds: what reading and packing took, which is about what deciding and counting take.
    """

    id: str
    image: np.ndarray
    window: tuple[int, ...]
    seen: Geometry
    grid: Geometry
    labels: Mapping[str, int]
    along: int
    planes: Sequence[bytes]
    kind: np.dtype[Any]
    seconds: float

    def truth(self, place: Place) -> np.ndarray:
        """Return the (x, y, z) voxel values of a part that is whole but for the axis :attr:`along`."""
        shape = tuple(part.stop - part.start for part in place)
        values = np.empty(shape, self.kind, order="F")
        across = np.moveaxis(values, self.along, 0)
        for number, packed in enumerate(self.planes[place[self.along]]):
            across[number] = np.frombuffer(zlib.decompress(packed), self.kind).reshape(across.shape[1:])
        return values


def as_drawn(case: Case, ready: Prepared, task: TaskConfig, stride: int) -> DrawnCase:
    """Return a case as it is measured.

    Args:
        case: the case.
        ready: the same on the task's grid.
        task: the task.
        stride: of the network.

    Raises:
        LabelError, ImageError: if its files can no longer be read.
        OutOfMemoryError: if it does not fit into memory.
    """
    started = time.monotonic()
    grid = channels_grid(case.channels, task.in_channels)
    values, drawn_on = read_label(case.label)
    check_grid(drawn_on, grid, case.label.name, case.image.name)
    window, seen = fit_window(task.roi_size, ready.label.shape, stride), task_grid(task, grid)
    along = slab_axis(seen, window, grid)
    if along is None:  # at an angle: measured with all probabilities in memory
        along, channels = 0, task.out_channels
        check_memory(channels, seen.shape, each=kept_type(channels, seen.shape).itemsize, window=window)
    planes = [zlib.compress(np.ascontiguousarray(plane).data, 1) for plane in np.moveaxis(values, along, 0)]
    return DrawnCase(
        case.id,
        ready.image,
        window,
        seen,
        grid,
        case.known(task.labels),
        along,
        planes,
        values.dtype,
        time.monotonic() - started,
    )


class Validator:
    """Measures Dice on the images' own voxels with a sliding window.

    Args:
        cases: what to measure, of those that :func:`measured_cases` gives.
        task: the task.
        device: where the network is.
    """

    def __init__(self, cases: Sequence[DrawnCase], task: TaskConfig, device: torch.device) -> None:
        self._cases = cases
        self._task = task
        self._device = device
        self.seconds: float | None = None  # what the last measurement took

    @property
    def cases(self) -> list[str]:
        """The ids of what is measured."""
        return [case.id for case in self._cases]

    def measure(
        self, network: torch.nn.Module, run: Callable[..., torch.Tensor], on_window: Callable[[], None]
    ) -> dict[str, dict[str, float]]:
        """Dice of each label of each case.

        Args:
            network: in train mode; it is in eval mode meanwhile.
            run: calls the network on a window (B, 1, D, H, W), as ``run(window, network)``.
            on_window: called after each window; may raise to stop.

        Returns:
            Case id to label name to Dice, of the labels that were annotated in the case, where anything is known; NaN
            for a label that is neither in the case nor found.
        """
        started = time.monotonic()

        def predict(window: torch.Tensor) -> torch.Tensor:
            scores = run(window, network)
            on_window()
            return scores

        network.eval()
        try:
            with torch.no_grad():
                found = {case.id: self._dice(case, predict) for case in self._cases}
        finally:
            network.train()
        self.seconds = time.monotonic() - started
        return found

    def again(
        self,
        best: BestWeights,
        network: torch.nn.Module,
        run: Callable[..., torch.Tensor],
        on_window: Callable[[], None],
    ) -> BestWeights:
        """Return the best weights of an interrupted run, measured again if an earlier release measured them otherwise.

        Dice on the task's grid and on the images' own do not compare. Arguments as of :meth:`measure`.
        """
        weights = best.weights
        if weights is None or best.on_own_voxels:
            return best
        now = {name: tensor.clone() for name, tensor in network.state_dict().items()}
        network.load_state_dict(weights)
        try:
            scores = self.measure(network, run, on_window)
        finally:
            network.load_state_dict(now)
        measured = BestWeights()
        measured.offer(scores, best.iteration, lambda: weights)
        return measured

    def _dice(self, case: DrawnCase, predict: Callable[..., torch.Tensor]) -> dict[str, float]:
        counted = dict.fromkeys(case.labels, Overlap(0, 0, 0))
        values = (0, *(self._task.labels[name] for name in self._task.label_names))
        parts = streamed_labels(
            case.image, case.seen.affine, case.grid, case.window, _OVERLAP, predict, values, self._device
        )
        for place, found in parts:
            here = overlaps(found, case.truth(place), case.labels, self._task.ignore)
            counted = {name: counted[name] + more for name, more in here.items()}
        return {name: overlap.dice for name, overlap in counted.items()}

    def expected_seconds(self, step_seconds: float) -> float:
        """Return what a measurement will take: as the last one did, or else judged by a training step on one patch."""
        if self.seconds is not None:
            return self.seconds
        windows = self._windows(_OVERLAP) * step_seconds / 3  # backward takes about twice as long as forward
        return windows + sum(case.seconds for case in self._cases)

    def case_seconds(self, step_seconds: float) -> float:
        """Return what windows and deciding of a case will take when the trained model segments it; see
        :meth:`expected_seconds`."""
        more = self._windows(OVERLAP) / self._windows(_OVERLAP)
        return more * self.expected_seconds(step_seconds) / len(self._cases)

    def _windows(self, overlap: float) -> int:
        return sum(count_windows(case.window, case.image.shape[1:], overlap) for case in self._cases)


class ValidationTimes:
    """When to validate.

    Args:
        interval: in steps; 0 for as often as costs a tenth of the time and at most every twentieth of the run.
    """

    def __init__(self, interval: int) -> None:
        self._interval = interval
        self._last_seconds = 0.0
        self._last_done = 0.0

    def due(self, iteration: int, seconds: float, done: float, cost: float) -> bool:
        """Return whether to validate now.

        Args:
            iteration: steps done.
            seconds: elapsed training time.
            done: share of the run that is over.
            cost: seconds that a validation takes.
        """
        if self._interval:
            return iteration % self._interval == 0
        # The end is validated anyway, so there is no use in doing it shortly before.
        apart = min(done - self._last_done, 1.0 - done)
        return apart >= _LEAST_APART and seconds - self._last_seconds >= cost / _SHARE

    def validated(self, seconds: float, done: float) -> None:
        """Take down that a validation has just ended."""
        self._last_seconds, self._last_done = seconds, done


@dataclass
class BestWeights:
    """The weights that validated best so far.

    Attributes:
        mean: their mean Dice.
        dice: label name to their Dice.
        iteration: steps they had.
        weights: state dict, on the CPU.
        without_gain: validations since the last one with a higher mean.
        history: of each validation: ``iteration``, ``mean`` and ``dice``.
        on_own_voxels: whether Dice was measured on the images' own voxels; releases before did so on the task's grid.
    """

    mean: float | None = None
    dice: dict[str, float] | None = None
    iteration: int = 0
    weights: dict[str, torch.Tensor] | None = None
    without_gain: int = 0
    history: list[dict[str, Any]] | None = None
    on_own_voxels: bool = False

    def offer(
        self, scores: Mapping[str, Mapping[str, float]], iteration: int, weights: Callable[[], dict[str, torch.Tensor]]
    ) -> dict[str, float]:
        """Take down a validation; of equally good weights the later ones are kept, which are annealed further.

        Args:
            scores: case id to label name to Dice.
            iteration: steps done.
            weights: copies the state dict; called only if it is to be kept.

        Returns:
            Label name to mean Dice.
        """
        dice = label_means(scores)
        mean = mean_dice(scores)
        mean = 0.0 if math.isnan(mean) else mean  # validation cases without any label, and none found
        self.on_own_voxels = True
        self.history = [*(self.history or []), {"iteration": iteration, "mean": mean, "dice": dice}]
        self.without_gain = 0 if self.mean is None or mean > self.mean else self.without_gain + 1
        if self.mean is None or mean >= self.mean:
            self.mean, self.dice, self.iteration, self.weights = mean, dice, iteration, weights()
        return dice
