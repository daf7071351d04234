"""A case is an image with its label file; a data set is a folder of them. No torch here.

Three layouts are read: the Medical Segmentation Decathlon's, nnU-Net's raw data sets (Isensee et al. 2021, Nature
Methods 18; version 2), and two plain folders. An image of several channels is one 4D file, as in the decathlon, or a
file for each channel, as in nnU-Net. What lies in the folders is used where it is certain what it is, and is otherwise
named with the reason: nothing is left out in silence.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

from rep3d.errors import OutputError, TaskError
from rep3d.files import leads_out
from rep3d.tasks.dataset_json import annotated_from_dataset_json, require_folder

__all__ = [
    "DESCRIPTION",
    "IMAGES",
    "LABELS",
    "PLAIN_IMAGES",
    "PLAIN_LABELS",
    "TESTS",
    "Case",
    "DataSet",
    "LeftOut",
    "check_apart",
    "listed",
    "read_data_set",
    "read_images",
    "shown",
]

DESCRIPTION = "dataset.json"
IMAGES, LABELS = "imagesTr", "labelsTr"
"""Folders of the decathlon and of nnU-Net."""
PLAIN_IMAGES, PLAIN_LABELS = "images", "labels"
"""A plain pair of folders."""
TESTS = "imagesTs"
"""Images without label maps, of the decathlon and of nnU-Net."""
_ENDING = re.compile(r"\.(nii|NII)(\.(gz|GZ))?$")  # as nibabel reads them: it looks for x.nii where x.Nii is named
_ANY_ENDING = re.compile(r"\.nii(\.gz)?$", re.IGNORECASE)
_CHANNEL = re.compile(r"(?P<id>.+)_(?P<number>\d{4})", re.DOTALL)  # of nnU-Net's image names
_MOST_LISTED = 20


@dataclass(frozen=True)
class Case:
    """An annotated image.

    Attributes:
        id: its name.
        image: its file; of several channels the first one's.
        label: its label map.
        channels: its files in the order of the channels; one file may hold several (4D). Not given: the image's alone.
        annotated: names of the labels that were looked for, whether they are in the image or not; None for all. Of the
            others nothing is known: what is background here may be one of them.
    """

    id: str
    image: Path
    label: Path
    channels: tuple[Path, ...] = ()
    annotated: tuple[str, ...] | None = None

    def __post_init__(self) -> None:
        if self.image not in self.channels:
            object.__setattr__(self, "channels", (self.image,))

    @property
    def files(self) -> tuple[Path, ...]:
        """All its files, the label map last."""
        return (*self.channels, self.label)

    def known(self, labels: Mapping[str, int]) -> dict[str, int]:
        """Return those of the labels, name to voxel value, that were annotated here: the others cannot be measured."""
        return {name: value for name, value in labels.items() if self.annotated is None or name in self.annotated}


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


def read_data_set(folder: Path | str, label_maps: Path | str | None = None) -> DataSet:
    """Return the annotated cases of a folder.

    Images lie in imagesTr and label maps in labelsTr, or in images and labels; or both folders are given. Files may be
    ``.nii`` or ``.nii.gz``, in small or capital letters. An image has the name of its label map, or is named as nnU-Net
    does: ``x_0000.nii.gz``, ``x_0001.nii.gz`` ... are the channels of the label map ``x.nii.gz``. Names of hidden files
    begin with a dot; those that are no images are no part of a data set.

    Where the folder's ``dataset.json`` says that only some labels were annotated (see
    :func:`rep3d.tasks.dataset_json.annotated_from_dataset_json`), the cases say it, too.

    Args:
        folder: the data set; with ``label_maps``, the folder of images.
        label_maps: the folder of label maps, where it lies elsewhere.

    Raises:
        TaskError: if the folder has not this layout, or its ``dataset.json`` says what cannot be.
    """
    folder = Path(folder)
    places = _places(folder, label_maps)
    left_out: list[LeftOut] = []
    files, labels = (_files(place, left_out) for place in places)
    images = _with_channels(files, labels, left_out)
    odd = {entry.id for entry in left_out}
    cases = []
    for id_ in sorted({*images, *labels}):
        image, label = images.get(id_, []), labels.get(id_, [])
        there = [*(file for channels in image for file in channels), *label]
        if len(image) == len(label) == 1:
            channels = tuple(file.absolute() for file in image[0])
            cases.append(Case(id_, channels[0], label[0].absolute(), channels))
        elif len(image) > 1 or len(label) > 1:
            both = ", ".join(map(shown, there))
            reason = f"it is not clear which files belong together ({both}). Keep one image and one label."
            left_out += _all(id_, there, reason)
        elif id_ in odd:
            left_out += _all(id_, there, "the file that belongs to it cannot be used.")
        else:
            what, place = ("label", places[1]) if image else ("image", places[0])
            left_out += _all(id_, there, f"there is no {what} {id_}.nii.gz or {id_}.nii in {place.name}.")
    if label_maps is None and (folder / DESCRIPTION).is_file():
        cases = _with_annotated(folder / DESCRIPTION, cases, left_out)
    return DataSet(folder, tuple(cases), tuple(sorted(left_out, key=lambda one: (one.id, one.file))))


def check_apart(output: Path, folder: Path, *, option: str = "--out") -> None:
    """Refuse to write among the images or label maps of a data set, where results would be taken for some of them.

    Args:
        output: the folder to write into.
        folder: the data set.
        option: how the user gave ``output``.

    Raises:
        OutputError: if it is one of their folders, or lies in one.
    """
    for name in (IMAGES, LABELS, PLAIN_IMAGES, PLAIN_LABELS, TESTS):
        if not leads_out(output, folder / name):
            raise OutputError(
                f"{option}: {output} lies among the images or label maps of {folder}. Give another folder."
            )


def read_images(folder: Path | str) -> tuple[dict[str, tuple[Path, ...]], tuple[LeftOut, ...]]:
    """Return the images of a folder that have no label maps, by id, each as its files, and what else lies there."""
    left_out: list[LeftOut] = []
    found = {}
    for id_, images in _with_channels(_files(Path(folder), left_out), {}, left_out).items():
        if len(images) == 1:
            found[id_] = images[0]
        else:
            files = [file for channels in images for file in channels]
            both = ", ".join(map(shown, files))
            left_out += _all(id_, files, f"it is not clear which is the image ({both}). Rename or remove all but one.")
    return found, tuple(left_out)


def _places(folder: Path, label_maps: Path | str | None) -> tuple[Path, Path]:
    """Return the folders of images and of label maps."""
    if label_maps is not None:
        places = (folder, Path(label_maps))
        for place in places:
            if not place.is_dir():
                raise TaskError(f"There is no folder {place}. Needed are a folder of images and one of label maps.")
        return places
    require_folder(folder)
    for images, labels in ((IMAGES, LABELS), (PLAIN_IMAGES, PLAIN_LABELS)):
        if (folder / images).is_dir() and (folder / labels).is_dir():
            return folder / images, folder / labels
    missing = LABELS if (folder / IMAGES).is_dir() else IMAGES
    raise TaskError(
        f"{folder} is no data set: it has no folder {missing}. Needed are {DESCRIPTION}, {IMAGES} and {LABELS}, as in "
        f"the Medical Segmentation Decathlon and in nnU-Net's raw data sets, or the folders {PLAIN_IMAGES} and "
        f"{PLAIN_LABELS}."
    )


def _with_annotated(description: Path, cases: list[Case], left_out: list[LeftOut]) -> list[Case]:
    """Return the cases with what was annotated in them; one in which nothing was is left out."""
    annotated = annotated_from_dataset_json(description)
    unknown = sorted(set(annotated.by_case) - {case.id for case in cases} - {entry.id for entry in left_out})
    if unknown:
        raise TaskError(
            f'{description}: "annotated" names cases that are not there: {", ".join(unknown[:5])}. Correct their names.'
        )
    found = []
    for case in cases:
        names = annotated.of(case.id)
        if names is not None and not names:
            left_out += _all(case.id, case.channels[:1], f"none of its labels was annotated, as {DESCRIPTION} says.")
        else:
            found.append(replace(case, annotated=names))
    return found


def _files(place: Path, left_out: list[LeftOut]) -> dict[str, list[Path]]:
    """Return the NIfTI files of a folder by name without ending; the others are left out."""
    found: dict[str, list[Path]] = {}
    try:
        paths = sorted(place.iterdir())
    except OSError as error:
        raise TaskError(f"{place} cannot be read ({error.strerror}).") from error
    for path in paths:
        reason = _unusable(path)
        id_ = _ANY_ENDING.sub("", path.name)
        if reason is None:
            found.setdefault(id_, []).append(path)
        elif not path.name.startswith(".") or _ANY_ENDING.search(path.name):
            left_out.append(LeftOut(_printable(id_), shown(path), reason))
    return found


def _unusable(path: Path) -> str | None:
    """Return why a name in a data set stands for no image or label file; None where it does."""
    if path.name.startswith("."):
        return "it is hidden, like what macOS leaves beside files. Rename it if it is an image."
    if _printable(path.name) != path.name:
        return "its name is not in UTF-8, as of files from an old archive. Rename it."
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


def _with_channels(
    images: Mapping[str, list[Path]], labels: Mapping[str, object], left_out: list[LeftOut]
) -> dict[str, list[tuple[Path, ...]]]:
    """Return the images of each case, each as its files in the order of the channels."""
    found: dict[str, list[tuple[Path, ...]]] = {}
    numbered: dict[str, dict[int, list[Path]]] = {}
    for name, files in images.items():
        parts = _CHANNEL.fullmatch(name)
        if parts is None or name in labels:
            found.setdefault(name, []).extend((file,) for file in files)
        else:
            numbered.setdefault(parts["id"], {})[int(parts["number"])] = files
    for id_, channels in numbered.items():
        files = [file for number in sorted(channels) for file in channels[number]]
        if 0 not in channels and id_ not in labels:  # the number is a part of the name, as in amos_0001
            for number, ones in channels.items():
                found.setdefault(f"{id_}_{number:04d}", []).extend((file,) for file in ones)
            continue
        missing = next((number for number in range(max(channels)) if number not in channels), None)
        if missing is not None:
            reason = (
                f"by its name it is a channel of {id_}, of which channel {id_}_{missing:04d} is missing. Add that, or "
                f"give the image the name of its label map."
            )
            left_out += _all(id_, files, reason)
        elif len(files) > len(channels):
            found.setdefault(id_, []).extend((file,) for file in files)
        else:
            found.setdefault(id_, []).append(tuple(files))
    return found


def _all(id_: str, files: Iterable[Path], reason: str) -> list[LeftOut]:
    return [LeftOut(id_, shown(file), reason) for file in files]


def shown(file: Path | str) -> str:
    """Return a file as people find it: image and label map may have one name, in two folders."""
    file = Path(file).absolute()
    return _printable(f"{file.parent.name}/{file.name}")


def _printable(name: str) -> str:
    """Return a file's name with a question mark for each byte that is none of UTF-8, which no text file would take."""
    return name.encode("utf-8", "replace").decode("utf-8")
