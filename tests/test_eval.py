"""`vbench eval` through the command line: against timm, against scikit-learn, interrupted, and on bad files."""

from __future__ import annotations

import json
import os
import random
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import replace
from pathlib import Path
from typing import Any

import digits
import numpy as np
import pandas as pd
import psutil
import pytest
import timm
import tiny_nets
import torch
from command import vbench
from huggingface_hub import constants
from PIL import Image
from sklearn.metrics import accuracy_score, top_k_accuracy_score
from timm.data import create_dataset, create_loader, resolve_data_config

from vbench.accuracy import job
from vbench.accuracy.labels import synsets
from vbench.accuracy.plan import Asked
from vbench.errors import CheckpointError, UnsupportedError
from vbench.results import accuracy
from vbench.results.accuracy import MeasuredAccuracy

ASKED = Asked(
    *("vig_t", 224, 224, "float32", "data", "validation", "imagenet", 1000, 0.875, "center", "bicubic"),
    *((0.5, 0.5, 0.5), (0.5, 0.5, 0.5), "random", None, 0),
)
LEFT_OPEN = "ignore::pytest.PytestUnraisableExceptionWarning"  # timm's data set leaves its files open
CROPS: tuple[dict[str, Any], ...] = (
    {},
    {"crop_pct": 0.8, "interpolation": "bilinear"},
    {"crop_pct": 1.0, "crop_mode": "squash", "interpolation": "nearest"},
)


COUNT = 60  # digits
STEPS = {"vir": 400, "deit": 400, "swin": 300}  # of training, of those that learn slowly


def noise_images(root: Path, count: int) -> Path:
    """Images of noise of many sizes, in folders of synsets."""
    draws = np.random.default_rng(0)
    for place in range(count):
        height, width = draws.integers(40, 80, 2)
        file = root / synsets()[int(draws.integers(1000))] / f"{place}.png"
        file.parent.mkdir(parents=True, exist_ok=True)
        Image.fromarray(draws.integers(0, 256, (height, width, 3), dtype=np.uint8)).save(file)
    return root


def evaluate(out: Path, *args: str, cwd: Path | None = None) -> tuple[int, str]:
    """The exit code of `vbench eval`, and what it said on stderr."""
    done = vbench("eval", *args, "--device", "cpu", "--threads", "1", "--workers", "1", "-o", str(out), cwd=cwd)
    return done.returncode, done.stderr


def measured(out: Path) -> dict[tuple[str, int], MeasuredAccuracy]:
    return {(row.model, row.height): row for row in accuracy.measured([out])}


def predicted(row: MeasuredAccuracy) -> pd.DataFrame:
    return pd.read_parquet(row.predictions)


def as_validate_does(name: str, size: int, root: Path, crop: dict[str, Any]) -> dict[str, list[int]]:
    """The five best classes of each image by timm's own path: its configuration, its data set, its loader."""
    torch.manual_seed(0)
    model = timm.create_model(name, img_size=size).eval()
    config = resolve_data_config({**crop, "input_size": (3, size, size)}, model=model)
    dataset = create_dataset("", root=str(root), split="validation")
    loader = create_loader(
        dataset,
        input_size=config["input_size"],
        batch_size=16,
        use_prefetcher=True,
        interpolation=config["interpolation"],
        mean=config["mean"],
        std=config["std"],
        num_workers=0,
        crop_pct=config["crop_pct"],
        crop_mode=config["crop_mode"],
        pin_memory=False,
        device=torch.device("cpu"),
    )
    with torch.inference_mode():
        best = [model(images).topk(5, 1, True, True).indices for images, _ in loader]
    return dict(zip(dataset.filenames(), torch.cat(best).tolist(), strict=True))


def check_against_timm(tmp_path: Path, count: int, sizes: tuple[int, ...]) -> None:
    root = noise_images(tmp_path / "data", count)
    seen = set()
    for number, crop in enumerate(CROPS):
        out = tmp_path / f"run{number}"
        options = [word for key, value in crop.items() for word in (f"--{key.replace('_', '-')}", str(value))]
        axes = ["--models", "timm/test_vit", "--res", ",".join(map(str, sizes)), "--data", str(root)]
        code, said = evaluate(out, *axes, "--checkpoint", "random", "--batch", "16", *options)
        assert code == 0, said
        for size in sizes:
            row = measured(out)["timm/test_vit", size]
            table = predicted(row)
            ours = {
                name: [int(x) for x in top] for name, *top in table.iloc[:, [0, 2, 3, 4, 5, 6]].itertuples(index=False)
            }
            assert ours == as_validate_does("test_vit", size, root, crop)
            assert row.images == len(table) == count
            assert list(table["label"]) == [synsets().index(name.partition("/")[0]) for name in table["image"]]
            seen.add(json.dumps(ours))
    assert len(seen) == len(CROPS) * len(sizes)  # the settings matter


@pytest.mark.filterwarnings(LEFT_OPEN)
def test_predictions_are_those_of_timms_own_path(tmp_path: Path) -> None:
    check_against_timm(tmp_path, 60, (32, 48))


@pytest.mark.full
@pytest.mark.filterwarnings(LEFT_OPEN)
def test_predictions_are_those_of_timms_own_path_on_500_images(tmp_path: Path) -> None:
    check_against_timm(tmp_path, 500, (64, 96))


def check_against_sklearn(out: Path, name: str, sizes: tuple[int, ...], count: int, least: float) -> None:
    """The accuracies of a run are those that scikit-learn computes of its predictions, and at least one is good."""
    found = measured(out)
    for size in sizes:
        row, table = found[name, size], predicted(found[name, size])
        scores = np.zeros((count, tiny_nets.CLASSES))
        for place in range(1, 6):
            scores[np.arange(count), table[f"top{place}"]] = 6 - place
        assert row.images == len(table) == count
        assert row.top1 == pytest.approx(100 * accuracy_score(table["label"], table["top1"]))
        top5 = top_k_accuracy_score(table["label"], scores, k=5, labels=range(tiny_nets.CLASSES))
        assert row.top5 == pytest.approx(100 * top5)
        assert [digits.NAMES[label] for label in table["label"]] == [name.partition("/")[0] for name in table["image"]]
        assert row.top1_lo < row.top1 <= row.top1_hi
    assert max(found[name, size].top1 for size in sizes) >= least


@pytest.fixture(scope="module")
def digit_images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """60 digits in `data`, and the names of their classes."""
    folder = tmp_path_factory.mktemp("digits")
    digits.write_images(folder / "data", COUNT)
    digits.write_classes(folder / "classes.txt")
    return folder


def of_digits(*models: str, res: str = "32,48,64") -> list[str]:
    weights = ",".join(f"{model}={model.partition(':')[2]}.pth" for model in models)
    asked = ["--models", ",".join(models), "--res", res, "--data", "data", "--labels", "classes.txt"]
    return [*asked, "--checkpoint", weights]


@pytest.fixture(scope="module")
def trained(digit_images: Path) -> Path:
    """The digits with the weights of a tiny model that was trained on others."""
    torch.manual_seed(0)
    torch.save(digits.train(tiny_nets.vrwkv(), steps=50).state_dict(), digit_images / "vrwkv.pth")
    return digit_images


@pytest.fixture(scope="module")
def whole(trained: Path) -> Path:
    """A run that nothing interrupted."""
    code, said = evaluate(trained / "whole", *of_digits("tiny_nets:vrwkv"), "--shard", "9", "--batch", "4", cwd=trained)
    assert code == 0, said
    return trained / "whole"


def test_a_trained_model_reaches_an_accuracy_that_sklearn_confirms_at_three_sizes(whole: Path) -> None:
    check_against_sklearn(whole, "tiny_nets:vrwkv", (32, 48, 64), COUNT, least=60)
    row = measured(whole)["tiny_nets:vrwkv", 32]
    assert (row.labels, row.checkpoint, row.crop_pct, row.dataset) == ("classes.txt", "vrwkv.pth", 0.875, "data")
    assert min(row.images_per_s or 0, row.loader_images_per_s or 0, row.model_images_per_s or 0) > 0
    assert row.bound in ("loader", "model")


def test_the_report_shows_accuracies_without_a_sweep(whole: Path) -> None:
    (whole / "accuracy.csv").unlink(missing_ok=True)
    done = vbench("report", str(whole))
    assert done.returncode == 0, done.stderr
    row = measured(whole)["tiny_nets:vrwkv", 48]
    assert f"{row.top1_lo:.2f} to {row.top1_hi:.2f}" in done.stdout
    table = pd.read_csv(whole / "accuracy.csv")
    assert list(table["height"]) == [32, 48, 64]
    assert table.loc[1, "top1"] == pytest.approx(row.top1)
    as_json = json.loads(vbench("report", str(whole), "--json").stdout)
    assert [one["top1"] for one in as_json] == pytest.approx(list(table["top1"]))


@contextmanager
def when(files: Path, count: int, then: Any) -> Iterator[None]:
    """Within, call `then` as soon as there are so many files of shards."""
    over = threading.Event()

    def watch() -> None:
        while not over.is_set():
            if sum(1 for _ in files.glob("accuracy/*/[0-9]*.parquet")) >= count:
                then()
                return
            time.sleep(0.002)

    watcher = threading.Thread(target=watch)
    watcher.start()
    try:
        yield
    finally:
        over.set()
        watcher.join()


def kill_children() -> None:
    """Kill whatever evaluates: the processes that the fork server of this one has started."""
    for server in psutil.Process().children():
        with suppress(psutil.NoSuchProcess):  # it may end by itself meanwhile
            for child in server.children():
                with suppress(psutil.NoSuchProcess):
                    child.kill()


def test_interrupted_and_killed_and_resumed_the_counts_are_the_same(trained: Path, whole: Path) -> None:
    out = trained / "resumed"
    args = [*of_digits("tiny_nets:vrwkv", res="32"), "--shard", "2", "--batch", "2"]
    with when(out, 2, lambda: os.kill(os.getpid(), signal.SIGINT)):
        code, said = evaluate(out, *args, cwd=trained)
    assert code == 130
    assert "interrupted" in said
    kept = accuracy.read(out)
    assert 2 <= len(kept) < kept[0].shards
    with when(out, len(kept) + 2, kill_children):
        code, said = evaluate(out, *args, cwd=trained)
    assert code == 0, said
    again = {(shard.eval_id, shard.shard): shard for shard in accuracy.read(out)}
    assert [again[shard.eval_id, shard.shard] for shard in kept] == kept  # none was done twice
    one, other = measured(whole), measured(out)
    assert {size for _, size in other} == {32}
    for key in other:
        row = one[key]
        assert (row.eval_id, row.top1, row.top5, row.images) == (
            *(other[key].eval_id, other[key].top1, other[key].top5),
            other[key].images,
        )
        pd.testing.assert_frame_equal(predicted(row), predicted(other[key]))
    assert not list((out / "accuracy").glob("*.shards"))


def test_bad_files_count_as_wrong_and_are_named_and_strict_stops_before_the_start(
    trained: Path, tmp_path: Path
) -> None:
    data = shutil.copytree(trained / "data", tmp_path / "data")
    files = sorted(data.rglob("*.png"))[:30]
    for file in sorted(data.rglob("*.png"))[30:]:
        file.unlink()
    files[3].write_bytes(b"no image at all")
    files[17].write_bytes(files[17].read_bytes()[:60])
    Image.fromarray(np.full((40, 40), 30_000, np.uint16)).save(files[20])
    for name in ("classes.txt", "vrwkv.pth"):
        shutil.copy(trained / name, tmp_path)
    args = of_digits("tiny_nets:vrwkv", res="32")
    code, said = evaluate(tmp_path / "strict", *args, "--strict", cwd=tmp_path)
    assert code == 2
    assert "--strict: 2 of 30 images cannot be read" in said
    assert files[3].name in said
    assert not (tmp_path / "strict").exists()

    code, said = evaluate(tmp_path / "run", *args, cwd=tmp_path)
    assert code == 0, said
    assert "classes have no image" in said
    (row,) = accuracy.measured([tmp_path / "run"])
    (shard,) = accuracy.read(tmp_path / "run")
    table = predicted(row).set_index("image")
    bad = [str(file.relative_to(data)) for file in (files[3], files[17])]
    assert (row.images, row.unread, shard.odd) == (30, 2, {"16-bit": 1})
    assert sorted(name for name, _ in shard.unread) == sorted(bad)
    assert (table.loc[bad, "top1"] == -1).all()
    assert not table.loc[bad, "correct5"].any()
    assert list(table.index[table["why"] != ""]) == sorted(bad, key=list(table.index).index)


def test_what_cannot_be_is_said_in_one_line_and_nothing_is_written(trained: Path) -> None:
    wrong = {
        "10 names (": ["--models", "tiny_nets:vrwkv", "--data", "data", "--checkpoint", "random"],
        "give --models and --data": ["--models", "vig_t"],
        "--data: there is no ": ["--models", "vig_t", "--data", "gone", "--res", "32"],  # before weights are fetched
        "'float16' is not one of": ["--models", "vig_t", "--data", "data", "--dtype", "float16"],
    }
    for words, args in wrong.items():
        code, said = evaluate(trained / "none", *args, cwd=trained)
        assert code == 2
        assert words in said
        assert len(said.strip().splitlines()) == 1
        assert not (trained / "none").exists()


@pytest.mark.parametrize(
    ("model", "source", "words"),
    [
        ("my:net", "auto", "nobody publishes weights of your own model"),
        ("vir_s", "auto", "authors of ViR published no weights; give --checkpoint vir_s=FILE"),
        ("vision_gru_b", "auto", "only the weights of vision_gru_t are published"),
        ("vig_t", "gone.pth", "vig_t: gone.pth: there is no such file"),
    ],
)
def test_weights_that_are_nowhere_are_told_before_the_start(model: str, source: str, words: str) -> None:
    with pytest.raises(CheckpointError, match=words):
        job._weights(model, source)


def test_outputs_that_are_not_those_of_the_labels_are_refused() -> None:
    asked = replace(ASKED, classes=11, labels="eleven.txt")
    with pytest.raises(UnsupportedError, match=r"vig_t has 10 outputs, and --labels eleven\.txt has 11 classes"):
        job._best(torch.zeros(2, 10), asked)
    with pytest.raises(UnsupportedError, match="returns no logits"):
        job._best(torch.zeros(2, 11, 3), asked)


def test_an_output_that_is_not_finite_predicts_nothing() -> None:
    logits = torch.arange(12.0).reshape(2, 6)
    logits[1, 0] = torch.nan
    best = job._best(logits, replace(ASKED, classes=6))
    assert best.tolist() == [[5, 4, 3, 2, 1], [job.NOT_FINITE] * 5]


def test_a_model_that_fails_leaves_a_row_and_the_others_go_on(trained: Path, tmp_path: Path) -> None:
    """The weights of one model are another's."""
    shutil.copy(trained / "vrwkv.pth", trained / "vir.pth")
    args = of_digits("tiny_nets:vir", "tiny_nets:vrwkv", res="32")
    code, said = evaluate(tmp_path, *args, "--limit", "20", cwd=trained)
    assert code == 1
    assert "tiny_nets:vir 32 float32: error at shard 0 of 1: tiny_nets:vir: vir.pth: these are not the weights" in said
    assert [(row.images, row.limit) for row in accuracy.measured([tmp_path])] == [(20, 20)]
    assert str(trained) not in (tmp_path / accuracy.FILE).read_text()


def test_without_a_network_the_id_and_the_place_for_the_file_are_told(monkeypatch: pytest.MonkeyPatch) -> None:
    """By the hub's own switch; a process would read it from HF_HUB_OFFLINE."""
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    for name, words in (("deit_t", "hf-hub:timm/deit_tiny_patch16_224.fb_in1k"), ("vig_t", "hf-hub:hustvl/ViG")):
        with pytest.raises(CheckpointError) as caught:
            job._weights(name, "auto")
        assert str(caught.value).startswith(f"{name}: {words}: cannot download it: ")
        assert str(caught.value).endswith(f"; download it elsewhere and give --checkpoint {name}=FILE")


@pytest.mark.full
@pytest.mark.parametrize("family", tiny_nets.FAMILIES)
def test_every_family_reaches_an_accuracy_that_sklearn_confirms(
    family: str, digit_images: Path, tmp_path: Path
) -> None:
    """Each is trained for a minute or so at 32 px and tested at 32, 48 and 64."""
    torch.manual_seed(0)
    torch.save(
        digits.train(getattr(tiny_nets, family)(), steps=STEPS.get(family, 200)).state_dict(),
        digit_images / f"{family}.pth",
    )
    code, said = evaluate(tmp_path, *of_digits(f"tiny_nets:{family}"), cwd=digit_images)
    assert code == 0, said
    check_against_sklearn(tmp_path, f"tiny_nets:{family}", (32, 48, 64), COUNT, least=75)


@pytest.mark.full
def test_killed_at_any_image_the_counts_are_the_same(trained: Path, whole: Path, tmp_path: Path) -> None:
    """The whole program is killed at 12 moments, and started again each time."""
    args = [*of_digits("tiny_nets:vrwkv"), "--shard", "9", "--batch", "4", "--device", "cpu", "--threads", "1"]
    command = [sys.executable, "-m", "vbench", "eval", *args, "--workers", "1", "-o", str(tmp_path)]
    draws, environment = random.Random(0), {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    for _ in range(12):
        program = subprocess.Popen(command, cwd=trained, env=environment, stderr=subprocess.DEVNULL)
        time.sleep(draws.uniform(4, 20))
        program.kill()
        program.wait()
    subprocess.run(command, cwd=trained, env=environment, check=True)
    one, other = measured(whole), measured(tmp_path)
    assert {key: row.top1 for key, row in one.items()} == {key: row.top1 for key, row in other.items()}
    for key, row in one.items():
        pd.testing.assert_frame_equal(predicted(row), predicted(other[key]))
