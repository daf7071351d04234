"""A clinician whose server fails: what must be so after each fault, whatever it was."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from Rep3DLabelLib.drafts import Draft, Drafts
from Rep3DLabelLib.images.segnrrd import SegmentationData

from tests.extension.clinician import Clinician
from tests.slicerbench import driver

__all__ = ["TroubledClinician"]

BUTTONS = {
    "connect": "connectButton",
    "next_sample": "nextSampleButton",
    "auto_segment": "autoSegmentButton",
    "submit": "submitButton",
    "train": "trainButton",
    "stop_training": "stopTrainingButton",
    "start_batch": "startBatchButton",
    "stop_batch": "stopBatchButton",
    "roll_back": "rollBackButton",
    "refresh_cases": "refreshCasesButton",
    "cancel": "cancelButton",
}


class TroubledClinician(Clinician):
    """A clinician at a server that fails."""

    def wait(self, until: Callable[[], object], seconds: float = 15.0) -> object:
        """Let the module go on until something holds."""
        return super().wait(until, seconds)

    @property
    def drafts(self) -> Drafts:
        """What is kept on disk."""
        return Drafts(Path(self.opened.python._kept_folder()) / "drafts")

    @property
    def worker(self) -> Any:
        return self.flow._context.worker

    def begin(self, url: str) -> np.ndarray:
        """Connect, fetch a sample and draw in it; return what was drawn (K, J, I)."""
        self.connect(url)
        self.next_sample()
        return self.paint()

    def paint(self, start: int = 2) -> np.ndarray:
        """Draw a block of "head"."""
        mine = np.zeros(self.slicer.util.arrayFromVolume(self.volume).shape, bool)
        mine[start : start + 3, 3:6, 4:9] = True
        self.draw("head", mine)
        return mine

    def click(self, button: str) -> None:
        """Click a button."""
        self._seen = self.view.message.number
        super().click(button)

    def fails(self, button: str, *words: str, state: str = "ready", level: str = "error") -> None:
        """Click a button, and be told that it did not work and what to do."""
        self.click(button)
        self.told(*words, state=state, level=level)

    def told(self, *words: str, state: str = "ready", level: str | None = "error") -> None:
        """Wait for the end of what was clicked last; then the message line has these words, and nothing is stuck."""

        def said() -> bool:
            message = self.view.message
            shown = self.message.replace("\u200b", "")
            return bool(
                self.idle()
                and message.number > self._seen
                and message.level in (level or message.level,)
                and shown == message.text != ""
            )

        self.wait(said, 20)
        text = self.message.replace("\u200b", "")
        assert all(word in text for word in words), text
        self.wait(lambda: self.view.connection.state == state, 5)
        self.usable()

    def usable(self) -> None:
        """Nothing is stuck: each button is drawn as the rules say, and the rules let the user go on."""
        view = self.view
        assert view.activity is None
        driver.wait(
            lambda: all(getattr(self.ui, name).enabled is (not view.enabled[what]) for what, name in BUTTONS.items()), 2
        )
        assert self.ui.connectButton.enabled
        if view.connection.state == "ready":
            assert not view.enabled["next_sample"]
            if view.sample is not None:
                assert not view.enabled["submit"] and not view.enabled["auto_segment"], view.enabled

    def reconnect(self) -> None:
        """Connect to a server that is back."""
        self.click("connectButton")
        self.wait(lambda: self.view.connection.state == "ready", 20)

    def unharmed(self, mine: np.ndarray, image_id: str = "case_0") -> None:
        """Assert that what was drawn is in the scene and, as unsent work, on disk."""
        assert np.array_equal(self.voxels("head").astype(bool), mine)
        self.on_disk(mine, image_id)

    def on_disk(self, mine: np.ndarray, image_id: str = "case_0") -> None:
        """Assert that what was drawn is on disk as unsent work."""
        shape = mine.shape
        driver.wait(lambda: any(np.array_equal(self._drawn(draft, shape), mine) for draft in self._of(image_id)), 5)

    def _of(self, image_id: str) -> list[Draft]:
        return [draft for draft in self.drafts.list() if draft.image_id == image_id]

    def _drawn(self, draft: Draft, shape: tuple[int, ...]) -> np.ndarray:
        data: SegmentationData = self.drafts.read(draft.key)[1]
        voxels = np.zeros(shape, bool)
        head = next(segment for segment in data.segments if segment.name == "head")
        if data.layers:
            i0, i1, j0, j1, k0, k1 = data.extent
            voxels[k0 : k1 + 1, j0 : j1 + 1, i0 : i1 + 1] = data.layers[head.layer] == head.value
        return voxels

    def answer(self, choice: str) -> None:
        """Answer the question that is shown by a click."""
        from tests.slicerbench.dialogs import open_dialogs

        box = driver.wait(lambda: next(iter(open_dialogs()), None), 5)
        driver.click(next(button for button in box.buttons() if button.text.replace("&", "") == choice))
