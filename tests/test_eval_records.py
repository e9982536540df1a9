"""Records of accuracy: read, checked, joined; what is asked for; samples; maps of labels."""

from __future__ import annotations

import json
import math
from collections import Counter
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from scipy.stats import norm

from vbench.accuracy import labels, plan
from vbench.accuracy.sample import stratified
from vbench.errors import CheckpointError, ResolutionError, SchemaError, UsageError
from vbench.models import MODELS, evaluation
from vbench.reports import accuracy as report
from vbench.results import accuracy
from vbench.results.accuracy import Shard

ASKED = plan.Asked(
    model="vig_t",
    height=224,
    width=224,
    dtype="float32",
    dataset="imagenet/val",
    split="validation",
    labels="imagenet",
    classes=1000,
    crop_pct=0.875,
    crop_mode="center",
    interpolation="bicubic",
    mean=(0.5, 0.5, 0.5),
    std=(0.5, 0.5, 0.5),
    checkpoint="vig_t.pth",
    limit=None,
    seed=0,
)


def shard(number: int, of: int = 2, **changes: Any) -> Shard:
    known: dict[str, Any] = {"images": 100, "correct1": 70, "correct5": 90}
    known |= {"wall_s": 2.0, "loader_s": 1.0, "model_s": 1.5, "workers": 2}
    base = Shard("e1", "c1", ASKED.to_json(), number, of, "ok", None, {"device": "cpu"}, "2026-01-01T00:00:00+00:00")
    return replace(base, **{**known, **changes})


def test_what_is_written_is_read_and_whole_evaluations_are_joined(tmp_path: Path) -> None:
    accuracy.append(tmp_path, [shard(1, correct1=60), shard(0, eval_id="e2")])
    accuracy.append(tmp_path, [shard(0, unread=[["a.png", "no image"]])])
    assert accuracy.read(tmp_path) == [
        shard(1, correct1=60),
        shard(0, eval_id="e2"),
        shard(0, unread=[["a.png", "no image"]]),
    ]
    (found,) = accuracy.measured([tmp_path])
    assert (found.images, found.top1, found.top5, found.unread) == (200, 65.0, 90.0, 1)
    assert found.predictions == tmp_path / "accuracy" / "e1.parquet"
    assert (found.model, found.crop_pct, found.interpolation, found.checkpoint) == (
        "vig_t",
        0.875,
        "bicubic",
        "vig_t.pth",
    )
    (line,) = report.unfinished([tmp_path])
    assert line == "vig_t 224: 1 of 2 shards"


def test_shards_of_one_evaluation_may_lie_in_two_folders(tmp_path: Path) -> None:
    one, two = tmp_path / "one", tmp_path / "two"
    for folder, number in ((one, 0), (two, 1)):
        folder.mkdir()
        accuracy.append(folder, [shard(number)])
    assert accuracy.measured([one]) == []
    assert accuracy.measured([one, two])[0].images == 200


def test_shards_under_other_conditions_are_not_mixed(tmp_path: Path) -> None:
    accuracy.append(tmp_path, [shard(0), shard(1, conditions="c2")])
    assert accuracy.measured([tmp_path]) == []
    accuracy.append(tmp_path, [shard(0, conditions="c2", correct1=50)])
    assert accuracy.measured([tmp_path])[0].top1 == 60.0


def test_a_failed_shard_that_is_done_later_counts(tmp_path: Path) -> None:
    accuracy.append(
        tmp_path, [shard(0), shard(1, status="oom", reason="out of memory", images=0, correct1=0, correct5=0)]
    )
    assert accuracy.measured([tmp_path]) == []
    assert report.unfinished([tmp_path]) == ["vig_t 224: 1 of 2 shards: oom, out of memory"]
    accuracy.append(tmp_path, [shard(1)])
    assert accuracy.measured([tmp_path])[0].images == 200
    assert report.unfinished([tmp_path]) == []


def test_a_line_that_a_kill_cut_short_is_dropped_and_written_again(tmp_path: Path) -> None:
    accuracy.append(tmp_path, [shard(0), shard(1)])
    file = tmp_path / accuracy.FILE
    file.write_bytes(file.read_bytes()[:-40])
    with pytest.warns(UserWarning, match="incomplete"):
        assert accuracy.read(tmp_path) == [shard(0)]
    accuracy.append(tmp_path, [shard(1)])
    assert accuracy.read(tmp_path) == [shard(0), shard(1)]


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("images", -1),
        ("images", 10**30),
        ("images", True),
        ("correct1", 101),
        ("shard", 2),
        ("wall_s", math.nan),
        ("wall_s", "soon"),
        ("status", "fine"),
        ("unread", [["a"]]),
        ("odd", {"CMYK": -1}),
        ("asked", 3),
        ("asked", {**ASKED.to_json(), "height": "224"}),
        ("reason", 5),
        ("schema", 2),
    ],
)
def test_a_record_with_a_value_that_cannot_be_is_refused_with_its_line(tmp_path: Path, name: str, value: Any) -> None:
    lines = [asdict(shard(0)), {**asdict(shard(1)), name: value}, asdict(shard(1))]
    (tmp_path / accuracy.FILE).write_text("".join(json.dumps(line) + "\n" for line in lines))
    with pytest.raises(SchemaError, match=f"line 2.*{name}"):
        accuracy.read(tmp_path)


def test_damage_before_the_last_line_is_told(tmp_path: Path) -> None:
    accuracy.append(tmp_path, [shard(0)])
    file = tmp_path / accuracy.FILE
    for damage in (b"\xff\n", b"[" * 100_000 + b"\n", b"3\n"):
        file.write_bytes(damage + json.dumps(asdict(shard(0))).encode() + b"\n")
        with pytest.raises(SchemaError, match="line 1"):
            accuracy.read(tmp_path)


@pytest.mark.parametrize(("correct", "images"), [(0, 10), (7, 10), (813, 1000), (50_000, 50_000)])
def test_the_interval_is_wilsons(correct: int, images: int) -> None:
    z, p = norm.ppf(0.975), correct / images
    middle, half = p + z**2 / (2 * images), z * math.sqrt(p * (1 - p) / images + z**2 / (4 * images**2))
    expected = [100 * p, *(100 * (middle + sign * half) / (1 + z**2 / images) for sign in (-1, 1))]
    assert accuracy.wilson(correct, images) == pytest.approx(expected, abs=1e-9)


def test_a_run_whose_images_come_slower_than_the_model_takes_them_is_bound_by_the_loader() -> None:
    fast, slow = shard(0, of=1), shard(0, of=1, loader_s=30.0)
    assert accuracy.speeds([fast]) == {
        "images_per_s": 50.0,
        "loader_images_per_s": 200.0,
        "model_images_per_s": pytest.approx(66.67, abs=0.01),
        "bound": "model",
    }
    assert accuracy.speeds([slow])["bound"] == "loader"
    assert accuracy.speeds([replace(fast, status="error", wall_s=0.0)]) == {}


def test_the_csv_holds_no_formula(tmp_path: Path) -> None:
    accuracy.append(tmp_path, [shard(0, of=1, asked={**ASKED.to_json(), "dataset": "=cmd|' /C calc'!A0\n\x1b[31m"})])
    (file,) = report.write(report.rows([tmp_path]), tmp_path)
    assert "'=cmd|' /C calc'!A0 �[31m" in file.read_text()


class TestAsked:
    def test_all_of_it_is_in_the_id_and_it_comes_back_from_json(self) -> None:
        assert plan.Asked.from_json(json.loads(json.dumps(ASKED.to_json()))) == ASKED
        changed = [
            replace(ASKED, crop_pct=0.9),
            replace(ASKED, interpolation="bilinear"),
            replace(ASKED, checkpoint="x"),
        ]
        ids = {one.eval_id("images") for one in [ASKED, *changed]} | {ASKED.eval_id("other images")}
        assert len(ids) == 5

    def test_checkpoints_belong_to_models(self) -> None:
        parse = plan.parse_checkpoints
        assert parse("auto", ["vig_t", "deit_t"]) == {"vig_t": "auto", "deit_t": "auto"}
        assert parse("ViG-T=a.pth", ["vig_t", "deit_t"]) == {"vig_t": "a.pth", "deit_t": "auto"}
        assert parse("vig_t=a=b.pth,random", ["vig_t", "deit_t"]) == {"vig_t": "a=b.pth", "deit_t": "random"}
        assert parse("/a=b/c.pth", ["vig_t"]) == {"vig_t": "/a=b/c.pth"}
        assert parse("my:net=x.pth", ["my:net"]) == {"my:net": "x.pth"}

    @pytest.mark.parametrize(
        ("text", "words"),
        [
            ("a.pth", "belongs to one model"),
            ("vig_b=a.pth", "'vig_b' is not one of --models"),
            ("vig_t=a,vig_t=b", "two sources"),
            ("vig_t=", "names no file"),
            ("a.pth,b.pth", "name no model"),
            ("vig_t=a,,", "empty item"),
        ],
    )
    def test_a_checkpoint_without_its_model_is_refused(self, text: str, words: str) -> None:
        with pytest.raises(UsageError, match=words):
            plan.parse_checkpoints(text, ["vig_t", "deit_t"])

    def test_a_size_that_a_model_cannot_take_is_refused_before_the_start(self) -> None:
        with pytest.raises(ResolutionError, match="deit_t cannot take 225x224"):
            plan.check_sizes(["vig_t", "deit_t"], [(224, 224), (225, 224)])

    @pytest.mark.parametrize("share", [0.0, -1.0, 1.5, math.nan, math.inf])
    def test_a_crop_is_a_share(self, share: float) -> None:
        with pytest.raises(UsageError, match="--crop-pct"):
            plan.parse_crop(share)

    def test_a_path_is_recorded_without_the_home_of_its_user(self) -> None:
        assert plan.shown("/home/me/data/imagenet/val") == "imagenet/val"
        assert plan.shown("wds:/home/me/shards") == "wds:me/shards"
        assert plan.shown("hfds:timm/mini-imagenet") == "hfds:timm/mini-imagenet"
        assert plan.shown("data/val") == "data/val"


class TestSample:
    LABELS = tuple(label for label, count in enumerate((400, 300, 200, 90, 10)) for _ in range(count))

    def test_every_class_has_its_share(self) -> None:
        chosen = stratified(self.LABELS, 100, seed=1)
        assert len(set(chosen)) == 100
        shares = Counter(self.LABELS[place] for place in chosen)
        assert all(abs(shares[label] - size / 10) < 1 for label, size in enumerate((400, 300, 200, 90, 10)))
        assert chosen == sorted(chosen) == stratified(self.LABELS, 100, seed=1) != stratified(self.LABELS, 100, seed=2)
        assert stratified(self.LABELS, 1000, seed=1) == list(range(1000)) == stratified(self.LABELS, None, seed=1)

    def test_each_image_has_the_same_chance_and_the_interval_covers_the_truth(self) -> None:
        """A model that is right on most of the large classes, and on none of the small ones."""
        right = np.random.default_rng(0).random(1000) < np.array([0.9, 0.8, 0.3, 0.1, 0.0])[list(self.LABELS)]
        hits, covered, draws = np.zeros(1000), 0, 400
        for seed in range(draws):
            chosen = stratified(self.LABELS, 137, seed)
            hits[chosen] += 1
            _, low, high = accuracy.wilson(int(right[chosen].sum()), len(chosen))
            covered += low <= 100 * right.mean() <= high
        assert hits.mean() == pytest.approx(0.137 * draws)
        assert hits.std() < 1.5 * math.sqrt(draws * 0.137 * 0.863)
        assert covered >= 0.95 * draws


def test_synsets_find_their_outputs_and_missing_ones_are_named() -> None:
    found = labels.label_map("auto", ["n01443537", "n01440764"], [])
    assert (found.name, found.outputs) == ("imagenet", 1000)
    assert found.answers("a.png", "n01443537") == (1,)
    assert len(found.empty) == 998
    assert "n15075141" in found.empty


def test_numbered_folders_are_sorted_as_numbers() -> None:
    names = sorted(str(number) for number in range(1000))  # as words: "0", "1", "10", "100", ...
    found = labels.label_map("auto", names, [])
    assert (found.name, found.empty) == ("v2", ())
    assert [found.answers("a", name) for name in ("2", "10", "999")] == [(2,), (10,), (999,)]


@pytest.mark.parametrize(
    ("asked", "found", "words"),
    [
        ("auto", ["cat", "dog"], r"2 names \('cat', 'dog'\) are no synset"),
        ("auto", ["n01440764", "n99999999"], "'n99999999' is not among its 1000 classes"),
        ("imagenet", ["n01440764", "7"], "'7' is not among"),
        ("v2", ["1000"], "'1000' is not among its 1000 classes, as '0' and '999'"),
        ("real", ["n01440764"], "ReaL has labels for"),
        ("nothing.txt", ["cat"], "No such file.*imagenet, v2, real, or a file"),
    ],
)
def test_classes_that_the_map_does_not_have_are_named(asked: str, found: list[str], words: str) -> None:
    with pytest.raises(UsageError, match=words):
        labels.label_map(asked, found, ["a.png"])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("cat\ncat\n", "line 2: 'cat' stands twice"),
        ("cat\n\ndog\n", "line 2: an empty line"),
        ("\n", "has 0 classes"),
    ],
)
def test_a_file_of_classes_that_is_no_list_is_refused(tmp_path: Path, text: str, words: str) -> None:
    file = tmp_path / "classes.txt"
    file.write_text(text)
    with pytest.raises(UsageError, match=words):
        labels.label_map(str(file), ["cat"], [])
    file.write_bytes(b"\xff\xfe\x00")
    with pytest.raises(UsageError, match="not a text file"):
        labels.label_map(str(file), ["cat"], [])


def test_real_has_several_answers_or_none() -> None:
    images = ["val/ILSVRC2012_val_00000001.JPEG", "val/ILSVRC2012_val_00000008.JPEG"]
    found = labels.label_map("real", ["n01440764"], images)
    assert found.name == "real"
    answers = [found.answers(f"x/ILSVRC2012_val_{number:08d}.JPEG", "any") for number in range(1, 50_001)]
    assert sum(not own for own in answers) == 3163  # Beyer et al. 2020, arXiv:2006.07159: 46,837 have an answer
    assert max(map(len, answers)) > 1


def test_features_in_the_order_of_imagenet_are_known_by_their_words() -> None:
    words = [f"{lemma}, and more" for lemma in labels.lemmas()]
    words[134] = "another word"
    assert labels.as_synsets(words) == labels.synsets()
    assert labels.as_synsets(words[::-1]) is None
    assert labels.as_synsets(words[:10]) is None


class TestFacts:
    def test_every_model_has_its_own_preprocessing_and_weights_or_a_reason(self) -> None:
        for name in MODELS:
            assert evaluation.preprocessing(name) != evaluation.USUAL, name
            if name in evaluation.PUBLISHED:
                assert evaluation.published(name).startswith(("hf-hub:", "https://"))
            else:
                with pytest.raises(
                    CheckpointError, match=f"published|stride 16|a cloud.*give --checkpoint {name}=FILE"
                ):
                    evaluation.published(name)

    def test_the_crops_are_those_of_the_authors(self) -> None:
        crops = {name: evaluation.preprocessing(name) for name in ("vig_t", "vrwkv_b", "vil2_s", "deit3_t", "deit_t")}
        assert [one.crop_pct for one in crops.values()] == [0.875, 0.875, 1.0, 1.0, 0.9]
        assert evaluation.preprocessing("vision_gru_t").interpolation == "bilinear"
        assert evaluation.preprocessing("vir_b").mean == (0.5, 0.5, 0.5)
        assert evaluation.preprocessing("timm/test_vit").crop_pct == 0.95
        assert evaluation.preprocessing("my:net") == evaluation.USUAL

    def test_a_repository_of_several_models_has_one_file_of_each(self) -> None:
        files = ["README.md", "vig_t.pth", "vig-h-t.pth", "vig_s_a.pth", "vig_s_b.pth"]
        assert evaluation.own_file("vig_t", files) == "vig_t.pth"
        assert evaluation.own_file("vig_h_t", files) == "vig-h-t.pth"
        assert evaluation.own_file("vig_s", files) is None

    def test_windows_and_positions_are_said(self) -> None:
        assert evaluation.size_rule("swin_t") == "windows stay 7x7 tokens; maps are padded to whole windows"
        assert all(evaluation.size_rule(name) for name in MODELS)
