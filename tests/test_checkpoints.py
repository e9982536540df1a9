"""Published weights from wherever they are, and one clear line for every file that is none."""

from __future__ import annotations

import argparse
import http.server
import os
import threading
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.torch import save_file
from torch import Tensor, nn
from weights import Golden, image, uninitialised

from vbench.errors import CheckpointError, UsageError
from vbench.models import create, load_published
from vbench.models.checkpoint import fetch


@pytest.fixture(scope="module")
def state() -> dict[str, Tensor]:
    return Golden("vig_t").state()


@pytest.fixture(scope="module")
def files(tmp_path_factory: pytest.TempPathFactory, state: dict[str, Tensor]) -> Path:
    """The same weights in every container that authors publish."""
    folder = tmp_path_factory.mktemp("published")
    torch.save(state, folder / "bare.pth")
    snapshot = {"model": state, "epoch": 300, "args": argparse.Namespace(lr=1e-3), "best": np.float64(77.2)}
    torch.save(snapshot, folder / "snapshot.pth.tar")
    torch.save({"state_dict": {f"module.{key}": value for key, value in state.items()}}, folder / "old.th")
    save_file(state, folder / "model.safetensors")
    return folder


def logits(source: Any) -> Tensor:
    with uninitialised():
        model = create("vig_t", 64)
    load_published(model, source)
    with torch.inference_mode():
        return model(image(0, 1, 64, 64))  # type: ignore[no-any-return]


@pytest.mark.parametrize("name", ["bare.pth", "snapshot.pth.tar", "old.th", "model.safetensors"])
def test_a_file_gives_the_logits_of_the_state_that_it_holds(files: Path, state: dict[str, Tensor], name: str) -> None:
    wanted = logits(state)
    assert torch.equal(logits(files / name), wanted)
    assert torch.equal(logits(str(files / name)), wanted)


@pytest.mark.parametrize("name", ["vig_h_t", "vrwkv_t", "vrwkv6_t", "vil_t", "vil2_t", "vir_s", "vision_gru_t"])
def test_every_family_comes_back_from_every_container(name: str, tmp_path: Path) -> None:
    published, x = create(name, 64), image(0, 1, 64, 64)
    weights = published.state_dict()
    torch.save(weights, tmp_path / "bare.pth")
    torch.save({"state_dict": weights, "meta": {"epoch": 300}}, tmp_path / "wrapped.th")
    save_file(weights, tmp_path / "model.safetensors")
    with torch.inference_mode():
        wanted = published(x)
        for file in ("bare.pth", "wrapped.th", "model.safetensors"):
            with uninitialised():
                model = create(name, 64)
            load_published(model, tmp_path / file)
            assert torch.equal(model(x), wanted), file


@pytest.fixture
def server(files: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))

    class Quiet(http.server.SimpleHTTPRequestHandler):
        def log_message(self, *_: Any) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=str(files))) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield f"http://127.0.0.1:{host.server_port}"
        host.shutdown()


def test_a_url_is_fetched_once(server: str, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch) -> None:
    url = f"{server}/model.safetensors"
    assert torch.equal(logits(url), logits(state))
    monkeypatch.setattr(fetch, "urlopen", None)
    assert torch.equal(logits(url), logits(state))


def test_a_url_that_is_not_there_is_named_and_nothing_is_kept(server: str, tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"none\.pth: cannot download it: HTTP Error 404"):
        logits(f"{server}/none.pth")
    assert not any(path.is_file() for path in tmp_path.rglob("*none*"))


def test_a_hub_id_names_repository_file_and_revision(
    files: Path, state: dict[str, Tensor], monkeypatch: pytest.MonkeyPatch
) -> None:
    asked = []

    def download(repo: str, file: str, revision: str | None = None) -> str:
        asked.append((repo, file, revision))
        return str(files / file)

    monkeypatch.setattr(fetch, "hf_hub_download", download)
    monkeypatch.setattr(fetch, "list_repo_files", lambda repo, revision: ["README.md", "model.safetensors"])
    assert torch.equal(logits("hf-hub:hustvl/ViG/bare.pth@v1"), logits(state))
    assert torch.equal(logits("hf-hub:hustvl/ViG"), logits(state))
    assert asked == [("hustvl/ViG", "bare.pth", "v1"), ("hustvl/ViG", "model.safetensors", None)]
    monkeypatch.setattr(fetch, "list_repo_files", lambda repo, revision: ["a.pth", "b.pth"])
    with pytest.raises(CheckpointError, match=r"2 checkpoints; name one: a\.pth, b\.pth"):
        logits("hf-hub:hustvl/ViG")
    with pytest.raises(CheckpointError, match="write hf-hub:ORG/REPO"):
        logits("hf-hub:ViG")


class Payload:
    """Unpickled, it would leave a file behind."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.mark),)


def test_a_file_that_would_run_code_is_refused_and_runs_none(tmp_path: Path) -> None:
    mark = tmp_path / "ran"
    torch.save({"model": Payload(mark)}, tmp_path / "evil.pth")
    said = r"evil\.pth: refused, because reading it would call posix\.mkdir; save only its tensors"
    with pytest.raises(CheckpointError, match=said):
        logits(tmp_path / "evil.pth")
    torch.save(nn.Linear(2, 2), tmp_path / "module.pth")
    with pytest.raises(CheckpointError, match=r"would call torch\.nn\.modules\.linear\.Linear"):
        logits(tmp_path / "module.pth")
    assert not mark.exists()


def damage(name: str, path: Path, state: dict[str, Tensor]) -> None:
    if name == "missing":
        return
    if name == "cut":
        torch.save(state, path)
        path.write_bytes(path.read_bytes()[:100_000])
    elif name == "page":
        path.write_text("<html>404 Not Found</html>")
    elif name == "empty":
        path.write_bytes(b"")
    elif name == "tensor":
        torch.save(torch.ones(3), path)
    elif name == "foreign":
        torch.save(timm.create_model("resnet18").state_dict(), path)
    elif name == "sibling":
        torch.save(Golden("vig_s").state(), path)
    elif name == "nothing":
        torch.save({}, path)


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("missing", "no such file; give a path"),
        ("cut", "damaged, or no checkpoint"),
        ("page", "it is an HTML page, not a checkpoint"),
        ("empty", "damaged, or no checkpoint"),
        ("tensor", "it holds a Tensor, not a state dict"),
        ("foreign", "not the weights of this ViG; 180 missing: pos_embed"),
        ("sibling", r"155 misshapen: pos_embed \(1, 16, 384\) instead of \(1, 16, 192\)"),
        ("nothing", "180 missing"),
    ],
)
def test_what_is_no_checkpoint_gets_one_line(name: str, says: str, tmp_path: Path, state: dict[str, Tensor]) -> None:
    path = tmp_path / "weights.pth"
    damage(name, path, state)
    model = create("vig_t", 64)
    before = {key: value.clone() for key, value in model.state_dict().items()}
    with pytest.raises(CheckpointError, match=says) as caught:
        load_published(model, path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 1200
    assert isinstance(caught.value, UsageError)
    assert all(torch.equal(value, before[key]) for key, value in model.state_dict().items())


def test_damaged_safetensors(tmp_path: Path, files: Path) -> None:
    whole = (files / "model.safetensors").read_bytes()
    for contents in (whole[: len(whole) // 2], b"\x00" * 64, b""):
        path = tmp_path / "weights.safetensors"
        path.write_bytes(contents)
        with pytest.raises(CheckpointError, match="damaged, or no checkpoint"):
            logits(path)
