"""Class maps, percentages and votes as Cloud Optimized GeoTIFFs, and the thumbnail."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final
from xml.etree.ElementTree import Element, indent, tostring

import numpy as np
import rasterio
from numpy.typing import NDArray
from PIL import Image
from rasterio._err import CPLE_BaseError  # what GDAL's CreateCopy raises; rasterio.errors does not have it
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from stac_cloudmask.core.classes import CLASSES, ClassInfo, CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.pixels import step_of
from stac_cloudmask.stac.assets import ASSETS, CLASS_TABLES, file_name_of
from stac_cloudmask.stac.store import whole_file

COG_TILE: Final = 512
"""Side of a tile inside the file, in pixels."""
GDAL_CACHE: Final = 32 * 2**20
"""Bytes of GDAL's cache; the default is 5 % of memory, far more than a pass over strips of tiles can use."""
RAT_COLUMNS: Final = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9))
"""Name, type (0 = integer, 2 = text) and usage of the columns, by GDAL's numbers."""
THUMBNAIL_SIDE: Final = 600
"""Maximum side of a thumbnail by the STAC best practices, in pixels."""
OVERLAY_OPACITY: Final = 0.5


def write_cog(
    folder: Path,
    key: str,
    array: NDArray[np.uint8],
    grid: Grid,
    *,
    tags: Mapping[str, str] = MappingProxyType({}),
    threads: int = 2,
) -> None:
    """Write the raster of an asset, with what `ASSETS` says of its values.

    Overviews hold the mean of the valid pixels of percentages, otherwise the most frequent value. Two small sidecar
    files of a class map hold what a TIFF cannot: ``NAME.tif.aux.xml`` class names and opacities for GDAL, ``NAME.qml``
    the style for QGIS.

    Args:
        folder: Where the files go, under the asset's file name; each appears whole or not at all.
        key: Key of the asset.
        array: ``(y, x)`` uint8 codes, whole percents, or at most seven bits, with the nodata value of the asset.
        grid: The grid of ``array``.
        tags: Further tags of the file, by name.
        threads: Threads for compression and overviews.

    Raises:
        WriteError: A file cannot be written; nothing is left behind.
    """
    if array.shape != grid.shape:
        raise ValueError(f"an array of {array.shape} does not fill a grid of {grid.shape}")
    asset, classes = ASSETS[key], CLASS_TABLES.get(key, ())
    layout: dict[str, Any] = {
        "crs": grid.code, "transform": rasterio.Affine(*grid.transform), "height": grid.height, "width": grid.width,
        "count": 1, "dtype": "uint8", "nodata": asset["nodata"], "blocksize": COG_TILE, "compress": "DEFLATE",
        "overview_resampling": "AVERAGE" if "unit" in asset else "MODE", "num_threads": threads, "bigtiff": "IF_SAFER",
    }  # fmt: skip
    meanings = {f"CLASS_{info.code}": info.title for info in classes}
    for bit in asset.get("classification:bitfields", ()):
        meanings[f"BIT_{bit['offset']}"] = f"{bit['name']}: {bit['description']}"
    with (
        whole_file(folder / file_name_of(key), RasterioError, CPLE_BaseError) as temporary,
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE, GDAL_NUM_THREADS=threads),
        MemoryFile() as memory,  # first, because GDAL does not report a full disk
    ):
        with memory.open(driver="COG", **layout) as cog:
            cog.write(array, 1)
            cog.set_band_description(1, asset["title"])
            cog.set_band_unit(1, asset.get("unit", ""))
            cog.update_tags(**tags)
            cog.update_tags(1, **meanings)
            if classes:
                cog.write_colormap(1, {info.code: info.rgba for info in classes})
        temporary.write_bytes(memory.getbuffer())
    if classes:
        sidecars = {f"{key}_gdal": gdal_metadata(classes), f"{key}_qgis": qgis_style(classes, nodata=asset["nodata"])}
        for name, text in sidecars.items():
            with whole_file(folder / file_name_of(name)) as temporary:
                temporary.write_text(text, encoding="utf-8")


def gdal_metadata(classes: Sequence[ClassInfo]) -> str:
    """Return GDAL's sidecar of a TIFF: class names, and color and attribute tables with opacities, which TIFF lacks."""
    by_code = {info.code: info for info in classes}
    colors = [by_code[code].rgba if code in by_code else (0, 0, 0, 0) for code in range(256)]
    last = max(by_code.keys() - {CloudClass.NODATA})
    names = [by_code[code].title if code in by_code else "" for code in range(last + 1)]
    columns = [
        _element("FieldDefn", _element("Name", name), _element("Type", kind), _element("Usage", usage), index=index)
        for index, (name, kind, usage) in enumerate(RAT_COLUMNS)
    ]
    rows = [
        _element("Row", *(_element("F", value) for value in (info.code, info.title, *info.rgba)), index=index)
        for index, info in enumerate(classes)
    ]
    band = _element(
        "PAMRasterBand",
        _element("ColorTable", *(_element("Entry", c1=r, c2=g, c3=b, c4=alpha) for r, g, b, alpha in colors)),
        _element("CategoryNames", *(_element("Category", name) for name in names)),
        _element("GDALRasterAttributeTable", *columns, *rows, tableType="thematic"),
        band=1,
    )
    return _document(_element("PAMDataset", band))


def qgis_style(classes: Sequence[ClassInfo], *, nodata: int) -> str:
    """Return the style of a class map for QGIS: class names and colors; unpainted classes are transparent."""
    palette = _element("colorPalette")
    for info in classes:
        if info.code != nodata:
            color = f"#{info.color_hint.lower()}"
            palette.append(_element("paletteEntry", value=info.code, label=info.title, color=color, alpha=info.rgba[3]))
    renderer = _element("rasterrenderer", palette, type="paletted", band=1, opacity=1, alphaBand=-1)
    root = _element("qgis", _element("pipe", renderer), version="3.22", styleCategories="Symbology")
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{_document(root)}"


def _element(tag: str, *inside: object, **attributes: object) -> Element:
    """Return an XML element with other elements or a text inside."""
    element = Element(tag, {name: str(value) for name, value in attributes.items()})
    for part in inside:
        if isinstance(part, Element):
            element.append(part)
        else:
            element.text = str(part)
    return element


def _document(root: Element) -> str:
    indent(root)
    return f"{tostring(root, encoding='unicode')}\n"


def write_thumbnail(path: Path, class_map: NDArray[np.uint8], *, quicklook: NDArray[np.uint8] | None = None) -> None:
    """Write a small PNG of a class map: its colors, or its cloud and shadow over a picture of the scene.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes.
        quicklook: ``(y, x, 3)`` uint8 red, green, blue of the same extent, at any size.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    step = step_of(class_map.shape)
    sampled = class_map[::step, ::step]
    picture = Image.fromarray(_palette(overlay=quicklook is not None)[sampled])
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    if quicklook is not None:
        picture = _over(quicklook, picture, sampled != CloudClass.NODATA)
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG")


def _over(quicklook: NDArray[np.uint8], picture: Image.Image, valid: NDArray[np.bool_]) -> Image.Image:
    """Draw a picture over a quicklook, where valid; with 256 colors, as more take four times the space."""
    below = Image.fromarray(quicklook).resize(picture.size, Image.Resampling.BOX).convert("RGBA")
    both = Image.alpha_composite(below, picture)
    seen = Image.fromarray(valid.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    both.putalpha(Image.fromarray(np.where(np.asarray(seen) > 127, np.uint8(255), np.uint8(0))))  # noqa: PLR2004  (half)
    return both.quantize(256, Image.Quantize.FASTOCTREE)


def _palette(*, overlay: bool) -> NDArray[np.uint8]:
    """Return red, green, blue and alpha of every code, ``(256, 4)``; an overlay leaves clear pixels transparent."""
    table = np.zeros((256, 4), np.uint8)
    for info in CLASSES:
        if info.painted if overlay else info.code != CloudClass.NODATA:
            table[info.code] = (*info.rgb, round(255 * OVERLAY_OPACITY) if overlay else 255)
    return table
