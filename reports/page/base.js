// Elements, numbers as text, and the colours of the day: what all parts of the page use.

const byId = (id) => document.getElementById(id);
const all = (selector) => [...document.querySelectorAll(selector)];

// An element with attributes and children; text is always text, never markup.
const make = (tag, attributes = {}, ...children) => {
  const made = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (value !== undefined && value !== null && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
};
const fill = (place, ...children) => place.replaceChildren(...children);
const option = (value, text, chosen) => {
  const made = make("option", { value }, text);
  made.selected = chosen;
  return made;
};
const button = (text, pressed, attributes = {}) => {
  const made = make("button", { type: "button", ...attributes }, text);
  made.addEventListener("click", pressed);
  return made;
};

// Text inside a hover, which plotly reads as markup.
const escaped = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");
const wrapped = (text, width = 60) => {
  const lines = [""];
  for (const word of String(text).split(/\s+/)) {
    for (let rest = word; rest; rest = rest.slice(width)) {
      const part = rest.slice(0, width);
      if (lines.at(-1) && lines.at(-1).length + part.length + 1 > width) lines.push("");
      lines[lines.length - 1] += (lines.at(-1) ? " " : "") + part;
    }
  }
  return lines.map(escaped);
};

// Four significant digits, with a thousands separator.
const figure = (value) => {
  if (value === null || value === undefined) return "";
  if (!value) return "0";
  if (Number.isInteger(value) || Math.abs(value) >= 1000) return Math.round(value).toLocaleString("en-US");
  return Number(value.toPrecision(4)).toString().includes("e") ? value.toExponential(3) : padded(value);
};
const padded = (value) => value.toPrecision(4).replace(/\.$/, "");
const span = (low, high) => (low === null || high === null || low === undefined || high === undefined ? "" : `${figure(low)}–${figure(high)}`);
const thousands = (count) => count.toLocaleString("en-US");
const listed = (parts) => (parts.length > 1 ? `${parts.slice(0, -1).join(", ")} and ${parts.at(-1)}` : parts.join(""));

// Dark or light, as the reader's system says; paper is always light.
const night = matchMedia("(prefers-color-scheme: dark)");
let printing = false;
const isDark = () => night.matches && !printing;
const ink = () => {
  const style = getComputedStyle(document.documentElement);
  const of = (name) => style.getPropertyValue(name).trim();
  return printing
    ? { ink: "#1b1b1b", quiet: "#555555", line: "#d4d4d0", card: "#ffffff" }
    : { ink: of("--ink"), quiet: of("--quiet"), line: of("--line"), card: of("--card") };
};
const colourOf = (curve) => (isDark() ? curve.dark : curve.light);
