"""`vbench kernels tune`: measures which configuration of a fused form is the fastest, and makes rows of its table."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import groupby, product
from math import inf
from statistics import median
from typing import TYPE_CHECKING, Any

from vbench import jobs
from vbench.devices import is_out_of_memory, kind_of, on_host, open_device
from vbench.errors import DeviceError, UsageError, first_line
from vbench.jobs.launch import Runner
from vbench.kernels.fused.tuning import ANY_TOKENS, STEPS_MAX, Choice, Row, pick, trying
from vbench.kernels.registry import OPS, missing, operator
from vbench.operators.lost import SAID, LostDeviceError, answers

if TYPE_CHECKING:
    from vbench.devices.base import Device
    from vbench.kernels.trials import Inputs
    from vbench.operators.calls import Width

TOKENS = (196, 1024, 4096, 16384)
BATCHES = (1, 8, 64)
CHUNKS, WARPS = (32, 64, 128), (2, 4, 8, 16)
OF_MATRICES = (
    "gla",
    "wkv6",
    "mlstm",
    "retention",
    "linear_attention",
)  # kernels of matrix products, by 8 warps or fewer
OF_CHANNELS = {"selective_scan": (1, 2, 4)}  # warps of kernels that take a chunk of any length; a warp has 32 channels
SAMPLES = 7  # of each candidate, in turn with the others
MARGIN = 0.03  # a candidate that gains less than this over the one before it does not replace it
LIMIT_S = 3600.0  # for one operator; most of it compiles


@dataclass(frozen=True, slots=True)
class Timing:
    """The time of one call with one choice; `rows` is the key of `tuning.pick`: batch · heads, or the batch.

    `in_use` says that the table has this choice for the call now.
    """

    op: str
    tokens: int
    rows: int
    choice: Choice
    ms: float
    in_use: bool = False


@dataclass(slots=True)
class Outcome:
    """What came of some calls: timings, choices that do not fit the device, and whatever else went wrong."""

    timings: list[Timing] = field(default_factory=list)
    unfit: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)

    def add(self, part: Mapping[str, Any]) -> None:
        """Add a part of `job`."""
        self.timings += [Timing(**{**row, "choice": Choice(**row["choice"])}) for row in part["timings"]]
        self.unfit += part["unfit"]
        self.failed += part["failed"]


def check(ops: Sequence[str], device: str) -> list[str]:
    """The operators that have a fused form here. Raises: DeviceError without a GPU, UsageError if there are none."""
    if on_host(device):
        raise DeviceError("vbench kernels tune times kernels on a GPU, and this machine has none; take --device cuda")
    able = [op for op in ops if "fused" in OPS[op] and missing(op, "fused", device) is None]
    if not able:
        raise UsageError(f"none of {', '.join(ops)} has a fused form that runs on {device}")
    return able


def candidates(op: str, in_use: Choice) -> list[Choice]:
    """The choices that are timed: the one in use, and all that are other kernels than those before them."""
    found = {_kernel(op, in_use): in_use}
    for sequential, chunk, warps in product((False, True), reversed(CHUNKS), reversed(OF_CHANNELS.get(op, WARPS))):
        choice = Choice(chunk, warps, sequential)
        if _fits(op, choice):
            found.setdefault(_kernel(op, choice), choice)
    return list(found.values())


def _fits(op: str, choice: Choice) -> bool:
    """Whether a choice can be tried: few enough steps of a scan, few enough warps for a tile of a matrix state."""
    if op in OF_CHANNELS:
        return True
    return choice.warps <= 8 if op in OF_MATRICES else choice.chunk // choice.warps <= STEPS_MAX


def _kernel(op: str, choice: Choice) -> tuple[int, ...]:
    """What is compiled for a choice. If it is sequential, a matrix state takes one token a step, a scan `steps`."""
    if op in OF_MATRICES:
        return () if choice.sequential else (choice.chunk, choice.warps)
    if op in OF_CHANNELS:
        return (choice.warps,) if choice.sequential else (choice.chunk, choice.warps)
    steps = choice.chunk // choice.warps
    return (steps,) if choice.sequential else (choice.warps, steps)


def run(ops: Sequence[str], device: str, dtype: str, launcher: Runner) -> Outcome:
    """Time every candidate, one operator in one child at a time; one more follows a child that lost its device."""
    found = Outcome()
    for op in ops:
        rest: dict[str, Any] = {}
        while True:
            ending = launcher.run(*jobs.tune_operator(op, device, dtype, rest), LIMIT_S)
            lost = ending.parts.pop("lost", None)
            for part in ending.parts.values():
                found.add(part)
            if lost is None:
                break
            found.failed.append(lost["said"])
            rest = {"since": lost["since"], "without": [*rest.get("without", []), lost["choice"]]}
        if ending.status != "ok":
            found.failed.append(f"{op}: {ending.reason}")
    return found


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"op", "device", "dtype", "rest"} -> under each call's name, the fields of an `Outcome`.

    If a choice costs this process its device, the last part is "lost": what the next process needs, and what is "said".
    """
    import torch

    from vbench.operators.calls import WIDTHS

    op, rest = argument["op"], argument["rest"]
    device, width = open_device(argument["device"]), WIDTHS[argument["op"]][0]
    device.select()
    without = [Choice(**choice) for choice in rest.get("without", [])]
    with torch.inference_mode():
        for tokens, batch in product(TOKENS, BATCHES):
            if [tokens, batch] < rest.get("since", []):
                continue
            try:
                inputs = width.inputs(batch=batch, tokens=tokens, dtype=argument["dtype"], device=argument["device"])
                part = _measure(op, width, inputs, argument["dtype"], device, without)
            except LostDeviceError as error:
                yield "lost", {**error.rest, "since": [tokens, batch]}
                return
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                part = Outcome(unfit=[f"{op} N={tokens} B={batch}: {first_line(error)}"])
            yield f"{tokens} {batch}", asdict(part)


def _measure(op: str, width: Width, inputs: Inputs, dtype: str, device: Device, without: Sequence[Choice]) -> Outcome:
    """Try all candidates on one call, check their outputs, and time those that are right in turn.

    Raises: LostDeviceError if the device answers no more after a choice.
    """
    import torch

    from vbench.kernels.fused.launch import device_name
    from vbench.operators.outputs import BOUNDS, error_of, wanted, why_wrong
    from vbench.operators.sampling import Backend, taker

    tokens, count = next(iter(inputs.values())).shape[-2], width.rows(inputs)
    in_use = pick(op, tokens, count, device_name(torch.device(device.name)))
    backend: Backend = "cudagraph" if kind_of(device.name).graphs else "eager"
    right, found = wanted(op, width, inputs), Outcome()
    takers: dict[Choice, Callable[[], float]] = {}
    samples: dict[Choice, list[float]] = {}
    for choice in (choice for choice in candidates(op, in_use) if choice not in without):
        call = _call(op, width, inputs, choice)
        try:
            wrong = why_wrong(error_of(call(), right), BOUNDS[dtype])
            device.wait()
            begin = device.now()
            call()
            device.wait()
            if wrong is None:
                takers[choice] = taker(call, (device.now() - begin) * 1e3, backend, "warm", device)
        except Exception as error:
            _tell(error, device, f"{op} N={tokens} rows={count} {_words(choice)}", choice, found)
        else:
            found.failed += [f"{op} N={tokens} rows={count} {_words(choice)}: {wrong}"] if wrong else []
    for choice in [choice for _ in range(SAMPLES) for choice in takers]:
        if choice not in takers:
            continue
        try:
            samples.setdefault(choice, []).append(takers[choice]())
        except Exception as error:
            del takers[choice]
            _tell(error, device, f"{op} N={tokens} rows={count} {_words(choice)}", choice, found)
    found.timings = [
        Timing(op, tokens, count, choice, median(samples[choice]), in_use=choice == in_use) for choice in takers
    ]
    return found


def _call(op: str, width: Width, inputs: Inputs, choice: Choice) -> Callable[[], Any]:
    """A call of the fused form with one choice, whenever it is made."""
    from vbench.kernels.entry import bound

    function = bound(op, operator(op, "fused"), inputs, width.keywords(inputs))

    def call() -> Any:
        with trying(choice):
            return function()

    return call


def _words(choice: Choice) -> str:
    return f"chunk {choice.chunk}, {choice.warps} warps{', sequential' if choice.sequential else ''}"


def _tell(error: Exception, device: Device, where: str, choice: Choice, found: Outcome) -> None:
    """Note a choice that raised: as unfit if it needs more of the device than there is, else as failed.

    Raises: LostDeviceError if the device answers no more.
    """
    said = f"{where}: {first_line(error, named=True)}"
    if not answers(device):
        raise LostDeviceError({"choice": asdict(choice), "said": f"{said}; {SAID}"}) from error
    unfit = is_out_of_memory(error) or type(error).__name__ == "OutOfResources"  # Triton's: shared memory, registers
    (found.unfit if unfit else found.failed).append(said)


def rows(timings: Sequence[Timing], device: str, source: str) -> list[Row]:
    """Timings as rows of the table, in the order of look-up: the most rows first, and short sequences before long ones.

    A row has the fastest choice up to its length. The choice of the length before stays if it is at most 3 % slower;
    else the one that is in use does. The last length stands for all longer ones, and the fewest rows for all fewer.
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
                before = [choice for _, choice in best[-1:]]
                used = [timing.choice for timing in equal if timing.tokens == tokens and timing.in_use]
                kept = [choice for choice in (*before, *used) if ms.get(choice, inf) <= (1 + MARGIN) * ms[fastest]]
                best.append((tokens, (*kept, fastest)[0]))
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
