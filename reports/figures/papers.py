"""Figures of the papers: printed values are hollow, our records of the same quantity are filled.

Axes, scales and colours follow the figure of each paper; a colour that is too light to be read is darker. If that
figure is not stored, the caption says that the choices are ours. Papers print MACs as FLOPs; our labels say MACs. Work
comes from any row; time, memory and throughput only from rows of a GPU, because papers print those of a GPU.
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
from vbench.reports.figures.style import Drawn, Options, across, ground, ink, named, panels, sheet
from vbench.results.accuracy import MeasuredAccuracy
from vbench.results.known import side_of, usable
from vbench.results.published import accuracies, accuracies_of, efficiency
from vbench.results.witnesses import TABLE_9, independent

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
    figure, axes = panels(4, 2.7)
    names: list[Name] = []
    notes = ["Ratios at arrows: DeiT-T over ViG-T, from the values as printed (read off the paper's figure)."]
    scales = (("GMACs per image", None), ("GPU memory (GB)", (0, 25)), ("Latency per image (ms)", None))
    for axis, quantity, (label, limits) in zip(axes, (WORK, MEMORY, LATENCY), scales, strict=False):
        names += printed.printed_and_ours(axis, table, VIG, VIG_LOOKS, quantity, notes, limits)
        axis.set_ylabel(label)
        for side in VIG_MARKS[quantity.metric]:
            ends = [printed.of_model(VIG, model, quantity.metric).get(side) for model in ("deit_t", "vig_t")]
            if ends[0] and ends[1] and (quantity is not MEMORY or side != 512):
                _times(axis, side, (ends[0], ends[1]))
    names += _vig_accuracy(axes[3], options, notes)
    printed.size_axis(axes, VIG_SIZES)
    for axis, letter, what in zip(
        axes, "abcd", ("Work", "Memory", "Latency", axes[3].get_title(loc="left")), strict=True
    ):
        axis.set_title(f"({letter}) {what}")
    printed.walls(axes[1], VIG, VIG_LOOKS, notes)
    notes += printed.finish(figure, names, VIG_SIZES)
    _vig_zoom(figure, axes[1])
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
        names.append(printed.hollow(axis, shown[model].items(), model, look))
        names += _ours(axis, options, model, look)
    last = max(set(shown["vig_t"]) & set(shown["deit_t"]))
    ends = shown["deit_t"][last], shown["vig_t"][last]
    marks.ratio(axis, last, ends, marks.points(ends[1] - ends[0]), won=ends[1] >= ends[0])
    axis.set_ylabel("ImageNet-1K top-1 (%)")
    axis.set_ylim(0, 82)
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
        axis, options.accuracy, model, (look.colour, look.marker), place, f"{printed.name_of(model, look)}, ours"
    )


def _at_224(x: float) -> Callable[[MeasuredAccuracy], float | None]:
    """The place of an accuracy at 224 px; those of other sizes have none."""
    return lambda row: x if side_of(row) == 224 else None


def _measured(options: Options, models: Container[str]) -> list[str]:
    """What the caption says of the measured accuracies of these models; nothing if there are none."""
    own = usable([row for row in options.accuracy if row.model in models])
    return measured_accuracies.notes(own) if own else []


def _vig_zoom(figure: Figure, axis: Axes) -> None:
    """The paper's inset: memory about 512 px, with the ratio there."""
    box = (424, 600, 0.0, 1.8)
    inset = marks.zoom(figure, axis, box)
    if inset is None:
        return
    for model, look in VIG_LOOKS.items():
        points = printed.of_model(VIG, model, "peak_memory_gb")
        line: dict[str, Any] = {"marker": look.marker, "markersize": 2.5, "markerfacecolor": ground(), "linewidth": 0.9}
        inset.plot(list(points), list(points.values()), ":", color=ink(look.colour), **line)
    inset.set_xticks([512])
    inset.set_yticks([0, 1])
    ends = [printed.of_model(VIG, model, "peak_memory_gb")[512] for model in ("deit_t", "vig_t")]
    marks.frame_inset(axis, inset, box, "about 512 px")
    _times(inset, 512, (ends[0], ends[1]))
    marks.place_ratios(figure, [inset])


def _times(axis: Axes, x: float, ends: tuple[float, float]) -> None:
    """Draw an arrow between two values of a cost with their ratio, attention first."""
    marks.ratio(axis, x, ends, marks.times(ends[0] / ends[1]), won=ends[0] >= ends[1])


VRWKV_LOOKS = {
    "vrwkv_t": Look("VRWKV-T", COLOURS["vrwkv"], MARKERS["vrwkv"]),
    "deit_t": Look("ViT-T (DeiT-T)", COLOURS["deit"], MARKERS["deit"]),
}


def vrwkv(table: pd.DataFrame, _: Options) -> Drawn:
    """Vision-RWKV's Fig. 1 (b) speed and (c) memory, VRWKV-T against ViT-T; (a), box AP, is not measured here."""
    figure, (speed, memory) = panels(2, 2.8)
    notes: list[str] = []
    inverse = Quantity("latency_ms", "throughput_img_s", 1)  # drawn as images a second
    theirs = {
        model: {side: 1e3 / ms for side, ms in printed.of_model(VIG, model, "latency_ms").items()}
        for model in VRWKV_LOOKS
    }
    names = [printed.hollow(speed, theirs[model].items(), model, look) for model, look in VRWKV_LOOKS.items()]
    printed.set_limits(speed, None)
    for whose in VRWKV_LOOKS.items():
        ours = printed.measured(table, whose[0], inverse)
        names += printed.filled(speed, ours, theirs[whose[0]], whose, notes, "throughput", reproduced=True)
    names += printed.printed_and_ours(memory, table, VIG, VRWKV_LOOKS, MEMORY, notes)
    for axis, metric, invert in ((speed, "latency_ms", True), (memory, "peak_memory_gb", False)):
        slow, fast = (printed.of_model(VIG, model, metric) for model in ("deit_t", "vrwkv_t"))
        for side in (1024.0, 2048.0):
            if side in slow and side in fast:
                ends = (1e3 / slow[side], 1e3 / fast[side]) if invert else (slow[side], fast[side])
                marks.ratio(axis, side, ends, marks.times(slow[side] / fast[side]), won=slow[side] >= fast[side])
    speed.set_ylabel("Throughput (images/s)")
    memory.set_ylabel("GPU memory (GB)")
    speed.set_title("(a) Inference speed")
    memory.set_title("(b) Memory")
    printed.size_axis((speed, memory), VIG_SIZES)
    printed.walls(memory, VIG, VRWKV_LOOKS, notes)
    notes += printed.finish(figure, names, VIG_SIZES)
    own = [row for row in efficiency() if row.source.startswith(VRWKV)]
    claims = [row for row in own if row.model == "vrwkv_t" and row.res == 2048]
    said = "; ".join(f"{row.metric.replace('_', ' ')} {row.value:g} ({row.how})" for row in claims)
    return Drawn(
        figure,
        (
            "Hollow: as the authors of ViG print both models (read off their figure); Vision-RWKV's own curves are not "
            f"stored, so axes and colours are ours. What it claims at 2048 px, second hand: {said}.",
            "(a) and (b) are panels (b) and (c) of the paper; its panel (a), box AP on COCO, is not measured here.",
            *notes,
        ),
    )


VIL_LOOKS = {
    "deit": Look("DeiT", "#0099CC", MARKERS["deit"]),
    "deit3": Look("DeiT-III", "#4A6FA5", MARKERS["deit"]),
    "vim": Look("Vim", "#CC6677", MARKERS["vim"]),
    "vil2": Look("ViL", "#CC5533", MARKERS["vil"]),
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
        name = printed.hollow(axis, points, family, look)
        name.handle.set_linestyle("--")
        names.append(name)
        spent = {row.model: row.value for row in own}
        for model, compute in spent.items():
            names += _ours(axis, options, model, look, _at_224(compute))
    curves.log_axis(axis, "x")
    axis.set_xlabel("Pre-training compute (exaFLOPS), as printed")
    axis.set_ylabel("ImageNet-1K top-1 (%), published")
    axis.set_title("ImageNet-1K classification")
    printed.finish(figure, names)
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
    figure, (bars, work) = panels(2, 2.9, width_ratios=(1, 2.6) if across(2, 2) == 2 else (1,))
    notes: list[str] = []
    names = printed.printed_and_ours(work, table, VISION_GRU, GRU_LOOKS, WORK, notes, (0, 500))
    params = {row.model: row.value for row in printed.of_paper(VISION_GRU, "params_m")}
    ours = _measured(options, GRU_LOOKS)
    for number, (model, look) in enumerate(reversed(GRU_LOOKS.items())):
        top1 = accuracies()[model, 224].top1
        colour = ink(look.colour)
        bars.bar(number, top1, color="none", edgecolor=colour, hatch="////", width=0.6)
        marks.note(bars, f"{top1:.1f}", (number, top1), (0, 2), ha="center", va="baseline", color=colour)
        printed.label_points(work, printed.of_model(VISION_GRU, model, "flops_g"), colour, above=model == "deit_s")
        _ours(bars, options, model, look, _at_224(number + 0.18))  # beside the printed value
    called = {model: named(printed.name_of(model, look)) for model, look in reversed(GRU_LOOKS.items())}
    bars.set_xticks((0, 1), [f"{name}\n{params[model]:g} M" for model, name in called.items()])
    lows = [row.top1_lo - 1 for row in usable(options.accuracy) if row.model in GRU_LOOKS and side_of(row) == 224]
    bars.set_ylim(min([78, *lows]), 85)
    bars.set_ylabel("Top-1 (%), hatched: published" if ours else "ImageNet-1K top-1 (%), published")
    bars.set_title("(a) Classification")
    bars.grid(visible=False, axis="x")
    work.set_ylabel("GMACs per image (printed as FLOPs)")
    work.set_title("(b) Work")
    printed.size_axis((work,), GRU_SIZES)
    notes += printed.finish(figure, names, GRU_SIZES)
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
    """Vim's teaser, (b) log10 of images/s and (c) GPU memory, over sizes in equal steps."""
    figure, (speed, memory) = panels(2, 2.8)
    notes: list[str] = []
    names: list[Name] = []
    places = {float(side): float(number) for number, side in enumerate(VIM_SIZES)}
    for axis, quantity, limits in ((speed, SPEED, (1, 2.75)), (memory, MEMORY, (0, 80))):
        names += _vim_panel(axis, table, quantity, limits, places, notes)
        axis.set_xticks(range(len(VIM_SIZES)), list(map(str, VIM_SIZES)))
        axis.set_xlabel("Image side (px), equal steps")
    slow, fast = (printed.of_model(VIM, model, SPEED.metric) for model in ("deit_t", "vim_t"))
    last = max(set(slow) & set(fast))
    times = float(10 ** (fast[last] - slow[last]))
    marks.ratio(speed, places[last], (slow[last], fast[last]), marks.times(times), won=times >= 1)
    speed.set_ylabel("log10 of images/s")
    memory.set_ylabel("GPU memory (GB)")
    speed.set_title("(a) Speed")
    memory.set_title("(b) Memory")
    printed.walls(memory, VIM, VIM_LOOKS, notes, places)
    notes += printed.finish(figure, names)
    saved = printed.of_paper(VIM, "memory_saved_pct")[0].value
    notes += [
        "The paper states batch inference and no GPU or dtype. (a) and (b) are its panels (b) and (c); its panel (a), "
        "four tasks, is not measured here.",
        f"Its {saved:g} % less memory at 1248 px has no arrow: DeiT-Ti's end of it is out of memory.",
        "738 px is no multiple of 16; whole patches cover 736.",
    ]
    return Drawn(figure, tuple(notes))


def _vim_panel(
    axis: Axes,
    table: pd.DataFrame,
    quantity: Quantity,
    limits: tuple[float, float],
    places: printed.Points,
    notes: list[str],
) -> list[Name]:
    """Draw what the paper prints of one quantity, with values at points, and ours."""
    speed = quantity is SPEED
    theirs = {model: printed.of_model(VIM, model, quantity.metric) for model in VIM_LOOKS}
    found = []
    for model, look in VIM_LOOKS.items():
        placed = {places[side]: value for side, value in theirs[model].items() if side in places}
        found.append(printed.hollow(axis, placed.items(), model, look))
        printed.label_points(axis, placed, look.colour, above=(model == "vim_t") == speed, digits=2)
    printed.set_limits(axis, limits)
    for model, look in VIM_LOOKS.items():
        ours = printed.measured(table, model, quantity)
        shown = {
            under: {side: float(np.log10(value)) if speed else value for side, value in own.items()}
            for under, own in ours.items()
        }
        what = "throughput" if speed else "memory"
        found += printed.filled(axis, shown, {}, (model, look), notes, what, reproduced=False, places=places)
        if speed:
            rates = {side: 10**value for side, value in theirs[model].items()}
            notes += printed.reproductions(look.name, what, ours, rates)
    return found


VMAMBA_LOOKS = {
    "vmamba_t": Look("VMamba-T", COLOURS["vmamba"], MARKERS["vmamba"]),
    "vmamba_v0_t": Look("vanilla VMamba-T", "#999933", "v"),
    "deit_s": Look("DeiT-S", COLOURS["deit"], MARKERS["deit"]),
    "swin_t": Look("Swin-T", COLOURS["swin"], MARKERS["swin"]),
}
VMAMBA_SIZES = (224, 288, 384, 512, 640, 768)


def vmamba(table: pd.DataFrame, _: Options) -> Drawn:
    """VMamba's Table 9 as a figure: images/s against size, (a) in inference and (b) in training."""
    figure, axes = panels(2, 2.8)
    notes: list[str] = []
    names: list[Name] = []
    for axis, phase, title in zip(axes, ("infer", "train"), ("(a) Inference", "(b) Training"), strict=True):
        theirs = {model: _of_table_9(model, phase) for model in VMAMBA_LOOKS}
        names += [printed.hollow(axis, theirs[model].items(), model, look) for model, look in VMAMBA_LOOKS.items()]
        printed.set_limits(axis, None)
        for model, look in VMAMBA_LOOKS.items():
            ours = printed.measured(table, model, Quantity("throughput_img_s", "throughput_img_s", 1), phase)
            what = f"throughput of {'training' if phase == 'train' else 'inference'}"
            names += printed.filled(axis, ours, theirs[model], (model, look), notes, what, reproduced=True)
        own, other = (theirs[model][float(VMAMBA_SIZES[-1])] for model in ("vmamba_t", "deit_s"))
        marks.ratio(axis, float(VMAMBA_SIZES[-1]), (other, own), f"{own / other:.2f}×", won=own >= other)
        axis.set_ylabel("Throughput (images/s)")
        axis.set_title(title)
    printed.size_axis(axes, VMAMBA_SIZES)
    notes += printed.finish(figure, names, VMAMBA_SIZES)
    notes += [
        "Drawn from the table: axes and colours are ours. Ratios at arrows: VMamba-T over DeiT-S; below 1 dashed.",
        "Theirs: an A100 at batch 32; inference in float32, training in mixed precision and without the update, which "
        "ours has. Their Swin's windows grow with the image.",
    ]
    return Drawn(figure, tuple(notes))


def _of_table_9(model: str, phase: str) -> printed.Points:
    rows = [row for row in independent() if (row.model, row.phase) == (model, phase)]
    rows = [row for row in rows if row.source.startswith(TABLE_9) and row.quantity == "throughput_img_s"]
    return {float(row.res): row.value for row in rows}
