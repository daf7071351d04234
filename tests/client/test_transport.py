"""Addresses, keys, and every way in which a request can fail, against an HTTP server that fails in it."""

from __future__ import annotations

import os
import socket

import numpy as np
import pytest
import requests
import urllib3
from Rep3DLabelLib.client import Rep3DClient, Timeouts
from Rep3DLabelLib.client.failures import error_of_exception
from Rep3DLabelLib.client.transfers import FileBody
from Rep3DLabelLib.connection import normalise_address
from Rep3DLabelLib.errors import (
    BadAnswer,
    ConnectionCut,
    InvalidAddress,
    LocalProblem,
    NotAllowedError,
    RequestRefused,
    ServerBusy,
    ServerTimeout,
    ServerUnreachable,
)

from tests.voxel_bodies import voxels_of


@pytest.mark.parametrize(
    ("text", "address"),
    [
        ("localhost:8000", "http://localhost:8000"),
        ("  http://localhost:8000//  ", "http://localhost:8000"),
        ("HTTPS://Server.Hospital.org/rep3d/", "https://Server.Hospital.org/rep3d"),
        ("10.0.0.7", "http://10.0.0.7"),
        ("http://[::1]:8000", "http://[::1]:8000"),
        ("klinik-süd.de", "http://klinik-süd.de"),
        ("gpu_box:8000", "http://gpu_box:8000"),
    ],
)
def test_addresses_are_normalised(text, address):
    assert normalise_address(text) == address


@pytest.mark.parametrize(
    "text",
    [
        "",
        "   ",
        "http://",
        "ftp://server",
        "file:///etc/passwd",
        "http:/localhost",
        "http:localhost:8000",
        "my server",
        "localhost:port",
        "localhost:99999",
        "localhost:0",
        "localhost:",
        "http://[::1",
        "::1",
        "server/?a=1",
        "server/#top",
        "..",
        ".",
        "a..b",
        "x" * 70,
        "C:\\data",
        "http://http://server",
    ],
)
def test_nonsense_is_no_address(text):
    with pytest.raises(InvalidAddress, match="Enter it like"):
        Rep3DClient(text)


def test_a_password_in_an_address_is_refused_and_not_repeated():
    with pytest.raises(InvalidAddress) as caught:
        Rep3DClient("http://anna:secret@server")
    assert "secret" not in str(caught.value)


def test_a_path_before_the_interface_is_kept(server):
    server.on("GET", "/rep3d/info/", {"models": {"rep3d": {}}})
    assert Rep3DClient(server.url + "/rep3d/").is_alive()
    assert server.received[0].path == "/rep3d/info/"


@pytest.mark.parametrize("value", [0, -1, float("inf"), float("nan")])
def test_impossible_time_limits_are_refused(value):
    with pytest.raises(ValueError, match="infer"):
        Timeouts(infer=value)


# ---- keys and proxies


def test_the_key_is_sent(server, connect):
    connect(api_key=" k-1 ").info()
    assert server.received[-1].headers["authorization"] == "Bearer k-1"
    connect().info()
    assert "authorization" not in server.received[-1].headers


def test_the_key_is_not_replaced_by_a_netrc_file(server, connect, tmp_path, monkeypatch):
    (tmp_path / "netrc").write_text("machine 127.0.0.1 login other password wrong\n")
    monkeypatch.setenv("NETRC", str(tmp_path / "netrc"))
    connect(api_key="k-1", session=requests.Session()).info()
    assert server.received[-1].headers["authorization"] == "Bearer k-1"


@pytest.mark.parametrize("key", ["a\r\nX-Evil: 1", "schlüssel", "a b"])
def test_a_key_that_cannot_be_one_is_refused(server, key):
    with pytest.raises(LocalProblem, match="key"):
        Rep3DClient(server.url, api_key=key)


def test_missing_certificates_are_noticed_at_once(server, tmp_path):
    with pytest.raises(LocalProblem, match="certificates"):
        Rep3DClient(server.url, verify=str(tmp_path / "missing.pem"))


def test_a_proxy_setting_does_not_hide_a_server_on_this_computer(client, monkeypatch):
    for name in ("http_proxy", "HTTP_PROXY", "all_proxy"):
        monkeypatch.setenv(name, "http://127.0.0.1:9")
    for name in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(name, raising=False)
    assert client.is_alive()


def test_a_wrong_key(server, connect):
    server.on("GET", "/info/", {"detail": "Could not validate credentials"}, status=401)
    with pytest.raises(NotAllowedError, match="Check the API key"):
        connect(api_key="k-1").info()


# ---- connections that fail


def test_nothing_listens():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    with pytest.raises(ServerUnreachable, match="Nothing listens"):
        Rep3DClient(f"127.0.0.1:{port}").info()


def test_an_unknown_host():
    with pytest.raises(ServerUnreachable, match="host name in http://no-such-host.invalid is not known"):
        Rep3DClient("no-such-host.invalid").info()


def test_a_connection_that_is_not_set_up_in_time():
    with socket.socket() as full:  # a full queue of a socket that accepts nobody lets further connections hang
        full.bind(("127.0.0.1", 0))
        full.listen(0)
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for one in waiting:
                one.setblocking(False)
                one.connect_ex(address)
            client = Rep3DClient(f"127.0.0.1:{address[1]}", timeouts=Timeouts(connect=0.3, read=5))
            with pytest.raises(ServerUnreachable, match="Nothing answers at"):
                client.info()
        finally:
            for one in waiting:
                one.close()


def test_a_server_that_accepts_and_says_nothing(server, connect):
    server.on("GET", "/info/", {}, delay=0.6)
    with pytest.raises(ServerTimeout, match="0.2 s.*GET /info/"):
        connect(timeouts={"read": 0.2}).info()
    assert len(server.received) == 1


def test_an_upload_that_is_not_taken_times_out(tmp_path):
    source = voxels_of(np.zeros((300, 300, 350), np.uint8), tmp_path / "a.raw")
    with socket.socket() as idle:
        idle.bind(("127.0.0.1", 0))
        idle.listen(1)
        client = Rep3DClient(f"127.0.0.1:{idle.getsockname()[1]}", timeouts=Timeouts(connect=5, send=0.3, transfer=5))
        with pytest.raises(ServerTimeout):
            client.add_image("a", source)


def test_an_upload_waits_for_a_server_that_is_computing(server, connect, tmp_path):
    """urllib3 sends under the connect time-out: an upload failed when the server read nothing for a few seconds."""
    server.on("PUT", "/rep3d/voxels/images/a", {"image": "a"})
    server.hold = 0.6
    source = voxels_of(np.zeros((300, 300, 350), np.uint8), tmp_path / "a.raw")
    assert connect(timeouts={"connect": 0.2, "send": 5.0, "transfer": 5.0}).add_image("a", source) == "a"
    assert len(server.received[-1].body) > 30_000_000


def test_an_upload_is_streamed(server, client, tmp_path, monkeypatch):
    """The file must not be read into memory as a whole: images take gigabytes."""
    blocks = []
    begin = FileBody.__iter__

    def watched(body):
        for block in begin(body):
            blocks.append(len(block))
            yield block

    monkeypatch.setattr(FileBody, "__iter__", watched)
    server.on("PUT", "/rep3d/voxels/images/a", {"image": "a"})
    client.add_image("a", voxels_of(np.zeros((100, 100, 300), np.uint8), tmp_path / "a.raw"))
    assert sum(blocks) == len(server.received[-1].body) > 3_000_000
    assert all(0 < size <= 1 << 18 for size in blocks)


def test_no_route_in_time_is_not_taken_for_a_busy_server():
    """The system's own time-out of a connection (errno 110) is wrapped like a refused connection."""
    cause = TimeoutError(110, "Connection timed out")
    connection = urllib3.connection.HTTPConnection("x")
    wrapped = urllib3.exceptions.NewConnectionError(connection, "Failed to establish a new connection")
    wrapped.__cause__ = cause
    error = error_of_exception(requests.ConnectionError(wrapped), "http://x", "GET /info/", 5, in_body=False)
    assert type(error) is ServerUnreachable and "Connection timed out" in str(error)


def test_a_get_is_sent_again_once_after_a_reset(server, client):
    server.on("GET", "/rep3d/cases", reset=True)
    server.then("GET", "/rep3d/cases", [])
    assert client.cases() == ()
    server.on("GET", "/rep3d/cases", reset=True)
    server.received.clear()
    with pytest.raises(ConnectionCut):
        client.cases()
    assert len(server.received) == 2


@pytest.mark.parametrize("method", ["POST", "DELETE"])
def test_nothing_else_is_sent_again(server, client, method):
    server.on("POST", "/train/rep3d", reset=True)
    server.on("DELETE", "/train/", reset=True)
    with pytest.raises(ConnectionCut, match="carried out"):
        client.train_start() if method == "POST" else client.train_stop()
    assert [request.method for request in server.received if request.method != "GET"] == [method]


def test_connections_are_not_kept(server, client):
    client.info()
    assert server.received[-1].headers["connection"] == "close"


# ---- answers that are none


@pytest.mark.parametrize(
    "answer",
    [
        {"raw": b"SSH-2.0-OpenSSH_9.2\r\n"},
        {"raw": os.urandom(64) + b"\r\n\r\n"},
        {"content": b"<html><head><title>Not\n us</title></head></html>", "headers": {"Content-Type": "text/html"}},
        {"content": b"\xff\xfe\x00garbage"},
        {"content": b""},
        {"content": [{"id": "a"}], "cut_after": 5},
        {"content": b'[{"id": ', "announce": False},
        {"content": b"junk", "headers": {"Content-Encoding": "gzip"}},
        {"content": ["cases"]},
        {"status": 307, "headers": {"Location": "/elsewhere/"}},
    ],
)
def test_bad_answers(server, client, answer):
    server.on("GET", "/rep3d/cases", **answer)
    with pytest.raises(BadAnswer):
        client.cases()


def test_a_redirect_is_not_followed(server, connect, tmp_path):
    """A followed redirect turns a PUT into a GET, and a label would be lost with status 200."""
    server.on("PUT", "/rep3d/voxels/labels/a", status=302, headers={"Location": "/info/"})
    source = voxels_of(np.zeros((2, 3, 4), np.uint8), tmp_path / "a.raw")
    with pytest.raises(BadAnswer, match="redirects to /info/"):
        connect(api_key="k").submit_label("a", source)
    assert [request.path for request in server.received] == ["/rep3d/voxels/labels/a"]


def test_the_title_of_a_web_page_is_shown(server, client):
    server.on("GET", "/rep3d/cases", b"<html><title>Hospital\n login</title></html>")
    with pytest.raises(BadAnswer, match=r"a web page \('Hospital login'\)"):
        client.cases()


@pytest.mark.parametrize(
    ("content", "detail"),
    [
        ({"detail": "plain words."}, "plain words"),
        ({"detail": [{"loc": ["body", 0], "msg": "no"}, "loose"]}, "body 0: no; loose"),
        ({"detail": {"code": 7}}, '{"code": 7}'),
        (b"<html><title>400 Bad</title>", "a web page ('400 Bad')"),
        (b"", ""),
        (None, "null"),
    ],
)
def test_the_reason_of_a_refusal_is_rendered(server, client, content, detail):
    server.on("GET", "/rep3d/cases", content, status=400)
    with pytest.raises(RequestRefused) as caught:
        client.cases()
    assert type(caught.value) is RequestRefused
    assert (caught.value.status, caught.value.detail) == (400, detail)
    assert (detail or "no reason given") in str(caught.value)


@pytest.mark.parametrize("status", [429, 503])
@pytest.mark.parametrize(("header", "seconds"), [("7", 7.0), ("Wed, 21 Oct 2026 07:28:00 GMT", None), ("", None)])
def test_busy(server, client, status, header, seconds):
    server.on(
        "GET", "/rep3d/cases", {"detail": "full"}, status=status, headers={"Retry-After": header} if header else {}
    )
    with pytest.raises(ServerBusy, match="full") as caught:
        client.cases()
    assert (caught.value.status, caught.value.retry_after) == (status, seconds)
    assert ("in 7 s" in str(caught.value)) == (seconds == 7.0)
