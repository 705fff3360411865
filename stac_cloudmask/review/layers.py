"""The layers of a published mask on a grid of choice, for plots, notebooks and the report."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Final, TypeVar

import numpy as np

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.reflectance import to_rgb
from stac_cloudmask.core.votes import VOTES_NODATA, Vote
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.stac.assets import OWN
from stac_cloudmask.stac.metadata import codes_in, mask_grid, number
from stac_cloudmask.stac.warp import Views, rgb_keys

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.core.grid import Grid

    U8 = NDArray[np.uint8]
    Json = Mapping[str, Any]

DType = TypeVar("DType", np.uint8, np.uint16)

MASK: Final = "cloud_mask"
"""Asset key, and variable of a dataset, of the mask."""
MASK_VOTES: Final = "mask_votes"
"""The same of the votes."""
OPACITY: Final = 0.55
"""Opacity of cloud and shadow over a picture."""


@dataclass(frozen=True, kw_only=True)
class Reflectance:
    """One band of the picture: reflectance is ``dn * scale + offset``."""

    key: str
    scale: float
    offset: float


@dataclass(kw_only=True)
class MaskLayers:
    """The assets of an output item, read on grids that may be much coarser than theirs.

    Attributes:
        home: Where the item was read from; None for one made in memory.
        hrefs: Hrefs by asset key.
        grid: Grid of the mask.
        product: Asset key of SCL; None where it was not used.
        cloud_codes: Codes of SCL that mean cloud.
        shadow_codes: Codes of SCL that mean cloud shadow.
        rgb: Bands of red, green and blue; empty where the item does not have them all.
        views: Reads assets.
        notes: What could not be read, and why; grows as assets are read.
    """

    home: str | None
    hrefs: Mapping[str, str]
    grid: Grid
    product: str | None
    cloud_codes: tuple[int, ...]
    shadow_codes: tuple[int, ...]
    rgb: tuple[Reflectance, ...]
    views: Views
    notes: list[str] = field(default_factory=list)

    @classmethod
    def of(cls, item: Json, views: Views) -> MaskLayers:
        """Return the layers of an output item whose hrefs are absolute."""
        assets, properties = item["assets"], item["properties"]
        settings = properties.get(f"{OWN}settings")
        coded = settings if isinstance(settings, dict) else {}
        product = properties.get(f"{OWN}product_mask")
        return cls(
            home=next((str(link["href"]) for link in item["links"] if link.get("rel") == "self"), None),
            hrefs={key: str(asset["href"]) for key, asset in assets.items()},
            grid=mask_grid(item, MASK),
            product=product if isinstance(product, str) else None,
            cloud_codes=codes_in(coded.get("scl_cloud")),
            shadow_codes=codes_in(coded.get("scl_shadow")),
            rgb=tuple(_reflectance(key, assets[key]) for key in rgb_keys(assets) or ()),
            views=views,
        )

    def classes(self, grid: Grid) -> U8:
        """Return the most frequent class of the mask in each pixel of ``grid``, ``(y, x)`` codes of `CloudClass`.

        Raises:
            StacCloudmaskError: The mask cannot be read.
        """
        return self.views.classes(self.hrefs[MASK], grid, base=self.home, fill=CloudClass.NODATA)

    def votes(self, grid: Grid) -> U8 | None:
        """Return the most frequent votes, ``(y, x)`` bits of `Vote`; None where they are not published."""
        votes = self._codes(MASK_VOTES, grid, fill=None)
        return None if votes is None else np.where(votes == VOTES_NODATA, np.uint8(0), votes)

    def scl(self, grid: Grid) -> U8 | None:
        """Return the most frequent class of SCL, ``(y, x)``, 0 = nodata; None where it is not there."""
        return self._codes(self.product or "", grid, fill=0)

    def product_classes(self, scl: U8 | None, votes: U8 | None) -> U8 | None:
        """Return what SCL, or else its votes, mean as codes of `CloudClass`; None where SCL was not used."""
        if scl is not None:
            table = np.full(256, CloudClass.CLEAR, np.uint8)
            table[0] = CloudClass.NODATA
            table[[*self.shadow_codes]] = CloudClass.CLOUD_SHADOW
            table[[*self.cloud_codes]] = CloudClass.CLOUD
            return table[scl]
        return None if votes is None or self.product is None else classes_of_votes(votes)

    def percent(self, name: str, grid: Grid) -> U8 | None:
        """Return the mean probability of ``cloud`` or ``shadow`` in percent, ``(y, x)``, 255 = nodata."""
        means = self._means(f"{name}_probability", grid, fill=PERCENT_NODATA, dtype="uint8")
        return None if means is None else means.astype(np.uint8)

    def picture(self, grid: Grid) -> U8 | None:
        """Return the scene in natural colors, ``(y, x, 3)``; None where its bands cannot be read."""
        if not self.rgb:
            self.notes.append("There is no picture, as the item does not have red, green and blue.")
            return None
        bands = [self._band(band, grid) for band in self.rgb]
        known = [band for band in bands if band is not None]
        return to_rgb(np.stack(known)) if len(known) == len(bands) else None

    def _band(self, band: Reflectance, grid: Grid) -> NDArray[np.float32] | None:
        dn = self._means(band.key, grid, fill=0, dtype="uint16")
        if dn is None:
            return None
        reflectance = dn * np.float32(band.scale) + np.float32(band.offset)
        return np.where(dn > 0, np.maximum(reflectance, 0), 0).astype(np.float32)

    def _codes(self, key: str, grid: Grid, *, fill: int | None) -> U8 | None:
        return self._read(key, lambda href: self.views.classes(href, grid, base=self.home, fill=fill))

    def _means(self, key: str, grid: Grid, *, fill: int, dtype: str) -> NDArray[np.uint16] | None:
        return self._read(key, lambda href: self.views.means(href, grid, base=self.home, fill=fill, dtype=dtype))

    def _read(self, key: str, read: Callable[[str], NDArray[DType]]) -> NDArray[DType] | None:
        """Read an asset that may be missing or out of reach; an asset that failed is not tried again."""
        href = self.hrefs.get(key)
        if href is None:
            return None
        try:
            return read(href)
        except StacCloudmaskError as error:
            self.hrefs = {name: href for name, href in self.hrefs.items() if name != key}
            self.notes.append(f"Asset {key} is not shown: {error}.")
            return None


def classes_of_votes(votes: U8) -> U8:
    """Return what SCL voted for, ``(y, x)`` codes of `CloudClass`."""
    cloud, shadow = (votes & bit > 0 for bit in (Vote.PRODUCT_CLOUD, Vote.PRODUCT_SHADOW))
    chosen = np.select([cloud, shadow], [CloudClass.CLOUD, CloudClass.CLOUD_SHADOW], CloudClass.CLEAR)
    codes: U8 = chosen.astype(np.uint8)
    return codes


def coarse(grid: Grid, side: int) -> Grid:
    """Return the grid of whole blocks of pixels whose longest side is at most ``side``."""
    return grid.coarsen(-(-max(grid.shape) // side))


def painted(classes: U8, below: NDArray[np.float32]) -> NDArray[np.float32]:
    """Return a picture ``(y, x, 3)`` of values 0..255 with cloud and shadow laid over it."""
    out = below.copy()
    for info in CLASSES:
        if info.painted:
            here = classes == info.code
            out[here] = (1 - OPACITY) * below[here] + OPACITY * np.array(info.rgb, np.float32)
    return out


def resampled(picture: U8, shape: tuple[int, ...]) -> NDArray[np.float32]:
    """Return the nearest pixels of a picture of the same extent, ``(y, x, 3)``."""
    rows, cols = (
        ((np.arange(side) + 0.5) / side * old).astype(int) for side, old in zip(shape, picture.shape, strict=False)
    )
    return picture[np.ix_(rows, cols)].astype(np.float32)


def shares(codes: U8) -> dict[str, float]:
    """Return the percent of the valid pixels by class name; all 0 where none is valid."""
    counts = np.bincount(codes.ravel(), minlength=CloudClass.NODATA + 1)
    valid = max(1, int(counts[: CloudClass.NODATA].sum()))
    return {info.name: 100 * float(counts[info.code]) / valid for info in CLASSES if info.code != CloudClass.NODATA}


def _reflectance(key: str, asset: Json) -> Reflectance:
    scale, offset = number(asset.get("raster:scale")), number(asset.get("raster:offset"))
    return Reflectance(key=key, scale=1e-4 if scale is None else scale, offset=offset or 0.0)
