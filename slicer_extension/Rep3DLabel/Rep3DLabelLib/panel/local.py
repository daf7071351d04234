"""A server on this computer, for people without an engineer."""

from __future__ import annotations

from typing import Any

import ctk
import slicer

from ..i18n import tr
from ..local.pythons import candidate_pythons
from ..settings import LocalChoice, Settings
from ..view import LocalView, View
from .parts import CommandButtons, Icons, Section, pill_style, set_text

__all__ = ["LocalSection"]

_PICTURES = {  # state -> picture, colour
    "stopped": ("state_disconnected", "grey"),
    "starting": ("state_connecting", "blue"),
    "running": ("state_ready", "green"),
    "stopping": ("state_busy", "amber"),
    "failed": ("state_failed", "red"),
}


class LocalSection(Section):
    """Start, watch and stop a server."""

    def __init__(self, ui: Any, workflow: Any, settings: Settings, icons: Icons, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow, self._settings, self._icons = ui, workflow, settings, icons
        self._log: tuple[str, ...] = ()
        self._failed = False
        path = ctk.ctkPathLineEdit
        ui.localPython.filters = path.Files | path.Executable
        ui.localApp.filters = path.Dirs
        ui.localStudies.filters = path.Dirs
        ui.certificatePath.filters = path.Files
        ui.dicomPath.filters = path.Dirs
        choice = settings.local
        likely = candidate_pythons(slicer.util.startupEnvironment()) if not choice.python else ()
        ui.localPython.setCurrentPath(choice.python or (str(likely[0]) if likely else ""))
        ui.localApp.setCurrentPath(choice.app)
        ui.localStudies.setCurrentPath(choice.studies)
        ui.localLabelsEdit.setText(choice.labels)
        buttons.add(ui.startLocalButton, "start_local_server", self.start)
        buttons.add(ui.stopLocalButton, "stop_local_server", workflow.stop_local_server)

    def start(self) -> None:
        """Start it with what the fields say."""
        ui = self._ui
        choice = LocalChoice(
            ui.localPython.currentPath.strip(),
            ui.localApp.currentPath.strip(),
            ui.localStudies.currentPath.strip(),
            ui.localLabelsEdit.text.strip(),
        )
        self._settings.save_local(choice)
        self._workflow.start_local_server(choice.python, choice.app, choice.studies, choice.labels)

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.local

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, local = self._ui, view.local
        picture, colour = _PICTURES.get(local.state, _PICTURES["failed"])
        self._icons.show(ui.localIcon, picture)
        words = {
            "stopped": tr("Stopped"),
            "starting": tr("Starting"),
            "running": tr("Running"),
            "stopping": tr("Stopping"),
            "failed": tr("Failed"),
        }
        ui.localWord.setText(words.get(local.state, local.state))
        ui.localWord.setStyleSheet(pill_style(colour))
        set_text(ui.localText, local.message or local.url)
        self._draw_log(local)
        if local.state == "failed" and not self._failed:
            ui.localSection.collapsed = False
        self._failed = local.state == "failed"

    def _draw_log(self, local: LocalView) -> None:
        log = self._ui.localLog
        log.setVisible(bool(local.log))
        if local.log == self._log:
            return
        self._log = local.log
        bar = log.verticalScrollBar()
        at_end, place = bar.value >= bar.maximum - 2, bar.value
        log.setPlainText("\n".join(local.log))
        bar.setValue(bar.maximum if at_end else place)  # whoever reads further up is left there
