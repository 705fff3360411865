from __future__ import annotations

from pathlib import Path

import numpy as np
import onnx
import pytest
import rasterio
from onnx import TensorProto, helper, numpy_helper
from parity import CASES, PROCESSORS, options_of, read, settled

from stac_cloudmask.core.merge import merge_farmvibes
from stac_cloudmask.errors import ConfigError, ModelError, ReadError, UnsupportedItemError
from stac_cloudmask.farmvibes import PROBABILITY_NODATA, flagged_pixels, improve_cloud_mask


@pytest.fixture(scope="session")
def parity(shared):
    return shared / "data" / "parity"


@pytest.fixture(scope="session")
def models(parity):
    return {
        "cloud_model": parity / "models/cloud_pixelwise.onnx",
        "shadow_model": parity / "models/shadow_context.onnx",
    }


def run(parity, case):
    options = options_of(parity, case)
    clouds = [parity / "models" / name for name in options["cloud_onnx"]]
    names = ("cloud_thr", "shadow_thr", "closing_size", "min_area", "window_size", "overlap", "in_memory")
    return improve_cloud_mask(
        s2_raster=parity / "s2.tif",
        product_mask=parity / "product_mask.tif",
        cloud_model=clouds if len(clouds) > 1 else clouds[0],
        shadow_model=parity / "models" / options["shadow_onnx"],
        **{name: options[name] for name in names},
    )


@pytest.mark.slow
@pytest.mark.parametrize("case", CASES)
def test_farmvibes_own_operators_gave_the_same(parity, case):
    result = run(parity, case)
    sure = settled(parity, case)
    assert sure.mean() > 0.9
    np.testing.assert_array_equal(result.mask[sure], read(parity / case / "merged_mask.tif")[sure])
    for ours, file in ((result.cloud_probability, "cloud_prob.tif"), (result.shadow_probability, "shadow_prob.tif")):
        assert ours.dtype == np.float32
        np.testing.assert_allclose(ours, read(parity / case / file), rtol=0, atol=PROCESSORS)


@pytest.mark.parametrize("case", CASES)
def test_the_merge_of_farmvibes_own_probabilities_is_theirs_to_the_bit(parity, case):
    options = options_of(parity, case)
    cloud, shadow = (read(parity / case / f"{role}_prob.tif") for role in ("cloud", "shadow"))
    if len(options["cloud_onnx"]) > 1:
        cloud[cloud == PROBABILITY_NODATA] = np.nan
    thresholds = {name: options[name] for name in ("cloud_thr", "shadow_thr")}
    flagged = flagged_pixels(cloud, shadow, read(parity / "product_mask.tif"), **thresholds)
    merged = merge_farmvibes(flagged, closing_size=options["closing_size"], min_area=options["min_area"])
    np.testing.assert_array_equal(merged, read(parity / case / "merged_mask.tif"))


def crop(source_path, target, *, rows, cols, **changes):
    with rasterio.open(source_path) as source:
        pixels = source.read(window=((0, rows), (0, cols)))
        profile = {**source.profile, "height": rows, "width": cols, "tiled": False, "blockxsize": cols, **changes}
    with rasterio.open(target, "w", **profile) as file:
        file.write(pixels)
    return target


@pytest.fixture
def small(parity, tmp_path):
    return {
        "s2_raster": crop(parity / "s2.tif", tmp_path / "s2.tif", rows=90, cols=130),
        "product_mask": crop(parity / "product_mask.tif", tmp_path / "mask.tif", rows=90, cols=130),
    }


@pytest.mark.slow
def test_a_raster_smaller_than_a_window_gives_what_it_gives_in_a_larger_one(parity, small, models):
    whole = run(parity, "pixelwise_inmem")
    result = improve_cloud_mask(**small, **models)
    valid = result.cloud_probability <= 1
    assert result.mask.shape == (90, 130)
    np.testing.assert_array_equal(valid, whole.cloud_probability[:90, :130] <= 1)
    np.testing.assert_allclose(
        result.cloud_probability[valid], whole.cloud_probability[:90, :130][valid], rtol=0, atol=PROCESSORS
    )


def test_the_result_is_the_same_read_whole_or_in_windows(small, models):
    streamed = improve_cloud_mask(**small, **models, window_size=64)
    whole = improve_cloud_mask(**small, **models, window_size=64, in_memory=True)
    np.testing.assert_array_equal(streamed.mask, whole.mask)
    np.testing.assert_array_equal(streamed.cloud_probability, whole.cloud_probability)


def test_the_bundled_model_can_play_both_parts(small):
    name = "ukis-csmask-4b-l2a"
    result = improve_cloud_mask(**small, cloud_model=name, shadow_model=name)
    assert set(np.unique(result.mask)) <= {0, 1}


def test_without_a_nodata_tag_zeros_are_data(parity, small, models, tmp_path):
    with rasterio.open(small["s2_raster"], "r+") as file:
        pixels = file.read()
        pixels[:, :20, :20] = 0
        pixels[3, 20:30, :20] = 0
        file.write(pixels)
    tagged = improve_cloud_mask(**small, **models)
    with rasterio.open(small["s2_raster"], "r+") as file:
        file.nodata = None
    plain = improve_cloud_mask(**small, **models)
    assert (tagged.cloud_probability[:30, :20] == 100).all()
    assert (plain.cloud_probability <= 1).all()
    windows = improve_cloud_mask(**small, **models, window_size=20)  # the first holds nothing but zeros
    assert (windows.cloud_probability <= 1).all()


def test_a_raster_of_other_bands_is_refused(parity, small, models):
    with pytest.raises(UnsupportedItemError, match=r"has 1 bands; 12 are expected: coastal, blue"):
        improve_cloud_mask(**{**small, "s2_raster": small["product_mask"]}, **models)


def test_a_product_mask_on_another_grid_is_refused(parity, small, models):
    with pytest.raises(UnsupportedItemError, match="another grid"):
        improve_cloud_mask(**{**small, "product_mask": parity / "product_mask.tif"}, **models)


def test_a_raster_of_reflectance_is_refused(parity, small, models, tmp_path):
    floats = crop(parity / "s2.tif", tmp_path / "f.tif", rows=8, cols=8, dtype="float32")
    with pytest.raises(UnsupportedItemError, match="holds float32"):
        improve_cloud_mask(**{**small, "s2_raster": floats}, **models)


def test_a_raster_that_is_not_there_is_a_read_error(small, models):
    with pytest.raises(ReadError, match=r"none\.tif"):
        improve_cloud_mask(**{**small, "s2_raster": Path("none.tif")}, **models)


@pytest.mark.parametrize("wrong", [{"cloud_model": ()}, {"window_size": 0}, {"overlap": 1.0}])
def test_what_cannot_work_is_a_config_error(small, models, wrong):
    with pytest.raises(ConfigError):
        improve_cloud_mask(**{**small, **models, **wrong})


def test_the_seeds_own_models_must_be_fetched_first(small, tmp_path):
    with pytest.raises(ModelError, match=rf"no weights at {tmp_path}.*models fetch farmvibes-cloud-2"):
        improve_cloud_mask(**small, model_cache=tmp_path)


def test_models_in_another_window_than_their_file_fixes_are_refused(small, tiny_12_bands, models):
    with pytest.raises(ModelError, match="wants windows of 512 x 512"):
        improve_cloud_mask(**small, cloud_model=tiny_12_bands, shadow_model=models["shadow_model"], window_size=256)


def test_models_of_a_fixed_window_work(small, tiny_12_bands, models):
    result = improve_cloud_mask(**small, cloud_model=tiny_12_bands, shadow_model=models["shadow_model"])
    valid = result.cloud_probability <= 1
    np.testing.assert_allclose(result.cloud_probability[valid], 0.5, atol=1e-6)


@pytest.fixture
def tiny_12_bands(tmp_path):
    kernel = numpy_helper.from_array(np.zeros((2, 12, 1, 1), np.float32), "kernel")
    given, result = (
        helper.make_tensor_value_info(name, TensorProto.FLOAT, [1, channels, 512, 512])
        for name, channels in (("x", 12), ("y", 2))
    )
    graph = helper.make_graph([helper.make_node("Conv", ["x", "kernel"], ["y"])], "tiny", [given], [result], [kernel])
    path = tmp_path / "fixed.onnx"
    onnx.save(helper.make_model(graph, opset_imports=[helper.make_opsetid("", 17)], ir_version=8), path)
    return path
