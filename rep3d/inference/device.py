"""What computes: the device of a name, or the best one at hand."""

from __future__ import annotations

import torch

from rep3d.errors import ConfigError

__all__ = ["choose_device"]


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
