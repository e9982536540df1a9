"""The page of a report: it needs nothing else, says what the frame says, and runs nothing that a record holds."""

from __future__ import annotations

import hashlib
import json
import re
import subprocess
import sys
from base64 import b64encode
from collections import Counter
from collections.abc import Iterator
from functools import cache
from html.parser import HTMLParser
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from fakes import HOST, failed, make_record
from typer.testing import CliRunner

from vbench.commands.app import app
from vbench.errors import UsageError
from vbench.reports import appearance, html, plots
from vbench.results.answers import answers
from vbench.results.frame import frame
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


def made(*runs: html.Run) -> str:
    table = html.table_of(runs)
    return html.page(runs, table, answers(table))


def small() -> list[Record]:
    """ViG in both modes, and DeiT until it runs out of memory."""
    found = [make_record("vig_t", side, mode) for side in (224, 512, 1024) for mode in MODES]
    found += [make_record("deit_t", side) for side in (224, 512)]
    return [*found, failed("oom", "out of memory", model="deit_t", side=1024)]


@cache
def usual() -> str:
    return made(html.Run("a run", small()))


@cache
def parsed() -> Page:
    return Page(usual())


def figures() -> dict[str, Any]:
    """What the usual page's script draws."""
    found: dict[str, Any] = json.loads(next(text for text in parsed().texts["script"] if text.startswith("{")))
    return found


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
        assert made(html.Run("a run", small())) == usual()

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
        text = made(html.Run(HOSTILE, records))
        page, tame = Page(text), parsed()
        assert page.faults == []
        assert Counter(tag for tag, _ in page.elements)["script"] == len(tame.with_tag("script"))
        assert page.with_tag("img") == []
        assert "onerror" not in {name for _, attributes in page.elements for name in attributes}
        assert text.count("<!--") == usual().count("<!--")
        for tag in ("title", "h1", "th", "td", "li", "p", "button"):  # and is shown
            words = (visible(HOSTILE), visible(model))
            assert any(word in shown for shown in page.texts[tag] for word in words), tag
        data = next(shown for shown in page.texts["script"] if shown.startswith("{"))
        assert not re.search("[<>&\u2028\u2029]", data)

    def test_a_hover_holds_no_tags_but_ours(self) -> None:
        host = {**HOST, "device_name": '<a href="https://example.org">'}
        records = [make_record("vig_t", side, host=host) for side in (224, 512)]
        records.append(failed("timeout", '<a href="https://example.org">slow', model="vig_t", side=1024, host=host))
        traces = [trace for plot in plots.plots(frame(records)) for trace in plot.spec["data"]]
        hovers = [text for trace in traces for text in [*trace.get("text", []), *trace.get("hovertext", [])]]
        assert any("&lt;a href" in text and "slow" in text for text in hovers)
        assert {tag for text in hovers for tag in re.findall("<[^>]*>", text)} == {"<b>", "</b>", "<br>"}


class TestFigures:
    def test_a_curve_is_its_rows_and_a_hover_its_record(self) -> None:
        table = frame(small())
        own = table[(table["model"] == "vig_t") & (table["mode"] == "parallel")].sort_values("height")
        drawn = figures()["latency"]["data"]
        (line,) = [trace for trace in drawn if trace["legendgroup"] == "vig_t parallel" and trace["showlegend"]]
        assert line["x"] == [224.0, 512.0, 1024.0]
        assert line["y"] == pytest.approx(list(own["latency_ms"]))
        assert line["customdata"] == list(own["case_id"])
        for part in (
            "vig_t parallel",
            "1024 px",
            "2,048 (2,007–2,089)",
            "chunkwise",
            "flags: ",
            "a test CPU",
            "batch 1",
        ):
            assert part in line["text"][2], part
        assert own["case_id"].iloc[2] in line["text"][2]
        (band,) = [trace for trace in drawn if trace["legendgroup"] == "vig_t parallel" and trace.get("fill")]
        assert band["y"] == pytest.approx([*own["latency_ms_hi"], *own["latency_ms_lo"][::-1]])

    def test_a_curve_that_ends_says_why(self) -> None:
        drawn = figures()
        (end,) = [trace for trace in drawn["memory"]["data"] if "text" in trace["mode"]]
        assert (end["legendgroup"], end["text"][0], end["x"]) == ("deit_t", "OOM", [1024.0])
        assert "out of memory" in end["hovertext"][0]
        assert not [trace for trace in drawn["macs"]["data"] if "text" in trace["mode"]]

    def test_the_modes_are_set_against_each_other(self) -> None:
        records = small()
        slow = [
            make_record("vig_t", 512, "recurrent", latency={**(records[0].latency or {}), "samples_ms": [1024.0] * 9})
        ]
        drawn = plots.plots(frame([*records, *slow]))
        (line,) = [
            trace for plot in drawn if plot.key == "modes-latency" for trace in plot.spec["data"] if trace["showlegend"]
        ]
        assert line["y"] == pytest.approx([1.0, 2.0, 1.0])
        assert [
            shape["y0"] for plot in drawn if plot.key == "modes-latency" for shape in plot.spec["layout"]["shapes"]
        ] == [1]

    def test_a_band_has_no_part_where_a_cell_has_no_interval(self) -> None:
        table = frame([make_record("vig_t", side) for side in (224, 384, 512, 768, 1024)])
        table.loc[table["height"] == 512, ["latency_ms_lo", "latency_ms_hi"]] = None
        (latency,) = [plot for plot in plots.plots(table) if plot.key == "latency"]
        (band,) = [trace for trace in latency.spec["data"] if trace.get("fill")]
        assert band["x"] == [224.0, 384.0, 384.0, 224.0, None, 768.0, 1024.0, 1024.0, 768.0]

    def test_a_logarithmic_axis_names_its_ticks_in_full(self) -> None:
        assert figures()["latency"]["layout"]["yaxis"]["ticktext"] == ["100", "200", "500", "1,000", "2,000"]
        assert figures()["macs"]["layout"]["xaxis"]["ticktext"] == ["224", "512", "1024"]

    def test_accuracy_is_hollow_and_named_as_published(self) -> None:
        page = figures()["accuracy"]
        assert all(trace["marker"]["symbol"].endswith("-open") for trace in page["data"])
        assert all("published, not measured" in text for trace in page["data"] for text in trace["text"])
        assert "Accuracy as published, not measured" in parsed().texts["h3"]

    def test_devices_are_curves_of_their_own(self) -> None:
        other = {**HOST, "device_name": "another"}
        table = frame([make_record("vig_t", side, host=host) for side in (224, 512) for host in (HOST, other)])
        assert [key.label for key in plots.keys(table)] == ["vig_t a test CPU", "vig_t another"]

    def test_what_has_no_value_is_named(self) -> None:
        assert any(line.startswith("Energy: no row has a value") for line in plots.undrawn(frame(small())))
        energy = {"gross_j_per_image": 2.0, "net_j_per_image": 1.0, "reason": None}
        table = frame([make_record("vig_t", 224, energy=energy)])
        assert "energy" in [plot.key for plot in plots.plots(table)]
        assert not any("Energy" in line for line in plots.undrawn(table))


class TestTable:
    def test_every_row_is_there_with_its_status_and_what_it_is_sorted_by(self) -> None:
        page = parsed()
        rows = [a["data-status"] for a in page.with_tag("tr") if a.get("data-status")]
        assert Counter(rows) == {"ok": 8, "oom": 1}
        assert "out of memory" in page.texts["td"]
        values = [float(a["data-value"] or 0) for a in page.with_tag("td") if a.get("data-value")]
        assert 1024 * 1024 in values
        heads = [a for a in page.with_tag("th") if "aria-sort" in a]
        assert len(heads) == len(_columns())
        assert {a["aria-sort"] for a in heads} == {"none"}

    def test_settings_are_columns_where_rows_differ(self) -> None:
        records = small()
        half = make_record(case={**records[0].case, "dtype": "bfloat16"}, case_id="half")
        assert "dtype" not in _columns()
        assert "dtype" in Page(made(html.Run("a", [*records, half]))).texts["button"]

    def test_the_newest_run_of_a_cell_counts_and_the_page_says_so(self) -> None:
        old, new = [make_record("vig_t", 224)], [make_record("vig_t", 224), make_record("vig_t", 512)]
        page = Page(made(html.Run("old", old), html.Run("new", new)))
        assert "1, of which 1 measured again in a later run" in page.texts["td"]
        assert page.texts["td"].count("new") == 2
        assert "old" not in page.texts["td"]


def _columns() -> list[str]:
    return [column.name for column in html._columns([html.Run("a", small())], frame(small()))]


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
        assert html._verified(records) == [
            ("deit_t", "has one mode", "0", "none"),
            ("vig_t", "one function", "7", "none"),
            ("vrwkv_t", "THE MODES DIFFER", "7", "gla scan"),
        ]
        (row,) = [row for row in html._ledger(records) if row[0].startswith("vig_t")]
        assert row[1:] == ("2", "agrees at 1 of 2", "agrees at 1 of 1; 1 not asked (too long)", "aten.odd", "87.50%")
        run = html.Run("a", records)
        facts = dict(html._facts(run, [run]))
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
        page = Page(made(html.Run("a", records)))
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
        assert {"vrwkv_t", "vig_t", "deit_t"} <= set(page.texts["td"])
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
        page = Page(made(html.Run("a", [failed(status, "why", work=None, second_count=None)])))
        assert page.faults == []
        assert any("(vig_t parallel 224)" in line for line in page.texts["li"])


@pytest.fixture(scope="module")
def shown(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Any, list[str]]]:
    """A page with a hostile record, without a network, and all that its console said or it asked for."""
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
    chromium = which("chromium") or which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    host = {**HOST, "device_name": HOSTILE}
    records = [make_record("vig_t", side, mode, host=host) for side in (224, 512) for mode in MODES]
    records += [make_record("deit_t", 224, host=host), failed("oom", HOSTILE, model="deit_t", side=512, host=host)]
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(made(html.Run("a", records)), encoding="utf-8")
    said: list[str] = []
    with sync_api.sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        page = chrome.new_context(offline=True).new_page()
        page.on("console", lambda message: said.append(message.text))
        page.on("pageerror", lambda error: said.append(str(error)))
        page.on("request", lambda asked: said.append(asked.url) if asked.url != file.as_uri() else None)
        page.goto(file.as_uri())
        yield page, said
        chrome.close()


class TestInABrowser:
    """What only a browser can tell. Skipped where there is none."""

    def test_it_draws_asks_for_nothing_and_runs_nothing_of_a_records(self, shown: tuple[Any, list[str]]) -> None:
        page, said = shown
        assert page.evaluate("[...document.querySelectorAll('.plot')].every((p) => p.querySelector('path.point'))")
        assert page.evaluate("window.hacked") is None
        assert said == []

    def test_a_hover_shows_the_record_and_a_click_its_row(self, shown: tuple[Any, list[str]]) -> None:
        page, said = shown
        point = page.locator("#plot-latency .points path").first
        point.scroll_into_view_if_needed()
        point.hover(force=True)
        hover = page.locator("#plot-latency .hoverlayer").filter(has_text="case ")
        hover.wait_for()
        text = hover.text_content()
        assert HOSTILE[:9] in text
        point.click(force=True)
        page.get_by_text("1 of 6 rows").wait_for()
        assert page.input_value("#filter") in text
        assert said == []

    def test_switches_filters_and_sorting_work_by_keyboard(self, shown: tuple[Any, list[str]]) -> None:
        page, said = shown
        log = page.locator("[data-axis=yaxis][data-plot=latency]")
        log.press("Enter")
        assert page.evaluate("document.getElementById('plot-latency')._fullLayout.yaxis.type") == "linear"
        assert log.get_attribute("aria-pressed") == "false"
        page.locator(".key[data-series=deit_t]").press("Space")
        drawn = page.evaluate("document.getElementById('plot-latency').data.map((t) => [t.legendgroup, t.visible])")
        assert {visible for group, visible in drawn if group == "deit_t"} == {False}
        assert {visible for group, visible in drawn if group != "deit_t"} == {True}
        page.fill("#filter", "vig_t recurrent")
        assert page.inner_text("#count") == "2 of 6 rows"
        page.press("#clear", "Enter")
        page.select_option("#status", "oom")
        assert page.inner_text("#count") == "1 of 6 rows"
        page.press("#clear", "Enter")
        at = _columns().index("latency (ms)")
        for order, reverse in (("ascending", False), ("descending", True)):
            page.locator("#rows thead button").nth(at).press("Enter")
            assert page.locator("#rows thead th").nth(at).get_attribute("aria-sort") == order
            cells = page.locator(f"#rows tbody td:nth-child({at + 1})").all_inner_texts()
            assert cells[-1] == ""
            known = [float(text) for text in cells[:-1]]
            assert known == sorted(known, reverse=reverse)
        assert said == []

    @pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (375, "dark")])
    def test_nothing_stands_in_anybodys_way(self, shown: tuple[Any, list[str]], width: int, scheme: str) -> None:
        axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs the extra [browser]").Axe()
        page, _ = shown
        page.set_viewport_size({"width": width, "height": 800})
        page.emulate_media(color_scheme=scheme)
        assert page.evaluate("document.documentElement.scrollWidth") <= width
        found = axe.run(page)["violations"]
        assert [(fault["impact"], fault["id"]) for fault in found] == []


def test_every_family_has_a_look_of_its_own_that_the_page_can_draw() -> None:
    """A user's own model and a family that nobody gave a look among them."""
    found = appearance.looks(["vig", "new", "newer", "vig"])
    assert len({found[family] for family in ("vig", "vision_gru", "external", "vim", "new", "newer")}) == 6
    for _, marker in [*appearance.FAMILIES.values(), *appearance.SPARE]:
        assert plots.SYMBOLS[marker] in html.SHAPES
    assert len(set(html.SHAPES.values())) == len(html.SHAPES)
