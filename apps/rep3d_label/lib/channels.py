"""How many channels the images of a server have, the same for all its models: one, or several.

Several are in one 4D file, or in a file for each (``x_0000.nii.gz``, ``x_0001.nii.gz`` ...). The first of these stands
for the image, and the others are looked for beside it.

Whoever reads an image, or asks where its voxels lie, does it by this one object, so that an image of another number of
channels is the same to all: unusable, and named with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from functools import lru_cache
from itertools import takewhile
from pathlib import Path

import numpy as np

from lib.errors import RequestError
from rep3d.errors import ImageError
from rep3d.files import Stamp, file_stamp
from rep3d.imaging.channels import channels_beside, channels_grid, count_channels, read_channels
from rep3d.imaging.grid import Geometry
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.dataset_json import several

__all__ = ["ONE", "Channels", "joined_stamp"]


@dataclass(frozen=True)
class Channels:
    """The channels of an image, in their order.

    Attributes:
        names: such as ``("T1", "T2")``; none where there is one channel.
    """

    names: tuple[str, ...] = ()

    @classmethod
    def of(cls, task: TaskConfig) -> Channels:
        """Return the channels of a task's images."""
        return cls(task.channel_names)

    @classmethod
    def named(cls, names: tuple[str, ...]) -> Channels:
        """Return channels as a ``dataset.json`` names them, where the name of a single one is the modality."""
        return cls(several(names))

    @property
    def count(self) -> int:
        """How many there are."""
        return max(1, len(self.names))

    def __str__(self) -> str:
        return f"{self.count} channels ({', '.join(self.names)})" if self.names else "one channel"

    def files(self, image: Path) -> tuple[Path, ...]:
        """Return the files of an image in the order of its channels: it alone, or where it is the file of the first
        channel, all of them. Files of four dimensions may be numbered as channels are, and are images of their own."""
        if self.count == 1:
            return (image,)
        return tuple(takewhile(_holds_one, channels_beside(image))) or (image,)

    def stamp(self, image: Path) -> Stamp:
        """Return what changes when one of an image's files does, as :func:`rep3d.files.file_stamp`."""
        time, size = joined_stamp(map(file_stamp, self.files(image)))
        return time, size

    def grid(self, image: Path) -> Geometry:
        """Return where the voxels of an image lie, by its header alone.

        Raises:
            ImageError: if it has another number of channels, or no readable header.
        """
        return channels_grid(self.files(image), self.count)

    def read(self, image: Path) -> tuple[list[np.ndarray], Geometry]:
        """Return the (X, Y, Z) voxels of each channel, and where they lie.

        Raises:
            ImageError, OutOfMemoryError: if there are others, or they cannot be read.
        """
        return read_channels(self.files(image), self.count)

    def checked(self, channel: int) -> int:
        """Return the number of a channel, counted from 0, that somebody asks for.

        Raises:
            RequestError: if there is none of that number.
        """
        if not 0 <= channel < self.count:
            there = ", ".join(f"{number} is {name}" for number, name in enumerate(self.names)) or "it is number 0"
            raise RequestError(f"There is no channel {channel}: an image of this server has {self}; {there}.")
        return channel


def joined_stamp(stamps: Iterable[Sequence[int]]) -> tuple[int, ...]:
    """Return one stamp of several files, which is another one where two of them are swapped; of one file its own."""
    weighted = ([place * part for part in stamp] for place, stamp in enumerate(stamps, 1))
    return tuple(map(sum, zip(*weighted, strict=True)))


def _holds_one(file: Path) -> bool:
    """Return whether a file is one of a single channel, as far as can be told: it may be still being copied."""
    try:
        status = file.stat()
        return _count(file, (status.st_mtime_ns, status.st_size, status.st_ctime_ns)) == 1
    except (ImageError, OSError):
        return True


@lru_cache(maxsize=2**16)
def _count(file: Path, state: object) -> int:
    return count_channels(file)


ONE = Channels()
"""Images of one channel."""
