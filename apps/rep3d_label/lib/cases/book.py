"""What the server knows of each case, in one place: state, lease, scores, labels, agreement with the prediction.

A list of thousands of cases is asked for every few seconds, so nothing here reads a volume while somebody waits for it,
nor headers for long: facts about files are remembered with their time stamps, and unknown ones are found out in the
background.
"""

from __future__ import annotations

import logging
import math
import threading
import time
from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from typing import Any

from lib.active.knowledge import read_knowledge
from lib.cases.leases import Lease, LeaseBook
from lib.cases.reviews import Reviews
from lib.errors import ConflictError, NotFoundError, RequestError, in_words, is_out_of_memory
from lib.labels.facts import LabelFacts
from lib.labels.reasons import REPLACED
from lib.models.served import ServedModel
from lib.names import known
from lib.storage.datastore import Rep3DDatastore
from lib.storage.entries import FINAL, CaseFiles
from lib.storage.unusable import ImageFacts
from rep3d.active.strategies import ImageScore
from rep3d.errors import CheckpointError, DamagedFileError
from rep3d.evaluation.roles import CaseRoles

__all__ = ["STATES", "CaseBook"]

logger = logging.getLogger(__name__)

_LOOK_SECONDS = 0.5  # at the files of images; of the rest, a list tells what was found in the background
STATES = ("new", "leased", "predicted", "submitted", "reviewed", "unusable")
_FIELDS = (
    *("id", "file", "state", "error", "lease", "score", "scores", "role", "labels", "author", "time", "source"),
    *("submission", "prediction", "predicted", "review", "tags", "image", "label_error"),
)


@dataclass(frozen=True)
class _Look:
    """What cases are told from.

    Attributes:
        scores, roles: what a model says of them.
        predicted: ids of those that have a prediction, or may have one.
        until: time until which the files of images are looked at.
    """

    scores: Mapping[str, ImageScore]
    roles: Mapping[str, str]
    predicted: Collection[str]
    until: float = math.inf


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
        self._guard = threading.Lock()
        self._unread: dict[str, CaseFiles] = {}
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
        look = self._look(model, self._datastore.predictions.images(), time.monotonic() + _LOOK_SECONDS)
        leases = {lease.image: lease for lease in self._leases.all()}
        found = [self._told(files, look, leases.get(files.id)) for files in self._datastore.case_files()]
        self._read_in_background()
        return [case for case in found if state is None or case["state"] == state]

    def case(self, image_id: str, model: str | None = None) -> dict[str, Any]:
        """Return one case, with its label read if it was not yet.

        Returns:
            ``state``, ``error`` (why nobody can use the image), ``lease``, ``scores`` (how unsure the published model
            is; ``score`` is its entropy), ``role``, ``labels`` (name to ``voxels`` and ``ml``; None while unknown),
            ``author``, ``time``, ``source``, ``submission`` (what the client called it), ``prediction`` (what the label
            was compared with, and ``dice``),
            ``predicted`` (the prediction that is there now), ``review``, ``tags``, ``image``, and ``label_error`` (why
            its label is of no use).

        Raises:
            NotFoundError: for an unknown image or model.
        """
        look = self._look(model, (image_id,))
        files = self.files(image_id)
        self._read(files)
        if files.label:
            with suppress(Exception):  # of a file that cannot be read, what is said of it is elsewhere
                self._datastore.misfit(image_id)
        return self._told(files, look, self._leases.holder(image_id))

    def files(self, image_id: str) -> CaseFiles:
        """Return the files of a case; NotFoundError where there is none of that id."""
        return self._datastore.files_of(image_id)

    def review(self, image_id: str, user: str | None, remark: str | None = None) -> dict[str, Any]:
        """Record that the current label of a case was reviewed, with a remark or without.

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
        self._reviews.add(image_id, self._datastore.label_facts.of(files.label).digest, user, remark)
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

    def _look(self, name: str | None, predicted: Collection[str], until: float = math.inf) -> _Look:
        served = known("model", name or next(iter(self._served)), self._served)
        try:
            scores = read_knowledge(served.setup.workspace, served.published.facts()).scores
        except CheckpointError:
            scores = {}  # the model is damaged; the cases are there all the same
        try:
            roles = CaseRoles(served.setup.workspace.roles).read()
        except DamagedFileError:
            roles = {}  # the status says so, and no training begins before it is mended
        return _Look(scores, roles, predicted, until)

    def _told(self, files: CaseFiles, look: _Look, lease: Lease | None) -> dict[str, Any]:
        """Return a case; whatever goes wrong with it costs no other case its place in the list."""
        try:
            return self._case(files, look, lease)
        except Exception as error:
            logger.exception("case %s: what is known of it could not be told", files.id)
            state = "submitted" if files.label else "new"
            told: dict[str, Any] = dict.fromkeys(_FIELDS)
            image = {"error": in_words(error)}
            return {**told, "id": files.id, "state": state, "scores": {}, "tags": [], "image": image, **image}

    def _case(self, files: CaseFiles, look: _Look, lease: Lease | None) -> dict[str, Any]:
        known = self._datastore.unusable
        image = known.look(files) if time.monotonic() < look.until else known.remembered(files)
        unusable = image.reason(files.label is not None)
        facts = self._known(files)
        review = self._reviews.of(files.id, facts.digest if facts else None)
        misfit = self._datastore.seen_misfit(files)
        predicted = self._datastore.predictions.facts(files.id) if files.id in look.predicted else None
        if unusable:
            state, lease = "unusable", None
        elif files.label:
            state = "reviewed" if review else "submitted"
        elif lease:
            state = "leased"
        else:
            state = "predicted" if predicted or files.tags else "new"
        info = files.info
        scores = _measures(look.scores.get(files.id))
        return {
            "id": files.id,
            "file": files.image.name,
            "state": state,
            "error": unusable,
            "lease": {"user": lease.user, "since": lease.since, "until": lease.until} if lease else None,
            "score": scores.get("entropy"),
            "scores": scores,
            "role": look.roles.get(files.id),
            "labels": self._labels(facts, image.voxel_ml) if facts else None,
            "author": info.get("user"),
            "time": info.get("time"),
            "source": info.get("source"),
            "submission": info.get("submission"),
            "prediction": info.get("prediction"),
            "predicted": {key: predicted.get(key) for key in ("model", "version", "time")} if predicted else None,
            "review": review,
            "tags": sorted(files.tags),
            "image": _shown(image),
            "label_error": self._datastore.unusable.label_error(files) or misfit,
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

    # Facts about label files that nobody has read yet -------------------------------------------------------

    def _known(self, files: CaseFiles) -> LabelFacts | None:
        if files.label is None:
            return None
        try:
            facts = self._datastore.label_facts.known(files.label)
        except OSError:  # it was removed this moment
            return None
        if facts is None and not self._datastore.unusable.label_error(files):
            self._unread[files.id] = files
        return facts

    def _read(self, files: CaseFiles) -> None:
        if files.label is None or self._datastore.unusable.label_error(files):
            return
        try:
            self._datastore.label_facts.of(files.label)
        except OSError:  # it was removed this moment
            return
        except Exception as error:  # whatever is wrong with it, others are read
            if is_out_of_memory(error):
                return
            logger.warning("label %s cannot be read: %s", files.label, error)
            self._datastore.unusable.note_label(files, in_words(error))

    def _read_in_background(self) -> None:
        with self._guard:
            if self._unread and (self._reader is None or not self._reader.is_alive()):
                self._reader = threading.Thread(target=self._read_all, name="label facts", daemon=True)
                self._reader.start()

    def _read_all(self) -> None:
        while self._unread:
            self._read(self._unread.popitem()[1])
        self._datastore.label_facts.save()


def _shown(image: ImageFacts) -> dict[str, Any]:
    """Return what is shown of an image's grid."""
    if image.shape is None or image.spacing is None:
        return {"error": image.error}
    told = {"shape": list(image.shape), "spacing": list(image.spacing), "axes": image.axes}
    return {**told, "error": image.error} if image.error else told


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
