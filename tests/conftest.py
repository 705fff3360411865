"""Fixtures shared by all tests."""

from __future__ import annotations

import os
from pathlib import Path

import pytest
from hypothesis import settings

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


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark as slow what needs a browser or a database."""
    for item in items:
        if SERVERS & set(getattr(item, "fixturenames", ())):
            item.add_marker(pytest.mark.slow)
