"""What a user interface shows: plain values, made by the workflow, drawn by a panel.

A panel reads these and calls the workflow's commands; it keeps no state of its own. No Qt and no Slicer here, so that
the browser front end shows the same.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from .connection import BUSY, READY

__all__ = [
    "COMMANDS",
    "CONNECTING",
    "DISCONNECTED",
    "ERROR",
    "INFO",
    "WARNING",
    "Activity",
    "BatchView",
    "CaseRow",
    "ConnectionView",
    "DraftRow",
    "HistoryRow",
    "LabelRow",
    "LocalView",
    "Message",
    "ModelView",
    "Options",
    "Question",
    "SampleView",
    "TrainingView",
    "UncertaintyView",
    "VersionRow",
    "View",
]

# States of a connection beside those of `connection`.
DISCONNECTED, CONNECTING = "disconnected", "connecting"
# Levels of a message.
INFO, WARNING, ERROR = "info", "warning", "error"

COMMANDS = (
    "connect",
    "next_sample",
    "auto_segment",
    "cancel",
    "submit",
    "train",
    "train_anew",
    "stop_training",
    "publish",
    "roll_back",
    "start_batch",
    "stop_batch",
    "refresh_cases",
    "open_case",
    "restore_label",
    "review",
    "upload_volume",
    "upload_dicom",
    "show_uncertainty",
    "jump_to_uncertain",
    "show_curves",
    "restore_draft",
    "discard_draft",
    "start_local_server",
    "stop_local_server",
)


@dataclass(frozen=True)
class Message:
    """One line for the user: level INFO, WARNING or ERROR, and the text. `number` grows with each new message."""

    level: str
    text: str
    number: int = 0


@dataclass(frozen=True)
class ConnectionView:
    """State of the connection.

    Attributes:
        state: A word of `connection`, DISCONNECTED or CONNECTING.
        message: What to tell.
        url: The address.
        confirmed: Whether the server at this address, and no other, has described itself before.
    """

    state: str = DISCONNECTED
    message: str = ""
    url: str = ""
    confirmed: bool = False

    @property
    def usable(self) -> bool:
        """Whether something can be asked of the server: a busy one only if it is known which one it is."""
        return self.state == READY or (self.state == BUSY and self.confirmed)


@dataclass(frozen=True)
class ModelView:
    """A model of the server: its name, description, published version ("" if none), why it cannot be used ("")."""

    name: str
    description: str = ""
    version: str = ""
    error: str = ""
    trainable: bool = True


@dataclass(frozen=True)
class Activity:
    """What runs in the foreground.

    Attributes:
        name: The command that started it.
        text: What it does now, for the user.
        progress: 0 to 1, None where nobody knows.
        cancellable: Whether `cancel` ends it.
    """

    name: str
    text: str
    progress: float | None = None
    cancellable: bool = False


@dataclass(frozen=True)
class SampleView:
    """The case that is being worked on.

    Attributes:
        id: The server's id of the image.
        name: To show.
        reason: Why the server chose it, "" if the user did.
        leased_until: Local time until which nobody else gets it ("14:35"), "" if not known.
        source: What its segmentation is at present: "empty", "model v3", "final label", "draft of 14:02".
        submitted: Local time of the last submission in this session, "" if none.
    """

    id: str
    name: str
    reason: str = ""
    leased_until: str = ""
    source: str = ""
    submitted: str = ""


@dataclass(frozen=True)
class LabelRow:
    """A row of the table of volumes; `voxels` is None until measured, `ml` in millilitres."""

    name: str
    value: int
    colour: tuple[int, int, int] = (127, 127, 127)
    voxels: int | None = None
    ml: float | None = None
    confidence: float | None = None


@dataclass(frozen=True)
class TrainingView:
    """The latest training of the chosen model.

    Attributes:
        state: A state of `answers` ("idle", "running", ...).
        headline: One line: what it does, or how it ended and what was decided.
        progress: 0 to 1; 1 only when it is done.
        eta_seconds: Seconds left, None while not known.
        loss: Latest training loss.
        dice: Latest mean Dice on the validation cases, None where nothing was measured.
        dice_labels: The same per label.
        losses, validations: (iteration, value) points.
        error: What went wrong last, in words, "" if nothing.
        resumable: Whether a training that was stopped can go on.
        log: Its last lines.
        left_out: Annotated cases that it does not use, each with the reason.
        notes: What the server says of its resolution and of what its minutes allow.
    """

    state: str = "idle"
    headline: str = ""
    progress: float = 0.0
    eta_seconds: float | None = None
    loss: float | None = None
    dice: float | None = None
    dice_labels: Mapping[str, float] = field(default_factory=dict)
    losses: tuple[tuple[float, float], ...] = ()
    validations: tuple[tuple[float, float], ...] = ()
    error: str = ""
    resumable: bool = False
    log: tuple[str, ...] = ()
    left_out: tuple[str, ...] = ()
    notes: tuple[str, ...] = ()

    @property
    def is_active(self) -> bool:
        """Whether it is waiting for its turn or running."""
        return self.state in ("submitted", "running")


@dataclass(frozen=True)
class VersionRow:
    """A version of the model; `dice` is its mean on the frozen validation cases, None where nothing was measured."""

    version: str
    created: str = ""
    dice: float | None = None
    cases: int = 0
    published: bool = False
    decision: str = ""
    available: bool = True  # its weights are still there
    origin: str = ""


@dataclass(frozen=True)
class CaseRow:
    """A case of the server, as the case browser lists it."""

    id: str
    state: str
    author: str = ""
    time: str = ""
    score: float | None = None
    dice: float | None = None
    lease: str = ""
    role: str = ""
    labels: str = ""  # "Anterior 1.61 ml, Posterior 1.55 ml"
    has_label: bool = False
    error: str = ""  # why nobody can use its image
    label_error: str = ""  # why its label is of no use


@dataclass(frozen=True)
class HistoryRow:
    """A label of a case: by which it is restored ("" for the current one), a line about it, whether it can be."""

    entry: str
    text: str
    restorable: bool


@dataclass(frozen=True)
class BatchView:
    """The latest batch segmentation: phase ("", "running", "stopping", "stopped", "done", "error"), counts, words."""

    phase: str = ""
    done: int = 0
    total: int = 0
    failed: int = 0
    text: str = ""

    @property
    def is_active(self) -> bool:
        """Whether it runs."""
        return self.phase in ("running", "stopping")


@dataclass(frozen=True)
class UncertaintyView:
    """The uncertainty of the latest segmentation: is there one, is it shown, and how many places can be visited."""

    available: bool = False
    visible: bool = False
    places: int = 0
    place: int = 0  # 1 for the first that was visited, 0 before
    mean: float | None = None


@dataclass(frozen=True)
class DraftRow:
    """Unsent work that is kept on disk."""

    key: str
    image_id: str
    name: str
    time: str
    server: str
    note: str = ""


@dataclass(frozen=True)
class LocalView:
    """The server that was started here: a state of `local_server`, its address, last lines, what to tell."""

    state: str = "stopped"
    url: str = ""
    message: str = ""
    log: tuple[str, ...] = ()


@dataclass(frozen=True)
class Options:
    """What the user can set; kept from session to session.

    Attributes:
        auto_run: Segment a new sample at once.
        auto_advance: Fetch the next sample after a submission.
        uncertainty: Ask for the uncertainty map with each segmentation.
        views: Test-time views to average, 1 (none) to 8.
        device: Device that the server trains on, "" for its own choice.
        into: Where a segmentation goes: "undo" (into the present one, behind an undo point) or "new".
        user: Name under which samples are reserved and labels are kept, "" for the login name.
    """

    auto_run: bool = False
    auto_advance: bool = False
    uncertainty: bool = False
    views: int = 1
    device: str = ""
    into: str = "undo"
    user: str = ""


@dataclass(frozen=True)
class Question:
    """Something only the user can decide.

    Attributes:
        key: What it is about, for tests and "do not ask again".
        title: Of the dialog.
        text: The question.
        choices: (key, text of the button), the safest last.
        default: Key of the choice that does no harm; taken when the dialog is closed.
    """

    key: str
    title: str
    text: str
    choices: tuple[tuple[str, str], ...]
    default: str


@dataclass(frozen=True)
class View:
    """All of it.

    Attributes:
        enabled: Command -> "" if it can be used now, else why not, in words (for a tooltip).
        edited: Whether the segmentation was changed since it was submitted or came from the server.
        draft_time: Local time at which the edits were last kept on disk, "" if not yet.
        default_model: The model that the server uses where none is named.
        devices: What the user may choose as device, the first being the server's own choice.
        left_out: What the server does not use, or has lost, each with the reason.
    """

    connection: ConnectionView = ConnectionView()
    message: Message = Message(INFO, "")
    activity: Activity | None = None
    models: tuple[ModelView, ...] = ()
    model: str = ""
    strategies: tuple[tuple[str, str], ...] = ()  # (name, description)
    strategy: str = ""
    sample: SampleView | None = None
    edited: bool = False
    draft_time: str = ""
    labels: tuple[LabelRow, ...] = ()
    training: TrainingView = TrainingView()
    versions: tuple[VersionRow, ...] = ()
    cases: tuple[CaseRow, ...] = ()
    left_out: tuple[str, ...] = ()
    total: int = 0
    completed: int = 0
    batch: BatchView = BatchView()
    uncertainty: UncertaintyView = UncertaintyView()
    drafts: tuple[DraftRow, ...] = ()
    local: LocalView = LocalView()
    options: Options = Options()
    device: str = ""
    devices: tuple[str, ...] = ("",)
    enabled: Mapping[str, str] = field(default_factory=dict)
