"""The page of ``rep3d explain``: one HTML file without outside resources, readable on a phone, in the dark, on paper.

Every number on it comes from the same `Explanation` that goes into the JSON beside it. Its words are in the template
``explain.html``; here are its pictures and figures.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
from markupsafe import Markup

from rep3d.explain.fields import SHARES, BlockView, Cubes, Explanation, ReceptiveField
from rep3d.explain.figures import (
    MODEL_COLOURS,
    PRIOR_COLOUR,
    Box,
    Curve,
    bar_svg,
    curves_svg,
    log_slice_svg,
    signed_slice_svg,
)
from rep3d.html import render

__all__ = ["page"]

_FIELD_FLOOR, _TAP_FLOOR = 1e-2, 1e-3  # lower ends of the two logarithmic scales, the upper one being 1
_PLANES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}


def page(explanation: Explanation) -> str:
    """Return the page as HTML."""
    models, inputs = explanation.models, explanation.inputs
    deepest = [model.fields[3].cubes().smallest(0.5)[0] for model in models]
    blocks = [block for model in models for block in model.blocks]
    top = max([1.0, *(float(np.abs(b.mask).max()) for b in blocks if b.mask is not None)]) ** 2
    # Not the largest: a single tap that stands out would leave all others dark.
    limit = max([0.0, *(float(np.percentile(np.abs(_correction(b)), 99)) for b in blocks if b.mask is not None)])
    places = sorted({(block.stage, block.block) for block in blocks})
    return render(
        "explain.html",
        title="Inside " + " beside ".join(model.name for model in models),
        models=models,
        inputs=inputs,
        images=len({name for name, _ in inputs.patches}),
        deepest=" vs ".join(map(str, deepest)),
        mask={"learned": "learned", "fixed": "prior", "none": "none"}[models[0].config.spatial_prior],
        colours=MODEL_COLOURS,
        bar_svg=bar_svg,
        shares=[f"{share:.0%}" for share in SHARES],
        spacing=" × ".join(f"{side:g}" for side in explanation.task.spacing),
        fields=[_field_card(explanation, pair) for pair in zip(*(model.fields for model in models), strict=True)],
        field_floor=f"{_FIELD_FLOOR:.0%} or less",
        areas=_areas(explanation, ReceptiveField.cubes),
        log_areas=_areas(explanation, ReceptiveField.log_cubes),
        blocks=[_block_card(explanation, place, top, limit) for place in places],
        tap_floor=f"{_TAP_FLOOR:g}",
        tap_floor_percent=f"{_TAP_FLOOR:.1%}",
        top=f"{top:.2g}",
        limit=limit,
        made=_made(explanation),
    )


def _short(name: str) -> str:
    """Return a name that fits into a legend."""
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"


# ------------------------------------------------------------------------------------------------- receptive fields
def _field_card(explanation: Explanation, fields: tuple[ReceptiveField, ...]) -> dict[str, Any]:
    first = fields[0]
    rows, curves = [], []
    for index, (model, field) in enumerate(zip(explanation.models, fields, strict=True)):
        cubes = field.cubes()
        rows.append((index, model.name, _field_slices(field, cubes, explanation.task.orientation)))
        marks = [(float(cubes.reach(s)), float(cubes.share[cubes.reach(s)])) for s in SHARES]
        curves.append(
            Curve(np.arange(len(cubes.share)), cubes.share, _short(model.name), MODEL_COLOURS[index], marks=marks)
        )
    even = first.cubes().ratio
    curves.insert(0, Curve(np.arange(len(even)), even, "all voxels alike", PRIOR_COLOUR, (0, (2, 2))))
    axes = ("reach from the output along each axis, voxels", "share within reach")
    return {
        "output": first.output,
        "stride": first.stride,
        "grid": " × ".join(str(side // first.stride) for side in first.contribution.shape),
        "rows": rows,
        "chart": curves_svg(curves, f"cubes {first.output}", *axes, levels=SHARES),
    }


def _field_slices(field: ReceptiveField, cubes: Cubes, orientation: str) -> list[tuple[Markup, str]]:
    cells = []
    for across in (2, 1, 0):
        right, up = (axis for axis in range(3) if axis != across)
        boxes = []
        for share in SHARES:
            reach = cubes.reach(share)
            ends = [
                (
                    max(0, field.centre[axis] - reach),
                    min(field.contribution.shape[axis] - 1, field.centre[axis] + reach),
                )
                for axis in (right, up)
            ]
            boxes.append(Box(*ends[0], *ends[1], f"s{100 * share:.0f}"))
        plane = _PLANES[orientation[across]]
        seen = field.contribution.sum(across)
        label = f"{field.output}, {plane} view of the contribution"
        picture = log_slice_svg(seen / seen.max(), _FIELD_FLOOR, 1.0, label, boxes)
        cells.append((picture, f"{plane}, {orientation[right]}→ {orientation[up]}↑"))
    return cells


def _areas(
    explanation: Explanation, measure: Callable[[ReceptiveField], Cubes]
) -> list[tuple[str, int, str, list[tuple[int, str]]]]:
    """Return rows of output, which network, its name, and for each share the cube's side and part of the volume."""
    rows = []
    for fields in zip(*(model.fields for model in explanation.models), strict=True):
        for index, (model, field) in enumerate(zip(explanation.models, fields, strict=True)):
            sides = [measure(field).smallest(share) for share in SHARES]
            cells = [(side, f"{100 * ratio:.3g}") for side, ratio in sides]
            rows.append((field.output.capitalize(), index, model.name, cells))
    return rows


# ------------------------------------------------------------------------------------------------ learning-rate fields
def _correction(block: BlockView) -> np.ndarray:
    """M - P, mean over the masks."""
    assert block.mask is not None and block.prior is not None
    return block.mask.mean(0) - block.prior


def _block_card(explanation: Explanation, place: tuple[int, int], top: float, limit: float) -> dict[str, Any]:
    rows, said, rates, kernels = [], [], [], []
    pair = [
        (index, model, block)
        for index, model in enumerate(explanation.models)
        for block in model.blocks
        if (block.stage, block.block) == place
    ]
    first = pair[0][2]
    for index, model, block in pair:
        colour = MODEL_COLOURS[index]
        name = _short(model.name) if len(explanation.models) > 1 else ""
        rows.append((index, model.name, _tap_slices(block, top, limit)))
        profiles = block.profiles()
        lead = f"{name}: " if name else ""
        for key, label, dash in (("adam_field", "|M|, Adam", "-"), ("sgd_field", "M², SGD", "--")):
            if key in profiles:
                p = profiles[key]
                rates.append(Curve(p.distance, p.mean, lead + label, colour, dash, p.low, p.high))
        p = profiles["kernel"]
        kernels.append(Curve(p.distance, p.mean, name or "|W_eff|", colour, "-", p.low, p.high))
        said.append((model.name, _mask_sentence(block)))
    prior = next((block.profiles()["prior"] for _, _, block in pair if block.prior is not None), None)
    if prior is not None:
        rates.insert(0, Curve(prior.distance, prior.mean, "P, prior", PRIOR_COLOUR, (0, (2, 2))))
    title = f"stage {first.stage}, block {first.block}"
    charts = [
        curves_svg(curves, f"{kind} {title}", "distance from the centre, taps", label, log=True)
        for curves, kind, label in ((rates, "rates", "factor on the learning rate"), (kernels, "kernel", "|W_eff|"))
        if curves
    ]
    return {
        "title": title,
        "channels": first.channels,
        "rows": rows,
        "charts": charts,
        "said": said,
        "map": " × ".join(map(str, first.map_shape)),
        "padded": min(side - 1 for side in first.map_shape) < first.kernel.shape[-1] // 2,
    }


def _mask_sentence(block: BlockView) -> str:
    if block.mask is None or block.prior is None:
        return "No mask: every tap learns at the same rate, and there is no learning-rate field to draw."
    if np.array_equal(block.mask, np.broadcast_to(block.prior, block.mask.shape)):
        return "The mask is the prior."
    masks = len(block.mask)
    said = f"M runs from {block.mask.min():.3g} to {block.mask.max():.3g}"
    if negative := int((block.mask < 0).sum()):
        said += f" and is negative at {negative} of {block.mask.size} taps"
    if masks > 1:
        said += f"; there is one mask per channel: pictures and lines are means over {masks}, bands span them all"
    return said + "."


def _tap_slices(block: BlockView, top: float, limit: float) -> list[tuple[Markup, str]]:
    middle = block.kernel.shape[-1] // 2
    box = []
    if any(side - 1 < middle for side in block.map_shape):
        (left, right), (bottom, up) = (
            (max(0, middle - side + 1), min(2 * middle, middle + side - 1)) for side in block.map_shape[:2]
        )
        box.append(Box(left, right, bottom, up, "map"))
    kernel = block.kernel[:, :, middle]
    cells = [(log_slice_svg(kernel / block.kernel.max(), _TAP_FLOOR, 1.0, "kernel", box), "|W_eff|, kernel")]
    if block.mask is not None and block.prior is not None:
        absolute, squared = np.abs(block.mask).mean(0), (block.mask**2).mean(0)
        cells += [
            (log_slice_svg(block.prior[:, :, middle], _TAP_FLOOR, top, "prior", box), "P, prior"),
            (log_slice_svg(absolute[:, :, middle], _TAP_FLOOR, top, "mask", box), "|M|, for Adam"),
            (log_slice_svg(squared[:, :, middle], _TAP_FLOOR, top, "squared mask", box), "M², for SGD"),
        ]
        correction = _correction(block)
        if correction.any():
            learned = signed_slice_svg(correction[:, :, middle], limit, "correction of the prior")
            cells.append((learned, "M − P, learned"))
    return cells


# --------------------------------------------------------------------------------------------------------------- facts
def _made(explanation: Explanation) -> list[tuple[str, str]]:
    rows: list[tuple[str, str]] = []
    for title, model in zip(("Explained", "Beside it"), explanation.models, strict=False):
        settings = ", ".join(f"{key} {value}" for key, value in model.config.to_dict().items())
        rows += [(title, f"{model.name} ({model.version})"), ("Its settings", settings)]
    patches = explanation.inputs.patches
    shown = "; ".join(f"{name} from voxel {start}" for name, start in patches) or "standard-normal noise"
    return [*rows, ("Task", explanation.task.name), ("Inputs", shown), *explanation.facts.items()]
