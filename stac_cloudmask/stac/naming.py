"""Which Sentinel-2 band an asset holds, told by its band metadata or its key."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from stac_cloudmask.stac.metadata import number
from stac_cloudmask.stac.providers import BANDS

if TYPE_CHECKING:
    import pystac

BY_ESA: Final = {band.esa: name for name, band in BANDS.items()}

EO_NAMES: Final[Mapping[str, str]] = {name: name for name in BANDS if not name.startswith("rededge")} | {
    "rededge071": "rededge1",
    "rededge075": "rededge2",
    "rededge078": "rededge3",
}
"""Common names of the eo extension that mean one band; its plain ``rededge`` may be any of four."""

WAVELENGTH_TOLERANCE: Final = 0.012
"""In um: satellites and baselines differ by up to 0.01; the closest two bands, B08 and B8A, lie 0.028 apart."""


def asset_band(item: pystac.Item, key: str) -> str | None:
    """Common name of the one band of an asset; None for classes, quality layers, images of several bands."""
    bands = _bands(item, item.assets[key])
    if len(bands) > 1:
        return None
    return (band_name(bands[0]) if bands else None) or key_band(key)


def stated_band(item: pystac.Item, key: str) -> str | None:
    """Common name by the band metadata alone."""
    bands = _bands(item, item.assets[key])
    return band_name(bands[0]) if len(bands) == 1 else None


def is_scl(item: pystac.Item, key: str) -> bool:
    """Whether an asset is the scene classification: told by its key, or the name of its only band."""
    bands = _bands(item, item.assets[key])
    names = [key, *(str(band.get("name")) for band in bands if len(bands) == 1)]
    return any(re.fullmatch(r"scl([_-]\d+m)?(-jp2)?", name, re.IGNORECASE) for name in names)


def key_band(key: str) -> str | None:
    """Common name by asset key: ``blue``, ``B02``, ``B02_10m``, ``blue-jp2``."""
    stem = re.sub(r"([_-]\d+m)?(-jp2)?$", "", key, flags=re.IGNORECASE)
    return BY_ESA.get(stem.upper()) or (stem.lower() if stem.lower() in BANDS else None)


def band_name(band: Mapping[str, object]) -> str | None:
    """Common name by a band's name, then its wavelength, then its eo common name (B8A is ``rededge`` to some)."""
    name = str(band.get("name", ""))
    by_name = BY_ESA.get(name.upper()) or (name if name in BANDS else None)
    return by_name or _by_wavelength(band) or EO_NAMES.get(str(band.get("common_name", band.get("eo:common_name"))))


def _by_wavelength(band: Mapping[str, object]) -> str | None:
    wavelength = number(band.get("center_wavelength", band.get("eo:center_wavelength")))
    if wavelength is None:
        return None
    nearest = min(BANDS, key=lambda name: abs(BANDS[name].wavelength - wavelength))
    return nearest if abs(BANDS[nearest].wavelength - wavelength) <= WAVELENGTH_TOLERANCE else None


def _bands(item: pystac.Item, asset: pystac.Asset) -> list[Mapping[str, object]]:
    """Band metadata; before STAC 0.9, ``eo:bands`` of an asset were indexes into those of the item."""
    stated = asset.extra_fields.get("eo:bands") or asset.extra_fields.get("bands")
    if not isinstance(stated, list):
        return []
    common = item.properties.get("eo:bands")
    known = common if isinstance(common, list) else []
    found = [known[band] if isinstance(band, int) and 0 <= band < len(known) else band for band in stated]
    return [band for band in found if isinstance(band, Mapping)]
