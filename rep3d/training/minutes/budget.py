"""What the minutes of a training are spent on: preparing, steps, and what must follow the steps within the same time.

A clinician waits for all of it. So the steps end early enough for the validation of the last weights and for the tail:
saving, measuring on held-out cases, publishing. How long these take is measured, in this run or in earlier ones.
"""

from __future__ import annotations

import math
import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import TypedDict

from rep3d.errors import ConfigError, TrainingError
from rep3d.training.settings import NO_LIMIT

__all__ = ["Budget", "Earlier", "Tail", "forecast", "in_minutes", "parse_minutes"]

_FEW = 3  # steps that tell how long one takes
_LATE = 0.02  # of the budget, by which a validation may end late
_TOLD = 3  # earlier trainings
_TIME = re.compile(r"([0-9]+(?:\.[0-9]+)?) *([smhd]?)", re.IGNORECASE)
_MINUTES = {"s": 1 / 60, "": 1.0, "m": 1.0, "h": 60.0, "d": 24 * 60.0}


@dataclass(frozen=True)
class Tail:
    """What comes after a training and belongs to its minutes, as far as earlier trainings of the same kind tell.

    Attributes:
        cases: segmentations of held-out images, those by the published version included.
        case_seconds: what one of them takes, from file to Dice; None where this run has to tell.
        other_seconds: saving and publishing.
        step_seconds: a step; None where this run has to tell.
    """

    cases: int = 0
    case_seconds: float | None = None
    other_seconds: float = 1.0
    step_seconds: float | None = None


class Earlier(TypedDict):
    """An earlier training: what its minutes came to."""

    version: str
    iterations: int | None
    minutes: float | None
    dice: float | None


class Budget:
    """The time of a run.

    Args:
        minutes: all that may be used.
        tail: what comes after the training.
        began: when the clock started, in the clock's seconds; None for now.
        clock: monotonic time in seconds.
        spent: seconds that were used before the clock started.
    """

    def __init__(
        self,
        minutes: float,
        tail: Tail,
        began: float | None = None,
        clock: Callable[[], float] = time.monotonic,
        spent: float = 0.0,
    ) -> None:
        self.minutes = minutes
        self._seconds = 60.0 * minutes
        self._tail = tail
        self._clock = clock
        self._began = clock() if began is None else began
        self._spent = self._before = spent  # the latter with what was used before the run was interrupted
        self._preparing = 0.0  # until the first step of this process
        self._first = 0  # steps done before it
        self._done = 0.0  # share that was over by then
        self.validation = 0.0  # seconds that one takes, as far as it is known
        self.case_seconds = tail.case_seconds or 0.0

    def elapsed(self) -> float:
        """Return the seconds used, those before an interruption included."""
        return self._before + self._clock() - self._began

    def resume(self, elapsed: float) -> None:
        """Count what was used before the run was interrupted, what was spent before it began included."""
        self._before = elapsed

    def check_preparing(self, ready: int, cases: int) -> None:
        """Make sure that preparing leaves time to train.

        Args:
            ready: cases prepared.
            cases: cases to prepare.

        Raises:
            TrainingError: if the budget is used up.
        """
        elapsed = self.elapsed()
        if elapsed < self._seconds:
            return
        enough = 2.0 * elapsed * cases / max(1, ready)
        raise TrainingError(
            f"The time was used up before the first step: to start and to prepare {ready} of {cases} cases took "
            f"{elapsed:.0f} s, and max_minutes is {self.minutes:g}. Nothing was trained. Ask for max_minutes of at "
            f"least {_rounded_up(enough / 60.0):g}."
        )

    def begin_steps(self, iteration: int, done: float) -> None:
        """Take down that everything is prepared.

        Args:
            iteration: steps done before.
            done: share of the run that is over.
        """
        self._preparing = self._clock() - self._began
        self._first, self._done = iteration, done

    def tell_case(self, seconds: float) -> None:
        """Take down what measuring a case will take; what earlier trainings measured is preferred."""
        self.case_seconds = self._tail.case_seconds or seconds

    def step_seconds(self, iteration: int) -> float | None:
        """Return what a step takes, validations between steps included; None where nothing tells."""
        steps = iteration - self._first
        if steps > 0:
            return (self._clock() - self._began - self._preparing) / steps
        if self._tail.step_seconds is not None:
            return self._tail.step_seconds
        return self._before / iteration if iteration and self._before else None

    def tail_seconds(self) -> float:
        """Return what is kept back for what comes after the training: at most half of the time after preparing."""
        return min(self._tail.cases * self.case_seconds + self._tail.other_seconds, self._half())

    def _half(self) -> float:
        return max(0.0, self._seconds - self._spent - self._preparing) / 2.0

    def reserve(self) -> float:
        """Return what is kept back for tail and last validation; one that would leave steps less than half is left
        out."""
        both = self.tail_seconds() + self.validation
        return both if both <= self._half() else self.tail_seconds()

    def steps_end(self) -> float:
        """Return the elapsed seconds at which the last step must have ended."""
        return self._seconds - self.reserve()

    def share(self, iteration: int) -> float:
        """Return which share of the time for steps is over; 1 where no further step fits. The first step always does.

        Args:
            iteration: steps done.
        """
        if iteration == 0:
            return self._done
        begun, step = self._before + self._preparing, self.step_seconds(iteration) or 0.0
        room = self.steps_end() - step - begun
        if room <= 0:
            return 1.0
        return min(1.0, self._done + (1.0 - self._done) * (self.elapsed() - begun) / room)

    def validates_between(self) -> bool:
        """Return whether a validation now would end before the steps must."""
        return self.elapsed() + self.validation <= self.steps_end()

    def validates_at_end(self) -> bool:
        """Return whether a validation now would leave the time that the tail takes."""
        return self.elapsed() + self.validation + self.tail_seconds() <= (1.0 + _LATE) * self._seconds

    def steps_expected(self, iteration: int, iterations: int) -> int | None:
        """Return how many steps the run will have made at its end; None while nothing tells.

        Args:
            iteration: steps done.
            iterations: steps at most.
        """
        step = self.step_seconds(iteration)
        if not step or (self._tail.step_seconds is None and iteration - self._first < _FEW):
            return None
        return min(iterations, iteration + max(0, int((self.steps_end() - self.elapsed()) / step)))

    def seconds_left(self, iteration: int, iterations: int) -> float | None:
        """Return the seconds to the end of the tail; None before the first step."""
        step = self.step_seconds(iteration)
        if not iteration or step is None:
            return None
        steps = min(max(0.0, self.steps_end() - self.elapsed()), step * (iterations - iteration))
        return steps + self.reserve()


def forecast(steps: int | None, iterations: int, minutes: float, earlier: Sequence[Earlier] = ()) -> str | None:
    """Return in words what a budget will come to, and what it came to before.

    Args:
        steps: expected steps; None while not known.
        iterations: steps at most.
        minutes: the budget.
        earlier: trainings before this one, oldest first; only a Dice that was measured is told.
    """
    parts = []
    if steps is not None:
        everything, one = steps >= iterations, "" if steps == 1 else "s"
        words = f"all {iterations} step{one}" if everything else f"about {steps} step{one}"
        within = f" fit{'s' if steps == 1 else ''} into" if everything else " in"
        parts.append(words + (f"{within} {in_minutes(minutes)}" if minutes < NO_LIMIT else ""))
    if told := [_told(training) for training in earlier[-_TOLD:] if training["iterations"]]:
        parts.append(f"earlier trainings here: {'; '.join(told)}")
    return "; ".join(parts) or None


def _told(training: Earlier) -> str:
    minutes = f" in {in_minutes(training['minutes'])}" if training["minutes"] else ""
    dice = "not measured" if training["dice"] is None else f"Dice {training['dice']:.2f}"
    return f"{training['version']} {training['iterations']} steps{minutes}, {dice}"


def parse_minutes(text: str) -> float:
    """Return the minutes of ``"90"``, ``"90m"``, ``"12h"``, ``"2d"`` or ``"30s"``; of ``"none"`` those of no limit.

    Raises:
        ConfigError: for anything else.
    """
    if text.strip().lower() == "none":
        return NO_LIMIT
    found = _TIME.fullmatch(text.strip())
    if found is None or not 0 < (minutes := float(found[1]) * _MINUTES[found[2].lower()]) <= NO_LIMIT:
        raise ConfigError(f"--max-time: expected a time such as 90m, 12h, 2d, 30s, or none for no limit, got {text!r}.")
    return minutes


def in_minutes(minutes: float) -> str:
    """Return ``"6 minutes"``, ``"0.2 minutes"``, ``"1 minute"``."""
    text = f"{minutes:.2g}" if minutes < 10 else f"{minutes:.0f}"
    return f"{text} minute{'' if text == '1' else 's'}"


def _rounded_up(minutes: float) -> float:
    return float(math.ceil(minutes)) if minutes > 1 else max(1, math.ceil(10.0 * minutes)) / 10.0
