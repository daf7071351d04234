"""How to train, and where a training is: the two records that pass between a training and whoever asked for it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from rep3d.data.cases import LeftOut
from rep3d.errors import ConfigError
from rep3d.nn.config import PRESETS, SPATIAL_PRIORS, require_one_of
from rep3d.nn.zoo import preset_word
from rep3d.tasks.file import EMPTY_LABELS

__all__ = [
    "AUGMENTATIONS",
    "AUTO",
    "LOSSES",
    "NO_LIMIT",
    "OF_OLD",
    "PRECISIONS",
    "RESOLUTIONS",
    "SAMPLINGS",
    "SCHEDULES",
    "STAGES",
    "TrainProgress",
    "TrainSettings",
]

AUTO = "auto"
"""Of a setting: chosen for the images and the machine."""
RESOLUTIONS = (AUTO, "task")
SAMPLINGS = ("balanced", "paper")
STAGES = (AUTO, "one")
LOSSES = ("balanced", "present", "dice_ce")
_WITH_LEVELS = ("uxnet", "dynunet")  # beside Rep3D: with a decoder whose levels can be supervised
AUGMENTATIONS = ("wide", "paper")
SCHEDULES = ("annealed", "constant")
PRECISIONS = (AUTO, "float32", "bfloat16")
NO_LIMIT = 1e6
"""Minutes (two years) that stand for no limit at all."""
OF_OLD = {
    "resolution": "task",
    "sampling": "paper",
    "background_share": 0.2,
    "loss": "dice_ce",
    "stages": "one",
    "empty_labels": "use",
    "augmentation": "wide",
    "schedule": "annealed",
    "val_cases": 8,
    "batch": 1,
    "micro_batch": 0,
    "ema": 0.0,
    "precision": AUTO,
    "deep_supervision": False,
}
"""What settings were before they could be chosen: those of a run that an earlier release began and did not end."""


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        iterations: optimizer steps at most.
        max_minutes: time budget in minutes, from the start of :func:`rep3d.training.train.train` (in the app: from the
            request to the publication); the run ends annealed in time for what must follow its steps.
        learning_rate: of AdamW at the start.
        weight_decay: of AdamW (the paper's 0.08).
        crops: patches per step. The paper takes 2; in the same minutes on a CPU, twice the steps with one patch each
            learn more.
        seed: of initialisation, sampling and augmentation.
        preset: network of a run that starts from nothing, one of :func:`rep3d.nn.zoo.preset_words`: ``"tiny"``,
            ``"quick"`` or ``"base"`` of Rep3D, or another network's name (``"segresnet"``, ``"dynunet:tiny"``).
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or None for the best at hand.
        val_interval: steps between two validations; 0 for as often as costs about a tenth of the time. With validation
            cases the weights at the end are always validated.
        patience: end early after so many validations without a gain; 0 for never. Off unless asked for: the learning
            rate falls to zero over the run and most of the gain comes at its end, so a pause before says little.
        variant: spatial prior of a Rep3D that starts from nothing: ``"learned"``, ``"fixed"`` or ``"none"``.
        resolution: ``"auto"`` to choose the voxel size by the images, the structures, the machine and the minutes (see
            :mod:`rep3d.training.minutes.resolution`), or ``"task"`` for the task's own.
        gpus: train on several GPUs at once: how many, or which (``[0, 1]``, ``["cuda:0", "cuda:1"]``). None for the one
            ``device``.
        sampling: where patches are centred. ``"balanced"``: a share of them on background, the others on the labels in
            equal parts, from cases that have them. ``"paper"``: on labelled voxels and background 1:1.
        background_share: the share of patches that ``"balanced"`` centres on background.
        loss: ``"balanced"`` (Dice of the labels that are in the patches, and cross-entropy in which rare labels weigh
            more), ``"present"`` (the same with equal weights) or ``"dice_ce"`` (MONAI's DiceCELoss, of all labels).
        stages: ``"auto"`` for a fine stage beside the coarse one where it may pay and is measured to
            (:mod:`rep3d.training.stages`), or ``"one"``.
        empty_labels: ``"skip"`` to leave out cases whose label map has no label at all, or ``"use"`` where they are
            images without any of the structures.
        augmentation: how patches are varied: ``"wide"`` (:func:`rep3d.imaging.transforms.augmentation`) or ``"paper"``
            (:func:`rep3d.imaging.transforms.paper_augmentation`).
        schedule: of the learning rate: ``"annealed"``, to zero over the run after ten steps of warming up, or
            ``"constant"``.
        val_cases: how many of the validation cases are measured, always the same ones; 0 for all.
        batch: how many times ``crops`` patches are drawn for a step, in each process.
        micro_batch: patches at a time whose gradients are added up to those of the step; 0 for all at once. Where
            memory does not suffice, it is halved.
        ema: measure and keep an exponential moving average of the weights: what stays of it at each step, such as
            0.999; 0 for none.
        precision: ``"auto"`` for bfloat16 where the device is fast at it, ``"float32"`` or ``"bfloat16"``.
        deep_supervision: train coarser maps of the decoder on the labels, too (:mod:`rep3d.training.steps.deep`).
    """

    iterations: int = 300
    max_minutes: float = 60.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.08
    crops: int = 1
    seed: int = 0
    preset: str = "tiny"
    device: str | None = None
    val_interval: int = 0
    patience: int = 0
    variant: str = "learned"
    resolution: str = "task"
    gpus: int | Sequence[int | str] | None = None
    sampling: str = "balanced"
    background_share: float = 0.2
    loss: str = "balanced"
    stages: str = "one"
    empty_labels: str = "use"
    augmentation: str = "wide"
    schedule: str = "annealed"
    val_cases: int = 8
    batch: int = 1
    micro_batch: int = 0
    ema: float = 0.0
    precision: str = AUTO
    deep_supervision: bool = False

    def __post_init__(self) -> None:
        for name, low, high in (
            ("iterations", 1, 10_000_000),
            ("crops", 1, 64),
            ("seed", 0, 2**31),
            ("val_interval", 0, 10_000_000),
            ("patience", 0, 10_000),
            ("val_cases", 0, 10_000),
            ("batch", 1, 1024),
            ("micro_batch", 0, 1024),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
        for name, low_, high_ in (
            ("max_minutes", 0.0, NO_LIMIT),
            ("learning_rate", 0.0, 1.0),
            ("weight_decay", 0.0, 10.0),
            ("background_share", 0.01, 0.99),
            ("ema", 0.0, 0.99999),
        ):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low_ <= value <= high_:
                raise ConfigError(f"{name}: expected a number from {low_:g} to {high_:g}, got {value!r}")
        if self.max_minutes == 0 or self.learning_rate == 0:
            raise ConfigError("max_minutes and learning_rate must be more than 0.")
        object.__setattr__(self, "preset", preset_word(self.preset))
        require_one_of("variant", self.variant, SPATIAL_PRIORS)
        require_one_of("resolution", self.resolution, RESOLUTIONS)
        if self.variant != "learned" and self.preset not in PRESETS:
            raise ConfigError(
                f"variant: {self.variant!r} is a spatial prior of Rep3D ({', '.join(PRESETS)}), but {self.preset} has "
                f"none. Leave variant out."
            )
        require_one_of("sampling", self.sampling, SAMPLINGS)
        require_one_of("loss", self.loss, LOSSES)
        require_one_of("stages", self.stages, STAGES)
        require_one_of("empty_labels", self.empty_labels, EMPTY_LABELS)
        require_one_of("augmentation", self.augmentation, AUGMENTATIONS)
        require_one_of("schedule", self.schedule, SCHEDULES)
        require_one_of("precision", self.precision, PRECISIONS)
        if not isinstance(self.deep_supervision, bool):
            raise ConfigError(f"deep_supervision: expected true or false, got {self.deep_supervision!r}")
        if self.stages == AUTO and self.augmentation != "wide":
            raise ConfigError(
                "A fine stage (stages 'auto') is trained with wide augmentation only. Leave out one of both."
            )
        deep = (*PRESETS, *_WITH_LEVELS)
        if self.deep_supervision and (self.stages == AUTO or self.preset.partition(":")[0] not in deep):
            raise ConfigError(
                f"deep_supervision: expected one stage of {', '.join(deep)}, got stages {self.stages!r} of "
                f"{self.preset}. Leave it out."
            )
        if self.device is not None and not isinstance(self.device, str):
            raise ConfigError(f"device: expected a name such as 'cpu' or 'cuda:0', got {self.device!r}")
        self._check_gpus()

    def _check_gpus(self) -> None:
        gpus: Any = self.gpus
        if gpus is None:
            return
        if isinstance(gpus, int) and not isinstance(gpus, bool):
            known = gpus >= 1
        else:
            known = isinstance(gpus, (list, tuple)) and len(gpus) > 0
            known = known and all(isinstance(gpu, (int, str)) and not isinstance(gpu, bool) for gpu in gpus)
        if not known:
            raise ConfigError(
                f"gpus: expected how many, or a list such as [0, 1] or ['cuda:0', 'cuda:1'], got {gpus!r}"
            )
        if self.device == "cpu":
            raise ConfigError("gpus and device 'cpu' contradict each other. Leave out one of the two.")
        if not isinstance(gpus, int):
            object.__setattr__(self, "gpus", tuple(gpus))


@dataclass(frozen=True)
class TrainProgress:
    """Where a run is.

    Attributes:
        phase: ``"preparing"``, ``"training"``, ``"validating"`` or ``"saving"``.
        iteration: steps done, those before an interruption included.
        iterations: steps at most.
        loss: running mean of the training loss (with several processes, of all).
        eta_seconds: seconds to the end, of what follows the training within its budget included.
        device: where it runs.
        epoch: the pass over the training cases that is under way, from 1; 0 before the first step.
        epochs: passes if all iterations are run.
        validation: label name to Dice, mean over the validation cases, as last measured; a label that none of them has
            is left out. None before the first validation.
        best: best mean Dice of a validation so far.
        memory_mb: MiB in use: on a GPU the most that tensors took so far, on a CPU what the process takes now.
        elapsed_seconds: time of the budget used so far, that before an interruption included.
        resumed_from: the step at which this run took up an interrupted one; None where it began at the beginning.
        left_out: cases that are not used, so far as it is known, with the reasons.
        steps_expected: steps that the budget will allow; None while nothing tells.
        note: why the run works at its resolution, and what did not fit into memory, in words.
        shortfall: what the budget was too short for, in words.
        stage: ``"coarse"`` or ``"fine"``, of a training of two stages.
    """

    phase: str
    iteration: int
    iterations: int
    loss: float | None
    eta_seconds: float | None
    device: str
    epoch: int = 0
    epochs: int = 0
    validation: dict[str, float] | None = None
    best: float | None = None
    memory_mb: float | None = None
    elapsed_seconds: float = 0.0
    resumed_from: int | None = None
    left_out: tuple[LeftOut, ...] = ()
    steps_expected: int | None = None
    note: str | None = None
    shortfall: str | None = None
    stage: str | None = None
