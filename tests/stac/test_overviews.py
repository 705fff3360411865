from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy

from stac_cloudmask.core.pixels import mean_by_twos
from stac_cloudmask.errors import ReadError
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.reader import MOST_BLOCKS, open_files, open_scene
from tests.stac.range_server import serve
from tests.stac.rasters import digital_numbers, item_of, scl_codes, write

SHAPE = (1632, 1248)
"""Of 10 m bands: several samples and blocks; a multiple of 16 and 6."""
BANDS = {"blue": 10, "nir": 10, "swir16": 20}


def write_bands(folder, *, shape=SHAPE, resampling=None, **profile):
    """Bands of 10 and 20 m and an SCL; with overviews where ``resampling`` is given."""
    for seed, (name, gsd) in enumerate(BANDS.items()):
        path = folder / f"{name}.tif"
        write(path, digital_numbers(tuple(side * 10 // gsd for side in shape), seed), gsd, **profile)
        if resampling is not None:
            with rasterio.open(path, "r+") as file:
                file.build_overviews((2, 4, 8), resampling)
    write(folder / "scl.tif", scl_codes(tuple(side // 2 for side in shape)), 20)
    return folder


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    return write_bands(tmp_path_factory.mktemp("plain"))


@pytest.fixture(scope="module")
def layered(tmp_path_factory, plain):
    """COGs: in other files what a header says may lie anywhere, and rasterio holds on to the GIL while it looks."""
    folder = tmp_path_factory.mktemp("layered")
    for name in BANDS:
        copy(plain / f"{name}.tif", folder / f"{name}.tif", driver="COG", blocksize=128, overview_resampling="average")
    (folder / "scl.tif").write_bytes((plain / "scl.tif").read_bytes())
    return folder


def sources(folder, names=tuple(BANDS)):
    return resolve(item_of(folder, {name: f"{name}.tif" for name in (*names, "scl")}), names)


def pixels(folder, resolution, *, step=97, **options):
    """All that a scene gives, read in strips that fit nothing."""
    scene = open_scene(sources(folder), resolution=resolution, **options)
    height = scene.grid.height
    parts = [scene.dn(row, min(step, height - row)) for row in range(0, height, step)]
    return np.concatenate(parts, axis=1), scene.scl()[0]


def found(folder, resolution, names=tuple(BANDS)):
    """The factor of what is read of each band: 1 for its own pixels."""
    files = open_files(sources(folder, names).bands, resolution=resolution, threads=1)
    return [round(file.grid.gsd / BANDS[file.source.common_name]) for file in files]


@pytest.mark.parametrize("loader", ["stackstac", "odc"])
@pytest.mark.parametrize(
    ("resolution", "factors"),
    [
        (20, [1, 1, 1]),
        (40, [2, 2, 1]),
        (60, [2, 2, 1]),
        (80, [4, 4, 2]),
        (160, [8, 8, 4]),
        (30, [1] * 3),
        (10, [1] * 3),
    ],
)
def test_pixels_are_the_same_from_the_next_finer_overview(plain, layered, resolution, factors, loader):
    assert found(layered, resolution) == factors
    assert found(plain, resolution) == [1] * 3
    for one, other in zip(pixels(layered, resolution, loader=loader), pixels(plain, resolution), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_means_by_twos_are_what_gdal_makes(layered, factor):
    with rasterio.open(layered / "blue.tif") as file:
        level = file.overviews(1).index(factor)
        whole = file.read(1)
    with rasterio.open(layered / "blue.tif", overview_level=level) as file:
        np.testing.assert_array_equal(mean_by_twos(whole, factor), file.read(1))


def test_overviews_that_may_mix_nodata_with_data_are_not_read(tmp_path, plain):
    write_bands(tmp_path, resampling=Resampling.average, nodata=None)
    assert found(tmp_path, 40) == [1] * 3
    np.testing.assert_array_equal(pixels(tmp_path, 40)[0], pixels(plain, 40)[0])


def test_an_overview_whose_pixels_do_not_nest_makes_way_for_one_whose_pixels_do(tmp_path):
    write_bands(tmp_path, shape=(1634, 1250), resampling=Resampling.average)
    assert found(tmp_path, 80, ("blue", "nir")) == [2, 2]
    before = pixels(tmp_path, 80)[0]
    write_bands(tmp_path, shape=(1634, 1250))
    np.testing.assert_array_equal(before, pixels(tmp_path, 80)[0])


def test_bands_of_which_only_some_have_overviews_are_read_side_by_side(tmp_path, plain):
    write_bands(tmp_path, resampling=Resampling.average)
    (tmp_path / "nir.tif").write_bytes((plain / "nir.tif").read_bytes())
    assert found(tmp_path, 40, ("blue", "nir")) == [2, 1]
    np.testing.assert_array_equal(pixels(tmp_path, 40)[0], pixels(plain, 40)[0])


def bytes_read(folder, resolution):
    with serve(folder) as site:
        scene = open_scene(sources(site.url), resolution=resolution)
        scene.dn(0, scene.grid.height)
        return sum(site.given[f"/{name}.tif"] for name in ("blue", "nir"))


def test_a_coarser_mask_reads_fewer_bytes_where_there_are_overviews(plain, layered):
    size = sum((plain / f"{name}.tif").stat().st_size for name in ("blue", "nir"))
    assert bytes_read(plain, 40) >= size
    whole, half, quarter = (bytes_read(layered, resolution) for resolution in (10, 40, 80))
    assert half < 0.45 * whole
    assert quarter < 0.25 * whole


@pytest.mark.parametrize("loader", ["stackstac", "odc"])
def test_a_server_that_fails_on_an_overview_is_named(layered, loader):
    with serve(layered) as site:
        scene = open_scene(sources(site.url), resolution=40, loader=loader, retry=RetryPolicy(seconds=0))
        site.fault = lambda _, __, path: 503 if path == "/nir.tif" else None
        with pytest.raises(ReadError, match=r"asset 'nir'.*server fails") as caught:
            scene.dn(0, scene.grid.height)
        assert caught.value.retryable


def test_the_bytes_of_an_overview_are_those_that_are_read(layered):
    (file,) = open_files(sources(layered).bands[:1], resolution=80, threads=1)
    assert (file.level, file.grid.gsd, file.grid.shape) == (1, 40, (SHAPE[0] // 4, SHAPE[1] // 4))
    assert file.stored == pytest.approx(SHAPE[0] * SHAPE[1] / 16 * 2, rel=0.3)


def test_the_bytes_of_blocks_beyond_number_are_not_known(tmp_path):
    side = 16 * (int(MOST_BLOCKS**0.5) + 1)
    profile = {"driver": "GTiff", "dtype": "uint16", "tiled": True, "blockxsize": 16, "blockysize": 16, "count": 1}
    profile |= {"transform": rasterio.transform.from_origin(300000, 5000040, 10, 10), "crs": "EPSG:32633", "nodata": 0}
    for name, rows, cols in (("blue", 32, 48), ("nir", side, side)):
        with rasterio.open(tmp_path / f"{name}.tif", "w", **profile, height=rows, width=cols, SPARSE_OK=True) as file:
            file.write(np.ones((32, 48), np.uint16), 1, window=((0, 32), (0, 48)))
    item = item_of(tmp_path, {"blue": "blue.tif", "nir": "nir.tif"})
    few, many = open_files(resolve(item, ["blue", "nir"], want_scl=False).bands, resolution=None, threads=1)
    assert (few.stored, many.stored) == (6 * 16 * 16 * 2, None)
