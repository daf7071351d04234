"""Which labelled cases train a model and which only measure it, decided once per case and kept for ever.

A score means something only on cases that the model never learned from. So a case gets its role when it first comes
into a training, and keeps it: if its label is corrected, if it is removed and comes back, whatever is published. The
validation set grows with the data and never leaks.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from rep3d.data.splits import hash_order
from rep3d.json_file import JsonFile, json_object

__all__ = ["HELD_OUT", "LEAST_CASES", "TRAINING_ONLY", "CaseRoles", "Split"]

LEAST_CASES = 5
"""With fewer labelled cases than this, all of them train."""
VALIDATION_SHARE = 0.2
HELD_OUT = "held-out"
TRAINING_ONLY = "training-only"
_TRAINING, _VALIDATION = "training", "validation"


@dataclass(frozen=True)
class Split:
    """Labelled cases by role.

    Attributes:
        training: ids of the cases to train on, sorted; empty where only validation cases are labelled.
        validation: ids of the cases to measure on, sorted.
    """

    training: tuple[str, ...]
    validation: tuple[str, ...]

    @property
    def kind(self) -> str:
        """``"held-out"`` where there is something to measure on, else ``"training-only"``."""
        return HELD_OUT if self.validation else TRAINING_ONLY


class CaseRoles:
    """The roles of a model's cases.

    Args:
        path: the JSON file that keeps them; it may not exist yet.
    """

    def __init__(self, path: Path) -> None:
        lost = "which cases trained and which only measured"
        self._file: JsonFile[dict[str, str]] = JsonFile(path, _parsed, lost, dict, begins_anew=False)

    def read(self) -> dict[str, str]:
        """Case id to ``"training"`` or ``"validation"``, of every case that ever got a role.

        Raises:
            DamagedFileError: if the file is damaged: nobody could tell any more what was trained on.
        """
        return self._file.read()

    def mend(self, trained: Collection[str], measured: Collection[str]) -> bool:
        """Make a damaged file anew from what is on record of versions; nothing happens where it is not damaged.

        A case that no version was trained on cannot leak, so one whose role is on no record may get any.

        Args:
            trained: the cases that some version was trained on.
            measured: the cases that some version was measured on.

        Returns:
            Whether it was damaged.
        """
        with self._file.locked():
            if self._file.set_aside() is None:
                return False
            roles = {**dict.fromkeys(measured, _VALIDATION), **dict.fromkeys(trained, _TRAINING)}
            self._file.write(dict(sorted(roles.items())))
            return True

    def assign(self, ids: Iterable[str], trained: Collection[str] = ()) -> Split:
        """Give roles to the cases that have none, and keep them.

        From 5 labelled cases on, a fifth of them (at least one) is to validate. Validation cases are taken from those
        without a role, in the order of the SHA-256 of their ids; one at least is left to train on.

        Args:
            ids: the labelled cases.
            trained: cases that some version was trained on, such as those that a foreign checkpoint names; they are
                training cases, even if they had been chosen to validate.

        Returns:
            The given cases by role.

        Raises:
            DamagedFileError: as :meth:`read`.
        """
        with self._file.locked():
            return self._assign(sorted(set(ids)), trained)

    def _assign(self, labelled: list[str], trained: Collection[str]) -> Split:
        known = self.read()
        roles = {**known, **dict.fromkeys(trained, _TRAINING)}
        fresh = sorted((id_ for id_ in labelled if id_ not in roles), key=hash_order)
        validating = sum(roles.get(id_) == _VALIDATION for id_ in labelled)
        wanted = max(1, round(VALIDATION_SHARE * len(labelled))) if len(labelled) >= LEAST_CASES else 0
        training_known = any(roles.get(id_) == _TRAINING for id_ in labelled)
        available = len(fresh) if training_known else len(fresh) - 1
        chosen = max(0, min(wanted - validating, available))
        roles.update(dict.fromkeys(fresh[:chosen], _VALIDATION))
        roles.update(dict.fromkeys(fresh[chosen:], _TRAINING))
        if roles != known:
            self._file.write(dict(sorted(roles.items())))
        return Split(
            tuple(id_ for id_ in labelled if roles[id_] == _TRAINING),
            tuple(id_ for id_ in labelled if roles[id_] == _VALIDATION),
        )


def _parsed(content: Any) -> dict[str, str]:
    roles = json_object(content)
    if not set(roles.values()) <= {_TRAINING, _VALIDATION}:
        raise ValueError(f"not all roles are {_TRAINING!r} or {_VALIDATION!r}")
    return roles
