"""The main job on real scenes, by the default model."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import odc.stac
import pystac
import pytest
import stackstac
from checks import MAPS, checked, layers
from offline import Validator, no_network

import stac_cloudmask as scm
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.stac.search import Query, find

pytestmark = pytest.mark.slow

COLLECTIONS = {
    "earth-search-33twl": 5,
    "alberta-2020": 3,
    "bolzano-2022": 1,
    "sahara-29rkh": 1,
    "cloudn-chips": 2,
}
SCENE = "S2A_33TWL_20230818_0_L2A"
"""With clouds, cirrus, shadows and a part without data; its bands are 915 x 915."""


def masked(shared, out, collection, **settings):
    catalog = str(shared / "data" / "catalog.json")
    with no_network():
        found = find(catalog, Query(collection=collection))
        return list(run(found, settings=scm.Settings(threads=2, **settings), out=str(out)))


@pytest.mark.parametrize(("collection", "count"), COLLECTIONS.items())
def test_all_dates_of_a_catalog_become_valid_items_that_load_exactly(shared, tmp_path, collection, count):
    missing_scl = "model-only" if collection == "cloudn-chips" else "fail"
    results = masked(shared, tmp_path, collection, missing_scl=missing_scl)
    assert [result.error for result in results] == [None] * count
    with no_network():
        assert len(checked(tmp_path, Validator(shared / "data" / "schemas"))) == count
        for result in results:
            assert_loads_exactly(pystac.Item.from_file(result.output))
    again = masked(shared, tmp_path, collection, missing_scl=missing_scl)
    assert {result.status for result in again} == {"up-to-date"}


def assert_loads_exactly(item):
    expected = layers(folder_of(item))["cloud_mask"]
    by_odc = odc.stac.load([item], bands=["cloud_mask"])["cloud_mask"]
    item.make_asset_hrefs_absolute()
    by_stackstac = stackstac.stack(
        [item.to_dict()],
        assets=["cloud_mask"],
        epsg=int(item.properties["proj:code"].removeprefix("EPSG:")),
        resolution=item.properties["gsd"],
        bounds=item.properties["proj:bbox"],
        dtype="uint8",
        fill_value=np.uint8(255),
        snap_bounds=False,
        rescale=False,
    )
    np.testing.assert_array_equal(by_odc.values[0], expected)
    np.testing.assert_array_equal(by_stackstac.values[0, 0], expected)


def folder_of(item):
    return Path(item.get_self_href()).parent


def test_streamed_in_memory_and_odc_give_the_same_bits(shared, tmp_path):
    item = shared / "data" / "earth-search-33twl" / SCENE / f"{SCENE}.json"
    found = {}
    for name, changes in {"streamed": {}, "whole": {"in_memory": True}, "odc": {"loader": "odc"}}.items():
        settings = scm.Settings(threads=2, probabilities=True, votes=True, **changes)
        (result,) = scm.process(item, out=tmp_path / name, settings=settings)
        found[name] = layers(folder_of(pystac.Item.from_file(result.output)))
    assert set(found["streamed"]) == set(MAPS)
    np.testing.assert_equal(found["whole"], found["streamed"])
    np.testing.assert_equal(found["odc"], found["streamed"])
