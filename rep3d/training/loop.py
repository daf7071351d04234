"""One process's training: the steps, and what happens between them.

The loop is MONAI's SupervisedTrainer. Between steps the learning rate is annealed, the time budget kept, the weights
validated, and a snapshot taken from which the run can be resumed.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import psutil
import torch
from ignite.engine import Events
from monai.data import list_data_collate
from monai.engines import SupervisedTrainer
from monai.utils import CommonKeys, set_determinism
from torch.utils.data import DataLoader

from rep3d.checkpoint import Checkpoint, save_checkpoint
from rep3d.data.cases import Case, listed
from rep3d.errors import NoCasesError, TrainingError
from rep3d.imaging.transforms import augmentation, paper_augmentation
from rep3d.inference.fine import corrected
from rep3d.nn.network import Network
from rep3d.nn.single import for_single_patches
from rep3d.nn.zoo import build_network
from rep3d.output import require_room
from rep3d.training.layered import layered_augmentation, with_coarse
from rep3d.training.loss import loss_function
from rep3d.training.minutes.budget import Budget
from rep3d.training.plan import TrainPlan, first_network, room_to_hold
from rep3d.training.precision import MixedPrecision, tensor_cores
from rep3d.training.preparing import each_case, leave_out_empty
from rep3d.training.sampling import Patches, Widening, case_weights
from rep3d.training.settings import TrainProgress
from rep3d.training.snapshots import RunState
from rep3d.training.steps.deep import DeepLoss, DeeplySupervised
from rep3d.training.steps.records import Records
from rep3d.training.steps.step import Step, averaged
from rep3d.training.validation import BestWeights, ValidationTimes, Validator, as_drawn, measured_cases
from rep3d.training.volumes.store import VolumeStore, volume_store
from rep3d.training.worker import Worker

__all__ = ["run"]

logger = logging.getLogger(__name__)

_WARM_UP = 10  # steps
_AUGMENTATIONS = {"wide": augmentation, "paper": paper_augmentation}


def run(plan: TrainPlan, worker: Worker, report: Callable[[TrainProgress], None]) -> Checkpoint | None:
    """Train, and write the checkpoint if this is the leading process.

    Args:
        plan: what to train.
        worker: which of the processes this is.
        report: called before, between and after the steps; may raise to stop.

    Returns:
        The trained model in the leading process, None in the others.
    """
    with (
        tensor_cores(worker.device),
        volume_store(plan.prepared, plan.task, plan.other_values, worker.leads, plan.prepared_most) as volumes,
    ):
        loop = _Loop(plan, worker, report, volumes)
        loop.train()
        return loop.finish() if worker.leads else None


class _Loop:
    """A run under way."""

    def __init__(
        self, plan: TrainPlan, worker: Worker, report: Callable[[TrainProgress], None], volumes: VolumeStore
    ) -> None:
        self.plan = plan
        self.settings = plan.settings
        self.worker = worker
        self.report = report
        self.iteration = 0
        self.loss: float | None = None
        self.done = self.by_time = 0.0  # share of the run that is over, by steps or by time; and by time alone
        self.stopped: str | None = None
        self.best = BestWeights()
        self.dice: dict[str, float] | None = None
        self.resumed_from: int | None = None
        self.cases: Sequence[Case] = plan.cases  # those that can be used, as soon as that is known
        self.left_out = list(plan.left_out)
        self.budget = Budget(self.settings.max_minutes, plan.tail, plan.began, spent=plan.spent)
        self.shortfall: str | None = None
        self.memory: str | None = None  # what did not fit into it, in words
        set_determinism(seed=self.settings.seed, use_deterministic_algorithms=None)
        self._tell("preparing")

        network = first_network(plan)
        self.config = network.config
        for_single_patches(network)
        self.trained = worker.prepare(DeeplySupervised(network) if self.settings.deep_supervision else network).train()
        self.average = averaged(self.trained, self.settings.ema) if self.settings.ema and worker.leads else None
        self.micro_batch = self.settings.micro_batch
        weights = sum(tensor.nbytes for tensor in network.state_dict().values())
        require_room(plan.output.parent, weights, str(plan.output))
        self.times = ValidationTimes(self.settings.val_interval)
        self.optimizer = torch.optim.AdamW(
            self.trained.parameters(),
            self.settings.learning_rate,
            weight_decay=self.settings.weight_decay,
            fused=True,
        )
        self.state = RunState(plan.state, plan.identity()) if plan.state else None
        self._resume()
        if worker.agree(float(self.iteration)) != [self.iteration]:
            raise TrainingError(
                f"Process {worker.rank} does not find the snapshot from which the first one goes on. The folder "
                f"{plan.state} (--resume) must be the same on all machines."
            )
        preparing_from = self.budget.elapsed()
        if not worker.leads:
            worker.agree(0.0)  # the leader prepares, and the others find it on disk
        ready = each_case(self._told(plan.cases), volumes.get, self.left_out)
        if worker.leads:
            worker.agree(0.0)
        if self.settings.empty_labels == "skip":
            labels = plan.task.labels
            ready = leave_out_empty(ready, lambda prepared: sum(prepared.counts[1:]), self.left_out, labels)
        if not ready:
            raise NoCasesError(f"None of the {len(plan.cases)} cases can be trained on. {listed(self.left_out)}")
        if plan.coarse:
            ready = with_coarse(ready, plan.coarse, plan.task, str(worker.device), lambda: self._tell("preparing"))
        self.cases, self.prepared = [case for case, _ in ready], [volumes for _, volumes in ready]
        self.marks = {case.id: volume.mark for case, volume in ready}
        self.case_preparing = (self.budget.elapsed() - preparing_from) / len(plan.cases)  # seconds
        self.inferer = MixedPrecision(worker.device, corrected if plan.coarse else None, self.settings.precision)
        self.validator: Validator | None = None
        if plan.validation and worker.leads:
            measured = measured_cases(plan.validation, self.settings.val_cases)
            drawn = partial(as_drawn, task=plan.task, stride=network.stride)
            valid = each_case(self._told(measured), lambda case: drawn(case, volumes.get(case)), self.left_out)
            if valid:
                self.validator = validator = Validator([case for _, case in valid], plan.task, worker.device)
                self.best = validator.again(self.best, self._kept(), self.inferer, partial(self._tell, "validating"))
        if not self.iteration:
            self.budget.check_preparing(len(self.cases), len(self.cases))
        self.patches = self._patches()
        loss = loss_function(self.settings.loss, self.patches.counts, self.patches.possible).to(worker.device)
        loss = DeepLoss(loss) if self.settings.deep_supervision else loss
        self.step = Step(worker, self.trained, self.optimizer, loss, self.inferer, self.micro_batch, self.average)
        self.records = Records(plan.table, plan.tensorboard, plan.task.label_names, self.iteration, worker.leads)

    def _told(self, cases: Sequence[Case]) -> Iterator[Case]:
        for number, case in enumerate(cases):
            if not self.iteration:  # a run that is resumed has weights to end with
                self.budget.check_preparing(number, len(cases))
            self._tell("preparing")
            yield case

    def train(self) -> None:
        """Run the steps that are left."""
        steps = self.settings.iterations - self.iteration
        self.budget.begin_steps(self.iteration, self.by_time)
        self._take_stock()
        try:
            if not self.stopped:
                self._trainer(steps).run()
            self.worker.check_same(self.trained)
        finally:
            if self.state is not None:
                self.state.wait()

    def _patches(self) -> Patches:
        task, worker, settings = self.plan.task, self.worker, self.settings
        first = self.iteration * settings.batch * worker.size + worker.rank
        made = layered_augmentation if self.plan.coarse else _AUGMENTATIONS[settings.augmentation]
        augment = Widening(partial(made, task), trained=self.plan.start is not None)
        weights = case_weights(self.cases, self.plan.weights)
        held = room_to_hold(self.plan, self.config.in_channels, worker.device.type == "cpu")
        return Patches(self.prepared, weights, augment, task.roi_size, settings, first, worker.size, held)

    def _trainer(self, steps: int) -> SupervisedTrainer:
        trainer = SupervisedTrainer(
            device=self.worker.device,
            max_epochs=1,
            train_data_loader=DataLoader(self.patches, self.settings.batch, collate_fn=list_data_collate),
            epoch_length=steps,
            network=self.trained,
            optimizer=self.optimizer,
            loss_function=torch.nn.Identity(),  # self.step has it
            iteration_update=self.step,
            decollate=False,
        )
        trainer.add_event_handler(Events.ITERATION_STARTED, self._before_step)
        trainer.add_event_handler(Events.ITERATION_COMPLETED, self._after_step)
        return trainer

    def _before_step(self, trainer: SupervisedTrainer) -> None:
        # What is drawn in the network (dropout) depends on the step alone, too, and not on what was before it.
        drawn = np.random.SeedSequence([self.settings.seed, self.iteration, self.worker.rank])
        torch.manual_seed(int(drawn.generate_state(1)[0]))
        rate = self.settings.learning_rate
        if self.settings.schedule == "annealed":
            rate *= min(1.0, (self.iteration + 1) / _WARM_UP) * max(0.01, (1.0 - self.done) ** 0.9)
        for group in self.optimizer.param_groups:
            group["lr"] = rate

    def _after_step(self, trainer: SupervisedTrainer) -> None:
        self.iteration += 1
        loss = trainer.state.output[CommonKeys.LOSS]
        if not math.isfinite(loss):
            if self.state is not None:
                self.state.remove()  # resumed, it would only fail again
            raise TrainingError(
                f"The training failed: its loss became {loss} at iteration {self.iteration}. Nothing was published. "
                f"Train again with a smaller learning_rate than {self.settings.learning_rate:g}."
            )
        self.loss = loss if self.loss is None else 0.9 * self.loss + 0.1 * loss
        self.memory = self.step.note
        self.records.write(self.iteration, self._row(loss))
        self._take_stock()
        self._tell("training")
        if self.stopped:
            trainer.terminate()

    def _take_stock(self) -> None:
        """Find out how much of the run is over, and whether it ends; the leader decides, validates, takes snapshots."""
        if self.worker.leads:
            self._measure_time()
            by_steps, self.by_time = self.iteration / self.settings.iterations, self.budget.share(self.iteration)
            self.done = max(self.done, min(1.0, max(by_steps, self.by_time)))
            if self.done >= 1.0:
                self.stopped = "iterations" if by_steps >= 1.0 else "max_minutes"
            elif self._validation_is_due():
                self._validate()
                if 0 < self.settings.patience <= self.best.without_gain:
                    self.stopped = "early stopping"
            if self.state is not None and self.iteration and self.state.due():
                self.state.write(self._snapshot())
        self.done, ended = self.worker.agree(self.done, float(self.stopped is not None))
        if ended and not self.worker.leads:
            self.stopped = "by the leader"

    def _measure_time(self) -> None:
        """Tell the budget what is known by now about validations and held-out cases."""
        step = self.budget.step_seconds(self.iteration)
        windows = 0.0
        if self.validator is not None and step is not None:
            self.budget.validation = self.validator.expected_seconds(step)
            windows = self.validator.case_seconds(step)
        # A held-out case is prepared as here, and its result written; windows hold the way back to its own grid.
        self.budget.tell_case(windows + 2.0 * self.case_preparing)

    def _validation_is_due(self) -> bool:
        if self.validator is None or not self.iteration or not self.budget.validates_between():
            return False
        return self.times.due(self.iteration, self.budget.elapsed(), self.done, self.budget.validation)

    def _validate(self) -> None:
        assert self.validator is not None
        scores = self.validator.measure(self._kept(), self.inferer, lambda: self._tell("validating"))
        self.dice = self.best.offer(scores, self.iteration, self._weights)
        assert self.best.history
        self.records.write(self.iteration, {"validation_dice": self.best.history[-1]["mean"]}, self.dice)
        if self.plan.best is not None and self.best.iteration == self.iteration:
            self._write(self.plan.best)
        self._measure_time()
        self.times.validated(self.budget.elapsed(), self.done)

    def _row(self, loss: float) -> dict[str, float]:
        rate = self.optimizer.param_groups[0]["lr"]
        return {"minutes": self.budget.elapsed() / 60.0, "loss": loss, "learning_rate": rate}

    def _kept(self) -> torch.nn.Module:
        """Return the network that is measured and written."""
        network = self.trained if self.average is None else self.average.module
        return network.network if isinstance(network, DeeplySupervised) else network

    def _weights(self) -> dict[str, torch.Tensor]:
        return {name: tensor.detach().to("cpu", copy=True) for name, tensor in self._kept().state_dict().items()}

    def _snapshot(self) -> dict[str, Any]:
        return {
            "iteration": self.iteration,
            "elapsed": self.budget.elapsed(),
            "done": self.done,
            "by_time": self.by_time,
            "loss": self.loss,
            "dice": self.dice,
            "best": vars(self.best),
            "network": self.trained.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "average": self.average.state_dict() if self.average is not None else None,
            "micro_batch": self.step.micro_batch,
        }

    def _resume(self) -> None:
        kept = self.state.read() if self.state is not None else None
        if self.state is not None and self.worker.leads:
            self.state.remove_parts()
        if kept is None:
            if self.plan.must_resume and self.state is not None:
                raise self.state.refused()
            return
        self.trained.load_state_dict(kept["network"])
        self.optimizer.load_state_dict(kept["optimizer"])
        if self.average is not None:
            self.average.load_state_dict(kept["average"])
        self.micro_batch = kept.get("micro_batch", self.micro_batch)
        self.iteration = self.resumed_from = kept["iteration"]
        self.budget.resume(kept["elapsed"])
        self.done, self.loss, self.by_time = kept["done"], kept["loss"], kept.get("by_time", kept["done"])
        self.dice, self.best = kept["dice"], BestWeights(**kept["best"])
        self.times.validated(self.budget.elapsed(), self.done)
        logger.info("training: resumed after iteration %d", self.iteration)

    def _tell(self, phase: str) -> None:
        device, budget = self.worker.device, self.budget
        left = budget.seconds_left(self.iteration, self.settings.iterations)
        if device.type == "cuda":
            memory = torch.cuda.max_memory_allocated(device)
        else:
            memory = psutil.Process().memory_info().rss
        draws = self.worker.size * self.settings.batch
        draws, cases = draws * (1 if self.settings.sampling == "paper" else self.settings.crops), len(self.cases)
        self.report(
            TrainProgress(
                phase=phase,
                iteration=self.iteration,
                iterations=self.settings.iterations,
                loss=self.loss,
                eta_seconds=(budget.tail_seconds() if self.plan.tail.cases else 0.0) if phase == "saving" else left,
                device=str(device),
                epoch=math.ceil(self.iteration * draws / cases),
                epochs=math.ceil(self.settings.iterations * draws / cases),
                validation=self.dice,
                best=self.best.mean,
                memory_mb=memory / 2**20,
                elapsed_seconds=budget.elapsed(),
                resumed_from=self.resumed_from,
                left_out=tuple(self.left_out),
                steps_expected=budget.steps_expected(self.iteration, self.settings.iterations),
                note=" ".join(filter(None, ((self.plan.resolution or {}).get("words"), self.memory))) or None,
                shortfall=self.shortfall,
            )
        )

    def finish(self) -> Checkpoint:
        """Validate the end, write the weights to keep, and clear the run's state."""
        history = self.best.history or []
        if self.validator is not None and (not history or history[-1]["iteration"] != self.iteration):
            if self.budget.validates_at_end():
                self._validate()
            else:
                self.shortfall = self._too_short()
                logger.warning("training: %s", self.shortfall)
        self._tell("saving")
        checkpoint = self._write(self.plan.output)
        if self.state is not None:
            self.state.remove()
        logger.info("wrote %s (%s)", self.plan.output, checkpoint.version)
        return checkpoint

    def _write(self, path: Path) -> Checkpoint:
        model = build_network(self.config)
        model.load_state_dict(self.best.weights or self._weights())
        checkpoint = Checkpoint(model.eval(), self.plan.task, self._info(model))
        save_checkpoint(path, checkpoint.model, checkpoint.task, checkpoint.info)
        return checkpoint

    def _too_short(self) -> str:
        words = f"max_minutes {self.settings.max_minutes:g} was too short to validate the last weights (about "
        kept = f"those of step {self.best.iteration} are kept, which were validated best"
        if self.best.weights is None:
            kept = "they are kept, and no accuracy is claimed by this training"
        return f"{words}{self.budget.validation:.0f} s): {kept}."

    def _info(self, model: Network) -> dict[str, Any]:
        return {
            **self.plan.facts(self.marks, self.left_out),
            "validation_measured": self.validator.cases if self.validator else [],
            "validation": self.best.dice,
            "validation_history": self.best.history or [],
            "iterations": self.iteration,
            "kept_iteration": self.best.iteration if self.best.weights else self.iteration,
            "resumed_from": self.resumed_from,
            "trained_in": self.inferer.precision,
            "stopped": self.stopped,
            "minutes": self.budget.elapsed() / 60.0,
            "step_seconds": self.budget.step_seconds(self.iteration),
            "shortfall": self.shortfall,
            "memory": self.memory,
            "loss": self.loss,
            "parameters": sum(p.numel() for p in model.parameters()),
        }
