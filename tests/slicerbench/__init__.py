"""A bench on which a Slicer module runs without the Slicer application.

Real: the MRML scene, the module logics and `slicer.util` (package slicer-core), and Qt (PySide6 on the offscreen
platform), made to behave like PythonQt. Stand-ins: `slicer.app`, the scripted-module base classes and the qMRML*,
qSlicer* and ctk* widgets; each has only names that the real one has and says what it leaves out. Where the bench is
known to differ from Slicer it is stricter; what runs here is still not certain to run there.

What the bench cannot tell: rendering, the effects of the Segment Editor, extension packaging.

`QT_QPA_PLATFORM=offscreen` must be set before PySide6 is imported; importing this package does so.
"""

from __future__ import annotations

import os

os.environ.setdefault("QT_QPA_PLATFORM", "offscreen")
os.environ.setdefault("QT_LOGGING_RULES", "qt.qpa.*=false")

__all__ = ["WHAT_TO_RUN", "install"]

WHAT_TO_RUN = (
    "make venv with Python 3.10 to 3.13 (slicer-core is not made for 3.14), and on Linux: sh tests/system_packages.sh"
)


def install():
    """Put the modules `slicer`, `qt` and `ctk` of the bench into `sys.modules`, once a process.

    Returns:
        the installed `tests.slicerbench.bench.Bench`.

    Raises:
        ImportError: where slicer-core, vtk or PySide6, or a system library that they need, is missing.
    """
    from tests.slicerbench.bench import installed

    return installed()
