"""MONAI Label's OAuth mode: its tokens come in, with a browser too, and nothing that only looks like one does."""

from __future__ import annotations

import base64
import hashlib
import hmac
import json
import threading
import time
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any
from urllib.parse import parse_qs

import jwt
import pytest
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import rsa

from tests.app.data import CONF, write_image
from tests.app.server import AppServer

PRIVATE = rsa.generate_private_key(public_exponent=65537, key_size=2048)
PUBLIC = PRIVATE.public_key().public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)


def token(private: Any = PRIVATE, algorithm: str = "RS256", **changes: Any) -> str:
    said = {"preferred_username": "tina", "exp": time.time() + 600, "realm_access": {"roles": ["monailabel-annotator"]}}
    said = {name: value for name, value in {**said, **changes}.items() if value is not None}
    return jwt.encode(said, private, algorithm)


class _Realm(BaseHTTPRequestHandler):
    """A log-in server as far as MONAI Label knows one: its key, where to ask for tokens, and tokens."""

    def do_GET(self) -> None:
        url = f"http://{self.headers['Host']}{self.path}"
        if self.path.endswith("/.well-known/openid-configuration"):
            self._answer(200, {"token_endpoint": url.partition("/.well-known")[0] + "/token"})
        else:
            self._answer(200, {"public_key": base64.b64encode(PUBLIC).decode()})

    def do_POST(self) -> None:
        asked = parse_qs(self.rfile.read(int(self.headers["Content-Length"])).decode())
        if asked["username"] == ["tina"] and asked["password"] == ["right"]:
            self._answer(200, {"access_token": token(), "token_type": "bearer"})
        else:
            self._answer(401, {"error": "invalid_grant"})

    def _answer(self, status: int, content: dict[str, Any]) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *args: Any) -> None:
        """Print nothing."""


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server in OAuth mode, on loopback, with its log-in server."""
    studies = tmp_path_factory.mktemp("studies")
    write_image(studies / "case_0.nii.gz", 0)
    with ThreadingHTTPServer(("127.0.0.1", 0), _Realm) as realm:
        threading.Thread(target=realm.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{realm.server_port}/realms/hospital"
        mode = {"MONAI_LABEL_AUTH_ENABLE": "true", "MONAI_LABEL_AUTH_REALM_URI": address}
        with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF, environment=mode) as running:
            yield running
        realm.shutdown()


def _status(server: AppServer, text: str, path: str = "/info/", method: str = "GET") -> int:
    return server.request(method, path, headers={"Authorization": f"Bearer {text}"}).status_code


def test_tokens_come_in_with_their_roles(server: AppServer) -> None:
    assert server.get("/info/").status_code == 401
    annotator = token()
    assert _status(server, annotator) == 200
    assert _status(server, annotator, "/rep3d/leases/case_0", "POST") == 200
    assert server.get("/rep3d/leases", headers={"Authorization": f"Bearer {annotator}"}).json()[0]["user"] == "tina"
    assert _status(server, annotator, "/logs/") == 403
    reader = token(realm_access={"roles": ["monailabel-user"]})
    assert _status(server, reader) == 200 and _status(server, reader, "/rep3d/leases/case_0", "POST") == 403
    admin = token(realm_access={"roles": ["other", "monailabel-admin"]})
    assert _status(server, admin, "/logs/") == 200 and _status(server, admin) == 200


def test_what_only_looks_like_a_token_does_not(server: AppServer) -> None:
    def part(content: Any) -> str:
        text = content if isinstance(content, bytes) else json.dumps(content).encode()
        return base64.urlsafe_b64encode(text).rstrip(b"=").decode()

    _, said, signature = token().split(".")
    pem = b"-----BEGIN PUBLIC KEY-----\n" + base64.b64encode(PUBLIC) + b"\n-----END PUBLIC KEY-----"
    confused = f"{part({'alg': 'HS256', 'typ': 'JWT'})}.{said}"
    confused += "." + part(hmac.digest(pem, confused.encode(), hashlib.sha256))
    wrong = {
        "no text": "\xe4.\xff.[",
        "no JSON": f"{part(b'x')}.{part(b'y')}.z",
        "another key": token(rsa.generate_private_key(public_exponent=65537, key_size=2048)),
        "no signature": f"{part({'alg': 'none'})}.{said}.",
        "the public key as a secret": confused,
        "of other words": f"{part({'alg': 'RS256'})}.{part({'preferred_username': 'root'})}.{signature}",
        "past": token(exp=time.time() - 1),
        "endless": token(exp=None),
        "no name": token(preferred_username=None),
        "no role": token(realm_access={"roles": ["other"]}),
        "roles of another shape": token(realm_access=["monailabel-admin"]),
    }
    answers = {}
    for number, (name, text) in enumerate(wrong.items()):  # each from a place of its own, or the last waits
        headers = {"Authorization": f"Bearer {text}", "X-Forwarded-For": f"203.0.113.{number}"}
        answers[name] = server.get("/info/", headers=headers).status_code
    assert answers == dict.fromkeys(wrong, 401)


def test_people_log_in_with_name_and_password(server: AppServer) -> None:
    place = {"X-Forwarded-For": "203.0.113.99"}
    assert 'name="username"' in server.get("/rep3d/login").text
    wrong = server.post("/rep3d/login", data={"username": "tina", "password": "wrong"}, headers=place)
    assert wrong.status_code == 401 and not wrong.cookies
    right = {"username": "tina", "password": "right"}
    login = server.post("/rep3d/login", data=right, headers=place, allow_redirects=False)
    assert login.status_code == 303
    cookie = {"Cookie": login.headers["Set-Cookie"].split(";")[0]}
    assert server.get("/rep3d/status", headers=cookie).json()["user"] == "tina"
    given = server.post("/auth/token", data=right, headers=place).json()
    assert _status(server, given["access_token"]) == 200
