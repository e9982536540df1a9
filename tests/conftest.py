"""What several tests share."""

from __future__ import annotations

import gc
import os
import shutil
import tempfile
from pathlib import Path

import pytest
from fakes import failed, make_record

from vbench.results.store import Record

# Whole programs and sweeps, interpreted or compiled kernels, every model, form and container, many pictures. They take
# five sixths of the time and are marked `slow`; `pytest -m "not full and not slow"` is the fast half of the tests.
SLOW = {  # a row a letter
    *("ab", "accuracy", "archives", "attention", "axes"),
    *("backend",),
    *("calibration", "checkpoints", "children", "cli", "cluster", "counters", "cuda_dry_run", "cuda_stand_in"),
    *("deployed", "docs", "doctor"),
    *("eval", "eval_cluster", "eval_images", "external"),
    *("figures", "first_user", "fused", "fused_chunks", "fused_scans", "fuzz"),
    *("gaps", "gate_calibration", "gate_docs", "golden", "gpu_steps"),
    *("kernel_compile", "kernel_ranges", "kernels_cli"),
    *("launch", "limits"),
    *("measure", "memory", "mlla", "models"),
    *("operators", "own_entries"),
    *("packaging", "predicted_memory", "python"),
    *("refused", "report_page", "revisions"),
    *("structure", "sweep"),
    *("tame", "timm_counts", "training"),
    *("uncounted", "user_rooms"),
    *("verify", "vig_h", "vil", "vir", "vision_gru", "vmamba", "vrwkv"),
    *("vim",),
    *("zoo_of_users",),
}

# They have calls of many seconds, and begin first: what is left at the end is short, so that no worker waits long.
LONG = {"cuda_dry_run", "fused", "verify", "sweep", "claims", "cli", "revisions", "backend", "zoo_of_users"}

FULL = {"cuda_dry_run", "gpu_steps"}  # .ci/run takes their `full` tests too: `pytest -m "not full or ci"`

BUILT = Path(__file__).parent.parent / "build" / "machine_code"  # loops that were compiled, for the next run too


def pytest_configure(config: pytest.Config) -> None:
    """One thread a worker: there are two of them, and as many cores. What sweeps remember is not the user's."""
    worker = "PYTEST_XDIST_WORKER" in os.environ
    if not worker:  # workers share their parent's
        os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="vbench-tests-")
        os.environ.setdefault("NUMBA_CACHE_DIR", str(BUILT))
    if worker or not config.getoption("numprocesses", default=None):  # not in a parent, which runs no test
        import torch

        torch.set_num_threads(1)
    if os.environ.get("TRITON_INTERPRET") == "1":
        from interpreter import prepare_once

        prepare_once()


def pytest_unconfigure() -> None:
    if "PYTEST_XDIST_WORKER" not in os.environ:
        shutil.rmtree(os.environ["XDG_CACHE_HOME"], ignore_errors=True)


def _subject(file: Path) -> str:
    return file.stem.removeprefix("test_")


def pytest_ignore_collect(collection_path: Path, config: pytest.Config) -> bool | None:
    """A slow file is not imported where none of its tests would run."""
    unwanted = "not slow" in config.getoption("markexpr") and collection_path.suffix == ".py"
    return True if unwanted and _subject(collection_path) in SLOW else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark tests of `SLOW` and `FULL` modules, put those of `LONG` ones first; skip tests marked `gpu` without one."""
    import torch

    items.sort(key=lambda item: _subject(item.path) not in LONG)
    for item in items:
        if _subject(item.path) in SLOW:
            item.add_marker(pytest.mark.slow)
        if _subject(item.path) in FULL:
            item.add_marker(pytest.mark.ci)
    if not torch.cuda.is_available():
        for item in items:
            if item.get_closest_marker("gpu"):
                item.add_marker(pytest.mark.skip(reason="no CUDA device"))


@pytest.fixture(autouse=True, scope="module")
def little_garbage() -> None:
    """Collections of garbage, of which the meters make three a launch, leave out what was imported before."""
    gc.collect()
    gc.freeze()


@pytest.fixture
def records() -> list[Record]:
    """A small sweep: ViG in both modes to 1024 px, DeiT until it runs out of memory."""
    sides = (224, 512, 1024)
    found = [make_record("vig_t", side, mode) for side in sides for mode in ("parallel", "recurrent")]
    found += [make_record("deit_t", side) for side in sides[:2]]
    found.append(failed("oom", "out of memory", model="deit_t", side=1024))
    return found
