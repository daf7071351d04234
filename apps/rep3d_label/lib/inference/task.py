"""The infer task: an image file in, a label file in the image's own geometry out.

The work is done by ``rep3d.inference``; here are only MONAI Label's form of it and the facts that go with the result.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from monailabel.config import settings
from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.inference.request import InferRequest
from lib.inference.running import RunningRequests
from lib.models.published import PublishedModel
from rep3d.starter.facts import starter_words

__all__ = ["Rep3DInferTask"]


class Rep3DInferTask(InferTask):
    """Segmentation by the published model.

    Args:
        model: the published model; it may not exist yet.
        labels: label name to voxel value.
        requests: where running requests are listed.
        name: the model's name.
    """

    def __init__(
        self,
        model: PublishedModel,
        labels: Mapping[str, int],
        requests: RunningRequests | None = None,
        name: str = "rep3d",
    ) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(labels),
            dimension=3,
            description="Rep3D: segmentation with large re-parameterised kernels, learning from each submitted label",
        )
        self._model = model
        self._name = name
        self._requests = requests or RunningRequests()

    def is_valid(self) -> bool:
        """Return True always, so that clients see the model, and are told what to do, before the first training."""
        return True

    def get_path(self, validate: bool = True) -> str | None:
        """Return the published checkpoint, for download; None where there is none, and none to write to."""
        return str(self._model.path) if validate and self._model.path.is_file() else None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segment an image file.

        Args:
            request: ``image`` is the file; ``shown_as`` its name in the list of running requests; ``gone`` an event
                that is set when its client has gone away. All else is as :class:`lib.inference.request.InferRequest`
                takes it.

        Returns:
            The label file, which the caller removes, and the facts about it.

        Raises:
            InferenceCancelled: if the request was cancelled.
        """
        values = dict(request)
        shown = str(values.pop("shown_as", ""))
        gone = values.pop("gone", None)
        asked = InferRequest.parse(values)
        user = values.get("user") or values.get("client_id")
        with self._requests.running(asked.id, self._name, shown, str(user) if user else None, gone) as running:
            return self._segment(Path(request["image"]), asked, running.cancelled)

    def _segment(self, image: Path, asked: InferRequest, cancelled: Callable[[], bool]) -> tuple[str, dict[str, Any]]:
        started = time.perf_counter()
        predictor = self._model.predictor()
        handle, output = tempfile.mkstemp(suffix=".nii.gz")
        os.close(handle)
        second = self._requests.new_map(asked.id) if asked.uncertainty else None
        try:
            result = predictor.segment(
                self._model.channels.files(image),
                output,
                views=asked.views,
                box=asked.box,
                uncertainty=second,
                cancelled=cancelled,
                coarse=asked.coarse,
            )
        except BaseException:
            for file in (Path(output), second):
                if file:
                    file.unlink(missing_ok=True)
            raise
        total = time.perf_counter() - started
        latencies = {name: round(seconds, 3) for name, seconds in {**result.seconds, "total": total}.items()}
        facts: dict[str, Any] = {
            "label_names": dict(self.labels),
            "volumes_ml": {name: round(volume, 4) for name, volume in result.volumes_ml.items()},
            "confidence": result.confidence,
            "uncertainty": result.uncertainty,
            "missing_labels": self._model.missing_labels(predictor),
            "model": self._name,
            "version": result.version,
            "attribution": starter_words(predictor.info),
            "stage": result.stage,
            "device": result.device,
            "engine": result.engine,
            "tuned": result.tuned,
            "fallback": result.fallback,
            "request_id": asked.id,
            "latencies": latencies,
        }
        if second is not None:
            self._requests.keep_map(asked.id, second)
            facts["uncertainty_map"] = f"{settings.MONAI_LABEL_API_STR}/rep3d/requests/{asked.id}/uncertainty"
        return output, facts
