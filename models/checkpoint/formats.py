"""What a file is. Its bytes say it; its name does not."""

from __future__ import annotations

import json
import re
from pathlib import Path
from zipfile import ZIP_STORED, ZipFile, ZipInfo

from vbench.errors import CheckpointError
from vbench.models.checkpoint.fetch import SUFFIXES
from vbench.models.checkpoint.words import line

DAMAGED = "it is damaged, or no checkpoint"
HEAD = 512  # bytes that are looked at
LONGEST_INDEX = 1 << 26  # bytes of an index of shards

_MAGIC = b"\x8a\x0al\xfc\x9cF\xf9 j\xa8P\x19"  # the number with which torch.save began a file until torch 1.6
_UNPACK = "unpack it, and give the checkpoint that is in it"
_STARTS = (  # at a place in a file, these bytes: what it is
    (0, b"version https://git-lfs.github.com/", "a git-lfs pointer, not the file that it stands for: run git lfs pull"),
    (0, b"version https://hawser.github.com/", "a git-lfs pointer, not the file that it stands for: run git lfs pull"),
    (0, b"# xet version", "a git-xet pointer, not the file that it stands for: run git xet pull"),
    (0, b"/annex/objects/", "a git-annex pointer, not the file that it stands for: run git annex get"),
    (0, b"\x1f\x8b", f"a gzip archive: {_UNPACK}"),
    (0, b"\xfd7zXZ\x00", f"an xz archive: {_UNPACK}"),
    (0, b"BZh", f"a bzip2 archive: {_UNPACK}"),
    (0, b"\x28\xb5\x2f\xfd", f"a zstd archive: {_UNPACK}"),
    (0, b"7z\xbc\xaf\x27\x1c", f"a 7z archive: {_UNPACK}"),
    (0, b"Rar!", f"a rar archive: {_UNPACK}"),
    (257, b"ustar", f"a tar archive: {_UNPACK}"),
    (0, b"\x93NUMPY", "an array of NumPy, not a state dict of torch"),
    (0, b"\x89HDF\r\n", "an HDF5 file, as Keras writes it, not a state dict of torch"),
    (0, b"GGUF", "a GGUF file, not a state dict of torch"),
    (4, b"TFL3", "a TensorFlow Lite model, not a state dict of torch"),
    (4, b"ET12", "an ExecuTorch program, not a state dict"),
    (0, b"\x7fELF", "a program"),
    (0, b"%PDF", "a PDF document"),
    (0, b"\x89PNG", "a picture"),
    (0, b"\xff\xd8\xff", "a picture"),
)
_CONTROL = re.compile(rb"[^\t\r\n\f -~]")
_PAGES = (b"<!doctype html", b"<html", b"<head", b"<body", b"<script", b"<!--")


def recognise(path: Path) -> str:
    """ "safetensors"; "zip" or "legacy", which torch.save wrote; "index", of shards.

    Raises: CheckpointError, which says what else it is.
    """
    with path.open("rb") as file:
        head = file.read(HEAD)
    size = path.stat().st_size
    if size == 0:
        raise CheckpointError(f"{DAMAGED}: it is empty")
    if head.startswith(b"PK\x03\x04"):
        return _of_zip(path, size)
    if head[8:9] == b"{" and int.from_bytes(head[:8], "little") + 8 <= size:
        return "safetensors"
    if _MAGIC in head[:32]:
        return "legacy"
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip()
    if text[:1] in {b"{", b"["}:
        return _of_json(path, size)
    raise CheckpointError(_otherwise(head, text.lower(), path.suffix.lower()))


def _otherwise(head: bytes, text: bytes, suffix: str) -> str:
    """What a file is that is no checkpoint, by its first bytes; `text`: the same without a mark and blanks before."""
    first, second = (*head, 0)[:2]
    cases = (
        *((head[place:].startswith(start), f"it is {words}") for place, start, words in _STARTS),
        (
            text.startswith(_PAGES),
            "it is an HTML page, not a checkpoint: an error or login page came in its place",
        ),
        (text.startswith(b"<"), "it is an XML text, not a checkpoint: an error message came in its place"),
        (
            first == 0x80 and 2 <= second <= 5,
            "it is a pickle that torch.save did not write; save it as .safetensors",
        ),
        (first == 0x08 and head[2:3] in {b"\x12", b"\x3a"}, "it is an ONNX model, not a state dict of torch"),
        (
            suffix != ".safetensors" and (0x81 <= first <= 0x8F or first in {0xDE, 0xDF}),
            "it is a msgpack file, as Flax writes it, not a state dict of torch",
        ),
        (head[8:9] == b"{", f"{DAMAGED}: it says that its header is longer than the file"),
        (not head.strip(b"\0"), f"{DAMAGED}: it starts with zeros, as an unfinished download does"),
        (head.isascii() and not _CONTROL.search(head), "it is a text, not a checkpoint"),
        (True, f"{DAMAGED}: neither torch.save nor safetensors begins a file in this way"),
    )
    return next(words for is_one, words in cases if is_one)


def _of_json(path: Path, size: int) -> str:
    if size <= LONGEST_INDEX:
        try:
            if isinstance(json.loads(path.read_bytes())["weight_map"], dict):
                return "index"
        except (ValueError, LookupError, TypeError, RecursionError):
            pass
    raise CheckpointError("it is a JSON text, but no index of shards, and no checkpoint")


def _of_zip(path: Path, size: int) -> str:
    """ "zip", if torch.save wrote it and no part of it takes more room than it has."""
    try:
        with ZipFile(path) as archive:
            parts = archive.infolist()
    except Exception as error:  # a damaged table fails in whatever way its bytes say
        raise CheckpointError(f"{DAMAGED}: a zip archive without a sound table of contents") from error
    names = [part.filename for part in parts]
    if any(name.rpartition("/")[2] == "constants.pkl" for name in names):
        raise CheckpointError(
            "it is a TorchScript archive, which is a program; save torch.jit.load(FILE).state_dict() with torch.save"
        )
    if any(name.rpartition("/")[2] == "archive_format" for name in names):
        raise CheckpointError(
            "it is a program of torch.export; save torch.export.load(FILE).state_dict with torch.save"
        )
    if not any(name.count("/") <= 1 and name.rpartition("/")[2] == "data.pkl" for name in names):
        raise CheckpointError(_other_zip(names))
    _check_room(parts, size)
    return "zip"


def _other_zip(names: list[str]) -> str:
    if names and all(name.endswith(".npy") for name in names):
        return "it holds arrays of NumPy (.npz), not a state dict of torch"
    inside = [name for name in names if name.lower().endswith(SUFFIXES)]
    return f"it is a zip archive: {_UNPACK}" + (f": {line(inside[0], 80)}" if inside else "")


def _check_room(parts: list[ZipInfo], size: int) -> None:
    """Raise CheckpointError for an archive that may fill the memory: torch.save compresses nothing."""
    if any(part.flag_bits & 1 for part in parts):
        raise CheckpointError("it is encrypted")
    declared = sum(part.file_size for part in parts)
    if declared > size or any(part.compress_type != ZIP_STORED for part in parts):
        raise CheckpointError(
            f"its parts take {declared} bytes in a file of {size}: compressed, as torch.save never does it; "
            "unpack it and pack it again with zip -0"
        )
    if len({part.filename for part in parts}) < len(parts):
        raise CheckpointError(f"{DAMAGED}: two parts of the archive have one name")
