"""Kill workers and the client of runs at random moments, and see what is left.

    python -m benchmarks.faults [--rounds 10] [--items 40] [--workers 2] [--kills 4] [--seed 0] [--json FILE]

Each round masks simulated items into a new catalog. Workers and the client (with all that it started) are killed with
SIGKILL in the midst of it; after each death of the client all that the catalog lists must be whole, and the command is
run again. At the end every item must be listed once, whole, with all its files, and nothing else may be left; and no
item that was whole when a run began may have been made again by it.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import subprocess
import sys
import time
from dataclasses import asdict, dataclass, field
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING

import psutil

from tests.checks import checked
from tests.scenes import write_items, write_model

if TYPE_CHECKING:
    from collections.abc import Iterator

COMMAND = [sys.executable, "-c", "from stac_cloudmask.cli.app import main; main()"]
COLLECTION = "simulated-sentinel-2-l2a-cloudmask"
LONGEST_DELAY = 0.4
"""Seconds between a result and the kill that it triggers, at most: longer than an item takes."""
ENOUGH = 120.0
"""Seconds within which killed processes must be gone."""


@dataclass
class Round:
    """What happened in one round.

    Attributes:
        killed: How often workers and the client were killed.
        runs: How often the command was run.
        seconds: How long it all took.
        interrupted: Items that were made in a run that was killed, by the run's own words.
        repeated: Items that were whole when a run began and were made again by it.
        failed: Reasons of items that failed in the last run.
    """

    killed: dict[str, int] = field(default_factory=lambda: {"worker": 0, "client": 0})
    runs: int = 0
    seconds: float = 0.0
    interrupted: int = 0
    repeated: list[str] = field(default_factory=list)
    failed: list[str] = field(default_factory=list)


def main() -> None:
    """Run the rounds and print a table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=10)
    parser.add_argument("--items", type=int, default=40)
    parser.add_argument("--workers", type=int, default=2)
    parser.add_argument("--kills", type=int, default=4, help="of a round, about half of them of the client")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    with TemporaryDirectory() as folder:
        scenes, model = write_items(Path(folder) / "source", given.items), write_model(Path(folder) / "model")
        rounds = []
        print("| round | workers killed | client killed | runs | made by killed runs | made twice | failed | seconds |")
        print("| --- |" + " --- |" * 7)
        for number in range(given.rounds):
            chance = random.Random(given.seed + number)  # noqa: S311
            out = Path(folder) / f"out-{number}"
            done = one_round(scenes, model, out, chance=chance, workers=given.workers, kills=given.kills)
            rounds.append(done)
            cells = (number + 1, done.killed["worker"], done.killed["client"], done.runs, done.interrupted)
            told = (*cells, len(done.repeated), len(done.failed), f"{done.seconds:.0f}")
            print(f"| {' | '.join(map(str, told))} |", flush=True)
    if given.json:
        given.json.write_text(json.dumps([asdict(done) for done in rounds], indent=1))
    sys.exit(any(done.repeated or done.failed for done in rounds))


def one_round(scenes: list[Path], model: Path, out: Path, *, chance: random.Random, workers: int, kills: int) -> Round:
    """Mask items under fire until a run ends by itself; raise if what is left is not whole."""
    done, start = Round(), time.monotonic()
    share = kills / len(scenes)
    victims = [chance.choice(("worker", "client")) for _ in range(kills - 2)] + ["client", "worker"]
    ended = False
    while not ended:
        done.runs += 1
        before = whole(out)
        command = [*COMMAND, "process", *map(str, scenes), "--out", str(out), "--workers", str(workers), "--json"]
        command += ["--cloud-model", str(model), "--shadow-model", str(model), "--threads", "1"]
        results, ended = _run(command, victims, done, chance, share)
        done.repeated += [r["item_id"] for r in results if r["status"] == "done" and r["item_id"] in before]
        if not ended:
            done.interrupted += sum(result["status"] == "done" for result in results)
            if (out / "catalog.json").exists():
                checked(out)
    done.failed = [result["error"] for result in results if result["status"] == "failed"]
    expected = {f"{path.stem}_cloudmask" for path in scenes}
    if checked(out) != expected or {path.name for path in (out / COLLECTION).glob("*_cloudmask")} != expected:
        raise AssertionError(f"{out}: not what was asked for")
    if left := list((out / ".stac_cloudmask").glob("run-*")):
        raise AssertionError(f"temporary folders are left: {left}")
    done.seconds = time.monotonic() - start
    return done


def whole(out: Path) -> set[str]:
    """Source ids of all items that are there with all their files, listed or not."""
    from stac_cloudmask.stac.catalog import OutputCatalog  # noqa: PLC0415  (keeps --help fast)

    catalog = OutputCatalog(out)
    folders = [path.name for path in (out / COLLECTION).glob("*_cloudmask")]
    return {name.removesuffix("_cloudmask") for name in folders if catalog.state(COLLECTION, name)}


def _run(
    command: list[str], victims: list[str], done: Round, chance: random.Random, share: float
) -> tuple[list[dict], bool]:
    """The results of a run in which a share of them triggers a kill each; and whether it came to its end."""
    results: list[dict] = []
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True, stderr=subprocess.DEVNULL) as run:
        for line in _lines(run):
            results.append(json.loads(line))
            if not victims or chance.random() > share:
                continue
            time.sleep(chance.uniform(0, LONGEST_DELAY))
            victim = victims.pop()
            done.killed[victim] += 1
            if victim == "client":
                family = psutil.Process(run.pid).children(recursive=True)
                run.kill()
                psutil.wait_procs(family, timeout=ENOUGH)
                return results, False
            _kill_worker(run.pid, chance)
    return results, run.returncode is not None


def _lines(run: subprocess.Popen[str]) -> Iterator[str]:
    if run.stdout is not None:
        yield from run.stdout


def _kill_worker(client: int, chance: random.Random) -> None:
    """Kill a worker process; the tracker of multiprocessing's resources is none."""
    family = psutil.Process(client).children(recursive=True)
    workers = [process.pid for process in family if "spawn_main" in " ".join(_words(process))]
    if workers:
        os.kill(chance.choice(workers), signal.SIGKILL)


def _words(process: psutil.Process) -> list[str]:
    try:
        return process.cmdline()
    except psutil.Error:
        return []


if __name__ == "__main__":
    main()
