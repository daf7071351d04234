"""The three files of a plan: the task file, the page, and the fingerprint for programs."""

from __future__ import annotations

import json
from pathlib import Path

from rep3d.data.cases import check_apart
from rep3d.errors import OutputError
from rep3d.files import write_text
from rep3d.output import check_output_folder
from rep3d.planning.page import page
from rep3d.planning.plan import Plan
from rep3d.tasks.file import task_text

__all__ = ["FINGERPRINT", "PAGE", "TASK", "check_plan_folder", "write_plan"]

TASK, PAGE, FINGERPRINT = "task.yaml", "plan.html", "fingerprint.json"


def check_plan_folder(folder: Path, data: Path, *, replace: bool = False) -> Path:
    """Make sure that the files of a plan can be written, and that no task file is lost that people may have changed.

    Raises:
        OutputError: saying what is wrong, and what to do.
    """
    check_apart(folder, data)
    check_output_folder(folder, (TASK, PAGE, FINGERPRINT), (data / "dataset.json",))
    if (folder / TASK).exists() and not replace:
        raise OutputError(
            f"--out: {folder / TASK} is there, perhaps with changes of yours. Give another folder, or --replace to "
            f"write it anew."
        )
    return folder


def write_plan(made: Plan, folder: Path) -> list[Path]:
    """Write the task file, the page and the fingerprint, each whole or not at all.

    Returns:
        The three files.
    """
    reasons = "\n".join(f"{name}: {words}" for name, words in made.proposal.reasons.items())
    comment = (
        f"Proposed by rep3d plan for {made.name}, from {made.measured.cases} cases. Change what you know better.\n"
    )
    facts = {
        "found": made.seen.found,
        "modality": made.modality,
        "defects": [{**defect.entry.to_dict(), "rule": defect.rule} for defect in made.seen.defects],
        **made.measured.to_dict(),
        "reasons": dict(made.proposal.reasons),
    }
    texts = {
        TASK: task_text(made.proposal.file, f"{comment}\n{reasons}"),
        PAGE: page(made),
        FINGERPRINT: json.dumps(facts, indent=1) + "\n",
    }
    for name, text in texts.items():
        write_text(folder / name, text)
    return [folder / name for name in texts]
