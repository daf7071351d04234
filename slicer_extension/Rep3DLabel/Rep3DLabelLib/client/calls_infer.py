"""Calls that segment an image, and stop that."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from ..errors import BadAnswer, NotFoundError
from .answers import SegmentationFacts, parse_segmentation
from .calls_base import Calls, segment_of
from .transfers import Progress, Stop, Watch
from .voxels import Voxels

__all__ = ["InferCalls", "Segmentation"]


@dataclass(frozen=True)
class Segmentation:
    """A segmentation: its facts, its label map, and its uncertainty (0 to 1) where that was asked for."""

    facts: SegmentationFacts
    label: Voxels
    uncertainty: Voxels | None = None


class InferCalls(Calls):
    """Segmentation. `progress` and `stop` watch the transfer only: to stop the computation, `cancel` it by its id."""

    def infer(
        self,
        image_id: str,
        folder: str | Path,
        model: str | None = None,
        params: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> Segmentation:
        """Segment an image of the data store, and fetch the voxels into new files in a folder.

        Args:
            image_id: The image.
            folder: Where the files are made.
            model: Model to use, None for the server's default.
            params: Settings of this segmentation; "request_id" names it for `cancel`.
            progress, stop: See `Watch`; of the answer's transfer.

        Raises:
            ConflictError: There is no trained model yet, or the segmentation was cancelled.
        """
        path = f"/rep3d/voxels/infer/{segment_of(self._model(model), 'model')}"
        query, body = {"image": image_id}, dict(params or {})
        with self._transport.send("POST", path, query, body, read=self._timeouts.infer) as response:
            arrays, told = self._transport.receive(response, folder, Watch(progress, stop))
        if "label" not in arrays:
            raise BadAnswer("The answer holds no label map. Look at the server's log.")
        return Segmentation(parse_segmentation(told), arrays["label"], arrays.get("uncertainty"))

    def cancel(self, request_id: str) -> bool:
        """Cancel a segmentation; who waits for it gets a ConflictError. Return False if none of that id runs."""
        try:
            self._delete_json(f"/rep3d/requests/{segment_of(request_id, 'segmentation')}")
        except NotFoundError:
            return False
        return True
