"""The app's settings, as given by ``--conf KEY VALUE``: one table of what exists, and checks with clear refusals."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

import torch

from lib.startup import StartupError
from rep3d.config import PRESETS
from rep3d.errors import Rep3DError
from rep3d.inference import choose_device
from rep3d.tasks import TaskConfig

__all__ = ["OPTIONS", "AppConf", "options_text"]

# A GPU of this many bytes holds the base network, its gradients and two patches.
_BASE_NEEDS_BYTES = 12 * 10**9

OPTIONS: Mapping[str, str] = {
    "labels": "foreground labels: 'a,b' (voxel values 1, 2, ... in this order) or 'a=1,b=3'. Default: dataset.json in "
    "the studies folder, else the published model.",
    "preset": f"network of a first training: {' or '.join(sorted(PRESETS))}. Default: base on a CUDA GPU with 12 GB or "
    "more, else tiny.",
    "device": "where to compute: cpu, cuda, cuda:1, ... Default: the first CUDA GPU, else cpu.",
    "modality": "CT or MRI: how intensities are scaled in a first training. Default: as dataset.json says, else MRI.",
    "help": "show this list and stop.",
}

# Keys that MONAI Label's own apps and clients pass to every app; they mean nothing here.
_FOREIGN_KEYS = frozenset({"models", "server_mode", "use_pretrained_model", "preload", "tracking"})


def options_text() -> str:
    """The settings and what they mean, one per line."""
    return "\n".join(f"  --conf {name:<9} {text}" for name, text in OPTIONS.items())


@dataclass(frozen=True)
class AppConf:
    """The app's settings.

    Attributes:
        labels: label name to voxel value, or None where none were given.
        preset: network of a run that starts from nothing, or None for the machine's own.
        device: ``"cpu"``, ``"cuda"``, ``"cuda:1"``, ...
        modality: ``"CT"``, ``"MRI"``, or None where not given.
    """

    labels: Mapping[str, int] | None
    preset: str | None
    device: str
    modality: str | None

    @classmethod
    def parse(cls, conf: Mapping[str, str]) -> AppConf:
        """Checks what the user gave.

        Raises:
            StartupError: for an unknown key, an impossible value, or ``help``.
        """
        if "help" in conf:
            raise StartupError(
                "no 'help' among --conf when the server is to run", "it", f"The settings are:\n{options_text()}"
            )
        for key in conf:
            if key not in OPTIONS and key not in _FOREIGN_KEYS:
                raise StartupError(
                    f"--conf settings among {sorted(OPTIONS)}", repr(key), f"They are:\n{options_text()}"
                )
        preset = conf.get("preset")
        if preset is not None and preset not in PRESETS:
            raise StartupError(f"--conf preset to be one of {sorted(PRESETS)}", repr(preset), "Choose one of them.")
        modality = conf.get("modality")
        if modality is not None and modality.upper() not in ("CT", "MRI", "MR"):
            raise StartupError(
                "--conf modality to be CT or MRI", repr(modality), "Choose one of them, or leave it out."
            )
        try:
            device = str(choose_device(conf.get("device")))
        except Rep3DError as error:
            raise StartupError("a device of this machine", f"--conf device {conf['device']!r}", f"{error}") from error
        labels = parse_labels(conf["labels"]) if "labels" in conf else None
        return cls(labels, preset, device, modality)

    def preset_for(self, published: str | None) -> str:
        """The network to train: the published model's own, else the one asked for, else what the device can hold."""
        return published or self.preset or ("base" if _holds_base(self.device) else "tiny")


def _holds_base(device: str) -> bool:
    if not device.startswith("cuda"):
        return False
    return bool(torch.cuda.get_device_properties(torch.device(device)).total_memory >= _BASE_NEEDS_BYTES)


def parse_labels(text: str) -> dict[str, int]:
    """Label names and voxel values from ``"a,b"`` or ``"a=1,b=3"``.

    Raises:
        StartupError: if the text is neither, or names and values are not distinct.
    """
    remedy = "Give them as --conf labels a,b or --conf labels a=1,b=3."
    parts = [part.strip() for part in text.split(",")]
    with_value = [part for part in parts if "=" in part]
    if not all(parts) or len(with_value) not in (0, len(parts)):
        raise StartupError("label names, all or none of them with a value", repr(text), remedy)
    try:
        pairs = [(name.strip(), int(value)) for name, _, value in (part.rpartition("=") for part in with_value)]
    except ValueError as error:
        raise StartupError("whole numbers as label values", repr(text), remedy) from error
    pairs = pairs or [(name, value) for value, name in enumerate(parts, start=1)]
    if len({name for name, _ in pairs}) < len(pairs):
        raise StartupError("distinct label names", repr(text), remedy)
    try:
        return dict(TaskConfig("labels", dict(pairs)).labels)
    except Rep3DError as error:
        raise StartupError("usable labels", repr(text), f"{error}. {remedy}") from error
