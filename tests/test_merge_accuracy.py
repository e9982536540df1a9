"""`vbench merge` of evaluations: two halves, twice, in disagreement, and under other conditions."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from collections.abc import Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import pytest
from command import vbench
from test_eval_records import shard as record

from vbench.accuracy import predictions
from vbench.cluster.accuracies import NoPredictionsWarning
from vbench.cluster.merge import merge
from vbench.errors import OutputError, UsageError
from vbench.results import accuracy
from vbench.results.accuracy import Shard

OF, SIZE = 5, 4  # shards, images of each


def evaluated(folder: Path, numbers: Sequence[int], *, seed: int = 0, **changes: Any) -> list[Shard]:
    """Write the predictions and the records of these shards, as `vbench eval` does."""
    folder.mkdir(exist_ok=True)
    made = []
    for number in numbers:
        draws = np.random.default_rng([seed, number])
        top = draws.permuted(np.tile(np.arange(7, dtype=np.int16), (SIZE, 1)), axis=1)[:, :5]
        seconds = {"wall_s": 1.0 + number, "loader_s": 0.5, "model_s": 0.25 + seed}
        one = record(number, OF, **{"started_at": f"2026-01-01T00:00:0{number}+00:00", **changes})
        facts = predictions.Facts(one.eval_id, one.conditions, number, seconds, 2, 1)
        home = predictions.parts(folder, one.eval_id)
        names = [f"{number}-{row}.png" for row in range(SIZE)]
        predictions.write(home, facts, names, [[row] for row in range(SIZE)], top, {}, [""] * SIZE)
        held = predictions.read(predictions.of_shard(home, number))
        assert held is not None
        made.append(replace(one, **seconds, **predictions.counts(held[1])))
    accuracy.append(folder, made)
    if len(numbers) == OF:
        predictions.join(folder, made[0].eval_id, OF)
    return made


def table(folder: Path, eval_id: str = "e1") -> pd.DataFrame:
    return pd.read_parquet(accuracy.predictions(folder, eval_id))


def contents(folder: Path) -> dict[str, tuple[bytes, int]]:
    return {
        str(path.relative_to(folder)): (path.read_bytes(), path.stat().st_mtime_ns)
        for path in folder.rglob("*")
        if path.is_file() and not path.name.startswith(".")
    }


def test_two_halves_equal_the_whole_and_merged_again_nothing_changes(tmp_path: Path) -> None:
    evaluated(tmp_path / "whole", range(OF))
    evaluated(tmp_path / "a", (0, 2))
    evaluated(tmp_path / "b", (1, 3, 4))
    out = tmp_path / "out"
    assert merge([tmp_path / "a"], out).accuracies == 2
    assert accuracy.measured([out]) == []
    done = vbench("merge", "a", "b", "-o", "out", cwd=tmp_path)
    assert done.stdout.split() == ["out:", "5", "shards", "of", "images,", "3", "of", "them", "new"], done.stderr
    (own,), (whole,) = accuracy.measured([out]), accuracy.measured([tmp_path / "whole"])
    assert asdict(own) | {"predictions": None} == asdict(whole) | {"predictions": None}
    pd.testing.assert_frame_equal(table(out), table(tmp_path / "whole"))
    assert sorted(path.name for path in (out / "accuracy").iterdir()) == ["e1.parquet"]
    assert not (out / "records.jsonl").exists()
    before = contents(out)
    assert merge([tmp_path / "b", tmp_path / "a", tmp_path / "whole"], out).new == 0
    assert contents(out) == before


def test_a_conflict_is_named_and_nothing_is_written_and_the_newest_may_count(tmp_path: Path) -> None:
    """The predictions are those of the record that counts, whoever has it."""
    evaluated(tmp_path / "a", range(OF))
    newer = evaluated(tmp_path / "b", (1,), seed=1, started_at="2026-01-02T00:00:00+00:00")
    with pytest.raises(UsageError, match="both measured shard 1 of the images of vig_t 224 float32"):
        merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert not (tmp_path / "out").exists()
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out", "newest")
    (found,) = accuracy.complete(accuracy.read(tmp_path / "out")).values()
    assert found[1] == newer[0]
    own, former = table(tmp_path / "out"), table(tmp_path / "a")
    assert own["correct1"].sum() == sum(one.correct1 for one in found)
    assert (own["image"] == former["image"]).all()
    assert (own["top1"] != former["top1"]).any()
    assert set(own.index[own["top1"] != former["top1"]]) <= set(range(SIZE, 2 * SIZE))


def test_two_machines_are_not_mixed_and_neither_is_lost(tmp_path: Path) -> None:
    """Both evaluated all at the same time; the one that ended last counts."""
    evaluated(tmp_path / "a", range(OF))
    evaluated(tmp_path / "b", range(OF), seed=1, conditions="c2")
    merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    (own,), (last,) = accuracy.measured([tmp_path / "out"]), accuracy.measured([tmp_path / "b"])
    assert (own.top1, own.images) == (last.top1, OF * SIZE)
    pd.testing.assert_frame_equal(table(tmp_path / "out"), table(tmp_path / "b"))


def test_predictions_that_are_gone_are_told(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", range(OF))
    accuracy.predictions(tmp_path / "a", "e1").write_bytes(b"PAR1")
    with pytest.warns(NoPredictionsWarning, match="vig_t at 224x224: the predictions of 5 of 5 shards are gone"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert len(accuracy.read(tmp_path / "out")) == OF
    assert not accuracy.predictions(tmp_path / "out", "e1").exists()


def test_a_merge_that_is_killed_is_done_again(tmp_path: Path) -> None:
    """Between the predictions and the records."""
    evaluated(tmp_path / "a", (0, 1))
    evaluated(tmp_path / "b", (2, 3, 4))
    out = tmp_path / "out"
    script = (
        "import os, signal\nfrom pathlib import Path\nfrom vbench.cluster import accuracies\n"
        "place = accuracies.Accuracies._place\n"
        "def killed(self, shards):\n    place(self, shards)\n    os.kill(os.getpid(), signal.SIGKILL)\n"
        "accuracies.Accuracies._place = killed\n"
        "from vbench.cluster.merge import merge\nmerge([Path('a'), Path('b')], Path('out'))\n"
    )
    environment = {**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)}
    done = subprocess.run([sys.executable, "-c", script], cwd=tmp_path, env=environment, check=False)
    assert done.returncode == -signal.SIGKILL
    assert accuracy.read(out) == []
    assert merge([tmp_path / "a", tmp_path / "b"], out).new == OF
    assert len(table(out)) == OF * SIZE


def test_an_evaluation_that_goes_on_is_not_merged_into(tmp_path: Path) -> None:
    from vbench.accuracy.run import only_one

    evaluated(tmp_path / "a", (0,))
    with only_one(tmp_path / "out"), pytest.raises(OutputError, match="another evaluation is writing"):
        merge([tmp_path / "a"], tmp_path / "out")
    assert accuracy.read(tmp_path / "out") == []


def test_a_record_that_cannot_be_is_refused_with_its_line(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", (0, 1))
    evaluated(tmp_path / "b", (2,))
    file = tmp_path / "b" / accuracy.FILE
    file.write_text(json.dumps(json.loads(file.read_text()) | {"images": -1}) + "\n")
    done = vbench("merge", "a", "b", "-o", "out", cwd=tmp_path)
    assert (done.returncode, len(done.stderr.splitlines())) == (2, 1)
    assert "line 1: images cannot be" in done.stderr
    assert not (tmp_path / "out").exists()


def test_sweeps_and_evaluations_of_one_folder_are_joined_together(tmp_path: Path) -> None:
    evaluated(tmp_path / "a", range(OF))
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    (tmp_path / "b" / "records.jsonl").write_text("")
    found = merge([tmp_path / "a", tmp_path / "b"], tmp_path / "out")
    assert (found.records, found.accuracies, found.new) == (0, OF, OF)
    assert len(table(tmp_path / "out")) == OF * SIZE
