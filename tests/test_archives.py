"""Records outlive the zoo: whatever reads records reads those of a model that the zoo does not know."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any

import pytest
from fakes import make_record
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UnknownModelError
from vbench.models import spec
from vbench.plan import Case
from vbench.reports import claims, html
from vbench.reports.runs import runs_of, table_of
from vbench.results import answers, models, refine
from vbench.results.compare import compare, load
from vbench.results.counters import Baseline, CountedCell, to_text
from vbench.results.frame import frame, of_folders
from vbench.results.store import FILE, TURNS, read, read_turns

COMMITTED = Path(__file__).resolve().parent.parent / "results" / "cpu"
SIDES, LAUNCHES = (224, 512), 1
RENAMED = {"vig_t": "vig_of_old", "deit_t": "deit_of_old"}  # neither is a name of the zoo
OTHERS = {"vig_t": "their_pkg.models:net", "deit_t": "timm/a_model_of_old"}  # of a user's own, and of another timm


def renamed(case: Mapping[str, Any], names: Mapping[str, str]) -> dict[str, Any]:
    return {**case, "model": names[case["model"]]}


def archive(folder: Path, names: Mapping[str, str], *, zoo: bool = False) -> Path:
    """The committed records at a few sizes, with other names of their models; `zoo`: with what the zoo said of them."""
    folder.mkdir(parents=True, exist_ok=True)
    records, turns = read(COMMITTED), read_turns(COMMITTED)
    with (folder / FILE).open("a") as file:
        for record in records:
            if record.case["height"] in SIDES and record.launch < LAUNCHES:
                case = renamed(record.case, names)
                said = (
                    models.of_zoo(record.case["model"], *(case[side] for side in ("height", "width"))) if zoo else None
                )
                new = replace(record, case=case, case_id=Case(**case).id, zoo=said)
                file.write(json.dumps(asdict(new)) + "\n")
    with (folder / TURNS).open("a") as file:
        for block in turns:
            if all(case["height"] in SIDES for case in block.cases):
                cases = [renamed(case, names) for case in block.cases]
                ids = [Case(**case).id for case in cases]
                new_block = replace(block, cases=cases, case_ids=ids, company="-".join(ids))
                file.write(json.dumps(asdict(new_block)) + "\n")
    return folder


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of records under other names, of both kinds."""
    folder = tmp_path_factory.mktemp("archives") / "run"
    return archive(archive(folder, RENAMED), OTHERS)


@pytest.fixture(scope="module")
def plain(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same records under the names of today."""
    return archive(tmp_path_factory.mktemp("archives") / "run", {name: name for name in RENAMED})


def test_these_names_are_none_of_the_zoo() -> None:
    for name in RENAMED.values():
        with pytest.raises(UnknownModelError):
            spec(name)
        assert models.row_of(name) is None


COMMANDS = [
    "report {run}",
    "report {run} {plain} -o {out}/pages.html",
    "tables {run} -o {out}/tables",
    "figures crossover,ratios {run} --format svg -o {out}/figures",
    "fit {run} --json",
    "compare {run} {run} -o {out}/compared",
    "history {run} -o {out}/history",
]


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_that_reads_records_reads_them(line: str, run: Path, plain: Path, tmp_path: Path) -> None:
    words = line.format(run=run, plain=plain, out=tmp_path / "out").split()
    done = CliRunner().invoke(app, words, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    made = [file.read_text() for file in (tmp_path / "out").rglob("*") if file.suffix in (".md", ".html", ".txt")]
    said = "".join([done.output, *made]).replace("\\/", "/")  # as JSON may have it
    assert {name for name in (record.case["model"] for record in read(run)) if name not in said} == set()


def sentences(folder: Path, names: Mapping[str, str]) -> list[str]:
    """The answers of a folder's page, with today's names."""
    texts = [answer.text for answer in answers.answers(of_folders([folder]))]
    for today, name in names.items():
        texts = [text.replace(name, today) for text in texts]
    return texts


def test_a_renamed_archive_gives_the_same_answers_tables_and_claims(plain: Path, tmp_path: Path) -> None:
    """Which of two unknown models is attention is in their records: pairs, crossovers and ratios are as before."""
    old = archive(tmp_path / "old", RENAMED)
    own = {name: name for name in RENAMED}
    assert sentences(old, RENAMED) == sentences(plain, own)
    assert any("needs" in text for text in sentences(old, RENAMED))
    before, after = of_folders([plain]), of_folders([old])
    kept = [column for column in before if column not in ("model", "case_id", "latency_paired", "family")]
    kept = [column for column in kept if column not in ("padded_share", "top1_published", "top1_source")]
    for column in kept:
        assert sorted(map(str, before[column])) == sorted(map(str, after[column])), column
    assert set(after["family"]) == {models.NOT_KNOWN}
    assert after["padded_share"].isna().all()
    assert len(claims.judged([old])) == len(claims.judged([plain]))
    assert compare(load(old), load(old)).exit_code() == 0


def test_what_the_zoo_said_is_kept_in_a_record(tmp_path: Path) -> None:
    old = of_folders([archive(tmp_path / "old", RENAMED, zoo=True)])
    assert set(zip(old["model"], old["family"], strict=True)) == {("vig_of_old", "vig"), ("deit_of_old", "deit")}
    assert (old["padded_share"] == 0).all()
    branded = make_record("vir_s_softmax")
    assert "caveat" in frame([branded])["flags"][0]
    case = {**branded.case, "model": "renamed"}
    lost, kept = (replace(branded, case=case, zoo=zoo) for zoo in (None, models.of_zoo("vir_s_softmax", 224, 224)))
    assert "caveat" not in frame([lost])["flags"][0]
    assert "caveat" in frame([kept])["flags"][0]


def test_a_page_names_the_modes_and_the_groups_of_unknown_models(run: Path) -> None:
    runs = runs_of([run])
    table = table_of(runs)
    text = html.page(runs, table, answers.answers(table))
    cards = re.findall(r'<div class="card">\n<h3>(.*?)</h3>', text)
    assert set(cards[:2]) == {"vig_of_old", "their_pkg.models:net"}  # attention comes last
    assert set(cards[-2:]) == {"deit_of_old", "timm/a_model_of_old"}
    assert "has one mode" in text


def test_a_size_is_refined_only_for_models_that_can_be_measured(tmp_path: Path) -> None:
    assert refine.wanted(of_folders([archive(tmp_path / "old", RENAMED)])) == []


def test_a_baseline_of_counters_says_which_model_is_gone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    case = {"model": "vig_of_old", "height": 32, "width": 32, "mode": "parallel", "form": "chunkwise"}
    case |= {"dtype": "float32", "device": "cpu", "layout": "nchw", "attention": None}
    cell = CountedCell("vig_of_old 32 parallel float32", case, {"params": 1}, {"aten.mm float32": 1}, {})
    (tmp_path / "counters.json").write_text(to_text(Baseline({"torch": "2.11"}, (cell,), {})))
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(app, ["gate", "--counters", "counters.json"])
    assert done.exit_code == 1
    assert "unknown model 'vig_of_old': none of" in " ".join(done.output.split())


def test_cells_of_unknown_models_name_their_form() -> None:
    case = Case("vig_of_old", 224, 224, "parallel", "chunkwise", 1, "float32", "cpu")
    assert str(case) == "vig_of_old 224 parallel chunkwise float32"


def test_whether_a_model_is_attention_is_told_by_its_row() -> None:
    told = {
        ("vig_t", "chunkwise", None): False,
        ("deit_t", None, "fused"): True,
        ("timm/anything", None, "fused"): True,
        ("a.b:c", None, "fused"): False,  # a user's own; nothing is known of it
        ("vig_of_old", "chunkwise", None): False,
        ("vig_of_old", None, None): False,
        ("deit_of_old", None, "unfused"): True,
    }
    for (model, form, attention), attends in told.items():
        assert models.is_attention({"model": model, "form": form, "attention": attention}) is attends


def test_turns_of_unknown_models_are_paired(run: Path) -> None:
    table = of_folders([run])
    assert {*RENAMED.values(), *OTHERS.values()} == {*table["model"][table["latency_paired"].notna()]}
