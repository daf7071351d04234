"""Slicer's settings as a plain mapping of texts, for `settings.Settings`."""

from __future__ import annotations

from collections.abc import Iterator, MutableMapping
from typing import Any

__all__ = ["QtStore"]


class QtStore(MutableMapping[str, str]):
    """A group of a QSettings.

    Args:
        store: The QSettings.
        group: Prefix of its keys.
    """

    def __init__(self, store: Any, group: str = "Rep3DLabel") -> None:
        self._store, self._group = store, group

    def __getitem__(self, key: str) -> str:
        name = self._name(key)
        if not self._store.contains(name):
            raise KeyError(key)
        return str(self._store.value(name))

    def __setitem__(self, key: str, value: str) -> None:
        self._store.setValue(self._name(key), value)

    def __delitem__(self, key: str) -> None:
        self._store.remove(self._name(key))

    def __iter__(self) -> Iterator[str]:
        prefix = f"{self._group}/"
        return iter([name[len(prefix) :] for name in self._store.allKeys() if name.startswith(prefix)])

    def __len__(self) -> int:
        return len(list(iter(self)))

    def _name(self, key: str) -> str:
        return f"{self._group}/{key}"
