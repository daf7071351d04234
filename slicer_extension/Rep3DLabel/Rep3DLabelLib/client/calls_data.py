"""Calls about images and labels: the next sample, downloads, uploads, submissions."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from ..errors import BadAnswer, LocalProblem, NoSampleLeft, NotFoundError
from ..files import image_suffix
from .answers import Datastore, Sample, SubmittedLabel, parse_case_list
from .answers_cases import DicomUpload, parse_dicom_upload
from .calls_base import Calls, name_of, segment_of
from .multipart import MultipartUpload
from .transfers import Progress, Stop, Watch

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
        if not isinstance(answer, dict) or not isinstance(answer.get("id"), str) or not answer["id"]:
            raise BadAnswer(f"Expected the id of an image from strategy '{strategy}', got {str(answer)[:200]!r}.")
        return Sample(answer["id"], str(answer.get("name") or answer["id"]), answer)

    def datastore(self) -> Datastore:
        """List the server's images and the tags of their labels."""
        return parse_case_list(self._transport.get_json("/datastore/", {"output": "all"}))

    def download_image(
        self, image_id: str, target: str | Path, progress: Progress | None = None, stop: Stop | None = None
    ) -> Path:
        """Write an image to a file, or into an existing folder under the server's name, and return its path."""
        query = {"image": name_of(image_id, "image")}
        return self._download("/datastore/image", query, target, image_id, Watch(progress, stop))

    def download_label(
        self, image_id: str, tag: str, target: str | Path, progress: Progress | None = None, stop: Stop | None = None
    ) -> Path:
        """Write an image's label with this tag to a file, or into an existing folder, and return its path."""
        query = {"label": name_of(image_id, "image"), "tag": name_of(tag, "tag")}
        return self._download("/datastore/label", query, target, image_id, Watch(progress, stop))

    def upload_image(
        self,
        path: str | Path,
        image_id: str | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> str:
        """Add an image to the server's data store and return its id.

        Args:
            path: Image file; it is streamed.
            image_id: Wanted id, by default the file's name without its suffix.
            progress, stop: See `Watch`.
        """
        source = Path(path)
        wanted = image_id if image_id is not None else source.name[: len(source.name) - len(image_suffix(source))]
        query = {"image": name_of(wanted, "image")}
        upload = MultipartUpload("file", source, {"params": self._who()}, Watch(progress, stop))
        answer = self._upload("/datastore/image", query, upload, source.name)
        return str(answer.get("image") or wanted)

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
        source = Path(zip_path)
        if source.suffix.lower() != ".zip":
            raise LocalProblem(f"Expected DICOM files packed as a .zip file, got '{source.name}'. Pack them first.")
        upload = MultipartUpload("file", source, {}, Watch(progress, stop))
        read = max(self._timeouts.transfer, self._timeouts.infer)  # the series are converted before the answer
        return parse_dicom_upload(self._upload("/rep3d/dicom", {}, upload, source.name, read))

    def submit_label(
        self,
        image_id: str,
        label_path: str | Path,
        tag: str = "final",
        params: Mapping[str, object] | None = None,
        progress: Progress | None = None,
        stop: Stop | None = None,
    ) -> SubmittedLabel:
        """Send the label of an image; an older label with this tag is replaced.

        Raises:
            ConflictError: The image is lent to somebody else.
            InvalidRequestError: The label does not fit the image or the task; the server kept what it had.
        """
        query, source = {"image": name_of(image_id, "image"), "tag": name_of(tag, "tag")}, Path(label_path)
        fields = {"params": {**(params or {}), **self._who()}}
        upload = MultipartUpload("label", source, fields, Watch(progress, stop))
        answer = self._upload("/datastore/label", query, upload, source.name)
        return SubmittedLabel(image_id, str(answer.get("label") or image_id), tag, answer)
