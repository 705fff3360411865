from __future__ import annotations

from dataclasses import dataclass, field, replace

import numpy as np
import pytest

from stac_cloudmask.core.grid import Grid, farmvibes_chips, plan_chips
from stac_cloudmask.core.predict import Bands, Member
from stac_cloudmask.errors import ConfigError
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.spec import ModelWindow
from stac_cloudmask.pipeline.inference import Part, infer

SPEC = find_model("ukis-csmask-4b-l2a")


@dataclass
class Pixels:
    """A scene in memory that counts its rows as they are read."""

    scene: np.ndarray
    strip: int = 7
    rows_read: int = 0
    bands: Bands = field(default=Bands(names=SPEC.bands, scales=(1e-4,) * 4, offsets=(0,) * 4))

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
    expected = np.empty(shape, np.float32)
    for chip in (chip for row in plan for chip in row):
        read = np.linspace(0, 1, chip.read.width, dtype=np.float32)
        expected[chip.write.slices] = read[chip.inner.cols]
    return expected


def part(*roles, size=64, multiple=0, overlap=8, name="model"):
    spec = replace(SPEC, name=name, window=ModelWindow(size=size, multiple=multiple, overlap=overlap))
    return Part(spec, Member(Whereabouts(), roles))


def scene_of(height=90, width=150):
    return Pixels(np.random.default_rng(1).integers(1, 10001, (4, height, width)).astype(np.uint16))


def ask(scene, *parts, **options):
    return infer(scene, parts, nir_factor=6, in_memory=False, progress=lambda *_: None, **options)


def assert_percents(found, plan):
    np.testing.assert_allclose(found / 100, whereabouts(plan, found.shape), atol=0.01)


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
