"""The clinician's work as a state machine, in parts: `machine` has the commands, the others a subject each.

Needs neither Qt nor Slicer: `view` is what it shows, `ports` what it needs of a user interface.
"""

from .machine import Workflow

__all__ = ["Workflow"]
