"""What a training takes where nobody says otherwise, by name: a recipe is a set of :class:`TrainSettings`.

``ours`` learns as much as it can within minutes, from few cases. ``paper`` is that of Rep3D's paper (arXiv 2505.19603,
"Training recipe"): for hundreds of cases and for days. Neither says which network is trained.
"""

from __future__ import annotations

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

from rep3d.nn.config import require_one_of
from rep3d.training.settings import AUTO, NO_LIMIT, TrainSettings

__all__ = ["RECIPES", "recipe_settings"]

RECIPES: Mapping[str, Mapping[str, Any]] = MappingProxyType(
    {
        "ours": {"iterations": 100_000, "max_minutes": 60.0, "resolution": AUTO},
        "paper": {
            "iterations": 60_000,
            "max_minutes": NO_LIMIT,
            "learning_rate": 1e-4,
            "schedule": "constant",
            "weight_decay": 0.08,
            "crops": 2,
            "sampling": "paper",
            "augmentation": "paper",
            "loss": "dice_ce",
            "val_interval": 500,
            "val_cases": 0,
            "resolution": "task",
        },
    }
)
"""What differs from the defaults of :class:`TrainSettings`."""


def recipe_settings(recipe: str, given: Mapping[str, Any]) -> TrainSettings:
    """Return the settings of a recipe.

    Args:
        recipe: one of `RECIPES`.
        given: settings that take the place of the recipe's; None counts as not given.

    Raises:
        ConfigError: if there is no such recipe, or a setting is impossible.
    """
    require_one_of("recipe", recipe, tuple(RECIPES))
    return TrainSettings(**{**RECIPES[recipe], **{name: value for name, value in given.items() if value is not None}})
