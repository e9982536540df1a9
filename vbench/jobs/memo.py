"""Keeps the results of jobs, so that a sweep under the same code, versions and device does not run them again.

Only for results that do not depend on time: whether modes are one function, how many MACs a model has. Timings and
failures are not kept. `vbench verify` and `vbench flops` do not use it. The seconds that a job took are kept too, for
other code as well: they tell how long it will take again.

Whoever can write to the folder can say what was verified. So it and its files must be this user's, and writable by
nobody else; what is not, or has another shape, is ignored with one warning.
"""

from __future__ import annotations

import hashlib
import json
import os
import stat
import time
import warnings
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from typing import Annotated, Any, Literal, TypeVar

from msgspec import Meta, MsgspecError, Struct
from msgspec.json import decode

from vbench.errors import OutputError
from vbench.files import write_whole
from vbench.jobs.launch import Ending, Runner

Shape = TypeVar("Shape", bound=Struct)
LONGEST = 2**24  # bytes of an entry
OTHERS = stat.S_IWGRP | stat.S_IWOTH


class Kept(Struct, forbid_unknown_fields=True):
    """The shape of an entry: an `Ending` that is "ok"."""

    status: Literal["ok"]
    parts: dict[str, Any]
    reason: Annotated[str, Meta(max_length=2_000)] | None = None


class Took(Struct, forbid_unknown_fields=True):
    """The shape of an entry on time."""

    seconds: Annotated[float, Meta(ge=0, le=1e9)]


class MemoWarning(UserWarning):
    """Something in the folder of results is not this user's, or is damaged, and was ignored."""


class Memo:
    """Runs jobs like a launcher, but each only once under the same conditions.

    Args:
        launcher: runs the jobs that have no result yet.
        conditions: a digest of what may change the results (`host.conditions`).
        folder: for the results, one file each; the user's cache folder by default.
    """

    def __init__(self, launcher: Runner, conditions: str, folder: Path | None = None) -> None:
        self._launcher, self._conditions = launcher, conditions
        home = os.environ.get("XDG_CACHE_HOME")
        self._folder = folder or (Path(home) if home else Path.home() / ".cache") / "vbench"
        self._warned = False

    def run(self, job: str, argument: dict[str, Any], timeout_s: float) -> Ending:
        """As `Launcher.run`; returns a kept ending if there is one, and keeps an ending that is "ok"."""
        if (kept := self.recall(job, argument)) is not None:
            return kept
        begin = time.monotonic()
        ending = self._launcher.run(job, argument, timeout_s)
        if ending.status == "ok":
            self.keep(job, argument, ending, time.monotonic() - begin)
        return ending

    def recall(self, job: str, argument: dict[str, Any]) -> Ending | None:
        """The ending that is kept, or None."""
        kept = self._read(self._result(job, argument), Kept)
        return None if kept is None else Ending(kept.status, kept.reason, kept.parts)

    def keep(self, job: str, argument: dict[str, Any], ending: Ending, seconds: float) -> None:
        """Keep an ending, and how long the job took."""
        with suppress(OutputError, OSError):  # a machine without a home folder proves it every time
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            about = self._folder.stat()
            if about.st_uid == os.geteuid() and about.st_mode & OTHERS:
                self._folder.chmod(stat.S_IMODE(about.st_mode) & ~OTHERS)
            self._write(self._result(job, argument), asdict(ending))
            self._write(self._time(job, argument), {"seconds": max(round(seconds, 3), 0.001)})

    def expected_s(self, job: str, argument: dict[str, Any]) -> float | None:
        """How long `run` will take: nothing if the ending is kept, else as long as the last time; None if unknown."""
        if self.recall(job, argument) is not None:
            return 0.0
        took = self._read(self._time(job, argument), Took)
        return None if took is None else took.seconds

    def _read(self, path: Path, shape: type[Shape]) -> Shape | None:
        """An entry of that shape; None if there is none, or if it is not to be trusted."""
        try:
            file = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK | os.O_CLOEXEC)
        except FileNotFoundError:
            return None
        except OSError as error:
            if self._folder.is_dir():
                self._ignore(path, f"cannot be read: {error.strerror}")
            return None
        with os.fdopen(file, "rb") as opened:
            why = self._distrust(os.fstat(file), path)
            try:
                if why is None:
                    return decode(opened.read(LONGEST), type=shape)
            except (MsgspecError, RecursionError, UnicodeDecodeError, OSError):
                why = path, "is damaged"
            self._ignore(*why)
            return None

    def _distrust(self, about: os.stat_result, path: Path) -> tuple[Path, str] | None:
        """What others than this user may have written, the folder or the file, and why; None if neither."""
        for each, named in ((self._folder.stat(), self._folder), (about, path)):
            if each.st_uid != os.geteuid():
                return named, f"belongs to another user ({each.st_uid})"
            if each.st_mode & OTHERS:
                return named, "can be written by others"
        return None if stat.S_ISREG(about.st_mode) else (path, "is no file")

    def _ignore(self, path: Path, why: str) -> None:
        """Warn, once."""
        if not self._warned:
            self._warned = True
            warnings.warn(f"{path} {why}: what it remembers is not used, and found out anew", MemoWarning, stacklevel=4)

    def _write(self, path: Path, entry: dict[str, Any]) -> None:
        def write(part: Path) -> None:
            with os.fdopen(os.open(part, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as file:
                json.dump(entry, file)

        with suppress(ValueError):  # what JSON cannot hold is found out anew
            write_whole(path, write)

    def _result(self, job: str, argument: dict[str, Any]) -> Path:
        return self._folder / f"{_digest(job, argument, self._conditions)}.json"

    def _time(self, job: str, argument: dict[str, Any]) -> Path:
        """Without the conditions: what other code took is the best guess."""
        return self._folder / f"{_digest(job, argument)}-seconds.json"


def _digest(*key: Any) -> str:
    return hashlib.sha256(json.dumps(key, sort_keys=True).encode()).hexdigest()[:32]
