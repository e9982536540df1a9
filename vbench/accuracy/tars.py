"""Tar files of a webdataset, each read from its begin to its end by timm's reader."""

from __future__ import annotations

import json
import tarfile
from collections.abc import Iterator, Sequence
from io import BytesIO
from pathlib import Path
from typing import IO, Any

from PIL import Image

from vbench.accuracy.images import Listing
from vbench.errors import UsageError, first_line

IMAGE_ENDINGS = ("jpg", "png", "webp")  # that timm's reader takes


class Tars:
    """A folder of .tar files whose samples have an image and a class: KEY.jpg (.png, .webp) and KEY.cls.

    The file _info.json, if there is one, says which files belong to a split. Without one all files do.
    """

    def __init__(self, root: Path, split: str) -> None:
        try:
            import webdataset  # noqa: F401
        except ImportError:
            raise UsageError("--data wds: needs the package webdataset; pip install 'vbench-backbones[eval]'") from None
        self._root = root
        self._files = _files(root, split)
        self._held: Listing | None = None

    def listing(self) -> Listing:
        if self._held is None:
            images: list[str] = []
            classes: list[str] = []
            bounds = []
            for name in self._files:
                begin = len(images)
                for key, number in self._keys(name):
                    images.append(f"{name}/{key}")
                    classes.append(number)
                bounds.append((begin, len(images)))
            if not images:
                raise UsageError(f"--data: the .tar files of {self._root} hold no image ({', '.join(IMAGE_ENDINGS)})")
            self._held = Listing(images, classes, tuple(bound for bound in bounds if bound[0] < bound[1]))
        return self._held

    def _keys(self, name: str) -> Iterator[tuple[str, str]]:
        """The key and the class of each sample of a file, without decoding it."""
        from webdataset.tariterators import base_plus_ext

        path = self._root / name
        endings: dict[str, set[str]] = {}
        numbers: dict[str, str] = {}
        try:
            with tarfile.open(path) as tar:
                for member in tar:
                    key, ending = base_plus_ext(member.name)
                    if key is None or not member.isreg():
                        continue
                    endings.setdefault(key, set()).add(ending.lower())
                    if ending.lower() == "cls":
                        numbers[key] = _text(tar.extractfile(member))
        except (OSError, tarfile.TarError, EOFError) as error:
            raise UsageError(f"--data: {path} cannot be read: {first_line(error)}") from None
        for key, own in endings.items():
            if not own.intersection(IMAGE_ENDINGS):
                continue
            if not numbers.get(key, "").isdecimal():
                raise UsageError(f"--data: {name}: {key} has no class: a file .cls with its number")
            yield key, str(int(numbers[key]))

    def read(self, places: Sequence[int]) -> Iterator[tuple[int, BytesIO | Image.Image | str]]:
        """As `Data.read`. Images come in the order of the files. What timm's reader skips cannot be decoded."""
        listing, wanted = self.listing(), set(places)
        for name, (begin, end) in self._bounds():
            if not wanted.intersection(range(begin, end)):
                continue
            waiting = {listing.images[place]: place for place in range(begin, end)}
            for sample in self._decoded(name):
                place = waiting.pop(f"{name}/{sample['__key__']}", -1)
                if place in wanted:
                    yield place, sample["image"]
            yield from ((place, "it cannot be decoded") for place in waiting.values() if place in wanted)

    def _bounds(self) -> Iterator[tuple[str, tuple[int, int]]]:
        for begin, end in self.listing().bounds:
            yield self.listing().images[begin].partition("/")[0], (begin, end)

    def _decoded(self, name: str) -> Iterator[dict[str, Any]]:
        """The samples of a file as timm's reader decodes them; it skips what it cannot decode."""
        from timm.data import create_dataset

        split = f"{name}|1"  # a number, so that it needs no _info.json
        reader: Any = create_dataset("wds/", root=str(self._root), split=split, input_img_mode="").reader
        reader._lazy_init()  # as its own `filenames` does: iterating over the reader would drop the keys
        yield from reader.ds


def _files(root: Path, split: str) -> list[str]:
    if not root.is_dir():
        raise UsageError(f"--data: {root} is no folder; wds: takes a folder of .tar files on this machine")
    info = next((root / name for name in ("_info.json", "info.json") if (root / name).is_file()), None)
    if info is None:
        names = sorted(file.name for file in root.glob("*.tar"))
    else:
        try:
            splits = json.loads(info.read_text(encoding="utf-8"))["splits"]
            names = [str(name) for name in splits[split]["filenames"]]
        except (OSError, ValueError, TypeError, KeyError) as error:
            raise UsageError(f"--data: {info} names no files of the split {split}: {first_line(error)}") from None
    if missing := [name for name in names if not (root / name).is_file()]:
        raise UsageError(f"--data: {len(missing)} files of {root} are missing, as {missing[0]}")
    if not names:
        raise UsageError(f"--data: {root} has no .tar file")
    return names


def _text(file: IO[bytes] | None) -> str:
    return "" if file is None else file.read(32).decode("ascii", "replace").strip()
