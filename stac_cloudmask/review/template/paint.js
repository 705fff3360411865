// What can be laid over a picture: each layer says which plane it reads, and which entry of its legend a value has.
const [, CLOUD, SHADOW] = INDEX.classes.map((info) => info.color);
const mix = (color, other, part) => color.map((value, i) => Math.round(value + (other[i] - value) * part));
const light = (color) => mix(color, [255, 255, 255], 0.5);
const dark = (color) => mix(color, [0, 0, 0], 0.45);
const COLORS = INDEX.colors;

function ramp(share) {
  const place = Math.min(share, 0.9999) * (COLORS.ramp.length - 1);
  return mix(COLORS.ramp[Math.floor(place)], COLORS.ramp[Math.floor(place) + 1], place % 1);
}

// A legend is a list of {title, color}; `off` are the entries that are hidden until somebody asks for them.
const LEGENDS = {
  mask: {
    title: "Classes",
    off: [0],
    entries: INDEX.classes.map((info) => ({
      title: info.title,
      text: info.text,
      color: info.color,
    })),
  },
  scl: { title: "SCL classes", off: [], entries: INDEX.scl },
  votes: {
    title: "Votes",
    off: [],
    entries: [
      { title: "Cloud: model and SCL", color: CLOUD },
      { title: "Cloud: model alone", color: light(CLOUD) },
      { title: "Cloud: SCL alone", color: dark(CLOUD) },
      { title: "Shadow: model and SCL", color: SHADOW },
      { title: "Shadow: model alone", color: light(SHADOW) },
      { title: "Shadow: SCL alone", color: dark(SHADOW) },
      { title: "Voted, then removed", color: COLORS.removed },
      { title: "Added by the buffer", color: COLORS.added },
    ],
  },
  changes: {
    title: "Changes to the SCL mask",
    off: [],
    entries: [
      { title: "Cloud added", color: CLOUD },
      { title: "Shadow added", color: SHADOW },
      { title: "Cloud taken away", color: COLORS.removed },
      { title: "Shadow taken away", color: COLORS.added },
    ],
  },
  probability: {
    title: "Probability",
    off: [],
    entries: Array.from({ length: 100 / INDEX.step + 1 }, (_, i) => ({
      title: `${i * INDEX.step} %`,
      color: ramp((i * INDEX.step) / 100),
    })),
  },
};

// Entry of a byte of the mask plane, null for none.
function vote(byte) {
  const [product, cloudModel, shadowModel] = [(byte >> 2) & 3, byte & 16, byte & 32];
  if (byte & 64) return 6;
  if (byte & 128) return 7;
  if (cloudModel || product === 1) return product !== 1 ? 1 : cloudModel ? 0 : 2;
  if (shadowModel || product === 2) return product !== 2 ? 4 : shadowModel ? 3 : 5;
  return null;
}

function change(byte) {
  const [now, before] = [byte & 3, (byte >> 2) & 3];
  if (now === before || now === 3 || before === 3) return null;
  if (now !== 0) return now - 1;
  return before + 1;
}

const LAYERS = {
  none: { title: "Picture only" },
  improved: { title: "Improved mask", plane: "mask", legend: "mask", entry: (byte) => byte & 3 },
  product: { title: "SCL mask", plane: "mask", legend: "mask", entry: (byte) => (byte >> 2) & 3 },
  changes: { title: "What changed", plane: "mask", legend: "changes", entry: change },
  votes: { title: "Votes", plane: "mask", legend: "votes", entry: vote },
  scl: { title: "SCL classes", plane: "scl", legend: "scl", entry: (byte) => byte },
  cloud: { title: "Cloud probability", plane: "cloud", legend: "probability", entry: (byte) => byte },
  shadow: { title: "Shadow probability", plane: "shadow", legend: "probability", entry: (byte) => byte },
};

// Whether the published item has what a layer shows.
function isThere(scene, name) {
  const layer = LAYERS[name];
  if (!layer.plane) return true;
  if (!scene.planes[layer.plane]) return false;
  if (name === "votes") return scene.has_votes;
  return !["product", "changes"].includes(name) || scene.has_product;
}

// A layer as a canvas of one pixel for each of its plane's.
function paint({ height, width, pixels }, name, hidden) {
  const { legend, entry } = LAYERS[name];
  const colors = new Uint32Array(256);
  const bytes = new Uint8Array(colors.buffer);
  for (let value = 0; value < 256; value += 1) {
    const at = entry(value);
    const found = at === null || hidden[legend].has(at) ? null : LEGENDS[legend].entries[at];
    if (found) bytes.set([...found.color, 255], 4 * value);
  }
  const image = new ImageData(width, height);
  const target = new Uint32Array(image.data.buffer);
  for (let i = 0; i < pixels.length; i += 1) target[i] = colors[pixels[i]];
  const canvas = el("canvas", { width, height });
  canvas.getContext("2d").putImageData(image, 0, 0);
  return canvas;
}
