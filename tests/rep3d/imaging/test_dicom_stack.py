"""Where the slices of a DICOM series lie: real tolerances, gaps and doubles with their places, any direction."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import SimpleITK as sitk
from hypothesis import HealthCheck, example, given, settings
from hypothesis import strategies as st
from pydicom.dataset import Dataset
from scipy.spatial.transform import Rotation

from rep3d.errors import ImageError
from rep3d.imaging.dicom import convert_series
from rep3d.imaging.dicom.files import DicomFile
from rep3d.imaging.dicom.stack import Stack, stack, tolerance
from tests.rep3d.imaging.test_dicom import write_series

AXIAL = (1.0, 0.0, 0.0, 0.0, 1.0, 0.0)


def header(position: Sequence[float], number: int = 1, **changed: str) -> DicomFile:
    """Return what the header of a slice of 10 rows and 20 columns says, as text."""
    tags = {
        "Rows": "10",
        "Columns": "20",
        "ImagePositionPatient": "\\".join(map(str, position)),
        "ImageOrientationPatient": "\\".join(map(str, AXIAL)),
        "PixelSpacing": "0.8\\0.6",
        "SliceThickness": "2.5",
        "InstanceNumber": str(number),
    }
    return DicomFile(Path(f"{number}.dcm"), {**tags, **changed}, "")


def along_z(places: Sequence[float]) -> Stack:
    return stack([header((0, 0, place), n) for n, place in enumerate(places, 1)])


@pytest.mark.parametrize("step", [0.25, 0.35, 0.625, 0.75, 1.25, 2.5, 4.8, 5.0])
def test_positions_rounded_to_a_tenth_are_even(step: float) -> None:
    for begin in (0.0, -123.4567):
        put = along_z([round(begin + step * n, 1) for n in range(60)])
        assert put.step == pytest.approx(step, abs=0.003)
        exact = begin + step * np.arange(60)
        fitted = put.affine[2, 3] + put.step * np.arange(60)
        assert np.abs(exact - fitted).max() < 0.06  # every slice where it is, within the rounding


def test_slices_may_wander_by_hundredths_and_not_by_more_than_the_tolerance() -> None:
    wandering = [2.5 * n + 0.02 * (-1) ** n for n in range(40)]
    assert along_z(wandering).step == pytest.approx(2.5, abs=0.005)
    grid = [2.5 * n for n in range(41)]
    grid[20] += 0.24
    along_z(grid)
    grid[20] += 0.03
    with pytest.raises(ImageError, match=r"uneven distances.* (20|21)\.dcm .*0\.26\d* mm from an even grid.*0\.25 mm"):
        along_z(grid)
    aside = [header((0.3 * (n == 3), 0, 2.5 * n), n) for n in range(9)]
    with pytest.raises(ImageError, match=r"do not lie above each other: 3\.dcm .*0\.267 mm beside.*0\.1 mm"):
        stack(aside)
    stack([header((0.08 * (n == 3), 0, 2.5 * n), n) for n in range(9)])


@pytest.mark.parametrize("side", [0.05, 0.3, 0.5, 0.7, 1.0, 5.0])
def test_the_tolerance_is_part_of_a_voxel(side: float) -> None:
    assert side / 10 - 1e-12 <= tolerance(side) <= side * 0.25 + 1e-12
    # So no slice that is missing, or there twice, passes for an even grid, wherever it is.
    for count in range(3, 12):
        for place in range(1, count - 1):
            missing = [side * n for n in range(count) if n != place]
            if len(missing) > 2:
                with pytest.raises(ImageError, match="1 of its slices are missing"):
                    along_z(missing)
        with pytest.raises(ImageError, match=f"{count} of its slices are missing"):
            along_z([side * (n + n // 2) for n in range(2 * count + 1)])
        for place in range(count):
            with pytest.raises(ImageError, match="more than one slice at 1 positions"):
                along_z(sorted([*(side * n for n in range(count)), side * place]))


def test_gaps_and_doubles_are_told_with_their_places() -> None:
    rounded = [round(0.625 * n, 1) for n in range(30) if n not in (7, 8, 20)]
    with pytest.raises(
        ImageError, match=r"3 of its slices .* every 0\.62\d* mm: 2 between 3\.8 and 5\.6 mm, 1 between"
    ):
        along_z(rounded)
    with pytest.raises(
        ImageError, match=r"more than one slice at 1 positions: 3\.dcm \(instance 3\) and 4\.dcm .* at 5 "
    ):
        along_z([0, 2.5, 5, 5, 7.5, 10])
    with pytest.raises(ImageError, match="more than one slice at 2 positions"):
        along_z([0, 0.0004, 0.0008])
    with pytest.raises(ImageError, match="more than one slice at 11 positions.* and 6 more"):
        along_z([3.0] * 12)


def test_directions_and_pixel_sizes_may_differ_by_rounding() -> None:
    tilt = np.radians(17.3)
    exact = np.array([1, 0, 0, 0, np.cos(tilt), np.sin(tilt)])
    normal = np.cross(exact[:3], exact[3:])
    orientations = ["\\".join(f"{part:.{digits}f}" for part in exact) for digits in (4, 5, 10)]
    sizes = ["0.8\\0.6", "0.80001\\0.6", "0.8\\0.59999"]
    slices = [
        header(3 * n * normal, n, ImageOrientationPatient=orientations[n % 3], PixelSpacing=sizes[n % 3])
        for n in range(30)
    ]
    put = stack(slices)
    directions = put.affine[:3, :3] / np.linalg.norm(put.affine[:3, :3], axis=0)
    np.testing.assert_allclose(directions.T @ directions, np.eye(3), atol=1e-12)  # what every program can open
    np.testing.assert_allclose(np.diag([-1, -1, 1]) @ directions[:, 2], normal, atol=1e-4)
    slices[5] = header(15 * normal, 5, PixelSpacing="0.85\\0.6", ImageOrientationPatient=orientations[0])
    with pytest.raises(ImageError, match=r"not parallel, or pixels of several sizes: 5\.dcm"):
        stack(slices)


def test_positions_win_over_thickness_and_the_order_of_files() -> None:
    order = [3, 0, 5, 1, 4, 2]
    slices = [header((0, 0, 4.0 - 3 * n), 7, SliceThickness="5", SpacingBetweenSlices="1") for n in order]
    put = stack(slices)
    assert put.step == pytest.approx(3) and put.affine[2, 3] == pytest.approx(-11)
    assert [float(one.text("ImagePositionPatient").split("\\")[2]) for one in put.slices] == [-11, -8, -5, -2, 1, 4]


def test_a_single_slice_needs_a_thickness() -> None:
    assert stack([header((0, 0, 0), SliceThickness="4")]).step == 4
    for thickness in ("", "0", "thick"):
        with pytest.raises(ImageError, match="does not say how thick"):
            stack([header((0, 0, 0), SliceThickness=thickness)])


@pytest.mark.parametrize("degrees", [0.5, 5, 25])
def test_a_tilted_gantry_is_refused_with_its_angle(degrees: float) -> None:
    shift = np.tan(np.radians(degrees))
    with pytest.raises(ImageError, match=rf"tilted by {degrees:g} degrees"):
        stack([header((0, 5.0 * n * shift, 5.0 * n), n) for n in range(30)])


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"PixelSpacing": "0.8\\0"}, "pixels without a size: its PixelSpacing"),
        ({"ImageOrientationPatient": "1\\0\\0\\1\\0\\0"}, "no right angle"),
        ({"ImageOrientationPatient": "0\\0\\0\\0\\0\\0"}, "no right angle"),
        ({"RescaleSlope": "0"}, "what its values mean: its RescaleSlope is '0'"),
        ({"RescaleIntercept": "much"}, "its RescaleIntercept is 'much'"),
        ({"ModalityLUTSequence": ""}, "Modality LUT"),
        ({"Rows": "12"}, "several sizes"),
    ],
)
def test_a_slice_that_contradicts_itself_costs_its_series(changed: dict[str, str], words: str) -> None:
    with pytest.raises(ImageError, match=words):
        stack([header((0, 0, 2 * n), n, **(changed if n == 2 else {})) for n in range(4)])


@settings(
    max_examples=20,
    deadline=None,
    derandomize=True,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
@given(
    angles=st.tuples(*[st.floats(-180, 180)] * 3),
    step=st.floats(0.3, 10),
    sizes=st.tuples(*[st.floats(0.2, 4)] * 2),
    origin=st.tuples(*[st.floats(-400, 400)] * 3),
    backwards=st.booleans(),
)
@example(angles=(0.0, 0.0, 0.0), step=2.5, sizes=(0.8, 0.6), origin=(-10.0, 20.0, 30.0), backwards=True)  # axial
@example(angles=(90.0, 0.0, 0.0), step=1.0, sizes=(1.0, 1.0), origin=(0.0, 0.0, 0.0), backwards=False)  # coronal
@example(angles=(0.0, 90.0, 90.0), step=3.0, sizes=(0.5, 0.7), origin=(5.0, 0.0, 0.0), backwards=False)  # sagittal
def test_any_stack_lies_where_simpleitk_puts_it(
    tmp_path_factory: pytest.TempPathFactory,
    angles: tuple[float, float, float],
    step: float,
    sizes: tuple[float, float],
    origin: tuple[float, float, float],
    backwards: bool,
) -> None:
    along_row, along_column, normal = Rotation.from_euler("xyz", angles, degrees=True).as_matrix().T

    def change(data: Dataset, number: int) -> None:
        place = np.array(origin) + normal * step * (-number if backwards else number)
        data.ImagePositionPatient = [f"{part:.9g}"[:16] for part in place]
        data.ImageOrientationPatient = [f"{part:.9f}"[:16] for part in (*along_row, *along_column)]
        data.PixelSpacing = [f"{part:.8g}" for part in sizes]

    folder = write_series(tmp_path_factory.mktemp("series"), change)
    ours = folder.parent / f"{folder.name}.nii"
    convert_series(folder, ours)
    reader = sitk.ImageSeriesReader()
    reader.SetFileNames(reader.GetGDCMSeriesFileNames(str(folder)))
    theirs = reader.Execute()
    # Their slices may come in the other order: compared is the place and the value of every voxel.
    image = nib.load(ours)
    values = sitk.GetArrayFromImage(theirs).transpose(2, 1, 0)
    matrix = np.reshape(theirs.GetDirection(), (3, 3)) * theirs.GetSpacing()
    affine = nib.affines.from_matvec(np.diag([-1, -1, 1]) @ matrix, np.diag([-1, -1, 1]) @ theirs.GetOrigin())
    index = np.stack(np.meshgrid(*map(np.arange, values.shape), indexing="ij"), axis=-1)
    there = nib.affines.apply_affine(np.linalg.inv(image.affine) @ affine, index)
    np.testing.assert_allclose(there, np.rint(there), atol=2e-3)
    at = tuple(np.moveaxis(np.rint(there).astype(int), -1, 0))
    np.testing.assert_array_equal(np.asanyarray(image.dataobj)[at], values)
    np.testing.assert_allclose(image.get_sform(), image.get_qform(), atol=1e-3)
