"""The app's own files below the studies folder, and how they are written: whole or not at all.

Everything that the app knows besides images and labels is in ``STUDIES/rep3d``: the models with their versions, scores
and the state of training, earlier labels, removed cases. Moving that folder moves the knowledge with the data.
"""

from __future__ import annotations

import os
import shutil
from dataclasses import dataclass
from itertools import chain
from pathlib import Path

from rep3d.files import PART_SUFFIX, copy_whole, utc_now, whole_file

__all__ = ["ModelWorkspace", "Workspace", "copy_whole", "utc_now", "whole_file"]


class _Below:
    """A path in the folder ``root`` of the object whose attribute it is."""

    def __init__(self, name: str) -> None:
        self._name = name

    def __get__(self, workspace: ModelWorkspace | Workspace, owner: type) -> Path:
        return workspace.root / self._name


@dataclass(frozen=True)
class ModelWorkspace:
    """Paths of what belongs to one served model.

    Attributes:
        root: the folder that holds them, ``STUDIES/rep3d/models/NAME``.
    """

    root: Path

    published = _Below("published.pt")  # the checkpoint that answers requests
    roles = _Below("roles.json")  # which cases train and which validate, for ever, as JSON
    run = _Below("run")  # what a training that has not ended needs to be resumed
    # The interrupted training that another one took the place of, until it can no longer be resumed.
    run_set_aside = _Below("run_set_aside")
    prepared = _Below("prepared")  # images and labels as a training reads them, kept for the next one
    train_status = _Below("train_status.json")  # what the training does or did last, as JSON
    scores = _Below("scores.json")  # how useful each image without a label would be, as JSON
    features = _Below("features.npz")  # encoder features of the images
    validation_scores = _Below("validation_scores.json")  # what versions scored on single held-out cases, as JSON
    batch = _Below("batch.json")  # what the batch inference does or did last, as JSON


@dataclass(frozen=True)
class Workspace:
    """Paths of the app's own data.

    Attributes:
        root: the folder that holds them, ``STUDIES/rep3d``.
    """

    root: Path

    identity = _Below("folder.json")  # which studies folder this is, as JSON
    labels = _Below("labels.json")  # which voxel value stands for which label name, as JSON
    leases = _Below("leases.json")  # who works on which image, as JSON
    reviews = _Below("reviews.json")  # which labels were reviewed, and by whom, as JSON
    keys = _Below("keys.json")  # who may come in, as JSON; see :mod:`rep3d.keys`
    auto_train = _Below("auto_train.json")  # how many labels each model got since its last training began, as JSON
    history = _Below("history")  # earlier labels, one folder per image
    predictions = _Below("predictions")  # the last prediction for each image of the studies folder
    # What the label files contain, remembered so that they are not read again, as JSON.
    label_facts = _Below("label_facts.json")
    label_records = _Below("label_records")  # what is known about each label, one JSON file per image
    # What the headers of images and labels say, remembered likewise: which can be used, and why not.
    image_facts = _Below("image_facts.json")
    thumbnails = _Below("thumbnails")  # small pictures of the cases
    incoming = _Below("incoming")  # what is being unpacked
    removed = _Below("removed")  # images that were removed, with their labels
    models = _Below("models")  # one folder per model

    def model(self, name: str) -> ModelWorkspace:
        """Return where the data of a model are."""
        return ModelWorkspace(self.models / name)

    # Where somebody may put a checkpoint before the server starts; it becomes the default model's.
    adopted = _Below("published.pt")

    def prepare(self, default_model: str) -> None:
        """Make the folders, and take in a checkpoint that was put there.

        Args:
            default_model: the model that a checkpoint at ``published.pt`` is for.
        """
        target = self.model(default_model)
        target.root.mkdir(parents=True, exist_ok=True)
        if self.adopted.exists():
            os.replace(self.adopted, target.published)

    def clear(self) -> None:
        """Remove what a killed process left behind: files that were being written, uploads."""
        studies = self.root.parent
        # In the user's own folders, only what can be nothing but ours.
        ours = f".*.{'[0-9a-f]' * 32}{PART_SUFFIX}"
        places = studies.glob(ours), (studies / "imagesTr").glob(ours), (studies / "labels").rglob(ours)
        for leftover in [*self.root.rglob(f".*{PART_SUFFIX}"), *chain(*places)]:
            leftover.unlink(missing_ok=True)
        shutil.rmtree(self.incoming, ignore_errors=True)
