from __future__ import annotations

import numpy as np
import pytest

from stac_cloudmask.simulate.landscape import power_noise, top_share


def noise(seed=0, shape=(128, 96), **changes):
    return power_noise(np.random.default_rng(seed), shape, **{"slope": 3.0, "outer": 40.0} | changes)


@pytest.mark.parametrize("shape", [(128, 96), (33, 51), (4, 7)])
def test_noise_has_the_asked_shape_no_mean_and_unit_deviation(shape):
    field = noise(shape=shape)
    assert (field.shape, field.dtype) == (shape, np.float32)
    assert abs(field.mean()) < 1e-4
    assert field.std() == pytest.approx(1, abs=1e-4)


def test_noise_wraps_around():
    field = noise(slope=4.0, outer=60.0)
    across = np.abs(field[:, 0] - field[:, -1]).mean()
    inside = np.abs(np.diff(field, axis=1)).mean()
    assert across < 2 * inside


def test_a_steeper_spectrum_is_smoother():
    rough, smooth = (np.abs(np.diff(noise(slope=slope), axis=0)).mean() for slope in (2.0, 4.0))
    assert smooth < rough / 2


@pytest.mark.parametrize(("stretch", "along", "across"), [((1.0, 4.0), 1, 0), ((4.0, 1.0), 0, 1)])
def test_stretching_draws_structures_out_along_an_axis(stretch, along, across):
    field = noise(shape=(128, 128), stretch=stretch)
    smooth, rough = (np.abs(np.diff(field, axis=axis)).mean() for axis in (along, across))
    assert smooth < rough / 2


@pytest.mark.parametrize("share", [0.05, 0.5])
def test_the_top_share_exceeds_the_threshold(share):
    field = noise()
    assert np.mean(field > top_share(field, share)) == pytest.approx(share, abs=0.01)
