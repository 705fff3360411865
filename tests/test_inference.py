from __future__ import annotations

import threading
from dataclasses import dataclass, replace

import numpy as np
import pytest
from hypothesis import given, strategies as st

from stac_cloudmask.config import Settings
from stac_cloudmask.core.grid import Grid, Window, farmvibes_chips, plan_chips
from stac_cloudmask.core.pixels import block_mean, step_of, to_reflectance, to_rgb
from stac_cloudmask.core.predict import Bands
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.spec import ModelWindow
from stac_cloudmask.pipeline.inference import (
    BlockMeans,
    HeldRows,
    Part,
    infer,
    plan_passes,
    prefetch,
    sampled,
)

SPEC = find_model("ukis-csmask-4b-l2a")
BANDS = Bands(names=SPEC.bands, scales=(1e-4,) * 4, offsets=(0,) * 4)


@dataclass
class Pixels:
    """A scene in memory that counts its rows as they are read."""

    scene: np.ndarray
    strip: int = 7
    rows_read: int = 0
    bands: Bands = BANDS

    @property
    def grid(self):
        return Grid(epsg=32633, left=600000, top=5000040, gsd=10, height=self.scene.shape[1], width=self.scene.shape[2])

    def dn(self, row_off, height):
        self.rows_read += height
        return self.scene[:, row_off : row_off + height]


class Whereabouts:
    """A model that answers where in its window a pixel lies, from 0 at the left to 1 at the right."""

    bands = SPEC.bands

    def predict(self, reflectance):
        n, _, height, width = reflectance.shape
        across = np.broadcast_to(np.linspace(0, 1, width, dtype=np.float32), (n, height, width))
        return {"cloud": across, "shadow": across}


def whereabouts(plan, shape):
    """What Whereabouts answers where only one window of a plan does; nothing elsewhere."""
    times, expected = np.zeros(shape, int), np.empty(shape, np.float32)
    for chip in (chip for row in plan for chip in row):
        expected[chip.write.slices] = np.linspace(0, 1, chip.read.width, dtype=np.float32)[chip.inner.cols]
        times[chip.write.slices] += 1
    return np.where(times == 1, expected, np.nan)


def part(*roles, size=64, multiple=0, overlap=8, name="model"):
    spec = replace(SPEC, name=name, window=ModelWindow(size=size, multiple=multiple, overlap=overlap))
    return Part(Whereabouts(), roles, spec)


def scene_of(height=90, width=150):
    return Pixels(np.random.default_rng(1).integers(1, 10001, (4, height, width)).astype(np.uint16))


def ask(scene, *parts, as_farmvibes=False):
    passes = plan_passes(parts, scene.grid.shape, as_farmvibes=as_farmvibes)
    return infer(scene, passes, settings=Settings(merge="farmvibes" if as_farmvibes else "calibrated"), nir_factor=6)


def assert_percents(found, plan):
    expected = whereabouts(plan, found.shape)
    alone = np.isfinite(expected)
    assert alone.mean() > 0.3
    np.testing.assert_allclose(found[alone] / 100, expected[alone], atol=0.01)


def test_a_fixed_and_a_free_model_of_one_role_share_windows_and_read_the_scene_once():
    scene = scene_of()
    found = ask(scene, part("cloud", size=32, multiple=8), part("cloud", size=64), part("shadow", size=96, multiple=32))
    assert scene.rows_read == 90
    assert_percents(found.cloud, plan_chips(90, 150, size=64, overlap=8, multiple=0))


def test_cloud_and_shadow_models_that_fix_different_windows_each_get_their_own():
    scene = scene_of()
    found = ask(scene, part("cloud", size=64), part("shadow", size=32), part("cloud", size=32, multiple=8))
    assert scene.rows_read == 180
    assert_percents(found.cloud, plan_chips(90, 150, size=64, overlap=8, multiple=0))
    assert_percents(found.shadow, plan_chips(90, 150, size=32, overlap=8, multiple=0))


@pytest.mark.parametrize("first", [("cloud",), ("cloud", "shadow")])
def test_models_of_one_role_that_fix_different_windows_are_refused(first):
    with pytest.raises(ConfigError, match="one 64, other 32"):
        ask(scene_of(), part(*first, name="one"), part("cloud", size=32, name="other"))


@pytest.mark.parametrize(("overlap", "fraction"), [(8, 0.25), (32, 0.5)])
def test_windows_lie_as_farmvibes_lays_them_where_its_merge_is_asked_for(overlap, fraction):
    found = ask(scene_of(), part("cloud", "shadow", overlap=overlap), as_farmvibes=True)
    assert_percents(found.shadow, farmvibes_chips(90, 150, size=64, overlap_fraction=fraction))


def test_a_pixel_without_data_in_one_band_is_nodata_to_farmvibes_only():
    scene = scene_of()
    scene.scene[2, 40:50, 60:70] = 0
    scene.scene[:, 80:, 140:] = 0
    one, every = np.zeros((2, 90, 150), bool)
    every[80:, 140:] = True
    one[40:50, 60:70] = True
    for as_farmvibes, empty in ((False, every), (True, every | one)):
        found = ask(scene, part("cloud", "shadow"), as_farmvibes=as_farmvibes)
        np.testing.assert_array_equal(found.cloud == 255, empty)
        np.testing.assert_array_equal(found.shadow == 255, empty)


def test_strips_are_the_scene_from_top_to_bottom_and_each_row_is_read_once():
    scene = scene_of()
    np.testing.assert_array_equal(np.concatenate(list(prefetch(scene)), axis=1), scene.scene)
    assert scene.rows_read == 90
    [whole] = prefetch(scene, in_memory=True)
    np.testing.assert_array_equal(whole, scene.scene)


def test_the_next_strip_is_read_while_the_last_one_is_worked_on():
    began = [threading.Event() for _ in range(3)]

    class Slow(Pixels):
        def dn(self, row_off, height):
            began[row_off // 30].set()
            return super().dn(row_off, height)

    strips = prefetch(Slow(scene_of().scene, strip=30))
    next(strips)
    assert began[1].wait(timeout=60)
    assert not began[2].is_set()


def test_a_failed_read_reaches_the_caller():
    class Broken(Pixels):
        def dn(self, row_off, height):
            if row_off > 7:
                raise OSError("disk gone")
            return super().dn(row_off, height)

    with pytest.raises(OSError, match="disk gone"):
        ask(Broken(scene_of().scene), part("cloud", "shadow"))


@given(st.integers(1, 70), st.lists(st.tuples(st.integers(0, 56), st.integers(1, 57)), min_size=1, max_size=8))
def test_windows_that_move_down_are_the_scene_however_high_strips_are(strip, spans):
    scene = np.random.default_rng(0).integers(0, 9999, (2, 57, 5), dtype=np.uint16)
    spans = sorted((min(top, stop - 1), stop) for top, stop in spans)
    held = HeldRows()
    for top, stop in spans:
        held.drop_to(top)
        while held.stop < stop:
            held.add(scene[:, held.stop : held.stop + strip])
        np.testing.assert_array_equal(held.window(Window(top, 2, stop - top, 3)), scene[:, top:stop, 2:5])


@pytest.mark.parametrize("strip", [1, 7, 32, 90])
def test_quicklook_and_near_infrared_do_not_depend_on_strips(strip):
    scene, offsets = scene_of(), (0, 0, -1000, 0)
    bands = replace(BANDS, offsets=offsets)
    look, blocks = [], BlockMeans(bands, scene.grid.shape, 6)
    for top in range(0, 90, strip):
        look.append(sampled(bands, scene.scene[:, top : top + strip], row_off=top, step=1))
        blocks.add(top, scene.scene[:, top : top + strip])
    rgb = [SPEC.bands.index(name) for name in ("red", "green", "blue")]
    expected = to_rgb(to_reflectance(scene.scene[rgb], scales=(1e-4,) * 3, offsets=[offsets[index] for index in rgb]))
    np.testing.assert_array_equal(np.concatenate(look), expected)
    index = SPEC.bands.index("nir")
    mean = to_reflectance(
        block_mean(scene.scene[index : index + 1], 6), scales=(1e-4,), offsets=offsets[index : index + 1]
    )
    np.testing.assert_array_equal(blocks.of("nir"), mean)


def test_a_quicklook_of_a_large_scene_is_sampled_evenly():
    scene = Pixels(np.random.default_rng(2).integers(1, 10001, (4, 2500, 3)).astype(np.uint16), strip=32)
    assert step_of(scene.grid.shape) == 3
    found = ask(scene, part("cloud", "shadow"))
    rgb = [SPEC.bands.index(name) for name in ("red", "green", "blue")]
    expected = to_rgb(to_reflectance(scene.scene[rgb, ::3, ::3], scales=(1e-4,) * 3, offsets=(0,) * 3))
    np.testing.assert_array_equal(found.quicklook, expected)


def test_without_a_visible_band_there_is_no_quicklook_and_without_nir_no_blocks():
    scene, blind = scene_of(), part("cloud", "shadow")
    scene.bands = replace(BANDS, names=("green", "red", "rededge", "nir08"))
    blind.model.bands = scene.bands.names
    found = ask(scene, blind)
    assert found.quicklook is None
    assert found.visible is None
    assert found.nir is None


def test_digital_numbers_that_cannot_be_reflectance_are_nodata_and_saturated_ones_are_not():
    scene = scene_of()
    scene.scene[1, 4, 5], scene.scene[0, 6, 7], scene.scene[2, 8, 9] = 40000, 65534, 65535
    found = ask(scene, part("cloud", "shadow"))
    assert np.argwhere(found.cloud == 255).tolist() == [[4, 5], [6, 7]]
    assert found.damaged == 2
    assert ask(scene, part("cloud", "shadow"), as_farmvibes=True).damaged == 0
