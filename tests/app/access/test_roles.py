"""Every address has a stated role: the server's own list of routes, the table in code, and the one in docs agree."""

from __future__ import annotations

import importlib
import re
import sys
from collections.abc import Iterator
from typing import Any

import pytest
from fastapi import FastAPI
from lib.access.roles import ROUTES, Role, role_of, stated_role
from lib.api.app_routes import add_routes
from monailabel.config import settings
from monailabel.endpoints.user.auth import RBAC

from tests.app.server import ROOT


def _leaves(routes: list[Any]) -> Iterator[Any]:
    for route in routes:
        if hasattr(route, "effective_candidates"):
            yield from _leaves(route.effective_candidates())
        else:
            yield route


@pytest.fixture(scope="module")
def routes() -> dict[tuple[str, str], Any]:
    """Return all that MONAI Label and the app answer, in OAuth mode too: method and path, and the route."""
    from monailabel.endpoints import login

    app = FastAPI()
    with pytest.MonkeyPatch.context() as patch:
        patch.delitem(sys.modules, "monailabel.app", raising=False)
        app.router.routes = [*importlib.import_module("monailabel.app").app.router.routes]
        del sys.modules["monailabel.app"]  # where it is imported, the app takes itself for a server that starts
    app.include_router(login.router)
    add_routes(app)
    found: dict[tuple[str, str], Any] = {}
    for route in _leaves(app.router.routes):
        for method in getattr(route, "methods", None) or {"GET"}:
            found.setdefault((method, route.path), route)
    return found


def _asked(path: str) -> str:
    return re.sub(r"\{\w+:path\}", "a/b", re.sub(r"\{\w+\}", "x", path))


def test_every_route_has_a_stated_role(routes: dict[tuple[str, str], Any]) -> None:
    assert len(routes) > 90
    assert [key for key in sorted(routes) if stated_role(key[0], _asked(key[1])) is None] == []


def test_every_row_is_a_route(routes: dict[tuple[str, str], Any]) -> None:
    there = {f"{method} {re.sub(r'/$', '', path)}" for method, path in routes}
    rows = [row for rows in ROUTES.values() for row in rows if "{file" not in row and "/static/" not in row]
    assert [row for row in rows if re.sub(r"/$", "", row) not in there] == []
    assert len(set(rows)) == len(rows)


def test_no_route_asks_for_more_than_its_row(routes: dict[tuple[str, str], Any]) -> None:
    """Routes check MONAI Label's roles, too; the table must be the stricter of both, or the docs would be wrong."""
    roles = {
        settings.MONAI_LABEL_AUTH_ROLE_USER: Role.user,
        settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR: Role.annotator,
        settings.MONAI_LABEL_AUTH_ROLE_REVIEWER: Role.reviewer,
        settings.MONAI_LABEL_AUTH_ROLE_ADMIN: Role.admin,
    }
    checked = 0
    for (method, path), route in routes.items():
        dependant = getattr(route, "dependant", None)
        for each in dependant.dependencies if dependant else ():
            if isinstance(each.call, RBAC):
                checked += 1
                assert roles[each.call.roles] <= role_of(method, _asked(path)), (method, path)
    assert checked > 70


def test_what_has_no_row_is_the_administrators() -> None:
    assert role_of("GET", "/new/address") is Role.admin
    assert role_of("PATCH", "/info/") is Role.admin
    assert role_of("GET", "//info/") is Role.admin
    assert role_of("HEAD", "/datastore/label") is role_of("GET", "/datastore/label/") is Role.user
    assert role_of("GET", "/rep3d/models/x/versions/v1/checkpoint") is role_of("GET", "/logs/") is Role.admin
    assert role_of("GET", "/proxy/dicom/wado/a/b") is Role.nobody


def test_the_table_in_docs_is_the_one_in_code() -> None:
    page = (ROOT / "docs" / "security.md").read_text(encoding="utf-8")
    rows = dict(re.findall(r"^\| (\w+) \| (`(?:GET|POST|PUT|DELETE) .*`) \|$", page, re.MULTILINE))
    assert rows == {role.name: ", ".join(f"`{row}`" for row in ROUTES[role]) for role in Role}
