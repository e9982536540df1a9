// The figures, their common legend, and what a reader does with them.

const MOST_CURVES = 30; // in one figure; of more nobody can tell one from another
const listening = new Set(); // the keys of figures that answer to clicks and zooms

const ratioTitle = (cost) => `Over the baseline: ${cost.name}`;
const FIGURES = [
  ...data.panels.map((panel) => ({ key: panel.key, title: panel.title, note: panel.note, label: panel.label, sized: true, spec: costSpec(panel) })),
  ...COSTS.filter((cost) => ["latency_ms", "peak_memory_bytes", "throughput_img_s"].includes(cost.key)).map((cost) => ({
    key: `ratio-${cost.key}`, title: ratioTitle(cost), label: "ratio", sized: true, line: 1, spec: ratioSpec(cost),
    note: cost.less ? "Below 1 it needs less than the baseline." : "Above 1 it does more than the baseline.",
  })),
  { key: "accuracy", title: data.accuracy.title, note: data.accuracy.note, label: "top-1 (%)", sized: true, linear: true, spec: accuracySpec },
  { key: "front", title: "Accuracy against cost", label: "top-1 (%)", linear: true, spec: frontSpec,
    note: "Of the settings chosen at the top, every size. Grey: the front; no point drawn beats one of it in accuracy at its cost. Hollow: published, not measured." },
];
const crossed = () => (costOf(state.cost) ? `${costOf(state.cost).name}${costOf(state.cost).unit ? ` (${costOf(state.cost).unit})` : ""}` : "");

// The curves that the filter leaves, those of the most common setting first; and of these the ones that are drawn.
const candidates = () => {
  const left = new Set(shown.map((row) => row.curve));
  return curves.filter((curve) => left.has(curve.at)).sort((one, other) => other.first - one.first || one.at - other.at).slice(0, MOST_CURVES);
};
const countOfCurves = () => new Set(shown.map((row) => row.curve).filter((at) => at !== null)).size;
const drawnNow = () => { const off = hidden(); return candidates().filter((curve) => !off.has(curve.at)); };

const svg = (tag, attributes) => {
  const made = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [name, value] of Object.entries(attributes)) made.setAttribute(name, value);
  return made;
};
const swatch = (curve) => {
  const made = svg("svg", { class: "swatch", viewBox: "0 0 40 14", width: 40, height: 14, "aria-hidden": "true", focusable: "false" });
  const colour = colourOf(curve);
  made.append(svg("line", { x1: 1, y1: 7, x2: 39, y2: 7, stroke: colour, "stroke-width": 2, "stroke-dasharray": curve.dashes }), svg("path", { d: curve.shape, stroke: colour, "stroke-width": 1.5, fill: curve.mark.includes("open") ? "var(--paper)" : colour }));
  if (curve.mark.includes("dot")) made.append(svg("circle", { cx: 20, cy: 7, r: 1.6, fill: curve.mark.includes("open") ? colour : "var(--paper)" }));
  return made;
};
const hide = (set) => choose({ hide: [...set].sort((one, other) => one - other).join(",") });
const drawLegend = () => {
  const off = hidden();
  const focused = document.activeElement?.dataset?.curve;
  const keys = candidates().map((curve) => {
    const key = button("", () => { const set = hidden(); if (!set.delete(curve.at)) set.add(curve.at); hide(set); }, { class: "key", "data-curve": curve.at, "aria-pressed": String(!off.has(curve.at)) });
    key.append(swatch(curve), make("span", {}, curve.label));
    return key;
  });
  fill(byId("keys"), ...keys);
  if (focused !== undefined) keys.find((key) => key.dataset.curve === focused)?.focus();
  const count = countOfCurves();
  fill(byId("many"), count > MOST_CURVES ? `${MOST_CURVES} of ${thousands(count)} curves are drawn: of more nobody can tell one from another. A filter chooses others, as in model:vig_t dtype:float32.` : "");
};

// One figure with its buttons; plotly draws into it later.
const frameOf = (one) => {
  const place = make("div", { class: "plot", id: `plot-${one.key}`, role: "img" });
  const log = (axis, pressed) => {
    const made = button(`log ${axis}`, () => {
      const now = made.getAttribute("aria-pressed") !== "true";
      made.setAttribute("aria-pressed", String(now));
      one[axis] = now ? "log" : "linear";
      drawFigure(one);
    }, { "aria-pressed": String(pressed) });
    return made;
  };
  one.x = "log";
  one.y = one.linear ? "linear" : "log";
  const tools = make("div", { class: "tools", role: "group", "aria-label": `${one.title}: axes and picture` }, log("y", !one.linear), log("x", true), button("reset", () => drawFigure(one)), button("save as SVG", () => save(one)));
  return make("figure", { id: `figure-${one.key}` }, make("h3", {}, one.title), tools, place, make("figcaption", {}, one.note));
};
const save = (one) => {
  const { data: traces, layout } = byId(`plot-${one.key}`);
  const named = traces.map((trace) => ({ ...trace, showlegend: trace.mode === "lines+markers" }));
  Plotly.downloadImage({ data: named, layout: { ...layout, width: undefined, height: undefined, showlegend: true, paper_bgcolor: ink().card } }, { format: "svg", width: 900, height: 540, filename: `vbench-${one.key}` });
};

const specOf = (one) => {
  const kept = state.q ? new Set(shown) : null;
  return one.spec(drawnNow(), (row) => kept === null || kept.has(row));
};
const PAPER = { width: 470, height: 250, autosize: false }; // two beside each other on A4, landscape
const drawFigure = (one) => {
  const [place, traces] = [byId(`plot-${one.key}`), specOf(one)];
  const box = byId(`figure-${one.key}`);
  box.hidden = traces.length === 0;
  if (!traces.length) return;
  const lines = one.line === undefined ? {} : { shapes: [{ type: "line", xref: "paper", x0: 0, x1: 1, y0: one.line, y1: one.line, line: { width: 1, color: ink().quiet } }] };
  const x = axisOf(one.sized ? "image side (px)" : crossed(), one.x);
  const layout = layoutOf({ ...x, autorange: true }, { ...axisOf(one.label, one.y), autorange: true }, { ...lines, ...(printing ? PAPER : { autosize: true }) });
  const points = traces.filter((trace) => trace.mode === "lines+markers");
  const count = points.reduce((sum, trace) => sum + trace.y.filter((value) => value !== null).length, 0);
  place.setAttribute("aria-label", `${one.title}: ${one.label} against ${one.sized ? "image side" : crossed()}; ${count} points of ${points.length} curves. The rows are in the table below.`);
  Plotly.react(place, traces, layout, OPTIONS);
  Plotly.relayout(place, ticksOf(place, one.sized));
  if (listening.has(one.key)) return;
  listening.add(one.key);
  place.on("plotly_click", (event) => { const at = event.points[0].customdata; if (at !== null && at !== undefined) choose({ row: String(at) }); });
  place.on("plotly_relayout", (change) => {
    const moved = Object.keys(change).some((key) => /range|autosize|width/.test(key));
    if (moved) Plotly.relayout(place, ticksOf(place, one.sized));
  });
};
const drawFigures = () => {
  drawLegend();
  for (const one of FIGURES) drawFigure(one);
  const any = FIGURES.some((one) => !byId(`figure-${one.key}`).hidden);
  fill(byId("nothing-drawn"), any ? "" : curves.length ? "Nothing is drawn: no curve is chosen, or no row of it has a value." : "No cell was measured, so there is nothing to draw.");
};
const startFigures = () => {
  fill(byId("plots"), ...FIGURES.map(frameOf));
  const chosenBase = () => fill(byId("baseline"), select("baseline", "baseline", baselines(), state.baseline, (baseline) => choose({ baseline })));
  watch(["baseline"], chosenBase);
  watch(["q", "hide", "baseline"], drawFigures);
  watch(["cost", ...data.settings.map((one) => one.key)], () => drawFigure(FIGURES.at(-1)));
  chosenBase();
  drawFigures();
  byId("show-all").addEventListener("click", () => hide(new Set()));
  byId("show-none").addEventListener("click", () => hide(new Set(candidates().map((curve) => curve.at))));
  night.addEventListener("change", drawFigures);
};
