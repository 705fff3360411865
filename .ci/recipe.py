"""Render recipe/recipe.yaml with rattler-build, and hold its version and requirements against pyproject.toml."""

from __future__ import annotations

import re
import sys
import tomllib
from pathlib import Path

from rattler_build import RenderConfig, Stage0Recipe, VariantConfig

ROOT = Path(__file__).parents[1]
CONDA_NAMES = {"dask": "dask-core"}
"""Distributions that conda-forge has under another name."""


def wanted(dependencies: list[str]) -> dict[str, str]:
    """The bounds of each dependency, by its name on conda-forge."""
    pairs = [re.fullmatch(r"([A-Za-z0-9._-]+)(?:\[.*\])?\s*(.*)", one) for one in dependencies]
    return {CONDA_NAMES.get(pair[1], pair[1]): pair[2].replace(" ", "") for pair in pairs if pair}


def stated(requirements: list[str]) -> dict[str, str]:
    """The bounds of each requirement of a rendered recipe, without Python's own."""
    pairs = [one.partition(" ") for one in requirements]
    return {name: bounds.replace(" ", "") for name, _, bounds in pairs if name != "python"}


def main() -> int:
    """Print what differs; 1 if anything does."""
    project = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
    recipe = Stage0Recipe.from_file(ROOT / "recipe" / "recipe.yaml")
    [rendered] = recipe.render(VariantConfig({}), RenderConfig())
    body = rendered.recipe.to_dict()
    found, expected = stated(list(body["requirements"]["run"])), wanted(project["dependencies"])
    differing = [name for name in sorted(found | expected) if found.get(name) != expected.get(name)]
    lines = [f"{name}: recipe {found.get(name)}, pyproject.toml {expected.get(name)}" for name in differing]
    if (version := body["package"]["version"]) != project["version"]:
        lines.append(f"version: recipe {version}, pyproject.toml {project['version']}")
    sys.stdout.writelines(f"{line}\n" for line in lines)
    sys.stdout.write(f"recipe/recipe.yaml: rendered, {len(found)} requirements, {len(lines)} differ\n")
    return int(bool(lines))


if __name__ == "__main__":
    raise SystemExit(main())
