"""The panel with a workflow that only notes what it is told, and views of it in every state."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from inspect import signature
from pathlib import Path
from typing import Any

from Rep3DLabelLib.settings import Settings
from Rep3DLabelLib.view import (
    COMMANDS,
    ERROR,
    INFO,
    WARNING,
    Activity,
    BatchView,
    CaseRow,
    ConnectionView,
    DraftRow,
    LabelRow,
    LocalView,
    Message,
    ModelView,
    Options,
    SampleView,
    TrainingView,
    UncertaintyView,
    VersionRow,
    View,
)
from Rep3DLabelLib.workflow.machine import Workflow
from Rep3DLabelLib.workflow.rules import enabled

MODULE = Path(__file__).resolve().parents[2] / "slicer_extension" / "Rep3DLabel"
URL = "http://segment.hospital.example:8000"
COMMAND_METHODS = (
    *(name for name in COMMANDS),
    "disconnect",
    "choose_model",
    "choose_strategy",
    "set_options",
    "history",
)


class NotingWorkflow:
    """Has the view that a test gives it and keeps the commands: `commands` holds (name, arguments)."""

    def __init__(self, view: View) -> None:
        self.view = view
        self.commands: list[tuple[Any, ...]] = []
        self.ticks = 0
        self._observers: list[Callable[[], None]] = []

    def __getattr__(self, name: str):
        if name not in COMMAND_METHODS:
            raise AttributeError(name)
        if (
            len(signature(getattr(Workflow, name)).parameters) == 1
        ):  # self: PythonQt passes such a method no click's bool
            return lambda: self.commands.append((name,))
        return lambda *values: self.commands.append((name, *values))

    def set_options(self, options: Options) -> None:
        """As the real one."""
        self.commands.append(("set_options", options))
        self.show(replace(self.view, options=options))

    def observe(self, callback: Callable[[], None]) -> None:
        """As the real one."""
        self._observers.append(callback)

    def tick(self) -> None:
        """As the real one."""
        self.ticks += 1

    def show(self, view: View) -> None:
        """Change the view."""
        self.view = view
        for callback in self._observers:
            callback()


class OpenPanel:
    """A panel in a window of its own.

    Attributes:
        root, ui: The widgets.
        panel: The panel.
        workflow: The workflow that notes.
        settings: What is remembered, in a dictionary.
    """

    def __init__(self, bench, view: View | None = None, store: dict[str, str] | None = None, width: int = 380) -> None:
        from Rep3DLabelLib.panel import Panel

        slicer = bench.slicer
        self.bench = bench
        self.root = slicer.util.loadUI(str(MODULE / "Resources" / "UI" / "Rep3DLabel.ui"))
        self.root.setMRMLScene(slicer.mrmlScene)
        self.ui = slicer.util.childWidgetVariables(self.root)
        self.settings = Settings({} if store is None else store)
        self.panel = Panel(self.root, self.ui, self.settings, MODULE / "Resources" / "Icons", self.root)
        self.workflow = NotingWorkflow(view or ready())
        self.panel.use(self.workflow)
        self.panel.enter()
        self.root.resize(width, 1200)
        self.root.show()
        bench.app.processEvents()

    @property
    def commands(self) -> list[tuple[Any, ...]]:
        """What was commanded since the last time, leaving out what is said at the start."""
        found, self.workflow.commands = self.workflow.commands, []
        return found

    def show(self, **changes: Any) -> None:
        """Change the view and draw it, with the rules for the buttons applied unless they are given."""
        view = replace(self.workflow.view, **changes)
        if "enabled" not in changes:
            view = with_rules(view)
        self.workflow.show(view)
        self.panel.tick()
        self.bench.app.processEvents()

    def close(self) -> None:
        """Take it away."""
        self.panel.exit()
        self.panel.close()
        self.root.hide()
        self.root.deleteLater()
        self.bench.app.processEvents()


def with_rules(view: View) -> View:
    """Return a view with the reasons why commands cannot be used."""
    return replace(view, enabled=enabled(view))


def everything(view: View) -> View:
    """Return a view in which every command can be used."""
    return replace(view, enabled=dict.fromkeys(COMMANDS, ""))


MODELS = (
    ModelView("rep3d", "Hippocampus on MR, 21 x 21 x 21 kernels", "v3"),
    ModelView("spleen", "Spleen on CT", ""),
)
STRATEGIES = (
    ("hybrid", "What the model is unsure of, and what is unlike the labelled cases"),
    ("first", "In the order of their names"),
    ("random", "Any unlabelled case"),
)
LABELS = (
    LabelRow("Anterior", 1, (220, 60, 60), 1613, 1.613, 0.97),
    LabelRow("Posterior", 2, (70, 110, 220), 1548, 1.548, 0.94),
)
DRAFT = DraftRow("d1", "hippocampus_204", "hippocampus_204", "14:02", URL)


def disconnected() -> View:
    """Before the first connection."""
    return with_rules(View())


def ready() -> View:
    """Return a view: connected, no case yet."""
    return with_rules(
        View(
            connection=ConnectionView("ready", "Connected to Rep3D Label: 40 images, model version v3.", URL),
            models=MODELS,
            model="rep3d",
            strategies=STRATEGIES,
            strategy="hybrid",
            total=40,
            completed=12,
            device="cuda:0",
            devices=("", "cuda:0", "cpu"),
            versions=VERSIONS,
            cases=cases(40),
        )
    )


VERSIONS = (
    VersionRow("v3", "14:31", 0.871, 12, True, "Better than v2 by 0.021 on 4 fixed cases.", True, "trained"),
    VersionRow("v2", "2026-03-02 17:05", 0.850, 8, False, "Better than v1 by 0.112.", True, "trained"),
    VersionRow("v1", "2026-03-01 09:12", None, 4, False, "First version.", True, "trained"),
)


def cases(count: int) -> tuple[CaseRow, ...]:
    """Return cases in all states."""
    states = ("submitted", "predicted", "new", "leased", "reviewed")
    return tuple(
        CaseRow(
            f"hippocampus_{index:03d}",
            states[index % 5],
            "anna" if index % 5 in (0, 4) else "",
            f"2026-03-{1 + index % 28:02d} 10:{index % 60:02d}",
            None,
            0.8 + index % 17 / 100 if index % 5 in (0, 4) else None,
            "bela until 15:10" if index % 5 == 3 else "",
            "training" if index % 5 == 0 else "",
            "Anterior 1.61 ml, Posterior 1.55 ml" if index % 5 in (0, 4) else "",
            index % 5 in (0, 4),
        )
        for index in range(count)
    )


def with_sample(**changes: Any) -> View:
    """Return a case in hand, segmented and edited."""
    view = replace(
        ready(),
        sample=SampleView(
            "hippocampus_017",
            "hippocampus_017",
            "highest uncertainty (0.142) among the 28 unlabelled cases",
            "14:35",
            "model v3",
        ),
        edited=True,
        draft_time="14:04",
        labels=LABELS,
        uncertainty=UncertaintyView(True, True, 5, 2, 0.031),
    )
    return with_rules(replace(view, **changes))


def training() -> View:
    """Return a view in which a training runs."""
    points = tuple((float(step), 1.0 / (1 + step / 40)) for step in range(0, 400, 20))
    return with_rules(
        replace(
            with_sample(),
            training=TrainingView(
                "running",
                "training, step 420 of 1000, cuda:0",
                0.42,
                431.0,
                0.213,
                0.864,
                {"Anterior": 0.871, "Posterior": 0.857},
                points,
                ((100.0, 0.7), (200.0, 0.8), (400.0, 0.864)),
            ),
        )
    )


LONG_PATH = "/home/klinik/studien/hippocampus_und_amygdala_projekt_2026/bilder/hippocampus_017_nachkontrolle.nii.gz"
STATES: dict[str, tuple[Callable[[], View], tuple[str, ...]]] = {  # name -> view, sections to open
    "disconnected": (disconnected, ()),
    "ready": (ready, ()),
    "sample": (lambda: with_sample(edited=False, draft_time=""), ()),
    "segmenting": (
        lambda: with_sample(activity=Activity("auto_segment", "The model segments hippocampus_017", 0.4, True)),
        (),
    ),
    "waiting": (lambda: with_sample(activity=Activity("auto_segment", "Waiting for the server", None, True)), ()),
    "edited": (with_sample, ()),
    "submitted": (
        lambda: with_sample(
            edited=False, draft_time="", message=Message(INFO, "The server has the label of hippocampus_017.", 3)
        ),
        (),
    ),
    "warning": (lambda: with_sample(message=Message(WARNING, "Wait until this has ended.", 4)), ()),
    "error": (
        lambda: with_sample(
            message=Message(ERROR, f"Cannot write '{LONG_PATH}': no space left. Free some space, then Submit again.", 5)
        ),
        (),
    ),
    "drafts": (lambda: replace(ready(), drafts=(DRAFT,)), ()),
    "drafts_several": (
        lambda: replace(ready(), drafts=(DRAFT, DraftRow("d2", "spleen_9", "spleen_9", "2026-03-01 18:40", URL))),
        (),
    ),
    "training": (training, ("trainingSection",)),
    "training_failed": (
        lambda: with_sample(
            training=TrainingView(
                "error",
                "Ended with an error.",
                0.31,
                error="The GPU is out of memory. Choose another device in the options, or a smaller preset.",
                resumable=True,
            )
        ),
        ("trainingSection",),
    ),
    "versions": (ready, ("versionsSection",)),
    "cases": (ready, ("casesSection",)),
    "batch": (
        lambda: replace(ready(), batch=BatchView("running", 7, 28, 1, "Segmenting hippocampus_031")),
        ("batchSection",),
    ),
    "options": (ready, ("optionsSection",)),
    "sign_in": (
        lambda: with_rules(
            replace(disconnected(), connection=ConnectionView("not_allowed", "The server asks for an API key.", URL))
        ),
        ("accessSection",),
    ),
    "local_starting": (
        lambda: with_rules(
            View(
                local=LocalView(
                    "starting",
                    "",
                    "The server is starting; the first time takes a minute.",
                    tuple(f"INFO line {number}: loading the app from the folder" for number in range(30)),
                )
            )
        ),
        ("localSection",),
    ),
    **{
        f"connection_{state}": (
            lambda state=state, text=text: with_rules(View(connection=ConnectionView(state, text, URL))),  # type: ignore[misc]
            (),
        )
        for state, text in (
            ("connecting", ""),
            ("busy", "The server is there but does not answer now; it may be segmenting."),
            ("unreachable", f"Nothing answers at {URL}. Is the server running, and is the address right?"),
            ("untrusted", "The server cannot prove who it is. Give its certificate, or allow it."),
            ("wrong_app", "Another program answers at this address. Expected Rep3D Label, got 'DeepEdit'."),
            ("wrong_address", "This cannot be the address of a server: the port is missing."),
            ("failed", "The server answered with an error (500). Its log says more."),
        )
    },
}
