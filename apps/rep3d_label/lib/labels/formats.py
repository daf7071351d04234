"""Label maps in the formats that 3D Slicer and ITK write besides NIfTI, made NIfTI without changing a single voxel."""

from __future__ import annotations

import mmap
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from lib.labels.promise import check_promise, no_label_map
from lib.labels.segments import Segment
from lib.names import split_suffix
from rep3d.errors import LabelError
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["LABEL_SUFFIXES", "Converted", "as_nifti"]

# ".seg.nrrd" says besides which segment has which value.
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".seg.nrrd", ".nrrd", ".mha")
# Headers of these formats may name another file that has the voxels: any file of this computer, if they were believed.
_ELSEWHERE = {
    "MetaImageIO": re.compile(rb"ElementDataFile(?!\s*[=:]\s*LOCAL\s*\n)", re.IGNORECASE),
    "NrrdImageIO": re.compile(rb"data\s*file\s*:", re.IGNORECASE),
}
_NRRD_HEADER = re.compile(rb"NRRD.*?\n\r?\n", re.DOTALL)
_MHA_HEADER = re.compile(rb".*?ElementDataFile[^\n]*\n", re.DOTALL | re.IGNORECASE)
_LONGEST_HEADER = 16 << 20
_NRRD_KEY = re.compile(rb"^(Segment\d+_[^:\r\n]*):=(.*?)\r?$", re.MULTILINE)
_NRRD_UNITS = re.compile(rb"^space units:(.*)$", re.MULTILINE | re.IGNORECASE)
_MHA_PLACE = (rb"TransformMatrix|Rotation|Orientation", rb"Offset|Position|Origin")
_SEGMENT = re.compile(r"Segment(\d+)_(ID|Name|LabelValue|Layer)")
_MITK = "org.mitk.multilabel"


@dataclass(frozen=True)
class Converted:
    """A label map made NIfTI.

    Attributes:
        layers: the ``.nii.gz`` files of its layers, most often one.
        segments: what their voxel values mean, as the file itself says; empty where it does not.
        nameless: what the file should say and does not say in a way that is read here; "" where nothing is missing.
    """

    layers: tuple[Path, ...]
    segments: tuple[Segment, ...]
    nameless: str = ""


def as_nifti(file: Path, image: Path, folder: Path) -> Converted:
    """Convert a label map.

    Slicer cuts its own format down to the segments; such a map is put back to its place in the image, voxel by voxel.

    Args:
        file: a ``.nrrd``, ``.seg.nrrd`` or ``.mha`` file.
        image: the image that it was drawn on.
        folder: where to write.

    Raises:
        LabelError: if the file is no label map, has its voxels in another file, or does not say where they lie or
            what its segments are.
    """
    reader = "MetaImageIO" if file.suffix == ".mha" else "NrrdImageIO"  # never one that the content asks for
    check_promise(file, reader, *_checked_header(file, reader))
    try:
        label = sitk.ReadImage(str(file), imageIO=reader)
    except RuntimeError as error:
        raise no_label_map(file, error) from error
    names = label.GetMetaDataKeys()
    if any(name != name.encode(errors="replace").decode() for name in names):
        raise LabelError(f"{file.name} has a key in its header that is no text in UTF-8. Save it again.")
    keys = {name: label.GetMetaData(name) for name in names}
    space = keys.get("NRRD_space", "missing")  # what ITK knows (RAS, LAS, LPS), it has brought to LPS
    if reader == "NrrdImageIO" and space != "left-posterior-superior":
        raise _no_place(file, f"space is {space}")
    count = label.GetNumberOfComponentsPerPixel()
    segments = _segments(keys, count, file)
    if label.GetDimension() != 3 or (count > 1 and not segments):
        raise LabelError(
            f"{file.name} has segments in {count} layers and {label.GetDimension()} dimensions; one layer, without "
            f"overlaps, can be stored. Export it as a label map (NIfTI)."
        )
    several = label.GetPixelID() >= sitk.sitkVectorUInt8
    layers = [sitk.VectorIndexSelectionCast(label, index) for index in range(count)] if several else [label]
    stem = split_suffix(file.name, LABEL_SUFFIXES)[0]
    files = [folder / f"layer-{index}" / f"{stem}.nii.gz" for index in range(count)]
    for layer, output in zip(layers, files, strict=True):
        output.parent.mkdir()
        sitk.WriteImage(_in_place(layer, image) if segments else layer, str(output))
    nameless = ""
    if not segments and any(_MITK in text for pair in keys.items() for text in pair):
        nameless = "names its values in MITK's way, which is not read here"
    elif not segments and file.name.lower().endswith(".seg.nrrd"):
        nameless = "is a segmentation without the name of a single segment"
    return Converted(tuple(files), segments, nameless)


def _checked_header(file: Path, reader: str) -> tuple[bytes, int]:
    """Return the header and where the voxels begin; refuse what the reader would pass over: another file with the
    voxels, other units than mm, no place, a key twice.

    For another file, all of this one is searched, since where a header ends depends on who reads it.
    """
    if not file.stat().st_size:
        return b"", 0
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as everything:
        if _ELSEWHERE[reader].search(everything):
            raise LabelError(
                f"{file.name} does not hold its voxels itself, but names another file. Export it as NIfTI."
            )
        found = (_NRRD_HEADER if reader == "NrrdImageIO" else _MHA_HEADER).match(everything, 0, _LONGEST_HEADER)
        header = bytes(found[0]) if found else b""
    nrrd, mha = (header, b"") if reader == "NrrdImageIO" else (b"", header)
    if mha:
        missing = [names for names in _MHA_PLACE if not re.search(rb"^\s*(?:%s)\s*=" % names, mha, re.MULTILINE)]
        if missing:
            raise _no_place(file, f"{missing[0].decode().partition('|')[0]} is missing")
    units = _NRRD_UNITS.search(nrrd)
    if units and set(re.findall(rb'"([^"]*)"', units[1])) - {b"mm", b"", b"???"}:
        raise _no_place(file, f"units are {units[1].decode(errors='replace').strip()}, not mm")
    keys = dict[bytes, bytes]()
    for key, value in _NRRD_KEY.findall(nrrd):
        if keys.setdefault(key, value) != value:
            raise LabelError(
                f"{file.name} says {key.decode(errors='replace')} twice, {keys[key].decode(errors='replace')!r} and "
                f"{value.decode(errors='replace')!r}. Save it again in the program that drew it."
            )
    return header, len(header)


def _no_place(file: Path, why: str) -> LabelError:
    return LabelError(
        f"{file.name} does not say where its voxels lie in the patient, in mm ({why}). Export it again, as NIfTI or "
        f"with the image as reference."
    )


def _segments(keys: Mapping[str, str], layers: int, file: Path) -> tuple[Segment, ...]:
    """Return what a header says of segments.

    As in Slicer, a segment without a layer is in that of its own number, and one without a value has the value 1: so
    are files of Slicer before version 4.11. One without a name is called by its id.
    """
    told: dict[int, dict[str, str]] = {}
    for key, text in keys.items():
        if match := _SEGMENT.fullmatch(key):
            told.setdefault(int(match[1]), {})[match[2]] = text.strip()
    found = []
    for number, facts in sorted(told.items()):
        name = facts.get("Name") or facts.get("ID") or ""
        if not name or name != name.encode(errors="replace").decode():
            raise LabelError(
                f"{file.name} has a segment (number {number}) without a name that is text in UTF-8. Name it, and save "
                f"it again."
            )
        old = "0" if layers == 1 and "LabelValue" in facts else str(number)
        try:
            layer, value = int(facts.get("Layer", old)), int(facts.get("LabelValue", "1"))
        except ValueError as error:
            raise LabelError(
                f"{file.name} has no whole numbers as layer and value of the segment {name!r}, but "
                f"{facts.get('Layer')!r:.50} and {facts.get('LabelValue')!r:.50}. Save it again."
            ) from error
        found.append(Segment(name, layer, value))
    return tuple(found)


def _in_place(label: sitk.Image, image: Path) -> sitk.Image:
    """Return the label on its image's whole grid, if its voxels lie exactly on voxels of the image; else as it is."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(image))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return label
    dimension = reader.GetDimension()
    size, spacing, origin = reader.GetSize()[:3], reader.GetSpacing()[:3], reader.GetOrigin()[:3]  # then the channels
    if dimension not in (3, 4) or label.GetSize() == size:
        return label
    axes = np.array(reader.GetDirection()).reshape(dimension, dimension)[:3, :3]
    same_axes = np.allclose(label.GetDirection(), axes.ravel(), atol=1e-4)
    same_steps = np.allclose(label.GetSpacing(), spacing, rtol=1e-4)
    offset = np.linalg.solve(axes, np.subtract(label.GetOrigin(), origin)) / spacing
    start = np.rint(offset).astype(int)
    end = start + label.GetSize()
    inside = bool((start >= 0).all() and (end <= size).all())
    if not (same_axes and same_steps and inside and np.abs(offset - start).max() < 0.01):
        return label
    whole = sitk.Image(size, label.GetPixelID())
    whole.SetDirection(axes.ravel().tolist())
    whole.SetSpacing(spacing)
    whole.SetOrigin(origin)
    return sitk.Paste(whole, label, label.GetSize(), destinationIndex=start.tolist())
