"""From this computer to the server: a volume of the scene, or the DICOM series of a folder."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

from ..client.answers import Sample
from ..client.answers_cases import DicomUpload
from ..errors import ClientError
from ..i18n import tr
from ..view import INFO, WARNING
from ..worker.jobs import JobError
from .context import Context
from .editing import Editing

__all__ = ["Uploading", "image_id_of"]


class Uploading:
    """Uploads.

    Args:
        context: Shared state.
        editing: Drafts.
        open_case: Opens an image of the server as the case in hand.
    """

    def __init__(self, context: Context, editing: Editing, open_case: Callable[[str], None]) -> None:
        self._context, self._editing, self._open_case = context, editing, open_case

    def upload_volume(self, node: Any, image_id: str) -> None:
        """Add a volume of the scene to the server, and open it as a case.

        Args:
            node: Volume node, None if the user chose none.
            image_id: Name on the server, "" for the volume's own.
        """
        context = self._context
        if context.refused("upload_volume"):
            return
        if node is None:
            context.say(WARNING, tr("Choose a volume to upload."))
            return
        wanted = image_id.strip() or image_id_of(node.GetName() or "")
        context.begin("upload_volume", tr("Preparing {name}").format(name=wanted))
        voxels = context.folder / "upload.npy"
        try:
            save = context.scene.begin_volume_snapshot(node, voxels)
        except ClientError as error:
            context.fail(error, tr("Nothing was sent."))
            return

        def step() -> bool:
            if not context.runs("upload_volume"):  # the scene was closed
                voxels.unlink(missing_ok=True)
                return True
            if not save.step():
                context.progress(tr("Preparing {name}").format(name=wanted), save.progress)
                return False
            context.progress(tr("Sending {name}").format(name=wanted))
            args = {**save.geometry, "image_id": wanted}
            context.foreground("upload_image", args, sent, failed, self._progress)
            return True

        def sent(sample: Sample) -> None:
            voxels.unlink(missing_ok=True)
            context.end(tr("The server has {name} now.").format(name=sample.name))
            self._open_case(sample.id)

        def failed(error: JobError) -> None:
            voxels.unlink(missing_ok=True)
            context.fail(error)

        context.tasks.append(step)

    def upload_dicom(self, folder: str) -> None:
        """Add the DICOM series of a folder to the server."""
        context = self._context
        if context.refused("upload_dicom"):
            return
        if not folder.strip():
            context.say(WARNING, tr("Choose a folder with DICOM files."))
            return
        context.begin("upload_dicom", tr("Packing the DICOM files"), cancellable=True)

        def sent(value: DicomUpload) -> None:
            text = tr("New on the server: {names}.").format(names=", ".join(value.images) or tr("nothing"))
            for source, problem in value.failed[:3]:
                text += f" {source}: {problem}."
            for known in value.known[:3]:
                text += " " + tr("Already there: {name}.").format(name=known)
            for image, reason in value.warnings[:3]:
                text += " " + tr("{name} may show its patient's name: {reason}.").format(name=image, reason=reason)
            context.end(text, WARNING if value.failed or value.warnings or not value.images else INFO)

        context.foreground("upload_dicom", {"folder": folder.strip()}, sent, progress=self._progress)

    def _progress(self, event: Mapping[str, Any]) -> None:
        total = event.get("total")
        text = tr("Packing the DICOM files") if event.get("stage") == "packing" else tr("Sending")
        self._context.progress(text, min(1.0, event["done"] / total) if total else None)


def image_id_of(name: str) -> str:
    """Return a name that the server accepts as an id: letters, digits, dots, dashes and underscores."""
    return re.sub(r"[^\w.-]+", "_", name).strip("._-") or "image"
