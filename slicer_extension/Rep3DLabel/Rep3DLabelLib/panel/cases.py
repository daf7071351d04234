"""The cases of the server: find one, open it, bring back an earlier label."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import qt

from ..i18n import tr
from ..view import CaseRow, HistoryRow, View
from .parts import CommandButtons, Section, fill_combo, listed, set_text, short_time
from .qt_table import Cell, Row, Table

__all__ = ["CasesSection"]


class CasesSection(Section):
    """The case browser."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        self._cases: tuple[CaseRow, ...] = ()
        self._left_out: tuple[str, ...] = ()
        self._by_id: dict[str, CaseRow] = {}
        self._states: list[str] = []
        self._sort = (0, False)  # column, downwards
        self._menu: Any = None
        self._menu_case = ""
        self._entries: list[_Entry] = []
        self.table = Table(ui.casesTable, (76, 48, 82), selected=self.selected, opened=self.open_case)
        ui.casesTable.horizontalHeader().connect("sectionClicked(int)", self.sort_by)
        ui.casesTable.horizontalHeader().setSectionsClickable(True)
        buttons.add(ui.refreshCasesButton, "refresh_cases", workflow.refresh_cases)
        buttons.add(ui.openCaseButton, "open_case", self.open_selected, self.why_not_open)
        buttons.add(ui.historyButton, "restore_label", self.ask_history, self.why_not)
        buttons.add(ui.reviewButton, "review", self.review, self.why_not_review)
        ui.caseFilterEdit.connect("textChanged(QString)", self.filter_changed)
        ui.caseStateFilter.connect("activated(int)", self.filter_changed)

    # ---- commands

    def open_selected(self) -> None:
        """Open the selected case."""
        if self.table.key:
            self._workflow.open_case(self.table.key)

    def open_case(self, key: str) -> None:
        """Open a case that was double-clicked."""
        self._workflow.open_case(key)

    def ask_history(self) -> None:
        """Ask for the earlier labels of the selected case; a menu shows them when they are here."""
        if self.table.key:
            self._menu_case = self.table.key
            self._workflow.history(self.table.key, self.show_history)

    def show_history(self, entries: Sequence[HistoryRow]) -> None:
        """Show earlier labels as a menu; the one that is chosen is restored."""
        if self._menu is not None:
            self._menu.deleteLater()
        menu = self._menu = qt.QMenu(self._ui.historyButton)
        menu.setToolTipsVisible(True)
        self._entries = [_Entry(self._workflow, self._menu_case, entry) for entry in entries]
        for entry in self._entries:
            entry.add_to(menu)
        if not entries:
            menu.addAction(tr("No label yet")).setEnabled(False)
        button = self._ui.historyButton
        menu.popup(button.mapToGlobal(qt.QPoint(0, button.height)))

    # ---- the list

    def selected(self, key: str) -> None:
        """Tell about the selected case."""
        case = self._by_id.get(key)
        parts = []
        if case:
            parts = [
                case.error,
                tr("its label cannot be used: {reason}").format(reason=case.label_error) if case.label_error else "",
                case.labels,
                tr("by {author}").format(author=case.author) if case.author else "",
                tr("reserved for {user}").format(user=case.lease) if case.lease else "",
                _role(case.role),
            ]
        reviewed = case is not None and case.state == "reviewed"
        self._ui.reviewButton.setText(tr("Not reviewed") if reviewed else tr("Reviewed"))
        set_text(self._ui.caseDetails, "; ".join(part for part in parts if part) if case else self._count_text())

    def why_not_open(self) -> str:
        """Return why the selected case cannot be opened, "" if it can."""
        case = self._by_id.get(self.table.key)
        return case.error if case and case.error else self.why_not()

    def why_not(self) -> str:
        """Return why nothing can be done with a case, "" if it can."""
        return "" if self.table.key in self._by_id else tr("Select a case first.")

    def review(self) -> None:
        """Mark the label of the selected case as reviewed, or take that back."""
        if self.table.key:
            self._workflow.review(self.table.key)

    def why_not_review(self) -> str:
        """Return why the label of the selected case cannot be marked as reviewed, "" if it can."""
        case = self._by_id.get(self.table.key)
        if case is None:
            return self.why_not()
        return "" if case.has_label else tr("This case has no label yet that could be reviewed.")

    def filter_changed(self) -> None:
        """Show the cases that fit the filter."""
        self._fill()

    def sort_by(self, column: int) -> None:
        """Sort by a column; a second click turns the order round."""
        self._sort = (column, not self._sort[1] if column == self._sort[0] else False)
        self._fill()

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.cases, view.left_out

    def draw(self, view: View) -> None:
        """See `Section`."""
        self._cases, self._left_out = view.cases, view.left_out
        self._by_id = {case.id: case for case in view.cases}
        states = sorted({case.state for case in view.cases})
        if states != self._states:
            before = self._state()
            self._states = states
            index = states.index(before) + 1 if before in states else 0
            fill_combo(self._ui.caseStateFilter, [(tr("All states"), ""), *((_word(s), "") for s in states)], index)
        self._fill()

    def _state(self) -> str:
        index = self._ui.caseStateFilter.currentIndex - 1
        return self._states[index] if 0 <= index < len(self._states) else ""

    def _fill(self) -> None:
        words, state = self._ui.caseFilterEdit.text.casefold().split(), self._state()
        fitting = [
            case
            for case in self._cases
            if (not state or case.state == state)
            and all(word in f"{case.id} {case.author} {case.labels}".casefold() for word in words)
        ]
        fitting.sort(key=_SORT_KEYS[self._sort[0]], reverse=self._sort[1])
        self.table.show([_row(case) for case in fitting])
        self.selected(self.table.key)

    def _count_text(self) -> str:
        shown, count = len(self.table.keys), len(self._cases)
        lines = []
        if count:
            lines = [tr("{count} cases").format(count=count)]
        if shown != count:
            lines = [tr("{shown} of {count} cases").format(shown=shown, count=count)]
        broken = [case.id for case in self._cases if case.label_error]
        if broken:
            lines.append(tr("Labels that cannot be used: {cases}").format(cases=listed(broken, ", ")))
        if self._left_out:
            lines.append(tr("Not used by the server:\n{reasons}").format(reasons=listed(self._left_out, "\n")))
        return "\n".join(lines)


class _Entry:
    """An earlier label as a line of the menu."""

    def __init__(self, workflow: Any, image_id: str, row: HistoryRow) -> None:
        self._workflow, self._image_id, self._row = workflow, image_id, row

    def add_to(self, menu: Any) -> None:
        """Be a line of this menu."""
        action = menu.addAction(self._row.text)
        action.setEnabled(bool(self._row.restorable))
        action.setToolTip(tr("Make this the label of the case again; the present one stays in the history."))
        action.connect("triggered(bool)", self.restore)

    def restore(self) -> None:
        """Make it the label of the case again."""
        self._workflow.restore_label(self._image_id, self._row.entry)


_SORT_KEYS = (
    lambda case: case.id.casefold(),
    lambda case: (case.state, case.id.casefold()),
    lambda case: (case.dice is None, case.dice or 0.0, case.id.casefold()),
    lambda case: (case.time, case.id.casefold()),
)


def _word(state: str) -> str:
    return {
        "new": tr("New"),
        "predicted": tr("Predicted"),
        "leased": tr("Reserved"),
        "submitted": tr("Submitted"),
        "reviewed": tr("Reviewed"),
        "unusable": tr("Unusable"),
    }.get(state, state)


def _role(role: str) -> str:
    return {"training": tr("used for training"), "validation": tr("used for measuring")}.get(role, role)


def _row(case: CaseRow) -> Row:
    return Row(
        case.id,
        (
            Cell(case.id, case.labels or case.id),
            Cell(_word(case.state) + ("!" if case.label_error else ""), case.error or case.label_error or case.lease),
            Cell(
                "" if case.dice is None else f"{case.dice:.3f}",
                tr("Agreement of the submitted label with the model's segmentation"),
                right=True,
            ),
            Cell(short_time(case.time), ", ".join(part for part in (case.time, case.author) if part), right=True),
        ),
    )
