"""Where the slices of a series lie: one even grid for all of them, or the reason why there is none.

Positions are written with few digits (0.625 mm as 0.6, 1.2, 1.9 ...) and scanners place slices a few hundredths of a
millimetre off; steps between neighbours then differ by a sixth, and nothing is wrong. So what counts is how far the
corners of each slice, as its file places them, lie from the best even grid through all of them (least squares):

    at most a tenth of the voxel's side in that direction; for sides below 1 mm 0.1 mm, and never more than a quarter.

0.1 mm, since a position rounded to 0.1 mm is up to 0.05 mm off, and the grid fitted to such positions as much again.
Where slices are few or thin, one that is missing could pass for that; so no step may be almost twice another.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from rep3d.errors import ImageError
from rep3d.imaging.dicom.files import DicomFile, check_slice

__all__ = ["Stack", "stack", "tolerance"]

_OVER_A_GAP = 1.75  # times the smallest step: more than rounding and wandering make of one
_LISTED = 5  # places that a message names


@dataclass(frozen=True)
class Stack:
    """Slices in order, and where they lie.

    Attributes:
        slices: the files, along their normal.
        affine: (4, 4) from column, row and slice indices to RAS mm; its axes are at right angles.
        step: from one slice to the next, in mm.
    """

    slices: tuple[DicomFile, ...]
    affine: np.ndarray
    step: float


def tolerance(side: float) -> float:
    """Return how far a voxel may lie from its place along a side of so many mm, in mm."""
    return min(max(0.1, 0.1 * side), 0.25 * side)


def stack(slices: Sequence[DicomFile]) -> Stack:
    """Put slices in order and find their grid.

    Args:
        slices: files that :func:`read_file` found usable, at least one.

    Raises:
        ImageError: if there is no even grid of parallel slices, with the places where it breaks.
    """
    for part in slices:
        check_slice(part)
    if len({part.shape for part in slices}) > 1:
        raise ImageError("it has slices of several sizes. Put each size into a folder of its own.")
    directions = np.array([_directions(part) for part in slices])  # (N, 2, 3)
    left, _, right = np.linalg.svd(directions.mean(axis=0), full_matrices=False)
    axes = left @ right  # the closest pair at right angles
    normal = np.cross(*axes)
    positions = np.array([part.numbers("ImagePositionPatient", 3) for part in slices])
    order = np.argsort(positions @ normal, kind="stable")
    slices, positions, directions = [slices[n] for n in order], positions[order], directions[order]
    spacings = np.array([part.numbers("PixelSpacing", 2) for part in slices])
    spacing = spacings.mean(axis=0)  # between rows, between columns
    step = _even_step(slices, positions @ normal)
    _refuse_interleaved(slices)
    origin = (positions - np.outer(np.arange(len(slices)), normal * step)).mean(axis=0)
    sides = np.array([spacing[1], spacing[0], step])
    frame = np.stack([*axes, normal], axis=1)  # columns: along the row, along the column, to the next slice
    off = _corners_off(slices, positions, directions, spacings, origin, frame * sides) @ frame  # (N, 4, 3) in mm
    _check_place(slices, positions, off, sides, frame)
    affine = np.eye(4)
    affine[:3, :3], affine[:3, 3] = frame * sides, origin
    affine[:2] *= -1  # DICOM counts to the left and to the back
    return Stack(tuple(slices), affine, step)


def _directions(part: DicomFile) -> np.ndarray:
    """(2, 3) unit vectors along a row and along a column."""
    values = np.reshape(part.text("ImageOrientationPatient").split("\\"), (2, 3)).astype(float)
    return values / np.linalg.norm(values, axis=1, keepdims=True)


def _fit(index: np.ndarray, along: np.ndarray) -> tuple[float, float]:
    """Return the step of the best even row of points, and how far the farthest lies from it."""
    step, begin = np.polyfit(index, along, 1)
    return float(step), float(np.abs(along - step * index - begin).max())


def _even_step(slices: Sequence[DicomFile], along: np.ndarray) -> float:
    """Return the distance of neighbouring slices in mm, of which ``along`` has the places in order."""
    if len(slices) == 1:
        thickness = slices[0].number("SliceThickness", 0)
        if thickness <= 0:
            raise ImageError("it is a single slice and does not say how thick it is. Leave it out.")
        return thickness
    index = np.arange(len(along), dtype=float)
    step, farthest = _fit(index, along)
    steps = np.diff(along)
    if step > 1e-3 and farthest <= tolerance(step) and steps.max() < _OVER_A_GAP * steps.min():
        return step
    _refuse_doubles(slices, along)
    _refuse_gaps(along)
    at = int(np.abs(steps - np.median(steps)).argmax())
    raise ImageError(
        f"it has slices at uneven distances, from {steps.min():.4g} to {steps.max():.4g} mm, such as between "
        f"{slices[at]} and {slices[at + 1]} at {along[at]:.4g} and {along[at + 1]:.4g} mm: up to {farthest:.3g} mm "
        f"from an even grid, where {tolerance(step):.3g} mm are allowed. Convert it to NIfTI first, with dcm2niix."
    )


def _refuse_doubles(slices: Sequence[DicomFile], along: np.ndarray) -> None:
    steps = np.diff(along)
    same = np.flatnonzero(steps < max(0.25 * float(np.median(steps)), 1e-3))
    if same.size:
        places = "; ".join(f"{slices[n]} and {slices[n + 1]} at {along[n]:.4g} mm" for n in same[:_LISTED])
        more = f" and {same.size - _LISTED} more" if same.size > _LISTED else ""
        raise ImageError(
            f"it has more than one slice at {same.size} positions: {places}{more}. Are there several time points or "
            f"echoes, or copies of files? Put each into a folder of its own."
        )


def _refuse_interleaved(slices: Sequence[DicomFile]) -> None:
    """Refuse slices whose numbers run 1, 1, 2, 2 ...: two patients without names may make one even stack by chance."""
    numbers = [part.text("InstanceNumber") for part in slices]
    times = numbers.count(numbers[0])
    if numbers[0] and 1 < times < len(numbers) and numbers == [one for one in numbers[::times] for _ in range(times)]:
        raise ImageError(
            f"its instance numbers are there {times} times each, from slice to slice: it is several series under one "
            f"UID. Put each into a folder of its own."
        )


def _refuse_gaps(along: np.ndarray) -> None:
    steps = np.diff(along)
    usual = float(np.sort(steps)[len(steps) // 4])  # of three slices, one step may be over a gap
    gaps = np.rint(steps / usual).astype(int) - 1
    step, farthest = _fit(np.concatenate([[0], np.cumsum(gaps + 1)]), along)
    if gaps.sum() > 0 and gaps.min() >= 0 and farthest <= tolerance(step):
        at = np.flatnonzero(gaps)
        places = ", ".join(f"{gaps[n]} between {along[n]:.4g} and {along[n + 1]:.4g} mm" for n in at[:_LISTED])
        more = f" and {at.size - _LISTED} more gaps" if at.size > _LISTED else ""
        raise ImageError(
            f"{gaps.sum()} of its slices are missing; there should be one every {step:.4g} mm: {places}{more}. "
            f"Export it again."
        )


def _corners_off(
    slices: Sequence[DicomFile],
    positions: np.ndarray,
    directions: np.ndarray,
    spacings: np.ndarray,
    origin: np.ndarray,
    steps: np.ndarray,
) -> np.ndarray:
    """Return by how much each slice's corners lie beside the grid, (N, 4, 3) mm in the patient's directions."""
    rows, columns = slices[0].shape
    corners = np.array([(0, 0), (columns - 1, 0), (0, rows - 1), (columns - 1, rows - 1)], dtype=float)
    own = directions * spacings[:, ::-1, None]  # (N, 2, 3) steps along a row and along a column
    stated = positions[:, None] + corners @ own
    numbers = np.arange(len(slices))[:, None, None]
    fitted = origin + corners @ steps.T[:2] + numbers * steps.T[2]
    return np.asarray(stated - fitted)


def _check_place(
    slices: Sequence[DicomFile], positions: np.ndarray, off: np.ndarray, sides: np.ndarray, frame: np.ndarray
) -> None:
    allowed = np.array([tolerance(side) for side in sides])
    if (np.abs(off) <= allowed + 1e-6).all():
        return
    at, corner, axis = (int(n) for n in np.unravel_index((np.abs(off) / allowed).argmax(), off.shape))
    place = f"{slices[at]} lies {abs(off[at, corner, axis]):.3g} mm beside, where {allowed[axis]:.3g} mm are allowed"
    first = off[:, 0]  # of the corners that the positions are those of
    spread = off - first[:, None]
    if (np.abs(spread) > allowed + 1e-6).any():
        raise ImageError(
            f"it has slices that are not parallel, or pixels of several sizes: {place}. Is it a localizer? "
            f"Leave it out."
        )
    across = positions @ frame
    drift = np.polyfit(across[:, 2], across[:, :2], 1)[0] if len(slices) > 1 else np.zeros(2)
    straight = first[:, :2] - np.outer(across[:, 2] - across[:, 2].mean(), drift)
    if (np.abs(straight) <= allowed[:2] + 1e-6).all():
        angle = np.degrees(np.arctan(np.linalg.norm(drift)))
        raise ImageError(
            f"it is tilted by {angle:.2g} degrees: its slices do not lie straight above each other (gantry tilt). "
            f"Convert it to NIfTI first, with dcm2niix, which can straighten it."
        )
    raise ImageError(f"its slices do not lie above each other: {place}. Export it again.")
