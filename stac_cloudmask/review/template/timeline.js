// Cloud and shadow over time, a bar for each item and a tick for what its SCL says.
const DAY = 864e5;
const STEPS = [1, 2, 5, 10, 30.44, 60.9, 91.3, 182.6, 365.25, 730.5, 1826.25].map((days) => days * DAY);
const EDGE = { left: 34, right: 14, top: 26, bottom: 22 };

class Timeline {
  constructor(holder, { onSelect }) {
    Object.assign(this, { holder, onSelect, items: [], area: null, bars: new Map(), selected: null });
    new ResizeObserver(() => this.draw()).observe(holder);
    holder.addEventListener("keydown", (event) => this.key(event));
  }

  show(items) {
    this.items = items.filter((item) => item.time !== null).sort((a, b) => a.time - b.time);
    const [first, last] = [this.items[0], this.items.at(-1)];
    const span = first ? days(first.time, last.time) : "no dates";
    this.holder.setAttribute("aria-label", `${itemCount(this.items)} in time, ${span}. Arrow keys go from item to item.`);
    this.draw();
  }

  draw() {
    const { width, height } = this.holder.getBoundingClientRect();
    this.bars.clear();
    if (width < 80 || !this.items.length) return this.holder.replaceChildren();
    const [from, to] = [this.items[0].time, this.items.at(-1).time];
    const pad = Math.max((to - from) * 0.02, DAY / 2);
    const inner = width - EDGE.left - EDGE.right;
    this.x = (time) => EDGE.left + ((time - from + pad) / (to - from + 2 * pad)) * inner;
    this.y = (share) => EDGE.top + (1 - share / 100) * (height - EDGE.top - EDGE.bottom);
    this.thick = Math.min(Math.max(inner / this.items.length - 2, 3), 8);
    this.places = this.apart(this.thick + 1, width - EDGE.right - this.thick / 2);
    const root = svg("svg", { viewBox: `0 0 ${width} ${height}`, width, height, "aria-hidden": "true" });
    root.append(...this.axes(from - pad, to + pad, width), ...this.items.map((item, at) => this.bar(item, this.places[at])), this.label);
    this.holder.replaceChildren(root);
    return this.mark(this.selected);
  }

  axes(from, to, width) {
    const marks = [0, 50, 100].flatMap((share) => [
      svg("line", { class: "grid", x1: EDGE.left, x2: width - EDGE.right, y1: this.y(share), y2: this.y(share) }),
      svg("text", { class: "share", x: EDGE.left - 6, y: this.y(share) + 4, text: String(share) }),
    ]);
    const wide = width > 520;
    const whole = wide ? "Cloud and shadow in % of the valid pixels, tick: cloud by SCL" : "Cloud, shadow in %; tick: SCL";
    const key = this.area ? (wide ? "Clear, shadow and cloud in % of the valid pixels of the view" : "Clear, shadow, cloud in % of the view") : whole;
    this.label = svg("text", { class: "key", x: EDGE.left, y: 14, text: key });
    const step = STEPS.find((one) => (to - from) / one < (width - EDGE.left) / 84) ?? STEPS.at(-1);
    for (const time of this.ticks(from, to, step)) {
      const label = step < 20 * DAY ? day(time) : day(time).slice(0, step < 300 * DAY ? 7 : 4);
      marks.push(svg("text", { class: "date", x: this.x(time), y: this.y(0) + 16, text: label }));
      marks.push(svg("line", { class: "tick", x1: this.x(time), x2: this.x(time), y1: this.y(0), y2: this.y(0) + 4 }));
    }
    return marks;
  }

  // Whole days, months or years.
  ticks(from, to, step) {
    const found = [];
    if (step < 20 * DAY) {
      for (let time = Math.ceil(from / step) * step; time <= to; time += step) found.push(time);
      return found;
    }
    const months = Math.round(step / (30.44 * DAY));
    const start = new Date(from);
    for (let month = Math.ceil((start.getUTCFullYear() * 12 + start.getUTCMonth()) / months) * months; ; month += months) {
      const time = Date.UTC(Math.floor(month / 12), month % 12, 1);
      if (time > to) return found;
      if (time >= from) found.push(time);
    }
  }

  // Where the bars stand: at their times, but beside each other where those are the same or nearly so, as far as there is room.
  apart(step, end) {
    const places = this.items.map((item) => this.x(item.time));
    if (step * places.length > end - EDGE.left) return places;
    for (let at = 1; at < places.length; at += 1) places[at] = Math.max(places[at], places[at - 1] + step);
    for (let at = places.length - 1, most = end; at >= 0; at -= 1, most -= step) places[at] = Math.min(places[at], most);
    return places;
  }

  bar(item, middle) {
    if (this.area) return this.areaBar(item, middle);
    const [cloud, shadow, before] = [item.cloud ?? 0, item.shadow ?? 0, item.product.cloud];
    const x = middle - this.thick / 2;
    const said = isNumber(before) ? `, SCL ${percent(before)}` : "";
    const text = `${item.id}, ${day(item.time)}: cloud ${percent(item.cloud)}${said}, shadow ${percent(item.shadow)}`;
    const bar = this.group(item, x, text, [["cloud", 0, cloud], ["shadow", cloud, Math.min(cloud + shadow, 100)]]);
    if (isNumber(before)) {
      bar.append(svg("line", { class: "before", x1: x - 2, x2: x + this.thick + 2, y1: this.y(before), y2: this.y(before) }));
    }
    return bar;
  }

  group(item, x, text, pieces) {
    const bar = svg(
      "g",
      { class: "bar", "data-item": item.number, onclick: () => this.onSelect(item) },
      svg("title", { text }),
      svg("rect", { class: "hit", x: x - 2, width: this.thick + 4, y: EDGE.top - 2, height: this.y(0) - EDGE.top + 2 }),
      ...[...pieces, ["base", 0, 1.5]].map(([name, low, high]) =>
        svg("rect", { class: name, x, width: this.thick, y: this.y(high), height: Math.max(this.y(low) - this.y(high), 0) }),
      ),
    );
    this.bars.set(item.number, bar);
    return bar;
  }

  // An item over an area: clear at the bottom, cloud at the top; nothing where it has no valid pixel there.
  areaBar(item, middle) {
    const found = this.area.get(item.number);
    const known = isNumber(found?.clear);
    const text = known ? `${day(item.time)}: clear ${percent(found.clear)}, shadow ${percent(found.shadow)}, cloud ${percent(found.cloud)} of the valid pixels in view` : `${day(item.time)}: no valid pixels in view`;
    const pieces = known ? [["clear", 0, found.clear], ["shadow", found.clear, found.clear + found.shadow], ["cloud", found.clear + found.shadow, 100]] : [];
    return this.group(item, middle - this.thick / 2, `${item.id}, ${text}`, pieces);
  }

  // Shares by the number of each item, as `sharesOf` has them; null for whole scenes.
  over(area) {
    this.area = area;
    this.draw();
  }

  mark(item) {
    this.selected = item;
    for (const [number, bar] of this.bars) bar.classList.toggle("is", item !== null && number === item.number);
    const bar = item && this.bars.get(item.number);
    if (bar) this.label.before(bar);
  }

  key(event) {
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!step || !this.items.length) return;
    event.preventDefault();
    const at = this.items.indexOf(this.selected);
    this.onSelect(this.items[Math.min(Math.max(at + step, 0), this.items.length - 1)], { quietly: true });
  }
}
