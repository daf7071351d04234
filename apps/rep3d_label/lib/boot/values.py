"""What the text after a setting of ``--conf`` means: each function makes a value of it, or refuses it in words."""

from __future__ import annotations

import math
import re
from collections.abc import Callable
from typing import Any

from lib.access.listening import is_name_of_host
from lib.errors import StartupError
from rep3d.errors import Rep3DError, TaskError
from rep3d.inference.predictor import choose_device
from rep3d.nn.unetr import UnetrSegmenter
from rep3d.nn.zoo import preset_word
from rep3d.tasks.dataset_json import label_table
from rep3d.tasks.file import TaskFile
from rep3d.tasks.registry import TASKS
from rep3d.training.task_file import checked_task_file

__all__ = [
    "OWN_LABELS",
    "number",
    "one_of",
    "parse_device",
    "parse_hosts",
    "parse_labels",
    "parse_modality",
    "parse_models",
    "parse_origins",
    "parse_preset",
    "parse_roi_size",
    "parse_spacing",
    "parse_task",
]

OWN_LABELS = "rep3d"  # the name of a model whose labels are no registered task's


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


def parse_models(text: str) -> tuple[str, ...]:
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


def parse_device(text: str | None) -> str:
    try:
        return str(choose_device(text))
    except Rep3DError as error:
        raise StartupError(f"--conf device {text!r} cannot be used. {error}") from error


def parse_modality(text: str) -> str:
    if text.upper() not in ("CT", "MRI", "MR"):
        raise StartupError(f"--conf modality must be CT or MRI, not {text!r}.", "Choose one of them, or leave it out.")
    return "CT" if text.upper() == "CT" else "MRI"


def one_of(name: str, choices: list[str]) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if text not in choices:
            raise StartupError(f"--conf {name} must be one of {', '.join(choices)}, not {text!r}.")
        return text

    return parse


def parse_preset(text: str) -> str:
    try:
        return preset_word(text)
    except Rep3DError as error:
        raise StartupError(f"--conf preset {text!r} cannot be used. {error}") from error


def number(name: str, low: float, high: float, whole: bool = False) -> Callable[[str], float]:
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


def parse_roi_size(text: str) -> tuple[int, int, int]:
    sides = _triple("roi_size", text, int)
    step = UnetrSegmenter.stride
    if any(side % step or not 0 < side <= 512 for side in sides) or max(sides) < 2 * step:
        raise StartupError(
            f"--conf roi_size must be multiples of {step} from {step} to 512, one of them {2 * step} or more, not "
            f"{text!r}.",
            f"Round each side to a multiple of {step}, such as --conf roi_size 96.",
        )
    return sides


def parse_spacing(text: str) -> tuple[float, float, float]:
    sides = _triple("spacing", text, float)
    if not all(0.01 <= side <= 100 for side in sides):
        raise StartupError(
            f"--conf spacing must be voxel sizes from 0.01 to 100 mm, not {text!r}.",
            "Give it as --conf spacing 1.5,1.5,2.",
        )
    return sides


def parse_hosts(text: str) -> tuple[str, ...]:
    names = tuple(part.strip().lower().strip("[]") for part in text.split(","))
    for name in names:
        if not is_name_of_host(name):
            raise StartupError(
                f"--conf hosts names {name!r}, which is no name or address of a computer.",
                "Give what stands in the address between // and the port, as in --conf hosts label.hospital.org.",
            )
    return names


def parse_origins(text: str) -> tuple[str, ...]:
    origins = tuple(part.strip().lower().rstrip("/") for part in text.split(","))
    for origin in origins:
        if not re.fullmatch(r"https?://([\w.-]+|\[[0-9a-f:]+\])(:\d+)?", origin):
            raise StartupError(
                f"--conf origins names {origin!r}, which is no site.",
                "Give scheme, name and port alone, as in --conf origins https://viewer.hospital.org.",
            )
    return origins


def parse_task(text: str) -> TaskFile:
    """Return what a task file, or a registered task's name, says.

    Raises:
        StartupError: if there is none, or it cannot be used.
    """
    try:
        return checked_task_file(text)
    except TaskError as error:
        raise StartupError(f"--conf task {text} cannot be used. {error}", "Correct it, or leave it out.") from error
