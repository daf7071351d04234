"""Network settings: what is refused, and that they survive JSON."""

from __future__ import annotations

import dataclasses
import json
from typing import Any

import pytest

from rep3d.errors import ConfigError
from rep3d.nn.config import PRESETS, Rep3DConfig
from rep3d.nn.zoo import preset_config


@pytest.mark.parametrize(
    ("setting", "value"),
    [
        ("in_channels", 0),
        ("out_channels", -1),
        ("out_channels", 2.0),
        ("hidden_size", True),
        ("dims", (16, 32, 64)),
        ("dims", (16, 32, 64, 0)),
        ("dims", 16),
        ("depths", (2, 2, 2, "2")),
        ("kernel_size", 20),
        ("generator_kernel", 6),
        ("generator_depth", 0),
        ("spatial_prior", "learnt"),
        ("generator", "per-channel"),
        ("prior_scale", 0.0),
        ("prior_scale", float("nan")),
        ("prior_scale", float("inf")),
        ("prior_scale", "1"),
        ("prior_exponent", 0.0),
        ("prior_exponent", float("inf")),
    ],
)
def test_refuses_impossible_values_and_names_them(setting: str, value: Any) -> None:
    with pytest.raises(ConfigError, match=setting):
        Rep3DConfig(**{setting: value})


def test_survives_json() -> None:
    config = Rep3DConfig(out_channels=5, dims=(8, 8, 16, 16), spatial_prior="fixed", prior_scale=2)
    assert Rep3DConfig.from_dict(json.loads(json.dumps(config.to_dict()))) == config


def test_lists_become_tuples_so_that_configs_can_be_hashed() -> None:
    assert hash(Rep3DConfig(dims=[48, 96, 192, 384])) == hash(Rep3DConfig())  # type: ignore[arg-type]


def test_unknown_settings_are_refused_by_name() -> None:
    with pytest.raises(ConfigError, match="kernel_sise"):
        Rep3DConfig.from_dict({"kernel_sise": 21})


def test_settings_cannot_be_changed() -> None:
    with pytest.raises(dataclasses.FrozenInstanceError):
        Rep3DConfig().kernel_size = 3  # type: ignore[misc]


@pytest.mark.parametrize("name", PRESETS)
def test_presets_take_the_channels_of_a_task(name: str) -> None:
    config = preset_config(name, in_channels=2, out_channels=7)
    assert (config.in_channels, config.out_channels, config.kernel_size) == (2, 7, 21)


def test_unknown_preset_is_refused_with_the_known_ones() -> None:
    with pytest.raises(ConfigError, match=r"'huge'.*base.*tiny"):
        preset_config("huge", in_channels=1, out_channels=2)
