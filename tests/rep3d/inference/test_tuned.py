"""A faster way is gone where it was measured for just these weights and this processor, and said; else all is plain."""

from __future__ import annotations

import importlib.util
import logging
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel as nib
import numpy as np
import pytest
import torch

from rep3d.checkpoint import TUNED, Checkpoint, load_checkpoint, save_checkpoint
from rep3d.inference import engines
from rep3d.inference import tuned as module
from rep3d.inference.engines import BFLOAT16, FLOAT32, OpenVinoEngine, TorchEngine, can_compute
from rep3d.inference.predictor import Predictor
from rep3d.inference.tuned import PLAIN, Tuned, Way, tuned_way, weights_mark
from rep3d.nn.fold import reparameterize
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig
from tests.rep3d.balls import small_checkpoint, small_config

CPU = torch.device("cpu")
WIDE = Way(overlap=0.25, window=1.5)


@pytest.fixture(autouse=True)
def _no_engine_in_the_environment(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("REP3D_ENGINE", raising=False)


def with_record(checkpoint: Checkpoint, way: Way = WIDE, **changes: Any) -> Checkpoint:
    """Return a checkpoint for which a way was measured, or something unlike that."""
    mark = weights_mark(checkpoint)
    record = Tuned(way, 0.7011, 0.7019, 2.0, 5.0, ["a", "b"], "a processor", "2026-01-01T00:00:00Z", mark).to_dict()
    return replace(checkpoint, info={**checkpoint.info, TUNED: {**record, **changes}})


def test_a_record_goes_into_the_file_and_back(tmp_path: Path) -> None:
    made = with_record(small_checkpoint())
    save_checkpoint(tmp_path / "model.pt", made.model, made.task, made.info)
    found, words = tuned_way(load_checkpoint(tmp_path / "model.pt"), CPU, None)
    assert found == WIDE
    assert words == (
        "Computed in a faster way that was measured for this version: windows 1.5 times as wide, windows that overlap "
        "by 0.25. Mean Dice of 2 cases that it was not trained on: 0.7011, plainly 0.7019. 2.5 times as fast on a "
        "processor."
    )
    assert Predictor(made, "cpu").segment is not None and Predictor(made, "cpu").tuned == words


def test_an_engine_by_name_and_a_gpu_compute_plainly(monkeypatch: pytest.MonkeyPatch) -> None:
    made = with_record(small_checkpoint())
    assert tuned_way(made, CPU, "auto")[0] == WIDE
    assert tuned_way(made, CPU, "torch") == tuned_way(made, torch.device("cuda"), None) == (PLAIN, None)
    monkeypatch.setenv("REP3D_ENGINE", "openvino")
    assert tuned_way(made, CPU, None) == (PLAIN, None)


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"dice": 0.6998}, "damaged"),  # a change of more than may be
        ({"dice": float("nan")}, "damaged"),
        ({"way": {"overlap": 1.0}}, "damaged"),
        ({"way": {"overlap": "0.25"}}, "damaged"),
        ({"way": {"window": 9}}, "damaged"),
        ({"way": {"precision": "int4"}}, "damaged"),
        ({"way": {"trick": True}}, "damaged"),
        ({"seconds": 0}, "damaged"),
        ({"cases": []}, "damaged"),
        ({"cases": None}, "damaged"),
        ({"weights": "of another model"}, "measured for other weights"),
    ],
)
def test_what_is_damaged_or_of_other_weights_is_named_and_not_used(
    changes: dict[str, Any], words: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.WARNING):
        assert tuned_way(with_record(small_checkpoint(), **changes), CPU, None) == (PLAIN, None)
    assert words in caplog.text and "v1" in caplog.text and "plainly" in caplog.text


def test_other_labels_or_weights_have_another_mark() -> None:
    one, other = small_checkpoint(), small_checkpoint()
    assert weights_mark(one) == weights_mark(other)
    with torch.no_grad():
        next(other.model.parameters()).mul_(1.001)
    renamed = replace(one, task=replace(one.task, labels={"Cube": 3}))
    assert len({weights_mark(one), weights_mark(other), weights_mark(renamed)}) == 3


def test_a_processor_without_the_precision_computes_plainly_and_says_so(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    made = with_record(small_checkpoint(), Way(BFLOAT16, overlap=0.25))
    monkeypatch.setattr(module, "can_compute", lambda precision: precision == FLOAT32)
    with caplog.at_level(logging.WARNING):
        assert tuned_way(made, CPU, None) == (PLAIN, None)
    assert "needs OpenVINO and a processor with bfloat16" in caplog.text


@pytest.mark.skipif(not can_compute(BFLOAT16), reason="OpenVINO is not installed, or the processor has no bfloat16")
def test_bfloat16_is_taken_where_it_was_measured_and_only_there(
    write_nifti: Callable[..., Path], tmp_path: Path
) -> None:
    plain, image = small_checkpoint(), write_nifti("image.nii.gz", np.ones((40, 40, 40), np.float32))
    fast = Predictor(with_record(plain, Way(BFLOAT16)), "cpu").segment(image, tmp_path / "fast.nii.gz")
    assert fast.engine == "openvino bfloat16" and fast.tuned and "OpenVINO in bfloat16" in fast.tuned
    alone = Predictor(with_record(plain, Way(BFLOAT16)), "cpu", single_image=True)
    one = alone.segment(image, tmp_path / "one.nii.gz")  # small as it is: it gives what it gives among many
    assert (one.engine, one.tuned) == (fast.engine, fast.tuned)
    assert (tmp_path / "one.nii.gz").read_bytes() == (tmp_path / "fast.nii.gz").read_bytes()
    slow = Predictor(plain, "cpu").segment(image, tmp_path / "slow.nii.gz")
    assert slow.engine == "openvino" and slow.tuned is None
    model, windows = reparameterize(plain.model), torch.randn(1, 1, 32, 32, 32)
    exact = model(windows).softmax(1)
    differences = [
        (OpenVinoEngine(model, precision)(windows).softmax(1) - exact).abs().max().item()
        for precision in (FLOAT32, BFLOAT16)
    ]
    assert differences[0] < 1e-4 < differences[1] < 0.1


@pytest.mark.skipif(not can_compute(BFLOAT16), reason="OpenVINO is not installed, or the processor has no bfloat16")
def test_where_openvino_does_not_start_nothing_is_said_of_it(monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(*given: object) -> None:
        raise RuntimeError("no such thing")

    monkeypatch.setattr(engines, "OpenVinoEngine", fails)
    predictor = Predictor(with_record(small_checkpoint(), Way(BFLOAT16)), "cpu")
    assert (predictor.engine.name, predictor.tuned) == ("torch", None)


@pytest.mark.skipif(importlib.util.find_spec("openvino") is None, reason="OpenVINO is not installed")
def test_every_processor_has_float32() -> None:
    assert can_compute(FLOAT32)


# Windows, and the first look -----------------------------------------------------------------------------------------

TASK = TaskConfig("toy", {"Head": 2}, (2, 2, 2), Intensity("window", 0, 100), "RAS", (32, 32, 32))


class _Bright(torch.nn.Module):
    """Finds Head where it is bright, on whatever grid."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([50 - windows * 100, windows * 100 - 50], dim=1)


class _Counting(TorchEngine):
    def __init__(self) -> None:
        super().__init__(_Bright())
        self.sides: list[tuple[int, ...]] = []

    def __call__(self, images: torch.Tensor, check: Callable[[], None] | None = None) -> torch.Tensor:
        self.sides += [tuple(images.shape[2:])] * len(images)
        return super().__call__(images, check)


def segmented(way: Way, image: Path, output: Path) -> tuple[np.ndarray, list[tuple[int, ...]]]:
    """Return what is found in an image, and the windows that were computed for it."""
    predictor = Predictor(Checkpoint(Rep3D(small_config()).eval(), TASK), "cpu", "torch", way=way)
    predictor.engine = counted = _Counting()
    predictor.segment(image, output)
    return np.asarray(nib.load(output).dataobj), counted.sides


def dark() -> np.ndarray:
    """Return voxels of an image in which nothing is found, and nothing is outside of the patient."""
    return np.random.default_rng(0).integers(10, 30, (96, 80, 64), np.int16)


@pytest.fixture
def image(write_nifti: Callable[..., Path]) -> Path:
    """Return two small bright blocks, far apart."""
    voxels = dark()
    voxels[10:22, 12:22, 14:24] = voxels[70:80, 12:22, 14:24] = 90
    return write_nifti("image.nii.gz", voxels, np.diag([2.0, 2.0, 2.0, 1.0]))


def test_windows_lie_and_are_as_large_as_the_way_says(image: Path, tmp_path: Path) -> None:
    expected, plain = segmented(PLAIN, image, tmp_path / "plain.nii.gz")
    found, less = segmented(Way(overlap=0.25), image, tmp_path / "less.nii.gz")
    wide, wider = segmented(WIDE, image, tmp_path / "wide.nii.gz")
    assert (expected == 2).sum() == 2200
    np.testing.assert_array_equal(found, expected)
    np.testing.assert_array_equal(wide, expected)
    assert set(plain) == set(less) == {(32, 32, 32)} and set(wider) == {(48, 48, 48)}
    assert (len(plain), len(less), len(wider)) == (5 * 4 * 3, 4 * 3 * 3, 3 * 2 * 2)


def test_after_a_first_look_only_what_it_found_is_computed(image: Path, tmp_path: Path) -> None:
    expected, plain = segmented(PLAIN, image, tmp_path / "plain.nii.gz")
    found, looked = segmented(Way(first_look=True), image, tmp_path / "looked.nii.gz")
    np.testing.assert_array_equal(found, expected)
    assert 2 * 2 < len(looked) < len(plain) / 4  # the first look takes the former


def test_where_a_first_look_finds_nothing_or_does_not_pay_everything_is_computed(
    write_nifti: Callable[..., Path], tmp_path: Path
) -> None:
    faint = dark()
    faint[11, 13, 15] = 90  # one voxel, which is lost at half the resolution
    image = write_nifti("faint.nii.gz", faint, np.diag([2.0, 2.0, 2.0, 1.0]))
    expected, plain = segmented(PLAIN, image, tmp_path / "plain.nii.gz")
    found, looked = segmented(Way(first_look=True), image, tmp_path / "looked.nii.gz")
    np.testing.assert_array_equal(found, expected)
    assert found[11, 13, 15] == 2 and len(looked) > len(plain)
    small = write_nifti("small.nii.gz", faint[:24, :24, :24], np.diag([2.0, 2.0, 2.0, 1.0]))
    results = [segmented(way, small, tmp_path / "small_found.nii.gz") for way in (PLAIN, Way(first_look=True))]
    assert results[0][1] == results[1][1]
