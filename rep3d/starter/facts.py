"""What a checkpoint says under ``"starter"`` of the starter model that it is, or descends from. No torch here.

A starter model's weights are made of somebody's data and stay under the licence of these, and so does whatever is
trained on from them. So its checkpoint says where it comes from, every later one repeats it, and whoever uses one of
them is told.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

__all__ = ["inherited", "is_starter", "starter_words"]

_SAID = {"name": str, "data": str, "attribution": str, "licence": str, "licence_url": str, "cases": int}
_MEASURED = {"held_out": int, "dice": dict}


def is_starter(info: Mapping[str, Any]) -> bool:
    """Return whether a checkpoint's facts are those of a starter model itself."""
    known = _known(info)
    return known is not None and not known.get("descends") and _has(known, _MEASURED)


def inherited(info: Mapping[str, Any]) -> dict[str, Any] | None:
    """Return what a model says under ``"starter"`` whose training began from one with these facts; None for nothing."""
    known = _known(info)
    return {**known, "descends": True} if known else None


def starter_words(info: Mapping[str, Any]) -> str | None:
    """Return what people are told where a model is used that is a starter model, or descends from one.

    Args:
        info: facts of a checkpoint, or a version's record as a dictionary. Under ``"starter"`` there are ``name``,
            ``data``, ``attribution``, ``licence``, ``licence_url``, ``cases`` (how many it was trained on),
            ``held_out`` (how many others it was measured on) and ``dice`` (label name to mean Dice on these).

    Returns:
        Two or three sentences; None for a model that has nothing to do with one.
    """
    known = _known(info)
    if known is None:
        return None
    source = f"trained on {known['cases']} cases of {known['data']} ({known['attribution']})."
    licence = f"Licence of data and model: {known['licence']}, {known['licence_url']}"
    if not is_starter(info):
        return f"Descends from the starter model {known['name']}, which was {source} {licence}"
    dice = ", ".join(f"{label} {value:.3f}" for label, value in known["dice"].items())
    return f"Starter model {known['name']}, {source} Dice on {known['held_out']} others of them: {dice}. {licence}"


def _known(info: Mapping[str, Any]) -> Mapping[str, Any] | None:
    known = info.get("starter")
    return known if isinstance(known, Mapping) and _has(known, _SAID) else None


def _has(known: Mapping[str, Any], kinds: Mapping[str, type]) -> bool:
    return all(isinstance(known.get(key), kind) for key, kind in kinds.items())
