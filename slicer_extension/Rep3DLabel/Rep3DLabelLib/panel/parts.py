"""Small parts that all sections of the panel are made of: texts that wrap, icons, frames, buttons that say why not."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

import qt

from ..i18n import tr

__all__ = [
    "COLOURS",
    "CommandButtons",
    "Icons",
    "Section",
    "fill_combo",
    "frame_style",
    "listed",
    "pill_style",
    "set_number",
    "set_text",
    "short_time",
    "show_widget",
    "soft",
    "time_left",
    "widgets_below",
]

# Dark enough for white text, bright enough beside dark windows.
COLOURS = {
    "grey": "#6b737d",
    "blue": "#2f6fbd",
    "green": "#2c8a4b",
    "amber": "#a96d12",
    "red": "#c0392b",
    "violet": "#8251a8",
    "teal": "#16807a",
}
_LISTED = 5
_BREAK = "\u200b"  # a place where a line may end, of no width
_LONG_WORD = re.compile(r"\S{18,}")


def soft(text: str) -> str:
    """Return a text whose long words (paths, addresses) can be broken, so that they do not widen the panel."""

    def breakable(match: re.Match[str]) -> str:
        word = re.sub(r"([/\\_.,;:=&?-])(?=\w)", rf"\1{_BREAK}", match.group())
        return re.sub(rf"([^{_BREAK}]{{18}})(?=[^{_BREAK}])", rf"\1{_BREAK}", word)

    return _LONG_WORD.sub(breakable, text)


def listed(parts: Sequence[str], between: str) -> str:
    """Return the first few of some texts, and how many more there are."""
    more = [tr("and {count} more").format(count=len(parts) - _LISTED)] if len(parts) > _LISTED else []
    return between.join([*parts[:_LISTED], *more])


def set_text(label: Any, text: str) -> None:
    """Show a text, or take the label away if there is none."""
    wanted = soft(text)
    if label.text != wanted:
        label.setText(wanted)
    show_widget(label, bool(text))


def show_widget(widget: Any, wanted: bool) -> None:
    """Show or hide a widget, touching it only if that changes."""
    if widget.isHidden() == wanted:
        widget.setVisible(wanted)


def widgets_below(widget: Any, kinds: Sequence[str], without: Any) -> list[Any]:
    """Return the widgets of some classes below a widget, leaving out one branch."""
    found = []
    for child in widget.children():
        if child != without:
            found += [child] if any(child.inherits(kind) for kind in kinds) else []
            found += widgets_below(child, kinds, without)
    return found


def set_number(bar: Any, fraction: float | None) -> None:
    """Set a progress bar of 0 to 1000; None means that nobody knows."""
    maximum = 0 if fraction is None else 1000
    if bar.maximum != maximum:
        bar.setRange(0, maximum)
    if fraction is not None:
        bar.setValue(round(1000 * min(max(fraction, 0.0), 1.0)))


def pill_style(colour: str) -> str:
    """Return the style of a word on a coloured ground; it looks the same in light and dark windows."""
    return f"QLabel {{ background-color: {COLOURS[colour]}; color: white; border-radius: 4px; padding: 1px 7px; }}"


def frame_style(name: str, colour: str) -> str:
    """Return the style of a frame with a coloured edge and a tinted ground."""
    red, green, blue = (int(COLOURS[colour][start : start + 2], 16) for start in (1, 3, 5))
    return (
        f"QFrame#{name} {{ background-color: rgba({red}, {green}, {blue}, 28); border: none; "
        f"border-left: 3px solid {COLOURS[colour]}; border-radius: 2px; }}"
    )


def fill_combo(combo: Any, items: Sequence[tuple[str, str]], current: int) -> None:
    """Give a combo box its (text, tooltip) items and the current one; nothing is signalled."""
    combo.blockSignals(True)
    try:
        combo.clear()
        for index, (text, tip) in enumerate(items):
            combo.addItem(text)
            combo.setItemData(index, tip, qt.Qt.ToolTipRole)
        combo.setCurrentIndex(current)
    finally:
        combo.blockSignals(False)


def short_time(text: str) -> str:
    """Return a time for a narrow column: the day, or the hour where that is all there is."""
    return text[:10]


def time_left(seconds: float) -> str:
    """Return a time in the words that one would say."""
    if seconds < 60:
        return tr("less than a minute left")
    minutes = round(seconds / 60)
    if minutes < 60:
        return tr("about {minutes} min left").format(minutes=minutes)
    return tr("about {hours} h {minutes} min left").format(hours=minutes // 60, minutes=minutes % 60)


class Icons:
    """The pictures of the module, read once.

    Args:
        folder: Where they are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._known: dict[str, Any] = {}

    def icon(self, name: str) -> Any:
        """Return a QIcon."""
        if name not in self._known:
            self._known[name] = qt.QIcon(str(self._folder / f"{name}.png"))
        return self._known[name]

    def show(self, label: Any, name: str) -> None:
        """Show a picture in a label of 18 pixels."""
        label.setPixmap(self.icon(name).pixmap(18, 18))


class CommandButtons:
    """Buttons of the workflow's commands: grey when the command cannot be used, with the reason as the tooltip."""

    def __init__(self) -> None:
        self._buttons: list[tuple[Any, str, str, Callable[[], str] | None]] = []
        self._shown: dict[int, str] = {}

    def add(self, button: Any, command: str, slot: Callable[..., None], check: Callable[[], str] | None = None) -> None:
        """Have a button follow a command, and connect it.

        Args:
            button: The widget; its tooltip says what it does.
            command: A command of `view.COMMANDS`.
            slot: What a click calls: a method without optional parameters, else PythonQt passes it the click's bool.
            check: What else is needed, "" if all is there, such as a selected row.
        """
        button.connect("clicked(bool)", slot)
        self._buttons.append((button, command, str(button.toolTip), check))

    def draw(self, enabled: Mapping[str, str]) -> None:
        """Show which can be used now."""
        for number, (button, command, tip, check) in enumerate(self._buttons):
            reason = enabled.get(command, "") or (check() if check else "")
            if self._shown.get(number) != reason:
                self._shown[number] = reason
                button.setEnabled(not reason)
                button.setToolTip(f"{tip}\n\n{tr('Not now:')} {reason}" if reason else tip)


class Section:
    """A part of the panel: connects its widgets once, and draws its part of the view when that part has changed."""

    def __init__(self) -> None:
        self._drawn: object = None

    def refresh(self, view: Any) -> None:
        """Draw, if anything differs from what is drawn."""
        wanted = self.part(view)
        if wanted != self._drawn:
            self._drawn = wanted
            self.draw(view)

    def touched(self) -> None:
        """Draw what is so, even if nothing changed: the user has changed a widget that shows a part of the view."""
        self._drawn = None

    def part(self, view: Any) -> object:
        """Return what this section shows of a view; never None."""
        raise NotImplementedError

    def draw(self, view: Any) -> None:
        """Show it."""
        raise NotImplementedError
