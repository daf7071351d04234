"""The demo's report: right numbers, honest words, one file without outside resources, pictures the right way round."""

from __future__ import annotations

import base64
import io
import re
from collections.abc import Sequence
from dataclasses import replace
from html.parser import HTMLParser
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest

from rep3d.demo.report import CasePicture, DemoReport, RoundResult, case_mean, pick_cases, write_report
from rep3d.errors import ConfigError, ImageError, LabelError
from rep3d.evaluation.pictures import PREDICTION_COLOUR, TRUTH_COLOUR, slice_pngs

NAN = float("nan")
LABELS = {"Head": 1, "Tail": 2}
DICE = {
    "h1": {"Head": 0.9, "Tail": 0.8},
    "h2": {"Head": 0.7, "Tail": 0.6},
    "h3": {"Head": 0.5, "Tail": NAN},
}


def rounds() -> tuple[RoundResult, ...]:
    return (
        RoundResult(0, 0, (), {}, 0.0, None),
        RoundResult(1, 2, ("a1", "a2"), DICE, 83.0, "v1"),
    )


def make_report(pictures: Sequence[CasePicture] = (), **changes) -> DemoReport:
    report = DemoReport("A title", "some data", LABELS, rounds(), tuple(pictures), {"Seed": "7", "Machine": "a CPU"})
    return replace(report, **changes)


def written(tmp_path: Path, report: DemoReport) -> str:
    write_report(tmp_path / "new" / "report.html", report)
    return (tmp_path / "new" / "report.html").read_text(encoding="utf-8")


def text_of(page: str) -> str:
    """Return what a reader sees, tags and style removed, on one line."""
    body = re.sub(r"<style>.*?</style>", "", page, flags=re.S)
    return re.sub(r"\s+", " ", re.sub(r"<[^>]+>", " ", body).replace("&plusmn;&nbsp;", "+-"))


def save(path: Path, voxels: np.ndarray, affine: np.ndarray | None = None) -> Path:
    nib.save(nib.Nifti1Image(voxels, np.eye(4) if affine is None else affine), path)
    return path


def make_picture(tmp_path: Path, case_id: str, affine: np.ndarray | None = None) -> CasePicture:
    """Return a case whose true label lies to the patient's left, front and top in RAS, with a prediction to the
    right."""
    image = np.arange(20 * 20 * 20, dtype=np.int16).reshape(20, 20, 20)
    label, prediction = np.zeros((2, 20, 20, 20), dtype=np.uint8)
    label[2:5, 12:17, 12:17] = 1
    label[5:7, 12:17, 12:17] = 2
    prediction[12:17, 12:17, 12:17] = 1
    folder = tmp_path / case_id
    folder.mkdir()
    names = {"image.nii.gz": image, "label.nii.gz": label, "prediction.nii.gz": prediction}
    image, label, prediction = (save(folder / name, voxels, affine) for name, voxels in names.items())
    return CasePicture(case_id, image, label, prediction=prediction)


def test_means_leave_out_what_is_not_there() -> None:
    assert case_mean({"Head": 0.9, "Tail": 0.8}) == pytest.approx(0.85)
    assert case_mean({"Head": 0.5, "Tail": NAN}) == 0.5
    assert np.isnan(case_mean({"Head": NAN}))


def test_picks_best_median_and_worst() -> None:
    assert pick_cases(DICE) == {"best": "h1", "median": "h2", "worst": "h3"}
    assert pick_cases({"a": {"x": 0.1}, "b": {"x": 0.2}}) == {"best": "b", "worst": "a"}
    assert pick_cases({"a": {"x": 0.1}, "b": {"x": NAN}}) == {"best": "a"}
    assert pick_cases({}) == {}


def test_round_table_shows_mean_and_spread_per_label(tmp_path: Path) -> None:
    text = text_of(written(tmp_path, make_report()))
    # Head 0.9 0.7 0.5; Tail 0.8 0.6 (one NaN left out); per case 0.85 0.65 0.5
    assert "1 2 0.700 +-0.200 0.700 +-0.141 0.667 +-0.176 1 min 23 s v1 2 a1, a2" in text
    assert "Mean Dice, held-out cases 0.667" in text
    assert "h3 0.500 - 0.500" in text


def test_a_round_without_a_model_is_no_zero(tmp_path: Path) -> None:
    text = text_of(written(tmp_path, make_report()))
    assert "0 0 no model yet - - 0" in text
    assert "0.000" not in text


def test_report_without_any_model(tmp_path: Path) -> None:
    page = written(tmp_path, make_report(rounds=rounds()[:1]))
    assert "Mean Dice, held-out cases no model yet" in text_of(page)
    assert "<img" not in page


def test_a_label_nobody_has_is_a_dash(tmp_path: Path) -> None:
    dice = {"h1": {"Head": 0.9, "Tail": NAN}, "h2": {"Head": 0.7, "Tail": NAN}}
    page = written(tmp_path, make_report(rounds=(RoundResult(1, 1, ("a1",), dice, 5.0, "v1"),)))
    assert "1 1 0.800 +-0.141 - 0.800 +-0.141 5 s v1 1 a1" in text_of(page)
    assert "nan" not in text_of(page).lower()


def test_a_round_with_no_number_at_all(tmp_path: Path) -> None:
    dice = {"h1": {"Head": NAN, "Tail": NAN}}
    text = text_of(written(tmp_path, make_report(rounds=(RoundResult(1, 1, ("a1",), dice, 5.0, "v1"),))))
    assert "1 1 - - - 5 s v1 1 a1" in text
    assert "held-out cases - " in text


def test_says_what_was_measured(tmp_path: Path) -> None:
    text = text_of(written(tmp_path, make_report()))
    assert "3 held-out cases of some data (n = 3). They were never submitted" in text
    assert "same cases were tested after every round" in text
    assert "no person corrected anything" in text
    for fact in ("A title", "Seed 7", "Machine a CPU"):
        assert fact in text


def test_does_not_claim_the_same_cases_when_they_changed(tmp_path: Path) -> None:
    other = RoundResult(2, 3, ("a3",), {"h1": DICE["h1"]}, 10.0, "v2")
    assert "same cases" not in text_of(written(tmp_path, make_report(rounds=(*rounds(), other))))


def test_refuses_a_held_out_case_that_was_submitted() -> None:
    with pytest.raises(ConfigError, match="h2"):
        make_report(rounds=(*rounds(), RoundResult(2, 3, ("h2",), DICE, 1.0, "v2")))


@pytest.mark.parametrize("empty", [{"rounds": ()}, {"labels": {}}])
def test_refuses_an_empty_report(empty: dict) -> None:
    with pytest.raises(ConfigError, match="at least one"):
        make_report(**empty)


def test_everything_given_is_escaped(tmp_path: Path) -> None:
    evil = '<script>alert(1)</script>&"'
    dice = {evil + "h": {evil: 0.5}}
    page = written(
        tmp_path,
        DemoReport(
            title=evil,
            dataset=evil,
            labels={evil: 1},
            rounds=(RoundResult(1, 1, (evil,), dice, 1.0, evil),),
            pictures=(replace(make_picture(tmp_path, "plain"), id=evil + "h"),),
            facts={evil: evil},
        ),
    )
    assert "<script" not in page
    assert page.count("&lt;script&gt;alert(1)&lt;/script&gt;&amp;&#34;") >= 10


class Resources(HTMLParser):
    """Collects whatever a page would load, and checks that its tags are closed in order."""

    def __init__(self) -> None:
        super().__init__()
        self.loaded: list[str] = []
        self.open: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "srcset", "href")]
        if tag not in ("meta", "img", "source", "link"):
            self.open.append(tag)
        assert tag not in ("script", "link", "iframe")

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag


def test_is_one_file_without_outside_resources(tmp_path: Path) -> None:
    page = written(tmp_path, make_report([make_picture(tmp_path, case) for case in DICE]))
    parser = Resources()
    parser.feed(page)
    assert parser.open == []
    assert len(parser.loaded) == 4 + 3 * 3  # the curve for light, dark, wide and narrow; three planes of three cases
    for uri in parser.loaded:
        assert uri.startswith("data:image/png;base64,")
        assert base64.b64decode(uri.split(",")[1], validate=True).startswith(b"\x89PNG")
    assert "url(" not in page and "@import" not in page and "http:" not in page and "https:" not in page
    assert [path.name for path in (tmp_path / "new").iterdir()] == ["report.html"]


def test_pictures_are_named_by_their_rank(tmp_path: Path) -> None:
    dice = {**DICE, "h4": {"Head": 0.72, "Tail": 0.71}, "h5": {"Head": 0.2, "Tail": 0.1}}
    last = RoundResult(1, 1, ("a1",), dice, 1.0, "v1")
    text = text_of(written(tmp_path, make_report([make_picture(tmp_path, c) for c in dice], rounds=(last,))))
    assert "best, the median and the worst held-out case of the last round" in text
    assert "Best: h1 Dice Head 0.900, Tail 0.800" in text
    assert "Median: h2 Dice Head 0.700, Tail 0.600" in text
    assert "Worst: h5 Dice Head 0.200, Tail 0.100" in text
    assert text.index("Best:") < text.index("Median:") < text.index("Worst:")


def coloured(uri: str, colour: str) -> np.ndarray:
    """Return places (column, row) of a picture's pixels of one colour, as shares of its side."""
    from matplotlib.image import imread

    pixels = imread(io.BytesIO(base64.b64decode(uri.split(",")[1])), format="png")[..., :3]
    wanted = np.array([int(colour[i : i + 2], 16) for i in (1, 3, 5)]) / 255
    rows, columns = np.nonzero(np.abs(pixels - wanted).max(axis=2) < 0.06)
    return np.stack([columns / pixels.shape[1], rows / pixels.shape[0]], axis=1)


@pytest.mark.parametrize("codes", ["RAS", "LAS", "PIR"])
def test_slices_follow_the_radiological_convention_in_any_array_order(tmp_path: Path, codes: str) -> None:
    """The truth lies to the patient's left, the prediction to the right: left is drawn right, however it is stored."""
    ras = make_picture(tmp_path, "ras", np.diag([1.0, 1.0, 2.0, 1.0]))
    turned = []
    for path in (ras.image, ras.label, ras.prediction):
        image = nib.load(path)
        steps = nib.orientations.ornt_transform(
            nib.io_orientation(image.affine), nib.orientations.axcodes2ornt(tuple(codes))
        )
        turned.append(tmp_path / f"{codes}_{path.name}")
        nib.save(image.as_reoriented(steps), turned[-1])
    pictures = dict(zip(("axial", "coronal", "sagittal"), slice_pngs(*turned, LABELS), strict=True))
    for plane in ("axial", "coronal"):
        description, uri = pictures[plane]
        assert description.startswith(plane)
        truth, prediction = coloured(uri, TRUTH_COLOUR), coloured(uri, PREDICTION_COLOUR)
        assert len(truth) > 50 and len(prediction) > 50
        assert truth[:, 0].mean() > 0.5 + 0.05 > 0.5 - 0.05 > prediction[:, 0].mean()
    # Five voxels across and five up, of 1 mm and of 2 mm: the contour is twice as high as wide.
    predicted = coloured(pictures["coronal"][1], PREDICTION_COLOUR)
    width, height = np.ptp(predicted, axis=0)
    assert height / width == pytest.approx(2.0, rel=0.1)


def test_a_prediction_without_any_organ_can_be_drawn(tmp_path: Path) -> None:
    picture = make_picture(tmp_path, "h1")
    empty = save(tmp_path / "empty.nii.gz", np.zeros((20, 20, 20), dtype=np.uint8))
    for _, uri in slice_pngs(picture.image, picture.label, empty, LABELS):
        assert len(coloured(uri, PREDICTION_COLOUR)) == 0
    assert len(slice_pngs(picture.image, empty, empty, LABELS)) == 3


def test_files_that_do_not_fit_are_refused(tmp_path: Path) -> None:
    picture = make_picture(tmp_path, "h1")
    other = save(tmp_path / "other.nii.gz", np.zeros((20, 20, 19), dtype=np.uint8))
    with pytest.raises(LabelError, match=r"\(20, 20, 20\).*\(20, 20, 19\)"):
        slice_pngs(picture.image, picture.label, other, LABELS)
    moved = save(tmp_path / "moved.nii.gz", np.zeros((20, 20, 20), dtype=np.uint8), np.diag([1.0, 1.0, 1.5, 1.0]))
    with pytest.raises(LabelError, match="affine"):
        slice_pngs(picture.image, picture.label, moved, LABELS)
    flat = save(tmp_path / "flat.nii.gz", np.zeros((20, 20), dtype=np.uint8))
    with pytest.raises(ImageError, match="three"):
        slice_pngs(flat, picture.label, picture.prediction, LABELS)
    noise = tmp_path / "noise.nii.gz"
    noise.write_bytes(b"no image")
    with pytest.raises(ImageError, match="is no NIfTI image"):
        slice_pngs(noise, picture.label, picture.prediction, LABELS)
