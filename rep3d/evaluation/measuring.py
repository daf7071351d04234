"""A case measured: its prediction is made or found, compared with the truth, and what came of it is kept.

What was done before is not done again: a prediction is kept as long as model and image are the same, scores as long as
all files are. So an interrupted evaluation goes on, a corrected label is compared with the prediction that is there,
and another tolerance needs no network.
"""

from __future__ import annotations

import hashlib
import os
import re
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import Protocol

from rep3d.data.cases import Case, LeftOut, shown
from rep3d.errors import LabelError, OutputError, Rep3DError, TaskError
from rep3d.evaluation.records import Record, Records
from rep3d.evaluation.scoring import score_files
from rep3d.files import file_hash, known_hash, write_text
from rep3d.imaging.channels import channels_grid, count_channels
from rep3d.imaging.grid import Geometry
from rep3d.imaging.labels import check_grid
from rep3d.imaging.nifti import stored_grid
from rep3d.output import same_file

__all__ = [
    "MADE",
    "RECORDS",
    "GivenPredictions",
    "MadePredictions",
    "Measuring",
    "Predictions",
    "as_computed",
    "model_identity",
    "require_one_model",
]

RECORDS = "scores.jsonl"
MADE = "made.txt"
"""Beside predictions, the SHA-256 of each that was made there: what else is there is somebody's work."""
_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)


class Predictions(Protocol):
    """Where the predicted label maps come from."""

    def of(self, case: Case, earlier: list[Record]) -> tuple[str, Path]:
        """Return what tells the image from others (empty where none is read), and the file of its prediction.

        Args:
            case: the case.
            earlier: what was measured of it by this model before, the latest first.
        """


class GivenPredictions:
    """Label maps in a folder, each of them named like its case.

    Attributes:
        left_out: what else is there.

    Args:
        folder: the folder.
        cases: ids of the cases that there are.

    Raises:
        TaskError: if the folder cannot be read.
    """

    def __init__(self, folder: Path, cases: set[str]) -> None:
        self._folder = folder
        self._files: dict[str, list[Path]] = {}
        self.left_out: list[LeftOut] = []
        try:
            files = sorted(folder.iterdir())
        except OSError as error:
            raise TaskError(f"--predictions: {folder} cannot be read as a folder ({error.strerror}).") from error
        for file in files:
            id_ = _ENDING.sub("", file.name)
            if _ENDING.search(file.name) and id_ in cases:
                self._files.setdefault(id_, []).append(file)
            elif _ENDING.search(file.name):
                self.left_out.append(LeftOut(id_, file.name, "--data has no labelled case of that name."))

    @property
    def files(self) -> list[Path]:
        """Those of the cases."""
        return [file for files in self._files.values() for file in files]

    def of(self, case: Case, earlier: list[Record]) -> tuple[str, Path]:
        """See :class:`Predictions`.

        Raises:
            LabelError: if there is none, or more than one, if it is the truth, or the truth lies off its image.
        """
        files = self._files.get(case.id, [])
        if not files:
            raise LabelError(f"There is no prediction {case.id}.nii.gz or {case.id}.nii in {self._folder}.")
        if len(files) > 1:
            raise LabelError(f"There are several predictions: {', '.join(file.name for file in files)}. Keep one.")
        if same_file(files[0], case.label):
            raise LabelError(f"{files[0]} is the true label map itself. Give the folder of the predictions.")
        try:
            grid = channels_grid(case.channels, count_channels(case.channels))
        except Rep3DError:  # not even its grid is needed: label maps of an image that cannot be read are measured
            return "", files[0]
        _check_truth(case, grid)
        return "", files[0]


def _check_truth(case: Case, grid: Geometry) -> None:
    check_grid(stored_grid(case.label), grid, shown(case.label), shown(case.image))


class MadePredictions:
    """Label maps that a model makes, kept in a folder. What is there and was not made so, or was changed since, stays.

    Args:
        folder: where they are kept.
        segment: segments an image, given as its files, into a label file.
        channels: of the images.
    """

    def __init__(self, folder: Path, segment: Callable[[Sequence[Path], Path], object], channels: int = 1) -> None:
        self._folder = folder
        self._segment = segment
        self._channels = channels

    def of(self, case: Case, earlier: list[Record]) -> tuple[str, Path]:
        """See :class:`Predictions`; raises what segmentation does.

        Raises:
            OutputError: if a label map is there that this did not make.
        """
        file = self._folder / f"{case.id}.nii.gz"
        image = "+".join(map(file_hash, case.channels))
        there = known_hash(file) if file.is_file() else None
        if there in {record.prediction for record in earlier if record.image == image}:
            return image, file
        if os.path.lexists(file) and there not in {*self._made(), *(record.prediction for record in earlier)}:
            raise OutputError(
                f"{file} is not, or no longer, what this evaluation made, and what a person drew is not replaced. It "
                f"stays: move it away, or give another folder."
            )
        _check_truth(case, channels_grid(case.channels, self._channels))
        self._make(case.channels, file)
        return image, file

    def _made(self) -> list[str]:
        kept = self._folder / MADE
        return kept.read_text(encoding="utf-8").split() if kept.exists() else []

    def _make(self, image: Sequence[Path], file: Path) -> None:
        """Segment an image beside the place of its prediction; it is known as made before it comes there."""
        new = file.with_name(f".{file.name}")
        try:
            self._segment(image, new)
            write_text(self._folder / MADE, "".join(f"{made}\n" for made in [*self._made(), file_hash(new)]))
            new.replace(file)
        finally:
            new.unlink(missing_ok=True)


class Measuring:
    """Measures cases, one after the other.

    Args:
        records: keeps what was measured.
        predictions: makes or finds the predicted label maps.
        model: what tells the model from all others.
        labels: label name to voxel value, in truth and prediction.
        tolerance_mm: of the surface Dice.
        ignore: value in true label maps of which nothing is known; None where there is none.
        others: values that label maps may have beside those, such as those of labels that the model does not know.
    """

    def __init__(
        self,
        records: Records,
        predictions: Predictions,
        model: str,
        labels: Mapping[str, int],
        tolerance_mm: float,
        ignore: int | None = None,
        others: Collection[int] = (),
    ) -> None:
        self._records = records
        self._predictions = predictions
        self._model = model
        self._labels = dict(labels)
        self._tolerance = tolerance_mm
        self._ignore = ignore
        self._fine = sorted({*labels.values(), *others})  # those that were not annotated in a case among them

    def __call__(self, case: Case) -> tuple[Record, Path]:
        """Return what was measured of a case, now or before, and the file of its prediction.

        Raises:
            LabelError: if prediction or label is no label map, has unexpected values, or they lie on different grids.
            OSError: if a file cannot be read, or the record not be written.
        """
        earlier = [record for record in self._records.of(case.id) if record.model == self._model]
        image, file = self._predictions.of(case, earlier)
        labels = case.known(self._labels)
        truth, prediction = file_hash(case.label), known_hash(file)
        on = (image, truth, prediction, labels, self._tolerance)
        wanted = Record(self._model, case.id, *on, {}, self._ignore, self._fine)
        for record in earlier:
            if record.same_measured(wanted):
                return record, file
        scores = score_files(file, case.label, labels, self._tolerance, self._ignore, self._fine)
        measured = Record(**{**vars(wanted), "scores": scores})
        self._records.add(measured)
        return measured, file


def model_identity(checkpoint: Path | None, predictions: Path | None) -> str:
    """Return what tells a model from all others: the SHA-256 of its file; of given predictions, that of their place."""
    if checkpoint is not None:
        return file_hash(checkpoint)
    assert predictions is not None, "one of the two is given"
    return hashlib.sha256(str(predictions.resolve()).encode()).hexdigest()


def as_computed(identity: str, tuned: str | None) -> str:
    """Return what tells a model's label maps from all others.

    Args:
        identity: the model's, see :func:`model_identity`.
        tuned: how it is computed faster, which makes other label maps; None where plainly.
    """
    return hashlib.sha256(f"{identity} {tuned}".encode()).hexdigest() if tuned else identity


def require_one_model(records: Records, model: str, option: str) -> None:
    """Refuse a folder that holds the evaluation of another model, which would be lost.

    Raises:
        OutputError: if it does.
    """
    if records.models - {model}:
        raise OutputError(
            f"{option}: {records.path.parent} holds the evaluation of another model, or of this one computed in "
            f"another way (see rep3d tune). Give another folder, or remove it."
        )
