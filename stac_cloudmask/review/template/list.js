// The list of items: what is asked for, in which order, and which one is looked at.
const COLUMNS = [
  { key: "id", title: "Item", value: (item) => item.id ?? "" },
  { key: "time", title: "Date", value: (item) => item.time },
  { key: "cloud", title: "Cloud", value: (item) => item.cloud, falling: true },
  { key: "shadow", title: "Shadow", value: (item) => item.shadow, falling: true },
  { key: "change", title: "Change", value: (item) => item.change, falling: true },
];

class List {
  constructor(holder, { onSelect }) {
    Object.assign(this, { holder, onSelect, shown: [], rows: new Map(), selected: null });
    this.order = { key: "time", falling: true };
    this.thumbs = new IntersectionObserver((entries) => entries.forEach((entry) => this.reveal(entry)), {
      rootMargin: "300px",
    });
    this.table = this.build();
    holder.append(this.table);
    holder.addEventListener("keydown", (event) => this.key(event));
  }

  build() {
    this.heads = COLUMNS.map((column) => {
      const button = el("button", { type: "button", text: column.title, onclick: () => this.sort(column) });
      return el("th", { scope: "col", role: "columnheader", class: `of-${column.key}`, "data-key": column.key }, button);
    });
    this.body = el("tbody", { role: "rowgroup" });
    const caption = "Items with cloud and shadow in percent of the valid pixels, first of the improved mask, then of SCL";
    return el(
      "table",
      { role: "table" },
      el("caption", { class: "unseen", text: caption }),
      el("thead", { role: "rowgroup" }, el("tr", { role: "row" }, ...this.heads)),
      this.body,
    );
  }

  // A row is made once, and its picture only when it comes into sight.
  row(item) {
    if (this.rows.has(item.number)) return this.rows.get(item.number);
    const picture = el("img", { alt: "", width: 48, height: 48, "data-item": item.number });
    const name = el("button", { type: "button", class: "name", tabindex: -1, title: item.id }, ...breakable(sourceName(item)));
    const about = item.problem ?? [day(item.time), item.platform].filter(Boolean).join(" · ");
    const row = el(
      "tr",
      { role: "row", "data-item": item.number, onclick: () => this.onSelect(item) },
      el("td", { role: "cell", class: "of-id" }, picture, el("div", {}, name, el("small", { text: about }), el("small", { text: item.collection }))),
      el("td", { role: "cell", class: "of-time unseen", text: day(item.time) }),
      this.cell(item, "cloud"),
      this.cell(item, "shadow"),
      el("td", { role: "cell", class: "of-change", text: isNumber(item.change) ? `${item.change.toFixed(1)}` : "–" }),
    );
    this.thumbs.observe(picture);
    this.rows.set(item.number, row);
    return row;
  }

  cell(item, name) {
    const [now, before] = [item[name], item.product[name]];
    const bar = el("span", { class: `bar ${name}`, "aria-hidden": "true" });
    bar.style.setProperty("--now", `${now ?? 0}%`);
    const tick = isNumber(before) ? el("i") : null;
    if (tick) tick.style.left = `${before}%`;
    bar.append(...(tick ? [tick] : []));
    const said = isNumber(before) ? short(before) : "–";
    return el(
      "td",
      { role: "cell", class: `of-${name}` },
      el("span", { class: "pair" }, el("b", { text: short(now) }), el("small", {}, el("span", { class: "unseen", text: "SCL " }), said)),
      bar,
    );
  }

  reveal(entry) {
    if (!entry.isIntersecting) return;
    const { thumb } = ITEMS[entry.target.dataset.item];
    if (thumb) entry.target.src = `data:image/webp;base64,${thumb}`;
    this.thumbs.unobserve(entry.target);
  }

  sort(column) {
    const falling = this.order.key === column.key ? !this.order.falling : Boolean(column.falling);
    this.order = { key: column.key, falling };
    this.show(this.shown);
  }

  sorted(items) {
    const { value } = COLUMNS.find((column) => column.key === this.order.key);
    const sign = this.order.falling ? -1 : 1;
    return [...items].sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (x === y) return a.number - b.number;
      if (x === null || x === undefined) return 1;
      if (y === null || y === undefined) return -1;
      return sign * (typeof x === "string" ? x.localeCompare(y) : x - y);
    });
  }

  show(items) {
    this.shown = this.sorted(items);
    this.body.replaceChildren(...this.shown.map((item) => this.row(item)));
    for (const head of this.heads) {
      const falls = this.order.falling ? "descending" : "ascending";
      head.setAttribute("aria-sort", head.dataset.key === this.order.key ? falls : "none");
    }
    this.mark(this.selected);
  }

  // One row can be reached with Tab, the others with the arrow keys.
  mark(item) {
    this.selected = item;
    const reached = this.shown.includes(item) ? item : this.shown[0];
    for (const [number, row] of this.rows) {
      const is = item !== null && number === item.number;
      if (is) row.setAttribute("aria-current", "true");
      else row.removeAttribute("aria-current");
      row.querySelector(".name").tabIndex = reached && number === reached.number ? 0 : -1;
    }
  }

  key(event) {
    const step = { ArrowDown: 1, ArrowUp: -1, Home: -Infinity, End: Infinity }[event.key];
    const row = event.target.closest("tbody tr");
    if (!step || !row) return;
    event.preventDefault();
    const at = this.shown.findIndex((item) => item.number === Number(row.dataset.item));
    this.step(Math.min(Math.max(at + step, 0), this.shown.length - 1));
  }

  step(at) {
    const item = this.shown[at];
    this.onSelect(item, { quietly: true });
    const row = this.row(item);
    row.querySelector(".name").focus({ preventScroll: true });
    row.scrollIntoView({ block: "nearest" });
  }
}
