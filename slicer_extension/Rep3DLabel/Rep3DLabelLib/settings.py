"""What is remembered from session to session: addresses, options, keys that the user wants kept, the local server.

The store is given: Slicer's settings in Slicer, a dictionary in tests. What cannot be read is as if it were not there:
settings never keep anybody from working.
"""

from __future__ import annotations

import json
from collections.abc import MutableMapping
from dataclasses import asdict, dataclass, fields, replace

from .connection import plain_address
from .view import Options

__all__ = ["LocalChoice", "Settings"]

_KEPT_ADDRESSES = 10


@dataclass(frozen=True)
class LocalChoice:
    """How the local server was started last: Python, app folder, studies folder, label names with commas."""

    python: str = ""
    app: str = ""
    studies: str = ""
    labels: str = ""


class Settings:
    """Typed access to a store of texts.

    Args:
        store: Key -> text; written at each change.
    """

    def __init__(self, store: MutableMapping[str, str]) -> None:
        self._store = store

    @property
    def addresses(self) -> list[str]:
        """Addresses of servers that were connected to, the latest first."""
        found = self._read("addresses")
        return [text for text in found if isinstance(text, str)] if isinstance(found, list) else []

    def remember(self, address: str) -> None:
        """Put an address at the head of the history."""
        others = [known for known in self.addresses if known != address]
        self._write("addresses", [address, *others][:_KEPT_ADDRESSES])

    @property
    def options(self) -> Options:
        """The options; what is missing or of a wrong type has its default."""
        found = self._read("options")
        default = Options()
        if not isinstance(found, dict):
            return default
        good = {
            item.name: found[item.name]
            for item in fields(Options)
            if type(found.get(item.name)) is type(getattr(default, item.name))
        }
        return replace(default, **good)

    def save_options(self, options: Options) -> None:
        """Keep the options."""
        self._write("options", asdict(options))

    def api_key(self, address: str) -> str:
        """Return the key that is kept for a server, "" if none."""
        return self._kept_for("keys", address)

    def keep_key(self, address: str, key: str) -> None:
        """Keep a server's key, which then stands readable in this user's settings; "" forgets it."""
        self._keep_for("keys", address, key)

    def certificate(self, address: str) -> str:
        """Return the certificate file that was given for a server, "" if none."""
        return self._kept_for("certificates", address)

    def keep_certificate(self, address: str, path: str) -> None:
        """Keep where a server's certificate is; "" forgets it."""
        self._keep_for("certificates", address, path)

    def choice(self, name: str) -> str:
        """Return what was chosen last under a name ("model", "strategy"), "" if nothing."""
        found = self._read(f"choice/{name}")
        return found if isinstance(found, str) else ""

    def choose(self, name: str, value: str) -> None:
        """Keep a choice."""
        self._write(f"choice/{name}", value)

    @property
    def local(self) -> LocalChoice:
        """How the local server was started last."""
        found = self._read("local")
        if not isinstance(found, dict):
            return LocalChoice()
        return LocalChoice(**{item.name: str(found.get(item.name) or "") for item in fields(LocalChoice)})

    def save_local(self, choice: LocalChoice) -> None:
        """Keep how the local server is started."""
        self._write("local", asdict(choice))

    def _kept_for(self, what: str, address: str) -> str:
        found = self._read(what)
        text = found.get(plain_address(address)) if isinstance(found, dict) else None
        return text if isinstance(text, str) else ""

    def _keep_for(self, what: str, address: str, text: str) -> None:
        found = self._read(what)
        kept = {**found} if isinstance(found, dict) else {}
        kept.pop(plain_address(address), None)
        if text:
            kept[plain_address(address)] = text
        self._write(what, kept)

    def _read(self, key: str) -> object:
        try:
            return json.loads(self._store.get(key, "null"))
        except (ValueError, TypeError):
            return None

    def _write(self, key: str, value: object) -> None:
        self._store[key] = json.dumps(value)
