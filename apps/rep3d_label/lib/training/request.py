"""What a client may ask of a training."""

from __future__ import annotations

import dataclasses
from collections.abc import Mapping
from typing import Any

import torch

from rep3d.errors import ConfigError
from rep3d.nn.zoo import preset_word
from rep3d.training.distributed import parse_gpus, training_devices
from rep3d.training.settings import TrainSettings

__all__ = ["RESUME", "TrainRequest"]

_SCORE_MINUTES = 5.0
RESUME = (True, False, "auto")
# What MONAI Label and its clients add to a request; none of it is a setting of ours.
_IGNORED_KEYS = frozenset({"model", "local_rank", "client_id", "bundle_path"})


@dataclasses.dataclass(frozen=True)
class TrainRequest:
    """A training that was asked for.

    Attributes:
        settings: how to train.
        score_minutes: how long to score unlabelled images after publication; 0 for not at all.
        resume: what becomes of a run that was stopped or interrupted. True: go on with it, whatever else is asked for.
            False: begin anew and discard it. ``"auto"``: go on with it if it is the same training, of the same cases
            from the same version; else begin anew and set it aside, from where True still finds it.
    """

    settings: TrainSettings
    score_minutes: float
    resume: bool | str = "auto"

    @classmethod
    def parse(
        cls, request: Mapping[str, Any], defaults: TrainSettings, score_minutes: float = _SCORE_MINUTES
    ) -> TrainRequest:
        """Check what a client asked for.

        Args:
            request: as sent.
            defaults: settings where it gives none.
            score_minutes: likewise.

        Raises:
            ConfigError: for an unknown setting or an impossible value.
        """
        values = {key: value for key, value in request.items() if key not in _IGNORED_KEYS}
        minutes = values.pop("score_minutes", score_minutes)
        resume = values.pop("resume", "auto")
        devices = _devices(values.pop("multi_gpu", False), values.pop("gpus", None))
        known = {field.name for field in dataclasses.fields(TrainSettings)}
        unknown = sorted(set(values) - known)
        if unknown:
            raise ConfigError(
                f"There is no training setting {', '.join(unknown)[:200]}. Choose among "
                f"{', '.join(sorted(known | {'score_minutes', 'resume', 'multi_gpu'}))}."
            )
        if isinstance(minutes, bool) or not isinstance(minutes, (int, float)) or not 0 <= minutes <= 1e5:
            raise ConfigError(f"score_minutes must be a number from 0 to 100000, not {minutes!r}.")
        if not any(resume is choice or resume == choice == "auto" for choice in RESUME):
            raise ConfigError(f"resume must be true, false or 'auto', not {resume!r}.")
        if preset_word(values.get("preset", defaults.preset)) != defaults.preset:
            raise ConfigError(
                f"This server trains networks of the preset {defaults.preset}, not {values['preset']!r}. For another, "
                f"start a server with --conf preset, in a folder without a published model."
            )
        if len(devices) > 1:
            values["gpus"] = devices
            values.setdefault("device", None)
        elif devices:
            values.setdefault("device", devices[0])
        settings = dataclasses.replace(defaults, **values)
        training_devices(settings)  # one that is not there is refused here, not by a training that fails
        return cls(settings, float(minutes), resume)

    def to_dict(self) -> dict[str, Any]:
        """As plain JSON types."""
        settings = dataclasses.asdict(self.settings)
        gpus = settings["gpus"]
        return {
            "settings": {**settings, "gpus": list(gpus) if isinstance(gpus, tuple) else gpus},
            "score_minutes": self.score_minutes,
        }

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> TrainRequest:
        """Return the inverse of :meth:`to_dict`.

        Raises:
            ConfigError, KeyError, TypeError: if it was made by another release.
        """
        return cls(TrainSettings(**values["settings"]), float(values["score_minutes"]))


def _devices(multi_gpu: Any, gpus: Any) -> list[str]:
    """Return the GPUs that MONAI Label's two keys ask for; none where they ask for nothing particular.

    ``multi_gpu`` alone means all GPUs that there are, be it one or none; ``gpus`` names some: ``"0,1"``, ``[0, 1]`` or
    how many.
    """
    if not isinstance(multi_gpu, bool):
        raise ConfigError(f"multi_gpu must be true or false, not {multi_gpu!r}.")
    if gpus in (None, "", "all"):
        return parse_gpus("all") if multi_gpu and torch.cuda.device_count() > 1 else []
    if isinstance(gpus, int) and not isinstance(gpus, bool):
        gpus = ",".join(map(str, range(gpus)))
    elif isinstance(gpus, (list, tuple)):
        gpus = ",".join(map(str, gpus))
    if not isinstance(gpus, str) or not gpus:
        raise ConfigError(f"gpus must be 'all', numbers such as '0,1', or how many, not {gpus!r}.")
    return parse_gpus(gpus)
