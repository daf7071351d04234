"""The operations of the helper process by name.

A lane keeps the order of what changes something at the server: a training that is started after a label was sent must
not overtake it. What stops something is in no lane, because it must not wait.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from . import ops_cases as cases
from . import ops_files as files
from . import ops_models as models
from .task import Task, failure_of

__all__ = ["OPS", "Op", "Task", "failure_of"]

_WRITE = "write"


@dataclass(frozen=True)
class Op:
    """What to do, and the lane that it is in ("" for none)."""

    run: Callable[[Task], Any]
    lane: str = ""


OPS: dict[str, Op] = {
    "measure": Op(files.measure),
    "next_sample": Op(cases.next_sample),
    "open_case": Op(cases.open_case),
    "infer": Op(cases.infer),
    "submit": Op(cases.submit, _WRITE),
    "upload_image": Op(cases.upload_image, _WRITE),
    "upload_dicom": Op(cases.upload_dicom, _WRITE),
    "cases": Op(cases.cases),
    "history": Op(cases.history),
    "restore": Op(cases.restore, _WRITE),
    "review": Op(cases.review, _WRITE),
    "release": Op(cases.release, _WRITE),
    "test": Op(models.test),
    "train_start": Op(models.train_start, _WRITE),
    "train_stop": Op(models.train_stop),
    "overview": Op(models.overview),
    "versions": Op(models.versions),
    "publish": Op(models.publish, _WRITE),
    "roll_back": Op(models.roll_back, _WRITE),
    "batch_start": Op(models.batch_start, _WRITE),
    "batch_stop": Op(models.batch_stop),
}
