"""No answer says where anything lies on the server's disk: one place for all answers in words."""

from __future__ import annotations

import json
import os
import re
import sys
import tempfile
from collections.abc import Iterable
from pathlib import Path

from monailabel.config import settings
from starlette._utils import get_route_path
from starlette.datastructures import MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

import rep3d

__all__ = ["WithoutPaths", "server_folders"]

_IN_WORDS = ("application/json", "text/plain")


def server_folders(studies: Path) -> set[Path]:
    """Return the folders of this computer whose places no client needs to know."""
    named = (studies, settings.MONAI_LABEL_SESSION_PATH, tempfile.gettempdir(), settings.MONAI_LABEL_APP_DIR)
    own = (sys.prefix, sys.base_prefix, Path(os.__file__).parent, Path(rep3d.__file__).parents[1])
    folders = {Path(each) for each in (*named, *own, Path.home(), Path.cwd()) if each}
    return folders | {folder.resolve() for folder in folders}


class WithoutPaths:
    """Cuts the server's folders off the paths in JSON and plain text; what lies in them keeps its name.

    Args:
        app: what answers.
        folders: the studies folder, the app's, the user's, ...
    """

    def __init__(self, app: ASGIApp, folders: Iterable[Path]) -> None:
        self._app = app
        texts = {str(folder) for folder in folders if len(folder.parts) > 1}  # not the root, which is in every path
        forms = {form for text in texts for form in (text, json.dumps(text)[1:-1], text.replace("\\", "\\\\"))}
        self._folders = [form.encode() for form in sorted(forms, key=len, reverse=True)]
        any_folder = b"|".join(map(re.escape, self._folders))
        self._pattern = re.compile(rb"(?<![\w.-])(?:%s)(?:(?:/|\\{1,2})|(?![\w.-]))" % any_folder)

    def cut(self, content: bytes) -> bytes:
        """Return words without the folders."""
        if not any(folder in content for folder in self._folders):
            return content
        return self._pattern.sub(_name, content)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http" or get_route_path(scope) == "/openapi.json":
            await self._app(scope, receive, send)
            return
        start: Message | None = None  # of an answer in words, until its body is there
        blocks: list[bytes] = []

        async def send_cut(message: Message) -> None:
            nonlocal start
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                if headers.get("content-type", "").startswith(_IN_WORDS) and "content-encoding" not in headers:
                    start = message
                    return
            elif start is not None and message["type"] == "http.response.body":
                blocks.append(message.get("body", b""))
                if message.get("more_body"):
                    return
                content = self.cut(b"".join(blocks))
                if "content-length" in (headers := MutableHeaders(scope=start)) and scope["method"] != "HEAD":
                    headers["Content-Length"] = str(len(content))
                await send(start)
                start, message = None, {"type": "http.response.body", "body": content}
            await send(message)

        await self._app(scope, receive, send_cut)


def _name(match: re.Match[bytes]) -> bytes:
    return b"" if match[0].endswith((b"/", b"\\")) else re.split(rb"[/\\]", match[0])[-1]
