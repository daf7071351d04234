"""The panel: each widget commands what it says, and each part of the view is drawn."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace

import pytest
from Rep3DLabelLib.view import (
    COMMANDS,
    ERROR,
    Activity,
    BatchView,
    ConnectionView,
    LocalView,
    Message,
    Options,
    SampleView,
    TrainingView,
    UncertaintyView,
)

from tests.extension.panel_samples import (
    DRAFT,
    MODULE,
    URL,
    OpenPanel,
    cases,
    disconnected,
    everything,
    ready,
    with_sample,
)


@pytest.fixture
def opened(bench) -> Iterator[OpenPanel]:
    panel = OpenPanel(bench, everything(with_sample()))
    for name in ("accessSection", "localSection", "trainingSection", "versionsSection", "casesSection"):
        getattr(panel.ui, name).collapsed = False
    for name in ("batchSection", "optionsSection"):
        getattr(panel.ui, name).collapsed = False
    panel.root.resize(380, 2600)
    bench.app.processEvents()
    yield panel
    panel.close()


@pytest.fixture
def click(bench):
    from tests.slicerbench.driver import click

    return click


BUTTONS = {
    "disconnectButton": ("disconnect",),
    "nextSampleButton": ("next_sample",),
    "autoSegmentButton": ("auto_segment",),
    "submitButton": ("submit",),
    "jumpButton": ("jump_to_uncertain",),
    "trainButton": ("train",),
    "stopTrainingButton": ("stop_training",),
    "curvesButton": ("show_curves",),
    "rollBackButton": ("roll_back",),
    "refreshCasesButton": ("refresh_cases",),
    "startBatchButton": ("start_batch",),
    "stopBatchButton": ("stop_batch",),
    "stopLocalButton": ("stop_local_server",),
}


@pytest.mark.parametrize("button", BUTTONS)
def test_a_button_sends_its_command_once(opened: OpenPanel, click, button: str) -> None:
    click(getattr(opened.ui, button))
    assert opened.commands == [BUTTONS[button]]


def test_connect_hands_over_address_key_and_trust(opened: OpenPanel, click) -> None:
    ui = opened.ui
    ui.serverComboBox.setEditText(" https://a.example:8000 ")
    ui.keyEdit.setText("secret")
    click(ui.connectButton)
    assert opened.commands == [("connect", "https://a.example:8000", "secret", True)]
    assert opened.settings.api_key("https://a.example:8000") == ""  # kept only where the user says so
    ui.rememberKeyCheckBox.setChecked(True)
    ui.certificatePath.setCurrentPath("/etc/hospital.pem")
    click(ui.connectButton)
    assert opened.commands == [("connect", "https://a.example:8000", "secret", "/etc/hospital.pem")]
    assert opened.settings.api_key("https://a.example:8000") == "secret"
    ui.untrustedCheckBox.setChecked(True)
    click(ui.connectButton)
    assert opened.commands == [("connect", "https://a.example:8000", "secret", False)]


def test_the_key_of_one_server_is_not_sent_to_another(bench) -> None:
    store: dict[str, str] = {}
    opened = OpenPanel(bench, disconnected(), store)
    opened.settings.remember("http://b:1")
    opened.settings.remember("http://a:1")
    opened.settings.keep_key("http://a:1", "key of a")
    opened.close()
    opened = OpenPanel(bench, disconnected(), store)
    assert opened.ui.serverComboBox.currentText == "http://a:1"
    assert opened.ui.keyEdit.text == "key of a" and opened.ui.rememberKeyCheckBox.checked
    opened.ui.serverComboBox.setCurrentIndex(1)
    opened.ui.serverComboBox.activated.emit(1)
    assert opened.ui.keyEdit.text == "" and not opened.ui.rememberKeyCheckBox.checked
    opened.close()


def test_the_certificate_of_a_server_is_remembered(bench, click) -> None:
    store: dict[str, str] = {}
    opened = OpenPanel(bench, disconnected(), store)
    opened.ui.serverComboBox.setEditText("a.example:8000")
    opened.ui.certificatePath.setCurrentPath("/etc/hospital.pem")
    click(opened.ui.connectButton)
    opened.settings.remember("http://a.example:8000")
    opened.close()
    opened = OpenPanel(bench, disconnected(), store)
    assert opened.ui.serverComboBox.currentText == "http://a.example:8000"
    assert opened.ui.certificatePath.currentPath == "/etc/hospital.pem"
    opened.close()


def test_what_is_kept_for_one_address_is_not_sent_to_one_that_was_typed(bench, click) -> None:
    opened = OpenPanel(bench, disconnected(), {})
    ui, settings = opened.ui, opened.settings
    settings.keep_key("http://a:1", "key of a")
    settings.keep_certificate("http://a:1", "/a.pem")
    settings.keep_key("http://b:1", "key of b")
    ui.serverComboBox.setEditText("http://a:1")
    click(ui.connectButton)
    ui.serverComboBox.setEditText("http://b:1")
    click(ui.connectButton)
    ui.serverComboBox.setEditText("http://c:1")
    click(ui.connectButton)
    ui.serverComboBox.setEditText("http://d:1")
    ui.keyEdit.setText("typed for d")
    click(ui.connectButton)
    assert opened.commands == [
        ("connect", "http://a:1", "key of a", "/a.pem"),
        ("connect", "http://b:1", "key of b", True),
        ("connect", "http://c:1", "", True),
        ("connect", "http://d:1", "typed for d", True),
    ]
    opened.close()


def test_a_key_or_trust_that_was_used_for_one_address_is_not_for_the_next(bench, click) -> None:
    opened = OpenPanel(bench, disconnected(), {})
    ui = opened.ui
    ui.serverComboBox.setEditText("https://a:1")
    ui.keyEdit.setText("secret of a")
    ui.untrustedCheckBox.setChecked(True)
    click(ui.connectButton)
    ui.serverComboBox.setEditText("https://b:1")
    click(ui.connectButton)
    assert opened.commands == [("connect", "https://a:1", "secret of a", False), ("connect", "https://b:1", "", True)]
    opened.close()


def test_trust_is_taken_away_with_the_address(bench, click) -> None:
    store: dict[str, str] = {}
    opened = OpenPanel(bench, disconnected(), store)
    opened.settings.remember("https://b:1")
    opened.settings.remember("https://a:1")
    opened.close()
    opened = OpenPanel(bench, disconnected(), store)
    opened.ui.untrustedCheckBox.setChecked(True)
    click(opened.ui.connectButton)
    opened.ui.serverComboBox.setCurrentIndex(1)
    opened.ui.serverComboBox.activated.emit(1)
    assert not opened.ui.untrustedCheckBox.checked
    opened.close()


def test_an_address_that_is_being_typed_stays_when_the_server_before_is_back(bench, click) -> None:
    opened = OpenPanel(bench, disconnected(), {})
    ui = opened.ui
    ui.serverComboBox.setEditText("http://a:1")
    click(ui.connectButton)
    opened.show(connection=ConnectionView("unreachable", "", "http://a:1"))
    ui.serverComboBox.setEditText("http://b:1")
    ui.keyEdit.setText("key of b")
    opened.show(connection=ConnectionView("ready", "", "http://a:1", True))
    assert ui.serverComboBox.currentText == "http://b:1" and ui.keyEdit.text == "key of b"
    opened.close()


def test_a_key_that_is_not_kept_stays_when_the_address_is_understood(bench, click) -> None:
    opened = OpenPanel(bench, disconnected(), {})
    opened.ui.serverComboBox.setEditText("a:1")
    opened.ui.keyEdit.setText("secret")
    click(opened.ui.connectButton)
    opened.show(connection=ConnectionView("ready", "", "http://a:1", True))
    assert opened.ui.serverComboBox.currentText == "http://a:1" and opened.ui.keyEdit.text == "secret"
    opened.show(connection=ConnectionView("disconnected", "", "http://a:1"))
    opened.show(connection=ConnectionView("ready", "", "http://127.0.0.1:5", True))  # a local server
    assert opened.ui.serverComboBox.currentText == "http://127.0.0.1:5" and opened.ui.keyEdit.text == ""
    opened.close()


def test_a_key_is_not_readable_on_the_screen(opened: OpenPanel) -> None:
    assert "*" not in opened.ui.keyEdit.text
    opened.ui.keyEdit.setText("secret")
    assert opened.ui.keyEdit.displayText != "secret"


def test_the_history_of_addresses_grows_when_a_server_is_ready(bench) -> None:
    opened = OpenPanel(bench, disconnected())
    opened.settings.remember(URL)
    opened.show(connection=ConnectionView("ready", "Connected.", URL))
    assert [opened.ui.serverComboBox.itemText(i) for i in range(opened.ui.serverComboBox.count)] == [URL]
    assert opened.ui.serverComboBox.currentText == URL
    opened.close()


def test_each_state_of_the_connection_looks_different(bench) -> None:
    opened = OpenPanel(bench, disconnected())
    words, styles, pictures = set(), set(), set()
    states = ("disconnected", "connecting", "ready", "busy", "unreachable", "untrusted", "not_allowed", "wrong_app")
    states += ("wrong_address", "failed")
    for state in states:
        opened.show(connection=ConnectionView(state, f"About {state}.", URL))
        words.add(opened.ui.statusWord.text)
        styles.add(opened.ui.statusWord.styleSheet)
        image = opened.ui.statusIcon.pixmap.toImage()
        pictures.add(bytes(image.constBits()))
        assert opened.ui.statusText.text == f"About {state}."
    assert len(words) == len(states) and len(pictures) == len(states) and len(styles) >= 6
    opened.show(connection=ConnectionView(), local=LocalView("starting"))
    assert opened.ui.statusWord.text == "Server starts"
    opened.close()


@pytest.mark.parametrize("state", ["not_allowed", "untrusted"])
def test_where_a_key_or_trust_is_missing_the_fields_for_it_open(bench, state: str) -> None:
    opened = OpenPanel(bench, disconnected())
    assert opened.ui.accessSection.collapsed
    opened.show(connection=ConnectionView(state, "Why.", URL))
    assert not opened.ui.accessSection.collapsed
    opened.close()


def test_model_and_strategy(opened: OpenPanel) -> None:
    ui = opened.ui
    assert ui.modelComboBox.currentText == "rep3d (v3)" and ui.modelComboBox.itemText(1) == "spleen (not trained)"
    assert "12 of 40 cases" in ui.choiceText.text and "unlike the labelled" in ui.choiceText.text
    ui.modelComboBox.activated.emit(1)
    ui.strategyComboBox.activated.emit(2)
    assert opened.commands == [("choose_model", "spleen"), ("choose_strategy", "random")]
    opened.show(strategy="first")  # drawing commands nothing
    assert opened.commands == [] and ui.strategyComboBox.currentText == "first"


def test_the_activity_shows_progress_and_can_be_cancelled(opened: OpenPanel, click) -> None:
    ui = opened.ui
    assert ui.progressBar.isHidden() and "Submit" in ui.activityText.text
    opened.show(activity=Activity("next_sample", "Downloading", 0.25, True))
    assert ui.activityText.text == "Downloading 25 %" and ui.progressBar.value == 250
    click(ui.cancelButton)
    assert opened.commands == [("cancel",)]
    opened.show(activity=Activity("next_sample", "Asking", None, False))
    assert (
        ui.progressBar.maximum == 0 and not ui.cancelButton.enabled and "cannot be cancelled" in ui.cancelButton.toolTip
    )
    opened.show(activity=None)
    assert ui.progressBar.isHidden() and ui.progressBar.maximum == 1000


def test_a_message_is_shown_and_copied_as_it_is(opened: OpenPanel, click, bench) -> None:
    text = "Cannot write '/a/very/long/path/that/does/not/end/anywhere/near/here.nii.gz'. Do this."
    opened.show(message=Message(ERROR, text, 1))
    assert opened.ui.messageFrame.isVisible()
    assert opened.ui.messageLabel.text.replace("\u200b", "") == text
    click(opened.ui.messageCopyButton)
    assert bench.app.clipboard().text() == text
    opened.show(message=Message("info", "", 2))
    assert opened.ui.messageFrame.isHidden()


def test_the_case_is_shown(opened: OpenPanel) -> None:
    ui = opened.ui
    assert ui.caseName.text == "hippocampus_017" and ui.caseState.text == "Edited, kept at 14:04"
    assert "Reserved for you until 14:35" in ui.caseText.text and "model v3" in ui.caseText.text
    opened.show(edited=False, sample=SampleView("a", "a", submitted="15:01"))
    assert ui.caseState.text == "Submitted at 15:01"
    opened.show(sample=None)
    assert ui.caseFrame.isHidden()


def test_drafts_are_offered_restored_and_discarded(opened: OpenPanel, click) -> None:
    ui = opened.ui
    assert ui.draftsFrame.isHidden()
    second = replace(DRAFT, key="d2", name="spleen_9")
    opened.show(drafts=(DRAFT,))
    assert "14:02" in ui.draftsLabel.text and "204" in ui.draftsLabel.text and ui.draftsComboBox.isHidden()
    click(ui.restoreDraftButton)
    opened.show(drafts=(DRAFT, second))
    ui.draftsComboBox.setCurrentIndex(1)
    click(ui.discardDraftButton)
    assert opened.commands == [("restore_draft", "d1"), ("discard_draft", "d2")]
    opened.show(drafts=(replace(DRAFT, key="d0"), DRAFT, second))
    assert ui.draftsComboBox.currentIndex == 2  # the one that was chosen, wherever it stands now


def test_labels_and_uncertainty(opened: OpenPanel, click) -> None:
    table = opened.ui.labelsTable
    assert [table.item(0, column).text() for column in range(3)] == ["Anterior", "1.61 ml", "0.97"]
    assert not table.item(1, 0).icon().isNull()
    click(opened.ui.showUncertaintyCheckBox)
    assert opened.commands == [("show_uncertainty", False)]
    assert opened.ui.uncertaintyText.text == "Mean uncertainty 0.031, place 2 of 5"
    opened.show(uncertainty=UncertaintyView())
    assert not opened.ui.showUncertaintyCheckBox.checked and opened.ui.uncertaintyText.isHidden()


def test_training_never_looks_done_before_it_is(opened: OpenPanel, click) -> None:
    ui = opened.ui
    state = TrainingView("running", "step 999 of 1000", 0.999, 30.0, 0.2, 0.9, {"a": 0.91, "b": 0.89})
    opened.show(training=state)
    assert ui.trainingBar.value < ui.trainingBar.maximum
    assert ui.trainingNumbers.text == "Loss 0.200, Dice 0.900, less than a minute left"
    assert "a 0.910, b 0.890" in ui.trainingDice.text and ui.trainingErrorFrame.isHidden()
    opened.show(training=TrainingView("error", "Ended with an error.", 0.5, error="Out of memory.", resumable=True))
    assert ui.trainingError.text == "Out of memory." and ui.trainingErrorFrame.isVisible()
    assert ui.trainButton.text == "Resume" and ui.trainingBar.value == 500
    assert ui.trainAnewButton.isVisible() and ui.trainAnewButton.enabled
    click(ui.trainAnewButton)
    assert opened.commands == [("train_anew",)]


def test_versions_publish_the_selected_one(opened: OpenPanel, click) -> None:
    ui, table = opened.ui, opened.ui.versionsTable
    assert table.item(0, 0).text() == "v3 (published)" and table.item(2, 1).text() == "–"
    assert not ui.publishButton.enabled and "Select a version" in ui.publishButton.toolTip
    table.selectRow(0)
    opened.show()
    assert not ui.publishButton.enabled and "published already" in ui.publishButton.toolTip
    table.selectRow(1)
    opened.show()
    opened.workflow.view = everything(opened.workflow.view)
    opened.panel.tick()
    assert "Better than v1" in ui.versionText.text
    click(ui.publishButton)
    assert opened.commands == [("publish", "v2")]


def test_the_batch(opened: OpenPanel) -> None:
    opened.show(batch=BatchView("running", 7, 28, 1, "Segmenting a"))
    assert opened.ui.batchBar.value == 250 and opened.ui.batchText.text == "Segmenting a, 7 of 28 cases, 1 failed"
    opened.show(batch=BatchView("done", 28, 28, 0, "Done"))
    assert opened.ui.batchBar.isHidden()


def test_uploads(opened: OpenPanel, click, slicer, tmp_path) -> None:
    ui = opened.ui
    assert not ui.uploadVolumeButton.enabled and "Choose a volume" in ui.uploadVolumeButton.toolTip
    node = slicer.mrmlScene.AddNewNodeByClass("vtkMRMLScalarVolumeNode", "mine")
    ui.uploadVolumeSelector.setCurrentNode(node)
    ui.dicomPath.setCurrentPath(str(tmp_path))
    opened.panel.tick()
    click(ui.uploadVolumeButton)
    click(ui.uploadDicomButton)
    assert opened.commands == [("upload_volume", node), ("upload_dicom", str(tmp_path))]


def test_the_local_server(opened: OpenPanel, click) -> None:
    ui = opened.ui
    ui.localPython.setCurrentPath("/env/bin/python")
    ui.localApp.setCurrentPath("/apps/rep3d_label")
    ui.localStudies.setCurrentPath("/images")
    ui.localLabelsEdit.setText("liver, tumor")
    click(ui.startLocalButton)
    assert opened.commands == [
        ("start_local_server", "/env/bin/python", "/apps/rep3d_label", "/images", "liver, tumor")
    ]
    assert opened.settings.local.studies == "/images"
    opened.show(local=LocalView("failed", "", "Port 8000 is taken.", ("line one", "line two")))
    assert ui.localWord.text == "Failed" and ui.localText.text == "Port 8000 is taken."
    assert ui.localLog.plainText == "line one\nline two"


def test_the_log_follows_its_end_unless_somebody_reads(opened: OpenPanel) -> None:
    bar = opened.ui.localLog.verticalScrollBar()
    opened.show(local=LocalView("starting", log=tuple(f"line {n}" for n in range(50))))
    opened.show(local=LocalView("starting", log=tuple(f"line {n}" for n in range(60))))
    assert bar.value == bar.maximum > 0
    bar.setValue(3)
    opened.show(local=LocalView("starting", log=tuple(f"line {n}" for n in range(70))))
    assert bar.value == 3


def test_options_are_handed_over_at_each_change_and_drawn(opened: OpenPanel, click) -> None:
    from tests.slicerbench.driver import type_text

    ui = opened.ui
    click(ui.autoRunCheckBox)
    click(ui.autoAdvanceCheckBox)
    click(ui.uncertaintyCheckBox)
    ui.viewsSpinBox.setValue(4)
    ui.intoComboBox.setCurrentIndex(1)
    ui.intoComboBox.activated.emit(1)
    ui.deviceComboBox.setCurrentIndex(2)
    ui.deviceComboBox.activated.emit(2)
    ui.accessSection.collapsed = False
    type_text(ui.userEdit, "A")
    final = Options(True, True, True, 4, "cpu", "new", "A")
    assert [name for name, _ in opened.commands] == ["set_options"] * 7 and opened.workflow.view.options == final
    opened.show(options=Options())
    assert not ui.autoRunCheckBox.checked and ui.viewsSpinBox.value == 1 and ui.intoComboBox.currentIndex == 0
    assert ui.deviceComboBox.currentText == "Server's choice (cuda:0)" and ui.userEdit.text == ""
    assert opened.commands == []


def test_a_disabled_button_says_why(bench) -> None:
    opened = OpenPanel(bench, disconnected())
    button = opened.ui.nextSampleButton
    assert not button.enabled and "Connect to a server first." in button.toolTip and "Fetch the case" in button.toolTip
    opened.show(**{name: getattr(ready(), name) for name in ("connection", "models", "model", "strategies")})
    assert button.enabled and "Not now" not in button.toolTip
    opened.close()


def test_every_command_has_a_widget(opened: OpenPanel) -> None:
    shown = {command for _, command, _, _ in opened.panel._buttons._buttons}
    assert shown == set(COMMANDS)


def test_only_what_differs_is_drawn(opened: OpenPanel, monkeypatch) -> None:
    drawn: list[str] = []
    for section in opened.panel._sections:
        name, draw = type(section).__name__, section.draw
        monkeypatch.setattr(section, "draw", lambda view, name=name, draw=draw: (drawn.append(name), draw(view)))
    opened.show(activity=Activity("next_sample", "Downloading", 0.1, True))
    opened.show(activity=Activity("next_sample", "Downloading", 0.2, True))
    assert drawn == ["ActivitySection"] * 2


def test_the_workflow_ticks_on_the_panels_timer(opened: OpenPanel, bench) -> None:
    from tests.slicerbench.driver import wait

    before = opened.workflow.ticks
    wait(lambda: opened.workflow.ticks >= before + 3, 5.0, "three ticks")


def test_an_exception_in_a_tick_does_not_keep_the_panel_from_drawing(opened: OpenPanel, monkeypatch) -> None:
    def broken() -> None:
        raise RuntimeError("a mistake")

    opened.workflow.show(replace(opened.workflow.view, message=Message(ERROR, "It broke.", 9)))
    with monkeypatch.context() as patch:
        patch.setattr(opened.workflow, "tick", broken)
        with pytest.raises(RuntimeError):
            opened.panel.tick()
    assert opened.ui.messageLabel.text == "It broke."


@pytest.mark.timed
def test_five_hundred_cases_do_not_hold_up_the_panel(opened: OpenPanel) -> None:
    import time

    many = cases(500)
    opened.workflow.view = replace(opened.workflow.view, cases=many)
    start = time.perf_counter()
    opened.panel.draw()
    first = time.perf_counter() - start
    table, computed, passed = opened.panel._tables[2], [], []
    for _ in range(100):
        start, cpu = time.perf_counter(), time.thread_time()
        ended = table.step()
        computed.append(time.thread_time() - cpu)
        passed.append(time.perf_counter() - start)
        if ended:
            break
    assert ended and opened.ui.casesTable.rowCount == 500 and opened.ui.casesTable.item(499, 0).text() == many[499].id
    # A step only computes. Once it may have been stopped by another program, so the longest one has a bound of its own.
    # (A quick machine fills the table in a single step.)
    assert first < 0.1 and max(computed) < 0.1 and max(sorted(passed)[:-1], default=0) < 0.1 and max(passed) < 1.0
    start = time.perf_counter()
    opened.panel.draw()
    assert time.perf_counter() - start < 0.02


def test_resources_are_where_the_panel_looks(bench) -> None:
    opened = OpenPanel(bench)
    for picture in (*opened.panel._icons._known,):
        assert (MODULE / "Resources" / "Icons" / f"{picture}.png").is_file()
        assert not opened.panel._icons.icon(picture).isNull()
    opened.close()
