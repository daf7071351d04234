"""What the user can set."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..i18n import tr
from ..view import View
from .parts import Section, fill_combo

__all__ = ["OptionsSection"]

_INTO = ("undo", "new")


class OptionsSection(Section):
    """The options; each change is kept at once."""

    def __init__(self, ui: Any, workflow: Any) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        self._devices: tuple[str, ...] = ()
        items = [
            (tr("This segmentation, with undo"), tr("Undo in the segment editor brings your own work back.")),
            (tr("A new segmentation"), tr("Your own segmentation stays beside the new one.")),
        ]
        fill_combo(ui.intoComboBox, items, 0)
        for box in (ui.autoRunCheckBox, ui.autoAdvanceCheckBox, ui.uncertaintyCheckBox):
            box.connect("clicked(bool)", self.changed)
        ui.viewsSpinBox.connect("valueChanged(int)", self.changed)
        ui.intoComboBox.connect("activated(int)", self.changed)
        ui.deviceComboBox.connect("activated(int)", self.changed)

    def changed(self) -> None:
        """Hand over what the widgets say."""
        self.touched()
        ui = self._ui
        before = self._workflow.view.options
        into, device = ui.intoComboBox.currentIndex, ui.deviceComboBox.currentIndex
        options = replace(
            before,
            auto_run=bool(ui.autoRunCheckBox.checked),
            auto_advance=bool(ui.autoAdvanceCheckBox.checked),
            uncertainty=bool(ui.uncertaintyCheckBox.checked),
            views=ui.viewsSpinBox.value,
            into=_INTO[into] if 0 <= into < len(_INTO) else before.into,
            device=self._devices[device] if 0 <= device < len(self._devices) else before.device,
        )
        if options != before:
            self._workflow.set_options(options)

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.options, view.devices, view.device

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, options = self._ui, view.options
        ui.autoRunCheckBox.setChecked(options.auto_run)
        ui.autoAdvanceCheckBox.setChecked(options.auto_advance)
        ui.uncertaintyCheckBox.setChecked(options.uncertainty)
        if ui.viewsSpinBox.value != options.views:
            ui.viewsSpinBox.blockSignals(True)
            ui.viewsSpinBox.setValue(options.views)
            ui.viewsSpinBox.blockSignals(False)
        ui.intoComboBox.setCurrentIndex(_INTO.index(options.into) if options.into in _INTO else 0)
        devices = view.devices if options.device in view.devices else (*view.devices, options.device)
        if devices != self._devices:
            self._devices = devices
            own = tr("Server's choice ({device})").format(device=view.device) if view.device else tr("Server's choice")
            fill_combo(ui.deviceComboBox, [(device or own, "") for device in devices], 0)
        ui.deviceComboBox.setCurrentIndex(devices.index(options.device))
