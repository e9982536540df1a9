"""Vectors of the processor's width, for what LLVM's vectoriser does not find in a loop over arrays."""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from llvmlite.binding import get_host_cpu_features
from numba import types
from numba.core import cgutils
from numba.extending import intrinsic

_FEATURES = get_host_cpu_features()
WIDTH = 64 if _FEATURES.get("avx512f") else 32 if _FEATURES.get("avx") else 16  # bytes of a register
REGISTERS = 32 if _FEATURES.get("avx512f") or _FEATURES.get("neon") else 16
WHOLE = ir.IntType(64)
LINE = 64  # bytes that a cache fetches at a time
_CONTRACT = ("contract",)


class Vectors:
    """Instructions on vectors of one type, at places of arrays that are contiguous.

    Args:
        given: the types of an intrinsic's arguments, arrays and whole numbers; `values`: those arguments.
    """

    def __init__(self, target: Any, builder: Any, real: Any) -> None:
        self._target, self._builder = target, builder
        element = target.get_value_type(real)
        self._bytes = target.get_abi_sizeof(element)
        self.lanes = WIDTH // self._bytes
        self.type = ir.VectorType(element, self.lanes)

    def values(self, given: Any, arguments: Any) -> list[Any]:
        """The arguments of an intrinsic: of an array the address of its first number."""
        return [
            self._target.make_array(kind)(self._target, self._builder, value).data
            if isinstance(kind, types.Array)
            else value
            for kind, value in zip(given, arguments, strict=True)
        ]

    def place(self, base: Any, index: Any) -> Any:
        """The address of the vector that begins at an index."""
        return self._builder.bitcast(self._builder.gep(base, [index]), self.type.as_pointer())

    def load(self, place: Any) -> Any:
        """The vector at an address."""
        return self._builder.load(place, align=self._bytes)

    def store(self, x: Any, place: Any) -> None:
        """Write a vector to an address."""
        self._builder.store(x, place, align=self._bytes)

    def splat(self, x: Any) -> Any:
        """A number in every lane."""
        nothing = ir.Constant(self.type, ir.Undefined)
        first = self._builder.insert_element(nothing, x, ir.IntType(32)(0))
        zeros = ir.Constant(ir.VectorType(ir.IntType(32), self.lanes), [0] * self.lanes)
        return self._builder.shuffle_vector(first, nothing, zeros)

    def number(self, base: Any, index: Any) -> Any:
        """The number at an index, in every lane."""
        return self.splat(self._builder.load(self._builder.gep(base, [index]), align=self._bytes))

    def times(self, a: Any, b: Any) -> Any:
        """a · b."""
        return self._builder.fmul(a, b, flags=_CONTRACT)

    def fma(self, a: Any, b: Any, c: Any) -> Any:
        """a · b + c, rounded once where the processor can."""
        return self._builder.fadd(self.times(a, b), c, flags=_CONTRACT)


@intrinsic
def moved(context, source, at, target, to, count, factor, add):  # type: ignore[no-untyped-def]
    """target[to + i] = factor · source[at + i] for i < count, added to what is there if `add`, in whole vectors.

    It returns how many numbers were moved: count, less what does not fill a vector. Both arrays have one type.
    """

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = Vectors(context, builder, source.dtype)
        base, begin, place, first, length, times, adds = vectors.values(signature.args, arguments)
        whole = builder.udiv(length, WHOLE(vectors.lanes))
        spread = vectors.splat(times)
        for wanted in (True, False):
            with builder.if_then(adds if wanted else builder.not_(adds)), cgutils.for_range(builder, whole) as loop:
                step = builder.mul(loop.index, WHOLE(vectors.lanes))
                x = vectors.load(vectors.place(base, builder.add(begin, step)))
                there = vectors.place(place, builder.add(first, step))
                vectors.store(
                    vectors.fma(spread, x, vectors.load(there)) if wanted else vectors.times(spread, x), there
                )
        return builder.mul(whole, WHOLE(vectors.lanes))

    given = (source, types.int64, target, types.int64, types.int64, source.dtype, types.boolean)
    return types.int64(*given), generate


@intrinsic
def fetch(context, source, at, count):  # type: ignore[no-untyped-def]
    """Have source[at + i], i < count, brought into the cache while the program goes on. They need not exist."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        vectors = Vectors(context, builder, source.dtype)
        base, begin, length = vectors.values(signature.args, arguments)
        byte, flag = ir.IntType(8).as_pointer(), ir.IntType(32)
        function = cgutils.get_or_insert_function(
            builder.module, ir.FunctionType(ir.VoidType(), [byte, flag, flag, flag]), "llvm.prefetch.p0"
        )
        line = WHOLE(LINE // context.get_abi_sizeof(context.get_value_type(source.dtype)))
        lines = builder.udiv(builder.add(length, builder.sub(line, WHOLE(1))), line)
        with cgutils.for_range(builder, lines) as loop:
            place = builder.gep(base, [builder.add(begin, builder.mul(loop.index, line))])
            builder.call(function, [builder.bitcast(place, byte), flag(0), flag(3), flag(1)])
        return context.get_dummy_value()

    return types.void(source, types.int64, types.int64), generate


@intrinsic
def wide_vectors(context):  # type: ignore[no-untyped-def]
    """Have LLVM's vectoriser use whole registers in the loop that calls this: of those of AVX-512 it takes half."""

    def generate(context: Any, builder: Any, signature: Any, arguments: Any) -> Any:
        set.add(builder.function.attributes, f'"prefer-vector-width"="{8 * WIDTH}"')  # llvmlite's own list lacks it
        return context.get_dummy_value()

    return types.void(), generate
