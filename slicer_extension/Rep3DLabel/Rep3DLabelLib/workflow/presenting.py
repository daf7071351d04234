"""From the server's answers to the rows and lines that are shown."""

from __future__ import annotations

from collections.abc import Iterable

from ..client.answers import ServerInfo
from ..client.answers_cases import Case, HistoryEntry
from ..client.answers_status import BatchStatus
from ..client.answers_train import TrainStatus
from ..client.answers_versions import Version
from ..i18n import tr
from ..images.files import LabelFile
from ..view import BatchView, CaseRow, HistoryRow, ModelView, TrainingView, VersionRow
from .context import local_time

__all__ = [
    "batch_view",
    "case_rows",
    "counts_by_value",
    "history_rows",
    "model_views",
    "training_view",
    "version_rows",
    "voxel_ml",
]


def model_views(info: ServerInfo) -> tuple[ModelView, ...]:
    """Return the models of a server."""
    return tuple(
        ModelView(model.name, model.description, model.version or "", model.error, model.trainable)
        for model in info.models.values()
    )


def training_view(status: TrainStatus) -> TrainingView:
    """Return what is shown of a training."""
    dice = dict(status.validation or {})
    return TrainingView(
        state=status.state,
        headline=_headline(status),
        progress=status.progress,
        eta_seconds=status.eta_seconds,
        loss=status.loss,
        dice=sum(dice.values()) / len(dice) if dice else None,
        dice_labels=dice,
        losses=status.losses,
        validations=status.validations,
        error=status.error,
        resumable=status.resumable,
        log=status.log,
        left_out=tuple(f"{case}: {reason}" for case, reason in status.left_out.items()),
        notes=status.notes,
    )


def _headline(status: TrainStatus) -> str:
    if status.state == "submitted":
        return tr("Waiting for its turn")
    if status.state == "running":
        step, steps = status.iteration, status.iterations
        where = tr("step {step} of {steps}").format(step=step, steps=steps) if step and steps else ""
        return ", ".join(part for part in (_phase(status.phase), where, status.device) if part)
    if status.state == "stopped":
        return tr("Stopped. It can be resumed.") if status.resumable else tr("Stopped.")
    if status.state == "error":
        return tr("Ended with an error.")
    if status.state != "done":
        return tr("Interrupted. It can be resumed.") if status.resumable else ""
    made = status.version_made
    head = tr("Done: version {version}.").format(version=made) if made else tr("Done.")
    return f"{head} {_sentence(status.reason)}".strip()


def _sentence(words: str) -> str:
    """Return the server's words with a capital and a full stop, as other sentences follow."""
    return words[:1].upper() + words[1:] + ("." if words and words[-1] not in ".!?" else "")


def _phase(word: str) -> str:
    """Return what a training does, in words; what is not known here is shown as the server says it."""
    words = {
        "starting": tr("Starting"),
        "preparing": tr("Preparing the cases"),
        "training": tr("Training"),
        "validating": tr("Measuring on the held-out cases"),
        "saving": tr("Saving"),
        "publishing": tr("Publishing"),
        "scoring": tr("Looking for the cases that would teach most"),
    }
    return words.get(word.lower(), word)


def version_rows(versions: Iterable[Version]) -> tuple[VersionRow, ...]:
    """Return the versions of a model, the latest first."""
    rows = [
        VersionRow(
            version=known.version,
            created=local_time(known.created),
            dice=known.mean_score,
            cases=known.cases,
            published=known.published,
            decision=known.reason,
            available=known.available,
            origin=known.origin,
        )
        for known in versions
    ]
    return tuple(reversed(rows))


def case_rows(cases: Iterable[Case]) -> tuple[CaseRow, ...]:
    """Return the cases of a server."""
    return tuple(
        CaseRow(
            id=case.id,
            state=case.state,
            author=case.author,
            time=local_time(case.time),
            score=case.score,
            dice=case.dice,
            lease=case.lease.user if case.lease else "",
            role=case.role,
            labels=", ".join(name if ml is None else f"{name} {ml:.2f} ml" for name, ml in (case.labels or {}).items()),
            has_label=case.state in ("submitted", "reviewed"),
            error=case.error,
            label_error=case.label_error,
        )
        for case in cases
    )


def history_rows(entries: Iterable[HistoryEntry]) -> tuple[HistoryRow, ...]:
    """Return the labels of a case, each as one line."""
    reasons = {
        "current": tr("present label"),
        "replaced": tr("replaced"),
        "removed": tr("removed"),
        "original": tr("as it was sent"),
        "unknown": tr("its record is damaged"),
    }
    rows = []
    for entry in entries:
        parts = [local_time(entry.time), entry.author, entry.tag, reasons.get(entry.reason, entry.reason)]
        restorable = bool(entry.entry) and entry.reason not in ("current", "original", "unknown")
        rows.append(HistoryRow(entry.entry or "", ", ".join(part for part in parts if part), restorable))
    return tuple(rows)


def batch_view(batch: BatchStatus) -> BatchView:
    """Return what is shown of a batch segmentation; its text is what the counts do not say."""
    if batch.phase == "never":
        return BatchView()
    texts = [tr("Segmenting {case}").format(case=batch.current)] if batch.current else []
    texts += [f"{case}: {why}" for case, why in list(batch.failed.items())[:1]]
    texts += [batch.error] if batch.error else []
    return BatchView(batch.phase, batch.done, batch.total, len(batch.failed), ", ".join(texts))


def counts_by_value(label: LabelFile) -> dict[int, int]:
    """Return how many voxels each value has."""
    return {value: label.counts.get(name, 0) for name, value in label.values.items()}


def voxel_ml(label: LabelFile) -> float:
    """Return the volume of a voxel in millilitres."""
    (a, b, c), (d, e, f), (g, h, i) = (row[:3] for row in label.ijk_to_ras[:3])
    return abs(a * (e * i - f * h) - b * (d * i - f * g) + c * (d * h - e * g)) / 1000.0
