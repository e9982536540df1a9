"""Tables as a paper has them: frames of few and of many models, and a document of two columns around the tables."""

from __future__ import annotations

import json
import subprocess
from pathlib import Path

import pandas as pd
from fakes import latency, make_record, of_case

from vbench.models import spec
from vbench.results.frame import frame

MODELS = (
    *("vig_t", "deit_t", "vrwkv6_t", "vision_gru_t", "vil2_t", "swin_t", "mlla_t", "vmamba_v0_t"),
    *("vig_s", "vig_h_s", "vrwkv_s", "vil_splus_s8", "vir_s_softmax", "vim_s_plus", "vmamba_s_s1l20", "mlla_s"),
    *("deit_s", "swin_s", "deit_b", "vir_l16_softmax"),
)
SIDES = (224, 384, 512, 1024, 2048)
DOCUMENT = r"""\documentclass[10pt,twocolumn,a4paper]{article}
\usepackage[T1]{fontenc}
\usepackage{booktabs}
\begin{document}
%s
\end{document}
"""


def of_models(count: int, sides: tuple[int, ...] = SIDES) -> pd.DataFrame:
    """A sweep of the first models in each of their modes, by batches and in training too, measured in turns."""
    cold = {"calls": 10, "wall_s": 0.5, "converged": False, "reason": None}
    found = []
    for model in MODELS[:count]:
        for mode in spec(model).modes:
            cells = [make_record(model, side, mode, warmup=cold if side > 512 else None) for side in sides]
            slow = make_record(model, sides[-1], mode, latency=latency([98_500.0, 99_900.0]))
            found += [*cells[:-1], slow]
            found += [of_case(cell, batch=batch) for cell in cells[:2] for batch in (8, 64)]
        step = of_case(make_record(model, 224), phase="train", batch=8)
        found.append(step)
    table = frame(found)
    cells = table[(table["phase"] == "infer") & (table["batch_policy"] == "knee")]
    attention = cells[cells["model"] == "deit_t"]
    for at, row in attention.iterrows():
        others = cells[(cells["height"] == row["height"]) & (cells["model"] != "deit_t")]
        turns = {name: [2.0, 1.25, 2.5, 4, 1440] for name in others["case_id"]}
        table.loc[at, "latency_paired"] = json.dumps(turns)
    return table


def compiled(files: list[Path], folder: Path, document: str = DOCUMENT) -> str:
    """The log of pdflatex for a document of these tables, set in `folder`. Raises if it cannot be set at all."""
    body = "\n".join(f"Text. \\input{{{file}}}\\clearpage" for file in files)
    (folder / "paper.tex").write_text(document % body)
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "-draftmode", "paper.tex"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, timeout=300)
    assert done.returncode == 0, done.stdout[-3000:]
    return (folder / "paper.log").read_text(errors="replace")
