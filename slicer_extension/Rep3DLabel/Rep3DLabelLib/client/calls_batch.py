"""Calls about batch segmentation: all images without a label, one after the other."""

from __future__ import annotations

from .answers_status import BatchStatus, parse_batch
from .calls_base import Calls, segment_of

__all__ = ["BatchCalls"]


class BatchCalls(Calls):
    """Batch segmentation. A model that is None is the server's default one."""

    def batch_start(self, model: str | None = None, images: str = "unlabeled", views: int = 1) -> BatchStatus:
        """Start segmenting many images, or go on where it was stopped.

        Args:
            model: The model.
            images: "unlabeled", "labeled" or "all".
            views: Test-time views of each image, 1 to 8.

        Raises:
            ConflictError: One runs already, there is no trained model yet, or there are no such images.
        """
        body = {"images": images, "views": views}
        return parse_batch(self._post_json(self._batch_path(model), body))

    def batch_stop(self, model: str | None = None) -> BatchStatus:
        """Stop it and return its state; nothing happens where none runs."""
        return parse_batch(self._delete_json(self._batch_path(model)))

    def _batch_path(self, model: str | None) -> str:
        return f"/rep3d/models/{segment_of(self._model(model), 'model')}/batch"
