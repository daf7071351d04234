"""The panel in the application that runs this, Slicer or the bench: it says what is missing, and stays usable."""

from __future__ import annotations

import socket
import time
import unittest

import slicer


def free_port() -> int:
    """Return a port on which nobody listens."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Rep3DLabelPanelCase(unittest.TestCase):
    """Without a server."""

    def setUp(self):
        """Use the open module; Slicer opens it where it is not."""
        if not hasattr(slicer.modules, "Rep3DLabelWidget"):
            slicer.util.selectModule("Rep3DLabel")
        self.widget = slicer.modules.Rep3DLabelWidget
        self.ui = self.widget.ui

    def wait(self, until, what, seconds=30.0):
        """Let the application run until something is so."""
        end = time.monotonic() + seconds
        while not until():
            self.assertLess(time.monotonic(), end, f"waited {seconds} s for {what}")
            slicer.app.processEvents()
            time.sleep(0.01)

    def test_buttons_say_why_not(self):
        """Nothing can be fetched or sent before there is a server, and each button says so."""
        self.widget.workflow.disconnect()
        self.widget.panel.tick()
        for name in ("nextSampleButton", "autoSegmentButton", "submitButton", "trainButton"):
            button = getattr(self.ui, name)
            self.assertFalse(button.enabled, name)
            self.assertGreater(len(button.toolTip.splitlines()), 2, name)
        self.assertTrue(self.ui.connectButton.enabled)

    def test_nobody_answers(self):
        """A wrong address is told within seconds, and another one can be tried."""
        before = self.ui.serverComboBox.currentText
        try:
            self.ui.serverComboBox.setEditText(f"http://127.0.0.1:{free_port()}")
            self.ui.connectButton.click()
            self.wait(lambda: self.widget.workflow.view.connection.state == "unreachable", "the state unreachable")
            self.widget.panel.tick()
            self.assertTrue(self.ui.connectButton.enabled)
            self.assertTrue(self.ui.statusText.text)
        finally:
            self.widget.workflow.disconnect()
            self.ui.serverComboBox.setEditText(before)

    def test_leaving_and_coming_back(self):
        """The segment editor keeps no views and keys when the module is left."""
        self.widget.exit()
        self.widget.enter()
        self.assertIsNotNone(self.ui.segmentEditor.mrmlSegmentEditorNode())
