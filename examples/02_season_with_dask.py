"""Mask a season over Dask, and make cloud-free composites of it: with the products' own masks, and with the new ones.

The season is simulated, so that the true clouds are known and the composites can be judged; the same code works on what
scm.search finds. Runs anywhere and offline, and writes into output/season_with_dask:
python examples/02_season_with_dask.py
"""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import odc.stac
import pystac
from distributed import Client
from PIL import Image

import stac_cloudmask as scm
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

if TYPE_CHECKING:
    import xarray as xr

OUT = Path("output/season_with_dask")
DATES, BANDS, OFF = 6, ["red", "green", "blue", "nir"], 0.02


def composite(cube: xr.Dataset, clear: xr.DataArray) -> xr.DataArray:
    """The median of each pixel's clear reflectance, ``(band, y, x)``; NaN where no date is clear."""
    reflectance = cube[BANDS] * 1e-4 - 0.1  # as the items' bands say
    return reflectance.where(clear & (cube.red > 0)).median("time").to_dataarray("band").compute()


def main() -> None:
    """Simulate, mask, load, compose, compare."""
    recipes = [Recipe(height=384, width=384, place=1, seed=5 * date) for date in range(DATES)]
    scenes = [write_simulated_item(OUT / "scenes", recipe) for recipe in recipes]

    with Client(n_workers=2, threads_per_worker=1, dashboard_address=None) as client:  # any Dask cluster will do
        results = scm.process(scenes, out=OUT / "masks", client=client)
        print({status: sum(r.status == status for r in results) for status in ("done", "up-to-date", "failed")})

        # An output item has the bands of its source and the mask, so that both load together
        items = [pystac.Item.from_file(result.output) for result in results if result.output]
        cube = odc.stac.load(items, bands=[*BANDS, "scl", "cloud_mask", "reference"], chunks={}).persist()
        client.run(warnings.simplefilter, "ignore", RuntimeWarning)  # of pixels that are clear on no date
        truth = composite(cube, cube.reference == 0)
        masks = {"none": cube.red > 0, "SCL": ~cube.scl.isin([0, 3, 8, 9, 10]), "improved": cube.cloud_mask == 0}
        made = {name: composite(cube, clear) for name, clear in masks.items()}

    for name, picture in made.items():
        error = abs(picture - truth)
        wrong, empty = (100 * float(part.any("band").mean()) for part in (error > OFF, picture.isnull()))
        text = f"mean error {float(error.mean()):.4f} reflectance, {wrong:.1f} % of pixels off by over {OFF}"
        print(f"{name:<9} {text}, {empty:.1f} % never clear")
    row = np.concatenate([picture[:3].transpose("y", "x", "band") for picture in made.values()], axis=1)
    Image.fromarray((255 * np.clip(np.nan_to_num(row) / 0.3, 0, 1)).astype(np.uint8)).save(OUT / "composites.png")


if __name__ == "__main__":
    main()
