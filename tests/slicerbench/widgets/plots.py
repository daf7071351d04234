"""qMRMLPlotView and qMRMLPlotWidget: the curves of a plot chart node, drawn plainly so that a picture shows them."""

from __future__ import annotations

from PySide6 import QtCore, QtGui, QtWidgets

from tests.slicerbench.widgets.base import observe, private

_MARGIN = 28  # pixels


class qMRMLPlotView(QtWidgets.QWidget):
    """Draws the series of the chart that a plot view node names. Not done: axes, legends, the mouse, VTK."""

    STANDS_FOR_CPP = True
    SIGNALS = {"mrmlSceneChanged(vtkMRMLScene*)": "mrmlSceneChanged"}
    mrmlSceneChanged = QtCore.Signal(object)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        self._d = private(scene=None, node=None, tag=None)
        self.setMinimumHeight(120)

    def setMRMLScene(self, scene) -> None:
        """Set the scene."""
        self._d.scene = scene
        self.mrmlSceneChanged.emit(scene)

    def setMRMLPlotViewNode(self, node) -> None:
        """Set the view node whose chart is drawn."""
        private_ = self._d
        if private_.tag is not None:
            private_.node.RemoveObserver(private_.tag)
        private_.node = node
        private_.tag = observe(self, node, "ModifiedEvent", qMRMLPlotView.update) if node is not None else None
        self.update()

    def fitToContent(self) -> None:
        """Axes are always fitted here."""
        self.update()

    def paintEvent(self, event: QtGui.QPaintEvent) -> None:
        """Draw the title and the curves."""
        painter = QtGui.QPainter(self)
        painter.fillRect(self.rect, QtCore.Qt.white)
        chart = self._d.node.GetPlotChartNode() if self._d.node is not None else None
        if chart is not None:
            painter.drawText(_MARGIN, 18, chart.GetTitle() or "")
            curves = [curve for curve in map(self._curve, self._series(chart)) if len(curve[1]) > 0]
            self._draw(painter, curves)
        painter.end()

    @staticmethod
    def _series(chart) -> list:
        return [chart.GetNthPlotSeriesNode(index) for index in range(chart.GetNumberOfPlotSeriesNodes())]

    @staticmethod
    def _curve(series) -> tuple[QtGui.QColor, list[tuple[float, float]]]:
        table = series.GetTableNode().GetTable() if series is not None and series.GetTableNode() else None
        x = table.GetColumnByName(series.GetXColumnName()) if table is not None and series.GetXColumnName() else None
        y = table.GetColumnByName(series.GetYColumnName()) if table is not None else None
        if y is None:
            return QtGui.QColor(), []
        points = [(x.GetTuple1(i) if x is not None else float(i), y.GetTuple1(i)) for i in range(y.GetNumberOfTuples())]
        return QtGui.QColor.fromRgbF(*series.GetColor()), points

    def _draw(self, painter: QtGui.QPainter, curves: list) -> None:
        points = [point for _, curve in curves for point in curve]
        if not points:
            return
        left, right = min(p[0] for p in points), max(p[0] for p in points)
        low, high = min(p[1] for p in points), max(p[1] for p in points)
        width, height = self.width - 2 * _MARGIN, self.height - 2 * _MARGIN
        for colour, curve in curves:
            painter.setPen(QtGui.QPen(colour, 2))
            placed = [
                QtCore.QPointF(
                    _MARGIN + (x - left) / ((right - left) or 1) * width,
                    self.height - _MARGIN - (y - low) / ((high - low) or 1) * height,
                )
                for x, y in curve
            ]
            painter.drawPolyline(placed)


class qMRMLPlotWidget(QtWidgets.QWidget):
    """A plot view with a bar above it. Not done: the bar."""

    STANDS_FOR_CPP = True

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        view = qMRMLPlotView(self)
        layout = QtWidgets.QVBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(view)
        self._d = private(view=view, scene=None, node=None)

    def mrmlScene(self):
        """Return the scene, None before it is set."""
        return self._d.scene

    def setMRMLScene(self, scene) -> None:
        """Set the scene."""
        self._d.scene = scene
        self._d.view.setMRMLScene(scene)

    def mrmlPlotViewNode(self):
        """Return the view node, None for none."""
        return self._d.node

    def setMRMLPlotViewNode(self, node) -> None:
        """Set the view node whose chart is drawn."""
        self._d.node = node
        self._d.view.setMRMLPlotViewNode(node)

    def plotView(self) -> qMRMLPlotView:
        """Return the view itself."""
        return self._d.view
