"""`vbench kernels tune`: measures which configuration of a fused form is the fastest, and makes rows of its table."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from statistics import median
from typing import Any

from vbench import jobs
from vbench.devices import kind_of, on_host, open_device
from vbench.errors import DeviceError, UsageError
from vbench.jobs.launch import Runner
from vbench.kernels.fused.tuning import ANY_TOKENS, Choice, Row
from vbench.kernels.registry import OPS, missing, operator

TOKENS = (196, 1024, 4096, 16384)
BATCHES = (1, 8, 64)
CANDIDATES = tuple(
    Choice(chunk, warps, sequential) for sequential in (False, True) for chunk in (32, 64, 128) for warps in (2, 4, 8)
)
SAMPLES = 7  # of each candidate, in turn with the others
MARGIN = 0.03  # a candidate that gains less than this over the one before it does not replace it
LIMIT_S = 600.0


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one call with one choice; `rows` is the key of `tuning.pick`: batch · heads, or the batch."""

    op: str
    tokens: int
    rows: int
    choice: Choice
    ms: float


def check(ops: Sequence[str], device: str) -> list[str]:
    """The operators that have a fused form here. Raises: DeviceError without a GPU, UsageError if there are none."""
    if on_host(device):
        raise DeviceError("vbench kernels tune times kernels on a GPU, and this machine has none; take --device cuda")
    able = [op for op in ops if "fused" in OPS[op] and missing(op, "fused", device) is None]
    if not able:
        raise UsageError(f"none of {', '.join(ops)} has a fused form that runs on {device}")
    return able


def run(ops: Sequence[str], device: str, dtype: str, launcher: Runner) -> tuple[list[Timing], list[str]]:
    """Time every candidate, one operator in one child at a time. Returns timings, and a line for each failure."""
    timings, failed = [], []
    for op in ops:
        ending = launcher.run(*jobs.tune_operator(op, device, dtype), LIMIT_S)
        for rows in ending.parts.values():
            timings += [Timing(**{**row, "choice": Choice(**row["choice"])}) for row in rows]
        if ending.status != "ok":
            failed.append(f"{op}: {ending.reason}")
    return timings, failed


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"op", "device", "dtype"} -> under each call's name, the fields of its `Timing`s.

    A choice that cannot be launched has no timing.
    """
    from dataclasses import asdict

    import torch

    from vbench.kernels.fused.tuning import trying
    from vbench.operators.calls import WIDTHS
    from vbench.operators.sampling import Backend, taker

    op, device, width = argument["op"], argument["device"], WIDTHS[argument["op"]][0]
    where, function = open_device(device), operator(op, "fused")
    where.select()
    backend: Backend = "cudagraph" if kind_of(device).graphs else "eager"
    with torch.inference_mode():
        for tokens in TOKENS:
            for batch in BATCHES:
                inputs = width.inputs(batch=batch, tokens=tokens, dtype=argument["dtype"], device=device)
                takers = {}
                for choice in CANDIDATES:
                    try:
                        with trying(choice):
                            function(*inputs.values(), **width.options)
                            where.wait()
                            call = lambda: function(*inputs.values(), **width.options)  # noqa: B023, E731 - used at once
                            takers[choice] = taker(call, 0.05, backend, "warm", where)
                    except Exception as error:  # too much shared memory, say
                        print(f"{op} {tokens} {batch} {choice}: {error}")  # noqa: T201 - into the child's log
                samples: dict[Choice, list[float]] = {choice: [] for choice in takers}
                for _ in range(SAMPLES):
                    for choice, take in takers.items():
                        samples[choice].append(take())
                call_rows = width.rows(inputs)
                yield (
                    f"{tokens} {batch}",
                    [asdict(Timing(op, tokens, call_rows, choice, median(taken))) for choice, taken in samples.items()],
                )


def rows(timings: Sequence[Timing], device: str, source: str) -> list[Row]:
    """Timings as rows of the table, in the order of look-up: the most rows first, and short sequences before long ones.

    A row has the fastest choice up to its length. The choice of the length before stays if it is at most 3 % slower.
    The last length stands for all longer ones, and the fewest rows for all fewer.
    """
    table: list[Row] = []
    for op in dict.fromkeys(timing.op for timing in timings):
        own = [timing for timing in timings if timing.op == op]
        counts = sorted({timing.rows for timing in own}, reverse=True)
        for count in counts:
            best: list[tuple[int, Choice]] = []
            equal = sorted((timing for timing in own if timing.rows == count), key=lambda timing: timing.tokens)
            for tokens, group in groupby(equal, key=lambda timing: timing.tokens):
                ms = {timing.choice: timing.ms for timing in group}
                fastest = min(ms, key=lambda choice: ms[choice])
                before = best[-1][1] if best else fastest
                kept = before in ms and ms[before] <= (1 + MARGIN) * ms[fastest]
                best.append((tokens, before if kept else fastest))
            runs = [list(group) for _, group in groupby(best, key=lambda pair: pair[1])]
            for at, each in enumerate(runs):
                most = each[-1][0] if at < len(runs) - 1 else ANY_TOKENS
                table.append(Row(op, most, count if count != counts[-1] else 0, device, each[0][1], source))
    return table


def to_toml(table: Sequence[Row]) -> str:
    """Rows in the form of tuning.toml."""
    blocks = []
    for row in table:
        lines = ["[[row]]", f'op = "{row.op}"']
        lines += [f"tokens_max = {row.tokens_max}"] if row.tokens_max < ANY_TOKENS else []
        lines += [f"rows_min = {row.rows_min}"] if row.rows_min else []
        lines += [f'device = "{row.device}"', f"chunk = {row.choice.chunk}", f"warps = {row.choice.warps}"]
        lines += ["sequential = true"] if row.choice.sequential else []
        blocks.append("\n".join([*lines, f'source = "{row.source}"']) + "\n")
    return "\n".join(blocks)
