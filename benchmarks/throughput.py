"""What more workers give, what a task costs beside its own work, and whether client and scheduler stay small.

    python -m benchmarks.throughput [--items 200] [--side 256] [--tasks 10000] [--json FILE]

The same simulated items are masked by the default model on a LocalCluster with one worker and with two, one thread
each, after a warm-up in which models are loaded. Overhead is the time of the workers that no stage of an item accounts
for. Then a number of tasks that do nothing shows what a task costs, and what client and scheduler, which are one
process here, keep of it. Run it on a machine that does nothing else.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path
from tempfile import TemporaryDirectory

import psutil
import pystac
from distributed import Client, LocalCluster

from stac_cloudmask.config import Settings
from stac_cloudmask.engines import ANY_PORT, OnDask
from stac_cloudmask.run import run
from stac_cloudmask.stac.search import load_items
from tests.checks import checked
from tests.scenes import write_items
from tests.tasks import nothing

WARM_UP = 4
"""Items for each worker before the clock starts."""
MEBI = 2**20


def main() -> None:
    """Print a table, and the gain."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--items", type=int, default=200)
    parser.add_argument("--side", type=int, default=256, help="pixels of 10 m")
    parser.add_argument("--tasks", type=int, default=10_000, help="that do nothing")
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        paths = copies(Path(folder) / "source", given.items + 2 * WARM_UP, side=given.side)
        rows = [masked(paths, Path(folder) / f"out-{workers}", workers=workers) for workers in (1, 2)]
        idle = trivial(paths[0], given.tasks) if given.tasks else None
    table(rows)
    gain = rows[1]["items per second"] / rows[0]["items per second"]
    print(f"\nTwo workers do {gain:.2f} times as much as one.")
    if idle:
        print(f"{given.tasks} tasks that do nothing: " + ", ".join(f"{name} {idle[name]:.3g}" for name in idle))
    if given.json:
        given.json.write_text(json.dumps({"workers": rows, "gain": gain, "tasks": idle}, indent=1))


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
    with cluster_of(workers) as cluster, Client(cluster) as client:
        warm, timed = paths[: WARM_UP * workers], paths[2 * WARM_UP :]
        list(run(load_items(map(str, warm)), settings=settings, out=str(out), engine=OnDask(client)))
        before, own, start = memory(), 0.0, time.perf_counter()
        for result in run(load_items(map(str, timed)), settings=settings, out=str(out), engine=OnDask(client)):
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


def trivial(path: Path, count: int) -> dict[str, float]:
    """Figures of tasks that do nothing."""
    body = json.loads(path.read_text())

    def items() -> object:
        for number in range(count):
            yield pystac.Item.from_dict(body | {"id": f"task-{number}"}, migrate=False)

    with cluster_of(2) as cluster, Client(cluster) as client:
        engine = OnDask(client, task=nothing)
        list(engine.results(list(items())[:200], settings=Settings(), out="out"))
        before, start = memory(), time.perf_counter()
        done = sum(1 for _ in engine.results(items(), settings=Settings(), out="out"))
        return {
            "ms each": 1000 * (time.perf_counter() - start) / done,
            "MiB before": before,
            "MiB growth": memory() - before,
        }


def cluster_of(workers: int) -> LocalCluster:
    """Processes of one thread each."""
    return LocalCluster(n_workers=workers, threads_per_worker=1, dashboard_address=ANY_PORT)


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
