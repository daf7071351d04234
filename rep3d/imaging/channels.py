"""An image of several channels, which is one 4D file or a file for each channel; all must lie on one grid."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np

from rep3d.errors import ImageError
from rep3d.imaging.grid import Geometry, same_grid
from rep3d.imaging.nifti import IMAGE_SUFFIXES, read_image, read_layers, stored_grid, stored_layers

__all__ = ["Files", "as_files", "channels_beside", "channels_grid", "count_channels", "image_name", "read_channels"]

Files = Path | str | Sequence[Path | str]
"""The files of an image in the order of its channels: one, which may hold several, or one for each."""


_FIRST = "_0000"  # ends the names of the first channels' files, as nnU-Net has them


def image_name(file: Path) -> str:
    """Return what an image is called by its file's name: without ending, nor what says that it is the first channel."""
    name = _without_ending(file)
    return name.removesuffix(_FIRST) or name


def channels_beside(file: Path) -> tuple[Path, ...]:
    """Return an image's files by their names, of which there may be one for each channel.

    Args:
        file: the image's only one, or the first channel's by its name, ``x_0000.nii.gz``. Then the others are those
            beside it that are called ``x_0001``, ``x_0002`` ... with an image's ending, as far as there are.
    """
    name, channels = image_name(file), [file]
    while name != _without_ending(file):
        number = f"{name}_{len(channels):04d}"
        endings = (file.name[len(name) + len(_FIRST) :], *IMAGE_SUFFIXES)
        following = next((one for one in (file.with_name(number + end) for end in endings) if one.is_file()), None)
        if following is None:
            break
        channels.append(following)
    return tuple(channels)


def _without_ending(file: Path) -> str:
    ending = next((suffix for suffix in IMAGE_SUFFIXES if file.name.lower().endswith(suffix)), "")
    return file.name[: len(file.name) - len(ending)]


def as_files(image: Files) -> tuple[Path, ...]:
    """Return the files of an image."""
    return (Path(image),) if isinstance(image, (str, Path)) else tuple(map(Path, image))


def count_channels(image: Files) -> int:
    """Return how many channels an image has, by its header alone.

    Raises:
        ImageError: if it has none that can be read.
    """
    files = as_files(image)
    return len(files) if len(files) > 1 else stored_layers(files[0])[0]


def channels_grid(image: Files, count: int) -> Geometry:
    """Return the grid of an image by the headers of its files, after making sure that they fit together.

    Args:
        image: its files.
        count: how many channels it should have.

    Raises:
        ImageError: if it has another number of channels, if their grids differ, or if a header cannot be read.
    """
    files = as_files(image)
    if count == len(files) == 1:
        return stored_grid(files[0])
    if len(files) == 1:
        found, grid = stored_layers(files[0])
        _check_count(files, found, count)
        return grid
    _check_count(files, len(files), count)
    return _one_grid(files, [stored_grid(file) for file in files])


def read_channels(image: Files, count: int) -> tuple[list[np.ndarray], Geometry]:
    """Return the voxels of each channel (X, Y, Z), in the type it is stored in, and their grid.

    Args:
        image: its files.
        count: how many channels it should have.

    Raises:
        ImageError, OutOfMemoryError: as :func:`channels_grid`, and if voxels cannot be read.
    """
    files = as_files(image)
    if count == len(files) == 1:
        alone, grid = read_image(files[0])
        return [alone], grid
    channels_grid(files, count)
    if len(files) == 1:
        voxels, grid = read_layers(files[0])
        return [voxels[..., channel] for channel in range(count)], grid
    read = [read_image(file) for file in files]
    return [voxels for voxels, _ in read], read[0][1]


def _check_count(files: Sequence[Path], found: int, count: int) -> None:
    if found != count:
        what = files[0].name if len(files) == 1 else ", ".join(file.name for file in files[:8])
        own = " If they are images of their own, rename them: such endings say that they are not." * (len(files) > 1)
        raise ImageError(
            f"{what}: {found} {'channel' if found == 1 else 'channels'}, where {count} "
            f"{'is' if count == 1 else 'are'} needed. Give the image with the channels of the task, in their order: "
            f"one 4D file, or a file for each (x_0000.nii.gz, x_0001.nii.gz ...).{own}"
        )


def _one_grid(files: Sequence[Path], grids: Sequence[Geometry]) -> Geometry:
    for file, grid in zip(files[1:], grids[1:], strict=True):
        if not same_grid(grid, grids[0]):
            raise ImageError(
                f"{file.name} does not lie on the voxels of {files[0].name}, the first channel of this image: "
                f"expected shape {grids[0].shape} and affine {np.round(grids[0].affine, 3).tolist()}, got shape "
                f"{grid.shape} and affine {np.round(grid.affine, 3).tolist()}. Resample it onto the first one's grid."
            )
    return grids[0]
