"""What the audit log says of a training: it runs in a process of its own, which writes there, too."""

from __future__ import annotations

from lib.models.served import ServedModel
from rep3d.audit import CHANGES, AuditLog

__all__ = ["note_training"]


def note_training(served: ServedModel, what: str, **facts: str) -> None:
    """Write what came of a model's training."""
    event = {"what": what, "who": "training", "model": served.name, **facts}
    AuditLog(served.setup.workspace.root.parents[1]).write(CHANGES, event)
