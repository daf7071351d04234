"""DICOM files sent to a server as a .zip file: series become images; whatever else such a file is leaves no trace."""

from __future__ import annotations

import io
import json
import shutil
import stat
import struct
import zipfile
from collections.abc import Callable
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from pydicom.uid import generate_uid
from Rep3DLabelLib.client import Rep3DClient
from Rep3DLabelLib.errors import InvalidRequestError

from rep3d.demo.voxels import as_nifti
from tests.app.data import unchanged
from tests.app.server import AppServer
from tests.rep3d.imaging.test_dicom import write_series


def pack(folder: Path, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    """Return all files below a folder, as a .zip file."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", compression) as archive:
        for file in sorted(folder.rglob("*")):
            archive.write(file, file.relative_to(folder))
    return packed.getvalue()


def packed_entries(entries: dict[str, bytes], change: Callable[[zipfile.ZipInfo], object] | None = None) -> bytes:
    """Return a .zip file with these entries, each changed as wanted."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in entries.items():
            entry = zipfile.ZipInfo("x")
            entry.filename = name  # as it is: the constructor would change some
            entry.compress_type = zipfile.ZIP_DEFLATED
            if change:
                change(entry)
            archive.writestr(entry, content)
    return packed.getvalue()


def send(server: AppServer, content: bytes) -> dict:
    answer = server.put("/rep3d/dicom", files={"file": ("file.zip", content)})
    assert answer.status_code == 200, answer.text
    return answer.json()


def remove(server: AppServer, studies: Path, found: dict) -> None:
    """Take away what a test brought in."""
    for image in found["images"]:
        assert server.request("DELETE", "/datastore/image", params={"id": image}).ok
    if found["folder"]:
        shutil.rmtree(studies / found["folder"])


def test_a_series_becomes_an_image_once(server: AppServer, studies: Path, tmp_path: Path) -> None:
    uid = generate_uid()
    folder = write_series(tmp_path / "Miller^John" / "CT", uid=uid).parent
    (folder / "viewer.exe").write_bytes(b"MZ" + bytes(1000))
    found = send(server, pack(folder))
    (image,) = found["images"]
    assert (found["failed"], found["known"]) == ([], [])
    assert "Miller" not in json.dumps(found)
    kept = sorted(file.name for file in (studies / found["folder"]).rglob("*"))
    assert kept == [f"{number:05}.dcm" for number in range(6)]
    stored = server.get("/datastore/image", params={"image": image}).content
    (tmp_path / "back.nii.gz").write_bytes(stored)
    values = np.asanyarray(nib.load(tmp_path / "back.nii.gz").dataobj)
    assert values.shape == (5, 4, 6) and values[3, 2, 4] == 400 + 20 + 3 - 1024
    (new,) = (
        key
        for key, known in json.loads((studies / "rep3d" / "dicom.json").read_text())["imported"].items()
        if known["image"] == image
    )
    assert new.startswith("2.25.")
    assert not (studies / "rep3d" / "incoming").exists()

    with unchanged(studies):
        again = send(server, pack(folder))
    assert again == {
        "images": [],
        "known": [{"series": new, "image": image}],
        "failed": [],
        "folder": None,
        "warnings": [],
    }
    remove(server, studies, found)
    back = send(server, pack(folder))  # its image was removed: who sends it once more wants it back
    assert len(back["images"]) == 1 and back["known"] == []
    remove(server, studies, back)


def test_what_cannot_be_used_does_not_stop_the_rest(server: AppServer, studies: Path, tmp_path: Path) -> None:
    write_series(tmp_path / "good", uid=generate_uid())
    bad = write_series(tmp_path / "bad", uid=generate_uid())
    for file in sorted(bad.iterdir())[2:4]:
        file.unlink()
    with unchanged(studies):
        only_bad = send(server, packed_entries({f"b/{file.name}": file.read_bytes() for file in bad.iterdir()}))
    assert only_bad["images"] == [] and "are missing" in only_bad["failed"][0]["error"]
    found = send(server, pack(tmp_path))
    assert len(found["images"]) == 1 and [one["error"] for one in found["failed"]] == [only_bad["failed"][0]["error"]]
    remove(server, studies, found)


def test_what_shares_a_uid_and_what_is_no_image_in_one_file(server: AppServer, studies: Path, tmp_path: Path) -> None:
    uid = generate_uid()
    for which in (0, 1):  # two people without names, told apart by the folders that they lie in
        folder = tmp_path / "in" / f"patient {which}"
        write_series(folder, lambda data, n, which=which: setattr(data, "ImagePositionPatient", [0, which, 2 * n]), uid)
    cut = folder / "a.dcm"
    cut.write_bytes((folder / "92.dcm").read_bytes()[:140])
    (folder / "b.DCM").write_text("no DICOM")
    found = send(server, pack(tmp_path / "in"))
    assert len(found["images"]) == 2 and len(found["failed"]) == 2, found
    assert any("is no DICOM file" in one["error"] for one in found["failed"])
    shutil.rmtree(folder.parent / "patient 0")
    for file in folder.glob("9*.dcm"):
        file.unlink()
    with unchanged(studies):
        answer = server.put("/rep3d/dicom", files={"file": ("file.zip", pack(tmp_path / "in"))})
    assert answer.status_code == 422 and "no images among them: 00000.dcm" in answer.json()["detail"], answer.text

    # The same rules hold for what lies in the folder itself.
    write_series(studies, lambda data, n: setattr(data, "PatientID", "another"), uid)
    (studies / "cut.dcm").write_bytes(cut.read_bytes())
    inside = server.post("/rep3d/dicom/import").json()
    (image,) = inside["imported"]
    code = next(name for name in inside["failed"] if name.startswith("DICOM-"))
    assert code in server.log and "cut.dcm" not in server.log
    told = server.get("/rep3d/status").json()["passed_over"]["groups"]
    assert code in [file for group in told for file in group["files"]]
    for file in studies.glob("*.dcm"):
        file.unlink()
    remove(server, studies, {**found, "images": [*found["images"], image]})


def test_a_real_series_through_the_client(server: AppServer, studies: Path, shared_data: Path, tmp_path: Path) -> None:
    source = shared_data / "dicom_mr" / "hippocampus_crop"
    (tmp_path / "all.zip").write_bytes(pack(source))
    client = Rep3DClient(server.url)
    seen: list[tuple[int, int | None]] = []
    found = client.upload_dicom(tmp_path / "all.zip", progress=lambda done, total: seen.append((done, total)))
    (image,) = found.images
    (folder,) = before = sorted(studies.glob("dicom-*"))
    assert found.failed == () and seen[-1] == ((tmp_path / "all.zip").stat().st_size,) * 2
    file = as_nifti(client.image(image, tmp_path), tmp_path / "image.nii.gz")
    assert nib.load(file).shape[2] == len(list(source.iterdir()))
    again = client.upload_dicom(tmp_path / "all.zip")
    assert (again.images, again.known) == ((), (image,)) and sorted(studies.glob("dicom-*")) == before
    with pytest.raises(InvalidRequestError, match="Nothing was changed"), unchanged(studies):
        (tmp_path / "none.zip").write_bytes(packed_entries({"a.txt": b"hello"}))
        client.upload_dicom(tmp_path / "none.zip")
    remove(server, studies, {"images": found.images, "folder": folder.name})


DICOM = bytes(128) + b"DICM" + bytes(2000)


def _link(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFLNK | 0o777) << 16


def _device(entry: zipfile.ZipInfo) -> None:
    entry.external_attr = (stat.S_IFBLK | 0o666) << 16


def _damaged() -> bytes:
    content = bytearray(packed_entries({"a.dcm": DICOM + bytes(range(256)) * 20}))
    content[60:90] = bytes(30)
    return bytes(content)


def _declaring(size: int, count: int = 1) -> bytes:
    """Return a file whose list of contents lies about the size of its entries."""
    content = bytearray(packed_entries({f"{number}.dcm": DICOM for number in range(count)}))
    place = 0
    for _ in range(count):
        place = content.index(b"PK\x01\x02", place + 1)
        struct.pack_into("<I", content, place + 24, size)
    return bytes(content)


def _encrypted() -> bytes:
    content = bytearray(packed_entries({"a.dcm": DICOM}))
    content[content.rindex(b"PK\x01\x02") + 8] |= 1
    return bytes(content)


def _many() -> bytes:
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w") as archive:
        for number in range(20_001):
            archive.writestr(f"{number}.dcm", b"")
    return packed.getvalue()


BAD = {
    "no zip": (b"hello", "no .zip file"),
    "nothing": (b"", "no .zip file"),
    "only an end": (b"PK\x05\x06" + bytes(10), "no .zip file"),
    "half": (packed_entries({"a.dcm": DICOM * 50})[:-30], "no .zip file"),
    "empty": (packed_entries({}), "no DICOM files"),
    "no DICOM": (packed_entries({"a.dcm": b"no", "b.zip": packed_entries({"a.dcm": DICOM})}), "no DICOM files"),
    "absolute": (packed_entries({"/etc/a.dcm": DICOM}), "leads elsewhere"),
    "up": (packed_entries({"good.dcm": DICOM, "a/../../b.dcm": DICOM}), "leads elsewhere"),
    "up in the way of Windows": (packed_entries({"..\\b.dcm": DICOM}), "leads elsewhere"),
    "a drive": (packed_entries({"C:\\b.dcm": DICOM}), "leads elsewhere"),
    "a line break": (packed_entries({"a\nb.dcm": DICOM}), "leads elsewhere"),
    "a long name": (packed_entries({"a/" * 2000: b""}), "leads elsewhere"),
    "a link": (packed_entries({"a.dcm": b"/etc/passwd"}, _link), "a link or a device"),
    "a device": (packed_entries({"a.dcm": b""}, _device), "a link or a device"),
    "a password": (_encrypted(), "encrypted"),
    "damaged": (_damaged(), "damaged"),
    "too much declared": (_declaring(1 << 20), "damaged"),
    "far too much declared": (_declaring(0xFFFFFFF0, 2), "GiB"),
    "DICOM in name only": (packed_entries({"a.dcm": DICOM}), "no images among them"),
    "too little declared": (_declaring(200), "damaged"),
    "another way of packing": (
        packed_entries({"a.dcm": DICOM}, lambda entry: setattr(entry, "compress_type", zipfile.ZIP_LZMA)),
        "in an unusual way",
    ),
}


@pytest.mark.parametrize("name", BAD)
def test_a_bad_file_leaves_nothing_behind(server: AppServer, studies: Path, name: str) -> None:
    content, words = BAD[name]
    with unchanged(studies):
        answer = server.put("/rep3d/dicom", files={"file": ("file.zip", content)})
    assert answer.status_code == 422 and words in answer.json()["detail"], answer.text
    assert not list(studies.glob("dicom-*")) and not (studies / "rep3d" / "incoming").exists()


def test_too_many_files_and_no_file(server: AppServer, studies: Path) -> None:
    with unchanged(studies):
        answer = server.put("/rep3d/dicom", files={"file": ("file.zip", _many())})
        assert answer.status_code == 422 and "more than 20000 files" in answer.json()["detail"]
        assert server.put("/rep3d/dicom").status_code == 422
        assert server.put("/rep3d/dicom", data={"file": "text"}).status_code == 422


# The parts, in this process ----------------------------------------------------------------------------------


def test_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib.dicom import upload as dicom_upload
    from lib.dicom.upload import Limits, unpack_dicom
    from lib.errors import DiskFullError, RequestError

    content = packed_entries({f"{number}.dcm": DICOM + bytes(100_000) for number in range(4)})

    def refused(limits: Limits, kind: type[Exception] = RequestError) -> str:
        with pytest.raises(kind) as caught:
            unpack_dicom(io.BytesIO(content), tmp_path / "out", limits)
        assert not list(tmp_path.iterdir())
        return str(caught.value)

    assert "more than 3 files" in refused(Limits(files=3))
    assert "Unpacked, the .zip file has more" in refused(Limits(bytes=300_000))
    assert "more than 0 files" in refused(Limits(files=0))  # already by the size of the list of contents
    monkeypatch.setattr(dicom_upload, "_checked_entries", lambda archive, limits: archive.infolist())
    assert "Unpacked, the .zip file has more" in refused(Limits(bytes=300_000))  # by what really comes
    monkeypatch.undo()
    monkeypatch.setattr(dicom_upload, "_SPARE", 1 << 60)
    assert "Make room" in refused(Limits(), DiskFullError)
    monkeypatch.undo()
    assert unpack_dicom(io.BytesIO(content), tmp_path / "out", Limits(files=4)) == 4


def test_a_full_disk_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lib.dicom import upload as dicom_upload
    from lib.errors import DiskFullError

    def full(*arguments: object) -> None:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(dicom_upload, "_write", full)
    with pytest.raises(DiskFullError, match="No space left"):
        dicom_upload.unpack_dicom(io.BytesIO(packed_entries({"a.dcm": DICOM})), tmp_path / "out")
    assert not list(tmp_path.iterdir())
