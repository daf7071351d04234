"""Who may come in: a server that listens where MONAI Label does by default, asked by those who may and who may not."""

from __future__ import annotations

import http.client
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests
from lib.access.callers import FAILURES
from lib.access.roles import ROUTES, Role
from Rep3DLabelLib.client.client import Rep3DClient
from Rep3DLabelLib.connection import NOT_ALLOWED, READY

from rep3d.keys import KeyBook
from tests.app.data import CONF, publish_small_model, unchanged, write_image, write_label
from tests.app.server import APP_DIR, AppServer

KEY = re.compile(r"rep3d_[0-9a-f]{8}_[\w-]{43}")
ROWS = [row.split(" ") for role, rows in ROUTES.items() if role not in (Role.open, Role.nobody) for row in rows]


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory) -> Iterator[AppServer]:
    """Yield a server started with no word about keys, on every address of this computer."""
    studies = tmp_path_factory.mktemp("studies")
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(studies)
    with AppServer(studies, tmp_path_factory.mktemp("scratch"), CONF, host=None) as running:
        yield running


@pytest.fixture(scope="module")
def book(server: AppServer) -> KeyBook:
    return KeyBook(server.studies / "rep3d")


@pytest.fixture(scope="module")
def keys(server: AppServer, book: KeyBook) -> dict[str, dict[str, str]]:
    """Return the header of a key of each role."""
    found = KEY.findall(server.log)
    assert len(found) == 1
    made = {role: book.make(role, name)[1] for role, name in (("annotator", "Anna"), ("reviewer", "Rosa"))}
    return {role: {"Authorization": f"Bearer {text}"} for role, text in {**made, "admin": found[0]}.items()}


def _path(path: str) -> str:
    return re.sub(r"\{\w+\}", "case_0", path)


def test_the_first_key_is_printed_once_and_only_its_hash_is_kept(
    server: AppServer, keys: dict[str, dict[str, str]], tmp_path: Path
) -> None:
    text = keys["admin"]["Authorization"].split()[1]
    assert f"http://localhost:{server.port}" in server.log
    logs = (APP_DIR / "logs").glob("*")
    files = [file for file in (*server.studies.rglob("*"), *logs) if file.is_file()]
    assert len(files) > 5
    assert [file for file in files if text.split("_", 2)[2].encode() in file.read_bytes()] == []
    assert server.get("/info/", headers=keys["admin"]).status_code == 200
    again = tmp_path / "studies"
    again.mkdir()
    write_image(again / "case_0.nii.gz", 0)
    KeyBook(again / "rep3d").make("admin", "Ada")
    with AppServer(again, tmp_path, CONF, host=None) as restarted:
        assert restarted.get("/info/").status_code == 401 and not KEY.search(restarted.log)


@pytest.mark.parametrize(
    "header", [None, "Bearer wrong", "Bearer rep3d_00000000_x", "Basic YTpi", "Digest x"], ids=lambda text: str(text)
)
def test_without_a_key_nothing_is_given_and_nothing_changes(server: AppServer, header: str | None) -> None:
    address = {"X-Forwarded-For": f"198.51.100.{len(header or '')}"}
    given = {**address, "Authorization": header} if header else address
    with unchanged(server.studies):
        for method, path in [*ROWS, ("GET", "/no/such/address"), ("PATCH", "/info/")]:
            answer = server.request(method, _path(path), headers=given, allow_redirects=False)
            assert answer.status_code in ((401, 429) if header else (401,)), (method, path)
            assert answer.json().keys() == {"detail"} and "case_" not in answer.text
            assert answer.status_code == 429 or answer.headers["WWW-Authenticate"].startswith("Bearer")
    if header:
        assert answer.status_code == 429 and answer.headers["Retry-After"] == "60"


@pytest.mark.parametrize("role", ["annotator", "reviewer"])
def test_no_role_does_what_is_a_higher_ones(server: AppServer, keys: dict[str, dict[str, str]], role: str) -> None:
    higher = [row.split(" ") for known, rows in ROUTES.items() if Role[role] < known < Role.nobody for row in rows]
    assert ["GET", "/logs/"] in higher and ["GET", "/model/{model}"] in higher
    with unchanged(server.studies):
        for method, path in higher:
            answer = server.request(method, _path(path), headers=keys[role])
            assert answer.status_code == 403 and role in answer.json()["detail"], (method, path)


def test_what_monai_label_has_and_we_do_not_is_nobodys(server: AppServer, keys: dict[str, dict[str, str]]) -> None:
    for path in ("/proxy/dicom/wado/http://192.0.2.1/", "/ohif/viewer", "/static/ohif/index.html", "/static/../app.py"):
        assert server.get(path, headers=keys["admin"]).status_code == 404, path


def test_each_way_to_send_a_key(server: AppServer, keys: dict[str, dict[str, str]]) -> None:
    text = keys["annotator"]["Authorization"].split()[1]
    assert server.get("/info/", headers=keys["annotator"]).status_code == 200
    assert server.get("/info/", auth=("anybody", text)).status_code == 200
    assert Rep3DClient(server.url, api_key=text).test_connection().state == READY
    assert Rep3DClient(server.url).test_connection().state == NOT_ALLOWED
    # As MONAI Label's own Slicer module does it: is a name asked for, what is the token, does it hold?
    assert server.get("/auth/").json()["enabled"] is True
    token = server.post("/auth/token", data={"username": "x", "password": text}).json()["access_token"]
    bearer = {"Authorization": f"Bearer {token}"}
    assert server.get("/auth/token/valid", headers=bearer).json()["username"] == "Anna"
    place = {"X-Forwarded-For": "203.0.113.1"}
    wrong = server.post("/auth/token", data={"username": "x", "password": "y"}, headers=place)
    assert wrong.status_code == 401 and "access_token" not in wrong.json()
    assert server.post("/auth/token", data="x" * 10_000).status_code == 422


def test_an_author_is_the_keys_name(server: AppServer, keys: dict[str, dict[str, str]], tmp_path: Path) -> None:
    label = write_label(tmp_path / "label.nii.gz", 1)
    with label.open("rb") as file:
        answer = server.put(
            "/datastore/label",
            params={"image": "case_1"},
            data={"params": json.dumps({"user": "Rosa", "client_id": "Rosa"})},
            files={"label": (label.name, file)},
            headers=keys["annotator"],
        )
    assert answer.status_code == 200, answer.text
    assert server.get("/rep3d/cases/case_1", headers=keys["annotator"]).json()["author"] == "Anna"


def test_a_login_of_a_browser(server: AppServer, book: KeyBook) -> None:
    key, text = book.make("annotator", "Lena")
    page = {"Accept": "text/html", "X-Forwarded-For": "203.0.113.2"}
    asked = server.get("/rep3d/", headers=page, allow_redirects=False)
    assert asked.status_code == 303 and asked.headers["Location"] == "../rep3d/login"
    wrong = server.post("/rep3d/login", data={"password": "<b>wrong"}, headers=page)
    assert wrong.status_code == 401 and "opens nothing" in wrong.text and not wrong.cookies and "<b>" not in wrong.text
    session = requests.Session()
    url = f"{server.url}/rep3d/login"
    secure = session.post(url, data={"password": text}, headers={"X-Forwarded-Proto": "https"}, allow_redirects=False)
    assert {"HttpOnly", "SameSite=strict", "Secure"} <= set(secure.headers["Set-Cookie"].split("; "))
    plain = session.post(url, data={"password": text}, allow_redirects=False)
    assert plain.status_code == 303 and "Secure" not in plain.headers["Set-Cookie"] and text not in str(plain.headers)
    cookie = {"Cookie": plain.headers["Set-Cookie"].split(";")[0]}
    assert server.get("/rep3d/status", headers=cookie).json()["user"] == "Lena"
    assert server.get("/logs/", headers=cookie).status_code == 403
    out = server.post("/rep3d/logout", headers=cookie, allow_redirects=False)
    assert out.status_code == 303 and server.get("/rep3d/status", headers=cookie).status_code == 401
    other = session.post(url, data={"password": text}, allow_redirects=False).headers["Set-Cookie"].split(";")[0]
    assert server.get("/info/", headers={"Cookie": other}).status_code == 200
    book.revoke(key.id)  # by another process, while the server runs
    assert server.get("/info/", headers={"Cookie": other}).status_code == 401
    assert server.get("/info/", headers={"Authorization": f"Bearer {text}"}).status_code == 401


def test_wrong_keys_are_slowed_down(server: AppServer, keys: dict[str, dict[str, str]]) -> None:
    place = {"X-Forwarded-For": "203.0.113.3"}
    assert server.get("/info/", headers={**place, **keys["annotator"]}).status_code == 200
    tries = [server.post("/rep3d/login", data={"password": "x"}, headers=place) for _ in range(FAILURES + 2)]
    assert [answer.status_code for answer in tries] == [401] * FAILURES + [429] * 2
    assert server.get("/info/", headers={**place, **keys["reviewer"]}).status_code == 429
    assert server.get("/info/", headers={**place, **keys["annotator"]}).status_code == 200, "who was in stays in"


FOREIGN = [
    {"Host": "evil.example"},
    {"Host": "localhost.evil.example:8000"},
    {"Host": "127.0.0.1@evil.example"},
    {"Host": "192.0.2.55"},
    {"Host": ""},
    {"Origin": "http://evil.example"},
    {"Origin": "null"},
    {"Origin": "http://localhost"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "no-cors", "Sec-Fetch-Dest": "image"},
    {"Sec-Fetch-Site": "same-site", "Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"},
    {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "iframe"},
]


@pytest.mark.parametrize("headers", FOREIGN, ids=lambda headers: " ".join(headers.values()) or "no host")
def test_no_other_host_and_no_other_page(
    server: AppServer, keys: dict[str, dict[str, str]], headers: dict[str, str]
) -> None:
    status = 421 if "Host" in headers else 403
    with unchanged(server.studies):
        for method, path in (("GET", "/info/"), ("POST", "/reload"), ("DELETE", "/datastore/image?id=case_0")):
            answer = server.request(method, path, headers={**keys["admin"], **headers})
            assert answer.status_code == status and answer.json().keys() == {"detail"}
            assert not any(name.lower().startswith("access-control") for name in answer.headers)


def test_odd_headers_are_refused_and_break_nothing(server: AppServer) -> None:
    odd = [b"", b"\xff\xe4", b"[", b"http://[", b"://", b";=;", b"a" * 20_000]
    odd += [b"Basic \xff", b"Basic ====", b"Bearer \xe4.\xff.["]
    for name in ("Host", "Origin", "Authorization", "Cookie", "Sec-Fetch-Site", "X-Forwarded-For"):
        for value in odd:
            connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
            connection.putrequest("GET", "/info/", skip_host=name == "Host")
            connection.putheader(name, value)
            if name != "X-Forwarded-For":
                connection.putheader("X-Forwarded-For", f"203.0.113.{100 + odd.index(value)}")
            connection.endheaders()
            assert connection.getresponse().status in (400, 401, 403, 421, 429), (name, value)
            connection.close()


def test_a_link_from_another_page_shows_the_page_but_does_nothing(
    server: AppServer, keys: dict[str, dict[str, str]]
) -> None:
    link = {"Sec-Fetch-Site": "cross-site", "Sec-Fetch-Mode": "navigate", "Sec-Fetch-Dest": "document"}
    assert server.get("/rep3d/", headers={**keys["admin"], **link}).status_code == 200
    assert server.post("/reload", headers={**keys["admin"], **link}).status_code == 403


def test_every_answer_has_strict_headers_and_no_page_loads_from_elsewhere(
    server: AppServer, keys: dict[str, dict[str, str]]
) -> None:
    pages = ("/docs", "/logs/", "/logs/?html=true", "/rep3d/", "/rep3d/login", "/openapi.json")
    for path in ("/", *pages, "/no/such", "/logs/gpu", "/datastore/label?label=case_0&tag=final", "/rep3d/api.js"):
        for given in ({}, keys["admin"], {**keys["admin"], "Host": "evil.example"}):
            answer = server.get(path, headers=given, allow_redirects=False)
            policy = answer.headers["Content-Security-Policy"]
            assert "unsafe" not in policy and "frame-ancestors 'none'" in policy, path
            assert answer.headers["X-Content-Type-Options"] == "nosniff" and "Cache-Control" in answer.headers
            if answer.headers.get("Content-Type", "").startswith("text/html"):
                assert re.findall(r"""(?:src|href)=["']?(?:https?:)?//[^"'>]+""", answer.text) == []
                assert "<script>" not in answer.text and "<style" not in answer.text
    for path in pages:
        assert server.get(path, headers=keys["admin"]).status_code == 200


def test_a_damaged_file_of_keys_lets_nobody_in(
    server: AppServer, book: KeyBook, keys: dict[str, dict[str, str]]
) -> None:
    whole = book.path.read_bytes()
    book.path.write_bytes(whole[:-20])
    try:
        for answer in (
            server.get("/info/", headers=keys["admin"]),
            server.post("/rep3d/login", data={"password": "rep3d_a_b"}),
        ):
            assert answer.status_code == 500 and "file of keys" in answer.json()["detail"]
            assert str(server.studies) not in answer.text
        assert book.path.read_bytes() == whole[:-20]
    finally:
        book.path.write_bytes(whole)
    assert server.get("/info/", headers=keys["admin"]).status_code == 200
