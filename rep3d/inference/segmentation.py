"""What a segmentation says of an image besides its label map."""

from __future__ import annotations

from dataclasses import dataclass

__all__ = ["Segmentation"]


@dataclass(frozen=True)
class Segmentation:
    """What :meth:`rep3d.inference.predictor.Predictor.segment` found.

    Attributes:
        volumes_ml: volume of each label in millilitres, in the written label map.
        uncertainty: mean normalised predictive entropy in [0, 1], see :func:`rep3d.inference.uncertainty.mean_entropy`.
        seconds: time taken by ``read``, ``network`` and ``write``.
        engine: what ran the network: ``"torch"``, ``"openvino"`` or ``"openvino bfloat16"``.
        confidence: mean probability of each label where it is the most probable, on the task's grid; for a label so
            small that it is that nowhere on this grid, its highest probability there; None where it is absent from the
            written label map.
        device: where the network ran.
        fallback: what was done for want of memory, in words; None where there was enough.
        version: of the model.
        stage: ``"all"``, or ``"coarse"`` where the version has a fine stage that was not used.
        tuned: how it was computed faster, and what that does to the Dice, in words; None where it was computed plainly.
    """

    volumes_ml: dict[str, float]
    uncertainty: float
    seconds: dict[str, float]
    engine: str
    confidence: dict[str, float | None]
    device: str
    fallback: str | None
    version: str
    stage: str
    tuned: str | None = None
