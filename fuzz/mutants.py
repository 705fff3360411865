"""Mutate the core and see whether its tests notice: `python -m fuzz.mutants FOLDER MODULE ...` (needs mutmut 3)."""

from __future__ import annotations

import argparse
import json
import math
import os
import random
import shutil
import subprocess
import sys
from collections import Counter
from pathlib import Path
from typing import Final

ROOT: Final = Path(__file__).resolve().parents[1]
CORE: Final = "stac_cloudmask.core"
WORKERS: Final = "test_reprocessing_gives_the_same_bytes_over_runs_threads_loaders_memory_and_workers"
SETUP: Final = f"""\
[mutmut]
source_paths=stac_cloudmask
only_mutate=stac_cloudmask/core/*
also_copy=
    models
    fuzz
pytest_add_cli_args_test_selection=
    tests/core
    tests/test_laws.py
pytest_add_cli_args=
    -p
    no:cacheprovider
    --deselect=tests/test_laws.py::{WORKERS}
timeout_multiplier=5
timeout_constant=5
"""
"""A process of another worker would run the unchanged code: the one test that has such is left out."""
KILLED: Final = frozenset({1, 3})
"""Exit codes of pytest that tell of a failed test or an error."""


def prepare(tree: Path) -> None:
    """Copy what git knows of the project, with its settings for mutmut, and mutate all of the core."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, check=True, capture_output=True, text=True).stdout
    for name in filter(None, listed.split("\0")):
        (tree / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(ROOT / name, tree / name)
    (tree / "setup.cfg").write_text(SETUP)
    (tree / "shared").symlink_to(ROOT.parent / "shared")  # mutmut runs the tests one folder further down
    mutmut(tree, [f"{CORE}.morphology.*"], minutes=30)


def mutmut(tree: Path, names: list[str], *, minutes: float) -> None:
    """Run mutants by name, one at a time."""
    command = ["timeout", "--signal=INT", f"{minutes * 60:.0f}", "mutmut", "run", "--max-children", "1", *names]
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    subprocess.run(command, cwd=tree, check=False, env=os.environ | {"PATH": path, "PYTHONPATH": ""})


def verdicts(tree: Path, module: str) -> dict[str, int | None]:
    """Exit code of the tests by the mutant's name, None for one that was not tried."""
    meta = tree / "mutants" / f"{CORE.replace('.', '/')}/{module}.py.meta"
    found: dict[str, int | None] = json.loads(meta.read_text())["exit_code_by_key"]
    return found


def chosen(names: list[str], share: float, seed: int) -> list[str]:
    """A random part of the mutants of a module; the same seed is the same part."""
    return sorted(random.Random(seed).sample(sorted(names), math.ceil(share * len(names))))


def line(module: str, codes: dict[str, int | None], sample: list[str]) -> str:
    """What came of a module's sample, as a row of Markdown."""
    count = Counter(
        "killed" if code in KILLED else "survived" if code == 0 else "untried" if code is None else "no end"
        for code in map(codes.get, sample)
    )
    tried = len(sample) - count["untried"]
    score = 100 * (tried - count["survived"]) / tried if tried else math.nan
    cells = (module, len(codes), tried, count["killed"], count["no end"], count["survived"], f"{score:.0f} %")
    return "| " + " | ".join(map(str, cells)) + " |"


def main() -> None:
    """Try what was not tried yet, then print the score of each module."""
    parser = argparse.ArgumentParser(prog="python -m fuzz.mutants", description=__doc__)
    parser.add_argument("folder", type=Path, help="for the mutated copy, outside of the project; kept between runs")
    parser.add_argument("modules", nargs="+", help="of the core, such as merge")
    parser.add_argument("--share", type=float, default=1.0, help="of each module's mutants")
    parser.add_argument("--seed", type=int, default=0, help="of the choice")
    parser.add_argument("--minutes", type=float, default=60.0, help="for each module, then stop and go on another time")
    arguments = parser.parse_args()
    if not (arguments.folder / "mutants").is_dir():
        prepare(arguments.folder)
    rows = []
    for module in arguments.modules:
        codes = verdicts(arguments.folder, module)
        sample = chosen(list(codes), arguments.share, arguments.seed)
        if untried := [name for name in sample if codes[name] is None]:
            mutmut(arguments.folder, untried, minutes=arguments.minutes)
        rows.append(line(module, verdicts(arguments.folder, module), sample))
    print("| module | mutants | tried | killed | without end | survived | score |")
    print("| --- | ---: | ---: | ---: | ---: | ---: | ---: |")
    print("\n".join(rows))


if __name__ == "__main__":
    main()
