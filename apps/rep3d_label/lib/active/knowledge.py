"""What is known of the images by the published model: scores and encoder features, kept in files.

The files carry the identity of the model that made them; with another model published they count as absent, so that
scores of an older model are never mistaken for current ones.
"""

from __future__ import annotations

import dataclasses
import json
import logging
import zipfile
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from lib.paths import ModelWorkspace, whole_file
from rep3d.active.strategies import ImageScore
from rep3d.json_file import JsonFile, json_object

__all__ = ["Knowledge", "current_scores", "identity", "read_knowledge", "scores_file", "write_knowledge"]

logger = logging.getLogger(__name__)

_MEASURES = tuple(measure.name for measure in dataclasses.fields(ImageScore))


def identity(facts: Mapping[str, Any]) -> dict[str, Any]:
    """Return what tells one published model from another; version names repeat where training began anew."""
    return {"version": facts.get("version"), "created": facts.get("created")}


@dataclass
class Knowledge:
    """What one version of a model says about the images.

    Attributes:
        scores: how unsure it is, by image id.
        features: float32 vectors, by image id.
        failed: image id to the reason why it could not be scored.
    """

    scores: dict[str, ImageScore] = field(default_factory=dict)
    features: dict[str, np.ndarray] = field(default_factory=dict)
    failed: dict[str, str] = field(default_factory=dict)


def read_knowledge(workspace: ModelWorkspace, facts: Mapping[str, Any]) -> Knowledge:
    """Return what the files say, if they are of the model with these facts; else nothing."""
    if not facts:
        return Knowledge()
    content = scores_file(workspace).read()
    if not content or any(content.get(key) != value for key, value in identity(facts).items()):
        return Knowledge()
    scores = {id_: _score(values) for id_, values in content["scores"].items()}
    return Knowledge(scores, _features(workspace.features, facts), dict(content["failed"]))


def write_knowledge(workspace: ModelWorkspace, facts: Mapping[str, Any], known: Knowledge) -> None:
    """Write both files, each whole; the features first, because the scores say that all is there."""
    ids = sorted(known.features)
    with whole_file(workspace.features) as file:
        np.savez(
            file,
            identity=np.array(json.dumps(identity(facts))),
            ids=np.array(ids, dtype=np.str_),
            features=np.array([known.features[id_] for id_ in ids], dtype=np.float32),
        )
    scores = {
        id_: {name: value for name in _MEASURES if (value := score.value(name)) is not None}
        for id_, score in sorted(known.scores.items())
    }
    scores_file(workspace).write({**identity(facts), "scores": scores, "failed": known.failed})


def scores_file(workspace: ModelWorkspace) -> JsonFile[dict[str, Any]]:
    """Return what :func:`write_knowledge` writes about scores; empty where nothing was scored."""
    return JsonFile(workspace.scores, _parsed, "the scores of images: they are computed again", dict, begins_anew=True)


def _parsed(content: Any) -> dict[str, Any]:
    return json_object({"failed": {}, **json_object(content)}, scores=dict, failed=dict)


def current_scores(workspace: ModelWorkspace, facts: Mapping[str, Any]) -> dict[str, float]:
    """Return the mean entropy by image id, if it was computed with the model of these facts; else nothing."""
    scores = read_knowledge(workspace, facts).scores
    return {id_: value for id_, score in scores.items() if (value := score.value("entropy")) is not None}


def _score(values: Any) -> ImageScore:
    if isinstance(values, (int, float)):  # as older servers wrote it: the entropy alone
        return ImageScore(entropy=float(values))
    known = values if isinstance(values, dict) else {}
    return ImageScore(**{name: float(known[name]) for name in _MEASURES if isinstance(known.get(name), (int, float))})


def _features(path: Path, facts: Mapping[str, Any]) -> dict[str, np.ndarray]:
    try:
        with np.load(path, allow_pickle=False) as content:
            if json.loads(str(content["identity"])) != identity(facts):
                return {}
            return dict(zip(content["ids"].tolist(), content["features"], strict=True))
    except FileNotFoundError:
        return {}
    except (KeyError, ValueError, EOFError, zipfile.BadZipFile) as error:
        logger.warning("%s: the file is damaged (%s). Lost: the features of images: computed again.", path, error)
        return {}
