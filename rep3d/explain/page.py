"""The page of ``rep3d explain``: one HTML file without outside resources, readable on a phone, in the dark, on paper.

Every number on it comes from the same `Explanation` that goes into the JSON beside it. Style and frame are those of the
demo's report.
"""

from __future__ import annotations

from collections.abc import Callable
from html import escape

import numpy as np

from rep3d.explain.fields import SHARES, BlockView, Cubes, Explanation, ModelView, ReceptiveField
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
from rep3d.html import CSS, table

__all__ = ["page"]

_FIELD_FLOOR, _TAP_FLOOR = 1e-2, 1e-3  # lower ends of the two logarithmic scales, the upper one being 1
_PLANES = {"R": "sagittal", "L": "sagittal", "A": "coronal", "P": "coronal", "S": "axial", "I": "axial"}

_OWN_CSS = """
.eyebrow+h1{overflow-wrap:anywhere}
.cards{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem;margin:1rem 0}
.cards article{margin:0}
.slices{display:grid;grid-template-columns:repeat(3,minmax(0,1fr));gap:.5rem;margin:0 0 .6rem}
.taps{grid-template-columns:repeat(5,minmax(0,1fr))}
.slices span{display:block;font-size:.8rem;line-height:1.3;color:var(--muted);margin-top:.25rem}
.slice{display:block;width:100%;border-radius:.3rem;background:#000}
.slice image{image-rendering:pixelated}
.slice rect{fill:none;stroke:#fff;stroke-width:1.3px;vector-effect:non-scaling-stroke}
.slice .under{stroke:#000;stroke-width:3px;stroke-opacity:.45}
.slice .s20{stroke-dasharray:1.5 2.5}
.slice .s99{stroke-dasharray:6 4;stroke-opacity:.8}
.slice .map{stroke:#7fd8ff}
.chart{display:block;width:100%;height:auto;max-width:34rem}
.whose{font-size:.9rem;font-weight:600;margin:.3rem 0;overflow-wrap:anywhere}
i.box,.legend i.box{display:inline-block;width:.8rem;height:.8rem;border-radius:.2rem;border:0;margin-right:.45rem;
vertical-align:-.05rem}
.read{font-size:.88rem;line-height:1.45;color:var(--muted);margin:.5rem 0 0}
.charts{display:grid;grid-template-columns:repeat(2,minmax(0,1fr));gap:1rem;margin-top:.6rem}
.bar{display:flex;flex-wrap:wrap;gap:.1rem .6rem;align-items:center;font-size:.85rem;color:var(--muted);margin:.3rem 0}
.bar .slice{height:.8rem;width:9rem}
.bar b{font-weight:600;min-width:9rem}
a{color:var(--accent)}
.bars{margin:0 0 1rem}
details{margin:1rem 0}
summary{cursor:pointer;font-weight:600}
.formula{font-family:ui-monospace,"Liberation Mono",monospace;font-size:.95em;white-space:nowrap}
@media (max-width:44rem){.bar b{width:100%}
.cards,.charts{grid-template-columns:minmax(0,1fr)}.taps{grid-template-columns:repeat(3,
minmax(0,1fr))}article{padding:.8rem}}
@media print{.slice{-webkit-print-color-adjust:exact;print-color-adjust:exact}.cards{display:block}
.cards article{margin-bottom:1rem}}
"""


def page(explanation: Explanation) -> str:
    """Returns the page as HTML."""
    title = escape("Inside " + " beside ".join(model.name for model in explanation.models))
    sections = (_header(explanation, title), _fields(explanation), _masks(explanation), _facts(explanation))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{title}</title>\n<style>{CSS}{_OWN_CSS}</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(sections)
        + "\n</main>\n</body>\n</html>\n"
    )


def _header(explanation: Explanation, title: str) -> str:
    first = explanation.models[0]
    config = first.config
    deepest = [model.fields[3].cubes().smallest(0.5)[0] for model in explanation.models]
    mask = {"learned": "learned", "fixed": "prior", "none": "none"}[config.spatial_prior]
    tiles = (
        ("Side of the cube that holds half of what the deepest stage sees, voxels", " vs ".join(map(str, deepest))),
        ("Large kernels", f"{config.kernel_size}&sup3; taps"),
        ("Mask on them", mask),
        ("Model version", escape(first.version)),
    )
    cells = [f"<div{' class=first' if i == 0 else ''}><dt>{k}</dt><dd>{v}</dd></div>" for i, (k, v) in enumerate(tiles)]
    beside = ""
    if len(explanation.models) > 1:
        items = "".join(f"<li>{_swatch(i)}{_whose(model)}</li>" for i, model in enumerate(explanation.models))
        beside = f'<ul class="legend" style="margin-top:1.2rem">{items}</ul>'
    return (
        f'<header><p class="eyebrow">Rep3D, seen from inside</p><h1>{title}</h1>'
        '<p class="lead">The encoder reads an image through large kernels, and a mask gives every tap of a kernel a '
        "learning rate of its own. Below: how far each stage of the network sees, and where its kernels learn fast or "
        f'slowly.</p><dl class="tiles">{"".join(cells)}</dl>{beside}</header>'
    )


def _whose(model: ModelView) -> str:
    return f"{escape(model.name)} ({escape(model.version)})"


def _short(name: str) -> str:
    """A name that fits into a legend."""
    return name if len(name) <= 20 else f"{name[:9]}…{name[-10:]}"


def _swatch(index: int) -> str:
    return f'<i class="box" style="background:{MODEL_COLOURS[index]}"></i>'


def _bar(what: str, low: str, high: str, signed: bool = False) -> str:
    picture = bar_svg(signed, f"colours of {what}")
    return f'<div class="bar"><b>{what}</b><span>{low}</span>{picture}<span>{high}</span></div>'


# ------------------------------------------------------------------------------------------------- receptive fields
def _fields(explanation: Explanation) -> str:
    inputs = explanation.inputs
    shape = " &times; ".join(map(str, inputs.tensor.shape[2:]))
    count = len(inputs.tensor)
    shown = f"{count} input{'s' if count > 1 else ''} of {shape} voxels"
    if inputs.patches:
        kind = f"{shown}: patches of {len({name for name, _ in inputs.patches})} image(s), prepared as the task says"
    else:
        kind = f"{shown}. No image was given: they are <strong>standard-normal noise</strong>, not anatomy"
    fields = zip(*(model.fields for model in explanation.models), strict=True)
    cards = "".join(_field_card(explanation, pair) for pair in fields)
    lines = (("s20", "20"), ("s50", "50"), ("s99", "99"))
    dashes = {"s20": "dotted", "s50": "solid", "s99": "dashed"}
    legend = "".join(f'<li><i style="border-top-style:{dashes[c]}"></i>{t} % of it inside</li>' for c, t in lines)
    return (
        "<h2>How far each stage sees</h2>"
        "<p>A voxel of the input contributes to an output as far as a small change of it changes the output. Measured "
        "is the centre of each stage&rsquo;s map, before the normalisation that leads to the decoder. Nothing in the "
        "encoder mixes voxels but its convolutions, so what is bright here is read through the kernels alone.</p>"
        f"<p>Averaged over {kind}.</p>"
        '<p class="muted">Pictures: the contribution seen from three sides, that is, summed along the line of sight, '
        "on a logarithmic scale up to the largest value of each picture. Boxes: the smallest cubes around the measured "
        "output that hold so much of the whole contribution.</p>"
        f'<ul class="legend">{legend}</ul>'
        f'<div class="bars">{_bar("Contribution", f"{_FIELD_FLOOR:.0%} or less", "100 % of the largest")}</div>'
        f'<div class="cards">{cards}</div>{_area_tables(explanation)}'
    )


def _field_card(explanation: Explanation, fields: tuple[ReceptiveField, ...]) -> str:
    name, stride = fields[0].output, fields[0].stride
    shape = fields[0].contribution.shape
    rows, curves = [], []
    for index, (model, field) in enumerate(zip(explanation.models, fields, strict=True)):
        cubes = field.cubes()
        if len(fields) > 1:
            rows.append(f'<p class="whose">{_swatch(index)}{escape(model.name)}</p>')
        rows.append(f'<div class="slices">{_field_slices(field, cubes, explanation.task.orientation)}</div>')
        marks = [(float(cubes.reach(s)), float(cubes.share[cubes.reach(s)])) for s in SHARES]
        curves.append(
            Curve(np.arange(len(cubes.share)), cubes.share, _short(model.name), MODEL_COLOURS[index], marks=marks)
        )
    even = fields[0].cubes().ratio
    curves.insert(0, Curve(np.arange(len(even)), even, "all voxels alike", PRIOR_COLOUR, (0, (2, 2))))
    chart = curves_svg(
        curves, f"cubes {name}", "reach from the output along each axis, voxels", "share within reach", levels=SHARES
    )
    grid = " &times; ".join(str(side // stride) for side in shape)
    note = " Not local: the decoder&rsquo;s instance norms let every voxel act on every logit." if stride == 1 else ""
    return (
        f'<article><div class="cap"><h3>{name.capitalize()}</h3><span class="muted">map of {grid}, '
        f"stride {stride}</span></div>{''.join(rows)}{chart}"
        '<p class="read">A line that rises early means that the output listens to its surroundings; one that follows '
        f"the grey line, that it weighs the whole input alike.{note}</p></article>"
    )


def _field_slices(field: ReceptiveField, cubes: Cubes, orientation: str) -> str:
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
        cells.append(f"<div>{picture}<span>{plane}, {orientation[right]}&rarr; {orientation[up]}&uarr;</span></div>")
    return "".join(cells)


def _area_tables(explanation: Explanation) -> str:
    spacing = " &times; ".join(f"{s:g}" for s in explanation.task.spacing)
    return (
        "<h3>High-contribution area</h3>"
        "<p>Side in voxels of the smallest cube around the output that holds more than 20, 50 or 99 % of the "
        "contribution; in small print the part of the input&rsquo;s volume inside it. "
        f"A voxel measures {spacing} mm.</p>"
        + _area_table(explanation, ReceptiveField.cubes)
        + "<details><summary>The same with RepLKNet&rsquo;s logarithm</summary>"
        '<p>The definition is that of <a href="https://arxiv.org/abs/2203.06717">RepLKNet</a>, in three dimensions. '
        "Its script measures log<sub>10</sub>(contribution + 1) instead of the contribution. That depends on the scale "
        "of the gradients, so compare networks by the table above; this one is for comparing with published "
        "numbers.</p>" + _area_table(explanation, ReceptiveField.log_cubes) + "</details>"
    )


def _area_table(explanation: Explanation, measure: Callable[[ReceptiveField], Cubes]) -> str:
    several = len(explanation.models) > 1
    rows = []
    for fields in zip(*(model.fields for model in explanation.models), strict=True):
        for index, (model, field) in enumerate(zip(explanation.models, fields, strict=True)):
            cells = ""
            for share in SHARES:
                side, ratio = measure(field).smallest(share)
                cells += f'<td class="n">{side} <small>{100 * ratio:.3g} %</small></td>'
            whose = f"<td>{_swatch(index)}{escape(model.name)}</td>" if several else ""
            rows.append(f'<tr><th scope="row" class="n">{field.output.capitalize()}</th>{whose}{cells}</tr>')
    head = ["Output", *(["Network"] if several else []), *(f"{share:.0%}" for share in SHARES)]
    return table(head, rows)


# ------------------------------------------------------------------------------------------------ learning-rate fields
def _masks(explanation: Explanation) -> str:
    blocks = [block for model in explanation.models for block in model.blocks]
    top = max([1.0, *(float(np.abs(b.mask).max()) for b in blocks if b.mask is not None)]) ** 2
    # Not the largest: a single tap that stands out would leave all others dark.
    limit = max([0.0, *(float(np.percentile(np.abs(_correction(b)), 99)) for b in blocks if b.mask is not None)])
    bars = _bar("P, |M|, M&sup2;", f"{_TAP_FLOOR:g} or less", f"{top:.2g}")
    bars += _bar("|W_eff|", f"{_TAP_FLOOR:.1%} or less", "100 % of the largest")
    if limit > 0:
        bars += _bar("M &minus; P", f"&minus;{limit:.2g} or less", f"+{limit:.2g} or more", signed=True)
    places = sorted({(block.stage, block.block) for block in blocks})
    cards = "".join(_block_card(explanation, place, top, limit) for place in places)
    return (
        "<h2>Where the kernels learn</h2>"
        '<p>A block convolves with <span class="formula">W_eff = W &middot; M</span>: the trained kernel times a mask. '
        'The mask starts at the prior <span class="formula">P = &beta; / (distance<sup>g</sup> + &beta;)</span> and is '
        "corrected in training. It is a field of learning rates: a step of SGD moves tap k of the kernel in use "
        'by <span class="formula">lr &middot; M[k]&sup2;</span> times its gradient. Adam divides gradients by their '
        'own size, and the factor becomes <span class="formula">|M[k]|</span>. Both hold while the mask stands still; '
        'the mask&rsquo;s own training comes on top. (<a href="https://arxiv.org/abs/2505.19603">Rep3D</a>)</p>'
        '<p class="muted">Pictures: the middle slice of the kernel&rsquo;s taps; P, |M| and M&sup2; on one logarithmic '
        "scale for the whole page, |W_eff| (mean over channels) relative to its own largest value, M &minus; P on a "
        f'linear scale.</p><div class="bars">{bars}</div>{cards}'
    )


def _correction(block: BlockView) -> np.ndarray:
    """M - P, mean over the masks."""
    assert block.mask is not None and block.prior is not None
    return block.mask.mean(0) - block.prior


def _block_card(explanation: Explanation, place: tuple[int, int], top: float, limit: float) -> str:
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
        name = model.name if len(explanation.models) > 1 else ""
        if name:
            rows.append(f'<p class="whose">{_swatch(index)}{escape(name)}</p>')
        rows.append(f'<div class="slices taps">{_tap_slices(block, top, limit)}</div>')
        profiles = block.profiles()
        lead = f"{_short(name)}: " if name else ""
        for key, label, dash in (("adam_field", "|M|, Adam", "-"), ("sgd_field", "M², SGD", "--")):
            if key in profiles:
                p = profiles[key]
                rates.append(Curve(p.distance, p.mean, lead + label, colour, dash, p.low, p.high))
        p = profiles["kernel"]
        kernels.append(Curve(p.distance, p.mean, _short(name) or "|W_eff|", colour, "-", p.low, p.high))
        said.append((f"<strong>{escape(name)}:</strong> " if name else "") + _mask_sentence(block))
    prior = next((block.profiles()["prior"] for _, _, block in pair if block.prior is not None), None)
    if prior is not None:
        rates.insert(0, Curve(prior.distance, prior.mean, "P, prior", PRIOR_COLOUR, (0, (2, 2))))
    title = f"stage {first.stage}, block {first.block}"
    charts = [
        curves_svg(curves, f"{kind} {title}", "distance from the centre, taps", label, log=True)
        for curves, kind, label in ((rates, "rates", "factor on the learning rate"), (kernels, "kernel", "|W_eff|"))
        if curves
    ]
    width = first.kernel.shape[-1] // 2
    reach = min(side - 1 for side in first.map_shape)
    if reach < width:
        said.append(
            f"On these inputs the map has {' &times; '.join(map(str, first.map_shape))} voxels: taps that many or more "
            "away from the centre along an axis (outside the blue box) meet only zero padding and get no gradient."
        )
    return (
        f'<article><div class="cap"><h3>{title.capitalize()}</h3><span class="muted">{first.channels} channels</span>'
        f'</div>{"".join(rows)}<div class="charts">{"".join(f"<div>{chart}</div>" for chart in charts)}</div>'
        '<p class="read">Lines: mean over the taps at one distance; bands: smallest to largest. '
        f"{' '.join(said)}</p></article>"
    )


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


def _tap_slices(block: BlockView, top: float, limit: float) -> str:
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
            (log_slice_svg(squared[:, :, middle], _TAP_FLOOR, top, "squared mask", box), "M&sup2;, for SGD"),
        ]
        correction = _correction(block)
        if correction.any():
            learned = signed_slice_svg(correction[:, :, middle], limit, "correction of the prior")
            cells.append((learned, "M &minus; P, learned"))
    return "".join(f"<div>{picture}<span>{text}</span></div>" for picture, text in cells)


# --------------------------------------------------------------------------------------------------------------- facts
def _facts(explanation: Explanation) -> str:
    rows: list[tuple[str, str]] = []
    for title, model in zip(("Explained", "Beside it"), explanation.models, strict=False):
        settings = ", ".join(f"{key} {value}" for key, value in model.config.to_dict().items())
        rows += [(title, f"{model.name} ({model.version})"), ("Its settings", settings)]
    patches = explanation.inputs.patches
    shown = "; ".join(f"{name} from voxel {start}" for name, start in patches) or "standard-normal noise"
    rows += [("Task", explanation.task.name), ("Inputs", shown), *explanation.facts.items()]
    listed = "".join(f"<dt>{escape(key)}</dt><dd>{escape(value)}</dd>" for key, value in rows)
    fresh = any(model.version == "fresh weights" for model in explanation.models)
    untrained = (
        " A network with fresh weights has batch norms that have seen no data: they pass values through."
        if fresh
        else ""
    )
    return (
        "<h2>What this says, and what not</h2>"
        '<p class="note">A receptive field says how strongly the central output answers to small changes of each '
        "voxel, on average over these inputs. It does not say which voxels decide a segmentation, nor whether it is "
        "right. Where an image is flat, as air is, the stem&rsquo;s normalisation amplifies small changes: flat "
        "regions can outshine tissue. The masks are those at the end of training, not their history."
        f"{untrained} All numbers are in explain.json.</p>"
        f'<h2>How it was made</h2><dl class="facts">{listed}</dl>'
    )
