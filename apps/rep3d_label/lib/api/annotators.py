"""Who asks: the name under which samples are lent and labels are kept."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from fastapi import Request
from monailabel.endpoints.user.auth import User

from lib.access.audit import note
from lib.api.access import name_of
from lib.api.forms import is_text
from lib.errors import RequestError

__all__ = ["Annotator"]


@dataclass(frozen=True)
class Annotator:
    """One who asks.

    Attributes:
        name: as authenticated; else ``user``, else ``client_id``, as the client gave it; None if it gave none.
        names: all that a lease of this annotator may be under: these names, and without authentication the client's
            address, under which a client that names nobody is known.
    """

    name: str | None
    names: frozenset[str]
    address: str

    @property
    def lease_name(self) -> str:
        """The name that a lease is taken under."""
        return self.name or self.address

    @classmethod
    def of(cls, user: User, params: Mapping[str, Any], request: Request) -> Annotator:
        """Return who asks, by authentication, by what the client says, by its address.

        Raises:
            RequestError: for a name that is no short text.
        """
        address = request.client.host if request.client else "unknown"
        if (known := name_of(user)) is not None:
            return cls(known, frozenset({known}), address)
        given = [params[key] for key in ("user", "client_id") if params.get(key) not in (None, "")]
        for name in given:
            if not is_text(name) or len(name) > 200:
                raise RequestError(f"user must be a name of at most 200 characters, not {str(name)[:200]!r}.")
        note(says=given[0] if given else None)
        return cls(given[0] if given else None, frozenset({*given, address}), address)
