"""Damaged and hostile checkpoints: each loads, or ends in one line of CheckpointError; no weights that are none."""

from __future__ import annotations

import io
import json
import random
import struct
import zipfile
from collections import OrderedDict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from safetensors.torch import save
from torch import Tensor, nn

from vbench.errors import CheckpointError
from vbench.models import load_published
from vbench.models.checkpoint import read

STATE = {
    "0.weight": torch.randn(4, 3, generator=torch.Generator().manual_seed(0)),
    "0.bias": torch.zeros(4),
    "1.weight": torch.ones(4),
    "1.bias": torch.zeros(4),
    "1.running_mean": torch.zeros(4),
    "1.running_var": torch.ones(4),
    "1.num_batches_tracked": torch.tensor(7),
}


def net() -> nn.Module:
    return nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4))


def pickled(contents: Any, **options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(contents, file, **options)
    return file.getvalue()


SNAPSHOT = {
    "model": OrderedDict(STATE),
    "epoch": 3,
    "optimizer": {"state": {0: {"step": torch.tensor(1.0)}}, "lr": [0.1]},
}
WHOLE = {
    "safetensors": save(STATE),
    "zip": pickled(SNAPSHOT),
    "legacy": pickled(SNAPSHOT, _use_new_zipfile_serialization=False),
}


def attempt(contents: bytes, path: Path) -> str:
    """ "" if the file loads, or its one line of refusal; any other error fails the test."""
    path.write_bytes(contents)
    model = net()
    before = {key: value.clone() for key, value in model.state_dict().items()}
    try:
        load_published(model, path)
    except CheckpointError as error:
        said = str(error)
        assert said.isprintable(), said
        assert len(said) < 2500, said
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())
        return said
    assert all(bool(value.isfinite().all()) for value in model.state_dict().values())
    return ""


def mutant(whole: bytes, seed: int) -> bytes:
    """A file with bytes flipped, cut out, repeated, overwritten or swapped; mostly in what describes the tensors."""
    rng = random.Random(seed)
    found = bytearray(whole)
    for _ in range(rng.choice((1, 1, 2, 8))):
        at = rng.randrange(len(found))
        length = rng.choice((1, 1, 2, 4, 8, 64))
        match rng.randrange(7):
            case 0:
                found[at] ^= 1 << rng.randrange(8)
            case 1:
                found[at : at + length] = rng.randbytes(length)
            case 2:
                del found[at : at + length]
            case 3:
                found[at:at] = found[at : at + length]
            case 4:
                del found[at:]
            case 5:
                found[at : at + 8] = rng.choice((b"\xff" * 8, bytes(8), struct.pack("<q", 1 << 40)))
            case _:
                other = rng.randrange(len(found))
                found[at], found[other] = found[other], found[at]
        if not found:
            break
    return bytes(found)


@pytest.mark.parametrize("kind", list(WHOLE))
def test_mutants_load_or_are_refused_in_one_line(kind: str, tmp_path: Path) -> None:
    assert attempt(WHOLE[kind], tmp_path / "whole.pth") == ""
    refused = sum(bool(attempt(mutant(WHOLE[kind], seed), tmp_path / "weights.pth")) for seed in range(120))
    assert 30 < refused < 120


def operations(rng: random.Random) -> bytes:
    """A pickle in which one operation was changed, in an archive that is sound otherwise."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(WHOLE["zip"])) as before, zipfile.ZipFile(file, "w") as after:
        for part in before.infolist():
            text = bytearray(before.read(part))
            if part.filename.endswith("data.pkl"):
                for _ in range(rng.choice((1, 1, 2))):
                    text[rng.randrange(len(text))] = rng.choice(b"()}]{.0123KMJXqhrRbsutaeQc\x80\x8a\x85\x86\x87NG")
            after.writestr(part.filename, bytes(text))
    return file.getvalue()


def test_pickles_with_other_operations_are_refused_in_one_line(tmp_path: Path) -> None:
    """The archive's table is sound, so that torch reads the pickle; a storage then has no more bytes than its part."""
    said = [attempt(operations(random.Random(seed)), tmp_path / "weights.pth") for seed in range(150)]
    assert 30 < sum(map(bool, said)) <= 150


HEADER = {key: {"dtype": "F32", "shape": [4], "data_offsets": [16 * n, 16 * n + 16]} for n, key in enumerate("ab")}
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=6,
)
entries = st.fixed_dictionaries(
    {},
    optional={
        "dtype": st.sampled_from(["F32", "F16", "BF16", "I8", "C64", "F8_E4M3", "F4", "BOOL", "U64", "Q"])
        | json_values,
        "shape": st.lists(st.integers(-2, 1 << 62), max_size=4) | json_values,
        "data_offsets": st.lists(st.integers(-8, 1 << 62), min_size=2, max_size=2) | json_values,
    },
)


@given(
    st.dictionaries(st.text(max_size=8), entries | json_values, max_size=3), st.binary(max_size=64), st.integers(-9, 9)
)
@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], derandomize=True)
def test_headers_of_safetensors(tmp_path: Path, header: dict[str, Any], data: bytes, off: int) -> None:
    text = json.dumps({**HEADER, **header}).encode()
    attempt(struct.pack("<Q", max(0, len(text) + off)) + text + data, tmp_path / "weights.safetensors")


@given(json_values)
@settings(max_examples=60, deadline=None, derandomize=True)
def test_state_dicts_that_hold_anything(contents: Any) -> None:
    model = net()
    for given_one in ({"model": contents}, {"state_dict": {"0.weight": contents}}, contents):
        if isinstance(given_one, dict):
            with pytest.raises(CheckpointError) as caught:
                load_published(model, given_one)
            assert "\n" not in str(caught.value)


def test_headers_by_hand(tmp_path: Path) -> None:
    deep = b"[" * 100_000
    twice = (
        b'{"a":{"dtype":"F32","shape":[1],"data_offsets":[0,4]},"a":{"dtype":"F32","shape":[1],"data_offsets":[4,8]}}'
    )
    huge = b'{"a":{"dtype":"F32","shape":[4611686018427387904,4],"data_offsets":[0,8]}}'
    for text in (b'{"a":' + deep, twice, huge, b"{" + b'"' + b"k" * 100_000 + b'":0}', b'{"\\ud800":1}'):
        said = attempt(struct.pack("<Q", len(text)) + text + bytes(8), tmp_path / "weights.safetensors")
        assert "it is damaged, or no checkpoint" in said


def test_keys_of_any_kind(tmp_path: Path) -> None:
    long = "x" * 100_000
    for contents, says in (
        ({0: torch.ones(2), 1: torch.ones(2)}, "its tensors have no names but 0, 1"),
        ({long: torch.ones(2)}, "1 unexpected: xxx"),
        ({"a\nb\x1b[0m\ud800": torch.ones(2)}, "1 unexpected: a b [0m"),
        ({"." * 5000: torch.ones(2)}, "1 unexpected: ..."),
        ({"epoch": 1, 3: 4, None: 5}, "this is no state dict; these entries are no tensors: epoch, 3, None"),
        ({"": torch.ones(2)}, "1 unexpected"),
        ([torch.ones(2)], "it holds a list, not a state dict"),
    ):
        assert says in attempt(pickled(contents), tmp_path / "weights.pth")


def test_a_snapshot_that_holds_itself() -> None:
    loop: dict[str, Any] = {"epoch": 1}
    loop["model"] = loop["state_dict"] = loop
    with pytest.raises(CheckpointError, match="these entries are no tensors"):
        load_published(net(), loop)
    load_published(net(), {"model": STATE, "again": loop})
    nested: dict[str, Any] = dict(STATE)
    for _ in range(20):
        nested = {"model": nested}
    load_published(net(), nested)
    for _ in range(5000):
        nested = {"model": nested}
    with pytest.raises(CheckpointError, match="these entries are no tensors: model"):
        load_published(net(), nested)


# What takes more memory than its size allows


def archive(size: int, compression: int = zipfile.ZIP_DEFLATED) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w", compression) as made:
        made.writestr("archive/data.pkl", b"\x80\x02}q\x00.")
        made.writestr("archive/data/0", bytes(size))
        made.writestr("archive/version", b"3\n")
    return file.getvalue()


def test_an_archive_that_swells_is_not_unpacked(tmp_path: Path) -> None:
    said = attempt(archive(50_000_000), tmp_path / "bomb.pth")
    assert "its parts take 50000008 bytes in a file of" in said or "compressed, as torch.save never does it" in said
    sound = bytearray(archive(64, zipfile.ZIP_STORED))
    at = sound.rindex(b"PK\x01\x02", 0, sound.rindex(b"PK\x01\x02"))  # the table's entry of the data
    sound[at + 24 : at + 28] = struct.pack("<I", 1 << 30)
    assert "compressed, as torch.save never does it" in attempt(bytes(sound), tmp_path / "bomb.pth")


@pytest.mark.parametrize("kind", [True, False])
def test_tensors_that_repeat_few_bytes(kind: bool, tmp_path: Path) -> None:
    """A stride of zero makes a terabyte of four bytes; it must not be written out, nor looked through."""
    vast = {**STATE, "more": torch.ones(1).expand(1 << 38)}
    said = attempt(pickled(vast, _use_new_zipfile_serialization=kind), tmp_path / "weights.pth")
    assert "its tensors would take" in said


def test_a_storage_has_no_more_bytes_than_its_part(tmp_path: Path) -> None:
    """What the pickle says of a storage's size is not believed."""
    whole = pickled({"w": torch.arange(4.0)})
    with zipfile.ZipFile(io.BytesIO(whole)) as before:
        parts = {part.filename: before.read(part) for part in before.infolist()}
    name = next(key for key in parts if key.endswith("data.pkl"))
    assert parts[name].count(b"K\x04") >= 2
    parts[name] = parts[name].replace(b"K\x04", b"J\x00\x00\x00\x10")
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as after:
        for key, value in parts.items():
            after.writestr(key, value)
    (tmp_path / "w.pth").write_bytes(file.getvalue())
    with pytest.raises(CheckpointError, match="damaged, or no checkpoint"):
        read(tmp_path / "w.pth")


# Tensors that are no weights


NO_WEIGHTS: dict[str, tuple[Callable[[Tensor], Tensor], str]] = {  # what becomes of 0.weight
    "nan": (lambda w: w * torch.nan, r"12 values in 1 of its tensors are NaN or infinite: 0\.weight$"),
    "infinite": (lambda w: w / torch.tensor(0.0), r"12 values in 1 of its tensors are NaN or infinite: 0\.weight$"),
    "too wide": (lambda w: w.double() * 1e300, "12 values in 1 of its tensors are NaN or infinite"),
    "complex": (lambda w: w + 1j, r"1 of its tensors are of another kind \(1 complex64, not float32\): 0\.weight$"),
    "integers": (lambda w: w.to(torch.int8), r"another kind \(1 int8, not float32\): 0\.weight$"),
    "truths": (lambda w: w > 0, r"another kind \(1 bool, not float32\)"),
    "sparse": (lambda w: w.to_sparse(), r"1 of its tensors are sparse; save them as dense ones: 0\.weight$"),
    "rows": (lambda w: w.to_sparse_csr(), "1 of its tensors are sparse"),
    "empty": (lambda w: w.to("meta"), r"1 of its tensors are without data \(meta\); save them"),
    "quantised": (lambda w: torch.quantize_per_tensor(w, 0.1, 0, torch.qint8), "1 of its tensors are quantised"),
}


@pytest.mark.parametrize("name", list(NO_WEIGHTS))
@pytest.mark.filterwarnings("ignore")  # of torch, on sparse and quantised tensors
def test_tensors_that_are_no_weights(name: str, tmp_path: Path) -> None:
    change, says = NO_WEIGHTS[name]
    contents = {**STATE, "0.weight": change(STATE["0.weight"])}
    torch.save(contents, tmp_path / "weights.pth")
    for source in (contents, tmp_path / "weights.pth"):
        model = net()
        before = {key: value.clone() for key, value in model.state_dict().items()}
        with pytest.raises(CheckpointError, match=says) as caught:
            load_published(model, source)
        assert "\n" not in str(caught.value)
        assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.float8_e4m3fn])
def test_other_widths_are_converted_and_said(dtype: torch.dtype) -> None:
    loaded = load_published(net(), {k: v.to(dtype) if v.is_floating_point() else v for k, v in STATE.items()})
    assert loaded.notes == (f"converted 6 tensors from {str(dtype).removeprefix('torch.')} to float32",)


def test_complex_weights_of_a_complex_model_load() -> None:
    model = nn.ParameterDict(
        {"weight": torch.ones(2, dtype=torch.complex64), "bias": torch.ones(1, dtype=torch.complex64)}
    )
    state = {key: value * 2j for key, value in model.state_dict().items()}
    load_published(model, state)
    assert torch.equal(model["weight"], state["weight"])
    with pytest.raises(CheckpointError, match="2 float32, not complex64"):
        load_published(model, {key: value.real for key, value in state.items()})


def test_a_buffer_may_hold_infinities_where_the_models_does() -> None:
    model = nn.Linear(2, 2)
    model.register_buffer("mask", torch.full((2, 2), -torch.inf).triu(1))
    state = {key: value.clone() for key, value in model.state_dict().items()}
    load_published(model, state)
    state["weight"] = state["mask"]
    with pytest.raises(CheckpointError, match="1 values in 1 of its tensors are NaN or infinite: weight"):
        load_published(model, state)
