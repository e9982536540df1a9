// How figures look: layout, ticks that do not overlap, and the parts of a curve.

const finger = matchMedia("(pointer: coarse)").matches; // there a drag scrolls the page
const FONT = "system-ui, 'DejaVu Sans', sans-serif";
const OPTIONS = { displayModeBar: false, responsive: true };
const LETTER = 7; // px of width in a tick's label

const axisOf = (title, type) => {
  const { ink: colour, line } = ink();
  return { title: { text: title, standoff: 6 }, type, showline: true, linecolor: line, gridcolor: line, zeroline: false, tickangle: 0, color: colour };
};
const layoutOf = (x, y, extra = {}) => {
  const { ink: colour, card, quiet } = ink();
  return {
    margin: { l: 72, r: 18, t: 12, b: 46 },
    showlegend: false,
    hovermode: "closest",
    dragmode: finger ? false : "zoom",
    paper_bgcolor: "rgba(0,0,0,0)",
    plot_bgcolor: "rgba(0,0,0,0)",
    font: { family: FONT, size: 12, color: colour },
    hoverlabel: { align: "left", bgcolor: card, bordercolor: quiet, font: { family: FONT, size: 12, color: colour } },
    xaxis: x,
    yaxis: y,
    ...extra,
  };
};

// Those of {at, text} that have room on an axis of so many px; the first and the last one come first.
const roomy = (ticks, place, pixels, reach) => {
  const kept = [];
  const free = (tick) => kept.every((other) => Math.abs(place(tick) - place(other)) * pixels > (reach(tick) + reach(other)) / 2);
  for (const tick of [ticks.at(-1), ticks[0], ...ticks.filter((one) => one.strong), ...ticks]) {
    if (tick && !kept.includes(tick) && free(tick)) kept.push(tick);
  }
  return kept.sort((one, other) => one.at - other.at);
};
const placeOn = (type, [low, high]) => {
  const put = type === "log" ? (value) => Math.log10(value) : (value) => value;
  return ({ at }) => (put(at) - low) / (high - low || 1);
};
// The sizes of images along x. A power of two is taken before its neighbours.
const sizeTicks = (axis, pixels) => {
  const place = placeOn(axis.type, axis.range);
  const inside = sizes.map(([text, at]) => ({ at, text, strong: Number.isInteger(Math.log2(at)) })).filter((tick) => place(tick) >= -0.01 && place(tick) <= 1.01);
  const kept = roomy(inside, place, pixels, ({ text }) => text.length * LETTER + 10);
  return { tickmode: "array", tickvals: kept.map((tick) => tick.at), ticktext: kept.map((tick) => tick.text) };
};
const tickText = (at) => (at >= 1e6 ? `${Number((at / 1e6).toPrecision(3))} M` : at >= 1000 ? thousands(Math.round(at)) : String(Number(at.toPrecision(3))));
// 1, 2, 5, 10 ... along a logarithmic axis; a short one has 1, 1.5, 2, 3 ... or what plotly chooses.
const logTicks = (axis, pixels, wide) => {
  const [low, high] = axis.range;
  for (const steps of [[1, 2, 5], [1, 1.5, 2, 3, 5, 7], [1, 1.2, 1.4, 1.6, 1.8, 2, 2.5, 3, 3.5, 4, 5, 6, 7, 8, 9]]) {
    const ticks = [];
    for (let power = Math.floor(low); power <= high; power += 1) {
      for (const step of steps) {
        const at = step * 10 ** power;
        if (Math.log10(at) >= low && Math.log10(at) <= high) ticks.push({ at, text: tickText(at), strong: step === 1 });
      }
    }
    if (ticks.length < 3) continue;
    const kept = roomy(ticks, placeOn("log", axis.range), pixels, wide ? ({ text }) => text.length * LETTER + 12 : () => 20);
    return { tickmode: "array", tickvals: kept.map((tick) => tick.at), ticktext: kept.map((tick) => tick.text) };
  }
  return { tickmode: "auto", nticks: 5 };
};
const ticksOf = (place, sized) => {
  const { xaxis, yaxis } = place._fullLayout;
  const found = {};
  const put = (name, ticks) => { for (const [key, value] of Object.entries(ticks)) found[`${name}.${key}`] = value; };
  put("xaxis", sized ? sizeTicks(xaxis, xaxis._length) : xaxis.type === "log" ? logTicks(xaxis, xaxis._length, true) : { tickmode: "auto", nticks: 6 });
  put("yaxis", yaxis.type === "log" ? logTicks(yaxis, yaxis._length, false) : { tickmode: "auto", nticks: 8 });
  return found;
};

const lineOf = (curve, points, text) => ({
  type: "scatter",
  mode: "lines+markers",
  name: escaped(curve.label),
  meta: curve.at,
  x: points.map((point) => point.x),
  y: points.map((point) => point.y),
  line: { color: colourOf(curve), dash: curve.dash, width: 2 },
  marker: { color: colourOf(curve), symbol: curve.symbol + curve.mark, size: 8 },
  text,
  customdata: points.map((point) => point.row?.at ?? null),
  hovertemplate: "%{text}<extra></extra>",
});
const barsOf = (points) => ({
  type: "data",
  symmetric: false,
  array: points.map(({ y, hi }) => (hi === null || y === null ? 0 : hi - y)),
  arrayminus: points.map(({ y, lo }) => (lo === null || y === null ? 0 : y - lo)),
  thickness: 1.5,
  width: 3,
});
// The interval as a filled shape, with gaps where a point has none.
const bandOf = (curve, points) => {
  const [x, y] = [[], []];
  let run = [];
  const close = () => {
    if (run.length > 1) {
      x.push(...run.map((point) => point.x), ...run.toReversed().map((point) => point.x), null);
      y.push(...run.map((point) => point.hi), ...run.toReversed().map((point) => point.lo), null);
    }
    run = [];
  };
  for (const point of points) {
    if (point.y === null || point.lo === null || point.hi === null) close();
    else run.push(point);
  }
  close();
  if (!x.length) return [];
  return [{ type: "scatter", mode: "lines", meta: curve.at, x, y, line: { width: 0 }, fill: "toself", fillcolor: `${colourOf(curve)}33`, hoverinfo: "skip" }];
};
// What a point says of its record.
const aboutRow = (row) => [
  ...wrapped([row.mode, row.form && `form ${row.form}`, row.dtype, row.phase, row.backend].filter(Boolean).join(", ")),
  ...wrapped(`flags: ${row.flags || "none"}`),
  ...wrapped(`${row.device_name}${data.runs.length > 1 ? `; run ${row.run}` : ""}`),
  `case ${escaped(row.case_id)}`,
];
