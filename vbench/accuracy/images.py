"""Images of a data set, through timm's readers: their names and classes, and one image as pixels.

What is unusual in a file is settled in `pixels`, in one place: docs/accuracy.md says what is promised.
"""

from __future__ import annotations

import tarfile
import threading
import warnings
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from typing import Any, Protocol

import numpy as np
from PIL import ExifTags, Image, ImageFile

from vbench.accuracy import labels
from vbench.errors import UsageError, first_line
from vbench.models.checkpoint.words import listed

HFDS, WDS = "hfds:", "wds:"


@dataclass(frozen=True, slots=True)
class Listing:
    """The images of a data set, in its order: the name of each, and the name of its class."""

    images: list[str]
    classes: list[str]
    bounds: tuple[tuple[int, int], ...] = ()  # (begin, end) of parts that are read as one; () if any image can be


class Data(Protocol):
    """A data set."""

    def listing(self) -> Listing:
        """Its images. Raises: UsageError if it cannot be listed."""

    def read(self, places: Sequence[int]) -> Iterator[tuple[int, BytesIO | Image.Image | str]]:
        """Images by their places in the listing: bytes, or a decoded image, or why there is none."""


class ReadError(Exception):
    """An image that cannot be read; the message says why."""


def pixels(source: Any) -> tuple[Image.Image, str]:
    """A file, its bytes or an opened image -> an RGB image, and what is unusual in it in a word or two; "" for nothing.

    As timm: CMYK, palettes and gray become RGB by Pillow's formulas, transparency is dropped, and the orientation that
    EXIF tells is not applied. Not as timm: of 16-bit gray the high byte is taken, where Pillow makes all of it white.

    Raises: ReadError if it cannot be read.
    """
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            image = source if isinstance(source, Image.Image) else Image.open(source)
            odd = image.mode if image.mode not in ("RGB", "L") else ""
            if image.mode in ("F", "I") and not _fits_16_bits(image):
                raise ReadError(f"its pixels ({image.mode}) have no known scale")
            if image.mode.startswith("I"):
                image, odd = Image.fromarray((np.asarray(image).astype(np.int64) >> 8).astype(np.uint8)), "16-bit"
            turned = image.getexif().get(ExifTags.Base.Orientation, 1) not in (0, 1)
            return image.convert("RGB"), "EXIF orientation" if turned else odd
    except ReadError:
        raise
    except Exception as error:  # a damaged file fails in whatever way its bytes say
        raise ReadError(first_line(error, named=not isinstance(error, OSError))) from None


def _fits_16_bits(image: Image.Image) -> bool:
    low, high = image.getextrema()
    return image.mode == "I" and float(low) >= 0 and float(high) < 2**16  # type: ignore[arg-type]  # of one band


def open_data(name: str, split: str) -> Data:
    """The data set that `--data` names. Raises: UsageError if there is none, or a package that reads it is missing."""
    ImageFile.LOAD_TRUNCATED_IMAGES = False  # a package may have set it; half an image would pass for one
    if name.startswith(WDS):
        from vbench.accuracy.tars import Tars

        return Tars(Path(name.removeprefix(WDS)), split)
    if name.startswith(HFDS):
        return _of_hub(name.removeprefix(HFDS), split)
    check(name)
    return _of_files(Path(name), split)


def check(name: str) -> None:
    """Raises: UsageError if `--data` names a file or folder that is not there."""
    if not name.startswith((HFDS, WDS)) and not Path(name).exists():
        raise UsageError(f"--data: there is no {name}; give a folder, a .tar file, {HFDS}NAME or {WDS}FOLDER")


class _Indexed:
    """A data set of which any image can be read by its number, by a reader of timm.

    Args:
        shared: whether the reader has one open file for all threads.
    """

    def __init__(self, reader: Any, listing: Listing, *, shared: bool) -> None:
        self._reader, self._listing = reader, listing
        self._lock = threading.Lock() if shared else None

    def listing(self) -> Listing:
        return self._listing

    def read(self, places: Sequence[int]) -> Iterator[tuple[int, BytesIO | Image.Image | str]]:
        for place in places:
            yield place, self._one(place)

    def _one(self, place: int) -> BytesIO | str:
        try:
            if self._lock is None:
                return self._bytes(place)
            with self._lock:
                return self._bytes(place)
        except Exception as error:  # the file may be gone, the disk may fail, an entry may hold no image
            return first_line(error, named=not isinstance(error, OSError))

    def _bytes(self, place: int) -> BytesIO:
        with self._reader[place][0] as file:
            return BytesIO(file.read())


def _of_files(root: Path, split: str) -> Data:
    """A folder with a folder for each class, or a .tar of one."""
    from timm.data import create_dataset

    try:
        reader = create_dataset("", root=str(root), split=split).reader
    except (RuntimeError, ValueError, OSError, AssertionError, tarfile.TarError) as error:
        raise UsageError(f"--data: {root} cannot be listed: {first_line(error)}") from None
    known = getattr(reader, "class_to_idx", None) or reader.class_name_to_idx  # of a folder, of a .tar
    names = {place: name for name, place in known.items()}
    found = [names[int(sample[1])] for sample in _samples(reader)]
    if "" in names.values():
        lost = [image for image, name in zip(reader.filenames(), found, strict=True) if not name]
        raise UsageError(f"--data: {listed(lost)} in {root.name} lie in no folder of a class; give each class a folder")
    if not found:
        raise UsageError(f"--data: {root} has no image (.png, .jpg, .jpeg)")
    return _Indexed(reader, Listing(reader.filenames(), found), shared=root.is_file())


def _samples(reader: Any) -> list[tuple[Any, int]]:
    """(image, class) of all images, without opening one; timm's reader of a .tar has the classes apart."""
    targets = getattr(reader, "targets", None)
    return list(reader.samples) if targets is None else list(zip(reader.samples, targets, strict=True))


def _of_hub(name: str, split: str) -> Data:
    """A data set of the Hugging Face hub, or a folder that its package `datasets` reads."""
    try:
        import datasets  # noqa: F401 - timm's reader prints and fails without it
    except ImportError:
        raise UsageError("--data hfds: needs the package datasets; pip install 'vbench-backbones[eval]'") from None
    from timm.data import create_dataset

    try:
        reader = create_dataset(f"hfds/{name}", split=split).reader
    except Exception as error:  # of the hub, of its HTTP library, of a file
        raise UsageError(
            f"--data: {HFDS}{name}, split {split}, cannot be opened: {first_line(error, named=True)}; "
            f"without a network, download it and give its folder, {HFDS}FOLDER"
        ) from None
    numbers = [int(number) for number in reader.dataset[reader.label_key]]
    own = {int(place): str(word) for word, place in (reader.class_to_idx or {}).items()}
    words = labels.as_synsets([own[place] for place in sorted(own)]) if own else None
    found = [words[n] if words else own.get(n, str(n)) for n in numbers]
    column = reader.dataset.select_columns([reader.image_key])
    images = [str((row[reader.image_key] or {}).get("path") or "") for row in column]
    if len(set(images)) < len(images):
        images = [f"{split}/{place:08d}" for place in range(len(images))]
    return _Indexed(reader, Listing(images, found), shared=True)
