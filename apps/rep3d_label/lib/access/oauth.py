"""MONAI Label's OAuth mode (``MONAI_LABEL_AUTH_ENABLE``): tokens of a log-in server such as Keycloak.

MONAI Label 0.8.5 names no algorithm where it checks a token, so that PyJWT refuses every one of them. Here they are
checked with the same settings, and with the algorithms that the realm's RSA key is for.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import jwt
import requests
from monailabel.config import settings
from monailabel.endpoints.user import auth

from lib.access.roles import Role
from lib.errors import BusyError

__all__ = ["Token", "read_token", "roles_of", "token_for"]

_ALGORITHMS = ["RS256", "RS384", "RS512"]


@dataclass(frozen=True)
class Token:
    """What a valid token says: who, as what, and until when in seconds since 1970."""

    name: str
    role: Role
    expires: float


def roles_of(role: Role) -> list[str]:
    """Return MONAI Label's names of a role and of all below it."""
    return [name for known, name in _names().items() if known <= role]


def read_token(text: str) -> Token | None:
    """Return what a token says, if it is valid and names a role of this server.

    Raises:
        BusyError: if the log-in server does not tell its key.
    """
    try:
        key = auth.get_public_key(settings.MONAI_LABEL_AUTH_REALM_URI)
    except (requests.RequestException, KeyError, ValueError) as error:
        raise _unreachable() from error
    try:
        options = {"verify_aud": False, "require": ["exp"]}
        said = jwt.decode(text, key, algorithms=_ALGORITHMS, options=options)  # type: ignore[arg-type]
    except jwt.InvalidTokenError:
        return None
    named: Any = said
    for step in settings.MONAI_LABEL_AUTH_TOKEN_ROLES.split("#"):
        named = named.get(step) if isinstance(named, dict) else None
    roles = [role for role, name in _names().items() if isinstance(named, list) and name in named]
    name = said.get(settings.MONAI_LABEL_AUTH_TOKEN_USERNAME)
    if not isinstance(name, str) or not name or not roles:
        return None
    return Token(name, max(roles), float(said["exp"]))


def token_for(name: str, password: str) -> str | None:
    """Return the token that the log-in server gives a person; None if it refuses.

    Raises:
        BusyError: if it does not answer.
    """
    asked = {
        "client_id": settings.MONAI_LABEL_AUTH_CLIENT_ID,
        "username": name,
        "password": password,
        "grant_type": "password",
    }
    try:
        answer = requests.post(auth.token_uri(), data=asked, timeout=settings.MONAI_LABEL_AUTH_TIMEOUT)
        said = answer.json()
        if said.get("error") == "invalid_grant":  # OAuth's word for a wrong name or password
            return None
        token = said["access_token"]
    except (requests.RequestException, AttributeError, KeyError, ValueError) as error:
        raise _unreachable() from error
    return token if isinstance(token, str) else None


def _names() -> dict[Role, str]:
    return {
        Role.user: settings.MONAI_LABEL_AUTH_ROLE_USER,
        Role.annotator: settings.MONAI_LABEL_AUTH_ROLE_ANNOTATOR,
        Role.reviewer: settings.MONAI_LABEL_AUTH_ROLE_REVIEWER,
        Role.admin: settings.MONAI_LABEL_AUTH_ROLE_ADMIN,
    }


def _unreachable() -> BusyError:
    return BusyError("The log-in server (MONAI_LABEL_AUTH_REALM_URI) does not answer as one. Try again in a moment.")
