"""Show whether windows can be seen in masks: two laws, on real scenes and a simulated one.

    python -m benchmarks.seams [--data DIR] [--hard DIR] [--simulated SIDE]

A scene is masked whole, and again without its first 192 rows and 128 columns, so that its windows lie elsewhere. Of the
pixels 300 and more from the cut at least 99.5 % should keep their class, of those that either mask flags 99 %. And the
mean jump of probability from one row or column to the next should be no larger where windows meet than elsewhere: at
most 1.1 times, over all scenes.
"""

from __future__ import annotations

import argparse
import warnings
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np
import pystac
from numpy.typing import NDArray

from benchmarks.accuracy import DATA, scenes
from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.core.grid import Window
from stac_cloudmask.errors import StacCloudmaskWarning
from stac_cloudmask.pipeline.mask import mask_pixels, passes_of, resolve_sources, sun_of
from stac_cloudmask.review.cubes import ArrayPixels
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item
from stac_cloudmask.stac.reader import open_scene

if TYPE_CHECKING:
    from stac_cloudmask.core.votes import Sun

CUT = (192, 128)
"""Rows and columns that are cut off: multiples of the model's stride, and not of its windows."""
FAR = 300
"""Pixels from the cut on which the law is asked."""
SCENES = ("S2B_33TWL_20230810_0_L2A", "S2A_33TWL_20230818_0_L2A", "ireland_20221005")


@dataclass(frozen=True)
class Held:
    """A scene in memory.

    Attributes:
        pixels: Its digital numbers.
        scl: Its scene classification, and how many pixels of the scene one of its own spans; None without.
        sun: Where the sun stands.
    """

    pixels: ArrayPixels
    scl: tuple[NDArray[np.uint8], int] | None
    sun: Sun | None

    def cut(self, rows: int, cols: int) -> Held:
        """Return the scene without its first rows and columns."""
        height, width = self.pixels.grid.shape
        grid = self.pixels.grid.cut(Window(rows, cols, height - rows, width - cols))
        scl = None if self.scl is None else (self.scl[0][rows // self.scl[1] :, cols // self.scl[1] :], self.scl[1])
        return Held(replace(self.pixels, grid=grid, pixels=self.pixels.pixels[:, rows:, cols:]), scl, self.sun)


@dataclass(frozen=True)
class Masked:
    """Probabilities ``(role, y, x)`` in percent with NaN for nodata, the class map, and its votes."""

    percents: NDArray[np.float32]
    class_map: NDArray[np.uint8]
    votes: NDArray[np.uint8]


def hold(item: pystac.Item) -> Held:
    """Read a scene."""
    has_scl = any(key.lower() == "scl" for key in item.assets)
    settings = Settings(missing_scl="fail" if has_scl else "model-only")
    sources = resolve_sources(item, settings=settings)
    scene = open_scene(sources)
    pixels = ArrayPixels(
        grid=scene.grid,
        bands=scene.bands,
        pixels=scene.dn(0, scene.grid.height),
    )
    return Held(pixels, scene.scl(), sun_of(sources))


def mask(scene: Held) -> Masked:
    """Mask a scene."""
    settings = Settings(missing_scl="model-only" if scene.scl is None else "fail")
    evidence, decision, _ = mask_pixels(scene.pixels, scl=scene.scl, sun=scene.sun, settings=settings)
    percents = np.stack([evidence.cloud, evidence.shadow]).astype(np.float32)
    percents[percents == CloudClass.NODATA] = np.nan
    return Masked(percents, decision.class_map, decision.votes)


def kept(whole: Masked, again: Masked, *, cut: tuple[int, int] = CUT, far: int = FAR) -> tuple[float, float]:
    """Return the share of pixels that keep their class far from a cut, of all and of those that are flagged."""
    first = whole.class_map[cut[0] + far :, cut[1] + far :]
    second = again.class_map[far:, far:]
    valid = first != CloudClass.NODATA
    flagged = valid & ((first != CloudClass.CLEAR) | (second != CloudClass.CLEAR))
    same = first == second
    return float(same[valid].mean()), float(same[flagged].mean()) if flagged.any() else 1.0


def jumps(found: Masked) -> tuple[NDArray[np.float64], NDArray[np.float64]]:
    """Return the mean jump into each row where windows meet, of rows and columns, and of all others.

    Windows meet over all that they share, so these rows are where one begins, where one ends, and the middle.
    """
    height, width = found.class_map.shape
    [one] = passes_of(Settings(), (height, width))
    plan = one.plan
    at, elsewhere = [], []
    for axis, spans in ((1, [row[0].read.rows for row in plan]), (2, [chip.read.cols for chip in plan[0]])):
        with warnings.catch_warnings():
            warnings.simplefilter("ignore", RuntimeWarning)  # rows without data
            jump = np.nanmean(np.abs(np.diff(found.percents, axis=axis)), axis=(0, 3 - axis))
        meet = np.zeros(jump.size, np.bool_)
        for before, after in pairwise(spans):
            meet[[after.start - 1, (after.start + before.stop) // 2 - 1, before.stop - 1]] = True
        at.append(jump[meet])
        elsewhere.append(jump[~meet])
    return np.concatenate(at), np.concatenate(elsewhere)


def chosen(folders: list[Path], side: int, work: Path) -> Iterator[pystac.Item]:
    """Yield the real scenes and one simulated."""
    for folder in folders:
        yield from (item for item in scenes(folder) if item.id in SCENES)
    recipe = Recipe(seed=7, height=side, width=side, bands=("blue", "green", "red", "nir"))
    yield pystac.Item.from_file(str(write_simulated_item(work, recipe)))


def main() -> None:
    """Print both laws."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[DATA, DATA / "hard"], help="folders with a catalog.json"
    )
    parser.add_argument("--simulated", type=int, default=2048, metavar="SIDE", help="side of the simulated scene")
    given = parser.parse_args()
    warnings.simplefilter("ignore", StacCloudmaskWarning)
    at, elsewhere = [], []
    print("| scene | % that keep their class | of flagged pixels |\n| --- | ---: | ---: |")
    with TemporaryDirectory() as work:
        for item in chosen(given.data, given.simulated, Path(work)):
            item.make_asset_hrefs_absolute()
            scene = hold(item)
            whole = mask(scene)
            share, of_flagged = kept(whole, mask(scene.cut(*CUT)))
            print(f"| {item.id} | {100 * share:.2f} | {100 * of_flagged:.2f} |", flush=True)
            for pooled, found in zip((at, elsewhere), jumps(whole), strict=True):
                pooled.append(found)
    ratio = np.nanmean(np.concatenate(at)) / np.nanmean(np.concatenate(elsewhere))
    print(f"\nMean jump of probability where windows meet: {ratio:.2f} times that elsewhere")


if __name__ == "__main__":
    main()
