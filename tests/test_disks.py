"""Disks that fill up, folders that go away, other sweeps: one line at once, and what is on the disk can be resumed."""

from __future__ import annotations

import errno
import fcntl
import json
import os
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from command import vbench
from fakes import make_record

from vbench.errors import OutputError
from vbench.files import _clear, place, write_text, write_whole
from vbench.results.lock import HOLDER
from vbench.results.store import Store, read

RECORD = make_record()
DEAD = 2**22 + 1  # no process has this number: more than Linux gives


def mounted(folder: Path, *options: str) -> None:
    """A file system of its own at a folder, in memory; skips the test where this is not allowed."""
    command = ["mount", "-t", "tmpfs", *options, "none", str(folder)]
    if os.geteuid() or subprocess.run(command, capture_output=True, check=False).returncode:
        pytest.skip("only root may mount")


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted(folder, "-o", "size=64k")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_is_one_line_and_no_half_record(disk: Path) -> None:
    run = disk / "run"

    def fill(store: Store) -> None:
        for launch in range(200):
            store.append(replace(RECORD, launch=launch))

    with Store(run) as store, pytest.raises(OutputError, match=r"No space left on device.*make room") as caught:
        fill(store)
    assert "\n" not in str(caught.value)
    assert (run / "records.jsonl").read_bytes().endswith(b"}\n")
    kept = len(read(run))  # a damaged line would be a warning, and warnings are errors here
    assert kept == len(store.records) > 3
    subprocess.run(["mount", "-o", "remount,size=1m", disk], check=True)
    with Store(run) as store:
        store.append(RECORD)
    assert len(read(run)) == kept + 1


def test_a_disk_that_becomes_read_only_is_one_line(disk: Path) -> None:
    with Store(disk) as store:
        store.append(RECORD)
    write_text(disk / "table.md", "before\n")
    subprocess.run(["mount", "-o", "remount,ro", disk], check=True)
    with pytest.raises(OutputError, match="Read-only file system"):
        Store(disk)
    with pytest.raises(OutputError, match="Read-only file system"):
        write_text(disk / "table.md", "after\n")
    assert [record.case_id for record in read(disk)] == [RECORD.case_id]
    said = vbench("report", str(disk))
    assert said.returncode == 0
    assert "vig_t" in said.stdout
    assert "not written:" in said.stderr
    assert "Read-only file system" in said.stderr
    assert "Traceback" not in said.stderr
    for words in (["tables", str(disk)], ["compare", str(disk), str(disk)]):
        assert "vig_t" in vbench(*words).stdout
    compared = vbench("compare", str(disk), str(disk), "-o", str(disk / "out"))
    assert ("vig_t" in compared.stdout, compared.returncode, "not written:" in compared.stderr) == (True, 2, True)


LIMITED = """
import resource, sys
from pathlib import Path
sys.path.insert(0, "tests")
from fakes import make_record
from vbench.results.store import Store
from vbench.errors import OutputError
resource.setrlimit(resource.RLIMIT_FSIZE, (9000, 9000))
with Store(Path(sys.argv[1])) as store:
    try:
        for _ in range(20):
            store.append(make_record())
    except OutputError as error:
        print(len(store.records), error)
"""


def test_a_quota_that_lets_half_a_record_through_leaves_none_of_it(tmp_path: Path) -> None:
    root = Path(__file__).resolve().parent.parent
    said = subprocess.run(
        [sys.executable, "-c", LIMITED, tmp_path], cwd=root, capture_output=True, text=True, check=True
    )
    assert "File too large" in said.stdout
    assert len(read(tmp_path)) == int(said.stdout.split()[0]) >= 1
    assert (tmp_path / "records.jsonl").stat().st_size < 9000


@pytest.mark.parametrize("fault", ["deleted", "moved", "replaced", "file deleted", "file replaced"])
def test_a_folder_that_is_taken_away_ends_the_writing_at_once(tmp_path: Path, fault: str) -> None:
    run, file = tmp_path / "run", tmp_path / "run" / "records.jsonl"
    with Store(run) as store:
        store.append(RECORD)
        if fault == "deleted":
            shutil.rmtree(run)
        elif fault == "file deleted":
            file.unlink()
        elif fault == "file replaced":
            shutil.copy(file, tmp_path / "copy")
            (tmp_path / "copy").replace(file)
        else:
            run.rename(tmp_path / "elsewhere")
            if fault == "replaced":
                run.mkdir()
        with pytest.raises(OutputError, match="is gone" if "replaced" not in fault else "something replaced it"):
            store.append(RECORD)
        assert len(store.records) == 1
        if not fault.startswith("file"):
            with pytest.warns(RuntimeWarning, match="summary of this run is not kept"):
                store.add_run({"cells": 1})
            assert fault == "replaced" or not run.exists()
    if fault == "moved":
        assert len(read(tmp_path / "elsewhere")) == 1


def test_a_file_system_without_locks_has_one_sweep_at_a_time_too(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(file: int, how: int) -> None:
        raise OSError(errno.ENOTSUP, "Operation not supported")

    monkeypatch.setattr(fcntl, "flock", refuse)
    with Store(tmp_path) as store:
        store.append(RECORD)
        with pytest.raises(OutputError, match="file system without locks"):
            Store(tmp_path)
    assert not (tmp_path / HOLDER).exists()
    (tmp_path / HOLDER).write_text(json.dumps({"pid": DEAD, "place": place()}))
    with Store(tmp_path) as store:
        assert store.records == [RECORD]
    (tmp_path / HOLDER).write_text(json.dumps({"pid": DEAD, "place": "elsewhere"}))
    with pytest.raises(OutputError, match=f"delete {tmp_path / HOLDER}"):
        Store(tmp_path)


WRITER = """
import sys
from pathlib import Path
from vbench.files import write_text
for _ in range(150):
    write_text(Path(sys.argv[1]) / "table.md", sys.argv[2] * 5000)
"""


def test_four_writers_of_one_file_do_not_meet(tmp_path: Path) -> None:
    writers = [subprocess.Popen([sys.executable, "-c", WRITER, tmp_path, letter]) for letter in "abcd"]
    seen = set()
    while any(writer.poll() is None for writer in writers):
        if (tmp_path / "table.md").exists():
            seen.add((tmp_path / "table.md").read_text())
        time.sleep(0.005)
    assert [writer.returncode for writer in writers] == [0] * 4
    assert seen <= {letter * 5000 for letter in "abcd"}
    assert [file.name for file in tmp_path.iterdir()] == ["table.md"]


def test_what_dead_processes_left_is_removed_and_nothing_else(tmp_path: Path) -> None:
    _clear.cache_clear()
    mine, theirs = f".part-{place()}-", ".part-00000000-"
    left = {
        f"{mine}{DEAD}-00000000-table.md": False,  # of a dead process
        f"{mine}{os.getpid()}-00000000-table.md": True,  # of a living one
        f"{theirs}{DEAD}-00000000-table.md": True,  # of another machine
        f"{theirs}{DEAD}-00000001-table.md": False,  # likewise, and two days old
        ".part1-table.md": False,  # of an earlier release
        ".partial": True,
    }
    for number, name in enumerate(left):
        (tmp_path / name).write_text("half")
        if number in (3, 4, 5):
            os.utime(tmp_path / name, (time.time() - 2 * 86_400,) * 2)
    write_text(tmp_path / "table.md", "whole\n")
    assert {name: (tmp_path / name).exists() for name in left} == left


def test_a_failed_write_leaves_the_old_file_and_no_part(tmp_path: Path) -> None:
    write_text(tmp_path / "a", "old")

    def half(part: Path) -> None:
        part.write_text("ne")
        raise OSError(errno.ENOSPC, "No space left on device")

    with pytest.raises(OSError, match="No space"):
        write_whole(tmp_path / "a", half)
    assert {file.name: file.read_text() for file in tmp_path.iterdir()} == {"a": "old"}
