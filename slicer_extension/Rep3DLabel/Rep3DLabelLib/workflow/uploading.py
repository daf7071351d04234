"""From this computer to the server: a volume of the scene, or the DICOM series of a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..errors import ClientError
from ..i18n import tr
from ..view import INFO, WARNING
from .desk import Desk
from .editing import Editing

__all__ = ["Uploading", "image_id_of"]


class Uploading:
    """Uploads.

    Args:
        desk: Shared state.
        editing: Drafts.
        open_case: Opens an image of the server as the case in hand.
    """

    def __init__(self, desk: Desk, editing: Editing, open_case: Callable[[str], None]) -> None:
        self._desk, self._editing, self._open_case = desk, editing, open_case

    def upload_volume(self, node: Any, image_id: str) -> None:
        """Add a volume of the scene to the server, and open it as a case.

        Args:
            node: Volume node, None if the user chose none.
            image_id: Name on the server, "" for the volume's own.
        """
        desk = self._desk
        if desk.refused("upload_volume"):
            return
        if node is None:
            desk.say(WARNING, tr("Choose a volume to upload."))
            return
        wanted = image_id.strip() or image_id_of(node.GetName() or "")
        desk.begin("upload_volume", tr("Preparing {name}").format(name=wanted))
        voxels, path = desk.folder / "upload.npy", desk.folder / "upload.nii.gz"
        try:
            save = desk.scene.begin_volume_snapshot(node, voxels)
        except ClientError as error:
            desk.fail(error, tr("Nothing was sent."))
            return

        def step() -> bool:
            if not desk.runs("upload_volume"):  # the scene was closed
                voxels.unlink(missing_ok=True)
                return True
            if not save.step():
                desk.progress(tr("Preparing {name}").format(name=wanted), save.progress)
                return False
            desk.foreground("write_image", {**save.geometry, "path": str(path)}, written)
            return True

        def written(value: Mapping[str, Any]) -> None:
            voxels.unlink(missing_ok=True)
            desk.progress(tr("Sending {name}").format(name=wanted))
            desk.foreground("upload_image", {"path": value["path"], "image_id": wanted}, sent, progress=self._progress)

        def sent(value: Mapping[str, Any]) -> None:
            path.unlink(missing_ok=True)
            desk.end(tr("The server has {name} now.").format(name=value["id"]))
            self._open_case(str(value["id"]))

        desk.tasks.append(step)

    def upload_dicom(self, folder: str) -> None:
        """Add the DICOM series of a folder to the server."""
        desk = self._desk
        if desk.refused("upload_dicom"):
            return
        if not folder.strip():
            desk.say(WARNING, tr("Choose a folder with DICOM files."))
            return
        desk.begin("upload_dicom", tr("Packing the DICOM files"), cancellable=True)

        def sent(value: Mapping[str, Any]) -> None:
            images, failed = list(value.get("images") or ()), list(value.get("failed") or ())
            text = tr("New on the server: {names}.").format(names=", ".join(images) or tr("nothing"))
            for problem in failed[:3]:
                text += f" {problem.get('source', '')}: {problem.get('error', '')}."
            for known in list(value.get("known") or ())[:3]:
                text += " " + tr("Already there: {name}.").format(name=known)
            desk.end(text, WARNING if failed or not images else INFO)

        desk.foreground("upload_dicom", {"folder": folder.strip()}, sent, progress=self._progress)

    def _progress(self, event: Mapping[str, Any]) -> None:
        total = event.get("total")
        text = tr("Packing the DICOM files") if event.get("stage") == "packing" else tr("Sending")
        self._desk.progress(text, min(1.0, event["done"] / total) if total else None)


def image_id_of(name: str) -> str:
    """Return a name that the server accepts as an id: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._-") or "image"
