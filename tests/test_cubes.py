"""Masks on cubes that stackstac and odc-stac load of real scenes."""

from __future__ import annotations

import json
import shutil
import warnings
from pathlib import Path

import numpy as np
import odc.geo.xr
import odc.stac
import pytest
import rasterio
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from rasterio.errors import RasterioIOError
from scenes import settings_of, write_model

import stac_cloudmask as scm
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.stac.cog import write_cog
from stac_cloudmask.stac.metadata import make_grid
from stac_cloudmask.stac.search import load_items

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import stackstac

BANDS = ["red", "nir"]
DATES = ("S2B_33TWL_20230813_0_L2A", "S2A_33TWL_20230818_0_L2A", "S2B_33TWL_20230820_0_L2A")
BOUNDS = (499980, 4990200, 609780, 5100000)
BOX = GeoBox((915, 915), Affine(120, 0, 499980, 0, -120, 5100000), "EPSG:32633")


@pytest.fixture(scope="module")
def masks(shared, tmp_path_factory):
    """Results of a run over these dates."""
    folder = tmp_path_factory.mktemp("cubes")
    paths = [str(shared / "data" / "earth-search-33twl" / name / f"{name}.json") for name in DATES]
    settings = settings_of(write_model(folder / "model"))
    results = list(run(load_items(paths), settings=settings, out=str(folder / "out")))
    assert [result.error for result in results] == [None] * len(DATES)
    return results


@pytest.fixture(scope="module")
def codes(masks):
    """The published class maps, ``(time, y, x)``."""
    return np.stack([pixels(Path(result.output).with_name("cloud_mask.tif")) for result in masks])


def pixels(path):
    with rasterio.open(path) as file:
        return file.read(1)


def stacked(items, **options):
    bodies = [item.to_dict(transform_hrefs=False) for item in items]
    given = {"assets": BANDS, "epsg": 32633, "resolution": 120, "bounds": BOUNDS, "snap_bounds": False} | options
    return stackstac.stack(bodies, rescale=False, errors_as_nodata=(), **given)


def test_stackstac_cubes_lose_what_the_masks_hide_and_nothing_else(items, masks, codes):
    cube = stacked(items)
    masked = scm.apply_mask(cube, masks)
    assert (masked.dims, masked.chunks, masked.dtype) == (cube.dims, cube.chunks, cube.dtype)
    np.testing.assert_array_equal(masked.values, np.where((codes == 0)[:, None], cube.values, np.nan))


def test_stackstac_cubes_take_masks_of_an_area(items, codes, tmp_path):
    settings = settings_of(write_model(tmp_path / "model"))
    area = (16.0, 45.5, 16.4, 45.8)
    results = scm.process(items, out=tmp_path / "out", bbox=area, settings=settings)
    part = scm.apply_mask(stacked(items), results).values
    for at, result in enumerate(results):
        kept = (pixels(Path(result.output).with_name("cloud_mask.tif")) == 0).sum()
        assert 0 < np.isfinite(part[at, 0]).sum() <= kept


def test_odc_cubes_keep_their_type_and_get_their_own_nodata(items, masks, codes):
    cube = odc.stac.load(items, bands=BANDS, geobox=BOX, chunks={"x": 300, "y": 500})
    masked = scm.apply_mask(cube, masks)
    for band in BANDS:
        assert (masked[band].dtype, masked[band].attrs) == (np.uint16, cube[band].attrs)
        assert masked[band].chunks == cube[band].chunks
        np.testing.assert_array_equal(masked[band].values, np.where(codes == 0, cube[band].values, 0))


def test_both_loaders_keep_the_same_pixels(items, masks):
    one = scm.apply_mask(stacked(items), masks).sel(band="red").values
    other = scm.apply_mask(odc.stac.load(items, bands=["red"], geobox=BOX, dtype="float32", nodata=np.nan), masks)[
        "red"
    ].values
    np.testing.assert_array_equal(np.isnan(one), np.isnan(other))


@pytest.mark.parametrize("xy_coords", ["topleft", "center"])
def test_a_part_of_a_stackstac_cube_is_masked_where_it_lies(items, masks, codes, xy_coords):
    cube = stacked(items, xy_coords=xy_coords).isel(time=[2, 0], y=slice(700, 800), x=slice(3, 903, 1))
    masked = scm.apply_mask(cube, masks)
    clear = (codes == 0)[[2, 0], 700:800, 3:903]
    np.testing.assert_array_equal(masked.values, np.where(clear[:, None], cube.values, np.nan))


def test_the_folder_that_process_wrote_is_taken_as_its_masks(items, masks, codes, tmp_path):
    cube = odc.stac.load(items, bands=["red"], geobox=BOX)
    folder = Path(masks[0].output).parents[2]
    masked = scm.apply_mask(cube, str(folder))["red"].values
    np.testing.assert_array_equal(masked, np.where(codes == 0, cube["red"].values, 0))
    with pytest.raises(ConfigError, match="give the folder that"):
        scm.apply_mask(cube, tmp_path)


def test_one_time_step_and_loaded_arrays_work_too(items, masks, codes):
    one = stacked(items).isel(time=1).compute()
    np.testing.assert_array_equal(scm.apply_mask(one, masks).values, np.where(codes[1] == 0, one.values, np.nan))
    plain = odc.stac.load(items[1:2], bands=["red"], geobox=BOX)["red"].isel(time=0, drop=True)
    np.testing.assert_array_equal(scm.apply_mask(plain, masks[1]).values, np.where(codes[1] == 0, plain.values, 0))


def test_classes_that_are_kept_are_chosen_and_nodata_never_is(items, masks, codes):
    cube = odc.stac.load(items, bands=["red"], geobox=BOX, chunks={})
    kept = (
        scm.apply_mask(cube.fillna(1), masks, keep=("clear", "cloud_shadow"), fill=9)["red"].values
        == cube["red"].values
    )
    np.testing.assert_array_equal(kept, np.isin(codes, (0, 2)) | (cube["red"].values == 9))
    hidden = scm.apply_mask(cube + 1, masks, keep=("clear", "cloud", "cloud_shadow"), fill=0)["red"].values == 0
    np.testing.assert_array_equal(hidden, codes == 255)


def test_masks_are_taken_to_finer_and_other_grids(items, masks, codes):
    fine = odc.stac.load(items, bands=["red"], geobox=BOX.zoom_out(0.5))
    clear = scm.apply_mask(fine + 1, masks, fill=0)["red"].values > 0
    np.testing.assert_array_equal(clear, (codes == 0).repeat(2, 1).repeat(2, 2))
    degrees = odc.stac.load(items, bands=["red"], crs="EPSG:4326", resolution=0.002)
    share = (scm.apply_mask(degrees + 1, masks, fill=0)["red"].values > 0).mean(axis=(1, 2)) * degrees["red"][0].size
    area = 111_320**2 * 0.002**2 * np.cos(np.deg2rad(45.55))
    np.testing.assert_allclose(share * area, (codes == 0).sum(axis=(1, 2)) * 120**2, rtol=0.01)


def copied(result, folder, **properties):
    """A copy of an item's files, with changed properties."""
    path = folder / Path(result.output).name
    shutil.copytree(Path(result.output).parent, folder)
    body = json.loads(path.read_text())
    body["properties"] |= properties
    path.write_text(json.dumps(body))
    return path


def test_a_step_gets_all_masks_of_its_solar_day_and_what_one_lacks_another_has(items, masks, codes, tmp_path):
    first = copied(masks[0], tmp_path / "first")
    halved = codes[0].copy()
    halved[:, :400] = 255
    write_cog(first.parent, "cloud_mask", halved, grid_of(first))
    later = copied(masks[0], tmp_path / "later", datetime="2023-08-13T21:08:07.856000Z")
    cube = odc.stac.load(items, bands=["red"], geobox=BOX, groupby="solar_day")
    alone = scm.apply_mask(cube, [first, *masks[1:]])["red"].values[0]
    assert not alone[:, :400].any()
    assert alone[:, 400:].any()
    both = scm.apply_mask(cube, [later, first, *masks[1:]])["red"].values
    np.testing.assert_array_equal(both, np.where(codes == 0, cube["red"].values, 0))


def grid_of(item):
    fields = json.loads(item.read_text())["properties"]
    return make_grid(int(fields["proj:code"][5:]), fields["proj:transform"], fields["proj:shape"], where="here")


def test_a_mask_is_read_when_the_cube_is(items, masks, tmp_path):
    path = copied(masks[0], tmp_path / "mask")
    masked = scm.apply_mask(stacked(items[:1]), path)
    path.with_name("cloud_mask.tif").unlink()
    with pytest.raises(RasterioIOError, match="cloud_mask"):
        masked.compute()


def test_a_time_step_without_mask_is_an_error_that_names_it(items, masks):
    with pytest.raises(ConfigError, match=rf"1 of 3 time steps of the cube have no mask; .* the first is {DATES[1]}"):
        scm.apply_mask(stacked(items), [masks[0], masks[2]])
    with pytest.raises(ConfigError, match=r"1 of 3 time steps .* the first is 2023-08-18T10:08:08"):
        scm.apply_mask(odc.stac.load(items, bands=["red"], geobox=BOX, chunks={}), [masks[0], masks[2]])


def test_masks_of_another_place_are_an_error(items, masks):
    away = BOX.translate_pix(2000, 0)
    with pytest.raises(ConfigError, match="no mask overlaps the cube"):
        scm.apply_mask(odc.geo.xr.xr_zeros(away, "uint8", time=["2023-08-13"]), masks)
    with pytest.raises(ConfigError, match="none is given"):
        scm.apply_mask(stacked(items), [])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (lambda cube: cube.assign_attrs(transform=None), "use it before arithmetic"),
        (lambda cube: cube.coarsen(x=3, y=3).mean(), "mask it before resampling"),
        (lambda cube: cube.sortby("y"), "mask it before resampling"),
        (lambda cube: cube.astype("uint16"), "give fill="),
        (lambda _: xr.DataArray(np.zeros(3), dims="z"), "no dimensions y and x"),
    ],
)
def test_a_cube_that_cannot_be_masked_says_why(items, masks, spoil, message):
    with pytest.raises(ConfigError, match=message), xr.set_options(keep_attrs=True):
        scm.apply_mask(spoil(stacked(items)), masks)


def test_a_class_that_is_not_known_is_an_error(items, masks):
    with pytest.raises(ConfigError, match="'sky'; the classes are clear, cloud, cloud_shadow"):
        scm.apply_mask(stacked(items), masks, keep=("sky",))


def test_the_item_of_a_scene_is_no_mask(items):
    with pytest.raises(ConfigError, match="it is a scene, not a mask"):
        scm.apply_mask(stacked(items), items)
