"""Bands of items: which asset holds each, and the scale and offset of its values.

Since baseline 04.00 ESA adds 1000 to every digital number. Some providers subtract it again, and the metadata of items
are often wrong. The first rule that matches decides what is added to the digital numbers of an asset:

1. The user sets the offset.
2. No reflectance band: 0.
3. A JPEG 2000 file with a known baseline: it is ESA's original file, so the baseline decides; flags do not.
4. ``boa_offset_applied`` is true: 0, whatever offset is declared.
5. ``boa_offset_applied`` is false: the baseline decides. From 04.00 on this is doubtful, because many such items are
   corrected nevertheless (Element84/earth-search issue 71).
6. An offset is declared: it is used; values of at least 100 are digital numbers, smaller ones reflectance. Doubtful if
   the baseline contradicts it; before 04.00 there was no offset.
7. Nothing is declared: the baseline decides; without a baseline the offset is 0, doubtful.

A doubtful offset is checked against the pixels when the files are opened. If 1000 had been added, digital numbers below
500 would be a reflectance below -0.05, which no surface has: if they make up more than 1 % of the valid pixels of any
band, the offset is 0. In 11 of 12 corrected scenes they make up 5 to 91 % of the darkest band, in a desert scene none;
bright scenes are inconclusive.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Final

import pystac

from stac_cloudmask.config import BoaOffset
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import BandNotFoundError, UnsupportedItemError
from stac_cloudmask.stac import metadata
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, check_href, safe_id
from stac_cloudmask.stac.providers import BANDS, LAYERS, SCL, choose_href

MAX_NAMES: Final = 500
"""Maximum number of characters in a message's list of names."""

BY_ESA: Final = {band.esa: name for name, band in BANDS.items()}

EO_NAMES: Final[Mapping[str, str]] = {name: name for name in BANDS if not name.startswith("rededge")} | {
    "rededge071": "rededge1",
    "rededge075": "rededge2",
    "rededge078": "rededge3",
}
"""Common names of the eo extension that mean a single band; its plain ``rededge`` may be any of four."""

QUALITY: Final = re.compile(r"msk|mask|qual|qi|pvi|preview|detfoo|satura|defect|cld|snw")
"""Parts of keys of band metadata rather than measurements, such as ``MSK_DETFOO_B02``."""

WAVELENGTH_TOLERANCE: Final = 0.012
"""Tolerance in um: satellites and baselines differ by up to 0.01; the closest bands, B08 and B8A, by 0.028."""
ZARR: Final = re.compile(r"application/(vnd[.+]|x-)?zarr\b", re.IGNORECASE)

BOA_OFFSET: Final = -1000
"""Digital numbers, the same for all bands."""

FIRST_WITH_OFFSET: Final = 4.0
"""Baseline."""

OFFSET_FLAGS: Final = ("earthsearch:boa_offset_applied", "sentinel:boa_offset_applied", "s2:boa_offset_applied")
"""Properties that state whether the offset is already in the pixels."""
BY_USER: Final = "set by the user"
ESA_SCALE: Final = 1e-4
QUANTIFICATION: Final = 10_000
SCALES: Final = (1e-6, 1e-2)
"""Reflectance per digital number: ESA's value, and the range of plausible values."""

DARK: Final = 500
DARK_SHARE: Final = 0.01
"""Digital numbers below which, and share of valid pixels above which, an added offset is ruled out."""

LEAST_IN_DN: Final = 100
"""Declared offsets of at least this size are digital numbers, as ESA states them; smaller ones are reflectance."""

MAX_OFFSET: Final = 10_000
"""Largest plausible offset in digital numbers, in either direction."""


@dataclass(frozen=True, kw_only=True)
class Offset:
    """The offset added to the digital numbers of an asset, and the reason for it.

    Attributes:
        dn: Digital numbers to add; nodata stays nodata.
        reason: One clause, for outputs and logs.
        doubtful: True if metadata contradict each other or state nothing.
    """

    dn: int
    reason: str
    doubtful: bool = False


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
        UnsupportedItemError: The item is not Sentinel-2 L2A, has a malicious id or href, or contradicts itself.
    """
    safe_id(item.id)
    metadata.check_level(item)
    bands = tuple(_band_source(item, name, boa_offset, rule) for name in common_names)
    key = _find(item, SCL)
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


def _band_source(item: pystac.Item, name: str, choice: BoaOffset, rule: HrefRule) -> BandSource:
    key = _find(item, name)
    if key is None:
        known = {band for band in BANDS if _find(item, band) is not None}
        raise BandNotFoundError(
            f"item {item.id!r} has no band {name!r}; it has {_listed(known) or 'none'}, by assets "
            f"{_listed(item.assets)}; state what each holds as name "
            f"({BANDS[name].esa}) or eo:common_name ({name}) of its bands, or take a model that needs no other bands"
        )
    stated = stated_band(item, key)
    if stated not in {None, name}:
        raise UnsupportedItemError(
            f"item {item.id!r}: asset {key!r} should hold {name!r} but its band metadata say {stated!r}; correct them"
        )
    offset = boa_offset(item, key) if choice == "auto" else Offset(dn=int(choice), reason=BY_USER)
    return _source(item, name, key, offset, rule)


def _find(item: pystac.Item, name: str) -> str | None:
    """Return the best asset for a band: by the keys that providers use, else by band metadata and key."""
    band = LAYERS[name]
    usual = (name, band.esa, f"{band.esa}_{band.gsd}m", f"{name}_{band.gsd}m")
    listed = next((key for key in usual if key in item.assets), None)
    if listed is not None:
        return listed
    matching = [key for key in item.assets if (is_scl(item, key) if name == SCL else asset_band(item, key) == name)]
    matching = matching or [key for key in item.assets if name in group_bands(item, key)]
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
    array = f"/{LAYERS[name].esa.lower()}" if group_bands(item, key) else ""
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
        is_zarr=is_zarr(asset),
        scale=1.0 if name == SCL else scale_of(item, key),
        offset=offset,
        epsg=metadata.asset_epsg(asset.extra_fields, item.properties),
        grid=metadata.asset_grid(item, key),
        size=metadata.file_size(asset),
    )


def _listed(names: Iterable[str]) -> str:
    text = ", ".join(sorted(name if name.isprintable() else ascii(name) for name in names))
    return text if len(text) <= MAX_NAMES else f"{text[:MAX_NAMES]}..."


def asset_band(item: pystac.Item, key: str) -> str | None:
    """Return the common name of the one band of an asset; None for classes, quality layers and multi-band images."""
    return None if len(_bands(item, item.assets[key])) > 1 else stated_band(item, key) or key_band(key)


def stated_band(item: pystac.Item, key: str) -> str | None:
    """Return the common name by the band metadata alone."""
    bands = _bands(item, item.assets[key])
    return band_name(bands[0]) if len(bands) == 1 else None


def is_zarr(asset: pystac.Asset) -> bool:
    """Return whether an asset is a Zarr array or a group of them, by its media type or its path."""
    return bool(ZARR.match(str(asset.media_type or ""))) or ".zarr" in asset.href.partition("?")[0]


def group_bands(item: pystac.Item, key: str) -> list[str | None]:
    """Return the common names of the bands in a Zarr group; empty for any other asset."""
    bands = _bands(item, item.assets[key]) if is_zarr(item.assets[key]) else []
    return [band_name(band) for band in bands] if len(bands) > 1 else []


def is_scl(item: pystac.Item, key: str) -> bool:
    """Return whether an asset is the scene classification, by its key or the name of its only band."""
    bands = _bands(item, item.assets[key])
    names = [key, *(str(band.get("name")) for band in bands if len(bands) == 1)]
    return any(re.fullmatch(r"scl|scene[_-]?classification([_-]map)?", _stem(name)) for name in names)


def key_band(key: str) -> str | None:
    """Return a common name by asset key: ``blue``, ``B02``, ``b2``, ``B02_10m``, ``T33TWL_..._B02_R10m.jp2``."""
    stem = _stem(key)
    match = re.fullmatch(r"b0?(\d|8a|1\d)", stem)
    return BY_ESA.get(f"B{match[1].upper():0>2}") if match else stem if stem in BANDS else None


def _stem(key: str) -> str:
    """Return a key without file extension, pixel size, folders, and any prefix of an ESA name."""
    stem = re.sub(r"([_-]r?\d+m)?(-jp2|\.(tiff?|jp2|j2k))?$", "", key.lower().rpartition("/")[2])
    ending = re.fullmatch(r"(.*[_-])(b\d{1,2}a?|scl)", stem)
    return ending[2] if ending and not QUALITY.search(ending[1]) else stem


def band_name(band: Mapping[str, object]) -> str | None:
    """Return a common name by a band's name, wavelength or common name, in this order (B8A may be ``rededge``)."""
    name = str(band.get("name", ""))
    by_name = BY_ESA.get(name.upper()) or (name if name in BANDS else None)
    return by_name or _by_wavelength(band) or EO_NAMES.get(str(band.get("common_name", band.get("eo:common_name"))))


def _by_wavelength(band: Mapping[str, object]) -> str | None:
    wavelength = metadata.number(band.get("center_wavelength", band.get("eo:center_wavelength")))
    if wavelength is None:
        return None
    nearest = min(BANDS, key=lambda name: abs(BANDS[name].wavelength - wavelength))
    return nearest if abs(BANDS[nearest].wavelength - wavelength) <= WAVELENGTH_TOLERANCE else None


def _bands(item: pystac.Item, asset: pystac.Asset) -> list[metadata.Fields]:
    """Return band metadata; before STAC 0.9, ``eo:bands`` of an asset were indexes into those of the item."""
    stated = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands")
    known = metadata.mappings_in(item.properties.get("eo:bands"))
    listed = stated if isinstance(stated, list) else []
    found = [known[band] if isinstance(band, int) and 0 <= band < len(known) else band for band in listed]
    return metadata.mappings_in(found)


def boa_offset(item: pystac.Item, asset_key: str) -> Offset:
    """Return the offset of an asset by the rule of this module."""
    if asset_band(item, asset_key) is None and not group_bands(item, asset_key):
        return Offset(dn=0, reason="not a reflectance band")
    asset = item.assets[asset_key]
    processed = metadata.baseline(item, asset_key)
    if is_jp2(asset) and processed is not None:
        return _by_baseline(processed, "original JPEG 2000 file")
    flags = [item.properties[flag] for flag in OFFSET_FLAGS if isinstance(item.properties.get(flag), bool)]
    if flags and flags[0]:
        return Offset(dn=0, reason="boa_offset_applied is true: already in the pixels")
    if flags:
        offset = _by_baseline(processed, "boa_offset_applied is false")
        return replace(offset, doubtful=offset.doubtful or offset.dn != 0)
    return _by_declaration(item, asset_key, processed)


def scale_of(item: pystac.Item, key: str) -> float:
    """Return reflectance per digital number as the asset declares it, otherwise ESA's value.

    A scale of 1 is ignored, because tools copy GDAL's default into items. A scale of 10000 is ESA's quantification
    value, by which digital numbers are divided.

    Raises:
        UnsupportedItemError: The scale is impossible for uint16 reflectance.
    """
    scale = metadata.declared(item.assets[key], "scale")
    if scale is None or scale in {1, QUANTIFICATION}:
        return ESA_SCALE
    if not SCALES[0] <= scale <= SCALES[1]:
        raise UnsupportedItemError(
            f"item {item.id!r}: asset {key!r} declares scale {scale:g}; reflectance as uint16 has about {ESA_SCALE:g}"
        )
    return scale


def settle(offset: Offset, dark: float | None) -> Offset:
    """Return an offset, corrected by the pixels if it is doubtful.

    Args:
        offset: Offset by the metadata.
        dark: Share of valid pixels below ``DARK``, 0..1, in the band where it is largest; None if not measured.
    """
    if not offset.doubtful or dark is None or dark <= DARK_SHARE:
        return offset
    reason = f"{offset.reason}; but {dark:.0%} of the pixels are below {DARK} DN: already in them, or never added"
    return Offset(dn=0, reason=reason)


def of_array(scale: float, offset: Offset, attributes: Mapping[str, object]) -> tuple[float, Offset]:
    """Return scale and offset of a Zarr array: as set by the user, otherwise by its attributes, otherwise by its item.

    Args:
        scale: Scale by the item.
        offset: Offset by the item, or set by the user.
        attributes: Attributes of the array: ``scale_factor``, and ``add_offset`` in reflectance.
    """
    factor, added = metadata.number(attributes.get("scale_factor")), metadata.number(attributes.get("add_offset"))
    scale = factor if factor is not None and SCALES[0] <= factor <= SCALES[1] else scale
    dn = None if added is None else round(added / scale)
    if dn is None or abs(dn) > MAX_OFFSET or offset.reason == BY_USER:
        return scale, offset
    return scale, Offset(dn=dn, reason=f"the array states {added:g}")


def is_jp2(asset: pystac.Asset) -> bool:
    """Return whether an asset is a JPEG 2000 file, by media type or name."""
    return asset.media_type == "image/jp2" or asset.href.split("?")[0].lower().endswith((".jp2", ".j2k"))


def _by_declaration(item: pystac.Item, asset_key: str, processed: float | None) -> Offset:
    asset = item.assets[asset_key]
    said = metadata.declared(asset, "offset")
    in_dn = said is not None and abs(said) >= LEAST_IN_DN
    if said is None or (metadata.declared(asset, "scale") == 1 and not in_dn):
        return _by_baseline(processed, "nothing declared")
    dn = round(said if in_dn else said / scale_of(item, asset_key))
    if abs(dn) > MAX_OFFSET:
        raise UnsupportedItemError(
            f"item {item.id!r}: asset {asset_key!r} declares offset {said:g}, {dn} DN; ESA's is {BOA_OFFSET} DN"
        )
    if processed is None:
        return Offset(dn=dn, reason=f"declared {said:g}, baseline unknown")
    expected = _by_baseline(processed, "").dn
    if dn == expected:
        return Offset(dn=dn, reason=f"declared {said:g}, as baseline {processed:05.2f} has it")
    known = f"{BOA_OFFSET} DN" if expected else "no offset"
    reason = f"declared {said:g}, although baseline {processed:05.2f} has {known}"
    return Offset(dn=dn if expected else 0, reason=reason, doubtful=True)


def _by_baseline(processed: float | None, context: str) -> Offset:
    if processed is None:
        return Offset(dn=0, reason=f"{context}, baseline unknown", doubtful=True)
    dn = BOA_OFFSET if processed >= FIRST_WITH_OFFSET else 0
    return Offset(dn=dn, reason=f"{context}, baseline {processed:05.2f}")
