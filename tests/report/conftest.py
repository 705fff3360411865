"""Reports of simulated items, and a browser to open them with."""

from __future__ import annotations

import pytest

from stac_cloudmask.config import Settings
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.review.report import build_report
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.search import load_items
from tests.browser import chromium

SIDE = 160


@pytest.fixture(scope="session")
def catalog(tmp_path_factory):
    """Masks of three scenes of different dates, with votes and probabilities."""
    folder = tmp_path_factory.mktemp("report")
    recipes = [Recipe(height=SIDE, width=SIDE, seed=seed, bands=("blue", "green", "red", "nir")) for seed in (3, 1, 2)]
    items = [str(write_simulated_item(folder / "source", recipe)) for recipe in recipes]
    settings = Settings(votes=True, probabilities=True, threads=1)
    results = list(run(load_items(items), settings=settings, out=str(folder / "out")))
    assert [result.error for result in results] == [None] * len(items)
    return folder / "out"


@pytest.fixture(scope="session")
def page(catalog):
    return build_report(catalog, catalog / "report.html")


@pytest.fixture(scope="session")
def driver(tmp_path_factory):
    with chromium(tmp_path_factory.mktemp("profile")) as opened:
        yield opened
