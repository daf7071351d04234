"""Strict stand-ins for the widgets of Slicer and CTK.

A stand-in has only what PythonQt would show of the real class: its properties, its slots, its Q_INVOKABLE methods and
its signals, read off the headers of Slicer and CTK. A setter that is no slot is missing on purpose: in Slicer
`selector.noneEnabled = True` works and `selector.setNoneEnabled(True)` does not.
"""

from __future__ import annotations

from tests.slicerbench import loader
from tests.slicerbench.widgets.collapsible import ctkCollapsibleButton, ctkCollapsibleGroupBox
from tests.slicerbench.widgets.combo import ctkComboBox
from tests.slicerbench.widgets.effects import qSlicerSegmentEditorAbstractEffect
from tests.slicerbench.widgets.message_box import ctkMessageBox
from tests.slicerbench.widgets.module_widget import qSlicerScriptedLoadableModuleWidget
from tests.slicerbench.widgets.mrml import qMRMLWidget, qSlicerWidget
from tests.slicerbench.widgets.node_combo import qMRMLNodeComboBox
from tests.slicerbench.widgets.paths import ctkDirectoryButton, ctkPathLineEdit
from tests.slicerbench.widgets.plots import qMRMLPlotView, qMRMLPlotWidget
from tests.slicerbench.widgets.segment_editor import qMRMLSegmentEditorWidget
from tests.slicerbench.widgets.segments_table import qMRMLSegmentsTableView
from tests.slicerbench.widgets.sliders import ctkSliderWidget, qMRMLSliderWidget
from tests.slicerbench.widgets.tables import qMRMLTableView

IN_SLICER = (
    qMRMLNodeComboBox,
    qMRMLPlotView,
    qMRMLPlotWidget,
    qMRMLSegmentEditorWidget,
    qMRMLSegmentsTableView,
    qMRMLSliderWidget,
    qMRMLTableView,
    qMRMLWidget,
    qSlicerScriptedLoadableModuleWidget,
    qSlicerSegmentEditorAbstractEffect,
    qSlicerWidget,
)
IN_CTK = (
    ctkCollapsibleButton,
    ctkCollapsibleGroupBox,
    ctkComboBox,
    ctkDirectoryButton,
    ctkMessageBox,
    ctkPathLineEdit,
    ctkSliderWidget,
)


def register(qt, ctk, slicer) -> None:
    """Make the stand-ins known as `slicer.qMRML...`, `ctk.ctk...` and to the loader of .ui files."""
    for module, classes in ((slicer, IN_SLICER), (ctk, IN_CTK)):
        for cls in classes:
            setattr(module, cls.__name__, cls)
            loader.CLASSES[cls.__name__] = cls
