"""Who may ask for what: MONAI Label's roles, as dependencies of our routes."""

from __future__ import annotations

from fastapi import Depends
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

__all__ = ["AS_ADMIN", "AS_ANNOTATOR", "AS_USER"]

AS_USER = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_USER))
AS_ANNOTATOR = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR))
AS_ADMIN = Depends(RBAC(settings.MONAI_LABEL_AUTH_ROLE_ADMIN))
