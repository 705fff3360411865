"""The layers of a scene as the report's page wants them."""

from __future__ import annotations

import io
import json
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np
from PIL import Image

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.reflectance import to_rgb
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.stac.item import OWN
from stac_cloudmask.stac.metadata import codes_in, mask_grid, number
from stac_cloudmask.stac.warp import Views, rgb_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]
    from stac_cloudmask.core.grid import Grid

    Json = Mapping[str, Any]

PICTURES: Final = ((512, 70), (512, 50), (448, 42), (384, 36), (320, 30), (256, 25))
"""Side and WebP quality of a picture, best first."""
LEVEL: Final = 6
"""Of zlib; 9 takes three times as long for 2 % less."""
THUMB_SIDE: Final = 96
OPACITY: Final = 0.6
"""Of the mask over a thumbnail."""
BARE: Final = (128, 134, 140)
"""What a thumbnail shows where there is no picture: red, green, blue."""


def deflate(data: bytes) -> bytes:
    """Raw deflate, which browsers undo exactly; pixels read back from a canvas may be altered against tracking."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    return packer.compress(data) + packer.flush()


def picture(rgb: U8, room: int) -> bytes:
    """A picture ``(y, x, 3)`` as WebP, as good as ``room`` bytes allow."""
    for side, quality in PICTURES:
        small = Image.fromarray(rgb)
        small.thumbnail((side, side), Image.Resampling.BOX)
        data = _webp(small, quality)
        if len(data) <= room:
            return data
    return data


def thumbnail(rgb: U8 | None, classes: U8) -> bytes:
    """Cloud and shadow over a picture as a small WebP.

    Args:
        rgb: ``(y, x, 3)``; None where there is no picture.
        classes: ``(y, x)`` codes of the same extent; any code without overlay color lets the picture through.
    """
    table = np.zeros((256, 4), np.uint8)
    for info in CLASSES:
        if info.overlay is not None:
            table[info.code] = (*info.overlay, round(255 * OPACITY))
    above = Image.fromarray(table[classes])
    above.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    if rgb is None:
        below = Image.new("RGBA", above.size, BARE)
    else:
        below = Image.fromarray(rgb).resize(above.size, Image.Resampling.BOX).convert("RGBA")
    return _webp(Image.alpha_composite(below, above).convert("RGB"), 70)


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def base64(data: bytes) -> str:
    """Bytes as text."""
    return b64encode(data).decode("ascii")


def script_json(value: object) -> str:
    """JSON that stays data inside a script element, whatever its texts are."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


Pixel = TypeVar("Pixel", np.uint8, np.uint16)

SIDE: Final = 512
"""Longest side of a layer, in pixels."""
LAYER_BYTES: Final = 44_000
"""Of all layers of an item, compressed; scenes too ragged for this are shown with fewer pixels."""
STEP: Final = 5
"""Percents of probability that the page tells apart."""
UNKNOWN: Final = 3
"""Code of no data in two bits."""
MASK, VOTES = "cloud_mask", "mask_votes"
PERCENT_NODATA: Final = 255


@dataclass(frozen=True, kw_only=True)
class Plane:
    """One layer.

    Attributes:
        name: ``mask``: two bits each for class and the product's class (3 = none), then the votes of cloud model and
            shadow model, removed, added; ``scl``: codes; ``cloud`` and ``shadow``: probability in ``STEP`` percent,
            255 = nodata.
        factor: Mask pixels along the side of a pixel.
        pixels: ``(y, x)`` uint8.
    """

    name: str
    factor: int
    pixels: U8


@dataclass(frozen=True, kw_only=True)
class Source:
    """One band of the picture: reflectance is ``dn * scale + offset``."""

    key: str
    scale: float
    offset: float


@dataclass(kw_only=True)
class Scene:
    """What there is to be seen of an item.

    Attributes:
        home: Where the item was read from; None for one made in memory.
        hrefs: By asset key.
        grid: Of the mask.
        product: Asset key of the product's own mask; None where it had no say.
        cloud_codes: Its codes that mean cloud.
        shadow_codes: Its codes that mean cloud shadow.
        rgb: Bands of red, green and blue; empty where the item does not have them all.
        views: Reads assets.
        side: Longest side of a layer, in pixels.
        notes: What could not be read, and why; grows as assets are read.
    """

    home: str | None
    hrefs: Mapping[str, str]
    grid: Grid
    product: str | None
    cloud_codes: tuple[int, ...]
    shadow_codes: tuple[int, ...]
    rgb: tuple[Source, ...]
    views: Views
    side: int = SIDE
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, item: Json, views: Views, *, side: int = SIDE) -> Scene:
        """The scene of an output item, hrefs of its files absolute."""
        assets, properties = item["assets"], item["properties"]
        settings = properties.get(f"{OWN}settings")
        coded = settings if isinstance(settings, dict) else {}
        product = properties.get(f"{OWN}product_mask")
        keys = rgb_keys(assets) or ()
        return cls(
            home=next((str(link["href"]) for link in item["links"] if link.get("rel") == "self"), None),
            hrefs={key: str(asset["href"]) for key, asset in assets.items()},
            grid=mask_grid(item, MASK),
            product=product if isinstance(product, str) else None,
            cloud_codes=codes_in(coded.get("scl_cloud")),
            shadow_codes=codes_in(coded.get("scl_shadow")),
            rgb=tuple(_source(key, assets[key]) for key in keys),
            views=views,
            side=side,
        )

    @property
    def factor(self) -> int:
        """Mask pixels along the side of a pixel, for layers of at most ``side``."""
        return -(-max(self.grid.shape) // self.side)

    def layers(self) -> tuple[list[Plane], bytes]:
        """The layers, as fine as ``LAYER_BYTES`` allows, and their bytes one after the other, raw deflate.

        Raises:
            StacCloudmaskError: The mask cannot be read.
        """
        factor, fine = self.factor, 1
        while True:
            planes = list(self._planes(self.grid.coarsen(factor), factor, fine))
            packed = deflate(b"".join(plane.pixels.tobytes() for plane in planes))
            if len(packed) <= LAYER_BYTES or factor >= max(self.grid.shape):
                return planes, packed
            if fine > 1:
                factor = max(factor + 1, int(factor * (len(packed) / LAYER_BYTES) ** 0.5))
            fine = 2

    def _planes(self, grid: Grid, factor: int, fine: int) -> Iterator[Plane]:
        key, coarse = self.product or "", grid.coarsen(fine)
        scl = self._classes(key, grid, fill=0)
        yield Plane(name="mask", factor=factor, pixels=self._mask(grid, scl))
        small = scl if fine == 1 else self._classes(key, coarse, fill=0)
        if small is not None:
            yield Plane(name="scl", factor=factor * fine, pixels=small)
        for name in ("cloud", "shadow"):
            percent = self._means(f"{name}_probability", coarse, fill=PERCENT_NODATA, dtype="uint8")
            if percent is not None:
                steps = np.where(percent == PERCENT_NODATA, percent, percent // STEP).astype(np.uint8)
                yield Plane(name=name, factor=factor * fine, pixels=steps)

    def codes(self) -> U8:
        """Only the layer ``mask`` of ``layers``, at ``factor``.

        Raises:
            StacCloudmaskError: The mask cannot be read.
        """
        grid = self.grid.coarsen(self.factor)
        return self._mask(grid, self._classes(self.product or "", grid, fill=0))

    def _mask(self, grid: Grid, scl: U8 | None) -> U8:
        classes = self.views.classes(self.hrefs[MASK], grid, base=self.home, fill=CloudClass.NODATA)
        votes = self._classes(VOTES, grid, fill=None)
        packed = np.minimum(classes, np.uint8(UNKNOWN)) | self._product(scl, votes, grid) << 2
        said: U8 = packed if votes is None else packed | (votes >> 2 & 15) << 4
        return said

    def _product(self, scl: U8 | None, votes: U8 | None, grid: Grid) -> U8:
        """The product's own class in two bits: by its SCL, else by its votes."""
        table = np.zeros(256, np.uint8)
        table[0] = UNKNOWN
        table[[*self.shadow_codes]] = CloudClass.CLOUD_SHADOW
        table[[*self.cloud_codes]] = CloudClass.CLOUD
        if scl is not None:
            return table[scl]
        if votes is not None and self.product is not None:
            return np.where(votes & 1, 1, votes & 2).astype(np.uint8)
        return np.full(grid.shape, UNKNOWN, np.uint8)

    def picture(self) -> U8 | None:
        """The scene as people see it, ``(y, x, 3)``; None where its bands are not there or cannot be read."""
        if not self.rgb:
            self.notes.append("There is no picture, as the item does not have red, green and blue.")
            return None
        grid = self.grid.coarsen(self.factor)
        bands = [self._reflectance(source, grid) for source in self.rgb]
        known = [band for band in bands if band is not None]
        return to_rgb(np.stack(known)) if len(known) == len(bands) else None

    def _reflectance(self, source: Source, grid: Grid) -> NDArray[np.float32] | None:
        dn = self._means(source.key, grid, fill=0, dtype="uint16")
        if dn is None:
            return None
        reflectance = dn * np.float32(source.scale) + np.float32(source.offset)
        return np.where(dn > 0, np.maximum(reflectance, 0), 0).astype(np.float32)

    def _classes(self, key: str, grid: Grid, *, fill: int | None) -> U8 | None:
        return self._read(key, lambda href: self.views.classes(href, grid, base=self.home, fill=fill))

    def _means(self, key: str, grid: Grid, *, fill: int, dtype: str) -> NDArray[np.uint16] | None:
        return self._read(key, lambda href: self.views.means(href, grid, base=self.home, fill=fill, dtype=dtype))

    def _read(self, key: str, read: Callable[[str], NDArray[Pixel]]) -> NDArray[Pixel] | None:
        """An asset that may be missing or out of reach; once it was, it is not asked for again."""
        href = self.hrefs.get(key)
        if href is None:
            return None
        try:
            return read(href)
        except StacCloudmaskError as error:
            self.hrefs = {name: href for name, href in self.hrefs.items() if name != key}
            self.notes.append(f"Asset {key} is not shown: {error}.")
            return None


def _source(key: str, asset: Json) -> Source:
    scale, offset = number(asset.get("raster:scale")), number(asset.get("raster:offset"))
    return Source(key=key, scale=1e-4 if scale is None else scale, offset=offset or 0.0)
