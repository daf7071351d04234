"""Training: start, go on with one that was stopped, watch, stop."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from ..client.answers_train import TrainStatus
from ..i18n import tr
from ..view import ERROR, INFO, WARNING, Question, TrainingView
from ..worker.jobs import JobError
from .context import Context
from .presenting import training_view

__all__ = ["Training"]


class Training:
    """Training of the chosen model."""

    def __init__(self, context: Context) -> None:
        self._context = context
        self._last = ""  # state of the latest answer

    def train(self, settings: Mapping[str, object]) -> None:
        """Start a training; one that can be resumed goes on."""
        if not self._context.refused("train"):
            self._start({**settings, "resume": True} if self._context.view.training.resumable else dict(settings))

    def train_anew(self) -> None:
        """Start a new training instead of going on with one that can be resumed, after a question."""
        if self._context.refused("train_anew"):
            return
        question = Question(
            "train_anew",
            tr("Train anew"),
            tr("The training that was stopped or interrupted can be resumed. A new one gives it up for good."),
            (("anew", tr("Give it up and train anew")), ("keep", tr("Go back"))),
            "keep",
        )

        def answer(choice: str) -> None:
            if choice == "anew" and not self._context.refused("train_anew"):
                self._start({"resume": False})

        self._context.screen.ask(question, answer)

    def _start(self, settings: dict[str, Any]) -> None:
        context, before = self._context, self._context.view.training
        if context.view.options.device:
            settings.setdefault("device", context.view.options.device)
        # At once, so that a second click meets a training that runs.
        context.update(training=TrainingView(state="submitted", headline=tr("Starting")))
        self._last = "submitted"

        def done(status: TrainStatus) -> None:
            text = tr("The training goes on where it was.") if settings.get("resume") else tr("The training has begun.")
            context.say(INFO, text + " " + tr("You can go on segmenting meanwhile."))
            context.news = True

        def failed(error: JobError) -> None:
            self._last = ""
            headline, resumable = tr("Not started."), before.resumable
            context.update(training=TrainingView("error", headline, error=error.message, resumable=resumable))
            context.note_connection(error)
            context.say(ERROR, error.message)
            context.news = True

        context.call("train_start", {"model": context.view.model, "settings": settings}, done, failed)

    def stop(self) -> None:
        """Stop the training."""
        context = self._context
        if not context.refused("stop_training"):
            context.update(training=replace(context.view.training, headline=tr("Stopping")))
            context.once("train_stop", {})

    def forget(self) -> None:
        """Another server or model."""
        self._last = ""

    def show(self, status: TrainStatus, version: str, before: str) -> tuple[str, str] | None:
        """Show how it goes.

        Args:
            status: As the server says.
            version: The version in use now, "" if there is none.
            before: The version that was in use before.

        Returns:
            Level and words if it has ended, None if not.
        """
        context, training = self._context, training_view(status)
        ended = self._last in ("submitted", "running") and not training.is_active
        self._last = training.state
        context.update(training=training)
        if training.losses and (ended or training.is_active):
            context.scene.show_curves(training.losses, training.validations)
        return _end(training, version, before) if ended else None


def _end(training: TrainingView, version: str, before: str) -> tuple[str, str]:
    """Return level and words about a training that has ended."""
    if training.state == "error":
        return ERROR, tr("The training failed: {why}").format(why=training.error)
    if training.state == "idle":  # the server has been started again, and knows of none
        why = training.error or tr("The server was restarted while it trained.")
        todo = tr("Press Resume to go on.") if training.resumable else tr("Press Train to train again.")
        return WARNING, tr("The training was interrupted: {why}").format(why=why) + " " + todo
    if training.state == "done":
        used = tr("It is in use now.") if version != before else tr("The version in use stays {version}.")
        return INFO, training.headline + " " + used.format(version=version or tr("none"))
    return INFO, training.headline
