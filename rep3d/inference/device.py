"""What computes: the device of a name, or the best one at hand; and what the processor is."""

from __future__ import annotations

import platform
from pathlib import Path

import torch

from rep3d.errors import ConfigError

__all__ = ["choose_device", "processor_name"]


def choose_device(name: str | None = None) -> torch.device:
    """Return the device of that name, or the best one at hand.

    Raises:
        ConfigError: if the name is unknown or the device is not there.
    """
    if not name or name == "auto":
        return torch.device("cuda" if torch.cuda.is_available() else "cpu")
    try:
        device = torch.device(name)
    except (RuntimeError, TypeError) as error:
        raise ConfigError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}") from error
    if device.type not in ("cpu", "cuda"):
        raise ConfigError(f"device: expected 'auto', 'cpu', 'cuda' or 'cuda:N', got {name!r}")
    if device.type == "cuda" and (device.index or 0) >= torch.cuda.device_count():
        raise ConfigError(
            f"There is no {name!r} here: this machine has {torch.cuda.device_count()} CUDA devices. "
            f"Use 'auto' or 'cpu'."
        )
    return device


def processor_name() -> str:
    """Return what the processor calls itself."""
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line.split(":", 1)[1].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()
