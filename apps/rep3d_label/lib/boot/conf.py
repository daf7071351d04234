"""The app's settings, as given by ``--conf KEY VALUE``: one table of what exists, and checks with clear refusals."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import torch

from lib.access.listening import is_name_of_host
from lib.errors import StartupError
from rep3d.active.strategies import STRATEGIES
from rep3d.errors import Rep3DError, TaskError
from rep3d.imaging.limits import MAX_VOXELS
from rep3d.inference.predictor import choose_device
from rep3d.nn.config import SPATIAL_PRIORS
from rep3d.nn.unetr import UnetrSegmenter
from rep3d.nn.zoo import preset_word, preset_words
from rep3d.tasks.dataset_json import label_table
from rep3d.tasks.registry import TASKS
from rep3d.training.minutes.speed import default_preset
from rep3d.training.settings import STAGES

__all__ = ["OPTIONS", "OWN_LABELS", "AppConf", "Option", "options_text", "parse_labels"]

OWN_LABELS = "rep3d"  # the name of a model whose labels are no registered task's

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
        labels: label name to voxel value.
        values_given: whether the user gave those values, or only an order of names.
        modality: ``"CT"`` or ``"MRI"``.
        roi_size: patch (D, H, W) in voxels.
        spacing: voxel size in mm along R, A, S.
        max_upload: MiB of one request.
    """

    models: tuple[str, ...] | None = None
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
        given.setdefault("device", _device(None))
        return cls(values_given="=" in str(conf.get("labels", "")), **given)

    def preset_for(self, published: str | None) -> str:
        """Return the network to train: the published model's own, else the one asked for, else what the device can
        hold."""
        return published or self.preset or default_preset(torch.device(self.device))


def parse_labels(text: str) -> dict[str, int]:
    """Label names and voxel values from ``"a,b"`` or ``"a=1,b=3"``; see :func:`rep3d.tasks.dataset_json.label_table`.

    Raises:
        StartupError: if the text is neither, or no table of labels.
    """
    remedy = "Give them as --conf labels a,b or --conf labels a=1,b=3."
    parts = [part.strip() for part in text.split(",")]
    with_value = [part for part in parts if "=" in part]
    if not all(parts) or len(with_value) not in (0, len(parts)):
        raise StartupError(f"--conf labels {text!r} has an empty name, or a value for some names only.", remedy)
    pairs: list[tuple[str, Any]] = [(name, value) for name, _, value in (part.rpartition("=") for part in with_value)]
    try:
        return label_table(pairs or [(name, value) for value, name in enumerate(parts, start=1)])
    except TaskError as error:
        raise StartupError(f"--conf labels {text!r} cannot be used: {error}", remedy) from error


def _models(text: str) -> tuple[str, ...]:
    names = tuple(part.strip() for part in text.split(","))
    known = [*TASKS, OWN_LABELS]
    for name in names:
        if name not in known:
            raise StartupError(
                f"--conf models names {name or text!r}, which is no model.",
                f"Choose some of {', '.join(known)}, as in --conf models {known[0]},{known[1]}; {OWN_LABELS!r} stands "
                f"for labels of your own.",
            )
    if len(set(names)) < len(names):
        raise StartupError(f"--conf models {text!r} names a model twice.", "Name each once.")
    return names


def _device(text: str | None) -> str:
    try:
        return str(choose_device(text))
    except Rep3DError as error:
        raise StartupError(f"--conf device {text!r} cannot be used. {error}") from error


def _modality(text: str) -> str:
    if text.upper() not in ("CT", "MRI", "MR"):
        raise StartupError(f"--conf modality must be CT or MRI, not {text!r}.", "Choose one of them, or leave it out.")
    return "CT" if text.upper() == "CT" else "MRI"


def _one_of(name: str, choices: list[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise StartupError(f"--conf {name} must be one of {', '.join(choices)}, not {text!r}.")
        return text

    return parse


def _preset(text: str) -> str:
    try:
        return preset_word(text)
    except Rep3DError as error:
        raise StartupError(f"--conf preset {text!r} cannot be used. {error}") from error


def _number(name: str, low: float, high: float, whole: bool = False) -> Callable[[str], float]:
    def parse(text: str) -> float:
        try:
            value = int(text) if whole else float(text)
        except ValueError:
            value = math.nan
        if not low <= value <= high:  # neither is NaN
            kind = "a whole number" if whole else "a number"
            raise StartupError(
                f"--conf {name} must be {kind} from {low:g} to {high:g}, not {text!r}.", "Correct it, or leave it out."
            )
        return value

    return parse


def _triple(name: str, text: str, kind: type) -> tuple[Any, Any, Any]:
    parts = text.lower().replace("x", ",").split(",")
    try:
        values = [kind(part) for part in parts]
    except ValueError:
        values = []
    if len(values) == 1:
        values *= 3
    if len(values) != 3:
        raise StartupError(
            f"--conf {name} must be one number or three, not {text!r}.", f"Give it as --conf {name} 96 or 96,96,64."
        )
    return values[0], values[1], values[2]


def _roi_size(text: str) -> tuple[int, int, int]:
    sides = _triple("roi_size", text, int)
    step = UnetrSegmenter.stride
    if any(side % step or not 0 < side <= 512 for side in sides) or max(sides) < 2 * step:
        raise StartupError(
            f"--conf roi_size must be multiples of {step} from {step} to 512, one of them {2 * step} or more, not "
            f"{text!r}.",
            f"Round each side to a multiple of {step}, such as --conf roi_size 96.",
        )
    return sides


def _spacing(text: str) -> tuple[float, float, float]:
    sides = _triple("spacing", text, float)
    if not all(0.01 <= side <= 100 for side in sides):
        raise StartupError(
            f"--conf spacing must be voxel sizes from 0.01 to 100 mm, not {text!r}.",
            "Give it as --conf spacing 1.5,1.5,2.",
        )
    return sides


def _hosts(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower().strip("[]") for part in text.split(","))
    for name in names:
        if not is_name_of_host(name):
            raise StartupError(
                f"--conf hosts names {name!r}, which is no name or address of a computer.",
                "Give what stands in the address between // and the port, as in --conf hosts label.hospital.org.",
            )
    return names


def _origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().lower().rstrip("/") for part in text.split(","))
    for origin in origins:
        if not re.fullmatch(r"https?://([\w.-]+|\[[0-9a-f:]+\])(:\d+)?", origin):
            raise StartupError(
                f"--conf origins names {origin!r}, which is no site.",
                "Give scheme, name and port alone, as in --conf origins https://viewer.hospital.org.",
            )
    return origins


OPTIONS: Mapping[str, Option] = {
    "models": Option(
        f"models to serve, one or several by comma: {', '.join(TASKS)} (see `rep3d tasks`), or {OWN_LABELS} for labels "
        "of your own",
        "the registered task with dataset.json's labels, else what was served last, else rep3d",
        _models,
    ),
    "labels": Option(
        "foreground labels of rep3d, or of the one model served: 'a,b' (in this order) or 'a=1,b=3' (with voxel "
        "values). A trained model keeps its body; only its head's rows of new labels begin anew",
        "dataset.json in the studies folder, else those served last, else the published model's",
        parse_labels,
    ),
    "preset": Option(
        f"network of a first training: {', '.join(preset_words())}",
        "base on a CUDA GPU with 12 GB or more, else tiny",
        _preset,
    ),
    "variant": Option(
        f"spatial prior of a first training's Rep3D: {', '.join(SPATIAL_PRIORS)}",
        "learned",
        _one_of("variant", list(SPATIAL_PRIORS)),
    ),
    "stages": Option(
        "auto: a training at coarse voxels adds a fine stage where it may pay, and keeps it if it does on held-out "
        "cases; one: it never does",
        "one",
        _one_of("stages", list(STAGES)),
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
    "device": Option("where to compute: cpu, cuda, cuda:1, ...", "the first CUDA GPU, else cpu", _device),
    "modality": Option(
        "CT or MRI: how intensities are scaled in a first training with labels of your own",
        "as dataset.json says, else MRI",
        _modality,
    ),
    "roi_size": Option(
        "patch in voxels, 96 or 96,96,64, for a first training",
        "the registered task's, else what holds the images up to 96",
        _roi_size,
    ),
    "spacing": Option(
        "voxel size in mm, 1.5 or 1.5,1.5,2, that a first training works at",
        "the registered task's, else the images' median",
        _spacing,
    ),
    "iterations": Option("steps of a training that asks for no number", "100000", _number("iterations", 1, 1e7, True)),
    "max_minutes": Option("minutes of a training that asks for no limit", "6", _number("max_minutes", 0.01, 1e6)),
    "score_minutes": Option(
        "minutes spent on scoring images that are not annotated at the end of a training (the rest is scored in the "
        "background); 0 for no scoring by itself",
        "5",
        _number("score_minutes", 0, 1e5),
    ),
    "train_every": Option(
        "start a training by itself after so many submitted labels, 0 for never",
        "0",
        _number("train_every", 0, 1e6, True),
    ),
    "publish_margin": Option(
        "mean Dice by which a new version must beat the published one on the same held-out cases to replace it",
        "0.005",
        _number("publish_margin", 0, 1),
    ),
    "strategy": Option(
        f"how the next image is chosen where a client names no strategy: {', '.join(STRATEGIES)}",
        "hybrid",
        _one_of("strategy", list(STRATEGIES)),
    ),
    "lease_minutes": Option(
        "how long a case stays reserved for the person who asked for it",
        "60",
        _number("lease_minutes", 0.01, 1e5),
    ),
    "hosts": Option(
        "names and addresses, by comma, under which others reach the server, such as a proxy's; then it asks for keys",
        "this computer's",
        _hosts,
    ),
    "origins": Option("other sites, by comma, whose pages may use the server: https://viewer.org", "none", _origins),
    "keys": Option(
        "on: everybody needs a key; auto: where others than this computer reach the server",
        "auto",
        _one_of("keys", ["auto", "on"]),
    ),
    "infer_at_once": Option("segmentations that run at a time", "4", _number("infer_at_once", 1, 16, True)),
    "infer_waiting": Option(
        "requests for a segmentation that may wait, of all users; more are refused with 503",
        "256",
        _number("infer_waiting", 1, 1e4, True),
    ),
    "infer_waiting_each": Option(
        "requests for a segmentation that may wait of one user (of one address, where no key is asked for); more are "
        "refused with 429",
        "64",
        _number("infer_waiting_each", 1, 1e4, True),
    ),
    "slow_seconds": Option(
        "seconds after which a connection ends that brings nothing of a request which it began, or takes nothing of "
        "its answer",
        "30",
        _number("slow_seconds", 1, 3600),
    ),
    "slow_rate": Option(
        "bytes a second that it must send and read at least, once that takes longer",
        "1000",
        _number("slow_rate", 1, 1e9),
    ),
    "max_upload": Option(
        "MiB that may be sent at once; a .zip file of DICOM files may not unpack to more either",
        "4096",
        _number("max_upload", 1, 1e7, True),
    ),
    "max_voxels": Option(
        "voxels that an image, a label map (all layers together) or a DICOM series may have; the default is 1024^3",
        str(MAX_VOXELS),
        _number("max_voxels", 1, 1e12, True),
    ),
    "deidentify": Option(
        "on: patients are taken out of what is sent, and the folder's own DICOM files are told of by codes; refuse: "
        "likewise, but DICOM files that name a patient are not taken; off: neither",
        "on",
        _one_of("deidentify", ["on", "off", "refuse"]),
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
