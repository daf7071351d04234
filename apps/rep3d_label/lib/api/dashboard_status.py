"""What the dashboard shows live, as one JSON object that is cheap to make: small files, no images, no case lists.

The lists of cases and versions have addresses of their own. Here is only a stamp of each, so that the page asks for a
list when it has changed.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import asdict, dataclass
from datetime import datetime, timezone
from pathlib import Path
from typing import Any

import torch
from monailabel.utils.async_tasks.utils import processes

from lib.active.knowledge import identity, scores_file
from lib.boot.setup import Setup
from lib.cases.folder import FolderWatch
from lib.dicom.importer import DicomImport
from lib.inference.batch import BatchRunner
from lib.models.served import ServedModel
from lib.paths import ModelWorkspace, utc_now
from lib.storage.datastore import Rep3DDatastore
from lib.storage.identity import folder_id
from lib.storage.registry import DATASTORE_FILE
from lib.training.control import TrainingControl
from rep3d import __version__
from rep3d.errors import CheckpointError
from rep3d.files import file_state
from rep3d.inference.predictor import choose_device
from rep3d.json_file import Damage, found_damage
from rep3d.starter.facts import starter_words
from rep3d.tasks.colours import label_colours

__all__ = ["Dashboard", "device_name"]

_LISTED = 100  # of the unusable images
_TOP = 5  # of the images that would teach the model most


@dataclass(frozen=True)
class Dashboard:
    """What the page shows of a server.

    Args:
        _setup: what the server works with.
        _served: the models, by name; the first is the default.
        _datastore: images and labels.
        _training: knows what the trainings do.
        _batch: knows what the batch inferences do.
        _folder: knows what in the studies folder is not used.
        _dicom: knows which images may show a name.
        _problems: says what keeps the server from saving things.
    """

    _setup: Setup
    _served: Mapping[str, ServedModel]
    _datastore: Rep3DDatastore
    _training: TrainingControl
    _batch: BatchRunner
    _folder: FolderWatch
    _dicom: DicomImport
    _problems: Callable[[], list[str]]

    def status(self) -> dict[str, Any]:
        """Return the state of the server.

        Returns:
            ``server`` (folder and its id, device, problems), ``cases`` (counts and a stamp; unusable images count for
            themselves),
            ``damaged`` (state files: where each was found and is now, what is lost), ``unusable`` (images, and why),
            ``passed_over`` (what in the folder is not used, and why), ``warnings`` (images that may show a name, and
            why), ``default_model``, and ``models``: for each its
            labels with colours, published version, training, batch inference and scores.
        """
        setup = self._setup
        unusable = self._datastore.unusable.reasons()
        unlabelled = set(self._datastore.get_unlabeled_images()) - set(unusable)
        total = len(self._datastore.list_images())
        space = setup.workspace
        return {
            "server": {
                "version": __version__,
                "folder": setup.folder.name,
                "id": folder_id(space.identity),
                "device": setup.device,
                "device_name": device_name(setup.device),
                "time": utc_now(),
                "problems": self._problems(),
            },
            "cases": {
                "total": total,
                "labelled": total - len(unlabelled) - len(unusable),
                "unusable": len(unusable),
                "stamp": _stamp(
                    [
                        setup.folder / DATASTORE_FILE,
                        *(space.leases, space.reviews, space.predictions, space.label_facts),
                        *(file for model in self._served.values() for file in _case_files(model.setup.workspace)),
                    ],
                    self._datastore.unusable.changes,
                ),
            },
            "damaged": [self._shown(damage) for damage in found_damage(setup.folder)],
            "unusable": [{"id": id_, "reason": unusable[id_]} for id_ in sorted(unusable)[:_LISTED]],
            "passed_over": self._folder.summary(),
            "warnings": [{"id": id_, "reason": reason} for id_, reason in self._dicom.warnings().items()],
            "default_model": setup.default_model,
            "models": {name: self._model(model, unlabelled, unusable) for name, model in self._served.items()},
        }

    def _shown(self, damage: Damage) -> dict[str, str | None]:
        folder = self._setup.folder
        kept = damage.kept.relative_to(folder).as_posix() if damage.kept else None
        return {**asdict(damage), "file": damage.file.relative_to(folder).as_posix(), "kept": kept}

    def _model(self, model: ServedModel, unlabelled: set[str], unusable: Mapping[str, str]) -> dict[str, Any]:
        facts, error = {}, None
        try:
            facts = model.published.facts()
        except CheckpointError as damage:
            error = str(damage)
        return {
            "labels": _labels(model),
            "preset": model.setup.preset,
            "version": facts.get("version"),
            "created": facts.get("created"),
            "error": error,
            "attribution": starter_words(facts),
            "versions_stamp": _stamp(_version_files(model.setup.workspace.root)),
            "training": self._training.task(model.name).stats(),
            "batch": self._batch.status(model.name),
            "scores": _scores(model, facts, unlabelled, unusable),
        }


def _labels(model: ServedModel) -> list[dict[str, Any]]:
    """Return labels by value, with the colours that the pictures of the cases use."""
    labels = model.setup.labels
    colours = label_colours(labels)
    return [
        {"name": name, "value": labels[name], "colour": "#{:02x}{:02x}{:02x}".format(*colours[name])}
        for name in sorted(labels, key=lambda name: labels[name])
    ]


def _case_files(space: ModelWorkspace) -> Iterable[Path]:
    """Return what a model's scores and roles of cases are read from."""
    return space.scores, space.roles, space.published


def _version_files(root: Path) -> Iterable[Path]:
    return [root / "published.pt", *sorted((root / "versions").glob("*/version.json"))]


def _stamp(paths: Iterable[Path], changes: int = 0) -> str:
    """Return what changes when one of the files does, or one comes or goes; and with the number of other changes."""
    states = tuple((path.parent.name, path.name, state) for path in paths if (state := file_state(path)))
    return f"{hash((states, changes)) & 0xFFFFFFFFFFFF:x}"


def _scores(
    model: ServedModel, facts: dict[str, Any], unlabelled: set[str], unusable: Mapping[str, str]
) -> dict[str, Any]:
    file = scores_file(model.setup.workspace)
    content = file.read()
    current = bool(facts) and all(content.get(key) == value for key, value in identity(facts).items())
    entropy = {
        id_: values["entropy"]
        for id_, values in content.get("scores", {}).items()
        if _has_entropy(id_, values, unlabelled)
    }
    return {
        "version": content.get("version"),
        "updated": _utc(file.path.stat().st_mtime) if content else None,
        "scored": len(entropy),
        "unlabelled": len(unlabelled),
        "failed": {**content.get("failed", {}), **unusable},
        "running": bool(processes("scoring")),
        "top": sorted(entropy.items(), key=lambda item: -item[1])[:_TOP] if current else [],
    }


def _has_entropy(id_: str, values: Any, unlabelled: set[str]) -> bool:
    return id_ in unlabelled and isinstance(values, dict) and isinstance(values.get("entropy"), (int, float))


def _utc(seconds: float) -> str:
    return datetime.fromtimestamp(seconds, timezone.utc).isoformat(timespec="seconds")


def device_name(device: str) -> str:
    """Return what a device is called, such as "NVIDIA H100"."""
    chosen = choose_device(device)
    return torch.cuda.get_device_name(chosen) if chosen.type == "cuda" else "CPU"
