from __future__ import annotations

import sys

import pytest

from stac_cloudmask.errors import ModelError
from stac_cloudmask.models.registry import find_model, is_here, list_models, locate

UKIS = ["ukis-csmask-4b-l2a", "ukis-csmask-6b-l2a"]
SEED = [*(f"farmvibes-cloud-{n}" for n in range(1, 6)), "farmvibes-shadow"]


def test_the_catalog_lists_three_models_that_work_offline_and_six_of_farmvibes():
    assert [spec.name for spec in list_models()] == [*UKIS, "fast", *SEED]


@pytest.mark.parametrize("name", UKIS)
def test_bundled_models_are_found_without_importing_their_package(name):
    assert locate(find_model(name)).stat().st_size == find_model(name).file_size
    assert "ukis_csmask" not in sys.modules


def test_farmvibes_models_are_not_here_until_fetched_and_the_error_says_how(tmp_path):
    spec = find_model("farmvibes-cloud-2", role="cloud")
    assert not is_here(spec, tmp_path)
    with pytest.raises(ModelError, match="models fetch farmvibes-cloud-2"):
        locate(spec, tmp_path)


def test_a_model_that_cannot_play_the_role_is_refused_with_those_that_can():
    with pytest.raises(ModelError, match=r"gives shadow, not cloud; these do: ukis.*farmvibes-cloud-5$"):
        find_model("farmvibes-shadow", role="cloud")


def test_an_unknown_name_is_refused_with_the_known_ones():
    with pytest.raises(ModelError, match=r"no model 'ukis'; there are ukis-csmask-4b-l2a"):
        find_model("ukis")


@pytest.mark.parametrize(
    ("file", "name", "role"),
    [("cloud_model2_cpu.onnx", "farmvibes-cloud-2", "cloud"), ("shadow.onnx", "farmvibes-shadow", "shadow")],
)
def test_a_file_with_a_farmvibes_models_name_gets_that_models_contract(tmp_path, file, name, role):
    (tmp_path / file).write_bytes(b"weights")
    spec, contract = find_model(tmp_path / file, role=role), find_model(name)
    assert spec.bands == contract.bands
    assert (spec.activation, spec.outputs, spec.window) == (contract.activation, contract.outputs, contract.window)
    assert locate(spec) == tmp_path / file
    assert spec.sha256 is None


def test_an_onnx_file_of_another_name_needs_an_item(tmp_path):
    with pytest.raises(ModelError, match="MLM item"):
        find_model(tmp_path / "mine.onnx")


def test_the_path_of_an_item_is_a_model(tiny_onnx, model_item):
    path = tiny_onnx([[1, 0], [0, 1], [1, 1]])
    assert locate(find_model(model_item(path), role="shadow")) == path


def test_weights_of_a_package_that_is_not_installed_are_explained(tiny_onnx, model_item):
    spec = find_model(model_item(tiny_onnx([[1, 0], [0, 1], [1, 1]])))
    missing = spec.__class__(**{**spec.__dict__, "href": "package://no_such_package/model.onnx"})
    with pytest.raises(ModelError, match="pip install no_such_package"):
        locate(missing)
    assert not is_here(missing)


@pytest.mark.parametrize(
    "href", ["package://ukis_csmask/../numpy/__init__.py", "package://../x/y", "s3://bucket/m.onnx"]
)
def test_hrefs_that_leave_their_package_or_cannot_be_read_are_refused(tiny_onnx, model_item, href):
    spec = find_model(model_item(tiny_onnx([[1, 0], [0, 1], [1, 1]])))
    with pytest.raises(ModelError):
        locate(spec.__class__(**{**spec.__dict__, "href": href}))
