"""Seeded phantom volumes: MR-like 3D images with a two-part organ, so that anyone can try the product without data.

Each case shows one curved organ with a thick Head and a thinner Tail among things of the very same brightness that are
not the organ: balls, straight rods, thin bent tubes and a layer of tissue around it all. Brightness alone therefore
finds nothing; calibre, bend and place in the body do. The scanner is imitated too: partial volume, a bias field, Rician
noise, and contrast, spacing and orientation that differ between cases (some affines are oblique, some left-handed).

Everything anatomical is defined in world millimetres (RAS+) and sampled last on the case's own grid, hence an error in
how a program handles spacing or orientation shows up as a wrong organ. A case depends only on its seed and its index.
"""

from __future__ import annotations

import gzip
import json
import re
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import nibabel as nib
import numpy as np

from rep3d.data.cases import Case
from rep3d.errors import ConfigError

__all__ = ["LABELS", "generate_cohort"]

LABELS = {"Head": 1, "Tail": 2}

_MAX_SIDE = 56  # voxels; two CPU cores must be able to train on a cohort within minutes
_MAX_VOXEL_ML = 3.4e-3  # coarser voxels would leave too few of them in the Tail

# How the array axes lie in the patient and how far the grid is turned away from the body axes, case after case.
_SCANS = (("RAS", False), ("LAS", False), ("RAS", True), ("LPS", False), ("PIR", False), ("RSA", True))
_AXIS = {"R": (1, 0, 0), "L": (-1, 0, 0), "A": (0, 1, 0), "P": (0, -1, 0), "S": (0, 0, 1), "I": (0, 0, -1)}

# Brightness of the tissues before contrast, bias and noise. Organ, look-alikes and wall share one value on purpose.
_PARENCHYMA, _FLUID, _FAT, _OUTSIDE = 0.46, 0.22, 0.95, 0.33


@dataclass(frozen=True)
class _Tube:
    """A solid around a polyline: ``centre`` (P, 3) in mm and ``radius`` (P,) in mm. One point makes a ball."""

    centre: np.ndarray
    radius: np.ndarray

    def moved(self, offset: np.ndarray) -> _Tube:
        return _Tube(self.centre + offset, self.radius)


def generate_cohort(folder: Path | str, count: int, seed: int = 0, prefix: str = "phantom") -> list[Case]:
    """Write ``count`` phantom cases in decathlon layout (``imagesTr``, ``labelsTr``, ``dataset.json``).

    The same arguments give the same files byte for byte, and the first cases of a large cohort equal those of a small
    one. Files of the same names are overwritten.

    Args:
        folder: where to write; made if missing.
        count: how many cases, at least 1. Three or more include an oblique and a left-handed one.
        seed: not negative; another seed gives other patients.
        prefix: how the case ids begin, of letters, digits, ``-`` and ``_``.

    Returns:
        The cases in order of their ids.

    Raises:
        ConfigError: a count, seed or prefix that cannot be used.
    """
    if count < 1:
        raise ConfigError(f"A cohort needs at least 1 case, got {count}.")
    if seed < 0:
        raise ConfigError(f"The seed must be 0 or more, got {seed}.")
    if not re.fullmatch(r"[A-Za-z0-9_-]+", prefix):
        raise ConfigError(f"The prefix becomes part of file names: use letters, digits, '-' and '_', got {prefix!r}.")
    folder = Path(folder)
    images, labels = folder / "imagesTr", folder / "labelsTr"
    for directory in (images, labels):
        directory.mkdir(parents=True, exist_ok=True)
    cases = []
    for index in range(count):
        case_id = f"{prefix}_{index + 1:03d}"
        case = Case(case_id, images / f"{case_id}.nii.gz", labels / f"{case_id}.nii.gz")
        image, label, affine = _make_case(index, np.random.default_rng([seed, index]))
        _write_nifti(case.image, image, affine)
        _write_nifti(case.label, label, affine)
        cases.append(case)
    _write_dataset_json(folder / "dataset.json", cases, seed)
    return cases


def _make_case(index: int, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Image (X, Y, Z) int16, label (X, Y, Z) uint8 and the affine (4, 4) of one case."""
    shape, affine = _make_grid(index, rng)
    organ, boundary = _make_organ(rng)
    organ = _place_organ(organ, shape, affine, rng)
    middle = (affine @ np.append((np.array(shape) - 1) / 2, 1.0))[:3]
    others = _make_look_alikes(organ, middle, rng)

    points = _world_points(shape, affine)
    organ_distance, along = _distance(points, organ)
    signal, wall = _paint_body(points, middle, organ_distance, rng)
    bright = rng.uniform(0.70, 0.78)
    tissue = bright + 0.02 * _texture(points, rng, wavelength=(5.0, 12.0))
    for distance in (organ_distance, *(_distance(points, tube)[0] for tube in others), wall):
        occupancy = _occupancy(distance)
        signal += occupancy * (tissue - signal)

    label = np.where(along < boundary, LABELS["Head"], LABELS["Tail"])
    label = np.where(organ_distance < 0, label, 0).astype(np.uint8)
    return _scan(signal, points - middle[:, None, None, None].astype(np.float32), rng), label, affine


# ----------------------------------------------------------------------------------------------------------- geometry
def _make_grid(index: int, rng: np.random.Generator) -> tuple[tuple[int, int, int], np.ndarray]:
    """Shape in voxels and affine (voxel to RAS+ mm) of a scan 48 to 56 mm wide, slices stacked along the last axis."""
    codes, oblique = _SCANS[index % len(_SCANS)]
    in_plane = rng.uniform(0.9, 1.5)
    through = rng.uniform(1.0, min(2.5, 1000 * _MAX_VOXEL_ML / in_plane**2))
    spacing = np.round([in_plane, in_plane, through], 3)
    shape = np.minimum(np.round(rng.uniform(48, 56, size=3) / spacing), _MAX_SIDE).astype(int)
    axes = np.array([_AXIS[code] for code in codes], dtype=float).T
    if oblique:
        axes = _rotation(rng, degrees=rng.uniform(12, 20)) @ axes
    affine = np.eye(4)
    affine[:3, :3] = axes * spacing
    affine[:3, 3] = rng.uniform(-40, 40, size=3) - affine[:3, :3] @ ((shape - 1) / 2)
    return (int(shape[0]), int(shape[1]), int(shape[2])), affine


def _rotation(rng: np.random.Generator, degrees: float) -> np.ndarray:
    """Rotation (3, 3) by ``degrees`` about a random axis (Rodrigues' formula)."""
    x, y, z = _unit(rng.normal(size=3))
    cross = np.array([[0, -z, y], [z, 0, -x], [-y, x, 0]])
    angle = np.deg2rad(degrees)
    return np.eye(3) + np.sin(angle) * cross + (1 - np.cos(angle)) * cross @ cross


def _unit(vector: np.ndarray) -> np.ndarray:
    return vector / np.linalg.norm(vector)


def _bent_line(rng: np.random.Generator, length: float, bend: float, wiggle: float, points: int) -> np.ndarray:
    """Return a line (points, 3), ``length`` mm along +x, that turns by ``bend`` radians, bulging to +y, and wiggles."""
    s = np.linspace(0, 1, points)
    phase = rng.uniform(0, 2 * np.pi, size=2)
    turn = bend * (0.5 - s) + wiggle * np.sin(2 * np.pi * s + phase[0])
    lift = wiggle * np.sin(2 * np.pi * s + phase[1])
    step = np.stack([np.cos(turn) * np.cos(lift), np.sin(turn) * np.cos(lift), np.sin(lift)], axis=1)
    return np.concatenate([np.zeros((1, 3)), np.cumsum((step[1:] + step[:-1]) / 2, axis=0)]) * length / (points - 1)


def _make_organ(rng: np.random.Generator) -> tuple[_Tube, float]:
    """Return the organ near the origin, Head left and up, bulging forwards, and where on it (0..1) the Tail begins."""
    line = _bent_line(rng, rng.uniform(32, 39), np.deg2rad(rng.uniform(85, 130)), rng.uniform(0.0, 0.18), points=40)
    boundary = rng.uniform(0.42, 0.50)
    s = np.linspace(0, 1, len(line))
    thick, thin = rng.uniform(5.2, 6.6), rng.uniform(3.4, 4.1)
    radius = thin + (thick - thin) / (1 + np.exp((s - boundary) / 0.04))
    radius *= (1 + rng.uniform(-0.04, 0.10) * np.sin(np.pi * s / boundary)) * (1 - rng.uniform(0.10, 0.28) * s**3)
    along = _unit(np.array([0.70, -0.15, -0.70]))
    front = _unit(np.array([0.0, 1.0, 0.0]) - along[1] * along)
    pose = np.stack([along, front, np.cross(along, front)], axis=1)
    pose = _rotation(rng, degrees=rng.uniform(0, 25)) @ pose
    return _Tube(line @ pose.T, radius), float(boundary)


def _place_organ(organ: _Tube, shape: Sequence[int], affine: np.ndarray, rng: np.random.Generator) -> _Tube:
    """Move the organ near the middle of the field of view, never so far that a voxel of it is cut off."""
    axes = affine[:3, :3]
    spacing = np.linalg.norm(axes, axis=0)
    index = organ.centre @ np.linalg.inv(axes).T
    reach = organ.radius[:, None] / spacing
    low, high = (index - reach).min(axis=0), (index + reach).max(axis=0)
    room = np.clip((np.array(shape) - 1 - (high - low)) / 2 - 1, 0, 4 / spacing)
    target = (np.array(shape) - 1) / 2 + rng.uniform(-1, 1, size=3) * room
    return organ.moved(axes @ (target - (low + high) / 2) + affine[:3, 3])


def _make_look_alikes(organ: _Tube, middle: np.ndarray, rng: np.random.Generator) -> list[_Tube]:
    """Balls, straight rods and thin bent tubes that touch neither the organ nor each other."""
    wanted = [
        *(("ball", 2.6, 4.6) for _ in range(rng.integers(3, 6))),
        *(("rod", 1.3, 2.0) for _ in range(rng.integers(3, 5))),
        *(("hook", 1.3, 2.0) for _ in range(rng.integers(2, 4))),
    ]
    placed: list[_Tube] = []
    for kind, thinnest, thickest in wanted:
        for _ in range(60):  # a crowded field may have no place left: then this one is dropped
            tube = _make_look_alike(kind, rng.uniform(thinnest, thickest), rng)
            tube = tube.moved(middle + rng.uniform(-19, 19, size=3))
            if _gap(tube, organ) > 2.0 and all(_gap(tube, other) > 1.0 for other in placed):
                placed.append(tube)
                break
    return placed


def _make_look_alike(kind: str, radius: float, rng: np.random.Generator) -> _Tube:
    """Return one look-alike of the given kind and radius (mm) around the origin, turned at random."""
    if kind == "ball":
        line = np.zeros((1, 3))
    elif kind == "rod":
        line = np.linspace(-0.5, 0.5, 24)[:, None] * np.array([rng.uniform(22, 44), 0.0, 0.0])
    else:
        line = _bent_line(rng, rng.uniform(20, 30), np.deg2rad(rng.uniform(130, 230)), 0.1, points=20)
        line = line - line.mean(axis=0)
    return _Tube(line @ _rotation(rng, degrees=rng.uniform(0, 180)).T, np.full(len(line), radius))


def _gap(one: _Tube, two: _Tube) -> float:
    """Smallest distance between two surfaces in mm, negative where they overlap."""
    centres = np.linalg.norm(one.centre[:, None] - two.centre[None], axis=2)
    return float((centres - one.radius[:, None] - two.radius[None]).min())


# ---------------------------------------------------------------------------------------------------------- rendering
def _world_points(shape: Sequence[int], affine: np.ndarray) -> np.ndarray:
    """World position (3, X, Y, Z) of every voxel centre in mm."""
    index = np.stack(np.meshgrid(*(np.arange(n) for n in shape), indexing="ij"))
    world = np.tensordot(affine[:3, :3], index, axes=1) + affine[:3, 3][:, None, None, None]
    return world.astype(np.float32)


def _distance(points: np.ndarray, tube: _Tube) -> tuple[np.ndarray, np.ndarray]:
    """Signed distance (X, Y, Z) to the tube's surface in mm, negative inside, and the nearest place along it (0..1)."""
    centre, radius = tube.centre.astype(np.float32), tube.radius.astype(np.float32)
    if len(centre) == 1:
        ball = np.linalg.norm(points - centre[0][:, None, None, None], axis=0) - radius[0]
        return ball, np.zeros_like(ball)
    best = np.full(points.shape[1:], np.inf, dtype=np.float32)
    along = np.zeros_like(best)
    for i in range(len(centre) - 1):
        step = centre[i + 1] - centre[i]
        offset = points - centre[i][:, None, None, None]
        squared = float(step @ step)
        dot = np.tensordot(step, offset, axes=1)
        t = np.clip(dot / squared, 0, 1)
        to_line = np.einsum("cxyz,cxyz->xyz", offset, offset) - 2 * t * dot + t * t * squared
        distance = np.sqrt(np.maximum(to_line, 0)) - (radius[i] + t * (radius[i + 1] - radius[i]))
        nearer = distance < best
        best = np.where(nearer, distance, best)
        along = np.where(nearer, (i + t) / (len(centre) - 1), along)
    return best, along


def _occupancy(distance: np.ndarray) -> np.ndarray:
    """Share (X, Y, Z) of each voxel that lies inside a surface, from the signed distance.

    To first order the surface is a plane; it enters a box-shaped voxel and leaves it over the sum of the distance's
    changes along the three array axes. Thick slices thus blur more across themselves than within, as on a scanner.
    """
    first, second, third = np.gradient(distance)
    width = np.maximum(np.abs(first) + np.abs(second) + np.abs(third), 0.3)
    return np.clip(0.5 - distance / width, 0, 1)


def _texture(points: np.ndarray, rng: np.random.Generator, wavelength: tuple[float, float]) -> np.ndarray:
    """Return a smooth random field (X, Y, Z) of unit variance whose waves are ``wavelength`` mm long."""
    field = np.zeros(points.shape[1:], dtype=np.float32)
    waves = 10
    for _ in range(waves):
        wave = _unit(rng.normal(size=3)) * 2 * np.pi / rng.uniform(*wavelength)
        field += np.cos(np.tensordot(wave.astype(np.float32), points, axes=1) + np.float32(rng.uniform(0, 2 * np.pi)))
    return field * np.float32(np.sqrt(2 / waves))


def _paint_body(
    points: np.ndarray, middle: np.ndarray, organ_distance: np.ndarray, rng: np.random.Generator
) -> tuple[np.ndarray, np.ndarray]:
    """Return layers around the organ, from within: mottled parenchyma, a film of fluid, the bright wall, fat, the
    outside: their signal (X, Y, Z) but for the bright tissue, and the signed distance to the bright wall in mm."""
    radii = rng.uniform(21, 25, size=3)
    ratio = np.linalg.norm((points - middle[:, None, None, None]) / radii[:, None, None, None], axis=0)
    depth = (ratio - 1) * radii.mean() + 1.2 * _texture(points, rng, wavelength=(14.0, 26.0))
    depth = np.minimum(depth, organ_distance - 3.0).astype(np.float32)  # the layers give way to the organ
    film, wall, fat = np.cumsum([rng.uniform(1.5, 2.5), rng.uniform(3.0, 4.5), rng.uniform(4.0, 6.0)])
    signal = _PARENCHYMA + 0.035 * _texture(points, rng, wavelength=(4.0, 14.0))
    for start, value in ((0.0, _FLUID), (wall, _FAT), (fat, _OUTSIDE)):
        signal += _occupancy(start - depth) * (value * rng.uniform(0.92, 1.08) - signal)
    return signal, np.maximum(film - depth, depth - wall)


def _scan(signal: np.ndarray, offset: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the scanned signal, int16: bias field over ``offset`` (3, X, Y, Z) mm, Rician noise, contrast."""
    x, y, z = offset / 28
    terms = np.stack([x, y, z, x * y, y * z, x * z, x * x - 0.3, y * y - 0.3, z * z - 0.3])
    bias = np.tensordot(rng.normal(size=len(terms)).astype(np.float32), terms, axes=1)
    signal = signal * np.exp(rng.uniform(0.12, 0.28) * bias / np.abs(bias).max())
    sigma = rng.uniform(0.030, 0.055)
    real, imaginary = rng.normal(scale=sigma, size=(2, *signal.shape))
    magnitude = np.hypot(signal + real, imaginary)
    contrast = rng.uniform(0.8, 1.25)
    scaled = rng.uniform(0, 60) + rng.uniform(250, 1200) * magnitude**contrast
    return np.round(scaled).astype(np.int16)


# -------------------------------------------------------------------------------------------------------------- files
def _write_nifti(path: Path, data: np.ndarray, affine: np.ndarray) -> None:
    """Write a compressed NIfTI file in mm whose bytes carry no time stamp, so that a seed gives the same file again."""
    image = nib.Nifti1Image(data, affine)
    image.set_qform(affine, code=1)
    image.set_sform(affine, code=1)
    image.header.set_xyzt_units("mm")
    path.write_bytes(gzip.compress(image.to_bytes(), compresslevel=6, mtime=0))


def _write_dataset_json(path: Path, cases: Sequence[Case], seed: int) -> None:
    training = [{"image": f"./imagesTr/{c.image.name}", "label": f"./labelsTr/{c.label.name}"} for c in cases]
    content = {
        "name": "Phantom organ",
        "description": f"Synthetic MR-like volumes with a curved two-part organ (seed {seed})",
        "tensorImageSize": "3D",
        "modality": {"0": "MRI"},
        "labels": {"0": "background", **{str(value): name for name, value in LABELS.items()}},
        "numTraining": len(cases),
        "numTest": 0,
        "training": training,
        "test": [],
    }
    path.write_text(json.dumps(content, indent=2) + "\n", encoding="utf-8")
