"""The connection to a server, and a server of one's own on this computer."""

from __future__ import annotations

import getpass
from collections.abc import Callable, Mapping
from typing import Any

from ..connection import FAILED, NOT_ALLOWED, READY, UNTRUSTED, WRONG_ADDRESS, WRONG_APP
from ..i18n import tr
from ..settings import LocalChoice
from ..view import CONNECTING, DISCONNECTED, ERROR, INFO, ConnectionView, LocalView, Options
from ..worker.jobs import JobError
from .desk import Desk
from .telling import model_views

__all__ = ["Connecting"]

_RETRY_SECONDS = 5.0
_LOG_LINES = 200
# Where another try needs something of the user first.
_HOPELESS = frozenset((READY, CONNECTING, DISCONNECTED, WRONG_ADDRESS, NOT_ALLOWED, UNTRUSTED, WRONG_APP))


class Connecting:
    """Connection and local server.

    Args:
        desk: Shared state.
        changed: Called when another server, or another model, is used from now on.
        launcher: Makes local servers, and finds one that was left running (`local.launcher`); None: there are none.
    """

    def __init__(self, desk: Desk, changed: Callable[[], None], launcher: Any = None) -> None:
        self._desk, self._changed, self._launcher = desk, changed, launcher
        self._wanted: dict[str, object] = {}
        self._number = 0
        self._retry_at = 0.0
        self._local: Any = launcher.leftover() if launcher is not None else None
        self._local_connected = False

    # ---- the connection

    def connect(self, url: str, api_key: str = "", verify: bool | str = True) -> None:
        """Connect to a server, or test the connection."""
        if self._desk.refused("connect"):
            return
        user = _user(self._desk.view.options)
        self._wanted = {"url": url.strip(), "api_key": api_key, "verify": verify, "client_id": user}
        self._desk.update(connection=ConnectionView(CONNECTING, tr("Connecting"), self._desk.view.connection.url))
        self._test(self._wanted)

    def disconnect(self) -> None:
        """Forget the server; the case in hand stays."""
        self._number += 1
        self._desk.update(connection=ConnectionView(DISCONNECTED, "", self._desk.view.connection.url))

    def tick(self) -> None:
        """Try a lost server again, and look after the local one."""
        desk = self._desk
        doubtful, desk.doubtful = desk.doubtful and desk.view.connection.state == READY, False
        lost = desk.view.connection.state not in _HOPELESS and desk.clock() >= self._retry_at
        if self._wanted and (lost or doubtful):
            self._retry_at = float("inf")  # until this try has ended
            self._test(self._wanted)
        self._watch_local()

    def _test(self, server: dict[str, object]) -> None:
        desk = self._desk
        self._number += 1
        number = self._number

        def done(report: Mapping[str, Any]) -> None:
            if number == self._number:
                self._reported(server, report)

        def failed(error: JobError) -> None:
            if number == self._number:
                self._reported(server, {"state": error.state or FAILED, "message": error.message, "info": None})

        desk.worker.submit("test", {"server": server}, done, failed)

    def _reported(self, server: dict[str, object], report: Mapping[str, Any]) -> None:
        desk = self._desk
        self._retry_at = desk.clock() + _RETRY_SECONDS
        before = desk.view.connection
        url = str(report.get("url") or server["url"])
        if report["state"] != READY:
            # The address stays that of the server whose case is in hand until another one has answered.
            kept = before.url if desk.work is not None else url
            same = bool(desk.server) and desk.server.get("url") == server["url"]
            desk.update(connection=ConnectionView(report["state"], report["message"], kept, same))
            return
        work = desk.work
        if work is not None and work.draft.server != url:
            message = tr(
                "The case in the scene belongs to {old}. Submit it there, or close the scene, before you work with "
                "{new}; unsent work is kept."
            ).format(old=work.draft.server, new=url)
            desk.update(connection=ConnectionView(WRONG_ADDRESS, message, before.url))
            return
        known = bool(desk.info) and desk.server.get("url") == server["url"]
        desk.server, desk.url = server, url
        desk.scene.server = url
        desk.settings.remember(url)
        self._take_info(report["info"])
        # What the report says of images and model is true now only; the panel shows both where they are kept true.
        message = tr("Connected to {name}, which computes on {device}.").format(
            name=desk.info.get("name") or "Rep3D Label", device=desk.view.device or tr("an unknown device")
        )
        desk.update(connection=ConnectionView(READY, message, url, True))
        if not known:
            self._changed()

    def _take_info(self, info: Mapping[str, Any]) -> None:
        desk = self._desk
        desk.info = dict(info)
        models = model_views(info)
        names = [model.name for model in models]
        strategies = tuple((str(name), str(text)) for name, text in info["strategies"].items())
        device = str(info.get("device") or "")
        desk.update(
            models=models,
            model=_choice(names, desk.view.model, desk.settings.choice("model"), info.get("default_model")),
            strategies=strategies,
            strategy=_choice(
                [name for name, _ in strategies],
                desk.view.strategy,
                desk.settings.choice("strategy"),
                info.get("default_strategy"),
                "hybrid",
            ),
            total=int(info.get("total") or 0),
            completed=int(info.get("completed") or 0),
            device=str(info.get("device_name") or device),
            devices=tuple(dict.fromkeys(("", device, "cpu"))) if device else ("",),
        )

    def choose_model(self, name: str) -> None:
        """Use another model from now on."""
        desk = self._desk
        if name != desk.view.model and name in {model.name for model in desk.view.models}:
            desk.settings.choose("model", name)
            desk.update(model=name)
            self._changed()

    def choose_strategy(self, name: str) -> None:
        """Choose the next samples in another way."""
        desk = self._desk
        if name in {known for known, _ in desk.view.strategies}:
            desk.settings.choose("strategy", name)
            desk.update(strategy=name)

    # ---- a server on this computer

    def start_local(self, python: str, app: str, studies: str, labels: str) -> None:
        """Start a server on this computer and connect to it when it is ready."""
        desk = self._desk
        if desk.refused("start_local_server") or self._launcher is None:
            return
        choice = LocalChoice(python.strip(), app.strip(), studies.strip(), labels.strip())
        desk.settings.save_local(choice)
        self._local = self._launcher.make(choice)
        self._local_connected = False
        self._local.start()
        self._watch_local()

    def stop_local(self) -> None:
        """Stop it."""
        if not self._desk.refused("stop_local_server"):
            self._local.stop()
            self._watch_local()

    def close(self) -> None:
        """Stop the local server at the end of the session."""
        if self._local is not None:
            self._local.stop()

    def _watch_local(self) -> None:
        local, desk = self._local, self._desk
        if local is None:
            return
        state = local.poll()
        view = LocalView(state, local.url, local.message, tuple(local.log_lines(_LOG_LINES)))
        before = desk.view.local
        if view != before:
            desk.update(local=view)
        if state == "running" and not self._local_connected:
            self._local_connected = True
            self.connect(local.url)
        if state == "failed" and before.state != "failed":
            desk.say(ERROR, local.message)
        if state == "stopped" and before.state == "stopping":
            desk.say(INFO, tr("The local server has ended."))

    def set_user(self) -> None:
        """Use the name in the options from now on."""
        for server in (self._wanted, self._desk.server):
            if server:
                server["client_id"] = _user(self._desk.view.options)


def _user(options: Options) -> str:
    """Return the name under which samples are lent and labels are kept: the user's own choice, else the login name."""
    if options.user.strip():
        return options.user.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name
        return ""


def _choice(offered: list[str], *wanted: Any) -> str:
    """Return the first wanted name that is offered, else the first offered, "" where there is none."""
    return next((str(name) for name in wanted if name in offered), offered[0] if offered else "")
