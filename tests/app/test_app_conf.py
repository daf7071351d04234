"""Settings and labels: what is accepted, what is refused, and which source of labels wins."""

from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest
from lib.conf import AppConf, parse_labels
from lib.datastore import DATASTORE_FILE, check_registry, images_folder
from lib.names import checked_name, split_suffix
from lib.setup import Setup
from lib.startup import StartupError, host_from_arguments
from lib.train import TrainRequest

from rep3d.errors import ConfigError
from rep3d.training import TrainSettings
from tests.app.data import publish_small_model, unchanged, write_image
from tests.app.server import APP_DIR


def test_labels_by_order_or_by_value() -> None:
    assert parse_labels("liver, tumour") == {"liver": 1, "tumour": 2}
    assert parse_labels("liver=2,tumour=5") == {"liver": 2, "tumour": 5}


@pytest.mark.parametrize("text", ["", "a,", "a=1,b", "a=x", "a=0", "a,a", "a=1,b=1", "a=-1", "=1", " , "])
def test_labels_that_are_none(text: str) -> None:
    with pytest.raises(StartupError, match="expected .* got .*--conf labels"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"label": "a"}, "--conf settings among"),
        ({"preset": "huge"}, "'huge'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "nonsense"}, "nonsense"),
        ({"modality": "PET"}, "'PET'"),
        ({"help": "me"}, "--conf modality"),
    ],
)
def test_settings_that_are_none(conf: dict[str, str], words: str) -> None:
    with pytest.raises(StartupError) as refusal:
        AppConf.parse(conf)
    assert words in str(refusal.value)


def test_settings_of_monai_label_are_no_concern_of_ours() -> None:
    assert AppConf.parse({"models": "rep3d", "server_mode": "true", "device": "cpu"}).device == "cpu"


def test_labels_come_from_conf_then_data_set_then_model(tmp_path: Path) -> None:
    publish_small_model(tmp_path, {"model": 1})
    assert dict(Setup.find(str(tmp_path), {}).labels) == {"model": 1}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "set"}}))
    with unchanged(tmp_path), pytest.raises(StartupError, match="checkpoint of another task"):
        Setup.find(str(tmp_path), {})
    assert dict(Setup.find(str(tmp_path), {"labels": "model"}).labels) == {"model": 1}
    (tmp_path / "rep3d" / "published.pt").unlink()
    assert dict(Setup.find(str(tmp_path), {}).labels) == {"set": 1}
    assert dict(Setup.find(str(tmp_path), {"labels": "conf"}).labels) == {"conf": 1}


def test_modality_comes_from_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "a"}, "modality": {"0": "CT"}}))
    assert Setup.find(str(tmp_path), {}).modality == "CT"
    assert Setup.find(str(tmp_path), {"modality": "MRI"}).modality == "MRI"


def test_what_is_damaged_is_not_started_with(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": [1]}')
    with pytest.raises(StartupError, match=r"labels in dataset\.json"):
        Setup.find(str(tmp_path), {})
    model = publish_small_model(tmp_path)
    model.write_bytes(model.read_bytes()[:3000])
    with unchanged(tmp_path), pytest.raises(StartupError, match=r"can be loaded.*published\.pt away"):
        Setup.find(str(tmp_path), {"labels": "a"})
    (tmp_path / DATASTORE_FILE).write_text('{"name": "x", "obj')
    with unchanged(tmp_path), pytest.raises(StartupError, match="Move that file away"):
        check_registry(tmp_path / DATASTORE_FILE)


def test_preset_follows_the_published_model(tmp_path: Path) -> None:
    publish_small_model(tmp_path)
    assert Setup.find(str(tmp_path), {}).preset == "tiny"
    with pytest.raises(StartupError, match="preset of the published model"):
        Setup.find(str(tmp_path), {"preset": "base"})


def test_a_dicom_server_is_not_served() -> None:
    with pytest.raises(StartupError, match="local folder"):
        Setup.find("https://example.org/dicom-web", {"labels": "a"})


def test_images_are_found_in_either_layout(tmp_path: Path) -> None:
    assert images_folder(tmp_path) == "."
    (tmp_path / "imagesTr").mkdir()
    (tmp_path / "dataset.json").write_text("{}")
    write_image(tmp_path / "._hidden.nii.gz")
    assert images_folder(tmp_path) == "imagesTr"
    write_image(tmp_path / "case.nii.gz")
    assert images_folder(tmp_path) == "."


def test_address_is_read_from_the_command_line() -> None:
    assert host_from_arguments(["start_server", "--app", "x", "-p", "1", "-i", "127.0.0.1"]) == "127.0.0.1"
    assert host_from_arguments(["start_server", "--host=::1"]) == "::1"
    assert host_from_arguments(["start_server", "--app", "x"]) == "0.0.0.0"


def test_names_and_suffixes() -> None:
    assert checked_name("image id", "Müller 2.1_a-b") == "Müller 2.1_a-b"
    assert split_suffix("a.nii.gz.b.nii.gz", (".nii.gz", ".nii")) == ("a.nii.gz.b", ".nii.gz")
    assert split_suffix("a.nii", (".nii.gz", ".nii")) == ("a", ".nii")
    assert split_suffix("a.png", (".nii.gz", ".nii")) == ("a.png", "")


def test_training_request() -> None:
    defaults = TrainSettings(device="cpu", preset="tiny")
    request = TrainRequest.parse({"iterations": 7, "score_minutes": 0, "model": "rep3d", "gpus": "all"}, defaults)
    assert (request.settings.iterations, request.settings.device, request.score_minutes) == (7, "cpu", 0.0)
    with pytest.raises(ConfigError, match="max_epochs"):
        TrainRequest.parse({"max_epochs": 5}, defaults)


@pytest.mark.parametrize("version", [(3, 9, 18), (3, 12, 1)])
def test_other_pythons_are_refused(monkeypatch: pytest.MonkeyPatch, version: tuple[int, int, int]) -> None:
    monkeypatch.setattr(sys, "version_info", version)
    with pytest.raises(RuntimeError, match=r"expected Python 3\.10 or 3\.11"):
        runpy.run_path(str(APP_DIR / "lib" / "environment.py"))
