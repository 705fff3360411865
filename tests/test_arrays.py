"""Masks of arrays and cubes equal those that process makes of the same pixels."""

from __future__ import annotations

import warnings

import dask
import numpy as np
import odc.stac
import pytest
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from pieces import cut
from rasterio.windows import Window

import stac_cloudmask as scm
from stac_cloudmask.errors import ConfigError

with warnings.catch_warnings():
    warnings.simplefilter("ignore")
    import stackstac

BANDS = ["blue", "green", "red", "nir", "scl"]
DATES = ("S2B_33TWL_20230810_0_L2A", "S2A_33TWL_20230818_0_L2A", "S2B_33TWL_20230820_0_L2A")
WINDOW = Window(col_off=457, row_off=0, width=458, height=460)
"""A quarter of the scenes: clouds, shadows, and in one of them a part without data."""
BOUNDS = (554820, 5044800, 609780, 5100000)
BOX = GeoBox((460, 458), Affine(120, 0, 554820, 0, -120, 5100000), "EPSG:32633")
PART = {"y": slice(0, 200), "x": slice(0, 300)}


@pytest.fixture(scope="module")
def items(items, tmp_path_factory):
    """The items with rasters that have the window's pixels only."""
    for item in items:
        cut(item, WINDOW, tmp_path_factory.mktemp(item.id))
    return items


@pytest.fixture(scope="module")
def season(items):
    """The class maps that cloud_mask makes of the items, ``(time, y, x)``."""
    return np.stack([scm.cloud_mask(item)["cloud_mask"].values for item in items])


@pytest.fixture(scope="module")
def cube(items):
    return odc.stac.load(items, bands=BANDS, geobox=BOX, chunks={"x": 300, "y": 250})


def stacked(items, **options):
    bodies = [item.to_dict(transform_hrefs=False) for item in items]
    given = {"assets": BANDS, "epsg": 32633, "resolution": 120, "bounds": BOUNDS, "snap_bounds": False} | options
    return stackstac.stack(bodies, rescale=False, errors_as_nodata=(), **given)


def test_a_season_of_odc_stac_is_masked_as_its_items_are(cube, items, season):
    mask = scm.mask_cube(cube, items)
    assert (mask.dims, mask.dtype, mask.chunks[0]) == (("time", "y", "x"), np.uint8, (1,) * len(items))
    np.testing.assert_array_equal(mask.values, season)
    assert mask.attrs["flag_meanings"] == "clear cloud cloud_shadow"
    assert mask.odc.geobox == BOX


def test_a_season_of_stackstac_is_masked_as_its_items_are(items, season):
    stack = stacked(items)
    assert stack.dtype == np.float64
    np.testing.assert_array_equal(scm.mask_cube(stack, items, scale="items").values, season)


def test_the_sun_of_stackstac_serves_where_no_items_are_given(items, season):
    stack = stacked(items[1:2], dtype="uint16", fill_value=np.uint16(0))
    np.testing.assert_array_equal(scm.mask_cube(stack, scale=1e-4).values, season[1:2])


def test_a_mask_of_a_cube_hides_clouds_of_that_cube(cube, items, season):
    mask = scm.mask_cube(cube, items)
    clear = cube["red"].where(mask == 0, 0)
    np.testing.assert_array_equal(clear.isel(time=1).values, np.where(season[1] == 0, cube["red"][1].values, 0))


def test_reflectance_and_digital_numbers_give_one_mask(cube, items, season):
    one = cube.isel(time=1)
    reflectance = one[BANDS[:4]].where(one[BANDS[:4]] > 0) * 1e-4
    reflectance = reflectance.assign(scl=one["scl"]).assign_coords(one.coords)
    mask = scm.mask_cube(reflectance, items[1], scale=1)
    assert mask.dims == ("y", "x")
    np.testing.assert_array_equal(mask.values, season[1])
    stated = one.copy()
    for name in BANDS:
        stated[name] = one[name].assign_attrs(scale_factor=1e-4, add_offset=0.0)
    np.testing.assert_array_equal(scm.mask_cube(stated, sun=sun_of(items[1])).values, season[1])


def sun_of(item):
    return item.properties["view:sun_azimuth"], item.properties["view:sun_elevation"]


def test_numpy_arrays_give_the_mask_of_their_item(cube, items, season):
    one = cube.isel(time=1).compute()
    bands = {name: np.where(one[name] > 0, one[name] * np.float32(1e-4), np.nan) for name in BANDS[:4]}
    found = scm.mask_array(**bands, scl=one["scl"].values, gsd=120, sun=sun_of(items[1]))
    dataset = scm.cloud_mask(items[1])
    np.testing.assert_array_equal(found.cloud_mask, season[1])
    for name in ("cloud_probability", "shadow_probability", "mask_votes"):
        np.testing.assert_array_equal(getattr(found, name), dataset[name].values)


@pytest.mark.filterwarnings("ignore:Dataset has no geotransform")  # odc-loader's, where it warps
def test_other_metric_grids_are_masked_with_their_size_on_the_ground_and_their_north(items, season):
    mercator = odc.stac.load(items[1:2], bands=BANDS, crs="EPSG:3857", resolution=170, chunks={})
    mask = scm.mask_cube(mercator, items[1]).isel(time=0).values
    valid = mask != 255
    cloudy = (season[1] == 1).sum() / (season[1] != 255).sum()
    assert (mask[valid] == 1).mean() == pytest.approx(cloudy, abs=0.03)


def test_nothing_is_computed_before_it_is_asked_for(cube, items):
    broken = cube.isel(**PART).copy()
    broken["red"] = broken["red"].copy(data=dask.array.map_blocks(_refuse, broken["red"].data, dtype="uint16"))
    mask = scm.mask_cube(broken, items)
    with pytest.raises(RuntimeError, match="read"):
        mask.compute()


def _refuse(block):
    if block.size > 1:
        raise RuntimeError("read")
    return block


@pytest.mark.parametrize(
    ("spoil", "options", "message"),
    [
        (lambda cube: cube.drop_vars("scl"), {}, "the cube has no SCL; also load 'scl'"),
        (lambda cube: cube.drop_vars("nir"), {}, "the models read blue, green, red, nir; nir is not given"),
        (lambda cube: cube, {}, "do not state how to convert them; give scale=1"),
        (lambda cube: cube.astype("float32"), {"scale": 1}, "digital numbers, not reflectance"),
        (lambda cube: cube, {"scale": 1}, "reflectance is a float"),
        (lambda cube: cube["red"], {}, "no dimension 'band'"),
        (lambda cube: cube.odc.reproject("EPSG:4326"), {"scale": 1e-4}, "a metric CRS is needed"),
    ],
)
def test_a_cube_that_cannot_be_masked_says_why(cube, spoil, options, message):
    part = cube.isel(time=[1], **PART).compute()
    with pytest.raises(ConfigError, match=message), xr.set_options(keep_attrs=True):
        scm.mask_cube(spoil(part), **options).compute()


def test_floats_of_items_are_not_guessed_at(cube, items):
    with pytest.raises(ConfigError, match="scale='items' also to floats"):
        scm.mask_cube(cube.astype("float32"), items)
    with pytest.raises(ConfigError, match="1 of 3 time steps of the cube have no item in `items`"):
        scm.mask_cube(cube, items[:2])


def test_arrays_that_do_not_fit_are_refused():
    plane = np.full((20, 30), 0.1, np.float32)
    with pytest.raises(ConfigError, match="one shape"):
        scm.mask_array(blue=plane, green=plane, red=plane, nir=plane[:10])
    with pytest.raises(ConfigError, match="do not fit"):
        scm.mask_array(blue=plane, green=plane, red=plane, nir=plane, scl=np.zeros((7, 11), np.uint8))


def test_masked_arrays_lists_and_arrays_of_xarray_are_taken_as_they_are_meant():
    rng = np.random.default_rng(0)
    plain = {name: rng.uniform(0, 0.3, (40, 50)).astype(np.float32) for name in BANDS[:4]}
    hidden = np.zeros((40, 50), np.bool_)
    hidden[:20] = True
    holes = scm.mask_array(**{name: np.where(hidden, np.nan, band) for name, band in plain.items()}).cloud_mask
    assert (holes[:20] == 255).all()
    masked = {name: np.ma.masked_array(band, hidden) for name, band in plain.items()}
    np.testing.assert_array_equal(scm.mask_array(**masked).cloud_mask, holes)
    whole = scm.mask_array(**plain).cloud_mask
    for convert in (np.ndarray.tolist, lambda band: xr.DataArray(band, dims=("y", "x"))):
        found = scm.mask_array(**{name: convert(band) for name, band in plain.items()}).cloud_mask
        assert (found == whole).mean() > 0.99  # lists are of another precision


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"gsd": 0}, "gsd is 1 to 1000 m"),
        ({"gsd": 1e-9}, "gsd is 1 to 1000 m"),
        ({"gsd": np.nan}, "gsd is 1 to 1000 m"),
        ({"sun": (np.nan, 40.0)}, "sun is azimuth and elevation"),
        ({"nir": np.zeros((0, 0))}, "one shape"),
    ],
)
def test_arrays_are_not_masked_by_what_cannot_be(options, message):
    plane = np.full((20, 30), 0.1, np.float32)
    with pytest.raises(ConfigError, match=message):
        scm.mask_array(**{"blue": plane, "green": plane, "red": plane, "nir": plane, **options})


@pytest.mark.parametrize(
    "options", [{"scale": 0}, {"scale": -1e-4}, {"scale": 1e4}, {"scale": np.nan}, {"offset": -1000}]
)
def test_scale_and_offset_are_in_reflectance(cube, options):
    with pytest.raises(ConfigError, match=r"in reflectance, such as 0\.0001 and -0\.1"):
        scm.mask_cube(cube, **{"scale": 1e-4, **options})


def test_a_scale_of_numpy_is_a_scale(cube):
    part = cube.isel(time=[1], **PART).compute()
    one, other = (scm.mask_cube(part, scale=scale, sun=(150, 50)) for scale in (1e-4, np.float64(1e-4)))
    np.testing.assert_array_equal(one, other)


@pytest.mark.slow
def test_fifty_dates_on_a_cluster_take_the_memory_of_a_few(items):
    from distributed import Client  # noqa: PLC0415

    few = odc.stac.load(items, bands=BANDS, geobox=BOX, chunks={})
    fast = scm.Settings(cloud_model=("fast",), shadow_model="fast")
    dates = [few.assign_coords(time=few.time + np.timedelta64(10 * number, "D")) for number in range(17)]
    with Client(n_workers=1, threads_per_worker=1, memory_limit="4GiB", dashboard_address=None) as client:
        peaks = {}
        for count in (1, 17):
            cube = xr.concat(dates[:count], "time")
            shares = (scm.mask_cube(cube, scale=1e-4, settings=fast) == 0).mean(("y", "x")).compute()
            assert shares.shape == (3 * count,)
            peaks[count] = max(client.run(_peak).values())
    assert peaks[17] < peaks[1] * 1.15


def _peak():
    import resource  # noqa: PLC0415

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
