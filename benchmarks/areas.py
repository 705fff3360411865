"""A box of 5 km in a tile of local COGs beside the whole tile: time, memory, and what of the mask is the same.

    python -m benchmarks.areas [--side 10980] [--box 500] [--folder DIR] [--json FILE]

Each is masked in a process of its own. Time is that of reading, inference and merge, after libraries are loaded and
the model has run once; memory is what the process takes beyond that at most. The tile is one simulated scene again and
again, which is written in seconds; masking it takes some four minutes on two cores that do nothing else.
"""

from __future__ import annotations

import argparse
import json
from math import cos, radians
from pathlib import Path
from tempfile import TemporaryDirectory
from time import perf_counter
from typing import TYPE_CHECKING

import numpy as np
from shapely.geometry import shape

from benchmarks.apart import apart, peak_megabytes, source_item
from benchmarks.tile import BANDS

if TYPE_CHECKING:
    from benchmarks.apart import Figures


def main(arguments: list[str] | None = None) -> None:
    """Measure both, compare the masks, print a table."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--side", type=int, default=10980, help="pixels of 10 m along the side of the tile")
    parser.add_argument("--box", type=int, default=500, help="pixels along the side of the box")
    parser.add_argument("--folder", type=Path, help="where the tile is simulated, or lies from an earlier run")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.only:
        print(json.dumps(measure(given.only[0], int(given.only[1]))))
        return
    with TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        item = tile(folder / f"tile-{given.side}", given.side)
        part, whole = (apart("benchmarks.areas", item, str(box)) for box in (given.box, 0))
        figures = {"box": part, "tile": whole, "same %": same(Path(item).parent, given.box)}
    for name in ("seconds", "megabytes", "pixels"):
        print(f"{name:<10} box {part[name]:>12.2f}  tile {whole[name]:>14.2f}  1/{whole[name] / part[name]:.1f}")
    print(f"same       {figures['same %']:.3f} % of the pixels of the box")
    if given.json:
        given.json.write_text(json.dumps(figures, indent=1))


def tile(folder: Path, side: int) -> str:
    """The item's file; the tile is made unless it is there."""
    from stac_cloudmask.simulate.scene import Recipe, write_simulated_item  # noqa: PLC0415

    if there := next(folder.glob("*/*/tile.json"), None):
        return str(there)
    recipe = Recipe(height=side, width=side, seed=3, bands=BANDS)
    return str(write_simulated_item(folder, recipe, item_id="tile"))


def measure(path: str, box: int) -> Figures:
    """Mask an item, or a box of so many pixels in its middle, and tell what that took."""
    from stac_cloudmask.config import Settings  # noqa: PLC0415  (each process loads what it needs)
    from stac_cloudmask.pipeline.mask import area_of, make_mask, models_of, segmenter  # noqa: PLC0415
    from stac_cloudmask.stac.reader import load_library  # noqa: PLC0415

    item, settings = source_item(path), Settings()
    if box:
        lon, lat = shape(item.geometry).centroid.coords[0]
        half = box * 5 / 111_320
        east = half / cos(radians(lat))
        settings = Settings(area=area_of(bbox=(lon - east, lat - half, lon + east, lat + half)))
    load_library(settings.loader)
    for spec in models_of(settings):
        segmenter(spec, settings).predict(
            np.zeros((1, len(spec.bands), spec.window.size, spec.window.size), np.float32)
        )
    with_libraries = peak_megabytes()
    begun = perf_counter()
    mask = make_mask(item, settings=settings)
    seconds = perf_counter() - begun
    np.savez(Path(path).parent / f"mask-{box}", codes=mask.decision.class_map, bounds=mask.grid.bounds)
    return {"seconds": seconds, "megabytes": peak_megabytes() - with_libraries, "pixels": mask.decision.class_map.size}


def same(folder: Path, box: int) -> float:
    """Percent of the pixels of the box whose class is that of the whole tile's mask."""
    part, whole = (np.load(folder / f"mask-{size}.npz") for size in (box, 0))
    col, row = ((part["bounds"][[0, 3]] - whole["bounds"][[0, 3]]) * (1, -1) / 10).astype(int)
    height, width = part["codes"].shape
    return float(100 * np.mean(part["codes"] == whole["codes"][row : row + height, col : col + width]))


if __name__ == "__main__":
    main()
