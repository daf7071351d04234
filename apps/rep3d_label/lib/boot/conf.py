"""The app's settings, as given by ``--conf KEY VALUE``: one table of what exists, and checks with clear refusals."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lib.boot.values import (
    OWN_LABELS,
    number,
    one_of,
    parse_device,
    parse_hosts,
    parse_labels,
    parse_modality,
    parse_models,
    parse_origins,
    parse_preset,
    parse_roi_size,
    parse_spacing,
    parse_task,
)
from lib.errors import StartupError
from rep3d.active.strategies import STRATEGIES
from rep3d.imaging.limits import MAX_VOXELS
from rep3d.nn.config import SPATIAL_PRIORS
from rep3d.nn.zoo import preset_words
from rep3d.tasks.file import TaskFile, TrainingHints
from rep3d.tasks.registry import TASKS
from rep3d.training.minutes.speed import default_preset
from rep3d.training.settings import STAGES

__all__ = ["OPTIONS", "AppConf", "Option", "options_text"]

# Keys that MONAI Label's own apps and clients pass to every app; they mean nothing here.
_IGNORED_KEYS = frozenset({"server_mode", "use_pretrained_model", "preload", "tracking"})


@dataclass(frozen=True)
class Option:
    """One setting.

    Attributes:
        text: what it means, for ``--conf help``.
        default: what holds where it is not given, for people.
        parse: makes a value of the text that was given; refuses with a StartupError.
    """

    text: str
    default: str
    parse: Callable[[str], Any]


@dataclass(frozen=True)
class AppConf:
    """The app's settings; None where one was not given and the data or the machine decide.

    What each means says the table :data:`OPTIONS`.

    Attributes:
        task: of the model of one's own labels; its labels are then in ``labels``, too.
        labels: label name to voxel value.
        values_given: whether the user gave those values, or only an order of names.
        modality: ``"CT"`` or ``"MRI"``.
        roi_size: patch (D, H, W) in voxels.
        spacing: voxel size in mm along R, A, S.
        max_upload: MiB of one request.
    """

    models: tuple[str, ...] | None = None
    task: TaskFile | None = None
    labels: Mapping[str, int] | None = None
    values_given: bool = False
    preset: str | None = None
    variant: str = "learned"
    stages: str = "one"
    start_from: str | None = None
    starter: str = "on"
    device: str = "cpu"
    modality: str | None = None
    roi_size: tuple[int, int, int] | None = None
    spacing: tuple[float, float, float] | None = None
    iterations: int = 100_000
    max_minutes: float = 6.0
    score_minutes: float = 5.0
    standby: str = "on"
    train_every: int = 0
    publish_margin: float = 0.005
    strategy: str = "hybrid"
    lease_minutes: float = 60.0
    hosts: tuple[str, ...] | None = None
    origins: tuple[str, ...] | None = None
    keys: str = "auto"
    infer_at_once: int = 4
    infer_waiting: int = 256
    infer_waiting_each: int = 64
    slow_seconds: float = 30.0
    slow_rate: float = 1000.0
    max_upload: int = 4096
    max_voxels: int = MAX_VOXELS
    deidentify: str = "on"

    @classmethod
    def parse(cls, conf: Mapping[str, str]) -> AppConf:
        """Check what the user gave.

        Raises:
            StartupError: for an unknown key, an impossible value, or ``help``.
        """
        if "help" in conf:
            raise StartupError(f"It was asked what can stand after --conf:\n{options_text()}")
        for key in conf:
            if key not in OPTIONS and key not in _IGNORED_KEYS:
                raise StartupError(f"There is no --conf setting {key!r}. The settings are:\n{options_text()}")
        given = {key: OPTIONS[key].parse(str(text)) for key, text in conf.items() if key in OPTIONS}
        given.setdefault("device", parse_device(None))
        values_given = "=" in str(conf.get("labels", ""))
        if (known := given.get("task")) is not None:
            _check_task(given)
            given.update(labels=dict(known.task.labels), models=given.get("models") or (OWN_LABELS,))
            values_given = True
        return cls(values_given=values_given, **given)

    def hints_for(self, model: str) -> TrainingHints:
        """Return what the task file says of trainings of a model; it is that of the labels of one's own."""
        return self.task.training if self.task and model == OWN_LABELS else TrainingHints()

    def preset_for(self, model: str, published: str | None) -> str:
        """Return the network to train: the published model's own, else the one asked for, else the task file's, else
        what the device can hold."""
        asked = published or self.preset or self.hints_for(model).preset
        return asked or default_preset(torch.device(self.device))


def _check_task(given: Mapping[str, Any]) -> None:
    """Refuse what says the same as the task file does, in other words."""
    if "labels" in given:
        raise StartupError(
            "--conf labels and --conf task both say what the labels are.", "Leave one out; the file can be changed."
        )
    if given.get("models") and OWN_LABELS not in given["models"]:
        raise StartupError(
            f"--conf task is for the model {OWN_LABELS}, which --conf models does not name.",
            f"Add {OWN_LABELS!r} to --conf models, or leave one of both out.",
        )


OPTIONS: Mapping[str, Option] = {
    "models": Option(
        f"models to serve, one or several by comma: {', '.join(TASKS)} (see `rep3d tasks`), or {OWN_LABELS} for labels "
        "of your own",
        "the registered task with dataset.json's labels, else what was served last, else rep3d",
        parse_models,
    ),
    "labels": Option(
        "foreground labels of rep3d, or of the one model served: 'a,b' (in this order) or 'a=1,b=3' (with voxel "
        "values). A trained model keeps its body; only its head's rows of new labels begin anew",
        "dataset.json in the studies folder, else those served last, else the published model's",
        parse_labels,
    ),
    "task": Option(
        "task file (.yaml), as `rep3d plan` writes it, or a registered task, of the model rep3d: its labels, and how "
        "images are prepared for a first training",
        "none",
        parse_task,
    ),
    "preset": Option(
        f"network of a first training: {', '.join(preset_words())}",
        "base on a CUDA GPU with 12 GB or more, else tiny",
        parse_preset,
    ),
    "variant": Option(
        f"spatial prior of a first training's Rep3D: {', '.join(SPATIAL_PRIORS)}",
        "learned",
        one_of("variant", list(SPATIAL_PRIORS)),
    ),
    "stages": Option(
        "auto: a training at coarse voxels adds a fine stage where it may pay, and keeps it if it does on held-out "
        "cases; one: it never does",
        "one",
        one_of("stages", list(STAGES)),
    ),
    "start_from": Option(
        "model with whose encoder a first training begins: a model file, or a model of this studies folder by name; of "
        "any task, and of the same preset",
        "none",
        str,
    ),
    "starter": Option(
        "begin, where none was trained, with a starter model of the same labels: on, off, or a folder of such models",
        "on",
        str,
    ),
    "device": Option("where to compute: cpu, cuda, cuda:1, ...", "the first CUDA GPU, else cpu", parse_device),
    "modality": Option(
        "CT or MRI: how intensities are scaled in a first training with labels of your own",
        "as dataset.json says, else MRI",
        parse_modality,
    ),
    "roi_size": Option(
        "patch in voxels, 96 or 96,96,64, for a first training",
        "the registered task's, else what holds the images up to 96",
        parse_roi_size,
    ),
    "spacing": Option(
        "voxel size in mm, 1.5 or 1.5,1.5,2, that a first training works at",
        "the registered task's, else the images' median",
        parse_spacing,
    ),
    "iterations": Option("steps of a training that asks for no number", "100000", number("iterations", 1, 1e7, True)),
    "max_minutes": Option("minutes of a training that asks for no limit", "6", number("max_minutes", 0.01, 1e6)),
    "score_minutes": Option(
        "minutes spent on scoring images that are not annotated at the end of a training (the rest is scored in the "
        "background); 0 for no scoring by itself",
        "5",
        number("score_minutes", 0, 1e5),
    ),
    "standby": Option(
        "on: a process that has imported all that a training needs waits for the next one, which then begins seconds "
        "sooner; where less than 4 GB of memory are free, none does; off: none",
        "on",
        one_of("standby", ["on", "off"]),
    ),
    "train_every": Option(
        "start a training by itself after so many submitted labels, 0 for never",
        "0",
        number("train_every", 0, 1e6, True),
    ),
    "publish_margin": Option(
        "mean Dice by which a new version must beat the published one on the same held-out cases to replace it",
        "0.005",
        number("publish_margin", 0, 1),
    ),
    "strategy": Option(
        f"how the next image is chosen where a client names no strategy: {', '.join(STRATEGIES)}",
        "hybrid",
        one_of("strategy", list(STRATEGIES)),
    ),
    "lease_minutes": Option(
        "how long a case stays reserved for the person who asked for it",
        "60",
        number("lease_minutes", 0.01, 1e5),
    ),
    "hosts": Option(
        "names and addresses, by comma, under which others reach the server, such as a proxy's; then it asks for keys",
        "this computer's",
        parse_hosts,
    ),
    "origins": Option(
        "other sites, by comma, whose pages may use the server: https://viewer.org", "none", parse_origins
    ),
    "keys": Option(
        "on: everybody needs a key; auto: where others than this computer reach the server",
        "auto",
        one_of("keys", ["auto", "on"]),
    ),
    "infer_at_once": Option("segmentations that run at a time", "4", number("infer_at_once", 1, 16, True)),
    "infer_waiting": Option(
        "requests for a segmentation that may wait, of all users; more are refused with 503",
        "256",
        number("infer_waiting", 1, 1e4, True),
    ),
    "infer_waiting_each": Option(
        "requests for a segmentation that may wait of one user (of one address, where no key is asked for); more are "
        "refused with 429",
        "64",
        number("infer_waiting_each", 1, 1e4, True),
    ),
    "slow_seconds": Option(
        "seconds after which a connection ends that brings nothing of a request which it began, or takes nothing of "
        "its answer",
        "30",
        number("slow_seconds", 1, 3600),
    ),
    "slow_rate": Option(
        "bytes a second that it must send and read at least, once that takes longer",
        "1000",
        number("slow_rate", 1, 1e9),
    ),
    "max_upload": Option(
        "MiB that may be sent at once; a .zip file of DICOM files may not unpack to more either",
        "4096",
        number("max_upload", 1, 1e7, True),
    ),
    "max_voxels": Option(
        "voxels that an image, a label map (all layers together) or a DICOM series may have; the default is 1024^3",
        str(MAX_VOXELS),
        number("max_voxels", 1, 1e12, True),
    ),
    "deidentify": Option(
        "on: patients are taken out of what is sent, and the folder's own DICOM files are told of by codes; refuse: "
        "likewise, but DICOM files that name a patient are not taken; off: neither",
        "on",
        one_of("deidentify", ["on", "off", "refuse"]),
    ),
    "help": Option("show this list and stop", "", str),
}


def options_text() -> str:
    """Return the settings, what they mean and their defaults, one per line."""
    width = max(map(len, OPTIONS))
    lines = []
    for name, option in OPTIONS.items():
        default = f" Default: {option.default}." if option.default else ""
        lines.append(f"  --conf {name:<{width}}  {option.text}.{default}")
    return "\n".join(lines)
