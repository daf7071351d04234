"""Addresses for segmenting all images without a label."""

from __future__ import annotations

from fastapi import APIRouter, HTTPException
from monailabel.endpoints.user.auth import User

from lib.access import AS_ADMIN

__all__ = ["router"]

router = APIRouter(include_in_schema=False)


@router.post("/batch/infer/{model}")
def refuse_batch(model: str, user: User = AS_ADMIN) -> None:
    """MONAI Label's batch inference would write the datastore from a second process."""
    raise HTTPException(404, "this server offers no batch inference: use /infer/ for each image")
