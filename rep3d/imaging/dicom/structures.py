"""A label map as DICOM RTSTRUCT: the outline of each label in each slice, in mm, for planning systems.

A contour runs half-way between the centres of the voxels inside and those outside, so that whoever fills it gets the
label map back. Where a label has a hole, its outline goes there and back on one line (keyhole), as the standard asks
of closed planar contours: several of one slice are several parts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any

import numpy as np
from scipy import sparse
from scipy.sparse import csgraph
from scipy.spatial import Delaunay

from rep3d.imaging.dicom.files import pydicom
from rep3d.imaging.dicom.results import (
    CHARACTERS,
    MANUFACTURER,
    Maker,
    Sources,
    code_item,
    contributing_equipment,
    in_our_words,
    read_sources,
    save_result,
    shown_lines,
)
from rep3d.imaging.dicom.series import DicomSeries
from rep3d.imaging.values import label_boxes
from rep3d.tasks.colours import label_colours
from rep3d.tasks.config import Term

__all__ = ["outlines", "write_structures"]

_RTSTRUCT = "1.2.840.10008.5.1.4.1.1.481.3"
_STUDY = "1.2.840.10008.3.1.2.3.1"  # what an RTSTRUCT calls the study that it refers to
_SERIES = 2000
_OF_PATIENT_AND_STUDY = (
    *("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "PatientIdentityRemoved"),
    *("DeidentificationMethod", "StudyInstanceUID", "StudyDate", "StudyTime", "ReferringPhysicianName", "StudyID"),
    *("AccessionNumber", "StudyDescription", "FrameOfReferenceUID", "PositionReferenceIndicator"),
)


def write_structures(
    values: np.ndarray,
    series: DicomSeries,
    output: Path,
    labels: Mapping[str, int],
    terms: Mapping[str, Term],
    maker: Maker,
) -> None:
    """Write a label map as a DICOM RTSTRUCT file with a structure for each label, those without a voxel included.

    Arguments and errors as :func:`rep3d.imaging.dicom.segmentation.write_segmentation`; highdicom is not needed.
    """
    sources = read_sources(series)
    sources.check(values)
    with in_our_words("DICOM RTSTRUCT"):
        data = _head(sources, maker)
        colours = label_colours(labels, terms)
        boxes = label_boxes(values, max(labels.values()))
        data.StructureSetROISequence, data.ROIContourSequence, data.RTROIObservationsSequence = [], [], []
        for number, name in enumerate(sorted(labels, key=lambda name: labels[name]), 1):
            roi, contours, observation = (pydicom().Dataset() for _ in range(3))
            roi.ROINumber = contours.ReferencedROINumber = observation.ReferencedROINumber = number
            roi.ReferencedFrameOfReferenceUID = data.FrameOfReferenceUID
            roi.ROIName, roi.ROIGenerationAlgorithm = shown_lines(name), "AUTOMATIC"
            contours.ROIDisplayColor = list(colours[name])
            contours.ContourSequence = _contours(values, labels[name], boxes[labels[name] - 1], sources)
            observation.ObservationNumber = number
            observation.RTROIInterpretedType, observation.ROIInterpreter = "", ""
            term = terms.get(name)
            if term and term.type:
                identified = code_item(term.type.value, term.type.scheme, term.type.meaning)
                observation.RTROIIdentificationCodeSequence = [identified]
            data.StructureSetROISequence.append(roi)
            data.ROIContourSequence.append(contours)
            data.RTROIObservationsSequence.append(observation)
        save_result(data, output)


def _head(sources: Sources, maker: Maker) -> Any:
    reader, first = pydicom(), sources.images[0]
    data = reader.dataset.FileDataset("", {}, file_meta=reader.dataset.FileMetaDataset(), preamble=bytes(128))
    data.is_little_endian, data.is_implicit_VR = True, False
    data.SpecificCharacterSet = CHARACTERS
    for word in _OF_PATIENT_AND_STUDY:
        if word in first:
            setattr(data, word, first[word].value)
    now = datetime.now()
    data.SOPClassUID, data.SOPInstanceUID = _RTSTRUCT, reader.uid.generate_uid(None)
    data.Modality, data.SeriesInstanceUID = "RTSTRUCT", reader.uid.generate_uid(None)
    data.SeriesNumber, data.InstanceNumber = _SERIES + max(int(first.get("SeriesNumber") or 0), 0), 1
    data.SeriesDescription = shown_lines(f"Structures by {maker.model_name}")
    data.Manufacturer, data.ManufacturerModelName = MANUFACTURER, maker.model_name
    data.SoftwareVersions, data.DeviceSerialNumber = maker.software, maker.serial_number
    data.DeviceUID, data.OperatorsName = maker.device_uid, ""
    data.ContributingEquipmentSequence = contributing_equipment(maker, first)
    data.StructureSetLabel = shown_lines(maker.task, 16)
    data.StructureSetDescription = shown_lines(f"Made by {maker.model_name}, {maker.version}", 1024)
    data.StructureSetDate = data.InstanceCreationDate = now.strftime("%Y%m%d")
    data.StructureSetTime = data.InstanceCreationTime = now.strftime("%H%M%S")
    data.ApprovalStatus = "UNAPPROVED"  # a proposal that a person must check
    frame, study, images = (reader.Dataset() for _ in range(3))
    images.SeriesInstanceUID = first.SeriesInstanceUID
    images.ContourImageSequence = [_reference(image) for image in sources.images]
    study.ReferencedSOPClassUID, study.ReferencedSOPInstanceUID = _STUDY, first.StudyInstanceUID
    study.RTReferencedSeriesSequence = [images]
    frame.FrameOfReferenceUID, frame.RTReferencedStudySequence = first.FrameOfReferenceUID, [study]
    data.ReferencedFrameOfReferenceSequence = [frame]
    meta = data.file_meta
    meta.TransferSyntaxUID = reader.uid.ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID, meta.MediaStorageSOPInstanceUID = data.SOPClassUID, data.SOPInstanceUID
    return data


def _reference(image: Any) -> Any:
    item = pydicom().Dataset()
    item.ReferencedSOPClassUID, item.ReferencedSOPInstanceUID = image.SOPClassUID, image.SOPInstanceUID
    return item


def _contours(values: np.ndarray, value: int, box: tuple[slice, ...] | None, sources: Sources) -> list[Any]:
    found: list[Any] = []
    if box is None:
        return found
    part = values[box] == value
    for index in range(part.shape[2]):
        image = sources.images[box[2].start + index]
        position = np.array(image.ImagePositionPatient, float)
        along_row, along_column = np.reshape(np.array(image.ImageOrientationPatient, float), (2, 3))
        between_rows, between_columns = (float(side) for side in image.PixelSpacing)
        for outline in outlines(part[:, :, index]):
            column, row = outline.T + [[box[0].start], [box[1].start]]
            points = (
                position + np.outer(column * between_columns, along_row) + np.outer(row * between_rows, along_column)
            )
            contour = pydicom().Dataset()
            contour.ContourImageSequence = [_reference(image)]
            contour.ContourGeometricType, contour.NumberOfContourPoints = "CLOSED_PLANAR", len(points)
            contour.ContourData = [f"{number:.3f}" for number in points.ravel()]
            found.append(contour)
    return found


def outlines(mask: np.ndarray) -> Iterator[np.ndarray]:
    """Yield the outline of each part of a mask.

    Args:
        mask: (columns, rows) booleans.

    Yields:
        (N, 2) column and row of its points, in voxels, without the first one again at the end.
    """
    import contourpy

    padded = np.pad(mask, 1).astype(np.float32)
    generator = contourpy.contour_generator(z=padded.T, fill_type="OuterOffset")
    found: Any = generator.filled(0.5, 2.0)
    for part, ends in zip(*found, strict=True):
        rings = [part[a : b - 1] - 1 for a, b in zip(ends[:-1], ends[1:], strict=True)]
        yield _keyholed(rings[0], rings[1:])


def _keyholed(outer: np.ndarray, holes: list[np.ndarray]) -> np.ndarray:
    """Return one outline of a part with holes: along it, and by the shortest ways to each hole, around it, and back.

    The ways are those of a minimal spanning tree, so that none leads through a hole: some programs mark what lies below
    a line.
    """
    if not holes:
        return outer
    rings = [outer, *holes]
    points, ring_of = np.concatenate(rings), np.repeat(np.arange(len(rings)), [len(ring) for ring in rings])
    first = np.cumsum([0, *(len(ring) for ring in rings)])
    corners = Delaunay(points).simplices
    pairs = np.concatenate([corners[:, [0, 1]], corners[:, [1, 2]], corners[:, [2, 0]]])
    pairs = np.concatenate([pairs, pairs[:, ::-1]])
    pairs = pairs[ring_of[pairs[:, 0]] != ring_of[pairs[:, 1]]]
    lengths = np.linalg.norm(points[pairs[:, 0]] - points[pairs[:, 1]], axis=1)
    pairs, lengths = pairs[np.argsort(lengths, kind="stable")], np.sort(lengths, kind="stable")
    between, shortest = np.unique(ring_of[pairs], axis=0, return_index=True)
    ways = sparse.coo_array((lengths[shortest], (between[:, 0], between[:, 1])), (len(rings),) * 2)
    order, parents = csgraph.breadth_first_order(csgraph.minimum_spanning_tree(ways.tocsr()), 0, directed=False)
    way_of = {(int(a), int(b)): pairs[at] for (a, b), at in zip(between, shortest, strict=True)}
    inserted: dict[int, list[tuple[int, np.ndarray]]] = {}
    for number in map(int, order[:0:-1]):  # a ring is whole before the one that it hangs on
        there, here = (int(at) for at in way_of[int(parents[number]), number])
        start = here - int(first[number])
        pieces = [((at - start) % len(rings[number]), piece) for at, piece in inserted.pop(number, [])]
        around = _with_pieces(np.roll(rings[number], -start, axis=0), pieces)
        piece = np.concatenate([around, points[here][None], points[there][None]])
        inserted.setdefault(int(parents[number]), []).append((there - int(first[parents[number]]), piece))
    return _with_pieces(outer, inserted[0])


def _with_pieces(ring: np.ndarray, pieces: list[tuple[int, np.ndarray]]) -> np.ndarray:
    """Return a ring with what is to come after some of its points, by their numbers."""
    parts, done = [], 0
    for place, piece in sorted(pieces, key=lambda one: one[0]):
        parts += [ring[done : place + 1], piece]
        done = place + 1
    return np.concatenate([*parts, ring[done:]])
