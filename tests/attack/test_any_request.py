"""Requests that nobody thought of, made by schemathesis from the server's own list of addresses: none is a 5xx."""

from __future__ import annotations

import base64
import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from rep3d.keys import KeyBook
from tests.app.data import CONF, publish_small_model, write_image, write_label
from tests.app.server import AppServer

SEED = 14
EXAMPLES = 8  # for each address, beside those at the borders of what each parameter may be
SECONDS = 300
FEW = {"iterations": "2", "max_minutes": "0.02", "score_minutes": "0"}  # whatever training it starts ends at once


@pytest.mark.slow
def test_no_request_makes_the_server_fail(tmp_path: Path) -> None:
    pytest.importorskip("schemathesis", reason="schemathesis needs Python 3.11")
    studies, scratch = tmp_path / "studies", tmp_path / "scratch"
    scratch.mkdir()
    for number in range(2):
        write_image(studies / f"case_{number}.nii.gz", number)
    write_label(studies / "labels" / "final" / "case_0.nii.gz", 0)
    publish_small_model(studies)
    _, key = KeyBook(studies / "rep3d").make("admin", "Ada")
    report = tmp_path / "events.ndjson"
    with AppServer(studies, scratch, {**CONF, **FEW, "keys": "on"}) as server:
        listed = server.get("/openapi.json", headers={"Authorization": f"Bearer {key}"}).json()
        ours = [path for path in listed["paths"] if path.startswith("/rep3d/")]
        assert len(ours) > 20 and "/rep3d/voxels/labels/{image}" in ours
        subprocess.run(
            [
                *(sys.executable, "-m", "schemathesis.cli", "run", f"{server.url}/openapi.json"),
                *("--header", f"Authorization: Bearer {key}", "--checks", "not_a_server_error"),
                *("--phases", "coverage,fuzzing", "--max-examples", str(EXAMPLES), "--seed", str(SEED)),
                *("--max-time", str(SECONDS), "--request-timeout", "60", "--continue-on-failure", "--no-shrink"),
                *("--generation-database", "none", "--report-ndjson-path", str(report), "--no-color"),
                *("--exclude-path", "/rep3d/logout"),
            ],
            cwd=tmp_path,
            check=False,
            timeout=SECONDS + 120,
        )
        assert server.get("/info/", headers={"Authorization": f"Bearer {key}"}).ok
    answers = _answers(report)
    assert len(answers) > 1000
    # 501 is what a server without a tool of NVIDIA says of its GPUs.
    failed = {answer for answer in answers if answer[0] >= 500 and not (answer[0] == 501 and "/logs/gpu" in answer[1])}
    assert failed == set(), failed


def _answers(report: Path) -> list[tuple[int, str, str]]:
    """Return status, request line and text of all answers in a report."""
    found = []

    def look(part: Any) -> None:
        if isinstance(part, dict):
            if isinstance(part.get("response"), dict) and "status_code" in part["response"]:
                asked = part.get("request") or {}
                text = base64.b64decode((part["response"].get("content") or {}).get("$base64", ""))[:300].decode(
                    "latin-1"
                )
                found.append((int(part["response"]["status_code"]), f"{asked.get('method')} {asked.get('uri')}", text))
            for value in part.values():
                look(value)
        elif isinstance(part, list):
            for value in part:
                look(value)

    for line in report.read_text(encoding="utf-8").splitlines():
        look(json.loads(line))
    return found
