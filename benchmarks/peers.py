"""The same pixels through ukis-csmask, whose weights this package uses, and through this package and its runtimes.

    python -m benchmarks.peers [--side 2048] [--runs 3] [--json FILE]

Both start from the same local COGs of a simulated scene and end with cloud and shadow in memory: ukis-csmask reads
them with rasterio and asks `CSmask`; this package reads, asks and merges by `make_mask`, with SCL and all its rules.
Each runs in a process of its own, in turn; figures are medians. Agreement is that of the most likely class with
ukis-csmask's.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.apart import Figures, apart, peak_megabytes, source_item
from benchmarks.tile import BANDS, RUNTIMES, scene, settings_of

if TYPE_CHECKING:
    from collections.abc import Callable


def main() -> None:
    """Print a column for each masker."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=2048)
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=3, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        name, item, out = given.only
        print(json.dumps(cost(name, Path(item), Path(out))))
        return
    with TemporaryDirectory() as temporary:
        folder = Path(temporary)
        item = scene(folder, given.side)
        rounds = [
            {name: apart("benchmarks.peers", name, item, str(folder)) for name in MASKERS} for _ in range(given.runs)
        ]
        classes = {name: np.load(folder / f"{name}.npy") for name in MASKERS}
    rows = {name: {key: median(r[name][key] for r in rounds) for key in rounds[0][name]} for name in MASKERS}
    print("| | seconds | times as fast | peak MB | % same class |\n| --- | ---: | ---: | ---: | ---: |")
    for name, row in rows.items():
        row["% same class"] = 100 * float((classes[name] == classes[PEER]).mean())
        times = rows[PEER]["seconds"] / row["seconds"]
        print(f"| {name} | {row['seconds']:.4g} | {times:.2f} | {row['peak MB']:.4g} | {row['% same class']:.2f} |")
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def cost(name: str, item: Path, out: Path) -> Figures:
    """Wall time without imports, and the most memory that the process ever had."""
    start, classes = MASKERS[name](item)
    figures = {"seconds": time.perf_counter() - start, "peak MB": peak_megabytes()}
    np.save(out / f"{name}.npy", classes())
    return figures


def ours(runtime: str, item: Path) -> tuple[float, Callable[[], np.ndarray]]:
    """Bands, SCL, model, merge."""
    from stac_cloudmask.pipeline.mask import make_mask  # noqa: PLC0415  (each process loads what it needs)

    source = source_item(str(item))
    start = time.perf_counter()
    found = make_mask(source, settings=settings_of(runtime))

    def classes() -> np.ndarray:
        from benchmarks.accuracy import most_likely  # noqa: PLC0415  (after the memory was looked at)

        return most_likely(found)

    return start, classes


def ukis(item: Path) -> tuple[float, Callable[[], np.ndarray]]:
    """Bands and model, as the package's own README shows it."""
    import rasterio  # noqa: PLC0415
    from ukis_csmask.mask import CSmask  # noqa: PLC0415

    document = json.loads(item.read_text())
    start = time.perf_counter()
    planes = []
    for key in BANDS:
        with rasterio.open(item.parent / document["assets"][key]["href"]) as file:
            planes.append(file.read(1))
    reflectance = np.stack(planes, axis=-1).astype(np.float32) * np.float32(1e-4) - np.float32(0.1)
    found = CSmask(reflectance, list(BANDS), product_level="l2a", nodata_value=-0.1)
    return start, lambda: found.csm[..., 0]


PEER = "ukis-csmask"
MASKERS: dict[str, Callable[[Path], tuple[float, Callable[[], np.ndarray]]]] = {
    PEER: ukis,
    **{runtime: partial(ours, runtime) for runtime in RUNTIMES},
}

if __name__ == "__main__":
    main()
