// The line on top: who wins at the reader's size, batch and precision; and what was not measured there.

const MOST_NAMED = 6;

const most = (values) => {
  const counts = new Map();
  for (const value of values) counts.set(value, (counts.get(value) ?? 0) + 1);
  return [...counts.entries()].sort((one, other) => other[1] - one[1])[0]?.[0];
};
// What is chosen at first: the settings, and the largest size, with most measured rows; of equal ones the papers' size.
const chosenAtFirst = () => {
  let left = rows.filter((row) => row.status === "ok");
  if (!left.length) left = rows;
  const first = {};
  for (const { key } of data.settings) {
    first[key] = String(most(left.map((row) => row[key])));
    left = left.filter((row) => String(row[key]) === first[key]);
  }
  const counts = sizes.map(([size]) => [size, left.filter((row) => row.size === size).length]);
  const best = counts.filter(([, count]) => count === Math.max(...counts.map((one) => one[1]))).map(([size]) => size);
  return { ...first, size: best.includes("1024") ? "1024" : best.at(-1) };
};
const FIRST = chosenAtFirst();
const chosen = (key) => state[key] || FIRST[key];
const underSettings = (row) => data.settings.every(({ key }) => String(row[key]) === chosen(key));

const ERRORS = { latency_ms: "latency_error", throughput_img_s: "throughput_error", cost_per_million: "throughput_error" };
const valueOf = (row, cost) => `${figure(row[cost.key] / cost.scale)}${cost.unit ? ` ${cost.unit}` : ""}`;
const intervalOf = (row, cost) => {
  const text = span(...["lo", "hi"].map((end) => (row[`${cost.key}_${end}`] ?? null) && row[`${cost.key}_${end}`] / cost.scale));
  if (!text) return "";
  const error = ERRORS[cost.key];
  return error && row[error] === null ? ` [${text}, few samples]` : ` (${text})`;
};

// Why cells have no cost, each reason once, with the names of its cells.
const missingOf = (lacking, cost) => {
  const reasons = new Map();
  for (const row of lacking) {
    const why = row.wrong ?? (row.status === "ok" ? `no ${cost.name}` : row.reason ? `${row.status}: ${row.reason}` : row.status);
    reasons.set(why, [...(reasons.get(why) ?? []), subjectOf(row)]);
  }
  return [...reasons].map(([why, names]) => {
    const more = names.length > MOST_NAMED ? [...names.slice(0, MOST_NAMED), `${names.length - MOST_NAMED} more`] : names;
    return `${listed(more)} (${why})`;
  });
};

// {kind: "winner" | "tie" | "alone" | "none", text, best, missing: lines} of rows under one setting at one size.
const judge = (candidates, cost) => {
  const good = candidates.filter((row) => row.status === "ok" && !row.wrong && row[cost.key] !== null);
  good.sort((one, other) => (cost.less ? 1 : -1) * (one[cost.key] - other[cost.key]));
  const missing = missingOf(candidates.filter((row) => !good.includes(row)), cost);
  const [best, ...rest] = good;
  if (!best) return { kind: "none", text: "Nothing was measured here.", best: null, missing };
  const own = `${subjectOf(best)}: ${valueOf(best, cost)}${intervalOf(best, cost)}`;
  if (!rest.length) return { kind: "alone", text: `Only one was measured here, ${own}.`, best, missing };
  const over = (row) => (cost.less ? ratio(row, best, cost) : ratio(best, row, cost));
  const said = (row) => {
    const found = over(row);
    if (!found) return `${subjectOf(row)}: ${valueOf(row, cost)}, at another batch`;
    const open = found.lo === null ? ", without an interval" : "";
    return `${subjectOf(row)}: ${valueOf(row, cost)}${intervalOf(row, cost)}, ${times(found)}${open}`;
  };
  const another = rest.find((row) => row.model !== best.model);
  const other = (row) => (another && another !== row ? `; best other model ${said(another)}` : "");
  const ties = rest.filter((row) => { const found = over(row); return found && found.lo !== null && !isTold(found); });
  if (ties.length) {
    const names = ties.slice(0, MOST_NAMED).map((row) => `${subjectOf(row)}, ${times(over(row))}`);
    const more = ties.length > MOST_NAMED ? ` and ${ties.length - MOST_NAMED} more` : "";
    const beyond = ties.includes(another) ? "" : other(null);
    return { kind: "tie", text: `No single winner. ${own}; not told apart from it: ${names.join("; ")}${more}${beyond}.`, best, missing };
  }
  return { kind: "winner", text: `${subjectOf(best)} wins: ${valueOf(best, cost)}${intervalOf(best, cost)}; next ${said(rest[0])}${other(rest[0])}.`, best, missing };
};

// "At 1024 px, float32, batch knee, by time a call".
const whereNow = () => {
  const words = data.settings.map(({ key, label }) => (/^(dtype|device_name)$/.test(key) ? chosen(key) : `${label} ${chosen(key)}`));
  return [`At ${chosen("size")} px`, ...words, `by ${costOf(state.cost).name}`].join(", ");
};
const verdictNow = () => judge(rows.filter((row) => row.size === chosen("size") && underSettings(row)), costOf(state.cost));

const drawVerdict = () => {
  const found = verdictNow();
  const place = byId("verdict-text");
  place.dataset.kind = found.kind;
  fill(place, `${whereNow()}: ${found.text}`);
  const notes = ["(a–b): 95 % interval; ×: over the first."];
  const flags = found.best?.flags;
  if (flags) notes.push(`Flags of ${subjectOf(found.best)}: ${flags.split(" ").join(", ")}.`);
  if (found.missing.length) {
    const more = found.missing.length > MOST_NAMED ? ` and ${found.missing.length - MOST_NAMED} more` : "";
    notes.push(`Not measured here: ${found.missing.slice(0, MOST_NAMED).join("; ")}${more}.`);
  } else notes.push("Every cell of this choice was measured.");
  fill(byId("verdict-notes"), notes.join(" "));
};

const labelled = (text, control) => make("label", {}, `${text} `, control);
const select = (key, label, values, current, changed) => {
  const made = make("select", { "data-choice": key });
  made.append(...values.map(([value, text]) => option(value, text, value === current)));
  made.addEventListener("change", () => changed(made.value));
  return labelled(label, made);
};
const drawChoices = () => {
  const controls = [
    select("size", "size (px)", sizes.map(([size]) => [size, size]), chosen("size"), (size) => choose({ size })),
    ...data.settings.map(({ key, label, values }) =>
      select(key, label, values.map((value) => [String(value), String(value)]), chosen(key), (value) => choose({ [key]: value }))),
    select("cost", "by", COSTS.map((cost) => [cost.key, cost.name]), costOf(state.cost)?.key, (cost) => choose({ cost })),
  ];
  fill(byId("choices"), ...controls);
};

const startVerdict = () => {
  if (!rows.length || !COSTS.length) {
    fill(byId("verdict-text"), "No cell was measured, so nothing can be said.");
    return;
  }
  const keys = ["size", "cost", ...data.settings.map((one) => one.key)];
  watch(keys, () => { drawChoices(); drawVerdict(); });
  drawChoices();
  drawVerdict();
};
