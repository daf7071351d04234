"""Rep3D Label: the MONAI Label app that learns from each submitted label.

``monailabel start_server --app apps/rep3d_label --studies FOLDER`` loads this file and looks for the app's class in it;
the class and all its parts are in ``lib``.
"""

import lib.boot.environment  # noqa: F401  (first: it makes sure that all others can be imported)
from lib.app import Rep3DLabelApp

__all__ = ["Rep3DLabelApp"]
