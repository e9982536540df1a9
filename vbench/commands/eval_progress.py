"""Progress of evaluations on stderr: how many images are done, and how many a second."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from pathlib import Path
from time import monotonic
from types import TracebackType

from rich.console import Console
from rich.progress import BarColumn, TextColumn
from rich.progress import Progress as Bar

from vbench.accuracy.plan import Asked
from vbench.results.accuracy import Shard, speeds, wilson

LOOK_S = 0.5  # between two looks at the shards that are there


class Progress:
    """Shows the progress of evaluations; a context manager. Without a terminal it prints a line for each child.

    While a child works, its images are counted by the files of its shards.
    """

    def __init__(self, console: Console) -> None:
        self._console = console
        self._bar = Bar(
            TextColumn("{task.description}"),
            BarColumn(bar_width=10),
            TextColumn("{task.completed:.0f} of {task.total:.0f} images {task.fields[said]}"),
            console=console,
            transient=True,
            disable=not console.is_terminal,
        )
        self._task = self._bar.add_task("starting", total=1, said="")
        self._watched: tuple[Path, int, int, int, float] | None = None  # folder, images, files, of images; since
        self._ended = threading.Event()
        self._watcher = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> Progress:
        self._bar.start()
        if self._console.is_terminal:
            self._watcher.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        self._bar.stop()

    def begins(self, asked: Asked, done: int, images: int, parts: Path, shard: int) -> None:
        """Show what begins."""
        self._bar.update(self._task, description=str(asked), completed=done, total=images, said="")
        self._watched = (parts, done, _files(parts), shard, monotonic())

    def told(self, asked: Asked, shards: Sequence[Shard], images: int) -> None:
        """Show the top-1 so far, and the images a second."""
        done, rates = sum(shard.images for shard in shards), speeds(shards)
        top1, _, _ = wilson(sum(shard.correct1 for shard in shards), done)
        speed = f", {rates['images_per_s']:.3g} images/s ({rates['bound']}-bound)" if rates else ""
        said = f"top-1 {top1:.2f}{speed}"
        self._bar.update(self._task, completed=done, said=said)
        if not self._console.is_terminal:
            self._console.print(f"{asked}: {done} of {images} images, {said}", markup=False)

    def failed(self, asked: Asked, shard: Shard) -> None:
        """Say where and why an evaluation ended."""
        hint = "; a smaller --batch needs less" if shard.status == "oom" else ""
        self._console.print(
            f"{asked}: {shard.status} at shard {shard.shard} of {shard.shards}: {shard.reason}{hint}", markup=False
        )

    def _watch(self) -> None:
        while not self._ended.wait(LOOK_S):
            if self._watched is not None:
                parts, done, files, shard, begin = self._watched
                fresh = (_files(parts) - files) * shard
                if fresh > 0:
                    said = f"{fresh / (monotonic() - begin):.3g} images/s"
                    self._bar.update(self._task, completed=done + fresh, said=said)


def _files(folder: Path) -> int:
    return sum(1 for _ in folder.glob("[0-9]*.parquet"))
