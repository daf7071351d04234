"""The list of cases: kept true once it was asked for; earlier labels and reviews."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

from ..client.answers_cases import Case, HistoryEntry
from ..view import HistoryRow
from .context import Context
from .presenting import case_rows, history_rows

__all__ = ["Cases"]


class Cases:
    """Cases of the server."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._wanted = False

    def refresh(self) -> None:
        """List the cases, and keep the list true from now on."""
        if not self._context.refused("refresh_cases"):
            self._wanted = True
            args, done = self._question()
            self._context.once("cases", args, done)

    def read_if_wanted(self) -> None:
        """List them anew, if they were asked for before."""
        if self._wanted:
            self._context.background("cases", *self._question())

    def _question(self) -> tuple[dict[str, object], Callable[[tuple[Case, ...]], None]]:
        context = self._context
        model = context.view.model

        def done(cases: tuple[Case, ...]) -> None:
            if model == context.view.model:
                context.update(cases=case_rows(cases))

        return {"model": model}, done

    def history(self, image_id: str, done: Callable[[tuple[HistoryRow, ...]], None]) -> None:
        """Call `done` with the labels of a case, the current one first."""

        def came(entries: tuple[HistoryEntry, ...]) -> None:
            done(history_rows(entries))

        self._context.once("history", {"image_id": image_id}, came)

    def restore_label(self, image_id: str, entry: str, done: Callable[[], None]) -> None:
        """Make an earlier label the current one; the present one goes into the history."""
        self._context.once("restore", {"image_id": image_id, "entry": entry}, lambda label: done())

    def review(self, image_id: str) -> None:
        """Record that the label of a case was reviewed, or take that back."""
        context = self._context
        if context.refused("review"):
            return
        reviewed = any(row.id == image_id and row.state == "reviewed" for row in context.view.cases)

        def done(case: Case) -> None:
            (row,) = case_rows((case,))
            kept = [replace(row, score=known.score) if known.id == row.id else known for known in context.view.cases]
            context.update(cases=tuple(kept))

        context.once("review", {"image_id": image_id, "done": not reviewed}, done)
