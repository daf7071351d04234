"""Client of a Rep3D Label server: everything that a clinician does with it, as typed calls.

Shared by the module in Slicer, the demo and the tests; needs Python 3.9 and requests only, and neither Slicer nor Qt.
The calls block until they are answered or time out: never make one on a thread that draws a user interface.
The interface on the other side is that of MONAI Label 0.8.5 with the Rep3D Label app.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from email.message import Message
from pathlib import Path
from urllib.parse import quote

import requests

from .answers import (
    IDLE,
    Datastore,
    InferResult,
    Sample,
    ServerInfo,
    SubmittedLabel,
    TaskStatus,
    TrainStatus,
    parse_case_list,
    parse_info,
    parse_task,
    parse_train,
)
from .connection import READY, ConnectionReport, report_of_error, report_of_info
from .errors import (
    BadAnswer,
    ClientError,
    LocalProblem,
    NoSampleLeft,
    NotFoundError,
    ServerBusy,
    ServerTimeout,
    WaitTimeout,
    WrongAppError,
)
from .files import atomic_target, check_image_file, resolve_target
from .multipart import MultipartUpload, image_suffix, parse_multipart
from .transport import Timeouts, Transport

__all__ = ["REP3D_MODEL", "Rep3DClient", "Timeouts"]

REP3D_MODEL = "rep3d"
_MISSED_POLLS = 5


class Rep3DClient:
    """One server, as one user sees it.

    Args:
        url: Address; http:// is added if it has no scheme.
        api_key: Key of the server, if it asks for one.
        session: requests session to use instead of an own one.
        timeouts: Time limits in seconds.
        verify: Check certificates (True), do not (False), or the path of the certificates to trust.
        client_id: Name recorded by the server with samples and labels, so that annotators can be told apart.

    Raises:
        InvalidAddress: The address cannot be one.
        LocalProblem: The API key cannot be one, or there are no certificates at the path.
    """

    def __init__(
        self,
        url: str,
        api_key: str | None = None,
        session: requests.Session | None = None,
        timeouts: Timeouts | None = None,
        verify: bool | str = True,
        client_id: str | None = None,
    ) -> None:
        self._transport = Transport(url, api_key, session, timeouts, verify)
        self._timeouts = self._transport.timeouts
        self._client_id = client_id
        self._default_model: str | None = None  # as the server said last
        self._stats_before: dict[str, object] = {}  # id of a training started here -> "started" of the one before it

    @property
    def url(self) -> str:
        """The server's address as used."""
        return self._transport.url

    # ---- the server

    def info(self) -> ServerInfo:
        """Return what the server says about itself.

        Raises:
            WrongAppError: Another program or another MONAI Label app answers.
        """
        try:
            answer = self._transport.get_json("/info/")
        except NotFoundError as error:
            raise WrongAppError(
                f"Expected a MONAI Label server at {self.url}, but another program answers there. Check the address "
                "and the port."
            ) from error
        found = parse_info(answer, REP3D_MODEL)
        self._default_model = found.default_model
        return found

    def test_connection(self) -> ConnectionReport:
        """Find out whether the server can be used, and if not, why; raises nothing for a server that cannot."""
        try:
            info = self.info()
        except ClientError as error:
            return report_of_error(error)
        return report_of_info(info)

    def is_alive(self) -> bool:
        """Return whether a Rep3D Label server answers now."""
        return self.test_connection().state == READY

    # ---- images and labels

    def next_sample(self, strategy: str) -> Sample:
        """Ask which image to label next.

        Raises:
            NoSampleLeft: There is none.
            NotFoundError: The server has no such strategy.
        """
        body = {"client_id": self._client_id} if self._client_id else {}
        try:
            answer = self._post_json(f"/activelearning/{_segment(strategy, 'strategy')}", body)
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

    def download_image(self, image_id: str, target: str | Path) -> Path:
        """Write an image to a file, or into an existing folder under the server's name, and return its path."""
        return self._download("/datastore/image", {"image": _name(image_id, "image")}, target, image_id)

    def download_label(self, image_id: str, tag: str, target: str | Path) -> Path:
        """Write an image's label with this tag to a file, or into an existing folder, and return its path."""
        query = {"label": _name(image_id, "image"), "tag": _name(tag, "tag")}
        return self._download("/datastore/label", query, target, image_id)

    def upload_image(self, path: str | Path, image_id: str | None = None) -> str:
        """Add an image to the server's data store and return its id.

        Args:
            path: Image file; it is streamed.
            image_id: Wanted id, by default the file's name without its suffix.
        """
        source = Path(path)
        wanted = image_id if image_id is not None else source.name[: len(source.name) - len(image_suffix(source))]
        answer = self._upload("/datastore/image", {"image": _name(wanted, "image")}, "file", source, {})
        return str(answer.get("image") or wanted)

    def submit_label(
        self, image_id: str, label_path: str | Path, tag: str = "final", params: Mapping[str, object] | None = None
    ) -> SubmittedLabel:
        """Send the label of an image; an older label with this tag is replaced.

        Raises:
            InvalidRequestError: The label does not fit the image or the task; the server kept what it had.
        """
        query = {"image": _name(image_id, "image"), "tag": _name(tag, "tag")}
        answer = self._upload("/datastore/label", query, "label", Path(label_path), params or {})
        return SubmittedLabel(image_id, str(answer.get("label") or image_id), tag, answer)

    # ---- segmentation

    def infer(
        self,
        image_id: str,
        output_path: str | Path,
        model: str | None = None,
        params: Mapping[str, object] | None = None,
    ) -> InferResult:
        """Segment an image of the data store and write the label map to a file or into an existing folder.

        Args:
            image_id: The image.
            output_path: File or folder to write to.
            model: Model to use, None for the server's default.
            params: Settings of this segmentation.

        Raises:
            ConflictError: There is no trained model yet.
        """
        query = {"image": _name(image_id, "image"), "output": "all"}
        path = f"/infer/{_segment(self._model(model), 'model')}"
        form = {"params": json.dumps(dict(params or {}))}
        with self._transport.send("POST", path, query, form=form, read=self._timeouts.infer) as response:
            return self._save_segmentation(response, output_path)

    def infer_file(
        self,
        image_path: str | Path,
        output_path: str | Path,
        model: str | None = None,
        params: Mapping[str, object] | None = None,
    ) -> InferResult:
        """Segment an image of this computer, which the server does not keep; otherwise like `infer`."""
        path = f"/infer/{_segment(self._model(model), 'model')}"
        upload = MultipartUpload("file", Path(image_path), {"params": dict(params or {})})
        sending = self._transport.send("POST", path, {"output": "all"}, upload=upload, read=self._timeouts.infer)
        with upload, sending as response:
            return self._save_segmentation(response, output_path)

    def _save_segmentation(self, response: requests.Response, output_path: str | Path) -> InferResult:
        content = self._transport.read_all(response)
        content_type = response.headers.get("Content-Type", "")
        if not content_type.startswith("multipart/"):
            answer = self._transport.decode_json(content, response)
            raise BadAnswer(
                f"Expected a label map from the server, but it sent only: {str(answer)[:200]}. Look at the server's "
                "log."
            )
        parts = parse_multipart(content, content_type)
        if "image" not in parts or "params" not in parts:
            raise BadAnswer(f"Expected the parts 'params' and 'image' from the server, got {sorted(parts)}.")
        params = self._transport.decode_json(parts["params"].content, response)
        target = resolve_target(output_path, parts["image"].filename, "segmentation.nii.gz")
        with atomic_target(target) as part:
            part.write_bytes(parts["image"].content)
            check_image_file(part, target.name)
        return InferResult(target, params if isinstance(params, dict) else {})

    # ---- training and scoring

    def train_start(self, model: str | None = None, settings: Mapping[str, object] | None = None) -> TrainStatus:
        """Start a training at the server and return its first state.

        Raises:
            ConflictError, ServerBusy: A training runs already, or there is no labelled case.
        """
        info = self.info()
        model = model or info.default_model
        before = info.train_stats.get(model, {}).get("started")
        task = parse_task(self._post_json(f"/train/{_segment(model, 'model')}", dict(settings or {})))
        self._stats_before = {task.task_id: before}
        return parse_train(task, {}, None)

    def train_status(self, model: str | None = None) -> TrainStatus:
        """Return how the latest training is going; state IDLE if there was none since the server started."""
        task = self._task("/train/")
        info = self.info()
        stats = info.train_stats.get(model or info.default_model, {})
        started, stale = stats.get("started"), None
        if started is not None and task.task_id in self._stats_before:
            stale = started == self._stats_before[task.task_id]
        return parse_train(task, stats, stale)

    def train_stop(self) -> bool:
        """Stop the running training; return False if none was running."""
        return self._stop("/train/")

    def wait_for_training(
        self,
        model: str | None = None,
        poll_seconds: float = 2.0,
        timeout: float | None = None,
        callback: Callable[[TrainStatus], None] | None = None,
        sleep: Callable[[float], None] = time.sleep,
        clock: Callable[[], float] = time.monotonic,
    ) -> TrainStatus:
        """Wait until no training is waiting or running, and return the last state, whatever it is.

        A busy server is asked again, up to five times in a row.

        Args:
            model: Model that is being trained, None for the server's default.
            poll_seconds: Seconds between two questions.
            timeout: Seconds after which to give up, None for never.
            callback: Called with each state, the last included.
            sleep, clock: Injected for tests.

        Raises:
            WaitTimeout: The training goes on at the server.
        """
        start, missed = clock(), 0
        while True:
            try:
                status = self.train_status(model)
            except (ServerBusy, ServerTimeout):
                missed += 1
                if missed > _MISSED_POLLS:
                    raise
            else:
                missed = 0
                if callback is not None:
                    callback(status)
                if not status.is_active:
                    return status
            if timeout is not None and clock() - start >= timeout:
                raise WaitTimeout(
                    f"Expected the training to end within {timeout:g} s, but it goes on at the server. Ask for its "
                    "state later, or stop it."
                )
            sleep(poll_seconds)

    def scoring_start(self, method: str) -> TaskStatus:
        """Start a scoring of the images at the server.

        Raises:
            ConflictError, ServerBusy: One runs already, or there is no trained model yet.
        """
        return parse_task(self._post_json(f"/scoring/{_segment(method, 'scoring method')}", {}))

    def scoring_status(self) -> TaskStatus:
        """Return how the latest scoring is going; state IDLE if there was none since the server started."""
        return self._task("/scoring/")

    def scoring_stop(self) -> bool:
        """Stop the running scoring; return False if none was running."""
        return self._stop("/scoring/")

    # ---- shared

    def _model(self, name: str | None) -> str:
        """Return the model of that name, or the one that the server serves by default."""
        return name or self._default_model or self.info().default_model

    def _task(self, path: str) -> TaskStatus:
        try:
            return parse_task(self._transport.get_json(path))
        except NotFoundError:
            return TaskStatus(IDLE)

    def _stop(self, path: str) -> bool:
        with self._transport.send("DELETE", path, read=self._timeouts.action) as response:
            return self._transport.decode_json(self._transport.read_all(response), response) is not None

    def _post_json(self, path: str, body: Mapping[str, object]) -> object:
        with self._transport.send("POST", path, body=body, read=self._timeouts.action) as response:
            return self._transport.decode_json(self._transport.read_all(response), response)

    def _upload(
        self, path: str, query: Mapping[str, str], field: str, source: Path, params: Mapping[str, object]
    ) -> Mapping[str, object]:
        if self._client_id:
            params = {**params, "client_id": self._client_id}
        upload = MultipartUpload(field, source, {"params": dict(params)})
        with upload, self._transport.send("PUT", path, query, upload=upload, read=self._timeouts.transfer) as response:
            answer = self._transport.decode_json(self._transport.read_all(response), response)
        if not isinstance(answer, dict):
            raise BadAnswer(f"Expected a confirmation of the upload of '{source.name}', got {str(answer)[:200]!r}.")
        return answer

    def _download(self, path: str, query: Mapping[str, str], target: str | Path, name: str) -> Path:
        with self._transport.send("GET", path, query, read=self._timeouts.transfer) as response:
            content_type = response.headers.get("Content-Type", "")
            if "html" in content_type or "json" in content_type:
                raise BadAnswer(
                    f"Expected an image file for '{name}', got an answer of type '{content_type}'. Check that the "
                    "address leads to the server and not to a web page or proxy."
                )
            header = Message()
            header["Content-Disposition"] = response.headers.get("Content-Disposition", "attachment")
            destination = resolve_target(target, header.get_filename() or "", f"{name}.nii.gz")
            with atomic_target(destination) as part:
                self._transport.save(response, part)
                check_image_file(part, destination.name)
        return destination


def _name(value: str, what: str) -> str:
    """Return an id or a tag, which must not be empty."""
    if not value:
        raise LocalProblem(f"Expected the name of an {what}, got none. Choose one first.")
    return value


def _segment(value: str, what: str) -> str:
    """Return a name quoted as one component of a path; '..' and the like would lead elsewhere."""
    if not value.strip("."):
        raise LocalProblem(f"Expected the name of a {what}, got '{value}'. Choose one of those the server offers.")
    return quote(value, safe="")
