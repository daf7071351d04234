"""A faster way of computing that was measured for one version: what it is, what it costs in Dice, whether it is used.

`rep3d.predicting.tuning` segments cases that a version was not trained on, plainly and in faster ways, and keeps what
came of it among the facts of the checkpoint (``info["tuned"]``). A way is used only where the mean Dice changed by less
than `MOST_CHANGE`, on a CPU that can do it, and where nobody asked for an engine by name. A checkpoint without such a
record, or with one that is damaged or of other weights, computes as if nothing had been measured.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import logging
import math
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import torch

from rep3d.checkpoint import TUNED, Checkpoint
from rep3d.inference.engines import BFLOAT16, ENVIRONMENT_VARIABLE, FLOAT32, can_compute
from rep3d.inference.sliding import OVERLAP
from rep3d.json_file import json_object

__all__ = ["MOST_CHANGE", "PLAIN", "Tuned", "Way", "tuned_way", "weights_mark"]

MOST_CHANGE = 0.002  # of the mean Dice, in either direction: what is kept is faster, not another model
_WINDOWS, _OVERLAPS = (1.0, 2.0), (0.0, 0.9)  # what a record may say

_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Way:
    """How a network is computed on a CPU.

    Attributes:
        precision: in which OpenVINO computes, ``float32`` or ``bfloat16``.
        overlap: of neighbouring windows, as a share of their sides.
        window: sides of the windows, as multiples of the task's.
        first_look: whether windows are computed only around what a first look at half the resolution found, see
            :mod:`rep3d.inference.first_look`.
    """

    precision: str = FLOAT32
    overlap: float = OVERLAP
    window: float = 1.0
    first_look: bool = False

    @property
    def words(self) -> str:
        """What is unlike the plain way, in words."""
        found = []
        if self.precision != FLOAT32:
            found.append(f"OpenVINO in {self.precision}")
        if self.window != 1.0:
            found.append(f"windows {self.window:g} times as wide")
        if self.overlap != OVERLAP:
            found.append(f"windows that overlap by {self.overlap:g}")
        if self.first_look:
            found.append("only around what a first look found")
        return ", ".join(found)


PLAIN = Way()


@dataclass(frozen=True)
class Tuned:
    """What was measured of a version.

    Attributes:
        way: the fastest one that may be used; `PLAIN` where none is faster.
        dice: mean Dice with it; of `PLAIN`, that of ``plain_dice``.
        plain_dice: mean Dice when computed plainly.
        seconds: processor seconds of all cases, from file to file.
        plain_seconds: likewise, when computed plainly.
        cases: ids of the cases.
        processor: on which it was measured.
        created: when, ISO 8601, UTC.
        weights: what tells the network from others, see :func:`weights_mark`.
        tried: for each way that was tried ``way``, ``dice``, ``seconds``, and whether the Dice ``stands``; for people.
    """

    way: Way
    dice: float
    plain_dice: float
    seconds: float
    plain_seconds: float
    cases: Sequence[str]
    processor: str
    created: str
    weights: str
    tried: Sequence[Mapping[str, Any]] = ()

    @property
    def words(self) -> str | None:
        """What a user is told; None where everything is computed plainly."""
        if self.way == PLAIN:
            return None
        return (
            f"Computed in a faster way that was measured for this version: {self.way.words}. Mean Dice of "
            f"{len(self.cases)} cases that it was not trained on: {self.dice:.4f}, plainly {self.plain_dice:.4f}. "
            f"{self.plain_seconds / self.seconds:.1f} times as fast on {self.processor}."
        )

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        found: dict[str, Any] = json.loads(json.dumps(dataclasses.asdict(self)))
        return found

    @classmethod
    def from_dict(cls, content: Any) -> Tuned:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            ValueError, TypeError, KeyError: if it is not what :meth:`to_dict` gives, or what it says is not allowed.
        """
        fields = json_object(content, way=dict, cases=list, processor=str, created=str, weights=str, tried=list)
        way = Way(**fields["way"])
        numbers = [float(fields[name]) for name in ("dice", "plain_dice", "seconds", "plain_seconds")]
        low, high = _OVERLAPS
        if way.precision not in (FLOAT32, BFLOAT16) or not low <= way.overlap <= high:
            raise ValueError(f"precision {way.precision!r}, overlap {way.overlap!r}")
        if not _WINDOWS[0] <= way.window <= _WINDOWS[1] or not isinstance(way.first_look, bool):
            raise ValueError(f"window {way.window!r}, first look {way.first_look!r}")
        if not all(math.isfinite(number) for number in numbers) or min(numbers[2:]) <= 0 or not fields["cases"]:
            raise ValueError(f"Dice and seconds {numbers} of {len(fields['cases'])} cases")
        if not abs(numbers[0] - numbers[1]) < MOST_CHANGE:
            raise ValueError(f"Dice {numbers[0]} for {numbers[1]}, a change of {MOST_CHANGE} or more")
        return cls(**{**fields, "way": way})


def tuned_way(checkpoint: Checkpoint, device: torch.device, engine: str | None) -> tuple[Way, str | None]:
    """Return how to compute a checkpoint's network, and what to tell the user of it.

    A warning is logged where the checkpoint has a record that is not used.

    Args:
        checkpoint: the model.
        device: where it computes.
        engine: as :func:`~rep3d.inference.engines.choose_engine` takes it: an engine by name computes plainly.
    """
    if checkpoint.info.get(TUNED) is None or device.type != "cpu":
        return PLAIN, None
    if (engine or os.environ.get(ENVIRONMENT_VARIABLE) or "auto") != "auto":
        return PLAIN, None
    tuned, obstacle = None, "needs OpenVINO and a processor with bfloat16, one of which is missing here"
    try:
        tuned = Tuned.from_dict(checkpoint.info[TUNED])
        if tuned.weights != weights_mark(checkpoint):
            tuned, obstacle = None, "was measured for other weights"
        elif tuned.way.precision == BFLOAT16 and not can_compute(BFLOAT16):
            tuned = None
    except (ValueError, TypeError, KeyError) as error:
        obstacle = f"is damaged ({error})"
    if tuned is None:
        _logger.warning("model %s: the record of its faster way %s; it computes plainly.", checkpoint.version, obstacle)
        return PLAIN, None
    return tuned.way, tuned.words


def weights_mark(checkpoint: Checkpoint) -> str:
    """Return what tells the network of a checkpoint from others: of some of its weights, and of its labels."""
    mark = hashlib.sha256(json.dumps(dict(checkpoint.task.labels)).encode())
    for stage in (checkpoint, checkpoint.fine):
        for tensor in stage.model.state_dict().values() if stage else ():
            mark.update(f"{tuple(tensor.shape)}".encode())
            mark.update(tensor.detach().flatten()[:16].cpu().contiguous().numpy().tobytes())
    return mark.hexdigest()
