"""A worker, a scene and a screen that do what a test says, for tests of the workflow alone.

The real ones are used in `test_loop.py` and in their own tests; here is tested what happens when they answer late,
wrongly, not at all, or in an unusual order.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from Rep3DLabelLib.client.answers import ModelInfo, Sample, SegmentationFacts, ServerInfo
from Rep3DLabelLib.client.answers_status import Overview, ServerState
from Rep3DLabelLib.client.answers_train import TrainStatus
from Rep3DLabelLib.connection import ConnectionReport
from Rep3DLabelLib.drafts import Draft, Drafts
from Rep3DLabelLib.images.files import LabelFile, VolumeFile
from Rep3DLabelLib.images.segnrrd import SegmentationData, SegmentEntry
from Rep3DLabelLib.labels import LABEL_TAG, Label, SegmentName
from Rep3DLabelLib.settings import Settings
from Rep3DLabelLib.view import Question
from Rep3DLabelLib.worker.jobs import JobError
from Rep3DLabelLib.worker.results import Fetched, Measured, Segmented
from Rep3DLabelLib.workflow import Workflow

URL = "http://127.0.0.1:8000"
LABELS = (Label("head", 1, (200, 30, 30)), Label("tail", 3, (30, 30, 200)))
MODEL = ModelInfo("rep3d", "Rep3D", LABELS, "v1", trainable=True)
INFO = ServerInfo(
    name="Rep3D Label",
    version="0.1.0",
    labels={"head": 1, "tail": 3},
    models={"rep3d": MODEL},
    strategies={"first": "In order", "hybrid": "Unsure and different"},
    default_model="rep3d",
    default_strategy="hybrid",
    device="cpu",
    device_name="CPU",
    total=5,
    completed=1,
    published_version="v1",
    model_error="",
)
READY_REPORT = ConnectionReport("ready", "Connected.", INFO, URL)
MATRIX = ((1.0, 0.0, 0.0, 0.0), (0.0, 1.0, 0.0, 0.0), (0.0, 0.0, 2.0, 0.0), (0.0, 0.0, 0.0, 1.0))
SHAPE = (4, 3, 2)
VOLUME = VolumeFile("", SHAPE, MATRIX, 0.0, 1.0, MATRIX)


def overview(train: TrainStatus | None = None, **changes: Any) -> Overview:
    """Return what the server says of itself while nothing runs."""
    state = ServerState(5, 1, "a", "rep3d", "v1", "a")
    return Overview(replace(state, **changes), train or TrainStatus("idle"))


@dataclass
class FakeJob:
    """What was asked of the worker."""

    op: str
    args: Mapping[str, Any]
    done: Callable[[Any], None] | None
    failed: Callable[[JobError], None] | None
    progress: Callable[[Mapping[str, Any]], None] | None
    dropped: bool = False


class FakeWorker:
    """Keeps what is asked of it until a test answers."""

    def __init__(self) -> None:
        self.jobs: list[FakeJob] = []
        self.asked: list[str] = []
        self.closed = False

    def submit(self, op: str, args: Any, done: Any = None, failed: Any = None, progress: Any = None) -> FakeJob:
        job = FakeJob(op, args, done, failed, progress)
        self.jobs.append(job)
        self.asked.append(op)
        return job

    def poll(self) -> None:
        """Nothing comes by itself."""

    def drop(self, job: FakeJob) -> None:
        job.dropped = True

    def close(self) -> None:
        self.closed = True

    def job(self, op: str) -> FakeJob:
        """Return the oldest question of a kind that is not answered yet; a draft may be being measured beside."""
        waiting = [job for job in self.jobs if job.op == op]
        assert waiting, f"nobody asked for {op!r}; asked: {[job.op for job in self.jobs]}"
        return waiting[-1] if op == "measure" else waiting[0]

    def answer(self, op: str, value: Any = None) -> FakeJob:
        """Answer it."""
        job = self.job(op)
        self.jobs.remove(job)
        if not job.dropped and job.done:
            job.done(value)
        return job

    def fail(self, op: str, kind: str, message: str = "it broke", detail: str = "", state: str = "failed") -> FakeJob:
        """Answer it with an error."""
        job = self.job(op)
        self.jobs.remove(job)
        if not job.dropped and job.failed:
            job.failed(JobError(kind, message, None, detail, state))
        return job

    def waiting(self, op: str) -> int:
        """Return how many questions of a kind are not answered."""
        return sum(job.op == op for job in self.jobs)


@dataclass
class FakeNode:
    """A node of the scene."""

    name: str
    image_id: str = ""
    drawn: dict[str, int] = field(default_factory=dict)  # segment id -> voxels
    names: dict[str, SegmentName] = field(default_factory=dict)

    def GetName(self) -> str:
        return self.name


class FakeLoad:
    """A volume that takes two steps to load."""

    def __init__(self, node: FakeNode) -> None:
        self._node, self._steps, self.cancelled = node, 2, False

    @property
    def node(self) -> FakeNode:
        assert self._steps == 0
        return self._node

    @property
    def progress(self) -> float:
        return 1 - self._steps / 2

    def step(self) -> bool:
        self._steps -= 1
        return self._steps == 0

    def cancel(self) -> None:
        self.cancelled = True


class FakeLabelLoad:
    """A label that takes so many steps to load."""

    def __init__(self, label: Any, steps: int) -> None:
        self._label, self._steps = label, steps

    def step(self) -> bool:
        self._steps -= 1
        return self._steps <= 0

    @property
    def label(self) -> Any:
        assert self._steps <= 0
        return self._label

    @property
    def images(self) -> Any:
        assert self._steps <= 0
        return list(self._label.layers)


class FakeSave:
    """A volume that is written in one step."""

    progress = 0.5

    def __init__(self, path: Path) -> None:
        self.geometry = {"voxels": str(path), "ijk_to_ras": MATRIX}

    def step(self) -> bool:
        np.save(self.geometry["voxels"], np.zeros((2, 2, 2)))  # type: ignore[arg-type]
        return True


class FakeScene:
    """Segments as names and numbers of voxels."""

    def __init__(self) -> None:
        self.server = ""
        self.loads: list[FakeLoad] = []
        self.edited: Callable[[], None] | None = None
        self.log: list[tuple[Any, ...]] = []
        self.undo_works = self.on_grid = True
        self.label_steps = 1
        self.problem: Exception | None = None

    def begin_volume(self, volume: Any, name: str, image_id: str, role: str = "") -> FakeLoad:
        load = FakeLoad(FakeNode(name, image_id))
        self.loads.append(load)
        return load

    def show_volume(self, node: FakeNode) -> None:
        self.log.append(("show", node.name))

    def segmentation_for(self, volume: FakeNode, entries: Any) -> FakeNode:
        node = FakeNode(f"{volume.name} segmentation", volume.image_id)
        self.ensure_segments(node, entries)
        return node

    def ensure_segments(self, node: FakeNode, entries: Any) -> None:
        for entry in entries:
            id_ = f"rep3d_{entry.value}"
            node.names.setdefault(id_, SegmentName(id_, entry.name, entry.name))

    def _write(self, node: FakeNode, label: Any) -> None:
        for name, value in label.values.items():
            node.drawn[f"rep3d_{value}"] = label.counts.get(name, 0)

    def begin_label(self, label: Any) -> FakeLabelLoad:
        return FakeLabelLoad(label, self.label_steps)

    def load_label(self, node: FakeNode, label: Any, entries: Any) -> None:
        if self.problem:
            raise self.problem
        self._write(node, label)

    def is_on_grid(self, node: FakeNode) -> bool:
        return self.on_grid

    def apply_label(self, node: FakeNode, label: Any, entries: Any, mode: str) -> FakeNode:
        if self.problem:
            raise self.problem
        self.log.append(("labels of", *(entry.name for entry in entries)))
        if mode == "new" or not self.undo_works:
            node = FakeNode(f"{node.name} auto", node.image_id)
            self.ensure_segments(node, entries)
        else:
            self.log.append(("undo point",))
        self._write(node, label)
        return node

    def segment_names(self, node: FakeNode) -> list[SegmentName]:
        return list(node.names.values())

    def drawn_segments(self, node: FakeNode) -> set[str]:
        return {id_ for id_, voxels in node.drawn.items() if voxels}

    def snapshot(self, node: FakeNode) -> SegmentationData:
        if self.problem:
            raise self.problem
        entries = tuple(
            SegmentEntry(name.id, name.name, (1.0, 0.0, 0.0), 0, place, {LABEL_TAG: name.label})
            for place, name in enumerate(node.names.values(), start=1)
        )
        layer = np.zeros((2, 3, 4), np.uint8)
        layer.flat[: len(entries)] = range(1, len(entries) + 1)
        return SegmentationData((layer,), (0, 3, 0, 2, 0, 1), (4, 3, 2), np.array(MATRIX), entries)

    def begin_restore(self, data: SegmentationData) -> FakeLabelLoad:
        return FakeLabelLoad(data, self.label_steps)

    def restore(self, volume: FakeNode, data: SegmentationData, entries: Any, name: str, images: Any) -> FakeNode:
        assert images == list(data.layers)
        node = FakeNode(f"{name} restored", volume.image_id)
        node.names = {e.id: SegmentName(e.id, e.name, e.tags.get(LABEL_TAG, "")) for e in data.segments}
        node.drawn = {e.id: 1 for e in data.segments}
        return node

    def watch(self, node: FakeNode, edited: Callable[[], None], going: Callable[[], None] = lambda: None) -> None:
        self.edited, self.going = edited, going

    def give_away(self, node: FakeNode) -> None:
        self.log.append(("given away", node.name))

    def unwatch(self) -> None:
        self.edited = None

    def remove_sample(self, *keep: FakeNode) -> None:
        self.log.append(("removed", *(node.name for node in keep)))

    def remove(self, node: FakeNode) -> None:
        self.log.append(("taken out", node.name))

    def show_overlay(self, node: FakeNode, visible: bool, opacity: float = 0.5) -> None:
        self.log.append(("overlay", visible))

    def remove_overlay(self, node: FakeNode) -> None:
        self.log.append(("overlay removed",))

    def surfaces_again(self) -> bool:
        return True

    def is_hidden(self, node: FakeNode) -> bool:
        return True

    def views_back(self) -> None:
        self.log.append(("views back",))

    def jump(self, ras: Any) -> None:
        self.log.append(("jump", tuple(ras)))

    def show_curves(self, losses: Any, validations: Any) -> str:
        self.log.append(("curves", len(losses), len(validations)))
        return "chart"

    def begin_volume_snapshot(self, node: FakeNode, path: Path) -> FakeSave:
        if self.problem:
            raise self.problem
        return FakeSave(path)


class FakeScreen:
    """Answers questions as a test has said beforehand; others stay open."""

    def __init__(self) -> None:
        self.questions: list[Question] = []
        self.answers: dict[str, str] = {}
        self.open: list[tuple[Question, Callable[[str], None]]] = []
        self.editing: tuple[Any, Any] = (None, None)
        self.charts: list[Any] = []

    def ask(self, question: Question, answer: Callable[[str], None]) -> None:
        self.questions.append(question)
        assert question.default in dict(question.choices)
        if question.key in self.answers:
            choice = self.answers[question.key]
            assert choice in dict(question.choices)
            answer(choice)
        else:
            self.open.append((question, answer))

    def edit(self, segmentation: Any, volume: Any) -> None:
        self.editing = (segmentation, volume)

    def save_undo(self, segmentation: Any) -> bool:
        return True

    def show_chart(self, chart: Any) -> None:
        self.charts.append(chart)


class Bench:
    """A workflow on fakes, and short words for what tests do again and again."""

    def __init__(self, folder: Path, store: dict[str, str] | None = None, left: Any = None) -> None:
        self.left = left
        self.worker, self.scene, self.screen = FakeWorker(), FakeScene(), FakeScreen()
        self.drafts = Drafts(folder / "drafts")
        self.settings = Settings({} if store is None else store)
        self.time = 100.0
        self.locals: list[Any] = []
        work = folder / "work"
        work.mkdir(exist_ok=True)
        self.flow = Workflow(
            self.worker,  # type: ignore[arg-type]
            self.scene,
            self.screen,
            self.drafts,
            self.settings,
            work,
            launcher=self,
            clock=lambda: self.time,
        )
        self.folder = work

    def make(self, choice: Any) -> Any:
        """As `local.launcher.Launcher`."""
        return self.locals[0]

    def leftover(self) -> Any:
        """As `local.launcher.Launcher`."""
        return self.left

    @property
    def view(self) -> Any:
        return self.flow.view

    def tick(self, seconds: float = 0.0) -> None:
        """Let time pass."""
        self.time += seconds
        self.flow.tick()

    def connect(self) -> Bench:
        self.flow.connect(URL)
        self.worker.answer("test", READY_REPORT)
        self.tick()
        self.worker.answer("overview", overview())
        self.worker.answer("versions", ())
        return self

    def value(self, image_id: str, label: LabelFile | None = None, **more: Any) -> Fetched:
        """Return a case as the worker gives it; `more` is of the sample."""
        return Fetched(
            Sample(image_id, image_id, **more), replace(VOLUME, voxels=f"{self.folder}/{image_id}.npy"), label
        )

    def fetch(self, image_id: str = "case_1") -> Bench:
        """Have a case in hand, by Next sample."""
        self.flow.next_sample()
        self.worker.answer("next_sample", self.value(image_id, reason="most unsure"))
        for _ in range(3):
            self.tick()
        assert self.view.sample.id == image_id, self.view.message
        return self

    def draw(self, **voxels: int) -> Bench:
        """Edit: `draw(rep3d_1=5)`."""
        node = self.screen.editing[0]
        node.drawn.update(voxels)
        assert self.scene.edited is not None
        self.scene.edited()
        return self

    def write_slowly(self, monkeypatch: pytest.MonkeyPatch) -> list[str]:
        """Have each draft take three steps of a second from now on; return their keys, filled as they become whole."""
        written: list[str] = []

        def slowly(draft: Draft, data: object) -> Iterator[float]:
            for part in range(3):
                self.time += 1.0
                yield part / 3
            written.append(draft.key)
            self.drafts.folder.mkdir(exist_ok=True)
            self.drafts.path(draft.key).touch()
            return draft

        monkeypatch.setattr(self.drafts, "save_in_steps", slowly)
        return written

    def segment(self, version: str = "v1", **more: Any) -> Bench:
        """Have the case segmented."""
        self.flow.auto_segment()
        self.worker.answer("infer", self.inferred(version, **more))
        return self

    def inferred(self, version: str = "v1", **more: Any) -> Segmented:
        """Return a segmentation as the worker gives it."""
        extent = (0, 1, 0, 1, 0, 1)
        label = LabelFile("x.npy", extent, SHAPE, MATRIX, {"head": 7, "tail": 0}, {"head": 1, "tail": 3})
        return Segmented(SegmentationFacts(label.values, version, "cpu", 1.5), label, **more)

    def measured(self, **changes: Any) -> Measured:
        """Return what the worker says of a label map."""
        return replace(Measured({1: 7, 3: 2}, (), 0, 0.002), **changes)
