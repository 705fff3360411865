"""Providers: their collections and bands, which band an asset is, and how reads are signed."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal

from stac_cloudmask.errors import ReadError
from stac_cloudmask.stac.hrefs import redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    import pystac

Signing = Literal["planetary-computer"]
Keys = tuple[str, ...]


@dataclass(frozen=True, kw_only=True)
class Band:
    """A spectral band of Sentinel-2: ESA's name, pixel size at which it is measured (m) and mean wavelength (um)."""

    esa: str
    gsd: int
    wavelength: float


BANDS: Final[Mapping[str, Band]] = MappingProxyType(
    {
        "coastal": Band(esa="B01", gsd=60, wavelength=0.443),
        "blue": Band(esa="B02", gsd=10, wavelength=0.492),
        "green": Band(esa="B03", gsd=10, wavelength=0.560),
        "red": Band(esa="B04", gsd=10, wavelength=0.665),
        "rededge1": Band(esa="B05", gsd=20, wavelength=0.704),
        "rededge2": Band(esa="B06", gsd=20, wavelength=0.740),
        "rededge3": Band(esa="B07", gsd=20, wavelength=0.783),
        "nir": Band(esa="B08", gsd=10, wavelength=0.837),
        "nir08": Band(esa="B8A", gsd=20, wavelength=0.865),
        "nir09": Band(esa="B09", gsd=60, wavelength=0.945),
        "swir16": Band(esa="B11", gsd=20, wavelength=1.613),
        "swir22": Band(esa="B12", gsd=20, wavelength=2.195),
    }
)
"""By the common names that Earth Search uses, the vocabulary of the whole package."""

SCL: Final = "scl"
SCL_GSD: Final = 20


@dataclass(frozen=True, kw_only=True)
class Provider:
    """What sets the items of one source of Sentinel-2 L2A apart.

    Attributes:
        name: Short name, recorded on outputs.
        marks: Regular expressions; an item is this provider's if one of its signs (see ``signs``) matches one.
        assets: Asset keys by common name (and ``scl``), the preferred first.
    """

    name: str
    marks: tuple[str, ...] = ()
    assets: Mapping[str, Keys]


def _keys(*patterns: str) -> Mapping[str, Keys]:
    """Asset keys of every band from patterns of ``{name}``, ``{esa}`` and ``{gsd}``."""
    bands = {
        name: tuple(p.format(name=name, esa=band.esa, gsd=band.gsd) for p in patterns) for name, band in BANDS.items()
    }
    scl = tuple(p.format(name=SCL, esa=SCL.upper(), gsd=SCL_GSD) for p in patterns)
    return MappingProxyType(bands | {SCL: scl})


PROVIDERS: Final = (
    Provider(
        name="planetary-computer",
        marks=(
            r"href:https://sentinel2l2a01\.blob\.core\.windows\.net/",
            r"link:https://planetarycomputer\.microsoft\.com/",
        ),
        assets=_keys("{esa}"),
    ),
    Provider(
        name="cdse",
        marks=(r"href:s3://eodata/", r"link:https://stac\.dataspace\.copernicus\.eu/"),
        assets=_keys("{esa}_{gsd}m", "{esa}_10m", "{esa}_20m", "{esa}_60m"),
    ),
    Provider(
        name="earth-search-c1",
        marks=(r"collection:sentinel-2-c1-l2a$", r"href:https://e84-earth-search-sentinel-data\."),
        assets=_keys("{name}"),
    ),
    Provider(
        name="earth-search-v0",
        marks=(r"collection:sentinel-s2-l2a-cogs$", r"link:https://earth-search\.aws\.element84\.com/v0"),
        assets=_keys("{esa}"),
    ),
    Provider(
        name="earth-search-v1",
        marks=(
            r"property:earthsearch:",
            r"link:https://earth-search\.aws\.element84\.com/v1",
            r"href:https://sentinel-cogs\.",
        ),
        assets=_keys("{name}", "{name}-jp2"),
    ),
    Provider(name="sentinel-s2-l2a", marks=(r"href:s3://sentinel-s2-l2a/",), assets=_keys("{name}")),
)
"""In the order in which they are tried."""

GENERIC: Final = Provider(name="generic", assets=_keys("{name}", "{esa}", "{esa}_{gsd}m", "{name}_{gsd}m"))
"""Anything else: stactools and other static catalogs."""


@dataclass(frozen=True, kw_only=True)
class Store:
    """Where pixels are kept: the GDAL settings and the signing that a read of hrefs with this prefix needs."""

    prefix: str
    gdal: Mapping[str, str] = field(default_factory=lambda: MappingProxyType({}))
    signing: Signing | None = None


STORES: Final = (
    Store(prefix="s3://sentinel-s2-l2a/", gdal=MappingProxyType({"AWS_REQUEST_PAYER": "requester"})),
    Store(
        prefix="s3://eodata/",
        gdal=MappingProxyType(
            {"AWS_S3_ENDPOINT": "eodata.dataspace.copernicus.eu", "AWS_VIRTUAL_HOSTING": "FALSE"},
        ),
    ),
    Store(prefix="https://sentinel2l2a01.blob.core.windows.net/", signing="planetary-computer"),
)
"""By href and not by provider: a copy of an item elsewhere is read the same way, and no other bucket is paid for."""


def store_of(href: str) -> Store | None:
    """The store that an absolute href lies in, if it is one that needs something."""
    return next((store for store in STORES if href.startswith(store.prefix)), None)


def identify(item: pystac.Item) -> Provider:
    """The provider of an item, told by its assets, links and properties; copies on other hosts are recognized too."""
    found = list(signs(item))
    for provider in PROVIDERS:
        if any(re.match(mark, sign) for mark in provider.marks for sign in found):
            return provider
    return GENERIC


def signs(item: pystac.Item) -> Iterator[str]:
    """What tells an item's origin: ``collection:``, ``property:``, ``link:`` and ``href:`` of its assets."""
    if item.collection_id:
        yield f"collection:{item.collection_id}"
    yield from (f"property:{name}" for name in item.properties)
    yield from (f"link:{link.target}" for link in item.links if isinstance(link.target, str))
    yield from (f"href:{asset.href}" for asset in item.assets.values())


def sign(href: str) -> str:
    """An absolute href as its store wants it; tokens are kept by the signing library until they are about to expire.

    Raises:
        ReadError: No token could be had.
    """
    store = store_of(href)
    return _planetary_computer(href) if store is not None and store.signing == "planetary-computer" else href


def _planetary_computer(href: str) -> str:
    import planetary_computer  # noqa: PLC0415  (reads a settings file of the user's)
    import requests  # noqa: PLC0415

    try:
        signed: str = planetary_computer.sign_url(href)
    except (requests.RequestException, ValueError, TypeError) as error:
        raise ReadError(f"no Planetary Computer token for {redact(href)}: {redact(str(error))}") from None
    return signed
