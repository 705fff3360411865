"""Fixtures shared by all tests."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path

import pystac
import pytest
from hypothesis import settings

from stac_cloudmask.cli.app import main

# No clock decides a test: a busy machine is no bug
settings.register_profile("no deadline", deadline=None)
settings.load_profile("no deadline")

SERVERS = {"driver", "pgstac"}
"""Fixtures that start a browser or a database: what uses them is slow."""
SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def shared() -> Path:
    """The folder with real scenes, provider items, schemas and parity cases."""
    if not (SHARED / "data").is_dir():
        reason = "needs the real scenes of ../shared/data, which a plain checkout does not have"
        if os.environ.get("CI") == "true":
            pytest.fail(reason)
        pytest.skip(reason)
    return SHARED


@pytest.fixture(scope="module")
def items(shared: Path, request: pytest.FixtureRequest) -> list[pystac.Item]:
    """The real items of the dates that a test module names as ``DATES``."""
    folder = shared / "data" / "earth-search-33twl"
    found = [pystac.Item.from_file(folder / name / f"{name}.json") for name in request.module.DATES]
    for item in found:
        item.make_asset_hrefs_absolute()
        item.clear_links()
    return found


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Callable[..., tuple[int, str, str]]:
    """The command line: called with arguments, it gives the exit code and what went to stdout and stderr."""

    def run(*args: object) -> tuple[int, str, str]:
        monkeypatch.setattr(sys, "argv", ["stac-cloudmask", *map(str, args)])
        with pytest.raises(SystemExit) as caught:
            main()
        printed = capsys.readouterr()
        return int(caught.value.code or 0), printed.out, printed.err

    return run


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a browser or a database."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
