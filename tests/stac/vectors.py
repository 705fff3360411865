"""Vector files with labels, as other programs write them."""

from __future__ import annotations

import warnings

import numpy as np
import pyogrio
import shapely


def write_vectors(path, features, *, field="class", crs="EPSG:32633", layer=None, **options):
    """Write ``(geometry, properties)`` whose coordinates are in ``crs``, one property of each as a column."""
    shapes = [None if geometry is None else shapely.geometry.shape(geometry) for geometry, _ in features]
    values = np.array([properties[field] for _, properties in features], dtype=object)
    with warnings.catch_warnings(action="ignore"):  # of a file without a CRS
        pyogrio.raw.write(
            path, shapely.to_wkb(np.array(shapes, dtype=object)), [values], [field], geometry_type="Unknown", crs=crs,
            layer=layer, append=path.exists(), **options,
        )  # fmt: skip
    return path
