"""What `--dry-run` estimates, beside what the run then takes.

    python -m benchmarks.estimate [--sides 2048 4096 10980] [--resolutions 10 20] [--providers cpu] [--runs 1]
                                  [--folder DIR] [--json FILE]

Scenes are simulated as `benchmarks.tile` has them. Each round asks and then runs, each in a process of its own; figures
are medians of the rounds. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

from benchmarks import tile
from benchmarks.apart import apart, source_item

if TYPE_CHECKING:
    from benchmarks.apart import Figures


def main() -> None:
    """Print a column for each case."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[2048, 4096, 10980], help="pixels of 10 m")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[10, 20], help="metres")
    parser.add_argument("--providers", nargs="+", default=["cpu"])
    parser.add_argument("--runs", type=int, default=1)
    parser.add_argument("--folder", type=Path, help="keep scenes and masks here; a temporary folder by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.only:
        print(json.dumps(asked(**json.loads(given.only))))
        return
    cases = [tile.Case(*one) for one in product(given.sides, given.resolutions, given.providers)]
    with TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        items = {side: tile.scene(folder / f"scene-{side}", side) for side in given.sides}
        rounds = [[measured(case, items[case.side], folder) for case in cases] for _ in range(given.runs)]
    rows = [summary(case, [one[i] for one in rounds]) for i, case in enumerate(cases)]
    tile.table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def measured(case: tile.Case, item: str, folder: Path) -> Figures:
    """One round of one case."""
    given = {
        "item": item,
        "out": str(folder / f"mask-{case.name}"),
        "resolution": case.resolution,
        "provider": case.provider,
    }
    real = tile.task("mask", **given)
    return apart("benchmarks.estimate", json.dumps(given)) | {
        "wall": real["wall"],
        "peak MB": real["peak MB"],
        "megapixels computed": real["megapixels"],
    }


def asked(*, item: str, out: str, resolution: int, provider: str) -> Figures:
    """What a dry run says."""
    import stac_cloudmask as scm  # noqa: PLC0415  (only the processes that ask)

    settings = scm.Settings(resolution=resolution, provider=provider, overwrite=True)
    [result] = scm.process(source_item(item), out=out, settings=settings, dry_run=True)
    estimate = result.estimate
    return {
        "estimated wall": estimate.start + estimate.seconds,
        "estimated peak MB": estimate.memory / 2**20,
        "estimated megapixels computed": estimate.computed / 1e6,
    }


def summary(case: tile.Case, rounds: list[Figures]) -> Figures:
    """Medians, and the ratios of the medians."""
    row = {"case": case.name} | {name: median(one[name] for one in rounds) for name in rounds[0]}
    return row | {
        f"estimated / real {name}": row[f"estimated {name}"] / row[name]
        for name in ("wall", "peak MB", "megapixels computed")
    }


if __name__ == "__main__":
    main()
