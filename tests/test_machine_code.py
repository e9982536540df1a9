"""Recurrent forms in machine code: what the other tests of all forms do not ask."""

from __future__ import annotations

import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numba
import numpy as np
import pytest
import torch
from numba.core.dispatcher import Dispatcher

from vbench.kernels import OPS, default_form, disk_cache, operator, threads
from vbench.kernels.machine_code import machine_code
from vbench.kernels.registry import trials
from vbench.kernels.threads import split
from vbench.kernels.trials import cast, relative, tensors
from vbench.meters import aside
from vbench.models.registry import names, spec
from vbench.operators.calls import WIDTHS
from vbench.plan import Case

COMPILED = [op for op in OPS if "compiled" in OPS[op]]


@pytest.mark.parametrize("op", COMPILED)
def test_is_the_default_of_recurrent_mode_on_the_cpu_alone(op: str) -> None:
    assert default_form(op, "recurrent") == "compiled"
    assert default_form(op, "recurrent", "cuda") in ("fused_recurrent", "reference")
    assert default_form(op, "parallel") not in ("compiled", "reference")


@pytest.mark.parametrize("op", COMPILED)
def test_leaves_the_state_it_is_given_as_it_was_and_has_gradients_of_it(op: str) -> None:
    trial = next(each for each in trials(op) if each.initial)
    inputs = trial.draw(40, torch.Generator().manual_seed(0))
    _, start = trial.run(operator(op, "reference"), inputs)
    found: dict[str, Any] = {}
    for form in ("reference", "compiled"):
        parts = [part.clone().requires_grad_() for part in tensors(start)]
        state = tuple(parts) if isinstance(start, tuple) else parts[0]
        o, last = trial.run(operator(op, form), inputs, state)
        total = (o * o.detach().cos()).sum() + sum(part.sin().sum() for part in tensors(last))
        found[form] = torch.autograd.grad(total, parts)
        assert all(torch.equal(*pair) for pair in zip(parts, tensors(start), strict=True)), form
    for mine, wanted in zip(found["compiled"], found["reference"], strict=True):
        assert relative(mine, wanted) < 1e-9


@pytest.mark.parametrize("op", COMPILED)
def test_gradients_of_gradients_are_refused(op: str) -> None:
    trial = trials(op)[0]
    inputs = {key: x.requires_grad_() for key, x in trial.draw(9, torch.Generator().manual_seed(0)).items()}
    o, _ = trial.run(operator(op, "compiled"), inputs)
    first, *_ = torch.autograd.grad((o * o).sum(), list(inputs.values()), create_graph=True)
    with pytest.raises(RuntimeError, match="once_differentiable"):
        first.sum().backward()


def test_a_vmap_is_one_call_after_the_other() -> None:
    trial = trials("mingru")[0]
    draws = [trial.draw(9, torch.Generator().manual_seed(seed)) for seed in range(2)]
    form = operator("mingru", "compiled")
    both = torch.vmap(lambda *inputs: form(*inputs, **trial.options))(
        *(torch.stack(x) for x in zip(*(d.values() for d in draws), strict=True))
    )
    for at, inputs in enumerate(draws):
        for found, wanted in zip(both, trial.run(form, inputs), strict=True):
            assert torch.equal(found[at], wanted)


@pytest.mark.parametrize("threads_now", [2, 3])
@pytest.mark.parametrize("op", ["gla", "retention", "mingru"])
def test_threads_change_nothing(op: str, threads_now: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """Heads, columns of a state and channels are cut as threads need them, and no number depends on it."""
    trial = trials(op)[-1]
    inputs = trial.draw(70, torch.Generator().manual_seed(0))
    wanted = trial.run(operator(op, "compiled"), inputs)
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads_now)
    monkeypatch.setattr(threads, "WORTH", 1)
    for found, right in zip(trial.run(operator(op, "compiled"), inputs), wanted, strict=True):
        assert torch.equal(found, right)


@pytest.mark.parametrize("op", [op for op in OPS if OPS[op] and "reference" in OPS[op]])
def test_where_no_gradient_is_wanted_parallel_forms_work_in_place_and_find_the_same(op: str) -> None:
    for trial in trials(op):
        inputs = cast(trial.draw(300, torch.Generator().manual_seed(1)), torch.float64)
        form = default_form(op, "parallel")
        wanted, known = trial.run(operator(op, form), inputs)
        before = {key: value.clone() for key, value in inputs.items()}
        with torch.inference_mode():
            o, state = trial.run(operator(op, form), inputs)
        assert relative(o, wanted) < 1e-13
        for pair in zip(tensors(state), tensors(known), strict=True):
            assert relative(*pair) < 1e-13
        assert all(torch.equal(before[key], inputs[key]) for key in inputs), "an input was written to"


def kept(loop: Any) -> list[Path]:
    """The files of a loop."""
    return sorted(disk_cache.folder().glob(f"{loop.__module__}.{loop.__qualname__}-*"))


def doubling() -> Any:
    def double(x: Any) -> None:
        for i in range(x.size):
            x[i] *= 2

    return machine_code(double)


def test_a_loop_is_compiled_once_for_all_processes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    for misses, kind in [(1, float), (0, float), (1, int)]:
        loop, x = doubling(), np.ones(3, kind)
        loop(x)
        assert x.tolist() == [2, 2, 2]
        assert sum(loop.stats.cache_misses.values()) == misses
    assert disk_cache.unusable() is None
    files = kept(loop.py_func)
    assert len(files) == 2
    files[0].write_bytes(b"damaged")
    files[1].write_bytes(b"damaged")
    loop, x = doubling(), np.ones(3)
    loop(x)
    assert x.tolist() == [2, 2, 2]


def test_where_nothing_can_be_kept_a_loop_is_compiled_all_the_same(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("")
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path / "file"))
    loop, x = doubling(), np.ones(3)
    loop(x)
    assert x.tolist() == [2, 2, 2]
    assert "file" in str(disk_cache.unusable())


def test_what_others_could_have_written_is_not_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(numba.config, "CACHE_DIR", str(tmp_path))
    doubling()(np.ones(3))
    disk_cache.folder().chmod(0o777)
    loop = doubling()
    loop(np.ones(3))
    assert sum(loop.stats.cache_misses.values()) == 1
    assert "others" in str(disk_cache.unusable())


@pytest.mark.parametrize(("threads", "length", "least"), [(1, 7, 1), (3, 7, 1), (3, 2, 1), (4, 12, 5), (2, 0, 1)])
def test_parts_of_a_loop_cover_it_once(threads: int, length: int, least: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: threads)
    seen: list[tuple[int, int, int]] = []
    split(lambda first, stop: seen.append((first, stop, threading.get_ident())), length, least)
    assert sorted(t for first, stop, _ in seen for t in range(first, stop)) == list(range(length))
    assert len(seen) == max(1, min(threads, length // least))


def test_an_error_in_a_thread_is_raised(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)

    def work(first: int, stop: int) -> None:
        if first:
            raise ValueError("of the second part")

    with pytest.raises(ValueError, match="second part"):
        split(work, 2)


def test_a_fork_has_threads_of_its_own(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch, "get_num_threads", lambda: 2)
    split(lambda *_: None, 2)
    before = threads._workers(1)
    monkeypatch.setattr(os, "getpid", lambda: -1)  # as in a child, where the parent's threads are not
    assert threads._workers(1) is not before
    split(lambda *_: None, 2)


@pytest.mark.parametrize("op", ["wkv", "wkv6", "mlstm", "linear_attention"])
def test_threads_share_the_work_and_change_no_number(op: str, monkeypatch: pytest.MonkeyPatch) -> None:
    trial, form, seen = trials(op)[0], operator(op, "compiled"), list[int]()
    inputs = trial.draw(300, torch.Generator().manual_seed(0))

    def count(work: Any, length: int, least: int = 1) -> None:
        def counted(first: int, stop: int) -> None:
            seen.append(threading.get_ident())
            work(first, stop)

        split(counted, length)

    found = []
    for parts in (1, 2, 3):
        monkeypatch.setattr(torch, "get_num_threads", lambda parts=parts: parts)
        for each, module in list(sys.modules.items()):
            if each.startswith("vbench.kernels.") and each.endswith(".compiled") and hasattr(module, "split"):
                monkeypatch.setattr(module, "split", count)
        seen.clear()
        o, state = trial.run(form, inputs)
        assert len(seen) >= parts
        assert len(seen) % parts == 0
        found.append((o, *tensors(state)))
    for others in found[1:]:
        assert all(torch.equal(mine, other) for mine, other in zip(found[0], others, strict=True))


@pytest.mark.parametrize("op", ["gla", "wkv6", "mlstm", "retention", "linear_attention"])
def test_a_width_that_fills_no_block_of_the_state(op: str) -> None:
    """Over many tiles: what pads a tile must not grow."""
    for trial in trials(op):
        inputs = trial.draw(300, torch.Generator().manual_seed(0))
        width = next(iter(inputs.values())).shape[-1]
        narrow = {key: x[..., :-3] if x.shape[-1] == width and key != "v" else x for key, x in inputs.items()}
        wanted, end = trial.run(operator(op, "reference"), narrow)
        found, last = trial.run(operator(op, "compiled"), narrow)
        pairs = zip((found, *tensors(last)), (wanted, *tensors(end)), strict=True)
        assert all(relative(mine, exact) < 1e-9 for mine, exact in pairs), trial.name


WIDE = {"mlstm": {"_walk", "_gate", "_damp", "_read_out"}}  # its gates are float64: their maximum cancels


@pytest.mark.full
@pytest.mark.ci
@pytest.mark.parametrize("op", [op for op in COMPILED if op != "wkv6"])  # whose loop is that of gla
def test_a_loop_over_float32_computes_in_float32(op: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One number of Python's own would make a whole loop float64, at a third of the speed."""
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))  # what is kept on the disk has no text of its instructions
    script = f"""
import re, sys, torch
from numba.core.dispatcher import Dispatcher
from vbench.kernels.warming import warm

warm({op!r}, "compiled", torch.float32)
for name, module in list(sys.modules.items()):
    if name.startswith(f"vbench.kernels.{op}"):
        for loop in (each for each in vars(module).values() if isinstance(each, Dispatcher)):
            for signature in loop.signatures:
                text = loop.inspect_llvm(signature)
                wide = re.findall(r"= f(?:add|sub|mul|div|cmp)\\b.*double", text)
                print("loop", loop.__name__, len(wide))
"""
    done = subprocess.run([sys.executable, "-P", "-c", script], capture_output=True, text=True, check=True)
    counts = {loop: int(count) for _, loop, count in map(str.split, done.stdout.splitlines())}
    assert counts
    assert {loop for loop, count in counts.items() if count} <= WIDE.get(op, set())


@pytest.mark.parametrize("op", COMPILED)
def test_after_a_cell_is_prepared_its_calls_compile_nothing(op: str) -> None:
    width = WIDTHS[op][0]
    model = next(name for name in names() if spec(name).operator == op)
    case = Case(model, 64, 64, "recurrent", "compiled", 1, "float32", "cpu")
    aside.prepare(case)

    def loaded() -> int:
        modules = [module for name, module in sys.modules.items() if name.startswith("vbench.kernels.")]
        loops = {id(x): x for module in modules for x in vars(module).values() if isinstance(x, Dispatcher)}
        return sum(len(loop.overloads) for loop in loops.values())

    before = loaded()
    with torch.inference_mode():
        inputs = width.inputs(batch=1, tokens=40, dtype="float32", device="cpu")
        width.call(operator(op, "compiled"), inputs)
    assert loaded() == before > 0
