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
  // Mask pixels along the side of what a click answers for
  const unit = found.tiles ? 1 : planes.mask.factor;
  return { ...found, planes, picture, height, width, unit, cache: new Map() };
}

// Pixels of a tile of the mask, at the mask's own pixels: {row, col, height, width, pixels}.
function tileOf(scene, number) {
  if (!scene.cache.has(number)) {
    const { side, data } = scene.tiles;
    const across = Math.ceil(scene.width / side);
    const [row, col] = [Math.floor(number / across) * side, (number % across) * side];
    const size = { row, col, height: Math.min(side, scene.height - row), width: Math.min(side, scene.width - col) };
    scene.cache.set(number, inflate(bytesOf(data[number])).then((pixels) => ({ ...size, pixels })));
  }
  return scene.cache.get(number);
}

// Byte of the plane `mask` at a pixel of the mask, as fine as the file has it.
async function maskByte(scene, row, col) {
  if (!scene.tiles) return valueAt(scene, "mask", row, col);
  const { side } = scene.tiles;
  const tile = await tileOf(scene, Math.floor(row / side) * Math.ceil(scene.width / side) + Math.floor(col / side));
  return tile.pixels[(row - tile.row) * tile.width + col - tile.col];
}

// Shares in percent of the valid pixels of an area, and of the area that has any; null where an item lies elsewhere.
async function sharesOf(item, area) {
  const found = details(item);
  if (!found.data || found.grid.code !== area.grid.code) return null;
  const pixels = await inflate(bytesOf(found.data));
  const { factor, shape: [height, width] } = found.planes[0];
  const { grid } = found;
  // Rows and columns of the same place on this item's own grid
  const to = (at, start, sign) => Math.round((sign * (at - start)) / grid.gsd / factor);
  const place = (row, col) => [area.grid.top - row * area.grid.gsd, area.grid.left + col * area.grid.gsd];
  const [y0, x0] = place(area.top, area.left);
  const [y1, x1] = place(area.bottom, area.right);
  const [top, left] = [to(y0, grid.top, -1), to(x0, grid.left, 1)];
  const [bottom, right] = [Math.max(to(y1, grid.top, -1), top + 1), Math.max(to(x1, grid.left, 1), left + 1)];
  const counts = [0, 0, 0, 0];
  for (let row = Math.max(top, 0); row < Math.min(bottom, height); row += 1) {
    for (let col = Math.max(left, 0); col < Math.min(right, width); col += 1) counts[pixels[row * width + col] & 3] += 1;
  }
  const valid = counts[0] + counts[1] + counts[2];
  const share = (count) => (valid ? (100 * count) / valid : null);
  const seen = (100 * valid) / ((bottom - top) * (right - left));
  return { clear: share(counts[0]), cloud: share(counts[1]), shadow: share(counts[2]), seen };
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

// Longitude and latitude of a point in a UTM zone of WGS 84, to a centimeter: Krueger's series to the third order.
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
