from __future__ import annotations

import json

import numpy as np
import pystac
import pytest
from PIL import Image

from stac_cloudmask.core.classes import CLASSES
from stac_cloudmask.core.metrics import agreement, wilson
from stac_cloudmask.errors import ConfigError, ReadError
from stac_cloudmask.review.evaluate import COLUMNS, evaluate
from stac_cloudmask.simulate.scene import Recipe, simulate, write_simulated_item
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.cog import write_cog, write_thumbnail
from stac_cloudmask.stac.mask_item import mask_item
from tests.outputs import facts_of

SEEDS = (0, 1)


def recipe(seed):
    return Recipe(height=60, width=90, seed=seed, bands=("red",), cumulus=0.3)


def guess(truth, seed=0):
    """A mask with the faults of one: a moved truth with some shadow left out."""
    mask = np.roll(truth, 2, axis=1)
    mask[:20][mask[:20] == 2] = 0
    mask[seed] = 255
    return mask


@pytest.fixture(scope="module")
def masks(tmp_path_factory):
    folder = tmp_path_factory.mktemp("masks")
    catalog = OutputCatalog(folder / "out")
    hrefs = []
    for seed in SEEDS:
        path = write_simulated_item(folder / "source", recipe(seed))
        item = pystac.Item.from_file(path)
        scene = simulate(recipe(seed))
        mask = guess(scene.layer("reference"), seed)
        with catalog.workdir() as work:
            files = {"cloud_mask": work / "cloud_mask.tif", "thumbnail": work / "thumbnail.png"}
            write_cog(work, "cloud_mask", mask, recipe(seed).layer_grid("reference"))
            write_thumbnail(files["thumbnail"], mask)
            facts = facts_of(item, mask, files, grid=recipe(seed).layer_grid("reference"))
            hrefs.append(catalog.write_item(mask_item(item, facts), files))
    catalog.link(hrefs)
    return folder / "out"


def expected(seed, tolerance=20.0):
    truth = simulate(recipe(seed)).layer("reference")
    return agreement(guess(truth, seed), truth, judged=(1, 2), gsd=10.0, tolerance=tolerance)


def test_scores_are_those_of_the_arrays(masks):
    report = evaluate(masks, references=["reference"])
    assert [scene.agreement for scene in report.scenes] == [expected(seed) for seed in SEEDS]


def test_overall_counts_are_pooled(masks):
    report = evaluate(masks, references=["reference"])
    assert report.overall() == {"reference": expected(0) + expected(1)}


def test_mean_f1_gives_every_scene_the_same_weight(masks):
    report = evaluate(masks, references=["reference"])
    mean = np.mean([expected(seed).scores(2).f1 for seed in SEEDS])
    assert report.mean_f1("reference")["cloud_shadow"] == pytest.approx(mean)


@pytest.mark.parametrize("tolerance", [-1.0, 1e12, float("inf"), float("nan")])
def test_a_tolerance_that_would_take_for_ever_is_refused(masks, tolerance):
    with pytest.raises(ConfigError, match="tolerance is 0 to 1000 m"):
        evaluate(masks, references=["reference"], tolerance=tolerance)


def test_the_tolerance_reaches_the_scores(masks):
    report = evaluate(masks, references=["reference"], tolerance=0.0)
    assert report.scenes[0].agreement == expected(0, tolerance=0.0)


def test_the_products_own_mask_can_be_judged_too(masks):
    scene = simulate(recipe(0))
    table = np.zeros(256, np.uint8)
    table[[8, 9, 10]], table[3], table[0] = 1, 2, 255
    product = table[scene.layer("scl").repeat(2, 0).repeat(2, 1)]
    counts = agreement(product, scene.layer("reference"), judged=(1, 2), gsd=10.0, tolerance=20.0)
    report = evaluate(masks, references=["reference"], mask="scl")
    assert report.scenes[0].agreement == counts


def test_labels_of_the_user_judge_the_scenes_that_they_lie_in(masks, tmp_path):
    item = next(OutputCatalog(masks).items())
    west, south, east, north = item["bbox"]
    ring = [[west, south], [east, south], [east, north], [west, north], [west, south]]
    feature = {
        "type": "Feature",
        "properties": {"class": "cloud"},
        "geometry": {"type": "Polygon", "coordinates": [ring]},
    }
    (tmp_path / "labels.geojson").write_text(json.dumps(feature))
    report = evaluate(masks, references=[str(tmp_path / "labels.geojson")])
    scores = report.scenes[0].agreement.scores(1)
    mask = guess(simulate(recipe(0)).layer("reference"))
    assert scores.users_accuracy == 1.0
    assert scores.producers_accuracy == pytest.approx(np.mean(mask[mask != 255] == 1), abs=0.02)


def test_labels_elsewhere_leave_nothing_to_judge(masks, tmp_path):
    feature = {"type": "Feature", "properties": {"class": 1}, "geometry": {"type": "Point", "coordinates": [0, 0]}}
    (tmp_path / "labels.geojson").write_text(json.dumps(feature))
    with pytest.raises(ConfigError, match=r"nothing to judge.*contains no label of .*labels.geojson'"):
        evaluate(masks, references=[str(tmp_path / "labels.geojson")])


def test_a_reference_that_the_items_lack_is_named(masks):
    with pytest.raises(ConfigError, match=r"SIM_33TXK_000000_L2A_cloudmask: no asset 'truth'"):
        evaluate(masks, references=["truth"])


def test_a_path_that_leads_nowhere_is_a_missing_file_whatever_it_ends_in(masks):
    with pytest.raises(ReadError, match=r"there is no file nowhere/labels$"):
        evaluate(masks, references=["nowhere/labels"])


def test_an_item_without_one_reference_is_skipped_and_told(masks):
    report = evaluate(masks, references=["reference", "truth"])
    assert len(report.scenes) == len(SEEDS)
    assert report.skipped == tuple(f"SIM_33TXK_00000{seed}_L2A_cloudmask: no asset 'truth'" for seed in SEEDS)


def test_without_references_there_is_nothing_to_judge(masks):
    with pytest.raises(ConfigError, match="no reference was given"):
        evaluate(masks, references=[])


def test_an_empty_catalog_has_nothing_to_judge(tmp_path):
    with pytest.raises(ConfigError, match="give the folder that"):
        evaluate(tmp_path, references=["reference"])


def test_labels_that_are_gone_are_an_error(masks):
    with pytest.raises(ReadError, match=r"gone\.tif"):
        evaluate(masks, references=["/no/such/gone.tif"])


def test_a_report_is_plain_json(masks):
    body = json.loads(json.dumps(evaluate(masks, references=["reference"]).to_dict(), allow_nan=False))
    assert [scene["item"] for scene in body["scenes"]] == [f"SIM_33TXK_00000{seed}_L2A_cloudmask" for seed in SEEDS]
    assert body["overall"][0]["scenes"] == 2
    assert body["overall"][0]["confusion"]["classes"] == ["clear", "cloud", "cloud_shadow"]
    assert sum(map(sum, body["overall"][0]["confusion"]["reference_by_mask"])) == body["overall"][0]["pixels"]


def test_what_a_reference_does_not_tell_apart_is_other_not_clear(masks):
    body = evaluate(masks, references=["reference::2=shadow"]).to_dict()
    assert body["overall"][0]["confusion"]["classes"] == ["other", "cloud_shadow"]


def test_the_table_has_a_row_per_scene_and_class_and_one_for_all(masks):
    rows = evaluate(masks, references=["reference"]).rows()
    assert {len(row) for row in rows} == {len(COLUMNS)}
    scenes = ("SIM_33TXK_000000_L2A", "SIM_33TXK_000001_L2A", "all scenes")
    assert [row[:2] for row in rows] == [(scene, kind) for scene in scenes for kind in ("cloud", "shadow")]
    assert rows[0][8] == f"{100 * expected(0).scores(1).f1:.1f}"


def test_the_table_names_references_where_there_are_several(masks):
    rows = evaluate(masks, references=["reference", "reference::2=shadow"]).rows()
    assert [row[0] for row in rows[:3]] == ["SIM_33TXK_000000_L2A, reference"] * 2 + [
        "SIM_33TXK_000000_L2A, reference::2=shadow"
    ]


def test_counts_and_intervals_stand_beside_the_accuracies(masks):
    row = dict(zip(COLUMNS, evaluate(masks, references=["reference"]).rows()[0], strict=True))
    counts = expected(0).counts
    assert (row["labels"], row["mask"]) == (str(sum(counts[1])), str(sum(line[1] for line in counts)))
    low, high = map(float, row["PA 95 %"].split("-"))
    assert low < float(row["PA %"]) < high
    body = evaluate(masks, references=["reference"]).to_dict()["scenes"][0]["classes"]["cloud"]
    assert body["reference_pixels"] == sum(counts[1])
    assert body["producers_accuracy_95"][0] < body["producers_accuracy"] < body["producers_accuracy_95"][1]


def test_an_interval_is_wide_where_labels_are_few():
    assert wilson(1, 1) == (pytest.approx(0.2065, abs=1e-4), 1.0)
    assert wilson(50, 100) == (pytest.approx(0.4038, abs=1e-4), pytest.approx(0.5962, abs=1e-4))
    assert wilson(0, 10)[0] == 0
    assert wilson(0, 0) is None


def test_maps_show_the_scene_below_as_far_as_there_are_labels(masks, tmp_path):
    paths = evaluate(masks, references=["reference"]).write_pictures(tmp_path / "pictures")
    assert [path.name for path in paths] == [f"SIM_33TXK_00000{seed}_L2A_cloudmask.reference.png" for seed in SEEDS]
    truth = simulate(recipe(0)).layer("reference")
    with Image.open(paths[0]) as picture:
        pixels = np.asarray(picture)[2 : 60 * 5 : 5, 2 : 180 * 5 : 5].astype(int)  # enlarged 5 times
    scene, shown = pixels[:, :90], pixels[:, 90:]
    same = (truth == guess(truth)) & (truth == 0)
    np.testing.assert_array_equal(shown[same], scene[same])
    for code in (1, 2):
        painted = shown[(truth == code) & (guess(truth) == code)]
        gray = np.full(3, 128)  # there is no picture of red alone
        assert np.abs(painted - 0.7 * np.array(CLASSES[code].rgb) - 0.3 * gray).max() <= 1


def test_maps_are_cropped_to_labels(masks, tmp_path):
    item = next(OutputCatalog(masks).items())
    west, south, east, north = item["bbox"]
    point = {"type": "Point", "coordinates": [(west + east) / 2, (south + north) / 2]}
    (tmp_path / "p.geojson").write_text(json.dumps({"type": "Feature", "properties": {"class": 1}, "geometry": point}))
    (path,) = evaluate(masks, references=[str(tmp_path / "p.geojson")]).write_pictures(tmp_path)[:1]
    with Image.open(path) as picture:
        assert picture.size[0] == 2 * (2 * 24 + 1) * (480 // 49)
