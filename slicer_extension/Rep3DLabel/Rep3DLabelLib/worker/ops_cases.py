"""What the helper process does with cases: fetch, segment, send, look back."""

from __future__ import annotations

import contextlib
import uuid
import zipfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import numpy

from ..client.answers_values import mapping
from ..errors import BadAnswer, Cancelled, ClientError, LocalProblem, NotFoundError
from ..images.nifti import read_label, read_volume
from ..images.peaks import find_peaks
from .task import Task

__all__ = [
    "cancel",
    "cases",
    "history",
    "infer",
    "next_sample",
    "open_case",
    "release",
    "restore",
    "review",
    "submit",
    "take",
    "upload_dicom",
    "upload_image",
]


def next_sample(task: Task) -> dict[str, Any]:
    """Ask for the next image and fetch it; one that is not wanted any more is given back.

    Arguments: "strategy", "folder", "keep" (ids of images that are not given back, since the user works on them).
    """
    task.tell("asking")
    strategy = str(task.args["strategy"])
    sample = task.client.next_sample(strategy)
    told = {
        "strategy": strategy,
        "used_strategy": str(sample.info.get("used_strategy") or strategy),
        "reason": str(sample.info.get("reason") or ""),
        "leased_until": str(sample.info.get("leased_until") or ""),
    }
    with _given_back_if_cancelled(task, sample.id):
        fetched = _fetch(task, sample.id)
    return {"id": sample.id, "name": sample.name, **told, **fetched}


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


def open_case(task: Task) -> dict[str, Any]:
    """Fetch an image with one of its labels, if it has it.

    Arguments: "image_id", "folder", "label" (its tag), "entry" (of the history), "lease", "keep" as for `next_sample`.
    """
    image_id, folder = str(task.args["image_id"]), task.args["folder"]
    tag, entry = task.args.get("label"), task.args.get("entry")
    task.tell("asking")
    until = task.client.take_lease(image_id).until if task.args.get("lease") else ""
    with _given_back_if_cancelled(task, image_id) if until else contextlib.nullcontext():
        case = task.client.case(image_id)
        fetched = _fetch(task, image_id)
        label = None
        if entry or tag:
            with _scratch(folder) as file, contextlib.suppress(_NoSuchTag):
                path = _download_label(task, image_id, tag, entry, file)
                label = read_label(path, fetched["image"], folder, _label_map(task), strangers=True)
    told = {"strategy": "", "used_strategy": "", "reason": "", "leased_until": until}
    return {"id": image_id, "name": image_id, **told, **fetched, "label": label, "case": dict(case.raw)}


class _NoSuchTag(Exception):
    """The image has no label under the tag; it may get its first one now."""


def _download_label(task: Task, image_id: str, tag: object, entry: object, file: Path) -> Path:
    tell, stop = task.teller("downloading"), task.stop
    if entry:
        return task.client.download_history(image_id, str(entry), file, tell, stop)
    try:
        return task.client.download_label(image_id, str(tag), file, tell, stop)
    except NotFoundError as error:
        raise _NoSuchTag from error


def _fetch(task: Task, image_id: str) -> dict[str, Any]:
    folder = task.args["folder"]
    task.tell("downloading")
    image = task.client.download_image(image_id, folder, task.teller("downloading"), task.stop)
    return {"image": str(image), "volume": read_volume(image, folder, task.teller("decoding"))}


def _label_map(task: Task) -> dict[str, int]:
    """Return all labels of all models of the server; one map, in which no value has two names."""
    info = task.client.info()
    labels = dict(info.labels)
    for model in info.models.values():
        known = mapping(mapping(mapping(info.raw.get("rep3d")).get("models")).get(model.name)).get("labels")
        labels.update({str(name): value for name, value in mapping(known).items() if isinstance(value, int)})
    return labels


def infer(task: Task) -> dict[str, Any]:
    """Segment an image of the server, or a file.

    Arguments: "image_id" or "image_path", "image", "model", "views", "uncertainty", "request_id", "folder", "extra".
    """
    args, client = task.args, task.client
    folder, request = args["folder"], str(args.get("request_id") or uuid.uuid4().hex)
    model = str(args.get("model") or "") or None
    asked = {**(args.get("extra") or {}), "views": int(args.get("views") or 1), "request_id": request}
    if args.get("uncertainty"):
        asked["uncertainty"] = True
    with _scratch(folder) as file:
        task.tell("computing")
        task.computes(request)
        try:
            if args.get("image_path"):
                tell = task.teller("transferring")
                result = client.infer_file(args["image_path"], file, model, asked, tell, task.stop)
            else:
                tell = task.teller("downloading")
                result = client.infer(str(args["image_id"]), file, model, asked, tell, task.stop)
        finally:
            task.ended()
        labels = _names_of(result.params)
        label = read_label(result.label_path, args["image"], folder, labels)
    params: dict[str, Any] = dict(result.params)
    volume: dict[str, Any] | None = None
    peaks: list[dict[str, object]] = []
    if asked.get("uncertainty"):
        try:
            with _scratch(folder) as file:
                found = client.download_uncertainty(request, file, task.teller("downloading"), task.stop)
                volume = read_volume(found, folder)
            task.check()
            peaks = find_peaks(numpy.load(str(volume["voxels"]), mmap_mode="r"), numpy.array(volume["ijk_to_ras"]))
        except Cancelled:
            raise
        except ClientError as error:  # the segmentation is there all the same
            params["uncertainty_error"] = str(error)
    return {"label": label, "params": params, "uncertainty": volume, "peaks": peaks}


def _names_of(params: Mapping[str, object]) -> dict[str, int]:
    names = params.get("label_names")
    if not isinstance(names, dict) or not all(isinstance(value, int) and value > 0 for value in names.values()):
        raise BadAnswer(f"Expected the label names and values of the segmentation from the server, got {names!r}.")
    return {str(name): int(value) for name, value in names.items()}


@contextlib.contextmanager
def _scratch(folder: str | Path, suffix: str = ".nii.gz") -> Iterator[Path]:
    """Give the path of a file that is gone afterwards."""
    path = Path(folder) / f"transfer-{uuid.uuid4().hex}{suffix}"
    try:
        yield path
    finally:
        with contextlib.suppress(OSError):
            path.unlink()


def submit(task: Task) -> dict[str, Any]:
    """Send a label. Arguments: "image_id", "path", "tag", "params". It is not stopped half way."""
    args = task.args
    tag, params = str(args.get("tag") or "final"), args.get("params") or {}
    sent = task.client.submit_label(str(args["image_id"]), args["path"], tag, params, _sending(task))
    return {"image": sent.image_id, "label": sent.label_id, "tag": sent.tag, **sent.answer}


def upload_image(task: Task) -> dict[str, Any]:
    """Send an image. Arguments: "path", "image_id"."""
    name = task.args.get("image_id") or None
    return {"id": task.client.upload_image(task.args["path"], name, task.teller("sending"), task.stop)}


def _sending(task: Task) -> Any:
    return lambda done, total: task.tell("sending", done, total)


def upload_dicom(task: Task) -> dict[str, Any]:
    """Send the DICOM files of a folder and below. Arguments: "folder"."""
    source = Path(task.args["folder"])
    files = [path for path in sorted(source.rglob("*")) if _is_dicom(path)]
    if not files:
        raise LocalProblem(f"Expected DICOM files in '{source}' or below it, found none. Choose the folder with them.")
    with _scratch(task.folder, ".zip") as packed:
        with zipfile.ZipFile(packed, "x", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
            for number, path in enumerate(files):
                task.teller("packing")(number, len(files))
                archive.write(path, f"{number:06d}.dcm")  # paths may name patients, and the server wants none
        came = task.client.upload_dicom(packed, task.teller("sending"), task.stop)
    failed = [{"source": name, "error": error} for name, error in came.failed]
    return {"images": list(came.images), "known": list(came.known), "failed": failed}


def _is_dicom(path: Path) -> bool:
    """Return whether a file has the mark of DICOM files."""
    try:
        with path.open("rb") as stream:
            return stream.read(132)[128:] == b"DICM"
    except OSError:
        return False


def cases(task: Task) -> dict[str, Any]:
    """List the cases. Arguments: "model"."""
    return {"cases": [dict(case.raw) for case in task.client.cases(task.args.get("model") or None)]}


def history(task: Task) -> dict[str, Any]:
    """List the labels of an image. Arguments: "image_id"."""
    return {"entries": [dict(entry.raw) for entry in task.client.history(str(task.args["image_id"]))]}


def restore(task: Task) -> dict[str, Any]:
    """Make an earlier label the current one. Arguments: "image_id", "entry"."""
    return task.client.restore(str(task.args["image_id"]), str(task.args["entry"]))


def review(task: Task) -> dict[str, Any]:
    """Record a review, or take it back. Arguments: "image_id", "done"."""
    image_id = str(task.args["image_id"])
    done = task.client.review if task.args["done"] else task.client.take_review_back
    return dict(done(image_id).raw)


def take(task: Task) -> dict[str, Any]:
    """Lend an image. Arguments: "image_id"."""
    return vars(task.client.take_lease(str(task.args["image_id"])))


def release(task: Task) -> dict[str, Any]:
    """Give an image back. Arguments: "image_id"."""
    task.client.release_lease(str(task.args["image_id"]))
    return {}


def cancel(task: Task) -> dict[str, Any]:
    """Cancel a segmentation. Arguments: "request_id"."""
    task.client.cancel(str(task.args["request_id"]))
    return {}
