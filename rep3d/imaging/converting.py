"""A data set written in another layout: the decathlon's, nnU-Net's raw data sets (version 2), or two plain folders.

Files are copies, byte for byte where the layout allows: label maps always, images unless channels must be joined into a
4D file or parted from one. The new data set appears whole or not at all.
"""

from __future__ import annotations

import gzip
import json
import os
import shutil
import uuid
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from rep3d.data.cases import (
    DESCRIPTION,
    IMAGES,
    LABELS,
    PLAIN_IMAGES,
    PLAIN_LABELS,
    TESTS,
    DataSet,
    LeftOut,
    listed,
    read_data_set,
    read_images,
    shown,
)
from rep3d.data.meaning import Meaning
from rep3d.errors import DiskFullError, OutputError, TaskError, machine_error, said
from rep3d.files import PART_SUFFIX, copy_whole, sync_folder, whole_file, write_text
from rep3d.imaging.channels import channels_grid
from rep3d.imaging.labels import check_grid, check_values, label_counts
from rep3d.imaging.nifti import join_channels, read_label, split_channels, stored_grid
from rep3d.output import check_output_folder
from rep3d.tasks.dataset_json import (
    IGNORE,
    channels_from_dataset_json,
    ignore_from_dataset_json,
    labels_from_dataset_json,
)

__all__ = ["LAYOUTS", "STUDIES", "Converted", "convert_data_set", "convert_images"]

LAYOUTS = ("decathlon", "nnunet", "plain")
STUDIES = "studies"
"""What a server has as its studies folder: images without label maps, each one file, beside a ``dataset.json``."""
_ENDING = ".nii.gz"
_LEVEL = 1  # of compression


@dataclass(frozen=True)
class Converted:
    """What was written.

    Attributes:
        cases: ids of the annotated cases.
        tests: ids of the images without a label map.
        left_out: what was not, found while it was read or converted, with the reasons.
        remarks: what the other program may stumble over, in words.
        failed: ids of what was not converted and should have been.
    """

    cases: tuple[str, ...]
    tests: tuple[str, ...]
    left_out: tuple[LeftOut, ...]
    remarks: tuple[str, ...]
    failed: tuple[str, ...] = ()


def convert_data_set(
    data: DataSet,
    meaning: Meaning,
    layout: str,
    output: Path,
    report: Callable[[str], None] | None = None,
) -> Converted:
    """Write a data set in another layout.

    A case that cannot be converted costs no other one.

    Args:
        data: the data set.
        meaning: what its numbers mean.
        layout: one of :data:`LAYOUTS`.
        output: folder to write; it must not be there, or be empty.
        report: called with the id of each image before it is written.

    Returns:
        What was written, and what was not.

    Raises:
        OutputError: if the folder cannot be written, has something in it, or lies in the data set or around it.
        DiskFullError: if there is no room; nothing was written.
        TaskError: if no case can be converted, or the layout cannot say that only some labels were annotated.
    """
    output = output.absolute()
    if layout not in LAYOUTS:
        raise TaskError(f"There is no layout {layout!r}. There are: {', '.join(LAYOUTS)}.")
    if layout == "nnunet":
        _require_whole(data, meaning)
    folder = data.folder / TESTS
    tests, unused = read_images(folder) if folder.is_dir() else ({}, ())
    left_out = [*data.left_out, *unused]
    files = [file for case in data.cases for file in case.files]
    _check_output(output, data.folder, [*files, *(file for channels in tests.values() for file in channels)])
    with _appearing(output) as part:
        writer = _Writer(part, layout, meaning)
        todo = [(case.id, case.channels, case.label) for case in data.cases]
        written = _each(todo, writer, left_out, report)
        if not written:
            raise TaskError(f"{data.folder} has no case that can be converted. {listed(left_out)}")
        alone = _each([(id_, channels, None) for id_, channels in tests.items()], writer, left_out, report)
        annotated = {case.id: list(case.annotated) for case in data.cases if case.annotated and case.id in written}
        content = _description(layout, meaning, written, alone, annotated)
        write_text(part / DESCRIPTION, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
        _check_whole(part, written, meaning)
    return Converted(tuple(written), tuple(alone), tuple(left_out), tuple(_remarks(layout, meaning)), _failed(left_out))


def convert_images(
    folder: Path, meaning: Meaning, output: Path, report: Callable[[str], None] | None = None
) -> Converted:
    """Write the images that lie in a folder, each as one file, as a server wants its studies folder.

    Args:
        folder: where they lie; folders in it are left out.
        meaning: what their channels are, and the labels to draw.
        output: folder to write, as in :func:`convert_data_set`, like ``report``.

    Raises:
        OutputError, DiskFullError, TaskError: likewise.
    """
    output = output.absolute()
    images, unused = read_images(folder)
    left_out = [entry for entry in unused if Path(entry.file).name != DESCRIPTION]
    _check_output(output, folder, [file for files in images.values() for file in files])
    with _appearing(output) as part:
        writer = _Writer(part, STUDIES, meaning)
        written = _each([(id_, files, None) for id_, files in images.items()], writer, left_out, report)
        if not written:
            raise TaskError(f"{folder} has no image that can be converted. {listed(left_out)}")
        content = _description("plain", replace(meaning, ignore=None), (), (), {})
        write_text(part / DESCRIPTION, json.dumps(content, indent=1, ensure_ascii=False) + "\n")
    return Converted((), tuple(written), tuple(left_out), (), _failed(left_out))


def _failed(left_out: Sequence[LeftOut]) -> tuple[str, ...]:
    """Return the ids of what is an image or label map by its name; hidden files, as macOS has them, are none."""
    names = [(entry.id, Path(entry.file).name.lower()) for entry in left_out]
    return tuple({id_: None for id_, name in names if name.endswith((".nii", _ENDING)) and not name.startswith(".")})


class _Writer:
    """Writes cases in a layout.

    Args:
        folder: the new data set.
        layout: one of :data:`LAYOUTS`, or :data:`STUDIES`.
        meaning: what its numbers mean.
    """

    def __init__(self, folder: Path, layout: str, meaning: Meaning) -> None:
        count = len(meaning.channels)
        plain = layout == "plain"
        self.images = folder / (PLAIN_IMAGES if plain else IMAGES)
        self.labels = folder / (PLAIN_LABELS if plain else LABELS)
        self.tests = folder if layout == STUDIES else folder / TESTS
        self.count = count
        self._meaning = meaning
        self._joined = layout in ("decathlon", STUDIES)
        self._numbered = layout == "nnunet" or plain and count > 1
        for place in () if layout == STUDIES else (self.images, self.labels):
            place.mkdir(parents=True)

    def write(self, id_: str, channels: Sequence[Path], label: Path | None) -> None:
        """Write an image, and its label map where it has one.

        Raises:
            ImageError, LabelError: if it has another number of channels, its files do not lie on one grid, or its label
                map has values that no label has.
        """
        grid = channels_grid(channels, self.count)
        if label is not None:
            check_grid(stored_grid(label), grid, shown(label), shown(channels[0]))
            found = set(label_counts(read_label(label)[0]))
            check_values(found - {self._meaning.ignore}, self._meaning.labels, shown(label))
            _copy(label, self.labels / f"{id_}{_ENDING}")
        place = self.images if label is not None else self.tests
        place.mkdir(exist_ok=True)
        names = [f"{id_}_{number:04d}{_ENDING}" for number in range(self.count)]
        targets = [place / name for name in (names if self._numbered else [f"{id_}{_ENDING}"])]
        if len(channels) == len(targets):
            for file, target in zip(channels, targets, strict=True):
                _copy(file, target)
        elif self._joined:
            join_channels(channels, targets[0])
        else:
            split_channels(channels[0], targets)

    def remove(self, id_: str) -> None:
        """Remove what was written of a case that failed."""
        for place in (self.images, self.labels, self.tests):
            for name in (id_, *(f"{id_}_{number:04d}" for number in range(self.count))):
                with suppress(OSError):  # a name that is too long was not written
                    (place / f"{name}{_ENDING}").unlink()


def _each(
    todo: Sequence[tuple[str, Sequence[Path], Path | None]],
    writer: _Writer,
    left_out: list[LeftOut],
    report: Callable[[str], None] | None,
) -> list[str]:
    """Write each image that can be, and return their ids; the others are left out."""
    written = []
    for id_, channels, label in todo:
        if report is not None:
            report(id_)
        try:
            writer.write(id_, channels, label)
            written.append(id_)
        except Exception as error:  # whatever it is, it costs this case only
            if isinstance(full := machine_error(error), DiskFullError):
                raise full from error
            writer.remove(id_)
            left_out.append(LeftOut(id_, shown(channels[0]), said(error)))
    return written


def _copy(source: Path, target: Path) -> None:
    """Copy a file, packed where it is not yet."""
    if source.suffix.lower() == ".gz":
        copy_whole(source, target)
        return
    with (
        source.open("rb") as file,
        whole_file(target) as out,
        gzip.GzipFile("", "wb", _LEVEL, out, mtime=0) as packed,
    ):
        shutil.copyfileobj(file, packed)


def _description(
    layout: str,
    meaning: Meaning,
    cases: Sequence[str],
    tests: Sequence[str],
    annotated: Mapping[str, Sequence[str]],
) -> dict[str, Any]:
    """Return the dataset.json."""
    labels = {"background": 0, **meaning.labels}
    if meaning.ignore is not None:
        labels[IGNORE] = meaning.ignore
    labels = dict(sorted(labels.items(), key=lambda item: item[1]))
    channels = {str(number): name for number, name in enumerate(meaning.channels)}
    more = {"annotated": annotated} if annotated else {}
    if layout != "decathlon":
        numbers = {"channel_names": channels, "labels": labels, "numTraining": len(cases), "file_ending": _ENDING}
        return {**meaning.facts, **numbers, **more}
    return {
        **meaning.facts,
        "tensorImageSize": "3D" if len(channels) == 1 else "4D",
        "modality": channels,
        "labels": {str(value): name for name, value in labels.items()},
        "numTraining": len(cases),
        "numTest": len(tests),
        "training": [
            {"image": f"./{IMAGES}/{id_}{_ENDING}", "label": f"./{LABELS}/{id_}{_ENDING}"} for id_ in sorted(cases)
        ],
        "test": [f"./{TESTS}/{id_}{_ENDING}" for id_ in sorted(tests)],
        **more,
    }


def _require_whole(data: DataSet, meaning: Meaning) -> None:
    """Refuse cases in which some labels were not annotated: nnU-Net would learn those as background.

    Raises:
        TaskError: naming cases.
    """
    cases = [case.id for case in data.cases if case.known(meaning.labels) != dict(meaning.labels)]
    if cases:
        more = f" and {len(cases) - 5} more" if len(cases) > 5 else ""
        raise TaskError(
            f"{data.folder / DESCRIPTION} says that only some labels were annotated in {', '.join(cases[:5])}{more}. "
            f"nnU-Net does not know 'annotated': it would learn the other labels as background there. Annotate "
            f"them, leave these cases out, or give the voxels that may be one of them the value called {IGNORE}, and "
            f"then take 'annotated' away."
        )


def _remarks(layout: str, meaning: Meaning) -> Iterator[str]:
    """Yield what else was given for labels, and what nnU-Net asks for: values are never changed here."""
    if meaning.replaced:
        before, now = (
            ", ".join(f"{name}={value}" for name, value in labels.items())
            for labels in (meaning.replaced, meaning.labels)
        )
        yield f"The labels of {DESCRIPTION} were replaced: {before} by {now}."
    if layout != "nnunet":
        return
    values = sorted(meaning.labels.values())
    count = len(values)
    if values != list(range(1, count + 1)):
        yield f"nnU-Net asks for labels 1, 2, 3 ... without gaps; here they are {', '.join(map(str, values))}."
    if meaning.ignore not in (None, count + 1):
        yield (
            f"nnU-Net asks for the highest value for {IGNORE}, directly after the last label: {count + 1} where labels "
            f"are without gaps; here it is {meaning.ignore}."
        )


def _check_output(output: Path, folder: Path, files: Sequence[Path]) -> None:
    there, source = Path(os.path.realpath(output)), Path(os.path.realpath(folder))
    if there.is_relative_to(source) or source.is_relative_to(there):
        raise OutputError(f"{output} lies in the data set that is read, or around it. Give a folder beside it.")
    if os.path.lexists(output) and not (output.is_dir() and not output.is_symlink() and not any(output.iterdir())):
        raise OutputError(f"{output} is there already. Give the name of a new folder: nothing is overwritten.")
    room = sum(file.stat().st_size for file in files if file.suffix.lower() == ".gz")
    check_output_folder(output.parent, option="OUT", room=room)


@contextmanager
def _appearing(output: Path) -> Iterator[Path]:
    """Yield a hidden folder beside ``output`` that takes its place when all is written, and else is removed."""
    part = output.with_name(f".{output.name[:50]}.{uuid.uuid4().hex}{PART_SUFFIX}")
    part.mkdir()
    try:
        yield part
        if output.is_dir():  # and empty
            output.rmdir()
        os.replace(part, output)
        sync_folder(output.parent)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def _check_whole(folder: Path, cases: Sequence[str], meaning: Meaning) -> None:
    """Make sure that what was written reads as what it is."""
    there = read_data_set(folder)
    path = folder / DESCRIPTION
    read = (labels_from_dataset_json(path), ignore_from_dataset_json(path), channels_from_dataset_json(path))
    ids, says = [case.id for case in there.cases], (dict(meaning.labels), meaning.ignore, tuple(meaning.channels))
    if there.left_out or ids != sorted(cases) or read != says:
        raise OutputError(
            f"What was written does not read as what was to be written; it was removed. {listed(there.left_out)}"
        )
