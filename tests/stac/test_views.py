from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import ReadError, UnsupportedItemError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.warp import STRIKES, Views, rgb_keys
from tests.stac.range_server import serve
from tests.stac.rasters import EPSG, LEFT, TOP, write

FINE = Grid(epsg=EPSG, left=LEFT, top=TOP, gsd=10, height=120, width=90)
"""Of the files in these tests."""


def blocks(factor, values):
    """A raster of ``FINE``'s shape whose every block of ``factor`` pixels holds ``values``, in rows of a block."""
    tile = np.asarray(values).reshape(factor, factor)
    return np.tile(tile, (FINE.height // factor, FINE.width // factor))


def test_classes_are_the_most_frequent_and_nodata_has_no_say(tmp_path):
    write(tmp_path / "a.tif", blocks(3, [1, 1, 1, 2, 2, 255, 255, 255, 255]).astype(np.uint8), 10, nodata=255)
    seen = Views().classes(str(tmp_path / "a.tif"), FINE.coarsen(3), base=None, fill=255)
    assert (seen.shape, np.unique(seen).tolist()) == ((40, 30), [1])


def test_without_a_nodata_value_zero_counts_too(tmp_path):
    write(tmp_path / "a.tif", blocks(3, [0] * 5 + [8] * 4).astype(np.uint8), 10, nodata=None)
    seen = Views().classes(str(tmp_path / "a.tif"), FINE.coarsen(3), base=None, fill=None)
    assert np.unique(seen).tolist() == [0]


def test_means_are_of_the_valid_pixels(tmp_path):
    write(tmp_path / "a.tif", blocks(2, [0, 100, 200, 0]).astype(np.uint16), 10)
    seen = Views().means(str(tmp_path / "a.tif"), FINE.coarsen(2), base=None, fill=0, dtype="uint16")
    assert np.unique(seen).tolist() == [150]


def test_a_coarser_raster_lies_where_it_should_and_what_it_does_not_cover_is_nodata(tmp_path):
    coarse = np.arange(1, 61 * 46 + 1, dtype=np.uint16).reshape(61, 46)[:50]
    write(tmp_path / "a.tif", coarse, 20)
    seen = Views().means(str(tmp_path / "a.tif"), FINE.coarsen(2), base=None, fill=0, dtype="uint16")
    np.testing.assert_array_equal(seen[:50], coarse[:, :45])
    assert not seen[50:].any()


def test_what_is_no_such_raster_is_an_error_that_names_it(tmp_path):
    write(tmp_path / "two.tif", np.ones((2, 120, 90), np.uint8), 10)
    write(tmp_path / "deep.tif", np.ones((120, 90), np.uint16), 10)
    vrt = tmp_path / "lead.vrt"
    vrt.write_text('<VRTDataset rasterXSize="9" rasterYSize="9"/>')
    for name, error in (("two", UnsupportedItemError), ("deep", UnsupportedItemError), ("none", ReadError)):
        with pytest.raises(error, match=name):
            Views().classes(str(tmp_path / f"{name}.tif"), FINE, base=None, fill=0)
    with pytest.raises(ReadError, match=r"lead\.vrt"):
        Views().classes(str(vrt), FINE, base=None, fill=0)


def test_a_remote_item_does_not_make_us_read_local_files(tmp_path):
    write(tmp_path / "a.tif", np.ones((120, 90), np.uint8), 10)
    with pytest.raises(UnsupportedItemError, match="local files"):
        Views().classes((tmp_path / "a.tif").as_uri(), FINE, base="https://example.org/item.json", fill=0)


def test_a_host_that_failed_three_times_is_left_in_peace(tmp_path):
    with serve(tmp_path, fault=lambda *_: 500) as site:
        views = Views(RetryPolicy(seconds=0))
        for number in range(STRIKES):
            with pytest.raises(ReadError, match="500"):
                views.classes(f"{site.url}/{number}.tif?sig=secret", FINE, base=None, fill=0)
        asked = sum(site.asked.values())
        with pytest.raises(ReadError, match="failed 3 times") as caught:
            views.classes(f"{site.url}/more.tif?sig=secret", FINE, base=None, fill=0)
        assert sum(site.asked.values()) == asked
    assert "secret" not in str(caught.value)


def test_red_green_and_blue_are_found_by_band_or_by_key():
    band = {"bands": [{"name": "x", "eo:common_name": "red"}]}
    assert rgb_keys({"a": band, "B03": {}, "blue": {}, "blue-jp2": {"type": "image/jp2"}}) == ("a", "B03", "blue")
    assert rgb_keys({"visual": {"bands": [{}, {}, {}]}, "green": {}, "blue": {}}) is None
