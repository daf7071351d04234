"""DICOM SEG and RTSTRUCT, read back by what others wrote: every voxel is where it was, and says what it is."""

from __future__ import annotations

import shutil
import time
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from PIL import Image, ImageDraw
from pydicom.dataset import Dataset

from rep3d.errors import ImageError
from rep3d.imaging.dicom import DicomSeries, only_series
from rep3d.imaging.dicom.results import Maker
from rep3d.imaging.dicom.segmentation import write_segmentation
from rep3d.imaging.dicom.stack import stack
from rep3d.imaging.dicom.structures import outlines, write_structures
from rep3d.tasks.config import Term
from rep3d.tasks.registry import TASKS
from tests.rep3d.imaging.grids import SLICES, placed
from tests.rep3d.imaging.test_dicom import COUNT, write_series

highdicom = pytest.importorskip("highdicom")
pydicom_seg = pytest.importorskip("pydicom_seg")

LABELS = {"right kidney": 9, "liver": 2, "thing": 300}
TERMS = {name: term for name, term in TASKS["amos_ct"].terms.items() if name in LABELS}
MAKER = Maker("amos_ct", "v7", "ab" * 32, {"views": "4"})


@pytest.fixture(params=SLICES)
def series(request: pytest.FixtureRequest, tmp_path: Path) -> DicomSeries:
    return only_series(write_series(tmp_path / "in", placed(request.param)))


def label_map(shape: tuple[int, ...] = (5, 4, COUNT)) -> np.ndarray:
    """Return a label map without any symmetry, with voxels at the rim and a slice without any."""
    values = np.random.default_rng(0).choice([0, 0, 2, 9], shape).astype(np.uint16)
    values[0, 0, 0] = values[-1, -1, -1] = 2
    values[:, :, 2] = 0
    return values


def by_place(values: np.ndarray, series: DicomSeries) -> dict[str, np.ndarray]:
    """Return the (rows, columns) label map of each image, by its SOPInstanceUID."""
    return {file.text("SOPInstanceUID"): values[:, :, n].T for n, file in enumerate(stack(series.slices).slices)}


def test_segmentation_is_read_back_voxel_by_voxel(series: DicomSeries, tmp_path: Path) -> None:
    values = label_map()
    write_segmentation(values, series, tmp_path / "seg.dcm", LABELS, TERMS, MAKER)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    expected = by_place(values, series)
    images = list(expected)
    read = found.get_pixels_by_source_instance(
        images, segment_numbers=[1, 2, 3], combine_segments=True, assert_missing_frames_are_empty=True
    )
    own_values = np.array([0, 2, 9, 300])  # the segments are in the order of the values
    for image, frame in zip(images, own_values[read], strict=True):
        np.testing.assert_array_equal(frame, expected[image])
    # Another reader, which knows nothing of the images, puts each voxel by the positions of the frames alone.
    reader = pydicom_seg.SegmentReader()
    reader_result = reader.read(pydicom.dcmread(tmp_path / "seg.dcm"))
    affine = stack(series.slices).affine
    checked = 0
    for number, value in ((1, 2), (2, 9)):
        image = reader_result.segment_image(number)
        voxels = reader_result.segment_data(number)
        for z, y, x in np.argwhere(voxels):
            mm = np.array(image.TransformIndexToPhysicalPoint((int(x), int(y), int(z)))) * [-1, -1, 1]
            index = np.linalg.solve(affine[:3, :3], mm - affine[:3, 3])
            np.testing.assert_allclose(index, index.round(), atol=1e-3)
            assert values[tuple(index.round().astype(int))] == value
            checked += 1
    assert checked == np.count_nonzero(values)


@pytest.mark.parametrize("characters", ["GB18030", "ISO_IR 192", "ISO_IR 100"])
@pytest.mark.parametrize("write", [write_segmentation, write_structures])
def test_names_are_written_whatever_letters_they_have(tmp_path: Path, characters: str, write: Any) -> None:
    name = "Müller^Jörg" if characters == "ISO_IR 100" else "王^小东"

    def change(data: Dataset, number: int) -> None:
        placed("oblique")(data, number)
        data.SpecificCharacterSet, data.PatientName, data.InstitutionName = characters, name, name.replace("^", " ")

    series = only_series(write_series(tmp_path / "in", change))
    write(label_map(), series, tmp_path / "out.dcm", {"Größe 肝臓": 2}, {}, MAKER)
    data = pydicom.dcmread(tmp_path / "out.dcm")
    assert data.PatientName == name and data.SpecificCharacterSet == "ISO_IR 192"
    assert data.ContributingEquipmentSequence[1].InstitutionName == name.replace("^", " ")
    label = data.SegmentSequence[0].SegmentLabel if data.Modality == "SEG" else data.StructureSetROISequence[0].ROIName
    assert label == "Größe 肝臓"


def test_segments_say_what_they_are_and_what_made_them(tmp_path: Path) -> None:
    def change(data: Dataset, number: int) -> None:
        placed("oblique")(data, number)
        data.Manufacturer, data.ManufacturerModelName, data.AccessionNumber = "ACME", "Scanner 3", "A17"
        data.PatientBirthDate, data.PatientIdentityRemoved = "19500102", "NO"

    series = only_series(write_series(tmp_path / "in", change))
    write_segmentation(label_map(), series, tmp_path / "seg.dcm", LABELS, TERMS, MAKER)
    data = pydicom.dcmread(tmp_path / "seg.dcm")
    assert (data.PatientID, data.PatientName, data.AccessionNumber) == ("1", "A^B", "A17")
    assert (data.StudyInstanceUID, data.FrameOfReferenceUID) == ("1.2.3", "1.2.3.9")
    assert data.Modality == "SEG" and data.SeriesInstanceUID != series.uid and data.SeriesNumber == 1004
    referenced = data.ReferencedSeriesSequence[0]
    assert referenced.SeriesInstanceUID == series.uid
    assert len(referenced.ReferencedInstanceSequence) == COUNT
    liver, kidney, thing = data.SegmentSequence
    assert [each.SegmentLabel for each in (liver, kidney, thing)] == ["liver", "right kidney", "thing"]
    kind = kidney.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodeMeaning) == ("64033007", "Kidney")
    assert kind.SegmentedPropertyTypeModifierCodeSequence[0].CodeMeaning == "Right"
    assert liver.SegmentedPropertyCategoryCodeSequence[0].CodeMeaning == "Anatomical Structure"
    assert thing.SegmentedPropertyTypeCodeSequence[0].CodeMeaning == "Tissue"
    algorithm = kidney.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmName == "rep3d amos_ct" and algorithm.AlgorithmVersion.endswith("model v7")
    assert algorithm.AlgorithmFamilyCodeSequence[0].CodeMeaning == "Artificial Intelligence"
    assert f"model={MAKER.digest},views=4" in algorithm.AlgorithmParameters
    ours, scanner = data.ContributingEquipmentSequence
    assert ours.PurposeOfReferenceCodeSequence[0].CodeMeaning == "Processing Algorithm"
    assert ours.DeviceUID == MAKER.device_uid == data.DeviceUID and ours.SoftwareVersions[1] == "model v7"
    assert (scanner.Manufacturer, scanner.ManufacturerModelName) == ("ACME", "Scanner 3")
    assert scanner.PurposeOfReferenceCodeSequence[0].CodeValue == "109101"


def test_colours_are_cielab_of_white_at_5000_kelvin(tmp_path: Path) -> None:
    series = only_series(write_series(tmp_path / "in", placed("oblique")))
    labels = {"red": 1, "green": 2, "white": 3}
    terms = {"red": Term((255, 0, 0)), "green": Term((0, 255, 0)), "white": Term((255, 255, 255))}
    write_segmentation(np.ones((5, 4, COUNT), np.uint8), series, tmp_path / "seg.dcm", labels, terms, MAKER)
    segments = pydicom.dcmread(tmp_path / "seg.dcm").SegmentSequence
    lab = np.array([segment.RecommendedDisplayCIELabValue for segment in segments]) / 65535 * [100, 255, 255]
    # https://www.brucelindbloom.com, sRGB adapted to D50
    expected = [[54.29, 80.81, 69.89], [87.82, -79.27, 80.99], [100, 0, 0]]
    np.testing.assert_allclose(lab - [0, 128, 128], expected, atol=1.0)


def test_nothing_found_is_a_small_file_that_names_what_was_looked_for(tmp_path: Path) -> None:
    series = only_series(write_series(tmp_path / "in", placed("oblique")))
    write_segmentation(np.zeros((5, 4, COUNT), np.uint8), series, tmp_path / "seg.dcm", LABELS, TERMS, MAKER)
    found = highdicom.seg.segread(tmp_path / "seg.dcm")
    assert len(found.SegmentSequence) == 3 and found.NumberOfFrames == 3 and not found.pixel_array.any()
    write_structures(np.zeros((5, 4, COUNT), np.uint8), series, tmp_path / "rt.dcm", LABELS, TERMS, MAKER)
    empty = pydicom.dcmread(tmp_path / "rt.dcm").ROIContourSequence
    assert [len(one.ContourSequence) for one in empty] == [0, 0, 0]


@pytest.mark.parametrize("name", ["brain_t1", "hippocampus_crop"])
def test_real_series(shared_data: Path, tmp_path: Path, name: str) -> None:
    shutil.copytree(shared_data / "dicom_mr" / name, tmp_path / "in")
    series = only_series(tmp_path / "in")
    columns, rows = series.slices[0].shape[::-1]
    values = label_map((columns, rows, len(series.slices))).astype(np.uint8)
    write_segmentation(values, series, tmp_path / "seg.dcm", LABELS, TERMS, MAKER)
    expected = by_place(values, series)
    read = highdicom.seg.segread(tmp_path / "seg.dcm").get_pixels_by_source_instance(
        list(expected), combine_segments=True, assert_missing_frames_are_empty=True
    )
    np.testing.assert_array_equal(np.array([0, 2, 9, 300])[read], np.stack(list(expected.values())))


def test_structures_fill_up_to_the_label_map(series: DicomSeries, tmp_path: Path) -> None:
    values = label_map()
    write_structures(values, series, tmp_path / "rt.dcm", LABELS, TERMS, MAKER)
    data = pydicom.dcmread(tmp_path / "rt.dcm")
    names = {roi.ROINumber: roi.ROIName for roi in data.StructureSetROISequence}
    found = {image: np.zeros((4, 5), int) for image in by_place(values, series)}
    headers = {file.text("SOPInstanceUID"): pydicom.dcmread(file.path) for file in series.slices}
    for structure in data.ROIContourSequence:
        for contour in structure.ContourSequence:
            image = contour.ContourImageSequence[0].ReferencedSOPInstanceUID
            points = np.reshape(contour.ContourData, (-1, 3)).astype(float) - headers[image].ImagePositionPatient
            row, column = np.reshape(headers[image].ImageOrientationPatient, (2, 3)).astype(float)
            np.testing.assert_allclose(points @ np.cross(row, column), 0, atol=2e-3)  # in the image's own plane
            inside = filled(np.stack([points @ row / 0.6, points @ column / 0.8], -1), (4, 5))
            found[image][inside] += LABELS[names[structure.ReferencedROINumber]]
    for image, expected in by_place(values, series).items():
        np.testing.assert_array_equal(found[image], expected)
    assert data.ReferencedFrameOfReferenceSequence[0].FrameOfReferenceUID == "1.2.3.9"
    assert data.RTROIObservationsSequence[0].RTROIIdentificationCodeSequence[0].CodeMeaning == "Liver"
    assert data.ApprovalStatus == "UNAPPROVED" and data.ContributingEquipmentSequence[0].DeviceUID == MAKER.device_uid


def filled(points: np.ndarray, shape: tuple[int, int]) -> np.ndarray:
    """Fill an outline (N, 2) of columns and rows, by what is left and right of each pixel's centre."""
    scale = 8
    canvas = Image.new("1", (shape[1] * scale, shape[0] * scale))
    ImageDraw.Draw(canvas).polygon([(x * scale + scale / 2, y * scale + scale / 2) for x, y in points], fill=1)
    return np.asarray(canvas)[scale // 2 :: scale, scale // 2 :: scale]


def test_holes_are_left_out_of_an_outline() -> None:
    mask = np.ones((12, 9), bool)
    mask[2:4, 2:4] = mask[7, 6] = mask[6:9, 2:4] = False
    mask[7, 3] = True  # an island in a hole
    np.testing.assert_array_equal(refilled(mask), mask)


def test_thousands_of_holes_take_no_longer_than_they_must() -> None:
    mask = np.random.default_rng(0).random((150, 140)) < 0.7  # what an untrained model finds
    started = time.process_time()
    parts = list(outlines(mask))
    assert time.process_time() - started < 2 and sum(map(len, parts)) > 15_000
    np.testing.assert_array_equal(refilled(mask), mask)


def refilled(mask: np.ndarray) -> np.ndarray:
    """Fill the outlines of a mask (columns, rows) again."""
    got = np.zeros(mask.T.shape, bool)
    for part in outlines(mask):
        got |= filled(part, mask.T.shape)
    return got.T


@pytest.mark.parametrize(
    ("tag", "words"), [("FrameOfReferenceUID", "no FrameOfReferenceUID"), ("SOPInstanceUID", "one SOPInstanceUID")]
)
def test_series_that_nothing_can_refer_to_are_refused(tmp_path: Path, tag: str, words: str) -> None:
    def change(data: Dataset, number: int) -> None:
        placed("oblique")(data, number)
        setattr(data, tag, "1.2.3.5" if tag == "SOPInstanceUID" else None)

    series = only_series(write_series(tmp_path / "in", change))
    for write in (write_segmentation, write_structures):
        with pytest.raises(ImageError, match=words):
            write(label_map(), series, tmp_path / "out.dcm", LABELS, TERMS, MAKER)
    with pytest.raises(ImageError, match="has the shape"):
        write_structures(
            label_map((5, 4, COUNT - 1)),
            only_series(write_series(tmp_path / "good", placed("oblique"))),
            tmp_path / "out.dcm",
            LABELS,
            TERMS,
            MAKER,
        )
    assert not (tmp_path / "out.dcm").exists()
