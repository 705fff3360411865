from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.errors import BandNotFoundError, ReadError, UnsupportedItemError
from stac_cloudmask.pipeline.mask import make_mask
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.reader import open_scene
from tests.scenes import settings_of, write_model
from tests.stac.range_server import serve
from tests.stac.rasters import digital_numbers, item_of, scl_codes, write
from tests.stac.zarr_store import GROUPS, PRODUCT, SCL_GROUP, item_of_arrays, item_of_groups, write_product

NAMES = ["blue", "nir", "swir16"]
STATED = {"scale_factor": 1e-4, "add_offset": -0.1}
PATIENT = RetryPolicy(seconds=5, pause=0.01)
BLUE = f"{PRODUCT}/{GROUPS[10]}/b02"


@pytest.fixture(scope="module")
def bands():
    sides = {"blue": 10, "green": 10, "red": 10, "nir": 10, "swir16": 20}
    return {name: (gsd, digital_numbers((480 * 10 // gsd, 200 * 10 // gsd), gsd)) for name, gsd in sides.items()}


@pytest.fixture(scope="module")
def folder(tmp_path_factory, bands):
    """A product as Zarr, and beside it the same pixels as GeoTIFFs."""
    folder = tmp_path_factory.mktemp("eopf")
    scl = scl_codes((240, 100))
    write_product(folder, bands, scl, attributes=STATED)
    for name, (gsd, dn) in bands.items():
        write(folder / f"{name}.tif", dn, gsd)
    write(folder / "scl.tif", scl, 20)
    return folder


def read(item, retry=PATIENT, **options):
    scene = open_scene(resolve(item, NAMES), retry=retry, **options)
    strips = [scene.dn(row, min(100, scene.grid.height - row)) for row in range(0, scene.grid.height, 100)]
    return np.concatenate(strips, axis=1), scene.scl()[0], scene.bands, scene.grid


def assert_same(one, other):
    np.testing.assert_array_equal(one[0], other[0])
    np.testing.assert_array_equal(one[1], other[1])
    assert one[2:] == other[2:]


def twin(folder, names=NAMES):
    return item_of(folder, {name: f"{name}.tif" for name in (*names, "scl")}, **{"s2:processing_baseline": "05.11"})


@pytest.mark.parametrize("make", [item_of_arrays, item_of_groups])
@pytest.mark.parametrize("resolution", [None, 20])
def test_a_product_gives_the_same_bits_as_its_twin_of_geotiffs(folder, bands, make, resolution):
    assert_same(read(make(folder, bands), resolution=resolution), read(twin(folder), resolution=resolution))


def test_a_product_is_masked_bit_for_bit_as_its_twin_of_geotiffs(folder, bands, tmp_path):
    settings = settings_of(write_model(tmp_path), merge="union", buffer=0.0)
    names = ["blue", "green", "red", "nir"]
    one, other = (make_mask(item, settings=settings) for item in (item_of_arrays(folder, bands), twin(folder, names)))
    np.testing.assert_array_equal(one.decision.class_map, other.decision.class_map)
    np.testing.assert_array_equal(one.decision.votes, other.decision.votes)
    assert len(np.unique(one.decision.class_map)) > 2


def test_a_product_is_read_over_http(folder, bands):
    with serve(folder) as site:
        assert_same(read(item_of_arrays(site.url, bands)), read(twin(folder)))


def test_a_chunk_is_asked_for_once(folder, bands):
    with serve(folder) as site:
        scene = open_scene(resolve(item_of_arrays(site.url, bands), ["blue"], want_scl=False))
        scene.dn(0, scene.strip)
        assert site.asked[f"/{BLUE}/0.0"] == 1


def test_a_server_that_fails_now_and_then_changes_no_bit(folder, bands):
    with serve(folder, lambda number, *_: 503 if number % 4 == 0 else None) as site:
        assert_same(read(item_of_arrays(site.url, bands)), read(twin(folder)))


def test_a_chunk_that_a_server_does_not_give_is_an_error_and_not_nodata(folder, bands):
    with (
        serve(folder, lambda _, __, path: 503 if path.endswith("b02/1.1") else None) as site,
        pytest.raises(ReadError, match=r"asset 'B02_10m'.*b02/1\.1 answers with status 503") as caught,
    ):
        read(item_of_arrays(site.url, bands), retry=RetryPolicy(seconds=0.05, pause=0.01))
    assert caught.value.retryable


def test_a_chunk_that_is_not_there_is_nodata(folder, bands):
    with serve(folder, lambda _, __, path: 404 if path.endswith("b02/1.1") else None) as site:
        dn = read(item_of_arrays(site.url, bands))[0][0]
    assert not dn[96:192, 96:192].any()
    np.testing.assert_array_equal(dn[:96], bands["blue"][1][:96])


def test_scale_and_offset_are_those_of_the_array_unless_the_user_sets_one(tmp_path, bands):
    write_product(
        tmp_path, bands, scl_codes((240, 100)), attributes={"_eopf_attrs": {"scale_factor": 2e-4, "add_offset": 0}}
    )
    item = item_of_arrays(tmp_path, bands)
    scene = open_scene(resolve(item, ["blue"]))
    assert (scene.bands.scales, scene.bands.offsets) == ((2e-4,), (0,))
    assert scene.sources.bands[0].offset.reason == "the array states 0"
    assert open_scene(resolve(item, ["blue"], boa_offset="-1000")).bands.offsets == (-1000,)


def test_an_array_that_states_nothing_is_read_by_its_item(tmp_path, bands):
    write_product(tmp_path, bands, scl_codes((240, 100)), attributes={})
    assert open_scene(resolve(item_of_arrays(tmp_path, bands), ["blue"])).bands.offsets == (-1000,)


def break_chunk(folder):
    (folder / BLUE / "0.0").write_bytes(b"\x78\x9c spoilt")


def break_metadata(folder):
    (folder / BLUE / ".zarray").write_text('{"zarr_format": 2, "shape": "wide"}')


def other_compressor(folder):
    path = folder / BLUE / ".zarray"
    path.write_text(path.read_text().replace('"zlib"', '"unheard-of"'))


def cube(folder):
    path = folder / BLUE / ".zarray"
    path.write_text(path.read_text().replace('"shape": [', '"shape": [3, '))


@pytest.mark.parametrize(
    ("spoil", "error", "said"),
    [
        (break_chunk, ReadError, "is not a Zarr array that GDAL can decode"),
        (break_metadata, UnsupportedItemError, "metadata of Zarr array 'b02' are broken"),
        (other_compressor, ReadError, "is not a Zarr array that GDAL can decode"),
        (cube, UnsupportedItemError, "one of rows and columns is needed"),
        (
            lambda folder: (folder / BLUE / ".zarray").unlink(),
            BandNotFoundError,
            "there is no Zarr array",
        ),
    ],
)
def test_zarr_that_cannot_be_read_is_bad_input_of_a_named_asset(tmp_path, bands, spoil, error, said):
    write_product(tmp_path, bands, scl_codes((240, 100)), attributes=STATED)
    spoil(tmp_path)
    with pytest.raises(error, match=rf"asset 'B02_10m'.*{said}") as caught:
        read(item_of_arrays(tmp_path, bands))
    assert not caught.value.retryable


def test_an_item_that_states_no_crs_is_refused(folder, bands):
    item = item_of_arrays(folder, bands)
    del item.properties["proj:code"]
    with pytest.raises(UnsupportedItemError, match="must state as proj:code"):
        read(item)


def test_an_array_elsewhere_than_its_item_says_is_refused(folder, bands):
    item = item_of_arrays(folder, bands)
    item.properties |= {"proj:transform": [10, 0, 300010, 0, -10, 5000040], "proj:shape": [480, 200]}
    with pytest.raises(UnsupportedItemError, match=r"'B02_10m' is not where its item says"):
        read(item)


@pytest.mark.parametrize(
    "name", ["S2C_MSIL1C_20250518T114401_N0511_R123_T29UMV_20250518T152215", "S02MSIL1C_20250518T114401_0000"]
)
def test_a_product_of_level_1c_is_refused(folder, bands, name):
    item = item_of_arrays(folder, bands)
    item.id = name
    with pytest.raises(UnsupportedItemError, match="top-of-atmosphere"):
        resolve(item, NAMES)


def test_a_classification_of_other_numbers_is_refused(tmp_path, bands):
    write_product(tmp_path, bands, scl_codes((240, 100)).astype(np.uint16), attributes=STATED)
    assert (tmp_path / PRODUCT / SCL_GROUP).is_dir()
    with pytest.raises(UnsupportedItemError, match=r"'SCL_20m' has uint16 pixels; uint8 are needed"):
        read(item_of_arrays(tmp_path, bands))
