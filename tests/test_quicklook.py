from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import rasterio
from PIL import Image
from scenes import settings_of, write_items, write_model

from stac_cloudmask.core.predict import Bands
from stac_cloudmask.core.reflectance import to_rgb
from stac_cloudmask.pipeline import inference
from stac_cloudmask.pipeline.inference import Quicklook
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.stac.search import load_items

BANDS = Bands(("blue", "nir", "red", "green"), (1e-4, 1e-4, 2e-4, 1e-4), (0, 0, -1000, 0))
DN = np.random.default_rng(0).integers(0, 10000, (4, 103, 71), np.uint16)


def rows(row_off, height):
    return DN[:, row_off : row_off + height]


def looked(blocks, bands=BANDS, read=rows):
    look = Quicklook(bands, DN.shape[1:], read)
    for row_off, height in blocks:
        np.testing.assert_array_equal(look.read(row_off, height), read(row_off, height))
    return look.rgb


def strips(size):
    return [(top, min(size, 103 - top)) for top in range(0, 103, size)]


@pytest.mark.parametrize("side", [1200, 50, 7])
@pytest.mark.parametrize("size", [1, 10, 32, 103])
def test_the_picture_does_not_depend_on_how_rows_are_read(monkeypatch, side, size):
    monkeypatch.setattr(inference, "SIDE", side)
    whole = looked([(0, 103)])
    assert max(whole.shape) <= side
    np.testing.assert_array_equal(looked(reversed(strips(size))), whole)


def test_it_shows_the_reflectance_of_red_green_and_blue():
    red, green, blue = (DN[index].astype(np.float32) for index in (2, 3, 0))
    expected = to_rgb(
        np.stack([np.maximum(red - 1000, 0) * np.float32(2e-4), green * np.float32(1e-4), blue * np.float32(1e-4)])
    )
    assert np.abs(looked(strips(32)).astype(int) - expected).max() <= 1


def test_without_a_visible_band_there_is_no_picture():
    bands = Bands(("nir", "green", "red", "nir08"), BANDS.scales, BANDS.offsets)
    assert looked(strips(32), bands) is None


def test_a_processed_items_thumbnail_shows_the_scene_below_the_mask(tmp_path):
    (item,) = write_items(tmp_path / "source", 1)
    settings = settings_of(write_model(tmp_path / "model"))
    (result,) = run(load_items([str(item)]), settings=settings, out=str(tmp_path / "out"))
    assert result.error is None
    folder = Path(result.output).parent
    with rasterio.open(folder / "cloud_mask.tif") as file:
        clear = file.read(1) == 0
    bands = [rasterio.open(item.parent / f"{name}.tif").read(1)[clear].mean() for name in ("red", "green", "blue")]
    expected = to_rgb(np.array(bands, np.float32).reshape(3, 1, 1) / 10000 - 0.1)[0, 0]
    with Image.open(folder / "thumbnail.png") as picture:
        assert picture.size == clear.shape[::-1]
        seen = np.asarray(picture.convert("RGBA"))[clear][:, :3].mean(axis=0)
    assert np.abs(seen - expected).max() < 12
