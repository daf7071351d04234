"""The part that is always in view: what to do next, what runs, what happened, and the case in hand."""

from __future__ import annotations

from typing import Any

import qt

from ..i18n import tr
from ..view import CONNECTING, ERROR, INFO, WARNING, View
from .parts import CommandButtons, Icons, Section, fill_combo, frame_style, set_number, set_text, show_widget

__all__ = ["ActivitySection", "CaseSection", "ChoiceSection", "DraftsSection", "MessageSection", "next_step"]


def next_step(view: View) -> str:
    """Return what a user would do next, in one line."""
    if view.connection.state == CONNECTING:
        return tr("Connecting…")
    if not view.connection.usable:
        return tr("Enter the address of a server and press Connect.")
    if view.sample is None:
        return tr("Press Next sample to fetch a case.")
    if view.edited:
        return tr("Correct the segmentation, then press Submit.")
    if view.sample.submitted:
        return tr("Submitted. Press Next sample to go on.")
    if view.enabled.get("auto_segment"):
        return tr("Draw the labels below, then press Submit.")
    return tr("Press Auto-segment, or draw by hand below; then Submit.")


class ChoiceSection(Section):
    """Model and strategy, and the three main buttons."""

    def __init__(self, ui: Any, workflow: Any, icons: Icons, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        self._models: list[str] = []
        self._strategies: list[str] = []
        for button, command, slot, picture in (
            (ui.nextSampleButton, "next_sample", workflow.next_sample, "do_next"),
            (ui.autoSegmentButton, "auto_segment", workflow.auto_segment, "do_segment"),
            (ui.submitButton, "submit", workflow.submit, "do_submit"),
        ):
            buttons.add(button, command, slot)
            button.setIcon(icons.icon(picture))
        ui.modelComboBox.connect("activated(int)", self.model_chosen)
        ui.strategyComboBox.connect("activated(int)", self.strategy_chosen)

    def model_chosen(self, index: int) -> None:
        """Use another model."""
        self.touched()
        if 0 <= index < len(self._models):
            self._workflow.choose_model(self._models[index])

    def strategy_chosen(self, index: int) -> None:
        """Choose samples in another way."""
        self.touched()
        if 0 <= index < len(self._strategies):
            self._workflow.choose_strategy(self._strategies[index])

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.models, view.model, view.strategies, view.strategy, view.completed, view.total

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui = self._ui
        self._models = [model.name for model in view.models]
        self._strategies = [name for name, _ in view.strategies]
        versions = {model.name: model.version for model in view.models}
        names = [
            (f"{name} ({versions[name]})" if versions[name] else tr("{name} (not trained)").format(name=name))
            for name in self._models
        ]
        tips = [model.error or model.description for model in view.models]
        chosen = self._models.index(view.model) if view.model in self._models else -1
        fill_combo(ui.modelComboBox, list(zip(names, tips)), chosen)
        chosen = self._strategies.index(view.strategy) if view.strategy in self._strategies else -1
        fill_combo(ui.strategyComboBox, list(view.strategies), chosen)
        ui.modelComboBox.setEnabled(bool(self._models))
        ui.strategyComboBox.setEnabled(bool(self._strategies))
        lines = [
            next((model.error or model.description for model in view.models if model.name == view.model), ""),
            dict(view.strategies).get(view.strategy, ""),
        ]
        if view.total:
            lines.append(tr("{done} of {all} cases are annotated.").format(done=view.completed, all=view.total))
        set_text(ui.choiceText, "\n".join(line for line in lines if line))


class ActivitySection(Section):
    """What runs now, with its progress; in between, what to do next."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui = ui
        buttons.add(ui.cancelButton, "cancel", workflow.cancel)

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.activity, next_step(view)

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, activity = self._ui, view.activity
        show_widget(ui.progressBar, activity is not None)
        show_widget(ui.cancelButton, activity is not None)
        if activity is None:
            set_number(ui.progressBar, 0.0)
            set_text(ui.activityText, next_step(view))
            return
        set_number(ui.progressBar, activity.progress)
        percent = "" if activity.progress is None else f" {round(100 * activity.progress)} %"
        set_text(ui.activityText, activity.text + percent)


class MessageSection(Section):
    """The latest message."""

    _LOOKS = {
        INFO: ("message_info", "blue"),
        WARNING: ("message_warning", "amber"),
        ERROR: ("message_error", "red"),
    }

    def __init__(self, ui: Any, icons: Icons) -> None:
        super().__init__()
        self._ui, self._icons = ui, icons
        self._text = ""
        ui.messageCopyButton.connect("clicked(bool)", self.copy)

    def copy(self) -> None:
        """Put the message on the clipboard."""
        qt.QApplication.clipboard().setText(self._text)

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.message

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, message = self._ui, view.message
        self._text = message.text
        picture, colour = self._LOOKS.get(message.level, self._LOOKS[ERROR])
        self._icons.show(ui.messageIcon, picture)
        set_text(ui.messageLabel, message.text)
        ui.messageFrame.setStyleSheet(frame_style("messageFrame", colour))
        show_widget(ui.messageFrame, bool(message.text))


class CaseSection(Section):
    """The case in hand."""

    def __init__(self, ui: Any) -> None:
        super().__init__()
        self._ui = ui
        ui.caseFrame.setStyleSheet(frame_style("caseFrame", "grey"))

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.sample, view.edited, view.draft_time

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, sample = self._ui, view.sample
        show_widget(ui.caseFrame, sample is not None)
        if sample is None:
            return
        set_text(ui.caseName, sample.name or sample.id)
        ui.caseName.setToolTip(sample.id)
        state = ""
        if view.edited:
            state = tr("Edited")
            if view.draft_time:
                state = tr("Edited, kept at {time}").format(time=view.draft_time)
        elif sample.submitted:
            state = tr("Submitted at {time}").format(time=sample.submitted)
        set_text(ui.caseState, state)
        lines = [
            tr("Segmentation: {source}").format(source=sample.source) if sample.source else "",
            tr("Chosen because: {reason}").format(reason=sample.reason) if sample.reason else "",
            tr("Reserved for you until {time}").format(time=sample.leased_until) if sample.leased_until else "",
        ]
        set_text(ui.caseText, "\n".join(line for line in lines if line))


class DraftsSection(Section):
    """Unsent work from before: restore it or throw it away."""

    def __init__(self, ui: Any, workflow: Any, buttons: CommandButtons) -> None:
        super().__init__()
        self._ui, self._workflow = ui, workflow
        self._keys: list[str] = []
        ui.draftsFrame.setStyleSheet(frame_style("draftsFrame", "amber"))
        buttons.add(ui.restoreDraftButton, "restore_draft", self.restore)
        buttons.add(ui.discardDraftButton, "discard_draft", self.discard)

    def restore(self) -> None:
        """Open the chosen draft."""
        if self._key():
            self._workflow.restore_draft(self._key())

    def discard(self) -> None:
        """Throw the chosen draft away."""
        if self._key():
            self._workflow.discard_draft(self._key())

    def part(self, view: View) -> object:
        """See `Section`."""
        return view.drafts

    def draw(self, view: View) -> None:
        """See `Section`."""
        ui, drafts = self._ui, view.drafts
        show_widget(ui.draftsFrame, bool(drafts))
        if not drafts:
            self._keys = []
            return
        chosen = self._key()
        self._keys = [draft.key for draft in drafts]
        items = [
            (tr("{case}, {time}").format(case=draft.name, time=draft.time), draft.note or draft.server)
            for draft in drafts
        ]
        fill_combo(ui.draftsComboBox, items, self._keys.index(chosen) if chosen in self._keys else 0)
        show_widget(ui.draftsComboBox, len(drafts) > 1)
        if len(drafts) == 1:
            text = tr("Unsent work from {time} for {case}").format(time=drafts[0].time, case=drafts[0].name)
        else:
            text = tr("Unsent work for {count} cases").format(count=len(drafts))
        set_text(ui.draftsLabel, text)

    def _key(self) -> str:
        index = self._ui.draftsComboBox.currentIndex
        return self._keys[index] if 0 <= index < len(self._keys) else ""
