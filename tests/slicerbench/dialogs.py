"""Dialogs that would wait for the user: noted and answered at once, so that no test waits for ever."""

from __future__ import annotations

from dataclasses import dataclass, field

from PySide6 import QtWidgets


@dataclass(frozen=True)
class Shown:
    """A dialog that would have waited: its kind (class, or QFileDialog.getOpenFileName), title, text and answer."""

    kind: str
    title: str
    text: str
    answer: object
    detailed: str = ""


@dataclass
class Dialogs:
    """Answers, prepared by the test, and what was shown.

    A message box with one button is answered by it. One with several buttons, and a file dialog, need an answer
    prepared by `answer`; without one the test fails.
    """

    shown: list[Shown] = field(default_factory=list)
    _answers: list[tuple[str, object]] = field(default_factory=list)
    _unanswered: list[str] = field(default_factory=list)

    def answer(self, text: str, answer: object) -> None:
        """Prepare the answer to the next dialog whose title or text contains `text`.

        Args:
            text: a part of the title or text.
            answer: a button (its text, or qt.QMessageBox.Yes), or what a file dialog returns.
        """
        self._answers.append((text, answer))

    def texts(self) -> list[str]:
        """Return the texts of all dialogs shown."""
        return [dialog.text for dialog in self.shown]

    def reset(self) -> None:
        """Forget everything."""
        for things in (self.shown, self._answers, self._unanswered):
            things.clear()

    def check(self) -> None:
        """Raise AssertionError for a dialog that had no answer, or an answer that no dialog asked for."""
        assert not self._unanswered, "these dialogs opened and the test had prepared no answer: " + "; ".join(
            self._unanswered
        )
        assert not self._answers, f"these answers were prepared and no dialog asked for them: {self._answers}"

    def take(self, kind: str, title: str, text: str, default: object = None, detailed: str = "") -> object:
        """Bench only: the answer to a dialog.

        Raises:
            AssertionError: where none was prepared and there is no default.
        """
        for index, (wanted, prepared) in enumerate(self._answers):
            if wanted in title or wanted in text:
                del self._answers[index]
                self.shown.append(Shown(kind, title, text, prepared, detailed))
                return prepared
        if default is None:
            self._unanswered.append(f"{kind} {title!r}: {text!r}")
            raise AssertionError(f"{kind} {title!r} asks {text!r}; prepare the answer with dialogs.answer()")
        self.shown.append(Shown(kind, title, text, default, detailed))
        return default


def install(qt, dialogs: Dialogs) -> None:
    """Replace exec() of dialogs and the static functions that wait."""
    QtWidgets.QDialog.exec = lambda self: _run_dialog(self, dialogs)
    QtWidgets.QDialog.exec_ = QtWidgets.QDialog.exec
    QtWidgets.QMessageBox.exec = lambda self: _run_message_box(self, dialogs)
    QtWidgets.QMessageBox.exec_ = QtWidgets.QMessageBox.exec
    for cls in (QtWidgets.QFileDialog, QtWidgets.QInputDialog, QtWidgets.QProgressDialog, QtWidgets.QColorDialog):
        for name in ("exec", "exec_"):
            if name in cls.__dict__:
                setattr(cls, name, getattr(QtWidgets.QDialog, name))
    for name in ("question", "information", "warning", "critical"):
        setattr(QtWidgets.QMessageBox, name, staticmethod(_static(f"QMessageBox.{name}", dialogs)))
    for name in ("getOpenFileName", "getOpenFileNames", "getSaveFileName", "getExistingDirectory"):
        setattr(QtWidgets.QFileDialog, name, staticmethod(_static(f"QFileDialog.{name}", dialogs)))
    for name in ("getText", "getInt", "getDouble", "getItem"):
        setattr(QtWidgets.QInputDialog, name, staticmethod(_static(f"QInputDialog.{name}", dialogs)))


def _run_dialog(dialog: QtWidgets.QDialog, dialogs: Dialogs) -> int:
    answer = dialogs.take(type(dialog).__name__, dialog.windowTitle, dialog.windowTitle)
    accepted = bool(answer)
    dialog.accept() if accepted else dialog.reject()
    return int(accepted)


def _run_message_box(box: QtWidgets.QMessageBox, dialogs: Dialogs) -> int:
    # A detailed text adds a button «Show Details», which is no answer.
    buttons = [button for button in box.buttons() if box.buttonRole(button) != QtWidgets.QMessageBox.ActionRole]
    only = (box.standardButton(buttons[0]) if len(buttons) == 1 else None) if buttons else QtWidgets.QMessageBox.Ok
    title = box.windowTitle.strip()
    answer = dialogs.take(type(box).__name__, title, box.text, only, box.detailedText)
    if isinstance(answer, str):
        pressed = next((button for button in buttons if button.text.replace("&", "") == answer), None)
        if pressed is None:
            raise AssertionError(f"expected one of {[button.text for button in buttons]}, got {answer!r}")
    else:
        pressed = box.button(answer)
    if pressed is not None:
        pressed.click()
    return int(box.standardButton(pressed)) if pressed is not None else int(answer)


def _static(kind: str, dialogs: Dialogs):
    """Return a static function of Qt that waits: (parent, title, text, ...) -> the prepared answer."""

    def shown(parent=None, title: str = "", text: str = "", *rest: object):
        one_button = kind in ("QMessageBox.information", "QMessageBox.warning", "QMessageBox.critical") and not rest
        return dialogs.take(kind, title, str(text), QtWidgets.QMessageBox.Ok if one_button else None)

    return shown


def open_dialogs() -> list[QtWidgets.QDialog]:
    """Dialogs that are open without waiting (open() or show()), which a test answers by clicks."""
    found = QtWidgets.QApplication.topLevelWidgets()
    return [widget for widget in found if isinstance(widget, QtWidgets.QDialog) and widget.isVisible()]
