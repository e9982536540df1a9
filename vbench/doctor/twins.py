"""Sessions of turns between a cell and itself: does the interval of a ratio hold 1 as often as it says?

`python -P -m vbench.doctor.twins --sessions 20 -o FILE` appends a line of blocks for each session.
"""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Iterator
from dataclasses import asdict, replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from vbench import host
from vbench.jobs.launch import Launcher
from vbench.plan import Case, Protocol, Sweep, plan
from vbench.results.pairs import PairedRatio, alike, paired
from vbench.results.store import TurnBlock
from vbench.sweeps import turns as table
from vbench.sweeps.blocks import Turns
from vbench.sweeps.companies import Company

TWIN = "twin"  # stands for the attention of the second cell, so that both have names of their own
LIMIT_S = 120.0
KNOWN_MS = 30.0  # of a call; it decides how many rounds a block has


def sessions(number: int, model: str, side: int, protocol: Protocol, launcher: Launcher) -> Iterator[list[TurnBlock]]:
    """The blocks of each session. A session ends as the turns of a sweep do."""
    (case,) = plan(Sweep((model,), ((side, side),), ("parallel",)))
    whose, how = host.fingerprint("cpu", None, [model]), asdict(protocol)
    about = {"protocol": how, "host": whose, "timeout_s": LIMIT_S, "conditions": host.conditions(whose, how)}
    for _ in range(number):
        blocks: list[TurnBlock] = []
        while len(blocks) < 4 or not _enough(blocks, protocol):
            if len(blocks) % 2 == 0:
                launcher.renew()
            blocks.append(_block(case, len(blocks), protocol, launcher, about))
        yield blocks


def ratio_of(blocks: list[TurnBlock]) -> PairedRatio:
    """The ratio of twin over first in a session."""
    twin = next(alike(case) for case in blocks[0].cases if case["attention"] == TWIN)
    return next(ratio for (one, _), ratio in paired(blocks).items() if one == twin)


def read(file: Path) -> list[list[TurnBlock]]:
    """The blocks of each session in a file."""
    with file.open(encoding="utf-8") as lines:
        return [[TurnBlock(**block) for block in json.loads(line)] for line in lines]


def _enough(blocks: list[TurnBlock], protocol: Protocol) -> bool:
    spent = [block.wall_s for block in blocks]
    over = sum(spent) + 2 * sum(spent) / len(spent) > protocol.company_s
    return len(blocks) % 2 == 0 and (over or ratio_of(blocks).half_width <= protocol.ratio_within)


def _block(case: Case, number: int, protocol: Protocol, launcher: Launcher, about: dict[str, Any]) -> TurnBlock:
    both = Company((case, case))
    turns = Turns(both, number, number, (KNOWN_MS, KNOWN_MS), 2)
    begin, started = time.monotonic(), datetime.now(UTC).isoformat(timespec="seconds")
    taken = table.take(turns, protocol, launcher, core=number // 2, allowed_s=LIMIT_S, most_s=LIMIT_S)
    if taken.samples_ms is None:
        raise RuntimeError(f"a block of turns failed: {taken.reason(turns.cases)}")
    wall_s = round(time.monotonic() - begin, 3)
    block = table.block(turns, taken, wall_s=wall_s, order=number, load=host.load(), started_at=started, **about)
    cases = [replace(case, attention=TWIN) if cell else case for cell in turns.order]  # type: ignore[arg-type]
    samples = [[round(ms, 4) for ms in each] for each in taken.samples_ms]
    about = {"case_ids": [each.id for each in cases], "cases": [asdict(each) for each in cases]}
    return replace(block, samples_ms=samples, **about)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--sessions", type=int, default=20)
    parser.add_argument("--model", default="vig_t")
    parser.add_argument("--side", type=int, default=96)
    parser.add_argument("-o", "--out", type=Path, required=True)
    asked = parser.parse_args()
    asked.out.parent.mkdir(parents=True, exist_ok=True)
    with Launcher() as launcher, asked.out.open("a", encoding="utf-8") as file:
        for blocks in sessions(asked.sessions, asked.model, asked.side, Protocol(), launcher):
            file.write(json.dumps([asdict(block) for block in blocks]) + "\n")
            file.flush()
            ratio = ratio_of(blocks)
            sys.stderr.write(f"{ratio.value:.3f}×, ±{ratio.half_width:.1%}, {ratio.blocks} blocks\n")


if __name__ == "__main__":
    main()
