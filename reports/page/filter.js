// The filter: words, status:ok, res>=512, -contended, "two words", model:vig_t,deit_t.

const NUMBERS = {
  res: (row) => row.side,
  size: (row) => row.side,
  latency: (row) => row.latency_ms,
  ms: (row) => row.latency_ms,
  memory: (row) => (row.peak_memory_bytes === null ? null : row.peak_memory_bytes / MIB),
  speed: (row) => row.throughput_img_s,
  gmacs: (row) => (row.macs === null ? null : row.macs / 1e9),
};
const SEARCHED = ["name", "model", "mode", "form", "size", "status", "flags", "reason", "run", "case_id", ...data.settings.map((one) => one.key)];
const textOf = new Map();
const words = (row) => {
  if (!textOf.has(row)) textOf.set(row, SEARCHED.map((name) => row[name] ?? "").join(" ").toLowerCase());
  return textOf.get(row);
};
const hasColumn = (name) => name in data.rows || name in NUMBERS || name === "device";
const readOf = (name) => NUMBERS[name] ?? ((row) => row[name === "device" ? "device_name" : name]);
// The texts of a column that a filter may name: a model has its name, and the label that readers know it by.
const textsOf = (column, read) => {
  if (column === "model") return (row) => [row.model, row.name];
  if (column === "res" || column === "size") return (row) => [row.size];
  return (row) => [read(row)];
};

const COMPARISONS = {
  ">=": (one, other) => one >= other,
  "<=": (one, other) => one <= other,
  ">": (one, other) => one > other,
  "<": (one, other) => one < other,
  "=": (one, other) => one === other,
};

// One part of a filter as a test of a row, or a line on what is wrong with it.
const partOf = (text) => {
  const [, name, sign, value] = text.match(/^([a-z]\w*)(>=|<=|>|<|=|:)(.*)$/i) ?? [];
  const column = name?.toLowerCase();
  if (sign === undefined || (sign === ":" && !hasColumn(column))) {
    const word = text.toLowerCase(); // a name with a colon is a word
    return { keep: (row) => words(row).includes(word) };
  }
  if (!hasColumn(column)) return { fault: `no column '${name}'; try res, status, model, latency, memory, flags or a column of the rows` };
  const read = readOf(column);
  if (sign === ":" || (sign === "=" && (value === "" || Number.isNaN(Number(value))))) {
    const wanted = value.toLowerCase().split(",").filter(Boolean);
    if (!wanted.length) return { fault: `'${text}' has no value; write it like status:ok` };
    const texts = textsOf(column, read);
    const fits = sign === ":" ? (known, one) => known.includes(one) : (known, one) => known === one;
    return { keep: (row) => texts(row).some((known) => wanted.some((one) => fits(String(known ?? "").toLowerCase(), one))) };
  }
  const bound = Number(value);
  if (value === "" || Number.isNaN(bound)) return { fault: `'${text}' has no number; write it like res>=512` };
  return { keep: (row) => { const known = read(row); return known !== null && COMPARISONS[sign](Number(known), bound); } };
};

// {keep: row -> bool, faults: lines}. A part that is wrong is left out, and said.
const parseFilter = (text) => {
  const parts = (text.match(/-?(?:[^\s"]+:)?"[^"]*"|\S+/g) ?? []).map((part) => part.replace(/"/g, "")).filter((part) => part && part !== "-");
  const [tests, faults] = [[], []];
  for (const part of parts) {
    const out = part.startsWith("-");
    const { keep, fault } = partOf(out ? part.slice(1) : part);
    if (fault) faults.push(fault);
    else tests.push(out ? (row) => !keep(row) : keep);
  }
  return { keep: (row) => tests.every((test) => test(row)), faults };
};
