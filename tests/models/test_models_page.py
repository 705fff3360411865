from __future__ import annotations

import json
import re
from pathlib import Path

import pytest
from offline import Validator

from stac_cloudmask.models.spec import ModelWindow, read_model_item

PAGE = Path(__file__).resolve().parents[2] / "docs" / "models.md"


@pytest.fixture
def documented():
    [text] = re.findall(r"```json\n(.*?)```", PAGE.read_text(), re.DOTALL)
    return json.loads(text)


def test_the_item_of_the_page_is_valid_mlm(documented, shared):
    assert any("/mlm/" in schema for schema in Validator(shared / "data" / "schemas")(documented))


def test_the_item_of_the_page_states_what_the_page_says(documented, tmp_path):
    documented["assets"]["model"]["file:checksum"] = "1220" + "0" * 64
    path = tmp_path / "item.json"
    path.write_text(json.dumps(documented))
    spec = read_model_item(path)
    assert spec.bands == ("blue", "nir")
    assert spec.mean == (0.27, 0.36)
    assert spec.outputs == (("cloud", (1,)), ("shadow", (2,)))
    assert spec.window == ModelWindow(size=512, multiple=32, overlap=32)
