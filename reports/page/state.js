// What the reader chose. It stands in the address after "#", so that a link shows the same page to others.

const DEFAULTS = { q: "", sort: "", page: "1", size: "", cost: "", baseline: "", hide: "", row: "", a: "0", b: String(data.runs.length - 1) };
for (const setting of data.settings) DEFAULTS[setting.key] = "";
const state = { ...DEFAULTS };
const watchers = [];

// Call `render` when one of these keys has changed.
const watch = (keys, render) => watchers.push([keys, render]);

const readAddress = () => {
  const found = new URLSearchParams(location.hash.slice(1));
  return Object.fromEntries(Object.entries(DEFAULTS).map(([key, value]) => [key, found.get(key) ?? value]));
};
const writeAddress = () => {
  const chosen = Object.entries(state).filter(([key, value]) => value !== DEFAULTS[key]);
  const hash = new URLSearchParams(chosen).toString();
  history.replaceState(null, "", hash ? `#${hash}` : location.pathname + location.search);
};
const apply = (changes) => {
  const changed = Object.keys(changes).filter((key) => state[key] !== changes[key]);
  Object.assign(state, changes);
  for (const [keys, render] of watchers) if (keys.some((key) => changed.includes(key))) render();
};
const choose = (changes) => {
  apply("page" in changes || !("q" in changes || "sort" in changes) ? changes : { ...changes, page: "1" });
  writeAddress();
};

// The rows that the filter leaves.
let shown = rows;
let faults = [];
const sift = () => {
  const { keep, faults: found } = parseFilter(state.q);
  shown = state.q ? rows.filter(keep) : rows;
  faults = found;
};
const hidden = () => new Set(state.hide.split(",").filter(Boolean).map(Number));
