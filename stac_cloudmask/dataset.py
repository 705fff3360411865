"""A mask as a georeferenced dataset, for notebooks and further computation."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING

import numpy as np
import xarray as xr
from affine import Affine
from odc.geo.geobox import GeoBox
from odc.geo.xr import xr_coords

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.quicklook import step_of

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from stac_cloudmask.masking import Mask


def to_dataset(mask: Mask) -> xr.Dataset:
    """The arrays of a mask with coordinates and CRS.

    Returns:
        Variables on ``(y, x)``, uint8 with ``_FillValue`` 255: ``cloud_mask`` (0 clear, 1 cloud, 2 cloud shadow),
        ``cloud_probability`` and ``shadow_probability`` (whole percents), and ``mask_votes`` (bits, 0 where nodata).
        ``y`` and ``x`` are the centres of pixels. Where red, green and blue were read there is also ``quicklook``,
        ``(quicklook_y, quicklook_x, rgb)`` uint8: the scene as people see it, sampled at these coordinates;
        ``dataset.cloudmask`` shows it in a notebook.
    """
    grid = mask.grid
    coords = xr_coords(GeoBox(grid.shape, Affine(*grid.transform), grid.code))
    classes = [info for info in CLASSES if info.code != CloudClass.NODATA]
    flags = {
        "flag_values": np.array([info.code for info in classes], np.uint8),
        "flag_meanings": " ".join(info.name for info in classes),
    }
    percent = {"units": "%", "_FillValue": PERCENT_NODATA}
    variables = {
        "cloud_mask": _variable(mask.decision.class_map, {**flags, "_FillValue": int(CloudClass.NODATA)}),
        "cloud_probability": _variable(mask.evidence.cloud, percent),
        "shadow_probability": _variable(mask.evidence.shadow, percent),
        "mask_votes": _variable(mask.decision.votes, {}),
    }
    attrs = {"item_id": mask.sources.item_id}
    if mask.sources.scl is not None:
        attrs["product_mask"] = mask.sources.scl.asset_key
    dataset = xr.Dataset(variables, coords=coords, attrs=attrs)
    return dataset if mask.quicklook is None else _with_quicklook(dataset, mask.quicklook)


def _with_quicklook(dataset: xr.Dataset, quicklook: NDArray[np.uint8]) -> xr.Dataset:
    height, width = dataset["cloud_mask"].shape
    step = step_of((height, width))
    axes = {f"quicklook_{axis}": dataset[axis].values[::step] for axis in ("y", "x")}
    return dataset.assign(quicklook=((*axes, "rgb"), quicklook)).assign_coords(axes)


def _variable(array: NDArray[np.uint8], attrs: Mapping[str, object]) -> xr.Variable:
    return xr.Variable(("y", "x"), array, attrs={**attrs, "grid_mapping": "spatial_ref"})
