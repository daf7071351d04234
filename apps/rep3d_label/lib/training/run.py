"""One training in its own process: from labels to a version, published or not.

What a run needs to be resumed after a kill is in the model's folder ``run`` until the run has ended well: what is
trained on and how (``run.json``), the snapshots of the training (``state``), the trained model (``trained.pt``).
"""

from __future__ import annotations

import dataclasses
import logging
import shutil
import time
import uuid
from collections.abc import Mapping, Sequence
from typing import Any

from lib.active.scoring import score_unlabelled
from lib.models.audit import note_run
from lib.models.served import ServedModel
from lib.paths import utc_now
from lib.storage.datastore import Rep3DDatastore
from lib.training.cases import LabelledCases, case_weights, check_split, find_cases, split_cases
from lib.training.pace import earlier_trainings, known_tail, speed_of, what_tells_speed
from lib.training.request import TrainRequest
from lib.training.resumption import changes_since, resumable_run, run_file
from lib.training.scores import VersionScores, identity_of
from lib.training.status import TrainStatus
from lib.training.tuning import tune_version
from rep3d.checkpoint import Checkpoint, load_checkpoint
from rep3d.data.cases import LeftOut
from rep3d.errors import TrainingError, VersionError
from rep3d.evaluation.gate import Decision, decide, label_means, unmeasured
from rep3d.evaluation.roles import Split
from rep3d.files import file_hash
from rep3d.training.head import with_labels
from rep3d.training.minutes.budget import forecast
from rep3d.training.preparing import each_case
from rep3d.training.train import TrainProgress, train
from rep3d.versions.record import VersionRecord

__all__ = ["TrainRun"]

logger = logging.getLogger(__name__)

_LATE = 0.03  # of the minutes, by which measuring on a held-out case may end late
_TUNING = 0.1  # of the minutes, as long as finding a faster way may take after the publication


class TrainRun:
    """A training under way.

    Args:
        served: the model.
        request: what was asked for.
        datastore: images and labels.
        status: where progress is told.
        before: what the status said before this run.
        began: when its minutes began to count, in ``time.monotonic()``'s seconds.
    """

    def __init__(
        self,
        served: ServedModel,
        request: TrainRequest,
        datastore: Rep3DDatastore,
        status: TrainStatus,
        before: Mapping[str, Any],
        began: float,
    ) -> None:
        self._served = served
        self._setup = served.setup
        self._request = request
        self._datastore = datastore
        self._status = status
        self._before = before
        self._began = began
        self._ends: float | None = None  # when the minutes are used up, those before an interruption counted
        self._trained_at = began
        self._folder = served.setup.workspace.run
        self._skipped: dict[str, str] = {}  # labelled cases that are not used, with the reason
        self._scores = VersionScores(
            served.setup.workspace.validation_scores, served.setup.labels, request.settings.device
        )

    def __call__(self) -> dict[str, Any]:
        """Train, measure, decide, publish, score.

        Returns:
            The version made, what was decided, and the cases.
        """
        if self._request.resume is True:
            self._ask_again()
        start, record = self._start()
        found = find_cases(self._setup, self._datastore)
        self._skipped.update(found.skipped)
        split = split_cases(self._setup, self._served.versions, found)
        run, split = self._resumed_or_new(start, split, found)
        self._status.update(
            {
                "phase": "preparing",
                "cases": len(split.training),
                "validation_cases": len(split.validation),
                "validation_kind": split.kind,
                "found": len(found.cases) + len(found.skipped),
                "skipped": self._skipped,
                "version": start.version if start else None,
                "iterations": self._request.settings.iterations,
            }
        )
        check_split(split, found)
        made = self._made_by(run["id"])
        if made is None:
            trained = self._trained(run, start, record, split, found)
            made = self._judge_and_keep(run, trained, split, found)
        made = self._publish(made)
        self._keep_speed(made)
        # Before the scoring, which may be stopped: what was decided must not be done again after a roll-back.
        shutil.rmtree(self._folder, ignore_errors=True)
        self._status.update({"phase": "scoring", "eta_seconds": None})
        if (made.decision or {}).get("published"):
            measured = [found.cases[id_] for id_ in made.validation_cases if id_ in found.cases]
            may_take = _TUNING * 60.0 * self._request.settings.max_minutes
            tune_version(self._served, made.version, measured, self._scores.case_seconds, may_take)
        self._score()
        self._status.update({"phase": "done", "eta_seconds": 0.0})
        note_run(self._served, "training", "training ended", version=made.version)
        return {
            "version": made.version,
            "decision": made.decision,
            "cases": len(made.cases),
            "validation_cases": len(made.validation_cases),
            "skipped": self._skipped,
        }

    def _skip(self, left_out: Sequence[Mapping[str, str]]) -> None:
        self._skipped.update({entry["id"]: entry["reason"] for entry in left_out})

    def _start(self) -> tuple[Checkpoint | None, VersionRecord | None]:
        """Return the published version, made ready for this server's labels, and its record."""
        versions = self._served.versions
        versions.adopt()
        name = versions.published()
        if name is None:
            return None, None
        start, change = with_labels(
            load_checkpoint(versions.checkpoint(name)), self._setup.labels, self._request.settings.seed
        )
        if change.changed:
            logger.warning("training: %s", change.message)
            self._status.update({"head": change.message})
        return start, versions.get(name)

    def _ask_again(self) -> None:
        """Ask for what the interrupted run was asked for; a head that begins anew depends on its seed."""
        aside = self._setup.workspace.run_set_aside
        if resumable_run(self._folder) is None and resumable_run(aside) is not None:
            shutil.rmtree(self._folder, ignore_errors=True)
            aside.rename(self._folder)
        known = resumable_run(self._folder)
        if known is None:
            raise TrainingError("There is no stopped or interrupted training to resume.")
        self._request = dataclasses.replace(TrainRequest.from_dict(known["request"]), resume=True)

    def _resumed_or_new(
        self, start: Checkpoint | None, split: Split, found: LabelledCases
    ) -> tuple[Mapping[str, Any], Split]:
        """Take up the run that was interrupted, or begin one."""
        known = resumable_run(self._folder)
        if self._request.resume is True and known is not None:
            split = Split(tuple(known["training"]), tuple(known["validation"]))
        plan: dict[str, Any] = {
            "request": self._request.to_dict(),
            "training": list(split.training),
            "validation": list(split.validation),
            "hashes": {id_: found.hashes.get(id_) for id_ in (*split.training, *split.validation)},
            "start": start.version if start else None,
            "labels": dict(self._setup.labels),
        }
        if known is not None and self._request.resume is not False:
            refusal = changes_since(known, plan)
            if refusal is None:
                return known, split
            if self._request.resume is True:
                raise TrainingError(refusal)
            self._set_aside(known)
        shutil.rmtree(self._folder, ignore_errors=True)
        self._folder.mkdir(parents=True)
        run = {"id": uuid.uuid4().hex, "started": utc_now(), **plan}
        run_file(self._folder).write(run)
        return run, split

    def _set_aside(self, known: Mapping[str, Any]) -> None:
        """Make room for another training without deleting what could still be resumed, and say so."""
        aside = self._setup.workspace.run_set_aside
        earlier = resumable_run(aside)
        shutil.rmtree(aside, ignore_errors=True)
        self._folder.rename(aside)
        words = (
            f"The interrupted training of {known['started']} on {len(known['training'])} cases was set aside for this "
            f"one. It can be resumed (resume: true) until another version is published."
        )
        if earlier is not None:
            words += f" The one of {earlier['started']}, which had been set aside before, was discarded."
        logger.warning("%s", words)
        self._status.update({"set_aside": words})

    def _made_by(self, run: str) -> VersionRecord | None:
        """Return the version that this run made before it was interrupted."""
        return next((record for record in self._served.versions.list() if record.run == run), None)

    def _trained(
        self,
        run: Mapping[str, Any],
        start: Checkpoint | None,
        record: VersionRecord | None,
        split: Split,
        found: LabelledCases,
    ) -> Checkpoint:
        output = self._folder / "trained.pt"
        if output.exists():  # the run was interrupted after its training
            self._status.update({"phase": "validating"})
            return load_checkpoint(output)
        training = [found.cases[id_] for id_ in split.training]
        validation = [found.cases[id_] for id_ in split.validation]
        settings = self._request.settings
        task = self._setup.task_for([case.channels for case in training], start.task if start else None)
        encoder = load_checkpoint(self._setup.start_from) if self._setup.start_from and not start else None
        records = self._served.versions.records()
        earlier = earlier_trainings(records)
        self._status.update({"earlier": earlier})
        rival = [] if record is None else self._scores.missing(identity_of(record), validation, found.hashes)
        tail = known_tail(records, what_tells_speed(settings, task), len(validation) + len(rival))
        self._scores.case_seconds = tail.case_seconds
        taken_up = False

        def on_progress(progress: TrainProgress) -> None:
            nonlocal taken_up
            if progress.resumed_from is not None and not taken_up:
                self._status.take_up(self._before, progress.resumed_from)
                taken_up = True
            self._ends = time.monotonic() + 60.0 * settings.max_minutes - progress.elapsed_seconds
            facts = dataclasses.asdict(progress)
            facts["resolution"] = facts.pop("note")
            facts["forecast"] = forecast(progress.steps_expected, settings.iterations, settings.max_minutes, earlier)
            self._skip(facts.pop("left_out"))
            used = sum(id_ not in self._skipped for id_ in split.training)
            self._status.progress({**facts, "skipped": self._skipped, "cases": used})

        trained = train(
            training,
            task,
            settings,
            output,
            start,
            on_progress,
            encoder=encoder,
            validation=validation,
            weights=case_weights(record, split, found),
            state=self._folder / "state",
            must_resume=self._request.resume is True,
            other_values=self._setup.other_values,
            left_out=[LeftOut(id_, id_, reason) for id_, reason in found.skipped.items()],
            prepared=self._setup.workspace.prepared,
            began=self._began,
            tail=tail,
        )
        self._trained_at = time.monotonic()
        logger.info("trained %s on %d cases", run["id"], len(training))
        return trained

    def _judge_and_keep(
        self, run: Mapping[str, Any], trained: Checkpoint, split: Split, found: LabelledCases
    ) -> VersionRecord:
        """Measure a new model and the published one, decide, and keep the model as a version."""
        self._status.update({"phase": "validating", "eta_seconds": None})
        versions = self._served.versions
        self._skip(trained.info.get("left_out", []))
        trained = Checkpoint(trained.model, trained.task, {**trained.info, "run": run["id"]})
        # As they are now: a label may have been corrected or removed while the training ran, and both versions must be
        # measured on the same one.
        there = [found.cases[id_] for id_ in split.validation if found.cases[id_].label.is_file()]
        left_out: list[LeftOut] = []
        hashed = each_case(there, lambda case: file_hash(case.label), left_out)
        self._skip([entry.to_dict() for entry in left_out])
        validation, hashes = [case for case, _ in hashed], {case.id: known for case, known in hashed}
        self._scores.know(run["id"], trained.info.get("stages", {}).get("scores", {}), run["hashes"], hashes)
        rival = versions.published()
        record = None if rival is None else versions.get(rival)
        scores, compared = self._scores.compare(
            (run["id"], lambda: trained),
            None
            if record is None
            else (identity_of(record), lambda: load_checkpoint(versions.checkpoint(record.version))),
            validation,
            hashes,
            lambda new, done, todo: self._status.update(
                {"measuring": "new version" if new else rival, "measured": done, "to_measure": todo}
            ),
            self._ends_at(),
        )
        self._tell_shortfall(trained, len(validation))
        self._skipped.update(self._scores.left_out)
        self._status.update({"skipped": self._skipped})
        decision = self._decide(rival, scores, compared, len(found.cases))
        added = versions.add(
            trained,
            VersionRecord(
                run=run["id"],
                validation_cases=list(scores),
                validation_kind=split.kind,
                label_hashes={id_: found.hashes[id_] for id_ in trained.info["cases"]},
                skipped=dict(self._skipped),
                scores=dict(sorted(label_means(scores).items())),
                case_scores=scores,
                compared_with=rival,
                compared=compared,
                decision=decision.to_dict(),
                settings=self._request.to_dict()["settings"],
                speed=speed_of(
                    what_tells_speed(self._request.settings, trained.task),
                    step_seconds=trained.info.get("step_seconds"),
                    case_seconds=self._scores.case_seconds,
                ),
            ),
        )
        logger.info("made %s: %s", added.version, decision.reason)
        return added

    def _ends_at(self) -> float:
        """Return by when the last held-out case must be measured, in monotonic seconds."""
        budget = 60.0 * self._request.settings.max_minutes
        return (self._began + budget if self._ends is None else self._ends) + _LATE * budget

    def _tell_shortfall(self, trained: Checkpoint, cases: int) -> None:
        """Say what the minutes were too short for."""
        words = [trained.info["shortfall"]] if trained.info.get("shortfall") else []
        if late := len(self._scores.out_of_time):
            words.append(
                f"max_minutes {self._request.settings.max_minutes:g} was too short to measure on all {cases} held-out "
                f"cases: {late} of them were left out this time. Allow more for a steadier comparison."
            )
            logger.warning("training: %s", words[-1])
        self._status.update({"shortfall": " ".join(words) or None})

    def _keep_speed(self, made: VersionRecord) -> None:
        """Keep what saving and publishing took, for the next training to plan with."""
        if self._ends is not None:
            spent = max(0.0, time.monotonic() - self._trained_at - self._scores.seconds)
            self._served.versions.amend(made.version, speed={**made.speed, "other_seconds": spent})

    def _decide(
        self,
        rival: str | None,
        scores: Mapping[str, Mapping[str, float]],
        compared: Mapping[str, Mapping[str, float]],
        labelled: int,
    ) -> Decision:
        both = {id_: case for id_, case in scores.items() if rival is None or id_ in compared}
        if not both and (not scores or self._scores.out_of_time):
            measured_before = rival is not None and self._served.versions.get(rival).measured
            return unmeasured(labelled, measured_before, bool(self._scores.out_of_time))
        return decide(both, compared if rival else None, self._setup.conf.publish_margin)

    def _publish(self, made: VersionRecord) -> VersionRecord:
        """Publish a version if that was decided, in place of the one that it was compared with."""
        versions = self._served.versions
        decision = dict(made.decision or {})
        self._status.update({"phase": "publishing", "version_made": made.version, "decision": decision})
        if decision.get("published"):
            try:
                versions.publish(made.version, "training", decision["reason"], instead_of=made.compared_with)
                logger.info("published %s", made.version)
                note_run(self._served, "training", "publish", version=made.version, reason=decision["reason"])
                shutil.rmtree(self._setup.workspace.run_set_aside, ignore_errors=True)  # it began from another version
            except VersionError:
                now = versions.published()
                decision.update(published=False, reason=f"kept: {now} was published while this one was being measured")
                made = versions.amend(made.version, decision=decision)
                logger.warning("%s %s", made.version, decision["reason"])
        self._status.update({"version": versions.published(), "decision": decision})
        return made

    def _score(self) -> None:
        if not self._request.score_minutes:
            return
        try:
            score_unlabelled(
                self._datastore,
                self._served.published,
                self._setup.workspace,
                60.0 * self._request.score_minutes,
                lambda done, todo: self._status.update({"scored": done, "to_score": todo}),
            )
        except Exception as error:  # the version is made, whatever becomes of the scores: a GPU may be full by now
            logger.warning("scoring: %s: %s", type(error).__name__, error)
