from __future__ import annotations

import json
import os
import subprocess
import sys
from functools import cache
from pathlib import Path

import pytest
from offline import Validator

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: whatever an example would fetch fails."""


@pytest.fixture(scope="module")
def ran(tmp_path_factory):
    """Runs an example once, in a directory of its own: what it printed, and the directory."""

    @cache
    def run(name):
        folder = tmp_path_factory.mktemp("example")
        offline = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
        environment = {**os.environ, **offline, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder)}
        command = [sys.executable, str(EXAMPLES / name)]
        done = subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        return done.stdout, folder

    return run


@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_the_example_runs_offline_and_says_what_it_did(ran, name):
    assert ran(name)[0].strip()


def test_the_users_own_model_fits_its_item_and_makes_a_mask(ran, shared):
    printed, folder = ran("03_bring_your_own_model.py")
    [line] = printed.splitlines()
    assert line.startswith("done SIM_")
    item = json.loads((folder / "my-model/my-model.json").read_text())
    assert any("/mlm/" in schema for schema in Validator(shared / "data" / "schemas")(item))
