"""What a client may ask of a segmentation, checked before any work begins."""

from __future__ import annotations

import uuid
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from lib.errors import RequestError
from lib.names import checked_name
from rep3d.inference.region import Box
from rep3d.inference.views import check_views

__all__ = ["InferRequest", "SETTINGS"]

SETTINGS: Mapping[str, str] = {
    "views": "how many test-time views to average, 1 (none) to 8",
    "box": 'only this part: {"voxels": [[i, j, k], [i, j, k]]} or {"ras": [[R, A, S], [R, A, S]]} in mm',
    "stage": "of a model with two stages: all (the default), or coarse for the first one alone, which takes seconds",
    "uncertainty": "true for a second volume with the uncertainty of each voxel",
    "request_id": "a name of the client's for this request, by which it can be cancelled",
    "save_label": "true to keep the result as a label of the image",
    "label_tag": "the tag of the label that is kept",
}
# What MONAI Label's own clients send along, and what its server adds; none of it changes a segmentation here.
_IGNORED_KEYS = frozenset(
    (
        "background",
        "bundle_path",
        "cache_transforms",
        "cache_transforms_in_memory",
        "cache_transforms_ttl",
        "client_id",
        "description",
        "device",
        "foreground",
        "gpus",
        "highres",
        "image",
        "label",
        "label_info",
        "logging",
        "model",
        "multi_gpu",
        "result_compress",
        "result_dtype",
        "result_extension",
        "result_write_to_file",
        "restore_label_idx",
        "session",
        "timeout",
        "user",
    )
)


@dataclass(frozen=True)
class InferRequest:
    """A segmentation that was asked for.

    Attributes:
        id: its name.
        views: how many test-time views to average.
        box: the part to segment; None for all.
        uncertainty: whether to make the second volume.
        coarse: whether the first of two stages is enough.
    """

    id: str
    views: int = 1
    box: Box | None = None
    uncertainty: bool = False
    coarse: bool = False

    @classmethod
    def parse(cls, request: Mapping[str, Any]) -> InferRequest:
        """Check a request's settings.

        Raises:
            RequestError: for an unknown key, or an impossible value.
            ConfigError: for a number of views that there is not.
            ImageError: for a box that is none.
        """
        unknown = sorted(set(request) - set(SETTINGS) - _IGNORED_KEYS)
        if unknown:
            raise RequestError(
                f"There is no setting {', '.join(unknown[:5])[:200]}. Choose among {', '.join(sorted(SETTINGS))}."
            )
        for name in ("uncertainty", "save_label"):
            if not isinstance(request.get(name, False), bool):
                raise RequestError(f"{name} must be true or false, not {str(request[name])[:200]!r}.")
        own_id = request.get("request_id")
        if own_id is not None and not isinstance(own_id, str):
            raise RequestError(f"request_id must be a name, not {str(own_id)[:200]!r}.")
        stage = request.get("stage", "all")
        if stage not in ("all", "coarse"):
            raise RequestError(f"stage must be all or coarse, not {str(stage)[:200]!r}.")
        box = request.get("box")
        return cls(
            id=checked_name("request_id", own_id) if own_id is not None else uuid.uuid4().hex,
            views=check_views(request.get("views", 1)),
            box=Box.parse(box) if box is not None else None,
            uncertainty=request.get("uncertainty", False),
            coarse=stage == "coarse",
        )
