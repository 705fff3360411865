// The items, and their pixels once they are looked at.
const INDEX = JSON.parse($("index").textContent);

const difference = (a, b) => (isNumber(a) && isNumber(b) ? Math.abs(a - b) : null);

const ITEMS = INDEX.items.map((raw, number) => {
  const item = { product: {}, ...raw };
  const time = Date.parse(item.datetime);
  const parts = [difference(item.cloud, item.product.cloud), difference(item.shadow, item.product.shadow)];
  const known = parts.filter((part) => part !== null);
  return {
    ...item,
    number,
    time: Number.isNaN(time) ? null : time,
    change: known.length ? known.reduce((sum, part) => sum + part, 0) : null,
    words: [item.id, item.source, item.collection, item.platform].join(" ").toLowerCase(),
  };
});

const details = (item) => JSON.parse($(`item-${item.number}`).textContent);

const bytesOf = (text) => Uint8Array.from(atob(text), (letter) => letter.charCodeAt(0));

async function inflate(bytes) {
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate-raw"));
  return new Uint8Array(await new Response(stream).arrayBuffer());
}

async function pictureOf(text) {
  const image = new Image();
  image.src = `data:image/webp;base64,${text}`;
  await image.decode();
  return image;
}

// A scene with its planes by name: {factor, height, width, pixels}; null for an item that cannot be shown.
async function open(item) {
  const found = details(item);
  if (!found.data) return { ...found, planes: {}, picture: null };
  const [bytes, picture] = await Promise.all([
    inflate(bytesOf(found.data)),
    found.picture ? pictureOf(found.picture) : null,
  ]);
  const planes = {};
  let start = 0;
  for (const { name, factor, shape } of found.planes) {
    const [height, width] = shape;
    planes[name] = { factor, height, width, pixels: bytes.subarray(start, start + height * width) };
    start += height * width;
  }
  const [height, width] = found.grid.shape;
  return { ...found, planes, picture, height, width };
}

// Value of a plane at a pixel of the mask; null outside and where the plane is missing.
function valueAt(scene, name, row, col) {
  const plane = scene.planes[name];
  if (!plane) return null;
  const [r, c] = [Math.floor(row / plane.factor), Math.floor(col / plane.factor)];
  return r < 0 || c < 0 || r >= plane.height || c >= plane.width ? null : plane.pixels[r * plane.width + c];
}

// Whether a pixel of two scenes is the same place.
function onSameGrid(one, other) {
  const [a, b] = [one, other].map((scene) => (scene?.planes.mask ? JSON.stringify(scene.grid) : null));
  return a !== null && a === b;
}

// Longitude and latitude of a point in a UTM zone of WGS 84, to a centimetre: Krueger's series to the third order.
function degrees(code, x, y) {
  const zone = /^EPSG:32([67])(\d\d)$/.exec(code);
  if (!zone) return null;
  const n = 1 / (2 * 298.257223563 - 1);
  const a = (6378137 / (1 + n)) * (1 + n ** 2 / 4 + n ** 4 / 64);
  const beta = [n / 2 - (2 * n ** 2) / 3 + (37 * n ** 3) / 96, n ** 2 / 48 + n ** 3 / 15, (17 * n ** 3) / 480];
  const delta = [2 * n - (2 * n ** 2) / 3 - 2 * n ** 3, (7 * n ** 2) / 3 - (8 * n ** 3) / 5, (56 * n ** 3) / 15];
  const north = (y - (zone[1] === "7" ? 1e7 : 0)) / (0.9996 * a);
  const east = (x - 5e5) / (0.9996 * a);
  let [xi, eta] = [north, east];
  beta.forEach((b, j) => {
    xi -= b * Math.sin(2 * (j + 1) * north) * Math.cosh(2 * (j + 1) * east);
    eta -= b * Math.cos(2 * (j + 1) * north) * Math.sinh(2 * (j + 1) * east);
  });
  const chi = Math.asin(Math.sin(xi) / Math.cosh(eta));
  const lat = delta.reduce((sum, d, j) => sum + d * Math.sin(2 * (j + 1) * chi), chi);
  const lon = Math.atan2(Math.sinh(eta), Math.cos(xi));
  return [Number(zone[2]) * 6 - 183 + (lon * 180) / Math.PI, (lat * 180) / Math.PI];
}
