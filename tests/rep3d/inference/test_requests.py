"""What a request may ask of a predictor: values, boxes, views, uncertainty; several at once; too little memory."""

from __future__ import annotations

import threading
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch

import rep3d.memory
from rep3d.checkpoint import Checkpoint
from rep3d.errors import ConfigError, ImageError, InferenceCancelled, OutOfMemoryError
from rep3d.fair_lock import FairLock
from rep3d.imaging.dicom import convert_series
from rep3d.inference.engines import TorchEngine
from rep3d.inference.predictor import Predictor
from rep3d.inference.region import Box
from rep3d.inference.sliding import WindowTurns, check_memory, sliding_probabilities
from rep3d.inference.uncertainty import mean_entropy
from rep3d.inference.views import MAX_VIEWS, VIEWS
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

CONFIG = Rep3DConfig(out_channels=3, dims=(2, 2, 2, 6), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
TASK = TaskConfig("toy", {"Tail": 7, "Head": 2}, (1.0, 1.0, 1.0), Intensity("window", 0, 100), "RAS", (32, 32, 32))
AFFINE = np.array([[-0.8, 0, 0, 30], [0, 0.9, 0, -20], [0, 0, 1.3, 5], [0, 0, 0, 1.0]])


class _ReadOffIntensity(torch.nn.Module):
    """Intensity 0 is background, 0.5 is channel 1 (Head), 1 is channel 2 (Tail)."""

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return torch.cat([-((x - level) ** 2) * 40 for level in (0.0, 0.5, 1.0)], dim=1)


def _predictor(values: dict[str, int] | None = None) -> Predictor:
    torch.manual_seed(0)
    return Predictor(Checkpoint(Rep3D(CONFIG).eval(), TASK, {"version": "v9"}), "cpu", "torch", values=values)


@pytest.fixture
def rule() -> Predictor:
    """Return a predictor whose labels follow from the intensity."""
    predictor = _predictor()
    predictor.engine = TorchEngine(_ReadOffIntensity())
    return predictor


@pytest.fixture
def image(write_nifti: Callable[..., Path]) -> Path:
    """Return two blocks, of Head and of Tail."""
    voxels = np.zeros((60, 50, 30), np.int16)
    voxels[10:30, 10:30, 5:20] = 50
    voxels[35:50, 20:40, 10:25] = 100
    return write_nifti("image.nii.gz", voxels, AFFINE)


def _voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


# Labels, boxes, uncertainty ------------------------------------------------------------------------------------


def test_values_go_by_name_and_unknown_labels_become_background(image: Path, tmp_path: Path) -> None:
    predictor = _predictor({"Head": 300, "Liver": 4})
    predictor.engine = TorchEngine(_ReadOffIntensity())
    result = predictor.segment(image, tmp_path / "found.nii.gz")
    found = _voxels(tmp_path / "found.nii.gz")
    assert set(np.unique(found)) == {0, 300}
    assert list(result.volumes_ml) == ["Head", "Liver"]
    assert result.volumes_ml["Head"] == pytest.approx((found == 300).sum() * 0.8 * 0.9 * 1.3 / 1000)
    assert result.volumes_ml["Liver"] == 0 and result.confidence["Liver"] is None
    assert result.version == "v9" and result.device == "cpu" and result.fallback is None


def test_confidence_is_the_mean_probability_of_a_label_where_it_was_found(
    rule: Predictor, image: Path, tmp_path: Path
) -> None:
    result = rule.segment(image, tmp_path / "found.nii.gz")
    probabilities = rule.probabilities(image).as_tensor()
    channel = probabilities.argmax(0)
    for name, number in (("Head", 1), ("Tail", 2)):
        assert result.confidence[name] == pytest.approx(
            float(probabilities[number][channel == number].mean()), abs=1e-5
        )
    assert result.uncertainty == pytest.approx(mean_entropy(probabilities), abs=1e-5)
    empty = np.zeros((20, 20, 20), np.int16)
    nib.save(nib.Nifti1Image(empty, np.eye(4)), tmp_path / "empty.nii.gz")
    assert rule.segment(tmp_path / "empty.nii.gz", tmp_path / "e.nii.gz").confidence == {"Tail": None, "Head": None}


def test_the_uncertainty_map_is_high_between_labels_and_lies_on_the_images_grid(
    rule: Predictor, image: Path, tmp_path: Path
) -> None:
    rule.segment(image, tmp_path / "found.nii.gz", uncertainty=tmp_path / "unsure.nii.gz")
    unsure = nib.load(tmp_path / "unsure.nii.gz")
    values = unsure.get_fdata()
    np.testing.assert_allclose(unsure.affine, AFFINE, atol=1e-6)
    assert values.shape == (60, 50, 30) and values.min() >= 0 and values.max() <= 1
    assert values[20, 20, 12] < 0.02 and values[55, 5, 2] < 0.02
    assert values[33:52, 18:42, 8:27].max() > 0.3  # at the rim of the Tail
    assert np.median(values) < 0.02


@pytest.mark.parametrize("unit", ["voxels", "ras"])
def test_only_a_box_is_segmented(rule: Predictor, image: Path, tmp_path: Path, unit: str) -> None:
    low, high = [12, 5, 3], [40, 33, 18]
    corners = [low, high]
    if unit == "ras":
        corners = [nib.affines.apply_affine(AFFINE, index).tolist() for index in (low, [n - 1 for n in high])]
    rule.segment(image, tmp_path / "whole.nii.gz")
    seen: list[int] = []
    rule.engine = _Counting(rule.engine, seen)  # type: ignore[arg-type]
    box = Box.parse({unit: corners})
    result = rule.segment(image, tmp_path / "part.nii.gz", box=box, uncertainty=tmp_path / "unsure.nii.gz")
    inside = np.zeros((60, 50, 30), bool)
    inside[12:40, 5:33, 3:18] = True
    whole, part = _voxels(tmp_path / "whole.nii.gz"), _voxels(tmp_path / "part.nii.gz")
    np.testing.assert_array_equal(part[inside], whole[inside])
    assert not part[~inside].any() and not nib.load(tmp_path / "unsure.nii.gz").get_fdata()[~inside].any()
    voxel_ml = 0.8 * 0.9 * 1.3 / 1000
    assert result.volumes_ml["Head"] == pytest.approx((part == 2).sum() * voxel_ml)
    in_box = sum(seen)
    seen.clear()
    rule.segment(image, tmp_path / "whole.nii.gz")
    assert in_box < sum(seen)


class _Counting:
    """An engine that counts windows."""

    name = "torch"

    def __init__(self, engine: TorchEngine, seen: list[int]) -> None:
        self._engine, self._seen = engine, seen

    def __call__(self, images: torch.Tensor, check: Callable[[], None] | None = None) -> torch.Tensor:
        self._seen.append(len(images))
        return self._engine(images, check)

    def release(self) -> None:
        pass


@pytest.mark.parametrize(
    "box",
    [
        {"voxels": [[0, 0, 0], [61, 5, 5]]},
        {"voxels": [[-1, 0, 0], [5, 5, 5]]},
        {"voxels": [[5, 5, 5], [5, 9, 9]]},
        {"voxels": [[9, 5, 5], [5, 9, 9]]},
        {"ras": [[500, 500, 500], [600, 600, 600]]},
    ],
)
def test_boxes_without_a_voxel_of_the_image_are_refused(
    rule: Predictor, image: Path, tmp_path: Path, box: dict
) -> None:
    with pytest.raises(ImageError, match="box: .*(reaches outside the image|no voxel of the image is in it)"):
        rule.segment(image, tmp_path / "part.nii.gz", box=Box.parse(box))
    assert not (tmp_path / "part.nii.gz").exists()


@pytest.mark.parametrize(
    "box",
    [
        None,
        3,
        "ras",
        [[0, 0, 0], [1, 1, 1]],
        {"mm": [[0, 0, 0], [1, 1, 1]]},
        {"ras": [[0, 0], [1, 1]]},
        {"ras": [[0, 0, 0]]},
        {"ras": ["abc", "def"]},
        {"voxels": [[0.5, 0, 0], [1, 1, 1]]},
        {"ras": [[float("nan"), 0, 0], [1, 1, 1]]},
        {"voxels": [[True, 0, 0], [1, 1, 1]]},
        {"voxels": [[0, 0, 0], [2**70, 1, 1]]},
        {"ras": [[0, 0, 0], [1e308, 10**400, 1]]},
    ],
)
def test_what_is_no_box_is_refused(box: object) -> None:
    with pytest.raises(ImageError, match="box: expected"):
        Box.parse(box)


# Views and features --------------------------------------------------------------------------------------------


def test_every_view_lies_on_the_images_grid_and_the_mean_is_theirs(rule: Predictor, image: Path) -> None:
    views = [view.as_tensor().clone() for view in rule.view_probabilities(image, MAX_VIEWS)]
    plain = rule.probabilities(image)
    torch.testing.assert_close(views[0], plain.as_tensor())
    inner = (slice(None), slice(3, -3), slice(3, -3), slice(3, -3))
    for view, found in zip(VIEWS, views, strict=True):
        assert found.shape == plain.shape
        torch.testing.assert_close(found.sum(0), torch.ones(found.shape[1:]), atol=1e-4, rtol=0)
        # The rule reads intensities, so only the pose can move a label: it must come back to its place.
        if view.gamma == 1 and not view.offset:
            agree = (found.argmax(0) == views[0].argmax(0))[inner[1:]].float().mean()
            assert agree > 0.97, view
    mean = rule.probabilities(image, views=MAX_VIEWS).as_tensor()
    torch.testing.assert_close(mean, torch.stack(views).mean(0), atol=1e-5, rtol=0)
    again = rule.probabilities(image, views=MAX_VIEWS).as_tensor()
    assert torch.equal(mean, again)


@pytest.mark.parametrize("views", [0, MAX_VIEWS + 1, -1, True, 2.0, "2"])
def test_numbers_of_views_that_there_are_not_are_refused(
    rule: Predictor, image: Path, tmp_path: Path, views: object
) -> None:
    with pytest.raises(ConfigError, match="views"):
        rule.segment(image, tmp_path / "found.nii.gz", views=views)  # type: ignore[arg-type]


def test_features_describe_the_image_and_are_the_encoders_own(write_nifti: Callable[..., Path]) -> None:
    random = np.random.default_rng(0)
    predictor = _predictor()
    one = write_nifti("one.nii.gz", random.uniform(0, 100, (32, 32, 32)).astype(np.float32))
    large = write_nifti("large.nii.gz", random.uniform(0, 40, (70, 40, 33)).astype(np.float32))
    found = predictor.features(one)
    assert found.shape == (6,) and found.dtype == np.float32 and np.isfinite(found).all()
    image = torch.as_tensor(nib.load(one).get_fdata() / 100, dtype=torch.float32)[None, None]
    with torch.no_grad():
        deepest = predictor.model.encode(image)[-1].mean((0, 2, 3, 4))  # type: ignore[operator]
    np.testing.assert_allclose(found, deepest.numpy(), atol=1e-5)
    np.testing.assert_array_equal(found, predictor.features(one))
    assert np.abs(predictor.features(large) - found).max() > 1e-3


# Several at once -----------------------------------------------------------------------------------------------


def test_a_fair_lock_is_given_in_the_order_of_asking() -> None:
    lock, order = FairLock(), []
    threads = []

    def take(number: int) -> None:
        with lock:
            order.append(number)

    with lock:
        for number in range(5):
            thread = threading.Thread(target=take, args=(number,))
            thread.start()
            threads.append(thread)
            while len(lock._waiting) <= number:
                pass
        assert order == []
    for thread in threads:
        thread.join(10)
    assert order == [0, 1, 2, 3, 4]
    with lock:  # and it is free again
        pass


def test_requests_at_once_get_the_same_results_and_take_turns(write_nifti: Callable[..., Path], tmp_path: Path) -> None:
    predictor = _predictor()
    random = np.random.default_rng(0)
    shapes = {"big": (96, 80, 64), "small": (48, 40, 32)}
    images = {
        name: write_nifti(f"{name}.nii.gz", random.uniform(0, 100, shape).astype(np.float32))
        for name, shape in shapes.items()
    }
    for name, path in images.items():
        predictor.segment(path, tmp_path / f"{name}_alone.nii.gz")
    order: list[str] = []
    names = {}
    plain = predictor.engine

    class _Noting(_Counting):
        def __call__(self, images: torch.Tensor, check: Callable[[], None] | None = None) -> torch.Tensor:
            order.append(names[threading.get_ident()])
            return plain(images, check)

    predictor.engine = _Noting(plain, [])  # type: ignore[arg-type]
    begun = threading.Event()

    def run(name: str) -> None:
        names[threading.get_ident()] = name
        if name == "small":
            begun.wait(30)
        predictor.segment(images[name], tmp_path / f"{name}_together.nii.gz", cancelled=lambda: begun.set() or False)

    threads = [threading.Thread(target=run, args=(name,)) for name in images]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(60)
    for name in images:
        np.testing.assert_array_equal(
            _voxels(tmp_path / f"{name}_together.nii.gz"), _voxels(tmp_path / f"{name}_alone.nii.gz")
        )
    last = len(order) - order[::-1].index("small") - 1
    assert "big" in order[last + 1 :], order  # the small one did not wait for the end of the big one


def test_buffers_are_released_when_the_last_request_has_ended(rule: Predictor, image: Path, tmp_path: Path) -> None:
    released: list[int] = []
    plain = rule.engine

    class _Releasing(_Counting):
        def release(self) -> None:
            released.append(1)

    rule.engine = _Releasing(plain, [])  # type: ignore[arg-type]
    with rule.in_use(rule.engine):  # as another request would
        rule.segment(image, tmp_path / "found.nii.gz")
        assert not released
    assert released == [1]


def test_a_cancelled_request_ends_at_its_next_window_and_writes_nothing(
    rule: Predictor, image: Path, tmp_path: Path
) -> None:
    seen: list[int] = []
    rule.engine = _Counting(rule.engine, seen)  # type: ignore[arg-type]
    with pytest.raises(InferenceCancelled, match="cancelled"):
        rule.segment(image, tmp_path / "found.nii.gz", cancelled=lambda: sum(seen) >= 2)
    assert sum(seen) == 2
    assert not (tmp_path / "found.nii.gz").exists()
    rule.segment(image, tmp_path / "found.nii.gz")  # the next one is not disturbed


# Too little memory ---------------------------------------------------------------------------------------------


class _Starved(_Counting):
    """An engine on a device that holds only so many windows at a time."""

    def __init__(self, engine: TorchEngine, holds: int) -> None:
        super().__init__(engine, [])
        self._holds = holds

    def __call__(self, images: torch.Tensor, check: Callable[[], None] | None = None) -> torch.Tensor:
        if len(images) > self._holds:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")
        return super().__call__(images, check)


@pytest.mark.parametrize(("holds", "words"), [(1, "continued with 1"), (0, "continued on the CPU")])
def test_too_little_memory_is_dealt_with_and_said(image: Path, tmp_path: Path, holds: int, words: str) -> None:
    predictor = _predictor()
    predictor.segment(image, tmp_path / "plenty.nii.gz")
    predictor.engine = _Starved(predictor.engine, holds)  # type: ignore[arg-type]
    result = predictor.segment(image, tmp_path / "starved.nii.gz")
    assert result.fallback and words in result.fallback
    plenty, starved = _voxels(tmp_path / "plenty.nii.gz"), _voxels(tmp_path / "starved.nii.gz")
    assert (plenty == starved).mean() > 0.999  # another engine may round differently
    assert result.device == "cpu"


def test_result_that_does_not_fit_where_it_is_gathered_is_kept_in_ram() -> None:
    """The device has room for nothing: not for a window, and not for what the CPU computed instead."""
    full = [True]

    def spare(windows: torch.Tensor, check: Callable[[], None]) -> torch.Tensor:
        if full.pop() if full else False:
            raise torch.cuda.OutOfMemoryError("CUDA out of memory")  # as copying the result back does
        return _ReadOffIntensity()(windows)

    starved = _Starved(TorchEngine(_ReadOffIntensity()), 0)
    turns = WindowTurns(starved, torch.device("cpu"), lambda: spare)  # type: ignore[arg-type, return-value]
    seen = torch.rand((1, 40, 32, 32))
    found = sliding_probabilities(seen, (32, 32, 32), turns, channels=3)
    assert not full and turns.fallback and "continued on the CPU" in turns.fallback
    torch.testing.assert_close(found, _ReadOffIntensity()(seen[None])[0].softmax(0))


def test_a_result_that_does_not_fit_onto_the_gpu_is_gathered_in_main_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (100_000, 80 * 10**9))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 50_000)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 0)
    engine = TorchEngine(_ReadOffIntensity())
    turns = WindowTurns(engine, torch.device("cuda"), lambda: engine)
    turns.computed_on = torch.device("cpu")
    seen = torch.rand((1, 40, 32, 32))
    with torch.inference_mode():
        found = sliding_probabilities(seen, (32, 32, 32), turns, channels=3)
    assert turns.fallback == "GPU out of memory for the whole result; kept it in main memory."
    torch.testing.assert_close(found, _ReadOffIntensity()(seen[None])[0].softmax(0))


def test_results_that_do_not_fit_are_refused_before_any_work(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(rep3d.memory, "free_and_total", lambda: (100_000_000, 1_000_000_000))
    check_memory(16, (100, 100, 100))
    with pytest.raises(OutOfMemoryError, match=r"0.7 GB are needed, 0.1 GB are free"):
        check_memory(16, (200, 200, 240))


# DICOM ---------------------------------------------------------------------------------------------------------


def test_a_folder_with_a_dicom_series_is_segmented_like_its_nifti_form(
    rule: Predictor, shared_data: Path, tmp_path: Path
) -> None:
    folder = shared_data / "dicom_mr" / "hippocampus_crop"
    convert_series(folder, tmp_path / "series.nii.gz")
    of_file = rule.segment(tmp_path / "series.nii.gz", tmp_path / "of_file.nii.gz")
    of_folder = rule.segment(folder, tmp_path / "of_folder.nii.gz")
    assert of_folder.volumes_ml == of_file.volumes_ml and of_file.volumes_ml["Head"] > 0
    a, b = nib.load(tmp_path / "of_file.nii.gz"), nib.load(tmp_path / "of_folder.nii.gz")
    np.testing.assert_array_equal(a.affine, b.affine)
    np.testing.assert_array_equal(np.asarray(a.dataobj), np.asarray(b.dataobj))
