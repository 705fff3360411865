// What is to be read beside the picture: why a pixel is what it is, the legend, the item's facts and files.
const CLASS_NAMES = ["clear", "cloud", "cloud shadow", "no data"];
const REMOVED = 64;
const ADDED = 128;

function because(scene, byte) {
  const [code, product] = [byte & 3, (byte >> 2) & 3];
  const reach = scene.thresholds[code === 1 ? "cloud_buffer" : "shadow_buffer"];
  if (code === 3) return "The scene has no pixel here, or SCL says so.";
  if (!scene.has_votes) return "Which source flagged it was not published; process with --votes to see it here.";
  if (byte & ADDED) return `The buffer${reach ? ` of ${meters(reach)}` : ""} around ${CLASS_NAMES[code]} added it.`;
  if (code === 0) return byte & REMOVED ? "A source flagged it, and the merge policy or the clean-up removed it." : "No source flags cloud or shadow here.";
  const model = byte & (code === 1 ? 16 : 32);
  const name = CLASS_NAMES[code];
  if (model && !scene.has_product) return `The model finds ${name}; SCL was not used.`;
  if (model) return product === code ? `The model and SCL both find ${name}.` : `The model finds ${name}, SCL does not.`;
  if (product === code) return `SCL has ${name} here, the model does not.`;
  return `Most of the mask's pixels here are ${name}, though most have no vote for it.`;
}

// What a model says: its vote, and its probability beside the threshold.
function model(scene, name, vote, row, col) {
  const value = valueAt(scene, name, row, col);
  const voted = scene.has_votes ? (vote ? "yes" : "no") : null;
  if (value === null || value === 255) return el("span", { class: vote ? "yes" : null, text: voted ?? "not published" });
  const low = value * INDEX.step;
  const bar = el("span", { class: `bar ${name}`, "aria-hidden": "true" });
  bar.style.setProperty("--now", `${low}%`);
  const threshold = scene.thresholds[name];
  const tick = isNumber(threshold) ? el("i") : null;
  if (tick) tick.style.left = `${threshold}%`;
  bar.append(...(tick ? [tick] : []));
  const chance = `${low === 100 ? "100" : `${low}–${low + INDEX.step}`} %${tick ? `, needs ${threshold} %` : ""}`;
  return el("span", {}, el("b", { text: voted ? `${voted}, ` : "" }), chance, bar);
}

function pixelRows(scene, byte, row, col) {
  const scl = valueAt(scene, "scl", row, col);
  const bit = (one) => (scene.has_votes ? (byte & one ? "yes" : "no") : "not published");
  const product = scene.has_product ? CLASS_NAMES[(byte >> 2) & 3] : "not used";
  const named = scl === null ? product : `${product} (${scl}: ${(INDEX.scl[scl]?.title ?? "unknown").toLowerCase()})`;
  return [
    ["SCL", named],
    ["Cloud model", model(scene, "cloud", byte & 16, row, col)],
    ["Shadow model", model(scene, "shadow", byte & 32, row, col)],
    ["Removed", bit(REMOVED)],
    ["Buffer added", bit(ADDED)],
  ];
}

function resolution(scene) {
  const factor = scene.unit;
  const { gsd } = scene.grid;
  const own = factor === 1 ? `one pixel of the mask, ${meters(gsd)}` : `${meters(factor * gsd)}: the most frequent value of ${factor} × ${factor} pixels of the mask (${meters(gsd)})`;
  const coarse = Object.entries(scene.planes).filter(([, plane]) => plane.factor > factor);
  const names = coarse.filter(([name]) => name !== "mask").map(([name]) => (name === "scl" ? "SCL" : `${name} probability`)).join(", ");
  const rest = names ? ` At ${meters(coarse[0][1].factor * gsd)}: ${names}.` : "";
  const means = scene.planes.cloud ? ` Probabilities are means in steps of ${INDEX.step} %.` : "";
  return `Read from the pictures in this file, where a pixel is ${own}.${rest}${means}`;
}

// The middle of a pixel of the picture: on the ground, and in the command that tells all about the mask's pixel there.
function place(scene, row, col) {
  const { grid } = scene;
  const half = scene.unit / 2;
  const [x, y] = [grid.left + (col + half) * grid.gsd, grid.top - (row + half) * grid.gsd];
  const where = `Row ${row}, column ${col} · ${grid.code} ${x.toFixed(0)}, ${y.toFixed(0)}`;
  const lonLat = degrees(grid.code, x, y);
  if (!lonLat) return [el("p", { class: "muted small", text: where })];
  const [lon, lat] = lonLat.map((value) => value.toFixed(6));
  const item = scene.links[0].shown;
  const command = /^[\w./:-]+$/.test(item) ? el("code", { text: `stac-cloudmask explain ${item} -- ${lon} ${lat}` }) : null;
  return [
    el("p", { class: "muted small", text: `${where} · longitude ${lon}, latitude ${lat}` }),
    command ? el("p", { class: "muted small" }, "The whole chain of reasons: ", command) : null,
  ];
}

function pixelPanel(scene, byte, row, col) {
  const code = byte & 3;
  const facts = pixelRows(scene, byte, row, col).flatMap(([label, value]) => [
    el("dt", { text: label }),
    typeof value === "string" ? el("dd", { text: value, class: value === "yes" ? "yes" : null }) : el("dd", {}, value),
  ]);
  return [
    el("p", { class: "verdict" }, swatch(LEGENDS.mask.entries[code].color), el("b", { text: LEGENDS.mask.entries[code].title })),
    el("p", { text: because(scene, byte) }),
    el("dl", { class: "facts" }, ...facts),
    ...place(scene, row, col),
    el("p", { class: "muted small", text: resolution(scene) }),
  ].filter((part) => part !== null);
}

function rampBar() {
  const bar = el("span", { class: "ramp", "aria-hidden": "true" });
  bar.style.background = `linear-gradient(to right, ${LEGENDS.probability.entries.map((entry) => rgb(entry.color)).join(", ")})`;
  return el("div", {}, bar, el("span", { class: "ends" }, el("span", { text: "0 %" }), el("span", { text: "100 %" })));
}

// The legends of the layers that are shown, with a switch for every class.
function legendPanel(names, hidden, shares, onToggle) {
  const used = [...new Set(names.map((name) => LAYERS[name].legend).filter(Boolean))];
  if (!used.length) return [el("p", { class: "muted", text: "Nothing lies over the picture." })];
  return used.map((name) => {
    const { title, entries } = LEGENDS[name];
    if (name === "probability") return el("fieldset", {}, el("legend", { text: title }), rampBar());
    const lines = entries.map((entry, at) => {
      const box = el("input", { type: "checkbox", "data-legend": name, "data-entry": at });
      box.checked = !hidden[name].has(at);
      box.addEventListener("change", () => onToggle(name, at, box.checked));
      const share = name === "mask" && at < 3 ? el("span", { class: "share", text: percent(shares[at]) }) : null;
      return el("label", { title: entry.text }, box, swatch(entry.color), el("span", { text: entry.title }), share);
    });
    return el("fieldset", {}, el("legend", { text: name === "mask" ? `${title}, improved mask in % of its valid pixels` : title }), ...lines);
  });
}

function factLines(item, scene) {
  const product = isNumber(item.product.cloud) || isNumber(item.product.shadow);
  const by = item.product.by === "item" ? "as the source item states" : "counted in this file's picture of SCL";
  const lines = [
    ["Cloud", `${percent(item.cloud)}${product ? `; SCL ${percent(item.product.cloud)}` : ""}`],
    ["Shadow", `${percent(item.shadow)}${product ? `; SCL ${percent(item.product.shadow)}, ${by}` : ""}`],
    ["Valid", isNumber(item.nodata) ? `${percent(100 - item.nodata)} of all pixels; all other shares are of the valid ones` : null],
    ["Source", item.source],
    ["Collection", item.collection],
    ["Platform", item.platform],
    ["Grid", scene.grid ? `${scene.grid.shape[1]} × ${scene.grid.shape[0]} pixels of ${meters(scene.grid.gsd)}, ${scene.grid.code}` : null],
    ...scene.facts,
  ];
  return lines.filter(([, text]) => text).flatMap(([label, text]) => [el("dt", { text: label }), el("dd", { text })]);
}

function fileLines(scene) {
  return scene.links.map(({ title, what, href, shown }) =>
    el("li", {}, link(href, title), el("small", { text: href ? what : `${what}: ${shown}` })),
  );
}
