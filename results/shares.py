"""The frame of very many records, read by several processes: each takes all launches of its share of the cells.

A process reads its share, says what its cells tell of the scatter of their runs, hears what all cells tell, and answers
with its rows. The frame is, to the last bit, the one that a single process makes.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import pandas as pd

from vbench.results import launches, workers
from vbench.results.frame import Part, beside, in_order, priors
from vbench.results.launches import Cells
from vbench.results.lines import Damage
from vbench.results.store import FILE, Share, TurnBlock, tell

LARGE = 64 * 2**20  # bytes of records, some 20,000 of them, for which processes are worth their start


def of_folders(places: Sequence[Path], turns: Sequence[TurnBlock]) -> tuple[pd.DataFrame, list[Damage]] | None:
    """The frame of all records in these folders, and the lines that are none.

    None if they are few, if there is one processor, or if a process could not do its share.

    Raises: SchemaError, OutputError as `store.reading`.
    """
    count = workers.count()
    if count < 2 or sum((place / FILE).stat().st_size for place in places if (place / FILE).is_file()) < LARGE:
        return None
    try:
        with ExitStack() as stack:
            started = [stack.enter_context(workers.worker(f"{__name__}:read")) for _ in range(count)]
            for number, worker in enumerate(started):
                worker.say((Share(number, count), places, bool(turns)))
            parts = [worker.hear() for worker in started]
            found = zip(places, *(part["found"] for part in parts), strict=True)
            damaged = [line for folder, *shares in found for line in tell(folder, shares)]
            of_run = priors([part["scatter"] for part in parts])
            for worker in started:
                worker.say(of_run)
            paired = beside([cell for part in parts for cell in part["alike"]], turns)
            return in_order([worker.hear() for worker in started], paired), damaged
    except workers.LOST:
        return None


def read(hear: Callable[[], Any], say: Callable[[Any], None]) -> None:
    """What a process does with its share."""
    share, places, turns = hear()
    with launches.uncollected():
        cells = Cells()
        found = [launches.read(place, cells, share) for place in places]
        part = Part(cells)
        say({"found": found, "scatter": part.scatter(), "alike": part.alike() if turns else []})
        say(part.table(hear()))
