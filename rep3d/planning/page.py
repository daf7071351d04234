"""The page of a plan: one HTML file with tables, charts and slices, without outside resources."""

from __future__ import annotations

import math
from typing import TYPE_CHECKING, Any

from rep3d import __version__
from rep3d.files import utc_now
from rep3d.html import render
from rep3d.planning.pictures import picture
from rep3d.planning.words import LABEL_HEAD, along, counted, image_rows, label_rows, proposal_rows
from rep3d.tasks.colours import label_colours
from rep3d.tasks.file import task_text

if TYPE_CHECKING:
    from rep3d.planning.plan import Plan

__all__ = ["page"]


def page(made: Plan) -> str:
    """Return the page of a plan."""
    task = made.proposal.file.task
    colours = label_colours(task.labels, task.terms)
    by_value = {value: colours[name] for name, value in task.labels.items()}
    shown = [
        (one.id, [(f"{cut.plane} slice of {one.id} with its labels", picture(cut, by_value)) for cut in one.slices])
        for one in made.seen.facts
        if one.slices
    ]
    return render(
        "plan.html",
        made=made,
        words=counted(made),
        voxels=along(task.spacing),
        images=image_rows(made),
        label_head=LABEL_HEAD,
        labels=label_rows(made),
        proposed=proposal_rows(made),
        bars=_bars(made),
        volumes=_volumes(made),
        colours={name: "#{:02x}{:02x}{:02x}".format(*colour) for name, colour in colours.items()},
        shown=shown,
        task_text=task_text(made.proposal.file),
        facts={"Program": f"rep3d {__version__}", "Made": utc_now()},
    )


def _bars(made: Plan) -> dict[str, Any]:
    """Return the histogram of labelled voxels' intensities, in units of its chart: 0 to 100 across, 0 to 30 high."""
    edges, shares = made.measured.histogram
    width, most = 100 / len(shares), max(*shares, 1e-9)
    return {
        "bars": [(round(index * width, 2), round(30 * share / most, 2)) for index, share in enumerate(shares)],
        "width": round(width * 0.86, 2),
        "low": f"{edges[0]:.0f}",
        "high": f"{edges[-1]:.0f}",
    }


def _volumes(made: Plan) -> list[tuple[str, float, float, float]]:
    """Return where each label's volume begins, where its median is and where it ends, in % of a logarithmic scale."""
    found = {name: one.volume for name, one in made.measured.labels.items() if one.volume and one.volume.low > 0}
    if not found:
        return []
    low = math.log(min(one.low for one in found.values()))
    length = max(math.log(max(one.high for one in found.values())) - low, 1e-6)

    def place(ml: float) -> float:
        return round(100 * (math.log(ml) - low) / length, 2)

    return [(name, place(one.low), place(one.median), place(one.high)) for name, one in found.items()]
