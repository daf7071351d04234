"""How many channels the images of a server have: one, or several in one 4D file, the same for all its models.

Whoever reads an image, or asks where its voxels lie, does it by this one object, so that an image of another number of
channels is the same to all: unusable, and named with the reason.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import numpy as np

from lib.errors import RequestError
from rep3d.imaging.channels import channels_grid, read_channels
from rep3d.imaging.grid import Geometry
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.dataset_json import several

__all__ = ["ONE", "Channels"]


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

    def grid(self, image: Path) -> Geometry:
        """Return where the voxels of an image lie, by its header alone.

        Raises:
            ImageError: if it has another number of channels, or no readable header.
        """
        return channels_grid(image, self.count)

    def read(self, image: Path) -> tuple[list[np.ndarray], Geometry]:
        """Return the (X, Y, Z) voxels of each channel, and where they lie.

        Raises:
            ImageError, OutOfMemoryError: if there are others, or they cannot be read.
        """
        return read_channels(image, self.count)

    def checked(self, channel: int) -> int:
        """Return the number of a channel, counted from 0, that somebody asks for.

        Raises:
            RequestError: if there is none of that number.
        """
        if not 0 <= channel < self.count:
            there = ", ".join(f"{number} is {name}" for number, name in enumerate(self.names)) or "it is number 0"
            raise RequestError(f"There is no channel {channel}: an image of this server has {self}; {there}.")
        return channel


ONE = Channels()
"""Images of one channel."""
