"""The one way to open a raster that a stranger may have made."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import Final

import rasterio
from rasterio.errors import CRSError
from rasterio.io import DatasetReader

from stac_cloudmask.errors import UnsupportedItemError

DRIVERS: Final = ("GTiff", "JP2OpenJPEG", "JP2KAK", "JP2ECW", "JP2MrSID")
"""Formats that hold pixels themselves; others, VRT first of all, can lead to any other file."""


@contextmanager
def open_image(href: str, env: Mapping[str, str], *, where: str) -> Iterator[DatasetReader]:
    """A GeoTIFF or JPEG 2000 that holds all of its pixels itself.

    Args:
        href: Allowed by the rule of ``hrefs``, and signed.
        env: GDAL settings, see ``transport.gdal_env``.
        where: How messages name it.

    Raises:
        UnsupportedItemError: Its metadata lead to another file, or are broken.
        RasterioError: GDAL's.
    """
    try:
        with rasterio.Env(**env), DatasetReader(href, driver=list(DRIVERS), sharing=False) as file:
            if file.tags(ns="OVERVIEWS"):  # GDAL would open what OVERVIEW_FILE names, of any format and at any place
                raise UnsupportedItemError(f"{where} keeps its overviews in another file; they must be in its own")
            yield file
    except (UnicodeError, CRSError) as error:
        raise UnsupportedItemError(f"{where} has a broken header: {str(error)[:200]}") from None


def is_file(path: str) -> bool:
    """Whether there is a local file."""
    try:
        return Path(path).is_file()
    except OSError:  # a name that no file can have
        return False
