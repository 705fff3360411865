"""Class maps, percentages and votes as Cloud Optimized GeoTIFFs, and the thumbnail."""

from __future__ import annotations

import os
import uuid
from collections.abc import Mapping
from contextlib import contextmanager, suppress
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Final, Literal
from xml.etree.ElementTree import Element, SubElement, indent, tostring

import numpy as np
import rasterio
from PIL import Image
from rasterio._err import CPLE_BaseError  # what GDAL's CreateCopy raises; rasterio.errors does not have it
from rasterio.errors import RasterioError
from rasterio.shutil import copy as copy_raster

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA
from stac_cloudmask.errors import WriteError

if TYPE_CHECKING:
    from collections.abc import Iterator, Sequence

    from numpy.typing import NDArray
    from rasterio.io import DatasetWriter

    from stac_cloudmask.core.classes import ClassInfo
    from stac_cloudmask.core.grid import Grid

BLOCK: Final = 512
"""Side of a tile inside the file, in pixels."""
GDAL_CACHE: Final = 32 * 2**20
"""Bytes; by default GDAL caches 5 % of the machine, far more than a pass over strips of tiles can use."""
NO_TAGS: Final[Mapping[str, str]] = MappingProxyType({})
RAT_COLUMNS: Final = (("Value", 0, 5), ("Class", 2, 2), ("Red", 0, 6), ("Green", 0, 7), ("Blue", 0, 8), ("Alpha", 0, 9))
"""Name, type (0 = integer, 2 = text) and usage of the columns, by GDAL's numbers."""
THUMBNAIL_SIDE: Final = 600
"""The longest side that the STAC best practices allow a thumbnail, in pixels."""
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
    """Write a class map with its color table; overviews hold the class that most pixels below have.

    Two small files beside it say more than a TIFF can: ``NAME.tif.aux.xml`` holds class names and opacities for GDAL,
    ``NAME.qml`` the style that QGIS opens the map with.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes; the code of ``classes`` that is called ``nodata`` or ``no_data`` is nodata.
        grid: The grid of ``class_map``.
        classes: The class table that codes, names and colors come from.
        title: The band's description.
        tags: What else the file says of itself, by name.
        threads: Threads for compression and overviews.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    _write(
        path,
        class_map,
        grid,
        nodata=next(info.code for info in classes if info.name in {"nodata", "no_data"}),
        overview="mode",
        title=title,
        tags=tags,
        band_tags={f"CLASS_{info.code}": info.title for info in classes},
        colors={info.code: info.rgba for info in classes},
        threads=threads,
    )
    for sidecar, text in (
        (path.with_name(f"{path.name}.aux.xml"), gdal_metadata(classes)),
        (path.with_suffix(".qml"), qgis_style(classes)),
    ):
        with _whole_file(sidecar) as temporary:
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
    _write(
        path,
        percent,
        grid,
        nodata=PERCENT_NODATA,
        overview="average",
        title=title,
        tags=tags,
        unit="%",
        threads=threads,
    )


def write_bits_cog(
    path: Path,
    bits: NDArray[np.uint8],
    grid: Grid,
    *,
    fields: Sequence[tuple[str, str]] = (),
    title: str = "Votes behind the mask",
    tags: Mapping[str, str] = NO_TAGS,
    threads: int = 2,
) -> None:
    """Write bit fields, ``(y, x)`` uint8 with 255 = nodata; overviews hold the most frequent combination.

    Args:
        path: Where the file goes; it appears whole or not at all.
        bits: The fields, of which there are at most seven: no combination of them is 255.
        grid: The grid of ``bits``.
        fields: Name and meaning of the bits, lowest first.
        title: The band's description.
        tags: What else the file says of itself, by name.
        threads: Threads for compression and overviews.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    meanings = {f"BIT_{offset}": f"{name}: {meaning}" for offset, (name, meaning) in enumerate(fields)}
    _write(
        path,
        bits,
        grid,
        nodata=VOTES_NODATA,
        overview="mode",
        title=title,
        tags=tags,
        band_tags=meanings,
        threads=threads,
    )


def gdal_metadata(classes: Sequence[ClassInfo]) -> str:
    """What GDAL keeps beside a TIFF: class names, and a color table with opacities, which TIFF does not have."""
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
    """GDAL's raster attribute table: value, name, red, green, blue and opacity of each class."""
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
    """The style of a class map for QGIS: every class by its name and color, what is not painted transparent."""
    root = Element("qgis", version="3.22", styleCategories="Symbology")
    pipe = SubElement(root, "pipe")
    renderer = SubElement(pipe, "rasterrenderer", type="paletted", band="1", opacity="1", alphaBand="-1")
    palette = SubElement(renderer, "colorPalette")
    for info in classes:
        if info.name not in {"nodata", "no_data"}:
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
    classes: Sequence[ClassInfo] = CLASSES,
    side: int = THUMBNAIL_SIDE,
) -> None:
    """Write a small PNG of a class map: its colors, or its cloud and shadow over a picture of the scene.

    Args:
        path: Where the file goes; it appears whole or not at all.
        class_map: ``(y, x)`` uint8 codes.
        quicklook: ``(y, x, 3)`` uint8 red, green, blue of the same extent, at any size.
        classes: The class table that the colors come from.
        side: The longest side of the picture, in pixels.

    Raises:
        WriteError: The file cannot be written; nothing is left behind.
    """
    # Four samples a side and output pixel smooth the edges; more cost time and show nothing.
    step = max(1, max(class_map.shape) // (4 * side))
    sampled = class_map[::step, ::step]
    picture = Image.fromarray(_palette(classes, overlay=quicklook is not None)[sampled])
    picture.thumbnail((side, side), Image.Resampling.BOX)
    if quicklook is not None:
        picture = _over(quicklook, picture, sampled != CloudClass.NODATA)
    with _whole_file(path) as temporary:
        picture.save(temporary, format="PNG", optimize=True)


def _over(quicklook: NDArray[np.uint8], picture: Image.Image, valid: NDArray[np.bool_]) -> Image.Image:
    """A picture over a quicklook, where valid; of 256 colors, as more take four times the room."""
    below = Image.fromarray(quicklook).resize(picture.size, Image.Resampling.BOX).convert("RGBA")
    both = Image.alpha_composite(below, picture)
    seen = Image.fromarray(valid.astype(np.uint8) * 255).resize(picture.size, Image.Resampling.BOX)
    both.putalpha(Image.fromarray(np.where(np.asarray(seen) > 127, np.uint8(255), np.uint8(0))))  # noqa: PLR2004  (half)
    return both.quantize(256, Image.Quantize.FASTOCTREE)


def _palette(classes: Sequence[ClassInfo], *, overlay: bool) -> NDArray[np.uint8]:
    """Red, green, blue and alpha of every code, ``(256, 4)``: in an overlay what is clear is not painted."""
    table = np.zeros((256, 4), np.uint8)
    for info in classes:
        if overlay and info.painted:
            table[info.code] = (*info.rgb, round(255 * OVERLAY_OPACITY))
        elif not overlay and info.code != CloudClass.NODATA:
            table[info.code] = (*info.rgb, 255)
    return table


def _write(
    path: Path,
    array: NDArray[np.uint8],
    grid: Grid,
    *,
    nodata: int,
    overview: Literal["mode", "average"],
    title: str,
    tags: Mapping[str, str],
    band_tags: Mapping[str, str] = NO_TAGS,
    colors: Mapping[int, tuple[int, int, int, int]] | None = None,
    unit: str | None = None,
    threads: int,
) -> None:
    """Write tiles to a plain GeoTIFF next to ``path``, then let GDAL's COG driver order them."""
    if array.shape != grid.shape:
        raise ValueError(f"an array of {array.shape} does not fill a grid of {grid.shape}")
    with _whole_file(path) as cog, rasterio.Env(GDAL_CACHEMAX=GDAL_CACHE, GDAL_NUM_THREADS=threads):
        flat = cog.with_suffix(".flat.tif")
        try:
            with _flat(flat, grid, nodata=nodata, threads=threads) as tiles:
                for top in range(0, grid.height, BLOCK):
                    rows = top, min(top + BLOCK, grid.height)
                    tiles.write(array[slice(*rows)], 1, window=(rows, (0, grid.width)))
                tiles.set_band_description(1, title)
                tiles.update_tags(**tags)
                tiles.update_tags(1, **band_tags)
                if unit:
                    tiles.set_band_unit(1, unit)
                if colors:
                    tiles.write_colormap(1, dict(colors))
            copy_raster(
                flat,
                cog,
                driver="COG",
                BLOCKSIZE=BLOCK,
                COMPRESS="DEFLATE",
                OVERVIEW_RESAMPLING=overview.upper(),
                NUM_THREADS=threads,
                BIGTIFF="IF_SAFER",
            )
        finally:
            _remove(flat)


def _flat(path: Path, grid: Grid, *, nodata: int, threads: int) -> DatasetWriter:
    return rasterio.open(
        path,
        "w",
        driver="GTiff",
        dtype="uint8",
        count=1,
        height=grid.height,
        width=grid.width,
        crs=grid.code,
        transform=rasterio.Affine(*grid.transform),
        nodata=nodata,
        tiled=True,
        blockxsize=BLOCK,
        blockysize=BLOCK,
        compress="lzw",
        num_threads=threads,
    )


@contextmanager
def _whole_file(path: Path) -> Iterator[Path]:
    """A temporary name beside ``path``, renamed to it at the end."""
    temporary = path.with_name(f".{path.stem}.{os.getpid()}.{uuid.uuid4().hex[:8]}.tmp{path.suffix}")
    try:
        yield temporary
        temporary.replace(path)
    except (OSError, RasterioError, CPLE_BaseError) as error:
        raise WriteError(f"{path}: cannot be written: {error}") from error
    finally:
        _remove(temporary)


def _remove(temporary: Path) -> None:
    """Delete a file if that is possible; on a disk that may no longer be written, what went wrong first counts."""
    with suppress(OSError):
        temporary.unlink(missing_ok=True)
