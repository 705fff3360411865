"""A full output as stac-check (which validates by stac-valid, then lints) and rio-cogeo by its strict rules see it."""

from __future__ import annotations

import json

import pytest
from rio_cogeo import cog_validate
from stac_check.lint import Linter
from stac_validator import utilities

from stac_cloudmask.config import Settings
from stac_cloudmask.pipeline.run import run
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.search import load_items

pytestmark = pytest.mark.slow

LOCAL = {"check_links_self"}
"""A catalog that may be moved has no absolute href of its own; it has one where it is written to an object store."""
OF_THE_SOURCE = {"searchable_identifiers", "bloated_metadata"}
"""Ids in upper case and many properties, which a mask has from its source."""
OF_A_MODEL = {
    "check_item_id",  # the name of the document tells its content
    "datetime_null",  # a model has a start and an end
    "bloated_metadata",
    "geometry_coordinates_order",  # all land, which reaches from -180 to 180 degrees
    "check_bbox_antimeridian",
}


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    """Everything that can be asked for, of one item."""
    folder = tmp_path_factory.mktemp("lint")
    recipe = Recipe(height=64, width=64, seed=3, bands=("blue", "green", "red", "nir"))
    item = write_simulated_item(folder / "source", recipe)
    settings = Settings(votes=True, probabilities=True, scl=True, threads=1)
    (result,) = run(load_items([str(item)]), settings=settings, out=str(folder / "out"))
    assert result.error is None
    return folder / "out"


@pytest.fixture
def lint(shared, monkeypatch):
    """Names of the findings in a file; schemas come from those that are stored, never from the network."""

    def stored(uri):
        return json.loads((shared / "data" / "schemas" / uri.partition("://")[2].partition("#")[0]).read_text())

    def findings(path):
        linter = Linter(str(path))
        assert linter.valid_stac, (path, linter.error_msg)
        return set(linter.create_best_practices_dict())

    monkeypatch.setattr(utilities, "_schema_cache", stored)
    return findings


def test_stac_check_finds_nothing_that_is_ours(output, lint):
    names = {path: path.relative_to(output).parts for path in output.rglob("*.json") if path.name != "run.json"}
    known = {path: OF_A_MODEL if parts[0] == "models" else OF_THE_SOURCE for path, parts in names.items()}
    known |= {path: LOCAL for path in names if path.name in {"catalog.json", "collection.json"}}
    assert {parts[0] for parts in names.values()} == {"catalog.json", "models", "simulated-sentinel-2-l2a-cloudmask"}
    assert {path.name: lint(path) - known[path] for path in names} == {path.name: set() for path in names}


def test_every_tif_of_a_full_output_is_strictly_a_cog(output):
    files = sorted(output.rglob("*.tif"))
    assert {path.stem for path in files} == {
        "cloud_mask", "cloud_probability", "mask_votes", "scl", "shadow_probability",
    }  # fmt: skip
    for file in files:
        assert cog_validate(str(file), strict=True, quiet=True) == (True, [], [])
