"""A label map as DICOM SEG: which voxels of which images, what each label is in codes, and what made it."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image, ImageCms

from rep3d.errors import MissingComponentError
from rep3d.imaging.dicom.files import pydicom
from rep3d.imaging.dicom.results import (
    CHARACTERS,
    MANUFACTURER,
    Maker,
    code_item,
    contributing_equipment,
    in_our_words,
    read_sources,
    save_result,
    shown_lines,
)
from rep3d.imaging.dicom.series import DicomSeries
from rep3d.tasks.colours import Colour, label_colours
from rep3d.tasks.config import Code, Term

__all__ = ["require_highdicom", "write_segmentation"]

_TISSUE = Code("85756007", "SCT", "Tissue")  # what 3D Slicer says, too, of what no code is known for
_SERIES = 1000  # added to the number of the images' series, so that it is listed behind it


def require_highdicom() -> None:
    """Make sure that DICOM SEG can be written, before any work for it.

    Raises:
        MissingComponentError: if the package for it is not installed.
    """
    if importlib.util.find_spec("highdicom") is None:
        raise MissingComponentError(
            "Writing DICOM SEG needs the package highdicom, which is not installed. Run: pip install highdicom"
        )


def write_segmentation(
    values: np.ndarray,
    series: DicomSeries,
    output: Path,
    labels: Mapping[str, int],
    terms: Mapping[str, Term],
    maker: Maker,
) -> None:
    """Write a label map as a DICOM SEG file with a segment for each label, those without a voxel included.

    Args:
        values: (columns, rows, slices) voxel values, as :func:`rep3d.imaging.dicom.convert_series` orders them.
        series: the images that it is of.
        output: file to write.
        labels: label name to voxel value; other values are background.
        terms: what labels stand for; labels may be without.
        maker: what made it.

    Raises:
        ImageError: if the series cannot be referred to, or is not of this shape.
        MissingComponentError: if highdicom is not installed.
        DiskFullError: if the disk has no room.
    """
    sources = read_sources(series)
    sources.check(values)
    with in_our_words("DICOM SEG"):
        highdicom = _highdicom()
        names = sorted(labels, key=lambda name: labels[name])
        numbers = np.zeros(max(int(values.max()), *labels.values()) + 1, np.uint8 if len(names) < 256 else np.uint16)
        for number, name in enumerate(names, 1):
            numbers[labels[name]] = number
        # In the order of the frames: in another one it takes several times as long.
        frames, images = np.ascontiguousarray(numbers[values.transpose(2, 1, 0)]), sources.images
        if not frames.any():  # a file of nothing but empty frames would be as large as one of full ones
            frames, images = frames[:1], images[:1]
        first = images[0]
        step = round(sources.stack.step, 6)  # whatever its header says of it: the positions win
        first.SpacingBetweenSlices, first.SliceThickness = step, first.get("SliceThickness") or step
        algorithm = highdicom.AlgorithmIdentificationSequence(
            name=maker.model_name,
            family=pydicom().sr.coding.Code("123109", "DCM", "Artificial Intelligence"),
            version=shown_lines(", ".join(maker.software)),
            source=MANUFACTURER,
            parameters={"model": maker.digest, **maker.parameters},
        )
        colours = label_colours(labels, terms)
        segments = [
            _segment(highdicom, number, name, terms.get(name), colours[name], algorithm)
            for number, name in enumerate(names, 1)
        ]
        found = highdicom.seg.Segmentation(
            source_images=images,
            pixel_array=frames,
            segmentation_type=highdicom.seg.SegmentationTypeValues.BINARY,
            segment_descriptions=segments,
            series_instance_uid=pydicom().uid.generate_uid(None),
            series_number=_SERIES + max(int(first.get("SeriesNumber") or 0), 0),
            sop_instance_uid=pydicom().uid.generate_uid(None),
            instance_number=1,
            manufacturer=MANUFACTURER,
            manufacturer_model_name=maker.model_name,
            software_versions=tuple(maker.software),
            device_serial_number=maker.serial_number,
            content_label="SEGMENTATION",
            content_description=shown_lines(f"Made by {maker.model_name}, {maker.version}"),
            series_description=shown_lines(f"Segmentation by {maker.model_name}"),
        )
        found.SpecificCharacterSet = CHARACTERS  # highdicom takes over the texts, and not in which one they were
        found.DeviceUID = maker.device_uid
        found.ContributingEquipmentSequence = contributing_equipment(maker, first)
        save_result(found, output)


def _highdicom() -> Any:
    """Return the package that writes DICOM SEG; its last release for pydicom 2 asks NumPy 2 for a name of NumPy 1."""
    vars(np).setdefault("float_", np.float64)
    import highdicom

    return highdicom


def _segment(highdicom: Any, number: int, name: str, term: Term | None, colour: Colour, algorithm: Any) -> Any:
    category, kind = (term.category, term.type) if term and term.type else (_TISSUE, _TISSUE)
    assert category is not None and kind is not None, "a term has both or none"
    found = highdicom.seg.SegmentDescription(
        segment_number=number,
        segment_label=shown_lines(name),
        segmented_property_category=_coded(category),
        segmented_property_type=_coded(kind),
        algorithm_type=highdicom.seg.SegmentAlgorithmTypeValues.AUTOMATIC,
        algorithm_identification=algorithm,
        tracking_uid=pydicom().uid.generate_uid(None),
        tracking_id=shown_lines(name),
        anatomic_regions=[_coded(term.region)] if term and term.region else None,
    )
    if term and term.modifier:
        modifier = code_item(term.modifier.value, term.modifier.scheme, term.modifier.meaning)
        found.SegmentedPropertyTypeCodeSequence[0].SegmentedPropertyTypeModifierCodeSequence = [modifier]
    found.RecommendedDisplayCIELabValue = list(highdicom.color.CIELabColor(*_cielab(colour)).value)
    return found


def _coded(code: Code) -> Any:
    return pydicom().sr.coding.Code(code.value, code.scheme, shown_lines(code.meaning))


def _cielab(colour: Colour) -> tuple[float, float, float]:
    """Return a colour of sRGB in CIELab with white of 5000 K, as ICC profiles and DICOM mean it."""
    srgb, lab = ImageCms.createProfile("sRGB"), ImageCms.createProfile("LAB", 5000)
    pixel = ImageCms.profileToProfile(Image.new("RGB", (1, 1), colour), srgb, lab, outputMode="LAB")
    assert pixel is not None, "it is made anew"
    light, *ab = np.asarray(pixel)[0, 0].astype(int)
    a, b = (float(part if part < 128 else part - 256) for part in ab)  # signed bytes
    return light * 100 / 255, a, b
