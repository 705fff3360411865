"""Load published masks, and read their layers on any grid, for plots, notebooks and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from os import PathLike, fspath
from typing import Final, TypeVar

import numpy as np
import pystac
from numpy.typing import NDArray

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.pixels import to_rgb
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA, Vote
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.stac.assets import OWN, Json
from stac_cloudmask.stac.hrefs import check_href
from stac_cloudmask.stac.metadata import codes_in, mask_grid, number
from stac_cloudmask.stac.parse import Failure
from stac_cloudmask.stac.search import load_items
from stac_cloudmask.stac.warp import Views, rgb_keys

U8 = NDArray[np.uint8]
DType = TypeVar("DType", np.uint8, np.uint16)
MaskItem = pystac.Item | str | PathLike[str] | Result
"""An output item, its URL or path, or its result from ``process``."""

MASK: Final = "cloud_mask"
"""Asset key of the mask, and name of its variable in a dataset."""
MASK_VOTES: Final = "mask_votes"
"""The same for the votes."""
CLASS_NAMES: Final = {int(info.code): info.name for info in CLASSES}
OPACITY: Final = 0.55
"""Opacity of cloud and shadow over a picture."""


def mask_item_of(mask: MaskItem, *, catalog: str | None = None) -> pystac.Item:
    """Return the referenced output item; an id is looked up in ``catalog``.

    Raises:
        ConfigError: There is none, or it is the item of a scene rather than a mask.
    """
    if isinstance(mask, Result):
        if mask.output is None:
            raise ConfigError(f"item {mask.item_id!r} has no mask: {mask.error or mask.status}")
        mask = mask.output
    if not isinstance(mask, pystac.Item):
        found = next(load_items([fspath(mask)], catalog=catalog))
        if isinstance(found, Failure):
            raise found.error
        mask = found
    if MASK not in mask.assets:
        raise ConfigError(
            f"item {mask.id!r} has no asset {MASK!r}: it is a scene, not a mask; give an item that process wrote"
        )
    return mask


@dataclass(frozen=True, kw_only=True)
class Product:
    """An output item's description of the scene classification (SCL) with which its mask was merged.

    Attributes:
        key: Asset key; None if no SCL was used.
        cloud_codes: Codes that mean cloud.
        shadow_codes: Codes that mean cloud shadow.
    """

    key: str | None
    cloud_codes: tuple[int, ...]
    shadow_codes: tuple[int, ...]

    @classmethod
    def of(cls, properties: Json) -> Product:
        """Return the description in the properties of an item."""
        stated, key = properties.get(f"{OWN}settings"), properties.get(f"{OWN}product_mask")
        settings = stated if isinstance(stated, dict) else {}
        cloud, shadow = (codes_in(settings.get(f"scl_{name}")) for name in ("cloud", "shadow"))
        return cls(key=key if isinstance(key, str) else None, cloud_codes=cloud, shadow_codes=shadow)


@dataclass(kw_only=True)
class MaskLayers:
    """The assets of an output item, read on grids that may be much coarser than theirs.

    Attributes:
        home: Location of the item; None for one made in memory.
        hrefs: Hrefs by asset key.
        grid: Grid of the mask.
        product: The scene classification with which the mask was merged.
        rgb: Scale and offset of reflectance by asset key, of red, green and blue; empty where the item does not have
            them all.
        views: Reader of the assets.
        notes: What could not be read, and why; grows as assets are read.
    """

    home: str | None
    hrefs: Mapping[str, str]
    grid: Grid
    product: Product
    rgb: Mapping[str, tuple[float, float]]
    views: Views
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, item: Json, views: Views) -> MaskLayers:
        """Return the layers of an output item whose hrefs are absolute."""
        assets = item["assets"]
        return cls(
            home=next((str(link["href"]) for link in item["links"] if link.get("rel") == "self"), None),
            hrefs={key: str(asset["href"]) for key, asset in assets.items()},
            grid=mask_grid(item, MASK),
            product=Product.of(item["properties"]),
            rgb={key: _scaling(assets[key]) for key in rgb_keys(assets) or ()},
            views=views,
        )

    def coarse(self, side: int) -> Grid:
        """Return the grid of whole blocks of the mask's pixels whose longest side is at most ``side``."""
        return self.grid.coarsen(-(-max(self.grid.shape) // side))

    def href(self, key: str) -> str:
        """Return the href of an asset if it may be read.

        Raises:
            UnsupportedItemError: It is not allowed.
        """
        return check_href(self.hrefs[key], base=self.home)

    def classes(self, grid: Grid) -> U8:
        """Return the most frequent class of the mask in each pixel of ``grid``, ``(y, x)`` codes of `CloudClass`.

        Raises:
            StacCloudmaskError: The mask cannot be read.
        """
        return self.views.classes(self.hrefs[MASK], grid, base=self.home, fill=CloudClass.NODATA)

    def votes(self, grid: Grid) -> U8 | None:
        """Return the most frequent votes, ``(y, x)`` bits of `Vote`; None if they are not published."""
        votes = self._read(MASK_VOTES, self.views.classes, grid=grid, fill=None)
        return None if votes is None else np.where(votes == VOTES_NODATA, np.uint8(0), votes)

    def scl(self, grid: Grid) -> U8 | None:
        """Return the most frequent class of SCL, ``(y, x)``, 0 = nodata; None if it is missing."""
        return self._read(self.product.key, self.views.classes, grid=grid, fill=0)

    def product_classes(self, scl: U8 | None, votes: U8 | None) -> U8 | None:
        """Return SCL, or else its votes, as codes of `CloudClass`; None if SCL was not used."""
        if scl is not None:
            cases = [np.isin(scl, self.product.cloud_codes), np.isin(scl, self.product.shadow_codes), scl == 0]
            codes = [CloudClass.CLOUD, CloudClass.CLOUD_SHADOW, CloudClass.NODATA]
            return np.select(cases, codes, CloudClass.CLEAR).astype(np.uint8)
        return None if votes is None or self.product.key is None else vote_classes(votes)

    def percent(self, name: str, grid: Grid) -> U8 | None:
        """Return the mean probability of ``cloud`` or ``shadow`` in percent, ``(y, x)``, 255 = nodata."""
        means = self._read(f"{name}_probability", self.views.means, grid=grid, fill=PERCENT_NODATA, dtype="uint8")
        return None if means is None else means.astype(np.uint8)

    def picture(self, grid: Grid) -> U8 | None:
        """Return the scene in natural colors, ``(y, x, 3)``; None if its bands cannot be read."""
        if not self.rgb:
            self.notes.append("There is no picture, because the item does not have red, green and blue.")
        planes = []
        for key, (scale, offset) in self.rgb.items():
            dn = self._read(key, self.views.means, grid=grid, fill=0, dtype="uint16")
            if dn is not None:
                reflectance = np.maximum(dn * np.float32(scale) + np.float32(offset), 0)
                planes.append(np.where(dn > 0, reflectance, 0).astype(np.float32))
        return to_rgb(np.stack(planes)) if planes and len(planes) == len(self.rgb) else None

    def _read(self, key: str | None, read: Callable[..., NDArray[DType]], **how: object) -> NDArray[DType] | None:
        """Read an asset that may be missing or unreachable; an asset that failed is not tried again."""
        href = self.hrefs.get(key or "")
        if href is None:
            return None
        try:
            return read(href, base=self.home, **how)
        except StacCloudmaskError as error:
            self.hrefs = {name: href for name, href in self.hrefs.items() if name != key}
            self.notes.append(f"Asset {key} is not shown: {error}.")
            return None


def _scaling(asset: Json) -> tuple[float, float]:
    scale, offset = number(asset.get("raster:scale")), number(asset.get("raster:offset"))
    return 1e-4 if scale is None else scale, offset or 0.0


def vote_classes(votes: U8) -> U8:
    """Return the classes for which SCL voted, ``(y, x)`` codes of `CloudClass`."""
    cloud, shadow = (votes & bit > 0 for bit in (Vote.PRODUCT_CLOUD, Vote.PRODUCT_SHADOW))
    return np.select([cloud, shadow], [CloudClass.CLOUD, CloudClass.CLOUD_SHADOW], CloudClass.CLEAR).astype(np.uint8)


def painted(classes: U8, picture: U8 | None, *, bare: tuple[int, int, int]) -> U8:
    """Return a picture overlaid with cloud and shadow, ``(y, x, 3)`` on the pixels of ``classes``.

    Args:
        classes: ``(y, x)`` codes of `CloudClass`.
        picture: ``(y, x, 3)`` of the same extent, of which the nearest pixels are taken; None if there is none.
        bare: Red, green and blue where there is no picture.
    """
    below = np.array([[bare]], np.uint8) if picture is None else picture
    sides = zip(classes.shape, below.shape[:2], strict=True)
    rows, cols = (((np.arange(side) + 0.5) / side * old).astype(int) for side, old in sides)
    out = below[np.ix_(rows, cols)].astype(np.float32)
    for info in CLASSES:
        if info.painted:
            here = classes == info.code
            out[here] = (1 - OPACITY) * out[here] + OPACITY * np.array(info.rgb, np.float32)
    return out.round().astype(np.uint8)
