"""`.seg.nrrd` files, written for and read from Slicer's own storage code (slicer-core)."""

from __future__ import annotations

import gzip
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from Rep3DLabelLib.errors import BadAnswer, LocalProblem
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry, read, write
from Rep3DLabelLib.labels import LABEL_TAG

TERM = "Segmentation category and type~SCT^123037004^Anatomical Structure~SCT^10200004^Liver~^^~Anatomic codes~^^~^^"


def oblique() -> np.ndarray:
    """Return an oblique, anisotropic, right-handed grid."""
    turn, _ = np.linalg.qr(np.random.default_rng(4).normal(size=(3, 3)))
    turn[:, 0] *= np.sign(np.linalg.det(turn))
    affine = np.eye(4)
    affine[:3, :3] = turn @ np.diag([0.51, 0.77, 1.9])
    affine[:3, 3] = [11.3, -200.7, 33.1]
    return affine


def entries(names: list[str], layers: int = 1) -> tuple[SegmentEntry, ...]:
    """Return segments with these names; their values go through the layers in turn."""
    return tuple(
        SegmentEntry(
            f"rep3d_{number}",
            name,
            (number / 7 % 1, 1 / 3, 0.1),
            number % layers,
            number // layers + 1,
            {LABEL_TAG: name, "TerminologyEntry": TERM, "Segmentation.Status": "inprogress"},
        )
        for number, name in enumerate(names)
    )


def random_layers(count: int, shape: tuple[int, ...], highest: int, dtype: type) -> tuple[np.ndarray, ...]:
    rng = np.random.default_rng(9)
    return tuple(rng.integers(0, highest + 1, shape).astype(dtype) for _ in range(count))


def same(one: SegmentationData, other: SegmentationData) -> bool:
    assert one.extent == other.extent and one.shape == other.shape and one.segments == other.segments
    assert np.array_equal(one.ijk_to_ras, other.ijk_to_ras)
    assert len(one.layers) == len(other.layers)
    return all(np.array_equal(a, b) for a, b in zip(one.layers, other.layers, strict=True))


@pytest.fixture
def load(slicer) -> Callable:
    """Load a file as Slicer does; give the node."""

    def loaded(path: Path):
        node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLSegmentationNode")
        storage = slicer.vtkMRMLSegmentationStorageNode()
        slicer.mrmlScene.AddNode(storage)
        storage.SetFileName(str(path))
        assert storage.ReadData(node) == 1, storage.GetUserMessages().GetAllMessagesAsString()
        assert not storage.GetUserMessages().GetAllMessagesAsString()
        return node

    return loaded


def voxels_of(slicer, node, identifier: str, shape: tuple[int, int, int]) -> np.ndarray:
    """Return where a loaded segment is, on the whole reference grid (K, J, I); check the grid of its image, too."""
    from vtk.util.numpy_support import vtk_to_numpy

    segment = node.GetSegmentation().GetSegment(identifier)
    image = segment.GetRepresentation("Binary labelmap")
    i0, i1, j0, j1, k0, k1 = image.GetExtent()
    full = np.zeros(shape[::-1], bool)
    if i1 >= i0:
        array = vtk_to_numpy(image.GetPointData().GetScalars()).reshape(k1 - k0 + 1, j1 - j0 + 1, i1 - i0 + 1)
        full[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = array == segment.GetLabelValue()
    return full


def matrix_of(slicer, image) -> np.ndarray:
    matrix = slicer.vtkMatrix4x4() if hasattr(slicer, "vtkMatrix4x4") else __import__("vtk").vtkMatrix4x4()
    image.GetImageToWorldMatrix(matrix)
    return np.array([[matrix.GetElement(row, column) for column in range(4)] for row in range(4)])


def tags_of(segment) -> dict[str, str]:
    import vtk

    found = {}
    for key in (LABEL_TAG, "TerminologyEntry", "Segmentation.Status"):
        value = vtk.mutable("")
        if segment.GetTag(key, value):
            found[key] = str(value)
    return found


ONE = random_layers(1, (4, 5, 6), 2, np.uint8)
TWO = random_layers(2, (4, 5, 6), 2, np.uint8)
THREE = random_layers(3, (2, 3, 1), 2, np.int16)
MANY = random_layers(1, (8, 9, 10), 300, np.uint16)
TINY = (np.ones((1, 1, 2), np.uint8),)
CASES = [
    SegmentationData(ONE, (3, 8, 2, 6, 1, 4), (12, 13, 14), oblique(), entries(["a", "b"])),
    SegmentationData(TWO, (0, 5, 0, 4, 0, 3), (6, 5, 4), oblique(), entries(["a", "b", "c", "d"], 2)),
    SegmentationData(THREE, (5, 5, 0, 2, 7, 8), (6, 5, 9), np.eye(4), entries(["Léber", "脾臓", "x|y:z"], 3)),
    SegmentationData(MANY, (0, 9, 0, 8, 0, 7), (10, 9, 8), oblique(), entries([f"s{n}" for n in range(300)])),
    SegmentationData(TINY, (4, 5, 3, 3, 2, 2), (6, 5, 4), oblique(), entries(["tiny"])),
]
IDS = ["one layer", "two layers", "three layers", "300 segments", "two voxels"]


@pytest.mark.parametrize("data", CASES, ids=IDS)
def test_slicer_loads_what_is_written(slicer, load, tmp_path: Path, data: SegmentationData) -> None:
    write(tmp_path / "draft.seg.nrrd", data)
    node = load(tmp_path / "draft.seg.nrrd")
    segmentation = node.GetSegmentation()
    assert segmentation.GetNumberOfSegments() == len(data.segments)
    assert segmentation.GetNumberOfLayers() == len(data.layers)
    i0, i1, j0, j1, k0, k1 = data.extent
    for number, entry in enumerate(data.segments):
        assert segmentation.GetNthSegmentID(number) == entry.id
        segment = segmentation.GetSegment(entry.id)
        assert segment.GetName() == entry.name
        assert segment.GetColor() == pytest.approx(entry.colour, abs=1e-12)
        assert segment.GetLabelValue() == entry.value
        assert tags_of(segment) == {**entry.tags, LABEL_TAG: entry.name.replace("|", "/")}
        drawn = np.zeros(data.shape[::-1], bool)
        drawn[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = data.layers[entry.layer] == entry.value
        assert np.array_equal(voxels_of(slicer, node, entry.id, data.shape), drawn)
        image = segment.GetRepresentation("Binary labelmap")
        assert np.allclose(matrix_of(slicer, image), data.ijk_to_ras, atol=1e-12)
    geometry = segmentation.GetConversionParameter("Reference image geometry")
    expected = [*data.ijk_to_ras.ravel(), 0, data.shape[0] - 1, 0, data.shape[1] - 1, 0, data.shape[2] - 1]
    assert [float(number) for number in geometry.strip(";").split(";")] == expected


@pytest.mark.parametrize("data", CASES, ids=IDS)
def test_what_is_written_is_read(tmp_path: Path, data: SegmentationData) -> None:
    write(tmp_path / "draft.seg.nrrd", data)
    assert same(read(tmp_path / "draft.seg.nrrd"), data)


@pytest.mark.parametrize("compressed", [False, True])
@pytest.mark.parametrize("cropped", [False, True])
@pytest.mark.parametrize("data", CASES, ids=IDS)
def test_what_slicer_writes_is_read(
    slicer, load, tmp_path: Path, data: SegmentationData, compressed: bool, cropped: bool
) -> None:
    write(tmp_path / "draft.seg.nrrd", data)
    node = load(tmp_path / "draft.seg.nrrd")
    storage = slicer.vtkMRMLSegmentationStorageNode()
    slicer.mrmlScene.AddNode(storage)
    storage.SetUseCompression(compressed)
    storage.SetCropToMinimumExtent(cropped)
    storage.SetFileName(str(tmp_path / "slicer.seg.nrrd"))
    assert storage.WriteData(node) == 1
    found = read(tmp_path / "slicer.seg.nrrd")
    assert found.shape == data.shape and np.allclose(found.ijk_to_ras, data.ijk_to_ras, atol=1e-12)
    i0, i1, j0, j1, k0, k1 = data.extent
    for entry, own in zip(found.segments, data.segments, strict=True):
        value = node.GetSegmentation().GetSegment(own.id).GetLabelValue()  # Slicer joins layers where it can
        assert (entry.id, entry.name, entry.value) == (own.id, own.name, value)
        assert entry.colour == pytest.approx(own.colour, abs=1e-5)
        assert dict(entry.tags) == {**own.tags, LABEL_TAG: own.name.replace("|", "/")}
        drawn, expected = np.zeros((2, *data.shape[::-1]), bool)
        expected[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = data.layers[own.layer] == own.value
        a0, a1, b0, b1, c0, c1 = found.extent
        drawn[c0 : c1 + 1, b0 : b1 + 1, a0 : a1 + 1] = found.layers[entry.layer] == entry.value
        assert np.array_equal(drawn, expected)


def test_nothing_drawn_yet(slicer, load, tmp_path: Path) -> None:
    data = SegmentationData((), (0, -1, 0, -1, 0, -1), (6, 5, 4), oblique(), entries(["a", "b", "c"], 2))
    write(tmp_path / "draft.seg.nrrd", data)
    assert same(read(tmp_path / "draft.seg.nrrd"), data)
    segmentation = load(tmp_path / "draft.seg.nrrd").GetSegmentation()
    assert [segmentation.GetNthSegment(n).GetName() for n in range(3)] == ["a", "b", "c"]
    for number in range(3):
        segment = segmentation.GetNthSegment(number)
        assert segment.GetRepresentation("Binary labelmap").GetExtent() == (0, -1, 0, -1, 0, -1)
    # "a" and "b" both have the value 1: they must not share an image, or who paints one paints both
    images = [segmentation.GetNthSegment(n).GetRepresentation("Binary labelmap") for n in range(2)]
    assert images[0] is not images[1]


def test_no_segments_at_all(tmp_path: Path) -> None:
    data = SegmentationData((), (0, -1, 0, -1, 0, -1), (6, 5, 4), oblique(), ())
    write(tmp_path / "draft.seg.nrrd", data)
    assert same(read(tmp_path / "draft.seg.nrrd"), data)


def test_a_single_voxel(slicer, load, tmp_path: Path) -> None:
    """Slicer takes a file of one voxel for an empty one."""
    data = SegmentationData((np.full((1, 1, 1), 2, np.uint8),), (3, 3, 2, 2, 1, 1), (6, 5, 4), oblique(), entries("ab"))
    write(tmp_path / "draft.seg.nrrd", data)
    found = read(tmp_path / "draft.seg.nrrd")
    assert found.extent == (3, 4, 2, 2, 1, 1) and found.layers[0].tolist() == [[[2, 0]]]
    node = load(tmp_path / "draft.seg.nrrd")
    assert np.argwhere(voxels_of(slicer, node, "rep3d_1", data.shape)).tolist() == [[1, 2, 3]]


def test_a_segment_whose_layer_is_missing_is_kept(slicer, load, tmp_path: Path) -> None:
    data = SegmentationData(CASES[0].layers, CASES[0].extent, CASES[0].shape, oblique(), entries("abc", 3))
    write(tmp_path / "draft.seg.nrrd", data)
    assert load(tmp_path / "draft.seg.nrrd").GetSegmentation().GetNumberOfSegments() == 3
    assert read(tmp_path / "draft.seg.nrrd").segments == data.segments


NAMES = [
    " lead",
    "trail ",
    "",
    "a\rb",
    "line\nbreak",
    "back\\slash\\n",
    "a:=b",
    "|",
    ":",
    "\ud800",
    "#",
    "\t",
    "日本語",
]


@pytest.mark.parametrize("name", NAMES, ids=ascii)
def test_names_and_tags_come_back_as_they_are(load, tmp_path: Path, name: str) -> None:
    entry = SegmentEntry(f"id {name}", name, (0.1, 0.2, 1 / 3), 0, 1, {LABEL_TAG: name, f"key{name}": "value"})
    data = SegmentationData(CASES[0].layers, CASES[0].extent, CASES[0].shape, oblique(), (entry,))
    write(tmp_path / "draft.seg.nrrd", data)
    assert same(read(tmp_path / "draft.seg.nrrd"), data)
    shown = load(tmp_path / "draft.seg.nrrd").GetSegmentation().GetNthSegment(0).GetName()
    if name == name.strip() and name and "\r" not in name and "\ud800" not in name:
        assert shown == name


def test_layers_of_different_types(tmp_path: Path) -> None:
    layers = (np.full((2, 3, 4), 7, np.uint8), np.full((2, 3, 4), 700, np.uint16), np.full((2, 3, 4), -7, np.int16))
    data = SegmentationData(layers, (0, 3, 0, 2, 0, 1), (4, 3, 2), oblique(), entries("abc", 3))
    write(tmp_path / "draft.seg.nrrd", data)
    assert same(read(tmp_path / "draft.seg.nrrd"), data)
    assert {layer.dtype for layer in read(tmp_path / "draft.seg.nrrd").layers} == {np.dtype(np.int16)}


def test_layers_that_are_views(tmp_path: Path) -> None:
    full = np.random.default_rng(0).integers(0, 3, (9, 8, 7)).astype(np.uint8)
    data = SegmentationData((full[::-1, ::2, 1:5],), (0, 3, 0, 3, 0, 8), (7, 8, 9), oblique(), entries("ab"))
    write(tmp_path / "draft.seg.nrrd", data)
    assert same(read(tmp_path / "draft.seg.nrrd"), data)


@pytest.mark.parametrize("space", ["right-anterior-superior", "LAS", "left-posterior-superior"])
@pytest.mark.parametrize("order", ["little", "big"])
@pytest.mark.parametrize("packed", [False, True])
def test_files_of_other_programs(tmp_path: Path, space: str, order: str, packed: bool) -> None:
    """No reference image, no offset: the grid is the file's."""
    voxels = np.random.default_rng(0).integers(0, 300, (4, 3, 2)).astype(">u2" if order == "big" else "<u2")
    x, y = {"right-anterior-superior": (1, 1), "LAS": (-1, 1), "left-posterior-superior": (-1, -1)}[space]
    header = (
        f"NRRD0005\r\n# made by hand\r\ntype: uint16\r\ndimension: 3\r\nspace: {space}\r\nsizes: 2 3 4\r\n"
        f"space directions: ({0.5 * x},0,0) (0,{0.7 * y},0) (0,0,2)\r\nkinds: domain domain domain\r\n"
        f"endian: {order}\r\nencoding: {'gzip' if packed else 'raw'}\r\nspace origin: ({10 * x},{20 * y},30)\r\n"
        "Segment0_ID:=one\r\nSegment0_Name:=One\r\nSegment0_LabelValue:=7\r\nSegment0_Layer:=0\r\n\r\n"
    )
    content = voxels.tobytes()
    (tmp_path / "a.seg.nrrd").write_bytes(header.encode() + (gzip.compress(content) if packed else content))
    found = read(tmp_path / "a.seg.nrrd")
    assert np.array_equal(found.layers[0], voxels) and found.layers[0].dtype == np.uint16
    assert np.allclose(found.ijk_to_ras, [[0.5, 0, 0, 10], [0, 0.7, 0, 20], [0, 0, 2, 30], [0, 0, 0, 1]])
    assert (found.extent, found.shape) == ((0, 1, 0, 2, 0, 3), (2, 3, 4))
    assert found.segments == (SegmentEntry("one", "One", (0.5, 0.5, 0.5), 0, 7, {}),)


def test_a_segmentation_on_a_grid_of_its_own(tmp_path: Path) -> None:
    """Slicer keeps the geometry of the image although the user has changed that of the segments."""
    write(tmp_path / "draft.seg.nrrd", CASES[0])
    content = (tmp_path / "draft.seg.nrrd").read_bytes()
    start = content.index(b"Reference image geometry|")
    end = content.index(b"|&", start)
    other = b"Reference image geometry|1;0;0;0;0;1;0;0;0;0;1;0;0;0;0;1;0;99;0;99;0;99;"
    (tmp_path / "other.seg.nrrd").write_bytes(content[:start] + other + content[end:])
    found = read(tmp_path / "other.seg.nrrd")
    assert np.allclose(found.ijk_to_ras, oblique(), atol=1e-9) and found.extent == CASES[0].extent
    shifted = b"Reference image geometry|" + b";".join(
        repr(float(number)).encode() for number in (*oblique().ravel(), 2, 13, 2, 14, 1, 14)
    )
    (tmp_path / "other.seg.nrrd").write_bytes(content[:start] + shifted + b";" + content[end:])
    found = read(tmp_path / "other.seg.nrrd")  # the image's first voxel is not index 0 there
    assert found.shape == (12, 13, 14) and found.extent == (1, 6, 0, 4, 0, 3)
    assert np.allclose(found.ijk_to_ras[:3, 3], (oblique() @ (2, 2, 1, 1))[:3])


def test_no_segment_is_passed_over(tmp_path: Path) -> None:
    """A gap in their numbers, no id, or no layer where there is one only: as people and programs leave them."""
    write(tmp_path / "draft.seg.nrrd", CASES[0])
    content = (tmp_path / "draft.seg.nrrd").read_bytes().replace(b"Segment1_", b"Segment4_")
    content = content.replace(b"Segment4_ID:=rep3d_1\n", b"").replace(b"Segment4_Layer:=0\n", b"")
    (tmp_path / "odd.seg.nrrd").write_bytes(content.replace(b"Segment4_Rep3DLabelExact", b"Other"))
    found = [
        (segment.id, segment.name, segment.layer, segment.value) for segment in read(tmp_path / "odd.seg.nrrd").segments
    ]
    assert found == [("rep3d_0", "a", 0, 1), ("Segment_4", "b", 0, 2)]


@pytest.mark.parametrize(
    ("change", "words"),
    [
        (lambda content: b"", "another kind of file"),
        (lambda content: b"PK\3\4" + content, "another kind of file"),
        (lambda content: content[:200], "no end"),
        (lambda content: content[:-1], "was cut"),
        (lambda content: content.replace(b"encoding: raw", b"encoding: bz2"), "raw or gzip"),
        (lambda content: content.replace(b"encoding: raw", b"encoding: gzip"), "damaged"),
        (lambda content: content.replace(b"type: unsigned char", b"type: float"), "whole numbers"),
        (lambda content: content.replace(b"sizes: 6", b"sizes: x"), "not complete or not right"),
        (lambda content: content.replace(b"sizes: 6", b"sizes: 0"), "three axes"),
        (lambda content: content.replace(b"dimension: 3", b"dimension: 2"), "three axes"),
        (lambda content: content.replace(b"space directions", b"directions"), "not complete or not right"),
        (lambda content: content.replace(b"left-posterior-superior", b"scanner-xyz"), "not complete or not right"),
        (lambda content: content.replace(b"encoding: raw", b"encoding: raw\ndata file: x.raw"), "another one"),
        (lambda content: content.replace(b"Segment0_Layer:=0", b"Segment0_Layer:=x"), "whole numbers"),
        (lambda content: content.replace(b"Segment0_Layer:=0", b"Segment0_Layer:=-1"), "contradiction"),
        (lambda content: content.replace(b"_ID:=rep3d_1", b"_ID:=rep3d_0"), "contradiction"),
        (lambda content: content.replace(b"Segment0_Layer:=0", b"Segment0_Layer:=1"), "voxels of .'a'."),
        (lambda content: content.replace(b"Segment0_Name:=a", b"Segment0_Name:=a\nSegment0_Name:=b"), "one value of"),
        (lambda content: content.replace(b"encoding: raw", b'encoding: raw\nspace units: "cm" "cm" "cm"'), "not mm"),
        (lambda content: content.replace(b"Segment0_Color:=0.0", b"Segment0_Color:=red"), "colour of three"),
        (lambda content: content.replace(b"Offset:=3 2 1", b"Offset:=3 2"), "3 whole numbers"),
    ],
)  # fmt: skip
def test_files_that_are_no_segmentation(tmp_path: Path, change: Callable[[bytes], bytes], words: str) -> None:
    write(tmp_path / "draft.seg.nrrd", CASES[0])
    content = (tmp_path / "draft.seg.nrrd").read_bytes()
    assert change(content) != content
    (tmp_path / "bad.seg.nrrd").write_bytes(change(content))
    with pytest.raises(BadAnswer, match=words):
        read(tmp_path / "bad.seg.nrrd")


def test_files_that_cannot_be_read_or_written(tmp_path: Path) -> None:
    with pytest.raises(LocalProblem, match="Cannot read"):
        read(tmp_path / "none.seg.nrrd")
    with pytest.raises(LocalProblem, match="Cannot write"):
        write(tmp_path / "none" / "draft.seg.nrrd", CASES[0])


def test_a_draft_that_cannot_be_written_leaves_the_older_one(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write(tmp_path / "draft.seg.nrrd", CASES[0])
    monkeypatch.setattr("os.replace", lambda *names: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(LocalProblem, match="No space left"):
        write(tmp_path / "draft.seg.nrrd", CASES[1])
    monkeypatch.undo()
    assert same(read(tmp_path / "draft.seg.nrrd"), CASES[0]) and len(list(tmp_path.iterdir())) == 1


def test_contradictions_are_refused() -> None:
    with pytest.raises(ValueError, match="Expected layers"):
        SegmentationData((np.zeros((2, 2, 2), np.uint8),), (0, 2, 0, 1, 0, 1), (3, 3, 3), np.eye(4), ())
    with pytest.raises(ValueError, match="Expected layers"):
        SegmentationData((np.zeros((2, 2, 2)),), (0, 1, 0, 1, 0, 1), (3, 3, 3), np.eye(4), ())
    with pytest.raises(ValueError, match="different segment ids"):
        SegmentationData((), (0, -1, 0, -1, 0, -1), (3, 3, 3), np.eye(4), entries("a") * 2)
    with pytest.raises(ValueError, match="extent of 6"):
        SegmentationData((), (0, -1), (3, 3, 3), np.eye(4), ())


@pytest.mark.timed
def test_a_draft_of_18_million_voxels_is_quick(tmp_path: Path) -> None:
    """It is written on the thread that draws."""
    layer = np.zeros((256, 264, 272), np.uint8)
    layer[50:200, 50:200, 50:200] = 1
    data = SegmentationData((layer,), (0, 271, 0, 263, 0, 255), (272, 264, 256), oblique(), entries("a"))
    seconds = []
    for _ in range(3):
        start = time.perf_counter()
        write(tmp_path / "draft.seg.nrrd", data)
        seconds.append(time.perf_counter() - start)
    assert min(seconds) < 0.1
