"""The classes of masks and of the product's scene classification (SCL): the only tables of codes, names and colors."""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import IntEnum
from typing import Final

import numpy as np
from numpy.typing import NDArray


class CloudClass(IntEnum):
    """Codes of a class map, uint8."""

    CLEAR = 0
    CLOUD = 1
    CLOUD_SHADOW = 2
    NODATA = 255


@dataclass(frozen=True)
class ClassInfo:
    """The description of one class for readers and maps.

    ``color_hint`` is the color of the class in files, renders, thumbnails, reports, plots and docs: six hex digits, in
    the format of the classification extension. A class that is not ``painted`` is transparent over a scene or map; its
    color is for legends and charts only.
    """

    code: int
    name: str
    title: str
    color_hint: str
    description: str
    painted: bool = field(default=True, kw_only=True)

    @property
    def rgb(self) -> tuple[int, int, int]:
        """Red, green and blue of the color."""
        red, green, blue = bytes.fromhex(self.color_hint)
        return red, green, blue

    @property
    def rgba(self) -> tuple[int, int, int, int]:
        """Red, green, blue and opacity (0 or 255) for a color table."""
        return (*self.rgb, 255 if self.painted else 0)


CLASSES: Final = (
    ClassInfo(0, "clear", "Clear", "C8C8BE", "The surface is seen: neither cloud nor cloud shadow.", painted=False),
    ClassInfo(1, "cloud", "Cloud", "FF6400", "Cloud of any thickness that hides or alters the surface."),
    ClassInfo(2, "cloud_shadow", "Cloud shadow", "508CFF", "The surface is seen, but a cloud keeps the sun from it."),
    ClassInfo(
        255, "nodata", "No data", "000000", "The scene has no pixel here: neither clear nor cloud.", painted=False
    ),
)
"""The classes of `CloudClass`. Orange and blue differ from each other, from white and from land in every kind of color
blindness: by at least 34 in CIELAB (1976) for normal vision, deuteranopia, protanopia and tritanopia."""

MISSED: Final = (255, 230, 60)
"""Color of pixels that a mask missed or removed, on comparison maps."""
FALSE: Final = (120, 0, 120)
"""Color of pixels that only the mask flags."""
MISTAKEN: Final = (0, 0, 0)
"""Color of cloud mistaken for shadow, or shadow for cloud."""
ADDED: Final = (0, 200, 165)
"""Color of pixels that a buffer added, or of shadow that a mask removed."""
RAMP: Final = ((68, 1, 84), (59, 82, 139), (33, 145, 140), (94, 201, 98), (253, 231, 37))
"""Colors of probabilities from 0 to 100 %, evenly spaced: viridis, as in the renders of the items."""


class Scl(IntEnum):
    """The codes of ESA's scene classification that rules use."""

    NODATA = 0
    DARK = 2
    SHADOW = 3
    VEGETATION = 4
    BARE = 5
    WATER = 6
    UNCLASSIFIED = 7
    MEDIUM_CLOUD = 8
    HIGH_CLOUD = 9
    CIRRUS = 10


def _scl(code: int, name: str, title: str, color: str) -> ClassInfo:
    return ClassInfo(code, name, title, color, description=title, painted=code > 0)


SCL_CLASSES: Final = (
    _scl(0, "no_data", "No data", "000000"),
    _scl(1, "saturated_or_defective", "Saturated or defective", "FF0000"),
    _scl(2, "dark_area", "Dark area", "2F2F2F"),
    _scl(3, "cloud_shadow", "Cloud shadow", "643200"),
    _scl(4, "vegetation", "Vegetation", "00A000"),
    _scl(5, "not_vegetated", "Bare soil", "FFE65A"),
    _scl(6, "water", "Water", "0000FF"),
    _scl(7, "unclassified", "Unclassified", "808080"),
    _scl(8, "cloud_medium_probability", "Cloud, medium probability", "C0C0C0"),
    _scl(9, "cloud_high_probability", "Cloud, high probability", "FFFFFF"),
    _scl(10, "thin_cirrus", "Thin cirrus", "64C8FF"),
    _scl(11, "snow", "Snow or ice", "FF96FF"),
)
"""ESA's scene classification (SCL) in the colors of Sen2Cor."""

HIGH_PROBABILITY: Final = 65
"""Cloud percent above which cloud has the high-probability class of ESA's scene classification."""
VEGETATED, BARREN = 0.4, 0.2
"""Normalized difference of near infrared and red (NDVI) from which ground is vegetation, and up to which it is bare."""
WATER_NIR: Final = 0.12
"""Near-infrared reflectance up to which ground that is brighter in green is water."""


def ground_codes(green: NDArray[np.float32], red: NDArray[np.float32], nir: NDArray[np.float32]) -> NDArray[np.uint8]:
    """Return `Scl` codes of clear ground by its reflectance: water, vegetation, bare, or unclassified between them."""
    ndvi = (nir - red) / np.maximum(nir + red, np.float32(1e-4))
    codes = np.full(nir.shape, Scl.UNCLASSIFIED, np.uint8)
    codes[ndvi >= VEGETATED] = Scl.VEGETATION
    codes[ndvi <= BARREN] = Scl.BARE
    codes[(green > nir) & (nir <= WATER_NIR)] = Scl.WATER
    return codes


def improved_scl(
    class_map: NDArray[np.uint8], cloud: NDArray[np.uint8], ground: NDArray[np.uint8], scl: NDArray[np.uint8] | None
) -> NDArray[np.uint8]:
    """Return the scene classification with the cloud and cloud shadow of a mask; all are ``(y, x)`` uint8.

    Cloud keeps the product's code for cloud, or gets one by its probability. Pixels that the product calls cloud or
    shadow and the mask calls clear get the code of their ground. All others keep their code.

    Args:
        class_map: Codes of `CloudClass`.
        cloud: Whole percents of cloud probability.
        ground: Codes from ``ground_codes``.
        scl: The product's codes; None where there are none.
    """
    given = ground if scl is None else scl
    clouds = (Scl.MEDIUM_CLOUD, Scl.HIGH_CLOUD, Scl.CIRRUS)
    was_cloud = np.isin(given, clouds)
    likely = np.where(cloud > HIGH_PROBABILITY, np.uint8(Scl.HIGH_CLOUD), np.uint8(Scl.MEDIUM_CLOUD))
    codes = np.where(was_cloud | (given == Scl.SHADOW), ground, given)
    is_cloud = class_map == CloudClass.CLOUD
    codes[is_cloud] = np.where(was_cloud, given, likely)[is_cloud]
    codes[class_map == CloudClass.CLOUD_SHADOW] = Scl.SHADOW
    codes[class_map == CloudClass.NODATA] = Scl.NODATA
    return codes
