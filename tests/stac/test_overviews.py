from __future__ import annotations

import numpy as np
import pytest
import rasterio
from rasterio.enums import Resampling
from rasterio.shutil import copy

from stac_cloudmask.core.reflectance import mean_by_twos
from stac_cloudmask.errors import ReadError
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.loaders import MOST_BLOCKS, Overview, stored_bytes
from stac_cloudmask.stac.reader import PATIENCE, Access, Patience, open_scene
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
    """The factor of the overview that is read of each band."""
    looked = Access(loader="odc", threads=1, patience=PATIENCE).look(
        sources(folder, names).bands, rule=sources(folder).rule, resolution=resolution
    )
    return [one.facts.overview and one.facts.overview.factor for one in looked]


@pytest.mark.parametrize("options", [{"loader": "stackstac"}, {"loader": "odc"}, {"in_memory": True}])
@pytest.mark.parametrize(
    ("resolution", "factors"),
    [(20, [2, 2, None]), (40, [4, 4, 2]), (60, [2, 2, None]), (120, [4, 4, 2]), (30, [None] * 3), (10, [None] * 3)],
)
def test_pixels_are_the_same_with_overviews_and_without(plain, layered, resolution, factors, options):
    assert found(layered, resolution) == factors
    assert found(plain, resolution) == [None] * 3
    for one, other in zip(pixels(layered, resolution, **options), pixels(plain, resolution), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize("factor", [2, 4, 8])
def test_means_by_twos_are_what_gdal_makes(layered, factor):
    with rasterio.open(layered / "blue.tif") as file:
        level = file.overviews(1).index(factor)
        whole = file.read(1)
    with rasterio.open(layered / "blue.tif", overview_level=level) as file:
        np.testing.assert_array_equal(mean_by_twos(whole, factor), file.read(1))


@pytest.mark.parametrize("resampling", [Resampling.nearest, Resampling.cubic, Resampling.gauss, Resampling.mode])
def test_overviews_that_hold_no_means_are_not_read(tmp_path, plain, resampling):
    write_bands(tmp_path, resampling=resampling)
    assert found(tmp_path, 20) == [None] * 3
    np.testing.assert_array_equal(pixels(tmp_path, 20)[0], pixels(plain, 20)[0])


def test_overviews_that_mix_nodata_with_data_are_not_read(tmp_path, plain):
    write_bands(tmp_path, resampling=Resampling.average, nodata=None)
    assert found(tmp_path, 20) == [None] * 3
    np.testing.assert_array_equal(pixels(tmp_path, 20)[0], pixels(plain, 20)[0])


def test_an_overview_whose_pixels_do_not_nest_makes_way_for_one_whose_pixels_do(tmp_path):
    write_bands(tmp_path, shape=(1634, 1250), resampling=Resampling.average)
    assert found(tmp_path, 40, ("blue", "nir")) == [2, 2]
    before = pixels(tmp_path, 40)[0]
    write_bands(tmp_path, shape=(1634, 1250))
    np.testing.assert_array_equal(before, pixels(tmp_path, 40)[0])


def test_a_sample_is_taken_where_there_is_data(tmp_path):
    write_bands(tmp_path)
    dn = digital_numbers(SHAPE)
    dn[:, :1000] = 0
    write(tmp_path / "blue.tif", dn, 10)
    with rasterio.open(tmp_path / "blue.tif", "r+") as file:
        file.build_overviews([2], Resampling.average)
    assert found(tmp_path, 20, ("blue",)) == [2]
    write(tmp_path / "blue.tif", np.zeros(SHAPE, np.uint16), 10)
    with rasterio.open(tmp_path / "blue.tif", "r+") as file:
        file.build_overviews([2], Resampling.average)
    assert found(tmp_path, 20, ("blue",)) == [None]


def test_bands_of_which_only_some_have_overviews_are_read_side_by_side(tmp_path, plain):
    write_bands(tmp_path, resampling=Resampling.average)
    (tmp_path / "nir.tif").write_bytes((plain / "nir.tif").read_bytes())
    assert found(tmp_path, 20, ("blue", "nir")) == [2, None]
    np.testing.assert_array_equal(pixels(tmp_path, 20)[0], pixels(plain, 20)[0])


def bytes_read(folder, resolution):
    with serve(folder) as site:
        scene = open_scene(sources(site.url), resolution=resolution)
        scene.dn(0, scene.grid.height)
        return sum(site.given[f"/{name}.tif"] for name in ("blue", "nir"))


def test_a_coarser_mask_reads_fewer_bytes_where_there_are_overviews(plain, layered):
    size = sum((plain / f"{name}.tif").stat().st_size for name in ("blue", "nir"))
    assert bytes_read(plain, 20) >= size
    whole, half, quarter = (bytes_read(layered, resolution) for resolution in (10, 20, 40))
    assert half < 0.45 * whole
    assert quarter < 0.25 * whole


@pytest.mark.parametrize("loader", ["stackstac", "odc"])
def test_a_server_that_fails_on_an_overview_is_asked_again_and_else_named(layered, loader):
    patience = Patience(retries=0, delay=0.01, attempts=2)
    with serve(layered) as site:
        scene = open_scene(sources(site.url), resolution=20, loader=loader, patience=patience)
        whole = scene.dn(0, scene.grid.height)
        site.fault = lambda _, method, path: 503 if path == "/nir.tif" and method == "GET" else None
        fresh = open_scene(sources(site.url, ("blue",)), resolution=20, loader=loader, patience=patience)
        np.testing.assert_array_equal(fresh.dn(0, fresh.grid.height)[0], whole[0])
    with serve(layered) as site:
        scene = open_scene(sources(site.url), resolution=20, loader=loader, patience=patience)
        site.fault = lambda _, __, path: 503 if path == "/nir.tif" else None
        with pytest.raises(ReadError, match=r"asset 'nir'.*503") as caught:
            scene.dn(0, scene.grid.height)
        assert caught.value.retryable


def test_an_overview_is_named_by_its_level_and_factor(layered):
    looked = Access(loader="odc", threads=1, patience=PATIENCE).look(
        sources(layered).bands[:1], rule=sources(layered).rule, resolution=40
    )
    assert looked[0].facts.overview == Overview(level=1, factor=4)
    assert looked[0].facts.read_grid == looked[0].grid.coarsen(4)
    assert looked[0].facts.stored == pytest.approx(SHAPE[0] * SHAPE[1] / 16 * 2, rel=0.3)


def test_the_bytes_of_blocks_beyond_number_are_not_known(tmp_path):
    side = 16 * (int(MOST_BLOCKS**0.5) + 1)
    profile = {"driver": "GTiff", "dtype": "uint16", "tiled": True, "blockxsize": 16, "blockysize": 16, "count": 1}
    profile["transform"] = rasterio.transform.from_origin(0, 0, 10, 10)
    for name, rows, cols in (("few", 32, 48), ("many", side, side)):
        with rasterio.open(tmp_path / name, "w", **profile, height=rows, width=cols, SPARSE_OK=True) as file:
            file.write(np.ones((32, 48), np.uint16), 1, window=((0, 32), (0, 48)))
    with rasterio.open(tmp_path / "few") as file:
        assert stored_bytes(file) == 6 * 16 * 16 * 2
    with rasterio.open(tmp_path / "many") as file:
        assert stored_bytes(file) is None
