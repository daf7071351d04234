"""Curves of a training in Slicer's own plot: loss, and Dice on the validation cases where it was measured.

The nodes are made once and filled again at each update, so an open plot view goes on showing them.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import vtk
from vtk.util.numpy_support import numpy_to_vtk

__all__ = ["Curves"]

_COLOURS = ((0.85, 0.37, 0.01), (0.0, 0.45, 0.70))  # told apart by colour-blind eyes too


class Curves:
    """A chart with two series, each with its own table since they are measured at different iterations.

    Args:
        scene: The vtkMRMLScene.
        title: Of the chart.
        names: Of the two series: loss, Dice.
        x_title: Of the horizontal axis.
    """

    def __init__(
        self,
        scene: Any,
        title: str = "Rep3D training",
        names: tuple[str, str] = ("Training loss", "Validation Dice"),
        x_title: str = "Iteration",
    ) -> None:
        self._scene, self._title, self._names, self._x_title = scene, title, names, x_title
        self._ids: list[str] = []  # chart, then table and series of each curve

    def forget(self) -> None:
        """Note that the scene is closed."""
        self._ids = []

    def show(self, losses: Sequence[Sequence[float]], validations: Sequence[Sequence[float]]) -> Any:
        """Fill the curves with (iteration, value) points and return the chart node; one without points is left out."""
        nodes = [self._scene.GetNodeByID(identifier) for identifier in self._ids]
        if not nodes or any(node is None for node in nodes):
            for node in nodes:
                if node is not None:  # the user removed some of them: begin anew
                    self._scene.RemoveNode(node)
            nodes = self._make()
        chart = nodes[0]
        for number, points in enumerate((losses, validations)):
            table, series = nodes[1 + 2 * number], nodes[2 + 2 * number]
            self._fill(table, self._names[number], points)
            shown = chart.HasPlotSeriesNodeID(series.GetID())
            if len(points) and not shown:
                chart.AddAndObservePlotSeriesNodeID(series.GetID())
            elif not len(points) and shown:
                chart.RemovePlotSeriesNodeID(series.GetID())
        return chart

    def _make(self) -> list[Any]:
        chart = self._scene.AddNewNodeByClass("vtkMRMLPlotChartNode", self._title)
        chart.SetTitle(self._title)
        chart.SetXAxisTitle(self._x_title)
        chart.SetYAxisTitleVisibility(False)
        nodes = [chart]
        for number, name in enumerate(self._names):
            table = self._scene.AddNewNodeByClass("vtkMRMLTableNode", f"{self._title}: {name}")
            series = self._scene.AddNewNodeByClass("vtkMRMLPlotSeriesNode", name)
            series.SetAndObserveTableNodeID(table.GetID())
            series.SetXColumnName(self._x_title)
            series.SetYColumnName(name)
            series.SetPlotType(series.PlotTypeScatter)  # a line through points at their own x
            series.SetMarkerStyle(series.MarkerStyleCircle if number else series.MarkerStyleNone)
            series.SetColor(*_COLOURS[number])
            nodes += [table, series]
        for node in nodes:
            node.SetSaveWithScene(False)  # the server keeps them; saving a scene should not ask about them
        self._ids = [node.GetID() for node in nodes]
        return nodes

    def _fill(self, table: Any, name: str, points: Sequence[Sequence[float]]) -> None:
        values = np.array([tuple(point)[:2] for point in points], dtype=float).reshape(-1, 2)
        content = vtk.vtkTable()
        for column, title in enumerate((self._x_title, name)):
            array = numpy_to_vtk(np.ascontiguousarray(values[:, column]), deep=True)
            array.SetName(title)
            content.AddColumn(array)
        table.SetAndObserveTable(content)
