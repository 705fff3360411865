"""What the site's pages do not write by hand: the references, the changes, and a menu of the pages that are there."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from mkdocs.structure.files import File

import stac_cloudmask
from stac_cloudmask import errors

if TYPE_CHECKING:
    from mkdocs.config.defaults import MkDocsConfig
    from mkdocs.structure.files import Files

ROOT: Final = Path(__file__).resolve().parents[1]
CLI, PYTHON, CHANGES = "reference/cli.md", "reference/python.md", "changelog.md"

FURTHER: Final = (
    "stac_cloudmask.pipeline.result.Estimate",
    "stac_cloudmask.progress.Stage",
    "stac_cloudmask.review.explain.Explanation",
    "stac_cloudmask.stac.collection.write_ndjson",
    "stac_cloudmask.stac.collection.write_geoparquet",
    "stac_cloudmask.simulate.scene.Recipe",
    "stac_cloudmask.simulate.scene.write_simulated_item",
    "stac_cloudmask.task.CloudMaskTask",
)
"""What users call that is not at the top of the package."""

ERRORS: Final = tuple(
    f"stac_cloudmask.errors.{name}"
    for name, found in vars(errors).items()
    if isinstance(found, type) and found.__module__ == errors.__name__
)
"""The errors and the warning."""

_absent: Final[set[str]] = set()
"""Pages of the menu that are not there."""


def on_config(config: MkDocsConfig) -> MkDocsConfig:
    """Leave out of the menu what is not there, so that pages can come and go."""
    folder = Path(config.docs_dir)
    _absent.update(name for name in _listed(config.nav) if _present(name, folder) is None)
    config.nav = _present(config.nav, folder)
    return config


def on_page_markdown(markdown: str, **_: Any) -> str:  # noqa: ANN401  (mkdocs' own)
    """Make links to pages of the menu that are not there plain text; links to anything else must lead somewhere."""
    for name in _absent:
        markdown = re.sub(rf"\[([^]]+)]\({re.escape(name)}(#[^)]*)?\)", r"\1", markdown)
    return markdown


def on_files(files: Files, config: MkDocsConfig) -> Files:
    """Add the pages that are made from the code."""
    pages = {CLI: command_line(), PYTHON: python_calls(), CHANGES: (ROOT / "CHANGELOG.md").read_text()}
    for path, content in pages.items():
        files.append(File.generated(config, path, content=content))
    return files


def command_line() -> str:
    """Every command with its arguments and options, as typer describes them."""
    asked = ["stac_cloudmask.cli.app", "utils", "docs", "--name", "stac-cloudmask", "--title", "Command line"]
    text = subprocess.run([sys.executable, "-m", "typer", *asked], capture_output=True, text=True, check=True, cwd=ROOT)
    page = re.sub(r"(?m)^\* `--help`: .*\n", "", text.stdout)
    page = re.sub(r"(?m)^\*\*(Commands|Options)\*\*:\n\n(\* `\w+`: .*\n)*(?=\n|\Z)", r"", page)  # cut short, or empty
    return page.replace("Exit code 0", "\nExit code 0")


def python_calls() -> str:
    """A page of directives; mkdocstrings turns each into signature and docstring."""
    names = [name for name in stac_cloudmask.__all__ if not name.startswith("_")]
    public = sorted(names, key=lambda name: (name[0].isupper(), name))  # calls first
    own = [f"::: stac_cloudmask.{name}" for name in public]
    more = [f"::: {path}" for path in FURTHER]
    raised = [f"::: {name}" for name in ERRORS if name.rpartition(".")[2] not in names]
    parts = ["# Python", "```python\nimport stac_cloudmask as scm\n```", "## Calls and records", *own]
    return "\n\n".join([*parts, "## In modules of their own", *more, "## Errors", *raised])


def _listed(nav: Any) -> set[str]:  # noqa: ANN401  (as YAML has it)
    """The pages of a menu."""
    if isinstance(nav, str):
        return {nav}
    return set().union(*map(_listed, nav.values() if isinstance(nav, dict) else nav))


def _present(nav: Any, folder: Path) -> Any:  # noqa: ANN401  (as YAML has it)
    """The menu without pages whose file is missing, and without the sections that this empties."""
    if isinstance(nav, str):
        return nav if nav in {CLI, PYTHON, CHANGES} or (folder / nav).is_file() else None
    if isinstance(nav, dict):
        kept = {title: _present(target, folder) for title, target in nav.items()}
        return {title: target for title, target in kept.items() if target} or None
    return [entry for entry in (_present(entry, folder) for entry in nav) if entry]
