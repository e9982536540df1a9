"""What a user writes is understood, in any spelling, once or twice; and what is wrong is named as it was written."""

from __future__ import annotations

import inspect
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import timm
from command import vbench
from typer.main import get_command

from vbench import devices
from vbench.commands import axes
from vbench.commands.app import app
from vbench.errors import DeviceError, UnknownModelError, UsageError
from vbench.models import create, external, naming
from vbench.models.registry import MODELS, ours, spec
from vbench.options import choices, folded
from vbench.plan import DTYPE_WORDS, DTYPES, PLAIN, parse_dtypes, parse_models, parse_modes, parse_sizes


class TestModels:
    @pytest.mark.parametrize("text", ["vig_t", "ViG_T", "vig-t", "VIG-T", "ViGT"])
    def test_a_name_in_any_spelling(self, text: str) -> None:
        assert parse_models(text) == ("vig_t",)
        assert ours(text) == "vig_t"

    def test_no_two_models_fold_to_one_name(self) -> None:
        assert len({folded(name) for name in MODELS}) == len(MODELS)

    @pytest.mark.parametrize(
        ("text", "found"),
        [
            ("DeiT_Tiny-patch16_224", "deit_t"),  # what timm calls one of ours
            ("Timm/ResNet50", "timm/resnet50"),
            ("timm/ViT_tiny-patch16_224.augreg_in21k", "timm/vit_tiny_patch16_224.augreg_in21k"),
            ("timm/hf-hub:Who/Net", "timm/hf-hub:Who/Net"),
            ("My_Net:Net", "My_Net:Net"),  # Python tells them apart
        ],
    )
    def test_names_of_others(self, text: str, found: str) -> None:
        assert ours(text) == found

    def test_patterns_in_any_spelling(self) -> None:
        assert parse_models("ViG-?") == parse_models("vig_?")
        assert parse_models("vig_[b-t]") == ("vig_t", "vig_s", "vig_b")
        assert parse_models("ALL") == parse_models("all")

    def test_a_model_is_built_by_any_spelling(self) -> None:
        assert type(create("ViG-T", 32)) is type(create("vig_t", 32))

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("resnet50", "timm/resnet50"),
            ("ResNet50", "timm/resnet50"),
            ("resnet50.a1_in1k", "timm/resnet50.a1_in1k"),
            ("convnext-tiny", "timm/convnext_tiny"),
            ("resnet5O", "timm/resnet50"),
            ("vig_tt", "vig_t"),
            ("my_net.Net", "my_net:Net"),
            ("my_pkg.nets.my_backbone", "my_pkg.nets:my_backbone"),
            ("torchvision.models.resnet50", "torchvision.models:resnet50"),
            ("my_net.py", "my_net:NAME"),
            ("my_pkg/nets.py", "my_pkg.nets:NAME"),
        ],
    )
    def test_what_was_meant_is_said(self, text: str, meant: str) -> None:
        with pytest.raises(UnknownModelError, match=f"unknown model '{text}': did you mean [^?]*{meant}") as caught:
            parse_models(text)
        assert "\n" not in str(caught.value)

    @pytest.mark.parametrize(
        ("text", "meant"),
        [
            ("my_net.py:Net", "my_net:Net"),
            ("./my_net.py:Net", "my_net:Net"),
            ("my_pkg/nets:Net", "my_pkg.nets:Net"),
            ("my_net::Net", "my_net:Net"),
        ],
    )
    def test_how_to_write_a_callable_is_said(self, text: str, meant: str) -> None:
        with pytest.raises(UnknownModelError, match=f"'{text}' names no model of your own; write {meant}$"):
            parse_models(text)

    def test_a_name_like_no_other(self) -> None:
        with pytest.raises(UnknownModelError, match=rf"none of the {len(MODELS)} is like it\. Any other of timm's"):
            spec("qqqqqqqq")

    def test_a_module_that_is_there_is_preferred(self, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        (tmp_path / "vig_tiny.py").write_text("")
        monkeypatch.chdir(tmp_path)
        assert naming.hint("vig_tiny.Net", MODELS) == "did you mean vig_tiny:Net?"
        assert external.meant("a name.of nothing") is None

    def test_timms_names_are_timms(self) -> None:
        """Those that an older timm had are kept by timm under other names and are not in its source as functions."""
        named = set(naming.timm_names())
        assert set(timm.list_models()) <= named
        assert all(timm.is_model(name) for name in named)


class TestTypes:
    @pytest.mark.parametrize(
        ("text", "dtypes"),
        [
            ("fp16", ("float16",)),
            ("half,FP16", ("float16",)),
            ("bf16,fp32", ("bfloat16", "float32")),
            ("Float", ("float32",)),
            ("torch.bfloat16, torch.half", ("bfloat16", "float16")),
            ("AMP_BF16,amp-float16", ("amp-bf16", "amp-fp16")),
        ],
    )
    def test_other_names_of_a_dtype(self, text: str, dtypes: tuple[str, ...]) -> None:
        assert parse_dtypes(text) == dtypes

    def test_each_other_name_means_one_dtype(self) -> None:
        assert set(DTYPE_WORDS.values()) <= set(DTYPES)
        assert not {folded(word) for word in DTYPE_WORDS} & {folded(dtype) for dtype in DTYPES}

    def test_where_autocast_has_no_place_its_names_are_refused(self) -> None:
        assert parse_dtypes("half", PLAIN) == ("float16",)
        with pytest.raises(UsageError, match=r"^--dtype: 'amp-half' is not one of float32, bfloat16, float16$"):
            parse_dtypes("amp-half", PLAIN)

    def test_words_in_any_spelling(self) -> None:
        assert parse_modes("Parallel, RECURRENT") == ("parallel", "recurrent")
        assert choices("fused-recurrent", "--form", ("fused", "fused_recurrent")) == ("fused_recurrent",)


@pytest.mark.parametrize(
    ("text", "meant"),
    [("gpu", "cuda"), ("GPU:1", "cuda:1"), ("cuda1", "cuda:1"), ("0", "cuda:0"), ("cuda:", "cuda"), ("nvidia", "cuda")],
)
def test_a_gpu_by_another_name(text: str, meant: str) -> None:
    with pytest.raises(DeviceError, match=rf"is not one of {devices.NAMES}; did you mean {meant}\?$"):
        devices.resolve(text)


@pytest.mark.parametrize("text", ["tpu", "mpx", "cuda:x", "cpu:0", "gpux", ""])
def test_a_device_that_is_none(text: str) -> None:
    with pytest.raises(DeviceError, match=rf"is not one of {devices.NAMES}$"):
        devices.resolve(text)


def test_a_device_in_any_case() -> None:
    assert devices.resolve("CPU") == "cpu"


class TestOptions:
    """What is wrong is said of the option that was typed."""

    @pytest.mark.parametrize(
        ("args", "says"),
        [
            ("maxres vig_t --mode both", "--mode: 'both' is not one of parallel, recurrent"),
            ("maxres vig_t --mode parallel,recurrent", "--mode: one at a time, not parallel, recurrent"),
            ("maxres vog_* --mode parallel", "MODEL: no model matches 'vog_*'"),
            ("flops vig_t --res 64 --mode both", "--mode: 'both' is not one of parallel, recurrent"),
            ("flops vog_* --res 64", "MODEL: no model matches 'vog_*'"),
            ("flops vig_t,deit_t --res 64", "flops counts one MODEL"),
            ("memory vog_* --res 64", "MODELS: no model matches 'vog_*'"),
            (
                "memory vig_t --res 64 --device cuda:0",
                "--device: 'cuda:0' is a device, and nothing runs here; name cards",
            ),
            ("memory vig_t --res 64 --device gpu", "--device: 'gpu' is a device, and nothing runs here; name cards"),
            ("memory vig_t --res 64 --modes both", "--modes: 'both' is not one of parallel, recurrent"),
            ("sweep --models vog_* --res 64", "--models: no model matches 'vog_*'"),
            ("sweep --models vig_t --res 6x", "--res: '6x' is not a size"),
            ("sweep --suite FILE", "--suite FILE: res: '6x' is not a size"),
            ("sweep --suite FILE --res 7x", "--res: '7x' is not a size"),
            ("sweep --suite FILE --res 64 --modes both", "--modes: 'both' is not one of"),
            ("kernels bench --device cpu --dtype int8", "--dtype: 'int8' is not one of float32, bfloat16, float16"),
            ("kernels bench --device cpu --dtype fp16,bf16", "--dtype: one at a time, not float16, bfloat16"),
        ],
    )
    def test_an_error_names_what_was_typed(self, args: str, says: str, tmp_path: Path) -> None:
        file = tmp_path / "mine.toml"
        file.write_text('question = "?"\ntime = "seconds"\nmodels = "vig_t"\nres = "6x"\n')
        done = vbench(*(str(file) if word == "FILE" else word for word in args.split()), cwd=tmp_path)
        assert done.returncode == 2
        assert done.stderr.startswith(f"vbench: {says.replace('FILE', str(file))}"), done.stderr
        assert len(done.stderr.splitlines()) == 1
        assert list(tmp_path.iterdir()) == [file]

    def test_a_gate_names_the_file_of_its_axes(self, tmp_path: Path) -> None:
        (tmp_path / "pyproject.toml").write_text('[tool.vbench.gate]\nmodels = "vig_t"\nres = "6x"\n')
        done = vbench("gate", "--ab", "HEAD", "--device", "cpu", cwd=tmp_path)
        assert done.stderr.startswith("vbench: pyproject.toml: [tool.vbench.gate] res: '6x' is not a size")

    def test_a_size_keeps_the_name_of_its_option(self) -> None:
        with pytest.raises(UsageError, match=r"^--at: '6x' is not a size"):
            parse_sizes("6x", "--at")


def commands(group: Any = None) -> Iterator[Any]:
    group = group or get_command(app)
    for command in group.commands.values():
        yield from commands(command) if hasattr(command, "commands") else [command]


LISTS = {
    "models",
    "res",
    "modes",
    "batch",
    "dtype",
    "form",
    "op",
    "n",
    "arch",
    "backend",
    "l2",
    "at",
    "cost",
    "formats",
}
ONE = {  # command -> options of these names that take one value
    **{"maxres": {"batch", "dtype", "phase"}, "maxbatch": {"res", "dtype", "phase"}, "verify": {"dtype"}},
    **{"flops": {"form", "dtype", "reparam", "batch"}, "bench": {"dtype"}, "tune": {"dtype"}, "fit": {"cost"}},
    **{"eval": {"batch", "dtype"}, "export": {"res", "batch", "dtype"}, "pick": {"cost"}},
}


class TestRepeated:
    @pytest.mark.parametrize("command", [*commands()], ids=lambda command: command.name)
    def test_every_comma_list_may_be_given_again(self, command: Any) -> None:
        lists = {one.name for one in command.params if one.param_type_name == "option" and one.multiple} - {"peer"}
        named = {one.name for one in command.params if one.param_type_name == "option"} & (LISTS | {*axes.OPTIONS})
        assert lists >= named - ONE.get(command.name, set())
        assert not lists & ONE.get(command.name, set())

    @pytest.mark.parametrize(
        "args",
        [
            ["--models", "vig_t", "--models", "deit_t,swin_t", "--res", "64", "--res", "128", "--phase", "infer"],
            ["--models", "vig_t,deit_t,swin_t", "--res", "64,128", "--phase=infer"],
        ],
    )
    def test_they_add_up(self, args: list[str], monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        seen = []

        def cells(asked: axes.Asked, *_: Any, **__: Any) -> Any:
            seen.append(asked)
            raise UsageError("that is enough")

        monkeypatch.setattr(axes, "cells", cells)
        for command in ("sweep", "plan"):
            assert "that is enough" in vbench(command, *args, cwd=tmp_path).stderr
        assert seen == [{"models": "vig_t,deit_t,swin_t", "res": "64,128", "phase": "infer"}] * 2

    def test_a_default_gives_way(self, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
        from vbench.reports.figures import draw

        seen: list[str] = []

        def parse(names: tuple[str, ...], **given: Any) -> Any:
            seen.append(given["formats"])
            raise UsageError("that is enough")

        monkeypatch.setattr(draw, "parse", parse)
        for words in ([], ["--format", "svg"], ["--format", "svg", "--format", "pdf"]):
            vbench("figures", "paper:vig", *words, cwd=tmp_path)
        assert seen == ["png,pdf", "svg", "svg,pdf"]

    def test_what_a_command_gets_is_one_text(self) -> None:
        from vbench.commands.parameters import COMMA, prepared

        def plain(one: int) -> int:
            return one

        assert prepared(plain)(one=3) == 3
        assert str(inspect.signature(prepared(plain))) == "(one: int)"
        assert COMMA not in str(inspect.signature(prepared(axes.taking()(_takes))))


def _takes(asked: axes.Asked) -> None: ...
