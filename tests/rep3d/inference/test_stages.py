"""A version of two stages: the fine one looks where the coarse one found something, and nothing is lost between both.

The networks are replaced by rules that read labels off intensities.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.data import MetaTensor

import rep3d.memory
from rep3d.checkpoint import Checkpoint, load_checkpoint, read_checkpoint_task, save_checkpoint
from rep3d.errors import CheckpointError, InferenceCancelled
from rep3d.inference import fine as fine_module
from rep3d.inference.engines import TorchEngine
from rep3d.inference.fine import FOUND
from rep3d.inference.predictor import Predictor
from rep3d.inference.region import Box
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

CONFIG = Rep3DConfig(out_channels=3, dims=(2, 2, 2, 2), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
TASK = TaskConfig("toy", {"Head": 2, "Tail": 7}, (4, 4, 4), Intensity("window", 0, 100), "RAS", (16, 16, 16))
FINE_TASK = replace(TASK, spacing=(1.0, 1.0, 1.0), roi_size=(32, 32, 32))
AFFINE = np.array([[0, 1, 0, 5], [-1, 0, 0, -20], [0, 0, 1.0, 5], [0, 0, 0, 1.0]])


def _version() -> Checkpoint:
    torch.manual_seed(0)
    fine = Checkpoint(Rep3D(replace(CONFIG, in_channels=3)).eval(), FINE_TASK, {"iterations": 7})
    return Checkpoint(Rep3D(CONFIG).eval(), TASK, {"version": "v2"}, fine)


class _Coarse(torch.nn.Module):
    """Takes all that is brighter than 0.3 for Head, and does not see what is darker."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        sure = (windows - 0.3) * 40
        return torch.cat([-sure, sure, torch.full_like(windows, -20)], dim=1)


class _Fine(torch.nn.Module):
    """Tells Head (0.5) from Tail (1), and sees what is dark (0.2), too, as Tail."""

    def __init__(self) -> None:
        super().__init__()
        self.seen: list[torch.Tensor] = []

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        self.seen.append(windows.clone())
        image = windows[:, :1]
        levels = [[0.0], [0.5], [0.2, 1.0]]
        return torch.cat(
            [torch.stack([-((image - level) ** 2) * 200 for level in some]).amax(0) for some in levels], dim=1
        )


@pytest.fixture
def image(write_nifti: Callable[..., Path]) -> Path:
    """Return a block of Head that touches one of Tail, and far away something dark that only the fine stage sees."""
    voxels = np.zeros((120, 70, 60), np.int16)
    voxels[10:30, 10:30, 8:24] = 50
    voxels[30:43, 12:29, 9:23] = 100
    voxels[100:116, 50:66, 40:56] = 20
    return write_nifti("image.nii.gz", voxels, AFFINE)


@pytest.fixture
def predictor() -> Predictor:
    predictor = Predictor(_version(), "cpu", "torch")
    predictor.engine = TorchEngine(_Coarse())
    assert predictor.fine is not None
    predictor.fine.engine = TorchEngine(_Fine())
    return predictor


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def _rule(predictor: Predictor) -> _Fine:
    assert predictor.fine is not None
    rule: _Fine = predictor.fine.engine._model  # type: ignore[union-attr, assignment]
    return rule


def test_the_fine_stage_decides_where_the_coarse_one_found_something_and_only_there(
    predictor: Predictor, image: Path, tmp_path: Path
) -> None:
    stored = _voxels(image)
    first = predictor.segment(image, tmp_path / "coarse.nii.gz", coarse=True, uncertainty=tmp_path / "a.nii.gz")
    assert first.stage == "coarse" and not _rule(predictor).seen
    result = predictor.segment(image, tmp_path / "all.nii.gz", uncertainty=tmp_path / "b.nii.gz")
    assert result.stage == "all" and result.fallback is None and result.version == "v2"
    coarse, found = _voxels(tmp_path / "coarse.nii.gz"), _voxels(tmp_path / "all.nii.gz")
    assert set(np.unique(coarse)) == {0, 2}
    np.testing.assert_array_equal(found, np.select([stored == 50, stored == 100], [2, 7]))  # to the voxel
    assert result.volumes_ml == {"Head": 6.4, "Tail": pytest.approx((stored == 100).sum() / 1000)}
    assert all(confidence and confidence > 0.95 for confidence in result.confidence.values())
    unsure = nib.load(tmp_path / "b.nii.gz").get_fdata()
    np.testing.assert_array_equal(unsure[70:], nib.load(tmp_path / "a.nii.gz").get_fdata()[70:])
    assert unsure[20, 20, 16] < 0.1 and unsure[70:].max() > 0  # the coarse stage's, outside
    shapes = {tuple(windows.shape[2:]) for windows in _rule(predictor).seen}
    assert shapes == {(32, 32, 32)} and sum(map(len, _rule(predictor).seen)) < 30


def test_a_box_views_and_features_work_with_two_stages(predictor: Predictor, image: Path, tmp_path: Path) -> None:
    predictor.segment(image, tmp_path / "all.nii.gz")
    whole, seen = _voxels(tmp_path / "all.nii.gz"), len(_rule(predictor).seen)
    box = Box.parse({"voxels": [[12, 11, 5], [41, 28, 20]]})
    predictor.segment(image, tmp_path / "box.nii.gz", box=box)
    part = _voxels(tmp_path / "box.nii.gz")
    inside = np.zeros(whole.shape, bool)
    inside[12:41, 11:28, 5:20] = True
    np.testing.assert_array_equal(part[inside], whole[inside])
    assert not part[~inside].any()
    _rule(predictor).seen.clear()
    predictor.segment(image, tmp_path / "views.nii.gz", views=3)  # of the three, one is turned
    assert len(_rule(predictor).seen) % 2 == 0 and len(_rule(predictor).seen) >= 2 * seen
    assert (_voxels(tmp_path / "views.nii.gz") == whole).mean() > 0.98
    assert predictor.features(image).shape == (2,)
    assert predictor.probabilities(image).shape[1:] == (18, 31, 16)  # the coarse stage's


def test_the_fine_stage_sees_the_image_and_what_the_coarse_one_made_of_it(
    predictor: Predictor, image: Path, tmp_path: Path
) -> None:
    predictor.segment(image, tmp_path / "all.nii.gz")
    windows = torch.cat(_rule(predictor).seen)
    assert windows.shape[1] == 3 and windows[:, 1:].min() >= 0 and windows[:, 1:].max() <= 1
    lowest, highest = (sign * torch.nn.functional.max_pool3d(sign * windows[:, :1], 9, 1)[:, 0] for sign in (-1, 1))
    inner = lowest.eq(0.5) & highest.eq(0.5)  # 4 mm of Head on all sides, so that a coarse voxel is Head, too
    assert inner.any() and windows[:, 1, 4:-4, 4:-4, 4:-4][inner].min() > 0.99 and windows[:, 2].max() < 1e-3


def test_where_the_coarse_stage_finds_nothing_its_result_stands(
    predictor: Predictor, write_nifti: Callable[..., Path], tmp_path: Path
) -> None:
    image = write_nifti("dark.nii.gz", np.full((40, 40, 40), 20, np.int16), AFFINE)
    result = predictor.segment(image, tmp_path / "found.nii.gz")
    assert not _voxels(tmp_path / "found.nii.gz").any() and not _rule(predictor).seen
    assert result.stage == "all" and result.confidence == {"Head": None, "Tail": None}


def test_between_the_stages_is_neither_a_seam_nor_a_hole() -> None:
    """Along a line that leaves what was found, the probabilities go over from the fine ones to the coarse ones."""
    probabilities = torch.zeros(3, 20, 12, 12)
    probabilities[0] = 1 - FOUND / 2
    probabilities[1] = FOUND / 2
    probabilities[:, 4:7, 4:7, 4:7] = torch.tensor([0.2, 0.3, 0.5])[:, None, None, None]
    coarse = MetaTensor(probabilities, affine=torch.diag(torch.tensor([4.0, 4, 4, 1], dtype=torch.float64)))
    fine = MetaTensor(torch.zeros(1, 77, 45, 45), affine=torch.eye(4, dtype=torch.float64))
    beneath = fine_module._Beneath(coarse, fine_module.coarse_weight(coarse), fine)
    sure = torch.zeros(3, 77, 45, 45)
    sure[2] = 1
    blended = beneath.blend(sure, (slice(0, 77), slice(0, 45), slice(0, 45)))
    torch.testing.assert_close(blended.sum(0), torch.ones(77, 45, 45))
    line = blended[2, :, 20, 20]
    assert (line[12:32] == 1).all() and (line[50:] < 1e-6).all()  # 8 mm around, and beyond the margin
    assert (line[28:].diff() <= 1e-6).all() and line[28:].diff().abs().max() < 0.15
    assert beneath.is_found((slice(-5, 10), slice(-5, 30), slice(10, 30)))
    assert not beneath.is_found((slice(50, 90), slice(0, 60), slice(0, 60)))


def test_a_fine_stage_that_does_not_fit_into_memory_is_left_out_and_that_is_said(
    predictor: Predictor, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rep3d.memory, "free_and_total", lambda: (7_000_000, 10**10))
    result = predictor.segment(image, tmp_path / "found.nii.gz")
    assert result.stage == "coarse" and result.fallback and "Not enough memory" in result.fallback
    assert "What the coarse stage found was kept instead" in result.fallback
    assert set(np.unique(_voxels(tmp_path / "found.nii.gz"))) == {0, 2}


def test_a_large_image_is_kept_in_half_precision_and_cancelled_between_fine_windows(
    predictor: Predictor, image: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    predictor.segment(image, tmp_path / "single.nii.gz", views=3)
    monkeypatch.setattr("rep3d.inference.stage._HALF_FROM", 1)
    result = predictor.segment(image, tmp_path / "half.nii.gz", views=3, uncertainty=tmp_path / "unsure.nii.gz")
    single, half = _voxels(tmp_path / "single.nii.gz"), _voxels(tmp_path / "half.nii.gz")
    assert (single == half).mean() > 0.9999 and 0 < result.uncertainty < 0.5
    _rule(predictor).seen.clear()
    with pytest.raises(InferenceCancelled):
        predictor.segment(image, tmp_path / "none.nii.gz", cancelled=lambda: len(_rule(predictor).seen) >= 2)
    assert len(_rule(predictor).seen) == 2 and not (tmp_path / "none.nii.gz").exists()


# In one file ------------------------------------------------------------------------------------------------------


def test_two_stages_are_one_file_and_one_stage_is_a_file_as_before(tmp_path: Path) -> None:
    version = _version()
    assert version.fine is not None
    save_checkpoint(tmp_path / "two.pt", version.model, version.task, version.info, version.fine)
    again = load_checkpoint(tmp_path / "two.pt")
    assert again.fine is not None and (again.task, again.info) == (version.task, version.info)
    assert (again.fine.task, again.fine.info) == (FINE_TASK, {"iterations": 7}) and not again.fine.model.training
    for one, other in ((again, version), (again.fine, version.fine)):
        for name, tensor in other.model.state_dict().items():
            torch.testing.assert_close(one.model.state_dict()[name], tensor)
    assert read_checkpoint_task(tmp_path / "two.pt") == (TASK, {"version": "v2"})
    content = torch.load(tmp_path / "two.pt", weights_only=True)
    assert content["format_version"] == 3  # a release that knows one stage refuses it
    save_checkpoint(tmp_path / "one.pt", version.model, version.task, version.info)
    assert torch.load(tmp_path / "one.pt", weights_only=True)["format_version"] == 1
    assert load_checkpoint(tmp_path / "one.pt").fine is None


@pytest.mark.parametrize(
    ("change", "words"),
    [
        ({"task": replace(FINE_TASK, labels={"Head": 2})}, "expected the labels"),
        ({"task": replace(FINE_TASK, orientation="LPS")}, "and LPS"),
        ({"model": Rep3D(CONFIG)}, "expected 3 input channels .* got 1"),
        ({"fine": _version().fine}, "fine stage of its own"),
    ],
)
def test_stages_that_do_not_fit_each_other_are_refused(change: dict, words: str) -> None:
    version = _version()
    assert version.fine is not None
    with pytest.raises(CheckpointError, match=words):
        replace(version, fine=replace(version.fine, **change))


@pytest.mark.parametrize("damage", [lambda stages: stages[1].pop("task"), lambda stages: stages.clear()])
def test_a_damaged_file_of_two_stages_is_refused(tmp_path: Path, damage: Callable[[list], object]) -> None:
    version = _version()
    save_checkpoint(tmp_path / "two.pt", version.model, version.task, version.info, version.fine)
    content = torch.load(tmp_path / "two.pt", weights_only=True)
    damage(content["stages"])
    torch.save(content, tmp_path / "two.pt")
    with pytest.raises(CheckpointError, match="two.pt cannot be used"):
        load_checkpoint(tmp_path / "two.pt")
