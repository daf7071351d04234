"""ctkSliderWidget and qMRMLSliderWidget."""

from __future__ import annotations

from PySide6 import QtCore, QtWidgets

from tests.slicerbench.widgets.base import kept, passed_on, private

_STEPS = 1000


class ctkSliderWidget(QtWidgets.QWidget):
    """A slider and a spin box with one value. Not done: ticks, pop-up; `tracking` is remembered only."""

    STANDS_FOR_CPP = True
    SIGNALS = {"valueChanged(double)": "valueChanged", "valueIsChanging(double)": "valueIsChanging"}
    valueChanged = QtCore.Signal(float)
    valueIsChanging = QtCore.Signal(float)

    def __init__(self, parent=None) -> None:
        super().__init__(parent)
        slider, box = QtWidgets.QSlider(QtCore.Qt.Horizontal, self), QtWidgets.QDoubleSpinBox(self)
        slider.setRange(0, _STEPS)
        layout = QtWidgets.QHBoxLayout(self)
        layout.setContentsMargins(0, 0, 0, 0)
        layout.addWidget(slider, 1)
        layout.addWidget(box)
        self._d = private(slider=slider, box=box)
        box.valueChanged.connect(self._changed)
        slider.valueChanged.connect(self._slid)

    value = passed_on(float, "box", "value")
    minimum = passed_on(float, "box", "minimum")
    maximum = passed_on(float, "box", "maximum")
    singleStep = passed_on(float, "box", "singleStep")
    decimals = passed_on(int, "box", "decimals")
    prefix = passed_on(str, "box", "prefix")
    suffix = passed_on(str, "box", "suffix")
    pageStep = kept("pageStep", float, 10.0)
    tickInterval = kept("tickInterval", float, 0.0)
    tracking = kept("tracking", bool, True)
    spinBoxVisible = kept("spinBoxVisible", bool, True, "_show_box")

    def setValue(self, value: float) -> None:
        """Set the value, held within the range."""
        self._d.box.setValue(value)

    def reset(self) -> None:
        """Value 0."""
        self._d.box.setValue(0.0)

    def setSpinBoxVisible(self, visible: bool) -> None:
        """Show or hide the spin box."""
        self.spinBoxVisible = visible

    def _show_box(self) -> None:
        self._d.box.setVisible(self.spinBoxVisible)

    def _changed(self, value: float) -> None:
        span = self.maximum - self.minimum
        blocked = self._d.slider.blockSignals(True)
        self._d.slider.setValue(round((value - self.minimum) / span * _STEPS) if span > 0 else 0)
        self._d.slider.blockSignals(blocked)
        self.valueChanged.emit(value)

    def _slid(self, step: int) -> None:
        self._d.box.setValue(self.minimum + step / _STEPS * (self.maximum - self.minimum))


class qMRMLSliderWidget(ctkSliderWidget):
    """A slider with a unit. Not done: units (the quantity is remembered only)."""

    STANDS_FOR_CPP = True
    None_, Prefix, Suffix, Precision, MinimumValue, MaximumValue, Scaling, All = 0, 1, 2, 4, 8, 16, 32, 63
    ENUMERATED = ("unitAwareProperties",)

    quantity = kept("quantity", str, "")
    unitAwareProperties = kept("unitAwareProperties", int, 39)

    def mrmlScene(self):
        """Return the scene, None before it is set."""
        return self._d.kept.get("scene")

    def setMRMLScene(self, scene) -> None:
        """Set the scene that knows the units."""
        self._d.kept["scene"] = scene

    def setQuantity(self, quantity: str) -> None:
        """Set what is measured, `length` say."""
        self.quantity = quantity
