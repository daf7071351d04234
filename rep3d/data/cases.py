"""A case is an image file with its label file; a data set is a folder of them. No torch here.

What lies in the folder is used where it is certain what it is, and is otherwise named with the reason: nothing is left
out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from rep3d.errors import TaskError

__all__ = ["Case", "DataSet", "LeftOut", "listed", "read_data_set"]

IMAGES, LABELS = "imagesTr", "labelsTr"
_ENDING = re.compile(r"\.(nii|NII)(\.(gz|GZ))?$")  # as nibabel reads them: it looks for x.nii where x.Nii is named
_ANY_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_CHANNEL = re.compile(r"(?P<id>.+)_(?P<number>\d{4})")  # of nnU-Net's image names
_MOST_LISTED = 20


@dataclass(frozen=True)
class Case:
    """An image file and its label file."""

    id: str
    image: Path
    label: Path


@dataclass(frozen=True)
class LeftOut:
    """A case, or a file, that is not used.

    Attributes:
        id: the case, or what it would have been called.
        file: where it is, as people find it.
        reason: why it is not used, and what to do.
    """

    id: str
    file: str
    reason: str

    def to_dict(self) -> dict[str, str]:
        """Return it as plain JSON types."""
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.file}: {self.reason}"


@dataclass(frozen=True)
class DataSet:
    """The cases of a folder, by id, and what else lies in it."""

    folder: Path
    cases: tuple[Case, ...]
    left_out: tuple[LeftOut, ...]

    @property
    def found(self) -> int:
        """How many cases there are, those that cannot be used included."""
        return len(self.cases) + len({entry.id for entry in self.left_out})


def listed(left_out: Sequence[LeftOut]) -> str:
    """Return what is left out and why, in a line; of many the first."""
    more = len(left_out) - _MOST_LISTED
    told = "; ".join(str(entry).removesuffix(".") for entry in left_out[:_MOST_LISTED])
    return told + (f"; and {more} more" if more > 0 else "")


def read_data_set(folder: Path | str) -> DataSet:
    """Return the labelled cases of a folder in the decathlon's layout: one image in imagesTr, one label in labelsTr.

    Both may be ``.nii`` or ``.nii.gz``, in small or capital letters. An image may be named as nnU-Net does
    (``x_0000.nii.gz`` for the label ``x.nii.gz``) where it is the only channel. Names of hidden files begin with a dot;
    those that are no images are no part of a data set.

    Raises:
        TaskError: if the folder has not this layout.
    """
    folder = Path(folder)
    for name in (IMAGES, LABELS):
        if not (folder / name).is_dir():
            raise TaskError(
                f"{folder} is no data set: it has no folder {name}. Needed are dataset.json, {IMAGES} and {LABELS}, as "
                f"in the Medical Segmentation Decathlon."
            )
    left_out: list[LeftOut] = []
    images, labels = _files(folder, IMAGES, left_out), _files(folder, LABELS, left_out)
    images = _single_channels(folder, images, labels, left_out)
    odd = {entry.id for entry in left_out}
    cases = []
    for id_ in sorted({*images, *labels}):
        image, label = images.get(id_, []), labels.get(id_, [])
        if len(image) == len(label) == 1:
            cases.append(Case(id_, image[0].absolute(), label[0].absolute()))
        elif len(image) > 1 or len(label) > 1:
            both = ", ".join(_shown(folder, file) for file in (*image, *label))
            reason = f"it is not clear which files belong together ({both}). Keep one image and one label."
            left_out += _all(folder, id_, (*image, *label), reason)
        elif id_ in odd:
            left_out += _all(folder, id_, (*image, *label), "the file that belongs to it cannot be used.")
        elif image:
            left_out += _all(folder, id_, image, f"there is no label {id_}.nii.gz or {id_}.nii in {LABELS}.")
        else:
            left_out += _all(folder, id_, label, f"there is no image {id_}.nii.gz or {id_}.nii in {IMAGES}.")
    return DataSet(folder, tuple(cases), tuple(sorted(left_out, key=lambda one: (one.id, one.file))))


def _files(folder: Path, part: str, left_out: list[LeftOut]) -> dict[str, list[Path]]:
    """Return the NIfTI files of a part of the data set by name without ending; the others are left out."""
    found: dict[str, list[Path]] = {}
    try:
        paths = sorted((folder / part).iterdir())
    except OSError as error:
        raise TaskError(f"{folder / part} cannot be read ({error.strerror}).") from error
    for path in paths:
        reason = _unusable(path)
        id_ = _ANY_ENDING.sub("", path.name)
        if reason is None:
            found.setdefault(id_, []).append(path)
        elif not path.name.startswith(".") or _ANY_ENDING.search(path.name):
            left_out.append(LeftOut(id_, _shown(folder, path), reason))
    return found


def _unusable(path: Path) -> str | None:
    """Return why a name in a data set stands for no image or label file; None where it does."""
    if path.name.startswith("."):
        return "it is hidden, like what macOS leaves beside files. Rename it if it is an image."
    if path.is_symlink() and not path.exists():
        return "it is a link to a file that is not there."
    if path.is_dir():
        return "it is a folder, and subfolders are not looked into. Move its images up, one NIfTI file each."
    if not _ANY_ENDING.search(path.name):
        return "it is no NIfTI file (.nii or .nii.gz). Convert it if it is an image."
    if not _ENDING.search(path.name):
        return "its ending mixes small and capital letters. Rename it to .nii or .nii.gz."
    if not path.is_file():
        return "it is no ordinary file."
    return "it is empty. Copy it again." if not path.stat().st_size else None


def _single_channels(
    folder: Path, images: Mapping[str, list[Path]], labels: Mapping[str, object], left_out: list[LeftOut]
) -> dict[str, list[Path]]:
    """Return images under their case's name where they are named as nnU-Net does."""
    found: dict[str, list[Path]] = {}
    channels: dict[str, dict[str, list[Path]]] = {}
    for name, files in images.items():
        parts = _CHANNEL.fullmatch(name)
        if parts is None or name in labels:
            found.setdefault(name, []).extend(files)
        else:
            channels.setdefault(parts["id"], {})[parts["number"]] = files
    for id_, numbered in channels.items():
        files = [file for number in numbered.values() for file in number]
        if set(numbered) == {"0000"}:
            found.setdefault(id_, []).extend(files)
        else:
            names = ", ".join(_shown(folder, file) for file in files)
            reason = f"it is one of several channels ({names}), and images with several are not supported yet."
            left_out += _all(folder, id_, files, reason)
    return found


def _all(folder: Path, id_: str, files: Iterable[Path], reason: str) -> list[LeftOut]:
    return [LeftOut(id_, _shown(folder, file), reason) for file in files]


def _shown(folder: Path, file: Path) -> str:
    return file.relative_to(folder).as_posix()
