"""The versions of a model as typed values: their measured scores, and what was decided about each."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ..errors import BadAnswer
from .answers_values import mapping, number, numbers_of, text

__all__ = ["Version", "Versions", "parse_version", "parse_versions"]


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Attributes:
        version: Name, such as "v3".
        published: Whether it is the one in use.
        created: When it was made, UTC, ISO 8601, "" if not known.
        mean_score: Mean Dice over labels on the held-out cases; None if it was never measured.
        scores: Label name -> mean Dice on the held-out cases; empty if it was never measured.
        validation_kind: "held-out", or "training-only" (nothing was measured), "" if not known.
        reason: Why it was published or not, in words.
        deleted: Whether its weights were deleted, so that it cannot be published.
        raw: The server's whole answer about it.
    """

    version: str
    published: bool
    created: str
    mean_score: float | None
    scores: Mapping[str, float]
    validation_kind: str
    reason: str
    deleted: bool
    raw: Mapping[str, object] = field(repr=False)


@dataclass(frozen=True)
class Versions:
    """The versions of a model.

    Attributes:
        model: Name of the model.
        published: The version in use, None if there is none.
        error: Why the published version cannot be used, "" if it can.
        versions: All versions, oldest first.
        publications: What was published, oldest first: "version", "by", "time", "reason", "rollback".
        raw: The whole answer.
    """

    model: str
    published: str | None
    error: str
    versions: tuple[Version, ...]
    publications: tuple[Mapping[str, object], ...]
    raw: Mapping[str, object] = field(repr=False)


def parse_versions(answer: object) -> Versions:
    """Read the answer of `/rep3d/models/MODEL/versions`.

    Raises:
        BadAnswer: It lists no versions.
    """
    known = mapping(answer)
    versions, published, log = known.get("versions"), known.get("published"), known.get("publications")
    if not isinstance(versions, list):
        raise BadAnswer(f"Expected the versions of a model, got {str(answer)[:200]!r}.")
    return Versions(
        model=text(known.get("model")),
        published=None if published is None else str(published),
        error=text(known.get("error")),
        versions=tuple(map(parse_version, versions)),
        publications=tuple(map(mapping, log)) if isinstance(log, list) else (),
        raw=known,
    )


def parse_version(answer: object) -> Version:
    """Read what the server says about one version.

    Raises:
        BadAnswer: It is no version.
    """
    known = mapping(answer)
    if not isinstance(known.get("version"), str) or not known["version"]:
        raise BadAnswer(f"Expected a version with its name, got {str(answer)[:200]!r}.")
    return Version(
        version=str(known["version"]),
        published=known.get("published") is True,
        created=text(known.get("created")),
        mean_score=number(known.get("mean_score")),
        scores=numbers_of(known.get("scores")),
        validation_kind=text(known.get("validation_kind")),
        reason=text(mapping(known.get("decision")).get("reason")),
        deleted=bool(known.get("deleted")),
        raw=known,
    )
