"""`slicer.modules.NAME` of a scripted module: opened, left, entered, reloaded and closed as Slicer does."""

from __future__ import annotations

import importlib.util
import sys
from pathlib import Path

from PySide6 import QtWidgets


class ScriptedModule:
    """Stand-in for qSlicerScriptedLoadableModule: what a module's class writes into its `parent`."""

    def __init__(self, name: str, path: Path) -> None:
        self.name, self.path = name, str(path)
        self.title, self.helpText, self.acknowledgementText = name, "", ""
        self.categories: list[str] = []
        self.dependencies: list[str] = []
        self.contributors: list[str] = []
        self.associatedNodeTypes: list[str] = []
        self.hidden = False
        self.widgetRepresentationCreationEnabled = True
        self.icon: object = None
        self.index = -1
        self._widget = None

    def widgetRepresentation(self):
        """Return the widget that holds the module's panel."""
        return self._widget

    def logic(self):
        """Scripted modules have no logic object in C++."""
        return None


class OpenModule:
    """A module on the bench.

    Attributes:
        python: its Python module.
        module: the object of its module class.
        parent: the qSlicerScriptedLoadableModuleWidget stand-in, which is shown and can be clicked and photographed.
        widget: the object of its widget class, also `slicer.modules.NAMEWidget`.
    """

    def __init__(self, modules: Modules, name: str, path: Path) -> None:
        self._modules, self.name, self.path = modules, name, path
        self.entered = False
        self.parent_module = ScriptedModule(name, path)
        setattr(modules.bench.slicer.modules, name.lower(), self.parent_module)
        self.python = _imported(name, path)
        self.module = getattr(self.python, name)(self.parent_module)
        self.parent = None
        self.widget = None
        self._build()

    @property
    def ui(self):
        """`widget.ui`: the children of the .ui file by name, where the module keeps them there."""
        return self.widget.ui

    def _build(self) -> None:
        bench = self._modules.bench
        parent = bench.slicer.qSlicerScriptedLoadableModuleWidget()
        parent.setObjectName(f"{self.name}ModuleWidget")
        parent.setLayout(QtWidgets.QVBoxLayout())
        parent.setMRMLScene(bench.scene)
        parent._d.reload = self.reload
        self.parent = self.parent_module._widget = parent
        self._fill()

    def _fill(self) -> None:
        cls = getattr(sys.modules[self.name], f"{self.name}Widget")
        self.widget = cls(self.parent)
        self.parent._d.python = self.widget
        setattr(self._modules.bench.slicer.modules, f"{self.name}Widget", self.widget)
        self.widget.setup()

    def enter(self) -> None:
        """Note that the user selects the module: it is shown in the main window's module panel, then entered."""
        if not self.entered:
            self._modules.bench.app.module_panel().insertWidget(0, self.parent)
            self.parent.setSizePolicy(QtWidgets.QSizePolicy.Ignored, self.parent.sizePolicy.verticalPolicy())
            self.parent.show()
            self.entered = True
            self.parent._d.entered = True
            if hasattr(self.widget, "enter"):
                self.widget.enter()

    def exit(self) -> None:
        """Note that the user selects another module: it is left, then taken away (qSlicerModulePanel.cxx)."""
        if self.entered:
            self.entered = False
            self.parent._d.entered = False
            if hasattr(self.widget, "exit"):
                self.widget.exit()
            self._modules.bench.app.module_panel().removeWidget(self.parent)
            self.parent.hide()
            self.parent.setParent(None)

    def reload(self) -> None:
        """Second half of `slicer.util.reloadScriptedModule`: a new widget object in the same parent.

        Neither exit() nor enter() is called, though the module is shown all the time; what the first object has put
        into the parent is hidden, not deleted (Base/Python/slicer/util.py).
        """
        self._fill()

    def close(self) -> None:
        """Slicer ends: first it says aboutToQuit, then the main window goes with exit(), then the modules are unloaded.

        As in Main.cxx of Slicer: the event loop returns, and what it ran for is deleted afterwards.
        """
        if self not in self._modules.open_modules:
            return
        self._modules.open_modules.remove(self)
        self._modules.bench.app.aboutToQuit.emit()
        self.exit()
        self._modules.bench.app.moduleManager().moduleAboutToBeUnloaded.emit(self.name)
        modules = self._modules.bench.slicer.modules
        for name in (self.name.lower(), f"{self.name}Widget"):
            if hasattr(modules, name):
                delattr(modules, name)
        self.parent.hide()
        self.parent.deleteLater()
        self._modules.bench.app.processEvents()


class Modules:
    """The scripted modules that are open."""

    def __init__(self, bench) -> None:
        self.bench = bench
        self.open_modules: list[OpenModule] = []

    def open(self, path: Path, name: str | None = None) -> OpenModule:
        """Run module(parent), widget(parent), setup() and enter() of the scripted module in the file `path`.

        Raises:
            FileNotFoundError: where there is no such file.
            AttributeError: where it has no class of the module's name, or none named NAMEWidget.
        """
        if not path.is_file():
            raise FileNotFoundError(f"expected a scripted module, got {path}, which does not exist")
        opened = OpenModule(self, name or path.stem, path.resolve())
        self.open_modules.append(opened)
        opened.enter()
        return opened

    def close_all(self) -> None:
        """Close what is open."""
        for opened in list(self.open_modules):
            opened.close()


def _imported(name: str, path: Path):
    """Return the Python module, executed anew; its folder stays on `sys.path`, as in Slicer."""
    if str(path.parent) not in sys.path:
        sys.path.insert(0, str(path.parent))
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module
