from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.core.metrics import agreement
from stac_cloudmask.core.pixels import to_reflectance
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.session import OnnxSegmenter
from stac_cloudmask.simulate.scene import Recipe, simulate
from stac_cloudmask.stac.bands import BOA_OFFSET

pytestmark = pytest.mark.slow

SEEDS = (10, 11, 12)


def most_likely(scene, segmenter):
    dn = np.stack([scene.layer(name) for name in segmenter.bands])
    reflectance = to_reflectance(dn, scales=[1e-4] * len(dn), offsets=[BOA_OFFSET] * len(dn))
    answer = segmenter.predict(reflectance[None])
    cloud, shadow = answer["cloud"][0], answer["shadow"][0]
    return np.argmax([1 - cloud - shadow, cloud, shadow], axis=0).astype(np.uint8)


@pytest.fixture(scope="module")
def scores():
    segmenter = OnnxSegmenter(find_model("ukis-csmask-4b-l2a"), threads=2)
    scenes = [simulate(Recipe(height=512, width=512, seed=seed)) for seed in SEEDS]
    return [
        agreement(most_likely(scene, segmenter), scene.layer("reference"), judged=(1, 2), gsd=10.0) for scene in scenes
    ]


@pytest.mark.parametrize(("code", "bar"), [(1, 0.85), (2, 0.72)])
def test_a_model_that_has_never_seen_a_simulated_scene_understands_it(scores, code, bar):
    assert np.mean([one.scores(code).f1 for one in scores]) >= bar
