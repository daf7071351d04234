"""Which cases of a starter model's data set only measure it: decided by each case's name, for ever."""

from __future__ import annotations

import hashlib

__all__ = ["RULE", "is_held_out"]

RULE = "held out where the first 32 bits of the SHA-256 of the case's id, as a share of 2^32, are below 0.2"
_SHARE = 0.2


def is_held_out(case: str) -> bool:
    """Return whether a case is held out to measure on: about a fifth of them are.

    It depends on the id alone, so it stays the same however many cases are added.
    """
    return int.from_bytes(hashlib.sha256(case.encode()).digest()[:4], "big") < _SHARE * 2**32
