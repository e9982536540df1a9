"""A checkpoint is known by its bytes, and whatever else comes in its place is named; no message holds a secret."""

from __future__ import annotations

import gzip
import http.server
import io
import json
import lzma
import os
import tarfile
import threading
import zipfile
from base64 import b64encode
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from safetensors.torch import save_file
from torch import nn

from vbench.errors import CheckpointError
from vbench.models import load_published
from vbench.models.checkpoint import fetch, read
from vbench.models.checkpoint.words import line, shown

STATE = {"weight": torch.arange(6.0).reshape(2, 3), "bias": torch.ones(2)}


def loaded(given: Any) -> bool:
    """Whether the file gives the weights that were saved."""
    model = nn.Linear(3, 2)
    load_published(model, given)
    return all(torch.equal(value, STATE[key]) for key, value in model.state_dict().items())


def saved(**options: Any) -> bytes:
    file = io.BytesIO()
    torch.save(STATE, file, **options)
    return file.getvalue()


def as_safetensors(path: Path) -> None:
    save_file(STATE, path)


def as_legacy(path: Path) -> None:
    path.write_bytes(saved(_use_new_zipfile_serialization=False))


def as_zip(path: Path) -> None:
    path.write_bytes(saved())


@pytest.mark.parametrize("write", [as_safetensors, as_zip, as_legacy])
@pytest.mark.parametrize(
    "name", ["renamed.pth", "UPPER.SAFETENSORS", "a.safetensors", "no-suffix", "a.txt", "a.pth.tar"]
)
def test_the_bytes_of_a_file_decide_and_not_its_name(name: str, write: Callable[[Path], None], tmp_path: Path) -> None:
    """Source: SmartForest-no/SegmentAnyTree#13, and mirrors that rename files."""
    write(tmp_path / name)
    assert loaded(tmp_path / name)


def zipped(**parts: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name, text in parts.items():
            archive.writestr(name.replace("__", "/").replace("_dot_", "."), text)
    return file.getvalue()


def tarred() -> bytes:
    file = io.BytesIO()
    with tarfile.open(fileobj=file, mode="w") as archive:
        archive.addfile(tarfile.TarInfo("model.pth"))
    return file.getvalue()


def numpys() -> tuple[bytes, bytes]:
    one, several = io.BytesIO(), io.BytesIO()
    np.save(one, np.ones(3))
    np.savez(several, a=np.ones(3))
    return one.getvalue(), several.getvalue()


def scripted() -> bytes:
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTORCH_JIT", "1")
        file = io.BytesIO()
        torch.jit.save(torch.jit.script(nn.Linear(2, 2)), file)
        return file.getvalue()


NO_CHECKPOINTS = {
    "lfs": (
        b"version https://git-lfs.github.com/spec/v1\noid sha256:0\nsize 22\n",
        "it is a git-lfs pointer, not the file that it stands for: run git lfs pull",
    ),
    "annex": (b"/annex/objects/MD5E-s22--0.pth\n", "it is a git-annex pointer"),
    "page": (
        b"\n<!DOCTYPE html>\n<html><head><title>Sign in</title>",
        "it is an HTML page, not a checkpoint: an error or login",
    ),
    "answer": (b"<?xml version='1.0'?><Error><Code>AccessDenied</Code>", "it is an XML text, not a checkpoint"),
    "empty": (b"", "it is damaged, or no checkpoint: it is empty"),
    "zeros": (bytes(5000), "starts with zeros, as an unfinished download does"),
    "script": (scripted, "it is a TorchScript archive, which is a program"),
    "gzip": (gzip.compress(saved()), "it is a gzip archive: unpack it"),
    "xz": (lzma.compress(saved()), "it is an xz archive: unpack it"),
    "tar": (tarred(), "it is a tar archive: unpack it"),
    "zip": (
        zipped(model_dot_pth=saved()),
        r"it is a zip archive: unpack it, and give the checkpoint that is in it: model\.pth",
    ),
    "npy": (numpys()[0], "it is an array of NumPy"),
    "npz": (numpys()[1], r"it holds arrays of NumPy \(\.npz\)"),
    "onnx": (b"\x08\x08\x12\x07pytorch\x1a\x052.9.0:\xd2\x01", "it is an ONNX model"),
    "flax": (b"\x81\xa6params\x82\xa6kernel\xc7", "it is a msgpack file, as Flax writes it"),
    "keras": (b"\x89HDF\r\n\x1a\n\0\0", "it is an HDF5 file, as Keras writes it"),
    "pickle": (b"\x80\x04\x95\x0c\0\0\0\0\0\0\0}\x94.", "it is a pickle that torch.save did not write"),
    "config": (b'{"architectures": ["ViT"]}', "it is a JSON text, but no index of shards"),
    "meta": (b'{"meta":{"a": 1}}', "it is a JSON text, but no index of shards"),
    "text": (b"no weights", "it is a text, not a checkpoint"),
    "noise": (
        bytes(range(7, 250)),
        "damaged, or no checkpoint: neither torch.save nor safetensors begins a file in this way",
    ),
    "header": ((1 << 40).to_bytes(8, "little") + b'{"a":', "it says that its header is longer than the file"),
    "exported": (zipped(m__archive_format=b"pt2"), "it is a program of torch.export"),
}


@pytest.mark.parametrize("name", list(NO_CHECKPOINTS))
@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_other_files_are_named(name: str, suffix: str, tmp_path: Path) -> None:
    """Sources: git-lfs/git-lfs#4366, vllm-project/vllm#1382 (pointers)."""
    contents, says = NO_CHECKPOINTS[name]
    if name == "flax" and suffix == ".safetensors":
        says = "damaged, or no checkpoint"
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(contents() if callable(contents) else contents)
    with pytest.raises(CheckpointError, match=says) as caught:
        load_published(nn.Linear(3, 2), path)
    assert "\n" not in str(caught.value)
    assert len(str(caught.value)) < 400


def test_what_is_no_file(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    for given, says in (
        (tmp_path / "none.pth", "there is no such file; give a path"),
        (tmp_path / "pipe", "it is no regular file"),
        (tmp_path / "loop", "there is no such file|cannot look for it"),
        ("x" * 5000, "xxx…xxx.*: (there is no such file|cannot look for it: File name too long)"),
        ("a\0b", "a b: there is no such file"),
        ("a\nb\x1b[31m", r"a b \[31m: there is no such file"),
        ("", "there is no such file"),
    ):
        with pytest.raises(CheckpointError, match=says) as caught:
            read(given)
        assert str(caught.value).isprintable()
        assert len(str(caught.value)) < 400


# Folders, and models in shards


def shards(folder: Path, kind: str) -> Path:
    """The weights in two shards and their index, as Hugging Face writes them."""
    stem, suffix = ("model", "safetensors") if kind == "safetensors" else ("pytorch_model", "bin")
    folder.mkdir(exist_ok=True)
    files = {key: f"{stem}-0000{n}-of-00002.{suffix}" for n, key in enumerate(STATE, 1)}
    for key, file in files.items():
        part = {key: STATE[key]}
        save_file(part, folder / file) if kind == "safetensors" else torch.save(part, folder / file)
    index = folder / f"{stem}.{suffix}.index.json"
    index.write_text(json.dumps({"metadata": {"total_size": 32}, "weight_map": files}, indent=2))
    return index


@pytest.mark.parametrize("kind", ["safetensors", "bin"])
def test_a_model_in_shards(kind: str, tmp_path: Path) -> None:
    index = shards(tmp_path / "model", kind)
    assert loaded(index)
    assert loaded(tmp_path / "model")
    part = sorted(tmp_path.glob("model/*-of-*"))[1]
    part.write_bytes(b"version https://git-lfs.github.com/spec/v1\n")
    with pytest.raises(CheckpointError, match=r"in its shard .*-00002-of-00002.*: it is a git-lfs pointer"):
        read(index)
    part.unlink()
    with pytest.raises(CheckpointError, match=r"1 of its 2 shards are not beside it: .*-00002-of"):
        read(index)
    index.write_text(json.dumps({"weight_map": {"a": "../../etc/passwd", "b": 3}}))
    with pytest.raises(CheckpointError, match=r"its shards must lie beside it; elsewhere are \.\./\.\./etc/passwd"):
        read(index)


def test_two_shards_with_one_key(tmp_path: Path) -> None:
    save_file(STATE, tmp_path / "a.safetensors")
    save_file(STATE, tmp_path / "b.safetensors")
    (tmp_path / "i.json").write_text('{"weight_map": {"weight": "a.safetensors", "bias": "b.safetensors"}}')
    with pytest.raises(CheckpointError, match=r"two of its shards hold (bias|weight)"):
        read(tmp_path / "i.json")


def test_a_folder_of_hugging_face(tmp_path: Path) -> None:
    """Its trainer saves other things beside the weights, and older weights have another name."""
    for name in ("config.json", "optimizer.pt", "rng_state.pth", "training_args.bin"):
        (tmp_path / name).write_text("{}")
    with pytest.raises(CheckpointError, match="0 checkpoints; name one: none"):
        read(tmp_path)
    torch.save(STATE, tmp_path / "checkpoint.pth")
    assert loaded(tmp_path)
    torch.save({}, tmp_path / "other.pth")
    with pytest.raises(CheckpointError, match=r"2 checkpoints; name one: checkpoint\.pth, other\.pth"):
        read(tmp_path)
    torch.save({}, tmp_path / "pytorch_model.bin")
    save_file(STATE, tmp_path / "model.safetensors")
    assert loaded(str(tmp_path))


@pytest.mark.parametrize(
    ("file", "says"),
    [
        (".metadata", "a distributed checkpoint; use .*dcp_to_torch_save"),
        ("zero_to_fp32.py", "a DeepSpeed checkpoint; convert it: python zero_to_fp32.py"),
        ("saved_model.pb", "a TensorFlow model"),
        ("data.pkl", "an unpacked file of torch.save"),
    ],
)
def test_folders_of_other_kinds(file: str, says: str, tmp_path: Path) -> None:
    (tmp_path / file).write_text("")
    with pytest.raises(CheckpointError, match=says):
        read(tmp_path)


# Secrets

SECRET = "hunter2"
URLS = [
    "https://user:{}@host.example/a.pth",
    "https://{}@host.example/a.pth",
    "https://host.example/a.pth?token={}",
    "https://host.example/a.pth?X-Amz-Signature={}&X-Amz-Credential=x",
    "https://host.example/a.pth#{}",
    "https://host.example/a.pth;sid={}",
    "HTTPS://user:{}@host.example/a.pth",
    " https://user:{}@host.example/a.pth",
    "https://user:a/{}@host.example/a.pth",
    "https://user:a#{}@host.example/a.pth",
    "https://user:12#{}@host.example/a.pth",
    "https://user:a?{}@host.example/a.pth",
    "https://user:a@{}@host.example/a.pth",
    "https://user:{} b@host.example/a.pth",
    "https://user:{}\n@host.example/a.pth",
    "https://user:{}@host.example:99999/a.pth",
    "https://user:{}@[::1/a.pth",
    "https:///user:{}@host.example/a.pth",
    "https:/user:{}@host.example/a.pth",
    "ftp://user:{}@host.example/a.pth",
    "s3://key:{}@bucket/a.pth",
    "user:{}@host.example/a.pth",
    "weights.pth?token={}",
    "hf-hub:org/repo/hf_{}hunter2",
    "hf-hub:org/repo?token={}",
]


@pytest.mark.parametrize("url", URLS)
def test_no_message_holds_a_secret(url: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Neither where the source is named, nor where a library's error text repeats it."""

    def refuse(request: Any, **_: Any) -> Any:
        raise ValueError(f"unknown url: {request.full_url} {request.header_items()}")

    def offline(*_: Any, **__: Any) -> Any:
        raise RuntimeError(f"Cannot reach {url.format(SECRET)} https://u:{SECRET}@x/?token={SECRET}")

    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    monkeypatch.setattr(fetch, "urlopen", refuse)
    monkeypatch.setattr(fetch, "hf_hub_download", offline)
    monkeypatch.setattr(fetch, "list_repo_files", offline)
    with pytest.raises(CheckpointError) as caught:
        load_published(nn.Linear(3, 2), url.format(SECRET))
    assert SECRET not in str(caught.value)
    assert str(caught.value).isprintable()
    assert caught.value.__cause__ is None
    assert not any(SECRET in path.name for path in tmp_path.rglob("*"))


def test_sources_stay_recognisable() -> None:
    for given, wanted in (
        ("https://user:pw@host.example:8080/a/b.pth?token=x#y", "https://host.example:8080/a/b.pth"),
        ("https://cdn.example/npm/pkg@1.0/b.pth", "https://cdn.example/npm/pkg@1.0/b.pth"),
        ("http://[::1]:80/b.pth", "http://[::1]:80/b.pth"),
        ("hf-hub:hustvl/ViG/bare.pth@v1", "hf-hub:hustvl/ViG/bare.pth@v1"),
        ("runs/a=b/key.pth", "runs/a=b/key.pth"),
        ("C:/weights/a.pth", "C:/weights/a.pth"),
    ):
        assert shown(given) == wanted
    assert line("ab" * 300, 21) == "ababababab…ababababab"
    assert line("a\nb\x1b\ud800c", 21) == "a b  c"


class Server(http.server.BaseHTTPRequestHandler):
    """Serves the weights to who knows the password, and other things."""

    asked: list[tuple[str, str | None]] = []  # noqa: RUF012

    def do_GET(self) -> None:
        allowed = self.headers.get("Authorization")
        self.asked.append((self.path, allowed))
        if self.path.startswith("/private") and allowed != f"Basic {b64encode(b'me:p@ss').decode()}":
            self.send_error(401)
        elif self.path.startswith("/moved"):
            self.send_response(302)
            self.send_header("Location", f"http://localhost:{self.server.server_port}/weights.pth")  # type: ignore[attr-defined]
            self.end_headers()
        else:
            body = b"<html>Sign in</html>" if self.path == "/page" else saved()
            self.send_response(200)
            self.send_header("Content-Length", str(len(body) + (5 if self.path == "/cut" else 0)))
            self.end_headers()
            self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        pass


@pytest.fixture
def port(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[int]:
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path))
    Server.asked.clear()
    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Server) as host:
        threading.Thread(target=host.serve_forever, daemon=True).start()
        yield host.server_port
        host.shutdown()


def test_downloads(port: int, tmp_path: Path) -> None:
    assert loaded(f"http://me:p%40ss@127.0.0.1:{port}/private/weights.pth?token=1#here")
    assert loaded(f"http://127.0.0.1:{port}/with space/é.pth")
    assert [path for path, _ in Server.asked] == ["/private/weights.pth?token=1", "/with%20space/%C3%A9.pth"]
    kept = {path.name for path in tmp_path.rglob("*") if path.is_file()}
    for path, says in (
        ("private/weights.pth", r"cannot download it: HTTP Error 401: Unauthorized"),
        ("cut", r"cannot download it: it ended early"),
        ("page", "it is an HTML page"),
    ):
        with pytest.raises(CheckpointError, match=says):
            read(f"http://me:wrong@127.0.0.1:{port}/{path}")
    with pytest.raises(CheckpointError, match=r"http://127.0.0.1:1/a.pth: cannot download it: Connection refused"):
        read("http://127.0.0.1:1/a.pth?token=1")
    assert {path.name for path in tmp_path.rglob("*") if path.is_file()} == kept


def test_a_password_does_not_follow_to_another_host(port: int) -> None:
    assert loaded(f"http://me:p%40ss@127.0.0.1:{port}/moved")
    assert [allowed is not None for _, allowed in Server.asked] == [True, False]


def test_a_hub_repository_in_shards(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    index = shards(tmp_path / "hub", "safetensors")
    asked: list[str] = []

    def download(repo: str, file: str, revision: str | None = None) -> str:
        asked.append(file)
        return str(index.parent / file)

    names = ["README.md", *sorted(path.name for path in index.parent.iterdir())]
    monkeypatch.setattr(fetch, "hf_hub_download", download)
    monkeypatch.setattr(fetch, "list_repo_files", lambda repo, revision: names)
    assert loaded("hf-hub:org/model")
    assert sorted(asked) == sorted(names[1:])
