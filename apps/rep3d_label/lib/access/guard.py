"""What every request passes before the application sees it: :class:`Guard`, outermost, then :class:`Access`.

Both are plain ASGI: no body is read here, and answers that stream go on streaming.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from starlette._utils import get_route_path  # what the router itself goes by
from starlette.concurrency import run_in_threadpool
from starlette.datastructures import Headers, MutableHeaders
from starlette.requests import Request, cookie_parser
from starlette.responses import RedirectResponse, Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from lib.access.actions import SAFE, action_of
from lib.access.callers import Caller, Callers
from lib.access.listening import Listening, is_loopback
from lib.access.roles import Role, plain, role_of
from lib.errors import ForbiddenError, NotFoundError, UnknownKeyError, WrongHostError
from rep3d.errors import Rep3DError

__all__ = ["Access", "Door", "Guard", "InWords", "WithRoom"]

InWords = Callable[[Request, Exception], Response]

_WITHOUT_DISK = ("log in", "log out", "cancel segmentation", "end session")  # what a full disk does not hinder
# Pages of ours say more; of everything else, no browser makes a page with scripts, a frame, or a copy on its disk.
_HEADERS = {
    "Content-Security-Policy": "default-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'",
    "X-Content-Type-Options": "nosniff",
    "X-Frame-Options": "DENY",
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Resource-Policy": "same-origin",
    "Cache-Control": "no-store",
}
# What a proxy adds: then others than this computer reach a server that listens on loopback.
_FORWARDED = ("forwarded", "x-forwarded-for", "x-forwarded-host", "x-real-ip", "via")


@dataclass(frozen=True)
class Door:
    """Who may come in.

    Attributes:
        listening: where the server listens.
        callers: knows who is who.
        locked: whether everybody needs a key.
        origins: other sites whose pages may use the server.
    """

    listening: Listening
    callers: Callers
    locked: bool
    origins: tuple[str, ...] = ()

    @property
    def cookie(self) -> str:
        """The name of the cookie of a login; cookies do not know ports, and a computer may have two servers."""
        return f"rep3d_login_{self.listening.port}"

    def asks_for_key(self, scope: Scope) -> bool:
        """Return whether a request needs a key: always where others can send one."""
        own = _own_address(scope)
        forwarded = any(name.decode("latin-1") in _FORWARDED for name, _ in scope["headers"])
        return self.locked or own is None or not is_loopback(own) or forwarded


class Guard:
    """Answers only under the server's own names, never a page of another site, and with strict headers.

    A page that an annotator has open could otherwise send requests to a server on 127.0.0.1 or, under a name of its own
    that it lets lead there, read the answers.

    Args:
        app: what answers.
        door: names, and sites that may.
        in_words: makes the answer of an error.
    """

    def __init__(self, app: ASGIApp, door: Door, in_words: InWords) -> None:
        self._app = app
        self._door = door
        self._in_words = in_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] == "websocket":  # there is none
            await send({"type": "websocket.close", "code": 1008})
            return
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return

        async def send_strictly(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                for name, value in _HEADERS.items():
                    headers.setdefault(name, value)
            await send(message)

        try:
            self._check(scope)
        except Rep3DError as error:
            await self._in_words(Request(scope), error)(scope, receive, send_strictly)
            return
        await self._app(scope, receive, send_strictly)

    def _check(self, scope: Scope) -> None:
        headers = Headers(scope=scope)
        host = ", ".join(headers.getlist("host"))
        if not self._door.listening.is_known(host, _own_address(scope)):
            raise WrongHostError(f"This server is not known as {host[:200]!r}. Start it with --conf hosts NAME.")
        origin = headers.get("origin")
        if origin in self._door.origins:
            return
        site = headers.get("sec-fetch-site", "none")
        foreign = origin is not None and origin.partition("://")[2].lower() != host.lower()
        if foreign or (site not in ("none", "same-origin") and not _is_link(scope, headers)):
            raise ForbiddenError("Pages of other sites may not use this server. --conf origins names those that may.")


class Access:
    """Lets in who may ask for what they ask for; what follows finds the caller in ``scope["state"]["caller"]``.

    Args:
        app: what answers.
        door: who may come in.
        in_words: makes the answer of an error.
    """

    def __init__(self, app: ASGIApp, door: Door, in_words: InWords) -> None:
        self._app = app
        self._door = door
        self._in_words = in_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        refusal: Response | None = None
        try:
            scope.setdefault("state", {})["caller"] = None
            await self._let_in(scope)
        except Rep3DError as error:
            headers = Headers(scope=scope)
            if (
                isinstance(error, UnknownKeyError)
                and scope["method"] == "GET"
                and "authorization" not in headers
                and "text/html" in headers.get("accept", "")
            ):  # a person with a browser; relative, since a proxy may show the server below another path
                path = get_route_path(scope)
                to = "?to=annotate/" if plain(path) == "/rep3d/annotate" else ""
                refusal = RedirectResponse("../" * (path.count("/") - 1) + "rep3d/login" + to, 303)
            else:
                refusal = self._in_words(Request(scope), error)
        await (refusal or self._app)(scope, receive, send)

    async def _let_in(self, scope: Scope) -> None:
        """Note who asks; nobody where no key is asked for: everybody is the administrator, as with MONAI Label."""
        role = role_of(scope["method"], get_route_path(scope))
        if role is Role.nobody:
            raise NotFoundError("This server does not offer that: it needs images from a DICOM server.")
        if role is Role.open or not self._door.asks_for_key(scope):
            return
        caller = scope["state"]["caller"] = await self._caller(scope)
        if caller.role < role:
            raise ForbiddenError(f"That is for {role.name}s; the key of {caller.name} is for {caller.role.name}s.")

    async def _caller(self, scope: Scope) -> Caller:
        headers, callers = Headers(scope=scope), self._door.callers
        if "authorization" in headers:
            address = scope["client"][0] if scope.get("client") else "unknown"
            return await callers.by_header(headers["authorization"], address)
        caller = callers.by_session(cookie_parser(headers.get("cookie", "")).get(self._door.cookie, ""))
        if caller is None:
            raise UnknownKeyError(
                "This server asks for a key, sent as Authorization: Bearer KEY. Ask an administrator for one."
            )
        return caller


class WithRoom:
    """Refuses what would change something while the disk has no room for the start's own files.

    Args:
        app: what answers.
        check: raises while that is so.
        in_words: makes the answer of an error.
    """

    def __init__(self, app: ASGIApp, check: Callable[[], None], in_words: InWords) -> None:
        self._app = app
        self._check = check
        self._in_words = in_words

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        action, changes = (
            action_of(scope["method"], get_route_path(scope)) if scope["type"] == "http" else (None, False)
        )
        if changes and action not in _WITHOUT_DISK:
            try:
                await run_in_threadpool(self._check)
            except Rep3DError as error:
                await self._in_words(Request(scope), error)(scope, receive, send)
                return
        await self._app(scope, receive, send)


def _is_link(scope: Scope, headers: Headers) -> bool:
    """Return whether somebody follows a link to a page of ours, in a window of its own."""
    wanted = headers.get("sec-fetch-mode"), headers.get("sec-fetch-dest")
    return scope["method"] in SAFE and wanted == ("navigate", "document")


def _own_address(scope: Scope) -> str | None:
    server = scope.get("server")
    return server[0] if server and server[1] is not None else None
