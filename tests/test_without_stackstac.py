from __future__ import annotations

import subprocess
import sys

from tests.scenes import write_items, write_model

SCRIPT = """
import importlib.metadata, sys

real = importlib.metadata.distributions
importlib.metadata.distributions = lambda **options: [] if options.get("name") == "stackstac" else real(**options)
sys.modules["stackstac"] = None  # as if it were not installed

import stac_cloudmask as scm

item, model, out, loader = sys.argv[1:]
settings = scm.Settings(cloud_model=(model,), shadow_model=model, loader=loader)
(result,) = scm.process(item, out=out, settings=settings)
print(result.status, result.error)
"""


def run(tmp_path, loader):
    (item,) = write_items(tmp_path / "items", 1)
    command = [sys.executable, "-c", SCRIPT, item, write_model(tmp_path), tmp_path / loader, loader]
    return subprocess.run(command, stdout=subprocess.PIPE, text=True, check=True).stdout


def test_all_but_its_own_loader_works_where_stackstac_is_not_installed(tmp_path):
    assert run(tmp_path, "odc").startswith("done None")


def test_its_own_loader_says_what_to_install(tmp_path):
    said = run(tmp_path, "stackstac")
    assert said.startswith("failed")
    assert "loader 'stackstac' cannot be imported" in said
    assert "pip install stackstac" in said
    assert "'odc'" in said
