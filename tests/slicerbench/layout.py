"""`slicer.app.layoutManager()`: views as far as MRML goes."""

from __future__ import annotations

from PySide6 import QtCore


class SliceWidget(QtCore.QObject):
    """Stand-in for qMRMLSliceWidget: its nodes and its logic. Not done: it is no widget; no view, no interactor."""

    STANDS_FOR_CPP = True

    def __init__(self, views, name: str) -> None:
        super().__init__()
        self._d = (views, name)

    def mrmlSliceNode(self):
        """Return the vtkMRMLSliceNode."""
        return self._d[0].slice_node(self._d[1])

    def sliceLogic(self):
        """Return the vtkMRMLSliceLogic."""
        return self._d[0].logic(self._d[1])

    def mrmlSliceCompositeNode(self):
        """Return the vtkMRMLSliceCompositeNode."""
        return self._d[0].composite_node(self._d[1])


class _Private:
    def __init__(self, bench) -> None:
        self.bench = bench
        self.layout = 3  # SlicerLayoutFourUpView
        self.calls: list[str] = []
        self.light_boxes: set[str] = set()
        self.slice_widgets = {name: SliceWidget(bench.core.views, name) for name in bench.core.views.names()}


class LayoutManager(QtCore.QObject):
    """Stand-in for qSlicerLayoutManager: slice views, the number of the layout, and what was asked for.

    Not done: there are no 3D, plot or table views (their counts are 0), and `setLayout` shows nothing.
    """

    STANDS_FOR_CPP = True
    SIGNALS = {"layoutChanged(int)": "layoutChanged"}
    layoutChanged = QtCore.Signal(int)
    threeDViewCount = property(lambda self: 0)
    tableViewCount = property(lambda self: 0)
    plotViewCount = property(lambda self: 0)

    def __init__(self, bench) -> None:
        super().__init__()
        self._d = _Private(bench)

    layout = property(lambda self: self._d.layout, lambda self, value: self.setLayout(value))

    def setLayout(self, layout: int) -> None:
        """Note the layout (vtkMRMLLayoutNode.SlicerLayout...)."""
        changed, self._d.layout = layout != self._d.layout, layout
        if changed:
            self.layoutChanged.emit(layout)

    def sliceViewNames(self) -> tuple[str, ...]:
        """Return names of the slice views; a tuple, as PythonQt returns string lists."""
        return self._d.bench.core.views.names()

    def sliceWidget(self, name: str) -> SliceWidget | None:
        """Return the view of this name, None where there is none."""
        return self._d.slice_widgets.get(name)

    def mrmlSliceLogics(self):
        """vtkCollection of the slice logics."""
        return self._d.bench.core.views.logics

    def mrmlScene(self):
        """Return the scene."""
        return self._d.bench.scene

    def resetSliceViews(self) -> None:
        """Fit each slice view to its background."""
        self._d.calls.append("resetSliceViews")
        logics = self._d.bench.core.views.logics
        for index in range(logics.GetNumberOfItems()):
            logics.GetItemAsObject(index).FitSliceToBackground()

    def resetThreeDViews(self) -> None:
        """Note it only."""
        self._d.calls.append("resetThreeDViews")

    def setRenderPaused(self, pause: bool) -> None:
        """Nothing is rendered."""

    def light_boxes(self) -> set[str]:
        """Bench only: names of views that show several slices; from 5.10 on (pull request 8776) there are none."""
        version = (self._d.bench.app.majorVersion, self._d.bench.app.minorVersion)
        return self._d.light_boxes if version < (5, 10) else set()

    def reset(self) -> None:
        """Bench only: forgets what was asked for."""
        self._d.layout = 3
        self._d.light_boxes.clear()
        self._d.calls.clear()
