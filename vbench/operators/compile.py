"""`vbench kernels compile`: compiles Triton's kernels without a GPU and compares them with a committed table.

Every form is called once in every type and width, forward and backward; its launches are recorded and not run. Each
launch is compiled as Triton would compile it for its arguments. The compiler's own tools say which resources it takes.
This proves that a kernel compiles, fits and does not spill. It does not say how fast the kernel is.
"""

from __future__ import annotations

import csv
import hashlib
import re
import subprocess
import tempfile
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import nullcontext
from dataclasses import asdict, dataclass, fields
from importlib.metadata import PackageNotFoundError, version
from importlib.resources import files
from pathlib import Path
from typing import TYPE_CHECKING, Any

from vbench import jobs
from vbench.errors import CompileError, UsageError
from vbench.jobs.launch import Runner, side_by_side
from vbench.kernels.registry import OPS
from vbench.options import numbers

if TYPE_CHECKING:
    from torch import Tensor

    from vbench.kernels.fused.launch import Launch

DTYPES = ("float32", "bfloat16", "float16")
TOKENS = 4096  # of a call: more than one program walks, and a multiple of 16, as most grids are
SHARED_MAX = 99 * 1024  # bytes a block may have on the smallest of the consumer GPUs, sm_89 and sm_120
REGISTERS_MAX = 255  # a thread can address
GROWTH = 8  # registers more than in the table that are tolerated: compilers vary
LIMIT_S = 1800.0  # for one operator on one architecture
MMA = {"tcgen05.mma": "tcgen05", "wgmma.mma_async": "wgmma", "mma.sync": "mma.sync"}  # in PTX, the newest first
_TYPES = {"float32": "*fp32", "bfloat16": "*bf16", "float16": "*fp16", "float64": "*fp64", "int32": "*i32"}
_TYPES |= {"int64": "*i64", "int8": "*i8", "uint8": "*u8", "bool": "*i1"}


Key = tuple[str, str, str, int, str]


@dataclass(frozen=True, slots=True, order=True)
class Resources:
    """A row of the table: one kernel, compiled by one Triton for one kind of arguments and one architecture.

    `registers` and bytes of `stack` and `local` memory are a thread's, bytes of `shared` memory a block's.
    """

    op: str
    kernel: str
    dtype: str  # of the operator's inputs
    constants: str  # "CHUNK=64 D=32"
    warps: int
    variant: str  # a digest of all that the compiler knows of the arguments
    arch: int  # 90 for sm_90
    triton: str  # "3.8": the minor version, within which resources hardly change
    registers: int
    stack: int
    local: int
    shared: int
    mma: str  # how matrices are multiplied: mma.sync, wgmma, tcgen05, or none
    dots: bool  # whether the kernel multiplies matrices

    @property
    def key(self) -> Key:
        return self.op, self.kernel, self.variant, self.arch, self.triton

    def __str__(self) -> str:
        return f"{self.op} {self.kernel} sm_{self.arch} {self.dtype} {self.constants} ({self.variant})"


@dataclass(frozen=True, slots=True)
class Variant:
    """A kernel and all that the compiler knows of its arguments."""

    kernel: Any
    signature: dict[str, str]
    constexprs: dict[str, Any]
    attrs: dict[tuple[int, ...], list[list[Any]]]
    warps: int
    stages: int
    registers: int | None

    @property
    def name(self) -> str:
        return str(self.kernel.fn.__name__)

    @property
    def constants(self) -> str:
        """The constants by which a reader recognises the variant. A function has its name; absent ones are left out."""
        shown = {key: getattr(value, "__name__", value) for key, value in self.constexprs.items()}
        return " ".join(f"{key}={value}" for key, value in shown.items() if value is not None)

    @property
    def digest(self) -> str:
        facts = [self.name, self.signature, self.constants, sorted(map(str, self.attrs)), self.warps, self.stages]
        facts += [self.registers] if self.registers else []
        return hashlib.sha256(repr(facts).encode()).hexdigest()[:8]


def variant_of(launch: Launch) -> Variant:
    """The variant that Triton's just-in-time compiler would make for a launch.

    It knows which addresses and integers are multiples of 16, which integers are 1, and which arguments are absent.
    """
    signature: dict[str, str] = {}
    constexprs: dict[str, Any] = {}
    attrs: dict[tuple[int, ...], list[list[Any]]] = {}
    given = {**launch.args, **launch.constants}
    for at, parameter in enumerate(launch.kernel.params):
        value = given.get(parameter.name, parameter.default)
        known = not parameter.do_not_specialize
        if parameter.is_constexpr or value is None or (known and type(value) is int and value == 1):
            signature[parameter.name], constexprs[parameter.name] = "constexpr", value
            continue
        signature[parameter.name] = _type(value)
        address = value.data_ptr() if hasattr(value, "data_ptr") else value
        aligned = known and not parameter.do_not_specialize_on_alignment
        if aligned and type(address) is int and address % 16 == 0:
            attrs[at,] = [["tt.divisibility", 16]]
    return Variant(launch.kernel, signature, constexprs, attrs, launch.warps, launch.stages, launch.registers)


def _type(value: Tensor | float) -> str:
    """Triton's name of an argument's type."""
    if isinstance(value, bool):
        return "u1"
    if isinstance(value, int):
        return "i32" if -(2**31) <= value < 2**31 else "i64"
    if isinstance(value, float):
        return "fp32"
    return _TYPES[str(value.dtype).removeprefix("torch.")]


def compiled(variant: Variant, arch: int) -> dict[str, Any]:
    """The fields of `Resources` that come from the compiler."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    from vbench.kernels.fused.launch import options

    source = ASTSource(
        fn=variant.kernel, signature=variant.signature, constexprs=dict(variant.constexprs), attrs=variant.attrs
    )
    settings = options(variant.warps, variant.stages, variant.registers)
    made = triton.compile(source, target=GPUTarget("cuda", arch, 32), options=settings)
    ptx, used = made.asm["ptx"], _usage(made.asm["cubin"])
    return {
        "registers": used["REG"],
        "stack": used["STACK"],
        "local": used["LOCAL"],
        "shared": made.metadata.shared,
        "mma": next((kind for text, kind in MMA.items() if text in ptx), "none"),
        "dots": "tt.dot" in made.asm["ttir"],
        "triton": minor(triton.__version__),
    }


def _usage(cubin: bytes) -> dict[str, int]:
    """{"REG": 70, "STACK": 0, "LOCAL": 0, ...} of a cubin's one function."""
    from triton import knobs

    with tempfile.NamedTemporaryFile(suffix=".cubin") as file:
        file.write(cubin)
        file.flush()
        command = [knobs.nvidia.cuobjdump.path, "--dump-resource-usage", file.name]
        text = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    return {key: int(value) for key, value in re.findall(r"(REG|STACK|LOCAL|SHARED):(\d+)", text)}


def launches(op: str) -> Iterator[tuple[str, Launch]]:
    """(dtype, launch) of every Triton form of an operator, forward and backward, in every width and tuning choice."""
    import torch

    from vbench.kernels.fused import tuning
    from vbench.kernels.fused.launch import recording
    from vbench.kernels.registry import operator
    from vbench.kernels.trials import tensors
    from vbench.operators.calls import WIDTHS

    choices: list[tuning.Choice | None] = [
        *dict.fromkeys(row.choice for row in tuning.table() if row.op == op and row.device != "cpu")
    ]
    for form in triton_forms(op):
        for width in WIDTHS[op]:
            for dtype in DTYPES:
                for choice in choices or [None]:
                    inputs = width.inputs(batch=1, tokens=TOKENS, dtype=dtype, device="cpu")
                    x = {name: value.detach().requires_grad_() for name, value in inputs.items()}
                    with tuning.trying(choice) if choice else nullcontext(), recording() as launched:
                        o, state = width.call(operator(op, form), x)
                        loss = sum(part.float().sum() for part in (o, *tensors(state)) if part.requires_grad)
                        torch.autograd.grad(loss, list(x.values()), allow_unused=True)
                    yield from ((dtype, launch) for launch in launched)


def forward_launches(op: str, dtype: str) -> Iterator[tuple[str, Launch]]:
    """(form, launch) of the Triton forms of an operator, forward, in the first width, with the usual choices."""
    import torch

    from vbench.kernels.fused.launch import recording
    from vbench.kernels.registry import operator
    from vbench.operators.calls import WIDTHS

    width = WIDTHS[op][0]
    for form in triton_forms(op):
        inputs = width.inputs(batch=1, tokens=TOKENS, dtype=dtype, device="cpu")
        with torch.no_grad(), recording() as launched:
            width.call(operator(op, form), inputs)
        yield from ((form, launch) for launch in launched)


def triton_forms(op: str) -> list[str]:
    """The forms of an operator that consist of Triton's kernels."""
    return [form for form, about in OPS[op].items() if about.package == "triton"]


def job(argument: dict[str, Any]) -> Iterator[tuple[str, Any]]:
    """{"op", "arch"} -> under the digest of each variant of its kernels, the fields of `Resources`."""
    yield from ((key, asdict(row)) for key, row in measured(launches(argument["op"]), argument["op"], argument["arch"]))


def measured(launched: Iterable[tuple[str, Launch]], op: str, arch: int) -> Iterator[tuple[str, Resources]]:
    """(digest, row) of each variant among launches, once. Raises: CompileError."""
    seen: set[str] = set()
    for dtype, launch in launched:
        variant = variant_of(launch)
        if variant.digest in seen:
            continue
        seen.add(variant.digest)
        about = (op, variant.name, dtype, variant.constants, variant.warps, variant.digest, arch)
        try:
            resources = compiled(variant, arch)
        except Exception as error:
            raise CompileError(f"{variant.name} in {dtype} with {variant.constants}: {_cause(error)}") from error
        yield variant.digest, Resources(*about, **resources)


def _cause(error: BaseException) -> str:
    """The first line of the first error: Triton wraps an error once for each function that it inlines."""
    while error.__cause__ is not None:
        error = error.__cause__
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if len(lines) > 1 and lines[0].startswith("at ") else (lines or [type(error).__name__])[0]


def parse_archs(text: str) -> tuple[int, ...]:
    """ "80,90" -> architectures. Raises: UsageError."""
    kind = "an architecture such as 80, 90 or 100"
    return numbers(text, "--arch", "80,90", allowed=range(80, 131), kind=kind)


def run(ops: Sequence[str], archs: Sequence[int], launcher: Runner) -> list[Resources]:
    """Compile the Triton forms of these operators, two children at a time; the rows, sorted.

    Raises: UsageError if there is nothing to compile, or nothing to compile with; CompileError.
    """
    ops = [op for op in ops if triton_forms(op)]
    if not ops:
        raise UsageError("nothing to compile: none of these operators has a form made of Triton's kernels")
    if triton_version() is None:
        raise UsageError("Triton is not installed; vbench kernels compile needs it, and no GPU")
    wanted = [(op, arch) for op in ops for arch in archs]
    endings = side_by_side(launcher, [jobs.compile_operator(op, arch) for op, arch in wanted], LIMIT_S)
    for (op, arch), ending in zip(wanted, endings, strict=True):
        if ending.status != "ok":
            raise CompileError(f"{op} for sm_{arch}: {ending.reason}")
    return sorted(Resources(**row) for ending in endings for row in ending.parts.values())


def triton_version() -> str | None:
    """The version of the installed Triton, or None."""
    try:
        return version("triton")
    except PackageNotFoundError:
        return None


def minor(version: str) -> str:
    """ "3.8.0" -> "3.8"."""
    return ".".join(version.split(".")[:2])


def table_file() -> Path:
    """The committed table."""
    return Path(str(files("vbench.kernels.fused") / "resources.csv"))


_READ: dict[str, Callable[[str], Any]] = {"str": str, "int": int, "bool": lambda text: text == "True"}


def read(file: Path) -> list[Resources]:
    """The rows of a table; none if there is no file."""
    if not file.is_file():
        return []
    rows = []
    for row in csv.DictReader(file.read_text(encoding="utf-8").splitlines()):
        values: dict[str, Any] = {each.name: _READ[str(each.type)](row[each.name]) for each in fields(Resources)}
        rows.append(Resources(**values))
    return rows


def write(file: Path, rows: Iterable[Resources]) -> None:
    """Write a table, sorted."""
    names = [each.name for each in fields(Resources)]
    with file.open("w", encoding="utf-8", newline="") as out:
        writer = csv.DictWriter(out, names, lineterminator="\n")
        writer.writeheader()
        writer.writerows(asdict(row) for row in sorted(rows))


def merge(
    old: Sequence[Resources], new: Sequence[Resources], ops: Sequence[str], archs: Sequence[int]
) -> list[Resources]:
    """The table, in which the new rows replace those of these operators and architectures by the same Triton."""
    replaced = set(_rows_of(old, new, ops, archs))
    return sorted([*(row for row in old if row not in replaced), *new])


def _rows_of(
    table: Iterable[Resources], new: Iterable[Resources], ops: Sequence[str], archs: Sequence[int]
) -> list[Resources]:
    """The rows of a table for these operators and architectures, by the Triton of the new rows."""
    tritons = {row.triton for row in new}
    return [row for row in table if row.op in ops and row.arch in archs and row.triton in tritons]


def over_limits(rows: Iterable[Resources]) -> list[str]:
    """One line for each limit that a row exceeds; the table does not matter."""
    lines = []
    for row in rows:
        if row.stack or row.local:
            lines.append(f"{row}: spills, {row.stack} B of stack and {row.local} B of local memory a thread")
        if row.shared > SHARED_MAX:
            lines.append(f"{row}: {row.shared} B of shared memory, more than {SHARED_MAX}")
        if row.registers > REGISTERS_MAX:
            lines.append(f"{row}: {row.registers} registers, more than {REGISTERS_MAX}")
        if row.dots and row.mma == "none":
            lines.append(f"{row}: multiplies matrices, and not on tensor cores")
    return lines


def grown(rows: Iterable[Resources], table: Mapping[Key, Resources]) -> list[str]:
    """One line for each way in which a row is worse than in the table, and for each row that is not in it.

    A row is compared with one by the same minor version of Triton. A Triton without rows in the table is not compared.
    """
    lines = []
    known = {row.triton for row in table.values()}
    rows = [row for row in rows if row.triton in known]
    for row in rows:
        before = table.get(row.key)
        if before is None:
            lines.append(f"{row}: not in the table; run vbench kernels compile --update")
            continue
        if row.registers > before.registers + GROWTH:
            lines.append(f"{row}: {row.registers} registers, {before.registers} in the table")
        if row.shared > before.shared:
            lines.append(f"{row}: {row.shared} B of shared memory, {before.shared} in the table")
        if before.mma not in (row.mma, "none"):
            lines.append(f"{row}: multiplies by {row.mma}, by {before.mma} in the table")
    return lines


def stale(rows: Sequence[Resources], table: Iterable[Resources], ops: Sequence[str], archs: Sequence[int]) -> list[str]:
    """One line for each row of these operators, architectures and this Triton that no kernel makes any more."""
    made = {row.key for row in rows}
    gone = [row for row in _rows_of(table, rows, ops, archs) if row.key not in made]
    return [f"{row}: in the table, but no longer made; run vbench kernels compile --update" for row in gone]
