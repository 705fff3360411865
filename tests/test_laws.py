"""Laws that hold for the whole way from pixels to class map, whatever the scene."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.core.merge import decide
from stac_cloudmask.core.merge_calibrated import RULES
from stac_cloudmask.core.predict import Bands
from stac_cloudmask.core.votes import Evidence, ProductMask, Sun
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.spec import ModelWindow
from stac_cloudmask.pipeline.inference import Part, infer, plan_passes
from stac_cloudmask.pipeline.item import process_item
from stac_cloudmask.pipeline.run import open_engine, run
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.mask_item import class_counts
from stac_cloudmask.stac.search import load_items

SPEC = find_model("ukis-csmask-4b-l2a")
MERGES = ["calibrated", "union", "farmvibes"]
BANDS = Bands(names=SPEC.bands, scales=(1e-4,) * 4, offsets=(0,) * 4)
WINDOW = ModelWindow(size=32, multiple=8, overlap=8)
SUN = Sun(azimuth=140.0, elevation=35.0)


@dataclass
class Pixels:
    """A scene in memory."""

    scene: np.ndarray
    strip: int = 16
    bands: Bands = BANDS

    @property
    def grid(self):
        return Grid(epsg=32633, left=600000, top=5000040, gsd=10, height=self.scene.shape[1], width=self.scene.shape[2])

    def dn(self, row_off, height):
        return self.scene[:, row_off : row_off + height]


class Pointwise:
    """A model of single pixels: bright in blue is cloud, dark in near infrared is shadow."""

    bands = SPEC.bands

    def predict(self, reflectance):
        return {"cloud": np.clip(reflectance[:, 0] * 2, 0, 1), "shadow": np.clip(0.3 - reflectance[:, 3], 0, 1)}


def scene_of(height, width, seed, nodata=0.1):
    rng = np.random.default_rng(seed)
    coarse = rng.integers(200, 9000, (4, -(-height // 8), -(-width // 8)))
    dn = np.repeat(np.repeat(coarse, 8, 1), 8, 2)[:, :height, :width] + rng.integers(0, 500, (4, height, width))
    dn[:, rng.random((height, width)) < nodata] = 0
    return dn.astype(np.uint16)


def percents(dn, *, window=WINDOW, strip=16, in_memory=False):
    part = Part(Pointwise(), ("cloud", "shadow"), replace(SPEC, window=window))
    pixels = Pixels(dn, strip)
    passes = plan_passes([part], pixels.grid.shape, as_farmvibes=False)
    return infer(pixels, passes, settings=Settings(in_memory=in_memory), nir_factor=RULES.cell_factor(10))


def evidence_of(dn, scl):
    found = percents(dn)
    product = ProductMask(scl=scl, factor=1, shape=scl.shape, cloud_codes=(8, 9, 10), shadow_codes=(3,))
    return Evidence(
        cloud=found.cloud,
        shadow=found.shadow,
        gsd=10,
        product=product,
        sun=SUN,
        nir=found.nir,
        visible=found.visible,
    )


sides = st.integers(1, 130)
seeds = st.integers(0, 2**32)


@given(height=sides, width=sides, seed=seeds, strip=st.integers(1, 70), fixed=st.booleans())
@settings(max_examples=40)
def test_streamed_equals_in_memory_for_any_size_and_strip(height, width, seed, strip, fixed):
    dn = scene_of(height, width, seed)
    window = ModelWindow(size=32, multiple=0 if fixed else 8, overlap=8)
    whole = percents(dn, window=window, in_memory=True)
    streamed = percents(dn, window=window, strip=strip)
    np.testing.assert_array_equal(streamed.cloud, whole.cloud)
    np.testing.assert_array_equal(streamed.shadow, whole.shadow)
    np.testing.assert_array_equal(streamed.nir, whole.nir)


@pytest.mark.parametrize("merge", MERGES)
@given(height=sides, width=sides, seed=seeds)
@settings(max_examples=15)
def test_nodata_in_is_nodata_out_nothing_else_is_and_the_counts_add_up(merge, height, width, seed):
    dn = scene_of(height, width, seed)
    scl = np.random.default_rng(seed).integers(0, 12, (height, width), np.uint8)
    decision = decide(evidence_of(dn, scl), Settings(merge=merge))
    missing = decision.class_map == CloudClass.NODATA
    if merge == "farmvibes":  # there a pixel that the product does not know is cloud, as FarmVibes.AI has it
        assert (missing <= (dn == 0).any(axis=0)).all()
    else:
        np.testing.assert_array_equal(missing, (dn == 0).all(axis=0) | (scl == 0))
        assert not decision.votes[missing].any()
    counts = class_counts(decision.class_map)
    assert set(np.unique(decision.class_map)) <= set(counts)
    assert sum(counts.values()) == height * width


@pytest.mark.parametrize("merge", ["union", "farmvibes"])
@pytest.mark.parametrize("quarters", [0, 1, 2, 3])
@pytest.mark.parametrize("mirror", [False, True])
def test_a_turned_or_mirrored_scene_gives_the_turned_mask(merge, quarters, mirror):
    def turn(array):
        turned = np.rot90(array, quarters, axes=(-2, -1))
        return np.ascontiguousarray(turned[..., ::-1] if mirror else turned)

    dn = scene_of(96, 72, 5, nodata=0.001)
    scl = np.full((96, 72), 4, np.uint8)
    scl[20:30, 40:50], scl[60:66, 10:30] = 9, 3
    options = Settings(merge=merge, min_area=3000, cloud_thr=0.99)
    here = decide(evidence_of(dn, scl), options)
    there = decide(evidence_of(turn(dn), turn(scl)), options)
    assert {CloudClass.CLEAR, CloudClass.CLOUD} <= set(np.unique(here.class_map))
    np.testing.assert_array_equal(there.class_map, turn(here.class_map))


@given(seed=seeds, rate=st.floats(0, 0.3))
@settings(max_examples=25)
def test_a_higher_probability_never_takes_cloud_or_shadow_away_from_union(seed, rate):
    rng = np.random.default_rng(seed)
    evidence = evidence_of(scene_of(60, 50, seed), rng.integers(0, 12, (60, 50), np.uint8))
    valid = evidence.cloud <= 100

    def raised(percent):
        more = np.minimum(percent.astype(int) + np.where(rng.random(percent.shape) < rate, 40, 0), 100)
        return np.where(valid, more, percent).astype(np.uint8)

    flagged = [CloudClass.CLOUD, CloudClass.CLOUD_SHADOW]
    likelier = replace(evidence, cloud=raised(evidence.cloud), shadow=raised(evidence.shadow))
    less, more = (decide(one, Settings(merge="union")).class_map for one in (evidence, likelier))
    assert (np.isin(less, flagged) <= np.isin(more, flagged)).all()
    assert ((less == CloudClass.CLOUD) <= (more == CloudClass.CLOUD)).all()


@pytest.fixture(scope="module")
def simulated(tmp_path_factory):
    """An item with clouds of 200 x 180 pixels, whose windows do not fit evenly."""
    folder = tmp_path_factory.mktemp("simulated")
    return str(write_simulated_item(folder, Recipe(height=200, width=180, bands=SPEC.bands)))


def digest(result):
    """Checksums of the rasters of an output item."""
    folder = Path(result.output).parent
    return {path.name: hashlib.sha256(path.read_bytes()).hexdigest() for path in sorted(folder.glob("*.tif"))}


def masked(item, out, **options):
    (found,) = load_items([item])
    return digest(process_item(found, settings=Settings(votes=True, probabilities=True, **options), out=str(out)))


@pytest.mark.slow
def test_reprocessing_gives_the_same_bytes_over_runs_threads_loaders_memory_and_workers(simulated, tmp_path):
    first = masked(simulated, tmp_path / "first", threads=1)
    assert len(first) == 4
    assert masked(simulated, tmp_path / "again", threads=1) == first
    assert masked(simulated, tmp_path / "threads", threads=2) == first
    assert masked(simulated, tmp_path / "memory", threads=2, in_memory=True) == first
    assert masked(simulated, tmp_path / "odc", threads=1, loader="odc") == first
    out = str(tmp_path / "workers")
    with open_engine(workers=2) as engine:
        kept = Settings(votes=True, probabilities=True)
        (result,) = run(load_items([simulated]), settings=kept, out=out, engine=engine)
    assert digest(result) == first
