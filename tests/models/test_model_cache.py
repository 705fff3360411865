from __future__ import annotations

import json

import numpy as np
import pytest
from typer.testing import CliRunner

from stac_cloudmask.api import cloud_mask
from stac_cloudmask.cli.app import app
from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ModelError
from stac_cloudmask.models.registry import cached_path
from stac_cloudmask.models.spec import read_model_item
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

WEIGHTS = np.array([[0, 0], [9, 9], [-9, -9]], np.float32)


@pytest.fixture
def fetched(tiny_onnx, model_item, tmp_path):
    """An item whose weights are on the web, and a cache where they have been fetched to."""
    onnx = tiny_onnx(WEIGHTS)
    item = model_item(onnx)
    document = json.loads(item.read_text())
    document["assets"]["model"]["href"] = "https://models.invalid/tiny.onnx"
    item.write_text(json.dumps(document))
    cache = tmp_path / "cache"
    target = cached_path(read_model_item(item), cache)
    target.parent.mkdir(parents=True)
    onnx.rename(target)
    return str(item), str(cache)


@pytest.fixture
def scene(tmp_path):
    return str(write_simulated_item(tmp_path, Recipe(height=32, width=32, bands=("blue", "red"))))


def test_weights_are_taken_from_the_cache_that_the_settings_name(fetched, scene, monkeypatch, tmp_path):
    model, cache = fetched
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "elsewhere"))
    settings = {"cloud_model": (model,), "shadow_model": model}
    assert cloud_mask(scene, settings=Settings(**settings, model_cache=cache)).sizes["x"] == 32
    with pytest.raises(ModelError, match=r"models fetch \S*tiny\.json"):
        cloud_mask(scene, settings=Settings(**settings))


def test_the_command_line_takes_the_cache_from_the_environment(fetched, scene, tmp_path):
    model, cache = fetched
    arguments = ["process", scene, f"--out={tmp_path / 'out'}", f"--cloud-model={model}", f"--shadow-model={model}"]
    for environment, code in (({"XDG_CACHE_HOME": str(tmp_path)}, 1), ({"CLOUDMASK_MODEL_CACHE": cache}, 0)):
        done = CliRunner(env=environment).invoke(app, arguments)
        assert done.exit_code == code, done.output


def test_the_models_commands_know_the_cache(fetched):
    model, cache = fetched
    done = CliRunner().invoke(app, ["models", "show", model, "--json", f"--model-cache={cache}"])
    assert json.loads(done.stdout)["weights_here"] is True
