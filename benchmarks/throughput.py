"""What more workers give, what a task costs beside its own work, and whether client and scheduler stay small.

    python -m benchmarks.throughput [--rounds 3] [--items 200] [--side 256] [--tasks 10000] [--json FILE]

The same simulated items are masked by the default model with one worker and with two, one thread each, as by
``--workers``, after a warm-up in which models are loaded. Overhead is the time of the workers that no stage of an item
accounts for. The ceiling is what the machine gives: one process and two that mask the same items without Dask and know
nothing of each other. Rounds take turns, so that a machine that slows down does so for all; gains are of each round,
the rows of the table are of the last. Then tasks that do nothing show what a task costs, and what client and scheduler,
which are one process here, keep of it. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from statistics import median
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any

import psutil
import pystac

from stac_cloudmask.config import Settings
from stac_cloudmask.pipeline.item import attempt
from stac_cloudmask.pipeline.run import local_client, on_dask, run
from stac_cloudmask.stac.search import load_items
from tests.checks import checked
from tests.scenes import write_items
from tests.tasks import nothing

if TYPE_CHECKING:
    from multiprocessing.synchronize import Barrier

WARM_UP = 4
"""Items for each worker before the clock starts."""
PARTS = 10
"""Of the tasks that do nothing, each with a row of its own."""
MEBI = 2**20


def main() -> None:
    """Print a table, and the gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3, help="0 leaves only the tasks that do nothing")
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--side", type=int, default=256, help="pixels of 10 m")
    parser.add_argument("--tasks", type=int, default=10_000, help="that do nothing")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        paths = copies(Path(folder) / "source", given.items + 2 * WARM_UP, side=given.side)
        rounds = [one_round(paths, Path(folder) / f"round-{number + 1}") for number in range(given.rounds)]
        idle = trivial(paths[0], given.tasks) if given.tasks else []
    if rounds:
        table(rounds[-1]["workers"])
        middle = {name: median(one[name] for one in rounds) for name in ("gain", "ceiling")}
        print(f"\nmedian gain {middle['gain']:.2f}, median ceiling {middle['ceiling']:.2f}")
    if given.json:
        given.json.write_text(json.dumps({"rounds": rounds, "tasks": idle}, indent=1))


def one_round(paths: list[Path], out: Path) -> dict[str, Any]:
    """Figures of one worker and of two, with Dask and without."""
    rows = [masked(paths, out / f"{workers}-workers", workers=workers) for workers in (1, 2)]
    bare = [alone(paths, out / f"{count}-alone", processes=count) for count in (1, 2)]
    gain = rows[1]["items per second"] / rows[0]["items per second"]
    ceiling = bare[1] / bare[0]
    print(
        f"{out.name}: two workers do {gain:.2f} times as much as one, two processes without Dask {ceiling:.2f}",
        flush=True,
    )
    return {"workers": rows, "gain": gain, "items per second without Dask": bare, "ceiling": ceiling}


def alone(paths: list[Path], out: Path, *, processes: int) -> float:
    """Items per second of processes that share nothing but the machine."""
    context = get_context("spawn")
    ready = context.Barrier(processes + 1)
    warm, timed = paths[:WARM_UP], paths[2 * WARM_UP :]
    folders = [out / str(number) for number in range(processes)]
    started = [
        context.Process(target=_alone, args=(warm, timed[number::processes], folder, ready))
        for number, folder in enumerate(folders)
    ]
    for process in started:
        process.start()
    ready.wait()
    start = time.perf_counter()
    for process in started:
        process.join()
    seconds = time.perf_counter() - start
    if any(process.exitcode for process in started):
        raise RuntimeError("a process without Dask failed")
    return len(timed) / seconds


def _alone(warm: list[Path], timed: list[Path], out: Path, ready: Barrier) -> None:
    for number, item in enumerate(load_items(map(str, [*warm, *timed]))):
        if number == len(warm):
            ready.wait()
        if attempt(item, settings=Settings(threads=1), out=str(out)).status != "done":
            raise RuntimeError(item.id)


def copies(folder: Path, count: int, *, side: int) -> list[Path]:
    """Items that share the files of one scene."""
    (source,) = write_items(folder, 1, height=side, width=side)
    body = json.loads(source.read_text())
    for asset in body["assets"].values():
        asset["href"] = str(source.parent / asset["href"])
    paths = [folder / f"copy-{number:05}.json" for number in range(count)]
    for path in paths:
        path.write_text(json.dumps(body | {"id": path.stem}))
    return paths


def masked(paths: list[Path], out: Path, *, workers: int) -> dict[str, float]:
    """Figures of one cluster; the catalog that it makes is looked at."""
    settings = Settings(threads=1)
    with local_client(workers) as client:
        warm, timed = paths[: WARM_UP * workers], paths[2 * WARM_UP :]
        list(run(load_items(map(str, warm)), settings=settings, out=str(out), engine=partial(on_dask, client=client)))
        before, own, start = memory(), 0.0, time.perf_counter()
        for result in run(
            load_items(map(str, timed)), settings=settings, out=str(out), engine=partial(on_dask, client=client)
        ):
            if result.status != "done":
                raise RuntimeError(result.error)
            own += sum(result.seconds.values())
        wall, grown = time.perf_counter() - start, memory() - before
    if len(checked(out)) != len(warm) + len(timed):
        raise RuntimeError(f"{out}: items are missing")
    return {
        "workers": workers,
        "items": len(timed),
        "seconds": wall,
        "items per second": len(timed) / wall,
        "own work of an item, s": own / len(timed),
        "overhead of an item, s": wall * workers / len(timed) - own / len(timed),
        "client and scheduler, MiB": before,
        "growth, MiB": grown,
    }


def trivial(path: Path, count: int) -> list[dict[str, float]]:
    """Figures of tasks that do nothing, a row for each part of them."""
    body = json.loads(path.read_text())
    items = (pystac.Item.from_dict(body | {"id": f"task-{number}"}, migrate=False) for number in range(count))
    rows, part = [], max(count // PARTS, 1)
    with local_client(2) as client:
        before, start = memory(), time.perf_counter()
        for done, _ in enumerate(on_dask(items, Settings(), "out", client=client, task=nothing), start=1):
            if done % part == 0:
                rows.append(
                    {
                        "tasks": done,
                        "ms each": 1000 * (time.perf_counter() - start) / part,
                        "client and scheduler, MiB": memory(),
                        "growth per 1000 tasks, MiB": 1000 * (memory() - before) / part,
                    }
                )
                print(", ".join(f"{name} {value:.4g}" for name, value in rows[-1].items()), flush=True)
                before, start = memory(), time.perf_counter()
    return rows


def memory() -> float:
    """Resident set of this process, MiB: the client, and the scheduler of its LocalCluster."""
    return float(psutil.Process().memory_info().rss / MEBI)


def table(rows: list[dict[str, float]]) -> None:
    """A column for each cluster."""
    print("| | " + " | ".join(f"{row['workers']:g} worker(s)" for row in rows) + " |")
    print("| --- |" + " --- |" * len(rows))
    for name in rows[0]:
        print(f"| {name} | " + " | ".join(f"{row[name]:.3g}" for row in rows) + " |")


if __name__ == "__main__":
    main()
