from __future__ import annotations

import numpy as np
import onnx
import onnxruntime
import pytest
from onnx import TensorProto, helper

from stac_cloudmask.errors import ChecksumError, ModelError
from stac_cloudmask.models.graph import load_graph
from stac_cloudmask.models.registry import find_model, locate, with_weights
from stac_cloudmask.models.spec import read_model_item

HERE = [[1, 0], [0, 1], [1, 1]]


@pytest.fixture
def spec_of(model_item):
    def make(path, **options):
        return read_model_item(model_item(path, checked=False, **options))

    return make


def change(path, edit):
    model = onnx.load(path, load_external_data=False)
    edit(model)
    path.write_bytes(model.SerializeToString())
    return path


def test_a_fitting_file_with_a_fixed_window_is_taken_byte_for_byte(tiny_onnx, spec_of):
    path = tiny_onnx(HERE, side=64)
    spec = spec_of(path, **{"stac_cloudmask:window": {"size": 64, "multiple": 0, "overlap": 8}})
    assert load_graph(path, spec, local_means=True) == path.read_bytes()


def test_a_fixed_window_is_freed_where_the_item_allows_it(tiny_onnx, spec_of):
    path = tiny_onnx(HERE, side=32)
    session = onnxruntime.InferenceSession(load_graph(path, spec_of(path)))
    chips = np.ones((1, 2, 48, 56), np.float32)
    assert session.run(None, {"chips": chips})[0].shape == (1, 3, 48, 56)


def test_the_freed_ukis_graph_gives_the_same_as_the_fixed_one_where_both_run():
    spec = find_model("ukis-csmask-4b-l2a")
    chips = np.random.default_rng(0).normal(0, 1, (1, 4, 256, 256)).astype(np.float32)
    fixed = onnxruntime.InferenceSession(locate(spec)).run(None, {"input": chips})[0]
    freed = onnxruntime.InferenceSession(load_graph(locate(spec), spec)).run(None, {"input": chips})[0]
    np.testing.assert_array_equal(freed, fixed)


def test_a_fixed_window_other_than_the_items_is_refused(tiny_onnx, spec_of):
    path = tiny_onnx(HERE, side=32)
    window = {"stac_cloudmask:window": {"size": 64, "multiple": 0, "overlap": 8}}
    with pytest.raises(ModelError, match="wants windows of 32 x 32, but the item of 'tiny' says 64"):
        load_graph(path, spec_of(path, **window))


def test_other_channels_than_the_items_are_refused(tiny_onnx, spec_of):
    path = tiny_onnx(HERE)
    with pytest.raises(ModelError, match="its input has 2 channels, but the item of 'tiny' says 3"):
        load_graph(path, spec_of(path, bands=("blue", "red", "nir")))
    with pytest.raises(ModelError, match="its output has 3 channels, but the item of 'tiny' says 4"):
        load_graph(path, spec_of(path, classes=("background", "cloud", "cloud_shadow", "snow")))


def external(model):
    tensor = model.graph.initializer[0]
    tensor.data_location = TensorProto.EXTERNAL
    tensor.external_data.add(key="location", value="../../etc/passwd")
    tensor.ClearField("raw_data")


def absurd_window(model):
    for side in model.graph.input[0].type.tensor_type.shape.dim[2:]:
        side.dim_value = 10**6


def custom_operator(model):
    model.graph.node[0].domain = "evil.example"


def second_input(model):
    model.graph.input.append(helper.make_tensor_value_info("more", TensorProto.FLOAT, [1]))


def flat_input(model):
    del model.graph.input[0].type.tensor_type.shape.dim[0]


def integer_input(model):
    model.graph.input[0].type.tensor_type.elem_type = TensorProto.UINT16


@pytest.mark.parametrize(
    ("unfit", "says"),
    [
        (external, "is in another file"),
        (absurd_window, "at most 8192"),
        (custom_operator, r"is not valid ONNX"),
        (second_input, "has 2 inputs"),
        (flat_input, "3 axes"),
        (integer_input, "not float32"),
    ],
)
def test_unfit_graphs_are_refused_before_anything_runs(tiny_onnx, spec_of, unfit, says):
    path = change(tiny_onnx(HERE), unfit)
    with pytest.raises(ModelError, match=says):
        load_graph(path, spec_of(path))


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "an empty file"),
        (b"version https://git-lfs.github.com/spec/v1\noid sha256:45de\nsize 56973507\n", "Git LFS pointer"),
        (b"\n<!DOCTYPE html><html>Sign in</html>", "web page"),
        (b'{"type": "Feature"}', "JSON"),
        (b"PK\x03\x04torch", "PyTorch checkpoint"),
        (b"\xff" * 100, "not an ONNX file"),
        (b"\x08\x08", "holds no graph"),
    ],
)
def test_files_that_are_not_onnx_are_told_what_they_are(tmp_path, content, says):
    path = tmp_path / "shadow.onnx"
    path.write_bytes(content)
    with pytest.raises(ModelError, match=says) as error:
        load_graph(path, find_model(path))
    assert "shadow.onnx" in str(error.value)


def test_a_file_that_cannot_be_read_is_a_model_error(tmp_path):
    with pytest.raises(ModelError, match="cannot be read"):
        load_graph(tmp_path, with_weights(find_model("farmvibes-shadow"), tmp_path))


def test_other_bytes_than_the_item_promises_are_refused(tiny_onnx, model_item):
    path = tiny_onnx(HERE)
    spec = read_model_item(model_item(path))
    tiny_onnx([[2, 0], [0, 1], [1, 1]])
    with pytest.raises(ChecksumError, match="SHA-256"):
        load_graph(path, spec)
    path.write_bytes(path.read_bytes()[:-5])
    with pytest.raises(ChecksumError, match="cut off"):
        load_graph(path, spec)
