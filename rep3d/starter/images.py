"""By what the images are known that starter models were trained on, where a model file does not say it.

`NAME_images.json` beside a starter model has :func:`rep3d.imaging.marks.image_mark` of each of its training cases,
by id. Models that are trained now keep that themselves, under ``"images"``.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from rep3d.json_text import parse_json
from rep3d.starter.facts import inherited

__all__ = ["starter_images"]

_FOLDER = Path(__file__).parent


def starter_images(info: Mapping[str, Any]) -> dict[str, list[str]]:
    """Return what the images are known by that the starter model was trained on which a model is or descends from.

    Args:
        info: facts of its checkpoint.

    Returns:
        Case id to marks; empty for a model that has nothing to do with one, or where it is not known.
    """
    known = inherited(info)
    files = {file.name: file for file in _FOLDER.glob("*_images.json")}
    file = files.get(f"{known['name']}_images.json") if known else None
    return dict(parse_json(file.read_bytes())) if file else {}
