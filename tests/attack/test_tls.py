"""TLS with a self-made certificate: by the server itself, and by nginx with the configuration of docs/security.md."""

from __future__ import annotations

import contextlib
import datetime
import ipaddress
import re
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import psutil
import pytest
import requests
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from rep3d.keys import KeyBook
from tests.app.data import CONF, write_image, write_nifti
from tests.app.server import ROOT, AppServer, free_port

NAME = "label.hospital.org"


@pytest.fixture(scope="module")
def certificate(tmp_path_factory: pytest.TempPathFactory) -> tuple[Path, Path]:
    """Return the files of a certificate for 127.0.0.1 and the hospital's name, and of its key."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, NAME)])
    now, day = datetime.datetime.now(datetime.timezone.utc), datetime.timedelta(days=1)
    made = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number(), now, now + day)
        .add_extension(
            x509.SubjectAlternativeName([x509.DNSName(NAME), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]), False
        )
        .add_extension(x509.BasicConstraints(ca=True, path_length=0), True)
        .sign(key, hashes.SHA256())
    )
    folder = tmp_path_factory.mktemp("certificate")
    (folder / "cert.pem").write_bytes(made.public_bytes(serialization.Encoding.PEM))
    plain = serialization.NoEncryption()
    secret = key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, plain)
    (folder / "key.pem").write_bytes(secret)
    return folder / "cert.pem", folder / "key.pem"


def _studies(tmp_path: Path) -> tuple[Path, str]:
    """Return a studies folder, and an annotator's key."""
    write_image(tmp_path / "studies" / "case_0.nii.gz")
    return tmp_path / "studies", KeyBook(tmp_path / "studies" / "rep3d").make("annotator", "Anna")[1]


def test_the_servers_own_tls(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    studies, key = _studies(tmp_path)
    with AppServer(studies, tmp_path, {**CONF, "keys": "on"}, certificate=certificate) as server:
        assert server.get("/info/").status_code == 401
        assert server.get("/info/", headers={"Authorization": f"Bearer {key}"}).status_code == 200
        page = {"headers": {"Origin": server.url}, "data": {"password": key}, "allow_redirects": False}
        cookie = server.post("/rep3d/login", **page).headers["Set-Cookie"]
        assert "Secure" in cookie and "HttpOnly" in cookie and "SameSite=strict" in cookie
        with pytest.raises(requests.exceptions.SSLError):  # who does not know the certificate sends nothing
            server.get("/info/", verify=True)
        with pytest.raises(requests.ConnectionError):  # and without TLS nothing is said
            requests.get(f"http://127.0.0.1:{server.port}/info/", timeout=30)
        psutil.Process(server.pid).kill()  # it would wait half a minute for those who began TLS and did not end it


@contextlib.contextmanager
def _nginx(folder: Path, certificate: tuple[Path, Path], behind: int) -> Iterator[str]:
    """Run nginx as the document says, on a free port; yield its address."""
    block = re.search(r"```\n(server \{.*?\n\})\n```", (ROOT / "docs/security.md").read_text(encoding="utf-8"), re.S)
    assert block is not None
    port = free_port()
    listen = (
        f"listen 127.0.0.1:{port} ssl;\n  ssl_certificate {certificate[0]};\n  ssl_certificate_key {certificate[1]};"
    )
    text = block[1].replace("listen 443 ssl;", listen).replace("127.0.0.1:8000", f"127.0.0.1:{behind}")
    kinds = ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    places = "".join(f"{kind}_temp_path {folder}/{kind};\n" for kind in kinds)
    file = folder / "nginx.conf"
    file.write_text(
        f"daemon off; master_process off; pid {folder}/pid; error_log stderr;\nevents {{}}\n"
        f"http {{ access_log off;\n{places}{text}\n}}\n"
    )
    with (folder / "nginx.log").open("wb") as log:
        process = subprocess.Popen(["nginx", "-c", str(file), "-p", str(folder)], stdout=log, stderr=log)
    try:
        for _ in range(200):
            with contextlib.suppress(requests.ConnectionError):
                requests.get(f"https://127.0.0.1:{port}/", verify=str(certificate[0]), timeout=30)
                break
            assert process.poll() is None, (folder / "nginx.log").read_text()
            time.sleep(0.05)
        yield f"https://127.0.0.1:{port}"
    finally:
        process.terminate()
        process.wait(30)


@pytest.mark.skipif(shutil.which("nginx") is None, reason="no nginx here: apt-get install nginx")
def test_nginx_as_the_document_says(certificate: tuple[Path, Path], tmp_path: Path) -> None:
    studies, key = _studies(tmp_path)
    verify, host = str(certificate[0]), {"Host": NAME}
    with (
        AppServer(studies, tmp_path, {**CONF, "hosts": NAME}) as server,
        _nginx(tmp_path, certificate, server.port) as url,
    ):

        def ask(method: str, path: str, headers: dict[str, str], **options: object) -> requests.Response:
            sent = {**host, **headers}
            return requests.request(method, f"{url}{path}", headers=sent, verify=verify, timeout=60, **options)

        with_key = {"Authorization": f"Bearer {key}"}
        assert ask("GET", "/info/", {}).status_code == 401
        assert ask("GET", "/info/", with_key).json()["name"] == "Rep3D Label"
        assert ask("GET", "/info/", {**with_key, "Host": "evil.example"}).status_code == 421
        # A page of the server itself may log in and change something, another site's may not.
        sent = {"data": {"password": key}, "allow_redirects": False}
        assert ask("POST", "/rep3d/login", {"Origin": "https://evil.example"}, **sent).status_code == 403
        answer = ask("POST", "/rep3d/login", {"Origin": f"https://{NAME}"}, **sent)
        assert answer.status_code == 303 and "Secure" in answer.headers["Set-Cookie"]
        cookie = {"Cookie": answer.headers["Set-Cookie"].split(";")[0], "Origin": f"https://{NAME}"}
        assert ask("POST", "/rep3d/leases/case_0", cookie).status_code == 200
        # More than the megabyte that nginx takes by itself.
        noise = np.random.default_rng(0).integers(0, 1000, (128, 96, 96)).astype(np.int16)
        image = write_nifti(tmp_path / "large.nii.gz", noise)
        assert image.stat().st_size > 1_500_000
        with image.open("rb") as file:
            answer = ask("PUT", "/datastore/image", with_key, params={"image": "large"}, files={"file": file})
        assert answer.status_code == 200, answer.text
