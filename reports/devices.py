"""What each kind of device can do, from the table of kinds and that of forms: the generated page docs/devices.md."""

from __future__ import annotations

import sys
from pathlib import Path

from vbench.devices import Kind, every_kind
from vbench.kernels.registry import OPS

NOT_RUN = "not run by us yet"
HEAD = (
    *("device", "`--device`", "timer", "memory", "limit of memory", "energy", "clock"),
    *("graphs", "TF32", "float64", "forms", "run by us"),
)

HEADER = """# Devices

`make devices` makes this page from the tables that the program follows; nothing is typed by hand. What a device lacks
is `unsupported`, or missing with its reason: no other device's way is taken instead.

"""

FOOTER = f"""
- *Timer*: events of the device stand around each call; or the host's clock, around a call that waits until it is done.
- *Limit of memory* is what keeps `--memory`; *energy* is the counter that is read, and *clock* what watches clock,
  power and heat while a run lasts.
- *Graphs* is the back end `cudagraph`: calls that are recorded and replayed.
- *Forms* are those of [operators](operators.md): torch's run on every device, Triton's and machine code on some.
- *{NOT_RUN.capitalize()}*: the code is tested on stand-ins whose functions the real torch has. Nobody has looked at its
  numbers yet, and `auto` does not take such a device: name it. `vbench doctor`, `vbench kernels check` and
  `vbench verify`, with `--device`, say how far it works.

ROCm: torch calls an AMD GPU `cuda`, and so does `--device`. Records name the GPU, AMD and the version of HIP. NVML is
not asked; energy comes from `amdsmi` if that is installed. Triton's kernels multiply in float32 there, because its
compiler for AMD has no TF32x3.

mps: torch keeps no peak of memory, so a thread looks every millisecond, and a shorter peak is missed. There is no
float64: checks compare with a truth that the CPU computes, and models that need float64 are `unsupported`.

xpu: a GPU counts as present if torch is built for it.
"""


def page() -> str:
    """The whole page."""
    lines = [HEAD, ("---",) * len(HEAD), *(row(title, kind) for title, kind in every_kind().items())]
    return HEADER + "".join(f"| {' | '.join(line)} |\n" for line in lines) + FOOTER


def row(title: str, kind: Kind) -> tuple[str, ...]:
    """The cells of one kind."""
    name = title.partition(" ")[0]
    named = f"`{name}`, `{name}:N`" if kind.numbered else f"`{name}`"
    watched = "NVML" if kind.watched else "unknown"
    clock = "Linux, as far as it tells" if name == "cpu" else watched
    marks = ["yes" if can else "no" for can in (kind.graphs, kind.tf32, kind.float64)]
    run = "yes" if kind.tried else NOT_RUN
    where = kind.title + (" (ROCm)" if "ROCm" in title else "")
    known = (kind.clock, kind.memory, kind.limited or "none", kind.energy or "unknown", clock)
    return where, named, *known, *marks, forms_on(name), run


def forms_on(name: str) -> str:
    """What the forms that run on a device, by torch's name, are made of."""
    made = {form.package or "torch" for forms in OPS.values() for form in forms.values() if name in form.devices}
    words = {"torch": "torch", "numba": "machine code (numba)", "triton": "Triton"}
    return ", ".join(words.get(package, package) for package in sorted(made, key=lambda one: (one != "torch", one)))


if __name__ == "__main__":
    Path(sys.argv[1]).write_text(page(), encoding="utf-8")
