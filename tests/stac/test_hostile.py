from __future__ import annotations

import json
import random
import warnings

import numpy as np
import pystac
import pytest
from hypothesis import given, settings, strategies as st

from fuzz.spoil import spoilt_bytes, spoilt_item
from stac_cloudmask.errors import StacCloudmaskError, redact
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.hrefs import HrefRule, check_href, is_remote
from stac_cloudmask.stac.parse import parse_item
from stac_cloudmask.stac.reader import open_scene
from stac_cloudmask.stac.search import Query
from tests.stac.items import features
from tests.stac.rasters import digital_numbers, item_of, write

seeds = st.integers(0, 2**32)
ORIGINS = ["https://stac.example.com/items/i", "/data/items/i.json", None]
SEARCH = Query(bbox=(0, 0, 1, 1), datetime="2020-01-01T00:00:00Z/..", max_cloud_cover=50)


@pytest.fixture(scope="module")
def bodies(shared):
    paths = sorted((shared / "data" / "items").glob("*.json"))
    return [body for path in paths for body in features(path)]


@given(seed=seeds)
@settings(max_examples=100, deadline=None)
def test_a_spoilt_item_is_resolved_or_refused_by_name(bodies, seed):
    chance = random.Random(seed)  # noqa: S311
    origin = chance.choice(ORIGINS)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            item = parse_item(spoilt_item(chance.choice(bodies), chance), origin=origin)
            SEARCH.matches(item)
            again = pystac.Item.from_dict(item.to_dict(include_self_link=True, transform_hrefs=False), migrate=False)
            sources = resolve(again, ["blue", "red", "rededge1"], want_scl=chance.random() < 0.5)
        except StacCloudmaskError as error:
            json.dumps(str(error))
            return
    for source in sources.bands:
        assert origin is None or not is_remote(origin) or is_remote(source.href)
        assert source.offset.dn in range(-10_000, 10_001)


@pytest.fixture(scope="module")
def rasters(tmp_path_factory):
    folder = tmp_path_factory.mktemp("rasters")
    dn = digital_numbers((96, 96))
    tiles = {"blockxsize": 32, "blockysize": 32}
    write(folder / "deflate.tif", dn, 10, compress="deflate", **tiles)
    write(folder / "plain.tif", dn, 10, **tiles)
    write(folder / "jpeg.jp2", dn, 10, driver="JP2OpenJPEG", nodata=None, tiled=False, QUALITY="100", REVERSIBLE="YES")
    return [(path.suffix, path.read_bytes()) for path in sorted(folder.iterdir())]


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio logs GDAL's broken text
@given(seed=seeds)
@settings(max_examples=60, deadline=None)
def test_a_spoilt_raster_is_read_or_refused_by_name(rasters, tmp_path_factory, seed):
    chance = random.Random(seed)  # noqa: S311
    suffix, content = chance.choice(rasters)
    folder = tmp_path_factory.mktemp("spoilt")
    (folder / f"blue{suffix}").write_bytes(spoilt_bytes(content, chance))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        sources = resolve(item_of(folder, {"blue": f"blue{suffix}"}), ["blue"], want_scl=False)
        refusal = ""
        try:
            scene = open_scene(sources, loader=chance.choice(["stackstac", "odc"]), retry=RetryPolicy(seconds=0))
            dn = scene.dn(0, min(scene.grid.height, 1000))
        except StacCloudmaskError as error:
            refusal = str(error)
    if refusal:
        assert "'S2_test'" in refusal
        return
    assert dn.dtype == np.uint16
    assert dn.shape == (1, min(scene.grid.height, 1000), scene.grid.width)


@given(href=st.text(max_size=60) | st.from_regex(r"\A[a-z:/.@\\%\[\]0-9?#]{1,40}\Z"), base=st.sampled_from(ORIGINS))
@settings(max_examples=300)
def test_any_text_is_an_href_that_may_be_read_or_is_refused_by_name(href, base):
    try:
        found = check_href(href, base=base, rule=HrefRule(local_roots=("/data",)))
    except StacCloudmaskError:
        return
    assert is_remote(found) if base is not None and is_remote(base) else is_remote(found) or found.startswith("/data")


@given(secret=st.from_regex(r"\A[A-Za-z0-9+=%]{8,40}\Z"), name=st.sampled_from(["sig", "X-Amz-Signature", "token"]))
def test_no_secret_of_a_url_survives_redaction(secret, name):
    text = (
        f"Error opening 'https://me:{secret}@a.example.com/b.tif?x=1&{name}={secret}': {name}={secret}; Bearer {secret}"
    )
    assert secret not in redact(text)
