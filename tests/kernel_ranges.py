"""Whether one launch of a Triton kernel keeps to CUDA's limits: interval arithmetic over its TTIR, without any data.

Each whole number of the kernel gets the range that the launch allows: a program's number is below the grid, an argument
is what was given, a loop's counter lies between its bounds. A 32-bit number that may leave its 32 bits is a fault. So
is a 32-bit offset of which nothing is known, and a grid that CUDA does not take.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import replace
from itertools import product
from unittest.mock import patch

import torch
from torch import Tensor

from vbench.kernels.fused.launch import GRID_MAX, Launch, options
from vbench.operators.compile import Variant, variant_of

Range = tuple[int, int]  # the least and the greatest
MOST = 2**31 - 1

_RESULT = re.compile(r"%([\w.-]+)(?::\d+)? = ([a-z_]+\.[a-z_0-9]+)(.*)$")
_LOOP = re.compile(r"scf\.for %([\w.-]+) = %([\w.#-]+) to %([\w.#-]+) step")
_NAME = re.compile(r"%([\w.#-]+)")
_BITS = re.compile(r"[ x<]i(\d+)>?$")  # of the last type on a line, which is the result's
_SAME = {"tt.splat", "tt.expand_dims", "tt.broadcast", "tt.trans", "tt.reshape", "tt.gather", "arith.extsi"}
_SAME |= {"arith.extui", "arith.trunci", "arith.index_cast"}


def _corners(function: Callable[[int, int], int]) -> Callable[[Range, Range], Range]:
    """The range of a function that is monotonous in each of its two arguments."""

    def apply(x: Range, y: Range) -> Range:
        found = [function(a, b) for a, b in product(x, y)]
        return min(found), max(found)

    return apply


def _quotient(a: int, b: int) -> int:
    """a / b, cut off towards zero."""
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _remainder(x: Range, y: Range) -> Range:
    """With the sign of x."""
    most = max(map(abs, y)) - 1
    return max(-most, min(x[0], 0)), min(most, max(x[1], 0))


def _bitwise(x: Range, y: Range) -> Range | None:
    """Of "and", "or" and "xor"; None if a number may be negative."""
    return (0, (1 << max(x[1], y[1]).bit_length()) - 1) if min(x[0], y[0]) >= 0 else None


_ARITHMETIC: dict[str, Callable[[Range, Range], Range | None]] = {
    "arith.addi": lambda x, y: (x[0] + y[0], x[1] + y[1]),
    "arith.subi": lambda x, y: (x[0] - y[1], x[1] - y[0]),
    "arith.muli": _corners(lambda a, b: a * b),
    "arith.divsi": lambda x, y: None if y[0] <= 0 <= y[1] else _corners(_quotient)(x, y),
    "arith.remsi": _remainder,
    "arith.minsi": _corners(min),
    "arith.maxsi": _corners(max),
    "arith.andi": _bitwise,
    "arith.ori": _bitwise,
    "arith.xori": _bitwise,
}


def faults(launch: Launch) -> list[str]:
    """A line for each limit that this launch breaks; its tensors may be fake ones."""
    name, grid = launch.kernel.fn.__name__, launch.grid
    found = [
        f"{name}: {n:,} programs in {axis} of the grid" for axis, n in zip("yz", grid[1:], strict=False) if n > GRID_MAX
    ]
    found += [f"{name}: {grid[0]:,} programs in x of the grid"] if grid[0] > MOST else []
    variant = variant_of(replace(launch, args={key: _without_data(value) for key, value in launch.args.items()}))
    lines = ttir(variant).splitlines()
    places = _places(lines)
    found += dict.fromkeys(
        f"{name}, {places.get(place, '?')}: {said}"
        for place, said in _walk(lines, _given(lines, variant, launch), grid)
    )
    return found


def _without_data(value: object) -> object:
    """A tensor on the meta device in place of a fake one, which has no address."""
    return torch.empty(0, dtype=value.dtype, device="meta") if isinstance(value, Tensor) else value


class _ReadyError(Exception):
    """The TTIR is there, and no more is wanted."""


_texts: dict[str, str] = {}


def ttir(variant: Variant) -> str:
    """The kernel after Triton's own optimisations, before those for a GPU, which take most of the time."""
    import triton
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import CUDABackend
    from triton.compiler import ASTSource

    def stop(module: object, *_: object) -> None:
        raise _ReadyError(str(module))

    if variant.digest not in _texts:
        source = ASTSource(
            fn=variant.kernel, signature=variant.signature, constexprs=dict(variant.constexprs), attrs=variant.attrs
        )
        told = options(variant.warps, variant.stages, variant.registers)
        with patch.object(CUDABackend, "make_ttgir", staticmethod(stop)):
            try:
                made = triton.compile(source, target=GPUTarget("cuda", 90, 32), options=told)
                _texts[variant.digest] = str(made.asm["ttir"])  # compiled before, and kept in Triton's cache
            except _ReadyError as ready:
                _texts[variant.digest] = str(ready)
    return _texts[variant.digest]


def _given(lines: Sequence[str], variant: Variant, launch: Launch) -> dict[str, Range]:
    """The kernel's whole-number arguments, by their names in the TTIR."""
    header = next(line for line in lines if "tt.func public" in line)
    names = re.findall(r"%([\w.-]+): ", header)
    parameters = [name for name, kind in variant.signature.items() if kind != "constexpr"]
    values = {name: launch.args[parameter] for name, parameter in zip(names, parameters, strict=True)}
    return {name: (value, value) for name, value in values.items() if type(value) is int}


def _places(lines: Sequence[str]) -> dict[str, str]:
    """{"#loc7": "carry.py:64"}: where in the source each place of the TTIR is."""
    told = dict(found for line in lines for found in re.findall(r"^(#\w+) = loc\((.*)\)$", line))
    places = {}
    for place, begin in told.items():
        said, at = begin, place
        while '":' not in said and at in told:  # a name for another place, or a call from another place
            at = (re.findall(r"#\w+", said) or [""])[0]
            said = told.get(at, "")
        file, _, line = said.partition('":')
        places[place] = f"{file.rpartition('/')[2]}:{line.partition(':')[0]}"
    return places


def _walk(lines: Sequence[str], known: dict[str, Range], grid: Sequence[int]) -> Iterator[tuple[str, str]]:
    """Place and words of each fault of the arithmetic. `known` gets the range of each number that has one."""
    for line in lines:
        text, _, place = line.strip().partition(" loc(")
        place = place.removesuffix(")")
        if (loop := _LOOP.search(text)) is not None:
            counter, first, last = loop.groups()
            known.pop(counter, None)
            if first in known and last in known:
                known[counter] = known[first][0], max(known[first][0], known[last][1] - 1)
        found = _RESULT.match(text)
        if found is None:
            continue
        name, operation, rest = found.groups()
        if operation == "tt.addptr":
            offset = _NAME.findall(rest)[1]
            if _bits(text) == 32 and offset not in known:
                yield place, "a 32-bit offset of which nothing is known"
            continue
        value = _value(operation, rest, known, grid)
        known.pop(name, None)  # another region may have had a number of this name
        if value is None:
            continue
        if _bits(text) == 32 and not -MOST - 1 <= value[0] <= value[1] <= MOST:
            yield place, f"32 bits for a number between {value[0]:,} and {value[1]:,}"
            value = max(-MOST - 1, min(value[0], MOST)), min(MOST, max(value[1], -MOST - 1))
        known[name] = value


def _bits(text: str) -> int | None:
    found = _BITS.search(text)
    return None if found is None else int(found[1])


def _value(operation: str, rest: str, known: Mapping[str, Range], grid: Sequence[int]) -> Range | None:
    """The range of a result; None if it is no whole number, or not known."""
    if operation == "arith.constant":
        constant = re.match(r" (?:dense<)?(-?\d+|true|false)>? : (?:tensor<[\dx]*)?i\d+", rest)
        number = constant and {"true": "1", "false": "0"}.get(constant[1], constant[1])
        return (int(number), int(number)) if number else None
    if operation in ("tt.get_program_id", "tt.get_num_programs"):
        axis = "xyz".index(rest.split(maxsplit=1)[0])
        size = grid[axis] if axis < len(grid) else 1
        return (0, size - 1) if operation == "tt.get_program_id" else (size, size)
    if operation == "tt.make_range":
        ends = {key: int(number) for key, number in re.findall(r"(start|end) = (\d+)", rest)}
        return ends["start"], ends["end"] - 1
    operands = [known.get(name) for name in _NAME.findall(rest)]
    if operation == "arith.select":  # its first operand is the condition
        operands = operands[1:]
    ranges = [each for each in operands if each is not None]
    return _computed(operation, rest, ranges) if ranges and len(ranges) == len(operands) else None


def _computed(operation: str, rest: str, x: Sequence[Range]) -> Range | None:
    """The range of a result, from those of all its operands."""
    if operation in _ARITHMETIC:
        return _ARITHMETIC[operation](x[0], x[1])
    if operation == "arith.cmpi":
        return 0, 1
    if operation == "arith.select":
        return min(x[0][0], x[1][0]), max(x[0][1], x[1][1])
    if operation == "arith.extsi" and re.search(r"\bi1\b|xi1>", rest):  # a set bit alone is -1
        return -x[0][1], -x[0][0]
    unsigned = operation == "arith.extui" and x[0][0] < 0
    return x[0] if operation in _SAME and not unsigned else None
