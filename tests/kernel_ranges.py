"""Whether the 32-bit integers of a Triton kernel hold what one launch computes: interval arithmetic over its TTIR.

Each integer gets the range that the launch allows: a program's number is below the grid, an argument is what was
given, a loop's counter lies between its bounds. A 32-bit result outside of the 32 bits is a line that says so.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any

from vbench.kernels.fused.launch import Launch, options
from vbench.operators.compile import variant_of

Range = tuple[int, int]
LIMITS = {32: (-(2**31), 2**31 - 1)}
MANY = 64  # trips of a loop that are followed one by one

_RESULT = re.compile(r"^\s*%([\w-]+)(?::\d+)? = ([a-z_]+\.[a-z_0-9]+)(.*)$")
_NAME = re.compile(r"%([\w-]+(?:#\d+)?)")
_BITS = re.compile(r"[ x<]i(\d+)>?(?: loc\(.*\))?$")
_SAME = {"tt.splat", "tt.expand_dims", "tt.broadcast", "tt.trans", "tt.reshape", "arith.extsi", "arith.extui"}
_SAME |= {"arith.trunci", "tt.reduce", "tt.gather", "arith.index_cast"}


def _corners(function: Callable[[int, int], int]) -> Callable[[Range, Range], Range]:
    def apply(x: Range, y: Range) -> Range:
        found = [function(a, b) for a in x for b in y]
        return min(found), max(found)

    return apply


def _divided(x: Range, y: Range) -> Range:
    return _corners(lambda a, b: int(a / b) if b else a)(x, y)


def _remainder(x: Range, y: Range) -> Range:
    most = max(abs(y[0]), abs(y[1])) - 1
    return (max(-most, min(x[0], 0)), min(most, max(x[1], 0)))


_ARITHMETIC: dict[str, Callable[[Range, Range], Range]] = {
    "arith.addi": _corners(lambda a, b: a + b),
    "arith.subi": _corners(lambda a, b: a - b),
    "arith.muli": _corners(lambda a, b: a * b),
    "arith.divsi": _divided,
    "arith.remsi": _remainder,
    "arith.minsi": lambda x, y: (min(x[0], y[0]), min(x[1], y[1])),
    "arith.maxsi": lambda x, y: (max(x[0], y[0]), max(x[1], y[1])),
}


def too_large(launch: Launch) -> list[str]:
    """A line for each 32-bit integer of the kernel that this launch would overflow."""
    return sorted(set(_walk(_ttir(launch), launch)))


def _ttir(launch: Launch) -> list[str]:
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.compiler import ASTSource

    variant = variant_of(launch)
    source = ASTSource(
        fn=variant.kernel, signature=variant.signature, constexprs=dict(variant.constexprs), attrs=variant.attrs
    )
    made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=options(variant.warps, variant.stages, None))
    return str(made.asm["ttir"]).splitlines()


def _walk(lines: list[str], launch: Launch) -> Iterator[str]:
    known: dict[str, Range] = {}
    for name, value in launch.args.items():
        if type(value) is int:
            known[name] = (value, value)
    for line in lines:
        if (loop := re.search(r"scf\.for %([\w-]+) = %([\w-]+) to %([\w-]+) step", line)) is not None:
            counter, first, last = loop.groups()
            if first in known and last in known:
                known[counter] = (known[first][0], max(known[first][0], known[last][1] - 1))
            continue
        found = _RESULT.match(line)
        if found is None:
            continue
        name, operation, rest = found.groups()
        value = _value(operation, rest, launch, known)
        if value is None:
            continue
        bits = _BITS.search(re.sub(r" loc\(#?\w*.*\)$", "", rest))
        if bits is not None and int(bits[1]) in LIMITS:
            low, high = LIMITS[int(bits[1])]
            if value[0] < low or value[1] > high:
                yield f"{launch.kernel.fn.__name__}: {name} is a 32-bit integer between {value[0]:,} and {value[1]:,}"
                value = max(low, value[0]), min(high, value[1])
        known[name] = value


def _value(operation: str, rest: str, launch: Launch, known: dict[str, Range]) -> Range | None:
    """The range of a result; None if it is no integer, or not known."""
    if operation == "arith.constant":
        constant = re.match(r" (?:dense<)?(-?\d+|true|false)>? : (?:tensor<[\dx]*)?i\d+", rest)
        if constant is None:
            return None
        number = {"true": 1, "false": 0}.get(constant[1])
        number = int(constant[1]) if number is None else number
        return number, number
    if operation == "tt.get_program_id":
        return 0, _size(launch, rest) - 1
    if operation == "tt.get_num_programs":
        return _size(launch, rest), _size(launch, rest)
    if operation == "tt.make_range":
        return int(re.search(r"start = (\d+)", rest)[1]), int(re.search(r"end = (\d+)", rest)[1]) - 1  # type: ignore[index]
    if operation == "arith.cmpi":
        return 0, 1
    operands = [known.get(name) for name in _NAME.findall(rest)]
    if operation == "arith.select" and len(operands) == 3:
        operands = operands[1:]
    if not operands or any(each is None for each in operands):
        return None
    ranges: list[Range] = [each for each in operands if each is not None]
    if operation in _ARITHMETIC:
        return _ARITHMETIC[operation](ranges[0], ranges[1])
    if operation == "arith.select":
        return min(x[0] for x in ranges), max(x[1] for x in ranges)
    return ranges[0] if operation in _SAME else None


def _size(launch: Launch, rest: str) -> int:
    axis = "xyz".index(rest.split()[0])
    return int(launch.grid[axis]) if axis < len(launch.grid) else 1


__all__: list[Any] = ["too_large"]
