"""The page of a report in Chromium: what a reader does with it. Skipped where there is no browser."""

from __future__ import annotations

import csv
import json
from collections.abc import Iterator
from dataclasses import replace
from functools import cache
from io import StringIO
from itertools import pairwise
from pathlib import Path
from shutil import which
from typing import Any

import pytest
from fakes import HOST, failed, latency, make_record
from test_report_page import HOSTILE, MODES, made, unpacked

from vbench.reports import html, payload
from vbench.reports.runs import Run, runs_of, table_of
from vbench.results.frame import rows_of
from vbench.results.ratios import ratio
from vbench.results.store import Record
from vbench.results.text import tamed

OWN = "my.net:Net<img/src=x>&'"  # a model of a user
HOSTS = (HOST, {**HOST, "device_name": HOSTILE})
SHOWN = 4  # the record that is looked at: ViG at 1024 px, whose measurement others disturbed
DRAWN = "(key) => document.getElementById(`plot-${key}`).data.filter((t) => t.mode === 'lines+markers')"


@cache
def records() -> tuple[Record, ...]:
    """Two models in three sizes and a user's own, on two machines; and what ended."""
    found = []
    for host in HOSTS:
        found += [make_record("vig_t", side, mode, host=host) for side in (224, 512, 1024) for mode in MODES]
        found += [make_record("deit_t", side, host=host) for side in (224, 512)]
        found.append(failed("oom", f"out of memory {HOSTILE}", model="deit_t", side=1024, host=host))
    own = [make_record("deit_t", side) for side in (224, 512)]
    found += [replace(of, case={**of.case, "model": OWN}, case_id=f"own{at}") for at, of in enumerate(own)]
    at = SHOWN
    found[at] = replace(found[at], state={**(found[at].state or {}), "others_busy_share": 0.9})
    return tuple(found)


@cache
def later() -> tuple[Record, ...]:
    """A second run: ViG at 512 px takes half the time, the same at 224 px."""
    first = make_record("vig_t", 512)
    half = latency(ms / 2 for ms in (first.latency or {})["samples_ms"])
    day = "2026-02-01T00:00:00+00:00"
    return make_record("vig_t", 512, started_at=day, latency=half), make_record("vig_t", 224, started_at=day)


def both() -> list[Run]:
    return [Run("first", list(records())), Run("second", list(later()))]


class Shown:
    """A page that is open, and all that its console said or it asked for."""

    def __init__(self, browser: Any, file: Path) -> None:
        self.said: list[str] = []
        self.file = file
        self.context = browser.new_context(offline=True, accept_downloads=True, viewport={"width": 1280, "height": 800})
        self.page = self.context.new_page()
        self.page.set_default_timeout(20_000)
        self.page.on("console", lambda message: self.said.append(message.text))
        self.page.on("pageerror", lambda error: self.said.append(str(error)))
        self.page.on("request", lambda asked: self.said.append(asked.url) if asked.url != file.as_uri() else None)
        self.open()

    def open(self, chosen: str = "") -> None:
        """Read the page anew, with these choices in its address."""
        self.page.goto("about:blank")
        self.said.clear()
        self.page.goto(f"{self.file.as_uri()}{chosen and '#'}{chosen}")

    def until(self, true: str, argument: Any = None) -> None:
        """Wait until an expression is true. The page's policy forbids Playwright's own way to wait."""
        for _ in range(200):
            if self.page.evaluate(true, argument):
                return
            self.page.wait_for_timeout(50)
        raise AssertionError(f"never true: {true}")

    def sift(self, text: str) -> str:
        """What the page says of the rows under this filter."""
        self.page.fill("#filter", text)
        self.until("(q) => vbench.state.q === q", text)
        return str(self.page.inner_text("#count"))

    def choose(self, **chosen: str) -> None:
        self.page.evaluate("(chosen) => vbench.choose(chosen)", chosen)


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    sync_api = pytest.importorskip("playwright.sync_api", reason="needs the extra [browser]")
    chromium = which("chromium") or which("google-chrome")
    if chromium is None:
        pytest.skip("needs chromium")
    with sync_api.sync_playwright() as playwright:
        chrome = playwright.chromium.launch(executable_path=chromium, args=["--no-sandbox", "--disable-gpu"])
        yield chrome
        chrome.close()


@pytest.fixture(scope="module")
def opened(browser: Any, tmp_path_factory: pytest.TempPathFactory) -> Shown:
    file = tmp_path_factory.mktemp("page") / "report.html"
    file.write_text(made(*both()), encoding="utf-8")
    return Shown(browser, file)


@pytest.fixture
def shown(opened: Shown) -> Iterator[Shown]:
    """The page as it is at first; whatever a test does, it says no error, asks for nothing and runs nothing."""
    keys = opened.page.evaluate("Object.keys(vbench.state)")
    opened.choose(**{key: {"a": "0", "b": "1", "page": "1"}.get(key, "") for key in keys})
    yield opened
    assert opened.said == []
    assert opened.page.evaluate("window.hacked") is None


def test_every_figure_is_drawn(shown: Shown) -> None:
    there = "[...document.querySelectorAll('figure')].filter((f) => !f.hidden).map((f) => f.id.slice(7))"
    drawn = shown.page.evaluate(there)
    assert {"latency", "memory", "throughput", "macs", "ratio-latency_ms", "accuracy", "front"} <= set(drawn)
    for key in drawn:
        assert shown.page.evaluate("(key) => !!document.querySelector(`#plot-${key} path.point`)", key), key


def test_a_hover_is_the_record_and_a_click_its_calls(shown: Shown) -> None:
    page = shown.page
    shown.choose(q=f'case_id="{records()[SHOWN].case_id}" device:test')
    point = page.locator("#plot-latency .points path").first
    point.scroll_into_view_if_needed()
    point.hover(force=True)
    hover = page.locator("#plot-latency .hoverlayer").filter(has_text="case ")
    hover.wait_for()
    for part in ("vig_t parallel a test CPU", "time a call (ms)", "95%", "batch 1", records()[SHOWN].case_id):
        assert part in hover.text_content()
    point.click(force=True)
    page.locator("#detail[open]").wait_for()
    calls = page.evaluate("document.getElementById('strip').data.filter((t) => t.mode === 'markers').map((t) => t.y)")
    (drawn,) = calls
    assert drawn == pytest.approx((records()[SHOWN].latency or {})["samples_ms"], rel=1e-4)
    assert "contended" in page.inner_text("#facts")
    page.keyboard.press("Escape")
    shown.until("vbench.state.row === ''")


def test_a_hostile_text_is_text_in_every_hover_and_row(shown: Shown) -> None:
    tags = """() => [...document.querySelectorAll('.plot')].flatMap((place) => (place.data ?? [])
        .flatMap((trace) => [trace.text ?? [], trace.hovertext ?? []].flat()))
        .flatMap((text) => text.match(/<[^>]*>/g) ?? [])"""
    assert set(shown.page.evaluate(tags)) == {"<b>", "</b>", "<br>"}
    assert OWN in shown.page.inner_text("#rows")
    assert shown.page.evaluate("document.querySelectorAll('img').length") == 0


@pytest.mark.parametrize(
    ("asked", "count"),
    [
        ("", 20),
        ("vig_t recurrent", 6),
        ("status:oom", 2),
        ("-status:ok", 2),
        ("res>=512", 13),
        ("res:512 -mode:recurrent model:vig_t", 2),
        ("model:vig_t,deit_t res<512", 6),
        ("-contended vig_t", 11),
        ("model=deit_t", 6),
        ("latency>1000 latency<=2048", 4),
        (OWN, 2),
        ('reason:"out of memory"', 2),
        ("nobody", 0),
    ],
)
def test_a_filter_leaves_what_it_says(shown: Shown, asked: str, count: int) -> None:
    keep = "(text) => vbench.rows.filter(vbench.parseFilter(text).keep).length"
    assert shown.page.evaluate(keep, asked) == count
    if asked in ("-contended vig_t", "nobody"):
        assert shown.sift(asked).startswith(f"{count} of 20 rows")
        assert shown.page.locator("#rows tbody tr").count() == count


def test_a_filter_that_is_wrong_says_so(shown: Shown) -> None:
    assert shown.sift("colour>=3 res>=x vig_t").startswith("12 of 20 rows")
    said = shown.page.inner_text("#faults")
    assert "no column 'colour'" in said
    assert "'res>=x' has no number" in said


def test_choices_are_in_the_address_and_come_back_from_it(shown: Shown) -> None:
    page = shown.page
    shown.sift("res>=512 status:ok")
    page.locator("#rows thead button", has_text="latency (ms)").press("Enter")
    page.locator("#rows thead button", has_text="latency (ms)").press("Enter")
    page.select_option("[data-choice=size]", "512")
    page.select_option("[data-choice=cost]", "peak_memory_bytes")
    page.select_option("[data-choice=baseline]", "parallel")
    page.locator(".key").nth(1).press("Space")
    read = "[...document.querySelectorAll('#rows tbody tr')].map((row) => row.dataset.row)"
    before, verdict = page.evaluate(read), page.inner_text("#verdict-text")
    values = page.evaluate(f"{read}.map((at) => vbench.rows[at].latency_ms)")
    assert values == sorted(values, reverse=True)
    address = page.url.partition("#")[2]
    shown.open(address)
    assert page.evaluate(read) == before
    assert page.inner_text("#verdict-text") == verdict
    assert page.input_value("#filter") == "res>=512 status:ok"
    assert page.locator(".key[aria-pressed=false]").count() == 1
    assert page.input_value("[data-choice=baseline]") == "parallel"
    page.get_by_role("link", name="Rows", exact=True).click()
    assert page.url.partition("#")[2] == address
    shown.open()


def test_what_is_shown_can_be_had_as_csv_and_json(shown: Shown) -> None:
    shown.sift("deit_t")
    got = []
    for button in ("#csv", "#json"):
        with shown.page.expect_download() as waiting:
            shown.page.press(button, "Enter")
        got.append(Path(waiting.value.path()).read_text(encoding="utf-8"))
    table = [row for row in rows_of(table_of(both())) if row["model"] == "deit_t"]
    rows, parsed = list(csv.DictReader(StringIO(got[0]))), json.loads(got[1])
    assert len(rows) == len(parsed) == len(table) == 6
    for mine, plain, row in zip(rows, parsed, table, strict=True):
        assert (mine["case_id"], mine["reason"]) == (row["case_id"], tamed(row["reason"] or ""))
        known = row["latency_ms"] and pytest.approx(row["latency_ms"], rel=1e-6)
        assert plain["latency_ms"] == known
        assert (float(mine["latency_ms"]) if mine["latency_ms"] else None) == known
        assert isinstance(plain["flags"], list)


def test_ratios_are_those_of_the_frame(browser: Any, tmp_path: Path) -> None:
    """In every pair of rows of the README's run, some of them in turns; by time, memory and images/s."""
    there = runs_of([Path(__file__).parent.parent / "results" / "cpu"])
    file, table = tmp_path / "cpu.html", table_of(there)
    file.write_text(html.page(there, table, []), encoding="utf-8")
    real, rows = Shown(browser, file), rows_of(table)
    assert real.page.evaluate("vbench.data.turns.length") > 10
    for cost in ("latency_ms", "peak_memory_bytes", "throughput_img_s"):
        ours = real.page.evaluate(
            """(cost) => vbench.rows.map((one) => vbench.rows.map((other) => {
                const found = vbench.ratio(one, other, vbench.costOf(cost));
                return found && [found.value, found.lo, found.hi];
            }))""",
            cost,
        )
        for mine, line in zip(rows, ours, strict=True):
            for theirs, found in zip(rows, line, strict=True):
                known = ratio(mine, theirs, cost)
                expected = known and [known.value, known.lo, known.hi]
                assert (found is None) == (expected is None)
                if found and expected:
                    near = zip(found, expected, strict=True)
                    assert all(x == (y and pytest.approx(y, rel=2e-3)) for x, y in near), (mine, theirs, cost)
    assert real.said == []
    real.context.close()


def test_a_reader_chooses_the_baseline(shown: Shown) -> None:
    shown.sift('device:"a test"')

    def lines() -> dict[str, list[float]]:
        found = shown.page.evaluate(DRAWN, "ratio-latency_ms")
        return {trace["name"]: trace["y"] for trace in found}

    assert all("vig_t" in name for name in lines())
    assert "attention" in shown.page.locator("[data-choice=baseline] option:checked").inner_text()
    shown.page.select_option("[data-choice=baseline]", "vig_t parallel")
    mine = [values for name, values in lines().items() if name.startswith("deit_t")]
    rows = [row for row in rows_of(table_of(both())) if row["device_name"] == "a test CPU"]
    time = {(row["model"], row["mode"], row["height"]): row["latency_ms"] for row in rows}
    expected = [time["deit_t", "parallel", side] / time["vig_t", "parallel", side] for side in (224, 512)]
    assert mine == [pytest.approx(expected)]
    shown.page.select_option("[data-choice=baseline]", "parallel")
    assert {name.split()[1] for name in lines()} == {"recurrent"}


def test_the_verdict_names_the_winner_its_interval_and_what_is_missing(shown: Shown) -> None:
    page = shown.page
    device = "a test CPU"
    shown.choose(size="1024", device_name=device, cost="latency_ms")
    assert page.get_attribute("#verdict-text", "data-kind") == "tie"  # both modes of ViG take the same time
    assert "not told apart from it" in page.inner_text("#verdict-text")
    assert "deit_t (oom: out of memory" in page.inner_text("#verdict-notes")
    shown.choose(size="224")
    text = page.inner_text("#verdict-text")
    least = min(
        (row for row in rows_of(table_of(both())) if row["height"] == 224 and row["device_name"] == device),
        key=lambda row: row["latency_ms"],
    )
    assert f"{least['latency_ms']:#.4g}".rstrip(".") in text
    judged = """([one, other]) => vbench.judge([
        {...vbench.rows[0], ...one, at: -1}, {...vbench.rows[0], ...other, at: -2}], vbench.costOf("latency_ms"))"""
    near = {"latency_ms": 10, "latency_error": 0.01, "latency_freedom": 20, "wrong": None, "status": "ok"}
    assert page.evaluate(judged, [near, {**near, "latency_ms": 20}])["kind"] == "winner"
    assert "2.00× (1.94–2.06)" in page.evaluate(judged, [near, {**near, "latency_ms": 20}])["text"]
    assert page.evaluate(judged, [near, {**near, "latency_ms": 10.1}])["kind"] == "tie"
    assert page.evaluate(judged, [near, {**near, "latency_ms": None}])["kind"] == "alone"
    assert page.evaluate(judged, [{**near, "wrong": "bad"}, {**near, "latency_ms": None}])["kind"] == "none"


def test_the_front_has_what_no_other_point_beats(shown: Shown) -> None:
    points = [{"x": 1, "y": 70}, {"x": 2, "y": 69}, {"x": 3, "y": 75}, {"x": 3, "y": 80}, {"x": 9, "y": 80}]
    assert shown.page.evaluate("(points) => vbench.frontOf(points)", points) == [points[0], points[3]]


def test_two_runs_are_set_side_by_side(shown: Shown) -> None:
    lead = shown.page.inner_text("#beside-lead")
    assert lead.startswith(
        "2 cases are in first and second. In second, 1 need less time, 0 need more, 1 cannot be told"
    )
    first = shown.page.locator("#beside-rows tr").first.inner_text()
    assert "0.50×" in first
    assert "512" in first
    shown.page.select_option("[data-choice=b]", "0")
    assert shown.page.inner_text("#beside-lead") == "Choose two different runs."


def test_figures_follow_the_system_into_the_dark_and_back(shown: Shown) -> None:
    look = """() => [document.getElementById('plot-latency')._fullLayout.font.color,
        getComputedStyle(document.body).color, ...document.getElementById('plot-latency').data
        .filter((trace) => trace.mode === 'lines+markers').map((trace) => trace.line.color)]"""
    seen = {}
    followed = """document.getElementById('plot-latency')._fullLayout.font.color ===
        getComputedStyle(document.documentElement).getPropertyValue('--ink').trim()"""
    for scheme in ("light", "dark", "light"):
        shown.page.emulate_media(color_scheme=scheme)
        shown.until(followed)
        seen.setdefault(scheme, shown.page.evaluate(look))
        assert shown.page.evaluate(look) == seen[scheme]
    curves = shown.page.evaluate("vbench.curves.map((curve) => [curve.light, curve.dark])")
    assert {tuple(each) for each in zip(seen["light"][2:], seen["dark"][2:], strict=True)} <= set(map(tuple, curves))
    assert seen["light"][0] != seen["dark"][0]


def test_paper_gets_light_figures_all_rows_and_landscape_pages(shown: Shown) -> None:
    page = shown.page
    page.emulate_media(color_scheme="dark")
    page.evaluate("dispatchEvent(new Event('beforeprint'))")
    assert page.evaluate("document.getElementById('plot-latency')._fullLayout.width") == 470
    assert page.evaluate("document.getElementById('plot-latency')._fullLayout.font.color") == "#1b1b1b"
    assert page.locator("#rows tbody tr").count() == 20
    page.evaluate("dispatchEvent(new Event('afterprint'))")
    assert page.evaluate("document.getElementById('plot-latency')._fullLayout.font.color") != "#1b1b1b"
    printed = page.pdf(prefer_css_page_size=True)
    assert b"/MediaBox [0 0 841" in printed
    page.emulate_media(color_scheme="light")


@pytest.mark.parametrize(("width", "scheme"), [(1280, "light"), (390, "dark")])
def test_nothing_stands_in_anybodys_way(shown: Shown, width: int, scheme: str) -> None:
    axe = pytest.importorskip("axe_core_python.sync_playwright", reason="needs the extra [browser]").Axe()
    page = shown.page
    page.set_viewport_size({"width": width, "height": 800})
    page.emulate_media(color_scheme=scheme)
    assert page.evaluate("document.documentElement.scrollWidth") <= width
    for row in ("", "0"):
        shown.choose(row=row)
        found = axe.run(page)["violations"]
        assert [(fault["impact"], fault["id"], fault["nodes"][0]["html"]) for fault in found] == []
    shown.choose(row="")


def test_labels_of_an_axis_do_not_overlap_on_a_phone(shown: Shown) -> None:
    shown.page.set_viewport_size({"width": 390, "height": 800})
    shown.until("document.getElementById('plot-latency')._fullLayout.width < 390")
    boxes = """() => [...document.querySelectorAll('figure:not([hidden]) .plot')].map((place) => [
        [...place.querySelectorAll('.xtick text')].map((t) => t.getBoundingClientRect()).map((b) => [b.left, b.right]),
        [...place.querySelectorAll('.ytick text')].map((t) => t.getBoundingClientRect()).map((b) => [b.top, b.bottom])
        ])"""
    for plot in shown.page.evaluate(boxes):
        for axis in plot:
            ends = sorted(axis)
            assert len(ends) > 1
            assert all(before[1] <= after[0] for before, after in pairwise(ends)), ends
    shown.page.set_viewport_size({"width": 1280, "height": 800})


def test_a_legend_stays_in_sight(shown: Shown) -> None:
    shown.page.evaluate("document.getElementById('figure-macs').scrollIntoView({behavior: 'instant'})")
    top = shown.page.evaluate("document.querySelector('.legend').getBoundingClientRect().top")
    assert 0 <= top < 400


def test_ten_thousand_rows_can_be_used(browser: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Of very many rows only a page is in the document, and of very many curves those that a filter chooses."""
    few_rows = payload.payload([Run("a", list(records()))], table_of([Run("a", list(records()))]))
    rows = {name: unpacked(column) for name, column in few_rows["rows"].items()}
    count, copies = len(rows["model"]), 500
    many = {name: list(column) * copies for name, column in rows.items() if column}
    own = few_rows["curves"]
    many["curve"] = [at if at is None else at + len(own) * copy for copy in range(copies) for at in rows["curve"]]
    many["phase"] = [f"phase{copy}" for copy in range(copies) for _ in range(count)]
    few_rows["curves"] = [
        {**curve, "label": f"{curve['label']} phase{copy}", "setting": curve["setting"] + 9 * copy, "nearest": None}
        for copy in range(copies)
        for curve in own
    ]
    few_rows["rows"] = {name: payload._packed(column) for name, column in many.items()}
    monkeypatch.setattr("vbench.reports.html.payload", lambda *_: few_rows)
    file = tmp_path / "many.html"
    file.write_text(made(Run("a", list(records()))), encoding="utf-8")
    many_shown = Shown(browser, file)
    page = many_shown.page
    assert page.evaluate("vbench.rows.length") == count * copies == 10_000
    assert page.locator("#rows tbody tr").count() == 50
    assert page.locator(".key").count() == 30
    assert "30 of 3,500 curves are drawn" in page.inner_text("#many")
    assert many_shown.sift("phase:phase77 vig_t").startswith("12 of 10,000 rows")
    assert page.inner_text("#many") == ""
    assert page.locator(".key").count() == 4
    many_shown.sift("deit_t")
    page.locator("#pages button", has_text="next").click()
    assert "rows 51 to 100 of 3,000" in page.inner_text("#pages")
    assert many_shown.said == []
    many_shown.context.close()
