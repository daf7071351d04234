"""Which image to annotate next: pure functions on scores and features, for the server and for ``rep3d simulate``.

Scores say how unsure the model is about an image (:mod:`rep3d.inference.uncertainty`), features how it looks to the
encoder. Nothing needs dropout. Strategies that look for diversity know what is labelled, and what others work on.

``coreset`` is the greedy k-center of Sener and Savarese, "Active learning for convolutional neural networks: a core-set
approach" (arXiv 1708.00489). ``hybrid`` has the two steps of Yang et al., "Suggestive annotation" (arXiv 1706.04737):
first the most uncertain, then of these the one that adds most; as in the k-center, that is the farthest one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from types import MappingProxyType
from typing import TYPE_CHECKING

import numpy as np
import torch

from rep3d.errors import ConfigError
from rep3d.imaging.channels import Files
from rep3d.inference.uncertainty import mean_entropy, mean_margin, mean_variance

if TYPE_CHECKING:
    from rep3d.inference.predictor import Predictor

__all__ = ["NEEDS", "STRATEGIES", "Choice", "ImageScore", "assess", "check_strategy", "select", "select_batch"]

STRATEGIES: Mapping[str, str] = MappingProxyType(
    {
        "first": "The first image without a label, by name",
        "random": "A random image without a label",
        "entropy": "The image that the model is least sure about (mean entropy in and around what it finds)",
        "uncertainty": "The same as entropy, by its old name",
        "margin": "The image where the two likeliest labels of a voxel are closest (mean over what it finds)",
        "tta": "The image whose prediction changes most with contrast, brightness and pose (test-time views)",
        "coreset": "The image that looks least like those annotated or in work (k-center on encoder features)",
        "hybrid": "Among the third that the model is least sure about, the one that looks least like those annotated",
    }
)
# What a strategy reads: "entropy", "margin", "variance" of the scores, and "features".
NEEDS: Mapping[str, frozenset[str]] = MappingProxyType(
    {
        "first": frozenset(),
        "random": frozenset(),
        "entropy": frozenset({"entropy"}),
        "uncertainty": frozenset({"entropy"}),
        "margin": frozenset({"margin"}),
        "tta": frozenset({"variance"}),
        "coreset": frozenset({"features"}),
        "hybrid": frozenset({"entropy", "features"}),
    }
)
_UNCERTAIN_SHARE = 1 / 3  # of the candidates, among which ``hybrid`` looks for the farthest


@dataclass(frozen=True)
class ImageScore:
    """How unsure a model is about an image; each from 0 (certain) to 1, None where it was not computed.

    Attributes:
        entropy: mean normalised entropy.
        margin: mean of 1 - (p1 - p2).
        variance: mean disagreement of test-time views.
    """

    entropy: float | None = None
    margin: float | None = None
    variance: float | None = None

    def value(self, measure: str) -> float | None:
        """Return the measure of that name, None where it is absent or not finite."""
        value = getattr(self, measure)
        return value if value is not None and math.isfinite(value) else None


@dataclass(frozen=True)
class Choice:
    """The image chosen.

    Attributes:
        id: the image.
        strategy: what chose it; another one than was asked for where that had nothing to go by.
        score: its uncertainty, or its distance to what is labelled; None where it was not chosen by a number.
        reason: why another strategy chose, or None.
    """

    id: str
    strategy: str
    score: float | None = None
    reason: str | None = None


def assess(predictor: Predictor, image: Files, views: int = 1) -> ImageScore:
    """Score an image.

    Args:
        predictor: the model.
        image: the image's file.
        views: test-time views; with one there is no variance.

    Raises:
        ImageError: if the file is no readable image.
    """
    if views <= 1:
        probabilities = torch.as_tensor(predictor.probabilities(image))
        return ImageScore(mean_entropy(probabilities), mean_margin(probabilities))
    plain: list[torch.Tensor] = []

    def seen() -> Iterator[torch.Tensor]:
        for view in predictor.view_probabilities(image, views):
            tensor = torch.as_tensor(view)
            plain[:] = plain or [tensor]
            yield tensor

    variance = mean_variance(seen())
    return ImageScore(mean_entropy(plain[0]), mean_margin(plain[0]), variance)


def check_strategy(name: str) -> str:
    """Return the name, if it is one of :data:`STRATEGIES`.

    Raises:
        ConfigError: listing them.
    """
    if name not in STRATEGIES:
        raise ConfigError(f"strategy: expected one of {', '.join(STRATEGIES)}, got {name!r}")
    return name


@dataclass(frozen=True)
class _Pool:
    """What there is to choose from, and what is known about it."""

    candidates: list[str]
    scores: Mapping[str, ImageScore]
    features: Mapping[str, np.ndarray]
    labelled: Sequence[np.ndarray]
    rng: np.random.Generator

    def measured(self, measure: str) -> dict[str, float]:
        """Return the candidates that have this measure."""
        values = {id_: self.scores[id_].value(measure) for id_ in self.candidates if id_ in self.scores}
        return {id_: value for id_, value in values.items() if value is not None}


def select(
    strategy: str,
    candidates: Sequence[str],
    scores: Mapping[str, ImageScore],
    features: Mapping[str, np.ndarray],
    labelled_features: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> Choice | None:
    """Choose one image; images without score or feature are passed over where others have one.

    Args:
        strategy: one of :data:`STRATEGIES`.
        candidates: ids of the images to choose from.
        scores: what is known of them, by id.
        features: feature vectors (F,) of them, by id.
        labelled_features: feature vectors (F,) of the images that are labelled, or that others work on.
        rng: source of chance; the same state gives the same choice.

    Returns:
        The choice, or None where there are no candidates.

    Raises:
        ConfigError: if the strategy is unknown.
    """
    check_strategy(strategy)
    if not candidates:
        return None
    pool = _Pool(sorted(candidates), scores, features, labelled_features, rng)
    return _RULES[strategy](pool)


def select_batch(
    strategy: str,
    count: int,
    candidates: Sequence[str],
    scores: Mapping[str, ImageScore],
    features: Mapping[str, np.ndarray],
    labelled_features: Sequence[np.ndarray],
    rng: np.random.Generator,
) -> list[Choice]:
    """Choose several images, one after the other: each choice counts as labelled for the next.

    The arguments are those of :func:`select`; fewer than ``count`` come back where there are fewer candidates.
    """
    left, labelled = list(candidates), list(labelled_features)
    chosen: list[Choice] = []
    while len(chosen) < count:
        choice = select(strategy, left, scores, features, labelled, rng)
        if choice is None:
            break
        chosen.append(choice)
        left.remove(choice.id)
        if choice.id in features:
            labelled.append(features[choice.id])
    return chosen


def _first(pool: _Pool) -> Choice:
    return Choice(pool.candidates[0], "first")


def _random(pool: _Pool) -> Choice:
    return Choice(str(pool.rng.choice(pool.candidates)), "random")


def _at_random(pool: _Pool, missing: str) -> Choice:
    return Choice(_random(pool).id, "random", reason=f"{missing}: chosen at random")


def _most(measure: str, strategy: str) -> Callable[[_Pool], Choice]:
    def choose(pool: _Pool) -> Choice:
        values = pool.measured(measure)
        if values:
            best = max(values, key=lambda id_: values[id_])
            return Choice(best, strategy, values[best])
        if measure != "entropy" and pool.measured("entropy"):
            reason = f"no {measure} scores of the published model yet: chosen by entropy"
            return replace(_most("entropy", "entropy")(pool), reason=reason)
        return _at_random(pool, "no scores of the published model yet")

    return choose


def _coreset(pool: _Pool) -> Choice:
    distances = _distances(pool, pool.candidates)
    if not distances:
        return _at_random(pool, "no features of the published model yet")
    best = max(distances, key=lambda id_: distances[id_])
    return Choice(best, "coreset", distances[best] if pool.labelled else None)


def _hybrid(pool: _Pool) -> Choice:
    values = pool.measured("entropy")
    if not values:
        other = _coreset(pool)
        if other.strategy == "coreset":
            return replace(other, reason="no scores of the published model yet: chosen by features")
        return _at_random(pool, "no scores of the published model yet")
    uncertain = sorted(values, key=lambda id_: -values[id_])[: math.ceil(len(values) * _UNCERTAIN_SHARE)]
    distances = _distances(pool, uncertain)
    if not distances:
        best = uncertain[0]
        return Choice(best, "entropy", values[best], "no features of the published model yet: chosen by entropy")
    best = max(distances, key=lambda id_: distances[id_])
    return Choice(best, "hybrid", values[best])


def _distances(pool: _Pool, ids: Sequence[str]) -> dict[str, float]:
    """Distance of each image, of those that have a feature, to the nearest one that is labelled.

    Each feature is divided by its spread over candidates and labelled images, so that none counts for being large.
    While nothing is labelled, the most typical image comes first: the distance is then minus that to the mean.
    """
    known = [id_ for id_ in pool.candidates if id_ in pool.features]
    wanted = [id_ for id_ in ids if id_ in pool.features]
    if not wanted:
        return {}
    everything = np.stack([*(pool.features[id_] for id_ in known), *pool.labelled]).astype(np.float64)
    spread = everything.std(axis=0)
    # A feature that is the same everywhere up to rounding tells nothing; dividing by its spread would make noise of it.
    informative = spread > 1e-6 * (np.abs(everything).max(axis=0) + 1e-12)
    scaled = np.where(informative, (everything - everything.mean(axis=0)) / np.where(informative, spread, 1.0), 0.0)
    place = dict(zip(known, scaled, strict=False))
    labelled = scaled[len(known) :]
    if not len(labelled):
        return {id_: -float(np.linalg.norm(place[id_])) for id_ in wanted}
    return {id_: float(np.linalg.norm(labelled - place[id_], axis=1).min()) for id_ in wanted}


_RULES: Mapping[str, Callable[[_Pool], Choice]] = MappingProxyType(
    {
        "first": _first,
        "random": _random,
        "entropy": _most("entropy", "entropy"),
        "uncertainty": _most("entropy", "uncertainty"),
        "margin": _most("margin", "margin"),
        "tta": _most("variance", "tta"),
        "coreset": _coreset,
        "hybrid": _hybrid,
    }
)
