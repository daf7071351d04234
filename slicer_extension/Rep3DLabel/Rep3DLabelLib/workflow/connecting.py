"""The connection to a server, and a server of one's own on this computer."""

from __future__ import annotations

import getpass
from collections.abc import Callable
from typing import Any

from ..client.answers import ServerInfo
from ..connection import NOT_ALLOWED, READY, UNTRUSTED, WRONG_ADDRESS, WRONG_APP, ConnectionReport
from ..i18n import tr
from ..settings import LocalChoice
from ..view import CONNECTING, DISCONNECTED, ERROR, INFO, ConnectionView, LocalView, Options
from ..worker.jobs import JobError
from .context import Context
from .presenting import model_views

__all__ = ["Connecting"]

_RETRY_SECONDS = 5.0
_LOG_LINES = 200
# Where another try needs something of the user first.
_HOPELESS = frozenset((READY, CONNECTING, DISCONNECTED, WRONG_ADDRESS, NOT_ALLOWED, UNTRUSTED, WRONG_APP))


class Connecting:
    """Connection and local server.

    Args:
        context: Shared state.
        changed: Called when another server, or another model, is used from now on.
        launcher: Makes local servers, and finds one that was left running (`local.launcher`); None: there are none.
    """

    def __init__(self, context: Context, changed: Callable[[], None], launcher: Any = None) -> None:
        self._context, self._changed, self._launcher = context, changed, launcher
        self._wanted: dict[str, object] = {}
        self._number = 0
        self._retry_at = 0.0
        self._local: Any = launcher.leftover() if launcher is not None else None
        self._local_connected = False

    # ---- the connection

    def connect(self, url: str, api_key: str = "", verify: bool | str = True) -> None:
        """Connect to a server, or test the connection."""
        if self._context.refused("connect"):
            return
        user = _user(self._context.view.options)
        self._wanted = {"url": url.strip(), "api_key": api_key, "verify": verify, "client_id": user}
        self._context.update(connection=ConnectionView(CONNECTING, tr("Connecting"), self._context.view.connection.url))
        self._test(self._wanted)

    def disconnect(self) -> None:
        """Forget the server; the case in hand stays."""
        self._number += 1
        self._context.update(connection=ConnectionView(DISCONNECTED, "", self._context.view.connection.url))

    def tick(self) -> None:
        """Try a lost server again, and look after the local one."""
        context = self._context
        doubtful, context.doubtful = context.doubtful and context.view.connection.state == READY, False
        lost = context.view.connection.state not in _HOPELESS and context.clock() >= self._retry_at
        if self._wanted and (lost or doubtful):
            self._retry_at = float("inf")  # until this try has ended
            self._test(self._wanted)
        self._watch_local()

    def _test(self, server: dict[str, object]) -> None:
        context = self._context
        self._number += 1
        number = self._number

        def done(report: ConnectionReport) -> None:
            if number == self._number:
                self._reported(server, report)

        def failed(error: JobError) -> None:
            if number == self._number:
                self._reported(server, ConnectionReport(error.state, error.message))

        context.worker.submit("test", {"server": server}, done, failed)

    def _reported(self, server: dict[str, object], report: ConnectionReport) -> None:
        context = self._context
        self._retry_at = context.clock() + _RETRY_SECONDS
        before = context.view.connection
        url = report.url or str(server["url"])
        if report.info is None:
            # The address stays that of the server whose case is in hand until another one has answered.
            kept = before.url if context.work is not None else url
            same = bool(context.server) and context.server.get("url") == server["url"]
            context.update(connection=ConnectionView(report.state, report.message, kept, same))
            return
        work = context.work
        if work is not None and work.draft.server != url:
            message = tr(
                "The case in the scene belongs to {old}. Submit it there, or close the scene, before you work with "
                "{new}; unsent work is kept."
            ).format(old=work.draft.server, new=url)
            context.update(connection=ConnectionView(WRONG_ADDRESS, message, before.url))
            return
        known = context.info is not None and context.server.get("url") == server["url"]
        context.server, context.url = server, url
        context.scene.server = url
        context.settings.remember(url)
        self._take_info(report.info)
        # What the report says of images and model is true now only; the panel shows both where they are kept true.
        message = tr("Connected to {name}, which computes on {device}.").format(
            name=report.info.name or "Rep3D Label", device=context.view.device or tr("an unknown device")
        )
        context.update(connection=ConnectionView(READY, message, url, True))
        if not known:
            self._changed()

    def _take_info(self, info: ServerInfo) -> None:
        context = self._context
        context.info = info
        models = model_views(info)
        names = [model.name for model in models]
        strategies = tuple(info.strategies.items())
        context.update(
            models=models,
            model=_choice(names, context.view.model, context.settings.choice("model"), info.default_model),
            strategies=strategies,
            strategy=_choice(
                [name for name, _ in strategies],
                context.view.strategy,
                context.settings.choice("strategy"),
                info.default_strategy,
                "hybrid",
            ),
            total=info.total,
            completed=info.completed,
            device=info.device_name or info.device,
            devices=tuple(dict.fromkeys(("", info.device, "cpu"))) if info.device else ("",),
        )

    def choose_model(self, name: str) -> None:
        """Use another model from now on."""
        context = self._context
        if name != context.view.model and name in {model.name for model in context.view.models}:
            context.settings.choose("model", name)
            context.update(model=name)
            self._changed()

    def choose_strategy(self, name: str) -> None:
        """Choose the next samples in another way."""
        context = self._context
        if name in {known for known, _ in context.view.strategies}:
            context.settings.choose("strategy", name)
            context.update(strategy=name)

    # ---- a server on this computer

    def start_local(self, python: str, app: str, studies: str, labels: str) -> None:
        """Start a server on this computer and connect to it when it is ready."""
        context = self._context
        if context.refused("start_local_server") or self._launcher is None:
            return
        choice = LocalChoice(python.strip(), app.strip(), studies.strip(), labels.strip())
        context.settings.save_local(choice)
        self._local = self._launcher.make(choice)
        self._local_connected = False
        self._local.start()
        self._watch_local()

    def stop_local(self) -> None:
        """Stop it."""
        if not self._context.refused("stop_local_server"):
            self._local.stop()
            self._watch_local()

    def close(self) -> None:
        """Stop the local server at the end of the session."""
        if self._local is not None:
            self._local.stop()

    def _watch_local(self) -> None:
        local, context = self._local, self._context
        if local is None:
            return
        state = local.poll()
        view = LocalView(state, local.url, local.message, tuple(local.log_lines(_LOG_LINES)))
        before = context.view.local
        if view != before:
            context.update(local=view)
        if state == "running" and not self._local_connected:
            self._local_connected = True
            self.connect(local.url)
        if state == "failed" and before.state != "failed":
            context.say(ERROR, local.message)
        if state == "stopped" and before.state == "stopping":
            context.say(INFO, tr("The local server has ended."))

    def set_user(self) -> None:
        """Use the name in the options from now on."""
        for server in (self._wanted, self._context.server):
            if server:
                server["client_id"] = _user(self._context.view.options)


def _user(options: Options) -> str:
    """Return the name under which samples are reserved and labels kept: the user's own choice, else the login name."""
    if options.user.strip():
        return options.user.strip()
    try:
        return getpass.getuser()
    except (OSError, KeyError, ImportError):  # an account without a name
        return ""


def _choice(offered: list[str], *wanted: Any) -> str:
    """Return the first wanted name that is offered, else the first offered, "" where there is none."""
    return next((str(name) for name in wanted if name in offered), offered[0] if offered else "")
