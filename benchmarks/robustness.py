"""What scores become when labeled scenes are brighter, hazier, mirrored, smaller, or lack their SCL or sun.

    python benchmarks/robustness.py [--data ../shared/data] [--markdown FILE]

Each scene with a ``reference-shadow`` or ``reference-cloud`` is copied with one change, and masked from the start,
models included: what other dates and places may bring, as far as it can be had from the scenes at hand.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from itertools import product
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import numpy as np
import rasterio
from accuracy import write_tables
from numpy.typing import NDArray
from rasterio.windows import Window

from stac_cloudmask.config import Settings
from stac_cloudmask.core.metrics import Agreement, agreement
from stac_cloudmask.pipeline.mask import make_mask
from stac_cloudmask.review.evaluate import judged_classes, meaning_of, parse_reference
from stac_cloudmask.stac.warp import read_labels

if TYPE_CHECKING:
    import pystac

Pixels = NDArray[np.uint16]
LABELS = ("reference-shadow", "reference-cloud")
SUN = {"view:sun_azimuth", "view:sun_elevation"}
HAZE = {"blue": 1.0, "green": 0.7, "red": 0.5, "nir": 0.25}
"""Share of a haze in blue that each band has: small droplets scatter about as wavelength to the power of -2.5."""


@dataclass(frozen=True, kw_only=True)
class Change:
    """How a scene is copied.

    Attributes:
        digital: What becomes of the digital numbers of the band with this common name; 0 stays 0.
        parts: Rows and columns of pieces that it is cut into; the counts of the pieces add up.
        mirror: Axes of ``(y, x)`` along which it is mirrored, the sun with it.
        sun: Degrees added to azimuth and elevation; None takes both away.
        scl: Whether the product's mask is kept.
    """

    digital: Callable[[Pixels, str], NDArray[Any]] = field(default=lambda dn, _: dn)
    parts: tuple[int, int] = (1, 1)
    mirror: tuple[int, ...] = ()
    sun: tuple[float, float] | None = (0.0, 0.0)
    scl: bool = True


CHANGES: dict[str, Change] = {
    "as it is": Change(),
    "reflectance x 0.9": Change(digital=lambda dn, _: dn * 0.9),
    "reflectance x 1.1": Change(digital=lambda dn, _: dn * 1.1),
    "haze, 0.02 in all bands": Change(digital=lambda dn, _: dn + 200.0),
    "haze, 0.05 in all bands": Change(digital=lambda dn, _: dn + 500.0),
    "haze, 0.05 in blue": Change(digital=lambda dn, band: dn + 500.0 * HAZE[band]),
    "mirrored, west to east": Change(mirror=(1,)),
    "mirrored, north to south": Change(mirror=(0,)),
    "halves, north and south": Change(parts=(2, 1)),
    "halves, west and east": Change(parts=(1, 2)),
    "quarters": Change(parts=(2, 2)),
    "ninths": Change(parts=(3, 3)),
    "no SCL": Change(scl=False),
    "sun 5 degrees too high": Change(sun=(0, 5)),
    "sun 15 degrees too far west": Change(sun=(15, 0)),
    "no sun": Change(sun=None),
    "no SCL, no sun": Change(scl=False, sun=None),
}


def tables(items: Iterator[pystac.Item]) -> list[str]:
    """The table, for all items with labels."""
    return list(rows([(item, key) for item in items for key in LABELS if key in item.assets]))


def rows(labeled: list[tuple[pystac.Item, str]]) -> Iterator[str]:
    """The table: a line for each change, a column for each scene."""
    yield f"| F1 (lowest of a piece) | {' | '.join(item.id for item, _ in labeled)} |"
    yield "| --- " * (1 + len(labeled)) + "|"
    for name, change in CHANGES.items():
        print(name, file=sys.stderr)
        yield f"| {name} | {' | '.join(cell(item, key, change) for item, key in labeled)} |"


def cell(item: pystac.Item, key: str, change: Change) -> str:
    """F1 of the class that the labels judge, over all pieces; a change that the scene does not feel is left out."""
    has_scl, has_sun = any(name.lower() == "scl" for name in item.assets), item.properties.keys() >= SUN
    if (not change.scl and not has_scl) or (change.sun != (0, 0) and not has_sun):
        return "-"
    counts = []
    for at in product(*map(range, change.parts)):
        with TemporaryDirectory() as folder:
            counts.append(compare(copied(item, change, at, Path(folder)), key))
    code = counts[0].codes[1]
    whole = sum(counts[1:], counts[0]).scores(code).f1
    pieces = [f1 for one in counts if (f1 := one.scores(code).f1) is not None]
    return f"{whole:.3f}" if len(counts) == 1 else f"{whole:.3f} ({min(pieces):.3f})"


def compare(item: pystac.Item, key: str) -> Agreement:
    """The mask of an item, against its labels."""
    scl = any(name.lower() == "scl" for name in item.assets)
    mask = make_mask(item, settings=Settings(missing_scl="fail" if scl else "model-only"))
    reference = parse_reference(key)
    meaning = meaning_of(reference, {})
    labels = read_labels(item.assets[key].href, mask.grid, meaning)
    return agreement(mask.decision.class_map, labels, judged=judged_classes(meaning), gsd=mask.grid.gsd)


def copied(item: pystac.Item, change: Change, at: tuple[int, int], folder: Path) -> pystac.Item:
    """The item with its rasters, or the piece ``at`` of them, changed and written to ``folder``."""
    copy = item.clone()
    if change.sun is None:
        copy.properties = {name: value for name, value in copy.properties.items() if name not in SUN}
    elif copy.properties.keys() >= SUN:
        azimuth, elevation = (copy.properties[name] + by for name, by in zip(sorted(SUN), change.sun, strict=True))
        azimuth = 180 - azimuth if 0 in change.mirror else azimuth
        azimuth = -azimuth if 1 in change.mirror else azimuth
        copy.properties |= {"view:sun_azimuth": azimuth % 360, "view:sun_elevation": elevation}
    for name in list(copy.assets):
        if name.lower() == "scl" and not change.scl:
            del copy.assets[name]
        else:
            write(copy.assets[name], change, at, folder / f"{name}.tif")
    for name in ("proj:shape", "proj:transform"):
        copy.properties.pop(name, None)
    return copy


def write(asset: pystac.Asset, change: Change, at: tuple[int, int], path: Path) -> None:
    """Write an asset's raster with the change, and let the asset tell of it."""
    with rasterio.open(asset.href) as source:
        rows, cols = (
            slice(*(size * step // parts for step in (i, i + 1)))
            for size, parts, i in zip(source.shape, change.parts, at, strict=True)
        )
        window = Window.from_slices(rows, cols)
        pixels = source.read(1, window=window)
        profile = {"crs": source.crs, "transform": source.window_transform(window), "nodata": source.nodata}
    bands = [band for band in asset.extra_fields.get("eo:bands", []) if band.get("common_name") in HAZE]
    if bands:
        lit = np.clip(np.rint(change.digital(pixels, bands[0]["common_name"])), 1, 65535)
        pixels = np.where(pixels > 0, lit, 0).astype(np.uint16)
    pixels = np.flip(pixels, change.mirror)
    height, width = pixels.shape
    profile |= {"driver": "GTiff", "count": 1, "dtype": pixels.dtype, "height": height, "width": width}
    with rasterio.open(path, "w", **profile) as sink:
        sink.write(pixels, 1)
    asset.href = str(path)
    asset.extra_fields |= {"proj:shape": [height, width], "proj:transform": list(profile["transform"])}


if __name__ == "__main__":
    write_tables(__doc__, tables)
