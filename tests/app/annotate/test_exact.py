"""What is painted by mouse ends on the image's own voxels, whatever its orientation: every voxel is looked at.

The place to click is found on the screen: each image has one bright voxel. Which way is left is asked of the affine, by
numpy alone.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from playwright.sync_api import Browser

from tests.app.annotate.stage_page import StagePage
from tests.app.browser import watched
from tests.app.data import CONF
from tests.app.server import AppServer

SHAPE = (14, 11, 9)
BRIGHT = (4, 7, 2)
RADIUS = 3.42  # mm; no voxel of the image lies that far from the bright one


def _affine(
    columns: list[list[float]], spacing: tuple[float, float, float], turn: tuple[float, float] = (0, 0)
) -> np.ndarray:
    """Return an affine from axes, voxel sizes in mm, and turns in degrees about z and x."""
    z, x = np.radians(turn)
    about_z = np.array([[np.cos(z), -np.sin(z), 0], [np.sin(z), np.cos(z), 0], [0, 0, 1]])
    about_x = np.array([[1, 0, 0], [0, np.cos(x), -np.sin(x)], [0, np.sin(x), np.cos(x)]])
    affine = np.eye(4)
    affine[:3, :3] = about_z @ about_x @ np.array(columns, float).T @ np.diag(spacing)
    affine[:3, 3] = -31, 17, 5
    return affine


R, A, S = [1, 0, 0], [0, 1, 0], [0, 0, 1]
L, P, I = [-1, 0, 0], [0, -1, 0], [0, 0, -1]  # noqa: E741
EQUAL, UNEQUAL = (1.0, 1.0, 1.0), (0.7, 1.1, 3.0)
AFFINES = {
    "ras": _affine([R, A, S], EQUAL),
    "lps": _affine([L, P, S], EQUAL),
    "permuted": _affine([S, R, A], EQUAL),
    "permuted_flipped": _affine([P, I, R], UNEQUAL),
    "oblique": _affine([L, A, S], EQUAL, (25, -18)),
    "left_handed": _affine([L, A, S], EQUAL),
    "anisotropic": _affine([R, A, S], UNEQUAL),
    "all_at_once": _affine([I, L, A], UNEQUAL, (-20, 15)),
}
ALSO_IN_OTHERS = ("lps", "permuted", "anisotropic")  # what is odd about them is odd about one of the others, too
# Where the left edge and the top of each view lie, in RAS: radiological convention.
LEFT_AND_TOP = {"axial": (R, A), "coronal": (R, S), "sagittal": (A, S)}


@pytest.fixture(scope="module")
def stage(browser: Browser, tmp_path_factory: pytest.TempPathFactory) -> Iterator[StagePage]:
    """Yield the stage on a server with an image in each orientation."""
    studies: Path = tmp_path_factory.mktemp("oriented")
    values = np.zeros(SHAPE, np.int16)
    values[BRIGHT] = 1000
    for name, affine in AFFINES.items():
        nib.save(nib.Nifti1Image(values, affine), studies / f"{name}.nii.gz")
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF) as server, watched(browser) as seen:
        yield StagePage(seen.page, server)
        assert [line for line in seen.console if "GPU stall" not in line] == []


def _bright(stage: StagePage, plane: str) -> tuple[float, float, float, float]:
    """Return where the bright voxel lies on the page: its middle, and its size across and down."""
    left, top, _, _ = stage.pane(plane)
    rows, columns = np.nonzero(stage.picture(plane).min(-1) > 200)
    assert rows.size, f"the bright voxel is not on the {plane} slice"
    across, down = np.ptp(columns) + 1, np.ptp(rows) + 1
    assert rows.size == across * down, "more than one voxel is bright"
    return left + columns.min() + across / 2, top + rows.min() + down / 2, across, down


def _only(value: int, *voxels: tuple[int, ...]) -> np.ndarray:
    expected = np.zeros(SHAPE, np.uint8)
    for voxel in voxels:
        expected[voxel] = value
    return expected


@pytest.mark.parametrize(
    "name", [pytest.param(name, marks=pytest.mark.slow) if name in ALSO_IN_OTHERS else name for name in AFFINES]
)
def test_a_click_paints_the_voxel_under_the_mouse_and_no_other(stage: StagePage, name: str) -> None:
    stage.open(name)
    stage.set(tool="brush", size=0, ball=False, value=3, window=[0, 1000], smooth=False, layout="three")
    stage.look_at(BRIGHT)
    for plane, towards in LEFT_AND_TOP.items():
        x, y, across, down = _bright(stage, plane)
        stage.page.mouse.click(x, y)
        assert np.array_equal(stage.label(SHAPE), _only(3, BRIGHT)), plane
        for (dx, dy), direction in zip(((-across, 0), (0, -down)), towards, strict=True):
            stage.page.mouse.click(x + dx, y + dy)
            (beside,) = np.argwhere(stage.label(SHAPE) - _only(3, BRIGHT))
            step = (AFFINES[name][:3, :3] @ (beside - BRIGHT)) @ direction
            assert np.abs(beside - BRIGHT).sum() == 1 and step > 0.7 * np.linalg.norm(
                AFFINES[name][:3, :3] @ (beside - BRIGHT)
            )
            stage.page.keyboard.press("Control+z")
        stage.page.keyboard.press("Control+z")
        assert not stage.label(SHAPE).any()


@pytest.mark.parametrize("name", ["anisotropic", "all_at_once"])
@pytest.mark.parametrize("ball", [False, True])
def test_the_brush_is_round_in_mm(stage: StagePage, name: str, ball: bool) -> None:
    stage.open(name)
    stage.set(tool="brush", size=RADIUS * 2, ball=ball, value=1, window=[0, 1000], smooth=False, layout="coronal")
    stage.look_at(BRIGHT)
    x, y, across, down = _bright(stage, "coronal")
    stage.page.mouse.click(x, y)
    apart = np.argwhere(np.ones(SHAPE, bool)) - BRIGHT
    distance = np.linalg.norm(apart @ AFFINES[name][:3, :3].T, axis=1).reshape(SHAPE)
    if not ball:  # a disc: voxels of the slice alone
        through = int(np.argmax(np.abs(AFFINES[name][1, :3]) / np.linalg.norm(AFFINES[name][:3, :3], axis=0)))
        distance[np.indices(SHAPE)[through] != BRIGHT[through]] = np.inf
    assert np.abs(distance - RADIUS).min() > 0.04, "the case does not tell: a voxel lies on the brush's edge"
    assert np.array_equal(stage.label(SHAPE), (distance < RADIUS).astype(np.uint8))
