"""What was measured is kept case by case, counted as stated, and written so that it can be read again."""

from __future__ import annotations

import csv
import math
from collections.abc import Callable, Sequence
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.data.cases import Case, LeftOut
from rep3d.errors import LabelError, OutputError, Rep3DError
from rep3d.evaluation.evaluation import METRICS, CaseScores, Evaluation, mean_with_interval, read_evaluation
from rep3d.evaluation.measuring import GivenPredictions, MadePredictions, Measuring, require_one_model
from rep3d.evaluation.page import evaluation_page
from rep3d.evaluation.records import Records
from rep3d.evaluation.scoring import LabelScore
from rep3d.imaging.nifti import write_label

NAN = math.nan
EVIL = '<script>alert("1")</script>'


def score(dice: float, hd95: float = 2.0, true: float = 10.0, predicted: float = 12.0) -> LabelScore:
    return LabelScore(dice, hd95, min(1.0, dice + 0.1), true, predicted)


def evaluation(*cases: CaseScores, labels: dict[str, int] | None = None, **more) -> Evaluation:
    return Evaluation("m.pt (v1)", {"Model file": "m.pt"}, "data", labels or {"a": 1, "b": 2}, 2.0, cases, **more)


CASES = (
    CaseScores("c1", "h1", False, {"a": score(0.8), "b": score(0.6)}),
    CaseScores("c2", "h2", False, {"a": score(0.4), "b": LabelScore(0.0, NAN, 0.0, 5.0, 0.0)}),
    CaseScores("c3", "h3", False, {"a": score(0.9), "b": LabelScore(NAN, NAN, NAN, 0.0, 0.0)}),
    CaseScores("c4", "h4", True, {"a": score(0.0), "b": score(0.0)}),
)


def test_means_leave_out_what_was_trained_on_and_count_what_is_not_defined() -> None:
    found = evaluation(*CASES)
    dice, hd95 = METRICS["dice"], METRICS["hd95"]
    assert found.mean(dice, "a").mean == pytest.approx(0.7)
    b = found.mean(dice, "b")
    assert (b.mean, b.count, b.undefined) == (pytest.approx(0.3), 2, 0)  # absent in both maps of c3: not scored
    assert (found.mean(hd95, "b").count, found.mean(hd95, "b").undefined) == (1, 1)
    assert found.mean(dice).mean == pytest.approx((0.7 + 0.2 + 0.9) / 3)
    assert [case.id for case in found.worst(2)] == ["c2", "c1"]
    assert found.mean(METRICS["volume-percent"], "b").mean == pytest.approx((20 - 100) / 2)
    assert found.mean(METRICS["volume-off"], "b").mean == pytest.approx(60)
    assert evaluation(CASES[3]).mean(dice).mean == 0.0  # there is no other case


def test_the_interval_is_that_of_the_mean_and_always_the_same() -> None:
    values = np.random.default_rng(1).normal(0.7, 0.1, 200)
    found = mean_with_interval([*values, NAN])
    half = 1.96 * values.std() / math.sqrt(200)
    assert found.low == pytest.approx(values.mean() - half, abs=half / 10)
    assert found.high == pytest.approx(values.mean() + half, abs=half / 10)
    assert (found.count, found.undefined) == (200, 1) and found == mean_with_interval([*values, NAN])
    assert mean_with_interval([0.5]).low is None and math.isnan(mean_with_interval([]).mean)


def test_it_is_read_again_as_it_was_written(tmp_path: Path) -> None:
    written = evaluation(*CASES, failed=(LeftOut("c5", "c5.nii.gz", "cut"),), created="2026-01-01T00:00:00+00:00")
    written.write(tmp_path)
    assert repr(read_evaluation(tmp_path)) == repr(written)
    rows = list(csv.DictReader((tmp_path / "scores.csv").open(encoding="utf-8")))
    assert len(rows) == 8 and rows[0]["dice"] == "0.8" and rows[0]["volume-ml"] == "2" and rows[6]["trained_on"] == "1"
    assert (rows[3]["present_in"], rows[3]["hd95"], rows[3]["volume-percent"]) == ("truth only", "", "-100")
    (tmp_path / "evaluation.json").write_text('{"format": "another"}')
    with pytest.raises(Rep3DError, match=r"evaluation\.json cannot be read as an evaluation"):
        read_evaluation(tmp_path)
    with pytest.raises(Rep3DError, match="holds no evaluation"):
        read_evaluation(tmp_path / "nowhere")


@pytest.fixture
def case(write_nifti: Callable[..., Path]) -> Case:
    voxels = np.zeros((6, 6, 6), np.uint8)
    voxels[2:4, 2:4, 2:4] = 1
    return Case("x", write_nifti("image.nii.gz", voxels * np.int16(9)), write_nifti("label.nii.gz", voxels))


def test_nothing_is_done_twice_and_what_changed_is_done_anew(tmp_path: Path, case: Case) -> None:
    made: list[Path] = []

    def segment(image: Sequence[Path], output: Path) -> None:
        made.append(output)
        write_label(np.ones((6, 6, 6), np.uint8), image[0], output)

    def measure(tolerance: float = 2.0, model: str = "m") -> float:
        records = Records(tmp_path / "scores.jsonl")
        source = MadePredictions(tmp_path, segment)
        return Measuring(records, source, model, {"a": 1}, tolerance)(case)[0].scores["a"].dice

    assert measure() == measure() == pytest.approx(2 * 8 / (8 + 216)) and len(made) == 1
    measure(tolerance=1.0)
    assert len(made) == 1 and len(Records(tmp_path / "scores.jsonl").of("x")) == 2
    write_label(np.ones((6, 6, 6), np.uint8), case.image, case.label)  # corrected
    assert measure() == 1.0 and len(made) == 1
    content = (tmp_path / "scores.jsonl").read_bytes()
    (tmp_path / "scores.jsonl").write_bytes(content[:-40])  # killed while it was written
    assert Records(tmp_path / "scores.jsonl").damaged == 1
    assert measure() == 1.0 and len(made) == 1
    kept = Records(tmp_path / "scores.jsonl")
    assert len(kept.of("x")) == 3 and kept.damaged == 1
    corrected = nib.Nifti1Image(np.asarray(nib.load(case.image).dataobj) + 1, np.eye(4))
    nib.save(corrected, case.image)
    assert measure() == 1.0 and len(made) == 2  # what was made of the former image was not changed, so it is replaced
    write_label(np.zeros((6, 6, 6), np.uint8), case.image, tmp_path / "x.nii.gz")  # a person's correction
    drawn = (tmp_path / "x.nii.gz").read_bytes()
    with pytest.raises(OutputError, match=r"x\.nii\.gz is not, or no longer, what this evaluation made"):
        measure()
    assert (tmp_path / "x.nii.gz").read_bytes() == drawn and len(made) == 2 and not list(tmp_path.glob(".*"))
    (tmp_path / "x.nii.gz").unlink()
    assert measure() == 1.0 and len(made) == 3
    with pytest.raises(OutputError, match="another model"):
        require_one_model(kept, "other", "--out")


def test_what_was_made_before_a_kill_is_known_as_made_and_nothing_else_is(tmp_path: Path, case: Case) -> None:
    def segment(image: Sequence[Path], output: Path) -> None:
        write_label(np.ones((6, 6, 6), np.uint8), image[0], output)

    source, file = MadePredictions(tmp_path, segment), tmp_path / "x.nii.gz"
    source.of(case, [])
    source.of(case, [])  # it was killed before it could measure
    file.write_bytes(case.label.read_bytes())
    with pytest.raises(OutputError, match="what a person drew is not replaced"):
        source.of(case, [])

    def killed(image: Sequence[Path], output: Path) -> None:
        output.write_bytes(b"half")
        raise KeyboardInterrupt

    file.unlink()
    with pytest.raises(KeyboardInterrupt):
        MadePredictions(tmp_path, killed).of(case, [])
    assert not file.exists() and not list(tmp_path.glob(".*"))


def test_given_predictions_are_found_by_name(tmp_path: Path, case: Case) -> None:
    folder = tmp_path / "given"
    folder.mkdir()
    (folder / "y.nii.gz").write_bytes(case.label.read_bytes())
    (folder / "notes.txt").write_text("")
    source = GivenPredictions(folder, {"x"})
    assert [entry.file for entry in source.left_out] == ["y.nii.gz"]
    with pytest.raises(LabelError, match=r"no prediction x\.nii\.gz"):
        source.of(case, [])
    for name in ("x.nii.gz", "x.nii"):
        (folder / name).write_bytes(case.label.read_bytes())
    with pytest.raises(LabelError, match="several"):
        GivenPredictions(folder, {"x"}).of(case, [])


def test_the_page_is_one_file_and_what_it_shows_is_text(case: Case) -> None:
    cases = (
        CaseScores(EVIL, "h", False, {EVIL: score(0.5), "b": LabelScore(0.0, NAN, 0.0, 5.0, 0.0)}),
        CaseScores("c2", "h", True, {EVIL: score(0.5), "b": LabelScore(NAN, NAN, NAN, 0.0, 0.0)}),
    )
    shown = evaluation(*cases, labels={EVIL: 1, "b": 2}, failed=(LeftOut(EVIL, "f", EVIL),))
    page = evaluation_page(shown, {EVIL: (case, case.label)}, 3)
    assert (
        "<script" not in page and "&lt;script&gt;" in page and "nan" not in page.split("</style>")[1].split("<img")[0]
    )
    assert page.count("data:image/png;base64,") == 3 and "http" not in page
    assert "(trained on)" in page and "not defined in 1" in page
