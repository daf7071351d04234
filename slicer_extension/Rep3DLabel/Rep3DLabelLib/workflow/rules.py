"""When a command can be used, and if not, why: one function from what is shown to what may be done.

A disabled button that says why is half a manual. The panel shows the reason as the tooltip, and the workflow refuses a
command for the same reason, so that a second click, a shortcut or another front end cannot do what a button cannot.
"""

from __future__ import annotations

from ..i18n import tr
from ..view import COMMANDS, CONNECTING, View

__all__ = ["enabled"]

# What runs in the foreground, one at a time: each changes the case that is worked on.
_FOREGROUND = frozenset(
    (
        "next_sample",
        "auto_segment",
        "submit",
        "open_case",
        "restore_label",
        "upload_volume",
        "upload_dicom",
        "restore_draft",
        "discard_draft",
    )
)
_OFFLINE = frozenset(
    (
        "connect",
        "cancel",
        "discard_draft",
        "start_local_server",
        "stop_local_server",
        "show_curves",
        "show_uncertainty",
        "jump_to_uncertain",
    )
)


def enabled(view: View) -> dict[str, str]:
    """Return for each command "" if it can be used now, else the reason, in words."""
    return {command: _reason(command, view) for command in COMMANDS}


def _reason(command: str, view: View) -> str:
    if command == "connect":
        return tr("Connecting already.") if view.connection.state == CONNECTING else ""
    if command not in _OFFLINE and not view.connection.usable:
        return tr("Connect to a server first.")
    if command in _FOREGROUND and view.activity is not None:
        return tr("Wait until this has ended, or cancel it: {what}").format(what=view.activity.text)
    check = _CHECKS.get(command)
    return check(view) if check else ""


def _model_problem(view: View) -> str:
    model = next((known for known in view.models if known.name == view.model), None)
    if model is None:
        return tr("Choose a model.")
    if model.error:
        return tr("The model cannot be used: {why}").format(why=model.error)
    if not model.version:
        return tr("There is no trained model yet. Segment and submit a few cases by hand, then press Train.")
    return ""


def _auto_segment(view: View) -> str:
    return tr("Fetch a sample first.") if view.sample is None else _model_problem(view)


def _submit(view: View) -> str:
    return tr("Fetch a sample first.") if view.sample is None else ""


def _cancel(view: View) -> str:
    if view.activity is None:
        return tr("Nothing runs that could be cancelled.")
    return "" if view.activity.cancellable else tr("This cannot be cancelled; it ends soon.")


def _train(view: View) -> str:
    if view.training.is_active:
        return tr("A training runs already.")
    model = next((known for known in view.models if known.name == view.model), None)
    if model is None or not model.trainable:
        return tr("This model cannot be trained.")
    return "" if view.completed else tr("Submit at least one label first: there is nothing to learn from.")


def _train_anew(view: View) -> str:
    return _train(view) or ("" if view.training.resumable else tr("There is no training to be resumed: press Train."))


def _stop_training(view: View) -> str:
    return "" if view.training.is_active else tr("No training runs.")


def _start_batch(view: View) -> str:
    return tr("A batch segmentation runs already.") if view.batch.is_active else _model_problem(view)


def _stop_batch(view: View) -> str:
    return "" if view.batch.is_active else tr("No batch segmentation runs.")


def _publish(view: View) -> str:
    return "" if view.versions else tr("There is no version yet.")


def _roll_back(view: View) -> str:
    return "" if len(view.versions) > 1 else tr("There is no earlier version.")


def _uncertainty(view: View) -> str:
    if view.uncertainty.available:
        return ""
    return tr("There is no uncertainty map: switch it on in the options and segment again.")


def _jump(view: View) -> str:
    return _uncertainty(view) or ("" if view.uncertainty.places else tr("The model is certain everywhere."))


def _curves(view: View) -> str:
    return "" if view.training.losses else tr("There are no points yet: start a training.")


def _start_local(view: View) -> str:
    return "" if view.local.state in ("stopped", "failed") else tr("A local server runs already.")


def _stop_local(view: View) -> str:
    return "" if view.local.state in ("starting", "running") else tr("No local server runs.")


_CHECKS = {
    "auto_segment": _auto_segment,
    "submit": _submit,
    "cancel": _cancel,
    "train": _train,
    "train_anew": _train_anew,
    "stop_training": _stop_training,
    "start_batch": _start_batch,
    "stop_batch": _stop_batch,
    "publish": _publish,
    "roll_back": _roll_back,
    "show_uncertainty": _uncertainty,
    "jump_to_uncertain": _jump,
    "show_curves": _curves,
    "start_local_server": _start_local,
    "stop_local_server": _stop_local,
}
