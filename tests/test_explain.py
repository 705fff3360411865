import json
from datetime import UTC, datetime

import numpy as np
import pystac
import pytest
import rasterio
from cumulus import cumulus
from outputs import NO_SOURCES, facts_of
from rasterio.warp import transform, transform_bounds

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.merge import decide
from stac_cloudmask.core.votes import Vote
from stac_cloudmask.errors import ConfigError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.review.explain import Explanation, explain
from stac_cloudmask.review.layers import Product
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.cog import write_cog
from stac_cloudmask.stac.mask_item import mask_item

GRID = Grid(epsg=32633, left=600000.0, top=4700000.0, gsd=10.0, height=360, width=424)


@pytest.fixture(scope="module")
def evidence():
    scl = np.full(GRID.shape, 4)
    scl[300:330, 30:60] = 10
    return cumulus(scl=scl)


@pytest.fixture(scope="module")
def decision(evidence):
    return decide(evidence, Settings())


@pytest.fixture(scope="module")
def source(tmp_path_factory, evidence):
    """An item whose product mask is the SCL of the scene."""
    folder = tmp_path_factory.mktemp("source")
    write_cog(folder, "scl", evidence.product.scl, GRID)
    west, south, east, north = transform_bounds(GRID.code, "EPSG:4326", *GRID.bounds)
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    item = pystac.Item(
        "S2A_TEST",
        {"type": "Polygon", "coordinates": [ring]},
        [west, south, east, north],
        datetime(2023, 8, 18, 10, tzinfo=UTC),
        {"datetime": "2023-08-18T10:00:00Z"},
        collection="sentinel-2-l2a",
    )
    item.add_asset("scl", pystac.Asset(str(folder / "scl.tif"), media_type="image/tiff; application=geotiff"))
    item.set_self_href(str(folder / "S2A_TEST.json"))
    return item


def published(folder, source, evidence, decision, *, everything=True, **changes):
    catalog = OutputCatalog(folder)
    with catalog.workdir() as work:
        layers = {"cloud_mask": decision.class_map}
        if everything:
            layers |= {"cloud_probability": evidence.cloud, "shadow_probability": evidence.shadow}
            layers |= {"mask_votes": decision.votes}
        for key, layer in layers.items():
            write_cog(work, key, layer, GRID)
        files = {key: work / f"{key}.tif" for key in layers}
        facts = facts_of(
            source, decision.class_map, files, grid=GRID, parameters=decision.parameters, **changes
        )  # fmt: skip
        catalog.link([catalog.write_item(mask_item(source, facts), files)])
    return str(folder)


@pytest.fixture(scope="module")
def out(tmp_path_factory, source, evidence, decision):
    return published(tmp_path_factory.mktemp("out"), source, evidence, decision)


def point(row, col):
    xs, ys = transform(GRID.code, "EPSG:4326", [GRID.left + 10 * col + 5], [GRID.top - 10 * row - 5])
    return xs[0], ys[0]


@pytest.mark.parametrize("where", [(0, 0), (200, 150), (129, 79), (310, 40), (178, 150), (359, 419)])
def test_every_layer_is_read_at_the_point(out, evidence, decision, where):
    found = explain("S2A_TEST", *point(*where), catalog=out)
    assert (found.row, found.col) == where
    assert CloudClass[found.class_name.upper()] == decision.class_map[where]
    assert found.scl == evidence.product.scl[where]
    assert found.cloud_probability == evidence.cloud[where]
    assert found.shadow_probability == evidence.shadow[where]
    names = ("product_cloud", "product_shadow", "cloud_model", "shadow_model", "removed", "added")
    assert found.votes == tuple(name for bit, name in enumerate(names) if decision.votes[where] >> bit & 1)
    assert found.missing == ()


def test_the_chain_tells_of_cirrus_that_only_the_product_sees(out):
    found = explain("S2A_TEST_cloudmask", *point(310, 40), catalog=out)
    assert found.class_name == "clear"
    assert found.reasons[0] == "SCL is 10 (thin cirrus): a vote for cloud"
    assert found.reasons[-1] == (
        "removed: thin cirrus of SCL counts only where the model finds more than 20 % of cloud, "
        "or thin cloud veils the ground"
    )


def test_an_item_can_be_given_by_its_path(out):
    found = explain(f"{out}/sentinel-2-l2a-cloudmask/S2A_TEST_cloudmask/S2A_TEST_cloudmask.json", *point(200, 150))
    assert found.class_name == "cloud"
    assert found.to_dict()["item_id"] == "S2A_TEST_cloudmask"


def test_what_was_not_published_is_named(tmp_path, source, evidence, decision):
    out = published(tmp_path, source, evidence, decision, everything=False, settings=Settings(mask_only=True))
    found = explain("S2A_TEST", *point(200, 150), catalog=out)
    assert (found.class_name, found.votes, found.scl, found.cloud_probability) == ("cloud", None, None, None)
    assert found.reasons == ()
    assert found.missing == (
        "no mask_votes: process the item with --votes",
        "no cloud_probability: process the item with --probabilities",
        "no shadow_probability: process the item with --probabilities",
        "no scl: the item was made with --mask-only",
    )


def test_a_product_mask_that_is_gone_is_no_reason_to_stop(tmp_path, source, evidence, decision):
    gone = source.clone()
    gone.set_self_href(source.get_self_href())
    gone.assets["scl"].href = str(tmp_path / "gone.tif")
    out = published(tmp_path / "out", gone, evidence, decision)
    found = explain("S2A_TEST", *point(310, 40), catalog=out)
    assert found.scl is None
    assert "gone.tif" in found.missing[0]
    assert found.reasons[0] == "SCL votes for cloud"


def test_a_mask_of_the_models_alone_misses_no_product(tmp_path, source, evidence, decision):
    out = published(tmp_path, source, evidence, decision, sources=NO_SOURCES)
    found = explain("S2A_TEST", *point(200, 150), catalog=out)
    assert found.scl is None
    assert found.missing == ()


@pytest.mark.parametrize(("lon", "lat"), [(0.0, 0.0), (-75.0, 89.0), (200.0, 10.0), (13.0, 99.0)])
def test_a_point_outside_is_refused(out, lon, lat):
    with pytest.raises(ConfigError, match=r"is outside|degrees are needed"):
        explain("S2A_TEST", lon, lat, catalog=out)


def test_a_scene_is_no_mask(source):
    with pytest.raises(ConfigError, match="it is a scene, not a mask"):
        explain(source, 15.0, 42.0)


def test_an_item_that_is_not_there_is_named(out):
    with pytest.raises(ConfigError, match="no item 'S2A_OTHER_cloudmask'"):
        explain("S2A_OTHER", 15.0, 42.0, catalog=out)


def test_a_mask_that_is_gone_is_named(tmp_path, source, evidence, decision):
    out = published(tmp_path, source, evidence, decision, everything=False)
    (tmp_path / "sentinel-2-l2a-cloudmask" / "S2A_TEST_cloudmask" / "cloud_mask.tif").unlink()
    with pytest.raises(StacCloudmaskError, match="asset 'cloud_mask': there is no file"):
        explain("S2A_TEST", *point(5, 5), catalog=out)


CALIBRATED = {
    "policy": "calibrated", "cloud_thr": 0.3, "shadow_thr": 0.6, "cloud_buffer": 50.0, "shadow_buffer": 0.0,
    "min_area": 0.0, "sun_azimuth": 158.0, "sun_elevation": 58.0, "shadow_edge": 0.617,
}  # fmt: skip


def chain(code, votes, *, scl=4, improved_scl=None, cloud=None, shadow=None, **merge):
    names = None if votes is None else tuple(vote.name.lower() for vote in Vote(votes))
    pixel = Explanation(
        item_id="x", lon=0, lat=0, row=0, col=0, class_name=CloudClass(code).name.lower(), scl=scl,
        improved_scl=improved_scl, cloud_probability=cloud, shadow_probability=shadow, votes=names, missing=(),
        merge=CALIBRATED | merge, product=Product(key="scl", cloud_codes=(8, 9, 10), shadow_codes=(3,)),
    )  # fmt: skip
    return " | ".join(pixel.reasons)


def test_sources_say_what_they_voted():
    said = chain(0, None, scl=3, cloud=30, shadow=61)
    assert "SCL is 3 (cloud shadow): a vote for cloud shadow" in said
    assert "probability of cloud is 30 %, not above the threshold of 30 %: no vote" in said
    assert "probability of cloud shadow is 61 %, above the threshold of 60 %: a vote" in said
    assert "SCL is 40 (unknown): no vote" in chain(0, 0, scl=40)
    assert "SCL votes for cloud shadow" in chain(0, 2 | 16, scl=None)
    assert "model's probability of cloud is above 30 %" in chain(1, 4)


@pytest.mark.parametrize(
    ("code", "votes", "more", "expected"),
    [
        (255, 0, {}, "no data"),
        (0, 0, {}, "no source flags it"),
        (1, 4, {}, "certain somewhere"),
        (1, 1, {"scl": 10}, "thin cirrus of SCL counts where"),
        (1, 1, {"scl": 9}, "is trusted where"),
        (0, 1 | 16, {"scl": 9}, "is trusted only where the model finds more than 5 % of cloud in 25 % of what lies"),
        (0, 4 | 16, {}, "no part of the model's cloud is certain"),
        (0, 4 | 16, {"min_area": 900.0}, "or its object is smaller than 900 m2"),
        (0, 8 | 16, {}, "no cloud that was found can cast it here with the sun at azimuth 158 and elevation 58"),
        (0, 8 | 16, {}, "or its near infrared is more than 62 % of what lit ground nearby has"),
        (0, 8 | 16, {"sun_azimuth": None, "shadow_edge": None}, "cloud is close"),
        (0, 2 | 16, {"shadow": 4}, "shadow of SCL counts only where the model finds more than 5 %"),
        (0, 2 | 16, {"shadow": 50}, "no cloud that was found can cast it"),
        (2, 8, {}, "a cloud that was found can cast it here"),
        (2, 8, {"sun_azimuth": None, "shadow_edge": None}, "neither sun nor near infrared is known"),
        (2, 8 | 4, {}, "votes for cloud are dropped"),
        (1, 32, {}, "added: cloud is within 50 m, or all around it and as bright"),
        (2, 32, {"shadow_buffer": 30.0}, "added: cloud shadow is within 30 m"),
        (0, 0, {"policy": "union"}, "no source flags it"),
        (1, 1, {"policy": "union"}, "policy union: any vote counts"),
        (1, 32, {"policy": "union"}, "added: cloud is within 50 m"),
        (0, 4 | 16, {"policy": "union", "min_area": 400.0}, "removed: its object is smaller than 400 m2"),
    ],
)
def test_the_policy_says_what_it_made_of_the_votes(code, votes, more, expected):
    assert expected in chain(code, votes, **more)


def test_a_mask_of_others_that_holds_no_classes_is_refused_by_name(tmp_path, source, evidence, decision):
    out = published(tmp_path, source, evidence, decision)
    path = next((tmp_path).glob("*/*/*.json"))
    with rasterio.open(path.parent / "cloud_mask.tif", "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.write(np.full(file.shape, 77, np.uint8), 1)
    with pytest.raises(UnsupportedItemError, match="holds 77, which is not a class"):
        explain("S2A_TEST", *point(200, 150), catalog=out)


def test_settings_of_others_that_are_junk_explain_nothing_and_break_nothing(tmp_path, source, evidence, decision):
    out = published(tmp_path, source, evidence, decision)
    path = next((tmp_path).glob("*/*/*.json"))
    body = json.loads(path.read_text())
    junk = {
        "stac_cloudmask:settings": [5],
        "stac_cloudmask:merge": {"cloud_thr": "x"},
        "stac_cloudmask:product_mask": 5,
    }
    path.write_text(json.dumps(body | {"properties": body["properties"] | junk}))
    assert explain("S2A_TEST", *point(200, 150), catalog=out).scl is None
