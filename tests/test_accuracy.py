"""What masks of real scenes are worth: the bar that the product is held to, with the bundled model and the defaults."""

import numpy as np
import pystac
import pytest
import rasterio

from benchmarks.accuracy import MEANING, boxes_of, recall, scenes
from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.pipeline.mask import make_mask

pytestmark = pytest.mark.slow

ALBERTA = ("alberta_20200615", "alberta_20200625", "alberta_20200720")
CHIPS = ("cloudn_chip1", "cloudn_chip2")
NEAR = 10
"""Pixels around a box of a tiny cloud or its shadow that may belong to it."""


@pytest.fixture(scope="module")
def masks(shared):
    made = {}

    def mask_of(collection, scene, *, missing_scl="fail"):
        if scene not in made:
            item = pystac.Item.from_file(str(shared / "data" / collection / scene / f"{scene}.json"))
            item.make_asset_hrefs_absolute()
            mask = make_mask(item, settings=Settings(missing_scl=missing_scl, threads=2))
            made[scene] = item, mask.decision
        return made[scene]

    return mask_of


def f1(made, asset, code):
    item, decision = made
    with rasterio.open(item.assets[asset].href) as source:
        reference = source.read(1)
    judged = (reference != 255) & (decision.class_map != CloudClass.NODATA)
    found, truth = (decision.class_map == code) & judged, (reference == 1) & judged
    return 2 * (found & truth).sum() / (found.sum() + truth.sum())


def flagged(made):
    class_map = made[1].class_map
    return np.isin(class_map, (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW)).sum() / (class_map != 255).sum()


def test_shadows_of_alberta_are_found(masks):
    scores = [f1(masks("alberta-2020", date), "reference-shadow", CloudClass.CLOUD_SHADOW) for date in ALBERTA]
    assert np.mean(scores) >= 0.83, scores
    assert min(scores) >= 0.80, scores


def test_cirrus_that_only_the_product_sees_does_not_cover_a_clear_scene(masks):
    assert flagged(masks("alberta-2020", "alberta_20200625")) <= 0.15


def test_clouds_of_the_chips_are_found_without_product_mask_and_sun(masks):
    made = [masks("cloudn-chips", chip, missing_scl="model-only") for chip in CHIPS]
    scores = [f1(one, "reference-cloud", CloudClass.CLOUD) for one in made]
    assert np.mean(scores) >= 0.93, scores
    assert all(len(decision.notes) == 2 for _, decision in made)


def test_the_roofs_of_a_city_are_not_clouds(masks):
    assert flagged(masks("bolzano-2022", "bolzano_20220612")) <= 0.001


def test_sand_is_not_cloud(masks):
    _, decision = masks("sahara-29rkh", "S2A_29RKH_20200219_0_L2A")
    cloud = decision.class_map == CloudClass.CLOUD
    assert 0.02 < cloud.mean() < 0.05
    assert not cloud[-500:, :500].any()


@pytest.fixture(scope="module")
def found_in_boxes(shared):
    """By scene and label: how many pixels of the boxes drawn by eye are found, and how many there are."""
    found = {}
    for item in scenes(shared / "data" / "hard"):
        boxes, has_scl = boxes_of(item), "scl" in item.assets
        if boxes:
            settings = Settings(missing_scl="fail" if has_scl else "model-only", threads=2)
            found[item.id] = recall(make_mask(item, settings=settings).decision.class_map, boxes)
    return found


@pytest.mark.parametrize(("label", "least"), [("clear", 0.97), ("cloud", 0.99), ("thin", 0.93), ("shadow", 0.95)])
def test_hard_cases_are_found(found_in_boxes, label, least):
    right, of = np.sum([counts[label] for counts in found_in_boxes.values()], axis=0)
    assert label in MEANING
    assert right / of >= least


def test_roofs_beside_two_tiny_clouds_are_clear(shared):
    item = next(item for item in scenes(shared / "data" / "hard") if item.id == "exeter_20240602")
    class_map = make_mask(item, settings=Settings(threads=2)).decision.class_map
    beside = np.ones(class_map.shape, bool)
    for top, left, bottom, right, label, _ in boxes_of(item):
        if label != "clear":
            beside[max(top - NEAR, 0) : bottom + NEAR, max(left - NEAR, 0) : right + NEAR] = False
    assert not beside.all()
    wrong = beside & np.isin(class_map, (CloudClass.CLOUD, CloudClass.CLOUD_SHADOW))
    assert wrong.sum() / (class_map != CloudClass.NODATA).sum() <= 0.003


def test_no_hard_scene_loses_a_tenth_of_its_clear_boxes(found_in_boxes):
    shares = {
        scene: counts["clear"][0] / counts["clear"][1] for scene, counts in found_in_boxes.items() if counts["clear"][1]
    }
    assert min(shares.values()) >= 0.9, shares
    assert shares["alberta_20200411"] >= 0.97
    assert shares["chip_101657"] == 1


def test_the_tailings_of_a_mine_are_clear(shared):
    item = next(item for item in scenes(shared / "data" / "hard") if item.id == "chip_101657")
    class_map = make_mask(item, settings=Settings(missing_scl="model-only", threads=2)).decision.class_map
    assert (class_map == CloudClass.CLEAR).all()
