"""What the benchmarks ask of a MONAI Label server, whichever app it runs: MONAI Label's own addresses only."""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import requests
from requests_toolbelt import MultipartDecoder

from rep3d.data.cases import Case
from rep3d.demo.checkout import APP
from rep3d.demo.server import ServerProcess

__all__ = ["LabelServer", "Segmented", "Trained", "parts_of_answer", "running_server"]

_ACTIVE = ("SUBMITTED", "RUNNING")
_POLL_SECONDS = 0.5
_STOP_SECONDS = 60.0
_REQUEST_SECONDS = 3600.0


@dataclass(frozen=True)
class Segmented:
    """An answer to an inference request.

    Attributes:
        label: bytes of the label file.
        params: what the server said about it.
        seconds: from sending the request to having the whole answer.
    """

    label: bytes = field(repr=False)
    params: dict[str, Any]
    seconds: float

    def overhead(self, network: str) -> float:
        """Return seconds that were not the network's.

        Args:
            network: the name that the app gives the network's time among its latencies.
        """
        return self.seconds - float(self.params["latencies"][network])


@dataclass(frozen=True)
class Trained:
    """How a training ended: MONAI Label's ``status``, ``seconds`` since it was asked for, ``stats`` of the app."""

    status: str
    seconds: float
    stats: dict[str, Any]


def parts_of_answer(content: bytes, content_type: str) -> tuple[dict[str, Any], bytes]:
    """Split an answer of ``POST /infer/`` into the facts and the label file.

    Raises:
        RuntimeError: if it lacks one of them.
    """
    parts = {}
    for part in MultipartDecoder(content, content_type).parts:
        disposition = part.headers[b"Content-Disposition"].decode()
        parts[disposition.split('name="')[1].split('"')[0]] = part.content
    if set(parts) != {"params", "image"}:
        raise RuntimeError(f"inference: expected the parts 'params' and 'image', got {sorted(parts)}")
    return json.loads(parts["params"]), parts["image"]


class LabelServer:
    """A running server as a client sees it.

    Args:
        url: its address.
        model: the model to talk about; by default the first that can be trained.
    """

    def __init__(self, url: str, model: str | None = None) -> None:
        self._url = url
        self.model = model or next(iter(self.info()["trainers"]))

    def info(self) -> dict[str, Any]:
        """``GET /info/``."""
        return dict(self._ask("GET", "/info/").json())

    def submit(self, case: Case, label_info: list[dict[str, Any]]) -> None:
        """Add an image and its final label, as a client would that segmented it.

        Args:
            case: image and label file.
            label_info: name and voxel value of each label, as Slicer sends them.
        """
        with Path(case.image).open("rb") as image:
            self._ask("PUT", f"/datastore/?image={case.id}", files={"file": (Path(case.image).name, image)})
        with Path(case.label).open("rb") as label:
            self._ask(
                "PUT",
                f"/datastore/label?image={case.id}&tag=final",
                files={"label": (Path(case.label).name, label)},
                data={"params": json.dumps({"label_info": label_info})},
            )

    def train(self, settings: Mapping[str, Any], stop_after: float | None = None) -> Trained:
        """Train, and wait for the end.

        Args:
            settings: of the training.
            stop_after: seconds after which it is stopped; None to let it end by itself.

        Raises:
            RuntimeError: if it fails.
        """
        started = time.perf_counter()
        self._ask("POST", f"/train/{self.model}", json=dict(settings))
        status, stopped = "SUBMITTED", False
        while status in _ACTIVE:
            seconds = time.perf_counter() - started
            if stop_after is not None and seconds >= stop_after and not stopped:
                self._ask("DELETE", "/train/")
                stopped = True
            if stopped and stop_after is not None and seconds > stop_after + _STOP_SECONDS:
                raise RuntimeError(f"training: expected it to stop within {_STOP_SECONDS:g} s, it still runs")
            time.sleep(_POLL_SECONDS if stop_after is None else max(0.01, min(_POLL_SECONDS, stop_after - seconds)))
            task = self._ask("GET", "/train/").json()
            status = task["status"]
        seconds = time.perf_counter() - started
        if status == "ERROR":
            raise RuntimeError("training failed:\n" + "\n".join(task.get("details") or []))
        return Trained(status, seconds, self.info().get("train_stats", {}).get(self.model) or {})

    def segment(self, image: Path | None = None, image_id: str = "") -> Segmented:
        """Segment a file of this computer, or an image that the server has."""
        query = f"/infer/{self.model}?output=all" + (f"&image={image_id}" if image_id else "")
        with contextlib.ExitStack() as stack:
            files = {"file": (image.name, stack.enter_context(image.open("rb")))} if image else None
            started = time.perf_counter()
            answer = self._ask("POST", query, files=files, data={"params": "{}"})
            seconds = time.perf_counter() - started
        params, label = parts_of_answer(answer.content, answer.headers["Content-Type"])
        return Segmented(label, params, seconds)

    def _ask(self, method: str, path: str, **options: Any) -> requests.Response:
        answer = requests.request(method, f"{self._url}{path}", timeout=_REQUEST_SECONDS, **options)
        if not answer.ok:
            raise RuntimeError(f"{method} {path}: expected success, got {answer.status_code}: {answer.text[:2000]}")
        return answer


@contextmanager
def running_server(
    studies: Path,
    log: Path,
    conf: dict[str, str],
    app: Path = APP,
    python: Path | None = None,
    model: str | None = None,
) -> Iterator[LabelServer]:
    """Start a server on a free port, wait until it answers, and stop it in the end.

    Args:
        studies: studies folder; made if missing.
        log: file for what it prints.
        conf: ``--conf`` settings; our app begins without a starter model, as others do.
        app: the app's folder.
        python: interpreter of the environment to run it in; this one by default.
        model: see :class:`LabelServer`.
    """
    studies.mkdir(parents=True, exist_ok=True)
    asked = {"starter": "off", **(conf or {})} if app == APP else conf
    with ServerProcess(studies, log, conf=asked, app=app, python=python) as process:
        process.wait_until(process.answers, timeout=300)
        yield LabelServer(process.url, model)
