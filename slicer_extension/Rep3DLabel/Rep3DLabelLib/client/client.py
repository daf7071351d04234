"""Client of a Rep3D Label server: everything that a clinician does with it, as typed calls.

Shared by the module in Slicer, the demo and the tests; needs Python 3.9 and requests only, and neither Slicer nor Qt.
The calls block until they are answered or time out: never make one on a thread that draws a user interface.
The interface on the other side is that of MONAI Label 0.8.5 with the Rep3D Label app. The calls are in the files
`calls_*`, by topic; what they answer is in the files `answers*`.
"""

from __future__ import annotations

from dataclasses import replace

from ..connection import READY, ConnectionReport, report_of_error, report_of_info
from ..errors import ClientError
from .calls_base import REP3D_MODEL
from .calls_batch import BatchCalls
from .calls_cases import CaseCalls
from .calls_data import DataCalls
from .calls_infer import InferCalls
from .calls_training import TrainingCalls
from .calls_versions import VersionCalls
from .transport import Timeouts

__all__ = ["REP3D_MODEL", "Rep3DClient", "Timeouts"]


class Rep3DClient(DataCalls, InferCalls, TrainingCalls, CaseCalls, VersionCalls, BatchCalls):
    """One server, as one user sees it; how to make one is described at `Calls`."""

    def test_connection(self) -> ConnectionReport:
        """Find out whether the server can be used, and if not, why; raises nothing for a server that cannot."""
        try:
            report = report_of_info(self.info())
        except ClientError as error:
            report = report_of_error(error)
        return replace(report, url=self.url)

    def is_alive(self) -> bool:
        """Return whether a Rep3D Label server answers now."""
        return self.test_connection().state == READY
