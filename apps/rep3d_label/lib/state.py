"""Looking through all state at the start, so that damage is told then and not when somebody works.

What each file is, and what is lost with it, says the table in the app's README.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Iterable
from contextlib import suppress
from pathlib import Path

from lib.active.knowledge import scores_file
from lib.inference.batch import batch_file
from lib.models.served import ServedModel
from lib.storage.datastore import Rep3DDatastore
from lib.training.auto import AutoTrain
from lib.training.run import run_file
from lib.training.scores import scores_of_versions
from lib.training.status import status_file
from rep3d.evaluation.roles import CaseRoles
from rep3d.json_file import DAMAGED, note_kept

__all__ = ["check_state"]

logger = logging.getLogger(__name__)


def check_state(folder: Path, served: Iterable[ServedModel], datastore: Rep3DDatastore, auto_train: AutoTrain) -> None:
    """Read the state files of all models at once, and the many small ones of single images in the background.

    Args:
        folder: the studies folder.
        served: the models.
        datastore: images and labels.
        auto_train: counts labels.
    """
    for place in (folder.glob(f"*{DAMAGED}*"), (folder / "rep3d").rglob(f"*{DAMAGED}*")):
        for kept in place:
            note_kept(kept)
    auto_train.counts()
    for model in served:
        _check_model(model)
    threading.Thread(target=_check_images, args=(datastore,), name="check-state", daemon=True).start()


def _check_model(model: ServedModel) -> None:
    space = model.setup.workspace
    for file in (status_file(space.train_status), scores_file(space), scores_of_versions(space.validation_scores)):
        file.read()
    batch_file(model).read()
    run_file(space.run_set_aside).read()
    run = run_file(space.run).read()
    model.versions.publications()
    records = model.versions.records()
    trained = {case for record in records for case in record.cases} | set(run.get("training", ()))
    measured = {case for record in records for case in record.validation_cases} | set(run.get("validation", ()))
    if CaseRoles(space.roles).mend(trained, measured):
        logger.error("%s: made anew from the records of versions", space.roles)


def _check_images(datastore: Rep3DDatastore) -> None:
    with suppress(OSError):  # what goes away meanwhile
        datastore.history.check()
        datastore.predictions.check()
        datastore.records.check()
        datastore.put_on_record()
