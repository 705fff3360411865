// Who tells whom what.
const hidden = Object.fromEntries(Object.entries(LEGENDS).map(([name, legend]) => [name, new Set(legend.off)]));
const narrow = window.matchMedia("(max-width: 859px)");
let current = { item: null, scene: null };
let asked = 0;

const stage = new Stage($("stage"), { onPick: showPixel, onSplit: split });
const list = new List($("rows"), { onSelect: select });
const timeline = new Timeline($("timeline"), { onSelect: select });

function layersOf() {
  return { left: $("left").value, right: $("right").value };
}

function split(share) {
  $("split").value = String(Math.round(Math.min(Math.max(share, 0), 1) * 1000));
  stage.setSplit(share);
}

// Paints tiles of the mask's own pixels as they come into view; a picture of one is there at the next drawing.
function fineTiles(scene, name) {
  if (!scene.tiles || LAYERS[name].plane !== "mask") return null;
  const painted = new Map();
  const canvas = (number) => {
    if (!painted.has(number)) {
      if (painted.size > 24) painted.clear();
      painted.set(number, null);
      tileOf(scene, number).then((tile) => {
        painted.set(number, paint(tile, name, hidden));
        stage.draw();
      });
    }
    return painted.get(number);
  };
  return { side: scene.tiles.side, canvas };
}

function overlay() {
  const { scene } = current;
  for (const side of ["left", "right"]) {
    const name = $(side).value;
    const layer = LAYERS[name];
    const there = Boolean(scene?.planes.mask && layer.plane && isThere(scene, name));
    const plane = there ? scene.planes[layer.plane] : null;
    stage.over[side] = there ? { canvas: paint(plane, name, hidden), factor: plane.factor, tiles: fineTiles(scene, name) } : null;
    $(`chip-${side}`).textContent = scene && !isThere(scene, name) ? `${layer.title}: not available` : layer.title;
  }
  stage.draw();
}

function legend() {
  const { item } = current;
  const clear = isNumber(item?.cloud) ? 100 - item.cloud - (item.shadow ?? 0) : null;
  const shares = item ? [clear, item.cloud, item.shadow] : [];
  $("legend").replaceChildren(...legendPanel(Object.values(layersOf()), hidden, shares, toggle));
}

function toggle(name, at, isShown) {
  if (isShown) hidden[name].delete(at);
  else hidden[name].add(at);
  overlay();
}

async function showPixel(cell) {
  const { scene } = current;
  const [row, col] = [cell.row, cell.col].map((at) => at * scene.unit);
  const byte = await maskByte(scene, row, col);
  if (scene === current.scene && stage.cell === cell) $("pixel").replaceChildren(...pixelPanel(scene, byte, row, col));
}

function aboutItem(item) {
  const cover = ["cloud", "shadow"].map((name) => {
    const before = item.product[name];
    return `${name} ${percent(item[name])}${isNumber(before) ? ` (SCL ${percent(before)})` : ""}`;
  });
  return [minute(item.time), item.platform, ...cover].filter(Boolean).join(" · ");
}

async function select(item, { quietly = false, back = false } = {}) {
  list.mark(item);
  timeline.mark(item);
  const turn = (asked += 1);
  const scene = await open(item);
  if (turn !== asked) return;
  current = { item, scene };
  $("heading").replaceChildren(...breakable(item.id ?? "?"));
  $("when").textContent = aboutItem(item);
  $("stage").setAttribute("aria-label", `Scene ${item.id}: cloud ${percent(item.cloud)}, shadow ${percent(item.shadow)}`);
  $("pixel").replaceChildren(el("p", { class: "muted", text: "Click a pixel in the picture." }));
  $("facts").replaceChildren(...factLines(item, scene));
  $("links").replaceChildren(...fileLines(scene));
  const notes = [item.problem ? `This item cannot be shown: ${item.problem}` : null, ...(scene.notes ?? [])].filter(Boolean);
  $("notes").textContent = notes.join(" ");
  $("notes").hidden = !notes.length;
  document.body.dataset.item = item.number;
  stage.show(scene);
  overlay();
  legend();
  aboutArea();
  if (!back) remember(item, quietly);
}

// How much of what is in view is clear, on this date and in the time line on all.
const areaShares = new Map();

async function overView() {
  const on = $("area").getAttribute("aria-pressed") !== "true";
  $("area").setAttribute("aria-pressed", String(on));
  document.body.toggleAttribute("data-area", on);
  areaShares.clear();
  stage.area = on && stage.scene ? { ...stage.view, grid: stage.scene.grid, planes: stage.scene.planes } : null;
  stage.draw();
  timeline.over(stage.area ? areaShares : null);
  const { area } = stage;
  for (const [done, item] of [current.item, ...ITEMS.filter((one) => one !== current.item)].entries()) {
    if (!area || stage.area !== area) break;
    areaShares.set(item.number, await sharesOf(item, area));
    if (done % 25 === 0) timeline.over(areaShares);
    if (done === 0) aboutArea();
  }
  if (area && stage.area === area) timeline.over(areaShares);
  aboutArea();
}

function aboutArea() {
  const { area } = stage;
  $("area-text").hidden = !area;
  if (!area) return;
  const size = [area.right - area.left, area.bottom - area.top].map((side) => meters(side * area.grid.gsd)).join(" × ");
  const found = areaShares.get(current.item?.number);
  const dates = [...areaShares.values()].filter((one) => isNumber(one?.clear));
  const mostly = dates.filter((one) => one.clear >= 80).length;
  const here = isNumber(found?.clear) ? `${percent(found.clear)} of its valid pixels are clear on this date (${percent(found.seen)} of it is valid)` : "no valid pixels on this date";
  $("area-text").textContent = `Area of ${size}: ${here}; at least 80 % clear on ${mostly} of ${dates.length} dates.`;
}

// The address says what is looked at, so that Back works on a phone and a link can point at an item.
function remember(item, quietly) {
  const hash = `#${encodeURIComponent(`${item.collection}/${item.id}`)}`;
  const open = narrow.matches && !quietly;
  if (open) {
    document.body.dataset.view = "viewer";
    $("heading").focus({ preventScroll: true });
    window.scrollTo(0, 0);
  }
  if (window.location.hash === hash) return;
  if (open) window.history.pushState(null, "", hash);
  else window.history.replaceState(null, "", hash);
}

function named() {
  const wanted = window.location.hash.slice(1);
  return ITEMS.find((item) => encodeURIComponent(`${item.collection}/${item.id}`) === wanted) ?? null;
}

function closeViewer() {
  document.body.dataset.view = "list";
  list.rows.get(current.item?.number)?.querySelector(".name").focus();
}

// A list that is the same again is left alone: a click on it may be under way.
let sought = null;

function filter() {
  const wanted = ["find", "collection", "from", "to", "most"].map((name) => $(name).value).join("\n");
  if (wanted === sought) return;
  sought = wanted;
  const words = $("find").value.toLowerCase().split(/\s+/).filter(Boolean);
  const [from, to] = [Date.parse($("from").value), Date.parse($("to").value) + DAY];
  const most = Number($("most").value);
  $("most-value").textContent = String(most);
  const found = ITEMS.filter(
    (item) =>
      words.every((word) => item.words.includes(word)) &&
      (!$("collection").value || item.collection === $("collection").value) &&
      !(item.time < from || item.time >= to) &&
      (most === 100 || (isNumber(item.cloud) && item.cloud <= most)),
  );
  list.show(found);
  timeline.show(found);
  $("count").textContent = found.length === ITEMS.length ? itemCount(ITEMS) : `${found.length} of ${itemCount(ITEMS)}`;
}

function mean(items, value) {
  const known = items.map(value).filter(isNumber);
  return known.length ? known.reduce((sum, one) => sum + one, 0) / known.length : null;
}

function header() {
  const times = ITEMS.map((item) => item.time).filter((time) => time !== null);
  const span = times.length ? days(times.reduce((a, b) => Math.min(a, b)), times.reduce((a, b) => Math.max(a, b))) : "no dates";
  $("subtitle").textContent = `${INDEX.name}: ${itemCount(ITEMS)}, ${span}. Made ${INDEX.made} by stac_cloudmask ${INDEX.version}.`;
  const both = ITEMS.filter((item) => isNumber(item.product.cloud));
  // Means are of the same items, or they could not be compared
  const counted = both.length ? both : ITEMS;
  const of = counted.length < ITEMS.length ? ` of ${counted.length} items` : "";
  const totals = ["cloud", "shadow"].map((name) => [
    `Mean ${name}${of}`,
    mean(counted, (item) => item[name]),
    mean(both, (item) => item.product[name]),
  ]);
  $("totals").append(
    ...totals.map(([label, now, before]) =>
      el("div", {}, el("dt", { text: label }), el("dd", { text: percent(now) }), el("dd", { class: "muted", text: `SCL ${percent(before)}` })),
    ),
  );
}

function choices() {
  for (const [side, chosen] of [["left", "product"], ["right", "improved"]]) {
    for (const [name, layer] of Object.entries(LAYERS)) $(side).append(el("option", { value: name, text: layer.title }));
    $(side).value = chosen;
    $(side).addEventListener("change", () => {
      overlay();
      legend();
    });
  }
  const collections = [...new Set(ITEMS.map((item) => item.collection))].filter(Boolean).sort();
  $("collection").append(...collections.map((name) => el("option", { value: name, text: name })));
  $("collections").hidden = collections.length < 2;
}

function theme() {
  const dark = window.matchMedia("(prefers-color-scheme: dark)");
  const button = $("theme");
  const set = (isDark) => {
    document.documentElement.dataset.theme = isDark ? "dark" : "light";
    button.setAttribute("aria-pressed", String(isDark));
  };
  set(dark.matches);
  dark.addEventListener("change", () => set(dark.matches));
  button.addEventListener("click", () => set(document.documentElement.dataset.theme !== "dark"));
}

function wire() {
  for (const name of ["input", "change"]) $("filters").addEventListener(name, filter);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("split").addEventListener("input", () => stage.setSplit(Number($("split").value) / 1000));
  $("opacity").addEventListener("input", () => {
    stage.opacity = Number($("opacity").value) / 100;
    stage.draw();
  });
  $("zoom-in").addEventListener("click", () => stage.zoom(1.5));
  $("zoom-out").addEventListener("click", () => stage.zoom(1 / 1.5));
  $("fit").addEventListener("click", () => stage.fit());
  $("area").addEventListener("click", overView);
  $("swap").addEventListener("click", () => {
    [$("left").value, $("right").value] = [$("right").value, $("left").value];
    overlay();
  });
  $("back").addEventListener("click", closeViewer);
  window.addEventListener("popstate", () => {
    const item = named();
    if (item) select(item, { quietly: true, back: true });
    else closeViewer();
  });
}

theme();
header();
choices();
wire();
filter();
// The first look goes to the item with the most shadow: there all classes are to be seen.
const first = named() ?? [...ITEMS].sort((a, b) => (b.shadow ?? -1) - (a.shadow ?? -1))[0];
if (named()) document.body.dataset.view = "viewer";
if (first) select(first, { quietly: true, back: !named() });
