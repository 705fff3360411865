"""CPU time per pixel of each model and runtime, which holds on a machine that does other things, too.

    python -m benchmarks.runtimes [--side 1024] [--rounds 5] [--item ITEM.json]

All run on the same window on one thread, in turn, in one process. The first row is the file of the default model as it
is, in ONNX Runtime. The window is of a simulated scene unless an item with local files is given.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from statistics import median
from typing import TYPE_CHECKING

import numpy as np

from benchmarks.tile import BANDS, RUNTIMES, settings_of
from stac_cloudmask.models.registry import find_model
from stac_cloudmask.models.session import OnnxSegmenter

if TYPE_CHECKING:
    from numpy.typing import NDArray

AS_IT_IS = "default as it is:cpu"


def main() -> None:
    """Print a row for each runtime."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--side", type=int, default=1024)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--item", type=Path)
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES, help="MODEL:PROVIDER")
    given = parser.parse_args()
    chips = window(given.side) if given.item is None else window_of(given.item, given.side)
    settings = {name: settings_of(name) for name in given.runtimes}
    models = {AS_IT_IS: OnnxSegmenter(find_model("ukis-csmask-4b-l2a"), threads=1, local_means=False)}
    models |= {name: OnnxSegmenter(find_model(one.shadow_model), threads=1, provider=one.provider)
               for name, one in settings.items()}  # fmt: skip
    classes = {name: model.channels(chips).argmax(1) for name, model in models.items()}
    seconds: dict[str, list[float]] = {name: [] for name in models}
    for _ in range(given.rounds):
        for name, model in models.items():
            start = time.process_time()
            model.channels(chips)
            seconds[name].append(time.process_time() - start)
    first, default = median(seconds[AS_IT_IS]), median(seconds[given.runtimes[0]])
    print(f"| runtime | us / pixel | times {AS_IT_IS} | times {given.runtimes[0]} | % same class as it |")
    print("| --- | ---: | ---: | ---: | ---: |")
    for name, many in seconds.items():
        same = 100 * float((classes[name] == classes[given.runtimes[0]]).mean())
        each = 1e6 * median(many) / chips[0, 0].size
        print(f"| {name} | {each:.3f} | {first / median(many):.2f} | {default / median(many):.2f} | {same:.2f} |")


def window(side: int) -> NDArray[np.float32]:
    """A simulated window ``(1, band, y, x)``."""
    from stac_cloudmask.simulate.scene import Recipe, simulate  # noqa: PLC0415
    from stac_cloudmask.stac.bands import BOA_OFFSET, QUANTIFICATION  # noqa: PLC0415

    scene = simulate(Recipe(height=side, width=side, seed=3))
    return (np.stack([scene.layer(band) for band in BANDS])[None].astype(np.float32) + BOA_OFFSET) / QUANTIFICATION


def window_of(item: Path, side: int) -> NDArray[np.float32]:
    """The upper left of an item's bands, repeated where it is too small; digital numbers are taken without offset."""
    import rasterio  # noqa: PLC0415

    assets = json.loads(item.read_text())["assets"]
    planes = []
    for band in BANDS:
        with rasterio.open(item.parent / assets[band]["href"]) as file:
            plane = file.read(1)
        copies = [-(-side // length) for length in plane.shape]
        planes.append(np.tile(plane, copies)[:side, :side])
    return np.stack(planes)[None].astype(np.float32) / 1e4


if __name__ == "__main__":
    main()
