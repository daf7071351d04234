"""Words for the user in the user's language; the translation itself is Slicer's.

Nothing here knows Slicer: the module in Slicer gives its translator at the start, the tests and the browser front end
leave the texts as they are.
"""

from __future__ import annotations

from collections.abc import Callable

__all__ = ["CONTEXT", "set_translator", "tr"]

CONTEXT = "Rep3DLabel"  # of all texts, as Qt's translation files name it


def _as_it_is(context: str, text: str) -> str:
    return text


_translate: Callable[[str, str], str] = _as_it_is


def set_translator(translate: Callable[[str, str], str] | None) -> None:
    """Use a function (context, text) -> text from now on, None for none."""
    global _translate
    _translate = translate or _as_it_is


def tr(text: str) -> str:
    """Return a text in the user's language; put values in with `format` afterwards, not before."""
    return _translate(CONTEXT, text)
