"""From a folder to a plan, and from the plan's task file to a training."""

from __future__ import annotations

import json
import shlex
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np

from rep3d.checkpoint import load_checkpoint
from rep3d.data.phantoms import generate_cohort
from rep3d.tasks.file import read_task_file
from tests.rep3d.cli.command import Done


def test_a_plan_is_made_and_trained_with(tmp_path: Path, rep3d: Callable[..., Done]) -> None:
    generate_cohort(tmp_path / "my data", 3, seed=1)
    empty = tmp_path / "my data" / "labelsTr" / "phantom_002.nii.gz"
    image = nib.load(empty)
    nib.save(nib.Nifti1Image(np.zeros(image.shape, np.uint8), image.affine, image.header), empty)
    out = tmp_path / "plan"
    made = rep3d("plan", tmp_path / "my data", "--out", out, "--memory", 8, "--device", "cpu")
    assert made.returncode == 0, made.stderr
    assert "3 cases found, 2 can be trained on, 1 left out" in made.stdout.replace("\n", " ")
    assert "left out: phantom_002.nii.gz: it is empty" in made.stdout.replace("\n", " ")
    data = shlex.quote(str(tmp_path / "my data"))
    assert f"rep3d train --data {data} --task {out / 'task.yaml'} --output model.pt" in made.stdout
    assert rep3d("train", "--data", tmp_path / "my data", "--output", out / "m.pt", "--cases", -1).returncode == 2
    assert {file.name for file in out.iterdir()} == {"task.yaml", "plan.html", "fingerprint.json"}
    again = rep3d("plan", tmp_path / "my data", "--out", out)
    assert again.returncode == 1 and "--replace" in again.stderr
    known = read_task_file(out / "task.yaml")
    text = (out / "task.yaml").read_text(encoding="utf-8").replace("resolution: auto", "resolution: task")
    small = text.replace(f"roi_size: {list(known.task.roi_size)}", "roi_size: [32, 32, 32]")
    (out / "task.yaml").write_text(small, encoding="utf-8")
    model = tmp_path / "model.pt"
    train = ("train", "--data", tmp_path / "my data", "--task", out / "task.yaml", "--output", model, "--iterations", 1)
    trained = rep3d(*train)
    assert trained.returncode == 0, trained.stderr
    assert "left out: phantom_002.nii.gz: it is empty" in trained.stdout and "v1, 2 cases" in trained.stdout
    checkpoint = load_checkpoint(model)
    assert checkpoint.task == read_task_file(out / "task.yaml").task and checkpoint.task.roi_size == (32, 32, 32)
    (out / "task.yaml").write_text(small.replace("Tail: 2", "Tail: 3"), encoding="utf-8")
    refused = rep3d(*train, "--replace")
    assert refused.returncode == 1 and "{'Tail': 3} is only in the task" in refused.stderr
    (out / "task.yaml").write_text(small.replace("mode: zscore, low: 0.5", "mode: zscore, low: 1.5"), encoding="utf-8")
    refused = rep3d(*train, "--start", model, "--output", tmp_path / "next.pt")
    assert refused.returncode == 1 and "has the intensity" in refused.stderr
    (out / "task.yaml").write_text(small.replace("preset: tiny", "preset: huge"), encoding="utf-8")
    refused = rep3d(*train, "--replace")
    assert refused.returncode == 1 and "task.yaml: the field 'training': preset: 'huge' is unknown" in refused.stderr


def test_channels_and_what_is_to_be_ignored_are_planned_and_trained(
    tmp_path: Path, write_nifti: Callable[..., Path], rep3d: Callable[..., Done]
) -> None:
    data, random = tmp_path / "data", np.random.default_rng(0)
    for folder in ("imagesTr", "labelsTr"):
        (data / folder).mkdir(parents=True)
    for case in "ab":
        label = np.zeros((20, 20, 20), np.uint8)
        label[4:9, 4:9, 4:9], label[12:] = 1, 7
        for channel, scale in enumerate((1.0, 500.0)):
            write_nifti(f"data/imagesTr/{case}_{channel:04d}.nii.gz", scale * random.random((20, 20, 20), np.float32))
        write_nifti(f"data/labelsTr/{case}.nii.gz", label)
    said = {"labels": {"background": 0, "Ball": 1, "ignore": 7}, "channel_names": {"0": "T1", "1": "T2"}}
    (data / "dataset.json").write_text(json.dumps(said), encoding="utf-8")
    out, model = tmp_path / "plan", tmp_path / "model.pt"
    made = rep3d("plan", data, "--out", out, "--memory", 8, "--device", "cpu", "--preset", "segresnet")
    assert made.returncode == 0, made.stderr
    assert "The same, T2" in made.stdout
    task = read_task_file(out / "task.yaml").task
    assert [channel.name for channel in task.channels] == ["T1", "T2"] and task.ignore == 7
    trained = rep3d("train", "--data", data, "--task", out / "task.yaml", "--output", model, "--iterations", 1)
    assert trained.returncode == 0, trained.stderr
    measured = rep3d("evaluate", model, "--data", data, "--out", tmp_path / "evaluation")
    assert measured.returncode == 0, measured.stderr
    truth = json.loads((tmp_path / "evaluation" / "evaluation.json").read_text(encoding="utf-8"))
    assert truth["cases"]["a"]["scores"]["Ball"]["volume_true_ml"] == 0.125
