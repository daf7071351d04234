"""The case browser and the tables: filter, order, selection and place survive a refresh; history."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from Rep3DLabelLib.view import HistoryRow

from tests.extension.panel_samples import OpenPanel, cases, everything, ready


@pytest.fixture
def opened(bench) -> Iterator[OpenPanel]:
    panel = OpenPanel(bench, everything(ready()))
    panel.ui.casesSection.collapsed = False
    bench.app.processEvents()
    yield panel
    panel.close()


def _settle(opened: OpenPanel) -> list[str]:
    table = opened.panel._tables[2]
    while not table.step():
        pass
    widget = opened.ui.casesTable
    return [widget.item(row, 0).text() for row in range(widget.rowCount)]


def test_filter_by_text_and_state(opened: OpenPanel) -> None:
    ui = opened.ui
    ui.caseFilterEdit.setText("hippo ANNA")
    assert _settle(opened) == [case.id for case in opened.workflow.view.cases if case.author == "anna"]
    assert "16 of 40 cases" in ui.caseDetails.text
    ui.caseFilterEdit.setText("")
    index = [ui.caseStateFilter.itemText(i) for i in range(ui.caseStateFilter.count)].index("Reserved")
    ui.caseStateFilter.setCurrentIndex(index)
    ui.caseStateFilter.activated.emit(index)
    assert _settle(opened) == [case.id for case in opened.workflow.view.cases if case.state == "leased"]
    opened.show(cases=cases(45))  # the filter stays
    assert len(_settle(opened)) == 9


def test_a_click_on_a_heading_sorts_and_a_second_one_turns_the_order_round(opened: OpenPanel) -> None:
    header = opened.ui.casesTable.horizontalHeader()
    header.sectionClicked.emit(2)
    rows = _settle(opened)
    dice = {case.id: case.dice for case in opened.workflow.view.cases}
    measured = [dice[row] for row in rows if dice[row] is not None]
    assert measured == sorted(measured) and dice[rows[0]] is not None and dice[rows[-1]] is None
    header.sectionClicked.emit(2)
    assert _settle(opened) == list(reversed(rows))


def test_selection_and_place_survive_a_refresh(opened: OpenPanel, bench) -> None:
    widget = opened.ui.casesTable
    _settle(opened)
    widget.selectRow(20)
    bench.app.processEvents()
    place = widget.verticalScrollBar().value
    chosen = widget.item(20, 0).text()
    changed = tuple(replace(case, time="2026-04-01 12:00") for case in opened.workflow.view.cases if case.id[-1] != "3")
    opened.show(cases=changed)
    rows = _settle(opened)
    assert widget.item(widget.currentRow(), 0).text() == chosen and rows.index(chosen) != 20
    assert widget.verticalScrollBar().value == place
    opened.show(cases=tuple(case for case in changed if case.id != chosen))
    _settle(opened)
    assert not widget.selectedItems() and opened.panel._tables[2].key == ""


def test_open_by_button_and_by_double_click(opened: OpenPanel, bench) -> None:
    from tests.slicerbench.driver import click

    ui = opened.ui
    assert not ui.openCaseButton.enabled and "Select a case" in ui.openCaseButton.toolTip
    ui.casesTable.selectRow(5)
    opened.panel.tick()
    assert "used for training" in ui.caseDetails.text and "by anna" in ui.caseDetails.text
    click(ui.openCaseButton)
    ui.casesTable.cellDoubleClicked.emit(6, 0)
    assert opened.commands == [("open_case", "hippocampus_005"), ("open_case", "hippocampus_006")]


def test_an_unusable_case_says_why_and_is_not_opened(opened: OpenPanel) -> None:
    (first, *others) = opened.workflow.view.cases
    opened.show(
        cases=(replace(first, state="unusable", error="It has two channels. Export one.", has_label=False), *others)
    )
    row = _settle(opened).index(first.id)
    opened.ui.casesTable.selectRow(row)
    opened.panel.tick()
    assert opened.ui.casesTable.item(row, 1).text() == "Unusable" and "two channels" in opened.ui.caseDetails.text
    assert not opened.ui.openCaseButton.enabled and "two channels" in opened.ui.openCaseButton.toolTip


def test_history_is_a_menu_whose_choice_restores(opened: OpenPanel, bench) -> None:
    from tests.slicerbench.driver import click

    opened.ui.casesTable.selectRow(5)
    opened.panel.tick()
    click(opened.ui.historyButton)
    ((name, image_id, done),) = opened.commands
    assert (name, image_id) == ("history", "hippocampus_005")
    done((HistoryRow("", "anna, present label", False), HistoryRow("e1", "bela, replaced", True)))
    menu = opened.panel._sections[10]._menu
    first, second = menu.actions()
    assert second.text == "bela, replaced" and second.enabled and not first.enabled
    second.trigger()
    assert opened.commands == [("restore_label", "hippocampus_005", "e1")]
    menu.hide()
    opened.panel._sections[10].show_history(())
    assert [action.text for action in opened.panel._sections[10]._menu.actions()] == ["No label yet"]
    opened.panel._sections[10]._menu.hide()


def test_a_label_is_marked_as_reviewed_and_not(opened: OpenPanel) -> None:
    from tests.slicerbench.driver import click

    button = opened.ui.reviewButton
    assert not button.enabled and "Select a case" in button.toolTip
    for row, text, why in ((0, "Reviewed", ""), (4, "Not reviewed", ""), (2, "Reviewed", "no label yet")):
        opened.ui.casesTable.selectRow(row)
        opened.panel.tick()
        assert button.text == text and bool(button.enabled) is not bool(why) and why in button.toolTip
        if not why:
            click(button)
            assert opened.commands == [("review", f"hippocampus_{row:03d}")]


def test_a_table_of_a_few_rows_grows_with_them_and_does_not_scroll(opened: OpenPanel, bench) -> None:
    opened.ui.versionsSection.collapsed = False
    bench.app.processEvents()
    table = opened.ui.versionsTable
    assert table.verticalScrollBar().maximum == 0
    height = table.height
    opened.show(versions=opened.workflow.view.versions * 2)
    assert table.height > height and table.verticalScrollBar().maximum == 0


def test_what_is_left_out_is_named_with_its_reason(opened: OpenPanel) -> None:
    ui = opened.ui
    broken = replace(opened.workflow.view.cases[0], label_error="the file is cut short")
    left_out = tuple(f"scan_{number}.nrrd: It is no NIfTI file." for number in range(7))
    opened.show(cases=(broken, *opened.workflow.view.cases[1:]), left_out=left_out)
    _settle(opened)
    text = ui.caseDetails.text.replace("\u200b", "")
    assert f"Labels that cannot be used: {broken.id}" in text
    assert "scan_4.nrrd: It is no NIfTI file.\nand 2 more" in text and "scan_5" not in text
    ui.caseFilterEdit.setText(broken.id)
    _settle(opened)
    assert ui.casesTable.item(0, 1).text().endswith("!") and "cut short" in ui.casesTable.item(0, 1).toolTip()
    ui.casesTable.selectRow(0)
    assert "its label cannot be used: the file is cut short" in ui.caseDetails.text.replace("\u200b", "")
    training = replace(
        opened.workflow.view.training, left_out=("case_9: It has no voxels.",), notes=("4 mm", "9 steps")
    )
    opened.show(training=replace(training, notes=("4 mm", "9 steps")))
    told = "4 mm\n9 steps\nCases that were left out:\ncase_9: It has no voxels."
    assert told in ui.trainingDice.text.replace("\u200b", "")
