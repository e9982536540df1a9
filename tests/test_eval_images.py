"""One image as pixels: what docs/accuracy.md promises for each kind of file. The files are made here, by Pillow."""

from __future__ import annotations

import json
import tarfile
import warnings
from collections.abc import Callable
from io import BytesIO
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from vbench.accuracy.images import ReadError, open_data, pixels
from vbench.accuracy.loading import Batches
from vbench.errors import UsageError

PICTURE = np.random.default_rng(0).integers(0, 256, (24, 32, 3), dtype=np.uint8)
GRAY = np.arange(24 * 32, dtype=np.uint16).reshape(24, 32) * 80


def as_file(image: Image.Image, kind: str = "PNG", **options: object) -> BytesIO:
    file = BytesIO()
    image.save(file, kind, **options)
    file.seek(0)
    return file


def test_gray_of_16_bits_is_taken_by_its_high_byte() -> None:
    file = as_file(Image.fromarray(GRAY))
    image, odd = pixels(file)
    assert odd == "16-bit"
    assert np.array_equal(np.asarray(image)[..., 0], GRAY >> 8)
    with Image.open(file) as alone:  # what Pillow, and with it timm, makes of it
        assert (np.asarray(alone.convert("RGB")) == 255).mean() > 0.9


@pytest.mark.parametrize(
    ("mode", "kind"),
    [("CMYK", "JPEG"), ("P", "PNG"), ("RGBA", "PNG"), ("LA", "PNG"), ("1", "PNG"), ("L", "PNG")],
)
def test_other_modes_become_rgb_as_pillow_and_timm_make_them(mode: str, kind: str) -> None:
    source = Image.fromarray(PICTURE)
    made = source.convert("L").convert(mode) if mode in ("LA", "1") else source.convert(mode)
    file = as_file(made, kind)
    image, odd = pixels(file)
    assert image.mode == "RGB"
    assert odd == ("" if mode == "L" else mode)
    with Image.open(file) as alone:
        assert np.array_equal(np.asarray(image), np.asarray(alone.convert("RGB")))


def test_a_palette_with_transparency_is_read_without_a_word() -> None:
    made = Image.fromarray(PICTURE).convert("P")
    file = as_file(made, transparency=bytes(range(256)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        image, odd = pixels(file)
    assert odd == "P"
    assert np.array_equal(np.asarray(image), np.asarray(made.convert("RGB")))


def test_the_orientation_that_exif_tells_is_not_applied() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6  # to be turned by 90 degrees
    image, odd = pixels(as_file(Image.fromarray(PICTURE), exif=exif))
    assert (image.size, odd) == ((32, 24), "EXIF orientation")
    assert np.array_equal(np.asarray(image), PICTURE)


def half(data: bytes) -> bytes:
    return data[: len(data) // 2]


def bomb(data: bytes) -> bytes:
    """A PNG whose header says that it has 60,000 × 60,000 pixels."""
    return data[:16] + (60_000).to_bytes(4, "big") * 2 + data[24:]


BROKEN: dict[str, tuple[Callable[[bytes], bytes], str]] = {
    "truncated": (half, "(?i)truncated"),
    "corrupt": (lambda data: b"no image at all", "cannot identify"),
    "empty": (lambda data: b"", "cannot identify"),
    "bomb": (bomb, "DecompressionBomb|cannot identify|broken"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_what_cannot_be_read_says_why(name: str) -> None:
    breaks, words = BROKEN[name]
    with pytest.raises(ReadError, match=words):
        pixels(BytesIO(breaks(as_file(Image.fromarray(PICTURE), "PNG" if name == "bomb" else "JPEG").getvalue())))


def test_pixels_without_a_known_scale_are_refused() -> None:
    for values in (np.ones((8, 8), np.float32), np.full((8, 8), 2**20, np.int32), np.full((8, 8), -1, np.int32)):
        with pytest.raises(ReadError, match="no known scale"):
            pixels(as_file(Image.fromarray(values), "TIFF"))


def folder_of(root: Path, count: int) -> Path:
    for place in range(count):
        file = root / ("cat", "dog")[place % 2] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(np.full((8, 8, 3), place, np.uint8)).save(file)
    return root


def batches_of(root: Path, workers: int, batch: int = 4) -> Batches:
    data = open_data(str(root), "validation")
    count = len(data.listing().images)
    return Batches(
        data, range(count), lambda image: torch.tensor(np.asarray(image)).permute(2, 0, 1), (8, 8), batch, workers
    )


@pytest.mark.parametrize("workers", [1, 3])
def test_images_come_in_order_and_what_cannot_be_read_is_black_and_named(tmp_path: Path, workers: int) -> None:
    root = folder_of(tmp_path / "data", 11)
    (root / "cat" / "4.png").write_bytes(b"no image")
    batches = batches_of(root, workers)
    (root / "dog" / "3.png").unlink()  # after it was listed
    names = open_data(str(tmp_path / "data"), "validation").listing().images
    images, places = (torch.cat(parts) for parts in zip(*batches, strict=True))
    assert [len(part) for _, part in batches_of(root, workers)] == [4, 4, 2]
    assert places.tolist() == list(range(11))
    assert len(names) == 10
    unread = batches.seen.unread
    assert [int(image[0, 0, 0]) for image in images] == [0, 2, 0, 6, 8, 10, 1, 0, 5, 7, 9]
    assert sorted(unread) == [2, 7]
    assert "cannot identify" in unread[2]
    assert "No such file" in unread[7]


def test_an_image_that_is_in_no_class_is_told(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data", 2)
    Image.fromarray(PICTURE).save(root / "alone.png")
    with pytest.raises(UsageError, match=r"alone\.png in data lie in no folder of a class"):
        open_data(str(root), "validation")


def test_data_that_is_not_there_or_has_no_image_is_told(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no"):
        open_data(str(tmp_path / "nowhere"), "validation")
    with pytest.raises(UsageError, match="cannot be listed: Found 0 images"):
        open_data(str(tmp_path), "validation")
    (tmp_path / "bad.tar").write_bytes(b"no tar")
    with pytest.raises(UsageError, match=r"bad\.tar cannot be listed"):
        open_data(str(tmp_path / "bad.tar"), "validation")
    with pytest.raises(UsageError, match="is no folder"):
        open_data(f"wds:{tmp_path / 'bad.tar'}", "validation")


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # timm leaves the file open
def test_a_tar_of_folders_is_read_by_several_threads(tmp_path: Path) -> None:
    root = folder_of(tmp_path / "data", 11)
    with tarfile.open(tmp_path / "data.tar", "w") as tar:
        tar.add(root, "data")
    batches = batches_of(tmp_path / "data.tar", workers=3)
    images = torch.cat([part for part, _ in batches])
    assert sorted(int(image[0, 0, 0]) for image in images) == list(range(11))
    assert batches.seen.unread == {}


def web_tar(file: Path, samples: dict[str, tuple[bytes, str]]) -> None:
    with tarfile.open(file, "w") as tar:
        for key, (data, label) in samples.items():
            for name, content in ((f"{key}.jpg", data), (f"{key}.cls", label.encode())):
                about = tarfile.TarInfo(name)
                about.size = len(content)
                tar.addfile(about, BytesIO(content))


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # webdataset leaves files open
def test_a_webdataset_is_read_by_tar_and_what_timm_skips_is_named(tmp_path: Path) -> None:
    def picture(value: int) -> bytes:
        return as_file(Image.fromarray(np.full((8, 8, 3), value, np.uint8)), "JPEG").getvalue()

    web_tar(tmp_path / "a-0.tar", {"x0": (picture(10), "3"), "x1": (b"no image", "4"), "x2": (picture(30), "5")})
    web_tar(tmp_path / "a-1.tar", {"y0": (picture(40), "6")})
    data = open_data(f"wds:{tmp_path}", "validation")
    listing = data.listing()
    assert listing.images == ["a-0.tar/x0", "a-0.tar/x1", "a-0.tar/x2", "a-1.tar/y0"]
    assert listing.classes == ["3", "4", "5", "6"]
    assert listing.bounds == ((0, 3), (3, 4))
    batches = Batches(data, range(4), lambda image: torch.tensor(np.asarray(image)).permute(2, 0, 1), (8, 8), 3, 2)
    images, places = (torch.cat(parts) for parts in zip(*batches, strict=True))
    seen = {int(place): int(image[0, 0, 0]) for place, image in zip(places, images, strict=True)}
    assert seen == {0: 10, 1: 0, 2: 30, 3: 40}
    assert batches.seen.unread == {1: "it cannot be decoded"}

    info = {"splits": {"validation": {"filenames": ["a-1.tar"]}}}
    (tmp_path / "_info.json").write_text(json.dumps(info))
    assert open_data(f"wds:{tmp_path}", "validation").listing().images == ["a-1.tar/y0"]
    with pytest.raises(UsageError, match="names no files of the split test"):
        open_data(f"wds:{tmp_path}", "test")
    (tmp_path / "_info.json").unlink()
    web_tar(tmp_path / "a-1.tar", {"y0": (picture(40), "cat")})
    with pytest.raises(UsageError, match="y0 has no class"):
        open_data(f"wds:{tmp_path}", "validation").listing()
    (tmp_path / "a-1.tar").write_bytes((tmp_path / "a-0.tar").read_bytes()[:700])
    with pytest.raises(UsageError, match=r"a-1\.tar cannot be read"):
        open_data(f"wds:{tmp_path}", "validation").listing()


@pytest.mark.full  # the package takes seconds to import
@pytest.mark.filterwarnings("ignore")
def test_a_data_set_of_the_hubs_package_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HF_DATASETS_CACHE", str(tmp_path / "cache"))
    folder_of(tmp_path / "data" / "validation", 5)
    data = open_data(f"hfds:{tmp_path / 'data'}", "validation")
    listing = data.listing()
    assert sorted(listing.classes) == ["cat", "cat", "cat", "dog", "dog"]
    assert len(set(listing.images)) == 5
    batches = Batches(data, range(5), lambda image: torch.tensor(np.asarray(image)).permute(2, 0, 1), (8, 8), 3, 2)
    images, places = (torch.cat(parts) for parts in zip(*batches, strict=True))
    values = {int(image[0, 0, 0]): listing.classes[int(place)] for image, place in zip(images, places, strict=True)}
    assert values == {0: "cat", 1: "dog", 2: "cat", 3: "dog", 4: "cat"}
    with pytest.raises(UsageError, match="split test, cannot be opened"):
        open_data(f"hfds:{tmp_path / 'data'}", "test")
