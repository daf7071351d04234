"""Who works on which image: a lease keeps an image from being given to two annotators at once.

It ends when the label is submitted, when it is given back, or by itself after a while.
"""

from __future__ import annotations

import threading
from collections.abc import Callable, Collection, Container
from dataclasses import asdict, dataclass
from datetime import datetime, timedelta, timezone
from pathlib import Path
from typing import Any

from lib.errors import ReservedError
from rep3d.json_file import JsonFile, json_object

__all__ = ["Lease", "LeaseBook"]


def _now() -> datetime:
    return datetime.now(timezone.utc)


@dataclass(frozen=True)
class Lease:
    """One image, lent to one annotator.

    Attributes:
        image: its id.
        user: whom it is lent to.
        since: when it was first lent, UTC, ISO 8601.
        until: when it ends by itself, UTC, ISO 8601.
    """

    image: str
    user: str
    since: str
    until: str

    @property
    def ends(self) -> str:
        """When it ends by itself, for people: in the server's time zone, with the day where it is not today."""
        until = datetime.fromisoformat(self.until).astimezone()
        today = until.date() == datetime.now().astimezone().date()
        return until.strftime("%H:%M %Z" if today else "%d %b %Y, %H:%M %Z")


class LeaseBook:
    """All leases, in a file that survives the server. Safe to use from several threads.

    Args:
        path: the file.
        minutes: how long a lease lasts.
        per_user: how many images an annotator may hold; taking one more gives the oldest one back.
        clock: gives the time, in UTC.
        unusable: gives the ids of the images that nobody can use, which nobody holds either.
    """

    def __init__(
        self,
        path: Path,
        minutes: float = 60.0,
        per_user: int = 3,
        clock: Callable[[], datetime] = _now,
        unusable: Callable[[], Container[str]] = tuple,
    ) -> None:
        lost = "who works on which image: all are free"
        self._file: JsonFile[dict[str, Lease]] = JsonFile(path, _parsed, lost, dict, begins_anew=True)
        self._minutes = minutes
        self._per_user = per_user
        self._clock = clock
        self._unusable = unusable
        self._guard = threading.RLock()
        self._leases = self._file.read()

    def all(self) -> list[Lease]:
        """Return the leases that have not ended, by image id."""
        unusable = self._unusable()
        with self._guard:
            now = self._clock()
            self._leases = {
                image: lease
                for image, lease in self._leases.items()
                if datetime.fromisoformat(lease.until) > now and image not in unusable
            }
            return [self._leases[image] for image in sorted(self._leases)]

    def holder(self, image: str) -> Lease | None:
        """Return the lease of an image, or None where it is free."""
        return next((lease for lease in self.all() if lease.image == image), None)

    def take(self, image: str, user: str) -> Lease:
        """Lend an image, or prolong the lease that its holder has.

        Raises:
            ReservedError: if it is lent to another.
        """
        with self._guard:
            self.check(image, {user})
            held = self.holder(image)
            now = self._clock()
            until = (now + timedelta(minutes=self._minutes)).isoformat(timespec="milliseconds")
            lease = Lease(image, user, held.since if held else now.isoformat(timespec="milliseconds"), until)
            self._leases[image] = lease
            own = sorted((one for one in self._leases.values() if one.user == user), key=lambda one: one.since)
            surplus = [one for one in own if one.image != image][: max(0, len(own) - self._per_user)]
            for one in surplus:
                del self._leases[one.image]
            self._save()
            return lease

    def take_if(self, image: str, user: str, seen: Lease | None) -> Lease | None:
        """Lend an image, if nobody has taken, prolonged or given it back since one looked.

        Args:
            image: its id.
            user: whom it is for.
            seen: the lease that was there, or None.

        Returns:
            The lease, or None where something happened meanwhile.
        """
        with self._guard:
            return self.take(image, user) if self.holder(image) == seen else None

    def check(self, image: str, names: Collection[str]) -> None:
        """Make sure that an image is free, or lent to somebody of these names.

        Raises:
            ReservedError: if it is lent to another.
        """
        lease = self.holder(image)
        if lease is not None and lease.user not in names:
            raise ReservedError(
                f"Image {image} is reserved for {lease.user} until {lease.ends}. Choose another one, or wait."
            )

    def release(self, image: str, names: Collection[str] | None = None) -> Lease | None:
        """Give an image back.

        Args:
            image: its id.
            names: only if it is lent to one of these; None for whoever has it.

        Returns:
            The lease that ended, or None where there was none.
        """
        with self._guard:
            lease = self.holder(image)
            if lease is None or (names is not None and lease.user not in names):
                return None
            del self._leases[image]
            self._save()
            return lease

    def _save(self) -> None:
        self._file.write({image: asdict(lease) for image, lease in self._leases.items()})


def _parsed(content: Any) -> dict[str, Lease]:
    found = {}
    for image, stored in json_object(content).items():
        json_object(stored, user=str, since=str, until=str)
        found[image] = Lease(image, stored["user"], stored["since"], stored["until"])
        datetime.fromisoformat(found[image].until)
    return found
