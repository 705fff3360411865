from __future__ import annotations

import numpy as np
import pytest
import rasterio
from checks import checked, layers, read
from offline import Validator
from s3 import s3_server
from scenes import BANDS, SIDE, settings_of, write_model
from strict_api import strict_api

import stac_cloudmask as scm
from stac_cloudmask.core.evidence import Vote
from stac_cloudmask.run import Publication, run
from stac_cloudmask.simulate import Recipe, write_simulated_item
from stac_cloudmask.stac.search import load_items

COLLECTION = "simulated-sentinel-2-l2a-cloudmask"
DATES = 4
ROOF = slice(40, 52), slice(30, 44)
"""Pixels that are bright on every date, and which no SCL calls cloud."""


@pytest.fixture(scope="module")
def dates(tmp_path_factory):
    """Items of one place, a day apart."""
    folder = tmp_path_factory.mktemp("dates")
    paths = []
    for seed in range(DATES):
        recipe = Recipe(height=SIDE, width=SIDE, bands=BANDS, seed=seed, cumulus=0.15, cirrus=0.0)
        paths.append(write_simulated_item(folder, recipe, item_id=f"date-{seed}"))
        paint(paths[-1].parent / "blue.tif", ROOF, 9000)
        paint(paths[-1].parent / "scl.tif", tuple(slice(part.start // 2, part.stop // 2) for part in ROOF), 5)
    return paths


def paint(path, where, value):
    with rasterio.open(path) as raster:
        pixels, profile = raster.read(1), raster.profile
    pixels[where] = value
    with rasterio.open(path, "w", **profile) as raster:
        raster.write(pixels, 1)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def go(dates, out, model, *, publication=None, **settings):
    chosen = settings_of(model, **{"temporal": True, "temporal_dates": 2, "merge": "union"} | settings)
    return list(run(load_items(map(str, dates)), settings=chosen, out=str(out), publication=publication))


def maps(out):
    return {name: layers(out / COLLECTION / name) for name in sorted(checked(out))}


def statuses(results):
    return [result.status for result in results]


def test_a_surface_that_is_bright_on_most_dates_is_what_the_product_says(dates, model, tmp_path, shared):
    go(dates, tmp_path / "single", model, temporal=False, votes=True, buffer=0.0)
    results = go(dates, tmp_path / "all", model, buffer=0.0)
    assert statuses(results) == ["done"] * DATES + ["revised"] * DATES
    checked(tmp_path / "all", Validator(shared / "data" / "schemas"))
    before, after = maps(tmp_path / "single"), maps(tmp_path / "all")
    for name, pixels in after.items():
        votes, codes, single = pixels["mask_votes"], pixels["cloud_mask"], before[name]["cloud_mask"]
        assert (single[ROOF] == 1).all()
        turned = (votes & Vote.BRIGHT) > 0
        np.testing.assert_array_equal(codes != single, turned)
        assert turned[ROOF].all()
        assert not (votes[turned] & Vote.PRODUCT_CLOUD).any()
        np.testing.assert_array_equal(votes & ~np.uint8(Vote.BRIGHT), before[name]["mask_votes"])
        body = read(tmp_path / "all" / COLLECTION / name / f"{name}.json")
        told = body["properties"]["stac_cloudmask:temporal"]
        assert (told["pixels"], told["dates"], told["most"]) == (turned.sum(), DATES, 2)
        cover = 100 * np.count_nonzero(codes == 1) / np.count_nonzero(codes != 255)
        assert body["properties"]["eo:cloud_cover"] == pytest.approx(cover, abs=1e-4)


def test_running_again_changes_nothing(dates, model, tmp_path):
    go(dates, tmp_path, model)
    files = [path for path in (tmp_path / COLLECTION).rglob("*") if path.is_file()]
    before = {path: path.stat().st_mtime_ns for path in files}
    assert statuses(go(dates, tmp_path, model)) == ["up-to-date"] * DATES
    assert {path: path.stat().st_mtime_ns for path in files} == before


def test_a_mask_does_not_depend_on_how_it_came_to_its_dates(dates, model, tmp_path):
    go(dates, tmp_path / "once", model)
    go(dates[:3], tmp_path / "grown", model)
    go(dates, tmp_path / "grown", model)
    np.testing.assert_equal(maps(tmp_path / "grown"), maps(tmp_path / "once"))


def test_fewer_dates_or_none_give_the_single_mask_back(dates, model, tmp_path):
    go(dates[:2], tmp_path / "single", model, temporal=False, votes=True)
    expected = maps(tmp_path / "single")
    go(dates, tmp_path / "out", model)
    assert statuses(go(dates[:2], tmp_path / "out", model)) == ["up-to-date"] * 2 + ["revised"] * 2
    found = maps(tmp_path / "out")
    np.testing.assert_equal({name: found[name] for name in expected}, expected)
    assert statuses(go(dates[:2], tmp_path / "out", model, temporal=False, votes=True)) == ["up-to-date"] * 2
    go(dates, tmp_path / "out", model)
    assert statuses(go(dates[:2], tmp_path / "out", model, temporal=False, votes=True)) == ["done"] * 2


def test_places_are_kept_apart(dates, model, tmp_path):
    elsewhere = write_simulated_item(
        tmp_path / "source", Recipe(height=SIDE - 12, width=SIDE, bands=BANDS), item_id="elsewhere"
    )
    results = go([*dates[:2], elsewhere], tmp_path / "out", model)
    assert statuses(results) == ["done"] * 3


def test_masks_are_published_once_they_are_revised(dates, model, tmp_path):
    with strict_api() as api:
        publication = Publication(to=api.url, asset_root="https://masks.example.org")
        results = go(dates, tmp_path, model, publication=publication)
        assert len(api.items) == DATES
        assert all(body["properties"]["stac_cloudmask:temporal"]["pixels"] for body in api.items.values())
    assert {result.published is not None for result in results if result.status == "revised"} == {True}
    report = read(tmp_path / "run.json")
    assert report["counts"] == {"revised": DATES}


def test_masks_in_a_bucket_are_revised_to_the_same_bits(dates, model, tmp_path):
    go(dates, tmp_path / "here", model)
    with s3_server() as bucket:
        assert statuses(go(dates, f"{bucket}/masks", model)) == ["done"] * DATES + ["revised"] * DATES
        copy = Publication(to=str(tmp_path / "copy"))
        go(dates, f"{bucket}/masks", model, publication=copy)
    np.testing.assert_equal(maps(tmp_path / "copy"), maps(tmp_path / "here"))


def test_other_policies_can_be_revised_too(dates, model, tmp_path):
    for merge in ("calibrated", "farmvibes"):
        results = go(dates, tmp_path / merge, model, merge=merge)
        assert {result.error for result in results} == {None}
        checked(tmp_path / merge)


def test_python_users_have_it_by_settings(dates, model, tmp_path):
    settings = settings_of(model, temporal=True, temporal_dates=2, merge="union")
    results = scm.process(dates, out=tmp_path, settings=settings)
    assert statuses(results).count("revised") == DATES
