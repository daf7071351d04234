"""The bench as one object: what tests hold on to, and how its parts are put together."""

from __future__ import annotations

import ctypes
import sys
import tempfile
import types
from pathlib import Path

# PySide6 6.12.0 on Python 3.11 gives up a reference to None with every method that returns nothing (a label's setText,
# say), and to True and False with others, until Python deallocates them and dies, at the latest when it ends. From 3.12
# they are never deallocated; here they get references for years.
if sys.version_info < (3, 12):
    for constant in (None, True, False):
        ctypes.c_ssize_t.from_address(id(constant)).value += 1 << 40

_BENCH: list[Bench] = []


class Bench:
    """Everything that a test asks the bench for.

    Attributes:
        slicer, qt, ctk: the modules as a Slicer module imports them.
        app: `slicer.app`.
        core: the scene and its logics (`tests.slicerbench.core.Core`).
        dialogs: message boxes and file dialogs that were opened, and the answers prepared for them.
        problems: exceptions that a callback raised, and errors that VTK reported, since `start_test`.
        folder: a temporary folder that lives as long as the process: settings, `slicer.app.temporaryPath`.
    """

    def __init__(self) -> None:
        import slicer
        import slicer.util

        from tests.slicerbench import (
            app,
            callbacks,
            core,
            dialogs,
            modules,
            problems,
            pythonqt,
            slm,
            translations,
            widgets,
        )

        self._folder = tempfile.TemporaryDirectory(prefix="slicerbench-")
        self.folder = Path(self._folder.name)
        self.slicer = slicer
        self.problems = problems.Problems()
        self.dialogs = dialogs.Dialogs()
        self.app = app.make(self.folder)
        self.qt = pythonqt.install()
        self.ctk = types.ModuleType("ctk")
        sys.modules["qt"], sys.modules["ctk"] = self.qt, self.ctk
        self.core = core.Core()
        callbacks.listen(self._drawn_too_often)
        widgets.register(self.qt, self.ctk, slicer)
        dialogs.install(self.qt, self.dialogs)
        self.modules = modules.Modules(self)
        app.install(self.app, self)
        slm.install(slicer)
        translations.install(slicer)

    @property
    def scene(self):
        """The one MRML scene, `slicer.mrmlScene`."""
        return self.slicer.mrmlScene

    def start_test(self) -> None:
        """Begin with an empty scene with its three slice views, no settings, no prepared answers, no problems on
        record."""
        self.modules.close_all()
        self.core.clear()
        self.core.views.turn_back()
        self.app.reset()
        self.dialogs.reset()
        self.problems.start()

    def end_test(self) -> None:
        """Close what the test left open; raise what its callbacks raised.

        Raises:
            AssertionError: naming exceptions in callbacks, errors of VTK that nobody expected, unused answers, and keys
                that a closed module has left in the main window.
        """
        try:
            self.modules.close_all()
            self._delete_windows()
            self.core.clear()
        finally:
            self.problems.stop()
        self.problems.check()
        self.dialogs.check()
        left = self.slicer.util.mainWindow().findChildren(self.qt.QShortcut)
        keys = [shortcut.key.toString() for shortcut in left]
        for shortcut in left:
            shortcut.delete()
        assert not keys, f"closed modules have left keys in the main window: {keys}"

    def _drawn_too_often(self, run) -> None:
        """Note a callback after which Slicer's window would stand still, drawing a segmentation again and again."""
        from tests.slicerbench.redraws import MOST

        if run.redraws > MOST:
            self.problems.exceptions.append(
                f"{run.name} made every slice view draw a segmentation {run.redraws} times, more than {MOST}: write "
                "between StartModify() and EndModify() of its node"
            )

    def _delete_windows(self) -> None:
        """Delete what was opened: widgets that live on would follow the scene of every later test."""
        from PySide6 import QtCore

        main = self.slicer.util.mainWindow()
        for window in self.app.topLevelWidgets():
            if window is not main:
                window.hide()
                window.deleteLater()
        self.app.processEvents()
        QtCore.QCoreApplication.sendPostedEvents(None, QtCore.QEvent.Type.DeferredDelete.value)

    def open_module(self, path, name: str | None = None):
        """Open a scripted module as Slicer does when the user selects it: see `modules.Modules.open`."""
        return self.modules.open(Path(path), name)


def installed() -> Bench:
    """Return the bench of this process, made at the first call."""
    if not _BENCH:
        _BENCH.append(Bench())
    return _BENCH[0]
