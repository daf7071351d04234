"""The panel: `panel` puts it together, a file for each section; `qt_*` are helpers. The only part that knows Qt."""

from .panel import TICK_MS, Panel

__all__ = ["TICK_MS", "Panel"]
