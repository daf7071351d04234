"""The infer task: an image file in, a label file in the image's own geometry out.

The work is done by ``rep3d.inference``; here are only MONAI Label's form of it and the facts that go with the result.
"""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from monailabel.interfaces.tasks.infer_v2 import InferTask, InferType

from lib.published import PublishedModel

__all__ = ["Rep3DInferTask"]


class Rep3DInferTask(InferTask):
    """Segmentation by the published model.

    Args:
        model: the published model; it may not exist yet.
        labels: label name to voxel value.
    """

    def __init__(self, model: PublishedModel, labels: Mapping[str, int]) -> None:
        super().__init__(
            type=InferType.SEGMENTATION,
            labels=dict(labels),
            dimension=3,
            description="Rep3D: segmentation with large re-parameterised kernels, learning from each submitted label",
        )
        self._model = model

    def is_valid(self) -> bool:
        """Always, so that clients see the model, and are told what to do, before the first training."""
        return True

    def get_path(self, validate: bool = True) -> str | None:
        """The published checkpoint, for download; None where there is none, and none to write to."""
        return str(self._model.path) if validate and self._model.path.is_file() else None

    def __call__(self, request: dict[str, Any]) -> tuple[str, dict[str, Any]]:
        """Segments the image file ``request["image"]``.

        Returns:
            The label file, which the caller removes, and the facts about it.
        """
        started = time.perf_counter()
        handle, output = tempfile.mkstemp(suffix=".nii.gz")
        os.close(handle)
        try:
            result, version = self._model.segment(Path(request["image"]), Path(output))
        except BaseException:
            Path(output).unlink(missing_ok=True)
            raise
        total = time.perf_counter() - started
        latencies = {name: round(seconds, 3) for name, seconds in {**result.seconds, "total": total}.items()}
        return output, {
            "label_names": dict(self.labels),
            "volumes_ml": {name: round(volume, 4) for name, volume in result.volumes_ml.items()},
            "uncertainty": result.uncertainty,
            "version": version,
            "engine": result.engine,
            "latencies": latencies,
        }
