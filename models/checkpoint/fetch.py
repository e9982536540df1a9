"""Where a checkpoint comes from: a path, an http(s) URL or an id of the Hugging Face hub -> a file on this machine."""

from __future__ import annotations

import base64
import hashlib
import os
import re
import shutil
from collections.abc import Collection
from http import HTTPStatus
from http.client import HTTPException, IncompleteRead
from pathlib import Path
from urllib.error import HTTPError, URLError
from urllib.parse import SplitResult, quote, unquote, urlsplit, urlunsplit
from urllib.request import Request, urlopen

import torch
from huggingface_hub import hf_hub_download, list_repo_files

from vbench.errors import CheckpointError, first_line
from vbench.models.checkpoint.words import ELSEWHERE, line, listed, without_secrets

HUB = "hf-hub:"  # as timm writes it
SUFFIXES = (".safetensors", ".pth", ".pt", ".th", ".bin", ".ckpt", ".tar")
INDEX = ".index.json"  # after a model's name: which shard of a large model holds which tensor
STALLED_S = 60  # a server that sends nothing for so long is given up

_WHOLE = ("model.safetensors", "pytorch_model.bin")  # as Hugging Face names a model's weights
_BESIDE = re.compile(r"(optimizer|scheduler|scaler|rng_state.*|training_args)\.\w+")  # what its trainer saves beside
_KEPT = "/%~:@!$&'()*+,;=?"  # characters of a URL that stay as they are


def is_url(source: str | Path) -> bool:
    """Whether a source is a URL, of whatever scheme."""
    return isinstance(source, str) and "://" in source and ELSEWHERE.match(source) is not None


def local(source: str | Path) -> Path:
    """The file or folder that a source names; it is downloaded if need be. Raises: CheckpointError."""
    if str(source).startswith(HUB):
        return _from_hub(str(source))
    if is_url(source):
        return _from_url(str(source).strip())
    try:
        if str(source) and Path(source).exists():
            return Path(source)
    except OSError as error:
        raise CheckpointError(f"cannot look for it: {error.strerror}") from None
    raise CheckpointError(f"there is no such file; give a path, an http(s) URL or {HUB}ORG/REPO/FILE")


def pick(names: Collection[str]) -> str:
    """The checkpoint among the files of a folder: the one that Hugging Face's names point to, or the only one.

    Raises: CheckpointError if there is none, or more than one.
    """
    if named := [name for whole in _WHOLE for name in (whole, whole + INDEX) if name in names]:
        return named[0]
    found = [n for n in names if n.lower().endswith(SUFFIXES) and not _BESIDE.fullmatch(n.rpartition("/")[2])]
    if len(found) != 1:
        raise CheckpointError(f"{len(found)} checkpoints; name one: {listed(found) or 'none'}")
    return found[0]


def _from_hub(source: str) -> Path:
    where, _, revision = source.removeprefix(HUB).partition("@")
    parts = where.split("/", 2)
    if len(parts) < 2:
        raise CheckpointError(f"write {HUB}ORG/REPO or {HUB}ORG/REPO/FILE")
    repo, file = "/".join(parts[:2]), parts[2] if len(parts) == 3 else None
    try:
        names = list_repo_files(repo, revision=revision or None) if file is None or file.endswith(INDEX) else []
        file = file or pick(names)
        for shard in _shards(file, names):  # beside their index, where they are looked for
            hf_hub_download(repo, shard, revision=revision or None)
        return Path(hf_hub_download(repo, file, revision=revision or None))
    except CheckpointError:
        raise
    except Exception as error:  # the hub's client lets errors of its HTTP library through
        raise CheckpointError(f"cannot download it: {without_secrets(first_line(error))}") from None


def _shards(file: str, names: Collection[str]) -> list[str]:
    """The shards of an index: of "model.safetensors.index.json" all "model-00001-of-00002.safetensors"."""
    if not file.endswith(INDEX):
        return []
    stem, _, suffix = file.removesuffix(INDEX).rpartition(".")
    return [name for name in names if re.fullmatch(rf"{re.escape(stem)}-\d+-of-\d+\.{re.escape(suffix)}", name)]


def _from_url(url: str) -> Path:
    parts = _checked(url)
    name = re.sub(r"[^\w.-]", "_", parts.path.partition(";")[0].rpartition("/")[2])[-80:]
    path = Path(torch.hub.get_dir()) / "checkpoints" / f"{hashlib.sha256(url.encode()).hexdigest()[:12]}-{name}"
    try:
        if not path.exists():
            path.parent.mkdir(parents=True, exist_ok=True)
            _download(parts, path)
    except CheckpointError:
        raise
    except (URLError, HTTPException, OSError, ValueError) as error:
        raise CheckpointError(f"cannot download it: {_reason(error)}") from None
    return path


def _checked(url: str) -> SplitResult:
    """The parts of an http(s) URL. Raises: CheckpointError if it is none; the message does not hold its text."""
    try:
        url.encode()
        parts = urlsplit(url)
        sound = re.fullmatch(r"[\w.:-]+", parts.hostname or "", re.ASCII) and parts.port != 0
    except ValueError:
        sound = None
    if not sound:
        raise CheckpointError("it is no URL; write http(s)://HOST/PATH, with %XX for what is special in a password")
    if parts.scheme not in {"http", "https"}:
        raise CheckpointError(f"{line(parts.scheme, 40)}:// is not read; download the file and give its path")
    return parts


def _download(parts: SplitResult, path: Path) -> None:
    """Download to `path`, which exists afterwards only if all of it came. User and password go to this host alone."""
    address = (parts.scheme, parts.netloc.rpartition("@")[2], quote(parts.path, _KEPT), quote(parts.query, _KEPT), "")
    request = Request(urlunsplit(address), headers={"User-Agent": "vbench"})
    if parts.username is not None:
        pair = f"{unquote(parts.username)}:{unquote(parts.password or '')}".encode()
        request.add_unredirected_header("Authorization", f"Basic {base64.b64encode(pair).decode()}")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        with urlopen(request, timeout=STALLED_S) as answer, partial.open("wb") as file:
            shutil.copyfileobj(answer, file)
            declared = answer.headers.get("Content-Length")
        came = partial.stat().st_size
        if declared is not None and int(declared) != came:
            raise CheckpointError(f"cannot download it: it ended early, after {came} of {declared} bytes")
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _reason(error: BaseException) -> str:
    """Why a download failed, in words that hold nothing of the URL."""
    if isinstance(error, HTTPError):
        known = error.code in {status.value for status in HTTPStatus}
        return f"HTTP Error {error.code}" + (f": {HTTPStatus(error.code).phrase}" if known else "")
    if isinstance(error, URLError) and isinstance(error.reason, BaseException):
        return _reason(error.reason)
    if isinstance(error, IncompleteRead):
        return "it ended early"
    if isinstance(error, TimeoutError):
        return f"nothing came for {STALLED_S} s"
    return getattr(error, "strerror", None) or type(error).__name__
