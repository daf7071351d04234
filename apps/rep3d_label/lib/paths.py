"""The app's own files below the studies folder, and how they are written: whole or not at all.

Everything that the app knows besides images and labels is in ``STUDIES/rep3d``: the models with their versions, scores
and the state of training, earlier labels, removed cases. Moving that folder moves the knowledge with the data.
"""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path

from rep3d.files import PART_SUFFIX, copy_whole, utc_now, whole_file

__all__ = ["ModelWorkspace", "Workspace", "copy_whole", "utc_now", "whole_file"]


@dataclass(frozen=True)
class ModelWorkspace:
    """Paths of what belongs to one served model.

    Attributes:
        root: the folder that holds them, ``STUDIES/rep3d/models/NAME``.
    """

    root: Path

    @property
    def published(self) -> Path:
        """The checkpoint that answers requests."""
        return self.root / "published.pt"

    @property
    def roles(self) -> Path:
        """Which cases train and which validate, for ever, as JSON."""
        return self.root / "roles.json"

    @property
    def run(self) -> Path:
        """What a training that has not ended needs to be resumed."""
        return self.root / "run"

    @property
    def run_set_aside(self) -> Path:
        """The interrupted training that another one took the place of, until it can no longer be resumed."""
        return self.root / "run_set_aside"

    @property
    def train_status(self) -> Path:
        """What the training does or did last, as JSON."""
        return self.root / "train_status.json"

    @property
    def scores(self) -> Path:
        """How useful each image without a label would be, as JSON."""
        return self.root / "scores.json"

    @property
    def features(self) -> Path:
        """Encoder features of the images."""
        return self.root / "features.npz"

    @property
    def validation_scores(self) -> Path:
        """What versions scored on single held-out cases, as JSON."""
        return self.root / "validation_scores.json"

    @property
    def batch(self) -> Path:
        """What the batch inference does or did last, as JSON."""
        return self.root / "batch.json"


@dataclass(frozen=True)
class Workspace:
    """Paths of the app's own data.

    Attributes:
        root: the folder that holds them, ``STUDIES/rep3d``.
    """

    root: Path

    @property
    def labels(self) -> Path:
        """Which voxel value stands for which label name, as JSON."""
        return self.root / "labels.json"

    @property
    def leases(self) -> Path:
        """Who works on which image, as JSON."""
        return self.root / "leases.json"

    @property
    def reviews(self) -> Path:
        """Which labels were reviewed, and by whom, as JSON."""
        return self.root / "reviews.json"

    @property
    def auto_train(self) -> Path:
        """How many labels each model got since its last training began, as JSON."""
        return self.root / "auto_train.json"

    @property
    def history(self) -> Path:
        """Earlier labels, one folder per image."""
        return self.root / "history"

    @property
    def predictions(self) -> Path:
        """The last prediction for each image of the studies folder."""
        return self.root / "predictions"

    @property
    def label_facts(self) -> Path:
        """What the label files contain, remembered so that they are not read again, as JSON."""
        return self.root / "label_facts.json"

    @property
    def thumbnails(self) -> Path:
        """Small pictures of the cases."""
        return self.root / "thumbnails"

    @property
    def removed(self) -> Path:
        """Images that were removed, with their labels."""
        return self.root / "removed"

    @property
    def models(self) -> Path:
        """One folder per model."""
        return self.root / "models"

    def model(self, name: str) -> ModelWorkspace:
        """Where the data of a model are."""
        return ModelWorkspace(self.models / name)

    @property
    def adopted(self) -> Path:
        """Where somebody may put a checkpoint before the server starts; it becomes the default model's."""
        return self.root / "published.pt"

    def prepare(self, default_model: str) -> None:
        """Makes the folders, takes in a checkpoint that was put there, and removes what a killed process left behind.

        Args:
            default_model: the model that a checkpoint at ``published.pt`` is for.
        """
        target = self.model(default_model)
        target.root.mkdir(parents=True, exist_ok=True)
        for leftover in self.root.rglob(f".*{PART_SUFFIX}"):
            leftover.unlink(missing_ok=True)
        if self.adopted.exists():
            os.replace(self.adopted, target.published)
