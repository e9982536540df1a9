"""The table of all figures. Importing it imports no plotting library."""

from __future__ import annotations

from dataclasses import dataclass

SWEEP = "vbench sweep --models vig_t,deit_t --res 224:2048"


@dataclass(frozen=True, slots=True)
class Entry:
    """One figure. `draw` is "module:function" of this package: (frame, Options) -> Drawn. It is imported late."""

    draw: str
    question: str
    needs: tuple[str, ...] = ()  # columns; one row of the phase must have them all
    command: str = SWEEP  # measures what the figure needs
    phase: str | None = "infer"  # whose rows it shows; None: inference, or else all rows
    alone: bool = False  # whether published numbers alone are enough


FIGURES: dict[str, Entry] = {
    "resolution": Entry(
        "resolution:resolution", "How do work, memory, latency and accuracy change with resolution?", phase=None
    ),
    "accuracy-cost": Entry(
        "accuracy_cost:accuracy_cost",
        "What accuracy does a cost buy, and at which resolution?",
        needs=("top1",),
    ),
    "throughput": Entry(
        "lines:throughput", "How many images a second, at which resolution?", needs=("throughput_img_s",)
    ),
    "modes": Entry(
        "modes:modes",
        "What does the recurrent mode cost, and what does it save?",
        needs=("latency_ms",),
        command="vbench sweep --models vig_t --modes parallel,recurrent --res 224:2048",
    ),
    "roofline": Entry(
        "roofline:roofline",
        "Is the work bound by arithmetic or by memory traffic?",
        needs=("intensity", "flops_total", "latency_ms"),
    ),
    "crossover": Entry(
        "crossover:crossover",
        "From which resolution on is a recurrent backbone cheaper than attention?",
        needs=("macs",),
    ),
    "ratios": Entry(
        "ratio:ratios",
        "How much less time than attention does a recurrent backbone need, at which resolution, and how sure is it?",
        needs=("latency_ms",),
    ),
    "training": Entry(
        "training:training",
        "What do a training step and its parts cost?",
        needs=("latency_ms",),
        phase="train",
        command=f"{SWEEP} --modes parallel --phase train --batch 8",
    ),
    "energy": Entry(
        "lines:energy",
        "How much energy does an image take?",
        needs=("energy_j_per_image",),
        command=f"{SWEEP} on a device whose energy can be read ('vbench doctor' says)",
    ),
}
_PAPERS = {  # question and command
    "vig": (
        "ViG's efficiency and accuracy against resolution: what was printed, and what we measure",
        "vbench sweep --models vig_t,vrwkv_t,deit_t --res 224,512,640,768,1024,1280,1640,2048 --device cuda",
    ),
    "vrwkv": (
        "Vision-RWKV's speed and memory against resolution: what was printed, and what we measure",
        "vbench sweep --models vrwkv_t,deit_t --res 224:2048 --device cuda",
    ),
    "vil": (
        "Vision-LSTM's accuracy against the compute of pre-training, as printed",
        "nothing: vbench trains no model to the end",
    ),
    "vision_gru": (
        "VisionGRU's work against resolution: what was printed, and what we count",
        "vbench sweep --models vision_gru_t,deit_s --res 512,640,1024,1248",
    ),
    "vim": (
        "Vim's speed and memory against resolution: what was printed, and what we measure",
        "vbench sweep --models vim_t,deit_t --res 512,640,1024,1248 --device cuda",
    ),
    "vmamba": (
        "VMamba's speed in inference and training against resolution: what was printed, and what we measure",
        "vbench sweep --models vmamba_t,vmamba_v0_t,deit_s,swin_t --res 224,288,384,512,640,768 --modes parallel "
        "--phase infer,train --batch 32 --device cuda",
    ),
}
FIGURES |= {
    f"paper:{name}": Entry(f"papers:{name}", question, command=command, alone=True)
    for name, (question, command) in _PAPERS.items()
}
