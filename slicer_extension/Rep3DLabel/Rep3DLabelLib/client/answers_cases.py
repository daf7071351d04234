"""What the server knows of each case, as typed values: state, leases, earlier labels, and DICOM series sent in."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ..errors import BadAnswer
from .answers_values import mapping, number, numbers_of, text, texts

__all__ = [
    "Case",
    "DicomUpload",
    "HistoryEntry",
    "Lease",
    "parse_case",
    "parse_cases",
    "parse_dicom_upload",
    "parse_history",
    "parse_lease",
]


@dataclass(frozen=True)
class Case:
    """One case.

    Attributes:
        id: Id of the image.
        state: "new", "leased", "predicted", "submitted", "reviewed" or "unusable".
        tags: Tags of its labels, sorted.
        labels: Label name -> volume in ml of the final label (None while not known); None without a final label, or
            before the server has read it.
        author: Who submitted the final label, "" if not known.
        time: When, UTC, ISO 8601, "" if not known.
        lease: Who works on it now; None if nobody does.
        score: How unsure the published model is about it, None while not known.
        dice: Mean agreement of the final label with the model's segmentation, None where that is not known.
        role: What it is used for, "training" or "validation"; "" if not known.
        error: Why nobody can use the image, "" if it can be used.
        label_error: Why its final label is of no use, "" if it is, or there is none.
    """

    id: str
    state: str
    tags: tuple[str, ...] = ()
    labels: Mapping[str, float | None] | None = None
    author: str = ""
    time: str = ""
    lease: Lease | None = None
    score: float | None = None
    dice: float | None = None
    role: str = ""
    error: str = ""
    label_error: str = ""


@dataclass(frozen=True)
class Lease:
    """An image that is reserved for one annotator: its id, for whom, and from when until when (UTC, ISO 8601)."""

    image_id: str
    user: str
    since: str
    until: str


@dataclass(frozen=True)
class HistoryEntry:
    """The current label of an image, or an earlier one.

    Attributes:
        entry: Name by which an earlier label is fetched or restored; None for the current one.
        tag: Its tag.
        author: Who made it, "" if not known.
        time: When it was submitted, "" if not known.
        reason: "current", or why it is in the history: "replaced", "removed", "original", "unknown".
    """

    entry: str | None
    tag: str = ""
    author: str = ""
    time: str = ""
    reason: str = ""


@dataclass(frozen=True)
class DicomUpload:
    """What became of the DICOM series that were sent.

    Attributes:
        images: Ids of the images that came in.
        known: Ids of images that the server had already, made of the same series before; they were not made again.
        failed: (source, reason) of each series that cannot be used.
        warnings: (id, reason) of each image that may show its patient's name in its pixels.
    """

    images: tuple[str, ...]
    known: tuple[str, ...] = ()
    failed: tuple[tuple[str, str], ...] = ()
    warnings: tuple[tuple[str, str], ...] = ()


def parse_cases(answer: object) -> tuple[Case, ...]:
    """Read the answer of `/rep3d/cases`.

    Raises:
        BadAnswer: It is no list of cases.
    """
    if not isinstance(answer, list):
        raise BadAnswer(f"The server did not list its cases: {str(answer)[:200]!r}. Look at its log.")
    return tuple(parse_case(case) for case in answer)


def parse_case(answer: object) -> Case:
    """Read the answer of `/rep3d/cases/ID`.

    Raises:
        BadAnswer: It is no case.
    """
    known = mapping(answer)
    if not isinstance(known.get("id"), str) or not isinstance(known.get("state"), str):
        raise BadAnswer(f"The server's answer names no case: {str(answer)[:200]!r}. Look at its log.")
    labels, lease, dice = known.get("labels"), known.get("lease"), mapping(known.get("prediction")).get("dice")
    scores = numbers_of(dice).values()
    return Case(
        id=text(known["id"]),
        state=text(known["state"]),
        tags=texts(known.get("tags")),
        labels={str(name): number(mapping(label).get("ml")) for name, label in labels.items()}
        if isinstance(labels, dict)
        else None,
        author=text(known.get("author")),
        time=text(known.get("time")),
        lease=parse_lease({"image": known["id"], **lease}) if isinstance(lease, dict) else None,
        score=number(known.get("score")),
        dice=sum(scores) / len(scores) if scores else number(dice),
        role=text(known.get("role")),
        error=text(known.get("error")),
        label_error=text(known.get("label_error")),
    )


def parse_lease(answer: object) -> Lease:
    """Read the answer of `/rep3d/leases/ID`.

    Raises:
        BadAnswer: It is no lease.
    """
    known = mapping(answer)
    parts = [known.get(key) for key in ("image", "user", "since", "until")]
    if not all(isinstance(part, str) for part in parts):
        raise BadAnswer(f"The server did not say who has the image: {str(answer)[:200]!r}. Look at its log.")
    return Lease(*map(str, parts))


def parse_history(answer: object) -> tuple[HistoryEntry, ...]:
    """Read the answer of `/rep3d/cases/ID/history`.

    Raises:
        BadAnswer: It is no list of labels.
    """
    if not isinstance(answer, list) or not all(isinstance(entry, dict) for entry in answer):
        raise BadAnswer(f"The server did not list the image's labels: {str(answer)[:200]!r}. Look at its log.")
    return tuple(
        HistoryEntry(
            entry=None if known.get("entry") is None else str(known["entry"]),
            tag=text(known.get("tag")),
            author=text(known.get("author")),
            time=text(known.get("time")),
            reason=text(known.get("reason")),
        )
        for known in answer
    )


def parse_dicom_upload(answer: object) -> DicomUpload:
    """Read the answer to an upload of DICOM files.

    Raises:
        BadAnswer: It does not say what came in.
    """
    known = mapping(answer)
    images, failed, had = known.get("images"), known.get("failed"), known.get("known")
    warned = known.get("warnings")  # an older server says nothing
    if not isinstance(images, list) or not isinstance(failed, list):
        raise BadAnswer(f"The server did not say what came in: {str(answer)[:200]!r}. Look at its log.")
    return DicomUpload(
        images=tuple(map(str, images)),
        known=tuple(text(mapping(entry).get("image")) for entry in had) if isinstance(had, list) else (),
        failed=tuple((text(mapping(one).get("source")), text(mapping(one).get("error"))) for one in failed),
        warnings=tuple((text(mapping(one).get("image")), text(mapping(one).get("reason"))) for one in warned)
        if isinstance(warned, list)
        else (),
    )
