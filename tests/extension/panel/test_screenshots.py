"""The panel in every state, as pictures: nothing is empty, cut off, or wider than the panel.

The pictures go to the folder in $REP3D_SCREENSHOTS where it is set, to be looked at.
"""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.extension.panel_samples import STATES, OpenPanel

WIDTH, NARROWEST = 380, 400
LAPTOP = 500  # pixels of height that Slicer leaves its module panel on a screen of 1366 x 768


@pytest.fixture
def look(request, bench) -> Iterator[str]:
    from PySide6 import QtGui

    before = QtGui.QPalette(QtGui.QGuiApplication.palette())
    if request.param == "dark":
        palette = QtGui.QPalette(QtGui.QColor("#3c3c3c"), QtGui.QColor("#2d2d2d"))
        palette.setColor(QtGui.QPalette.ColorRole.Base, QtGui.QColor("#232323"))
        palette.setColor(QtGui.QPalette.ColorRole.AlternateBase, QtGui.QColor("#2a2a2a"))
        bench.app.setPalette(palette)
    yield request.param
    bench.app.setPalette(before)


def _open(bench, state: str) -> OpenPanel:
    make, sections = STATES[state]
    opened = OpenPanel(bench, make(), width=WIDTH)
    for button in opened.ui.segmentEditor._d.buttons.values():  # the stand-in's are wider than Slicer's icons
        button.setFixedWidth(80)
    for name in sections:
        getattr(opened.ui, name).collapsed = False
    if sections:
        opened.ui.editorSection.collapsed = True
    for _ in range(4):
        opened.panel.tick()
        bench.app.processEvents()
    opened.root.resize(WIDTH, opened.root.layout().heightForWidth(WIDTH))
    for _ in range(2):
        bench.app.processEvents()
    return opened


def _cut_off(opened: OpenPanel) -> list[str]:
    """Buttons and labels that are smaller than their text."""
    from PySide6 import QtWidgets

    found = []
    for widget in opened.root.findChildren(QtWidgets.QWidget):
        parts = widget, widget.parentWidget()
        if not widget.isVisible() or any(part == opened.ui.segmentEditor for part in parts):
            continue
        if isinstance(widget, QtWidgets.QLabel) and widget.text:
            need = widget.heightForWidth(widget.width) if widget.wordWrap else widget.sizeHint.height()
            if widget.height < need or (not widget.wordWrap and widget.width < widget.sizeHint.width()):
                found.append(f"{widget.objectName} {widget.size} < {need}")
        button = isinstance(widget, (QtWidgets.QPushButton, QtWidgets.QToolButton, QtWidgets.QCheckBox)) and widget.text
        smallest = widget.minimumSizeHint
        if button and (widget.width < smallest.width() or widget.height < smallest.height()):
            found.append(f"{widget.objectName} {widget.size} < {widget.minimumSizeHint}")
        if widget.mapTo(opened.root, widget.rect.topRight()).x() > opened.root.width:
            found.append(f"{widget.objectName} sticks out")
    return found


@pytest.fixture(scope="session")
def folder(tmp_path_factory) -> Path:
    wanted = os.environ.get("REP3D_SCREENSHOTS")
    path = Path(wanted) if wanted else tmp_path_factory.mktemp("screenshots")
    path.mkdir(parents=True, exist_ok=True)
    return path


IN_THE_DARK = ("disconnected", "edited", "error", "drafts", "training", "cases", "connection_untrusted")


@pytest.mark.parametrize(
    ("look", "state"),
    [("light", state) for state in STATES] + [("dark", state) for state in IN_THE_DARK],
    indirect=["look"],
)
def test_picture(bench, look: str, state: str, folder: Path) -> None:
    opened = _open(bench, state)
    try:
        picture = opened.root.grab()
        file = folder / f"{state}_{look}.png"
        assert picture.save(str(file)) and file.stat().st_size > 5000
        image = picture.toImage()
        colours = {image.pixel(x, y) for x in range(0, image.width(), 7) for y in range(0, image.height(), 7)}
        assert len(colours) > 8, "the picture is empty"
        assert picture.width() == WIDTH
        assert opened.root.minimumSizeHint.width() < NARROWEST
        assert _cut_off(opened) == []
    finally:
        opened.close()


@pytest.mark.parametrize("state", ["ready", "edited", "drafts", "error", "segmenting"])
def test_the_main_buttons_are_in_view_on_a_small_laptop(bench, state: str, folder: Path) -> None:
    from PySide6 import QtCore, QtWidgets

    opened = _open(bench, state)
    area = QtWidgets.QScrollArea()  # as Slicer's module panel
    try:
        area.setWidgetResizable(True)
        area.setHorizontalScrollBarPolicy(QtCore.Qt.ScrollBarPolicy.ScrollBarAlwaysOff)
        area.setWidget(opened.root)
        area.resize(WIDTH + 18, LAPTOP)
        area.show()
        bench.app.processEvents()
        area.grab().save(str(folder / f"laptop_{state}.png"))
        for name in ("connectButton", "nextSampleButton", "autoSegmentButton", "submitButton", "activityText"):
            widget = getattr(opened.ui, name)
            bottom = widget.mapTo(area, QtCore.QPoint(0, widget.height)).y()
            assert 0 < bottom <= LAPTOP, f"{name} ends at {bottom}"
        bar = area.verticalScrollBar()
        assert bar.maximum > 0 and opened.root.width <= area.viewport().width
        bar.setValue(bar.maximum)
        bench.app.processEvents()
        section = opened.ui.optionsSection
        assert section.mapTo(area, QtCore.QPoint(0, section.height)).y() <= LAPTOP
    finally:
        opened.close()
        area.takeWidget()
        area.hide()
        area.deleteLater()
