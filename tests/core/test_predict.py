from __future__ import annotations

from itertools import zip_longest

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stac_cloudmask.core.grid import farmvibes_chips, plan_chips
from stac_cloudmask.core.predict import Bands, Member, Mosaic, percent, predict_chips

BANDS = Bands(names=("red", "nir"), scales=(1e-4, 1e-4), offsets=(0, 0))


class Echo:
    """A model whose answer is one of its bands: any seam is then the runner's fault."""

    def __init__(self, bands=("red", "nir"), roles=("cloud", "shadow")):
        self.bands = bands
        self.roles = roles
        self.calls = 0

    def predict(self, reflectance):
        self.calls += 1
        return {role: reflectance[:, i] for i, role in enumerate(self.roles)}


def scene_of(shape, seed=0):
    return np.random.default_rng(seed).integers(1, 10001, (2, *shape)).astype(np.uint16)


def windows_of(scene):
    return lambda window: scene[:, *window.slices]


def run(scene, members, roles, *, size=64, overlap=8, multiple=0, bands=BANDS):
    return mosaic_of(
        scene, plan_chips(*scene.shape[1:], size=size, overlap=overlap, multiple=multiple), members, roles, bands
    )


def mosaic_of(scene, plan, members, roles, bands=BANDS, **options):
    mosaic = Mosaic(scene.shape[1:], roles, **options)
    for chips, following in zip_longest(plan, plan[1:]):
        predictions = predict_chips(chips, windows_of(scene), members=members, bands=bands)
        mosaic.add(chips, predictions, below=following and following[0].write.row_off)
    return mosaic.percents


@given(st.integers(1, 90), st.integers(1, 90), st.integers(8, 40), st.integers(0, 32), st.sampled_from([0, 1, 4]))
@settings(max_examples=60)
def test_an_identity_model_gives_the_scene_back_for_any_size_window_and_overlap(height, width, side, overlap, multiple):
    size = side * max(multiple, 1)
    scene = scene_of((height, width))
    members = [Member(Echo(), ("cloud", "shadow"))]
    out = run(scene, members, ("cloud", "shadow"), size=size, overlap=min(overlap, size - 4), multiple=multiple)
    np.testing.assert_array_equal(out["cloud"], -(-scene[0].astype(int) // 100))
    np.testing.assert_array_equal(out["shadow"], -(-scene[1].astype(int) // 100))


def test_a_model_sees_its_own_bands_in_its_own_order():
    scene = scene_of((20, 30))
    out = run(scene, [Member(Echo(bands=("nir",), roles=("cloud",)), ("cloud",))], ("cloud",))
    np.testing.assert_array_equal(out["cloud"], -(-scene[1].astype(int) // 100))


def test_an_ensemble_gives_the_mean_probability():
    scene = scene_of((20, 30)) // 100 * 100
    red, nir = (Member(Echo(bands=(band,), roles=("cloud",)), ("cloud",)) for band in ("red", "nir"))
    [prediction] = predict_chips(
        plan_chips(20, 30, size=64, overlap=0, multiple=0)[0], windows_of(scene), members=[red, nir], bands=BANDS
    )
    np.testing.assert_allclose(prediction.probabilities["cloud"], scene.mean(axis=0) / 1e4, atol=1e-7)


def test_each_model_is_asked_only_for_its_role():
    scene = scene_of((20, 30))
    members = [Member(Echo(), ("cloud",)), Member(Echo(bands=("nir", "red")), ("shadow",))]
    out = run(scene, members, ("cloud", "shadow"))
    np.testing.assert_array_equal(out["cloud"], out["shadow"])


def test_pixels_without_any_band_are_nodata_and_windows_of_them_are_not_computed():
    scene = scene_of((40, 100))
    scene[:, :, 50:] = 0
    scene[0, 3, 4] = 0
    model = Echo()
    out = run(scene, [Member(model, ("cloud",))], ("cloud",), size=25, overlap=0)
    assert (out["cloud"][:, 50:] == 255).all()
    assert (out["cloud"][:, :50] <= 100).all()
    assert out["cloud"][3, 4] == 0
    assert model.calls == 4


def test_offsets_reach_the_model():
    scene = np.full((2, 4, 4), 3000, np.uint16)
    bands = Bands(names=("red", "nir"), scales=(1e-4, 1e-4), offsets=(-1000, 0))
    out = run(scene, [Member(Echo(), ("cloud", "shadow"))], ("cloud", "shadow"), bands=bands)
    assert (out["cloud"][0, 0], out["shadow"][0, 0]) == (20, 30)


def test_a_percent_keeps_every_whole_percent_threshold_exactly():
    thresholds = (np.arange(101) / 100).astype(np.float32)
    near = [thresholds]
    for direction in (np.float32(-1), np.float32(2)):
        step = thresholds
        for _ in range(4):
            step = np.nextafter(step, direction)
            near.append(step)
    random = np.random.default_rng(0).random(20000, np.float32)
    p = np.clip(np.concatenate([*near, random]), np.float32(0), np.float32(1))
    v = percent(p)
    assert v.dtype == np.uint8
    assert v.max() == 100
    for t in range(100):
        np.testing.assert_array_equal(v > t, p > np.float32(t / 100))


def test_a_probability_a_rounding_above_one_is_a_hundred_percent():
    np.testing.assert_array_equal(percent(np.array([1.0000001, 0.0], np.float32)), [100, 0])


def test_a_single_pixel_without_any_band_is_nodata_and_its_neighbors_are_not():
    scene = scene_of((20, 20))
    scene[:, 7, 9] = 0
    out = run(scene, [Member(Echo(), ("cloud", "shadow"))], ("cloud", "shadow"))
    for role in ("cloud", "shadow"):
        assert np.argwhere(out[role] == 255).tolist() == [[7, 9]]


def test_a_pixel_that_lacks_one_band_is_nodata_where_every_band_is_wanted():
    scene = scene_of((20, 20))
    scene[0, 3, 4] = scene[:, 5, 6] = 0
    plan = plan_chips(20, 20, size=64, overlap=8, multiple=0)
    out = mosaic_of(scene, plan, [Member(Echo(), ("cloud",))], ("cloud",), every_band=True)
    assert np.argwhere(out["cloud"] == 255).tolist() == [[3, 4], [5, 6]]


def test_a_prediction_holds_the_numbers_that_its_chip_answers_for():
    scene = scene_of((20, 90))
    for chip in predict_chips(
        plan_chips(20, 90, size=40, overlap=8, multiple=0)[0], windows_of(scene), members=[], bands=BANDS
    ):
        np.testing.assert_array_equal(chip.dn, scene[:, *chip.chip.write.slices])


class Growing:
    """A model that gives each window a higher answer than the one before, everywhere alike."""

    bands = ("red", "nir")

    def __init__(self):
        self.answer = np.float32(0)

    def predict(self, reflectance):
        self.answer += np.float32(0.2)
        return {"cloud": np.full(reflectance[:, 0].shape, self.answer)}


@pytest.mark.parametrize("shape", [(40, 160), (160, 40)])
def test_windows_that_disagree_fade_into_each_other_over_all_that_they_share(shape):
    out = run(scene_of(shape), [Member(Growing(), ("cloud",))], ("cloud",), size=64, overlap=16)["cloud"].astype(int)
    along = out[0] if shape[1] > shape[0] else out[:, 0]
    assert (out == (along if shape[1] > shape[0] else along[:, None])).all()
    assert list(along[[0, 47, 64, 95, 112, 159]]) == [20, 20, 40, 40, 60, 60]
    assert 0 <= np.diff(along).min() <= np.diff(along).max() <= 3


def test_windows_of_farmvibes_are_cut_and_do_not_fade():
    plan = farmvibes_chips(40, 160, size=64, overlap_fraction=0.25)
    out = mosaic_of(scene_of((40, 160)), plan, [Member(Growing(), ("cloud",))], ("cloud",))["cloud"]
    assert np.unique(out).tolist() == [20, 40, 60]
