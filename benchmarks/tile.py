"""What a mask of a whole tile costs, beside the bare work of its model and the bare reading of its bands.

    python -m benchmarks.tile [--sides 10980] [--resolutions 10] [--runtimes default:cpu fast:cpu] [--runs 3]
                             [--folder DIR] [--json FILE]

Every side is a simulated scene of four bands and SCL in local COGs. Each round runs, one after the other and each in
a process of its own: the whole way from bands to output item, as `process` does it with its default settings, without
imports and the preparation of the model, which a process makes once; the model alone, on windows of the same shapes
and nothing else, a few of each counted as all; and rasterio alone, which reads the same files once. Figures are
medians of the rounds. Several ``--sides`` show how cost grows with the pixels, ``--resolutions`` what a coarser mask
saves. ``--runtimes`` are pairs of a model and a provider, by default all that are fast on a CPU; the table says how
many pixels get another class than by the first. Run it on a machine that does nothing else: with all five, a tile at
10 m takes half an hour a round on two cores, its simulation two minutes.
"""

from __future__ import annotations

import argparse
import json
import time
from collections import Counter
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, cast

import numpy as np

from benchmarks.apart import Figures, apart, peak_megabytes, source_item

if TYPE_CHECKING:
    from collections.abc import Callable, Sequence

    import pystac

    from stac_cloudmask.config import Runtime, Settings

BANDS = ("blue", "green", "red", "nir")
RUNTIMES = ("default:cpu", "default:openvino", "default:openvino-int8", "fast:cpu", "fast:openvino")
"""Models and providers that are compared."""
ALONE = 12
"""Windows of a shape that the model computes alone: their mean has a spread of a few percent."""


@dataclass(frozen=True)
class Case:
    """One mask: side of the scene in pixels of 10 m, meters to a pixel of the mask, model and provider."""

    side: int
    resolution: int
    runtime: str

    @property
    def name(self) -> str:
        """For rows and folders."""
        return f"{self.side}-{self.resolution}m-{self.runtime}"


def main(arguments: Sequence[str] | None = None) -> None:
    """Print a row for each case; the command line's unless ``arguments`` are given."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--sides", type=int, nargs="+", default=[10980], help="pixels of 10 m")
    parser.add_argument("--resolutions", type=int, nargs="+", default=[10], help="meters")
    parser.add_argument("--runtimes", nargs="+", default=RUNTIMES, help="MODEL:PROVIDER")
    parser.add_argument("--runs", type=int, default=3)
    parser.add_argument("--folder", type=Path, help="keep scenes and masks here; a temporary folder by default")
    parser.add_argument("--json", type=Path)
    parser.add_argument("--only", nargs=2, help=argparse.SUPPRESS)
    given = parser.parse_args(arguments)
    if given.only:
        kind, wanted = given.only
        print(json.dumps(KINDS[kind](**json.loads(wanted))))
        return
    cases = [Case(*one) for one in product(given.sides, given.resolutions, given.runtimes)]
    with TemporaryDirectory() as temporary:
        folder = (given.folder or Path(temporary)).resolve()
        items = {side: scene(folder / f"scene-{side}", side) for side in given.sides}
        rounds = [[measured(case, items[case.side], folder) for case in cases] for _ in range(given.runs)]
        rows = [summary(case, [one[i] for one in rounds]) for i, case in enumerate(cases)]
        compare(rows, cases, folder)
    table(rows)
    if given.json:
        given.json.write_text(json.dumps(rows, indent=1))


def scene(folder: Path, side: int) -> str:
    """The item's file; the scene is simulated unless it is there."""
    from stac_cloudmask.simulate.scene import Recipe, write_simulated_item  # noqa: PLC0415

    there = next(folder.glob("*/*/*_L2A.json"), None)
    return str(there or write_simulated_item(folder, Recipe(height=side, width=side, seed=3, bands=BANDS)))


def measured(case: Case, item: str, folder: Path) -> Figures:
    """One round of one case."""
    out = folder / f"mask-{case.name}"
    whole = task("mask", item=item, out=str(out), resolution=case.resolution, runtime=case.runtime)
    alone = task("sessions", windows=whole.pop("windows"), runtime=case.runtime)
    return whole | alone | task("reading", item=item)


def task(kind: str, **given: object) -> Figures:
    """Figures of one of ``KINDS`` from a process of its own."""
    return apart("benchmarks.tile", kind, json.dumps(given))


def mask(*, item: str, out: str, resolution: int, runtime: str) -> Figures:
    """The whole way; every call of a session is timed."""
    from stac_cloudmask.pipeline.item import process_item  # noqa: PLC0415
    from stac_cloudmask.stac.reader import load_library  # noqa: PLC0415

    load_library("stackstac")
    source = source_item(item)
    settings = settings_of(runtime, resolution=resolution, overwrite=True)
    preparation = prepared(source, settings)
    calls = timed_sessions()
    start, cpu = time.perf_counter(), time.process_time()
    result = process_item(source, settings=settings, out=out)
    wall, cpu = time.perf_counter() - start, time.process_time() - cpu
    shapes = Counter(shape for shape, _ in calls)
    return {
        "wall": wall,
        "CPU": cpu,
        "preparation": preparation,
        "peak MB": peak_megabytes(),
        "sessions": sum(seconds for _, seconds in calls),
        "megapixels": sum(n * h * w for n, _, h, w in shapes.elements()) / 1e6,
        "windows": [[shape, count] for shape, count in shapes.items()],
        **{f"stage {name}": seconds for name, seconds in result.seconds.items()},
    }


def prepared(source: pystac.Item, settings: Settings) -> float:
    """Prepare the model for the windows of a scene; seconds by which the first one takes longer than the second."""
    from stac_cloudmask.pipeline.mask import passes_of, resolve_sources  # noqa: PLC0415

    grid = resolve_sources(source, settings=settings).bands[0].grid
    (one,) = passes_of(settings, grid.coarsen(round((settings.resolution or grid.gsd) / grid.gsd)).shape)
    read = one.plan[0][0].read
    times = []
    for _ in range(2):
        start = time.perf_counter()
        for part in one.parts:
            part.model.predict(np.zeros((1, len(part.spec.bands), read.height, read.width), np.float32))
        times.append(time.perf_counter() - start)
    return times[0] - times[1]


def settings_of(runtime: str, *, resolution: float | None = None, overwrite: bool = False) -> Settings:
    """Settings for a model and a provider."""
    from stac_cloudmask.config import Settings  # noqa: PLC0415

    name, provider = runtime.split(":")
    chosen = Settings(provider=cast("Runtime", provider), resolution=resolution, overwrite=overwrite)
    return chosen if name == "default" else replace(chosen, cloud_model=(name,), shadow_model=name)


def timed_sessions() -> list[tuple[tuple[int, ...], float]]:
    """A list to which every call of a session adds its shape and its seconds."""
    from stac_cloudmask.models.session import OnnxSegmenter  # noqa: PLC0415

    calls: list[tuple[tuple[int, ...], float]] = []
    channels = OnnxSegmenter.channels

    def timed(self: OnnxSegmenter, reflectance: np.ndarray) -> np.ndarray:
        start = time.perf_counter()
        found = channels(self, reflectance)
        calls.append((reflectance.shape, time.perf_counter() - start))
        return found

    OnnxSegmenter.channels = timed  # type: ignore[method-assign]
    return calls


def sessions(*, windows: list[tuple[list[int], int]], runtime: str) -> Figures:
    """The model alone: as many windows of these shapes, of which `ALONE` are computed."""
    from stac_cloudmask.models.registry import find_model  # noqa: PLC0415
    from stac_cloudmask.models.session import OnnxSegmenter  # noqa: PLC0415

    settings = settings_of(runtime)
    model = OnnxSegmenter(find_model(settings.shadow_model), provider=settings.provider)
    seconds = 0.0
    for shape, count in windows:
        chips = np.random.default_rng(0).random(shape, np.float32)
        model.channels(chips)
        start = time.perf_counter()
        computed = min(count, ALONE)
        for _ in range(computed):
            model.channels(chips)
        seconds += (time.perf_counter() - start) * count / computed
    return {"sessions alone": seconds}


def reading(*, item: str) -> Figures:
    """Plain rasterio: every file once, block by block."""
    import rasterio  # noqa: PLC0415

    assets = json.loads(Path(item).read_text())["assets"]
    start = time.perf_counter()
    for key in (*BANDS, "scl"):
        with rasterio.open(Path(item).parent / assets[key]["href"]) as file:
            for _, window in file.block_windows(1):
                file.read(1, window=window)
    return {"reading alone": time.perf_counter() - start}


def summary(case: Case, rounds: list[Figures]) -> Figures:
    """Medians, and the ratios of the medians."""
    row = {"case": case.name} | {name: median(one[name] for one in rounds) for name in rounds[0]}
    pixels = (case.side * 10 / case.resolution) ** 2 / 1e6
    return row | {
        "wall / sessions": row["wall"] / row["sessions"],
        "wall / sessions alone": row["wall"] / row["sessions alone"],
        "wall per megapixel": row["wall"] / pixels,
        "computed / pixels": row["megapixels"] / pixels,
    }


def compare(rows: list[Figures], cases: list[Case], folder: Path) -> None:
    """Percent of pixels that have the class that the first runtime gives them."""
    first = {}
    for row, case in zip(rows, cases, strict=True):
        classes = class_map(folder / f"mask-{case.name}")
        reference = first.setdefault((case.side, case.resolution), classes)
        row["% same class"] = 100 * float((classes == reference).mean())


def class_map(out: Path) -> np.ndarray:
    """Of the only mask in an output catalog."""
    import rasterio  # noqa: PLC0415

    (path,) = out.rglob("cloud_mask.tif")
    with rasterio.open(path) as file:
        classes: np.ndarray = file.read(1)
    return classes


def table(rows: list[Figures]) -> None:
    """A column for each case; seconds, where nothing else is said."""
    print(f"| s | {' | '.join(row['case'] for row in rows)} |\n| --- |{' ---: |' * len(rows)}")
    for name in (name for name in rows[0] if name != "case"):
        print(f"| {name} | {' | '.join(f'{row[name]:.4g}' for row in rows)} |")


KINDS: dict[str, Callable[..., Figures]] = {"mask": mask, "sessions": sessions, "reading": reading}

if __name__ == "__main__":
    main()
