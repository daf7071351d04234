"""What the attacks share: the app's folder on the path, as MONAI Label puts it there."""

from __future__ import annotations

import sys

from tests.app.server import APP_DIR

sys.path.insert(0, str(APP_DIR))
