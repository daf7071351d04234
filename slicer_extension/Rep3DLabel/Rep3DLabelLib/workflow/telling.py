"""From the server's dictionaries to the rows and lines that are shown."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any

from ..i18n import tr
from ..view import BatchView, CaseRow, ModelView, TrainingView, VersionRow
from .desk import local_time

__all__ = [
    "batch_view",
    "case_rows",
    "counts_by_value",
    "mapping",
    "model_views",
    "number",
    "training_view",
    "version_rows",
    "voxel_ml",
]


def model_views(info: Mapping[str, Any]) -> tuple[ModelView, ...]:
    """Return the models of a server, as the op `test` gives them."""
    return tuple(
        ModelView(
            name=name,
            description=_text(model.get("description")),
            version=_text(model.get("version")),
            error=_text(model.get("error")),
            labels=dict(model.get("labels") or {}),
            trainable=bool(model.get("trainable", True)),
        )
        for name, model in info.get("models", {}).items()
    )


def training_view(status: Mapping[str, Any]) -> TrainingView:
    """Return what is shown of a training, as the op `train_status` gives it."""
    state = _text(status.get("state")) or "idle"
    dice = {name: value for name, value in (status.get("validation") or {}).items() if number(value) is not None}
    mean = sum(dice.values()) / len(dice) if dice else None
    return TrainingView(
        state=state,
        headline=_headline(state, status),
        progress=float(status.get("progress") or 0.0),
        eta_seconds=number(status.get("eta_seconds")),
        loss=number(status.get("loss")),
        dice=mean,
        dice_labels=dice,
        losses=_points(status.get("losses")),
        validations=_points(status.get("validations")),
        error=_text(status.get("error")),
        resumable=bool(status.get("resumable")),
        log=tuple(status.get("log") or ()),
    )


def _headline(state: str, status: Mapping[str, Any]) -> str:
    if state == "submitted":
        return tr("Waiting for its turn")
    if state == "running":
        step, steps = status.get("iteration"), status.get("iterations")
        where = tr("step {step} of {steps}").format(step=step, steps=steps) if step and steps else ""
        return ", ".join(part for part in (_text(status.get("phase")), where, _text(status.get("device"))) if part)
    if state == "stopped":
        return tr("Stopped. It can be resumed.") if status.get("resumable") else tr("Stopped.")
    if state == "error":
        return tr("Ended with an error.")
    if state != "done":
        return ""
    made, decision = _text(status.get("version_made")), status.get("decision")
    reason = _text(decision.get("reason")) if isinstance(decision, Mapping) else _text(decision)
    head = tr("Done: version {version}.").format(version=made) if made else tr("Done.")
    return f"{head} {reason}".strip()


def version_rows(answer: Mapping[str, Any]) -> tuple[VersionRow, ...]:
    """Return the versions of a model, the latest first, from the server's list."""
    rows = []
    for record in answer.get("versions", ()):
        decision, cases = record.get("decision"), record.get("cases")
        words = _text(decision.get("reason")) if isinstance(decision, Mapping) else _text(decision)
        rows.append(
            VersionRow(
                version=_text(record.get("version")),
                created=local_time(_text(record.get("created"))),
                dice=number(record.get("mean_score")),
                cases=len(cases) if isinstance(cases, (list, Mapping)) else 0,
                published=bool(record.get("published")),
                decision=words,
                available=record.get("bytes") not in (None, 0) and not record.get("deleted"),
                origin=_text(record.get("kind") or record.get("origin")),
            )
        )
    return tuple(reversed(rows))


def case_rows(cases: Sequence[Mapping[str, Any]]) -> tuple[CaseRow, ...]:
    """Return the cases of a server, from its list."""
    rows = []
    for case in cases:
        lease, labels = mapping(case.get("lease")), mapping(case.get("labels"))
        dice = mapping(case.get("prediction")).get("dice")
        if isinstance(dice, Mapping):
            values = [value for value in map(number, dice.values()) if value is not None]
            dice = sum(values) / len(values) if values else None
        volumes = [
            f"{name} {facts['ml']:.2f} ml"
            if number(facts.get("ml")) is not None
            else f"{name} {_text(facts.get('voxels'))}"
            for name, facts in ((name, mapping(known)) for name, known in labels.items())
        ]
        rows.append(
            CaseRow(
                id=_text(case.get("id")),
                state=_text(case.get("state")),
                author=_text(case.get("author")),
                time=local_time(_text(case.get("time"))),
                score=number(case.get("score")),
                dice=number(dice),
                lease=_text(lease.get("user")),
                role=_text(case.get("role")),
                labels=", ".join(volumes),
                has_label=case.get("state") in ("submitted", "reviewed"),
            )
        )
    return tuple(rows)


def batch_view(state: Mapping[str, Any]) -> BatchView:
    """Return what is shown of a batch segmentation; its text is what the counts do not say."""
    phase = _text(state.get("phase"))
    done, total = int(state.get("done") or 0), int(state.get("total") or 0)
    failed = state.get("failed") or {}
    if phase in ("", "never"):
        return BatchView()
    texts = [tr("Segmenting {case}").format(case=state["current"])] if state.get("current") else []
    if failed:
        first = next(iter(failed.items())) if isinstance(failed, Mapping) else ("", failed[0])
        texts.append(": ".join(map(_text, first)))
    if state.get("error"):
        texts.append(_text(state["error"]))
    return BatchView(phase, done, total, len(failed), ", ".join(texts))


def counts_by_value(label: Mapping[str, Any]) -> dict[int, int]:
    """Return how many voxels each value has, from a label as the worker gives it."""
    return {int(value): int(label["counts"].get(name, 0)) for name, value in label["values"].items()}


def voxel_ml(ijk_to_ras: Sequence[Sequence[float]]) -> float:
    """Return the volume of a voxel in millilitres, from the 4x4 matrix of its grid in mm."""
    (a, b, c), (d, e, f), (g, h, i) = (row[:3] for row in ijk_to_ras[:3])
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) / 1000.0


def _points(value: Any) -> tuple[tuple[float, float], ...]:
    points = []
    for point in value if isinstance(value, (list, tuple)) else ():
        if len(point) == 2 and None not in (number(point[0]), number(point[1])):
            points.append((float(point[0]), float(point[1])))
    return tuple(points)


def number(value: Any) -> float | None:
    """Return a finite number, None if it is something else."""
    if isinstance(value, bool) or not isinstance(value, (int, float)) or not math.isfinite(value):
        return None
    return float(value)


def mapping(value: Any) -> Mapping[str, Any]:
    """Return a dictionary, an empty one if it is something else."""
    return value if isinstance(value, Mapping) else {}


def _text(value: Any) -> str:
    return "" if value is None else str(value)
