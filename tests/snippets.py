"""The code of Markdown pages, and somebody who does what it says.

A block of ``console`` has commands after ``$ ``; what stands below them is what they print, with ``...`` for what is
left out and decimals within 2 of what is printed. A block of ``python`` goes on where the page's last one ended. A
comment ``<!-- not run: reason -->`` above a block says why it is only read.
"""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
import warnings
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import pytest
from typer.testing import CliRunner

from stac_cloudmask.cli.app import app

FENCE = re.compile(r"(?m)^```(\w*)[^\n]*\n(.*?)^```$", re.DOTALL)
EXCUSE = re.compile(r"<!-- not run: (.+?) -->\s*$")
DECIMAL = re.compile(r"\d+\.\d+")
RUN = ("console", "python")
CLOSE_ENOUGH = 2.0


@dataclass(frozen=True)
class Snippet:
    """A block of code: where it stands, what it is, and why it is not run, if it is not."""

    page: Path
    line: int
    language: str
    text: str
    excuse: str | None

    def __str__(self) -> str:
        return f"{self.page.name}:{self.line}"


def snippets(page: Path) -> list[Snippet]:
    """All blocks of code of a page, of whatever language."""
    content = page.read_text()
    found = []
    for block in FENCE.finditer(content):
        excuse = EXCUSE.search(content[: block.start()])
        line = content.count("\n", 0, block.start()) + 1
        found.append(Snippet(page, line, block[1], block[2], excuse[1] if excuse else None))
    return found


def commands(text: str) -> tuple[list[str], list[str]]:
    """The commands of a console block, and what it shows that they print."""
    given: list[str] = []
    shown: list[str] = []
    for line in text.splitlines():
        if line.startswith("$ "):
            given.append(line[2:])
        elif given and not shown and given[-1].endswith("\\"):
            given[-1] += f"\n{line}"
        else:
            shown.append(line)
    return given, shown


@dataclass
class Visitor:
    """Does what a page says, block by block, in a folder; ``stand_ins`` are texts to replace."""

    folder: Path
    stand_ins: Mapping[str, str]
    names: dict[str, Any] = field(default_factory=dict)

    def do(self, snippet: Snippet) -> None:
        text = snippet.text
        for real, local in self.stand_ins.items():
            text = text.replace(real, local)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # as a reader's Python ignores most
            self._do(snippet, text)

    def _do(self, snippet: Snippet, text: str) -> None:
        if snippet.language == "python":
            exec(compile(text, str(snippet), "exec"), self.names)  # noqa: S102
            return
        given, shown = commands(text)
        run = run_here if all(map(is_plain, given)) else run_in_shell
        require_shown(shown, run(given, self.folder), str(snippet))


def is_plain(command: str) -> bool:
    """Whether a command is ours and needs no shell."""
    return command.startswith("stac-cloudmask ") and not set(command) & set("$|<>&;`*")


def run_here(given: list[str], folder: Path) -> str:
    """Run plain commands in this process, which has loaded what takes a second; gives what they print."""
    printed = ""
    for command in given:
        ran = CliRunner().invoke(
            app, shlex.split(command.replace("\\\n", " "), comments=True)[1:], env={"COLUMNS": "200"}
        )
        assert ran.exit_code == 0, f"{command}\n{ran.output}\n{ran.exception!r}"
        printed += ran.stdout
    return printed


def run_in_shell(given: list[str], folder: Path) -> str:
    """Run commands as a user's shell does; gives what they print."""
    path = f"{Path(sys.executable).parent}:{os.environ['PATH']}"
    ran = subprocess.run(
        ["/bin/bash", "-euo", "pipefail", "-c", "\n".join(given)],
        cwd=folder,
        env={**os.environ, "PATH": path, "COLUMNS": "200"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert ran.returncode == 0, f"{given}\n{ran.stdout}\n{ran.stderr}"
    return ran.stdout


def require_shown(shown: list[str], printed: str, where: str) -> None:
    """Fail unless each line that is shown was printed, in this order."""
    lines = iter(printed.splitlines())
    for line in shown:
        assert any(alike(line, other) for other in lines), f"{where}: {line!r} was not printed:\n{printed}"


def alike(shown: str, printed: str) -> bool:
    pattern = re.escape(shown.strip()).replace(r"\.\.\.", ".*")
    match = re.fullmatch(
        DECIMAL.sub("(NUMBER)", pattern.replace(r"\.", ".")).replace("(NUMBER)", r"(\d+\.\d+)"), printed.strip()
    )
    if match is None:
        return False
    claimed = [float(number) for number in DECIMAL.findall(shown)]
    return [float(number) for number in match.groups()] == pytest.approx(claimed, abs=CLOSE_ENOUGH)


def runnable(pages: Iterator[Path]) -> dict[Path, list[Snippet]]:
    """The blocks to run, by page; pages without any are left out."""
    found = {page: [s for s in snippets(page) if s.language in RUN and not s.excuse] for page in pages}
    return {page: blocks for page, blocks in found.items() if blocks}
