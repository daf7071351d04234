"""The demo without the automatic clinician: a server on its images, and the page for annotating in a browser."""

from __future__ import annotations

import webbrowser
from contextlib import suppress
from pathlib import Path

from rich.console import Console

from rep3d.demo.server import ServerProcess

__all__ = ["serve_page"]


def serve_page(console: Console, studies: Path, port: int = 0, starter: str = "off") -> None:
    """Start a server on a studies folder, say where its pages are, open the one for annotating, and wait for Ctrl-C.

    Args:
        console: where it is said; a browser is opened where that is a terminal.
        studies: folder with the images.
        port: TCP port on 127.0.0.1; 0 for a free one.
        starter: whether the server begins with a starter model, as its ``--conf starter`` has it.

    Raises:
        ServerError: if the server does not start, or ends by itself.
    """
    console.print("Starting the server ...")
    with (
        ServerProcess(studies, studies.parent / "serve.log", port, {"starter": starter}) as server,
        suppress(
            KeyboardInterrupt  # the way to end it
        ),
    ):
        server.wait_until(server.answers)
        page = f"{server.url}/rep3d/annotate/"
        console.print(
            f"\nAnnotate in your browser: [bold]{page}[/]\n"
            f"The dashboard: {server.url}/rep3d/   3D Slicer: enter {server.url} in the module Rep3D Label\n"
            f"Images and labels: {studies.resolve()}\n"
            f"Ctrl-C stops it.",
            soft_wrap=True,
        )
        if console.is_terminal:
            webbrowser.open(page)
        server.wait_for_interrupt()
