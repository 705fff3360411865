// Elements are made from text, never from markup: whatever an id or a title holds is shown, not obeyed.
const $ = (id) => document.getElementById(id);

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "text") node.textContent = value;
    else if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  node.append(...children.filter((child) => child !== null && child !== undefined));
  return node;
}

const el = (tag, attributes = {}, ...children) => fill(document.createElement(tag), attributes, children);
const svg = (tag, attributes = {}, ...children) =>
  fill(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const rgb = (color, alpha = 1) => `rgb(${color[0]} ${color[1]} ${color[2]} / ${alpha})`;

function swatch(color) {
  const node = el("span", { class: "swatch", "aria-hidden": "true" });
  if (color) node.style.backgroundColor = rgb(color);
  return node;
}

// A long name may break after each underscore.
const breakable = (text) => text.split(/(?<=_)/).flatMap((part) => [part, el("wbr")]);

// The masks of a catalog all end alike, which a list need not repeat.
const sourceName = (item) => (item.id ?? "?").replace(/(?<=.)_cloudmask$/, "");

const isNumber = (value) => typeof value === "number" && Number.isFinite(value);
const percent = (value) => (isNumber(value) ? `${value.toFixed(1)} %` : "–");
const short = (value) => (isNumber(value) ? value.toFixed(1) : "–");
const itemCount = (items) => `${items.length} ${items.length === 1 ? "item" : "items"}`;
const day = (time) => (time === null ? "no date" : new Date(time).toISOString().slice(0, 10));
const days = (first, last) => (day(first) === day(last) ? day(first) : `${day(first)} to ${day(last)}`);
const minute = (time) => (time === null ? "no date" : `${new Date(time).toISOString().slice(0, 16).replace("T", " ")} UTC`);
const meters = (value) => value >= 1e4 ? `${(value / 1e3).toFixed(1)} km` : `${Number(value.toFixed(value < 10 ? 1 : 0)).toLocaleString("en")} m`;

// The page's own check of what Python already checked: a reference leads to the web or to a file, or nowhere.
function link(href, text) {
  let target = null;
  try {
    target = typeof href === "string" ? new URL(href, document.baseURI) : null;
  } catch {
    target = null;
  }
  if (target === null || !["http:", "https:", "file:"].includes(target.protocol)) return el("span", { text });
  return el("a", { href, text, target: "_blank", rel: "noopener noreferrer" });
}
