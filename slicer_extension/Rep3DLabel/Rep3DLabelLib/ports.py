"""What the workflow needs of a user interface; a panel in Slicer and a page in a browser each provide it."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

from .view import Question

__all__ = ["Screen"]


class Screen(Protocol):
    """The user interface as the workflow sees it. No method may wait for the user."""

    def ask(self, question: Question, answer: Callable[[str], None]) -> None:
        """Show a question and return at once; call `answer` with the key of the choice, the default if it is closed."""

    def edit(self, segmentation: Any, volume: Any) -> None:
        """Hand a segmentation and the volume below it to the segment editor; None, None to take them away."""

    def save_undo(self, segmentation: Any) -> bool:
        """Make an undo point of a segmentation; False where the editor has another one, or cannot."""

    def show_chart(self, chart: Any) -> None:
        """Show a plot chart node beside the slice views."""
