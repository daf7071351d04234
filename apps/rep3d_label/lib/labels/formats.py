"""Label maps in the formats that 3D Slicer and ITK write besides NIfTI, made NIfTI without changing a single voxel."""

from __future__ import annotations

import mmap
import re
from pathlib import Path

import numpy as np
import SimpleITK as sitk

from rep3d.errors import LabelError
from rep3d.imaging.nifti import IMAGE_SUFFIXES

__all__ = ["LABEL_SUFFIXES", "as_nifti"]

# ".seg.nrrd" says besides which segment has which value.
LABEL_SUFFIXES = (*IMAGE_SUFFIXES, ".seg.nrrd", ".nrrd", ".mha")
_MOST_SEGMENTS = 65535
# Headers of these formats may name another file that has the voxels: any file of this computer, if they were believed.
_ELSEWHERE = {
    "MetaImageIO": re.compile(rb"ElementDataFile(?!\s*[=:]\s*LOCAL\s*\n)", re.IGNORECASE),
    "NrrdImageIO": re.compile(rb"data\s*file\s*:", re.IGNORECASE),
}


def as_nifti(file: Path, image: Path, output: Path) -> dict[str, int]:
    """Convert a label map.

    Slicer cuts its own format down to the segments; such a map is put back to its place in the image, voxel by voxel.

    Args:
        file: a ``.nrrd``, ``.seg.nrrd`` or ``.mha`` file with one layer.
        image: the image that it was drawn on.
        output: the ``.nii.gz`` file to write.

    Returns:
        Segment name to voxel value as the file itself says; empty where it does not.

    Raises:
        LabelError: if the file is no label map of one layer, or has its voxels in another file.
    """
    reader = "MetaImageIO" if file.suffix == ".mha" else "NrrdImageIO"  # never one that the content asks for
    if _names_another_file(file, _ELSEWHERE[reader]):
        raise LabelError(f"{file.name} does not hold its voxels itself, but names another file. Export it as NIfTI.")
    try:
        label = sitk.ReadImage(str(file), imageIO=reader)
    except RuntimeError as error:
        reason = str(error).strip().splitlines()[-1]
        raise LabelError(
            f"{file.name} cannot be read as a label map, or is damaged ({reason}). Export it as NIfTI."
        ) from error
    if label.GetDimension() != 3 or label.GetNumberOfComponentsPerPixel() != 1:
        raise LabelError(
            f"{file.name} has segments in {label.GetNumberOfComponentsPerPixel()} layers and {label.GetDimension()} "
            f"dimensions; one layer, without overlaps, can be stored. Export it as a label map (NIfTI)."
        )
    segments = _segments(label)
    sitk.WriteImage(_in_place(label, image) if segments else label, str(output))
    return segments


def _names_another_file(file: Path, pattern: re.Pattern[bytes]) -> bool:
    """Return whether a header says so; all of the file is searched, since where a header ends depends on who reads
    it."""
    if not file.stat().st_size:
        return False
    with file.open("rb") as content, mmap.mmap(content.fileno(), 0, access=mmap.ACCESS_READ) as everything:
        return pattern.search(everything) is not None


def _segments(label: sitk.Image) -> dict[str, int]:
    found: dict[str, int] = {}
    for number in range(_MOST_SEGMENTS):
        prefix = f"Segment{number}_"
        if not label.HasMetaDataKey(f"{prefix}Name") or not label.HasMetaDataKey(f"{prefix}LabelValue"):
            break
        value = label.GetMetaData(f"{prefix}LabelValue").strip()
        if value.isdigit():
            found[label.GetMetaData(f"{prefix}Name").strip()] = int(value)
    return found


def _in_place(label: sitk.Image, image: Path) -> sitk.Image:
    """Return the label on its image's whole grid, if its voxels lie exactly on voxels of the image; else as it is."""
    reader = sitk.ImageFileReader()
    reader.SetFileName(str(image))
    try:
        reader.ReadImageInformation()
    except RuntimeError:
        return label
    if reader.GetDimension() != 3 or label.GetSize() == reader.GetSize():
        return label
    same_axes = np.allclose(label.GetDirection(), reader.GetDirection(), atol=1e-4)
    same_steps = np.allclose(label.GetSpacing(), reader.GetSpacing(), rtol=1e-4)
    axes = np.array(reader.GetDirection()).reshape(3, 3)
    offset = np.linalg.solve(axes, np.subtract(label.GetOrigin(), reader.GetOrigin())) / reader.GetSpacing()
    start = np.rint(offset).astype(int)
    end = start + label.GetSize()
    inside = bool((start >= 0).all() and (end <= reader.GetSize()).all())
    if not (same_axes and same_steps and inside and np.abs(offset - start).max() < 0.01):
        return label
    whole = sitk.Image(reader.GetSize(), label.GetPixelID())
    whole.SetDirection(reader.GetDirection())
    whole.SetSpacing(reader.GetSpacing())
    whole.SetOrigin(reader.GetOrigin())
    return sitk.Paste(whole, label, label.GetSize(), destinationIndex=start.tolist())
