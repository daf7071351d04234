"""Answers of a server in which nearly every value is of a type that nobody expects."""

from __future__ import annotations

from typing import Any

from tests.app.data import LABELS
from tests.extension.fault_server import INFO, LABEL, status

__all__ = ["ODD", "ODD_PARAMS"]

_TERMS = {"head": {"colour": ["a", None, {}], "category": "x"}, "tail": 3}
_MODEL = {"labels": LABELS, "version": 7, "description": 3, "preset": [], "notes": "x", "terms": _TERMS}
_OWN = {"labels": LABELS, "version": "v1", "device": {}, "default_model": "rep3d", "models": {"rep3d": _MODEL}}
_TRAINING = {"iteration": "x", "losses": 3, "validation": [1], "decision": 4, "progress": [], "error": None, "log": "x"}
_VERSION = {"version": "v1", "cases": 3, "created": 9, "mean_score": "x", "bytes": "y", "decision": [1]}
_CASES = [
    {
        "id": "case_0",
        "state": "new",
        "lease": [3],
        "labels": [1],
        "prediction": "x",
        "score": {},
        "time": 5,
        "author": {},
    },
    {"id": "case_1", "state": "", "labels": {"head": 4, "tail": {"ml": "x"}}, "prediction": {"dice": {"head": None}}},
]

# (method, path) -> answer
ODD: dict[tuple[str, str], Any] = {
    ("GET", "/info/"): {
        **INFO,
        "name": 5,
        "version": [],
        "strategies": {"first": 3},
        "trainers": {"rep3d": None},
        "datastore": "many",
        "rep3d": _OWN,
    },
    ("GET", "/rep3d/status"): status(
        training=_TRAINING, batch={"phase": "done", "failed": [1], "done": "x"}, versions_stamp={}, labels="none"
    ),
    ("GET", "/train/"): {"status": "DONE", "id": {}, "details": {"a": 1}},
    ("GET", "/rep3d/models/rep3d/versions"): {"versions": [_VERSION]},
    ("GET", "/rep3d/cases"): _CASES,
    ("POST", "/activelearning/first"): {
        "id": "case_0",
        "name": 4,
        "reason": ["x"],
        "leased_until": "0001-01-01T00:00:00",
        "used_strategy": {},
    },
    ("PUT", LABEL): {"label": [1], "duplicate": "x", "remapped": None},
}

# What a segmentation tells beside the label map.
ODD_PARAMS: list[dict[str, Any]] = [
    {"latencies": [1], "missing_labels": 3, "fallback": {"a": 1}, "version": None, "device": []},
    {"latencies": {"total": "x"}, "missing_labels": [None, 3], "confidence": {"head": "x"}, "uncertainty": "x"},
]
