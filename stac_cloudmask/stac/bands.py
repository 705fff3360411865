"""Resolve an item and common band names to the assets to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Final

from stac_cloudmask.errors import BandNotFoundError, UnsupportedItemError
from stac_cloudmask.stac import metadata
from stac_cloudmask.stac.boa_offset import BY_USER, Offset, boa_offset as decide_offset, is_jp2, scale_of
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, check_href, safe_id
from stac_cloudmask.stac.providers import BANDS, LAYERS, SCL, Provider, choose_href, identify

if TYPE_CHECKING:
    from collections.abc import Iterable, Sequence

    import pystac

    from stac_cloudmask.config import BoaOffset
    from stac_cloudmask.core.grid import Grid

MAX_NAMES: Final = 500
"""Maximum number of characters in a message's list of names."""


@dataclass(frozen=True, kw_only=True)
class BandSource:
    """One asset to be read.

    Attributes:
        where: Name of the asset in messages.
        common_name: One of ``providers.BANDS``, or ``scl``.
        asset_key: Its key on the item.
        href: Absolute, unsigned, allowed by the rule of ``hrefs``.
        is_zarr: Whether the href is that of a Zarr array rather than a file.
        scale: Reflectance per digital number.
        offset: Digital numbers to add before scaling.
        epsg: EPSG code of its CRS by the item's metadata; None if not stated.
        grid: Its grid by the item's metadata; None if not stated.
        size: Bytes of the file by the item's metadata; None if not stated.
    """

    where: str
    common_name: str
    asset_key: str
    href: str
    is_zarr: bool = False
    scale: float
    offset: Offset
    epsg: int | None = None
    grid: Grid | None
    size: int | None = None

    @property
    def dtype(self) -> str:
        """Expected type of its pixels: ``uint16`` for digital numbers, ``uint8`` for classes."""
        return "uint8" if self.common_name == SCL else "uint16"


@dataclass(frozen=True, kw_only=True)
class Sources:
    """The assets to read of one item, and their metadata.

    Attributes:
        item_id: The item's id, safe as part of a path.
        bands: The bands in the requested order.
        scl: The scene classification; None if there is none.
        sun: Azimuth and elevation in degrees; None where unknown.
        notes: Findings in its files that the user may want to know.
    """

    item_id: str
    bands: tuple[BandSource, ...]
    scl: BandSource | None
    sun: tuple[float, float] | None
    notes: tuple[str, ...] = ()

    @property
    def assets(self) -> tuple[BandSource, ...]:
        """The bands, and then the scene classification if there is one."""
        return self.bands if self.scl is None else (*self.bands, self.scl)


def resolve(
    item: pystac.Item,
    common_names: Sequence[str],
    *,
    boa_offset: BoaOffset = "auto",
    want_scl: bool = True,
    rule: HrefRule = DEFAULT_RULE,
) -> Sources:
    """Find the assets of an item that hold the given bands, and the scale and offset of their values.

    Args:
        item: An item of any provider; it is not changed, and nothing is read.
        common_names: Names from ``providers.BANDS``.
        boa_offset: ``auto`` applies the rule of ``boa_offset``; otherwise digital numbers to add.
        want_scl: Whether an item without SCL is an error; if not, its ``scl`` is None.
        rule: Which hrefs may be read.

    Raises:
        BandNotFoundError: A band, or the SCL, is missing.
        UnsupportedItemError: The item is not Sentinel-2 L2A, has a malicious id or href, or contradictory metadata.
    """
    safe_id(item.id)
    metadata.check_level(item)
    provider = identify(item)
    bands = tuple(_band_source(item, name, provider, boa_offset, rule) for name in common_names)
    key = _find(item, SCL, provider)
    if key is None and want_scl:
        raise BandNotFoundError(
            f"item {item.id!r} has no SCL asset (has {_listed(item.assets)}); --missing-scl model-only, in Python "
            "missing_scl='model-only', uses the models alone"
        )
    return Sources(
        item_id=item.id,
        bands=bands,
        scl=None if key is None else _source(item, SCL, key, Offset(dn=0, reason="classes"), rule),
        sun=metadata.sun_angles(item),
    )


def _band_source(item: pystac.Item, name: str, provider: Provider, choice: BoaOffset, rule: HrefRule) -> BandSource:
    key = _find(item, name, provider)
    if key is None:
        known = {band for band in BANDS if _find(item, band, provider) is not None}
        raise BandNotFoundError(
            f"item {item.id!r} has no band {name!r}; read as provider {provider.name!r} it has "
            f"{_listed(known) or 'none'}, by assets {_listed(item.assets)}; state what each holds as name "
            f"({BANDS[name].esa}) or eo:common_name ({name}) of its bands, or take a model that needs no other bands"
        )
    stated = metadata.stated_band(item, key)
    if stated not in {None, name}:
        raise UnsupportedItemError(
            f"item {item.id!r}: asset {key!r} should hold {name!r} but its band metadata say {stated!r}; correct them"
        )
    offset = decide_offset(item, key) if choice == "auto" else Offset(dn=int(choice), reason=BY_USER)
    return _source(item, name, key, offset, rule)


def _find(item: pystac.Item, name: str, provider: Provider) -> str | None:
    """Return the best asset for a band: by the provider's table, else by band metadata and key."""
    listed = next((key for key in provider.keys(name) if key in item.assets), None)
    if listed is not None:
        return listed
    matching = [
        key
        for key in item.assets
        if (metadata.is_scl(item, key) if name == SCL else metadata.asset_band(item, key) == name)
    ]
    matching = matching or [key for key in item.assets if name in metadata.group_bands(item, key)]
    return min(matching, key=lambda key: _rank(item, key, name), default=None)


def _rank(item: pystac.Item, key: str, name: str) -> tuple[bool, bool, float]:
    """Return a sort key: COG before JPEG 2000, the band's native resolution before others, fine before coarse."""
    asset = item.assets[key]
    grid = metadata.asset_grid(item, key)
    gsd = grid.gsd if grid else metadata.number(asset.extra_fields.get("gsd"))
    return is_jp2(asset), gsd != LAYERS[name].gsd, gsd or float("inf")


def _source(item: pystac.Item, name: str, key: str, offset: Offset, rule: HrefRule) -> BandSource:
    asset = item.assets[key]
    nodata = metadata.declared(asset, "nodata")
    if nodata not in {None, 0.0}:
        raise UnsupportedItemError(f"item {item.id!r}: asset {key!r} declares nodata {nodata:g}; Sentinel-2 has 0")
    array = f"/{LAYERS[name].esa.lower()}" if metadata.group_bands(item, key) else ""
    hrefs = [href.rstrip("/") + array for href in (asset.href, *metadata.alternates(asset))]
    try:
        href = check_href(choose_href(hrefs), base=item.get_self_href(), rule=rule)
    except UnsupportedItemError as error:
        raise UnsupportedItemError(f"item {item.id!r}: asset {key!r}: {error}") from None
    return BandSource(
        where=f"item {item.id!r}: asset {key!r}",
        common_name=name,
        asset_key=key,
        href=href,
        is_zarr=metadata.is_zarr(asset),
        scale=1.0 if name == SCL else scale_of(item, key),
        offset=offset,
        epsg=metadata.asset_epsg(asset.extra_fields, item.properties),
        grid=metadata.asset_grid(item, key),
        size=metadata.file_size(asset),
    )


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(sorted(name if name.isprintable() else ascii(name) for name in names))
    return text if len(text) <= MAX_NAMES else f"{text[:MAX_NAMES]}..."
