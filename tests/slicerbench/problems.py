"""What went wrong where nobody could catch it: exceptions in callbacks, errors that VTK only prints."""

from __future__ import annotations

import sys
import traceback
from collections.abc import Iterator
from contextlib import contextmanager

import vtk


class Problems:
    """Collects, from `start` to `stop`, exceptions in Qt or VTK callbacks and errors and warnings of VTK.

    Attributes:
        exceptions: formatted tracebacks.
        vtk_errors, vtk_warnings: messages as VTK printed them.
    """

    def __init__(self) -> None:
        self.exceptions: list[str] = []
        self.vtk_errors: list[str] = []
        self.vtk_warnings: list[str] = []
        self._hook = None
        self._window = vtk.vtkOutputWindow()
        self._window.SetDisplayModeToNever()
        self._window.AddObserver("ErrorEvent", self._vtk(self.vtk_errors))
        self._window.AddObserver("WarningEvent", self._vtk(self.vtk_warnings))
        self._before: vtk.vtkOutputWindow | None = None

    def start(self) -> None:
        """Forget what was collected and listen from now on."""
        self.stop()
        for messages in (self.exceptions, self.vtk_errors, self.vtk_warnings):
            messages.clear()
        self._hook, sys.excepthook = sys.excepthook, self._exception
        self._before = vtk.vtkOutputWindow.GetInstance()
        vtk.vtkOutputWindow.SetInstance(self._window)

    def stop(self) -> None:
        """Give the hooks back; what was collected stays."""
        if self._hook is not None:
            sys.excepthook = self._hook
            vtk.vtkOutputWindow.SetInstance(self._before)
            self._hook = None

    @contextmanager
    def expected(self, text: str) -> Iterator[None]:
        """Inside it, one or more problems whose message contains `text` must occur; those are forgotten.

        Raises:
            AssertionError: where none occurred.
        """
        before = [len(messages) for messages in (self.exceptions, self.vtk_errors)]
        yield
        found = False
        for messages, start in zip((self.exceptions, self.vtk_errors), before, strict=True):
            matching = [message for message in messages[start:] if text in message]
            found = found or bool(matching)
            messages[start:] = [message for message in messages[start:] if text not in message]
        assert found, f"expected a problem that says {text!r}, got {self.exceptions + self.vtk_errors}"

    def check(self) -> None:
        """Raise AssertionError with all that was collected, where anything was."""
        found = self.exceptions + self.vtk_errors
        assert not found, "while the test ran, callbacks or VTK reported:\n" + "\n".join(found)

    def _exception(self, kind, error, trace) -> None:
        self.exceptions.append("".join(traceback.format_exception(kind, error, trace)))
        sys.stderr.write(self.exceptions[-1])

    @staticmethod
    def _vtk(messages: list[str]):
        def note(caller, event, text: str = "") -> None:
            messages.append(str(text).strip())

        note.CallDataType = vtk.VTK_STRING
        return note
