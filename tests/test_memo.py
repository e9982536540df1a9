"""What does not change is proved once; what failed, or was found under other conditions, is not remembered."""

from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import pytest

from vbench.jobs.launch import Ending
from vbench.jobs.memo import Memo, MemoWarning


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
    memo = Memo(launcher, "a", tmp_path)
    with pytest.warns(MemoWarning, match="is damaged: what it remembers is not used") as told:
        assert (memo.expected_s("job", {}), memo.run("job", {}, 1.0).parts) == (None, {"asked": 2})
    assert len(told) == 1
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


WRONG = {  # the shape of an entry that no memory has written
    "another status": {"status": "error", "reason": None, "parts": {}},
    "parts that are a list": {"status": "ok", "reason": None, "parts": []},
    "no parts": {"status": "ok"},
    "more than an ending": {"status": "ok", "parts": {}, "more": 1},
    "a list": [],
}


@pytest.mark.parametrize("what", WRONG)
def test_an_entry_of_another_shape_is_no_memory(tmp_path: Path, what: str) -> None:
    launcher = Counting()
    Memo(launcher, "a", tmp_path).run("job", {}, 1.0)
    for file in tmp_path.glob("*[0-9a-f].json"):
        file.write_text(json.dumps(WRONG[what]))
    with pytest.warns(MemoWarning, match="is damaged"):
        assert Memo(launcher, "a", tmp_path).run("job", {}, 1.0).parts == {"asked": 2}


@pytest.mark.parametrize("fault", ["folder of all", "file of all", "foreign folder", "foreign file", "link", "pipe"])
def test_what_others_could_have_written_is_no_memory(tmp_path: Path, fault: str) -> None:
    """Else any user of a machine could say that modes are one function."""
    if fault.startswith("foreign") and os.geteuid():
        pytest.skip("only root can give a file away")
    folder, launcher = tmp_path / "kept", Counting()
    Memo(launcher, "a", folder).run("job", {}, 1.0)
    assert (folder.stat().st_mode & 0o777, {file.stat().st_mode & 0o777 for file in folder.iterdir()}) == (
        0o700,
        {0o600},
    )
    (file,) = (file for file in folder.iterdir() if not file.name.endswith("-seconds.json"))
    if fault == "link":
        file.rename(tmp_path / "elsewhere.json")
        file.symlink_to(tmp_path / "elsewhere.json")
    elif fault == "pipe":
        file.unlink()
        os.mkfifo(file, 0o600)
    else:
        target = folder if "folder" in fault else file
        if fault.startswith("foreign"):
            os.chown(target, 12345, 12345)
        else:
            target.chmod(0o777)
    memo = Memo(launcher, "a", folder)
    with pytest.warns(MemoWarning, match="is not used, and found out anew") as told:
        assert memo.run("job", {}, 1.0).parts == {"asked": 2}
    assert len(told) == 1
    if fault != "foreign folder":  # it has been put right
        assert Memo(launcher, "a", folder).run("job", {}, 1.0).parts == {"asked": 2}
