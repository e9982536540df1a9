// Two runs side by side: the cases that both have, and what changed from one to the other.

const sameBatch = (one, other, at) => one.batches[at] === other.batches[at];
const changeOf = (before, after) => {
  if (before.latency_ms === null || after.latency_ms === null || !sameBatch(before, after, 0)) return null;
  return independent(after.latency_ms / before.latency_ms, [after.error, before.error], [after.freedom, before.freedom]);
};
const memoryOf = (before, after) => (before.peak_memory_bytes === null || after.peak_memory_bytes === null || !sameBatch(before, after, 1) ? "" : `${(after.peak_memory_bytes / before.peak_memory_bytes).toFixed(2)}×`);
const saidOf = (one) => (one.status === "ok" && one.latency_ms !== null
  ? `${figure(one.latency_ms)}${one.error === null ? "" : ` (${span(one.latency_ms_lo, one.latency_ms_hi)})`}`
  : one.reason ? `${one.status}: ${one.reason}` : one.status);

let pageOfCases = 1;
const drawBeside = () => {
  const [a, b] = [Number(state.a), Number(state.b)];
  const both = data.beside.filter((one) => one.of[a] && one.of[b]).map((one) => ({ ...one, before: one.of[a], after: one.of[b], change: changeOf(one.of[a], one.of[b]) }));
  const far = ({ change }) => (change ? Math.abs(Math.log(change.value)) : -1);
  both.sort((one, other) => far(other) - far(one));
  const compared = both.filter(({ change }) => change && change.lo !== null);
  const faster = compared.filter(({ change }) => change.hi < 1).length;
  const slower = compared.filter(({ change }) => change.lo > 1).length;
  const machines = (side) => [...new Set(both.map((one) => one[side].device))].join(", ");
  const where = both.length && machines("before") !== machines("after") ? ` ${data.runs[a]} was measured on ${machines("before")}, ${data.runs[b]} on ${machines("after")}.` : "";
  const names = `${data.runs[a]} and ${data.runs[b]}`;
  fill(byId("beside-lead"), a === b ? "Choose two different runs." : both.length
    ? `${thousands(both.length)} cases are in ${names}. In ${data.runs[b]}, ${faster} need less time, ${slower} need more, ${compared.length - faster - slower} cannot be told apart, and ${both.length - compared.length} have no interval in both.${where}`
    : `No case is in both of ${names}.`);
  byId("beside-scroll").hidden = a === b || !both.length;
  pageOfCases = Math.min(pageOfCases, Math.max(1, Math.ceil(both.length / A_PAGE)));
  const page = both.slice((pageOfCases - 1) * A_PAGE, pageOfCases * A_PAGE);
  const headed = (head, said, isNumber) => make("td", { class: isNumber ? "number" : null, "data-head": head }, ...parted(said, isNumber));
  const lines = (printing ? both.slice(0, MOST_PRINTED) : page).map((one) => make("tr", {},
    make("th", { scope: "row" }, one.name), headed("size (px)", one.size, true),
    headed(`${data.runs[a]} (ms)`, saidOf(one.before), true), headed(`${data.runs[b]} (ms)`, saidOf(one.after), true),
    headed("time", one.change ? `${times(one.change)}${one.change.lo !== null && !isTold(one.change) ? ", not told apart" : ""}` : "", true),
    headed("peak memory", memoryOf(one.before, one.after), true)));
  const heads = ["case", "size (px)", `${data.runs[a]} (ms)`, `${data.runs[b]} (ms)`, "time, second over first", "peak memory, second over first"];
  fill(byId("beside-head"), ...heads.map((head, at) => make("th", { scope: "col", class: at ? "number" : null }, head)));
  fill(byId("beside-rows"), ...(a === b ? [] : lines));
  fit();
  pager(byId("beside-pages"), pageOfCases, both.length, A_PAGE, (to) => { pageOfCases = Number(to); drawBeside(); });
};
const startBeside = () => {
  if (data.runs.length < 2) return;
  const names = data.runs.map((name, at) => [String(at), name]);
  const controls = () => fill(byId("beside-choices"),
    select("a", "first run", names, state.a, (a) => choose({ a })),
    select("b", "second run", names, state.b, (b) => choose({ b })));
  watch(["a", "b"], () => { pageOfCases = 1; controls(); drawBeside(); });
  controls();
  drawBeside();
};
