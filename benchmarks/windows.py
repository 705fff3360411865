"""What the window of the default model costs and changes: memory, CPU time, and scores on the labeled scenes.

    python benchmarks/windows.py [--data ../shared/data] [--threads 2] [--overlap 32] [256 512 640 ...]

Memory is the resident set of a process of its own that has asked the model ten times, before anything else is loaded;
CPU time is that of all its threads in the last eight. Both depend on the machine and on what else it does. Scores are
F1 of the class of the highest probability, without SCL, merge or buffer.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
import warnings
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np

from stac_cloudmask.models.registry import catalog_folder, find_model
from stac_cloudmask.models.session import OnnxSegmenter

MODEL = "ukis-csmask-4b-l2a"
DATA = Path(__file__).resolve().parents[2] / "shared" / "data"
SIZES = (256, 512, 640, 768, 1024)
WARM_UP, TIMED = 2, 8


def main() -> None:
    """Print a table with one column for each size."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("sizes", type=int, nargs="*", default=SIZES, help="sides of windows, multiples of 32")
    parser.add_argument("--data", type=Path, default=DATA, help="folder with a catalog.json")
    parser.add_argument("--threads", type=int, default=2)
    parser.add_argument("--overlap", type=int, default=32, help="pixels that neighbors share at least")
    parser.add_argument("--cost", type=int, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.cost:
        print(json.dumps(cost(given.cost, given.threads)))
        return
    warnings.simplefilter("ignore")
    columns = [cost_apart(size, given.threads) | scores(size, given.overlap, given.data) for size in given.sizes]
    print(f"| window | {' | '.join(map(str, given.sizes))} |\n| --- |{' --- |' * len(columns)}")
    for name in columns[0]:
        print(f"| {name} | {' | '.join(f'{column[name]:.3g}' for column in columns)} |")


def cost(size: int, threads: int) -> dict[str, float]:
    """Resident memory, and pixels for each second of CPU time."""
    model = OnnxSegmenter(find_model(MODEL), threads=threads)
    chip = np.random.default_rng(0).random((1, len(model.bands), size, size), np.float32)
    for _ in range(WARM_UP):
        model.predict(chip)
    start = time.process_time()
    for _ in range(TIMED):
        model.predict(chip)
    seconds = time.process_time() - start
    status = Path("/proc/self/status").read_text()
    kilobytes = next(int(line.split()[1]) for line in status.splitlines() if line.startswith("VmRSS"))
    return {"memory in MB": kilobytes / 1024, "megapixels per CPU second": TIMED * size**2 / 1e6 / seconds}


def cost_apart(size: int, threads: int) -> dict[str, float]:
    """The same from a process of its own."""
    command = [sys.executable, __file__, "--cost", str(size), "--threads", str(threads)]
    found: dict[str, float] = json.loads(subprocess.run(command, capture_output=True, check=True).stdout)
    return found


def scores(size: int, overlap: int, data: Path) -> dict[str, float]:
    """F1 by scene and class."""
    from accuracy import CLASS_NAMES, most_likely, scenes  # noqa: PLC0415  (loads what ``cost`` must not)

    from stac_cloudmask.config import Settings  # noqa: PLC0415
    from stac_cloudmask.core.metrics import agreement  # noqa: PLC0415
    from stac_cloudmask.pipeline.mask import make_mask  # noqa: PLC0415
    from stac_cloudmask.review.evaluate import judged_classes, meaning_of, parse_reference  # noqa: PLC0415
    from stac_cloudmask.stac.warp import read_labels  # noqa: PLC0415

    found = {}
    with TemporaryDirectory() as folder:
        model = str(windowed(Path(folder), size, overlap))
        settings = Settings(cloud_model=(model,), shadow_model=model, merge="union", missing_scl="model-only")
        for item in scenes(data):
            for key in (key for key in item.assets if key.startswith("reference")):
                mask = make_mask(item, settings=settings)
                meaning = meaning_of(parse_reference(key), item.assets[key].to_dict())
                labels = read_labels(item.assets[key].href, mask.grid, meaning)
                judged = judged_classes(meaning)
                counts = agreement(most_likely(mask), labels, judged=judged, gsd=mask.grid.gsd)
                found |= {f"{CLASS_NAMES[code]} F1, {item.id}": counts.scores(code).f1 for code in judged}
    return found


def windowed(folder: Path, size: int, overlap: int) -> Path:
    """The default model's item with another window."""
    document = json.loads((catalog_folder() / MODEL / f"{MODEL}.json").read_text())
    document["properties"]["stac_cloudmask:window"] |= {"size": size, "overlap": overlap}
    path = folder / "model.json"
    path.write_text(json.dumps(document))
    return path


if __name__ == "__main__":
    main()
