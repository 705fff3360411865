from __future__ import annotations

import json

import numpy as np
import pytest
from pystac.validation import validate_dict
from pystac.validation.stac_validator import JsonSchemaSTACValidator

from stac_cloudmask.core.grid import plan_chips
from stac_cloudmask.models.registry import catalog_folder, is_here, list_models
from stac_cloudmask.models.session import OnnxSegmenter

TILE = 10980


@pytest.fixture(scope="session")
def offline(shared):
    validator = JsonSchemaSTACValidator()
    root = shared / "data" / "schemas"
    for path in root.rglob("*.json"):
        validator.schema_cache.setdefault("https://" + path.relative_to(root).as_posix(), json.loads(path.read_text()))
    return validator


@pytest.mark.parametrize(
    "path", [catalog_folder() / "catalog.json", *sorted(catalog_folder().glob("*/*.json"))], ids=lambda path: path.stem
)
def test_catalog_and_items_are_valid_stac(path, offline):
    assert validate_dict(json.loads(path.read_text()), validator=offline)


@pytest.mark.parametrize("spec", list_models(), ids=lambda spec: spec.name)
def test_items_state_licence_source_checksum_and_size(spec):
    assert spec.license in {"Apache-2.0", "MIT"}
    assert spec.source.startswith("https://github.com/")
    assert len(spec.sha256) == 64
    assert spec.file_size > 20_000


@pytest.mark.parametrize("spec", list_models(), ids=lambda spec: spec.name)
def test_little_of_a_tile_is_computed_twice(spec):
    window = spec.window
    rows = plan_chips(TILE, TILE, size=window.size, overlap=window.overlap, multiple=window.multiple)
    computed = sum(max(c.read.height, window.size) * max(c.read.width, window.size) for row in rows for c in row)
    assert computed <= 1.5 * TILE**2


def golden_chip(bands):
    """Ground, a bright disk and a dark one, with a smooth pattern."""
    y, x = np.mgrid[:128, :128].astype(np.float32)
    ground = 0.1 + 0.02 * np.sin(x / 7) * np.cos(y / 5)
    bright = 0.5 / (1 + np.exp((np.hypot(x - 40, y - 40) - 20) / 3))
    dark = 0.8 / (1 + np.exp((np.hypot(x - 85, y - 80) - 20) / 2))
    return np.stack([(ground * (1 + 0.3 * band) * (1 - dark) + bright) for band in range(len(bands))])[None]


@pytest.mark.parametrize(
    ("name", "cloud", "shadow"),
    [("ukis-csmask-4b-l2a", 0.9111, 0.0887), ("ukis-csmask-6b-l2a", 0.1669, 0.8318)],
)
def test_bundled_models_give_what_they_gave(name, cloud, shadow):
    [spec] = [spec for spec in list_models() if spec.name == name]
    assert is_here(spec)
    answer = OnnxSegmenter(spec, threads=1).predict(golden_chip(spec.bands))
    assert answer["cloud"].mean() == pytest.approx(cloud, abs=1e-3)
    assert answer["shadow"].mean() == pytest.approx(shadow, abs=1e-3)
