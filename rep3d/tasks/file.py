"""A task as a file that people read and change: YAML, with what :meth:`rep3d.tasks.config.TaskConfig.to_dict` has.

The registered tasks are such files (``rep3d/tasks/known``), ``rep3d plan`` writes one, and ``rep3d train``, the server
and ``rep3d tasks`` take one. Beside the task it may say how to train: ``training``, with the fields of
:class:`TrainingHints`. What a file says twice, or in a field that there is not, is refused with file and field.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import MISSING, asdict, dataclass, field, fields
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rep3d.errors import TaskError
from rep3d.files import write_text
from rep3d.tasks.config import TaskConfig

if TYPE_CHECKING:
    import yaml

__all__ = [
    "EMPTY_LABELS",
    "TASK_SUFFIXES",
    "TaskFile",
    "TrainingHints",
    "is_task_file",
    "read_task_file",
    "task_text",
    "write_task_file",
]

TASK_SUFFIXES = (".yaml", ".yml")
_TRAINING = "training"
_LONGEST = 1_000_000  # bytes; a task of a thousand labels with all their codes has a third of it
EMPTY_LABELS = ("skip", "use")


@dataclass(frozen=True)
class TrainingHints:
    """What a task file says of trainings; None where it says nothing. Options of a command come first.

    Attributes:
        preset: network of a first training, a word of :func:`rep3d.nn.zoo.preset_words`.
        resolution: ``"task"`` to work at the file's spacing and patch, ``"auto"`` where larger voxels may be taken if
            the minutes ask for it, see :mod:`rep3d.training.minutes.resolution`.
        empty_labels: what becomes of cases whose label map has no label at all: ``"skip"``, or ``"use"`` where they are
            images without any of the structures.
    """

    preset: str | None = None
    resolution: str | None = None
    empty_labels: str | None = None

    def __post_init__(self) -> None:
        for name, value in asdict(self).items():
            if value is not None and not isinstance(value, str):
                raise TaskError(f"{name}: expected a word, got {value!r:.100}")
        if self.empty_labels not in (None, *EMPTY_LABELS):
            raise TaskError(f"empty_labels: expected one of {', '.join(EMPTY_LABELS)}, got {self.empty_labels!r:.100}")

    def given(self) -> dict[str, Any]:
        """Return those that are given, by name."""
        return {name: value for name, value in asdict(self).items() if value is not None}


@dataclass(frozen=True)
class TaskFile:
    """What a task file says."""

    task: TaskConfig
    training: TrainingHints = field(default_factory=TrainingHints)


def is_task_file(name: str) -> bool:
    """Return whether a word names a task file, and not a registered task."""
    return name.lower().endswith(TASK_SUFFIXES)


def read_task_file(path: Path | str) -> TaskFile:
    """Read a task file.

    Raises:
        TaskError: if it cannot be read, is no YAML, or says something impossible; the message names file and field.
    """
    path = Path(path)
    content = dict(_parsed(path))
    try:
        hints = _hints(content.pop(_TRAINING, None))
        return TaskFile(_task(content), hints)
    except TaskError as error:
        raise TaskError(f"{path}: {error}") from error


def write_task_file(path: Path | str, known: TaskFile, comment: str = "") -> None:
    """Write a task file, whole or not at all; see :func:`task_text`."""
    write_text(Path(path), task_text(known, comment))


def task_text(known: TaskFile, comment: str = "") -> str:
    """Return a task file's text.

    Args:
        known: what it says.
        comment: lines to stand before it, for people.
    """
    import yaml

    class Dumper(yaml.SafeDumper):
        """Writes what is short in one line, and shared parts out: people change one of them."""

        def ignore_aliases(self, data: Any) -> bool:
            return True

        def represent_mapping(self, tag: str, mapping: Any, flow_style: bool | None = None) -> yaml.MappingNode:
            flat = bool(mapping) and all(not isinstance(value, (dict, list)) for value in mapping.values())
            return super().represent_mapping(
                tag, mapping, flow_style=flat and {"value", "mode"} & set(mapping) != set()
            )

        def represent_sequence(self, tag: str, sequence: Any, flow_style: bool | None = None) -> yaml.SequenceNode:
            return super().represent_sequence(
                tag, sequence, flow_style=not any(isinstance(value, (dict, list)) for value in sequence)
            )

    content = known.task.to_dict()
    if given := known.training.given():
        content[_TRAINING] = given
    lines = "".join(f"# {line}".rstrip() + "\n" for line in comment.splitlines())
    return lines + yaml.dump(content, Dumper=Dumper, sort_keys=False, allow_unicode=True, width=120)


def _parsed(path: Path) -> Mapping[str, Any]:
    import yaml

    try:
        with path.open("rb") as file:
            data = file.read(_LONGEST + 1)
    except OSError as error:
        raise TaskError(f"{path} cannot be read ({error.strerror}). It must be a task file (YAML).") from error
    if len(data) > _LONGEST:
        raise TaskError(f"{path} is no task file: it has more than {_LONGEST} bytes.")
    loader = _loader()
    try:
        if any(isinstance(event, yaml.AliasEvent) for event in yaml.parse(data, loader)):
            raise ValueError("references (*name) are not read; write the value itself")
        content = yaml.load(data, loader)
    except (yaml.YAMLError, UnicodeDecodeError, ValueError, RecursionError) as error:
        words = " ".join(str(error).split())[:300]
        raise TaskError(f"{path} cannot be read as a task file (YAML): {words}. Correct it.") from error
    if not isinstance(content, dict) or not all(isinstance(key, str) for key in content):
        raise TaskError(f"{path} must hold the fields of a task (name, labels, spacing, ...), got {content!r:.100}.")
    return content


def _loader() -> type[yaml.SafeLoader]:
    """Return what reads plain values alone, and each key once."""
    import yaml

    class Loader(getattr(yaml, "CSafeLoader", yaml.SafeLoader)):  # type: ignore[misc]
        """Refuses keys that occur twice, of which YAML's own reader keeps the last in silence."""

        def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Any, Any]:
            found = set()
            for key_node, _ in node.value:
                key = self.construct_object(key_node, deep=True)
                if not isinstance(key, (str, int, float, bool)):
                    raise yaml.YAMLError(f"{key!r:.50} in line {key_node.start_mark.line + 1} is no name of a field")
                if key in found:
                    raise yaml.YAMLError(f"{key!r:.50} is there twice, again in line {key_node.start_mark.line + 1}")
                found.add(key)
            return super().construct_mapping(node, deep)

    return Loader


def _hints(given: Any) -> TrainingHints:
    if given is None:
        return TrainingHints()
    known = [each.name for each in fields(TrainingHints)]
    if not isinstance(given, dict) or set(given) - set(known):
        raise TaskError(f"the field '{_TRAINING}': expected some of {', '.join(known)}, got {given!r:.200}")
    try:
        return TrainingHints(**given)
    except TaskError as error:
        raise TaskError(f"the field '{_TRAINING}': {error}") from error


def _task(content: Mapping[str, Any]) -> TaskConfig:
    """Return the task that these fields say.

    Raises:
        TaskError: naming the first field that cannot be used.
    """
    known = fields(TaskConfig)
    if unknown := [name for name in content if name not in {each.name for each in known}]:
        names = ", ".join([*(each.name for each in known), _TRAINING])
        raise TaskError(f"the field {unknown[0]!r} is none of a task's. The fields are {names}.")
    for each in known:
        if each.name not in content and each.default is MISSING and each.default_factory is MISSING:
            raise TaskError(f"the field {each.name!r} is missing.")
    try:
        return TaskConfig.from_dict(content)
    except TaskError as error:
        raise _with_field(content, error) from error


def _with_field(content: Mapping[str, Any], error: TaskError) -> TaskError:
    """Return the error with the field that it is about: the first one with which the task is not possible any more."""
    sound = TaskConfig("task", {"label": 1}).to_dict()
    for each in fields(TaskConfig):
        if each.name not in content:
            continue
        sound[each.name] = content[each.name]
        try:
            TaskConfig.from_dict(sound)
        except TaskError as found:
            reason = f"{found.__cause__}" if found.__cause__ else f"{found}"
            return TaskError(f"the field {each.name!r}, {content[each.name]!r:.200}, cannot be used ({reason}).")
    if isinstance(error.__cause__, KeyError):
        return TaskError(f"the field {error.__cause__} is missing.")
    return error
