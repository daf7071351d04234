"""The server's one map from label names to voxel values: a name, once known, keeps its value for ever.

Label files hold numbers. If a number could change its meaning, when labels are added or another model is served beside
the first, yesterday's labels would silently say something else today. So the server hands out the values, remembers
them with the data, and also keeps those of labels that are no longer served: their value is never given to another.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from lib.errors import StartupError
from rep3d.errors import DamagedFileError, TaskError
from rep3d.json_file import JsonFile, json_object
from rep3d.tasks.config import TaskConfig

__all__ = ["LabelMap"]

_HIGHEST = 65535


@dataclass(frozen=True)
class LabelMap:
    """Which voxel value stands for which label name.

    Attributes:
        path: the file that keeps it; it may not exist yet.
        values: label name to voxel value, of all labels that were ever served here.
        models: model name to its label names, as served last.
        served: names of the models that were served last; the first is the default.
        recovered: whether it was made anew in place of a damaged one.
    """

    path: Path
    values: Mapping[str, int] = field(default_factory=dict)
    models: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    served: tuple[str, ...] = ()
    recovered: bool = field(default=False, compare=False)

    @classmethod
    def read(cls, path: Path) -> LabelMap:
        """Return the map as stored; empty where none is.

        Raises:
            StartupError: if the file is damaged.
        """
        try:
            return cls(path)._file().read()
        except (OSError, DamagedFileError) as error:
            reason = error.reason if isinstance(error, DamagedFileError) else error
            raise StartupError(
                f"The map from label names to voxel values in {path} cannot be read ({reason}).",
                "Put a copy of that file back. Without one, give the values that the label files have with "
                "--conf labels a=1,b=3.",
            ) from error

    def _file(self) -> JsonFile[LabelMap]:
        lost = "which voxel value stands for which label name"
        return JsonFile(self.path, self._parsed, lost, lambda: LabelMap(self.path), begins_anew=False)

    def _parsed(self, content: Any) -> LabelMap:
        values = dict(json_object(content, labels=dict, models=dict, served=list)["labels"])
        try:
            if values:
                TaskConfig("labels", values)  # it checks names and values
        except TaskError as error:
            raise ValueError(str(error)) from error
        models = {str(model): tuple(names) for model, names in content["models"].items()}
        served = tuple(str(model) for model in content["served"])
        strangers = {name for names in models.values() for name in names} - set(values)
        if strangers or set(served) - set(models):
            raise ValueError(f"unknown labels or models: {sorted(map(str, strangers | (set(served) - set(models))))}")
        return LabelMap(self.path, values, models, served)

    def extended(
        self,
        wanted: Mapping[str, Mapping[str, int]],
        fixed: Mapping[str, int],
        reserved: Mapping[str, int],
    ) -> LabelMap:
        """Return the map with the labels of the models that are to be served.

        Args:
            wanted: model name to its labels, each with the voxel value that it would like: it gets that one unless the
                name has another value already, or the value another name.
            fixed: label name to voxel value that the user or the data set states: it is taken, or refused.
            reserved: what the data set's label files may contain besides: these values are kept from other names.

        Raises:
            StartupError: if a stated value contradicts the map.
        """
        values = dict(self.values)
        for name, value in fixed.items():
            holder = next((other for other, known in values.items() if known == value), name)
            if values.get(name, value) != value or holder != name:
                raise self._contradiction(name, value, holder)
            values[name] = value
        for name, value in reserved.items():
            if name not in values and value not in values.values():
                values[name] = value
        for labels in wanted.values():
            for name in sorted(labels, key=lambda label: labels[label]):
                if name not in values:
                    values[name] = _free(labels[name], values)
        models = {model: tuple(sorted(labels, key=lambda name: values[name])) for model, labels in wanted.items()}
        return LabelMap(self.path, values, {**self.models, **models}, tuple(wanted), self.recovered)

    def of(self, names: Sequence[str]) -> dict[str, int]:
        """Return the values of some labels, in the order of the values."""
        return {name: self.values[name] for name in sorted(names, key=lambda name: self.values[name])}

    def write(self) -> None:
        """Store the map, whole or not at all; nothing is written where nothing has changed.

        A damaged file, in whose place this map was made, is kept aside first.
        """
        if self.recovered:
            self._file().set_aside()
        if self._file().read() == self and self.path.exists():
            return
        content = {
            "labels": self.of(list(self.values)),
            "models": {model: list(names) for model, names in self.models.items()},
            "served": list(self.served),
        }
        self._file().write(content)

    def _contradiction(self, name: str, value: int, holder: str) -> StartupError:
        stored = ",".join(f"{label}={number}" for label, number in self.of(list(self.values)).items())
        why = f"that value stands for {holder!r}" if holder != name else f"{name!r} has the value {self.values[name]}"
        return StartupError(
            f"The label values contradict those stored in {self.path} ({stored}): {name}={value}, but {why}.",
            "Label files made so far have the stored values, so give those, or a new name or a free value. Only if no "
            "label files exist yet, move that file away and start again.",
        )


def _free(value: int, values: Mapping[str, int]) -> int:
    taken = set(values.values())
    if value not in taken:
        return value
    free = next((number for number in range(1, _HIGHEST + 1) if number not in taken), None)
    if free is None:
        raise StartupError(f"There are {len(taken)} labels already, and {_HIGHEST} is the most.", "Serve fewer labels.")
    return free
