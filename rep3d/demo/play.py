"""Plays a clinician against a real server: fetch, auto-segment, correct, submit, retrain, and measure what it brought.

Everything goes through the client that the Slicer module uses. The "correction" is the case's true label. What is
measured is measured on cases that the server's folder never held.
"""

from __future__ import annotations

import dataclasses
import json
import math
import platform
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import psutil
import requests

from rep3d.data.cases import Case, listed
from rep3d.data.cohort import Cohort
from rep3d.demo.checkout import import_client_path
from rep3d.demo.report import CasePicture, DemoReport, RoundResult, pick_cases, write_report
from rep3d.demo.server import ServerProcess
from rep3d.demo.voxels import as_nifti, as_voxels
from rep3d.errors import ConfigError, Rep3DError
from rep3d.evaluation.metrics import dice_of_files, mean_dice
from rep3d.files import write_text
from rep3d.imaging.nifti import join_channels
from rep3d.inference.device import processor_name
from rep3d.starter.facts import starter_words
from rep3d.starter.models import Starter

import_client_path()
from Rep3DLabelLib.client import Rep3DClient  # noqa: E402
from Rep3DLabelLib.client.answers_train import DONE, TrainStatus  # noqa: E402
from Rep3DLabelLib.errors import ConflictError  # noqa: E402

__all__ = ["DemoError", "DemoPlan", "Listener", "Player"]

_INFER_SECONDS = 600


class DemoError(Rep3DError):
    """The loop could not be played to its end, or did not improve."""


@dataclass(frozen=True)
class DemoPlan:
    """How much to play.

    Attributes:
        submit: labels submitted in all.
        rounds: trainings; the labels are spread over them evenly.
        iterations: optimizer steps of all trainings together; later rounds, which have more labels, get more.
        minutes: time budget of all trainings together, split likewise.
        strategy: how the server picks the next case.
        seed: of the trainings.
    """

    submit: int = 8
    rounds: int = 4
    iterations: int = 400
    minutes: float = 6.0
    strategy: str = "uncertainty"
    seed: int = 0

    def __post_init__(self) -> None:
        if not 1 <= self.rounds <= self.submit:
            raise ConfigError(
                f"rounds: expected from 1 to the number of submitted labels ({self.submit}), got {self.rounds}"
            )
        if self.iterations < self.rounds or not 0 < self.minutes < math.inf:
            raise ConfigError(
                f"expected at least one iteration a round and a positive time, got {self.iterations} and {self.minutes}"
            )

    def new_labels(self, round_: int) -> int:
        """Return labels submitted in a round, counted from 1."""
        return self.submit * round_ // self.rounds - self.submit * (round_ - 1) // self.rounds

    def share(self, round_: int) -> float:
        """Return the part of the iterations and minutes that a round may use: in proportion to the labels it has."""
        submitted = [self.submit * r // self.rounds for r in range(1, self.rounds + 1)]
        return submitted[round_ - 1] / sum(submitted)


class Listener:
    """Told what happens; the command line draws it. This one keeps silent."""

    def say(self, text: str) -> None:
        """Show the user a line."""

    def training(self, round_: int, status: TrainStatus) -> None:
        """Show how the training goes."""

    def measured(self, result: RoundResult) -> None:
        """Show a round that is over and was measured."""


class Player:
    """One demo.

    Args:
        cohort: the cases.
        plan: how much to play.
        folder: where everything is written; made anew, never overwritten.
        listener: told what happens.
        starter: the starter model that the server begins with; None for none.
    """

    def __init__(
        self,
        cohort: Cohort,
        plan: DemoPlan,
        folder: Path,
        listener: Listener | None = None,
        starter: Starter | None = None,
    ) -> None:
        if plan.submit > len(cohort.pool):
            raise ConfigError(
                f"There are too few cases: {plan.submit} are to be submitted, and {len(cohort.pool)} are there."
            )
        self.cohort = cohort
        self.plan = plan
        self.folder = folder
        self.studies = folder / "studies"
        self.listener = listener or Listener()
        self.starter = starter
        self.rounds: list[RoundResult] = []
        self._started = time.monotonic()

    def prepare(self) -> None:
        """Fill the studies folder as a clinic would: images and a dataset.json with the label names, no labels."""
        self.studies.mkdir(parents=True)
        for case in self.cohort.pool:
            # Under the case's name, which the file's may only begin with, as in nnU-Net's x_0000.nii.gz.
            image = self._one_file(case)
            suffix = ".nii.gz" if image.suffix.lower() == ".gz" else ".nii"
            shutil.copyfile(image, self.studies / f"{case.id}{suffix}")
        description = {"name": self.cohort.name, "labels": {str(v): n for n, v in self.cohort.labels.items()}}
        if names := self.cohort.channels or tuple(filter(None, [self.cohort.modality])):
            description["modality"] = {str(number): name for number, name in enumerate(names)}
        (self.studies / "dataset.json").write_text(json.dumps(description, indent=2), encoding="utf-8")

    def _one_file(self, case: Case) -> Path:
        """Return the file of an image as the server takes it: where each channel has one of its own, a 4D one."""
        if len(case.channels) == 1:
            return case.image
        joined = self.folder / "joined" / f"{case.id}.nii.gz"
        if not joined.exists():
            joined.parent.mkdir(parents=True, exist_ok=True)
            join_channels(case.channels, joined)
        return joined

    def play(self, server: ServerProcess) -> list[RoundResult]:
        """Play all rounds.

        Raises:
            DemoError: if a training fails, or the Dice of the last round is not above that of the first, where the
                server began with no model.
            ClientError: if the server refuses or dies.
        """
        client = Rep3DClient(server.url, client_id="demo")
        server.wait_until(client.is_alive)
        info = client.info()
        if dict(info.labels) != self.cohort.labels:
            raise DemoError(f"The server has other labels: expected {self.cohort.labels}, got {dict(info.labels)}.")
        self.listener.say(
            f"Server ready after {time.monotonic() - self._started:.0f} s at {server.url} ({info.device})"
        )
        before = {}
        if self.starter:
            self.listener.say(str(starter_words(self.starter.info)))
            before = {case.id: self._measure(client, case, 0) for case in self.cohort.held_out}
        self._record(RoundResult(0, 0, (), before, 0.0, info.published_version))
        pool = {case.id: case for case in self.cohort.pool}
        submitted = 0
        for round_ in range(1, self.plan.rounds + 1):
            new = tuple(self._annotate(client, pool) for _ in range(self.plan.new_labels(round_)))
            submitted += len(new)
            seconds, version = self._train(client, round_)
            dice = {case.id: self._measure(client, case, round_) for case in self.cohort.held_out}
            self._record(RoundResult(round_, submitted, new, dice, seconds, version))
        self._judge()
        return self.rounds

    def _record(self, result: RoundResult) -> None:
        self.rounds.append(result)
        self.listener.measured(result)

    def _annotate(self, client: Rep3DClient, pool: dict[str, Case]) -> str:
        """Next sample, auto-segment, correct, submit."""
        sample = client.next_sample(self.plan.strategy)
        work = self.folder / "annotation" / sample.id
        work.mkdir(parents=True)
        truth = pool[sample.id].label
        try:
            found = as_nifti(client.infer(sample.id, work).label, work / "auto.nii.gz")
            before = mean_dice({sample.id: dice_of_files(found, truth, self.cohort.labels)})
            self.listener.say(
                f"  {sample.id}: auto-segmented (Dice {before:.2f} before correction), corrected, submitted"
            )
        except ConflictError:
            self.listener.say(f"  {sample.id}: no model yet, drawn from nothing, submitted")
        client.submit_label(sample.id, as_voxels(truth, work / "truth.raw"))
        return sample.id

    def _train(self, client: Rep3DClient, round_: int) -> tuple[float, str | None]:
        share = self.plan.share(round_)
        settings = {
            "iterations": max(1, round(self.plan.iterations * share)),
            "max_minutes": self.plan.minutes * share,
            "seed": self.plan.seed + round_,
        }
        started = time.monotonic()
        client.train_start(settings=settings)
        tell: Callable[[TrainStatus], None] = lambda status: self.listener.training(round_, status)  # noqa: E731
        status = client.wait_for_training(poll_seconds=1.0, callback=tell)
        if status.state != DONE:
            log = "\n".join(status.log[-10:])
            raise DemoError(
                f"The training of round {round_} ended as {status.state!r}: {status.error or 'no reason given'}\n{log}"
            )
        return time.monotonic() - started, client.info().published_version

    def _measure(self, client: Rep3DClient, case: Case, round_: int) -> dict[str, float]:
        """Have the server segment an image that it does not keep, as other clients of MONAI Label do."""
        url, found = f"{client.url}/infer/{client.info().default_model}", self.prediction(case, round_)
        with self._one_file(case).open("rb") as image:
            answer = requests.post(url, params={"output": "image"}, files={"file": image}, timeout=_INFER_SECONDS)
        if not answer.ok:
            raise DemoError(f"the server did not segment {case.id}: {answer.text[:500]}")
        found.write_bytes(answer.content)
        return dice_of_files(found, case.label, self.cohort.labels)

    def prediction(self, case: Case, round_: int) -> Path:
        """Return where the prediction of a held-out case after a round is kept."""
        folder = self.folder / "predictions" / f"round_{round_}"
        folder.mkdir(parents=True, exist_ok=True)
        return folder / f"{case.id}.nii.gz"

    def _judge(self) -> None:
        if self.starter:  # it may be as good before as a few labels can make it
            return
        first, last = mean_dice(self.rounds[1].dice), mean_dice(self.rounds[-1].dice)
        if not last > (first if len(self.rounds) > 2 else 0.0):
            raise DemoError(
                f"The loop ran, but the model did not get better: "
                f"Dice on held-out cases is {first:.3f} after the first round and {last:.3f} after the last."
            )

    def write_report(self, path: Path) -> None:
        """Write report.html about the rounds played so far, and results.json beside it."""
        import torch

        last = self.rounds[-1]
        chosen = set(pick_cases(last.dice).values())
        pictures = [
            CasePicture(case.id, case.image, case.label, prediction=self.prediction(case, last.round))
            for case in self.cohort.held_out
            if case.id in chosen
        ]
        pool, held_out = len(self.cohort.pool), len(self.cohort.held_out)
        left_out = f"; left out: {listed(self.cohort.left_out)}" if self.cohort.left_out else ""
        memory = psutil.virtual_memory().total / 2**30
        facts = {
            "Data": f"{self.cohort.name}: {pool} images on the server, {held_out} held out{left_out}",
            "Began with": (starter_words(self.starter.info) if self.starter else None) or "no model",
            "Strategy": self.plan.strategy,
            "Trainings": f"{self.plan.iterations} iterations and {self.plan.minutes:g} minutes in all at most",
            "Seed": str(self.plan.seed),
            "Machine": f"{processor_name()}, {psutil.cpu_count()} cores, {memory:.0f} GiB",
            "Software": f"Python {platform.python_version()}, PyTorch {torch.__version__}",
            "Date": datetime.now(timezone.utc).strftime("%Y-%m-%d %H:%M UTC"),
            "Total time": f"{(time.monotonic() - self._started) / 60:.1f} minutes",
        }
        title = "Rep3D Label: what the loop brought"
        rounds = [_as_json({**dataclasses.asdict(r), "mean_dice": mean_dice(r.dice)}) for r in self.rounds]
        results = {"facts": facts, "labels": self.cohort.labels, "rounds": rounds}
        write_text(path.with_name("results.json"), json.dumps(results, indent=2, allow_nan=False) + "\n")
        write_report(
            path, DemoReport(title, self.cohort.name, self.cohort.labels, tuple(self.rounds), tuple(pictures), facts)
        )


def _as_json(value: Any) -> Any:
    """Return the same with None for NaN, which JSON has not."""
    if isinstance(value, dict):
        return {key: _as_json(item) for key, item in value.items()}
    return None if isinstance(value, float) and math.isnan(value) else value
