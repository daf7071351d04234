"""What files say of their own values: joined by name where that is certain, else refused; never the server's guess."""

from __future__ import annotations

import gzip
import zlib
from pathlib import Path

import nibabel as nib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from lib.channels import ONE
from lib.errors import RequestError
from lib.labels.formats import as_nifti
from lib.labels.segments import Segment, one_map
from lib.labels.submission import PreparedLabel, SubmitOptions, described_values, prepare_label

from rep3d.errors import LabelError
from tests.app.data import AFFINE, write_nifti
from tests.app.nrrd_files import segments, write_nrrd

SERVER = {"A": 1, "B": 2}
SHAPE = (6, 5, 4)
GRID = " ".join(map(str, SHAPE))


@pytest.fixture
def image(tmp_path: Path) -> Path:
    return write_nifti(tmp_path / "image.nii.gz", np.zeros(SHAPE, np.int16))


def drawn(*boxes: tuple[slice, int], kind: type = np.uint8) -> np.ndarray:
    """Return voxels with a value in some slabs along the first axis."""
    voxels = np.zeros(SHAPE, kind)
    for part, value in boxes:
        voxels[part] = value
    return voxels


LOW, HIGH = slice(0, 2), slice(3, 6)
A_AND_B = drawn((LOW, 1), (HIGH, 2))


def prepared(tmp_path: Path, image: Path, file: Path, **described: int) -> PreparedLabel:
    scratch = tmp_path / "scratch"
    scratch.mkdir()
    return prepare_label(file, image, ONE, SERVER, described, SubmitOptions(), scratch)


def voxels_of(label: PreparedLabel) -> np.ndarray:
    return np.asanyarray(nib.load(label.file).dataobj)


@pytest.mark.parametrize(
    ("layers", "keys", "joined"),
    [
        ([drawn((LOW, 7), (HIGH, 1))], segments(("A", 0, 7), ("B", 0, 1)), None),
        ([drawn((LOW, 1), (3, 5), (slice(4, 6), 2))], segments(("A", 0, 1), ("B", 0, 5), ("B", 0, 2)), ["B"]),
        ([drawn((LOW, 1)), drawn((HIGH, 1))], segments(("A", 0, 1), ("B", 1, 1)), None),
        ([drawn((0, 1)), drawn((LOW, 1)), drawn((HIGH, 3))], segments(("A", 0, 1), ("A", 1, 1), ("B", 2, 3)), ["A"]),
        ([A_AND_B], segments((" A ", 0, 1), ("B", 0, 2), ("Segment_1", 0, 9)), None),
        ([A_AND_B], segments(("background", 0, 0), ("A", 0, 1), ("B", 0, 2), ("B", 0, 2)), None),
        ([A_AND_B], [("Segment3_ID", "A"), ("Segment3_LabelValue", "1"), *segments(("B", 0, 2))], None),
        ([drawn((LOW, 1)), drawn((HIGH, 1))], [("Segment0_Name", "A"), ("Segment1_Name", "B")], None),
    ],
    ids=[
        "other values",
        "two values of one name",
        "layers",
        "one name in two layers",
        "unknown without voxels, white space",
        "background, a segment twice",
        "a gap in the numbers, an id for a name",
        "before Slicer 4.11: a layer each, no values",
    ],
)
@pytest.mark.parametrize("list_last", [False, True])
def test_what_is_certain_is_stored_by_name(
    tmp_path: Path, image: Path, layers: list, keys: list, joined: list | None, list_last: bool
) -> None:
    file = write_nrrd(tmp_path / "s.seg.nrrd", layers, keys, list_last=list_last)
    label = prepared(tmp_path, image, file)
    np.testing.assert_array_equal(voxels_of(label), A_AND_B)
    assert label.changes["converted"] == {"from": ".seg.nrrd", **({"joined": joined} if joined else {})}


@pytest.mark.parametrize(
    ("layers", "keys", "words"),
    [
        ([A_AND_B], segments(("A", 0, 1)), "60 voxels with the value 2 that no segment names. Its segments are A 1"),
        ([A_AND_B], segments(("A", 0, 2)), "value 1 that no segment names"),
        ([A_AND_B], segments(("A", 0, 1), ("B", 0, 1)), "two names for the voxel value 1"),
        ([A_AND_B], segments(("A", 0, 1), ("C", 0, 2)), "does not know: C"),
        ([A_AND_B], segments(("a", 0, 1), ("B", 0, 2)), "'a' is 'A' here"),
        ([A_AND_B], segments(("A", 0, 0), ("B", 0, 2)), "the voxel value 0 for 'A'"),
        ([A_AND_B], segments(("A", 0, 1), ("B", 1, 2)), "in layer 1, but has only the layers 0 to 0"),
        ([A_AND_B], [("Segment0_Name", "A"), ("Segment1_Name", "B")], "in layer 1, but"),
        ([A_AND_B], segments(("A", 0, 1), ("", 0, 2)), "without a name"),
        ([A_AND_B], segments(("A", 0, 1), ("B\udce9", 0, 2)), "without a name that is text in UTF-8"),
        ([A_AND_B], [*segments(("A", 0, 1), ("B", 0, 2)), ("Segment1_Name", "A")], "Segment1_Name twice, 'B' and 'A'"),
        ([A_AND_B], [*segments(("A", 0, 1)), ("Segment1_Name", "B"), ("Segment1_LabelValue", "x")], "no whole numbers"),
        ([A_AND_B], [], "without the name of a single segment"),
        ([drawn((LOW, 1), kind=np.int16), -A_AND_B.astype(np.int16)], segments(("A", 0, 1), ("B", 1, 2)), "value -"),
        ([drawn((LOW, 1)), drawn((slice(1, 6), 1))], segments(("A", 0, 1), ("B", 1, 1)), r"'A' and 'B' \(20 voxels"),
        ([drawn((LOW, 1)), drawn((HIGH, 3))], segments(("A", 0, 1), ("B", 1, 2)), "value 3 in layer 1 that no segment"),
        ([drawn((LOW, 1)), drawn((HIGH, 1))], [], "one layer"),
    ],
)
def test_what_is_not_certain_is_refused(tmp_path: Path, image: Path, layers: list, keys: list, words: str) -> None:
    with pytest.raises(LabelError, match=words):
        prepared(tmp_path, image, write_nrrd(tmp_path / "s.seg.nrrd", layers, keys))


def test_a_segmentation_without_segments_needs_names_from_its_sender(tmp_path: Path, image: Path) -> None:
    file = write_nrrd(tmp_path / "s.seg.nrrd", [A_AND_B])
    np.testing.assert_array_equal(voxels_of(prepared(tmp_path, image, file, A=1, B=2)), A_AND_B)
    (tmp_path / "scratch").rename(tmp_path / "scratch-1")
    with pytest.raises(LabelError, match="without the name"):
        prepared(tmp_path, image, file, A=1)
    (tmp_path / "scratch").rename(tmp_path / "scratch-2")
    mitk = [("org.mitk.multilabel.segmentation.labelgroups", '[{"labels": [{"name": "B", "value": 1}]}]')]
    with pytest.raises(LabelError, match="MITK"):
        prepared(tmp_path, image, write_nrrd(tmp_path / "m.nrrd", [A_AND_B], mitk))


def _turned(space: str, x: int, y: int) -> dict[str, str]:
    rows = np.diag([x, y, 1.0]) @ AFFINE[:3]
    vectors = ["(" + ",".join(map(repr, column)) + ")" for column in rows.T.tolist()]
    return {"space": space, "space directions": " ".join(vectors[:3]), "space origin": vectors[3]}


PLAIN = A_AND_B.tobytes(order="F")


@pytest.mark.parametrize(
    ("fields", "body"),
    [
        (_turned("right-anterior-superior", 1, 1), None),
        (_turned("RAS", 1, 1), None),
        (_turned("LAS", -1, 1), None),
        (_turned("LPS", -1, -1), None),
        ({"encoding": "gzip"}, gzip.compress(PLAIN, mtime=0)),
        ({"encoding": "ascii"}, b" ".join(b"%d" % value for value in PLAIN)),
        ({"encoding": "hex"}, PLAIN.hex().encode()),
        ({"type": "ushort", "endian": "big"}, A_AND_B.astype(">u2").tobytes(order="F")),
        ({"type": "double"}, A_AND_B.astype("<f8").tobytes(order="F")),
        ({"space units": '"mm" "mm" "mm"'}, None),
    ],
)
@pytest.mark.parametrize("name", ["s.seg.nrrd", "s.nrrd"])
def test_nrrd_of_other_programs(tmp_path: Path, image: Path, fields: dict, body: bytes | None, name: str) -> None:
    keys = segments(("A", 0, 1), ("B", 0, 2)) if name == "s.seg.nrrd" else ()
    label = prepared(tmp_path, image, write_nrrd(tmp_path / name, [A_AND_B], keys, fields, body))
    np.testing.assert_array_equal(voxels_of(label), A_AND_B)
    assert set(label.changes) == {"converted"}


@pytest.mark.parametrize(
    ("fields", "words"),
    [
        ({"space": None, "space directions": None, "space origin": None}, "where its voxels lie .*space is missing"),
        ({"space": "scanner-xyz"}, "where its voxels lie .*space is scanner-xyz"),
        ({"space": "3D-right-handed"}, "where its voxels lie .*space is 3D"),
        ({"space units": '"cm" "cm" "cm"'}, "where its voxels lie .*units are"),
        ({"data file": "other.raw"}, "names another file"),
        ({"encoding": "bzip2"}, "cannot be read"),
        ({"sizes": "60 5 4"}, "announces 1,200 bytes of voxels, and 120 follow"),
        ({"sizes": "1000 1000 1000"}, "announces 1,000,000,000 bytes of voxels, and 120 follow"),
        ({"sizes": "1000 1000 1000", "encoding": "ascii"}, "announces 1,000,000,000 bytes"),
        ({"sizes": "4000 4000 4000"}, "4000 x 4000 x 4000 voxels by its header, 64,000,000,000 in all"),
        ({"encoding": "gzip", "byte skip": "-1"}, "says to skip"),
    ],
)
def test_nrrd_that_does_not_say_enough_is_refused(tmp_path: Path, image: Path, fields: dict, words: str) -> None:
    keys = segments(("A", 0, 1), ("B", 0, 2))
    with pytest.raises(LabelError, match=words):
        prepared(tmp_path, image, write_nrrd(tmp_path / "s.seg.nrrd", [A_AND_B], keys, fields))


def test_packed_voxels_are_read_to_their_checksum_and_no_further(tmp_path: Path, image: Path) -> None:
    good = gzip.compress(PLAIN)
    flipped = good[:-8] + bytes([good[-8] ^ 1]) + good[-7:]
    long = gzip.compress(PLAIN + bytes(1 << 26))
    bad = {
        good[:-3]: "unpacked",
        flipped: "unpacked",
        good[:20]: "unpacked",
        gzip.compress(PLAIN[:-1]): "119 follow",
        long: "more follow",
    }
    keys, fields = segments(("A", 0, 1), ("B", 0, 2)), {"encoding": "gzip"}
    for content, words in bad.items():
        file = write_nrrd(tmp_path / "s.seg.nrrd", [A_AND_B], keys, fields, content)
        with pytest.raises(LabelError, match=f"s.seg.nrrd .*{words}"):
            as_nifti(file, image, tmp_path)
    place = "TransformMatrix = 1 0 0 0 1 0 0 0 1\nOffset = 0 0 0\n"
    head = f"NDims = 3\n{place}CompressedData = True\nDimSize = {GRID}\nElementType = MET_UCHAR\n"
    packed = zlib.compress(PLAIN)
    bad = {
        packed[:-2]: "unpacked",
        packed[:-1] + bytes([packed[-1] ^ 1]): "unpacked",
        zlib.compress(PLAIN[:-1]): "119 follow",
        zlib.compress(bytes(1 << 26)): "more follow",
        b"": "unpacked",
    }
    file = tmp_path / "s.mha"

    def write(content: bytes, size: int | None = None) -> None:
        told = f"CompressedDataSize = {len(content) if size is None else size}\n"
        file.write_bytes(f"{head}{told}ElementDataFile = LOCAL\n".encode() + content)

    for content, words in bad.items():
        write(content)
        with pytest.raises(LabelError, match=f"s.mha .*{words}"):
            as_nifti(file, image, tmp_path)
    write(packed, len(packed) - 1)  # ITK says "Uncompress failed" to nobody, and makes up the voxels
    with pytest.raises(LabelError, match="CompressedDataSize"):
        as_nifti(file, image, tmp_path)
    write(packed)
    (layer,) = as_nifti(tmp_path / "s.mha", image, tmp_path).layers
    np.testing.assert_array_equal(np.asanyarray(nib.load(layer).dataobj), A_AND_B)


def test_metaimage_without_a_place_is_refused(tmp_path: Path, image: Path) -> None:
    lines = ["NDims = 3", f"DimSize = {GRID}", "ElementType = MET_UCHAR", "ElementDataFile = LOCAL", ""]
    (tmp_path / "s.mha").write_bytes("\n".join(lines).encode() + PLAIN)
    with pytest.raises(LabelError, match="TransformMatrix is missing"):
        prepared(tmp_path, image, tmp_path / "s.mha")


def test_detached_headers_are_none_of_the_types(tmp_path: Path, image: Path) -> None:
    with pytest.raises(LabelError, match="nhdr"):
        prepared(tmp_path, image, write_nrrd(tmp_path / "s.nhdr", [A_AND_B]))


def test_two_lists_of_values_must_agree() -> None:
    both = {"label_info": [{"name": "A", "idx": 1}, {"name": "B"}], "labels": {"A": 1.0, "B": 2}}
    assert described_values(both) == {"A": 1, "B": 2}
    with pytest.raises(RequestError, match="'A' has the value 1 in label_info and 2 in labels"):
        described_values({**both, "labels": {"A": 2}})


@settings(max_examples=25, derandomize=True, deadline=None)
@given(st.data())
def test_each_voxel_keeps_its_name_or_nothing_is_made(data: st.DataObject) -> None:
    names = data.draw(st.lists(st.sampled_from(["A", "B", "C"]), min_size=1, max_size=4))
    places = [(data.draw(st.integers(0, 1)), data.draw(st.integers(1, 3))) for _ in names]
    table = [Segment(name, layer, value) for name, (layer, value) in zip(names, places, strict=True)]
    layers = []
    for number in range(2):
        named = [value for layer, value in places if layer == number]
        voxels = st.lists(
            st.sampled_from([0, 0, *named, *data.draw(st.sampled_from([[], [], [3]]))]), min_size=4, max_size=4
        )
        layers.append(np.array(data.draw(voxels), np.uint8).reshape(1, 2, 2))
    said = [
        {s.name for s in table for layer, value in enumerate(voxel) if (s.layer, s.value) == (layer, value)}
        for voxel in zip(layers[0].ravel(), layers[1].ravel(), strict=True)
    ]
    nameless = any(value and not any((s.layer, s.value) == (layer, value) for s in table)
                   for layer, voxels in enumerate(layers) for value in voxels.ravel())  # fmt: skip
    doubled = any(s.name != t.name and (s.layer, s.value) == (t.layer, t.value) for s in table for t in table)
    if nameless or doubled or any(len(found) > 1 for found in said):
        with pytest.raises(LabelError):
            one_map(layers, table, "file")
        return
    result, values, _ = one_map(layers, table, "file")
    found = [{name for name, value in values.items() if value == voxel} for voxel in result.ravel()]
    assert found == said
