// The picture with what lies over it: zoom, pan, the divider, and the pixel that is looked at.
class Stage {
  constructor(canvas, { onPick, onSplit }) {
    Object.assign(this, { canvas, onPick, onSplit });
    this.pen = canvas.getContext("2d");
    this.scene = null;
    this.over = { left: null, right: null };
    this.opacity = 0.5;
    this.split = 0.5;
    this.cell = null;
    this.area = null;
    this.fitted = true;
    this.fingers = new Map();
    new ResizeObserver(() => this.resize()).observe(canvas);
    canvas.addEventListener("pointerdown", (event) => this.press(event));
    canvas.addEventListener("pointermove", (event) => this.move(event));
    for (const name of ["pointerup", "pointercancel"]) canvas.addEventListener(name, (event) => this.release(event));
    canvas.addEventListener("wheel", (event) => this.wheel(event), { passive: false });
    canvas.addEventListener("keydown", (event) => this.key(event));
  }

  // Another date of the same grid is looked at from where the last one was, and so is its pixel.
  show(scene) {
    const same = onSameGrid(this.scene, scene);
    const place = same && this.cell ? [this.cell.row, this.cell.col].map((at) => (at + 0.5) * this.factor) : null;
    this.scene = scene.planes.mask ? scene : null;
    this.cell = null;
    if (place) this.pick(...place.map((at) => Math.floor(at / this.factor)));
    if (!same) this.fit();
    this.draw();
  }

  get factor() {
    return this.scene.unit;
  }

  // How many rows and columns a click tells apart.
  get cells() {
    return [this.scene.height, this.scene.width].map((side) => Math.ceil(side / this.scene.unit));
  }

  resize() {
    const { width, height } = this.canvas.getBoundingClientRect();
    const dense = window.devicePixelRatio || 1;
    Object.assign(this, { dense, width, height });
    this.canvas.width = Math.max(1, Math.round(width * dense));
    this.canvas.height = Math.max(1, Math.round(height * dense));
    if (this.fitted) this.fit();
    this.draw();
  }

  fit() {
    this.fitted = true;
    if (!this.scene || !this.width) return this.draw();
    this.scale = Math.min(this.width / this.scene.width, this.height / this.scene.height);
    this.x = (this.width - this.scene.width * this.scale) / 2;
    this.y = (this.height - this.scene.height * this.scale) / 2;
    return this.draw();
  }

  zoom(times, px = this.width / 2, py = this.height / 2) {
    if (!this.scene) return;
    const least = Math.min(this.width / this.scene.width, this.height / this.scene.height);
    const scale = Math.min(Math.max(this.scale * times, least), Math.max(32 / this.factor, least));
    if (scale === least) return this.fit();
    this.x = px - ((px - this.x) * scale) / this.scale;
    this.y = py - ((py - this.y) * scale) / this.scale;
    this.scale = scale;
    this.fitted = false;
    this.pan(0, 0);
  }

  pan(dx, dy) {
    const keep = (at, size, whole) => Math.min(Math.max(at, Math.min(0.3 * whole, whole - size * 0.7) - size * 0.3), 0.7 * whole);
    this.x = keep(this.x + dx, this.scene.width * this.scale, this.width);
    this.y = keep(this.y + dy, this.scene.height * this.scale, this.height);
    this.fitted = false;
    this.draw();
  }

  draw() {
    if (this.waiting) return;
    this.waiting = true;
    requestAnimationFrame(() => {
      this.waiting = false;
      this.paint();
    });
  }

  paint() {
    const { pen, scene, scale } = this;
    pen.setTransform(this.dense, 0, 0, this.dense, 0, 0);
    pen.clearRect(0, 0, this.width, this.height);
    this.canvas.style.touchAction = this.fitted ? "pan-y" : "none";
    if (!scene) return;
    const [wide, high] = [scene.width * scale, scene.height * scale];
    pen.save();
    pen.beginPath();
    pen.rect(this.x, this.y, wide, high);
    pen.clip();
    pen.fillStyle = "#2f373e";
    pen.fillRect(this.x, this.y, wide, high);
    if (scene.picture) {
      pen.imageSmoothingEnabled = true;
      pen.imageSmoothingQuality = "high";
      pen.drawImage(scene.picture, this.x, this.y, wide, high);
    }
    this.half(this.over.left, 0, this.split * this.width);
    this.half(this.over.right, this.split * this.width, this.width);
    pen.restore();
    this.outline();
    this.ring();
    this.line();
  }

  // The part of the scene that is in view, in pixels of the mask: {top, left, bottom, right}.
  get view() {
    const end = (at, whole, size) => Math.min(Math.max(Math.round((whole - at) / this.scale), 1), size);
    const start = (at, most) => Math.min(Math.max(Math.round(-at / this.scale), 0), most - 1);
    const [bottom, right] = [end(this.y, this.height, this.scene.height), end(this.x, this.width, this.scene.width)];
    return { top: start(this.y, bottom), left: start(this.x, right), bottom, right };
  }

  outline() {
    if (!this.area || !onSameGrid(this.scene, this.area)) return;
    const { pen } = this;
    const { top, left, bottom, right } = this.area;
    const box = [this.x + left * this.scale, this.y + top * this.scale, (right - left) * this.scale, (bottom - top) * this.scale];
    for (const [style, dash] of [["#000", []], ["#fff", [6, 6]]]) {
      pen.setLineDash(dash);
      pen.strokeStyle = style;
      pen.lineWidth = 2;
      pen.strokeRect(box[0] + 1, box[1] + 1, box[2] - 2, box[3] - 2);
    }
    pen.setLineDash([]);
  }

  half(layer, from, to) {
    if (!layer || to <= from) return;
    const { pen } = this;
    pen.save();
    pen.beginPath();
    pen.rect(from, 0, to - from, this.height);
    pen.clip();
    pen.globalAlpha = this.opacity;
    pen.imageSmoothingEnabled = false;
    const step = layer.factor * this.scale;
    const tiles = layer.tiles && step > 1.5 ? this.tilesInView(layer.tiles) : [];
    if (tiles.length) {
      for (const { row, col, canvas } of tiles) {
        pen.drawImage(canvas, this.x + col * this.scale, this.y + row * this.scale, canvas.width * this.scale, canvas.height * this.scale);
      }
    } else pen.drawImage(layer.canvas, this.x, this.y, layer.canvas.width * step, layer.canvas.height * step);
    pen.restore();
  }

  // The tiles of the mask's own pixels that are in view, once all of them are painted; none where they are many.
  tilesInView({ side, canvas }) {
    const range = (at, whole, size) => [Math.max(Math.floor(-at / this.scale / side), 0), Math.min(Math.ceil((whole - at) / this.scale / side), Math.ceil(size / side))];
    const [top, bottom] = range(this.y, this.height, this.scene.height);
    const [left, right] = range(this.x, this.width, this.scene.width);
    if ((bottom - top) * (right - left) > 12) return [];
    const found = [];
    for (let row = top; row < bottom; row += 1) {
      for (let col = left; col < right; col += 1) {
        const painted = canvas(row * Math.ceil(this.scene.width / side) + col);
        if (painted) found.push({ row: row * side, col: col * side, canvas: painted });
      }
    }
    return found.length === (bottom - top) * (right - left) ? found : [];
  }

  ring() {
    if (!this.cell) return;
    const { pen } = this;
    const step = this.factor * this.scale;
    const size = Math.max(step, 9);
    const [cx, cy] = [this.x + (this.cell.col + 0.5) * step, this.y + (this.cell.row + 0.5) * step];
    for (const [style, width] of [["#000", 4], ["#fff", 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.strokeRect(cx - size / 2, cy - size / 2, size, size);
    }
  }

  line() {
    const { pen } = this;
    const at = this.split * this.width;
    for (const [style, width] of [["rgb(0 0 0 / .55)", 4], ["#fff", 2]]) {
      pen.strokeStyle = style;
      pen.lineWidth = width;
      pen.beginPath();
      pen.moveTo(at, 0);
      pen.lineTo(at, this.height);
      pen.stroke();
    }
  }

  setSplit(split) {
    this.split = Math.min(Math.max(split, 0), 1);
    this.draw();
  }

  at(event) {
    const box = this.canvas.getBoundingClientRect();
    return [event.clientX - box.left, event.clientY - box.top];
  }

  press(event) {
    if (!this.scene || event.button > 0) return;
    this.canvas.setPointerCapture(event.pointerId);
    const [px, py] = this.at(event);
    this.fingers.set(event.pointerId, [px, py]);
    const onLine = Math.abs(px - this.split * this.width) < (event.pointerType === "touch" ? 22 : 9);
    this.drag = { kind: this.fingers.size > 1 ? "pinch" : onLine ? "split" : "pan", moved: 0 };
  }

  move(event) {
    const before = this.fingers.get(event.pointerId);
    if (!before) return;
    const now = this.at(event);
    const [dx, dy] = [now[0] - before[0], now[1] - before[1]];
    this.drag.moved += Math.abs(dx) + Math.abs(dy);
    if (this.drag.kind === "pinch") this.pinch(event.pointerId, before, now);
    else if (this.drag.kind === "split") this.onSplit(now[0] / this.width);
    else if (this.drag.moved > 4) this.pan(dx, dy);
    this.fingers.set(event.pointerId, now);
  }

  pinch(finger, before, now) {
    const other = [...this.fingers].find(([id]) => id !== finger);
    if (!other) return;
    const gap = ([x, y]) => Math.hypot(x - other[1][0], y - other[1][1]);
    this.zoom(gap(now) / Math.max(gap(before), 1), (now[0] + other[1][0]) / 2, (now[1] + other[1][1]) / 2);
  }

  release(event) {
    if (!this.fingers.delete(event.pointerId)) return;
    if (event.type === "pointerup" && this.drag.kind !== "pinch" && this.drag.moved <= 4) {
      const [px, py] = this.at(event);
      const step = this.factor * this.scale;
      this.pick(Math.floor((py - this.y) / step), Math.floor((px - this.x) / step));
    }
  }

  wheel(event) {
    event.preventDefault();
    this.zoom(Math.exp(-event.deltaY * (event.deltaMode === 1 ? 0.05 : 0.0016)), ...this.at(event));
  }

  pick(row, col) {
    const [height, width] = this.cells;
    if (row < 0 || col < 0 || row >= height || col >= width) return;
    this.cell = { row, col };
    const step = this.factor * this.scale;
    const [px, py] = [this.x + (col + 0.5) * step, this.y + (row + 0.5) * step];
    if (px < 0 || py < 0 || px > this.width || py > this.height) this.pan(this.width / 2 - px, this.height / 2 - py);
    this.draw();
    this.onPick(this.cell);
  }

  key(event) {
    if (!this.scene || event.ctrlKey || event.metaKey || event.altKey) return;
    const far = event.shiftKey ? 10 : 1;
    const steps = { ArrowUp: [-far, 0], ArrowDown: [far, 0], ArrowLeft: [0, -far], ArrowRight: [0, far] };
    const [height, width] = this.cells;
    const from = this.cell ?? { row: height >> 1, col: width >> 1 };
    const inside = (at, size) => Math.min(Math.max(at, 0), size - 1);
    if (steps[event.key]) {
      const [down, right] = this.cell ? steps[event.key] : [0, 0];
      this.pick(inside(from.row + down, height), inside(from.col + right, width));
    } else if (event.key === "Enter" || event.key === " ") this.pick(from.row, from.col);
    else if (event.key === "+" || event.key === "=") this.zoom(1.5);
    else if (event.key === "-") this.zoom(1 / 1.5);
    else if (event.key === "0") this.fit();
    else if (event.key === "," || event.key === ".") this.onSplit(this.split + (event.key === "," ? -0.05 : 0.05));
    else return;
    event.preventDefault();
  }
}
