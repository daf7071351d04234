"""The studies folder that release 0.1.0 wrote, see ``tests/data/studies_0_1_0/make.py``; tests work on copies."""

from __future__ import annotations

import json
import os
import shutil
from pathlib import Path
from typing import Any

__all__ = ["ANSWERS", "OLD", "old_studies"]

OLD = Path(__file__).resolve().parents[1] / "data" / "studies_0_1_0"
_LASTS = "2999-01-01T00:00:00.000+00:00"


def _answers() -> dict[str, Any]:
    text = (OLD / "answers.json").read_text(encoding="utf-8")
    return json.loads(text.replace(_until(text), _LASTS))


def _until(text: str) -> str:
    return str(json.loads(text)["/rep3d/leases"][0]["until"])


ANSWERS = _answers()
"""What the old server answered last, by address; with a lease that lasts."""


def old_studies(target: Path) -> Path:
    """Return a copy of the folder, as the old server left it: its times, one file under two names, a lease that
    lasts."""
    shutil.copytree(OLD / "studies", target)
    for file, stamp in json.loads((OLD / "times.json").read_text(encoding="utf-8")).items():
        os.utime(target / file, ns=(stamp, stamp))
    model = target / "rep3d" / "models" / "rep3d"
    (model / "versions" / "v2" / "model.pt").chmod(0o444)
    os.link(model / "versions" / "v2" / "model.pt", model / "published.pt")
    leases = target / "rep3d" / "leases.json"
    until = _until((OLD / "answers.json").read_text(encoding="utf-8"))
    leases.write_text(leases.read_text(encoding="utf-8").replace(until, _LASTS), encoding="utf-8")
    return target
