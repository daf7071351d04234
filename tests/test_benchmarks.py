"""The parts of the benchmarks that compute, not measure: what they say must be right."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest
from requests_toolbelt import MultipartEncoder

BENCHMARKS = Path(__file__).resolve().parent.parent / "benchmarks"
sys.path.append(str(BENCHMARKS))

from parts.label_server import Segmented, parts_of_answer  # noqa: E402
from radiology_parts.app import AppChanges, RadiologyApp, changed_source  # noqa: E402
from radiology_parts.learning import beside  # noqa: E402


def test_beside_compares_the_same_cases() -> None:
    ours = {"a": 0.8, "b": 0.6, "c": 0.7}
    found = beside(ours, {"c": 0.7, "b": 0.2, "a": 0.4})

    assert found["difference"] == pytest.approx((0.4 + 0.4 + 0.0) / 3, abs=1e-4)
    assert found["ratio"] == pytest.approx(2.1 / 1.3, abs=1e-3)
    assert found["ours_better_in"] == "2 of 3"
    low, high = found["interval_95"]
    assert 0.0 <= low < found["difference"] < high <= 0.4


def test_beside_has_no_ratio_to_nothing() -> None:
    assert beside({"a": 0.5}, {"a": 0.0})["ratio"] is None


def test_overhead_is_what_the_network_did_not_take() -> None:
    answer = Segmented(b"", {"latencies": {"network": 1.5, "total": 1.9}}, seconds=2.0)

    assert answer.overhead("network") == pytest.approx(0.5)


def test_an_answer_is_split_into_facts_and_label() -> None:
    fields = {
        "params": (None, json.dumps({"version": "v1"}), "application/json"),
        "image": ("label.nii.gz", b"\x1f\x8b\r\n--raw", "application/octet-stream"),
    }
    message = MultipartEncoder(fields=fields)

    assert parts_of_answer(message.to_string(), message.content_type) == ({"version": "v1"}, b"\x1f\x8b\r\n--raw")


def test_an_answer_without_a_label_is_refused() -> None:
    message = MultipartEncoder(fields={"params": (None, "{}", "application/json")})

    with pytest.raises(RuntimeError, match="expected the parts 'params' and 'image'"):
        parts_of_answer(message.to_string(), message.content_type)


@pytest.mark.parametrize("text", ["nothing of it", "lr=1e-4, lr=1e-4"])
def test_another_version_of_the_app_is_refused(text: str) -> None:
    with pytest.raises(ValueError, match="expected 'lr=1e-4' once"):
        changed_source(text, "lr=1e-4", "lr=1e-3")


def test_the_app_that_monai_label_brings_is_fitted_to_the_images(tmp_path: Path) -> None:
    source = Path(sys.prefix) / "monailabel" / "sample-apps" / "radiology"
    if not source.is_dir():
        pytest.skip(f"no radiology app at {source}: install monailabel from its wheel")
    config, trainer = Path("lib/configs/segmentation.py"), Path("lib/trainers/segmentation.py")

    app = RadiologyApp(Path(sys.executable), None, tmp_path / "app", AppChanges((1.0, 1.0, 1.0), (48, 64, 48), 1e-3))

    before, after = (source / config).read_text().splitlines(), (app.folder / config).read_text().splitlines()
    changed = [new.strip() for old, new in zip(before, after, strict=True) if old != new]
    assert len(changed) == 2
    assert changed[0].startswith("self.target_spacing = (1.0, 1.0, 1.0)")
    assert changed[1] == "self.roi_size = (48, 64, 48)"
    assert "AdamW(context.network.parameters(), lr=0.001, weight_decay" in (app.folder / trainer).read_text()
    assert not app.published.exists()


def test_the_stop_of_a_training_cannot_lose_its_best_weights(tmp_path: Path) -> None:
    folder = tmp_path / "app"
    best = folder / "model" / "segmentation" / "train_01" / "model.pt"
    best.parent.mkdir(parents=True)
    app = RadiologyApp(Path(sys.executable), None, folder, AppChanges())
    best.write_bytes(b"better")
    app.published.write_bytes(b"better, cut")

    app.publish_best()

    assert app.published.read_bytes() == b"better"


def test_the_command_says_what_it_needs() -> None:
    command = [sys.executable, str(BENCHMARKS / "radiology.py"), "--data", "nowhere"]
    found = subprocess.run(command, capture_output=True, text=True, timeout=120)

    assert found.returncode == 2
    assert "--radiology-python: expected the python of an environment with the radiology app" in found.stderr
