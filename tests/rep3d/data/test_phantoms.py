"""The phantom cohort: reproducible, in decathlon layout, in many geometries, and not solvable by brightness alone."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from scipy import ndimage

from rep3d.data.cases import Case
from rep3d.data.phantoms import LABELS, generate_cohort
from rep3d.errors import ConfigError

COUNT = 12  # two of each way to lie in the scanner


@pytest.fixture(scope="module")
def cohort(tmp_path_factory: pytest.TempPathFactory) -> list[Case]:
    return generate_cohort(tmp_path_factory.mktemp("cohort"), COUNT, seed=0)


def voxels(path: Path) -> np.ndarray:
    return np.asarray(nib.load(path).dataobj)


def affines(cohort: list[Case]) -> list[np.ndarray]:
    return [nib.load(case.image).affine for case in cohort]


def dice(first: np.ndarray, second: np.ndarray) -> float:
    return 2 * np.count_nonzero(first & second) / (np.count_nonzero(first) + np.count_nonzero(second))


def test_decathlon_layout(cohort: list[Case]) -> None:
    folder = cohort[0].image.parent.parent
    content = json.loads((folder / "dataset.json").read_text())
    assert content["labels"] == {"0": "background", "1": "Head", "2": "Tail"}
    assert content["modality"] == {"0": "MRI"}
    assert content["numTraining"] == len(content["training"]) == COUNT
    listed = [((folder / e["image"]).resolve(), (folder / e["label"]).resolve()) for e in content["training"]]
    assert listed == [(case.image.resolve(), case.label.resolve()) for case in cohort]
    assert [case.id for case in cohort] == [f"phantom_{i + 1:03d}" for i in range(COUNT)]
    assert cohort[0].image == folder / "imagesTr" / "phantom_001.nii.gz"
    assert cohort[0].label == folder / "labelsTr" / "phantom_001.nii.gz"


def test_label_lies_on_the_grid_of_its_image(cohort: list[Case]) -> None:
    for case in cohort:
        image, label = nib.load(case.image), nib.load(case.label)
        assert image.shape == label.shape
        np.testing.assert_array_equal(image.affine, label.affine)
        np.testing.assert_allclose(image.get_qform(), image.get_sform(), atol=1e-3)
        assert int(image.header["qform_code"]) == int(image.header["sform_code"]) == 1
        assert image.get_data_dtype() == np.int16
        assert label.get_data_dtype() == np.uint8


def test_geometries_differ(cohort: list[Case]) -> None:
    axes = [affine[:3, :3] / np.linalg.norm(affine[:3, :3], axis=0) for affine in affines(cohort)]
    oblique = [np.abs(np.abs(a).max(axis=0) - 1).max() > 0.005 for a in axes]
    left_handed = [np.linalg.det(a) < 0 for a in axes]
    assert any(oblique[:3]) and any(left_handed[:3])  # already in a cohort of three
    assert not all(oblique) and not all(left_handed)
    for a in axes:
        np.testing.assert_allclose(a.T @ a, np.eye(3), atol=1e-5)  # turned, never sheared
    assert len({"".join(nib.aff2axcodes(affine)) for affine in affines(cohort)}) >= 5
    spacings = {tuple(np.round(np.linalg.norm(affine[:3, :3], axis=0), 2)) for affine in affines(cohort)}
    assert len(spacings) == COUNT
    for in_plane, other, through in spacings:
        assert in_plane == other
        assert 0.9 <= in_plane <= 1.5
        assert 1.0 <= through <= 2.5


def test_volumes_stay_small(cohort: list[Case]) -> None:
    for case in cohort:
        image = nib.load(case.image)
        assert max(image.shape) <= 56
        width = np.array(image.shape) * image.header.get_zooms()
        assert (width > 46).all() and (width < 58).all()


def test_each_part_is_whole_and_inside_the_field_of_view(cohort: list[Case]) -> None:
    touching = np.ones((3, 3, 3))
    for case in cohort:
        label = voxels(case.label)
        assert set(np.unique(label)) == {0, *LABELS.values()}
        for value in LABELS.values():
            assert np.count_nonzero(label == value) >= 150
            assert ndimage.label(label == value, touching)[1] == 1
        assert ndimage.label(label > 0, touching)[1] == 1
        inner = label[1:-1, 1:-1, 1:-1]
        assert np.count_nonzero(inner) == np.count_nonzero(label)


def test_head_lies_left_of_and_above_the_tail_in_every_geometry(cohort: list[Case]) -> None:
    for case in cohort:
        label, affine = voxels(case.label), nib.load(case.label).affine
        head, tail = (
            nib.affines.apply_affine(affine, np.argwhere(label == LABELS[name])).mean(axis=0)
            for name in ("Head", "Tail")
        )
        step = (head - tail) / np.linalg.norm(head - tail)
        assert step @ np.array([-1, 0, 1]) / np.sqrt(2) > 0.75  # RAS+: left is -x, up is +z
        assert np.count_nonzero(label == LABELS["Head"]) > np.count_nonzero(label == LABELS["Tail"])


def test_no_brightness_threshold_finds_the_organ(cohort: list[Case]) -> None:
    for case in cohort:
        image, organ = voxels(case.image), voxels(case.label) > 0
        levels = np.quantile(image, np.linspace(0, 1, 41))
        best_above = max(dice(image >= low, organ) for low in levels)
        windows = [(low, high) for i, low in enumerate(levels) for high in levels[i + 1 :]]
        best_window = max(dice((image >= low) & (image < high), organ) for low, high in windows)
        assert best_above < 0.6
        assert best_window < 0.6


def test_look_alikes_of_the_same_brightness_lie_inside_the_body(cohort: list[Case]) -> None:
    """Bright parts touching neither the organ nor, as the wall and the fat do, the border of the image."""
    counts = []
    for case in cohort:
        image, organ = ndimage.gaussian_filter(voxels(case.image).astype(float), 0.6), voxels(case.label) > 0
        near = ndimage.binary_dilation(organ, iterations=2)
        ring = ndimage.binary_dilation(near) & ~near
        level = np.median(image[organ])
        parts, _ = ndimage.label(image > (np.median(image[ring]) + 2 * level) / 3)
        framed = np.pad(parts[1:-1, 1:-1, 1:-1], 1, constant_values=-1)
        outer = set(np.unique(parts[framed == -1])) | set(np.unique(parts[near]))
        found = [parts == i for i in range(1, parts.max() + 1) if i not in outer]
        found = [part for part in found if np.count_nonzero(part) >= 12]
        assert all(image[part].mean() < 1.3 * level for part in found)
        counts.append(len(found))
    assert sum(count > 0 for count in counts) >= 0.75 * COUNT
    assert np.mean(counts) >= 2


def test_organ_stands_out_from_what_touches_it(cohort: list[Case]) -> None:
    """The border must be visible, else the task could not be learned."""
    for case in cohort:
        image, organ = voxels(case.image).astype(float), voxels(case.label) > 0
        inner = ndimage.binary_erosion(organ)
        ring = ndimage.binary_dilation(organ, iterations=3) & ~ndimage.binary_dilation(organ, iterations=2)
        assert image[inner].mean() - image[ring].mean() > 2 * image[ring].std()


def test_contrast_differs_between_cases(cohort: list[Case]) -> None:
    brightness = [np.median(voxels(case.image)[voxels(case.label) > 0]) for case in cohort]
    assert max(brightness) > 1.5 * min(brightness)


def test_same_seed_gives_the_same_bytes(tmp_path: Path) -> None:
    for name in ("a", "b"):
        generate_cohort(tmp_path / name, 2, seed=5)
    files = sorted(path.relative_to(tmp_path / "a") for path in (tmp_path / "a").rglob("*") if path.is_file())
    assert len(files) == 5
    for file in files:
        assert (tmp_path / "a" / file).read_bytes() == (tmp_path / "b" / file).read_bytes()


def test_a_case_does_not_depend_on_the_size_of_its_cohort(tmp_path: Path) -> None:
    small = generate_cohort(tmp_path / "small", 1, seed=5)
    large = generate_cohort(tmp_path / "large", 2, seed=5, prefix="other")
    assert small[0].image.read_bytes() == large[0].image.read_bytes()
    assert small[0].label.read_bytes() == large[0].label.read_bytes()
    assert [case.id for case in large] == ["other_001", "other_002"]


def test_seeds_and_indices_give_different_patients(tmp_path: Path) -> None:
    first = generate_cohort(tmp_path / "first", 2, seed=1)
    second = generate_cohort(tmp_path / "second", 1, seed=2)
    contents = {case.label.read_bytes() for case in (*first, *second)}
    assert len(contents) == 3


@pytest.mark.parametrize(
    ("count", "seed", "prefix", "words"),
    [
        (0, 0, "p", "at least 1 case, got 0"),
        (-2, 0, "p", "at least 1 case, got -2"),
        (1, -1, "p", "0 or more, got -1"),
        (1, 0, "../p", "'../p'"),
        (1, 0, "", "''"),
    ],
)
def test_unusable_arguments_are_refused_before_anything_is_written(
    tmp_path: Path, count: int, seed: int, prefix: str, words: str
) -> None:
    with pytest.raises(ConfigError, match=words.replace(".", r"\.")):
        generate_cohort(tmp_path / "cohort", count, seed, prefix)
    assert not (tmp_path / "cohort").exists()
