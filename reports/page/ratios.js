// One row over another, with its 95 % interval: as vbench.results.ratios has it.

const turns = new Map(data.turns.map(([one, other, value, lo, hi, blocks]) => [`${one} ${other}`, { value, lo, hi, blocks }]));

const inTurns = (above, below) => {
  const found = turns.get(`${above.at} ${below.at}`);
  if (found) return found;
  const other = turns.get(`${below.at} ${above.at}`);
  const over = (end) => (end === null ? null : 1 / end);
  return other ? { value: 1 / other.value, lo: over(other.hi), hi: over(other.lo), blocks: other.blocks } : null;
};

// How many standard errors a 95 % interval reaches, by the degrees of freedom (null: as many as can be).
const quantile = (freedom) => {
  const at = freedom === null ? 0 : 1 / Math.max(1, freedom);
  const known = data.quantiles.toSorted((one, other) => one[0] - other[0]);
  const above = Math.max(1, known.findIndex(([place]) => place >= at));
  const [[x0, y0], [x1, y1]] = [known[above - 1], known[above]];
  return y0 + ((y1 - y0) * (at - x0)) / (x1 - x0);
};

// Independent and log-normal: standard errors add in quadrature, degrees of freedom as Welch and Satterthwaite say.
const independent = (value, errors, freedoms) => {
  if (errors.includes(null) || errors.includes(undefined)) return { value, lo: null, hi: null, blocks: null };
  const squares = errors.map((error) => error ** 2);
  const sum = squares[0] + squares[1];
  const below = squares.reduce((total, square, at) => total + (freedoms[at] === null ? 0 : square ** 2 / freedoms[at]), 0);
  const half = Math.sqrt(sum) * quantile(below ? sum ** 2 / below : null);
  return { value, lo: value * Math.exp(-half), hi: value * Math.exp(half), blocks: null };
};

const alike = (above, below, batch) => {
  if (batch === "batch" && above.batch_policy === "max" && below.batch_policy === "max") return true;
  return batch === null || above[batch] === below[batch];
};

// The ratio of a cost of two rows; null if one lacks it or proves nothing, or if their batches differ.
const ratio = (above, below, cost) => {
  const [over, under] = [above[cost.key], below[cost.key]];
  if (over === null || !under || above.wrong || below.wrong || !alike(above, below, cost.batch)) return null;
  const taken = cost.key === "latency_ms" ? inTurns(above, below) : null;
  if (taken && taken.lo !== null && taken.hi !== null) return taken;
  const both = (name) => [above, below].map((row) => (cost.error ? row[`${cost.error}_${name}`] : null));
  const apart = independent(over / under, both("error"), both("freedom"));
  return apart.lo === null ? taken ?? apart : apart;
};

const isTold = ({ lo, hi }) => lo !== null && hi !== null && (lo > 1 || hi < 1);
const digitsOf = ({ lo, hi }) => {
  let digits = 2;
  while (lo !== null && hi !== null && lo < hi && digits < 4 && lo.toFixed(digits) === hi.toFixed(digits)) digits += 1;
  return digits;
};
const times = (found) => {
  if (!found) return "";
  const digits = digitsOf(found);
  const parts = found.lo === null || found.hi === null ? [] : [`${found.lo.toFixed(digits)}–${found.hi.toFixed(digits)}`];
  if (found.blocks !== null) parts.push("in turns");
  return `${found.value.toFixed(digits)}×${parts.length ? ` (${parts.join(", ")})` : ""}`;
};
