"""Print a pip constraint for the lowest version of everything that pyproject.toml asks for."""

from __future__ import annotations

import re
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

PROJECT = Path(__file__).parents[1] / "pyproject.toml"
BOUND = re.compile(r"(?P<name>[A-Za-z0-9._-]+)(?:\[[^\]]*\])?\s*(?P<kind>>=|==)\s*(?P<version>[0-9][0-9A-Za-z.]*)")


def constraints(project: dict[str, object]) -> Iterator[str]:
    """``NAME==LOWEST`` of the dependencies and extras; those of developers' tools are left to pip."""
    extras = project["optional-dependencies"]
    wanted = [*project["dependencies"], *(line for name, lines in extras.items() if name != "dev" for line in lines)]
    for requirement in wanted:
        match = BOUND.match(requirement)
        if match is None:
            raise SystemExit(f"{requirement!r} has no lower bound")
        yield f"{match['name']}=={match['version']}"


if __name__ == "__main__":
    sys.stdout.writelines(f"{line}\n" for line in constraints(tomllib.loads(PROJECT.read_text())["project"]))
