from __future__ import annotations

import numpy as np
import pytest
from farmvibes_items import parity_item, stand_in, windowed_item
from parity import CASES, PROCESSORS, options_of, read, settled
from typer.testing import CliRunner

from stac_cloudmask.cli.app import app
from stac_cloudmask.core.predict import percent

pytestmark = pytest.mark.slow

MASK = "sentinel-2-l2a-cloudmask/S2_parity_cloudmask"
GSD = 10


@pytest.fixture(scope="session")
def parity(shared):
    return shared / "data" / "parity"


@pytest.fixture(scope="module")
def item(parity, tmp_path_factory):
    return parity_item(parity, tmp_path_factory.mktemp("parity"))


def models(parity, options, folder):
    """Arguments that name the models of a case, and cut its windows."""
    size, overlap = options["window_size"], int(options["window_size"] * options["overlap"])
    files = [parity / "models" / name for name in (*options["cloud_onnx"], options["shadow_onnx"])]
    if size == 512:
        names = [*(f"cloud_model{i}_cpu.onnx" for i in range(1, len(files))), "shadow.onnx"]
        paths = [stand_in(file, folder, name) for file, name in zip(files, names, strict=True)]
    else:
        likes = ("farmvibes-cloud-2", "farmvibes-shadow")
        paths = [
            windowed_item(file, folder, like=like, size=size, overlap=overlap)
            for file, like in zip(files, likes, strict=True)
        ]
    return [*(f"--cloud-model={path}" for path in paths[:-1]), f"--shadow-model={paths[-1]}"]


def process(item, out, *options):
    arguments = ["process", str(item), f"--out={out}", "--merge=farmvibes", "--boa-offset=0", "--probabilities"]
    done = CliRunner().invoke(app, [*arguments, *options])
    assert done.exit_code == 0, done.output
    return out / MASK


@pytest.mark.parametrize("case", CASES)
def test_process_gives_what_farmvibes_own_operators_gave(parity, item, case, tmp_path):
    options = options_of(parity, case)
    arguments = [
        *models(parity, options, tmp_path),
        f"--cloud-thr={options['cloud_thr']}",
        f"--shadow-thr={options['shadow_thr']}",
        f"--buffer={options['closing_size'] * GSD}",
        f"--min-area={options['min_area'] * GSD**2}",
        *(["--in-memory"] if options["in_memory"] else []),
    ]
    masks = process(item, tmp_path / "out", *arguments)
    sure = settled(parity, case)
    np.testing.assert_array_equal(read(masks / "cloud_mask.tif")[sure], read(parity / case / "merged_mask.tif")[sure])
    probability, nodata = read(parity / case / "cloud_prob.tif"), read(parity / case / "shadow_prob.tif") == 100
    least, most = (percent(np.where(nodata, 0, probability + by).clip(0, 1)) for by in (-PROCESSORS, PROCESSORS))
    found = read(masks / "cloud_probability.tif")
    np.testing.assert_array_equal(found == 255, nodata)
    assert ((least <= found) & (found <= most))[~nodata].all()
    assert (least == most).mean() > 0.99
