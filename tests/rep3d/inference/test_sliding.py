"""The sliding window gives what MONAI's inferer gives, and leaves out nothing but what nobody wants."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.inferers import SlidingWindowInferer

from rep3d.checkpoint import Checkpoint
from rep3d.imaging.body import BodyMask
from rep3d.imaging.grid import Place
from rep3d.inference import predictor as predictor_module
from rep3d.inference.engines import TorchEngine
from rep3d.inference.predictor import Predictor
from rep3d.inference.slab import starts_along
from rep3d.inference.sliding import BATCH, OVERLAP, WindowTurns, sliding_probabilities
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.rep3d import Rep3D
from rep3d.tasks.config import Intensity, TaskConfig

CPU = torch.device("cpu")


class _Blurring(torch.nn.Module):
    """Each window's result depends on all of the window, so that it matters where the windows lie."""

    def __init__(self, in_channels: int = 1) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.conv = torch.nn.Conv3d(in_channels, 3, 5, padding=2)

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return self.conv(windows) * 3 + windows.mean((1, 2, 3, 4), keepdim=True)


def _turns(network: torch.nn.Module) -> WindowTurns:
    engine = TorchEngine(network.eval())
    return WindowTurns(engine, CPU, lambda: engine)


@pytest.mark.parametrize(
    ("shape", "window"),
    [
        ((40, 33, 28), (16, 16, 16)),
        ((20, 45, 30), (16, 32, 48)),
        ((9, 10, 50), (16, 16, 16)),
        ((5, 6, 7), (40, 16, 16)),
    ],
)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_as_monais_inferer(shape: tuple[int, ...], window: tuple[int, ...], dtype: torch.dtype) -> None:
    network, image = _Blurring(), torch.randn(1, *shape, generator=torch.Generator().manual_seed(1))
    with torch.inference_mode():
        found = sliding_probabilities(image, window, _turns(network), 3, dtype=dtype)
        expected = SlidingWindowInferer(window, BATCH, OVERLAP, "gaussian")(image[None], network)
    tolerance = 1e-5 if dtype == torch.float32 else 5e-4
    torch.testing.assert_close(found.float(), expected[0].softmax(0), atol=tolerance, rtol=0)  # type: ignore[index]


@pytest.mark.parametrize(
    ("side", "length", "overlap", "expected"),
    [
        (48, 100, 0.5, [0, 17, 35, 52]),  # and not 0, 24, 48, 52
        (64, 100, 0.25, [0, 36]),
        (96, 250, 0.25, [0, 51, 103, 154]),
        (16, 16, 0.5, [0]),
        (16, 9, 0.5, [0]),
        (2, 5, 0.9, [0, 1, 2, 3]),
    ],
)
def test_windows_lie_at_even_distances(side: int, length: int, overlap: float, expected: list[int]) -> None:
    assert starts_along(side, length, overlap) == expected


def test_what_nobody_wants_is_background_and_all_else_is_the_same() -> None:
    network, image = _Blurring(), torch.randn(1, 48, 40, 32, generator=torch.Generator().manual_seed(1))
    wanted = torch.zeros(48, 40, 32, dtype=torch.bool)
    wanted[3:10, 5:12, 4:30] = wanted[46:, 38:, 30:] = True
    computed: list[Place] = []

    def is_wanted(place: Place) -> bool:
        found = bool(wanted[place].any())
        computed.extend([place] if found else [])
        return found

    with torch.inference_mode():
        everything = sliding_probabilities(image, (16, 16, 16), _turns(network), 3)
        found = sliding_probabilities(image, (16, 16, 16), _turns(network), 3, wanted=is_wanted)
    seen = torch.zeros_like(wanted)
    for place in computed:
        seen[place] = True
    torch.testing.assert_close(found[:, wanted], everything[:, wanted], atol=1e-6, rtol=0)
    assert not seen.all() and (found[0, ~seen] == 1).all() and (found[1:, ~seen] == 0).all()


def test_further_channels_and_the_finish_know_their_place() -> None:
    image = torch.zeros(1, 9, 40, 20)
    index = torch.stack(torch.meshgrid(*(torch.arange(side) for side in (9, 40, 20)), indexing="ij")).float()
    places: list[Place] = []

    def beside(place: Place) -> torch.Tensor:
        ranges = [torch.arange(part.start, part.stop) for part in place]
        return torch.stack(torch.meshgrid(*ranges, indexing="ij")).float() / 10

    class _Reading(torch.nn.Module):
        def forward(self, windows: torch.Tensor) -> torch.Tensor:
            return windows[:, 1:]

    def finish(probabilities: torch.Tensor, place: Place) -> torch.Tensor:
        places.append(place)
        torch.testing.assert_close(probabilities, (index[(slice(None), *place)] / 10).softmax(0))
        return probabilities * 2

    found = sliding_probabilities(image, (16, 16, 16), _turns(_Reading()), 3, beside=beside, finish=finish)
    torch.testing.assert_close(found, (index / 10).softmax(0) * 2)
    assert sum(part[1].stop - part[1].start for part in places) == 40


# In the predictor -------------------------------------------------------------------------------------------------

CONFIG = Rep3DConfig(out_channels=3, dims=(2, 2, 2, 2), depths=(1, 1, 1, 1), hidden_size=2, kernel_size=3)
TASK = TaskConfig("toy", {"Head": 2, "Tail": 7}, (4, 4, 4), Intensity("window", -200, 200), "RAS", (16, 16, 16))


class _Everywhere(torch.nn.Module):
    """Finds Head in tissue and Tail in air, so that what is computed and what is not can be told apart."""

    def forward(self, windows: torch.Tensor) -> torch.Tensor:
        return torch.cat([torch.full_like(windows, -5), windows * 20 - 8, 8 - windows * 20], dim=1)


def test_labels_in_the_body_are_the_same_with_the_mask_and_air_is_not_computed(
    write_nifti: Callable[..., Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    hounsfield = np.full((72, 56, 40), -1000, np.int16)
    hounsfield[4:24, 20:40, 8:] = 40  # the body reaches the upper rim
    hounsfield[28:34, 28:34, 8:] = 40  # an arm
    affine = np.array([[-4, 0, 0, 90], [0, 0, 4, 3], [0, 4, 0, -5], [0, 0, 0, 1.0]])
    body = hounsfield == 40
    image = write_nifti("ct.nii.gz", hounsfield, affine)
    predictor = Predictor(Checkpoint(Rep3D(CONFIG).eval(), TASK), "cpu", "torch")
    seen: list[int] = []

    class _Counting(TorchEngine):
        def __call__(self, images: torch.Tensor, check: Callable[[], None] | None = None) -> torch.Tensor:
            seen.append(len(images))
            return super().__call__(images, check)

    predictor.engine = _Counting(_Everywhere())
    result = predictor.segment(image, tmp_path / "masked.nii.gz", uncertainty=tmp_path / "unsure.nii.gz")
    windows = sum(seen)
    masked, views = predictor.probabilities(image), predictor.probabilities(image, views=2)
    every = BodyMask(np.ones((1, 1, 1), bool), (10**6, 10**6, 10**6))
    monkeypatch.setattr(predictor_module, "body_mask", lambda *_: every)
    seen.clear()
    plain = predictor.segment(image, tmp_path / "plain.nii.gz")
    all_windows = sum(seen)
    whole = predictor.probabilities(image)
    assert windows < all_windows / 3
    found, expected = (np.asarray(nib.load(tmp_path / f"{name}.nii.gz").dataobj) for name in ("masked", "plain"))
    np.testing.assert_array_equal(found[body], expected[body])
    assert (found[body] == 2).all() and (expected[60:] == 7).all() and not found[60:].any()
    assert result.volumes_ml["Head"] == plain.volumes_ml["Head"] == pytest.approx(body.sum() * 0.064)
    assert result.confidence["Head"] == pytest.approx(plain.confidence["Head"], abs=1e-5)
    assert not nib.load(tmp_path / "unsure.nii.gz").get_fdata()[60:].any()
    assert masked.shape == whole.shape == views.shape == (3, 72, 40, 56)
    inside = masked.as_tensor()[1] > 0.5
    assert int(inside.sum()) == body.sum()
    torch.testing.assert_close(masked.as_tensor()[:, inside], whole.as_tensor()[:, inside], atol=1e-5, rtol=0)
    torch.testing.assert_close(masked.as_tensor().sum(0), torch.ones(72, 40, 56))
