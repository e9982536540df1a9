"""What does not change is proved once; what failed, or was found under other conditions, is not remembered."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from vbench.jobs.launch import Ending
from vbench.jobs.memo import Memo


class Counting:
    """Answers with how often it was asked."""

    def __init__(self, status: Any = "ok") -> None:
        self.asked, self.status = 0, status

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        self.asked += 1
        return Ending(self.status, None, {"asked": self.asked})


def test_a_job_runs_once_for_its_argument_and_conditions(tmp_path: Path) -> None:
    launcher = Counting()
    for conditions, argument, asked in (("a", 1, 1), ("a", 1, 1), ("a", 2, 2), ("b", 1, 3), ("a", 1, 1)):
        memo = Memo(launcher, conditions, tmp_path)
        assert memo.run("job", {"x": argument}, 1.0) == Ending("ok", None, {"asked": asked})
    assert launcher.asked == 3


@pytest.mark.parametrize("status", ["error", "oom", "timeout", "unsupported"])
def test_a_failure_is_not_remembered(tmp_path: Path, status: str) -> None:
    launcher = Counting(status)
    memo = Memo(launcher, "a", tmp_path)
    memo.run("job", {}, 1.0)
    memo.run("job", {}, 1.0)
    assert launcher.asked == 2
    assert list(tmp_path.iterdir()) == []


def test_a_damaged_or_impossible_memory_is_no_memory(tmp_path: Path) -> None:
    launcher = Counting()
    Memo(launcher, "a", tmp_path).run("job", {}, 1.0)
    for file in tmp_path.iterdir():
        file.write_text('{"half')
    assert Memo(launcher, "a", tmp_path).expected_s("job", {}) is None
    assert Memo(launcher, "a", tmp_path).run("job", {}, 1.0).parts == {"asked": 2}
    (tmp_path / "file").write_text("")
    for asked in (3, 4):
        assert Memo(launcher, "a", tmp_path / "file" / "folder").run("job", {}, 1.0).parts == {"asked": asked}


def test_what_a_job_took_is_the_guess_of_its_time_for_other_code_too(tmp_path: Path) -> None:
    memo = Memo(Counting(), "a", tmp_path)
    assert memo.expected_s("job", {}) is None
    memo.keep("job", {}, Ending("ok", None, {}), 2.5)
    assert memo.expected_s("job", {}) == 0.0
    assert Memo(Counting(), "b", tmp_path).expected_s("job", {}) == 2.5
    assert Memo(Counting(), "b", tmp_path).expected_s("job", {"other": 1}) is None
