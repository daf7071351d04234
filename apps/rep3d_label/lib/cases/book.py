"""What the server knows of each case, in one place: state, lease, scores, labels, agreement with the prediction.

A list of hundreds of cases is asked for every few seconds, so nothing here reads a volume while somebody waits for it:
facts about labels are remembered with the file's time stamp, and unknown ones are found out in the background.
"""

from __future__ import annotations

import logging
import threading
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from lib.active.knowledge import read_knowledge
from lib.cases.leases import Lease, LeaseBook
from lib.cases.reviews import Reviews
from lib.errors import ConflictError, NotFoundError, RequestError
from lib.labels.facts import LabelFacts, Stamp, file_stamp
from lib.labels.reasons import REPLACED
from lib.models.served import ServedModel
from lib.names import known
from lib.storage.datastore import Rep3DDatastore
from lib.storage.registry import FINAL, CaseFiles
from rep3d.active.strategies import ImageScore
from rep3d.errors import CheckpointError, DamagedFileError, Rep3DError
from rep3d.evaluation.roles import CaseRoles
from rep3d.imaging.nifti import stored_grid

__all__ = ["STATES", "CaseBook"]

logger = logging.getLogger(__name__)

STATES = ("new", "leased", "predicted", "submitted", "reviewed")


@dataclass(frozen=True)
class _Model:
    """What a model says of all cases."""

    scores: Mapping[str, ImageScore]
    roles: Mapping[str, str]


@dataclass(frozen=True)
class _Grid:
    """What is shown of an image's grid, worked out once."""

    facts: Mapping[str, Any]
    voxel_ml: float | None

    @classmethod
    def of(cls, image: Path) -> _Grid:
        try:
            grid = stored_grid(image)
        except Rep3DError as error:
            return cls({"error": str(error)}, None)
        spacing = [round(side, 4) for side in grid.spacing]
        return cls({"shape": list(grid.shape), "spacing": spacing, "axes": "".join(grid.axis_codes)}, grid.voxel_ml)


class CaseBook:
    """All cases of a studies folder.

    Args:
        datastore: images and labels.
        labels: label name to voxel value.
        leases: who works on what.
        reviews: which labels were reviewed.
        served: the models by name; the first is the default.
    """

    def __init__(
        self,
        datastore: Rep3DDatastore,
        labels: Mapping[str, int],
        leases: LeaseBook,
        reviews: Reviews,
        served: Mapping[str, ServedModel],
    ) -> None:
        self._datastore = datastore
        self._names = {value: name for name, value in labels.items()}
        self._leases = leases
        self._reviews = reviews
        self._served = served
        self._grids: dict[Path, tuple[Stamp, _Grid]] = {}
        self._guard = threading.Lock()
        self._unread: dict[Path, Stamp] = {}
        self._unreadable: dict[Path, Stamp] = {}
        self._reader: threading.Thread | None = None

    def cases(self, model: str | None = None, state: str | None = None) -> list[dict[str, Any]]:
        """Return all cases by id; see :meth:`case` for what each has.

        Args:
            model: whose scores and roles; None for the default model.
            state: only cases in this state.

        Raises:
            NotFoundError: for an unknown model.
            RequestError: for an unknown state.
        """
        if state is not None and state not in STATES:
            raise RequestError(f"There is no state {state[:200]!r}. Choose one of: {', '.join(STATES)}.")
        chosen = self._model(model)
        leases = {lease.image: lease for lease in self._leases.all()}
        found = [self._case(files, chosen, leases.get(files.id)) for files in self._datastore.case_files()]
        self._read_in_background()
        return [case for case in found if state is None or case["state"] == state]

    def case(self, image_id: str, model: str | None = None) -> dict[str, Any]:
        """Return one case, with its label read if it was not yet.

        Returns:
            ``state``, ``lease``, ``scores`` (how unsure the published model is; ``score`` is its entropy), ``role``,
            ``labels`` (name to ``voxels`` and ``ml``; None while unknown), ``author``, ``time``, ``source``,
            ``prediction`` (what the label was compared with, and ``dice``), ``predicted`` (the prediction that is
            there now), ``review``, ``tags``, ``image`` and, where the label is that of another image,
            ``label_error``.

        Raises:
            NotFoundError: for an unknown image or model.
        """
        chosen = self._model(model)
        files = self.files(image_id)
        if files.label:
            self._read(files.label)
            with suppress(Rep3DError, OSError):  # of a file that cannot be read, the image's facts say why
                self._datastore.misfit(image_id)
        return self._case(files, chosen, self._leases.holder(image_id))

    def files(self, image_id: str) -> CaseFiles:
        """Return the files of a case; NotFoundError where there is none of that id."""
        self._datastore.image_file(image_id)
        for files in self._datastore.case_files():
            if files.id == image_id:
                return files
        raise NotFoundError(f"Image {image_id} was removed this moment.")

    def review(self, image_id: str, user: str | None) -> dict[str, Any]:
        """Record that the current label of a case was reviewed.

        Returns:
            The case.

        Raises:
            NotFoundError: for an unknown image.
            ConflictError: without a final label.
            LabelError: for one that cannot be read.
        """
        files = self.files(image_id)
        if files.label is None:
            raise ConflictError(f"Image {image_id} has no final label to review. Submit one first.")
        self._reviews.add(image_id, self._datastore.label_facts.of(files.label).digest, user)
        return self.case(image_id)

    def take_review_back(self, image_id: str) -> dict[str, Any]:
        """Remove the review of a case; NotFoundError where there is none."""
        self.files(image_id)
        if not self._reviews.remove(image_id):
            raise NotFoundError(f"The label of image {image_id} has no review to take back.")
        return self.case(image_id)

    def history(self, image_id: str) -> list[dict[str, Any]]:
        """Return the current label, then the earlier ones, the latest first.

        Returns:
            For each ``entry`` (None for the current one), ``tag``, ``author``, ``time``, ``source``, ``reason``
            (``"current"`` or why it is in the history), ``replaced`` (when it came there), ``prediction``, ``changes``.
        """
        files = self.files(image_id)
        current = [{**files.info, "entry": None, "tag": FINAL, "reason": "current"}] if files.label else []
        return [_history_entry(entry) for entry in [*current, *self._datastore.history.entries(image_id)]]

    def _model(self, name: str | None) -> _Model:
        served = known("model", name or next(iter(self._served)), self._served)
        try:
            scores = read_knowledge(served.setup.workspace, served.published.facts()).scores
        except CheckpointError:
            scores = {}  # the model is damaged; the cases are there all the same
        try:
            roles = CaseRoles(served.setup.workspace.roles).read()
        except DamagedFileError:
            roles = {}  # the status says so, and no training begins before it is mended
        return _Model(scores, roles)

    def _case(self, files: CaseFiles, model: _Model, lease: Lease | None) -> dict[str, Any]:
        grid = self._grid(files.image)
        facts = self._known(files.label) if files.label else None
        review = self._reviews.of(files.id, facts.digest if facts else None)
        misfit = self._datastore.seen_misfit(files)
        predicted = self._datastore.predictions.facts(files.id)
        if files.label:
            state = "reviewed" if review else "submitted"
        elif lease:
            state = "leased"
        else:
            state = "predicted" if predicted or files.tags else "new"
        info = files.info
        scores = _measures(model.scores.get(files.id))
        return {
            "id": files.id,
            "file": files.image.name,
            "state": state,
            "lease": {"user": lease.user, "since": lease.since, "until": lease.until} if lease else None,
            "score": scores.get("entropy"),
            "scores": scores,
            "role": model.roles.get(files.id),
            "labels": self._labels(facts, grid.voxel_ml) if facts else None,
            "author": info.get("user"),
            "time": info.get("time"),
            "source": info.get("source"),
            "prediction": info.get("prediction"),
            "predicted": {key: predicted.get(key) for key in ("model", "version", "time")} if predicted else None,
            "review": review,
            "tags": sorted(files.tags),
            "image": grid.facts,
            **({"label_error": misfit} if misfit else {}),
        }

    def _labels(self, facts: LabelFacts, voxel_ml: float | None) -> dict[str, Any]:
        return {
            self._names.get(value, str(value)): {
                "voxels": count,
                "ml": None if voxel_ml is None else round(count * voxel_ml, 4),
            }
            for value, count in facts.counts.items()
            if value
        }

    def _grid(self, image: Path) -> _Grid:
        try:
            stamp = file_stamp(image)
        except FileNotFoundError:  # it was removed this moment
            return _Grid({"error": f"{image.name} is no longer there."}, None)
        read = self._grids.get(image)
        if read is None or read[0] != stamp:
            read = self._grids[image] = stamp, _Grid.of(image)
        return read[1]

    # Facts about label files that nobody has read yet -------------------------------------------------------

    def _known(self, label: Path) -> LabelFacts | None:
        try:
            facts = self._datastore.label_facts.known(label)
            if facts is None:
                stamp = file_stamp(label)
                if self._unreadable.get(label) != stamp:
                    self._unread[label] = stamp
        except FileNotFoundError:  # it was removed this moment
            return None
        return facts

    def _read(self, label: Path) -> bool:
        try:
            stamp = file_stamp(label)
            self._datastore.label_facts.of(label)
        except OSError:
            return False
        except Rep3DError as error:
            logger.warning("label %s cannot be read: %s", label, error)
            self._unreadable[label] = stamp
            return False
        return True

    def _read_in_background(self) -> None:
        with self._guard:
            if self._unread and (self._reader is None or not self._reader.is_alive()):
                self._reader = threading.Thread(target=self._read_all, name="label facts", daemon=True)
                self._reader.start()

    def _read_all(self) -> None:
        while self._unread:
            label, _ = self._unread.popitem()
            self._read(label)
        self._datastore.label_facts.save()


def _measures(score: ImageScore | None) -> dict[str, float]:
    return {name: value for name, value in asdict(score).items() if value is not None} if score else {}


def _history_entry(known: Mapping[str, Any]) -> dict[str, Any]:
    changes = {key: known[key] for key in ("remapped", "resampled", "converted", "restored") if known.get(key)}
    return {
        **{key: known.get(key) for key in ("entry", "tag", "time", "source", "replaced", "prediction", "file")},
        "reason": known.get("reason") or REPLACED,  # entries of older servers do not say
        "author": known.get("user"),
        "changes": changes,
    }
