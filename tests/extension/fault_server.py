"""A server that answers as our app does until a test tells it not to: it hangs, cuts, lies, dies and comes back.

The requests are real HTTP from the real worker process; what is stored is counted as our app counts it.
"""

from __future__ import annotations

import contextlib
import socket
import ssl
import subprocess
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np

from tests.app.data import AFFINE, LABELS, SHAPE
from tests.fake_server import FakeServer
from tests.voxel_bodies import VOXELS, packed, unpacked

__all__ = [
    "HANG",
    "HTML",
    "IMAGE",
    "INFER",
    "INFO",
    "LABEL",
    "FaultServer",
    "label_body",
    "segmentation",
    "self_signed",
    "status",
]

HANG = 120.0  # longer than any test waits
IMAGE, LABEL, INFER = "/rep3d/voxels/images", "/rep3d/voxels/labels", "/rep3d/voxels/infer"
HTML = b"<html><head><title>502 Bad Gateway</title></head><body>nginx</body></html>"
MODEL = {"labels": LABELS, "version": "v1", "error": None, "preset": "tiny"}
INFO = {
    "name": "Rep3D Label",
    "description": "Segmentation",
    "version": "0.1.0",
    "models": {"rep3d": {"type": "segmentation", "description": "Rep3D", "labels": LABELS}},
    "trainers": {"rep3d": {"description": "Trains Rep3D"}},
    "strategies": {"first": {"description": "In order"}},
    "datastore": {"total": 3, "completed": 1},
    "rep3d": {
        "labels": LABELS,
        "version": "v1",
        "device": "cpu",
        "default_model": "rep3d",
        "models": {"rep3d": MODEL},
    },
}


def status(**model: object) -> dict[str, object]:
    """Return the answer of `/rep3d/status`, with changes to what it says of the model."""
    known = {"labels": [], "version": "v1", "versions_stamp": "a", "training": {}, "batch": {"phase": "never"}}
    return {
        "server": {"version": "0.1.0", "device": "cpu", "device_name": "CPU"},
        "cases": {"total": 3, "labelled": 1, "stamp": "a"},
        "default_model": "rep3d",
        "models": {"rep3d": {**known, **model}},
    }


def some_labels() -> np.ndarray:
    """Return a label map with a block of each label."""
    voxels = np.zeros(SHAPE, np.uint8)
    voxels[4:8, 4:8, 4:8], voxels[10:12, 10:12, 10:12] = LABELS.values()
    return voxels


def image_body() -> bytes:
    """Return an image as it is sent."""
    return packed({"image": np.random.default_rng(0).normal(100, 20, SHAPE).astype(np.int16)}, AFFINE)


def label_body(voxels: np.ndarray | None = None, affine: np.ndarray = AFFINE) -> bytes:
    """Return a label map as it is sent."""
    return packed({"label": some_labels() if voxels is None else voxels}, affine)


def segmentation(voxels: np.ndarray | None = None, affine: np.ndarray = AFFINE, **params: object) -> dict[str, object]:
    """Return what to answer to a segmentation, as `on` takes it."""
    told = {"label_names": LABELS, "version": "v1", "latencies": {"total": 0.1}, "device": "cpu", **params}
    return {"content": packed({"label": some_labels() if voxels is None else voxels}, affine, told), "headers": VOXELS}


class FaultServer(FakeServer):
    """The server; everything works at first.

    Args:
        certificate: File with a certificate and its key, for https.
    """

    def __init__(self, certificate: Path | None = None) -> None:
        self._open: list[socket.socket] = []
        self._certificate = certificate
        super().__init__()
        if certificate is not None:
            self.url = self.url.replace("http:", "https:")
            self._encrypt()
        self.works()

    def works(self) -> None:
        """All is well from now on."""
        self.answers.clear()
        self.hold = 0.0
        self.on("GET", "/info/", INFO)
        self.on("GET", "/rep3d/status", status())
        told = self.asked("POST", "/activelearning/first")
        for number in range(told + 3):
            case = f"case_{number}"
            if number >= told:
                self.then("POST", "/activelearning/first", {"id": case, "name": case, "reason": "in order"})
            lease = {"image": case, "user": "me", "since": "2024-01-01T00:00:00Z", "until": "2024-01-01T01:00:00Z"}
            self.on("POST", f"/rep3d/leases/{case}", lease)
            self.on("DELETE", f"/rep3d/leases/{case}", {})
        self.on("GET", IMAGE, image_body(), headers=VOXELS)
        self.on("GET", LABEL, label_body(), headers=VOXELS)
        self.on("PUT", LABEL, {"image": "case_0", "label": "case_0"})
        self.on("POST", INFER, **segmentation())  # type: ignore[arg-type]
        self.on("POST", "/train/rep3d", {"id": "1", "status": "SUBMITTED", "details": []})
        self.on("GET", "/rep3d/cases", [{"id": f"case_{number}", "state": "new"} for number in range(3)])
        versions = [{"version": "v1", "bytes": 10}, {"version": "v2", "published": True, "bytes": 10}]
        self.on("GET", "/rep3d/models/rep3d/versions", {"model": "rep3d", "published": "v2", "versions": versions})
        self.on("POST", "/rep3d/models/rep3d/batch", {"phase": "running", "total": 3, "done": 0})
        self.on("DELETE", "/rep3d/models/rep3d/batch", {"phase": "stopped", "total": 3, "done": 1})

    def place(self, path: str) -> str:
        """Return the same answer for all images and labels."""
        return path.rpartition("/")[0] if path.startswith("/rep3d/voxels/") else path

    def stored(self, image_id: str) -> list[bytes]:
        """Return the labels that arrived whole for an image; one that comes again is not kept again, as in our app."""
        found: list[bytes] = []
        for request in self.received:
            whole = len(request.body) == int(request.headers.get("content-length", 0))
            if (request.method, request.path) == ("PUT", f"{LABEL}/{image_id}") and whole:
                label = unpacked(request.body)[1]["label"].tobytes()
                if label not in found:
                    found.append(label)
        return found

    def asked(self, method: str, path: str) -> int:
        """Return how often something was asked for."""
        return sum((request.method, self.place(request.path)) == (method, path) for request in self.received)

    def handle(self, handler: BaseHTTPRequestHandler) -> None:
        self._open.append(handler.connection)
        super().handle(handler)

    def die(self) -> None:
        """Be gone at once, as after kill -9: what is under way is cut, and nobody listens."""
        self.http.shutdown()
        self.http.server_close()
        for connection in self._open:
            with contextlib.suppress(OSError):
                connection.shutdown(socket.SHUT_RDWR)
        self._open.clear()

    def come_back(self) -> None:
        """Listen at the same port again, and work."""
        place, handler = self.http.server_address, self.http.RequestHandlerClass
        self.works()
        self.http = ThreadingHTTPServer(place, handler)  # type: ignore[arg-type]
        self.http.daemon_threads, self.http.block_on_close = True, False
        threading.Thread(target=self.http.serve_forever, kwargs={"poll_interval": 0.02}, daemon=True).start()

    def _encrypt(self) -> None:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(str(self._certificate))
        self.http.socket = context.wrap_socket(self.http.socket, server_side=True)


def self_signed(folder: Path) -> Path:
    """Return a certificate that nobody vouches for, and its key, in one file."""
    path, key = folder / "server.pem", folder / "key.pem"
    command = (
        "openssl req -x509 -newkey rsa:2048 -nodes -days 2 -subj /CN=127.0.0.1 -addext subjectAltName=IP:127.0.0.1"
    )
    subprocess.run([*command.split(), "-keyout", str(key), "-out", str(path)], check=True, capture_output=True)
    path.write_bytes(path.read_bytes() + key.read_bytes())
    return path
