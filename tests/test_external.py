"""A model of a user's own: "module:callable" is built, verified, counted and measured like any other."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from command import vbench

from vbench import host, verify
from vbench.errors import UnknownModelError, UnsupportedError, UsageError
from vbench.flops import count as flops
from vbench.models import create, external, spec
from vbench.plan import RIGORS, Case, parse_models
from vbench.sweeps import measure

PACKAGE = """
import torch
from torch import nn

class Net(nn.Module):
    def __init__(self, mode, slip):
        super().__init__()
        self.mode, self.slip = mode, slip
        self.stem, self.head = nn.Conv2d(3, 8, 8, 8), nn.Linear(8, 5)

    def forward(self, x):
        x = self.stem(x).flatten(2).transpose(1, 2)
        if self.mode == "parallel":
            return self.head(x.sum(1))
        total = torch.zeros_like(x[:, 0])
        for t in range(x.shape[1]):
            total = total + x[:, t]
        return self.head(total + self.slip)

def two(image_size, mode="parallel"): return Net(mode, 0.0)
def unequal(image_size, mode="parallel"): return Net(mode, 1e-3)
def one(): return Net("parallel", 0.0)
def wrong(): return 3
sized = []
def keeps(img_size): sized.append(img_size); return Net("parallel", 0.0)
"""


@pytest.fixture(autouse=True)
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    folder = tmp_path / "their_pkg"
    folder.mkdir()
    (folder / "__init__.py").write_text("")
    (folder / "nets.py").write_text(PACKAGE)
    (folder / "damaged.py").write_text("import no_such_module")
    monkeypatch.syspath_prepend(str(tmp_path))
    for module in [name for name in sys.modules if name.partition(".")[0] == "their_pkg"]:
        del sys.modules[module]
    return folder


def case(name: str, mode: str = "parallel") -> Case:
    return Case(f"their_pkg.nets:{name}", 32, 32, mode, None, 1, "float32", "cpu")  # type: ignore[arg-type]


def test_the_callable_is_given_what_it_takes() -> None:
    from their_pkg import nets  # type: ignore[import-not-found]

    assert create("their_pkg.nets:two", 32, "recurrent").mode == "recurrent"
    create("their_pkg.nets:keeps", (32, 64))
    assert nets.sized == [(32, 64)]
    model = create("their_pkg.nets:one")
    assert model(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    with pytest.raises(UnsupportedError, match="takes no argument 'mode'"):
        create("their_pkg.nets:one", 32, "recurrent")
    with pytest.raises(UsageError, match="returned int"):
        create("their_pkg.nets:wrong")
    with pytest.raises(UsageError, match="no option depth; it has image_size, mode"):
        create("their_pkg.nets:two", 32, depth=3)


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("no_such_pkg:net", "neither installed nor in the current folder"),
        ("their_pkg.nets:no_such", "no callable 'no_such'"),
        ("their_pkg.damaged:net", "ModuleNotFoundError: No module named 'no_such_module'"),
    ],
)
def test_one_that_is_not_there_is_said_in_a_line(name: str, said: str) -> None:
    with pytest.raises(UnknownModelError, match=said):
        external.load(name)
    with pytest.raises(UnknownModelError):
        list(host.probe({"device": "cpu", "models": [name]}))


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Path]:
    """The current folder: it holds a model and its neighbour, and names of libraries and of our own folders."""
    folder = tmp_path / "here"
    (folder / "kernels").mkdir(parents=True)
    (folder / "their_net.py").write_text("from their_parts import Net\n\ndef net(): return Net('parallel', 0.0)\n")
    (folder / "their_parts.py").write_text(PACKAGE)
    for file in ("torch.py", "timm.py", "kernels/__init__.py"):
        (folder / file).write_text("raise RuntimeError('this stands for a library')")
    monkeypatch.chdir(folder)
    yield folder
    for module in ("their_net", "their_parts"):
        sys.modules.pop(module, None)


def test_a_module_in_the_current_folder_is_found_and_shadows_nothing(folder: Path) -> None:
    path = [*sys.path]
    assert external.folder_of("their_net:net") == folder / "their_net.py"
    assert create("their_net:net")(torch.zeros(2, 3, 32, 32)).shape == (2, 5)
    assert sys.path == path
    options = ["--res", "32", "--batch", "1", "--seconds", "0.01", "--rigor", "quick", "--device", "cpu"]
    options += ["--pairs", "none"]
    done = vbench("sweep", "--models", "their_net:net", *options, "-o", "out", cwd=folder)
    assert done.returncode == 0, done.stderr
    assert "their_net:net" in done.stdout


def test_a_side_of_a_comparison_does_not_search_the_current_folder(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(external.ONLY_INSTALLED, "1")
    assert external.folder_of("their_net:net") is None
    with pytest.raises(UnknownModelError, match="there is no module 'their_net'"):
        external.load("their_net:net")


@pytest.mark.parametrize("name", ["no_such_module:net", "their_net:no_such"])
def test_a_sweep_over_a_model_that_is_not_there_ends_with_one_line(folder: Path, name: str) -> None:
    done = vbench("sweep", "--models", name, "--res", "32", "--device", "cpu", "-o", "out", cwd=folder)
    assert done.returncode == 2
    assert name in done.stderr
    assert len(done.stderr.strip().splitlines()) == 1


def test_a_name_that_is_none_is_refused_before_anything_runs() -> None:
    assert parse_models("their_pkg.nets:two,vig_t") == ("their_pkg.nets:two", "vig_t")
    for text in ("their pkg:two", "their_pkg:", ":two", "a:b:c"):
        with pytest.raises(UnknownModelError, match=r"my_pkg\.models:net"):
            parse_models(text)


def test_it_is_no_baseline_and_naming_it_imports_nothing() -> None:
    row = spec("no_such_pkg:net")
    assert (row.external, row.baseline, row.modes) == (True, False, ("parallel", "recurrent"))
    assert spec("deit_t").baseline
    assert not spec("vig_t").baseline


@pytest.mark.parametrize(("name", "checks", "ok"), [("two", 1, True), ("unequal", 1, False), ("one", 0, True)])
def test_its_modes_are_held_to_each_other(name: str, checks: int, ok: bool) -> None:
    argument = {
        "subject": f"their_pkg.nets:{name}",
        "device": "cpu",
        "seed": 0,
        "image_size": (32, 32),
        "weights": None,
    }
    ((_, found),) = verify.job(argument)
    assert len(found) == checks
    assert all(check["error"] <= check["bound"] for check in found) is ok


def test_it_is_counted_and_measured() -> None:
    from dataclasses import asdict, replace

    work = flops.count(case("two"))
    assert work["macs"] == 16 * 8 * 3 * 64 + 8 * 5
    assert work["macs_closed_form"] is None
    quick = replace(RIGORS["quick"], sample_s=0.01, sample_max_s=0.05, warmup_s=0.01, warmup_max_s=0.05)
    argument = {"case": asdict(case("two", "recurrent")), "protocol": asdict(quick), "launch": 0, "batch": None}
    parts = dict(measure.measure({**argument, "in_turns": False, "watch": None}))
    assert min(parts["latency"]["samples_ms"]) > 0


def test_its_code_is_part_of_the_conditions(package: Path) -> None:
    def conditions() -> str:
        return host.conditions(host.fingerprint("cpu", None, ["vig_t", "their_pkg.nets:two"]), {})

    before = conditions()
    assert conditions() == before
    (package / "nets.py").write_text(PACKAGE + "\n# changed\n")
    assert conditions() != before
    assert "models" not in host.fingerprint("cpu", None, ["vig_t"])
