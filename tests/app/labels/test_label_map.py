"""One map from label names to voxel values: a name never changes its value, whatever is served later."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from lib.boot.setup import Setup
from lib.errors import StartupError
from lib.labels.label_map import LabelMap

from tests.app.data import publish_small_model, unchanged


def _start(folder: Path, **conf: str) -> dict[str, dict[str, int]]:
    """Return what a starting server does with the map: model name to its labels."""
    setup = Setup.find(str(folder), conf)
    setup.label_map.write()
    return {name: dict(model.labels) for name, model in setup.models.items()}


def _stored(folder: Path) -> dict:
    return json.loads((folder / "rep3d" / "labels.json").read_text())


def test_names_keep_their_values_over_restarts(tmp_path: Path) -> None:
    assert _start(tmp_path, labels="a,b") == {"rep3d": {"a": 1, "b": 2}}
    assert _start(tmp_path, labels="b,c") == {"rep3d": {"b": 2, "c": 3}}
    assert _stored(tmp_path)["labels"] == {"a": 1, "b": 2, "c": 3}  # files may still contain 1
    assert _start(tmp_path) == {"rep3d": {"b": 2, "c": 3}}
    assert _start(tmp_path, labels="d,c,a") == {"rep3d": {"a": 1, "c": 3, "d": 4}}


def test_models_whose_values_collide_get_free_ones(tmp_path: Path) -> None:
    served = _start(tmp_path, models="msd_hippocampus,kits,msd_pancreas")
    assert served == {
        "msd_hippocampus": {"Anterior": 1, "Posterior": 2},
        "kits": {"kidney": 3, "tumor": 4, "cyst": 5},
        "msd_pancreas": {"pancreas": 6, "cancer": 7},
    }
    setup = Setup.find(str(tmp_path), {"models": "kits"})
    assert dict(setup.models["kits"].task.labels) == served["kits"] == dict(setup.labels)
    # The terms stay with the names.
    assert setup.models["kits"].task.terms["cyst"].type.meaning == "Cyst"


def test_models_share_the_labels_that_they_have_in_common(tmp_path: Path) -> None:
    served = _start(tmp_path, models="amos_ct,amos_mri")
    assert served["amos_mri"] == {name: value for name, value in served["amos_ct"].items() if value <= 13}


def test_values_of_the_data_set_are_those_of_its_files(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "Anterior", "2": "Posterior"}}))
    served = _start(tmp_path, models="kits,msd_hippocampus")
    assert served["msd_hippocampus"] == {"Anterior": 1, "Posterior": 2}
    assert served["kits"] == {"kidney": 3, "tumor": 4, "cyst": 5}


def test_values_of_a_label_that_is_not_served_are_not_given_away(tmp_path: Path) -> None:
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "bone", "2": "fat"}}))
    assert _start(tmp_path, labels="fat,skin") == {"rep3d": {"fat": 2, "skin": 3}}


def test_values_of_a_published_model_are_kept_where_nothing_is_stored(tmp_path: Path) -> None:
    publish_small_model(tmp_path, {"head": 1, "tail": 3})
    assert _start(tmp_path, labels="tail,head,neck") == {"rep3d": {"head": 1, "tail": 3, "neck": 2}}


@pytest.mark.parametrize(
    ("labels", "words"),
    [
        ("a=2,b=1", "a=2, but that value stands for 'b'"),
        ("b=3", "b=3, but 'b' has the value 2"),
        ("new=1", "new=1, but that value stands for 'a'"),
    ],
)
def test_contradictions_are_refused_and_nothing_is_written(tmp_path: Path, labels: str, words: str) -> None:
    _start(tmp_path, labels="a,b")
    with unchanged(tmp_path), pytest.raises(StartupError) as refusal:
        Setup.find(str(tmp_path), {"labels": labels})
    for part in (words, "a=1,b=2", "labels.json", "move that file away"):
        assert part in str(refusal.value)
    assert _start(tmp_path, labels="b=2,new=7") == {"rep3d": {"b": 2, "new": 7}}


def test_a_data_set_that_contradicts_the_map_is_refused(tmp_path: Path) -> None:
    _start(tmp_path, labels="a,b")
    (tmp_path / "dataset.json").write_text(json.dumps({"labels": {"1": "b", "2": "a"}}))
    with unchanged(tmp_path), pytest.raises(StartupError, match="contradict those stored in"):
        Setup.find(str(tmp_path), {})


def test_finding_out_writes_nothing(tmp_path: Path) -> None:
    _start(tmp_path, labels="a")
    with unchanged(tmp_path):
        Setup.find(str(tmp_path), {"labels": "b,c"})
    before = (tmp_path / "rep3d" / "labels.json").stat().st_mtime_ns
    _start(tmp_path, labels="a")
    assert (tmp_path / "rep3d" / "labels.json").stat().st_mtime_ns == before


@pytest.mark.parametrize(
    "text",
    [
        "{half",
        "[]",
        '{"labels": {"a": 1}}',
        '{"labels": {"a": 1, "b": 1}, "models": {}, "served": []}',
        '{"labels": {"a": 0}, "models": {}, "served": []}',
        '{"labels": {"a": "1"}, "models": {}, "served": []}',
        '{"labels": {"a": 1}, "models": {"rep3d": ["b"]}, "served": []}',
        '{"labels": {"a": 1}, "models": {}, "served": ["rep3d"]}',
        '{"labels": {"a": 1}, "models": {"rep3d": 3}, "served": []}',
    ],
)
def test_a_damaged_map_is_refused_and_left_alone(tmp_path: Path, text: str) -> None:
    (tmp_path / "rep3d").mkdir()
    (tmp_path / "rep3d" / "labels.json").write_text(text)
    with unchanged(tmp_path), pytest.raises(StartupError, match=r"labels\.json.*Put a copy of that file back"):
        Setup.find(str(tmp_path), {"labels": "a"})


def test_an_interrupted_write_leaves_the_old_map(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    _start(tmp_path, labels="a")
    later = Setup.find(str(tmp_path), {"labels": "a,b"}).label_map

    def fail(*args: object) -> None:
        raise OSError("no space left on device")

    monkeypatch.setattr("lib.paths.os.fsync", fail)
    with unchanged(tmp_path), pytest.raises(OSError, match="no space"):
        later.write()


def test_names_in_any_language_are_stored_as_they_are(tmp_path: Path) -> None:
    LabelMap(tmp_path / "labels.json").extended({"rep3d": {"Nœud/gl. „x“": 1}}, {}, {}).write()
    assert dict(LabelMap.read(tmp_path / "labels.json").values) == {"Nœud/gl. „x“": 1}


def test_all_values_taken_is_said(tmp_path: Path) -> None:
    full = LabelMap(tmp_path / "labels.json", {f"l{value}": value for value in range(1, 65536)})
    with pytest.raises(StartupError, match="65535 is the most"):
        full.extended({"rep3d": {"one more": 1}}, {}, {})
