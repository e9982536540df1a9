// The rows: filter, order, pages, download. Only one page of rows is in the document.

const A_PAGE = 50;
const MOST_PRINTED = 2000;

const overText = (row) => times(overBaseline(row, COSTS.find((cost) => cost.key === "latency_ms") ?? COSTS[0]));
const told = data.settings.filter(({ values }) => values.length > 1);
const has = (key) => rows.some((row) => row[key] !== null && row[key] !== undefined);
const number = (head, key, scale = 1) => ({ head, key, number: true, value: (row) => row[key], text: (row) => (row[key] === null ? "" : figure(row[key] / scale)) });
const text = (head, key) => ({ head, key, value: (row) => row[key], text: (row) => (row[key] === null ? "" : String(row[key])) });
const withInterval = (head, key) => ({ ...number(head, key), text: (row) => (row[key] === null ? "" : valueOf(row, { key, scale: 1, unit: "" }) + intervalOf(row, { key, scale: 1 })) });
const LONGEST = 90; // characters of a reason in the table; its record has it whole
const cut = (reason) => (reason.length > LONGEST ? `${reason.slice(0, LONGEST).trimEnd()} …` : reason);
const HEADS = [
  { head: "model", key: "model", value: (row) => row.name, text: (row) => row.name },
  text("mode", "mode"),
  text("form", "form"),
  ...told.map(({ key, label }) => ({ ...text(label, key), number: rows.some((row) => typeof row[key] === "number") })),
  ...(data.runs.length > 1 ? [text("run", "run")] : []),
  { head: "size (px)", key: "side", number: true, value: (row) => row.side, text: (row) => row.size },
  text("status", "status"),
  number("GMACs", "macs", 1e9),
  withInterval("latency (ms)", "latency_ms"),
  { head: "over baseline", key: "over", number: true, value: (row) => overBaseline(row, COSTS[0])?.value ?? null, text: overText },
  { ...number("images/s", "throughput_img_s"), text: (row) => (row.throughput_img_s === null ? "" : `${figure(row.throughput_img_s)} (batch ${row.batch})`) },
  number("peak memory (MiB)", "peak_memory_bytes", MIB),
  number("J an image", "energy_j_per_image"),
  ...Object.entries(data.extras).map(([key, head]) => number(head, key)),
  { head: "flags, reason", key: "flags", value: (row) => row.flags || null, text: (row) => [(row.flags || "").split(" ").join(", "), cut(row.reason ?? "")].filter(Boolean).join("; ") },
].filter(({ key }) => key in DEFAULTS || ["side", "over", "model"].includes(key) || has(key));

const ordered = () => {
  const down = state.sort.startsWith("-");
  const head = HEADS.find(({ key }) => key === state.sort.replace(/^-/, ""));
  if (!head) return shown;
  const values = new Map(shown.map((row) => [row, head.value(row)]));
  return shown.toSorted((one, other) => {
    const [x, y] = [values.get(one), values.get(other)];
    if (x === null || y === null) return (x === null) - (y === null) || one.at - other.at; // what is missing comes last
    return (x < y ? -1 : x > y ? 1 : 0) * (down ? -1 : 1) || one.at - other.at;
  });
};
// A number and what stands in parentheses behind it: a line may break between the two alone.
const parted = (said, isNumber) => {
  const at = isNumber ? said.indexOf(" (") : -1;
  return at < 0 ? [said] : [said.slice(0, at + 1), make("span", { class: "whole" }, said.slice(at + 1))];
};
const rowOf = (row) => {
  const cells = HEADS.map(({ head, number: isNumber, text: say }, at) => {
    const said = say(row);
    if (at === 0) return make("th", { scope: "row" }, button(said, () => choose({ row: String(row.at) }), { class: "open", title: "its record and its samples" }));
    return make("td", { class: isNumber ? "number" : null, "data-head": said ? head : null }, ...parted(said, isNumber));
  });
  return make("tr", { "data-status": row.status, "data-row": row.at }, ...cells);
};
const pager = (place, page, count, size, turn) => {
  const last = Math.max(1, Math.ceil(count / size));
  const go = (label, to, off) => { const made = button(label, () => turn(String(to))); made.disabled = off; return made; };
  fill(place, ...(last === 1 ? [] : [go("previous", page - 1, page <= 1), ` rows ${thousands((page - 1) * size + 1)} to ${thousands(Math.min(count, page * size))} of ${thousands(count)} `, go("next", page + 1, page >= last)]));
};
// A table wider than the page scrolls sideways; else its heads stay in sight.
const fit = () => {
  for (const box of all(".fit")) {
    box.classList.remove("scroll");
    box.classList.toggle("scroll", box.firstElementChild.scrollWidth > box.clientWidth + 1);
  }
};
const drawRows = () => {
  const found = ordered();
  const size = printing ? MOST_PRINTED : A_PAGE;
  const page = printing ? 1 : Math.min(Math.max(1, Number(state.page) || 1), Math.max(1, Math.ceil(found.length / size)));
  fill(byId("rows").tBodies[0], ...found.slice((page - 1) * size, page * size).map(rowOf));
  pager(byId("pages"), page, found.length, A_PAGE, (to) => choose({ page: to }));
  fit();
  fill(byId("printed"), printing && found.length > MOST_PRINTED ? `The first ${thousands(MOST_PRINTED)} of ${thousands(found.length)} rows.` : "");
};
const drawHeads = () => {
  const [sorted, down] = [state.sort.replace(/^-/, ""), state.sort.startsWith("-")];
  const heads = all("#rows thead th");
  HEADS.forEach(({ key }, at) => heads[at].setAttribute("aria-sort", sorted !== key ? "none" : down ? "descending" : "ascending"));
  byId("sort").value = state.sort;
};
const drawCount = () => {
  const failed = shown.filter((row) => row.status !== "ok").length;
  fill(byId("count"), `${thousands(shown.length)} of ${thousands(rows.length)} rows${failed ? `, ${thousands(failed)} not measured` : ""}`);
  fill(byId("faults"), faults.join("; "));
  if (byId("filter").value !== state.q) byId("filter").value = state.q;
};

// Download: the rows that are shown, in their order, with the columns of summary.csv and the ratio to the baseline.
const INTERNAL = new Set(["curve", "latency_error", "latency_freedom", "throughput_error", "throughput_freedom", "wrong"]);
const plainRows = () => {
  const names = columns.map(([name]) => name).filter((name) => !INTERNAL.has(name));
  return ordered().map((row) => {
    const over = overBaseline(row, COSTS[0]);
    const plain = Object.fromEntries(names.map((name) => [name, row[name]]));
    return { ...plain, over_baseline: over?.value ?? null, over_baseline_lo: over?.lo ?? null, over_baseline_hi: over?.hi ?? null };
  });
};
// A text that a spreadsheet would read as a formula gets an apostrophe in front of it.
const cell = (value) => {
  const said = value === null ? "" : typeof value === "string" ? value.replace(/(^|;\s*)(?=[=+\-@＝＋－＠])/g, "$1'") : String(value);
  return /[",\n]/.test(said) ? `"${said.replace(/"/g, '""')}"` : said;
};
const toCsv = (found) => {
  const names = Object.keys(found[0] ?? {});
  return [names, ...found.map((row) => names.map((name) => row[name]))].map((line) => line.map(cell).join(",")).join("\n") + "\n";
};
const toJson = (found) => `${JSON.stringify(found.map((row) => ({ ...row, flags: (row.flags ?? "").split(" ").filter(Boolean) })), null, 1)}\n`;
const download = (name, kind, content) => {
  const link = make("a", { href: URL.createObjectURL(new Blob([content], { type: kind })), download: name });
  link.click();
  setTimeout(() => URL.revokeObjectURL(link.href), 1000);
};

const startTable = () => {
  const sorter = (key) => () => choose({ sort: state.sort === key ? `-${key}` : key });
  const heads = HEADS.map(({ head, key, number: isNumber }) => make("th", { scope: "col", "aria-sort": "none", class: isNumber ? "number" : null }, button(head, sorter(key))));
  fill(byId("rows").tHead.rows[0], ...heads);
  const orders = HEADS.flatMap(({ head, key }) => [[key, `${head}, least first`], [`-${key}`, `${head}, greatest first`]]);
  byId("sort").append(option("", "as measured"), ...orders.map(([value, said]) => option(value, said)));
  byId("sort").addEventListener("change", () => choose({ sort: byId("sort").value }));
  let waiting;
  byId("filter").addEventListener("input", () => { clearTimeout(waiting); waiting = setTimeout(() => choose({ q: byId("filter").value.trim() }), 150); });
  byId("clear").addEventListener("click", () => { byId("filter").value = ""; choose({ q: "", sort: "", page: "1" }); });
  byId("csv").addEventListener("click", () => download("vbench.csv", "text/csv", toCsv(plainRows())));
  byId("json").addEventListener("click", () => download("vbench.json", "application/json", toJson(plainRows())));
  addEventListener("resize", fit);
  watch(["q"], drawCount);
  watch(["sort"], drawHeads);
  watch(["q", "sort", "page", "baseline"], drawRows);
  drawCount();
  drawHeads();
  drawRows();
};
