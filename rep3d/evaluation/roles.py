"""Which labelled cases train a model and which only measure it, decided once per case and kept for ever.

A score means something only on cases that the model never learned from. So a case gets its role when it first comes
into a training, and keeps it: if its label is corrected, if it is removed and comes back, whatever is published. The
validation set grows with the data and never leaks.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path

from rep3d.errors import Rep3DError
from rep3d.files import write_text

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
        self._path = path

    def read(self) -> dict[str, str]:
        """Case id to ``"training"`` or ``"validation"``, of every case that ever got a role.

        Raises:
            Rep3DError: if the file is damaged: nobody could tell any more what was trained on.
        """
        if not self._path.exists():
            return {}
        try:
            roles = json.loads(self._path.read_text(encoding="utf-8"))
            if not isinstance(roles, dict) or not set(roles.values()) <= {_TRAINING, _VALIDATION}:
                raise ValueError(f"not all roles are {_TRAINING!r} or {_VALIDATION!r}")
        except (ValueError, TypeError) as error:
            raise Rep3DError(
                f"{self._path}: expected the roles of cases as JSON, got a damaged file ({error}). Put a copy back; "
                f"without one, move it away: cases then get new roles, and scores no longer compare with earlier ones."
            ) from error
        return roles

    def assign(self, ids: Iterable[str], trained: Collection[str] = ()) -> Split:
        """Gives roles to the cases that have none, and keeps them.

        From 5 labelled cases on, a fifth of them (at least one) is to validate. Validation cases are taken from those
        without a role, in the order of the SHA-256 of their ids; one at least is left to train on.

        Args:
            ids: the labelled cases.
            trained: cases that some version was trained on, such as those that a foreign checkpoint names; they are
                training cases, even if they had been chosen to validate.

        Returns:
            The given cases by role.
        """
        labelled = sorted(set(ids))
        known = self.read()
        roles = {**known, **dict.fromkeys(trained, _TRAINING)}
        fresh = sorted((id_ for id_ in labelled if id_ not in roles), key=_order)
        validating = sum(roles.get(id_) == _VALIDATION for id_ in labelled)
        wanted = max(1, round(VALIDATION_SHARE * len(labelled))) if len(labelled) >= LEAST_CASES else 0
        training_known = any(roles.get(id_) == _TRAINING for id_ in labelled)
        available = len(fresh) if training_known else len(fresh) - 1
        chosen = max(0, min(wanted - validating, available))
        roles.update(dict.fromkeys(fresh[:chosen], _VALIDATION))
        roles.update(dict.fromkeys(fresh[chosen:], _TRAINING))
        if roles != known:
            self._path.parent.mkdir(parents=True, exist_ok=True)
            write_text(self._path, json.dumps(dict(sorted(roles.items())), indent=2, ensure_ascii=False) + "\n")
        return Split(
            tuple(id_ for id_ in labelled if roles[id_] == _TRAINING),
            tuple(id_ for id_ in labelled if roles[id_] == _VALIDATION),
        )


def _order(id_: str) -> str:
    return hashlib.sha256(id_.encode()).hexdigest()
