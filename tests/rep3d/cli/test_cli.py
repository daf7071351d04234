"""The command line: quick help, one clear line for wrong input, and train -> segment -> evaluate on real files."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d import __version__
from rep3d.checkpoint import load_checkpoint, save_checkpoint
from rep3d.data.phantoms import generate_cohort
from tests.rep3d.balls import ball_case, ball_data_set, small_checkpoint
from tests.rep3d.cli.command import Done


def _command(*arguments: str | Path) -> subprocess.CompletedProcess[str]:
    """Run the command as users do."""
    environment = {**os.environ, "COLUMNS": "200", "NO_COLOR": "1"}
    command = [sys.executable, "-m", "rep3d.cli.main", *map(str, arguments)]
    return subprocess.run(command, capture_output=True, text=True, timeout=300, env=environment)


def test_help_and_version_do_not_load_torch() -> None:
    code = (
        "import sys, rep3d, rep3d.cli.main, rep3d.tasks.registry; sys.exit(bool({'torch', 'yaml'} & set(sys.modules)))"
    )
    assert subprocess.run([sys.executable, "-c", code], timeout=60).returncode == 0
    assert _command("--version").stdout.strip() == f"rep3d {__version__}"
    shown = _command("--help").stdout
    assert all(command in shown for command in ("demo", "train", "segment", "evaluate", "compare", "explain", "export"))


def test_train_segment_evaluate(tmp_path: Path, rep3d: Callable[..., Done]) -> None:
    cases = generate_cohort(tmp_path / "data", 3, seed=1)
    model = tmp_path / "model.pt"
    trained = _command("train", "--data", tmp_path / "data", "--output", model, "--iterations", 2, "--cases", 2)
    assert trained.returncode == 0, trained.stderr
    assert "v1, 2 cases" in trained.stdout and "Validation" not in trained.stdout
    segmented = rep3d("segment", model, cases[2].image, tmp_path / "found.nii.gz")
    assert segmented.returncode == 0, segmented.stderr
    assert "Head:" in segmented.stdout and "ml" in segmented.stdout
    found, image = nib.load(tmp_path / "found.nii.gz"), nib.load(cases[2].image)
    assert found.shape == image.shape
    np.testing.assert_allclose(found.affine, image.affine, atol=1e-5)
    evaluated = rep3d("evaluate", model, "--data", tmp_path / "data", "--skip", 1, "--out", tmp_path / "scores")
    assert evaluated.returncode == 0, evaluated.stderr
    assert "phantom_002 (trained on)" in evaluated.stdout
    assert "Mean over 1 cases not trained on" in evaluated.stdout


@pytest.mark.slow
def test_explain_and_export(tmp_path: Path, rep3d: Callable[..., Done]) -> None:
    made, model, image = small_checkpoint(), tmp_path / "model.pt", ball_case(tmp_path, 1).image
    save_checkpoint(model, made.model, made.task, made.info)
    page = tmp_path / "explained" / "explain.html"
    explained = rep3d("explain", "--checkpoint", model, "--image", image, "--out", page.parent, "--inputs", 1)
    assert explained.returncode == 0, explained.stderr
    assert str(page) in explained.stdout and "model.pt" in page.read_text(encoding="utf-8")
    exported = rep3d("export", "--checkpoint", model, "--output", tmp_path / "model.pt2")
    assert exported.returncode == 0, exported.stderr
    assert "checked with torch" in exported.stdout and (tmp_path / "model.pt2").is_file()


def test_train_says_what_validated_the_weights_and_never_takes_cases_that_were_trained_on(
    tmp_path: Path, rep3d: Callable[..., Done]
) -> None:
    generate_cohort(tmp_path / "data", 3, seed=1)
    model = tmp_path / "model.pt"
    common = ("train", "--data", tmp_path / "data", "--iterations", 1, "--validation")
    kept = ("--prepared", tmp_path / "kept", "--sampling", "paper", "--background-share", 0.3, "--loss", "dice_ce")
    trained = rep3d(*common, 1, "--output", model, "--variant", "fixed", "--resume", tmp_path / "run", *kept)
    assert trained.returncode == 0, trained.stderr
    info = load_checkpoint(model).info
    assert (info["sampling"], info["background_share"], info["loss_function"]) == ("paper", 0.3, "dice_ce")
    assert len(list((tmp_path / "kept").glob("*.volume"))) == 3 and not list(tmp_path.glob(".*"))
    assert "v1, 2 cases" in trained.stdout and "ended by iterations" in trained.stdout
    assert "Validation Dice on 1 cases that it was not trained on; they chose the weights (step 1)" in trained.stdout
    assert not (tmp_path / "run").exists()
    refused = rep3d(*common, 2, "--output", tmp_path / "more.pt", "--start", model)
    assert refused.returncode == 1 and "Cannot hold out 2 cases: expected from 0 to 1." in refused.stderr
    for option, words in (
        (
            ("--start", model, "--preset", "base"),
            "is a network of the preset tiny, not base. Train with the preset tiny",
        ),
        (("--start-from", model), "spatial_prior fixed where learned is needed"),
        (("--start-from", model, "--preset", "dynunet"), "network rep3d where dynunet is needed"),
        (("--preset", "segresnet:tiny"), "'segresnet:tiny' is unknown; expected one of base, tiny, quick"),
    ):
        refused = rep3d(*common, 0, "--output", tmp_path / "more.pt", *option)
        assert refused.returncode == 1 and words in refused.stderr, refused.stderr
    assert not (tmp_path / "more.pt").exists()


def test_a_training_that_nothing_would_measure_is_not_begun(tmp_path: Path, rep3d: Callable[..., Done]) -> None:
    data = ball_data_set(tmp_path / "data", 4)
    (data / "dataset.json").write_text(json.dumps({"labels": {"background": 0, "Ball": 3}}))
    (tmp_path / "splits.json").write_text(json.dumps([{"train": ["c0", "c1"], "val": ["c2", "c3"]}]))
    for name in ("c2", "c3"):
        (data / "labelsTr" / f"{name}.nii.gz").write_bytes(b"no label map")
    command = ("train", "--data", data, "--output", tmp_path / "model.pt", "--iterations", 1, "--fold", 0)
    done = rep3d(*command, "--splits", tmp_path / "splits.json")
    assert done.returncode == 1 and "None of the held-out cases can be measured" in done.stderr
    assert "c2.nii.gz" in done.stderr and not (tmp_path / "model.pt").exists()


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["segment", "gone.pt", "gone.nii.gz", "out.nii.gz"], "There is no model file gone.pt"),
        (["demo", "--data", "nowhere", "--out", "{tmp}"], "There is no folder nowhere"),
        (["demo", "--rounds", "9", "--out", "{tmp}"], "rounds: expected"),
        (
            ["export", "--checkpoint", "gone.pt", "--output", "x.pb"],
            "x.pb cannot be written: the file name must end in .onnx or .pt2",
        ),
        (["train", "--data", "nowhere", "--output", "x.pt"], "There is no folder nowhere."),
        (["train", "--data", "nowhere", "--output", "x.pt", "--spacing", "1", "0", "nan"], "three positive lengths"),
    ],
)
def test_wrong_input_gives_one_clear_message(
    tmp_path: Path, rep3d: Callable[..., Done], arguments: list[str], message: str
) -> None:
    done = rep3d(*[a.replace("{tmp}", str(tmp_path / "out")) for a in arguments])
    assert done.returncode == 1
    assert message in done.stderr and "Traceback" not in done.stderr
