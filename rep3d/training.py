"""Training, from scratch or on from a published model, on a handful of cases or many.

The loop is MONAI's SupervisedTrainer. The recipe is the paper's (AdamW, weight decay 0.08, DiceCE, patches centred 1:1
on foreground and background) with a higher, annealed learning rate: a clinician waits for minutes, not for 60,000
iterations. The learning rate falls to zero over the iterations or over the time budget, whichever ends first, so that a
run cut by its budget still ends annealed.
"""

from __future__ import annotations

import logging
import math
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ignite.engine import Events
from monai.data import list_data_collate
from monai.engines import SupervisedTrainer
from monai.inferers import SimpleInferer
from monai.losses import DiceCELoss
from monai.transforms import Compose
from monai.utils import CommonKeys, set_determinism
from torch.utils.data import DataLoader, IterableDataset

from rep3d.cases import Case
from rep3d.checkpoint import Checkpoint, save_checkpoint
from rep3d.config import PRESETS, preset_config
from rep3d.errors import CheckpointError, ConfigError, NoCasesError, TaskError, TrainingError
from rep3d.inference import choose_device, fit_window
from rep3d.network import Rep3D
from rep3d.tasks import Intensity, TaskConfig
from rep3d.transforms import augmentation, preparation
from rep3d.volumes import check_label, geometry

__all__ = ["TrainProgress", "TrainSettings", "task_for_cases", "train"]

logger = logging.getLogger(__name__)

# The abdominal CT window of the paper (HU), used for CT tasks without a definition of their own.
_CT_WINDOW = Intensity("window", -125.0, 275.0)


@dataclass(frozen=True)
class TrainSettings:
    """How to train.

    Attributes:
        iterations: optimizer steps at most.
        max_minutes: time budget in minutes; the run ends annealed when it is used up.
        learning_rate: of AdamW at the start.
        weight_decay: of AdamW (the paper's 0.08).
        crops: patches per step, all from one case. The paper takes 2; in the same minutes on a CPU, twice the steps
            with one patch each learn more.
        seed: of initialisation, sampling and augmentation.
        preset: network of a run that starts from nothing: ``"tiny"`` or ``"base"``.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, or None for the best at hand.
    """

    iterations: int = 300
    max_minutes: float = 60.0
    learning_rate: float = 2e-3
    weight_decay: float = 0.08
    crops: int = 1
    seed: int = 0
    preset: str = "tiny"
    device: str | None = None

    def __post_init__(self) -> None:
        for name, low, high in (("iterations", 1, 10_000_000), ("crops", 1, 64), ("seed", 0, 2**31)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
                raise ConfigError(f"{name}: expected a whole number from {low} to {high}, got {value!r}")
        for name, low_, high_ in (("max_minutes", 0.0, 1e6), ("learning_rate", 0.0, 1.0), ("weight_decay", 0.0, 10.0)):
            value = getattr(self, name)
            if isinstance(value, bool) or not isinstance(value, (int, float)) or not low_ <= value <= high_:
                raise ConfigError(f"{name}: expected a number from {low_:g} to {high_:g}, got {value!r}")
        if self.max_minutes == 0 or self.learning_rate == 0:
            raise ConfigError("max_minutes and learning_rate: expected more than 0, got 0")
        if self.preset not in PRESETS:
            raise ConfigError(f"preset: expected one of {sorted(PRESETS)}, got {self.preset!r}")
        if self.device is not None and not isinstance(self.device, str):
            raise ConfigError(f"device: expected a name such as 'cpu' or 'cuda:0', got {self.device!r}")


@dataclass(frozen=True)
class TrainProgress:
    """Where a run is: ``phase`` is ``"preparing"``, ``"training"`` or ``"saving"``; ``loss`` is a running mean."""

    phase: str
    iteration: int
    iterations: int
    loss: float | None
    eta_seconds: float | None
    device: str


def task_for_cases(
    name: str, labels: dict[str, int], images: Sequence[Path | str], modality: str | None = None, max_side: int = 96
) -> TaskConfig:
    """A task definition for data that come without one.

    Spacing is the median over the images along R, A and S; the patch holds the median image where ``max_side`` allows;
    intensity is the paper's CT window for CT and z-scores for all else.

    Args:
        name: name of the task.
        labels: label name to voxel value.
        images: image files; only their headers matter here.
        modality: ``"CT"``, ``"MRI"``, ..., if known.
        max_side: largest side of the patch in voxels.

    Raises:
        TaskError: if there are no images.
        ImageError: if one of them is not readable.
    """
    if not images:
        raise TaskError("task: expected at least one image to read the voxel size from, got none")
    spacings, sizes = [], []
    for image in images:
        grid = geometry(image)
        order = [next(i for i, code in enumerate(grid.axis_codes) if code in pair) for pair in ("RL", "AP", "SI")]
        spacings.append([grid.spacing[i] for i in order])
        sizes.append([grid.spacing[i] * grid.shape[i] for i in order])
    spacing = np.median(spacings, axis=0).round(3)
    voxels = np.median(sizes, axis=0) / spacing
    roi = fit_window((max_side,) * 3, tuple(max(1, round(n)) for n in voxels), Rep3D.stride)
    intensity = _CT_WINDOW if (modality or "").upper().startswith("CT") else Intensity("zscore", 0.5, 99.5)
    return TaskConfig(
        name=name,
        labels=labels,
        spacing=(float(spacing[0]), float(spacing[1]), float(spacing[2])),
        intensity=intensity,
        roi_size=(roi[0], roi[1], roi[2]),
        description=f"{', '.join(labels)} ({modality or 'unknown modality'})",
    )


def _bfloat16_is_fast(device: torch.device) -> bool:
    """Whether the device multiplies bfloat16 in hardware; elsewhere it would be emulated, and slower than float32."""
    if device.type == "cuda":
        return torch.cuda.is_bf16_supported(including_emulation=False)
    probe = getattr(torch.cpu, "_is_avx512_bf16_supported", None)
    return device.type == "cpu" and probe is not None and bool(probe())


class _MixedPrecision(SimpleInferer):
    """Runs the network in bfloat16 where that is fast (half the time of a step), with float32 weights and loss.

    bfloat16 has float32's range, so no loss scaling is needed.
    """

    def __init__(self, device: torch.device) -> None:
        super().__init__()
        self.device_type = device.type
        self.enabled = _bfloat16_is_fast(device)

    def __call__(self, inputs: torch.Tensor, network: Callable[..., torch.Tensor], *args: Any, **kwargs: Any) -> Any:
        with torch.autocast(self.device_type, torch.bfloat16, enabled=self.enabled):
            return network(inputs, *args, **kwargs).float()


@contextmanager
def _tensor_cores(device: torch.device) -> Iterator[None]:
    """Lets a GPU multiply float32 matrices as TF32, which the large kernels' transforms are made of.

    PyTorch allows this for convolutions anyway; its precision is that of half precision, its range float32's.
    """
    before = torch.get_float32_matmul_precision()
    if device.type == "cuda":
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


class _Patches(IterableDataset):
    """Endless batches of augmented patches, cases in random order, each case once per round."""

    def __init__(self, prepared: Sequence[dict[str, Any]], augment: Compose, seed: int) -> None:
        self.prepared = prepared
        self.augment = augment
        self.random = np.random.default_rng(seed)

    def __iter__(self) -> Iterator[list[dict[str, Any]]]:
        while True:
            for index in self.random.permutation(len(self.prepared)):
                yield self.augment(dict(self.prepared[index]))


def _prepare_cases(cases: Sequence[Case], task: TaskConfig) -> list[dict[str, Any]]:
    prepare = preparation(task, with_label=True)
    prepared = []
    for case in cases:
        check_label(case.label, case.image, task.labels)
        prepared.append(prepare({"image": str(case.image), "label": str(case.label)}))
    return prepared


def _network(task: TaskConfig, settings: TrainSettings, start: Checkpoint | None) -> Rep3D:
    if start is None:
        return Rep3D(preset_config(settings.preset, in_channels=1, out_channels=task.out_channels))
    if start.task.labels != task.labels:
        raise CheckpointError(
            f"warm start: expected a checkpoint with the labels {dict(task.labels)}, got one with "
            f"{dict(start.task.labels)}. Train from nothing, or use the checkpoint of this task."
        )
    network = Rep3D(start.model.config)
    network.load_state_dict(start.model.state_dict())
    return network


def train(
    cases: Sequence[Case],
    task: TaskConfig,
    settings: TrainSettings,
    output: Path | str,
    start: Checkpoint | None = None,
    on_progress: Callable[[TrainProgress], None] | None = None,
) -> Checkpoint:
    """Trains on all given cases and writes a checkpoint.

    There is no validation set here and so no accuracy is claimed: the checkpoint records the cases and the training
    loss.

    Args:
        cases: at least one labelled case; labels are checked against their images first.
        task: the task; with ``start``, its labels must be the same.
        settings: how to train.
        output: checkpoint to write, atomically, after the run ended with a finite loss.
        start: continue from this model instead of from random weights.
        on_progress: called after each step, from this thread.

    Returns:
        The trained model, as written.

    Raises:
        NoCasesError: if ``cases`` is empty.
        LabelError, ImageError: if a case is not usable; the message names the file.
        CheckpointError: if ``start`` belongs to another task.
        TrainingError: if the loss stops being finite; ``output`` is not touched.
    """
    if not cases:
        raise NoCasesError("training: expected at least one labelled case, got none. Submit a label first.")
    device = choose_device(settings.device)
    set_determinism(seed=settings.seed, use_deterministic_algorithms=None)
    report = on_progress or (lambda progress: None)
    report(TrainProgress("preparing", 0, settings.iterations, None, None, str(device)))

    network = _network(task, settings, start).to(device).train()
    augment = augmentation(task, settings.crops)
    augment.set_random_state(seed=settings.seed)
    patches = _Patches(_prepare_cases(cases, task), augment, settings.seed)
    loader: DataLoader = DataLoader(patches, batch_size=1, collate_fn=list_data_collate)
    optimizer = torch.optim.AdamW(network.parameters(), settings.learning_rate, weight_decay=settings.weight_decay)
    trainer = SupervisedTrainer(
        device=device,
        max_epochs=1,
        train_data_loader=loader,
        epoch_length=settings.iterations,
        network=network,
        optimizer=optimizer,
        loss_function=DiceCELoss(include_background=False, to_onehot_y=True, softmax=True),
        inferer=_MixedPrecision(device),
        amp=False,
    )
    monitor = _Monitor(settings, optimizer, report, str(device))
    trainer.add_event_handler(Events.ITERATION_STARTED, monitor.before_step)
    trainer.add_event_handler(Events.ITERATION_COMPLETED, monitor.after_step)
    with _tensor_cores(device):
        trainer.run()

    report(TrainProgress("saving", trainer.state.iteration, settings.iterations, monitor.loss, 0.0, str(device)))
    model = network.cpu().eval()
    info = _info(cases, settings, start, model, trainer.state.iteration, monitor.loss)
    save_checkpoint(output, model, task, info)
    logger.info("wrote %s (%s): %d cases, %d iterations", output, info["version"], len(cases), trainer.state.iteration)
    return Checkpoint(model, task, info)


def _info(
    cases: Sequence[Case],
    settings: TrainSettings,
    start: Checkpoint | None,
    model: Rep3D,
    steps: int,
    loss: float | None,
) -> dict[str, Any]:
    parent = start.info if start else {}
    generation = int(parent.get("generation", 0)) + 1
    return {
        "version": f"v{generation}",
        "generation": generation,
        "parent": parent.get("version"),
        "created": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "cases": [case.id for case in cases],
        "preset": parent.get("preset", settings.preset),
        "iterations": steps,
        "loss": loss,
        "parameters": sum(p.numel() for p in model.parameters()),
    }


class _Monitor:
    """Anneals the learning rate, ends the run at its time budget, refuses a loss that is not finite, reports
    progress."""

    def __init__(
        self,
        settings: TrainSettings,
        optimizer: torch.optim.Optimizer,
        report: Callable[[TrainProgress], None],
        device: str,
    ) -> None:
        self.settings = settings
        self.optimizer = optimizer
        self.report = report
        self.device = device
        self.loss: float | None = None
        self.started: float | None = None

    def _done(self, iteration: int) -> float:
        """Share of the run that is over, by steps or by time."""
        assert self.started is not None
        elapsed = time.monotonic() - self.started
        return min(1.0, max(iteration / self.settings.iterations, elapsed / (60.0 * self.settings.max_minutes)))

    def before_step(self, engine: SupervisedTrainer) -> None:
        if self.started is None:
            self.started = time.monotonic()
        done = self._done(engine.state.iteration - 1)
        warm_up = min(1.0, engine.state.iteration / 10)
        for group in self.optimizer.param_groups:
            group["lr"] = self.settings.learning_rate * warm_up * max(0.01, (1.0 - done) ** 0.9)

    def after_step(self, engine: SupervisedTrainer) -> None:
        assert self.started is not None
        loss = float(engine.state.output[0][CommonKeys.LOSS])
        if not math.isfinite(loss):
            raise TrainingError(
                f"training: the loss became {loss} at iteration {engine.state.iteration}; nothing was published. "
                f"Train again with a smaller learning_rate than {self.settings.learning_rate:g}."
            )
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss
        iteration = engine.state.iteration
        done = self._done(iteration)
        eta = (time.monotonic() - self.started) * (1.0 - done) / max(done, 1e-6)
        self.report(TrainProgress("training", iteration, self.settings.iterations, self.loss, eta, self.device))
        if done >= 1.0:
            engine.terminate()
