"""What the helper process does with cases: fetch, segment, send, look back."""

from __future__ import annotations

import contextlib
import uuid
import zipfile
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy

from ..client.answers import Sample, SubmittedLabel
from ..client.answers_cases import Case, DicomUpload, HistoryEntry
from ..errors import Cancelled, ClientError, LocalProblem, NotFoundError
from ..images.files import VolumeFile
from ..images.peaks import find_peaks
from ..images.voxels import image_to_send, label_file, volume_file
from .ops_files import composed, made
from .results import Fetched, Segmented
from .task import Task

__all__ = [
    "cases",
    "history",
    "infer",
    "next_sample",
    "open_case",
    "release",
    "restore",
    "review",
    "submit",
    "upload_dicom",
    "upload_image",
]


def next_sample(task: Task) -> Fetched:
    """Ask for the next image and fetch it; one that is not wanted any more is given back.

    Arguments: "strategy", "folder", "keep" (ids of images that are not given back, since the user works on them).
    """
    task.tell("asking")
    sample = task.client.next_sample(str(task.args["strategy"]))
    with _given_back_if_cancelled(task, sample.id):
        return Fetched(sample, _image(task, sample.id))


@contextlib.contextmanager
def _given_back_if_cancelled(task: Task, image_id: str) -> Iterator[None]:
    try:
        yield
        task.check()
    except Cancelled:
        if image_id not in task.args.get("keep", ()):
            with contextlib.suppress(ClientError):  # else the lease ends by itself
                task.client.release_lease(image_id)
        raise


def open_case(task: Task) -> Fetched:
    """Reserve an image and fetch it, with one of its labels if it has it.

    Arguments: "image_id", "folder", "label" (its tag, None for no label), "keep" as for `next_sample`.
    """
    image_id, tag, client = str(task.args["image_id"]), task.args.get("label"), task.client
    task.tell("asking")
    until = client.take_lease(image_id).until
    with _given_back_if_cancelled(task, image_id):
        volume, label = _image(task, image_id), None
        if tag:
            with contextlib.suppress(NotFoundError):  # it may get its first one now
                voxels = client.label(image_id, str(tag), task.args["folder"], task.teller("downloading"), task.stop)
                label = label_file(voxels, task.args["folder"], client.info().labels, strangers=True)
        return Fetched(Sample(image_id, image_id, leased_until=until), volume, label)


def _image(task: Task, image_id: str) -> VolumeFile:
    folder = task.args["folder"]
    task.tell("downloading")
    voxels = task.client.image(image_id, folder, task.teller("downloading"), task.stop)
    return volume_file(voxels, folder, image_id, task.teller("decoding"))


def infer(task: Task) -> Segmented:
    """Segment an image of the server. Arguments: "image_id", "model", "views", "uncertainty", "folder"."""
    args, folder, request = task.args, task.args["folder"], uuid.uuid4().hex
    asked = {"views": int(args.get("views") or 1), "request_id": request, "uncertainty": bool(args.get("uncertainty"))}
    task.tell("computing")
    task.computes(request)
    try:
        tell, model = task.teller("downloading"), str(args.get("model") or "") or None
        found = task.client.infer(str(args["image_id"]), folder, model, asked, tell, task.stop)
    finally:
        task.ended()
    segmented = Segmented(found.facts, label_file(found.label, folder, found.facts.labels))
    if found.uncertainty is None:
        return segmented
    try:
        volume = volume_file(found.uncertainty, folder, "uncertainty", task.teller("decoding"))
        peaks = find_peaks(numpy.load(volume.voxels, mmap_mode="r"), numpy.array(volume.ijk_to_ras))
    except Cancelled:
        raise
    except ClientError as error:  # the segmentation is there all the same
        return replace(segmented, facts=replace(found.facts, uncertainty_error=str(error)))
    return replace(segmented, uncertainty=volume, peaks=tuple(peaks))


@contextlib.contextmanager
def _scratch(folder: str | Path, suffix: str) -> Iterator[Path]:
    """Give the path of a file that is gone afterwards."""
    path = Path(folder) / f"transfer-{uuid.uuid4().hex}{suffix}"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def submit(task: Task) -> SubmittedLabel:
    """Flatten a draft into a label map of its image, and send it; not stopped half way.

    Arguments: "image_id", "params", and as `measure`.
    """
    args = task.args
    with _scratch(task.folder, ".raw") as file:
        voxels = made(task, composed(task), file)
        tell = task.teller("sending", stoppable=False)
        return task.client.submit_label(str(args["image_id"]), voxels, "final", args.get("params") or {}, tell)


def upload_image(task: Task) -> Sample:
    """Send an image. Arguments: "voxels", "ijk_to_ras", "image_id"."""
    with _scratch(task.folder, ".raw") as file:
        voxels = image_to_send(task.args["voxels"], task.args["ijk_to_ras"], file)
        image_id = task.client.add_image(str(task.args["image_id"]), voxels, task.teller("sending"), task.stop)
    return Sample(image_id, image_id)


def upload_dicom(task: Task) -> DicomUpload:
    """Send the DICOM files of a folder and below. Arguments: "folder"."""
    source = Path(task.args["folder"])
    files = [path for path in sorted(source.rglob("*")) if _is_dicom(path)]
    if not files:
        raise LocalProblem(f"There are no DICOM files in '{source}' or below it. Choose the folder that has them.")
    with _scratch(task.folder, ".zip") as packed:
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            folders: dict[Path, int] = {}  # what lies in one folder stays together: some series share an identifier
            for number, path in enumerate(files):
                task.teller("packing")(number, len(files))
                folder = folders.setdefault(path.parent, len(folders))
                archive.write(path, f"{folder:04d}/{number:06d}.dcm")  # paths may name patients; the server wants none
        return task.client.upload_dicom(packed, task.teller("sending"), task.stop)


def _is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM files, begins as those of old scanners do, or is named so."""
    try:
        with path.open("rb") as stream:
            head = stream.read(132)
    except OSError:
        return False
    return head[128:] == b"DICM" or head[:2] in (b"\2\0", b"\x08\0") or path.suffix.lower() == ".dcm"


def cases(task: Task) -> tuple[Case, ...]:
    """List the cases. Arguments: "model"."""
    return task.client.cases(task.args.get("model") or None)


def history(task: Task) -> tuple[HistoryEntry, ...]:
    """List the labels of an image. Arguments: "image_id"."""
    return task.client.history(str(task.args["image_id"]))


def restore(task: Task) -> SubmittedLabel:
    """Make an earlier label the current one. Arguments: "image_id", "entry"."""
    return task.client.restore(str(task.args["image_id"]), str(task.args["entry"]))


def review(task: Task) -> Case:
    """Record a review, or take it back. Arguments: "image_id", "done"."""
    return (task.client.review if task.args["done"] else task.client.take_review_back)(str(task.args["image_id"]))


def release(task: Task) -> Any:
    """Give an image back. Arguments: "image_id"."""
    return task.client.release_lease(str(task.args["image_id"]))
