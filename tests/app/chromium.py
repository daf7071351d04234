"""A small driver for Chromium over its DevTools protocol, so that pages are tested in the browser that people use.

``--remote-debugging-pipe`` takes JSON messages that end with a NUL on file descriptor 3 and answers on 4: no port, no
WebSocket, nothing to install besides the browser.
"""

from __future__ import annotations

import base64
import contextlib
import json
import os
import queue
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Any

__all__ = ["Chromium", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
_START_SECONDS = 60.0
# The browser expects its ends of the pipes as 3 and 4, whatever numbers they have here (which may be 4 and 3).
_LAUNCH = """
import fcntl, os, sys
ends = [fcntl.fcntl(int(end), fcntl.F_DUPFD, 10) for end in sys.argv[1:3]]
os.dup2(ends[0], 3)
os.dup2(ends[1], 4)
os.execv(sys.argv[3], sys.argv[3:])
"""


def find_chromium() -> str | None:
    """The browser's command, if there is one."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


class Chromium:
    """A headless browser with one page.

    Args:
        profile: an empty folder for its profile.
        width: of the page in CSS pixels.
        height: of the page in CSS pixels.

    Attributes:
        console: warnings and errors of the page's console, and exceptions that nobody caught.
        requests: the address of each request that the page made.
    """

    def __init__(self, profile: Path, width: int = 1280, height: int = 900) -> None:
        command = find_chromium()
        assert command, "no Chromium on this machine"
        self.console: list[str] = []
        self.requests: list[str] = []
        self._ids = 0
        self._answers: dict[int, queue.Queue[dict[str, Any]]] = {}
        self._session: str | None = None
        to_browser, self._write_to = os.pipe()
        self._read_from, from_browser = os.pipe()
        options = [
            "--headless=new",
            "--remote-debugging-pipe",
            f"--user-data-dir={profile}",
            "--no-first-run",
            "--disable-gpu",
            "--disable-extensions",
            "--disable-background-networking",
            "--disable-component-update",
            "--hide-scrollbars",
            "--mute-audio",
            *(["--no-sandbox", "--disable-dev-shm-usage"] if os.geteuid() == 0 else []),
        ]
        self._log = (profile / "chromium.log").open("wb")
        self._process = subprocess.Popen(
            [sys.executable, "-c", _LAUNCH, str(to_browser), str(from_browser), command, *options],
            pass_fds=(to_browser, from_browser),
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )
        os.close(to_browser)
        os.close(from_browser)
        threading.Thread(target=self._listen, name="chromium", daemon=True).start()
        target = self.call("Target.createTarget", {"url": "about:blank"}, _START_SECONDS)["targetId"]
        self._session = self.call("Target.attachToTarget", {"targetId": target, "flatten": True})["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        self.set_size(width, height)

    # The protocol --------------------------------------------------------------------------------------------------

    def call(self, method: str, params: dict[str, Any] | None = None, seconds: float = 30.0) -> dict[str, Any]:
        """One command of the DevTools protocol, and its result."""
        self._ids += 1
        message: dict[str, Any] = {"id": self._ids, "method": method, "params": params or {}}
        if self._session:
            message["sessionId"] = self._session
        answers = self._answers[self._ids] = queue.Queue()
        os.write(self._write_to, json.dumps(message).encode() + b"\0")
        try:
            answer = answers.get(timeout=seconds)
        except queue.Empty:
            raise AssertionError(f"{method}: no answer from the browser within {seconds:g} s") from None
        if "error" in answer:
            raise AssertionError(f"{method}: {answer['error']}")
        return dict(answer["result"])

    def _listen(self) -> None:
        rest = b""
        while block := os.read(self._read_from, 1 << 16):
            *messages, rest = (rest + block).split(b"\0")
            for message in messages:
                self._take(json.loads(message))

    def _take(self, message: dict[str, Any]) -> None:
        if "id" in message:
            if answers := self._answers.pop(message["id"], None):
                answers.put(message)
            return
        params = message.get("params", {})
        match message["method"]:
            case "Network.requestWillBeSent":
                self.requests.append(params["request"]["url"])
            case "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                self.console.append(details.get("exception", {}).get("description") or details["text"])
            case "Runtime.consoleAPICalled" if params["type"] in ("error", "warning", "assert"):
                self.console.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
            case "Log.entryAdded" if params["entry"]["level"] in ("error", "warning"):
                self.console.append(f"{params['entry']['text']} {params['entry'].get('url', '')}")
            case "Page.javascriptDialogOpening":
                self.console.append(f"dialog: {params['message']}")

    # The page ------------------------------------------------------------------------------------------------------

    def set_size(self, width: int, height: int = 900, dark: bool = False) -> None:
        """The page's size in CSS pixels, and whether the user prefers dark colours."""
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", metrics)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.call("Emulation.setEmulatedMedia", {"features": [scheme]})

    def open(self, url: str) -> None:
        """Goes to an address and waits for the page to have loaded."""
        self.call("Page.navigate", {"url": url})
        self.wait_for("document.readyState === 'complete'")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression; promises are awaited."""
        answer = self.call("Runtime.evaluate", {"expression": expression, "returnByValue": True, "awaitPromise": True})
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(f"{expression}: {details.get('exception', {}).get('description', details['text'])}")
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = 30.0) -> Any:
        """Waits until an expression is true.

        Returns:
            Its value; True for an element.
        """
        plain = f"(async () => {{ const v = await ({expression}); return v instanceof Node ? true : v; }})()"
        return self._until(lambda: self.evaluate(plain), expression, seconds)

    def _until(self, ask: Callable[[], Any], what: str, seconds: float) -> Any:
        deadline = time.monotonic() + seconds
        while True:
            with contextlib.suppress(AssertionError):  # the page may be on its way to another address
                if value := ask():
                    return value
            if time.monotonic() > deadline:
                shown = self.evaluate("document.body.innerText.slice(0, 3000)")
                raise AssertionError(f"not within {seconds:g} s: {what}\nconsole: {self.console}\npage: {shown}")
            time.sleep(0.05)

    def click(self, selector: str, seconds: float = 30.0) -> None:
        """Clicks with the mouse in the middle of an element, once it is there, enabled and not covered."""
        quoted = json.dumps(selector)
        where = f"""(() => {{
            const element = document.querySelector({quoted});
            if (!element || element.disabled) return null;
            element.scrollIntoView({{block: 'center', behavior: 'instant'}});
            const box = element.getBoundingClientRect();
            const x = box.x + box.width / 2, y = box.y + box.height / 2;
            const hit = document.elementFromPoint(x, y);
            return box.width && hit && (hit === element || element.contains(hit)) ? [x, y] : null;
        }})()"""
        x, y = self.wait_for(where, seconds)
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", {"type": kind, "x": x, "y": y, "button": "left", "clickCount": 1})

    def press(self, key: str) -> None:
        """Presses and releases a key, such as ``"Tab"``, ``"Enter"`` or ``"Escape"``."""
        code = {"Tab": 9, "Enter": 13, "Escape": 27, " ": 32}[key]
        text = {"Enter": {"text": "\r"}, " ": {"text": " "}}.get(key, {})
        for kind in ("keyDown", "keyUp"):
            down = text if kind == "keyDown" else {}
            self.call("Input.dispatchKeyEvent", {"type": kind, "key": key, "windowsVirtualKeyCode": code, **down})

    def type_into(self, selector: str, text: str) -> None:
        """Replaces the text of a field, as a person would."""
        self.evaluate(f"(() => {{const f = document.querySelector({json.dumps(selector)}); f.focus(); f.select();}})()")
        self.call("Input.insertText", {"text": text})

    def screenshot(self, path: Path, whole_page: bool = True) -> Path:
        """Writes a picture of the page as PNG."""
        options = {"format": "png", "captureBeyondViewport": whole_page}
        if whole_page:
            size = self.call("Page.getLayoutMetrics")["cssContentSize"]
            options["clip"] = {"x": 0, "y": 0, "width": size["width"], "height": size["height"], "scale": 1}
        path.write_bytes(base64.b64decode(self.call("Page.captureScreenshot", options)["data"]))
        return path

    # Its end -------------------------------------------------------------------------------------------------------

    def close(self) -> None:
        """Ends the browser and what it started."""
        self._session = None
        with contextlib.suppress(AssertionError, OSError):
            self.call("Browser.close", seconds=5)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._process.wait(5)
        if self._process.poll() is None:
            os.killpg(self._process.pid, signal.SIGKILL)  # its own group: made by start_new_session
            self._process.wait()
        for end in (self._write_to, self._read_from):
            os.close(end)
        self._log.close()

    def __enter__(self) -> Chromium:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()
