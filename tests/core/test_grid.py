from __future__ import annotations

from hypothesis import given, strategies as st

from stac_cloudmask.core.grid import Grid

GRID = Grid(epsg=32633, left=600000, top=5000040, gsd=10, height=109, width=54)


@given(factor=st.integers(1, 40))
def test_a_coarser_grid_covers_the_finer_one(factor):
    coarse = GRID.coarsen(factor)
    assert (coarse.epsg, coarse.left, coarse.top, coarse.gsd) == (32633, 600000, 5000040, 10 * factor)
    assert 109 <= coarse.height * factor < 109 + factor
    assert 54 <= coarse.width * factor < 54 + factor


def test_bounds_and_transform_say_where_the_pixels_lie():
    assert GRID.bounds == (600000, 5000040 - 1090, 600540, 5000040)
    assert GRID.transform == (10, 0, 600000, 0, -10, 5000040)
    assert (GRID.shape, GRID.code) == ((109, 54), "EPSG:32633")
