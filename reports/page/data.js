// The rows and curves of the page, from the JSON beside this script.

const data = JSON.parse(byId("data").textContent);

const columns = Object.entries(data.rows).filter(([, packed]) => packed !== null);
const valueAt = (packed, at) => {
  if (Array.isArray(packed)) return packed[at];
  return packed.at[at] === null ? null : packed.of[packed.at[at]];
};
const height = data.rows.height ?? [];
const rows = height.map((_, at) => {
  const row = Object.fromEntries(Object.keys(data.rows).map((name) => [name, null]));
  for (const [name, packed] of columns) row[name] = valueAt(packed, at);
  row.at = at;
  row.side = Math.sqrt(row.height * row.width);
  row.size = row.height === row.width ? `${row.height}` : `${row.height}x${row.width}`;
  row.name = data.names[row.model];
  return row;
});

const curves = data.curves.map((curve, at) => ({ ...curve, at, rows: [] }));
for (const row of rows) if (row.curve !== null) curves[row.curve].rows.push(row);
for (const curve of curves) curve.rows.sort((one, other) => one.side - other.side);

const subjectOf = (row) => (row.curve === null ? `${row.name} ${row.mode}` : curves[row.curve].subject);
const sizes = [...new Map(rows.map((row) => [row.size, row.side])).entries()].sort((one, other) => one[1] - other[1]);

const MIB = 2 ** 20;
const COSTS = [
  { key: "latency_ms", name: "time a call", unit: "ms", scale: 1, batch: "latency_batch", error: "latency", less: true },
  { key: "peak_memory_bytes", name: "peak memory", unit: "MiB", scale: MIB, batch: "memory_batch", less: true },
  { key: "throughput_img_s", name: "images/s", unit: "images/s", scale: 1, batch: "batch", error: "throughput", less: false },
  { key: "energy_j_per_image", name: "energy of an image", unit: "J", scale: 1, batch: "batch", less: true },
  { key: "cost_per_million", name: data.extras.cost_per_million ?? "cost", unit: "", scale: 1, batch: "batch", error: "throughput", less: true },
  { key: "macs", name: "work", unit: "GMACs", scale: 1e9, batch: null, less: true },
].filter((cost) => rows.some((row) => row[cost.key] !== null));
const costOf = (key) => COSTS.find((cost) => cost.key === key) ?? COSTS[0];
