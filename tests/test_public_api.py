from __future__ import annotations

import subprocess
import sys

import pytest

import stac_cloudmask
from tests.scenes import write_items, write_model


def test_public_names_are_sorted_and_all_there():
    assert stac_cloudmask.__all__ == sorted(stac_cloudmask.__all__) == dir(stac_cloudmask)
    for name in stac_cloudmask.__all__:
        assert getattr(stac_cloudmask, name).__doc__


def test_a_name_that_is_not_there_is_an_attribute_error():
    with pytest.raises(AttributeError, match="no attribute 'unmask'"):
        stac_cloudmask.unmask  # noqa: B018


def test_importing_the_package_loads_no_heavy_library():
    heavy = "{'numpy', 'onnxruntime', 'pystac', 'rasterio', 'xarray'}"
    code = f"import sys, stac_cloudmask; sys.exit(str({heavy} & set(sys.modules)) if {heavy} & set(sys.modules) else 0)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")


def test_masking_in_this_process_loads_nothing_that_dask_needs_for_a_cluster(tmp_path):
    [item], model = write_items(tmp_path / "sources", 1), str(write_model(tmp_path))
    code = (
        f"import sys; from stac_cloudmask import Settings, cloud_mask;"
        f"cloud_mask({str(item)!r}, settings=Settings(cloud_model=({model!r},), shadow_model={model!r}));"
        f"print(sorted({{'dask', 'distributed'}} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.stdout == "['dask']\n", done.stderr
