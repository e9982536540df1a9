"""Runtimes as back ends: a model's file is made once, elsewhere, and what it returns is what the model computes."""

from __future__ import annotations

import ctypes
import json
import sys
import tempfile
from collections.abc import Iterator
from dataclasses import replace
from importlib import import_module
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import fake_tensorrt
import pytest
import quits
import torch
from torch import nn

from vbench import host, jobs, plan, runtimes
from vbench.devices import process
from vbench.devices.cpu import Cpu
from vbench.errors import CompileError, UnsupportedError
from vbench.meters import deploy, outputs
from vbench.meters.backend import Compilations
from vbench.meters.deployed import DeployedPass
from vbench.meters.workload import workload
from vbench.plan import Case
from vbench.runtimes import base
from vbench.sweeps.measure import measure
from vbench.verify import timed

MIB = 2**20


class Net(nn.Module):
    """The smallest that is a classifier; its weights are 3 MiB, so that they show in the memory of a process."""

    def __init__(self, img_size: int = 32) -> None:
        super().__init__()
        self.stem, self.head = nn.Conv2d(3, 768, 16, 16), nn.Linear(768, 256)

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        found: torch.Tensor = self.head(self.stem(image).relu().mean((2, 3)))
        return found


class Folded(nn.Module):
    """A net that branches on its data, which no graph can hold."""

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        return image.mean((2, 3)) if image.sum() > 0 else image.amax((2, 3))


def case(model: str = "test_runtimes:Net", backend: str = "onnxruntime", **changes: Any) -> Case:
    form = changes.pop("form", None)
    return Case(model, 32, 32, "parallel", form, 1, "float32", "cpu", backend=backend, **changes)  # type: ignore[arg-type]


def request_of(one: Case, batch: int = 1) -> deploy.Request:
    return deploy.Request(one, batch, threads=1, seed=torch.initial_seed(), tf32=False)


@pytest.fixture(scope="module")
def shared(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    """The run's folder of these tests, in which files are made once."""
    path = tmp_path_factory.mktemp("run")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(deploy.scratch, "shared", lambda name: path)
        patch.setattr(tempfile, "tempdir", str(path))
        torch.manual_seed(0)
        yield path


class TestTheTable:
    @pytest.mark.parametrize("name", runtimes.RUNTIMES)
    def test_each_row_has_its_class_with_all_that_is_asked_of_it(
        self, name: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
        about = runtimes.RUNTIMES[name]
        module, _, kind = about.runtime.partition(":")
        found = getattr(import_module(module), kind)
        assert found.title == about.title
        assert found.session is not base.Runtime.session
        assert found.computes_in is not base.Runtime.computes_in
        assert (found.compiled is not base.Runtime.compiled) == about.builds
        monkeypatch.delitem(sys.modules, module, raising=False)

    def test_a_reason_says_what_is_lacking_and_how_to_get_it(self, monkeypatch: pytest.MonkeyPatch) -> None:
        assert runtimes.missing("tensorrt", "cpu", "float32") == "TensorRT is used on cuda here, not on cpu"
        assert runtimes.missing("openvino", "cpu", "bfloat16") == (
            "OpenVINO is used on cpu in float32 here, not in bfloat16"
        )
        monkeypatch.setattr(runtimes, "find_spec", lambda module: None)
        reason = runtimes.missing("tensorrt", "cuda:0", "float16")
        assert reason == (
            "TensorRT needs tensorrt and onnx and onnxscript, which is not installed; "
            "pip install 'vbench-backbones[tensorrt]'"
        )
        assert runtimes.missing("aoti", "cpu", "float32") is None

    @pytest.mark.parametrize(
        ("changes", "words"),
        [
            ({"phase": "train"}, "there is no --phase train"),
            ({"layout": "nhwc", "attention": "flash"}, "there is no --layout nhwc, --attention flash"),
            ({"dtype": "amp-bf16"}, "there is no --dtype amp-bf16"),
            ({"batch": "max"}, "there is no --batch max"),
            ({"device": "cuda:0", "backend": "openvino"}, "OpenVINO is used on cpu here, not on cuda"),
        ],
    )
    def test_what_no_runtime_does_is_a_row_with_its_reason(self, changes: dict[str, Any], words: str) -> None:
        one = replace(case("deit_t"), **changes)
        assert words in str(one.unsupported)

    def test_a_form_that_cannot_be_exported_is_not_the_default_and_is_refused(self) -> None:
        sweep = plan.Sweep(("vig_t",), ((32, 32),), backends=("eager", "onnxruntime"), device="cuda:0")
        forms = {(one.backend, one.mode): one.form for one in plan.plan(sweep)}
        assert forms["eager", "parallel"] == "fused"
        assert forms["onnxruntime", "parallel"] == "chunkwise"
        asked = plan.Sweep(
            ("vig_t",), ((32, 32),), ("parallel",), backends=("aoti",), forms=("fused",), device="cuda:0"
        )
        assert [one.unsupported for one in plan.plan(asked)] == [
            "gla fused is made with triton and cannot be exported; leave out --form"
        ]

    def test_versions_of_the_runtimes_of_a_sweep_are_in_the_fingerprint(self) -> None:
        plain = host.fingerprint("cpu", None)["versions"]
        found = host.fingerprint("cpu", None, backends=("eager", "onnxruntime"))["versions"]
        assert set(found) - set(plain) == {"onnx", "onnxruntime", "onnxscript"}


class TestMadeElsewhere:
    def test_what_cannot_be_exported_is_said_once_and_remembered(
        self, shared: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """In a process of its own, which knows the folders of this one."""
        asked = request_of(case("test_runtimes:Folded"))
        with pytest.raises(UnsupportedError, match=r"torch\.export.*(Could not guard|data-dependent)"):
            deploy.made(asked)
        monkeypatch.setattr(deploy, "_in_a_process", lambda *_: pytest.fail("it was tried again"))
        with pytest.raises(UnsupportedError, match=r"torch\.export"):
            deploy.made(replace(asked, case=replace(asked.case, backend="openvino")))

    def test_a_process_that_dies_is_an_error_of_the_cell(self, tmp_path: Path) -> None:
        with pytest.raises(CompileError, match="the process that makes the file ended with exit code 7"):
            deploy._in_a_process(quits.at_once, 7, tmp_path / "about")  # type: ignore[arg-type]

    def test_files_are_told_apart_by_all_that_changes_them(self, shared: Path) -> None:
        one = request_of(case())
        other = [
            replace(one, batch=2),
            replace(one, seed=1),
            replace(one, threads=2),
            replace(one, case=replace(one.case, height=64)),
            replace(one, case=replace(one.case, backend="aoti")),
        ]
        assert len({each.folder for each in [one, *other]}) == 6
        assert replace(one, case=replace(one.case, backend="openvino")).folder == one.folder


@pytest.fixture
def here(shared: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Files are made in this process, which saves the import of torch; and it goes on after its memory was measured."""

    def make(work: Any, asked: deploy.Request, about: Path) -> None:
        about.write_text(json.dumps(work(asked, about.parent)))

    monkeypatch.setattr(deploy, "_in_a_process", make)
    monkeypatch.setattr(process, "hand_back", lambda: True)


def measured(one: Case) -> Any:
    return workload(one, Cpu("cpu"), Compilations(one.backend, 1), repeat_below_s=5.0)


@pytest.mark.usefixtures("here")
@pytest.mark.parametrize("name", ["onnxruntime", "openvino", pytest.param("aoti", marks=pytest.mark.full)])
class TestMeasured:
    def test_a_launch_has_its_memory_and_its_calls_are_checked(self, name: str) -> None:
        for module in runtimes.RUNTIMES[name].modules:
            pytest.importorskip(module)
        made = deploy.made(request_of(case(backend=name)))  # it leaves a thread here, which is none of the cell's
        if made.file.suffix == ".onnx":  # each node had the lines of Python that it comes from
            assert b".py" not in made.file.read_bytes()
        cell = measured(case(backend=name))
        anatomy = cell.memory()
        weights = sum(parameter.nbytes for parameter in Net().parameters())
        assert anatomy["weights_bytes"] == weights
        assert weights < anatomy["peak_bytes"] < weights + 40 * MIB
        assert anatomy["compile_s"] > 0.1
        assert anatomy["first_call_s"] > anatomy["pass_s"] > 0
        assert "above the runtime's library" in anatomy["method"]
        about = cell.settings
        assert about["computes_in"] == about["weights_dtype"] == "float32"
        assert "background_threads" not in about
        assert runtimes.RUNTIMES[name].packages[:1] == () or about["runtime"].startswith(f"{name} ")
        call = cell.caller(1)
        Cpu("cpu").samples(call, 7)
        found = timed.check(outputs.seen(call), "float32", cell.twin)
        assert found["checked"] == 7
        assert found["compared"] == 2
        assert found["differs"] == 0
        assert found["reason"] is None
        assert 0 <= found["worst"] < 1e-5
        session = cell._sessions[1]
        cell._sessions[1] = lambda image: [1.001 * each for each in outputs.tensors_of(session(image))]
        wrong = cell.caller(1)
        Cpu("cpu").samples(wrong, 4)
        found = timed.check(outputs.seen(wrong), "float32", cell.twin)
        assert found["differs"] > 0
        assert "a timed output is not what the model computes" in found["reason"]

    @pytest.mark.parametrize("factor", [1.0, 1.001])
    def test_a_slow_cell_that_will_take_turns_is_compared_in_its_first_launch(
        self, name: str, factor: float, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        for module in runtimes.RUNTIMES[name].modules:
            pytest.importorskip(module)
        right = DeployedPass._session

        def scaled(cell: DeployedPass, batch: int, image: torch.Tensor) -> Any:
            session = right(cell, batch, image)
            return lambda given: [factor * each for each in outputs.tensors_of(session(given))]

        monkeypatch.setattr(DeployedPass, "_session", scaled)
        slow = replace(plan.RIGORS["quick"], throughput_s=1e-6)  # by which any call is too slow for a search
        parts = dict(measure(jobs.measure(case(backend=name), slow, in_turns=True)[1]))
        assert set(parts) == {"settings", "memory", "spent", "outputs", "energy"}
        assert parts["outputs"]["compared"] > 0
        assert (parts["outputs"]["differs"] > 0) == (factor != 1)


class TestTensorRt:
    """On a stand-in: what it is asked, and what it says of a model that it does not take."""

    @pytest.fixture
    def runtime(self, monkeypatch: pytest.MonkeyPatch) -> Iterator[Any]:
        monkeypatch.setitem(sys.modules, "tensorrt", fake_tensorrt)
        monkeypatch.delitem(sys.modules, "vbench.runtimes.tensor_rt", raising=False)
        yield runtimes.open_runtime("tensorrt", "cuda:0", 1)
        sys.modules.pop("vbench.runtimes.tensor_rt", None)

    @staticmethod
    def onnx(folder: Path, **facts: Any) -> Path:
        file = folder / "model.onnx"
        file.write_text(json.dumps({"shape": [2, 3], **facts}))
        return file

    def test_calls_are_queued_on_torchs_stream_and_work_on_its_tensors(
        self, runtime: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.setattr(torch.cuda, "current_stream", lambda: SimpleNamespace(cuda_stream=42))
        built = runtime.compiled(self.onnx(tmp_path))
        assert built.parent == tmp_path
        assert fake_tensorrt.Builder.asked == {"flags": 1 << 1, "tf32": False}
        image = torch.arange(6.0).reshape(2, 3)
        call = runtime.session(built, image)
        for factor in (1.0, 3.0):
            (found,) = call(factor * image)
            torch.testing.assert_close(found, 2 * factor * image)
        assert fake_tensorrt.Context.streams[-2:] == [42, 42]
        assert runtime.computes_in() == "float32"
        assert runtime.name == "tensorrt 10.8.0"

    def test_tf32_is_allowed_where_the_sweep_allows_it(self, runtime: Any, tmp_path: Path) -> None:
        type(runtime)("cuda:0", 1, tf32=True).compiled(self.onnx(tmp_path))
        assert fake_tensorrt.Builder.asked["tf32"] is True

    @pytest.mark.parametrize(
        ("refuses", "words"), [("parser", "Scan: no importer registered"), ("builder", "no tactic for node_of_scan")]
    )
    def test_what_it_does_not_take_names_the_operator(
        self, runtime: Any, tmp_path: Path, refuses: str, words: str
    ) -> None:
        with pytest.raises(UnsupportedError, match=f"TensorRT does not take this model: {words}"):
            runtime.compiled(self.onnx(tmp_path, refuses=refuses))


class TestOnnxRuntimeOnCuda:
    """On a stand-in of its session: the package of this machine has no CUDA."""

    def test_a_package_without_cuda_says_what_to_install(self) -> None:
        pytest.importorskip("onnxruntime")
        with pytest.raises(UnsupportedError, match=r"has no CUDAExecutionProvider; .*install onnxruntime-gpu"):
            runtimes.open_runtime("onnxruntime", "cuda:0", 1)

    def test_inputs_and_outputs_are_torchs_tensors(self, monkeypatch: pytest.MonkeyPatch) -> None:
        pytest.importorskip("onnxruntime")
        from vbench.runtimes import onnx_runtime

        session = FakeSession()
        monkeypatch.setattr(torch, "empty", on_the_host(torch.empty))
        call = onnx_runtime._on_cuda(session, "cuda:1")
        image = torch.arange(6.0).reshape(2, 3)
        (found,) = call(image)
        torch.testing.assert_close(found, 2 * image)
        (again,) = call(image + 1)
        torch.testing.assert_close(again, 2 * image + 2)
        assert {place[:2] for place in session.bound.values()} == {("cuda", 1)}
        assert session.config == {"disable_synchronize_execution_providers": "1"}


def on_the_host(empty: Any) -> Any:
    return lambda *shape, **how: empty(*shape, **{**how, "device": "cpu"})


class FakeSession:
    """Returns twice its input, through the pointers that were bound."""

    def __init__(self) -> None:
        self.bound: dict[str, tuple[Any, ...]] = {}
        self.config: dict[str, str] = {}

    def get_inputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="image", type="tensor(float)", shape=[2, 3])]

    def get_outputs(self) -> list[SimpleNamespace]:
        return [SimpleNamespace(name="logits", type="tensor(float)", shape=[2, 3])]

    def io_binding(self) -> SimpleNamespace:
        def bind(name: str, *place: Any) -> None:
            self.bound[name] = place

        return SimpleNamespace(bind_input=bind, bind_output=bind)

    def run_with_iobinding(self, binding: SimpleNamespace, options: Any) -> None:
        key = "disable_synchronize_execution_providers"
        self.config = {key: options.get_run_config_entry(key)}
        given, found = ((ctypes.c_float * 6).from_address(self.bound[name][-1]) for name in ("image", "logits"))
        for at, value in enumerate(given):
            found[at] = 2 * value


def test_words_of_an_error_leave_out_where_it_was_raised() -> None:
    error = "Exception from src/inference/src/cpp/core.cpp:117:\nCheck 'x' failed at src/a.cpp:12:\n\nNo op Foo.\n at 3"
    assert base.words(error) == "No op Foo. at 3"
