"""The app: the one class that MONAI Label looks for, and the place where all parts are put together."""

from __future__ import annotations

import atexit
import logging
import os
import sys
import tempfile
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.app import MONAILabelApp
from monailabel.interfaces.datastore import DefaultLabelTag

from lib.access.audit import Auditor
from lib.access.callers import Callers
from lib.access.first_key import make_first_key, say_where
from lib.access.guard import Door
from lib.access.listening import Listening
from lib.access.paths import server_folders
from lib.active.scoring import UncertaintyScoring
from lib.active.strategies import all_strategies
from lib.active.watch import ScoringWatch
from lib.api.access import Bounds, close_door
from lib.api.app_routes import add_routes
from lib.api.dashboard_status import Dashboard, device_name
from lib.api.errors import register_error_handlers
from lib.api.sessions import SafeSessions
from lib.boot.checks import (
    check_port,
    check_writable,
    hold_folder,
    in_child_process,
    in_server_process,
    mark_started,
    say_once,
    server_is_starting,
)
from lib.boot.log import calm_down
from lib.boot.published import damaged_checkpoint
from lib.boot.room import Room
from lib.boot.setup import ModelSetup, Setup
from lib.boot.shutdown import clear_incoming_folders, make_incoming_folder, stop_with_server
from lib.cases.assignment import next_sample
from lib.cases.book import CaseBook
from lib.cases.folder import FolderWatch
from lib.cases.intake import LabelIntake
from lib.cases.leases import LeaseBook
from lib.cases.reviews import Reviews
from lib.cases.thumbnails import Thumbnails
from lib.dicom.importer import DicomImport
from lib.dicom.privacy import Privacy
from lib.errors import RequestError, StartupError
from lib.inference.batch import BatchRunner
from lib.inference.running import RunningRequests
from lib.inference.task import Rep3DInferTask
from lib.lanes.inference import Lane
from lib.lanes.pace import Limits, close_silent_connections
from lib.models.published import PublishedModel
from lib.models.served import ServedModel
from lib.names import known
from lib.state import check_state
from lib.storage.datastore import Rep3DDatastore, Submission
from lib.storage.identity import folder_id
from lib.training.auto import AutoTrain
from lib.training.cases import models_taught
from lib.training.control import TrainingControl
from lib.training.standby import Standby
from lib.training.task import Rep3DTrainTask
from rep3d import __version__
from rep3d.audit import AuditLog
from rep3d.checkpoint import load_checkpoint
from rep3d.errors import (
    CheckpointError,
    DamagedFileError,
    ImageError,
    OutOfMemoryError,
    Rep3DError,
    machine_error,
    said,
)
from rep3d.imaging import limits
from rep3d.imaging.dicom.pseudonyms import Pseudonyms
from rep3d.keys import KeyBook
from rep3d.starter.facts import starter_words
from rep3d.tasks.colours import label_colours
from rep3d.versions.store import VersionStore

__all__ = ["Rep3DLabelApp"]

logger = logging.getLogger(__name__)


class Rep3DLabelApp(MONAILabelApp):
    """Segmentation, active learning and training with Rep3D over one studies folder."""

    def __init__(self, app_dir: str, studies: str, conf: dict[str, str]) -> None:
        try:
            self.setup = self._prepare(studies, conf or {})
        except StartupError as error:
            say_once(error, logger)
            raise
        super().__init__(
            app_dir=app_dir,
            studies=str(self.setup.folder),
            conf=conf or {},
            name="Rep3D Label",
            description="3D segmentation with large re-parameterised kernels that learns from each submitted label",
            version=__version__,
            labels=sorted(self.setup.labels, key=lambda name: self.setup.labels[name]),
        )
        workspace = self.setup.workspace
        unusable = self.datastore().unusable
        self.auditor = Auditor(AuditLog(workspace.root), self.datastore().label_time)
        self.leases = LeaseBook(workspace.leases, self.setup.conf.lease_minutes, unusable=unusable.reasons)
        reviews = Reviews(workspace.reviews)
        self.case_book = CaseBook(self.datastore(), self.setup.labels, self.leases, reviews, self.served)
        self.thumbnails = Thumbnails(workspace.thumbnails, self.setup.labels, self.setup.channels)
        self.auto_train = AutoTrain(
            workspace.auto_train,
            self.setup.conf.train_every,
            self._train_by_itself,
            lambda: self.training.runs(),
        )
        self.training = TrainingControl(self._trainers, self.datastore(), self.auto_train)
        self.intake = LabelIntake(self.leases, reviews, self._count)
        self.batch = BatchRunner(self.served, self.datastore(), self.leases)
        if server_is_starting():
            parts = self.setup.folder, self.served.values(), self.datastore(), self.auto_train
            self.room.do(lambda: check_state(*parts))
        self.folder = FolderWatch(self.datastore(), self.setup.folder, (self.dicom.passed_over,))
        shown = self.datastore(), self.training, self.batch, self.folder, self.dicom, self.problems
        self.dashboard = Dashboard(self.setup, self.served, *shown)
        # MONAI Label would start a scoring process at each start and each next sample; ours runs where one is needed.
        self._auto_update_scoring = False

    def _prepare(self, studies: str, conf: dict[str, str]) -> Setup:
        """Check all that can be checked before anything is written, then make the app's own folder."""
        starting = server_is_starting()
        if starting:
            check_port(_listening(()).host, settings.MONAI_LABEL_SERVER_PORT)
        setup = Setup.find(studies, conf)
        os.environ[limits.VARIABLE] = str(setup.conf.max_voxels)  # of this process and all that it starts
        if starting:
            check_writable(setup.folder)
            _check_adopted(setup.workspace.adopted)
            _check_keys(KeyBook(setup.workspace.root))
        self.room = Room(setup.workspace.root)
        self.served = {name: _served(model) for name, model in setup.models.items()}
        self.requests = RunningRequests()
        self.privacy = Privacy(setup.conf.deidentify, setup.folder, Pseudonyms(setup.workspace.root))
        self.dicom = DicomImport(setup.folder, setup.workspace.root / "dicom.json", self.privacy)
        if starting:
            for model in self.served.values():
                model.load()
            calm_down()
            clear_incoming_folders()
            self.room.do(lambda: hold_folder(setup.folder))  # before anything of another server's is touched
            self.room.do(setup.workspace.clear)
            self.room.do(lambda: setup.workspace.prepare(setup.default_model))
            for model in self.served.values():
                self.room.do(model.begin)
            self.room.do(setup.label_map.write)
            self.room.do(lambda: folder_id(setup.workspace.identity))
            self.room.do(make_incoming_folder)
            self.room.do(self.dicom.run)
        return setup

    @property
    def default_model(self) -> str:
        """The model that requests without a model's name mean."""
        return self.setup.default_model

    # What the app offers ------------------------------------------------------------------------------------

    def init_datastore(self) -> Rep3DDatastore:
        child = in_child_process()
        watch = settings.MONAI_LABEL_DATASTORE_AUTO_RELOAD and not child
        setup = self.setup
        store = Rep3DDatastore(setup.folder, setup.workspace, setup.labels, watch, child, setup.channels)
        store.take_image_file = self.privacy.copy_image
        return store

    def init_infers(self) -> dict[str, Any]:
        return {
            name: Rep3DInferTask(model.published, model.setup.labels, self.requests, name)
            for name, model in self.served.items()
        }

    def init_trainers(self) -> dict[str, Any]:
        return {name: Rep3DTrainTask(model) for name, model in self.served.items()}

    def init_strategies(self) -> dict[str, Any]:
        return dict(all_strategies(self.served, self.default_model))

    def init_scoring_methods(self) -> dict[str, Any]:
        return {"uncertainty": UncertaintyScoring(self.served)}

    def _load_sessions(self, load: bool = False) -> SafeSessions | None:
        path, expiry = settings.MONAI_LABEL_SESSION_PATH, settings.MONAI_LABEL_SESSION_EXPIRY
        return SafeSessions(path, expiry) if load else None

    def info(self) -> dict[str, Any]:
        """MONAI Label's description of the app, and ours under ``"rep3d"``."""
        setup = self.setup
        models = {name: _facts(model) for name, model in self.served.items()}
        default = models[self.default_model]
        ours = {
            "labels": dict(setup.labels),
            "channels": list(setup.channels.names),
            "default_model": self.default_model,
            "default_strategy": setup.conf.strategy,
            "models": models,
            "version": default["version"],
            "preset": default["preset"],
            "error": default["error"],
            "device": setup.device,
            "device_name": device_name(setup.device),
            "problems": self.problems(),
        }
        return {**super().info(), "rep3d": ours}

    def problems(self) -> list[str]:
        """Return what keeps the whole server from saving what it should, for people."""
        return [words for words in (self.room.problem(), self.auditor.log.trouble) if words]

    # What is asked of it ------------------------------------------------------------------------------------

    def check_model(self, model: str) -> None:
        """Refuse a model that is not served (NotFoundError)."""
        known("model", model, self._infers)

    def check_scoring(self, method: str) -> None:
        """Refuse a scoring that cannot run: NotFoundError for an unknown method, NoModelError without a model."""
        known("scoring method", method, self._scoring_methods).check()

    def has_session(self, session_id: str) -> bool:
        """Return whether a session of that id is open."""
        return bool(self._sessions and self._sessions.get_session(session_id))

    def infer(self, request: dict[str, Any], datastore: Rep3DDatastore | None = None) -> dict[str, Any]:
        """Segment an image; see MONAI Label. Only this server's own images and uploads are in reach."""
        task = known("model", request.get("model"), self._infers)
        store = datastore or self.datastore()
        image = request.get("image")
        if not isinstance(image, str) or not image:
            raise RequestError(f"image must be the id of an image, not {str(image)[:200]!r}.")
        upload = image not in store.list_images() and self._is_upload(image)
        path = image if upload else str(store.image_file(image))
        tag = str(request.get("label_tag") or DefaultLabelTag.ORIGINAL.value)
        save = bool(request.get("save_label")) and not upload
        if store.checked_tag(tag) == DefaultLabelTag.FINAL.value and save:
            raise RequestError("The tag 'final' is for labels that people submit. Choose another label_tag.")
        try:
            file, params = task({**request, "image": path, "shown_as": "upload" if upload else image})
        except Exception as error:
            if not upload and (isinstance(error, ImageError) or not isinstance(error, Rep3DError)):
                store.unusable.check(image)  # if it is the image's fault, nobody else should meet it
            if not isinstance(error, (ImageError, OutOfMemoryError)):
                raise
            shown = "the image" if upload else f"image {image}"
            raise type(error)(str(error).replace(os.path.basename(path), shown)) from error
        try:
            if not upload and not request.get("box"):  # with a part of it, no submission could be compared
                self._keep_prediction(image, Path(file), params)
            label = store.save_label(image, file, tag, {"model": request["model"], "params": params}) if save else file
        except BaseException:
            Path(file).unlink(missing_ok=True)
            raise
        return {"label": label, "tag": tag, "file": file, "params": params}

    def _keep_prediction(self, image: str, file: Path, params: dict[str, Any]) -> None:
        """Keep a prediction; where the disk is full, who asked for it gets it all the same."""
        try:
            self.datastore().keep_prediction(image, file, params)
        except OSError as error:
            if machine_error(error) is None:
                raise
            logger.warning("image %s: its prediction was not kept: %s", image, said(error))

    def _is_upload(self, path: str) -> bool:
        """Return whether a path is a file that came with this request, or the image of a session."""
        if not os.path.isabs(path) or not os.path.isfile(path):
            return False
        folder = os.path.dirname(os.path.realpath(path))
        incoming = in_server_process() and folder == os.path.realpath(tempfile.gettempdir())
        return incoming or (self._sessions is not None and self._sessions.owns(path))

    def next_sample(self, request: dict[str, Any]) -> dict[str, Any]:
        """Return which image to annotate next.

        Raises:
            NotFoundError: for an unknown strategy, and where every image has a label or is lent to another.
        """
        strategy = known("strategy", request.get("strategy") or self.setup.conf.strategy, self._strategies)
        return next_sample(strategy, request, self.datastore(), self.leases)

    def _count(self, accepted: Submission) -> None:
        """Count a person's label for the training that may start by itself."""
        if self.setup.conf.train_every:
            self.auto_train.submitted(models_taught(self.served, accepted))

    def _train_by_itself(self, model: str) -> None:
        self.training.start(model, {})
        self.auditor.server("start training", model=model)

    def _door(self) -> Door:
        conf, tokens = self.setup.conf, settings.MONAI_LABEL_AUTH_ENABLE
        listening = _listening(conf.hosts or ())
        origins = (*(conf.origins or ()), *(str(each).rstrip("/") for each in settings.MONAI_LABEL_CORS_ORIGINS))
        locked = tokens or conf.keys == "on" or listening.beyond_loopback
        return Door(listening, Callers(KeyBook(self.setup.workspace.root), tokens), locked, origins)

    def on_init_complete(self) -> None:
        """Complete the HTTP application, which exists by now, with our routes and errors."""
        from monailabel.app import app  # only the server has one, and it is being built while this file is loaded

        add_routes(app)
        register_error_handlers(app)
        door = self._door()
        conf = self.setup.conf
        lane = Lane(conf.infer_at_once, conf.infer_waiting, conf.infer_waiting_each)
        pace = Limits(conf.slow_seconds, conf.slow_rate)
        bounds = Bounds(lane, pace, conf.max_upload * 2**20, self.room.check)
        close_door(app, door, self.auditor, bounds, server_folders(self.setup.folder))
        close_silent_connections(conf.slow_seconds)
        stop_with_server(self.requests.cancel_all)
        self.auditor.server("start server")
        atexit.register(self.auditor.close)
        mark_started()
        super().on_init_complete()
        say_where(door)
        self.room.do(lambda: make_first_key(door, str(self.setup.folder)))
        self.folder.start()
        self.auto_train.watch()
        if conf.standby == "on":
            Standby(self.training.blocks).start()
        if settings.MONAI_LABEL_AUTO_UPDATE_SCORING:
            ScoringWatch(self.served, self.datastore()).start()
        for name, model in self.served.items():
            logger.info(
                "Rep3D Label serves %s of %s: labels %s, device %s, preset %s, version %s",
                name,
                self.setup.folder,
                dict(model.setup.labels),
                model.setup.device,
                model.setup.preset,
                _facts(model)["version"] or "none yet",
            )
            for note in filter(None, (*model.setup.notes, _facts(model)["attribution"])):
                logger.warning("%s", note)


def _listening(hosts: tuple[str, ...]) -> Listening:
    return Listening.from_arguments(sys.argv[1:], settings.MONAI_LABEL_SERVER_PORT, hosts)


def _served(setup: ModelSetup) -> ServedModel:
    published = PublishedModel(setup.workspace.published, setup.labels, setup.device, setup.channels)
    return ServedModel(setup, published, VersionStore(setup.workspace.root))


def _check_adopted(path: Path) -> None:
    """Refuse a checkpoint that was put into the folder and cannot be used."""
    try:
        if path.exists():
            load_checkpoint(path)
    except CheckpointError as error:
        raise damaged_checkpoint(path, error) from error


def _check_keys(book: KeyBook) -> None:
    """Refuse a damaged file of keys: it would let nobody in, and a new one would forget who may."""
    try:
        book.all()
    except DamagedFileError as error:
        raise StartupError(str(error), "Or move it away: then all keys have to be made anew.") from error


def _facts(model: ServedModel) -> dict[str, Any]:
    """Return what clients are told about a model."""
    known = {**model.setup.facts(), "colours": label_colours(model.setup.labels)}
    try:
        facts = model.published.facts()
        told = {"starter": facts.get("starter"), "attribution": starter_words(facts)}
        return {**known, "version": facts.get("version"), "error": None, **told}
    except CheckpointError as error:
        return {**known, "version": None, "error": str(error), "starter": None, "attribution": None}
