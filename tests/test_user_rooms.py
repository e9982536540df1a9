"""The code of a user's model does not change the measurement: its imports, its command line, its settings, its types.

Files of a user stand in a folder of their own; what must not touch this process runs in a child.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import torch
from command import vbench
from fakes import make_record

from vbench import jobs
from vbench.devices.cpu import Cpu
from vbench.errors import BuildError, UnknownModelError, UnsupportedError
from vbench.flops import count as flops
from vbench.jobs import forks
from vbench.jobs.launch import Launcher
from vbench.meters import aside, workload
from vbench.meters.backend import Compilations
from vbench.meters.build import cast
from vbench.models import create, external, guest
from vbench.plan import RIGORS, Case
from vbench.reports import tables
from vbench.results.frame import frame
from vbench.sweeps import loop
from vbench.verify import checks, timed

PAGE = 4096
BRIEF = replace(
    RIGORS["quick"],
    sample_s=0.01,
    sample_max_s=0.05,
    warmup_s=0.01,
    warmup_max_s=0.05,
    throughput_s=0.01,
    samples_min=2,
)
NET = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self):
        super().__init__()
        self.c = nn.Conv2d(3, 8, 4, 4)

    def forward(self, x):
        return self.c(x).mean((2, 3))
"""
WEIGHTS, INPUT, ACTIVATIONS = 1568, 49_152, 8192  # bytes, at 64 px


@pytest.fixture(scope="module")
def launcher() -> Iterator[Launcher]:
    with Launcher() as launcher:
        yield launcher


class Room:
    """The current folder, for files of a user."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._modules = set(sys.modules)

    def put(self, name: str, text: str) -> str:
        """Write a module; returns the name of its `Net`."""
        (self.folder / f"{name}.py").write_text(text)
        return f"{name}:Net"

    def forget(self) -> None:
        """Drop what was imported from the folder."""
        for name, module in list(sys.modules.items()):
            if name not in self._modules and str(self.folder) in str(getattr(module, "__file__", "")):
                del sys.modules[name]


@pytest.fixture
def room(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Room]:
    monkeypatch.chdir(tmp_path)
    found = Room(tmp_path)
    yield found
    found.forget()


def case(model: str, side: int = 64, **changes: Any) -> Case:
    values: dict[str, Any] = {"mode": "parallel", "form": None, "batch": 1, "dtype": "float32", "device": "cpu"}
    return Case(model, side, side, **{**values, **changes})


def measured(launcher: Launcher, model: str, **changes: Any) -> dict[str, Any]:
    """What a launch of a cell yields."""
    ending = launcher.run(*jobs.measure(case(model, **changes), BRIEF), 60)
    assert (ending.status, ending.reason) == ("ok", None)
    return ending.parts


@pytest.fixture(scope="module")
def light(launcher: Launcher, tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """The memory of a network alone in its file."""
    folder, before = tmp_path_factory.mktemp("light"), Path.cwd()
    (folder / "light.py").write_text(NET)
    os.chdir(folder)
    try:
        found: dict[str, Any] = measured(launcher, "light:Net")["memory"]
    finally:
        os.chdir(before)
    return found


class TestMemory:
    """Source: SciTools/iris#4883 and #5948, where the resident set of a benchmark holds what its set-up allocated."""

    HEAVY = "import matplotlib.pyplot\nimport pandas\nimport scipy.stats\nimport torchvision\nfrom light import Net\n"

    def test_a_small_network_needs_its_parts(self, light: dict[str, Any]) -> None:
        assert (light["weights_bytes"], light["input_bytes"]) == (WEIGHTS, INPUT)
        parts = WEIGHTS + INPUT + ACTIVATIONS
        assert parts <= light["peak_bytes"] < parts + 128 * PAGE  # oneDNN's first convolution, and Python's objects

    def test_what_its_file_imports_is_not_counted(self, launcher: Launcher, room: Room, light: dict[str, Any]) -> None:
        room.put("light", NET)
        heavy = measured(launcher, room.put("heavy", self.HEAVY))["memory"]
        assert abs(heavy["peak_bytes"] - light["peak_bytes"]) <= 32 * PAGE  # two runs of one file differ by ten
        assert heavy["weights_bytes"] == WEIGHTS

    @pytest.mark.parametrize(
        ("place", "slack"),
        [
            ("        super().__init__()", 32),  # a second model like it takes as much as the first
            ("    def forward(self, x):", 96),  # oneDNN's first convolution is over then
        ],
    )
    def test_what_it_imports_later_is_not_counted_either(
        self, launcher: Launcher, room: Room, light: dict[str, Any], place: str, slack: int
    ) -> None:
        late = NET.replace(place, f"{place}\n        import pandas")
        found = measured(launcher, room.put("late", late))["memory"]
        assert abs(found["peak_bytes"] - light["peak_bytes"]) <= slack * PAGE
        assert found["peak_bytes"] >= WEIGHTS + INPUT
        assert ("after calls that imported" in found["method"]) is ("forward" in place)

    def test_a_compiler_at_the_class_is_not_counted(
        self, launcher: Launcher, room: Room, light: dict[str, Any]
    ) -> None:
        compiled = NET.replace(
            "class Net", '@torch.compile(backend="eager")\ndef half(x):\n    return x / 2\n\nclass Net'
        )
        compiled = compiled.replace("return self.c(x)", "return half(self.c(x))")
        found = measured(launcher, room.put("compiled", compiled))["memory"]
        assert abs(found["peak_bytes"] - light["peak_bytes"]) <= 96 * PAGE  # and `half` takes its result

    def test_weights_that_a_module_makes_as_it_is_imported_are_the_models(self, launcher: Launcher, room: Room) -> None:
        table = NET.replace("class Net", "TABLE = torch.ones(2**20)\n\nclass Net")
        table = table.replace("4, 4)", '4, 4)\n        self.register_buffer("table", TABLE)')
        found = measured(launcher, room.put("table", table))["memory"]
        assert found["weights_bytes"] == WEIGHTS + 2**22
        assert found["weights_bytes"] + INPUT <= found["peak_bytes"] < found["weights_bytes"] + INPUT + 2**20

    def test_imports_are_done_before_memory_is_rationed(self, launcher: Launcher, room: Room) -> None:
        room.put("light", NET)
        late = NET.replace("def forward(self, x):", "def forward(self, x):\n        import pandas")
        for model in (room.put("heavy", self.HEAVY), room.put("late", late)):
            asked = jobs.attempt(case(model), budget_bytes=int(0.05 * 2**30), threads=1)
            ending = launcher.run(*asked, 60)
            assert (ending.status, ending.reason) == ("ok", None), model
        rationed = launcher.run(*jobs.attempt(case(model, 1024), budget_bytes=2**22, threads=1), 60)
        assert rationed.status == "oom"

    def test_a_model_is_built_once_more_only_if_building_it_imported(
        self, room: Room, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr("vbench.devices.process.hand_back", lambda: True)  # this process goes on
        counted = NET.replace("        super().__init__()", "        super().__init__()\n        Net.built += 1")
        counted = counted.replace("class Net(nn.Module):", "class Net(nn.Module):\n    built = 0")
        name = room.put("counted", counted)
        (room.folder / "neighbour.py").write_text("")
        lazy = room.put("lazy", counted.replace("Net.built += 1", "Net.built += 1; import neighbour"))
        for model, times in ((name, 1), (lazy, 2), (lazy, 1)):
            found = external.load(model)
            found.built = 0  # type: ignore[attr-defined]
            drawn, _ = aside.built(case(model), Cpu("cpu"))
            assert found.built == times, model  # type: ignore[attr-defined]
            assert isinstance(drawn, torch.nn.Module)


class TestCommandLine:
    """Source: whittlem/pycryptobot#235, WuJie1010/Facial-Expression-Recognition.Pytorch#11, sheetwork#48."""

    PARSED = (
        "import argparse\nparser = argparse.ArgumentParser()\n"
        'parser.add_argument("--width", type=int, default=8)\noptions = parser.parse_args()\n'
    )
    NEEDS = PARSED.replace("default=8", "required=True")
    OURS = ("vbench", "flops", "net:Net", "--res", "64", "--json")

    @pytest.fixture(autouse=True)
    def ours(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(sys, "argv", list(self.OURS))

    def net(self, room: Room, head: str) -> str:
        return room.put("net", head + NET.replace("nn.Conv2d(3, 8", "nn.Conv2d(3, options.width"))

    def test_a_file_that_parses_the_command_line_takes_its_defaults(self, launcher: Launcher, room: Room) -> None:
        ending = launcher.run(*jobs.count_in_full(case(self.net(room, self.PARSED)), depth=None), 60)
        assert (ending.parts["work"]["macs"], ending.parts["work"]["params"]) == (98_304, 392)
        assert create("net:Net", 64)(torch.zeros(1, 3, 64, 64)).shape == (1, 8)
        assert sys.argv == list(self.OURS)

    def test_so_does_one_that_parses_it_as_it_computes(self, launcher: Launcher, room: Room) -> None:
        inside = NET.replace("def forward(self, x):", "def forward(self, x):\n        parser.parse_args()")
        head = self.PARSED.replace("options = parser.parse_args()", "")
        assert measured(launcher, room.put("net", head + inside))["latency"]["samples_ms"]

    def test_it_sees_the_file_of_its_module(self, room: Room) -> None:
        name = room.put("net", "import sys\nseen = list(sys.argv)\n" + NET)
        external.load(name)
        assert sys.modules["net"].seen == [str((room.folder / "net.py").resolve())]

    @pytest.mark.parametrize(
        ("head", "said"),
        [
            (
                NEEDS,
                "importing net ended the process (SystemExit: 2): net.py: error: the following arguments are required",
            ),
            (
                "raise SystemExit('no GPU, no training')\n",
                "importing net ended the process (SystemExit: no GPU, no tra",
            ),
            ("import sys\nsys.exit()\n", "importing net ended the process (SystemExit: 0)"),
            ("input('which width? ')\n", "importing net failed: EOFError: EOF when reading a line"),
            ("import os\nos._exit(3)\n", "importing it failed: the process died (exit code 3)"),
            ("raise BaseException('a kind of its own')\n", "importing net failed: BaseException: a kind of its own"),
        ],
    )
    def test_one_that_ends_the_process_is_named_and_no_device(
        self, launcher: Launcher, room: Room, head: str, said: str
    ) -> None:
        name = self.net(room, head)
        with pytest.raises(UnknownModelError if "died" in said else Exception) as raised:
            loop.probe([case(name)], "cpu", launcher)
        assert str(raised.value).startswith(f"{name}: {said}")
        assert "\n" not in str(raised.value)

    def test_a_sweep_says_it_in_a_line_and_exits_with_2(self, room: Room) -> None:
        name = self.net(room, self.NEEDS)
        done = vbench("sweep", "--models", f"{name},deit_t", "--res", "64", "--device", "cpu", "-o", "run")
        assert done.returncode == 2
        (line,) = done.stderr.strip().splitlines()
        assert "net:Net: importing net ended the process (SystemExit: 2)" in line
        assert not (room.folder / "run" / "records.jsonl").exists()

    def test_it_may_choose_how_it_starts_processes_as_in_one_of_its_own(self, launcher: Launcher, room: Room) -> None:
        name = room.put("net", "import multiprocessing\nmultiprocessing.set_start_method('spawn')\n" + NET)
        assert loop.probe([case(name)], "cpu", launcher) is None

    def test_an_exit_while_building_is_the_models_error(self, launcher: Launcher, room: Room) -> None:
        name = room.put("net", NET.replace("super().__init__()", "raise SystemExit(4)"))
        with pytest.raises(BuildError, match=r"^net:Net: building it ended the process \(SystemExit: 4\)$"):
            create(name, 64)
        ending = launcher.run(*jobs.measure(case(name), BRIEF), 60)
        assert ending.status == "error"
        assert ending.reason is not None
        assert ending.reason.startswith("BuildError: net:Net: building it ended the process (SystemExit: 4)")

    def test_an_exit_in_a_call_is_an_error_in_words(self, launcher: Launcher, room: Room) -> None:
        name = room.put("net", NET.replace("return self.c(x)", "raise SystemExit('no more')\n        return self.c(x)"))
        ending = launcher.run(*jobs.measure(case(name), BRIEF), 60)
        assert (ending.status, ending.reason) == ("error", "SystemExit: no more")

    def test_what_a_file_prints_stays_out_of_our_output(self, room: Room) -> None:
        import json

        name = room.put(
            "net", "print('loading ...')\n" + NET.replace("self.c = ", "print('building')\n        self.c = ")
        )
        done = vbench("flops", name, "--res", "64", "--json", cwd=room.folder)
        assert done.returncode == 0, done.stderr
        assert [work["params"] for work in json.loads(done.stdout)] == [392]
        assert "building" not in done.stderr


SETTINGS = {
    "CPU threads": "torch.set_num_threads(torch.get_num_threads() + 2)",
    "default dtype": "torch.set_default_dtype(torch.float64)",
    "default device": "torch.set_default_device('meta')",
    "gradients": "torch.set_grad_enabled(False)",
    "detection of anomalies": "torch.autograd.set_detect_anomaly(True)",
    "deterministic algorithms": "torch.use_deterministic_algorithms(True, warn_only=True)",
    "flushing of denormal numbers": "torch.set_flush_denormal(True)",
    "fast path of nn.MultiheadAttention": "torch.backends.mha.set_fastpath_enabled(False)",
    "flash attention": "torch.backends.cuda.enable_flash_sdp(False)",
    "attention by plain products": "torch.backends.cuda.enable_math_sdp(False)",
    "cudnn.benchmark": "torch.backends.cudnn.benchmark = True",
    "cudnn.deterministic": "torch.backends.cudnn.deterministic = True",
    "mkldnn.enabled": "torch.backends.mkldnn.enabled = False",
    "float32_matmul_precision": "torch.set_float32_matmul_precision('medium')",
    "mkldnn.matmul.fp32_precision": "torch.set_float32_matmul_precision('high')",
    "cudnn.allow_tf32": "torch.backends.cudnn.allow_tf32 = not torch.backends.cudnn.allow_tf32",
    "cuda.matmul.fp32_precision": "torch.backends.cuda.matmul.fp32_precision = 'tf32'",
    "backends.fp32_precision": "torch.backends.fp32_precision = 'tf32'",
    "autocast on cpu": "torch.autocast('cpu', torch.bfloat16).__enter__()",
    "garbage collection": "import gc; gc.disable()",
    "tracemalloc": "import tracemalloc; tracemalloc.start()",
    "the switch interval": "import sys; sys.setswitchinterval(0.5)",
    "the handler of Ctrl-C": "import signal; signal.signal(signal.SIGINT, signal.SIG_DFL)",
    "$OMP_NUM_THREADS": "import os; os.environ['OMP_NUM_THREADS'] = '7'",
    "$CUDA_VISIBLE_DEVICES": "import os; os.environ['CUDA_VISIBLE_DEVICES'] = '1'",
}


@pytest.mark.parametrize(("name", "line"), SETTINGS.items())
@pytest.mark.filterwarnings("ignore")
def test_a_setting_of_the_process_is_set_back(name: str, line: str) -> None:
    before = guest.read()
    with guest.guest("net.py"):
        exec(line, {"torch": torch})
        assert any(words.startswith(f"{name}: ") for words in guest.changes(before))
    assert guest.changes(before) == []


@pytest.mark.skipif(len(os.sched_getaffinity(0)) < 2, reason="one processor")
def test_so_are_the_processors() -> None:
    before = os.sched_getaffinity(0)
    with guest.guest("net.py"):
        os.sched_setaffinity(0, {min(before)})
    assert os.sched_getaffinity(0) == before


def test_settings_are_set_back_after_importing_and_after_building(room: Room) -> None:
    lines = [SETTINGS[name] for name in ("CPU threads", "default dtype", "gradients", "deterministic algorithms")]
    lines.append("import warnings; warnings.simplefilter('error')")
    at_build = "\n".join(f"        {line}" for line in lines)
    text = (
        "import torch\n"
        + "\n".join(lines)
        + NET.replace("        super().__init__()", f"{at_build}\n        super().__init__()")
    )
    before, filters = guest.read(), [*warnings.filters]
    model = create(room.put("net", text), 64)
    assert guest.changes(before) == []
    assert warnings.filters == filters
    assert next(model.parameters()).dtype == torch.float64  # as its author built it; a cell's model is cast


def test_settings_that_stay_changed_and_threads_that_stay_are_flagged(launcher: Launcher, room: Room) -> None:
    text = "import threading, time\n" + NET.replace(
        "        super().__init__()",
        "        super().__init__()\n"
        "        torch.set_num_interop_threads(3 + torch.get_num_interop_threads())\n"
        "        torch.set_num_threads(7)\n"
        "        threading.Thread(target=time.sleep, args=(60,), name='prefetch', daemon=True).start()",
    ).replace("return self.c", "torch.set_num_threads(2)\n        return self.c")
    parts = measured(launcher, room.put("net", text))
    changed = parts["settings"]["changed"]
    assert len(changed) == 2
    assert changed[0] == "CPU threads: 2, not 1"
    assert changed[1].startswith("threads for operations side by side: ")
    assert parts["settings"]["background_threads"] == ["prefetch"]
    table = frame([make_record(settings=parts["settings"])])
    assert table.iloc[0]["flags"] == "background_threads settings_changed"
    assert table.iloc[0]["process_note"] == "; ".join([*changed, "threads left running: prefetch"])
    (line,) = tables.processes(table)
    assert line.endswith("threads left running: prefetch (vig_t parallel 224)")
    assert line in tables.remarks(table)


def test_a_plain_model_changes_nothing_and_is_not_flagged(launcher: Launcher, room: Room) -> None:
    settings = measured(launcher, room.put("net", NET))["settings"]
    assert "changed" not in settings
    assert "background_threads" not in settings
    table = frame([make_record(settings=settings)])
    assert table.iloc[0]["flags"] == ""
    assert tables.processes(table) == []


def test_more_processor_time_than_the_threads_have_is_flagged() -> None:
    state = make_record().state
    assert state is not None
    for cpu_s, threads, flags in ((2.1, 1, ""), (2.3, 1, "more_threads"), (4.0, 2, ""), (5.0, 2, "more_threads")):
        of = {**state, "cpu_s": cpu_s, "threads": threads, "others_busy_share": 0.0}
        assert frame([make_record(state=of)]).iloc[0]["flags"] == flags
    on_gpu = make_record(state={**state, "cpu_s": 9.0}, host={**make_record().host, "device": "cuda:0"})
    assert frame([on_gpu]).iloc[0]["flags"] == ""


def test_our_clock_is_not_the_one_that_a_model_replaces(launcher: Launcher, room: Room) -> None:
    stopped = "import time\nfor name in ('time', 'monotonic', 'perf_counter', 'perf_counter_ns', 'process_time'):\n"
    parts = measured(launcher, room.put("net", f"{stopped}    setattr(time, name, lambda: 0)\n{NET}"))
    assert min(parts["latency"]["samples_ms"]) > 0
    assert parts["memory"]["pass_s"] > 0
    assert parts["state"]["cpu_s"] > 0
    assert parts["spent"]["measured_s"] > 0


def test_a_model_may_import_its_neighbours_as_it_is_built_and_go_elsewhere(room: Room) -> None:
    (room.folder / "parts.py").write_text("width = 8\n")
    text = "import os\n" + NET.replace(
        "        super().__init__()",
        "        super().__init__()\n        import parts\n        self.width = parts.width",
    )
    path = [*sys.path]
    assert create(room.put("net", text + "\nos.chdir('/')\n"), 64).width == 8
    assert sys.path == path
    assert Path.cwd() == Path("/")  # relative paths are the code's own


class TestComplex:
    """Source: badripatro/simba#1, where a cast of a vision backbone discards imaginary parts."""

    MIX = """
import torch
import torch.nn.functional as F
from torch import nn

class Base(nn.Module):
    def __init__(self, c=8, classes=10):
        super().__init__()
        self.stem = nn.Conv2d(3, c, 4, 4)
        self.head = nn.Linear(c, classes)

    def forward(self, x):
        x = self.body(self.stem(x))
        return self.head(x.mean((2, 3)))

class Net(Base):
    def __init__(self):
        super().__init__()
        self.mix = nn.Parameter(torch.randn(8, 8, dtype=torch.cfloat))

    def body(self, x):
        f = torch.fft.fft2(x).flatten(2).transpose(1, 2) @ self.mix
        return torch.fft.ifft2(f.transpose(1, 2).reshape(x.shape)).real

class Gain(Base):
    def __init__(self):
        super().__init__()
        self.gain = nn.Parameter(torch.randn(8, 16, 9, dtype=torch.cfloat))

    def body(self, x):
        return torch.fft.irfft2(torch.fft.rfft2(x) * self.gain, s=x.shape[-2:]).relu()

class Careful(Gain):
    def body(self, x):
        return super().body(x.float()).to(x.dtype)

class Waves(Gain):
    def forward(self, x):
        return torch.fft.rfft2(self.stem(x)) * self.gain

def both(image_size, mode="parallel"):
    return Gain()
"""

    @pytest.fixture(autouse=True)
    def mix(self, room: Room) -> None:
        room.put("mix", self.MIX)

    def of(self, name: str, monkeypatch: pytest.MonkeyPatch, **changes: Any) -> workload.Workload:
        monkeypatch.setattr("vbench.devices.process.hand_back", lambda: True)
        torch.manual_seed(0)
        return workload.workload(case(f"mix:{name}", **changes), Cpu("cpu"), Compilations("eager", 1), 0.0)

    @pytest.mark.parametrize("name", ["Net", "Gain"])
    def test_they_are_measured_as_what_they_are(self, name: str, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.of(name, monkeypatch)
        assert found.settings["weights_dtype"] == "complex64+float32"
        assert found.memory()["calls"] >= 1
        torch.manual_seed(0)
        wanted, image = create(f"mix:{name}", 64), torch.randn(1, 3, 64, 64)
        with torch.inference_mode():
            torch.testing.assert_close(found._module(image), wanted(image))

    def test_they_are_counted_as_what_they_are(self) -> None:
        assert flops.count(case("mix:Net"))["params"] == 546

    @pytest.mark.parametrize("name", ["Net", "Gain"])
    def test_a_model_that_cannot_compute_beside_them_in_half_a_type_is_unsupported(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        with pytest.raises(
            UnsupportedError, match=f"mix:{name} has complex parameters, which stay complex64 in bfloat16"
        ):
            self.of(name, monkeypatch, dtype="bfloat16").memory()

    def test_one_that_can_is_measured_and_both_types_are_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.of("Careful", monkeypatch, dtype="bfloat16")
        assert found.settings["weights_dtype"] == "bfloat16+complex64"
        assert found.memory()["calls"] >= 1

    def test_an_error_of_another_kind_stays_one(self, monkeypatch: pytest.MonkeyPatch) -> None:
        found = self.of("Net", monkeypatch)
        found._model.stem = torch.nn.Conv2d(4, 8, 4, 4)  # in float32
        with pytest.raises(RuntimeError, match="expected input"):
            found.memory()

    def test_modes_of_such_a_model_are_held_to_each_other(self) -> None:
        (check,) = checks.own_checks("mix:both", "cpu", 0, (64, 64))
        assert (check.kind, check.ok) == ("float64", True)

    def test_complex_outputs_are_compared_as_pairs(self) -> None:
        one = torch.randn(4, 4, dtype=torch.cfloat)
        assert timed._error((one,), (one,)) == 0.0
        assert timed._error((one,), (one.conj(),)) > 0.1

    def test_a_cast_leaves_integers_and_rounds_what_numpy_made(self, room: Room) -> None:
        text = NET.replace("import torch", "import numpy as np\nimport torch").replace(
            "4, 4)",
            "4, 4)\n        self.table = nn.Parameter(torch.from_numpy(np.ones(4)))\n"
            '        self.register_buffer("index", torch.arange(4))\n'
            '        self.register_buffer("mask", torch.ones(4).bool())',
        )
        model = cast(create(room.put("net", text), 64), torch.float32)
        types = {name: tensor.dtype for name, tensor in model.state_dict().items() if "." not in name}
        assert types == {"table": torch.float32, "index": torch.int64, "mask": torch.bool}


def test_the_next_child_comes_from_a_new_server(monkeypatch: pytest.MonkeyPatch) -> None:
    """The server of other tests goes on."""
    monkeypatch.setattr(forks, "_running", [])

    def server(bare: Launcher) -> int:
        pid: int = bare.run("bare_jobs:parent", {}, 60).parts["pid"]
        return pid

    with Launcher([]) as bare:
        assert server(bare) == (first := server(bare))
        bare.renew()
        assert not Path(f"/proc/{first}").exists()
        assert (second := server(bare)) != first
    with Launcher([]) as bare:
        assert server(bare) == second
    forks.end()
    assert not Path(f"/proc/{second}").exists()
