"""What lies in the studies folder and is not used, each with the reason and what to do: nothing is left out in silence.

One rule says which files are images or labels (:func:`sort_out`); the registry takes up what it allows, and
:func:`look_through` names the rest. Nothing is opened but, where images have several channels, headers that may be of
one of them, each once: a folder of thousands of files is looked through in no time.
"""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lib.channels import ONE, Channels
from lib.errors import RequestError
from lib.names import LONGEST_FILE_NAME, checked_tag, fails_on_windows, split_suffix
from rep3d.files import PART_SUFFIX, leads_out
from rep3d.imaging.channels import image_name
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["TAGS", "PassedOver", "grouped", "is_folder_of_labels", "look_through", "sort_out"]

TAGS = ("final", "original")  # of the folders of labels that there always are

_OURS = frozenset({"rep3d", "labels"})  # folders of the studies folder that hold other things
_MAC = "._"  # how macOS calls what it keeps beside each file on other systems' drives
_OTHER_IMAGES = (
    *(".nrrd", ".nhdr", ".mha", ".mhd", ".img", ".hdr", ".mgz", ".mgh", ".mnc", ".gipl", ".vti", ".par", ".rec"),
    *(".nii.bz2", ".nii.xz", ".nii.zst", ".nii.zip", ".img.gz", ".hdr.gz", ".tif", ".tiff", ".png", ".jpg", ".jpeg"),
)
_PACKED = (".zip", ".tar", ".tar.gz", ".tgz", ".tar.bz2", ".tar.xz", ".7z", ".rar")
_SHOWN_FILES, _SHOWN_GROUPS = 50, 100


@dataclass(frozen=True)
class PassedOver:
    """A file, or a folder, that is not used.

    Attributes:
        file: where it is, relative to the studies folder, with ``/`` between folders.
        reason: why it is not used, a sentence.
        remedy: what to do so that it is, a sentence.
    """

    file: str
    reason: str
    remedy: str


@dataclass(frozen=True)
class _Why:
    reason: str
    remedy: str


_FOLDER = _Why("It is a folder with the name of an image file.", "Move the file that it holds out of it.")
_BROKEN = _Why("It is a link to a file that is not there.", "Bring the file back, or remove the link.")
_OUTSIDE = _Why("It is a link that leads out of the studies folder.", "Copy what it leads to into the studies folder.")
_SPECIAL = _Why("It is no ordinary file.", "Put the file itself in its place.")
_WINDOWS = _Why("Windows keeps its name for itself, or cuts its end.", "Rename it, with letters and digits.")
_TAG = _Why(
    "It is no folder of labels: its name is not plain, or that of another one in other letters.",
    "Move its label maps to the folder that is meant, such as labels/final, or rename it.",
)
_LONG = _Why("Its name is too long for files to be named after it.", f"Rename it: at most {LONGEST_FILE_NAME} bytes.")
_NAME = _Why("Its name has characters that no address can hold.", "Rename it, with letters and digits.")
_HIDDEN = _Why("It is hidden: its name begins with a dot.", "Rename it if it is an image.")
_EMPTY = _Why("It has no name before its ending.", "Rename it.")
_SUBFOLDER = _Why(
    "It lies in a subfolder.", "Move it into the studies folder, or put a link to it there, under a name of its own."
)
_TOP = _Why("The images of this studies folder are in imagesTr.", "Move it there.")
_OTHER_LABEL = _Why(
    "It is a label map of another layout.",
    "Copy it to labels/final under the name of its image, with the server's voxel values, or submit it.",
)
_FORMAT = _Why("It is no NIfTI file.", f"Convert it to NIfTI ({' or '.join(IMAGE_SUFFIXES)}).")
_ARCHIVE = _Why("It is an archive.", "Unpack it; one of DICOM files can be sent with PUT /rep3d/dicom.")
_LINKED = _Why("It is a link to a folder, which is not followed.", "Put links to the image files themselves.")
_CLOSED = _Why("The folder cannot be read by the server.", "Give its user the right to read it.")
_NO_IMAGE = _Why("There is no image of this name.", "Give it the name of its image.")


def is_folder_of_labels(folder: Path, studies: Path) -> bool:
    """Return whether a folder below ``labels`` can be one of labels: its name is a tag, and it leads nowhere else."""
    try:
        checked_tag(folder.name, TAGS)
    except RequestError:
        return False
    return not leads_out(folder, studies)


def sort_out(
    folder: Path, known: Mapping[str, str], studies: Path, channels: Channels = ONE
) -> tuple[dict[str, str], dict[str, _Why]]:
    """Tell the images, or label maps, in a folder from what only looks like them.

    Args:
        folder: where they are; it is not changed.
        known: ids that are in use, with the endings of their files: of two files of one name they stay.
        studies: the studies folder, which links must not lead out of.
        channels: of images; of several, each in a file of its own, the first one's file stands for the image.

    Returns:
        The names of the files to use, with their ids; and those of the others, with the reason.
    """
    candidates: dict[str, list[str]] = {}
    refused: dict[str, _Why] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            id_, suffix = split_suffix(entry.name, IMAGE_SUFFIXES)
            if not suffix or entry.name.startswith(_MAC):
                continue
            why = _why_not(entry, id_, studies)
            if why:
                refused[entry.name] = why
            else:
                candidates.setdefault(id_, []).append(entry.name)
    joined = _joined(folder, candidates, known, refused, channels) if channels.count > 1 else {}
    used = {}
    for id_, names in candidates.items():
        first = _first(names, id_, known)
        used[first] = id_
        for name in names:
            if name != first:
                refused.update(dict.fromkeys(joined.get(name, (name,)), _same_name(first)))
    return used, refused


def _first(names: Iterable[str], id_: str, known: Mapping[str, str]) -> str:
    # The shorter ending first, as MONAI Label chose it: a registry that is made anew finds the same files.
    return min(names, key=lambda name: (name != f"{id_}{known.get(id_)}", len(name), name))


def _same_name(used: str) -> _Why:
    return _Why(f"{used} is used, which has the same name.", "Rename one of the two.")


def _joined(
    folder: Path,
    candidates: dict[str, list[str]],
    known: Mapping[str, str],
    refused: dict[str, _Why],
    channels: Channels,
) -> dict[str, tuple[str, ...]]:
    """Put each image that has a file for each channel under its own id; one whose files are not all usable is refused.

    Returns:
        The names of its files, by the first one's.
    """
    joined = {}
    for id_, names in candidates.items():
        image = image_name(folder / names[0])
        first = _first(names, image, known)
        files = tuple(file.name for file in channels.files(folder / first))
        if image != id_ and len(files) > 1:
            joined[first] = files
    there = {name for names in candidates.values() for name in names}
    taken = {name for files in joined.values() for name in files}
    for id_, names in list(candidates.items()):
        if chosen := taken.intersection(names):
            refused.update({name: _same_name(min(chosen)) for name in names if name not in chosen})
            del candidates[id_]
    for first, files in joined.items():
        if lacking := [name for name in files if name not in there]:
            why = _Why(f"Another channel, {lacking[0]}, cannot be used.", "See what is said of that one.")
            refused.update(dict.fromkeys(there.intersection(files), why))
        else:
            candidates.setdefault(image_name(folder / first), []).append(first)
    return joined


def _why_not(entry: os.DirEntry[str], id_: str, studies: Path) -> _Why | None:
    if entry.name.startswith("."):
        return _HIDDEN if id_ else _EMPTY
    try:
        encoded = entry.name.encode()
    except UnicodeEncodeError:
        return _NAME
    if not entry.name.isprintable() or "\\" in entry.name:
        return _NAME
    if len(encoded) > LONGEST_FILE_NAME:
        return _LONG
    if fails_on_windows(id_):
        return _WINDOWS
    try:
        if entry.is_dir():
            return _FOLDER
        if not entry.is_file():
            return _SPECIAL if os.path.exists(entry.path) else _BROKEN
        return _OUTSIDE if entry.is_symlink() and leads_out(entry.path, studies) else None
    except OSError:  # such as a link to itself
        return _BROKEN


def look_through(
    studies: Path,
    images: Path,
    known: Mapping[str, str],
    final: Path,
    labels: Mapping[str, str],
    channels: Channels = ONE,
) -> list[PassedOver]:
    """Return what is not used of a studies folder, by its path.

    Args:
        studies: the studies folder.
        images: the folder in it that the images are taken from.
        known: ids of the images, with the endings of their files.
        final: the folder of the final labels.
        labels: ids of the images with a final label, with the endings of its files.
        channels: of the images.
    """
    found = dict(_named(studies, images, sort_out(images, known, studies, channels)[1]))
    used, refused = sort_out(final, labels, studies)
    found.update(_named(studies, final, refused))
    found.update(_named(studies, final, {name: _NO_IMAGE for name, id_ in used.items() if id_ not in known}))
    with os.scandir(final.parent) as entries:
        beside = {entry.name: why for entry in entries if (why := _beside(entry, studies))}
    found.update(_named(studies, final.parent, beside))
    for folder in _folders(studies, images, found):
        found.update(_named(studies, folder.path, dict(_others(folder, studies, images))))
    return [PassedOver(_shown(file), why.reason, why.remedy) for file, why in sorted(found.items())]


@dataclass(frozen=True)
class _Folder:
    path: Path
    files: list[str]


def _folders(studies: Path, images: Path, found: dict[str, _Why]) -> Iterator[_Folder]:
    """Yield the folders to look through; those that cannot be, are added to ``found``."""

    def closed(error: OSError) -> None:
        if error.filename:
            found[_relative(Path(error.filename), studies)] = _CLOSED

    for path, folders, files in os.walk(studies, onerror=closed):
        place = Path(path)
        for name in list(folders):
            if name.startswith(".") or (place == studies and name in _OURS):
                folders.remove(name)
            elif (place / name).is_symlink() and place / name != images:
                found[_relative(place / name, studies)] = _LINKED
        yield _Folder(place, files)


def _others(folder: _Folder, studies: Path, images: Path) -> Iterator[tuple[str, _Why]]:
    """Yield what is not used of a folder, leaving out what :func:`sort_out` tells."""
    for name in folder.files:
        lower = name.lower()
        if name.startswith(".") or lower.endswith(PART_SUFFIX):
            continue
        if _is_nifti(name):
            if folder.path == images:
                continue
            if folder.path == studies:
                yield name, _TOP
            else:
                top = folder.path.relative_to(studies).parts[0]
                yield name, _OTHER_LABEL if top.lower().startswith("labels") else _SUBFOLDER
        elif lower.endswith(_OTHER_IMAGES):
            yield name, _FORMAT
        elif lower.endswith(_PACKED):
            yield name, _ARCHIVE


def _is_nifti(name: str) -> bool:
    return bool(split_suffix(name, IMAGE_SUFFIXES)[1]) and not name.startswith(".")


def _beside(entry: os.DirEntry[str], studies: Path) -> _Why | None:
    """Return why something beside the folders of labels is none; None where it is, or does not look like one."""
    if _is_nifti(entry.name):
        return _OTHER_LABEL
    folder = entry.is_dir() and not entry.name.startswith(".")
    return _TAG if folder and not is_folder_of_labels(Path(entry.path), studies) else None


def _named(studies: Path, folder: Path, names: Mapping[str, _Why]) -> Iterator[tuple[str, _Why]]:
    for name, why in names.items():
        yield _relative(folder / name, studies), why


def _relative(path: Path, studies: Path) -> str:
    return Path(os.path.normpath(path)).relative_to(os.path.normpath(studies)).as_posix()


def _shown(name: str) -> str:
    """Return a name that can be written anywhere, whatever bytes it has."""
    return name.encode(errors="backslashreplace").decode()


def grouped(found: Iterable[PassedOver]) -> dict[str, Any]:
    """Return a list as it is shown: what is not used for one reason together, the largest groups first.

    Returns:
        ``total``, and ``groups`` with ``reason``, ``remedy``, ``count`` and ``files``: the first names of them.
    """
    groups: dict[tuple[str, str], list[str]] = {}
    for one in found:
        groups.setdefault((one.reason, one.remedy), []).append(one.file)
    largest = sorted(groups.items(), key=lambda group: -len(group[1]))[:_SHOWN_GROUPS]
    return {
        "total": sum(map(len, groups.values())),
        "groups": [
            {"reason": reason, "remedy": remedy, "count": len(files), "files": files[:_SHOWN_FILES]}
            for (reason, remedy), files in largest
        ],
    }
