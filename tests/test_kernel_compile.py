"""Kernels compiled ahead of time, with no GPU: what they take, and what the gate lets through."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

pytest.importorskip("triton")

from toy_kernels import multiply, product, twice

from vbench.errors import UsageError
from vbench.kernels.fused.launch import Launch, recording
from vbench.operators import compile as compiling
from vbench.operators.compile import Resources, variant_of


def launched(rounded: str = "tf32", side: int = 64) -> Launch:
    a, b = torch.zeros(2, side, side).unbind(0)
    with recording() as found:
        multiply(a, b, rounded)
    (one,) = found
    return one


def test_arguments_are_specialised_as_tritons_own_compiler_does() -> None:
    from triton.backends.compiler import GPUTarget
    from triton.backends.nvidia.compiler import CUDABackend
    from triton.runtime.jit import create_function_from_signature

    launch = launched()
    shifted = torch.zeros(65)[1:]  # 4 bytes off
    for args in (launch.args, {**launch.args, "N": 62, "a": shifted, "absent": torch.zeros(1)}):
        one = replace(launch, args=args)
        backend = CUDABackend(GPUTarget("cuda", 90, 32))
        binder = create_function_from_signature(product.signature, product.params, backend)
        bound, specialization, options = binder(**args, **launch.constants, num_warps=4, enable_fp_fusion=True)
        _, signature, constexprs, attrs = product._pack_args(backend, options, bound, specialization, options)
        found = variant_of(one)
        assert found.signature == signature
        assert {(product.arg_names.index(name),): value for name, value in found.constexprs.items()} == constexprs
        assert found.attrs == {at: kind for at, kind in attrs.items() if kind}


def test_a_product_takes_tensor_cores_and_no_stack() -> None:
    """With a stated ceiling: without one, Triton 3.8 stores 40 B on sm_100 to stay at 56 registers."""
    variant = variant_of(replace(launched(), registers=255))
    for arch, mma in ((80, "mma.sync"), (90, "wgmma"), (100, "tcgen05")):
        found = compiling.compiled(variant, arch)
        assert (found["mma"], found["dots"], found["stack"], found["local"]) == (mma, True, 0, 0)
        assert 0 < found["registers"] <= compiling.REGISTERS_MAX
        assert 0 < found["shared"] <= compiling.SHARED_MAX


def test_what_spills_or_grows_is_told() -> None:
    """A product of 64 x 64 in whole float32 by one warp is known to spill."""
    launches = [("float32", replace(launched("ieee"), warps=1))]
    with recording() as found:
        twice(torch.zeros(100))
    launches += [("float32", one) for one in found]
    rows = [row for _, row in compiling.measured(launches, "toy", 90)]
    spilled, clean = rows
    assert "spills" in compiling.over_limits([spilled])[0]
    assert any("not on tensor cores" in line for line in compiling.over_limits([spilled]))
    assert compiling.over_limits([clean]) == []
    assert (clean.kernel, clean.dots, clean.mma, clean.constants) == ("double", False, "none", "BLOCK=128")
    assert [line for line in compiling.over_limits([replace(clean, shared=100 * 1024)]) if "shared memory" in line]


ROW = Resources("gla", "chunk", "bfloat16", "CHUNK=64", 4, "c0ffee00", 90, "3.8", 100, 0, 0, 16384, "wgmma", True)


def test_growth_is_against_the_table_of_the_same_variant(tmp_path: Path) -> None:
    file = tmp_path / "resources.csv"
    compiling.write(file, [ROW])
    table = compiling.read(file)
    assert table == [ROW]
    known = {row.key: row for row in table}
    assert compiling.grown([ROW, replace(ROW, registers=108), replace(ROW, shared=8192)], known) == []
    for worse, said in (
        (replace(ROW, registers=109), "109 registers, 100 in the table"),
        (replace(ROW, shared=16385), "16385 B of shared memory, 16384 in the table"),
        (replace(ROW, mma="mma.sync"), "multiplies by mma.sync, by wgmma in the table"),
        (replace(ROW, variant="00000000"), "not in the table; run vbench kernels compile --update"),
    ):
        (line,) = compiling.grown([worse], known)
        assert said in line


def test_growth_is_held_to_rows_by_the_same_triton() -> None:
    other = replace(ROW, triton="3.6", registers=200)
    known = {row.key: row for row in (ROW, other)}
    assert compiling.grown([replace(other, registers=208)], known) == []
    assert "209 registers, 200 in the table" in compiling.grown([replace(other, registers=209)], known)[0]
    assert compiling.grown([replace(ROW, triton="3.10", registers=255)], known) == []  # a Triton that is not known
    spilled = replace(ROW, triton="3.10", stack=8)
    assert "spills" in compiling.over_limits([spilled])[0]


def test_an_update_replaces_what_was_compiled_and_leaves_the_rest() -> None:
    other = replace(ROW, op="wkv6"), replace(ROW, arch=80), replace(ROW, triton="3.6")
    new = replace(ROW, variant="00000000")
    assert compiling.merge([ROW, *other], [new], ["gla"], [90]) == sorted([new, *other])
    assert len(compiling.stale([new], [ROW, *other], ["gla"], [90])) == 1


def test_bad_input_is_one_line() -> None:
    with pytest.raises(UsageError, match="'7' is not an architecture"):
        compiling.parse_archs("80,7")
    with pytest.raises(UsageError, match="nothing to compile"):
        compiling.run(["softmax_retention"], [90], launcher=None)  # type: ignore[arg-type]
