"""Nothing is trained or measured where nothing is known: voxels to ignore, and labels that were not annotated."""

from __future__ import annotations

import json
import shutil
from dataclasses import replace
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
import torch
from monai.transforms import Compose

from rep3d.checkpoint import load_checkpoint
from rep3d.cli.main import main
from rep3d.data.cases import Case
from rep3d.errors import LabelError, TaskError
from rep3d.evaluation.metrics import dice_of_files, dice_per_label
from rep3d.tasks.config import TaskConfig
from rep3d.training import plan as training_plan
from rep3d.training.sampling import Patches
from rep3d.training.train import TrainSettings, train
from rep3d.training.validation import Validator, as_drawn
from rep3d.training.volumes.prepared import Prepared, make_ready
from rep3d.training.volumes.store import VolumeStore
from tests.rep3d.balls import SETTINGS, TASK, ball_case, small_config

UNKNOWN = 255
BOTH = replace(TASK, labels={"Ball": 3, "Bar": 5}, ignore=UNKNOWN)


@pytest.fixture(autouse=True)
def small_network(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(training_plan, "preset_config", small_config)


def _case(folder: Path, seed: int, annotated: tuple[str, ...] | None = None) -> Case:
    """Return a case with a ball, a bar, and a slab of which nothing is known."""
    case = ball_case(folder, seed)
    stored = nib.load(case.label)
    values = np.asarray(stored.dataobj).copy()
    values[:, 2:5, 2:5] = 5
    values[:, :, 28:] = UNKNOWN
    nib.save(nib.Nifti1Image(values, stored.affine), case.label)
    return replace(case, annotated=annotated)


def _drawn(volumes: list[Prepared], **settings: object) -> list[dict[str, torch.Tensor]]:
    patches = Patches(
        volumes,
        [1.0] * len(volumes),
        lambda number: Compose([]),
        (8, 8, 8),
        TrainSettings(**settings),  # type: ignore[arg-type]
    )
    return [patch for batch, _ in zip(patches, range(60), strict=False) for patch in batch]


@pytest.mark.parametrize("sampling", ["balanced", "paper"])
def test_patches_say_what_is_known_and_none_is_centred_where_nothing_is(tmp_path: Path, sampling: str) -> None:
    whole, partly = (make_ready(_case(tmp_path, 1, known), BOTH) for known in (None, ("Ball",)))
    assert (whole.known, partly.known) == (None, (1,)) and partly.counts[2] == 0 < whole.counts[2]
    assert set(np.unique(whole.label)) == {0, 1, 2, 3} and set(np.unique(partly.label)) == {0, 1, 3}
    patches = Patches([whole, partly], [1.0, 1.0], lambda number: Compose([]), (8, 8, 8), TrainSettings())
    assert patches.possible is not None
    assert patches.possible.tolist() == [[True, True, True], [True, False, True]]
    assert len(patches.counts()) == 3
    drawn = _drawn([whole, partly], sampling=sampling)
    kinds = [set(patch["label"].unique().tolist()) for patch in drawn]
    assert any(4 in kind for kind in kinds) and any(0 in kind for kind in kinds)
    assert all(not kind & {0, 2} for kind in kinds if 4 in kind)
    for patch in drawn:  # the middle is where it was centred, but for the rim: there it was moved
        assert int(patch["label"][0, 4, 4, 4]) != 3
    assert Patches([whole], [1.0], lambda number: Compose([]), (8, 8, 8), TrainSettings()).possible is not None
    plain = make_ready(ball_case(tmp_path, 2), TASK)
    assert Patches([plain], [1.0], lambda number: Compose([]), (8, 8, 8), TrainSettings()).possible is None


def test_prepared_cases_are_kept_with_what_is_known(tmp_path: Path) -> None:
    (tmp_path / "kept").mkdir()
    store = VolumeStore(tmp_path / "kept", BOTH)
    whole, partly = (store.get(_case(tmp_path, 1, known)) for known in (None, ("Bar",)))
    for _ in range(2):
        assert (whole.known, partly.known) == (None, (2,)) and partly.counts[1] == 0 < whole.counts[1]
        whole, partly = (store.get(_case(tmp_path, 1, known)) for known in (None, ("Bar",)))
    assert len(list((tmp_path / "kept").glob("*.volume"))) == 2
    other = replace(BOTH, ignore=5, labels={"Ball": 3, "Bar": UNKNOWN})
    assert VolumeStore(tmp_path / "kept", other).get(_case(tmp_path, 1)).counts[2] == 32 * 32 * 4


def test_a_value_to_ignore_must_be_named_by_the_task(tmp_path: Path) -> None:
    case = _case(tmp_path, 1)
    with pytest.raises(LabelError, match=r"unexpected values: \[255\]"):
        make_ready(case, replace(BOTH, ignore=None))
    stored = nib.load(case.label)
    nib.save(nib.Nifti1Image(np.full(stored.shape, UNKNOWN, np.uint8), stored.affine), case.label)
    with pytest.raises(LabelError, match="says nothing: all its voxels have the value 255"):
        make_ready(case, BOTH)
    with pytest.raises(LabelError, match="none of the task's labels was annotated"):
        make_ready(_case(tmp_path, 1, ("Other",)), BOTH)
    for wrong, words in ((3, "that no label has, got 3"), (0, "from 1 to 65535, got 0"), (True, "got True")):
        with pytest.raises(TaskError, match=words):
            replace(BOTH, ignore=wrong)
    assert TaskConfig.from_dict(BOTH.to_dict()) == BOTH


def test_what_is_unknown_is_not_measured(tmp_path: Path) -> None:
    truth = np.zeros((4, 4, 4), np.uint8)
    truth[0], truth[3] = 3, UNKNOWN
    found = np.zeros_like(truth)
    found[0], found[3] = 3, 3
    assert dice_per_label(found, truth, {"Ball": 3}, UNKNOWN) == {"Ball": 1.0}
    assert dice_per_label(found, truth, {"Ball": 3}) == {"Ball": 2 / 3}
    case = _case(tmp_path, 1, ("Ball",))
    assert dice_of_files(case.label, case.label, case.known(BOTH.labels), UNKNOWN) == {"Ball": 1.0}
    validator = Validator([as_drawn(case, make_ready(case, BOTH), BOTH, 16)], BOTH, torch.device("cpu"))

    class Ball(torch.nn.Module):
        """Says that all is ball."""

        def forward(self, window: torch.Tensor) -> torch.Tensor:
            return torch.eye(3)[1].view(1, 3, 1, 1, 1).expand(len(window), 3, *window.shape[2:])

    scores = validator.measure(Ball(), lambda window, network: network(window), lambda: None)
    values = np.asarray(nib.load(case.label).dataobj)
    there, asked = np.count_nonzero(values == 3), np.count_nonzero(values != UNKNOWN)
    assert scores == {"case_1": {"Ball": pytest.approx(2 * there / (there + asked))}}


@pytest.mark.parametrize("loss", ["balanced", "dice_ce"])
def test_a_training_on_partly_annotated_cases(tmp_path: Path, loss: str) -> None:
    cases = [_case(tmp_path, 1), _case(tmp_path, 2, ("Ball",)), _case(tmp_path, 3, ("Bar",))]
    settings = replace(SETTINGS, crops=2, loss=loss, val_interval=2)
    held_out = [_case(tmp_path, 4, ("Bar",))]
    trained = train(cases, BOTH, settings, tmp_path / "model.pt", validation=held_out)
    assert trained.info["left_out"] == [] and set(trained.info["validation"]) <= {"Bar"}
    assert load_checkpoint(tmp_path / "model.pt").task.ignore == UNKNOWN


def test_the_commands_read_it_from_the_data_set(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    for part in ("imagesTr", "labelsTr"):
        (tmp_path / "data" / part).mkdir(parents=True)
    for seed in (1, 2):
        case = _case(tmp_path, seed)
        for channel in (0, 1):
            shutil.copy(case.image, tmp_path / "data" / "imagesTr" / f"{case.id}_{channel:04d}.nii.gz")
        case.label.rename(tmp_path / "data" / "labelsTr" / f"{case.id}.nii.gz")
    content = {
        "channel_names": {"0": "CT", "1": "PET"},
        "labels": {"background": 0, "Ball": 3, "Bar": 5, "ignore": UNKNOWN},
        "annotated": {"case_2": ["Bar"]},
    }
    (tmp_path / "data" / "dataset.json").write_text(json.dumps(content))
    image, second = (tmp_path / "data" / "imagesTr" / f"case_1_{channel:04d}.nii.gz" for channel in (0, 1))
    model, found = tmp_path / "model.pt", tmp_path / "found.nii.gz"

    def run(words: str) -> int:
        monkeypatch.setattr("sys.argv", ["rep3d", *words.split()])
        with pytest.raises(SystemExit) as ended:
            main()
        return int(ended.value.code or 0)

    assert run(f"train --data {tmp_path}/data --output {model} --iterations 2 --spacing 1 1 1 --preset tiny") == 0
    task = load_checkpoint(model).task
    assert (task.ignore, [channel.name for channel in task.channels]) == (UNKNOWN, ["CT", "PET"])
    assert run(f"segment {model} {image} {found}") == 1 and "1 channel, where 2 are needed" in capsys.readouterr().err
    assert run(f"segment {model} {image} {found} --channel {second}") == 0 and found.is_file()
    assert run(f"segment {model} {image} {second} --channel {second}") == 1
    assert "is the same file as" in capsys.readouterr().err
