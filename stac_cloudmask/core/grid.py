"""A raster grid: coordinate system, origin, pixel size and shape."""

from __future__ import annotations

from dataclasses import dataclass

from stac_cloudmask.errors import ConfigError


@dataclass(frozen=True, kw_only=True)
class Grid:
    """A north-up grid of square pixels.

    ``left`` and ``top`` are the outer corner of the first pixel, in the units of the CRS; ``gsd`` is the side of a
    pixel in the same units (metres for every UTM zone).
    """

    epsg: int
    left: float
    top: float
    gsd: float
    height: int
    width: int

    @property
    def shape(self) -> tuple[int, int]:
        """``(height, width)`` in pixels."""
        return self.height, self.width

    @property
    def bounds(self) -> tuple[float, float, float, float]:
        """``(left, bottom, right, top)`` in the CRS."""
        return self.left, self.top - self.height * self.gsd, self.left + self.width * self.gsd, self.top

    @property
    def transform(self) -> tuple[float, float, float, float, float, float]:
        """Affine coefficients in the order of rasterio and of ``proj:transform``."""
        return self.gsd, 0.0, self.left, 0.0, -self.gsd, self.top

    @property
    def code(self) -> str:
        """The CRS as ``proj:code`` spells it."""
        return f"EPSG:{self.epsg}"

    def coarsen(self, factor: int) -> Grid:
        """The grid whose pixels are blocks of ``factor`` x ``factor``; a last, partial block counts as a pixel."""
        if factor < 1:
            raise ConfigError(f"a grid is coarsened by a whole number of at least 1, got {factor}")
        return Grid(
            epsg=self.epsg,
            left=self.left,
            top=self.top,
            gsd=self.gsd * factor,
            height=-(-self.height // factor),
            width=-(-self.width // factor),
        )

    def ratio(self, other: Grid) -> int | None:
        """How many pixels of this grid one pixel of ``other`` spans, where they share CRS and origin; else None."""
        factor = round(other.gsd / self.gsd)
        nested = self.coarsen(factor) == other if factor >= 1 else False
        return factor if nested else None
