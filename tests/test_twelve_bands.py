from __future__ import annotations

import numpy as np
import pytest
import rasterio
from farmvibes_items import stand_in
from rasterio.enums import Resampling
from rasterio.vrt import WarpedVRT
from scipy.ndimage import map_coordinates
from typer.testing import CliRunner

from stac_cloudmask.cli.app import app
from stac_cloudmask.core.predict import percent
from stac_cloudmask.farmvibes import improve_cloud_mask
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.stac.bands import resolve
from stac_cloudmask.stac.reader import open_scene
from stac_cloudmask.stac.search import load_items

ID = "S2A_29RKH_20200219_0_L2A"
FILES = ("B01", "B02", "B03", "B04", "B05", "B06", "B07", "B08", "B8A", "B09", "B11", "B12")
"""In the order of FarmVibes.AI's models."""
FACTORS = (6, 1, 1, 1, 2, 2, 2, 1, 2, 6, 2, 2)
NAMES = find_model("farmvibes-cloud-2").bands


@pytest.fixture(scope="module")
def folder(shared):
    return shared / "data" / "sahara-29rkh" / ID


@pytest.fixture(scope="module")
def grid(folder):
    with rasterio.open(folder / "B02.tif") as file:
        return {"crs": file.crs, "transform": file.transform, "width": file.width, "height": file.height}


@pytest.fixture(scope="module")
def dn(folder):
    (item,) = load_items([str(folder / f"{ID}.json")])
    scene = open_scene(resolve(item, NAMES))
    return scene.dn(0, scene.grid.height)


@pytest.fixture(scope="module")
def models(shared, tmp_path_factory):
    stand_ins = shared / "data" / "parity" / "models"
    folder = tmp_path_factory.mktemp("models")
    return {
        "cloud_model": stand_in(stand_ins / "cloud_context.onnx", folder, "cloud_model2_cpu.onnx"),
        "shadow_model": stand_in(stand_ins / "shadow_context.onnx", folder, "shadow.onnx"),
    }


def native(folder, file):
    with rasterio.open(folder / f"{file}.tif") as source:
        return source.read(1)


def warped(folder, file, grid, resampling=Resampling.bilinear):
    """A band on the finest grid as FarmVibes.AI brings it there."""
    with rasterio.open(folder / f"{file}.tif") as source, WarpedVRT(source, resampling=resampling, **grid) as vrt:
        return vrt.read(1)


@pytest.mark.parametrize("index", range(12), ids=NAMES)
def test_each_band_lies_on_the_finest_grid_where_it_belongs(folder, dn, index):
    side, factor = dn.shape[1], FACTORS[index]
    centers = (np.arange(side) + 0.5) / factor - 0.5
    exact = map_coordinates(
        native(folder, FILES[index]).astype(float),
        np.meshgrid(centers, centers, indexing="ij"),
        order=1,
        mode="nearest",
    )
    np.testing.assert_array_equal(dn[index], np.floor(exact + 0.5 + 1e-6))


@pytest.mark.parametrize("index", range(12), ids=NAMES)
def test_gdal_gives_the_same_save_that_its_halves_fall_either_way(folder, grid, dn, index):
    theirs = warped(folder, FILES[index], grid).astype(int)
    assert np.abs(theirs - dn[index]).max() <= 1
    assert (theirs != dn[index]).mean() < 0.03


@pytest.mark.slow
def test_process_gives_what_farmvibes_gives_on_a_stack_of_the_bands(folder, grid, models, tmp_path):
    profile = {"driver": "GTiff", "tiled": True, "blockxsize": 256, "blockysize": 256, **grid}
    with rasterio.open(tmp_path / "s2.tif", "w", count=12, dtype="uint16", nodata=0, **profile) as stack:
        for index, file in enumerate(FILES, start=1):
            stack.write(warped(folder, file, grid), index)
    scl = warped(folder, "SCL", grid, Resampling.nearest)
    with rasterio.open(tmp_path / "product.tif", "w", count=1, dtype="uint8", nodata=100, **profile) as product:
        product.write(np.isin(scl, (0, 8, 9, 10)).astype(np.uint8), 1)
    expected = improve_cloud_mask(s2_raster=tmp_path / "s2.tif", product_mask=tmp_path / "product.tif", **models)

    arguments = ["process", str(folder / f"{ID}.json"), f"--out={tmp_path / 'out'}", "--merge=farmvibes"]
    arguments += [f"--cloud-model={models['cloud_model']}", f"--shadow-model={models['shadow_model']}"]
    done = CliRunner().invoke(app, [*arguments, "--probabilities"])
    assert done.exit_code == 0, done.output

    masks = next((tmp_path / "out").glob(f"*/{ID}_cloudmask"))
    for role in ("cloud", "shadow"):
        ours = native(masks, f"{role}_probability").astype(int)
        theirs = percent(getattr(expected, f"{role}_probability"))
        assert np.abs(ours - theirs).max() <= 1
        assert (ours != theirs).mean() < 0.01
    assert (native(masks, "cloud_mask") != expected.mask).mean() < 1e-4
