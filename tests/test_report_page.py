"""The page of a report: it needs nothing else, says what the frame says, and runs nothing that a record holds."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

import pytest
from fakes import HOST, failed, latency, make_record
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.reports import appearance, html, labels, panels, payload, proofs, runs
from vbench.reports.runs import Run
from vbench.results.answers import answers
from vbench.results.frame import frame, objects
from vbench.results.store import Record, Store
from vbench.results.text import visible

HOSTILE = '</script><img src=x onerror="window.hacked=1">\u2028<!--<script>window.hacked=1</script>'
MODES = ("parallel", "recurrent")
VOID = {"meta", "input", "br", "img", "link"}


class Page(HTMLParser):
    """A page's elements in order, the text of each kind, and whatever is closed out of turn."""

    def __init__(self, text: str) -> None:
        super().__init__(convert_charrefs=True)
        self.elements: list[tuple[str, dict[str, str | None]]] = []
        self.texts: dict[str, list[str]] = {}
        self.faults: list[str] = []
        self._open: list[str] = []
        self.feed(text)
        self.close()
        self.faults += self._open

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))
        if tag not in VOID:
            self._open.append(tag)
            self.texts.setdefault(tag, []).append("")

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.elements.append((tag, dict(attrs)))

    def handle_endtag(self, tag: str) -> None:
        if not self._open or self._open.pop() != tag:
            self.faults.append(f"</{tag}>")

    def handle_data(self, data: str) -> None:
        for tag in self._open:
            self.texts[tag][-1] += data

    def with_tag(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.elements if name == tag]


def made(*given: Run) -> str:
    table = runs.table_of(given)
    return html.page(given, table, answers(table))


def small() -> list[Record]:
    """ViG in both modes, and DeiT until it runs out of memory."""
    found = [make_record("vig_t", side, mode) for side in (224, 512, 1024) for mode in MODES]
    found += [make_record("deit_t", side) for side in (224, 512)]
    return [*found, failed("oom", "out of memory", model="deit_t", side=1024)]


@cache
def usual() -> str:
    return made(Run("a run", small()))


@cache
def parsed() -> Page:
    return Page(usual())


def data(text: str) -> dict[str, Any]:
    """What the script of a page reads, with the columns of its rows as lists."""
    found: dict[str, Any] = json.loads(next(text for text in Page(text).texts["script"] if text.startswith("{")))
    found["rows"] = {name: unpacked(column) for name, column in found["rows"].items()}
    return found


def unpacked(column: Any) -> list[Any]:
    if not isinstance(column, dict):
        return column or []
    return [None if at is None else column["of"][at] for at in column["at"]]


def run_in(folder: Path, records: list[Record]) -> Path:
    with Store(folder) as store:
        for record in records:
            store.append(record)
    return folder


class TestAlone:
    def test_it_names_nothing_outside_itself(self) -> None:
        page = parsed()
        assert page.faults == []
        for tag, attributes in page.elements:
            for name in ("src", "srcset", "data", "action", "poster", "style"):
                assert name not in attributes, tag
            assert (attributes.get("href") or "#").startswith("#"), tag
            assert not [name for name in attributes if name.startswith("on")], tag
        assert page.with_tag("link") == page.with_tag("iframe") == page.with_tag("img") == []
        assert not re.search(r"url\(|@import", page.texts["style"][0])

    def test_its_policy_allows_its_own_scripts_alone(self) -> None:
        page = parsed()
        (policy,) = [a["content"] for a in page.with_tag("meta") if a.get("http-equiv") == "Content-Security-Policy"]
        assert policy is not None
        rules = dict(rule.split(" ", 1) for rule in policy.split("; "))
        assert rules["default-src"] == "'none'"
        assert not {"connect-src", "font-src", "script-src-elem"} & rules.keys()
        scripts = [text for text in page.texts["script"] if not text.startswith("{")]
        digests = [f"'sha256-{b64encode(hashlib.sha256(text.encode()).digest()).decode()}'" for text in scripts]
        assert rules["script-src"].split() == digests
        assert len(digests) == 2

    def test_every_link_and_label_leads_somewhere(self) -> None:
        page = parsed()
        ids = [attributes["id"] for _, attributes in page.elements if attributes.get("id")]
        assert len(ids) == len(set(ids))
        led = [a["href"][1:] for a in page.with_tag("a") if a.get("href")]
        led += [a["for"] for a in page.with_tag("label") if a.get("for")]
        led += [a["aria-labelledby"] for _, a in page.elements if a.get("aria-labelledby")]
        assert len(led) > 10
        assert set(led) <= set(ids)

    def test_the_same_records_give_the_same_page(self) -> None:
        assert made(Run("a run", small())) == usual()

    def test_it_imports_no_torch(self) -> None:
        code = "import sys, vbench.reports.html; sys.exit('torch' in sys.modules or 'matplotlib' in sys.modules)"
        assert subprocess.run([sys.executable, "-P", "-c", code], check=False).returncode == 0


class TestHostileRecords:
    def test_what_a_record_says_is_text_and_nothing_else(self) -> None:
        host = {**HOST, "device_name": HOSTILE, "cpu": HOSTILE, "versions": {**HOST["versions"], "torch": HOSTILE}}
        records = [make_record("vig_t", side, host=host) for side in (224, 512)]
        records += [make_record("deit_t", 224, host=host, verified={"ok": False, "checks": 1, "failed": [HOSTILE]})]
        records += [failed("error", HOSTILE, model="deit_t", side=512, host=host)]
        work = {**(records[0].work or {}), "unknown": {HOSTILE: {"calls": 1, "bytes": 8}}}
        model = f"timm/{HOSTILE.replace(' ', '/')}"  # a name with a space is no name, and such a record is not read
        named = make_record(model, 512, host=host, verified={"ok": True, "checks": 1, "failed": []})
        records += [named, make_record(model, 224, host=host)]
        records.append(make_record("vig_t", 1024, host=host, work=work, protocol={**records[0].protocol, "x": HOSTILE}))
        text = made(Run(HOSTILE, records))
        page, tame = Page(text), parsed()
        assert page.faults == []
        assert Counter(tag for tag, _ in page.elements)["script"] == len(tame.with_tag("script"))
        assert page.with_tag("img") == []
        assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
        assert text.count("<!--") == usual().count("<!--")
        for tag in ("title", "h1", "th", "td", "li", "p"):  # and is shown
            words = (visible(HOSTILE), visible(model))
            assert any(word in shown for shown in page.texts[tag] for word in words), tag
        data = next(shown for shown in page.texts["script"] if shown.startswith("{"))
        assert not re.search("[<>&\u2028\u2029]", data)


class TestData:
    def test_the_rows_are_those_of_the_frame(self) -> None:
        table, found = frame(small()), data(usual())["rows"]
        for name in ("model", "mode", "height", "status", "reason", "case_id", "macs", "latency_basis"):
            assert found[name] == objects(table[name]), name
        for name in ("latency_ms", "latency_ms_lo", "latency_ms_hi", "throughput_img_s", "peak_memory_bytes"):
            known = [value and pytest.approx(value, rel=1e-6) for value in objects(table[name])]
            assert found[name] == known, name

    def test_a_curve_is_its_rows(self) -> None:
        found = data(usual())
        names = [curve["label"] for curve in found["curves"]]
        assert names == ["deit_t", "vig_t parallel", "vig_t recurrent"]
        of = [names[at] for at in found["rows"]["curve"]]
        modes = zip(found["rows"]["model"], found["rows"]["mode"], strict=True)
        assert of == ["deit_t" if model == "deit_t" else f"{model} {mode}" for model, mode in modes]
        assert [curve["nearest"] for curve in found["curves"]] == [None, 0, 0]

    def test_the_calls_of_a_row_are_those_of_its_launches_that_count(self) -> None:
        old, new = (make_record("vig_t", 224, started_at=f"2026-01-0{day}T00:00:00+00:00") for day in (1, 2))
        times = {**(new.latency or {}), "samples_ms": [1.0, 2.0, 3.0]}
        second = make_record("vig_t", 224, launch=1, latency=times)
        found = data(made(Run("a", [old, make_record("vig_t", 224, latency=times), second])))
        assert found["samples"] == {"0": [[0, 1, [1, 2, 3]], [1, 1, [1, 2, 3]]]}
        assert found["samples_step"] == 1

    def test_of_very_many_calls_every_second_is_kept_and_said(self, monkeypatch: pytest.MonkeyPatch) -> None:
        monkeypatch.setattr(payload, "MOST_SAMPLES", 10)
        found = data(made(Run("a", [make_record("vig_t", side) for side in (224, 512)])))
        assert found["samples_step"] == 2
        assert [len(launch[2]) for own in found["samples"].values() for launch in own] == [4, 4]

    def test_accuracy_is_named_as_published(self) -> None:
        found = data(usual())["accuracy"]
        assert found["title"] == "Accuracy as published, not measured"
        assert all(point["published"] for point in found["points"])
        assert all(said[0] == "published, not measured" for point in found["points"] for said in point["said"])

    def test_devices_are_curves_of_their_own_that_look_different(self) -> None:
        other = {**HOST, "device_name": "another"}
        found = data(made(Run("a", [make_record("vig_t", side, host=h) for side in (224, 512) for h in (HOST, other)])))
        assert [curve["label"] for curve in found["curves"]] == ["vig_t a test CPU", "vig_t another"]
        assert len({curve["symbol"] + curve["mark"] for curve in found["curves"]}) == 2
        assert {curve["subject"] for curve in found["curves"]} == {"vig_t"}
        assert "device_name" in [setting["key"] for setting in found["settings"]]

    def test_two_machines_that_call_their_device_alike_are_told_apart(self, tmp_path: Path) -> None:
        large = {**HOST, "cpu_count": 64}
        for name, host in (("small", HOST), ("large", large)):
            run_in(tmp_path / name, [make_record("vig_t", side, host=host) for side in (224, 512)])
        found = data(made(*runs.runs_of([tmp_path / "small", tmp_path / "large"])))
        assert set(found["rows"]["device_name"]) == {"a test CPU [small]", "a test CPU [large]"}
        assert len(found["rows"]["case_id"]) == 4
        alike = data(made(*runs.runs_of([tmp_path / "small"])))
        assert set(alike["rows"]["device_name"]) == {"a test CPU"}

    def test_cases_of_two_runs_stand_beside_each_other(self) -> None:
        faster = make_record("vig_t", 224, started_at="2026-02-01T00:00:00+00:00", latency=latency([50.0] * 7))
        found = data(made(Run("old", small()), Run("new", [faster])))
        (case,) = found["beside"]
        assert case["name"] == "vig_t parallel chunkwise"
        assert [case["of"][at]["latency_ms"] for at in ("0", "1")] == [98, 50]
        assert data(usual())["beside"] == []

    def test_what_has_no_value_is_named(self) -> None:
        assert any(line.startswith("Energy: no row has a value") for line in panels.undrawn(frame(small())))
        energy = {"gross_j_per_image": 2.0, "net_j_per_image": 1.0, "reason": None}
        record = make_record("vig_t", 224, energy=energy)
        assert "energy" in [panel["key"] for panel in data(made(Run("a", [record])))["panels"]]
        assert not any("Energy" in line for line in panels.undrawn(frame([record])))

    def test_settings_are_chosen_between_where_rows_differ(self) -> None:
        half = make_record(case={**make_record().case, "dtype": "bfloat16"}, case_id="half")
        threads = make_record("vig_t", 512, protocol={**make_record().protocol, "threads": 2})
        found = {setting["key"]: setting["values"] for setting in data(made(Run("a", [*small(), half])))["settings"]}
        assert found == {"dtype": ["float32", "bfloat16"], "batch_asked": ["knee"]}
        assert "threads" in [one["key"] for one in data(made(Run("a", [*small(), threads])))["settings"]]

    def test_labels_are_shown_everywhere_and_the_names_stay_in_the_rows(self) -> None:
        table = frame(small())
        names = labels.parse("vig_t=ViG-T,deit_t=<DeiT>", table["model"])
        text = html.page([Run("a", small())], table, answers(table), labels=names)
        page, found = Page(text), data(text)
        assert {"ViG-T", "<DeiT>"} <= set(page.texts["h3"])
        assert "ViG-T" in page.texts["title"][0]
        assert [curve["label"] for curve in found["curves"]] == ["<DeiT>", "ViG-T parallel", "ViG-T recurrent"]
        assert set(found["rows"]["model"]) == {"vig_t", "deit_t"}
        assert not any("vig_t" in shown for tag in ("h3", "li", "th") for shown in page.texts[tag])

    def test_the_newest_run_of_a_cell_counts_and_the_page_says_so(self) -> None:
        old, new = [make_record("vig_t", 224)], [make_record("vig_t", 224), make_record("vig_t", 512)]
        text = made(Run("old", old), Run("new", new))
        assert "1, of which 1 measured again in a later run" in Page(text).texts["td"]
        assert data(text)["rows"]["run"] == ["new", "new"]


class TestSize:
    def test_the_page_of_the_readme_is_small(self) -> None:
        there = runs.runs_of([Path(__file__).parent.parent / "results" / "cpu"])
        table = runs.table_of(there)
        assert len(html.page(there, table, answers(table)).encode()) < 1.5e6

    def test_the_bundle_has_its_licence_beside_it_and_says_what_it_is(self) -> None:
        folder = Path(html.__file__).parent / "page"
        head = (folder / "plotly-basic.min.js").read_text(encoding="utf-8")[:300]
        assert re.search(r"plotly\.js \(basic - minified\) v\d+\.\d+", head)
        assert "MIT" in (folder / "plotly-LICENSE.txt").read_text(encoding="utf-8")
        assert {f"{name}.js" for name in html.SCRIPTS} == {file.name for file in folder.glob("*.js")} - {
            "plotly-basic.min.js"
        }
        assert max(len((folder / f"{name}.js").read_text().splitlines()) for name in html.SCRIPTS) <= 400


class TestProofs:
    def test_modes_ledger_and_environment_are_those_of_the_records(self) -> None:
        good, bad = ({"ok": ok, "checks": 7, "failed": lines} for ok, lines in ((True, []), (False, ["gla scan"])))
        work = {
            **(make_record().work or {}),
            "closed_form_agrees": True,
            "coverage": 0.875,
            "unknown": {"aten.odd": {}},
        }
        not_asked = {"macs_fvcore": None, "agree": None, "reason": "too long"}
        records = [
            make_record("vig_t", 224, verified=good, work=work),
            make_record(
                "vig_t", 512, verified=good, work={**work, "closed_form_agrees": False}, second_count=not_asked
            ),
            make_record("vrwkv_t", 224, verified=bad),
            make_record("deit_t", 224, load={"load_1min": 3.5, "free_bytes": 1}),
        ]
        assert proofs.verified(records) == [
            ("deit_t", "has one mode", "0", "none"),
            ("vig_t", "one function", "7", "none"),
            ("vrwkv_t", "THE MODES DIFFER", "7", "gla scan"),
        ]
        (row,) = [row for row in proofs.ledger(records) if row[0].startswith("vig_t")]
        assert row[1:] == ("2", "agrees at 1 of 2", "agrees at 1 of 1; 1 not asked (too long)", "aten.odd", "87.50%")
        run = Run("a", records)
        facts = dict(proofs.facts(run, [run]))
        assert facts["load of the host"] == "0.10 to 3.50 runnable processes before a launch"
        assert facts["commit"] == HOST["commit"]
        assert "torch 2.11.0" in facts["versions"]
        assert facts["GPU"] == "none"
        assert facts["system"] == "not recorded"
        assert "launches 1" in facts["protocol"]

    def test_flags_and_unfair_settings_are_explained(self) -> None:
        records = [
            make_record("vig_t", 224),
            make_record("vig_t", 512, verified={"ok": False, "checks": 1, "failed": []}),
        ]
        records.append(make_record("deit_t", 224, protocol={**records[0].protocol, "threads": 2}))
        page = Page(made(Run("a", records)))
        assert any("DO NOT COMPUTE THE SAME FUNCTION" in line for line in page.texts["li"])
        assert any(line.startswith("rows differ in threads") for line in page.texts["li"])


class TestCommand:
    def test_several_runs_make_one_page_and_leave_the_runs_alone(self, tmp_path: Path) -> None:
        first = run_in(tmp_path / "first", small())
        second = run_in(tmp_path / "second", [make_record("vrwkv_t", side) for side in (224, 512)])
        before = sorted(path.name for path in first.iterdir())
        target = tmp_path / "new" / "report.html"
        done = CliRunner().invoke(app, ["report", str(first), str(second), "-o", str(target)])
        assert done.exit_code == 0, done.output
        assert "At 512 px vig_t parallel needs" in done.output
        page = Page(target.read_text(encoding="utf-8"))
        assert {"first", "second"} <= set(page.texts["h3"])
        assert {"vrwkv_t", "vig_t", "deit_t"} == set(data(target.read_text(encoding="utf-8"))["rows"]["model"])
        assert sorted(path.name for path in first.iterdir()) == before
        assert [path.name for path in target.parent.iterdir()] == ["report.html"]
        said = json.loads(CliRunner().invoke(app, ["report", str(first), "-o", str(target), "--json"]).stdout)
        assert {answer["kind"] for answer in said} == {"ratio", "crossover", "growth"}

    @pytest.mark.parametrize(
        ("given", "what"),
        [
            (["run", "-o", "page.pdf"], "give the name of a page, as in -o report.html"),
            (["run", "nothing", "-o", "page.html"], "nothing has no records"),
            (["run", "empty", "-o", "page.html"], "empty has no records"),
            (["run", "run"], "2 runs make one page: give -o FILE.html"),
            (["run", "-o", "page.html", "--width", "full"], "--width and --font are of the figure of one run"),
            (["run", "-o", "page.html", "--labels", "vit=ViT"], "the records have no model 'vit'"),
            (["run", "-o", "run/records.jsonl/page.html"], "cannot be written"),
        ],
    )
    def test_what_cannot_be_is_refused_and_leaves_nothing(
        self, given: list[str], what: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        monkeypatch.chdir(tmp_path)
        run_in(tmp_path / "run", [make_record()])
        run_in(tmp_path / "empty", [])
        before = sorted(tmp_path.rglob("*"))
        with pytest.raises(UsageError, match=what):
            CliRunner().invoke(app, ["report", *given], catch_exceptions=False)
        assert sorted(tmp_path.rglob("*")) == before

    @pytest.mark.parametrize("status", ["oom", "unsupported"])
    def test_a_run_without_a_single_figure_is_a_page_too(self, status: str) -> None:
        page = Page(made(Run("a", [failed(status, "why", work=None, second_count=None)])))
        assert page.faults == []
        assert any("(vig_t parallel 224)" in line for line in page.texts["li"])


def test_every_family_has_a_look_of_its_own_that_the_page_can_draw() -> None:
    """A user's own model and a family that nobody gave a look among them."""
    found = appearance.looks(["vig", "new", "newer", "vig"])
    assert len({found[family] for family in ("vig", "vision_gru", "external", "vim", "new", "newer")}) == 6
    for _, marker in [*appearance.FAMILIES.values(), *appearance.SPARE]:
        assert appearance.SYMBOLS[marker] in appearance.SHAPES
    assert len(set(appearance.SHAPES.values())) == len(appearance.SHAPES)


def test_every_curve_is_seen_in_dark_mode() -> None:
    colours = [colour for colour, _ in [*appearance.FAMILIES.values(), *appearance.SPARE]]
    assert min(appearance.contrast(appearance.on_dark(each), appearance.DARK) for each in colours) >= 3
    assert appearance.contrast("#FFFFFF", "#000000") == pytest.approx(21)
    assert appearance.contrast("#777777", "#FFFFFF") == pytest.approx(4.48, abs=0.01)  # WCAG's own example
    assert appearance.on_dark("#E69F00") == "#E69F00"
