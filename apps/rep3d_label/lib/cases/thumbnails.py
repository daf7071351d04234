"""Small pictures of cases: one slice, with the outlines of the labels in their colours."""

from __future__ import annotations

import colorsys
import hashlib
import io
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np
from PIL import Image

from lib.errors import in_words, is_out_of_memory
from lib.labels.facts import file_stamp
from lib.paths import whole_file
from rep3d.errors import ImageError, LabelError, Rep3DError, machine_error
from rep3d.imaging.nifti import read_label, stored_grid
from rep3d.tasks.registry import TASKS

__all__ = ["Colour", "Thumbnails", "label_colours"]

Colour = tuple[int, int, int]
_SOFT_TISSUE_HU = (-160.0, 240.0)
_AIR_HU = -500.0
_SHADE = 0.25
_GOLDEN_ANGLE = 0.618034


def label_colours(labels: Mapping[str, int]) -> dict[str, Colour]:
    """Return a colour for each label: the registered one for its name, else one by its value."""
    known = {name: term.colour for task in TASKS.values() for name, term in task.terms.items()}
    return {name: known.get(name) or _by_value(value) for name, value in labels.items()}


def _by_value(value: int) -> Colour:
    red, green, blue = colorsys.hsv_to_rgb((value * _GOLDEN_ANGLE) % 1.0, 0.75, 0.95)
    return round(255 * red), round(255 * green), round(255 * blue)


class Thumbnails:
    """Pictures that are made when they are first asked for, and again when a file they show has changed.

    Args:
        folder: where they are kept.
        labels: label name to voxel value.
    """

    def __init__(self, folder: Path, labels: Mapping[str, int]) -> None:
        self._folder = folder
        colours = label_colours(labels)
        self._colours = {value: colours[name] for name, value in labels.items()}
        self._busy = threading.Semaphore(2)  # a page asks for dozens at once, and each may need a whole volume

    def png(self, image_id: str, image: Path, label: Path | None, size: int) -> bytes:
        """Return the picture of a case, kept for the next time where the disk has room.

        Args:
            image_id: its id.
            image: its image.
            label: the label map to outline, or None.
            size: longer side in pixels.

        Returns:
            A PNG.

        Raises:
            Rep3DError: if the image or the label cannot be read.
        """
        shows = [file_stamp(file) for file in (image, label) if file] + sorted(self._colours.items())
        key = hashlib.sha256(json.dumps(shows).encode()).hexdigest()[:16]
        folder = self._folder / image_id
        path = folder / f"{size}-{key}.png"
        with suppress(FileNotFoundError):
            return path.read_bytes()
        try:
            with self._busy:
                content = render(image, label, self._colours, size)
        except Exception as error:  # whatever is odd about a file, there is no picture of it, and that is all
            if isinstance(error, (Rep3DError, FileNotFoundError)) or is_out_of_memory(error):
                raise
            raise ImageError(
                f"No picture of image {image_id} can be drawn ({in_words(error)}). Is it still being copied?"
            ) from error
        try:
            self._keep(path, content, size)
        except OSError as error:
            if machine_error(error) is None:
                raise
        return content

    @staticmethod
    def _keep(path: Path, content: bytes, size: int) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        with whole_file(path) as file:
            file.write(content)
        for other in path.parent.glob(f"{size}-*.png"):
            if other != path:
                other.unlink(missing_ok=True)


def render(image: Path, label: Path | None, colours: Mapping[int, Colour], size: int) -> bytes:
    """Draw the axial slice in which the label is largest, else the middle one, as radiologists look at it.

    Args:
        image: a NIfTI image.
        label: a label map on its grid, or None.
        colours: voxel value to colour.
        size: longer side of the picture in pixels.

    Returns:
        A PNG: the patient's right on the left, front on top, pixels square in mm.
    """
    grid = stored_grid(image)
    # For the axes right, front, up of the patient: the stored axis, and 1 or -1 for its direction.
    axes = nib.orientations.io_orientation(grid.affine)
    stored = [int(np.flatnonzero(axes[:, 0] == world)[0]) for world in range(3)]
    up = stored[2]
    values = read_label(label)[0] if label else None
    if values is not None and values.shape != grid.shape:
        raise LabelError(f"The label of {image.name} has the shape {values.shape}, its image {grid.shape}.")
    drawn = None if values is None else np.count_nonzero(values, axis=tuple(a for a in range(3) if a != up))
    index = int(drawn.argmax()) if drawn is not None and drawn.any() else grid.shape[up] // 2
    at = tuple(index if axis == up else slice(None) for axis in range(3))

    def picture(slice_: np.ndarray) -> np.ndarray:
        """Return rows from front to back, columns from the patient's right to left."""
        plane = slice_ if stored[1] < stored[0] else slice_.T
        front, right = axes[stored[1], 1], axes[stored[0], 1]
        return plane[:: -1 if front > 0 else 1, :: -1 if right > 0 else 1]

    # Four-dimensional files have one time point.
    proxy = nib.load(image).dataobj  # type: ignore[attr-defined]
    voxels = np.asarray(proxy[(*at, *(0 for _ in proxy.shape[3:]))], np.float32)
    mm = grid.spacing[stored[0]], grid.spacing[stored[1]]
    grey = Image.fromarray(_windowed(picture(voxels)))
    scale = size / max(grey.width * mm[0], grey.height * mm[1])
    shape = max(1, round(grey.width * mm[0] * scale)), max(1, round(grey.height * mm[1] * scale))
    result = np.asarray(grey.resize(shape, Image.Resampling.BILINEAR).convert("RGB")).copy()
    if values is not None:
        flat = Image.fromarray(picture(values[at]).astype(np.int32))
        _outline(result, np.asarray(flat.resize(shape, Image.Resampling.NEAREST)), colours)
    buffer = io.BytesIO()
    Image.fromarray(result).save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()


def _windowed(voxels: np.ndarray) -> np.ndarray:
    """Grey values from 0 to 255: soft tissue where air says that these are Hounsfield units, else 1 % to 99 %."""
    low, high = _SOFT_TISSUE_HU if voxels.min() < _AIR_HU else np.percentile(voxels, (1, 99))
    return (255 * np.clip((voxels - low) / max(float(high - low), 1e-6), 0, 1)).astype(np.uint8)


def _outline(picture: np.ndarray, values: np.ndarray, colours: Mapping[int, Colour]) -> None:
    """Shade each label in its colour and draw its border; ``picture`` (rows, columns, 3) is changed."""
    padded = np.pad(values, 1, mode="edge")
    inner = [padded[1:-1, :-2], padded[1:-1, 2:], padded[:-2, 1:-1], padded[2:, 1:-1]]
    border = np.any([other != values for other in inner], axis=0)
    for value in np.unique(values[values > 0]).tolist():
        colour = np.array(colours.get(value) or _by_value(value), np.float32)
        inside = values == value
        picture[inside] = ((1 - _SHADE) * picture[inside] + _SHADE * colour).astype(np.uint8)
        picture[inside & border] = colour.astype(np.uint8)
