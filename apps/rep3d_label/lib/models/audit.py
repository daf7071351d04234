"""What the audit log says of a model's trainings and batches, which end without anybody's request."""

from __future__ import annotations

from lib.models.served import ServedModel
from rep3d.audit import CHANGES, AuditLog

__all__ = ["note_run"]


def note_run(served: ServedModel, who: str, what: str, **facts: str | None) -> None:
    """Write what came of a run; ``who`` is the kind of run, in the process of which this may be called."""
    event = {"what": what, "who": who, "model": served.name, **facts}
    AuditLog(served.setup.workspace.root.parents[1]).write(CHANGES, event)
