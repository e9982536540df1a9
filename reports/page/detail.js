// One row: what its record says, and each of its timed calls, launch by launch.

const FACTS = [
  ["status", (row) => row.status],
  ["reason", (row) => row.reason],
  ["flags", (row) => (row.flags || "none").split(" ").join(", ")],
  ["latency", (row) => row.latency_ms !== null && `${figure(row.latency_ms)} ms${intervalOf(row, { key: "latency_ms", scale: 1 })} at batch ${row.latency_batch}`],
  ["interval", (row) => row.latency_basis && `${row.latency_level === null ? "no known level" : `${Math.round(100 * row.latency_level)} %`}; covers: ${row.latency_basis}`],
  ["over the baseline", (row) => overText(row)],
  ["images/s", (row) => row.throughput_img_s !== null && `${figure(row.throughput_img_s)}${intervalOf(row, { key: "throughput_img_s", scale: 1 })} at batch ${row.batch}`],
  ["peak memory", (row) => row.peak_memory_bytes !== null && `${figure(row.peak_memory_bytes / MIB)} MiB at batch ${row.memory_batch}`],
  ["work", (row) => row.macs !== null && `${figure(row.macs / 1e9)} GMACs; ${row.params === null ? "parameters not known" : `${figure(row.params / 1e6)} M parameters`}`],
  ["settings", (row) => data.settings.map(({ key, label }) => `${label} ${row[key]}`).join(", ")],
  ["device", (row) => row.device_name],
  ["run", (row) => data.runs.length > 1 && row.run],
  ["case", (row) => row.case_id],
];

// The calls of a launch from left to right in the order they were made; the bar is the launch's median.
const stripOf = (launches) => {
  const { quiet, ink: colour } = ink();
  const traces = launches.map(([launch, , times], at) => ({
    type: "scatter", mode: "markers", name: `launch ${launch}`,
    x: times.map((_, call) => at + (times.length > 1 ? call / (times.length - 1) - 0.5 : 0) * 0.7),
    y: times,
    marker: { size: 6, opacity: 0.75, color: colour },
    text: times.map((ms, call) => `launch ${launch}, call ${call * data.samples_step + 1}: ${figure(ms)} ms`),
    hovertemplate: "%{text}<extra></extra>",
  }));
  const middle = (times) => { const sorted = times.toSorted((one, other) => one - other); return (sorted[(sorted.length - 1) >> 1] + sorted[sorted.length >> 1]) / 2; };
  const bars = launches.map(([, , times], at) => ({ type: "scatter", mode: "lines", x: [at - 0.42, at + 0.42], y: [middle(times), middle(times)], line: { color: quiet, width: 3 }, hoverinfo: "skip" }));
  return [...bars, ...traces];
};
const drawStrip = (row) => {
  const launches = data.samples[row.at];
  const place = byId("strip");
  Plotly.purge(place);
  place.hidden = !launches;
  const kept = data.samples_step > 1 ? ` Of the calls every ${data.samples_step}th is shown.` : "";
  fill(byId("strip-note"), launches ? `Each timed call, by launch, in the order of calls. Bar: the median of a launch.${kept}` : "No call of this row was timed.");
  if (!launches) return;
  const x = { ...axisOf("launch", "linear"), tickmode: "array", tickvals: launches.map((_, at) => at), ticktext: launches.map(([launch]) => String(launch)), range: [-0.6, Math.max(1, launches.length) - 0.4] };
  const interval = row.latency_error === null ? [] : [{ type: "rect", xref: "paper", x0: 0, x1: 1, y0: row.latency_ms_lo, y1: row.latency_ms_hi, fillcolor: ink().quiet, opacity: 0.18, line: { width: 0 } }];
  place.setAttribute("aria-label", `${launches.length} launches; calls from ${figure(Math.min(...launches.flatMap(([, , times]) => times)))} to ${figure(Math.max(...launches.flatMap(([, , times]) => times)))} ms`);
  Plotly.newPlot(place, stripOf(launches), layoutOf(x, axisOf("time a call (ms)", "linear"), { shapes: interval }), OPTIONS);
};
const drawDetail = () => {
  const dialog = byId("detail");
  const row = state.row === "" ? undefined : rows[Number(state.row)];
  if (!row) {
    if (dialog.open) dialog.close();
    return;
  }
  fill(byId("detail-title"), `${row.curve === null ? subjectOf(row) : curves[row.curve].label}, ${row.size} px`);
  const facts = FACTS.map(([name, say]) => [name, say(row)]).filter(([, said]) => said);
  fill(byId("facts"), ...facts.flatMap(([name, said]) => [make("dt", {}, name), make("dd", {}, said)]));
  if (!dialog.open) dialog.showModal();
  drawStrip(row);
};
const startDetail = () => {
  byId("detail").addEventListener("close", () => choose({ row: "" }));
  byId("close").addEventListener("click", () => byId("detail").close());
  watch(["row"], drawDetail);
  night.addEventListener("change", drawDetail);
  drawDetail();
};
