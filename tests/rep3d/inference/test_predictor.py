"""From file to file: whatever an image's geometry, what the network found lands on the right voxels.

The network is replaced by a rule that reads the label off the intensity, so that only geometry is tested; the whole
chain with a trained network is tested by the server's tests and the demo.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from rep3d.checkpoint import Checkpoint
from rep3d.errors import ConfigError, ImageError
from rep3d.evaluation.metrics import dice_of_files
from rep3d.inference.engines import TorchEngine
from rep3d.inference.predictor import Predictor, choose_device, count_windows, fit_window
from rep3d.inference.uncertainty import mean_entropy, regional_mean
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

CONFIG = Rep3DConfig(out_channels=3, dims=(2, 2, 2, 2), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
TASK = TaskConfig("toy", {"Tail": 7, "Head": 2}, (1.0, 1.0, 1.0), Intensity("window", 0, 100), "RAS", (32, 32, 32))


class _ReadOffIntensity(torch.nn.Module):
    """Intensity 0 is background, 0.5 is channel 1 (Head, value 2), 1 is channel 2 (Tail, value 7)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-((x - level) ** 2) * 100 for level in (0.0, 0.5, 1.0)], dim=1)


@pytest.fixture
def predictor() -> Predictor:
    predictor = Predictor(Checkpoint(Rep3D(CONFIG).eval(), TASK, {"version": "v9"}), "cpu", "torch")
    predictor.engine = TorchEngine(_ReadOffIntensity())
    return predictor


def _world_phantom(shape: tuple[int, ...], affine: np.ndarray) -> np.ndarray:
    """Return two balls defined in mm: Head (2) of radius 7 at -6, Tail (7) of radius 5 at +6 along the left-right
    axis."""
    index = np.stack(np.meshgrid(*map(np.arange, shape), indexing="ij"), axis=-1)
    centre = affine[:3, :3] @ (np.array(shape) - 1) / 2 + affine[:3, 3]
    mm = index @ affine[:3, :3].T + affine[:3, 3] - centre
    label = np.zeros(shape, np.uint8)
    label[np.linalg.norm(mm - [-6, 0, 3], axis=-1) < 7] = 2
    label[np.linalg.norm(mm - [6, 4, 0], axis=-1) < 5] = 7
    return label


def _case(write_nifti: Callable[..., Path], shape: tuple[int, ...], affine: np.ndarray) -> tuple[Path, Path]:
    label = _world_phantom(shape, affine)
    intensity = np.select([label == 2, label == 7], [50.0, 100.0]).astype(np.float32)
    return write_nifti("image.nii.gz", intensity, affine), write_nifti("truth.nii.gz", label, affine)


def _orientations() -> list[np.ndarray]:
    found = []
    for axes in ([0, 1, 2], [2, 0, 1], [1, 0, 2]):
        for signs in ((1, 1, 1), (-1, 1, 1), (-1, -1, 1), (1, -1, -1)):
            affine = np.eye(4)
            affine[:3, :3] = np.eye(3)[:, axes] * signs
            affine[:3, 3] = (-30, 12, 5)
            found.append(affine)
    return found


@pytest.mark.parametrize("affine", _orientations(), ids=lambda a: "".join(nib.aff2axcodes(a)))
def test_permuted_and_flipped_images_come_back_voxel_exact(
    predictor: Predictor, write_nifti: Callable[..., Path], tmp_path: Path, affine: np.ndarray
) -> None:
    image, truth = _case(write_nifti, (36, 33, 30), affine)
    predictor.segment(image, tmp_path / "found.nii.gz")
    found = nib.load(tmp_path / "found.nii.gz")
    np.testing.assert_array_equal(np.asarray(found.dataobj), np.asarray(nib.load(truth).dataobj))
    np.testing.assert_allclose(found.affine, affine, atol=1e-6)


OBLIQUE = np.array([[0.866, -0.5, 0, -9], [0.5, 0.866, 0, 3], [0, 0, 1, 1], [0, 0, 0, 1.0]])


@pytest.mark.parametrize(
    ("shape", "affine"),
    [
        ((40, 44, 22), np.diag([0.8, 0.8, 1.6, 1.0])),
        ((40, 44, 22), np.diag([-0.8, 0.8, 1.6, 1.0])),
        ((36, 36, 32), OBLIQUE),
        ((36, 36, 24), OBLIQUE @ np.diag([-0.9, 0.9, 1.5, 1.0])),
    ],
    ids=["anisotropic", "left-handed", "oblique", "oblique left-handed anisotropic"],
)
def test_resampled_images_come_back_in_place(
    predictor: Predictor, write_nifti: Callable[..., Path], tmp_path: Path, shape: tuple, affine: np.ndarray
) -> None:
    image, truth = _case(write_nifti, shape, affine)
    result = predictor.segment(image, tmp_path / "found.nii.gz")
    # The rule misreads the half-intensity rim of the Tail as Head, so that Head is judged more mildly.
    dice = dice_of_files(tmp_path / "found.nii.gz", truth, TASK.labels)
    assert dice["Tail"] > 0.9 and dice["Head"] > 0.8
    found = nib.load(tmp_path / "found.nii.gz")
    voxels = np.asarray(found.dataobj)
    assert result.volumes_ml["Tail"] == pytest.approx((voxels == 7).sum() * abs(np.linalg.det(affine)) / 1000, rel=1e-4)
    np.testing.assert_allclose(_centre_mm(voxels, affine), _centre_mm(nib.load(truth).dataobj, affine), atol=0.15)


def _centre_mm(voxels: np.ndarray, affine: np.ndarray) -> np.ndarray:
    """Centre of the Tail in RAS mm."""
    return nib.affines.apply_affine(affine, np.argwhere(np.asarray(voxels) == 7)).mean(0)


def test_an_image_smaller_than_the_stride_works_with_a_real_network(
    write_nifti: Callable[..., Path], tmp_path: Path
) -> None:
    image = write_nifti("tiny.nii.gz", np.random.default_rng(0).uniform(0, 100, (10, 12, 9)).astype(np.float32))
    Predictor(Checkpoint(Rep3D(CONFIG).eval(), TASK, {}), "cpu").segment(image, tmp_path / "found.nii.gz")
    assert nib.load(tmp_path / "found.nii.gz").shape == (10, 12, 9)


def test_one_slice_images_work(predictor: Predictor, write_nifti: Callable[..., Path], tmp_path: Path) -> None:
    image = write_nifti("thin.nii.gz", np.zeros((20, 20, 1), np.float32))
    predictor.segment(image, tmp_path / "found.nii.gz")
    assert nib.load(tmp_path / "found.nii.gz").shape == (20, 20, 1)


def test_a_file_that_is_no_image_is_refused_and_nothing_written(predictor: Predictor, tmp_path: Path) -> None:
    (tmp_path / "text.nii.gz").write_text("hello")
    with pytest.raises(ImageError):
        predictor.segment(tmp_path / "text.nii.gz", tmp_path / "found.nii.gz")
    assert not (tmp_path / "found.nii.gz").exists()


def test_a_network_sees_the_same_through_segment_and_probabilities(
    write_nifti: Callable[..., Path], tmp_path: Path
) -> None:
    """A real, untrained network: probabilities sum to one, and the label map is their argmax."""
    predictor = Predictor(Checkpoint(Rep3D(CONFIG).eval(), TASK, {}), "cpu")
    image = write_nifti("image.nii.gz", np.random.default_rng(0).uniform(0, 100, (40, 33, 20)).astype(np.float32))
    probabilities = predictor.probabilities(image)
    assert probabilities.shape == (3, 40, 33, 20)
    torch.testing.assert_close(torch.as_tensor(probabilities).sum(0).as_subclass(torch.Tensor), torch.ones(40, 33, 20))
    predictor.segment(image, tmp_path / "found.nii.gz")
    found = np.asarray(nib.load(tmp_path / "found.nii.gz").dataobj)
    expected = np.array([0, 2, 7])[np.asarray(probabilities).argmax(0)]
    assert (found == expected).mean() > 0.999


@pytest.mark.parametrize(
    ("roi", "shape", "expected"),
    [
        ((96, 96, 96), (35, 50, 36), (48, 64, 48)),
        ((32, 32, 32), (35, 50, 1), (32, 32, 16)),
        ((40, 40, 40), (100, 100, 100), (48, 48, 48)),
        ((96, 96, 96), (10, 12, 9), (32, 16, 16)),
    ],
)
def test_window_is_no_larger_than_the_image_needs(roi: tuple, shape: tuple, expected: tuple) -> None:
    assert fit_window(roi, shape, 16) == expected


@pytest.mark.parametrize(
    ("window", "shape"),
    [((32, 32, 32), (32, 33, 48)), ((48, 64, 48), (36, 50, 35)), ((32, 16, 48), (90, 70, 100))],
)
def test_windows_are_counted_as_the_inferer_makes_them(window: tuple, shape: tuple) -> None:
    seen = []
    inferer = SlidingWindowInferer(window, sw_batch_size=1, overlap=0.5)
    inferer(torch.zeros(1, 1, *shape), lambda x: (seen.append(x.shape), x)[1])
    assert count_windows(window, shape) == len(seen)


def test_uncertainty_is_zero_when_certain_one_when_clueless_and_does_not_grow_with_size() -> None:
    certain = torch.zeros(3, 8, 8, 8)
    certain[0] = 1
    certain[0, 2:5, 2:5, 2:5], certain[1, 2:5, 2:5, 2:5] = 0, 1
    assert mean_entropy(certain) == pytest.approx(0, abs=1e-4)
    assert mean_entropy(torch.full((3, 8, 8, 8), 1 / 3)) == pytest.approx(1, abs=1e-4)
    assert mean_entropy(torch.full((3, 16, 16, 16), 1 / 3)) == pytest.approx(1, abs=1e-4)
    half = certain.clone()
    half[:, 2:5, 2:5, 2:5] = torch.tensor([0.4, 0.5, 0.1])[:, None, None, None]
    assert 0.01 < mean_entropy(half) < 0.9


def test_the_region_is_a_cube_of_five_voxels_around_each_labelled_one() -> None:
    random = torch.Generator().manual_seed(0)
    amount = torch.rand((9, 1, 12), generator=random)
    background = (torch.rand((9, 1, 12), generator=random) > 0.04).float()
    assert 0 < (background < 0.5).sum() < 9
    region = torch.nn.functional.max_pool3d(1 - background[None, None], 5, 1, 2)[0, 0] > 0
    assert regional_mean(amount, torch.stack([background, 1 - background])) == float(amount[region].mean())


def test_unknown_devices_are_refused() -> None:
    assert choose_device("cpu").type == "cpu"
    for name in ("warp", "cuda:99"):
        with pytest.raises(ConfigError):
            choose_device(name)
