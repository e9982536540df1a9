"""What a line of records must look like where vbench computes with it: types, bounds, lengths. msgspec checks it.

A record keeps its parts as they were written, with whatever else is in them; a shape only looks. Numbers are finite:
JSON has no other ones. A part may lack what is optional here, and may be null.
"""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import UNSET, Meta, Struct, UnsetType, ValidationError, convert

WORDS = 200  # characters of an error that are told
SCHEMA = 2
LARGEST = 2**62
Whole = Annotated[int, Meta(ge=-LARGEST, le=LARGEST)]
Count = Annotated[int, Meta(ge=0, le=LARGEST)]
Number = Annotated[float, Meta(ge=-1e300, le=1e300)]
Seconds = Annotated[float, Meta(ge=0, le=1e15)]
Ms = Annotated[float, Meta(ge=1e-9, le=1e15)]  # ratios of any two are finite
Rate = Annotated[float, Meta(ge=1e-15, le=1e15)]
Text = Annotated[str, Meta(max_length=1_000_000)]
Status = Literal["ok", "oom", "unsupported", "error", "timeout"]
Times = Ms | Annotated[list[Ms], Meta(min_length=1)] | None


class Case(Struct):
    model: Annotated[str, Meta(min_length=1, max_length=1000, pattern="^[^ ]+$")]  # a space parts it from its mode
    height: Annotated[int, Meta(ge=1, le=2**20)]
    width: Annotated[int, Meta(ge=1, le=2**20)]
    mode: Text
    form: Text | None
    batch: Annotated[int, Meta(ge=1, le=2**40)] | Literal["knee", "max"]
    dtype: Text
    device: Text
    phase: Text = "infer"
    backend: Text = "eager"
    layout: Text = "nchw"
    attention: Text | None = None
    reparam: Text = "no"


class Protocol(Struct):
    launches: Annotated[int, Meta(ge=1, le=10**6)]
    rigor: Text | None = None
    threads: Count | None = None


class Gpu(Struct):
    name: Text | None = None
    memory_bytes: Count | None = None
    capability: list[Any] | Text | None = None
    driver: Text | None = None


class OwnModel(Struct):
    commit: Text | None = None
    dirty: bool | None = None
    repository: Text | None = None
    source: Text | None = None


class Host(Struct):
    device_name: Text | None = None
    device: Text = ""
    gpu: Gpu | None = None
    cpu: Text | None = None
    cpu_count: Count | None = None
    ram_bytes: Count | None = None
    os: Text | None = None
    versions: dict[str, Text | None] | UnsetType = UNSET
    commit: Text | None = None
    dirty: bool | None = None
    models: dict[str, OwnModel] | None = None


class Load(Struct):
    load_1min: Seconds | UnsetType = UNSET
    free_bytes: Count | None = None
    beside: Text | None = None


class Verified(Struct):
    ok: bool | None = None
    checks: Count | UnsetType = UNSET
    failed: list[Text] | None = None


class Work(Struct):
    params: Count | None = None
    tokens: Count | None = None
    padding: Text | None = None
    macs: Count | None = None
    macs_executed: Count | None = None
    macs_matmul: Count | None = None
    macs_elementwise: Count | None = None
    macs_closed_form: Count | None = None
    flops_elementwise: Count | None = None
    flops_total: Count | None = None
    bytes_min: Count | None = None
    intensity: Number | None = None
    state_bytes: Count | None = None
    predicted_peak_bytes: Count | None = None
    coverage: Number | None = None
    unknown: dict[str, Any] | list[Any] | None = None
    params_deployed: Count | None = None
    closed_form_agrees: bool | None = None


class SecondCount(Struct):
    macs_fvcore: Count | None = None
    agree: bool | None = None
    reason: Text | None = None


class Settings(Struct):
    attention: Text | None = None
    attention_kernel: Text | None = None
    weights_dtype: Text | None = None
    tf32: bool | None = None
    loss: Text | None = None
    runtime: Text | None = None
    computes_in: Text | None = None
    changed: list[Text] | UnsetType = UNSET
    background_threads: list[Text] | UnsetType = UNSET


class Memory(Struct):
    batch: Count
    peak_bytes: Whole
    weights_bytes: Whole | None = None
    input_bytes: Whole | None = None
    activation_bytes: Whole | None = None
    gradients_bytes: Whole | None = None
    optimizer_bytes: Whole | None = None
    workspace_bytes: Whole | None = None
    slack_bytes: Whole | None = None
    process_bytes: Whole | None = None
    growth_bytes: Whole | None = None
    growth_reason: Text | None = None
    first_call_s: Seconds | None = None
    compile_s: Seconds | None = None
    pass_s: Seconds | UnsetType = UNSET


class Warmup(Struct):
    converged: bool | None = None


class Parts(Struct):
    forward: Times = None
    backward: Times = None
    update: Times = None


class Latency(Struct):
    batch: Count
    samples_ms: list[Ms]
    parts_ms: Parts | UnsetType = UNSET
    throttled: Text | bool | None = None
    host_ms: Seconds | None = None


class Throughput(Struct):
    batch: Annotated[int, Meta(ge=1, le=2**40)]
    images_per_s: Rate | UnsetType = UNSET
    block_calls: Annotated[int, Meta(ge=1, le=2**40)] | UnsetType = UNSET
    blocks_ms: Annotated[list[Ms], Meta(min_length=1)] | UnsetType = UNSET
    reason: Text | None = None
    curve: list[Point] | None = None

    def __post_init__(self) -> None:
        if self.images_per_s is not UNSET and UNSET in (self.block_calls, self.blocks_ms):
            raise ValueError("images_per_s without block_calls and blocks_ms")


class Point(Struct):
    batch: Count
    images_per_s: Rate


class Energy(Struct):
    net_j_per_image: Number | None = None
    gross_j_per_image: Number | None = None
    reason: Text | None = None
    wall_s: Seconds | UnsetType = UNSET


class GpuState(Struct):
    foreign_pids: list[Any] | None = None
    sm_mhz_median: Number | None = None


class State(Struct):
    wall_s: Seconds
    cpu_s: Seconds
    threads: Count
    cores: Count
    others_busy_share: Number
    gpu: GpuState | None
    cgroup_throttled_s: Seconds | None = None
    stolen_share: Number | None = None


class Spent(Struct):
    measured_s: Number
    warmup_s: Number
    memory_s: Number | UnsetType = UNSET
    throughput_s: Number | UnsetType = UNSET


class Outputs(Struct):
    nonfinite: Count | bool | None = None
    differs: Count | bool | None = None
    reason: Text | UnsetType | None = UNSET

    def __post_init__(self) -> None:
        if (self.nonfinite or self.differs) and self.reason is UNSET:
            raise ValueError("outputs that are wrong, without a reason")


class Floor(Struct):
    floor_ms: Seconds | None
    flops_per_s: Number | None = None
    copy_bytes_per_s: Number | None = None


class Zoo(Struct):
    family: Text | None = None
    caveat: Text | None = None
    padded_share: Number | None = None


class Common(Struct):
    """What a launch and a block of turns share."""

    order: Whole
    status: Status
    reason: Text | None
    conditions: Annotated[str, Meta(max_length=200)]
    protocol: Protocol
    host: Host
    started_at: Annotated[str, Meta(max_length=100)]
    wall_s: Seconds
    timeout_s: Number
    schema: Literal[SCHEMA]  # type: ignore[valid-type]


class Launch(Common, kw_only=True):
    """The shape of a `Record`."""

    case_id: Annotated[str, Meta(min_length=1, max_length=200)]
    case: Case
    launch: Count
    load: Load | None
    verified: Verified | None
    work: Work | None
    second_count: SecondCount | None
    settings: Settings | None
    memory: Memory | None
    warmup: Warmup | None
    latency: Latency | None
    throughput: Throughput | None
    energy: Energy | None
    state: State | None
    spent: Spent | None
    outputs: Outputs | None
    floor: Floor | None
    zoo: Zoo | None


class Block(Common, kw_only=True):
    """The shape of a `TurnBlock`."""

    company: Annotated[str, Meta(min_length=1, max_length=200)]
    block: Count
    case_ids: Annotated[list[str], Meta(min_length=2)]
    cases: list[Case]
    samples_ms: list[Annotated[list[Ms], Meta(min_length=1)]] | None
    batches: list[Count] | None
    calls: list[Count] | None
    stop: Text | None
    load: Load | None

    def __post_init__(self) -> None:
        lists = {"cases": self.cases, "samples_ms": self.samples_ms, "batches": self.batches, "calls": self.calls}
        for name, values in lists.items():
            if values is not None and len(values) != len(self.case_ids):
                raise ValueError(f"{name} has {len(values)} entries for {len(self.case_ids)} cells")
        if self.samples_ms and len({len(times) for times in self.samples_ms}) > 1:
            raise ValueError("the cells in samples_ms have different numbers of rounds")


def problem(line: Any, shape: type[Launch] | type[Block]) -> str | None:
    """What is wrong with a record: "`latency.samples_ms[3]`: expected float, got str"; None if nothing is."""
    try:
        convert(line, shape, from_attributes=True)
    except ValidationError as error:
        return said(error)
    return None


def said(error: Exception) -> str:
    """An error of msgspec in one line, the place first. What the record has there is cut if it is long."""
    what, _, where = str(error).partition(" - at `$")
    what = what.removeprefix("Object ").replace("`", "")
    what = what if len(what) <= WORDS else f"{what[:WORDS]}..."
    place = where.rstrip("`").removeprefix(".")[:WORDS]
    return f"{place}: {what[:1].lower()}{what[1:]}" if place else f"{what[:1].lower()}{what[1:]}"
