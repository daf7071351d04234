"""`rep3d explain`: profiles and receptive fields against hand-computed ones, and the page against its numbers."""

from __future__ import annotations

import html
import json
import re
from collections.abc import Callable
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F

from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.errors import CheckpointError, ConfigError, ImageError, OutputError, Rep3DError
from rep3d.explain.explain import VARIANTS, _compared, _read_patches, explain
from rep3d.explain.fields import ReceptiveField, _field, centred_cubes, contribution, radial_profile
from rep3d.nn.config import Rep3DConfig
from rep3d.nn.lrbm import MaskGenerator, distance_prior
from rep3d.nn.rep3d import Rep3D
from rep3d.nn.zoo import build_model
from rep3d.tasks.config import Intensity, TaskConfig

TASK = TaskConfig("toy", {"Organ": 1}, (1.0, 1.0, 2.0), Intensity("window", 0, 100), "LPS", (32, 32, 32))


def save_network(path: Path, seed: int = 0, **settings: Any) -> Path:
    """Return a checkpoint whose masks are away from the prior, with two blocks in its first stage."""
    torch.manual_seed(seed)
    small: dict[str, Any] = {"dims": (8, 8, 8, 8), "depths": (2, 1, 1, 1), "hidden_size": 4, "kernel_size": 5}
    model = Rep3D(Rep3DConfig(**{**small, "generator_kernel": 3, "prior_scale": 2.0, **settings}))
    for module in model.modules():
        if isinstance(module, MaskGenerator):
            torch.nn.init.constant_(module.norms[-1].weight, 0.2)  # type: ignore[arg-type]
        if isinstance(module, torch.nn.BatchNorm3d):
            torch.nn.init.uniform_(module.running_var, 0.5, 2.0)  # type: ignore[arg-type]
    save_checkpoint(path, model, TASK, {"version": f"v{seed}"})
    return path


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return save_network(tmp_path_factory.mktemp("model") / "toy.pt")


@pytest.fixture(scope="module")
def alone(checkpoint: Path) -> Path:
    """Return the page of the checkpoint by itself, logits included."""
    return explain(checkpoint, checkpoint.parent / "alone", inputs=2, device="cpu", logits=True)


@pytest.fixture(scope="module")
def beside_plain(checkpoint: Path) -> Path:
    return explain(checkpoint, checkpoint.parent / "beside", compare="plain", inputs=1, device="cpu")


def numbers(page: Path) -> dict[str, Any]:
    return json.loads(page.with_name("explain.json").read_text(encoding="utf-8"))


def text_of(page: Path) -> str:
    """Return what a reader sees, tags and styles removed, on one line."""
    body = re.sub(r"<style.*?</style>", "", page.read_text(encoding="utf-8"), flags=re.S)
    return re.sub(r"\s+", " ", html.unescape(re.sub(r"<[^>]+>", " ", body)))


class TestRadialProfile:
    def test_prior_is_recovered_at_each_distance(self) -> None:
        profile = radial_profile(distance_prior(7, 1.5).numpy())
        np.testing.assert_allclose(profile.mean, 1.5 / (profile.distance + 1.5))
        np.testing.assert_allclose(profile.low, profile.high)
        np.testing.assert_allclose(profile.distance[:5], np.sqrt([0, 1, 2, 3, 4]))
        assert profile.taps[:5].tolist() == [1, 6, 12, 8, 6] and profile.taps.sum() == 7**3

    def test_band_spans_the_taps_at_one_distance_and_all_kernels(self) -> None:
        volumes = np.zeros((2, 3, 3, 3))
        volumes[0, 0, 1, 1], volumes[1, 1, 1, 2] = 6.0, -12.0  # two of the six neighbours of the centre
        profile = radial_profile(volumes)
        assert (profile.mean[1], profile.low[1], profile.high[1]) == (-0.5, -12.0, 6.0)
        assert not profile.mean[[0, 2, 3]].any()


class TestCentredCubes:
    def test_a_single_voxel_needs_a_cube_of_one(self) -> None:
        volume = np.zeros((7, 8, 9))
        volume[2, 5, 4] = 3.0
        assert centred_cubes(volume, (2, 5, 4)).smallest(0.99) == (1, 1 / volume.size)

    def test_a_voxel_away_from_the_centre_needs_a_cube_that_reaches_it(self) -> None:
        volume = np.zeros((9, 9, 9))
        volume[4, 4, 6] = 1.0
        cubes = centred_cubes(volume, (4, 4, 4))
        assert cubes.reach(0.2) == 2 and cubes.smallest(0.2) == (5, 5**3 / 9**3)

    def test_of_a_uniform_volume_cubes_hold_their_share(self) -> None:
        cubes = centred_cubes(np.ones((9, 9, 9)), (4, 4, 4))
        np.testing.assert_allclose(cubes.share, cubes.ratio)
        assert cubes.smallest(0.2) == (7, 7**3 / 9**3)
        assert cubes.smallest(0.5) == (9, 1.0)  # a cube of 7 holds 47 %

    def test_cubes_are_cut_off_at_the_edge(self) -> None:
        cubes = centred_cubes(np.ones((4, 4, 4)), (3, 3, 3))
        np.testing.assert_allclose(cubes.ratio, [1 / 64, 8 / 64, 27 / 64, 1])
        assert cubes.side.tolist() == [1, 3, 4, 4]

    @pytest.mark.parametrize("value", [0.0, np.nan])
    def test_a_volume_without_contribution_is_refused(self, value: float) -> None:
        with pytest.raises(Rep3DError, match="receptive field cannot be measured"):
            centred_cubes(np.full((3, 3, 3), value), (1, 1, 1))


class TestContribution:
    def test_of_a_convolution_is_the_positive_part_of_its_kernel_around_the_centre(self) -> None:
        torch.manual_seed(0)
        kernel, x = torch.randn(1, 2, 3, 3, 5), torch.randn(1, 2, 8, 9, 10)
        found = contribution(lambda image: F.conv3d(image, kernel, torch.tensor([100.0]), padding=(1, 1, 2)), x)
        expected = torch.zeros(8, 9, 10)
        expected[3:6, 3:6, 3:8] = kernel[0].relu().sum(0)  # a convolution of PyTorch does not flip its kernel
        torch.testing.assert_close(found, expected)

    def test_outputs_that_are_not_active_do_not_count(self) -> None:
        kernel, bias = torch.ones(2, 1, 1, 1, 1), torch.tensor([100.0, -100.0])
        kernel[1] = 5.0
        found = contribution(lambda image: F.conv3d(image, kernel, bias), torch.randn(1, 1, 4, 4, 4))
        assert found.sum() == found[2, 2, 2] == 1.0

    def test_cubes_lie_around_the_patch_below_the_output(self) -> None:
        """On an even map the central output does not lie over the middle of the input."""
        patches = torch.nn.Conv3d(1, 1, kernel_size=16, stride=16)
        torch.nn.init.constant_(patches.weight, 0.001)
        torch.nn.init.constant_(patches.bias, 100.0)  # type: ignore[arg-type]
        field = _field("patches", 16, patches, torch.randn(2, 1, 32, 64, 48))
        assert field.centre == (23, 39, 23)
        assert field.contribution[16:32, 32:48, 16:32].sum() == pytest.approx(field.contribution.sum())
        assert field.cubes().reach(0.99) == 8

    def test_the_logarithm_of_the_original_script_flattens_large_contributions(self) -> None:
        volume = np.zeros((5, 5, 5))
        volume[2, 2, 2], volume[2, 2, 3] = 999.0, 9.0  # logarithms of 3 and 1
        field = ReceptiveField("stage 1", 2, (2, 2, 2), volume)
        assert field.cubes().share[0] == pytest.approx(999 / 1008)
        assert field.log_cubes().share[0] == pytest.approx(3 / 4)

    def test_is_averaged_over_the_inputs(self) -> None:
        class Square(torch.nn.Module):
            def forward(self, x: torch.Tensor) -> torch.Tensor:
                return x.square()

        inputs = torch.zeros(2, 1, 2, 2, 2)
        inputs[:, 0, 1, 1, 1] = torch.tensor([1.0, 2.0])
        field = _field("square", 1, Square(), inputs)
        assert field.contribution[1, 1, 1] == field.contribution.sum() == 3.0


class TestNumbers:
    def test_profiles_are_those_of_the_checkpoint(self, checkpoint: Path, alone: Path) -> None:
        (model,) = numbers(alone)["models"]
        assert [(b["stage"], b["block"]) for b in model["blocks"]] == [(1, 1), (1, 2), (2, 1), (3, 1), (4, 1)]
        network = load_checkpoint(checkpoint).model
        conv = network.get_submodule("rep3d.stages.0.1.dwconv")
        mask, kernel = conv.mask().detach()[0, 0], conv.effective_weight().detach()  # type: ignore[operator]
        block = model["blocks"][1]
        corner = torch.stack([mask[z, y, x] for z in (0, 4) for y in (0, 4) for x in (0, 4)])
        expected = {"mask": corner, "adam_field": corner.abs(), "sgd_field": corner.square()}
        expected["prior"] = torch.tensor([2 / (12**0.5 + 2)])
        for name, values in expected.items():
            profile = block["profiles"][name]
            assert profile["mean"][-1] == pytest.approx(values.mean().item(), rel=1e-4)
            assert profile["min"][-1] == pytest.approx(values.min().item(), rel=1e-4)
            assert profile["max"][-1] == pytest.approx(values.max().item(), rel=1e-4)
        assert block["profiles"]["kernel"]["mean"][0] == pytest.approx(
            kernel[:, 0, 2, 2, 2].abs().mean().item(), rel=1e-4
        )
        assert block["distance"][-1] == pytest.approx(12**0.5, rel=1e-5)
        assert block["negative_mask_taps"] == int((mask < 0).sum()) > 0

    def test_receptive_fields_are_those_of_the_network_before_folding(self, checkpoint: Path, alone: Path) -> None:
        model = load_checkpoint(checkpoint).model
        noise = torch.randn(2, 1, 32, 32, 32, generator=torch.Generator().manual_seed(0))
        maps: list[torch.Tensor] = []
        model.get_submodule("rep3d.stages.2").register_forward_hook(lambda *call: maps.append(call[2]))

        def third_stage(x: torch.Tensor) -> torch.Tensor:
            model.encode(x)
            return maps[-1]

        mean = (contribution(third_stage, noise[:1]) + contribution(third_stage, noise[1:])).double().numpy() / 2
        cubes = centred_cubes(mean, (19, 19, 19))
        found = numbers(alone)["models"][0]["receptive_fields"][2]
        assert found["output"] == "stage 3" and found["centre"] == [19, 19, 19]
        np.testing.assert_allclose(found["cubes"]["share"], cubes.share, rtol=1e-3)
        for row, share in zip(found["high_contribution"], (0.2, 0.5, 0.99), strict=True):
            assert row["share"] == share
            assert (row["side"], row["volume_ratio"]) == pytest.approx(cubes.smallest(share), rel=1e-4)

    def test_the_page_shows_the_same_numbers(self, alone: Path) -> None:
        text = text_of(alone)
        fields = numbers(alone)["models"][0]["receptive_fields"]
        assert [field["output"] for field in fields] == ["stage 1", "stage 2", "stage 3", "stage 4", "logits"]
        for measure in ("high_contribution", "high_contribution_log10"):
            for field in fields:
                row = " ".join(f"{r['side']} {100 * r['volume_ratio']:.3g} %" for r in field[measure])
                assert f"{field['output'].capitalize()} {row}" in text
        assert f"voxels {fields[3]['high_contribution'][1]['side']} Large kernels 5³ taps" in text
        first = numbers(alone)["models"][0]["blocks"][0]
        lowest, highest = (f(first["profiles"]["mask"][key]) for f, key in ((min, "min"), (max, "max")))
        assert f"M runs from {lowest:.3g} to {highest:.3g} and is negative at {first['negative_mask_taps']} of" in text

    def test_says_what_the_inputs_were(self, alone: Path) -> None:
        assert numbers(alone)["inputs"]["kind"] == "standard-normal noise"
        assert "2 inputs of 32 × 32 × 32 voxels. No image was given: they are standard-normal noise" in text_of(alone)

    def test_says_where_taps_reach_beyond_the_map(self, alone: Path) -> None:
        assert text_of(alone).count("inputs the map has 2 × 2 × 2 voxels: taps that many or more away") == 1


class TestComparison:
    def test_both_networks_are_shown(self, beside_plain: Path) -> None:
        toy, plain = numbers(beside_plain)["models"]
        assert (toy["name"], plain["name"], plain["version"]) == ("toy.pt", "plain", "fresh weights")
        assert set(plain["blocks"][0]["profiles"]) == {"kernel"} and plain["blocks"][0]["masks"] == 0
        text = text_of(beside_plain)
        assert "Inside toy.pt beside plain" in text
        assert text.count("plain: No mask: every tap learns at the same rate") == 5
        for model in (toy, plain):
            side = model["receptive_fields"][0]["high_contribution"][0]["side"]
            assert f"Stage 1 {model['name']} {side} " in text

    def test_variants_are_fresh_networks_of_the_same_settings(self, checkpoint: Path, tmp_path: Path) -> None:
        page = explain(checkpoint, tmp_path, compare="untrained", inputs=1, device="cpu")
        settings = load_checkpoint(checkpoint).model.config.to_dict()
        _, fresh = numbers(page)["models"]
        assert fresh["config"] == settings
        assert fresh["blocks"][0]["profiles"]["mask"] == fresh["blocks"][0]["profiles"]["prior"]
        assert text_of(page).count("untrained: The mask is the prior.") == 5
        for name, changed in (("prior", {"spatial_prior": "fixed"}), ("plain", {"spatial_prior": "none"})):
            _, version, model = _compared(name, load_checkpoint(checkpoint).model, 0)
            assert version == "fresh weights" and model.config.to_dict() == {**settings, **changed}
        assert set(VARIANTS) == {"untrained", "prior", "plain"}

    def test_another_checkpoint_with_other_blocks(self, checkpoint: Path, tmp_path: Path) -> None:
        settings: dict[str, Any] = {"generator": "depthwise", "depths": (1, 1, 1, 2), "kernel_size": 3}
        other = save_network(tmp_path / "other.pt", seed=1, **settings)
        page = explain(checkpoint, tmp_path / "out", compare=other, inputs=1, device="cpu")
        toy, deep = numbers(page)["models"]
        assert (deep["name"], deep["version"]) == ("other.pt", "v1")
        assert deep["blocks"][0]["masks"] == 8 and toy["blocks"][0]["masks"] == 1
        text = text_of(page)
        assert "Stage 1, block 2" in text and "Stage 4, block 2" in text
        assert "there is one mask per channel: pictures and lines are means over 8, bands span them all" in text

    def test_files_of_one_name_are_told_apart_and_odd_names_do_no_harm(self, tmp_path: Path) -> None:
        name = "_a <u>$x_{$.pt"
        first, second = (save_network(tmp_path / folder / name, spatial_prior="none") for folder in ("old", "new"))
        page = explain(first, tmp_path / "out", compare=second, inputs=1, device="cpu")
        old, new = numbers(page)["models"]
        assert (old.pop("name"), new.pop("name")) == (f"old/{name}", f"new/{name}")
        assert old == new, "the same weights must give the same numbers twice"
        assert "<u>" not in page.read_text(encoding="utf-8") and "Inside old/_a <u>$x_{$.pt" in text_of(page)


class Resources(HTMLParser):
    """Collects whatever a page would load, its links and its ids."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.links: list[str] = []
        self.ids: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        assert tag not in ("script", "link", "iframe", "img", "object")
        for name, value in attrs:
            if name in ("src", "srcset", "href", "xlink:href"):
                (self.links if tag == "a" else self.loaded).append(value or "")
            if name == "id":
                self.ids.append(value or "")


@pytest.mark.parametrize("fixture", ["alone", "beside_plain"])
def test_the_page_needs_nothing_else(fixture: str, request: pytest.FixtureRequest) -> None:
    page = request.getfixturevalue(fixture).read_text(encoding="utf-8")
    found = Resources()
    found.feed(page)
    assert all(uri.startswith(("data:image/png;base64,", "#")) for uri in found.loaded)
    assert len([uri for uri in found.loaded if uri.startswith("data:")]) > 20
    assert sorted(found.links) == ["https://arxiv.org/abs/2203.06717", "https://arxiv.org/abs/2505.19603"]
    assert len(re.findall("https?:", page)) == 2 and "@import" not in page
    assert len(set(found.ids)) == len(found.ids), "ids of one figure would act on another"
    referred = set(re.findall(r"url\((.*?)\)", page)) | {uri for uri in found.loaded if uri.startswith("#")}
    assert referred == {f"#{name}" for name in found.ids} and referred
    assert "#010203" not in page, "charts take the page's text colour"


class TestImages:
    def test_patches_are_random_and_all_different(
        self, checkpoint: Path, tmp_path: Path, write_nifti: Callable[..., Path]
    ) -> None:
        random = np.random.default_rng(0)
        exact = write_nifti(
            "exact.nii.gz", random.uniform(0, 100, (32, 32, 16)).astype(np.float32), np.diag([1, 1, 2, 1])
        )
        large = write_nifti(
            "large.nii.gz", random.uniform(0, 100, (34, 40, 34)).astype(np.float32), np.diag([1, 1, 2, 1])
        )
        page = explain(checkpoint, tmp_path / "out", images=[exact, large], inputs=6, device="cpu")
        shown = numbers(page)["inputs"]
        assert shown["shape"] == [32, 32, 16] and shown["kind"] == "patches of images"
        assert [patch["image"] for patch in shown["patches"]] == ["exact.nii.gz"] + ["large.nii.gz"] * 3
        starts = [tuple(patch["start"]) for patch in shown["patches"]]
        assert starts[0] == (0, 0, 0) and len(set(starts[1:])) == 3
        assert "4 inputs of 32 × 32 × 16 voxels: patches of 2 image(s)" in text_of(page)
        model = load_checkpoint(checkpoint).model
        again, other = (_read_patches([exact, large], TASK, model, 6, seed) for seed in (0, 1))
        assert again.to_dict() == shown != other.to_dict()
        places = _read_patches([large], TASK, model, 500, 0).patches
        assert len(places) == len(set(places)) == 3 * 9 * 3

    def test_patches_lie_within_the_image(self, checkpoint: Path, write_nifti: Callable[..., Path]) -> None:
        """Padding is flat; the stem's normalisation made it ten times brighter than the image itself."""
        image = write_nifti("odd.nii.gz", np.full((32, 31, 20), 50, np.float32), np.diag([1, 1, 2, 1]))
        inputs = _read_patches([image], TASK, load_checkpoint(checkpoint).model, 3, seed=0)
        assert inputs.tensor.shape == (3, 1, 32, 16, 16)
        assert (inputs.tensor == 0.5).all()

    def test_patches_are_prepared_as_the_task_says(self, checkpoint: Path, write_nifti: Callable[..., Path]) -> None:
        voxels = np.zeros((32, 32, 32), np.float32)
        voxels[3, 5, 7] = 50.0  # in the middle of the task's intensity window
        image = write_nifti("image.nii.gz", voxels, np.diag([1, 1, 2, 1]))
        model = load_checkpoint(checkpoint).model
        inputs = _read_patches([image], TASK, model, 3, seed=0)
        assert inputs.tensor.shape == (1, 1, 32, 32, 32)  # one patch fits, so there is no second
        assert np.argwhere(inputs.tensor.numpy()).tolist() == [[0, 0, 28, 26, 7]]  # the task's axes are LPS
        assert inputs.tensor.max() == pytest.approx(0.5)

    @pytest.mark.parametrize(
        ("shape", "message"),
        [
            ((40, 32, 15), "at least 16 voxels"),
            ((31, 31, 31), "and 32 along one"),
            ((32, 32), "three-dimensional"),
            ((20, 20, 20, 3), "three-dimensional"),
        ],
    )
    def test_images_that_cannot_be_used_are_refused(
        self, checkpoint: Path, tmp_path: Path, write_nifti: Callable[..., Path], shape: tuple[int, ...], message: str
    ) -> None:
        image = write_nifti("image.nii.gz", np.zeros(shape, np.float32), np.diag([1, 1, 2, 1]))
        with pytest.raises(ImageError, match=message):
            explain(checkpoint, tmp_path / "out", images=[image])
        assert not (tmp_path / "out").exists()


class TestRefusals:
    def test_unknown_variants(self, checkpoint: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match=r"one of \['untrained', 'prior', 'plain'\], got 'fancy'"):
            explain(checkpoint, tmp_path / "out", compare="fancy")
        assert not (tmp_path / "out").exists()

    def test_missing_files(self, checkpoint: Path, tmp_path: Path) -> None:
        with pytest.raises(CheckpointError, match="There is no model file"):
            explain(tmp_path / "none.pt", tmp_path / "out")
        with pytest.raises(ImageError, match="does not exist"):
            explain(checkpoint, tmp_path / "out", images=[tmp_path / "none.nii.gz"])
        assert not (tmp_path / "out").exists()

    def test_networks_for_other_inputs(self, checkpoint: Path, tmp_path: Path) -> None:
        other = save_network(tmp_path / "two.pt", in_channels=2)
        with pytest.raises(ConfigError, match="1 input channels like the explained one, got 2"):
            explain(checkpoint, tmp_path / "out", compare=other)

    def test_networks_without_masks(self, checkpoint: Path, tmp_path: Path) -> None:
        save_checkpoint(tmp_path / "other.pt", build_model("segresnet"), TASK, {})
        other, out = tmp_path / "other.pt", tmp_path / "out"
        for arguments in ((other, out), (checkpoint, out, other)):
            with pytest.raises(ConfigError, match=r"other\.pt holds a segresnet, which has no masks to show"):
                explain(*arguments)
        assert not (tmp_path / "out").exists()

    def test_no_inputs_at_all(self, checkpoint: Path, tmp_path: Path) -> None:
        with pytest.raises(ConfigError, match="expected 1 or more, got 0"):
            explain(checkpoint, tmp_path, inputs=0)

    def test_a_file_in_place_of_the_folder(self, checkpoint: Path, tmp_path: Path) -> None:
        (tmp_path / "out").write_text("mine")
        with pytest.raises(OutputError, match="cannot be written"):
            explain(checkpoint, tmp_path / "out")
        assert (tmp_path / "out").read_text() == "mine"


def test_only_the_two_files_of_a_former_run_are_replaced(tmp_path: Path) -> None:
    checkpoint = save_network(tmp_path / "fixed.pt", spatial_prior="fixed")
    out = tmp_path / "out"
    out.mkdir()
    for name in ("explain.html", "explain.json", "notes.txt"):
        (out / name).write_text("old")
    page = explain(str(checkpoint), str(out), inputs=1, device="cpu")
    assert page == out / "explain.html"
    assert sorted(path.name for path in out.iterdir()) == ["explain.html", "explain.json", "notes.txt"]
    assert (out / "notes.txt").read_text() == "old"
    assert text_of(page).count("The mask is the prior.") == 5
    assert numbers(page)["task"] == TASK.to_dict()
