"""Batch segmentation: all images that have no label, one after the other."""

from __future__ import annotations

from ..client.answers_status import BatchStatus
from ..i18n import tr
from ..view import ERROR, INFO, WARNING, BatchView
from ..worker.jobs import JobError
from .context import Context
from .presenting import batch_view

__all__ = ["Batch"]


class Batch:
    """Batch segmentation by the chosen model."""

    def __init__(self, context: Context) -> None:
        self._context = context

    def start(self) -> None:
        """Segment all images that have no label."""
        context = self._context
        if context.refused("start_batch"):
            return
        context.update(batch=BatchView("running", 0, 0, 0, tr("Starting")))

        def failed(error: JobError) -> None:
            context.update(batch=BatchView())
            context.note_connection(error)
            context.say(ERROR, error.message)
            context.news = True  # it may have been started all the same

        context.call(
            "batch_start", {"model": context.view.model, "views": context.view.options.views}, self._is, failed
        )

    def stop(self) -> None:
        """Stop segmenting them."""
        if not self._context.refused("stop_batch"):
            self._context.once("batch_stop", {"model": self._context.view.model}, self._is)

    def _is(self, status: BatchStatus) -> None:
        self._context.update(batch=batch_view(status))
        self._context.news = True

    def show(self, status: BatchStatus) -> tuple[str, str] | None:
        """Show how it goes; return level and words if it has ended, None if not."""
        before, batch = self._context.view.batch, batch_view(status)
        self._context.update(batch=batch)
        return _end(batch, before) if before.is_active and not batch.is_active else None


def _end(batch: BatchView, before: BatchView) -> tuple[str, str]:
    """Return level and words about a batch segmentation that has ended, and that was as it was `before`."""
    if not batch.phase:  # the server has been started again, and knows of none
        return WARNING, tr("The batch segmentation was interrupted: the server was restarted. Start it again to go on.")
    words = tr("Batch: {done} of {total} segmented").format(done=batch.done, total=batch.total)
    if batch.failed:
        words += tr(", {count} failed").format(count=batch.failed)
    unasked = batch.phase == "stopped" and before.phase == "running"  # the server ended, or somebody else stopped it
    level = WARNING if batch.failed or batch.phase == "error" or unasked else INFO
    return level, f"{words}: {batch.text}" if batch.text else f"{words}."
