"""Is a label map still that of the image beside it? An image may come back as another one of the same name."""

from __future__ import annotations

import hashlib
from pathlib import Path

import numpy as np

from lib.channels import Channels
from rep3d.errors import LabelError
from rep3d.imaging.labels import check_grid
from rep3d.imaging.nifti import stored_grid

__all__ = ["misfit", "voxel_digest"]


def voxel_digest(image: Path, channels: Channels) -> str:
    """Return SHA-256 of an image's shape and values: equal for files that show the same, however they are stored.

    Raises:
        ImageError: if it is no readable image of these channels.
    """
    read, grid = channels.read(image)
    digest = hashlib.sha256(str(grid.shape).encode())
    for voxels in read:
        for index in range(voxels.shape[-1]):
            digest.update(np.ascontiguousarray(voxels[..., index], dtype="<f4").tobytes())
    return digest.hexdigest()


def misfit(image_id: str, image: Path, label: Path, digest: str | None, known: bool, channels: Channels) -> str | None:
    """Return why a label is not that of its image, which has another file than when it was drawn; None if it is.

    Args:
        image_id: the image's id, for the message.
        image: its file.
        label: the label's file.
        digest: of the voxels that the label was drawn on, where it is known.
        known: whether the image that the label was drawn on is on record at all. If not, the grid alone can tell.
        channels: of the image.

    Raises:
        Rep3DError: if one of the two cannot be read.
    """
    advice = "It is kept, and used for nothing. Look at it on this image and submit it again, or put the image back."
    try:
        check_grid(stored_grid(label), channels.grid(image), label.name, image.name)
    except LabelError as error:
        return f"The label was drawn on another image than the one that is there now: {error} {advice}"
    if known and digest is None:
        return (
            f"The file of image {image_id} was replaced before its voxels were on record, so it is not known whether "
            f"its label was drawn on this one. {advice}"
        )
    if known and digest != voxel_digest(image, channels):
        return f"The voxels of image {image_id} are others than those that its label was drawn on. {advice}"
    return None
