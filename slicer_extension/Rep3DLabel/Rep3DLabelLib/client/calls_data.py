"""Calls about images and labels: the next sample, their voxels in both directions, DICOM series."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import BadAnswer, NoSampleLeft, NotFoundError
from .answers import Sample, SubmittedLabel, parse_sample, parse_submitted
from .answers_cases import DicomUpload, parse_dicom_upload
from .answers_values import mapping
from .calls_base import Calls, segment_of
from .transfers import FileBody, Progress, Stop, Watch
from .voxels import Voxels, body_to_send

__all__ = ["DataCalls"]


class DataCalls(Calls):
    """Images and labels. In each transfer, `progress` and `stop` are as in `Watch`; stopping raises Cancelled."""

    def next_sample(self, strategy: str) -> Sample:
        """Ask which image to label next.

        Raises:
            NoSampleLeft: There is none.
            NotFoundError: The server has no such strategy.
        """
        try:
            answer = self._post_json(f"/activelearning/{segment_of(strategy, 'strategy')}", self._who())
        except NotFoundError as error:
            if strategy not in self.info().strategies:
                raise
            raise NoSampleLeft(f"No image is left to label: {error.detail or 'all are done'}.") from error
        if answer == {}:  # what MONAI Label itself answers then
            raise NoSampleLeft("No image is left to label: all are done.")
        return parse_sample(answer, strategy)

    def image(
        self, image_id: str, folder: str | Path, progress: Progress | None = None, stop: Stop | None = None
    ) -> Voxels:
        """Fetch an image's voxels into a new file in a folder."""
        return self._voxels(f"images/{segment_of(image_id, 'image')}", {}, "image", folder, Watch(progress, stop))

    def label(
        self, image_id: str, tag: str, folder: str | Path, progress: Progress | None = None, stop: Stop | None = None
    ) -> Voxels:
        """Fetch the voxels of an image's label, on the image's grid, into a new file in a folder."""
        path = f"labels/{segment_of(image_id, 'image')}"
        return self._voxels(path, {"tag": tag}, "label", folder, Watch(progress, stop))

    def add_image(
        self, image_id: str, voxels: Voxels, progress: Progress | None = None, stop: Stop | None = None
    ) -> str:
        """Add an image to the server's data store and return its id."""
        path = f"/rep3d/voxels/images/{segment_of(image_id, 'image')}"
        with body_to_send("image", voxels, self._who(), Watch(progress, stop), self._transport.packs) as body:
            answer = self._put(path, {}, body)
        if not mapping(answer).get("image"):
            raise BadAnswer(f"The server did not confirm the image: {str(answer)[:200]!r}. Look at its log.")
        return str(mapping(answer)["image"])

    def submit_label(
        self,
        image_id: str,
        voxels: Voxels,
        tag: str = "final",
        params: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> SubmittedLabel:
        """Send the label of an image; an older label with this tag is replaced.

        Raises:
            ConflictError: The image is reserved for somebody else.
            InvalidRequestError: The label does not fit the image or the task; the server kept what it had.
        """
        path, told = f"/rep3d/voxels/labels/{segment_of(image_id, 'image')}", {**(params or {}), **self._who()}
        with body_to_send("label", voxels, told, Watch(progress, stop), self._transport.packs) as body:
            return parse_submitted(self._put(path, {"tag": tag}, body), image_id)

    def upload_dicom(
        self, zip_path: str | Path, progress: Progress | None = None, stop: Stop | None = None
    ) -> DicomUpload:
        """Send DICOM files, packed as one .zip file; each series in them becomes an image of the data store.

        Args:
            zip_path: The packed files; it is streamed.
            progress, stop: See `Watch`.

        Raises:
            InvalidRequestError: It is no .zip of DICOM files that can be unpacked safely; the server kept nothing.
        """
        read = max(self._timeouts.transfer, self._timeouts.infer)  # the series are converted before the answer
        with FileBody(Path(zip_path), {"Content-Type": "application/zip"}, Watch(progress, stop)) as body:
            return parse_dicom_upload(self._put("/rep3d/dicom", {}, body, read))

    def _voxels(self, path: str, query: Mapping[str, str], name: str, folder: str | Path, watch: Watch) -> Voxels:
        with self._transport.send("GET", f"/rep3d/voxels/{path}", query, read=self._timeouts.transfer) as response:
            arrays, _ = self._transport.receive(response, folder, watch)
        if name not in arrays:
            raise BadAnswer(f"The answer holds no {name}. Look at the server's log.")
        return arrays[name]
