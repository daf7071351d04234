"""`slicer.i18n`: texts come back as they are."""

from __future__ import annotations

import sys
import types


def tr(text: str) -> str:
    """Return the text itself; Slicer looks it up under the module's name."""
    return text


def translate(context: str, text: str) -> str:
    """Return the text itself; Slicer looks it up under `context`."""
    return text


def install(slicer) -> None:
    """Make `from slicer.i18n import tr, translate` work."""
    module = types.ModuleType("slicer.i18n")
    module.tr, module.translate = tr, translate
    sys.modules["slicer.i18n"] = slicer.i18n = module
