"""Batch inference: the published model segments every image that has no label yet.

It runs in a thread of the server, with the same network as all requests: between two windows of an image others get
their turn. What it makes are predictions, kept under a tag of their own, never over a label that a person made. Which
images are done is read from the predictions themselves, so a run that was stopped, or whose server was killed, is
resumed by starting it again.
"""

from __future__ import annotations

import atexit
import logging
import tempfile
import threading
import time
import uuid
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from lib.cases.leases import LeaseBook
from lib.errors import ConflictError, NotFoundError, RequestError, in_words
from lib.models.audit import note_run
from lib.models.served import ServedModel
from lib.names import known
from lib.paths import utc_now
from lib.storage.datastore import Rep3DDatastore
from rep3d.errors import InferenceCancelled
from rep3d.inference.predictor import Predictor
from rep3d.inference.views import check_views
from rep3d.json_file import JsonFile, json_object

__all__ = ["IMAGES", "BatchRequest", "BatchRunner", "batch_file", "batch_tag"]

logger = logging.getLogger(__name__)

IMAGES = ("unlabeled", "all", "labeled")
_MADE_BY = "batch"  # how a prediction of ours is told from a label that somebody submitted under the same tag
_STOP_SECONDS = 10.0
_NAMED = 10  # of the images that cannot be used
_OTHERS_KEYS = frozenset(
    {"device", "multi_gpu", "gpus", "logging", "save_label", "max_workers", "max_batch_size", "model"}
)


def batch_tag(model: str) -> str:
    """Return the tag of the predictions of a model's batch inference."""
    return f"batch-{model}"


@dataclass(frozen=True)
class BatchRequest:
    """What a batch inference is to do.

    Attributes:
        images: ``"unlabeled"``, ``"labeled"`` (by a final label) or ``"all"``.
        views: test-time views of each image, averaged.
        again: also images that this version has segmented already.
    """

    images: str = "unlabeled"
    views: int = 1
    again: bool = False

    @classmethod
    def parse(cls, params: Mapping[str, Any], model: str, images: str | None = None) -> BatchRequest:
        """Check what a client sent. Keys that MONAI Label's own batch inference knows are accepted where harmless.

        Raises:
            RequestError: naming the field.
            ConfigError: if there are not so many views.
        """
        images = str(params.get("images", images) or cls.images)
        if images not in IMAGES:
            raise RequestError(f"images must be one of {', '.join(IMAGES)}, not {images[:100]!r}.")
        views = params.get("views", cls.views)
        check_views(views)
        again = params.get("again", cls.again)
        if not isinstance(again, bool):
            raise RequestError(f"again must be true or false, not {str(again)[:100]!r}.")
        if params.get("label_tag", batch_tag(model)) != batch_tag(model):
            raise RequestError(
                f"Batch inference saves its predictions under the tag {batch_tag(model)!r} only. Leave label_tag out."
            )
        unknown = sorted(set(params) - {"images", "views", "again", "label_tag"} - _OTHERS_KEYS)
        if unknown:
            raise RequestError(f"There is no setting {', '.join(unknown)[:200]}. Choose among images, views and again.")
        return cls(images, views, again)


@dataclass
class _Run:
    """One run: what the thread works on and what is shown of it. Attributes are those of the file ``batch.json``."""

    id: str
    model: str
    version: str
    created: str | None
    images: str
    views: int
    again: bool
    tag: str
    user: str | None
    phase: str = "running"
    started: str = field(default_factory=utc_now)
    updated: str = field(default_factory=utc_now)
    total: int = 0
    done: int = 0
    kept: int = 0
    labelled: int = 0
    current: str | None = None
    eta_seconds: float | None = None
    failed: dict[str, str] = field(default_factory=dict)
    error: str | None = None


class BatchRunner:
    """Runs batch inferences, one at a time for the whole server.

    Args:
        served: the models by name.
        datastore: images and labels.
        leases: who works on which image.
    """

    def __init__(self, served: Mapping[str, ServedModel], datastore: Rep3DDatastore, leases: LeaseBook) -> None:
        self._served = served
        self._datastore = datastore
        self._leases = leases
        self._guard = threading.Lock()
        self._run: _Run | None = None
        self._thread: threading.Thread | None = None
        self._stop = threading.Event()

    def start(self, model: str, request: BatchRequest, user: str | None = None) -> dict[str, Any]:
        """Start, or resume, a run.

        Returns:
            Its state, see :meth:`status`.

        Raises:
            NotFoundError: for an unknown model.
            ConflictError: while a run is under way, without a trained model, and where there is no image to segment.
            CheckpointError: if the published model is damaged or knows none of the labels.
        """
        served = known("model", model, self._served)
        with self._guard:
            if self._running():
                assert self._run is not None
                raise ConflictError(
                    f"A batch inference of {self._run.model} is running already. Wait until it has ended, or stop it."
                )
            predictor = served.published.predictor()
            images = self._images(request.images)
            reasons = self._datastore.unusable.reasons()
            unusable = {image: reasons[image] for image in images if image in reasons}
            if len(unusable) == len(images):
                total = len(self._datastore.list_images())
                named = "".join(f" {image}: {reason}" for image, reason in sorted(unusable.items())[:_NAMED])
                left_out = f" Left out because nobody can use them:{named}" if named else ""
                raise ConflictError(f"Nothing to segment: none of the {total} images is {request.images}.{left_out}")
            run = _Run(
                id=uuid.uuid4().hex,
                model=model,
                version=predictor.version,
                created=predictor.info.get("created"),
                tag=batch_tag(model),
                user=user,
                total=len(images),
                failed=unusable,
                **asdict(request),
            )
            self._write(run)
            self._stop = threading.Event()
            self._run = run
            self._thread = threading.Thread(
                target=self._work, args=(run, predictor, images, self._stop), name=f"batch-{model}", daemon=True
            )
            self._thread.start()
            # A thread in the middle of a network while the interpreter goes away could crash the process.
            atexit.register(self.stop)
        return self.status(model)

    def stop(self, seconds: float = _STOP_SECONDS) -> None:
        """Stop the run, if there is one, and wait for its thread, at most so many seconds."""
        with self._guard:
            thread = self._thread
            if self._run and self._running() and self._run.phase == "running":  # else it has just ended
                self._run.phase = "stopping"
                self._stop.set()
        if thread:
            thread.join(seconds)

    def status(self, model: str) -> dict[str, Any]:
        """Return what the model's run does or did last.

        Returns:
            ``phase`` is ``"never"``, ``"running"``, ``"stopping"``, ``"stopped"``, ``"done"`` or ``"error"``;
            ``total`` images to segment, of which ``done`` now, ``kept`` from earlier (same version and settings),
            ``labelled`` by a person meanwhile, and ``failed`` with reasons (unusable ones, too);
            ``current`` image; ``eta_seconds``;
            ``version`` of the model, which is the same for the whole run, whatever is published meanwhile.

        Raises:
            NotFoundError: for an unknown model.
        """
        served = known("model", model, self._served)
        run = self._run
        if run and run.model == model:
            return asdict(run)
        record = batch_file(served).read()
        if not record:
            return {"model": model, "phase": "never", "tag": batch_tag(model)}
        if record.get("phase") in ("running", "stopping"):
            words = "The server ended while this batch inference ran. Start it again to go on."
            record.update(phase="stopped", current=None, eta_seconds=None, error=words)
        return record

    @property
    def running(self) -> str | None:
        """The model that a batch inference runs for."""
        run = self._run
        return run.model if run and self._running() else None

    def last(self) -> dict[str, Any] | None:
        """Return the state of this server's newest run, or None where none was started since it is up."""
        run = self._run
        return asdict(run) if run else None

    # The work -----------------------------------------------------------------------------------------------

    def _work(self, run: _Run, predictor: Predictor, images: list[str], stop: threading.Event) -> None:
        try:
            self._segment_all(run, predictor, images, stop)
        except Exception as error:  # a thread has nobody to raise to: the record says it
            logger.exception("batch inference of %s ended", run.model)
            run.phase, run.error = "error", in_words(error)
        run.current, run.eta_seconds = None, None
        self._write(run)
        note_run(self._served[run.model], "batch", "batch ended", result=run.phase)
        logger.info("batch inference of %s %s: %d done, %d failed", run.model, run.phase, run.done, len(run.failed))

    def _segment_all(self, run: _Run, predictor: Predictor, images: list[str], stop: threading.Event) -> None:
        todo = []
        for image in images:
            if not run.again and self._is_done(image, run):
                run.kept += 1
                run.failed.pop(image, None)
            elif image not in run.failed:
                todo.append(image)
        started = time.monotonic()
        for count, image in enumerate(todo):
            if count:
                run.eta_seconds = (time.monotonic() - started) / count * (len(todo) - count)
            run.current = image
            self._write(run)
            try:
                if stop.is_set():
                    raise InferenceCancelled("stopped on request")
                if run.images == "unlabeled" and image not in self._datastore.get_unlabeled_images():
                    run.labelled += 1  # meanwhile, by a person
                    continue
                self._segment(run, predictor, image, stop)
            except InferenceCancelled:
                run.phase, run.error = "stopped", "Stopped on request. Start it again to go on."
                return
            except Exception as error:  # one image must not end the run
                run.failed[image] = self._why_not(image, error)
                logger.warning("batch inference: image %s failed: %s", image, run.failed[image])
            else:
                run.done += 1
        run.phase = "done"

    def _why_not(self, image: str, error: Exception) -> str:
        """Return why an image could not be segmented, and note it for all if it is the image's fault."""
        try:
            return self._datastore.unusable.check(image) or in_words(error)
        except NotFoundError:  # removed meanwhile
            return in_words(error)

    def _segment(self, run: _Run, predictor: Predictor, image: str, stop: threading.Event) -> None:
        source = self._datastore.channels.files(self._datastore.image_file(image))
        self._refuse_others_label(image, run.tag)
        with tempfile.TemporaryDirectory() as scratch:
            file = Path(scratch) / "prediction.nii.gz"
            result = predictor.segment(source, file, views=run.views, cancelled=stop.is_set)
            info = {
                "model": run.model,
                "version": run.version,
                "params": {"label_names": dict(self._served[run.model].setup.labels), **asdict(result)},
                "settings": {"views": run.views},
                "made_by": _MADE_BY,
                "batch": run.id,
            }
            self._refuse_others_label(image, run.tag)
            self._datastore.save_label(image, str(file), run.tag, info)
            if not (self._leases.holder(image) and self._datastore.predictions.facts(image)):
                # The submission is compared with it later; who works on the image now was shown the one before.
                self._datastore.keep_prediction(image, file, info)

    def _is_done(self, image: str, run: _Run) -> bool:
        """Return whether the image has a prediction of the same model's same version, made with the same settings."""
        try:
            info = self._tag_info(image, run.tag)
        except NotFoundError:  # removed meanwhile
            return False
        return bool(
            info
            and info.get("made_by") == _MADE_BY
            and info.get("version") == run.version
            and info.get("settings") == {"views": run.views}
            # Names of versions repeat where training began anew: the prediction must be the younger one.
            and (not run.created or str(info.get("time", "")) >= run.created)
        )

    def _refuse_others_label(self, image: str, tag: str) -> None:
        info = self._tag_info(image, tag)
        if info is not None and info.get("made_by") != _MADE_BY:
            raise ConflictError(f"There is a label with the tag {tag!r} that no batch inference made. It was kept.")

    def _tag_info(self, image: str, tag: str) -> dict[str, Any] | None:
        tags = self._datastore.get_labels_by_image_id(image)
        return self._datastore.get_label_info(image, tag) if tag in tags else None

    def _images(self, which: str) -> list[str]:
        if which == "unlabeled":
            return sorted(self._datastore.get_unlabeled_images())
        return sorted(self._datastore.get_labeled_images() if which == "labeled" else self._datastore.list_images())

    # Bookkeeping --------------------------------------------------------------------------------------------

    def _running(self) -> bool:
        return self._thread is not None and self._thread.is_alive()

    def _write(self, run: _Run) -> None:
        run.updated = utc_now()
        batch_file(self._served[run.model]).write(asdict(run))


def batch_file(served: ServedModel) -> JsonFile[dict[str, Any]]:
    """Return what a model's batch inference does or did last; empty where there was none."""
    lost = "what the last batch inference did; its predictions are there"
    return JsonFile(served.setup.workspace.batch, _parsed, lost, dict, begins_anew=True)


def _parsed(content: Any) -> dict[str, Any]:
    return json_object(content, model=str, phase=str, tag=str, total=int, done=int, failed=dict)
