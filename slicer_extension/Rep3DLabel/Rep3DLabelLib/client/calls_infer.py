"""Calls that segment an image, look at what runs, and stop it."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path

import requests

from ..errors import BadAnswer, NotFoundError
from ..files import atomic_target, check_image_file, resolve_target
from .answers import InferResult
from .answers_status import RunningRequest, parse_requests
from .calls_base import Calls, name_of, segment_of
from .multipart import MultipartUpload, parse_multipart
from .transfers import Progress, Stop, Watch

__all__ = ["InferCalls"]


class InferCalls(Calls):
    """Segmentation. `progress` and `stop` watch the transfer only: to stop the computation, `cancel` it by its id."""

    def infer(
        self,
        image_id: str,
        output_path: str | Path,
        model: str | None = None,
        params: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> InferResult:
        """Segment an image of the data store and write the label map to a file or into an existing folder.

        Args:
            image_id: The image.
            output_path: File or folder to write to.
            model: Model to use, None for the server's default.
            params: Settings of this segmentation; "request_id" names it for `cancel`.
            progress, stop: See `Watch`; of the answer's transfer.

        Raises:
            ConflictError: There is no trained model yet, or the segmentation was cancelled.
        """
        query = {"image": name_of(image_id, "image"), "output": "all"}
        path = f"/infer/{segment_of(self._model(model), 'model')}"
        form = {"params": json.dumps(dict(params or {}))}
        with self._transport.send("POST", path, query, form=form, read=self._timeouts.infer) as response:
            return self._save_segmentation(response, output_path, Watch(progress, stop))

    def infer_file(
        self,
        image_path: str | Path,
        output_path: str | Path,
        model: str | None = None,
        params: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> InferResult:
        """Segment an image of this computer, which the server does not keep; otherwise like `infer`.

        `progress` tells of the upload first, then of the answer's transfer.
        """
        path, watch = f"/infer/{segment_of(self._model(model), 'model')}", Watch(progress, stop)
        upload = MultipartUpload("file", Path(image_path), {"params": dict(params or {})}, watch)
        sending = self._transport.send("POST", path, {"output": "all"}, upload=upload, read=self._timeouts.infer)
        with upload, sending as response:
            return self._save_segmentation(response, output_path, watch)

    def running_requests(self) -> tuple[RunningRequest, ...]:
        """List the segmentations that run now, oldest first."""
        return parse_requests(self._transport.get_json("/rep3d/requests"))

    def cancel(self, request_id: str) -> bool:
        """Cancel a segmentation; who waits for it gets a ConflictError. Return False if none of that id runs."""
        try:
            self._delete_json(f"/rep3d/requests/{segment_of(request_id, 'segmentation')}")
        except NotFoundError:
            return False
        return True

    def download_uncertainty(
        self, request_id: str, target: str | Path, progress: Progress | None = None, stop: Stop | None = None
    ) -> Path:
        """Write the uncertainty map of a segmentation that was asked for one to a file, and return its path.

        Raises:
            NotFoundError: There is none, or it is older than the server keeps them (30 minutes).
        """
        path = f"/rep3d/requests/{segment_of(request_id, 'segmentation')}/uncertainty"
        return self._download(path, {}, target, f"uncertainty-{request_id}", Watch(progress, stop))

    def _save_segmentation(self, response: requests.Response, output_path: str | Path, watch: Watch) -> InferResult:
        content = self._transport.read_all(response, watch)
        content_type = response.headers.get("Content-Type", "")
        if not content_type.startswith("multipart/"):
            answer = self._transport.decode_json(content, response)
            raise BadAnswer(
                f"Expected a label map from the server, but it sent only: {str(answer)[:200]}. Look at the server's "
                "log."
            )
        parts = parse_multipart(content, content_type)
        if "image" not in parts or "params" not in parts:
            raise BadAnswer(f"Expected the parts 'params' and 'image' from the server, got {sorted(parts)}.")
        params = self._transport.decode_json(parts["params"].content, response)
        target = resolve_target(output_path, parts["image"].filename, "segmentation.nii.gz")
        with atomic_target(target) as part:
            part.write_bytes(parts["image"].content)
            check_image_file(part, target.name)
        return InferResult(target, params if isinstance(params, dict) else {})
