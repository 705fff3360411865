from __future__ import annotations

import contextlib
import json
import pickle
from dataclasses import replace

import pytest
from hypothesis import HealthCheck, given, settings, strategies as st

from stac_cloudmask.errors import ConfigError, ModelError
from stac_cloudmask.models.spec import ModelSpec, ModelWindow, read_model_item, shared_window

HERE = [[1, 0], [0, 1], [1, 1]]


@pytest.fixture
def item(tiny_onnx, model_item):
    return model_item(tiny_onnx(HERE))


def edit(path, change):
    document = json.loads(path.read_text())
    change(document)
    path.write_text(json.dumps(document))
    return path


def test_an_item_states_the_whole_contract(tiny_onnx, model_item):
    path = model_item(
        tiny_onnx(HERE),
        value_scaling=[{"type": "z-score", "mean": 0.1, "stddev": 0.2}, {"type": "scale", "value": 4}],
        license="MIT",
        **{"stac_cloudmask:gsd": [10, 30]},
    )
    spec = read_model_item(path)
    assert spec.bands == ("blue", "red")
    assert (spec.mean, spec.std) == ((0.1, 0.0), (0.2, 4.0))
    assert spec.activation == "softmax"
    assert spec.outputs == (("cloud", (1,)), ("shadow", (2,)))
    assert spec.window == ModelWindow(size=64, multiple=8, overlap=8)
    assert (spec.gsd, spec.license) == ((10.0, 30.0), "MIT")
    assert spec.href == (path.parent / "tiny.onnx").as_posix()
    assert spec.item_href == path.as_posix()
    assert spec.input_kind == "reflectance"


def test_a_spec_travels_to_other_processes(item):
    spec = read_model_item(item)
    assert pickle.loads(pickle.dumps(spec)) == spec  # noqa: S301  (our own bytes)


def test_one_scaling_serves_all_bands(tiny_onnx, model_item):
    scaling = [{"type": "min-max", "minimum": 1, "maximum": 3}]
    spec = read_model_item(model_item(tiny_onnx(HERE), value_scaling=scaling))
    assert (spec.mean, spec.std) == ((1.0, 1.0), (2.0, 2.0))


def test_an_offset_is_subtracted(tiny_onnx, model_item):
    spec = read_model_item(model_item(tiny_onnx(HERE), value_scaling=[{"type": "offset", "value": 0.5}]))
    assert (spec.mean, spec.std) == ((0.5, 0.5), (1.0, 1.0))


def test_one_sigmoid_channel_is_that_of_class_one(tiny_onnx, model_item):
    path = model_item(
        tiny_onnx([[1, 1]]), classes=("background", "cloud_shadow"), channels=1, activation="scipy.special.expit"
    )
    spec = read_model_item(path)
    assert (spec.outputs, spec.roles, spec.channels) == ((("shadow", (0,)),), ("shadow",), 1)


def test_several_classes_can_make_one_role(tiny_onnx, model_item):
    roles = {"cloud": ["thick", "thin"]}
    path = model_item(tiny_onnx(HERE), classes=("clear", "thick", "thin"), **{"stac_cloudmask:roles": roles})
    assert read_model_item(path).outputs == (("cloud", (1, 2)),)


def test_bands_may_be_named_otherwise_if_their_common_name_is_given(tiny_onnx, model_item):
    described = [{"name": "B02", "eo:common_name": "blue"}, {"name": "B04", "eo:common_name": "red"}]
    path = model_item(tiny_onnx(HERE), bands=("B02", "B04"))
    assert read_model_item(edit(path, lambda d: d["properties"].update(bands=described))).bands == ("blue", "red")


def test_a_fixed_window_is_taken_from_the_shape(tiny_onnx, model_item):
    path = edit(model_item(tiny_onnx(HERE), side=256), lambda d: d["properties"].pop("stac_cloudmask:window"))
    assert read_model_item(path).window == ModelWindow(size=256, multiple=0, overlap=32)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda d: d.update(id="../../cache"), "its id"),
        (lambda d: d["properties"].pop("mlm:input"), "lacks 'mlm:input'"),
        (lambda d: d["properties"]["mlm:input"].append({}), "exactly one"),
        (lambda d: d["properties"]["mlm:input"][0].update(bands=["blue", "B99"]), "common names"),
        (lambda d: d["properties"]["mlm:input"][0].update(bands=["blue", "blue"]), "common names"),
        (lambda d: d["properties"]["mlm:input"][0].update(bands=["blue", "red", "nir"]), "3 bands"),
        (lambda d: d["properties"]["mlm:input"][0].update(value_scaling=[{"type": "clip"}]), "not supported"),
        (lambda d: d["properties"]["mlm:input"][0].update(value_scaling=[{"type": "scale", "value": 0}]), "above 0"),
        (
            lambda d: d["properties"]["mlm:input"][0].update(value_scaling=[{"type": "scale", "value": 1}] * 3),
            "entries",
        ),
        (lambda d: d["properties"]["mlm:input"][0]["input"].update(data_type="uint16"), "float32"),
        (lambda d: d["properties"]["mlm:input"][0]["input"].update(shape=[-1, 2, 64, 32]), "square"),
        (lambda d: d["properties"]["mlm:input"][0]["input"].update(dim_order=["height", "width"]), "dim_order"),
        (lambda d: d["properties"]["mlm:output"][0]["result"].update(shape=[-1, -1, -1, -1]), "channels"),
        (lambda d: d["properties"]["mlm:output"][0]["result"].update(shape=[-1, 2, -1, -1]), "but there are 2"),
        (lambda d: d["properties"]["mlm:output"][0]["classification:classes"].clear(), "no output class"),
        (lambda d: d["properties"]["mlm:output"][0]["post_processing_function"].update(expression="f"), "supported"),
        (lambda d: d["properties"].pop("stac_cloudmask:window"), "must state them"),
        (lambda d: d["properties"]["stac_cloudmask:window"].update(overlap=64), "overlap"),
        (lambda d: d["properties"]["stac_cloudmask:window"].update(size=10**9), "8192"),
        (lambda d: d["properties"]["stac_cloudmask:window"].update(multiple=7), "multiple"),
        (lambda d: d["properties"].update({"stac_cloudmask:input_kind": "radiance"}), "radiance"),
        (lambda d: d["properties"].update({"stac_cloudmask:gsd": [10]}), "unpack"),
        (lambda d: d["assets"]["model"].update(roles=["data"]), "mlm:model"),
        (lambda d: d["assets"]["model"].update({"file:checksum": "1620" + "0" * 64}), "SHA-256"),
    ],
)
def test_what_an_item_cannot_mean_is_refused_by_name(item, change, says):
    with pytest.raises(ModelError, match=says) as error:
        read_model_item(edit(item, change))
    assert item.name in str(error.value)


def test_a_fixed_window_that_contradicts_the_shape_is_refused(tiny_onnx, model_item):
    window = {"size": 64, "multiple": 0, "overlap": 8}
    with pytest.raises(ModelError, match="fixes 64"):
        read_model_item(model_item(tiny_onnx(HERE), side=32, **{"stac_cloudmask:window": window}))


def test_a_softmax_of_one_channel_is_refused(tiny_onnx, model_item):
    with pytest.raises(ModelError, match="at least two"):
        read_model_item(model_item(tiny_onnx([[1, 1]]), classes=("background", "cloud"), channels=1))


def test_sigmoids_do_not_add_up(tiny_onnx, model_item):
    roles = {"cloud": ["thick", "thin"]}
    with pytest.raises(ModelError, match="add up"):
        read_model_item(
            model_item(
                tiny_onnx(HERE),
                classes=("clear", "thick", "thin"),
                activation="scipy.special.expit",
                **{"stac_cloudmask:roles": roles},
            )
        )


@pytest.mark.parametrize("content", ["", "[]", "not json", '"text"', "x" * 1_000_001])
def test_files_that_are_no_items_are_refused(tmp_path, content):
    path = tmp_path / "item.json"
    path.write_text(content)
    with pytest.raises(ModelError, match=r"item\.json"):
        read_model_item(path)


def test_a_missing_item_is_said_to_be_missing(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        read_model_item(tmp_path / "none.json")


def places(node, path=()):
    yield path
    children = node.items() if isinstance(node, dict) else enumerate(node) if isinstance(node, list) else ()
    for key, child in children:
        yield from places(child, (*path, key))


junk = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
)


@given(st.data())
@settings(max_examples=100, suppress_health_check=[HealthCheck.function_scoped_fixture])
def test_an_item_with_junk_anywhere_is_read_or_refused_and_nothing_else(item, data):
    text = item.read_text()
    document = json.loads(text)
    *parents, last = data.draw(st.sampled_from([path for path in places(document) if path]))
    node = document
    for key in parents:
        node = node[key]
    node[last] = data.draw(junk)
    item.write_text(json.dumps(document))
    with contextlib.suppress(ModelError):
        assert isinstance(read_model_item(item), ModelSpec)
    item.write_text(text)


def test_an_item_nested_beyond_reason_is_refused(tmp_path):
    path = tmp_path / "item.json"
    path.write_text("[" * 200_000)
    with pytest.raises(ModelError, match="cannot be read"):
        read_model_item(path)


@pytest.mark.parametrize(
    ("windows", "shared"),
    [
        ([(512, 32, 32)], (512, 32, 32)),
        ([(512, 32, 32), (512, 0, 56)], (512, 0, 56)),
        ([(512, 32, 32), (256, 16, 64)], (256, 32, 64)),
        ([(96, 32, 32), (64, 16, 8), (60, 20, 8)], (160, 160, 32)),
        ([(256, 0, 8), (256, 0, 16)], (256, 0, 16)),
    ],
)
def test_models_share_the_windows_that_suit_all(item, windows, shared):
    spec = read_model_item(item)
    specs = [replace(spec, window=ModelWindow(size=s, multiple=m, overlap=o)) for s, m, o in windows]
    size, multiple, overlap = shared
    assert shared_window(specs) == ModelWindow(size=size, multiple=multiple, overlap=overlap)


def test_models_that_fix_different_windows_do_not_run_together(item):
    spec = read_model_item(item)
    specs = [replace(spec, window=ModelWindow(size=size, multiple=0, overlap=0)) for size in (256, 512)]
    with pytest.raises(ConfigError, match="tiny 256, tiny 512"):
        shared_window(specs)
