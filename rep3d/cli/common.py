"""What the commands of ``rep3d`` share: the terminal, the options that several have, and how they are ended."""

from __future__ import annotations

import getpass
import signal
from collections.abc import Iterable
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer
from rich.console import Console
from rich.markup import escape

from rep3d.nn.zoo import preset_words

if TYPE_CHECKING:
    from rep3d.data.cases import LeftOut

__all__ = [
    "DECATHLON",
    "Device",
    "Engine",
    "Folder",
    "Preset",
    "console",
    "show_left_out",
    "stop_on_terminate",
    "user_name",
]

console = Console()
DECATHLON = (
    "Data set: dataset.json with imagesTr and labelsTr, as in the Medical Segmentation Decathlon or nnU-Net, or with "
    "images and labels."
)
Folder = Annotated[Path, typer.Option(help="Folder to write into.")]
Device = Annotated[str | None, typer.Option(help="cpu, cuda or cuda:1; if not given, the best there is.")]
Engine = Annotated[str | None, typer.Option(help="auto, torch or openvino; if not given, auto.")]
Preset = Annotated[str, typer.Option(help=f"Network: {', '.join(preset_words())}.")]


def show_left_out(left_out: Iterable[LeftOut]) -> None:
    """Print what is not used, each with the reason: none of it is left out in silence."""
    for entry in left_out:
        console.print(f"  left out: {escape(str(entry))}", soft_wrap=True, highlight=False)


def stop_on_terminate() -> None:
    """Make a polite kill like Ctrl-C, so that the server is stopped with us."""

    def interrupt(number: int, frame: Any) -> None:
        raise KeyboardInterrupt

    signal.signal(signal.SIGTERM, interrupt)


def user_name() -> str:
    """Return who types the command."""
    try:
        return getpass.getuser()
    except (KeyError, OSError, ImportError):  # a container may run as a user without a name
        return "unknown"
