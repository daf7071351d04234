"""Small pictures of cases: one slice, with the outlines of the labels in their colours."""

from __future__ import annotations

import hashlib
import io
import json
import threading
from collections.abc import Mapping
from contextlib import suppress
from pathlib import Path

import nibabel as nib
import numpy as np

from lib.channels import Channels
from lib.errors import in_words, is_out_of_memory
from lib.paths import whole_file
from rep3d.errors import ImageError, LabelError, Rep3DError, machine_error
from rep3d.files import file_stamp
from rep3d.imaging.nifti import read_label
from rep3d.imaging.pictures import plane_picture
from rep3d.tasks.colours import Colour, label_colours

__all__ = ["Thumbnails", "render"]


class Thumbnails:
    """Pictures that are made when they are first asked for, and again when a file they show has changed.

    Args:
        folder: where they are kept.
        labels: label name to voxel value.
        channels: of each image; the first one is shown.
    """

    def __init__(self, folder: Path, labels: Mapping[str, int], channels: Channels) -> None:
        self._folder = folder
        self._channels = channels
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
        stamps = [self._channels.stamp(image), *([file_stamp(label)] if label else [])]
        shows = stamps + sorted(self._colours.items())
        key = hashlib.sha256(json.dumps(shows).encode()).hexdigest()[:16]
        folder = self._folder / image_id
        path = folder / f"{size}-{key}.png"
        with suppress(FileNotFoundError):
            return path.read_bytes()
        try:
            with self._busy:
                content = render(image, self._channels, label, self._colours, size)
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


def render(image: Path, channels: Channels, label: Path | None, colours: Mapping[int, Colour], size: int) -> bytes:
    """Draw the axial slice in which the label is largest, else the middle one, as radiologists look at it.

    Args:
        image: a NIfTI image.
        channels: of it; the first one is drawn.
        label: a label map on its grid, or None.
        colours: voxel value to colour.
        size: longer side of the picture in pixels.

    Returns:
        A PNG: the patient's right on the left, front on top, pixels square in mm.
    """
    grid = channels.grid(image)
    values = read_label(label)[0] if label else None
    if values is not None and values.shape != grid.shape:
        raise LabelError(f"The label of {image.name} has the shape {values.shape}, its image {grid.shape}.")
    proxy = nib.load(image).dataobj  # type: ignore[attr-defined]

    def read(at: tuple[slice | int, ...]) -> np.ndarray:
        return np.asarray(proxy[(*at, *(0 for _ in proxy.shape[3:]))])  # further axes are channels

    drawn = plane_picture(read, values, grid, "axial", colours, size)
    buffer = io.BytesIO()
    drawn.save(buffer, "PNG", compress_level=6)
    return buffer.getvalue()
