"""Pack the layers of a mask compactly for the report's page, whose script unpacks them."""

from __future__ import annotations

import io
import json
import zlib
from base64 import b64encode
from collections.abc import Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Final

import numpy as np
from PIL import Image

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.review.layers import MASK_VOTES, MaskLayers, coarse, painted
from stac_cloudmask.stac.mask_item import class_counts, cover_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]

SIDE: Final = 1200
"""Longest side of a drawn layer, in pixels, if there is room for it."""
LEAST_SIDE: Final = 512
"""The same if there is little room."""
PICTURES: Final = (
    (1200, 75), (1200, 60), (1024, 50), (800, 45), (640, 45), (512, 50), (448, 42), (384, 36), (320, 30), (256, 25),
)  # fmt: skip
"""Side and WebP quality of a picture, best first."""
LEAST_BYTES_PER_PIXEL: Final = 0.03
"""Number of bytes below which a WebP of a landscape is not tried."""
LEVEL: Final = 6
"""Compression level of zlib; 9 takes three times as long for 2 % fewer bytes."""
THUMB_SIDE: Final = 96
BARE: Final = (128, 134, 140)
"""Background of a thumbnail without a picture: red, green, blue."""
STEP: Final = 5
"""Step in percent of the probabilities on the page."""
UNKNOWN: Final = 3
"""Code of nodata in two bits."""
TILE: Final = 1024
"""Side in pixels of a tile of the mask at native resolution."""


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One layer.

    Attributes:
        name: ``mask``: two bits each for class and SCL's class (3 = none), then the votes of cloud model and shadow
            model, removed, added; ``scl``: codes; ``cloud`` and ``shadow``: probability in ``STEP`` percent,
            255 = nodata.
        factor: Mask pixels along the side of a pixel.
        pixels: ``(y, x)`` uint8.
    """

    name: str
    factor: int
    pixels: U8


@dataclass(frozen=True, kw_only=True)
class Packed:
    """The packed pixels of an item for the page.

    Attributes:
        shown: JSON of the page's own data: the layers, their pixels one after the other as raw deflate, the scene as
            WebP if there is a picture, and, if the layers have fewer pixels than the mask and there is room,
            the layer ``mask`` at native resolution, row by row of tiles, each raw deflate.
        thumbnail: The mask over the scene, as small WebP.
        product: Percent of the valid pixels by class name, as SCL has it; None where it was not used.
    """

    shown: dict[str, Any]
    thumbnail: bytes
    product: dict[str, float] | None


def pack(layers: MaskLayers, *, room: int) -> Packed:
    """Read and pack the layers of an item.

    Args:
        layers: Its layers.
        room: Bytes that all of it should stay within: two thirds for the layers, what is left for the picture, and
            then, if it fits, the mask at native resolution.

    Raises:
        StacCloudmaskError: The mask cannot be read.
    """
    planes, data = _planes(layers, room * 2 // 3)
    grid, mask = layers.grid, planes[0]
    rgb = layers.picture(coarse(grid, min(SIDE, max(mask.pixels.shape))))
    picture = b"" if rgb is None else webp_within(rgb, room - len(data))
    tiles = mask_tiles(layers, room - len(data) - len(picture)) if mask.factor > 1 else []
    codes = mask.pixels & np.uint8(UNKNOWN), mask.pixels >> 2 & np.uint8(UNKNOWN)
    classes, product = (np.where(code == UNKNOWN, CloudClass.NODATA, code).astype(np.uint8) for code in codes)
    has_product = bool((product != CloudClass.NODATA).any())
    shown: dict[str, Any] = {
        "grid": {"code": grid.code, "left": grid.left, "top": grid.top, "gsd": grid.gsd, "shape": grid.shape},
        "planes": [{"name": one.name, "factor": one.factor, "shape": one.pixels.shape} for one in planes],
        "data": base64(data),
        "notes": layers.notes,
        "has_product": has_product,
        "has_votes": MASK_VOTES in layers.hrefs,
    }
    if picture:
        shown["picture"] = base64(picture)
    if tiles:
        shown["tiles"] = {"side": TILE, "data": [base64(tile) for tile in tiles]}
    cover = cover_of(class_counts(product)) if has_product else None
    return Packed(shown=shown, thumbnail=thumbnail(rgb, classes), product=cover)


def _planes(layers: MaskLayers, room: int) -> tuple[list[Plane], bytes]:
    """Return the layers at the finest resolution that fits; ragged scenes are shown with fewer pixels."""
    side = min(SIDE, max(LEAST_SIDE, int((6 * room) ** 0.5)))
    factor, fine = -(-max(layers.grid.shape) // side), 1
    while True:
        planes = list(_read(layers, factor, fine))
        data = deflate(b"".join(plane.pixels.tobytes() for plane in planes))
        if len(data) <= room or factor >= max(layers.grid.shape):
            return planes, data
        if fine > 1:
            factor = max(factor + 1, int(factor * (len(data) / room) ** 0.5))
        fine = 2


def _read(layers: MaskLayers, factor: int, fine: int) -> Iterator[Plane]:
    grid, coarser = layers.grid.coarsen(factor), layers.grid.coarsen(factor).coarsen(fine)
    scl = layers.scl(grid)
    yield Plane(name="mask", factor=factor, pixels=_mask_bytes(layers, grid, scl))
    small = scl if fine == 1 else layers.scl(coarser)
    if small is not None:
        yield Plane(name="scl", factor=factor * fine, pixels=small)
    for name in ("cloud", "shadow"):
        percent = layers.percent(name, coarser)
        if percent is not None:
            steps = np.where(percent == PERCENT_NODATA, percent, percent // STEP).astype(np.uint8)
            yield Plane(name=name, factor=factor * fine, pixels=steps)


def mask_tiles(layers: MaskLayers, room: int) -> list[bytes]:
    """Return the layer ``mask`` at native resolution in tiles; empty if they take more than ``room`` bytes."""
    tiles: list[bytes] = []
    grid = layers.grid
    for row in range(0, grid.height, TILE):
        height = min(TILE, grid.height - row)
        strip = grid.cut(Window(row, 0, height, grid.width))
        pixels = _mask_bytes(layers, strip, layers.scl(strip))
        tiles += [deflate(pixels[:, col : col + TILE].tobytes()) for col in range(0, grid.width, TILE)]
        if sum(map(len, tiles)) > room:
            return []
    return tiles


def _mask_bytes(layers: MaskLayers, grid: Grid, scl: U8 | None) -> U8:
    """Pack class, SCL's class and votes of each pixel into one byte, see `Plane`."""
    votes = layers.votes(grid)
    product = layers.product_classes(scl, votes)
    known = np.full(grid.shape, UNKNOWN, np.uint8) if product is None else np.minimum(product, np.uint8(UNKNOWN))
    packed = np.minimum(layers.classes(grid), np.uint8(UNKNOWN)) | known << 2
    said: U8 = packed if votes is None else packed | (votes >> 2 & 15) << 4
    return said


def deflate(data: bytes) -> bytes:
    """Return raw deflate, which browsers decode exactly; tracking protection may alter pixels read from a canvas."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    return packer.compress(data) + packer.flush()


def webp_within(rgb: U8, room: int) -> bytes:
    """Return a picture ``(y, x, 3)`` as WebP, in the best quality that fits ``room`` bytes."""
    whole = Image.fromarray(rgb)
    for side, quality in PICTURES:
        size = min(1.0, side / max(whole.size))
        if side > PICTURES[-1][0] and whole.width * whole.height * size**2 * LEAST_BYTES_PER_PIXEL > room:
            continue
        small = whole.copy()
        small.thumbnail((side, side), Image.Resampling.BOX)
        data = _webp(small, quality)
        if len(data) <= room:
            break
    return data


def thumbnail(rgb: U8 | None, classes: U8) -> bytes:
    """Return a picture overlaid with cloud and shadow as a small WebP.

    Args:
        rgb: ``(y, x, 3)``; None where there is no picture.
        classes: ``(y, x)`` codes of `CloudClass`, of the same extent.
    """
    small = Image.fromarray(painted(classes, rgb, bare=BARE).round().astype(np.uint8))
    small.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    return _webp(small, 70)


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def base64(data: bytes) -> str:
    """Return bytes encoded as text."""
    return b64encode(data).decode("ascii")


def script_json(value: object) -> str:
    """Return JSON that is safe inside a script element, whatever its texts contain."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
