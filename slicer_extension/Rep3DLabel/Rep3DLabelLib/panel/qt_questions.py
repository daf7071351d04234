"""Questions to the user that never stop the program: a dialog is shown, and the answer comes when it comes.

One question at a time; others wait. Closing a dialog is the answer that does no harm.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Callable
from typing import Any

import qt

from ..view import Question

__all__ = ["Questions"]


class Questions:
    """The questions of a panel.

    Args:
        parent: Widget whose window the dialogs belong to.
    """

    def __init__(self, parent: Any) -> None:
        self._parent = parent
        self._waiting: deque[tuple[Question, Callable[[str], None]]] = deque()
        self._box: Any = None
        self._buttons: list[tuple[str, Any]] = []

    @property
    def current(self) -> Question | None:
        """The question that is shown now."""
        return self._waiting[0][0] if self._box is not None else None

    def ask(self, question: Question, answer: Callable[[str], None]) -> None:
        """Show a question, now or after those that were asked before."""
        self._waiting.append((question, answer))
        if self._box is None:
            self._show()

    def close(self) -> None:
        """Answer all questions with what does no harm."""
        box, self._box = self._box, None
        if box is not None:
            box.disconnect("finished(int)", self._finished)
            box.hide()
            box.deleteLater()
        while self._waiting:
            question, answer = self._waiting.popleft()
            answer(question.default)

    def _show(self) -> None:
        question = self._waiting[0][0]
        box = qt.QMessageBox(self._parent)
        box.setObjectName("question")
        box.setIcon(qt.QMessageBox.Question)
        box.setWindowTitle(question.title)
        box.setTextFormat(qt.Qt.PlainText)
        box.setText(question.text)
        self._buttons = []
        for key, text in question.choices:
            role = qt.QMessageBox.RejectRole if key == question.default else qt.QMessageBox.AcceptRole
            button = box.addButton(text, role)
            self._buttons.append((key, button))
            if key == question.default:
                box.setDefaultButton(button)
                box.setEscapeButton(button)
        box.setWindowModality(qt.Qt.WindowModal)
        box.connect("finished(int)", self._finished)
        self._box = box
        box.show()  # not exec: the program goes on

    def _finished(self) -> None:
        box, self._box = self._box, None
        question, answer = self._waiting.popleft()
        clicked = box.clickedButton()
        chosen = [key for key, button in self._buttons if clicked is not None and button == clicked]
        box.deleteLater()
        try:
            answer(chosen[0] if chosen else question.default)
        finally:
            if self._waiting and self._box is None:
                self._show()
