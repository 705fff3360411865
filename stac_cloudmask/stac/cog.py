"""Class maps, percentages and votes as Cloud Optimized GeoTIFFs, and the thumbnail."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError  # what GDAL's CreateCopy raises; rasterio.errors does not have it
from rasterio.errors import RasterioError
from rasterio.io import MemoryFile

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA
from stac_cloudmask.stac.assets import NODATA_NAMES
from stac_cloudmask.stac.store import whole_file

if TYPE_CHECKING:
    from collections.abc import Sequence

    from numpy.typing import NDArray

    from stac_cloudmask.core.classes import ClassInfo
    from stac_cloudmask.core.grid import Grid

BLOCK: Final = 512
"""Side of a tile inside the file, in pixels."""
GDAL_CACHE: Final = 32 * 2**20
"""Bytes of GDAL's cache; the default is 5 % of memory, far more than a pass over strips of tiles can use."""
NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
RAT_COLUMNS: Final = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9))
"""Name, type (0 = integer, 2 = text) and usage of the columns, by GDAL's numbers."""
THUMBNAIL_SIDE: Final = 600
"""Maximum side of a thumbnail by the STAC best practices, in pixels."""
OVERLAY_OPACITY: Final = 0.5


def write_class_cog(
    path: Path,
    class_map: NDArray[np.uint8],
    grid: Grid,
    *,
    classes: Sequence[ClassInfo] = CLASSES,
    title: str = "Cloud and cloud-shadow mask",
    tags: Mapping[str, str] = NO_TAGS,
    threads: int = 2,
) -> None:
    """Write a class map with its color table; overviews hold the most frequent class.

    Two small sidecar files hold what a TIFF cannot: ``NAME.tif.aux.xml`` class names and opacities for GDAL,
    ``NAME.qml`` the style for QGIS.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes; the code of ``classes`` that is called ``nodata`` or ``no_data`` is nodata.
        grid: The grid of ``class_map``.
        classes: The class table that codes, names and colors come from.
        title: The band's description.
        tags: Further tags of the file, by name.
        threads: Threads for compression and overviews.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    band = _Band(
        title=title,
        nodata=next(info.code for info in classes if info.name in NODATA_NAMES),
        tags={f"CLASS_{info.code}": info.title for info in classes},
        colors={info.code: info.rgba for info in classes},
    )
    _write(path, class_map, grid, band, tags=tags, threads=threads)
    sidecars = {
        path.with_name(f"{path.name}.aux.xml"): gdal_metadata(classes),
        path.with_suffix(".qml"): qgis_style(classes),
    }
    for sidecar, text in sidecars.items():
        with whole_file(sidecar) as temporary:
            temporary.write_text(text, encoding="utf-8")


def write_percent_cog(
    path: Path,
    percent: NDArray[np.uint8],
    grid: Grid,
    *,
    title: str = "Probability in percent",
    tags: Mapping[str, str] = NO_TAGS,
    threads: int = 2,
) -> None:
    """Write whole percents, ``(y, x)`` uint8 with 255 = nodata; overviews hold the mean of the valid pixels.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    band = _Band(title=title, nodata=PERCENT_NODATA, overview="AVERAGE", unit="%")
    _write(path, percent, grid, band, tags=tags, threads=threads)


def write_bits_cog(
    path: Path,
    bits: NDArray[np.uint8],
    grid: Grid,
    *,
    fields: Sequence[tuple[str, str]] = (),
    tags: Mapping[str, str] = NO_TAGS,
    threads: int = 2,
) -> None:
    """Write bit fields, ``(y, x)`` uint8 with 255 = nodata; overviews hold the most frequent combination.

    Args:
        path: Where the file goes; it appears whole or not at all.
        bits: The fields, of which there are at most seven: no combination of them is 255.
        grid: The grid of ``bits``.
        fields: Name and meaning of the bits, lowest first.
        tags: Further tags of the file, by name.
        threads: Threads for compression and overviews.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    meanings = {f"BIT_{offset}": f"{name}: {meaning}" for offset, (name, meaning) in enumerate(fields)}
    band = _Band(title="Votes behind the mask", nodata=VOTES_NODATA, tags=meanings)
    _write(path, bits, grid, band, tags=tags, threads=threads)


@dataclass(frozen=True, kw_only=True)
class _Band:
    """The description of a file's only band.

    Attributes:
        title: Its description.
        nodata: The value of pixels without data.
        overview: GDAL's resampling for overviews.
        tags: Tags of the band: the meaning of its values or bits.
        colors: Red, green, blue and opacity by value.
        unit: The unit of its values.
    """

    title: str
    nodata: int
    overview: Literal["MODE", "AVERAGE"] = "MODE"
    tags: Mapping[str, str] = field(default_factory=dict)
    colors: Mapping[int, tuple[int, int, int, int]] | None = None
    unit: str = ""


def _write(
    path: Path, array: NDArray[np.uint8], grid: Grid, band: _Band, *, tags: Mapping[str, str], threads: int
) -> None:
    """Write one band with GDAL's COG driver, in memory first, because GDAL does not report a full disk."""
    if array.shape != grid.shape:
        raise ValueError(f"an array of {array.shape} does not fill a grid of {grid.shape}")
    layout = {
        "crs": grid.code, "transform": rasterio.Affine(*grid.transform), "height": grid.height, "width": grid.width,
        "count": 1, "dtype": "uint8", "nodata": band.nodata, "blocksize": BLOCK, "compress": "DEFLATE",
        "overview_resampling": band.overview, "num_threads": threads, "bigtiff": "IF_SAFER",
    }  # fmt: skip
    with (
        whole_file(path, RasterioError, CPLE_BaseError) as temporary,
        rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE, GDAL_NUM_THREADS=threads),
        MemoryFile() as memory,
    ):
        with memory.open(driver="COG", **layout) as cog:
            cog.write(array, 1)
            cog.set_band_description(1, band.title)
            cog.set_band_unit(1, band.unit)
            cog.update_tags(**tags)
            cog.update_tags(1, **band.tags)
            if band.colors:
                cog.write_colormap(1, dict(band.colors))
        temporary.write_bytes(memory.getbuffer())


def gdal_metadata(classes: Sequence[ClassInfo]) -> str:
    """Return GDAL's sidecar of a TIFF: class names, and a color table with opacities, which TIFF does not support."""
    by_code = {info.code: info for info in classes}
    band = Element("PAMRasterBand", band="1")
    table = SubElement(band, "ColorTable")
    for code in range(256):
        rgba = by_code[code].rgba if code in by_code else (0, 0, 0, 0)
        SubElement(table, "Entry", {f"c{k}": str(value) for k, value in enumerate(rgba, 1)})
    names = SubElement(band, "CategoryNames")
    for code in range(max(code for code in by_code if code < VOTES_NODATA) + 1):
        SubElement(names, "Category").text = by_code[code].title if code in by_code else ""
    band.append(_attribute_table(classes))
    root = Element("PAMDataset")
    root.append(band)
    return _xml(root)


def _attribute_table(classes: Sequence[ClassInfo]) -> Element:
    """Return GDAL's raster attribute table: value, name, red, green, blue and opacity of each class."""
    table = Element("GDALRasterAttributeTable", tableType="thematic")
    for index, (name, kind, usage) in enumerate(RAT_COLUMNS):
        column = SubElement(table, "FieldDefn", index=str(index))
        for tag, value in (("Name", name), ("Type", kind), ("Usage", usage)):
            SubElement(column, tag).text = str(value)
    for index, info in enumerate(classes):
        row = SubElement(table, "Row", index=str(index))
        for value in (info.code, info.title, *info.rgba):
            SubElement(row, "F").text = str(value)
    return table


def qgis_style(classes: Sequence[ClassInfo]) -> str:
    """Return the style of a class map for QGIS: class names and colors; unpainted classes are transparent."""
    root = Element("qgis", version="3.22", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = SubElement(renderer, "colorPalette")
    for info in classes:
        if info.name not in NODATA_NAMES:
            color = {"color": f"#{info.color_hint.lower()}", "alpha": str(info.rgba[3])}
            SubElement(palette, "paletteEntry", {"value": str(info.code), "label": info.title, **color})
    return f"<!DOCTYPE qgis PUBLIC 'http://mrcc.com/qgis.dtd' 'SYSTEM'>\n{_xml(root)}"


def _xml(root: Element) -> str:
    indent(root)
    return f"{tostring(root, encoding='unicode')}\n"


def write_thumbnail(
    path: Path,
    class_map: NDArray[np.uint8],
    *,
    quicklook: NDArray[np.uint8] | None = None,
) -> None:
    """Write a small PNG of a class map: its colors, or its cloud and shadow over a picture of the scene.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes.
        quicklook: ``(y, x, 3)`` uint8 red, green, blue of the same extent, at any size.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    # Four samples along each side of an output pixel smooth the edges; more would not be visible.
    step = max(1, max(class_map.shape) // (4 * THUMBNAIL_SIDE))
    sampled = class_map[::step, ::step]
    picture = Image.fromarray(_palette(overlay=quicklook is not None)[sampled])
    picture.thumbnail((THUMBNAIL_SIDE, THUMBNAIL_SIDE), Image.Resampling.BOX)
    if quicklook is not None:
        picture = _over(quicklook, picture, sampled != CloudClass.NODATA)
    with whole_file(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


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
        if overlay and info.painted:
            table[info.code] = (*info.rgb, round(255 * OVERLAY_OPACITY))
        elif not overlay and info.code != CloudClass.NODATA:
            table[info.code] = (*info.rgb, 255)
    return table
