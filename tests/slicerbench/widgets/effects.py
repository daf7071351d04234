"""qSlicerSegmentEditorAbstractEffect: the name and the parameters of an effect, without its work."""

from __future__ import annotations

from PySide6 import QtCore

NAMES = (
    "Threshold",
    "Paint",
    "Draw",
    "Erase",
    "Level tracing",
    "Grow from seeds",
    "Fill between slices",
    "Margin",
    "Hollow",
    "Smoothing",
    "Scissors",
    "Islands",
    "Logical operators",
    "Mask volume",
)


class qSlicerSegmentEditorAbstractEffect(QtCore.QObject):
    """An effect that does nothing; its parameters live in the segment editor node, as in Slicer."""

    STANDS_FOR_CPP = True

    def __init__(self, editor=None, name: str = "") -> None:
        super().__init__(editor)
        self._d = (editor, name)

    name = QtCore.Property(str, lambda self: self._d[1])

    def setParameter(self, name: str, value) -> None:
        """Set a parameter; all are kept as text."""
        self._node().SetAttribute(f"{self._d[1]}.{name}", str(value))

    def parameter(self, name: str) -> str:
        """Return a parameter as text, "" where it is not set."""
        return self._node().GetAttribute(f"{self._d[1]}.{name}") or ""

    def doubleParameter(self, name: str) -> float:
        """Return a parameter as a number, 0 where it is not set."""
        return float(self.parameter(name) or 0)

    def integerParameter(self, name: str) -> int:
        """Return a parameter as a whole number, 0 where it is not set."""
        return int(self.parameter(name) or 0)

    def parameterDefined(self, name: str) -> bool:
        """Return whether a parameter is set."""
        return self._node().GetAttribute(f"{self._d[1]}.{name}") is not None

    def _node(self):
        return self._d[0].mrmlSegmentEditorNode()
