"""Images and labels over HTTP: accepted whole, kept for ever, taken away only into the history."""

from __future__ import annotations

import json
import time
from pathlib import Path

from tests.app.data import write_image, write_label
from tests.app.server import AppServer


def _add(server: AppServer, tmp_path: Path, name: str, seed: int) -> Path:
    image = write_image(tmp_path / f"{name}.nii.gz", seed)
    answer = server.put("/datastore/image", params={"image": name}, files={"file": (image.name, image.read_bytes())})
    assert answer.json() == {"image": name}
    return image


def _submit(server: AppServer, name: str, label: Path, params: dict | None = None, tag: str = "final") -> None:
    answer = server.put(
        "/datastore/label",
        params={"image": name, "tag": tag},
        files={"label": (label.name, label.read_bytes())},
        data={"params": json.dumps(params or {})},
    )
    assert answer.json() == {"image": name, "label": name}


def test_image_and_label_come_back_as_they_went(server: AppServer, tmp_path: Path) -> None:
    image = _add(server, tmp_path, "there and back", 11)
    label = write_label(tmp_path / "label.nii.gz", 11)
    params = {"label_info": [{"name": "head", "idx": 1}], "user": "anna"}
    _submit(server, "there and back", label, params)
    assert server.get("/datastore/image", params={"image": "there and back"}).content == image.read_bytes()
    query = {"label": "there and back", "tag": "final"}
    assert server.get("/datastore/label", params=query).content == label.read_bytes()
    info = server.get("/datastore/label/info", params=query).json()
    assert info["label_info"] == params["label_info"]
    assert info["user"] == "anna"
    assert info["time"].endswith("+00:00")
    server.request("DELETE", "/datastore/image?id=there and back")


def test_id_is_the_file_name_without_its_suffix(server: AppServer, tmp_path: Path) -> None:
    # The stock route cuts the name at its first dot: two slices of a series would become one image.
    image = write_image(tmp_path / "scan.1.2.nii.gz", 12)
    answer = server.put("/datastore/image", files={"file": (image.name, image.read_bytes())})
    assert answer.json() == {"image": "scan.1.2"}
    assert server.request("DELETE", "/datastore/image?id=scan.1.2").ok


def test_replaced_label_is_kept(server: AppServer, studies: Path, tmp_path: Path) -> None:
    _add(server, tmp_path, "twice", 13)
    first, second = write_label(tmp_path / "one.nii.gz", 13), write_label(tmp_path / "two.nii", 14)
    _submit(server, "twice", first, {"user": "anna"})
    _submit(server, "twice", second, {"user": "ben"})
    folder = studies / "rep3d" / "history" / "twice"
    (kept,) = folder.glob("final-*.nii.gz")
    assert kept.read_bytes() == first.read_bytes()
    facts = json.loads(kept.with_name(kept.name.replace(".nii.gz", ".json")).read_text())
    assert (facts["user"], facts["image"], facts["tag"]) == ("anna", "twice", "final")
    # The second came with another suffix; the first must not lie beside it as a second truth.
    assert [path.name for path in (studies / "labels" / "final").glob("twice*")] == ["twice.nii"]
    assert server.get("/datastore/label?label=twice&tag=final").content == second.read_bytes()

    assert server.request("DELETE", "/datastore/label?id=twice&tag=final").ok
    assert len(list(folder.glob("final-*.nii*"))) == 2
    assert server.get("/datastore/label?label=twice&tag=final").status_code == 404
    server.request("DELETE", "/datastore/image?id=twice")


def test_removed_image_is_kept(server: AppServer, studies: Path, tmp_path: Path) -> None:
    image = _add(server, tmp_path, "going", 15)
    label = write_label(tmp_path / "label.nii.gz", 15)
    _submit(server, "going", label)
    assert server.request("DELETE", "/datastore/image?id=going").ok
    (folder,) = (studies / "rep3d" / "removed").glob("going-*")
    assert (folder / "going.nii.gz").read_bytes() == image.read_bytes()
    assert (folder / "final" / "going.nii.gz").read_bytes() == label.read_bytes()
    assert "going" not in server.get("/datastore/?output=all").json()["objects"]
    assert not (studies / "going.nii.gz").exists()


def test_files_put_into_the_folder_are_noticed(server: AppServer, studies: Path, tmp_path: Path) -> None:
    write_image(tmp_path / "by_hand.nii.gz", 16).rename(studies / "by_hand.nii.gz")
    (studies / "nudge.nii.gz").write_bytes((studies / "by_hand.nii.gz").read_bytes())
    deadline = time.monotonic() + 10
    while "by_hand" not in server.get("/datastore/?output=all").json()["objects"]:
        assert time.monotonic() < deadline
        time.sleep(0.1)
    for name in ("by_hand", "nudge"):
        assert server.request("DELETE", f"/datastore/image?id={name}").ok


def test_registry_on_disk_is_what_the_server_knows(server: AppServer, studies: Path) -> None:
    known = server.get("/datastore/?output=all").json()["objects"]
    assert json.loads((studies / "datastore_v2.json").read_text())["objects"] == known
    assert not list(studies.rglob("*.part"))
