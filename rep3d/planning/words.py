"""What a plan says, as rows of text: the terminal's tables and the page say the same."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from rep3d.planning.fingerprint import Range
from rep3d.tasks.config import Intensity

if TYPE_CHECKING:
    from rep3d.planning.plan import Plan

__all__ = ["LABEL_HEAD", "along", "counted", "image_rows", "label_rows", "proposal_rows", "ranged"]

LABEL_HEAD = ("Label", "Value", "Cases", "Share", "Volume in ml", "Thickness in mm")


def number(value: float) -> str:
    """Return a number with as many places as people read: three figures, whole from 100 on."""
    return f"{value:.0f}" if abs(value) >= 100 else f"{value:.3g}"


def ranged(of: Range | None) -> str:
    """Return the median of some numbers, and in brackets the lowest and the highest where they differ."""
    if of is None:
        return "-"
    low, median, high = map(number, (of.low, of.median, of.high))
    return median if low == high else f"{median} ({low} to {high})"


def along(sides: Iterable[float]) -> str:
    """Return three lengths."""
    return " x ".join(number(side) for side in sides)


def counted(made: Plan) -> str:
    """Return how many cases there are, and how many of them can be used, in words."""
    out = len({defect.entry.id for defect in made.seen.defects if not defect.used})
    words = f"{made.seen.found} cases found, {made.measured.cases} can be trained on"
    return words + (f", {out} left out" if out else "")


def image_rows(made: Plan) -> list[tuple[str, str]]:
    """Return what was measured of the images, as what and how much."""
    found = made.measured
    axes = zip(("right to left", "front to back", "foot to head"), found.shape, found.spacing, strict=True)
    turned = ", ".join(f"{codes} ({count})" for codes, count in found.orientations.items())
    rows = [(f"Voxels, {name}", f"{ranged(shape)} of {ranged(spacing)} mm") for name, shape, spacing in axes]
    first, *others = found.channels
    several = made.proposal.file.task.channels
    return [
        *rows,
        ("Axes run to", turned),
        ("Intensities, all voxels", f"{number(found.intensity.low)} to {number(found.intensity.high)}"),
        (
            "Intensities, labelled voxels",
            f"{_inside(first)}; mean {number(found.mean)}, standard deviation {number(found.sd)}",
        ),
        *((f"The same, {channel.name}", _inside(one)) for channel, one in zip(several[1:], others, strict=True)),
        ("Modality", made.modality or "not said"),
    ]


def _inside(of: Range) -> str:
    return f"median {number(of.median)}, 99 % from {number(of.low)} to {number(of.high)}"


def label_rows(made: Plan) -> list[tuple[str, ...]]:
    """Return what was measured of each label, under :data:`LABEL_HEAD`."""
    rows: list[tuple[str, ...]] = []
    for name, one in made.measured.labels.items():
        share = f"{100 * one.share:.2g} %" if one.cases else "-"
        cases = f"{one.cases} of {made.measured.cases}"
        rows.append((name, str(one.value), cases, share, ranged(one.volume), ranged(one.thickness)))
    return rows


def _scaled(scale: Intensity) -> str:
    unit = "" if scale.mode == "window" else " percentiles"
    return f"{scale.mode} {scale.low:g} to {scale.high:g}{unit}"


def proposal_rows(made: Plan) -> list[tuple[str, str, str]]:
    """Return what is proposed, as what, how much and why."""
    task, training, why = made.proposal.file.task, made.proposal.file.training, made.proposal.reasons
    values: Sequence[tuple[str, str | None]] = (
        ("name", task.name if "name" in why else None),
        ("spacing", f"{' x '.join(f'{side:g}' for side in task.spacing)} mm"),
        ("intensity", ", ".join(map(_scaled, task.intensities))),
        ("roi_size", " x ".join(map(str, task.roi_size))),
        ("preset", training.preset),
        ("resolution", training.resolution),
        ("empty_labels", training.empty_labels),
    )
    return [(name, value, why[name]) for name, value in values if value is not None]
