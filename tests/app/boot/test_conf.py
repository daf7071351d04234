"""Settings and labels: what is accepted, what is refused, and which source of labels wins."""

from __future__ import annotations

import json
import runpy
import sys
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
from lib.access.listening import Listening
from lib.boot.conf import OPTIONS, AppConf
from lib.boot.setup import Setup
from lib.boot.values import parse_labels
from lib.errors import StartupError
from lib.names import checked_name, split_suffix
from lib.storage.entries import images_folder
from lib.training.task import TrainRequest

from rep3d.checkpoint import save_checkpoint
from rep3d.errors import ConfigError
from rep3d.files import write_text
from rep3d.nn.zoo import build_network, preset_config
from rep3d.tasks.config import Channel, Intensity, TaskConfig
from rep3d.tasks.file import TaskFile, TrainingHints, write_task_file
from rep3d.tasks.registry import registered_task
from rep3d.training.train import TrainSettings
from tests.app.data import SHAPE, publish_small_model, unchanged, write_image, write_nifti
from tests.app.server import APP_DIR


def test_labels_by_order_or_by_value() -> None:
    assert parse_labels("liver, tumour") == {"liver": 1, "tumour": 2}
    assert parse_labels("liver=2,tumour=5") == {"liver": 2, "tumour": 5}
    assert parse_labels("background=0, liver = 2.0,tumour=5") == {"liver": 2, "tumour": 5}


@pytest.mark.parametrize(
    "text",
    ["", "a,", "a=1,b", "a=x", "a=0", "a,a", "a=1,b=1", "a=-1", "=1", " , ", "a=1,a=2", "Liver,liver", "background,a"]
    + ["a=1,ignore=2", "a,ignore", "a=65536", "a=1.5", "a=[1]", "a\nb"],
)
def test_labels_that_are_none(text: str) -> None:
    with pytest.raises(StartupError, match=r"cannot start: --conf labels .*\. .*--conf labels a,b"):
        parse_labels(text)


@pytest.mark.parametrize(
    ("conf", "words"),
    [
        ({"label": "a"}, "There is no --conf setting 'label'"),
        ({"preset": "huge"}, "'huge' is unknown; expected one of base, tiny, quick, csla"),
        ({"variant": "big"}, "learned, fixed, none, not 'big'"),
        ({"device": "cuda:99"}, "cuda:99"),
        ({"device": "nonsense"}, "nonsense"),
        ({"modality": "PET"}, "'PET'"),
        ({"infer_at_once": "0"}, "whole number from 1 to 16"),
        ({"slow_seconds": "nan"}, "from 1 to 3600"),
        ({"models": "liver"}, "amos_ct, amos_mri, kits, msd_hepatic_vessel, msd_hippocampus, msd_pancreas, rep3d"),
        ({"models": "kits,"}, "'kits,'"),
        ({"models": "kits,kits"}, "names a model twice"),
        ({"models": "kits,msd_pancreas", "labels": "a"}, "add 'rep3d' to --conf models"),
        ({"task": "gone.yaml"}, "--conf task gone.yaml cannot be used. gone.yaml cannot be read"),
        ({"task": "liver"}, "There is no task 'liver'"),
        ({"task": "kits", "labels": "a"}, "both say what the labels are"),
        ({"task": "kits", "models": "kits"}, "Add 'rep3d' to --conf models"),
        ({"roi_size": "95"}, "multiples of 16"),
        ({"roi_size": "16"}, "one of them 32 or more"),
        ({"roi_size": "96,96"}, "one number or three, not '96,96'"),
        ({"roi_size": "ninety"}, "--conf roi_size must be"),
        ({"spacing": "0"}, "from 0.01 to 100 mm"),
        ({"spacing": "nan"}, "from 0.01 to 100 mm"),
        ({"iterations": "1.5"}, "a whole number from 1"),
        ({"iterations": "0"}, "a whole number from 1"),
        ({"max_minutes": "soon"}, "--conf max_minutes must be a number"),
        ({"max_minutes": "inf"}, "--conf max_minutes must be a number"),
        ({"train_every": "-1"}, "a whole number from 0"),
        ({"publish_margin": "nan"}, "--conf publish_margin must be a number from 0 to 1"),
        ({"score_minutes": "-1"}, "--conf score_minutes"),
        ({"strategy": "best"}, "hybrid"),
        ({"lease_minutes": "0"}, "--conf lease_minutes"),
        ({"hosts": "*"}, "--conf hosts names '*'"),
        ({"hosts": "a.org,"}, "--conf hosts names ''"),
        ({"hosts": "a.org:8000"}, "--conf hosts names 'a.org:8000'"),
        ({"hosts": "http://a.org"}, "--conf hosts names 'http://a.org'"),
        ({"origins": "*"}, "--conf origins names '*'"),
        ({"origins": "null"}, "--conf origins names 'null'"),
        ({"origins": "http://[::1"}, "is no site"),
        ({"origins": "a.org"}, "--conf origins names 'a.org'"),
        ({"origins": "https://a.org/viewer"}, "--conf origins names 'https://a.org/viewer'"),
        ({"keys": "off"}, "--conf keys must be one of auto, on, not 'off'"),
    ],
)
def test_settings_that_are_none(tmp_path: Path, conf: dict[str, str], words: str) -> None:
    with unchanged(tmp_path), pytest.raises(StartupError) as refusal:
        Setup.find(str(tmp_path), conf)
    assert words in str(refusal.value)


def test_help_lists_every_setting_with_its_default() -> None:
    with pytest.raises(StartupError) as shown:
        AppConf.parse({"help": "me"})
    lines = {line.split()[1]: line for line in str(shown.value).splitlines() if line.startswith("  --conf ")}
    assert set(lines) == set(OPTIONS) == {field.name for field in fields(AppConf)} - {"values_given"} | {"help"}
    assert all("Default: " in line for name, line in lines.items() if name != "help")
    # What is shown is what holds.
    for field in fields(AppConf):
        if field.default is not None and field.name not in ("values_given", "device"):
            shown_default = lines[field.name].rsplit("Default: ", 1)[1].rstrip(".")
            assert OPTIONS[field.name].parse(shown_default) == field.default


def test_settings_are_read() -> None:
    conf = AppConf.parse(
        {
            "models": "kits, rep3d",
            "labels": "a=1",
            "device": "cpu",
            "modality": "mr",
            "roi_size": "96x96x64",
            "spacing": "1.5",
            "train_every": "5",
            "publish_margin": "0",
            "lease_minutes": "0.5",
            "variant": "fixed",
            "strategy": "margin",
            "iterations": "20",
        }
    )
    assert (conf.models, conf.labels, conf.values_given) == (("kits", "rep3d"), {"a": 1}, True)
    assert (conf.roi_size, conf.spacing, conf.modality) == ((96, 96, 64), (1.5, 1.5, 1.5), "MRI")
    assert (conf.train_every, conf.publish_margin, conf.lease_minutes) == (5, 0.0, 0.5)
    assert (conf.variant, conf.strategy, conf.iterations) == ("fixed", "margin", 20)
    assert not AppConf.parse({"labels": "a,b"}).values_given


def test_settings_of_monai_label_are_no_concern_of_ours() -> None:
    assert AppConf.parse({"server_mode": "true", "device": "cpu"}).device == "cpu"


HIPPOCAMPUS = {"labels": {"0": "background", "1": "Anterior", "2": "Posterior"}, "modality": {"0": "MRI"}}


def _served(folder: Path, **conf: str) -> dict[str, dict[str, int]]:
    """Model name to its labels."""
    return {name: dict(model.labels) for name, model in Setup.find(str(folder), conf).models.items()}


def test_labels_come_from_conf_then_data_set_then_map_then_model(tmp_path: Path) -> None:
    publish_small_model(tmp_path, {"model": 4})
    assert _served(tmp_path) == {"rep3d": {"model": 4}}
    write_text(tmp_path / "rep3d" / "labels.json", '{"labels": {"m": 2}, "models": {"rep3d": ["m"]}, "served": []}')
    assert _served(tmp_path) == {"rep3d": {"m": 2}}
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"0": "background", "1": "set"}}))
    assert _served(tmp_path) == {"rep3d": {"set": 1}}
    # "set" and "model" are values that files of this folder may contain.
    assert _served(tmp_path, labels="conf") == {"rep3d": {"conf": 3}}
    assert _served(tmp_path, labels="conf=9") == {"rep3d": {"conf": 9}}


def test_a_data_set_that_is_not_used_is_named_with_the_reason(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"a": 1, "ignore": 2}}))
    with pytest.raises(StartupError, match=r"'ignore' \(2\).*--conf labels a=1,b=2, with the values that"):
        Setup.find(str(tmp_path), {})
    (note,) = Setup.find(str(tmp_path), {"labels": "a=1"}).models["rep3d"].notes
    assert note.startswith("dataset.json is not used: ") and "'ignore' (2)" in note


def test_data_of_which_a_server_cannot_learn_are_refused(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"a": 1}, "annotated": ["a"]}))
    with pytest.raises(StartupError, match="takes each label map for complete"):
        Setup.find(str(tmp_path), {})


TWO = {"channel_names": {"0": "T1", "1": "T2"}}
T1_T2 = tuple(Channel(name, Intensity()) for name in ("T1", "T2"))


def test_several_channels_come_from_model_task_or_data_set(tmp_path: Path) -> None:
    set_, task, model = tmp_path / "set", tmp_path / "task", tmp_path / "model"
    for folder in (set_, task, model):
        folder.mkdir()
    (set_ / "dataset.json").write_text(json.dumps({**HIPPOCAMPUS, "modality": {}, **TWO}))
    write_task_file(tmp_path / "two.yaml", TaskFile(TaskConfig("two", {"a": 1}, channels=T1_T2)))
    publish_small_model(model, {"a": 1}, ("T1", "T2"))
    for folder, conf in ((set_, {}), (task, {"task": str(tmp_path / "two.yaml")}), (model, {})):
        setup = Setup.find(str(folder), conf)
        assert setup.channels.names == ("T1", "T2") and list(setup.models) == ["rep3d"]  # no task or starter of one
        assert setup.models["rep3d"].facts()["channels"] == ["T1", "T2"]
    assert Setup.find(str(tmp_path), {"labels": "a"}).channels.names == ()
    # A first training learns them from the data set, whatever its labels are called.
    image = write_nifti(set_ / "a.nii.gz", np.ones((*SHAPE, 2), np.int16))
    (set_ / "dataset.json").write_text(json.dumps({"labels": {"whole": [1, 2]}, **TWO}))
    named = Setup.find(str(set_), {"labels": "a=1,b=2"}).models["rep3d"]
    assert "is not used, but for its channels: " in named.notes[0]
    made = named.task_for([image])
    assert [channel.name for channel in made.channels] == ["T1", "T2"] and made.in_channels == 2


@pytest.mark.parametrize(
    ("dataset", "model", "conf", "words"),
    [
        (
            TWO,
            ("T2", "T1"),
            {},
            r"for images of 2 channels \(T2, T1\), and dataset.json says 2 .*the same names",
        ),
        (TWO, (), {}, r"for images of one channel, and dataset.json says 2 channels \(T1, T2\)"),
        ({"modality": {"0": "CT"}}, ("T1", "T2"), {}, "and dataset.json says one channel"),
        (
            TWO,
            None,
            {"models": "kits", "labels": "kidney"},
            "task kits is for images of one channel, and dataset.json says",
        ),
        (TWO, None, {"task": "kits"}, "--conf task is for images of one channel, and dataset.json says 2"),
        (None, ("T1", "T2"), {"task": "kits"}, r"2 channels \(T1, T2\), and --conf task says one channel"),
        (
            None,
            ("T1", "T2"),
            {"models": "rep3d,kits"},
            r"rep3d of 2 channels \(T1, T2\), kits of one channel.*--conf",
        ),
    ],
)
def test_models_and_data_of_other_channels_are_refused(
    tmp_path: Path, dataset: dict | None, model: tuple[str, ...] | None, conf: dict[str, str], words: str
) -> None:
    if dataset:
        (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"a": 1}, **dataset}))
    if model is not None:
        publish_small_model(tmp_path, {"a": 1}, model)
    with unchanged(tmp_path), pytest.raises(StartupError, match=words):
        Setup.find(str(tmp_path), conf)


def test_nothing_known_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StartupError, match="--conf models with a registered"):
        Setup.find(str(tmp_path), {})


def test_default_is_the_registered_task_that_fits(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps(HIPPOCAMPUS))
    setup = Setup.find(str(tmp_path), {"device": "cpu", "starter": "off"})
    model = setup.models[setup.default_model]
    assert (setup.default_model, dict(model.labels)) == ("msd_hippocampus", {"Anterior": 1, "Posterior": 2})
    assert model.task == registered_task("msd_hippocampus") and model.modality == "MRI"
    assert model.facts()["terms"]["Anterior"]["type"]["meaning"] == "Hippocampus"
    # Extended, it is still that model, so that what it has learned goes on.
    extended = Setup.find(str(tmp_path), {"labels": "Anterior,Posterior,Cyst"})
    assert {name: dict(model.labels) for name, model in extended.models.items()} == {
        "msd_hippocampus": {"Anterior": 1, "Posterior": 2, "Cyst": 3}
    }
    assert set(extended.models["msd_hippocampus"].task.terms) == {"Anterior", "Posterior"}
    assert list(_served(tmp_path, labels="Liver")) == ["rep3d"]
    (tmp_path / "dataset.json").write_text(json.dumps({**HIPPOCAMPUS, "modality": {"0": "CT"}}))
    assert list(_served(tmp_path)) == ["rep3d"]


def test_what_was_served_last_is_served_again(tmp_path: Path) -> None:
    Setup.find(str(tmp_path), {"models": "kits,rep3d", "labels": "a,b"}).label_map.write()
    assert _served(tmp_path) == {"kits": {"kidney": 1, "tumor": 2, "cyst": 3}, "rep3d": {"a": 4, "b": 5}}


def test_task_settings_can_be_overridden(tmp_path: Path) -> None:
    given = {"models": "kits", "roi_size": "64", "spacing": "2,2,3"}
    task = Setup.find(str(tmp_path), given).models["kits"].task
    assert (task.roi_size, task.spacing) == ((64, 64, 64), (2.0, 2.0, 3.0))
    assert task.intensity == registered_task("kits").intensity


def test_first_training_follows_images_or_settings(tmp_path: Path) -> None:
    image = write_image(tmp_path / "case.nii.gz")
    free = Setup.find(str(tmp_path), {"labels": "a"}).models["rep3d"]
    assert free.task is None
    found = free.task_for([image])
    assert (found.labels, found.name, found.spacing[2]) == ({"a": 1}, "rep3d", 1.2)
    given = {"labels": "a", "roi_size": "48", "spacing": "2", "modality": "CT"}
    asked = Setup.find(str(tmp_path), given).models["rep3d"].task_for([image])
    assert (asked.roi_size, asked.spacing, asked.modality) == ((48, 48, 48), (2.0, 2.0, 2.0), "CT")
    coarse = Setup.find(str(tmp_path), {"labels": "a", "spacing": "1,1,20"}).models["rep3d"].task_for([image])
    assert coarse.roi_size[2] < found.roi_size[2]
    registered = Setup.find(str(tmp_path), {"models": "kits"}).models["kits"]
    assert registered.task_for([image]) == registered_task("kits")


def test_a_patch_and_voxel_size_of_ones_own_hold_for_the_next_training(tmp_path: Path) -> None:
    publish_small_model(tmp_path)
    model = Setup.find(str(tmp_path), {"roi_size": "64", "spacing": "1.5"}).models["rep3d"]
    assert model.task.roi_size == (64, 64, 64) and model.task.spacing == (1.5, 1.5, 1.5)
    assert model.train_settings().resolution == "task"
    model = Setup.find(str(tmp_path), {}).models["rep3d"]
    assert model.task.roi_size == (32, 32, 32) and model.train_settings().resolution == "auto"


def test_extending_the_labels_of_a_published_model_says_so(tmp_path: Path) -> None:
    publish_small_model(tmp_path, {"liver": 1})
    same = Setup.find(str(tmp_path), {"labels": "liver"}).models["rep3d"]
    assert (same.head.changed, same.notes, same.facts()["head"]) == (False, (), None)
    more = Setup.find(str(tmp_path), {"labels": "tumour,liver"}).models["rep3d"]
    assert dict(more.labels) == {"liver": 1, "tumour": 2}
    assert more.facts()["head"] == {"kept": ["liver"], "added": ["tumour"], "dropped": []}
    assert "the model knows liver" in more.notes[0] and "rows of tumour begin anew" in more.notes[0]
    other = Setup.find(str(tmp_path), {"labels": "spleen"}).models["rep3d"]
    assert dict(other.labels) == {"spleen": 2} and other.head.kept == ()
    assert "knows none of the labels spleen" in other.notes[0]


def test_modality_comes_from_the_data_set(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "a"}, "modality": {"0": "CT"}}))
    assert Setup.find(str(tmp_path), {}).models["rep3d"].modality == "CT"
    assert Setup.find(str(tmp_path), {"modality": "MRI"}).models["rep3d"].modality == "MRI"


def test_what_is_damaged_is_not_started_with(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text('{"labels": [1]}')
    with pytest.raises(StartupError, match=r"labels in dataset\.json"):
        Setup.find(str(tmp_path), {})
    model = publish_small_model(tmp_path)
    model.write_bytes(model.read_bytes()[:3000])
    with unchanged(tmp_path), pytest.raises(StartupError, match=r"cannot be loaded.*published\.pt away"):
        Setup.find(str(tmp_path), {"labels": "a"})


def test_preset_follows_the_published_model(tmp_path: Path) -> None:
    publish_small_model(tmp_path)
    assert Setup.find(str(tmp_path), {}).models["rep3d"].preset == "tiny"
    with pytest.raises(StartupError, match="preset of the published model is tiny"):
        Setup.find(str(tmp_path), {"preset": "base"})


def test_other_networks_are_named_by_one_word(tmp_path: Path) -> None:
    found = Setup.find(str(tmp_path), {"labels": "a", "preset": "dynunet:base"}).models["rep3d"]
    assert found.preset == found.train_settings().preset == "dynunet"
    assert TrainRequest.parse({"preset": "dynunet:base"}, found.train_settings()).settings.preset == "dynunet"
    for preset in ("tiny", "huge"):
        with pytest.raises(ConfigError, match=preset):
            TrainRequest.parse({"preset": preset}, found.train_settings())
    with pytest.raises(StartupError, match=r"preset and variant .*'fixed' is a spatial prior of Rep3D"):
        Setup.find(str(tmp_path), {"labels": "a", "preset": "basicunet", "variant": "fixed"})


def test_a_first_training_may_begin_with_an_encoder_of_the_same_preset(tmp_path: Path) -> None:
    studies = tmp_path / "studies"
    other, task = tmp_path / "other.pt", TaskConfig("other", {"b": 1}, roi_size=(32, 32, 32))
    save_checkpoint(other, build_network(preset_config("segresnet", 1, 2)), task, {"preset": "segresnet"})
    conf = {"labels": "a", "preset": "segresnet", "start_from": str(other)}
    assert Setup.find(str(studies), conf).models["rep3d"].start_from == other
    for wrong, words in (
        ({"preset": "basicunet"}, r"network segresnet where basicunet is needed.*preset segresnet.*leave it out"),
        ({"start_from": "kits"}, r"start_from kits cannot be used\. There is no model file .*kits"),
        ({"start_from": str(tmp_path)}, "There is no model file"),
    ):
        with pytest.raises(StartupError, match=words):
            Setup.find(str(studies), {**conf, **wrong})
    named = studies / "rep3d" / "models" / "kits" / "published.pt"
    named.parent.mkdir(parents=True)
    other.rename(named)
    assert Setup.find(str(studies), {**conf, "start_from": "kits"}).models["rep3d"].start_from == named
    again = Setup.find(str(studies), {"models": "kits", "start_from": "kits"}).models["kits"]
    assert again.start_from is None and "start_from has no effect" in " ".join(again.notes)


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


def test_hosts_and_origins() -> None:
    conf = AppConf.parse({"hosts": "Label.Hospital.org, [2001:db8::1]", "origins": "https://A.org/,http://b.org:8"})
    assert conf.hosts == ("label.hospital.org", "2001:db8::1")
    assert conf.origins == ("https://a.org", "http://b.org:8")


def test_address_is_read_from_the_command_line() -> None:
    def host(*words: str) -> str:
        return Listening.from_arguments(["start_server", *words], 8000, ()).host

    assert host("--app", "x", "-p", "1", "-i", "127.0.0.1") == "127.0.0.1"
    assert host("--host=::1") == "::1"
    assert host("--app", "x") == "0.0.0.0"


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


def test_an_older_python_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "version_info", (3, 9, 18))
    with pytest.raises(RuntimeError, match=r"needs Python 3\.10 or later"):
        runpy.run_path(str(APP_DIR / "lib" / "boot" / "environment.py"))


def test_a_task_file_says_what_the_model_of_ones_own_labels_is(tmp_path: Path) -> None:
    task = TaskConfig("organs", {"liver": 1, "gland": 4}, (1.5, 1.5, 3.0), Intensity("window", -50, 150), modality="CT")
    write_task_file(tmp_path / "organs.yaml", TaskFile(task, TrainingHints("quick", "task", "skip")))
    (tmp_path / "studies").mkdir()
    conf = {"task": str(tmp_path / "organs.yaml")}
    with unchanged(tmp_path):
        setup = Setup.find(str(tmp_path / "studies"), conf)
    (model,) = setup.models.values()
    assert (model.name, dict(setup.labels), model.modality) == ("rep3d", task.labels, "CT")
    assert model.task_for([]) == task
    settings = model.train_settings()
    assert (settings.preset, settings.resolution, settings.empty_labels) == ("quick", "task", "use")
    (other,) = Setup.find(str(tmp_path / "studies"), {**conf, "preset": "tiny", "spacing": "2"}).models.values()
    assert other.task_for([]).spacing == (2, 2, 2) and other.train_settings().preset == "tiny"
    stated = tmp_path / "studies" / "dataset.json"
    for labels, words in (
        ({"liver": 1, "gland": 2}, r"the value 4 for the label 'gland', and dataset\.json .* has the value 2 for it"),
        (
            {"spleen": 1, "gland": 4},
            r"the value 1 for the label 'liver', and dataset\.json .* calls that value 'spleen'",
        ),
    ):
        stated.write_text(json.dumps({"labels": labels}))
        with pytest.raises(StartupError, match=words):
            Setup.find(str(tmp_path / "studies"), conf)
    stated.write_text(json.dumps({"labels": {"Liver": 1, "cyst": 2}}))  # another spelling, and one more label
    assert dict(Setup.find(str(tmp_path / "studies"), conf).labels) == task.labels
    stated.unlink()
    both = Setup.find(str(tmp_path / "studies"), {**conf, "models": "kits,rep3d"}).models
    assert list(both) == ["kits", "rep3d"] and both["kits"].preset != "quick" and both["rep3d"].preset == "quick"
