from __future__ import annotations

import numpy as np
import pytest
import rasterio
from hypothesis import given, settings, strategies as st
from hypothesis.extra import numpy as hnp
from hypothesis.extra.numpy import arrays
from rasterio.enums import Resampling
from rasterio.io import MemoryFile
from rasterio.vrt import WarpedVRT

from stac_cloudmask.core.grid import Window
from stac_cloudmask.core.pixels import block_mean, block_sum, mean_by_twos, repeat, to_reflectance, up_bilinear

digital = st.integers(0, 65535) | st.sampled_from([0, 1, 2, 65535])
planes = st.tuples(st.integers(1, 9), st.integers(1, 9)).flatmap(
    lambda shape: arrays(np.uint16, shape, elements=digital)
)


def gdal_bilinear(plane, factor):
    height, width = plane.shape
    profile = {"driver": "GTiff", "height": height, "width": width, "count": 1, "dtype": "uint16", "nodata": 0}
    fine = {"height": height * factor, "width": width * factor}
    with MemoryFile() as file:
        with file.open(**profile, crs="EPSG:32633", transform=rasterio.Affine(20, 0, 3e5, 0, -20, 5e6)) as target:
            target.write(plane, 1)
        with (
            file.open() as source,
            WarpedVRT(
                source,
                crs=source.crs,
                transform=rasterio.Affine(20 / factor, 0, 3e5, 0, -20 / factor, 5e6),
                resampling=Resampling.bilinear,
                **fine,
            ) as vrt,
        ):
            return vrt.read(1)


def noise(shape, *, holes, seed=0):
    rng = np.random.default_rng(seed)
    dn = rng.integers(1, 12000, shape).astype(np.uint16)
    dn[rng.random(shape) < holes] = 0
    return dn


@pytest.mark.parametrize("holes", [0.0, 0.02, 0.5])
@pytest.mark.parametrize("factor", [2, 6])
def test_upsampling_is_what_gdal_gives_nodata_included(factor, holes):
    plane = noise((120, 90), holes=holes)
    plane[:, 70:] *= np.uint16(holes == 0)
    theirs = gdal_bilinear(plane, factor)
    ours = up_bilinear(plane, factor)
    np.testing.assert_array_equal(ours == 0, theirs == 0)
    # GDAL sums in floating point: with weights that are no binary fractions (factor 6) a half may fall to either side
    far = 0 if factor == 2 else 1
    assert np.abs(ours.astype(int) - theirs).max() <= far


@given(planes, st.integers(1, 6), st.data())
def test_a_window_of_the_upsampled_is_that_window_of_the_whole(plane, factor, data):
    height, width = plane.shape[0] * factor, plane.shape[1] * factor
    row, col = data.draw(st.integers(0, height - 1)), data.draw(st.integers(0, width - 1))
    window = Window(row, col, data.draw(st.integers(1, height - row)), data.draw(st.integers(1, width - col)))
    for upsample in (up_bilinear, repeat):
        np.testing.assert_array_equal(upsample(plane, factor, window=window), upsample(plane, factor)[window.slices])


@given(planes, st.integers(1, 6))
def test_nodata_stays_nodata_and_nothing_else_becomes_it(plane, factor):
    np.testing.assert_array_equal(up_bilinear(plane, factor) == 0, repeat(plane, factor) == 0)


@given(planes, st.integers(1, 6))
def test_the_mean_of_what_was_repeated_is_the_scene(plane, factor):
    np.testing.assert_array_equal(block_mean(repeat(plane, factor), factor), plane)


@given(planes, st.integers(1, 6))
def test_upsampling_stays_between_the_valid_extremes(plane, factor):
    up = up_bilinear(plane, factor)
    if plane.any():
        assert up[up > 0].min() >= plane[plane > 0].min()
        assert up.max() <= plane.max()


@given(planes)
def test_upsampling_by_one_changes_nothing(plane):
    np.testing.assert_array_equal(up_bilinear(plane, 1), plane)


def test_bands_are_upsampled_one_by_one():
    scene = noise((3, 7, 5), holes=0.2)
    np.testing.assert_array_equal(up_bilinear(scene, 3), [up_bilinear(band, 3) for band in scene])


@given(planes, st.integers(1, 5))
@settings(max_examples=50)
def test_a_block_mean_is_the_mean_of_its_valid_pixels(plane, factor):
    means = block_mean(plane, factor)
    for row, col in np.ndindex(means.shape):
        block = plane[row * factor : (row + 1) * factor, col * factor : (col + 1) * factor]
        valid = block[block > 0].astype(int)
        expected = (2 * valid.sum() + valid.size) // (2 * valid.size) if valid.size else 0
        assert means[row, col] == expected


@given(planes, st.integers(0, 3), st.sampled_from([1, 3, 5]))
def test_means_by_twos_are_means_of_means_and_then_of_the_rest(plane, twos, rest):
    expected = plane
    for _ in range(twos):
        expected = block_mean(expected, 2)
    np.testing.assert_array_equal(mean_by_twos(plane, 2**twos * rest), block_mean(expected, rest))


@given(planes, st.sampled_from([0, -1000, 500]))
def test_reflectance_goes_back_to_the_digital_numbers_it_came_from(plane, offset):
    reflectance = to_reflectance(plane[None], scales=(1e-4,), offsets=(offset,))
    assert reflectance.dtype == np.float32
    expected = np.where(plane == 0, 0, np.maximum(plane.astype(int) + offset, 0))
    np.testing.assert_array_equal(np.rint(reflectance[0] * 1e4), expected)


def test_reflectance_takes_each_bands_own_scale_and_offset():
    dn = np.array([[[2000]], [[2000]], [[0]]], np.uint16)
    reflectance = to_reflectance(dn, scales=(1e-4, 2e-4, 1e-4), offsets=(0, -1000, -1000))
    np.testing.assert_allclose(reflectance.ravel(), [0.2, 0.2, 0.0], rtol=1e-6)


def test_a_block_mean_has_the_type_and_the_axes_of_its_scene():
    scene = np.random.default_rng(0).integers(1, 65536, (3, 7, 11)).astype(np.uint16)
    mean = block_mean(scene, 3)
    assert (mean.shape, mean.dtype) == ((3, 3, 4), np.uint16)
    np.testing.assert_array_equal(mean[:, 2, 3], scene[:, 6, 9:].mean(axis=1).astype(np.uint16))


@pytest.mark.parametrize("offset", [-1000, 0, 1, 1000])
def test_an_offset_of_either_sign_leaves_nodata_alone(offset):
    dn = np.array([[[0, 1, 2000]]], np.uint16)
    found = to_reflectance(dn, scales=(1e-4,), offsets=(offset,))
    expected = [0, max(1 + offset, 0) * 1e-4, (2000 + offset) * 1e-4]
    np.testing.assert_allclose(found[0, 0], expected, rtol=1e-6)
    assert found.dtype == np.float32


def test_every_band_needs_a_scale_and_an_offset():
    with pytest.raises(ValueError, match="zip"):
        to_reflectance(np.ones((1, 2, 2), np.uint16), scales=(1e-4,), offsets=(0, 0))


@given(hnp.arrays(np.uint8, st.tuples(st.integers(1, 20), st.integers(1, 20))), st.integers(1, 7))
def test_block_sums_are_sums_over_what_blocks_have(pixels, factor):
    padded = np.pad(pixels, [(0, -n % factor) for n in pixels.shape]).astype(int)
    blocks = padded.reshape(padded.shape[0] // factor, factor, -1, factor)
    np.testing.assert_array_equal(block_sum(pixels, factor), blocks.sum(axis=(1, 3)))
