"""Joins evaluations: the records of accuracy of several runs, and their predictions. Imports no torch.

A shard of images has its predictions in a file of its own, or, once its evaluation is whole, in that of all. Joined
predictions are put down before the records: a merge that is killed is done again from the beginning.
"""

from __future__ import annotations

import shutil
import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING

from vbench.cluster.lines import Joined, sources
from vbench.files import write_whole, writing
from vbench.results import accuracy
from vbench.results.accuracy import Shard

if TYPE_CHECKING:
    import pyarrow as pa


class NoPredictionsWarning(UserWarning):
    """The predictions of an evaluation are nowhere; its counts are joined without them."""


@contextmanager
def only_one(folder: Path) -> Iterator[None]:
    """As `accuracy.run.only_one`."""
    from vbench.accuracy.run import only_one as held

    with held(folder):
        yield


class Accuracies:
    """The evaluations of runs and of the folder `out`, to be joined in it.

    Raises: UsageError if runs disagree, as `merge`; SchemaError for a record that cannot be read.
    """

    def __init__(self, runs: Sequence[Path], out: Path, keep: str | None) -> None:
        self.files = sources(runs, out, accuracy.FILE)
        self._out = out
        self._whole_in: dict[Path, dict[str, list[Shard]]] = {}  # evaluations
        self._lines: dict[Path, dict[tuple[str, str, int], list[Shard]]] = {}
        for folder in [file.parent for file in self.files]:
            shards = accuracy.read(folder)
            self._whole_in[folder] = accuracy.complete(shards)
            lines = self._lines.setdefault(folder, {})
            for shard in shards:
                lines.setdefault(_key(shard), []).append(shard)
        self._joined = Joined(self.files, accuracy.FILE, keep)
        self._tables: dict[Path, pa.Table | None] = {}
        self.new = self._joined.new(out)

    def write(self) -> int:
        """Write what is new: predictions, then records. The caller holds `out` (`only_one`).

        Returns: how many shards of images `out` has now. Raises: OutputError.
        """
        target = self._out / accuracy.FILE
        with writing(self._out):
            if self.new:
                write_whole(target, self._to)
            else:
                self._place(accuracy.read_file(target))
        return len(self._joined.order)

    def _to(self, part: Path) -> None:
        self._joined.to(part)
        self._place(accuracy.read_file(part))

    def _place(self, shards: Sequence[Shard]) -> None:
        """Put down the predictions of these shards: one file of a whole evaluation, else a file a shard."""
        for eval_id, own in accuracy.complete(shards).items():
            self._place_whole(eval_id, own)
        for eval_id, own in accuracy.pending(shards).items():
            self._place_parts(eval_id, own)

    def _place_whole(self, eval_id: str, own: Sequence[Shard]) -> None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from vbench.accuracy import predictions

        target = accuracy.predictions(self._out, eval_id)
        if self._whole_in.get(self._out, {}).get(eval_id) == own and all(
            self._slice(self._out, one) is not None for one in own
        ):
            return
        tables = [table for shard in own if (table := self._table(shard)) is not None]
        if len(tables) < len(own):
            asked = own[0].asked
            what = f"{asked['model']} at {asked['height']}x{asked['width']}"
            message = f"{what}: the predictions of {len(own) - len(tables)} of {len(own)} shards are gone"
            warnings.warn(f"{message}; its counts are joined without them", NoPredictionsWarning, stacklevel=2)
            if target.is_file():
                target.replace(target.with_suffix(".previous"))  # it is of other shards
            return
        whole = pa.concat_tables([table.replace_schema_metadata(None) for table in tables])
        target.parent.mkdir(parents=True, exist_ok=True)
        write_whole(target, lambda part: pq.write_table(whole, part, compression="zstd"))
        shutil.rmtree(predictions.parts(self._out, eval_id), ignore_errors=True)

    def _place_parts(self, eval_id: str, own: Sequence[Shard]) -> None:
        from vbench.accuracy import predictions

        home = predictions.parts(self._out, eval_id)
        for shard in own:
            target = predictions.of_shard(home, shard.shard)
            if shard.status != "ok" or self._part(target, shard) is not None:
                continue
            files = [
                predictions.of_shard(predictions.parts(folder, eval_id), shard.shard) for folder in self._who_has(shard)
            ]
            source = next((file for file in files if self._part(file, shard) is not None), None)
            if source is not None:
                home.mkdir(parents=True, exist_ok=True)
                write_whole(target, lambda part, source=source: shutil.copyfile(source, part))  # type: ignore[misc]

    def _who_has(self, shard: Shard) -> list[Path]:
        return [folder for folder, lines in self._lines.items() if shard in lines.get(_key(shard), [])]

    def _table(self, shard: Shard) -> pa.Table | None:
        """The predictions of a shard; None if nobody has those that its record counts."""
        from vbench.accuracy import predictions

        for folder in self._who_has(shard):
            home = predictions.parts(folder, shard.eval_id)
            found = self._part(predictions.of_shard(home, shard.shard), shard)
            if found is None:
                found = self._slice(folder, shard)
            if found is not None:
                return found
        return None

    def _part(self, file: Path, shard: Shard) -> pa.Table | None:
        """A file of one shard, if it is that of the record."""
        from vbench.accuracy import predictions

        held = predictions.read(file) if file.is_file() else None
        if held is None:
            return None
        facts, table = held
        same = (facts.eval_id, facts.conditions, facts.shard) == (shard.eval_id, shard.conditions, shard.shard)
        timed = {name: getattr(shard, name) for name in ("wall_s", "loader_s", "model_s")}
        return table if same and facts.seconds == timed and _counted(table, shard) else None

    def _slice(self, folder: Path, shard: Shard) -> pa.Table | None:
        """The rows of one shard in the file of a whole evaluation, if its record counts them."""
        own = self._whole_in[folder].get(shard.eval_id, [])
        if len(own) <= shard.shard or own[shard.shard] != shard:
            return None
        whole = self._read(accuracy.predictions(folder, shard.eval_id))
        if whole is None or whole.num_rows != sum(one.images for one in own):
            return None
        begin = sum(one.images for one in own if one.shard < shard.shard)
        table = whole.slice(begin, shard.images)
        return table if _counted(table, shard) else None

    def _read(self, file: Path) -> pa.Table | None:
        import pyarrow as pa
        import pyarrow.parquet as pq

        from vbench.accuracy.predictions import SCHEMA

        if file not in self._tables:
            try:
                table = pq.read_table(file)
            except (OSError, pa.ArrowException):
                table = None
            self._tables[file] = table if table is not None and table.schema.equals(SCHEMA) else None
        return self._tables[file]


def _key(shard: Shard) -> tuple[str, str, int]:
    return shard.eval_id, shard.conditions, shard.shard


def _counted(table: pa.Table, shard: Shard) -> bool:
    from vbench.accuracy import predictions

    counts = predictions.counts(table)
    return all(counts[name] == getattr(shard, name) for name in ("images", "correct1", "correct5", "unread", "odd"))
