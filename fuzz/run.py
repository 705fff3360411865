"""Try spoilt items, rasters, models and catalogs by the thousand; see docs/reliability.md."""

from __future__ import annotations

import argparse
import json
import logging
import multiprocessing
import resource
import sys
import tempfile
import time
import traceback
import warnings
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from fuzz import canaries

if TYPE_CHECKING:
    from multiprocessing.connection import Connection

ITEMS: Final = Path(__file__).resolve().parents[2] / "shared" / "data" / "items"
SECONDS: Final = 60.0
"""For one case; more is a hang."""
MEMORY: Final = 6 * 2**30
"""Bytes of address space that the process may take."""
Case = Callable[[int], str]


@dataclass
class Tally:
    """What came of the cases of one kind.

    Attributes:
        tried: Cases.
        outcomes: ``processed``, or the named error that refused them, with their number.
        broken: Broken promises: seed and what happened.
        slowest: Seconds of the slowest case.
        seconds: Of all cases.
        peak: Largest resident memory in MB of the process that ran them.
    """

    tried: int = 0
    outcomes: Counter[str] = field(default_factory=Counter)
    broken: list[dict[str, Any]] = field(default_factory=list)
    slowest: float = 0.0
    seconds: float = 0.0
    peak: int = 0

    def add(self, seed: int, outcome: str, detail: str, seconds: float, peak: int) -> None:
        """Count a case."""
        self.tried += 1
        self.outcomes[outcome] += 1
        self.slowest = max(self.slowest, seconds)
        self.seconds += seconds
        self.peak = max(self.peak, peak)
        if detail:
            self.broken.append({"seed": seed, "what": detail})


class _Listening(logging.Handler):
    """Keeps what our loggers and those of the loaders say."""

    def __init__(self) -> None:
        super().__init__(logging.DEBUG)
        self.said: list[str] = []

    def emit(self, record: logging.LogRecord) -> None:
        self.said.append(record.getMessage())


def cases(kind: str, root: Path, items: Path) -> Case:
    """The cases of a kind, by seed."""
    if kind == "items":
        from fuzz import items as spoilt  # noqa: PLC0415  (each process loads what it needs)

        bodies = spoilt.load_bodies(items)
        return lambda seed: spoilt.case(bodies, seed)
    if kind == "catalogs":
        from fuzz.catalogs import Exhibition  # noqa: PLC0415

        show = Exhibition(root)
        _ = show.good
        return show.case
    if kind == "rasters":
        from fuzz.rasters import Workshop  # noqa: PLC0415

        shop = Workshop(root)
        _ = shop.good
        return shop.case
    from fuzz.models import Bench  # noqa: PLC0415

    return Bench(root).case


def judged(case: Case, seed: int) -> tuple[str, str]:
    """The outcome of a case in a word, and what promise it broke, if any; logs and warnings are heard, too."""
    listening = _Listening()
    loggers = [logging.getLogger(name) for name in ("stac_cloudmask", "odc", "stackstac", "rasterio")]
    for logger in loggers:
        logger.addHandler(listening)
        logger.propagate = False
    try:
        with warnings.catch_warnings(record=True) as heard:
            warnings.simplefilter("always")
            outcome = case(seed)
        canaries.check("\n".join(listening.said), "log")
        canaries.check("\n".join(str(warning.message) for warning in heard), "warnings")
    except Exception as error:
        return type(error).__name__, traceback.format_exc(limit=-4)
    finally:
        for logger in loggers:
            logger.removeHandler(listening)
            logger.propagate = True
    return outcome, ""


def _work(kind: str, seeds: range, root: str, items: str, pipe: Connection) -> None:
    logging.getLogger("stac_cloudmask").setLevel(logging.DEBUG)
    case = cases(kind, Path(root), Path(items))
    resource.setrlimit(resource.RLIMIT_AS, (MEMORY, MEMORY))
    for seed in seeds:
        start = time.perf_counter()
        outcome, detail = judged(case, seed)
        peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss >> 10
        pipe.send((seed, outcome, detail, time.perf_counter() - start, peak))


def results(kind: str, seeds: range, items: Path, until: float) -> Iterator[tuple[int, str, str, float, int]]:
    """Outcomes as they come, from a process of their own that is replaced when it hangs or dies."""
    method = multiprocessing.get_context("spawn")
    while seeds and time.monotonic() < until:
        with tempfile.TemporaryDirectory(prefix="fuzz-") as root:
            ours, theirs = method.Pipe(duplex=False)
            worker = method.Process(target=_work, args=(kind, seeds, root, str(items), theirs), daemon=True)
            worker.start()
            theirs.close()
            patience = 2 * SECONDS  # the first case waits for the imports
            try:
                while seeds and time.monotonic() < until:
                    if not ours.poll(patience):
                        yield seeds[0], "hang", f"no answer within {SECONDS:.0f} s", SECONDS, 0
                        seeds = seeds[1:]
                        break
                    answer = ours.recv()
                    patience = SECONDS
                    seeds = seeds[1:]
                    yield answer
            except EOFError:
                worker.join(10)
                yield seeds[0], "crash", f"the process died with exit code {worker.exitcode}", 0.0, 0
                seeds = seeds[1:]
            finally:
                worker.kill()
                worker.join()


def table(tallies: dict[str, Tally]) -> str:
    """The tallies for people, as Markdown."""
    lines = ["| kind | tried | processed | refused by name | broken promises | slowest, s | peak memory, MB |"]
    lines.append("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    for kind, tally in tallies.items():
        done, broken = tally.outcomes["processed"], len(tally.broken)
        cells = (kind, tally.tried, done, tally.tried - done - broken, broken, f"{tally.slowest:.1f}", tally.peak)
        lines.append("| " + " | ".join(map(str, cells)) + " |")
    for kind, tally in tallies.items():
        outcomes = ", ".join(f"{name} {count}" for name, count in tally.outcomes.most_common())
        lines.append(f"\n{kind}: {outcomes}")
        lines += [f"\n{kind}, seed {entry['seed']}:\n{entry['what']}" for entry in tally.broken[:20]]
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> int:
    """Run the cases; 0 if no promise was broken."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.run", description=__doc__)
    parser.add_argument("--inputs", type=int, default=1000, help="spoilt items with generated settings")
    parser.add_argument("--rasters", type=int, default=100, help="scenes with spoilt rasters")
    parser.add_argument("--models", type=int, default=1000, help="spoilt ONNX files and MLM items")
    parser.add_argument("--catalogs", type=int, default=1000, help="spoilt catalogs of masks")
    parser.add_argument("--minutes", type=float, default=30.0, help="stop after so long")
    parser.add_argument("--seed", type=int, default=0, help="first seed: the same seeds are the same cases")
    parser.add_argument("--items", type=Path, default=ITEMS, help="folder with genuine items")
    parser.add_argument("--json", type=Path, help="where to write the figures")
    chosen = parser.parse_args(arguments)
    until = time.monotonic() + 60 * chosen.minutes
    tallies = {}
    for kind, name in (("items", "inputs"), ("models", "models"), ("rasters", "rasters"), ("catalogs", "catalogs")):
        count = getattr(chosen, name)
        tallies[kind] = tally = Tally()
        for result in results(kind, range(chosen.seed, chosen.seed + count), chosen.items, until):
            tally.add(*result)
        if chosen.json:
            chosen.json.write_text(json.dumps({name: vars(each) for name, each in tallies.items()}, indent=2))
    print(table(tallies))
    return int(any(tally.broken for tally in tallies.values()))


if __name__ == "__main__":
    sys.exit(main())
