// The traces of each figure, from the curves that are drawn.

const MOST_BANDS = 12; // curves with bands; of more one hides the other
const MOST_NAMED_ENDS = 8;
const ENDINGS = { oom: "out of memory", timeout: "time-out", error: "error" };
const PARALLEL = "its own parallel mode";
const NEAREST = "attention, nearest in parameters";

const pointsOf = (curve, panel, keep) => curve.rows.filter(keep).map((row) => {
  const value = row[panel.column];
  const [lo, hi] = ["lo", "hi"].map((end) => row[`${panel.column}_${end}`] ?? null);
  const stated = panel.column !== "latency_ms" || row.latency_error !== null; // a range is no interval
  const scaled = (known) => (known === null || !stated ? null : known / panel.unit);
  return { row, x: row.side, y: value > 0 ? value / panel.unit : null, lo: scaled(lo), hi: scaled(hi) };
});
const hoverOf = (curve, panel) => ({ row, y, lo, hi }) => {
  if (y === null) return "";
  const between = span(lo, hi);
  const said = [`<b>${escaped(curve.label)}</b>, ${row.size} px`, `${panel.label}: ${figure(y)}${between ? ` (${between})` : ""}`];
  if (panel.key === "latency" && between) said.push(`interval: ${Math.round(100 * row.latency_level)}%, ${escaped(row.latency_basis)}`);
  if (panel.batch && row[panel.batch] !== null) said.push(`batch ${row[panel.batch]}`);
  return [...said, ...aboutRow(row)].join("<br>");
};
// A mark where a curve ends because the next cell failed.
const endingOf = (curve, points, named) => {
  const last = points.findLastIndex((point) => point.y !== null);
  const beyond = last < 0 ? undefined : points.slice(last + 1).find(({ row }) => row.status in ENDINGS);
  if (!beyond) return [];
  const { row } = beyond;
  const [colour, y] = [colourOf(curve), points[last].y];
  const said = [`<b>${escaped(curve.label)}</b>, ${row.size} px: ${ENDINGS[row.status]}`, ...(row.reason ? wrapped(row.reason) : []), ...aboutRow(row)];
  const common = { type: "scatter", meta: curve.at };
  return [
    { ...common, mode: "lines", x: [points[last].x, row.side], y: [y, y], line: { color: colour, dash: "dot", width: 2 }, hoverinfo: "skip" },
    {
      ...common, mode: named ? "markers+text" : "markers", x: [row.side], y: [y], marker: { color: colour, symbol: "x", size: 10 },
      text: [row.status === "oom" ? "OOM" : ENDINGS[row.status]], textposition: "top left", textfont: { color: ink().ink },
      hovertext: [said.join("<br>")], customdata: [row.at], hovertemplate: "%{hovertext}<extra></extra>",
    },
  ];
};
const costSpec = (panel) => (drawn, keep) => drawn.flatMap((curve) => {
  const points = pointsOf(curve, panel, keep);
  if (points.every((point) => point.y === null)) return [];
  const band = drawn.length <= MOST_BANDS ? bandOf(curve, points) : [];
  const ends = panel.measured ? endingOf(curve, points, drawn.length <= MOST_NAMED_ENDS) : [];
  return [...band, lineOf(curve, points, points.map(hoverOf(curve, panel))), ...ends];
});

// The curve that another is divided by; undefined if there is none under its settings.
const baselineOf = (curve) => {
  const wanted = state.baseline;
  if (wanted === "") return curves[curve.nearest];
  if (wanted === "parallel") return curve.mode === "parallel" ? undefined : curves.find((one) => one.setting === curve.setting && one.mode === "parallel" && one.model === curve.model);
  return curves.find((one) => one.setting === curve.setting && one.subject === wanted);
};
const overBaseline = (row, cost) => {
  const base = row.curve === null ? undefined : baselineOf(curves[row.curve]);
  const other = base?.rows.find((one) => one.size === row.size);
  return other && other !== row ? ratio(row, other, cost) : null;
};
const baselines = () => {
  const subjects = [...new Set(curves.map((curve) => curve.subject))];
  const found = [];
  if (curves.some((curve) => curve.nearest !== null)) found.push(["", NEAREST]);
  else found.push(["", "none"]);
  if (curves.some((curve) => curve.mode === "recurrent")) found.push(["parallel", PARALLEL]);
  return [...found, ...subjects.map((subject) => [subject, subject])];
};
const ratioSpec = (cost) => (drawn, keep) => drawn.flatMap((curve) => {
  const base = baselineOf(curve);
  if (!base || base === curve) return [];
  const points = curve.rows.filter(keep).flatMap((row) => {
    const found = overBaseline(row, cost);
    return found ? [{ row, x: row.side, y: found.value, lo: found.lo, hi: found.hi, found }] : [];
  });
  if (!points.length) return [];
  const text = points.map(({ row, found }) => [
    `<b>${escaped(curve.label)}</b> over <b>${escaped(base.label)}</b>, ${row.size} px`,
    `${cost.name}: ${times(found)}`,
    found.blocks === null ? "measured in separate launches" : `measured in turns, ${found.blocks} blocks`,
    ...aboutRow(row),
  ].join("<br>"));
  const line = lineOf(curve, points, text);
  const bars = points.some((point) => point.lo !== null) ? { error_y: { ...barsOf(points), color: colourOf(curve) } } : {};
  return [{ ...line, ...bars }];
});

const accuracySpec = (drawn) => data.accuracy.points.flatMap((own) => {
  const curve = curves[own.curve];
  if (!drawn.some((one) => one.model === curve.model)) return [];
  const points = own.side.map((side, at) => ({ x: side, y: own.top1[at], lo: own.lo[at], hi: own.hi[at] }));
  const text = points.map(({ y, lo, hi }, at) => [
    `<b>${escaped(data.names[own.name] ?? own.name)}</b>, ${Math.round(own.side[at])} px`,
    `top-1 ${own.published ? `${y} %` : `${y.toFixed(2)} % (${lo.toFixed(2)}–${hi.toFixed(2)})`}`,
    ...own.said[at].flatMap((line) => wrapped(line)),
  ].join("<br>"));
  const line = lineOf(curve, points, text);
  if (!own.published) return [{ ...line, error_y: { ...barsOf(points), color: colourOf(curve) } }];
  return [{ ...line, marker: { ...line.marker, symbol: `${curve.symbol}-open`, line: { width: 2 } }, line: { ...line.line, dash: "dot", width: 1.5 } }];
});

// Accuracy against a cost, from small images to large ones; no point beats one of the front at its cost or less.
const frontOf = (points) => {
  const front = [];
  for (const point of points.toSorted((one, other) => one.x - other.x || other.y - one.y)) {
    if (!front.length || point.y > front.at(-1).y) front.push(point);
  }
  return front;
};
const frontSpec = (drawn, keep) => {
  const cost = costOf(state.cost);
  if (!cost) return [];
  const sign = cost.less ? 1 : -1;
  const own = drawn.map((curve) => [curve, curve.rows.filter((row) => keep(row) && underSettings(row) && row.top1 !== null && !row.wrong && row[cost.key] > 0)]).filter(([, found]) => found.length);
  const every = own.flatMap(([, found]) => found.map((row) => ({ x: sign * row[cost.key] / cost.scale, y: row.top1 })));
  if (!every.length) return [];
  const front = frontOf(every).map(({ x, y }) => ({ x: sign * x, y }));
  const step = { type: "scatter", mode: "lines", x: front.map(({ x }) => x), y: front.map(({ y }) => y), line: { color: ink().quiet, width: 8, shape: "hv" }, opacity: 0.35, hoverinfo: "skip", name: "front" };
  return [step, ...own.map(([curve, found]) => {
    const points = found.map((row) => ({ row, x: row[cost.key] / cost.scale, y: row.top1, lo: row.top1_lo, hi: row.top1_hi }));
    const text = points.map(({ row, y, lo, hi }) => [
      `<b>${escaped(curve.label)}</b>, ${row.size} px`,
      `top-1 ${y.toFixed(2)} % (${lo.toFixed(2)}–${hi.toFixed(2)}), ${escaped(row.top1_source)}`,
      `${cost.name}: ${escaped(valueOf(row, cost) + intervalOf(row, cost))}`,
      ...aboutRow(row),
    ].join("<br>"));
    const line = lineOf(curve, points, text);
    const symbol = points.map(({ row }) => (row.top1_source.startsWith("measured") ? curve.symbol : `${curve.symbol}-open`));
    return { ...line, marker: { ...line.marker, symbol, line: { width: 2, color: colourOf(curve) } }, error_y: { ...barsOf(points), color: colourOf(curve) } };
  })];
};
