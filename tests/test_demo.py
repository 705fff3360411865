from __future__ import annotations

import pytest

from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.simulate.demo import demo
from stac_cloudmask.simulate.scene import Recipe
from tests.offline import no_network


@pytest.fixture(scope="module")
def outcome(tmp_path_factory):
    with no_network():
        return demo(tmp_path_factory.mktemp("demo"), recipe=Recipe(height=512, width=512, seed=11))


def f1(report, code):
    (scene,) = report.scenes
    return scene.agreement.scores(code).f1


@pytest.mark.parametrize("code", [1, 2])
def test_the_improved_mask_beats_the_products_own(outcome, code):
    assert f1(outcome.improved, code) > f1(outcome.product, code) + 0.03


def test_the_table_of_one_scene_has_no_row_for_all(outcome):
    assert [row[:2] for row in outcome.improved.rows()] == [(outcome.item.stem, kind) for kind in ("cloud", "shadow")]


def test_the_demo_masks_its_scene(outcome):
    assert (outcome.result.status, outcome.result.item_id) == ("done", outcome.item.stem)
    assert (outcome.report.parent / "masks/catalog.json").exists()
    assert f'"id":"{outcome.item.stem}_cloudmask"' in outcome.report.read_text()


def test_a_second_demo_has_nothing_to_do_and_scores_its_own_scene(outcome):
    again = demo(outcome.report.parent, recipe=Recipe(height=512, width=512, seed=11))
    assert again.result.status == "up-to-date"
    assert again.improved.scenes[0].agreement == outcome.improved.scenes[0].agreement
    other = demo(outcome.report.parent, recipe=Recipe(height=128, width=128, seed=12))
    assert [scene.item_id for scene in other.improved.scenes] == ["SIM_33TXK_000012_L2A_cloudmask"]


def test_a_scene_that_cannot_be_masked_is_an_error(tmp_path):
    with pytest.raises(StacCloudmaskError, match="has no SCL asset"):
        demo(tmp_path, recipe=Recipe(height=32, width=32, scl=False))
