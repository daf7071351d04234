"""The versions of a model as typed values: their measured scores, and what was decided about each."""

from __future__ import annotations

from dataclasses import dataclass

from ..errors import BadAnswer
from .answers_values import mapping, number, text

__all__ = ["Version", "parse_version", "parse_versions"]


@dataclass(frozen=True)
class Version:
    """One version of a model.

    Attributes:
        version: Name, such as "v3".
        published: Whether it is the one in use.
        created: When it was made, UTC, ISO 8601, "" if not known.
        mean_score: Mean Dice over labels on the held-out cases; None if it was never measured.
        cases: How many cases it was trained on.
        reason: Why it was published or not, in words.
        origin: How it came about, such as "trained", or from which starter model under which licence; "" if not known.
        available: Whether its weights are still there, so that it can be published.
    """

    version: str
    published: bool = False
    created: str = ""
    mean_score: float | None = None
    cases: int = 0
    reason: str = ""
    origin: str = ""
    available: bool = True


def parse_versions(answer: object) -> tuple[Version, ...]:
    """Read the answer of `/rep3d/models/MODEL/versions`, oldest first.

    Raises:
        BadAnswer: It lists no versions.
    """
    versions = mapping(answer).get("versions")
    if not isinstance(versions, list):
        raise BadAnswer(f"The server did not list the model's versions: {str(answer)[:200]!r}. Look at its log.")
    return tuple(map(parse_version, versions))


def parse_version(answer: object) -> Version:
    """Read what the server says about one version.

    Raises:
        BadAnswer: It is no version.
    """
    known = mapping(answer)
    if not isinstance(known.get("version"), str) or not known["version"]:
        raise BadAnswer(f"The server's answer names no version: {str(answer)[:200]!r}. Look at its log.")
    cases = known.get("cases")
    return Version(
        version=str(known["version"]),
        published=known.get("published") is True,
        created=text(known.get("created")),
        mean_score=number(known.get("mean_score")),
        cases=len(cases) if isinstance(cases, (list, dict)) else 0,
        reason=text(mapping(known.get("decision")).get("reason")),
        origin=text(known.get("attribution") or known.get("kind") or known.get("origin")),
        available=known.get("bytes") not in (None, 0) and not known.get("deleted"),
    )
