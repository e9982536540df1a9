"""The files that a gate writes into a folder, for people and for CI."""

from __future__ import annotations

from pathlib import Path

from vbench.files import write_text
from vbench.reports import metrics
from vbench.reports.gate import to_json
from vbench.reports.gate_junit import to_junit
from vbench.reports.gate_markdown import to_markdown
from vbench.results.outcome import Outcome

FILES = ("gate.json", "gate.md", "junit.xml", "github-action-benchmark.json", "bencher.json")


def write_outputs(outcome: Outcome, folder: Path, *, strict: bool = False) -> list[Path]:
    """Write `FILES` into a folder, each whole or not at all. Returns the files written.

    If head has no value, there are no metrics; those of an earlier session are removed.

    Raises: OutputError if the folder cannot be written.
    """
    values = metrics.metrics(outcome)
    texts = (
        to_json(outcome, strict=strict),
        to_markdown(outcome, strict=strict),
        to_junit(outcome),
        metrics.to_github_action_benchmark(values),
        metrics.to_bencher(values),
    )
    written = []
    for path, text in zip((folder / name for name in FILES), texts, strict=True):
        if text is not None:
            write_text(path, text)
            written.append(path)
        elif path.exists():
            path.unlink()
    return written
