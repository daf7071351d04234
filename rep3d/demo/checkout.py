"""Where the app and the client are: in the checkout that holds this package.

The MONAI Label app and the Slicer extension are folders of the repository, not part of the installed package; what
starts them from the command line finds them here.
"""

from __future__ import annotations

import sys
from pathlib import Path

from rep3d.errors import ConfigError

__all__ = ["APP", "client_errors", "import_client_path"]

_ROOT = Path(__file__).resolve().parents[2]
APP = _ROOT / "apps" / "rep3d_label"
_CLIENT = _ROOT / "slicer_extension" / "Rep3DLabel"


def import_client_path() -> None:
    """Make ``Rep3DLabelLib``, the Slicer extension's client, importable.

    Raises:
        ConfigError: if this package was installed without its repository.
    """
    for folder in (APP, _CLIENT):
        if not folder.is_dir():
            raise ConfigError(
                f"This command needs the whole repository, and the folder {folder} is missing. "
                f"Clone the repository and install it with `pip install -e .`"
            )
    if str(_CLIENT) not in sys.path:
        sys.path.append(str(_CLIENT))


def client_errors() -> tuple[type[Exception], ...]:
    """Return the errors that the client raises, for whoever shows them; none without the repository."""
    try:
        import_client_path()
        from Rep3DLabelLib.errors import ClientError
    except (ConfigError, ImportError):
        return ()
    return (ClientError,)
