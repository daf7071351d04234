"""What a server will work with, found out and checked before anything is written.

Which models are served, with which labels and which voxel values: from ``--conf``, from a ``dataset.json`` in the
studies folder, from what was served there before, from the published models, in this order.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from lib.boot.conf import AppConf
from lib.boot.published import Published, with_starter
from lib.boot.sources import StatedData, channels_of_models, check_task_file
from lib.boot.values import OWN_LABELS
from lib.channels import ONE, Channels
from lib.errors import StartupError
from lib.labels.label_map import LabelMap
from lib.labels.recovery import check_recovered, recovered_map
from lib.paths import ModelWorkspace, Workspace
from rep3d.checkpoint import load_checkpoint
from rep3d.errors import ConfigError, Rep3DError
from rep3d.imaging.channels import Files
from rep3d.tasks.config import TaskConfig
from rep3d.tasks.registry import TASKS
from rep3d.training.head import HeadChange, head_change
from rep3d.training.plan import first_config
from rep3d.training.settings import AUTO, TrainSettings
from rep3d.training.start import check_encoder
from rep3d.training.train import task_for_cases

__all__ = ["ModelSetup", "Setup"]


@dataclass(frozen=True)
class ModelSetup:
    """One model that the server serves.

    Attributes:
        name: in addresses: a registered task's name, or ``"rep3d"`` for labels of one's own or a task file's.
        workspace: where its data are.
        labels: label name to the server's voxel value.
        task: how images are prepared, with these labels: as the published model has it, else the registered task; None
            where the first training derives it from the images.
        preset: network of the model, or of the first one to be trained.
        device: where to compute.
        modality: ``"CT"``, ``"MRI"``, ..., if known.
        channels: of its images.
        conf: the settings as given.
        other_values: voxel values that label files may have besides: of other models' labels, and of retired ones.
        head: what the labels mean for the model that is published at the start; None where none is.
        start_from: checkpoint with whose encoder the first training begins; None for none.
        starter: checkpoint of a starter model that is to be its first version; None for none.
        notes: what the user should know about this model, for the log.
    """

    name: str
    workspace: ModelWorkspace
    labels: Mapping[str, int]
    task: TaskConfig | None
    preset: str
    device: str
    modality: str | None
    conf: AppConf
    channels: Channels = ONE
    other_values: tuple[int, ...] = ()
    head: HeadChange | None = None
    start_from: Path | None = None
    starter: Path | None = None
    notes: tuple[str, ...] = ()

    def task_for(self, images: Sequence[Files], start: TaskConfig | None = None) -> TaskConfig:
        """Return the task of a training on some images.

        Args:
            images: the files of each case's.
            start: the task of the model that it goes on from; the voxel size and patch of the settings come first.

        Raises:
            TaskError: if there are no images, and none are needed to know the task.
            ImageError: if one of them is not readable.
        """
        if start and self.task and self.train_settings().resolution == "task":
            return replace(start, spacing=self.task.spacing, roi_size=self.task.roi_size)
        known = start or self.task
        if known:
            return known
        conf = self.conf
        return task_for_cases(
            self.name,
            dict(self.labels),
            images,
            self.modality,
            spacing=conf.spacing,
            roi_size=conf.roi_size,
            channels=self.channels.names,
        )

    def train_settings(self) -> TrainSettings:
        """Return how to train where a request says nothing else."""
        conf, hints = self.conf, self.conf.hints_for(self.name)
        return TrainSettings(
            iterations=conf.iterations,
            max_minutes=conf.max_minutes,
            preset=self.preset,
            device=self.device,
            variant=conf.variant,
            resolution=(hints.resolution or AUTO) if conf.spacing is conf.roi_size is None else "task",
            stages=conf.stages,
        )

    def facts(self) -> dict[str, Any]:
        """Return what clients are told, as plain JSON types."""
        return {
            "labels": dict(self.labels),
            "terms": {name: term.to_dict() for name, term in self.task.terms.items()} if self.task else {},
            "preset": self.preset,
            "modality": self.modality,
            "channels": list(self.channels.names),
            "head": self.head.to_dict() if self.head and self.head.changed else None,
            "notes": list(self.notes),
        }


@dataclass(frozen=True)
class Setup:
    """A server's data, models and machine.

    Attributes:
        folder: the studies folder.
        workspace: the app's own data below it.
        labels: label name to voxel value, of all models served.
        device: where to compute.
        models: by name; the first is the default.
        conf: the settings as given.
        label_map: the server's one map, which also has labels that are no longer served; to be written by the server
            that starts, when all else has been checked.
    """

    folder: Path
    workspace: Workspace
    labels: Mapping[str, int]
    device: str
    models: Mapping[str, ModelSetup]
    conf: AppConf
    label_map: LabelMap

    @property
    def default_model(self) -> str:
        """The model that requests without a model's name mean."""
        return next(iter(self.models))

    @property
    def channels(self) -> Channels:
        """The channels of the images, which are the same for all models."""
        return self.models[self.default_model].channels

    @classmethod
    def find(cls, studies: str, conf: Mapping[str, str]) -> Setup:
        """Read the settings and the studies folder; write nothing.

        Raises:
            StartupError: if a server could not run with them.
        """
        settings = AppConf.parse(conf)
        if studies.startswith(("http://", "https://")):
            raise StartupError(
                f"--studies must be a local folder, not {studies!r}.", "Give the path of a folder with NIfTI images."
            )
        folder = Path(studies).resolve()
        workspace = Workspace(folder / "rep3d")
        damage: StartupError | None = None
        try:
            stored = LabelMap.read(workspace.labels)
        except StartupError as error:
            damage, stored = error, recovered_map(workspace, error)
        dataset = StatedData.read(folder / "dataset.json", needed=settings.labels is None)
        names = _model_names(settings, dataset, stored)
        published = {name: Published.read(workspace, name, adopts=name == names[0]) for name in names}
        wanted = {name: _labels(name, names, settings, dataset, stored, published[name]) for name in names}
        for name, labels in wanted.items():
            if not labels:
                raise StartupError(
                    f"It does not know the label names: there is no --conf labels, no dataset.json in {folder}, and no "
                    f"published model in {workspace.model(name).root}.",
                    "Give them in one of four ways: --conf labels a,b (or a=1,b=3); --conf models with a registered "
                    "task's name (see `rep3d tasks`); a dataset.json with 'labels' in the studies folder; or a "
                    "published model at rep3d/published.pt in it.",
                )
        if damage:
            stated = {**dataset.labels, **(settings.labels if settings.labels and settings.values_given else {})}
            check_recovered(stored, {name for labels in wanted.values() for name in labels}, stated, damage)
        label_map = _label_map(stored, wanted, settings, dataset, published)
        channels = channels_of_models({name: _tasks(name, settings, published[name]) for name in names}, dataset)
        if settings.task:
            check_task_file(settings.task.task.labels, dataset)
        published = {
            name: with_starter(
                published[name],
                workspace.model(name),
                labels,
                _modality(name, settings, dataset),
                channels[name],
                settings,
            )
            for name, labels in wanted.items()
        }
        models = {
            name: _model(name, workspace, label_map, list(labels), settings, dataset, published[name], channels[name])
            for name, labels in wanted.items()
        }
        labels = label_map.of(list({name: None for names in wanted.values() for name in names}))
        return cls(folder, workspace, labels, settings.device, models, settings, label_map)


def _model_names(settings: AppConf, dataset: StatedData, stored: LabelMap) -> tuple[str, ...]:
    """Return what to serve; the first is the default."""
    if settings.models:
        if settings.labels and len(settings.models) > 1 and OWN_LABELS not in settings.models:
            raise StartupError(
                f"--conf labels cannot be given with --conf models {','.join(settings.models)}: whose would they be?",
                f"Leave --conf labels out, or add {OWN_LABELS!r} to --conf models: the labels are then its own.",
            )
        return settings.models
    if dataset.task and (settings.labels is None or set(settings.labels) & set(dataset.task.labels)):
        return (dataset.task.name,)  # also where its labels are extended: its trained model goes on with them
    if settings.labels or dataset.labels:
        return (OWN_LABELS,)
    known = tuple(name for name in stored.served if name == OWN_LABELS or name in TASKS)
    return known or (OWN_LABELS,)


def _labels(
    name: str,
    names: Sequence[str],
    settings: AppConf,
    dataset: StatedData,
    stored: LabelMap,
    published: Published,
) -> dict[str, int]:
    """Return a model's labels with the voxel values that it would like; empty where nothing says what they are."""
    if settings.labels and (name == OWN_LABELS or len(names) == 1):
        return dict(settings.labels)
    if name in TASKS:
        return dict(TASKS[name].labels)
    if dataset.labels:
        return dict(dataset.labels)
    if name in stored.models:
        return stored.of(stored.models[name])
    return dict(published.task.labels) if published.task else {}


def _label_map(
    stored: LabelMap,
    wanted: Mapping[str, Mapping[str, int]],
    settings: AppConf,
    dataset: StatedData,
    published: Mapping[str, Published],
) -> LabelMap:
    """Return the stored map with the labels wanted now."""
    fixed = dict(settings.labels or {}) if settings.values_given else {}
    served = {name for labels in wanted.values() for name in labels}
    # The folder's label files have the data set's values, unless the user says otherwise.
    stated = {
        name: value
        for name, value in dataset.labels.items()
        if name in served and name not in fixed and value not in fixed.values()
    }
    reserved = dict(dataset.labels)
    for model in published.values():
        for name, value in model.task.labels.items() if model.task else ():
            reserved.setdefault(name, value)
    return stored.extended(wanted, {**fixed, **stated}, reserved)


def _model(
    name: str,
    workspace: Workspace,
    label_map: LabelMap,
    names: Sequence[str],
    settings: AppConf,
    dataset: StatedData,
    published: Published,
    channels: Channels,
) -> ModelSetup:
    labels = label_map.of(names)
    own = _own_task(name, settings)
    registered = own or TASKS.get(name)
    but = ", but for its channels" if dataset.channels else ""
    notes = [f"dataset.json is not used{but}: {dataset.problem}"] if dataset.problem else []
    notes += [f"{name}: {published.note}"] if published.note else []
    task = head = None
    if published.task:
        head = head_change(published.task.labels, labels)
        if not head.kept:
            notes.append(
                f"{name}: the published model knows none of the labels {', '.join(labels)}, so it segments nothing "
                "until the next training; that keeps the model's body and begins its head anew"
            )
        elif head.changed:
            notes.append(f"{name}: in the next training, {head.message}")
        task = replace(
            published.task,
            roi_size=settings.roi_size or published.task.roi_size,
            spacing=settings.spacing or published.task.spacing,
        )
    elif registered:
        task = replace(
            registered,
            roi_size=settings.roi_size or registered.roi_size,
            spacing=settings.spacing or registered.spacing,
        )
    if task:
        task = task.with_labels(labels)
        terms = registered.terms if registered else {}
        task = replace(task, terms={**{label: terms[label] for label in labels if label in terms}, **task.terms})
    if published.task and own and published.task.intensities != own.intensities:
        notes.append(f"{name}: the published model scales intensities in its own way, and not as --conf task says")
    preset = _preset(name, settings, published)
    if settings.start_from and published.task:
        notes.append(f"{name}: --conf start_from has no effect: trainings go on from the published model")
    return ModelSetup(
        name=name,
        workspace=workspace.model(name),
        labels=labels,
        task=task,
        preset=preset,
        device=settings.device,
        modality=_modality(name, settings, dataset),
        conf=settings,
        channels=channels,
        other_values=tuple(sorted(set(label_map.values.values()) - set(labels.values()))),
        head=head,
        start_from=None if published.task else _start_from(settings, workspace, preset),
        starter=published.path if published.is_offered else None,
        notes=tuple(notes),
    )


def _own_task(name: str, settings: AppConf) -> TaskConfig | None:
    """Return the task of ``--conf task``, for the model that it is for."""
    return settings.task.task if settings.task and name == OWN_LABELS else None


def _tasks(name: str, settings: AppConf, published: Published) -> dict[str, TaskConfig]:
    """Return what says which images a model takes, with the words for it; what counts most comes first."""
    found = {
        f"the published model {published.path}": published.task,
        "--conf task": _own_task(name, settings),
        f"the registered task {name}": TASKS.get(name),
    }
    return {words: task for words, task in found.items() if task}


def _modality(name: str, settings: AppConf, dataset: StatedData) -> str | None:
    registered = _own_task(name, settings) or TASKS.get(name)
    return settings.modality or (registered.modality if registered else dataset.modality)


def _listed(values: Sequence[float]) -> str:
    return ",".join(f"{value:g}" for value in values)


def _preset(name: str, settings: AppConf, published: Published) -> str:
    preset = settings.preset_for(name, published.facts.get("preset"))
    if settings.preset not in (None, preset):
        raise StartupError(
            f"The preset of the published model is {preset}, not {settings.preset} as in --conf preset.",
            f"Leave --conf preset out, or move {published.path} away to begin anew with another network.",
        )
    try:
        TrainSettings(preset=preset, variant=settings.variant)
    except ConfigError as error:
        raise StartupError(f"--conf preset and variant cannot be used together. {error}") from error
    return preset


def _start_from(settings: AppConf, workspace: Workspace, preset: str) -> Path | None:
    """Return the checkpoint whose encoder a first training begins with, which is a network of that preset."""
    asked = settings.start_from
    if asked is None:
        return None
    path = workspace.model(asked).published if asked in (*TASKS, OWN_LABELS) else Path(asked).absolute()
    try:
        wanted = first_config(TrainSettings(preset=preset, variant=settings.variant), 2, (96, 96, 96))
        check_encoder(wanted, load_checkpoint(path))
    except Rep3DError as error:
        raise StartupError(
            f"--conf start_from {asked} cannot be used. {error}", "Correct it, or leave it out."
        ) from error
    return path
