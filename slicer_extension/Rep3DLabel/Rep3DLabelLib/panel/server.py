"""The top of the panel: which server, how to sign in, and what state the connection is in."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from ..connection import (
    BUSY,
    FAILED,
    NOT_ALLOWED,
    READY,
    UNREACHABLE,
    UNTRUSTED,
    WRONG_ADDRESS,
    WRONG_APP,
    plain_address,
)
from ..i18n import tr
from ..settings import Settings
from ..view import CONNECTING, DISCONNECTED, View
from .parts import CommandButtons, Icons, Section, fill_combo, pill_style, set_text, show_widget

__all__ = ["ServerSection", "state_words"]

_STARTING = "starting"
_PICTURES = {  # state -> picture, colour
    DISCONNECTED: ("state_disconnected", "grey"),
    CONNECTING: ("state_connecting", "blue"),
    _STARTING: ("state_connecting", "blue"),
    READY: ("state_ready", "green"),
    BUSY: ("state_busy", "amber"),
    UNREACHABLE: ("state_unreachable", "red"),
    UNTRUSTED: ("state_untrusted", "red"),
    NOT_ALLOWED: ("state_not_allowed", "violet"),
    WRONG_APP: ("state_wrong_app", "teal"),
    WRONG_ADDRESS: ("state_wrong_address", "amber"),
    FAILED: ("state_failed", "red"),
}
_FIRST_ADDRESS = "http://localhost:8000"


def state_words() -> dict[str, str]:
    """Return the word that is shown for each state of a connection."""
    return {
        DISCONNECTED: tr("Not connected"),
        CONNECTING: tr("Connecting"),
        _STARTING: tr("Server starts"),
        READY: tr("Ready"),
        BUSY: tr("Busy"),
        UNREACHABLE: tr("Unreachable"),
        UNTRUSTED: tr("Not trusted"),
        NOT_ALLOWED: tr("Not allowed"),
        WRONG_APP: tr("Another program"),
        WRONG_ADDRESS: tr("Wrong address"),
        FAILED: tr("Server error"),
    }


class ServerSection(Section):
    """Address, key and state of the server."""

    def __init__(self, ui: Any, workflow: Any, settings: Settings, icons: Icons, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow, self._settings, self._icons = ui, workflow, settings, icons
        self._addresses: list[str] | None = None
        self._state = ""
        self._access_of = ""  # the address that key, certificate and trust are for
        self._used_key, self._used_trust = "", False  # for that address, at the latest try
        buttons.add(ui.connectButton, "connect", self.connect_to_server)
        ui.disconnectButton.connect("clicked(bool)", workflow.disconnect)
        ui.serverComboBox.lineEdit().connect("returnPressed()", self.connect_to_server)
        ui.serverComboBox.connect("activated(int)", self.address_chosen)
        ui.keyEdit.connect("returnPressed()", self.connect_to_server)
        ui.userEdit.connect("textEdited(QString)", self.user_edited)  # no click on a button ends the editing
        self._list_addresses()
        ui.serverComboBox.setEditText((self._addresses or [_FIRST_ADDRESS])[0])
        self.address_chosen()

    def connect_to_server(self) -> None:
        """Test the address and connect."""
        ui = self._ui
        address = ui.serverComboBox.currentText.strip()
        self._address_typed(address)
        key = ui.keyEdit.text.strip()
        self._settings.keep_key(address, key if ui.rememberKeyCheckBox.checked else "")
        self.user_edited()
        certificate = ui.certificatePath.currentPath.strip()
        self._settings.keep_certificate(address, certificate)
        self._used_key, self._used_trust = key, bool(ui.untrustedCheckBox.checked)
        verify = False if self._used_trust else (certificate or True)
        self._workflow.connect(address, key, verify)

    def address_chosen(self) -> None:
        """Bring back key and certificate that are kept for this address; those of another one are taken away."""
        address = plain_address(self._ui.serverComboBox.currentText)
        if address != self._access_of:
            self._show_access(address)

    def _show_access(self, address: str) -> None:
        self._access_of = address
        self._show_key(self._settings.api_key(address))
        self._ui.certificatePath.setCurrentPath(self._settings.certificate(address))
        self._ui.untrustedCheckBox.setChecked(False)

    def _address_typed(self, address: str) -> None:
        """Take away what was for the address before; what was typed in since is meant for this one."""
        ui, kept, before = self._ui, self._settings, self._access_of
        self._access_of = plain_address(address)
        if self._access_of != before:
            if ui.keyEdit.text.strip() in (kept.api_key(before), self._used_key):
                self._show_key(kept.api_key(address))
            if self._used_trust:
                ui.untrustedCheckBox.setChecked(False)
            if ui.certificatePath.currentPath.strip() == kept.certificate(before):
                ui.certificatePath.setCurrentPath(kept.certificate(address))

    def _show_key(self, kept: str) -> None:
        self._ui.keyEdit.setText(kept)
        self._ui.rememberKeyCheckBox.setChecked(bool(kept))

    def user_edited(self) -> None:
        """Keep the user's name."""
        self.touched()
        options, name = self._workflow.view.options, self._ui.userEdit.text.strip()
        if name != options.user:
            self._workflow.set_options(replace(options, user=name))

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.connection, view.local.state, view.options.user

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, connection = self._ui, view.connection
        state = connection.state
        if state == DISCONNECTED and view.local.state == _STARTING:
            state = _STARTING
        picture, colour = _PICTURES.get(state, _PICTURES[FAILED])
        self._icons.show(ui.statusIcon, picture)
        ui.statusWord.setText(state_words().get(state, state))
        ui.statusWord.setStyleSheet(pill_style(colour))
        set_text(ui.statusText, connection.message)
        ui.statusText.setToolTip(connection.url)
        connected = connection.state in (READY, BUSY)
        ui.connectButton.setText(tr("Test") if connected else tr("Connect"))
        show_widget(ui.disconnectButton, connected or connection.state == CONNECTING)
        if not ui.userEdit.hasFocus() and ui.userEdit.text != view.options.user:
            ui.userEdit.setText(view.options.user)
        if connection.state != self._state:
            self._state = connection.state
            self._state_changed(connection.state, connection.url, view.local.url)

    def _state_changed(self, state: str, url: str, local: str) -> None:
        ui = self._ui
        if state in (READY, BUSY):
            self._list_addresses()
            shown = ui.serverComboBox.currentText.strip()
            # What the user types meanwhile stays, unless a server on this computer has been started.
            if url and url != shown and (plain_address(shown) in (url, self._access_of) or url == local):
                ui.serverComboBox.setEditText(url)  # a local server, or the address as it was understood
                ui.serverComboBox.lineEdit().setCursorPosition(0)
                if plain_address(shown) != url:
                    self._show_access(url)
        elif state in (NOT_ALLOWED, UNTRUSTED):  # what is needed now is in there
            ui.accessSection.collapsed = False

    def _list_addresses(self) -> None:
        addresses = self._settings.addresses or [_FIRST_ADDRESS]
        if addresses != self._addresses:
            self._addresses = addresses
            typed = self._ui.serverComboBox.currentText
            fill_combo(self._ui.serverComboBox, [(address, address) for address in addresses], -1)
            self._ui.serverComboBox.setEditText(typed)
