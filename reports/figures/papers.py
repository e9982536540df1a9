"""Figures of the papers: printed values are hollow, our records of the same quantity are filled.

Axes, scales and colours follow the figure of each paper. If that figure is not stored, the caption says that the
choices are ours. Papers print MACs as FLOPs; our labels say MACs. Work comes from any row; time, memory and throughput
only from rows of a GPU, because papers print those of a GPU.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Container
from typing import Any

import numpy as np
import pandas as pd
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from vbench.reports.appearance import COLOURS, MARKERS
from vbench.reports.figures import accuracies as measured_accuracies
from vbench.reports.figures import curves, marks, printed
from vbench.reports.figures.marks import Name
from vbench.reports.figures.printed import LATENCY, MEMORY, SPEED, WORK, Look, Quantity
from vbench.reports.figures.style import Drawn, Options, ground, ink, sheet
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.known import side_of, usable
from vbench.results.published import accuracies, accuracies_of, efficiency

VIG = "arXiv:2405.18425"
VRWKV = "arXiv:2403.02308"
VIL = "arXiv:2406.04303"
VISION_GRU = "arXiv:2412.18178"
VIM = "arXiv:2401.09417"

VIG_LOOKS = {
    "vig_t": Look("ViG-T", "#FF4500", MARKERS["vig"]),
    "vrwkv_t": Look("VRWKV-T", "#32CD32", MARKERS["vrwkv"]),
    "vim_t": Look("Vim-T", "#FF7F50", MARKERS["vim"]),
    "deit_t": Look("DeiT-T", "#6495ED", MARKERS["deit"]),
}
VIG_SIZES = (224, 512, 640, 768, 1024, 1280, 1640, 2048)
VIG_MARKS = {"flops_g": (512, 1024, 2048), "peak_memory_gb": (512, 1024), "latency_ms": (512, 1024, 2048)}


def vig(table: pd.DataFrame, options: Options) -> Drawn:
    """ViG's assets/resolution.png: (a) work, (b) memory, (c) latency, (d) accuracy; its arrows are computed."""
    figure = sheet(2, 5.4)
    panels = figure.subplots(2, 2).flatten()
    names: list[Name] = []
    notes = ["Ratios at arrows: DeiT-T over ViG-T, from the values as printed (read off the paper's figure)."]
    scales = (
        ("GMACs per image", "log", None),
        ("GPU memory (GB)", "linear", (0, 25)),
        ("Latency per image (ms)", "log", None),
    )
    for axis, quantity, (label, scale, limits) in zip(panels, (WORK, MEMORY, LATENCY), scales, strict=False):
        names += printed.printed_and_ours(axis, table, VIG, VIG_LOOKS, quantity, notes)
        axis.set_ylabel(label)
        if scale == "log":
            curves.log_axis(axis)
        if limits:
            printed.set_limits(axis, *limits)
        for side in VIG_MARKS[quantity.metric]:
            ends = [printed.of_model(VIG, model, quantity.metric).get(side) for model in ("deit_t", "vig_t")]
            if ends[0] and ends[1] and (quantity is not MEMORY or side != 512):
                _times(axis, side, (ends[0], ends[1]))
    names += _vig_accuracy(panels[3], options, notes)
    printed.size_axis(panels, VIG_SIZES)
    for axis, letter, what in zip(
        panels, "abcd", ("Work", "Memory", "Latency", panels[3].get_title(loc="left")), strict=True
    ):
        axis.set_title(f"({letter}) {what}")
    printed.walls(panels[1], VIG, VIG_LOOKS)
    curves.finish(figure, names, {float(side): str(side) for side in VIG_SIZES})
    _vig_zoom(figure, panels[1])
    notes += [
        "The paper states no GPU, batch or dtype. Its memory fits attention that is not fused, at batch 32 or 64; its "
        "latency is that of an image within a batch (both inferred). Its ViG counts leave out the second MLP matrix.",
        "1640 px is no multiple of 16; whole patches cover 1632.",
    ]
    return Drawn(figure, tuple(notes))


def _vig_accuracy(axis: Axes, options: Options, notes: list[str]) -> list[Name]:
    names = []
    looks = {**VIG_LOOKS, "resnet50": Look("ResNet50", "#F4A460", MARKERS["timm"])}
    shown = {model: {side: found.top1 for side, found in accuracies_of(model).items()} for model in looks}
    for model, look in looks.items():
        names.append(printed.hollow(axis, shown[model].items(), look))
        names += _ours(axis, options, model, look)
    last = max(set(shown["vig_t"]) & set(shown["deit_t"]))
    ends = shown["deit_t"][last], shown["vig_t"][last]
    marks.ratio(axis, last, ends, f"{ends[1] - ends[0]:.1f}")
    axis.set_ylabel("ImageNet-1K top-1 (%)")
    axis.set_ylim(-4, 82)
    notes += _measured(options, looks)
    axis.set_title("Accuracy" if _measured(options, looks) else "Accuracy, published")
    return names


def _ours(
    axis: Axes,
    options: Options,
    model: str,
    look: Look,
    place: Callable[[MeasuredAccuracy], float | None] = side_of,
) -> list[Name]:
    """Draw what was measured of a model's accuracy, filled, with intervals; `place` is where on the x axis."""
    return measured_accuracies.draw(
        axis, options.accuracy, model, (look.colour, look.marker), place, f"{look.name}, ours"
    )


def _at_224(x: float) -> Callable[[MeasuredAccuracy], float | None]:
    """The place of an accuracy at 224 px; those of other sizes have none."""
    return lambda row: x if side_of(row) == 224 else None


def _measured(options: Options, models: Container[str]) -> list[str]:
    """What the caption says of the measured accuracies of these models; nothing if there are none."""
    own = usable([row for row in options.accuracy if row.model in models])
    return measured_accuracies.notes(own) if own else []


def _vig_zoom(figure: Figure, axis: Axes) -> None:
    """The paper's inset: memory from 384 to 640 px, with the ratio at 512 px."""
    inset = marks.zoom(figure, axis, (384, 640, 0, 3))
    if inset is None:
        return
    for model, look in VIG_LOOKS.items():
        points = printed.of_model(VIG, model, "peak_memory_gb")
        line: dict[str, Any] = {"marker": look.marker, "markersize": 2.5, "markerfacecolor": ground(), "linewidth": 0.9}
        inset.plot(list(points), list(points.values()), ":", color=ink(look.colour), **line)
    inset.set_xticks([512])
    inset.set_yticks([0, 1, 2, 3])
    ends = [printed.of_model(VIG, model, "peak_memory_gb")[512] for model in ("deit_t", "vig_t")]
    _times(inset, 512, (ends[0], ends[1]))
    marks.frame_inset(axis, inset, (384, 640, 0, 3))


def _times(axis: Axes, x: float, ends: tuple[float, float]) -> None:
    """Draw an arrow between two values with their ratio."""
    marks.ratio(axis, x, ends, f"{ends[0] / ends[1]:.1f}×")


VRWKV_LOOKS = {
    "vrwkv_t": Look("VRWKV-T", COLOURS["vrwkv"], MARKERS["vrwkv"]),
    "deit_t": Look("ViT-T (DeiT-T)", COLOURS["deit"], MARKERS["deit"]),
}


def vrwkv(table: pd.DataFrame, _: Options) -> Drawn:
    """Vision-RWKV's Fig. 1 (b) speed and (c) memory, VRWKV-T against ViT-T; (a), box AP, is not measured here."""
    figure = sheet(2, 2.8)
    speed, memory = figure.subplots(1, 2)
    notes: list[str] = []
    inverse = Quantity("latency_ms", "throughput_img_s", 1)  # drawn as images a second
    names = []
    for model, look in VRWKV_LOOKS.items():
        points = {side: 1e3 / ms for side, ms in printed.of_model(VIG, model, "latency_ms").items()}
        names.append(printed.hollow(speed, points.items(), look))
        names += printed.filled(
            speed, printed.measured(table, model, inverse), points, look, notes, "throughput", reproduced=True
        )
    names += printed.printed_and_ours(memory, table, VIG, VRWKV_LOOKS, MEMORY, notes)
    for axis, metric, invert in ((speed, "latency_ms", True), (memory, "peak_memory_gb", False)):
        slow, fast = (printed.of_model(VIG, model, metric) for model in ("deit_t", "vrwkv_t"))
        for side in (1024.0, 2048.0):
            if side in slow and side in fast:
                ends = (1e3 / slow[side], 1e3 / fast[side]) if invert else (slow[side], fast[side])
                marks.ratio(axis, side, ends, f"{slow[side] / fast[side]:.1f}×")
        curves.log_axis(axis)
    speed.set_ylabel("Throughput (images/s)")
    memory.set_ylabel("GPU memory (GB)")
    speed.set_title("(b) Inference speed")
    memory.set_title("(c) Memory")
    printed.size_axis((speed, memory), VIG_SIZES)
    printed.walls(memory, VIG, VRWKV_LOOKS)
    curves.finish(figure, names, {float(side): str(side) for side in VIG_SIZES})
    own = [row for row in efficiency() if row.source.startswith(VRWKV)]
    claims = [row for row in own if row.model == "vrwkv_t" and row.res == 2048]
    said = "; ".join(f"{row.metric.replace('_', ' ')} {row.value:g} ({row.how})" for row in claims)
    return Drawn(
        figure,
        (
            "Hollow: as the authors of ViG print both models (read off their figure); Vision-RWKV's own curves are not "
            f"stored, so axes and colours are ours. What it claims at 2048 px, second hand: {said}.",
            "Panel (a), box AP on COCO, is not measured here.",
            *notes,
        ),
    )


VIL_LOOKS = {
    "deit": Look("DeiT", "#99DDFF", MARKERS["deit"]),
    "deit3": Look("DeiT-III", "#77AADD", MARKERS["deit"]),
    "vim": Look("Vim", "#FFAABB", MARKERS["vim"]),
    "vil2": Look("ViL", "#EE8866", MARKERS["vil"]),
}


def vil(_table: pd.DataFrame, options: Options) -> Drawn:
    """Vision-LSTM's docs/imgs/flops_vs_performance.png, first panel: accuracy against the compute of pre-training."""
    figure = sheet(1, 2.7)
    axis = figure.subplots()
    names = []
    rows = printed.of_paper(VIL, "pretrain_compute_exaflops")
    for family, look in VIL_LOOKS.items():
        own = [row for row in rows if row.model.rpartition("_")[0] == family]
        points = sorted(
            (row.value, float(found[1])) for row in own if (found := re.search(r"top-1 ([\d.]+)", row.locator))
        )
        name = printed.hollow(axis, points, look)
        name.handle.set_linestyle("--")
        names.append(name)
        spent = {row.model: row.value for row in own}
        for model, compute in spent.items():
            names += _ours(axis, options, model, look, _at_224(compute))
    curves.log_axis(axis, "x")
    axis.set_xlabel("Pre-training compute (exaFLOPS), as printed")
    axis.set_ylabel("ImageNet-1K top-1 (%), published")
    axis.set_title("ImageNet-1K classification")
    marks.name_curves(figure, names)
    return Drawn(
        figure,
        (
            "All as printed (read off the paper's figure); points of a curve are sizes, of DeiT-III recipes too. "
            "vbench trains no model to the end, so no compute here is measured.",
            "The paper's other panels, ADE20K and VTAB-1K, are not measured here.",
            *_measured(options, {row.model for row in rows}),
        ),
    )


GRU_LOOKS = {"deit_s": Look("DeiT-S", "#FF7F0E", "^"), "vision_gru_t": Look("VisionGRU-Ti", "#1F77B4", "o")}
GRU_SIZES = (512, 640, 738, 1024, 1248)


def vision_gru(table: pd.DataFrame, options: Options) -> Drawn:
    """VisionGRU's Fig. 1: accuracy of both models, and work against image size with every point labelled."""
    figure = sheet(2, 2.9)
    bars, work = figure.subplots(1, 2, width_ratios=(1, 2.6))
    notes: list[str] = []
    names = printed.printed_and_ours(work, table, VISION_GRU, GRU_LOOKS, WORK, notes)
    params = {row.model: row.value for row in printed.of_paper(VISION_GRU, "params_m")}
    ours = _measured(options, GRU_LOOKS)
    for number, (model, look) in enumerate(reversed(GRU_LOOKS.items())):
        top1 = accuracies()[model, 224].top1
        colour = ink(look.colour)
        bars.bar(number, top1, color="none", edgecolor=colour, hatch="////", width=0.6)
        marks.note(bars, f"{top1:.1f}", (number, top1), (0, 2), ha="center", va="baseline", color=colour)
        printed.label_points(work, printed.of_model(VISION_GRU, model, "flops_g"), colour, above=model == "deit_s")
        _ours(bars, options, model, look, _at_224(number + 0.18))  # beside the printed value
    bars.set_xticks((0, 1), [f"{look.name}\n{params[model]:g} M" for model, look in reversed(GRU_LOOKS.items())])
    lows = [row.top1_lo - 1 for row in usable(options.accuracy) if row.model in GRU_LOOKS and side_of(row) == 224]
    bars.set_ylim(min([78, *lows]), 85)
    bars.set_ylabel("Top-1 (%), hatched: published" if ours else "ImageNet-1K top-1 (%), published")
    bars.set_title("(a) Classification")
    bars.grid(visible=False, axis="x")
    printed.set_limits(work, -30, 500)  # room for the labels beneath
    work.set_ylabel("GMACs per image (printed as FLOPs)")
    work.set_title("(b) Work")
    printed.size_axis((work,), GRU_SIZES)
    curves.finish(figure, names, {float(side): str(side) for side in GRU_SIZES})
    notes += ours
    notes += [
        "The paper's counts of DeiT-S lack about the projections to Q, K, V and out (inferred).",
        "738 px is no multiple of 16; whole patches cover 736. The accuracy axis is cut, as in the paper. "
        "Its bars of mIoU are not measured here.",
    ]
    return Drawn(figure, tuple(notes))


VIM_LOOKS = {"deit_t": Look("DeiT-Ti", "#4C72B0", "o"), "vim_t": Look("Vim-Ti", "#B07AA1", "*")}
VIM_SIZES = (512, 640, 738, 1024, 1248)


def vim(table: pd.DataFrame, _: Options) -> Drawn:
    """Vim's teaser: (b) log10 of images/s and (c) GPU memory, over sizes in equal steps. Our rows are only of DeiT."""
    figure = sheet(2, 2.8)
    speed, memory = figure.subplots(1, 2)
    notes: list[str] = []
    names = []
    places = {float(side): float(number) for number, side in enumerate(VIM_SIZES)}
    for axis, quantity in ((speed, SPEED), (memory, MEMORY)):
        for model, look in VIM_LOOKS.items():
            points = {
                side: value for side, value in printed.of_model(VIM, model, quantity.metric).items() if side in places
            }
            placed = {places[side]: value for side, value in points.items()}
            names.append(printed.hollow(axis, placed.items(), look))
            printed.label_points(axis, placed, ink(look.colour), above=(model == "vim_t") == (axis is speed), digits=2)
            ours = printed.measured(table, model, quantity)
            logs = {
                k: {s: float(np.log10(v)) if axis is speed else v for s, v in own.items()} for k, own in ours.items()
            }
            for own in logs.values():
                shown = {places[side]: value for side, value in own.items() if side in places}
                if shown:
                    x, y, text = list(shown), list(shown.values()), f"{look.name}, ours"
                    names.append(marks.curve(axis, x, y, text, look.colour, "-", marker=look.marker))
            if quantity is SPEED:
                notes += printed.reproductions(look.name, "throughput", ours, {s: 10**v for s, v in points.items()})
        axis.set_xticks(range(len(VIM_SIZES)), list(map(str, VIM_SIZES)))
        axis.set_xlabel("Image side (px), equal steps")
    slow, fast = (printed.of_model(VIM, model, SPEED.metric) for model in ("deit_t", "vim_t"))
    last = max(set(slow) & set(fast))
    marks.ratio(speed, places[last], (slow[last], fast[last]), f"{10 ** (fast[last] - slow[last]):.1f}×")
    speed.set_ylabel("log10 of throughput (images/s)")
    printed.set_limits(speed, 1, 2.75)
    memory.set_ylabel("GPU memory (GB)")
    printed.set_limits(memory, -8, 80)  # room for the labels beneath
    speed.set_title("(b) Speed")
    memory.set_title("(c) Memory")
    printed.walls(memory, VIM, VIM_LOOKS, places)
    marks.name_curves(figure, names)
    marks.place_ratios(figure, [speed, memory])
    saved = printed.of_paper(VIM, "memory_saved_pct")[0].value
    notes += [
        "The paper states batch inference and no GPU or dtype. Panel (a), four tasks, is not measured here; Vim is "
        "not in this zoo.",
        f"Its {saved:g} % less memory at 1248 px has no arrow: DeiT-Ti's end of it is out of memory.",
        "738 px is no multiple of 16; whole patches cover 736.",
    ]
    return Drawn(figure, tuple(notes))
