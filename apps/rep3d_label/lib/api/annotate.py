"""Addresses of the page for annotating in a browser: its files, and the viewer's (NiiVue), which npm installs."""

from __future__ import annotations

from pathlib import Path

from fastapi import APIRouter
from fastapi.responses import RedirectResponse

from lib.api.page_files import add_files

__all__ = ["router"]

router = APIRouter()

_FOLDER = Path(__file__).resolve().parents[2] / "annotate"
_PACKAGES = _FOLDER / "node_modules"
_OURS = {
    file.relative_to(_FOLDER).as_posix(): file
    for file in sorted(_FOLDER.rglob("*"))
    if file.is_file() and _PACKAGES not in file.parents
}
_VIEWER = _PACKAGES / "@niivue" / "niivue" / "dist" / "index.js"


@router.get("/rep3d/annotate", include_in_schema=False)
def redirect_to_page() -> RedirectResponse:
    """Return the address with the slash that people leave out."""
    return RedirectResponse("annotate/")


add_files(router, "/rep3d/annotate/", _OURS, {})
if _VIEWER.is_file():  # without it the page says what is missing
    add_files(router, "/rep3d/annotate/", {"niivue.js": _VIEWER}, {})
