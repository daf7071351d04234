"""What is kept about one version of a model, as plain JSON beside its weights."""

from __future__ import annotations

import dataclasses
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from rep3d.errors import DamagedFileError, UnknownVersionError, VersionError
from rep3d.json_file import JsonFile, json_object
from rep3d.starter.facts import is_starter

__all__ = ["VersionRecord", "origin_of", "version_number"]

# What a record takes from its checkpoint as it is.
_SAID = ("created", "parent", "head", "preset", "iterations", "loss", "minutes", "stopped", "starter", "tuned")


def version_number(name: str) -> int | None:
    """``3`` for ``"v3"``; None for what is no version's name."""
    match = re.fullmatch(r"v([1-9]\d{0,8})", name)
    return int(match[1]) if match else None


def origin_of(info: Mapping[str, Any]) -> str:
    """Return where a checkpoint with these facts comes from, if it was not trained here."""
    return "starter" if is_starter(info) else "adopted"


@dataclass(frozen=True)
class VersionRecord:
    """One version of a model.

    Attributes:
        version: its name, ``"v3"``.
        created: ISO time, UTC.
        origin: ``"trained"`` here, ``"adopted"`` from a checkpoint that was put here, or ``"starter"``: the model that
            comes with the program.
        parent: the version that its training began from.
        run: id of the training that made it.
        cases: ids of the cases that it was trained on; of an adopted one, by all runs that led to it.
        validation_cases: ids of the cases that it was measured on.
        validation_kind: ``"held-out"`` or ``"training-only"``; None if never measured here.
        label_hashes: case id to SHA-256 of the label file that it was trained on.
        skipped: labelled cases that could not be used, with the reason.
        labels: label name to voxel value.
        head: what became of its parent's head, see :class:`rep3d.training.head.HeadChange`.
        scores: label name to mean Dice over the validation cases.
        case_scores: case id to label name to Dice.
        compared_with: the version that was published when this one was judged.
        compared: that version's ``case_scores`` on the same cases.
        decision: see :class:`rep3d.evaluation.gate.Decision`; None where nothing was decided.
        settings: of the training.
        preset: of the network.
        iterations: training steps.
        loss: training loss at the end.
        minutes: training time.
        speed: what its training took, and where, see :mod:`lib.training.pace` of the app; the next one plans with it.
        stopped: what ended the training: ``"iterations"``, ``"max_minutes"`` or ``"early stopping"``.
        starter: the starter model that it is or descends from, with data and licence, see :mod:`rep3d.starter.facts`;
            None where it is and does neither.
        tuned: a faster way of computing it, see :class:`rep3d.inference.tuned.Tuned`; None where none was measured.
        adopted_as: the name that an adopted checkpoint bore, if it was another one.
        deleted: when and by whom its weights were deleted; the record stays, as labels may name the version.
    """

    version: str = ""
    created: str | None = None
    origin: str = "trained"
    parent: str | None = None
    run: str | None = None
    cases: list[str] = field(default_factory=list)
    validation_cases: list[str] = field(default_factory=list)
    validation_kind: str | None = None
    label_hashes: dict[str, str] = field(default_factory=dict)
    skipped: dict[str, str] = field(default_factory=dict)
    labels: dict[str, int] = field(default_factory=dict)
    head: dict[str, Any] | None = None
    scores: dict[str, float] = field(default_factory=dict)
    case_scores: dict[str, dict[str, float]] = field(default_factory=dict)
    compared_with: str | None = None
    compared: dict[str, dict[str, float]] = field(default_factory=dict)
    decision: dict[str, Any] | None = None
    settings: dict[str, Any] = field(default_factory=dict)
    preset: str | None = None
    iterations: int | None = None
    loss: float | None = None
    minutes: float | None = None
    speed: dict[str, Any] = field(default_factory=dict)
    stopped: str | None = None
    starter: dict[str, Any] | None = None
    tuned: dict[str, Any] | None = None
    adopted_as: str | None = None
    deleted: dict[str, str] | None = None

    @property
    def measured(self) -> bool:
        """Whether it was measured on cases that it was not trained on."""
        return bool(self.scores)

    @property
    def mean_score(self) -> float | None:
        """Mean over the cases of each one's mean Dice; None where it was not measured."""
        means = [sum(case.values()) / len(case) for case in self.case_scores.values() if case]
        return sum(means) / len(means) if means else None

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        return dataclasses.asdict(self)

    def completed(self, name: str, labels: Mapping[str, int], info: Mapping[str, Any]) -> VersionRecord:
        """Return the record with a name, and with what a checkpoint of these labels says of itself."""
        cases = info.get("cases", [])
        if self.origin != "trained":  # runs before its last one left no record here: none of their cases may validate
            cases = sorted({*cases, *info.get("trained_on", [])})
        said: dict[str, Any] = {key: info.get(key) for key in _SAID}
        return dataclasses.replace(self, version=name, cases=[str(case) for case in cases], labels=dict(labels), **said)

    @classmethod
    def read(cls, path: Path) -> VersionRecord:
        """Return the record in a file; fields that a later release added are left out.

        Raises:
            UnknownVersionError: if there is no file.
            VersionError: if it is damaged.
        """
        if not path.is_file():
            raise UnknownVersionError(f"version {path.parent.name}: expected a record at {path}, found none")
        try:
            return cls.file(path).read()
        except DamagedFileError as error:
            raise VersionError(f"version {path.parent.name}: {error}") from error

    @classmethod
    def file(cls, path: Path) -> JsonFile[VersionRecord]:
        """Return the file of a record, ``versions/v3/version.json``."""

        def parse(content: Any) -> VersionRecord:
            kinds = {name: type(value) for name, value in dataclasses.asdict(cls()).items()}
            known = {key: value for key, value in json_object(content).items() if key in kinds}
            for key, value in known.items():
                if kinds[key] in (dict, list, str) and not isinstance(value, kinds[key]):
                    raise ValueError(f"{key}: expected a {kinds[key].__name__}, got {type(value).__name__}")
            record = cls(**known)
            if record.version != path.parent.name:
                raise ValueError(f"expected the record of {path.parent.name}, got that of {record.version!r}")
            return record

        lost = f"what is known about version {path.parent.name} besides its weights: scores and cases"
        return JsonFile(path, parse, lost, cls, begins_anew=False)

    def write(self, path: Path) -> None:
        """Write the file whole or not at all."""
        self.file(path).write(self.to_dict(), allow_nan=False)
