"""What is promised of the package itself."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import tomllib
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

IMPORT_ALL = """
import importlib, pkgutil
import stac_cloudmask
from stac_cloudmask import *
for module in pkgutil.walk_packages(stac_cloudmask.__path__, "stac_cloudmask."):
    importlib.import_module(module.name)
"""


def test_importing_every_module_warns_of_nothing(tmp_path):
    call = [sys.executable, "-W", "error", "-c", IMPORT_ALL]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=tmp_path)
    assert (done.returncode, done.stderr) == (0, "")


@pytest.mark.parametrize("name", ["process", "cloud_mask", "Settings"])
def test_a_name_is_there_before_the_libraries_that_take_seconds(name):
    code = f"import sys, stac_cloudmask; stac_cloudmask.{name}; print(*sys.modules)"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    heavy = {"numpy", "pandas", "xarray", "dask", "scipy", "rasterio", "onnx", "onnxruntime", "stackstac", "matplotlib"}
    assert heavy & set(done.stdout.split()) == set()


def test_every_model_is_attributed_with_its_license():
    notice = re.sub(r"farmvibes-cloud-1 to -5", " ".join(f"farmvibes-cloud-{n}" for n in range(1, 6)), notice_text())
    notice = notice.replace("ukis-csmask-4b-l2a, ukis-csmask-6b-l2a", "ukis-csmask-4b-l2a ukis-csmask-6b-l2a")
    items = [json.loads(path.read_text()) for path in (ROOT / "models").glob("*/*.json")]
    assert len(items) == 9
    for item in items:
        (about,) = [link["href"] for link in item["links"] if link["rel"] == "about"]
        paragraphs = [text for text in notice.split("\n\n") if item["id"] in text]
        assert len(paragraphs) == 1, item["id"]
        assert item["properties"]["license"] in paragraphs[0]
        assert "/".join(about.split("/")[:5]) in paragraphs[0]


def notice_text():
    return (ROOT / "NOTICE").read_text()


def test_every_dependency_has_a_lowest_version_that_is_tested():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    call = [sys.executable, str(ROOT / ".ci" / "lowest.py")]
    pins = subprocess.run(call, capture_output=True, text=True, check=True).stdout.split()
    names = {re.match(r"[A-Za-z0-9._-]+", line)[0] for line in project["dependencies"]}
    assert names <= {pin.partition("==")[0] for pin in pins}
    assert {"NOTICE", "LICENSE"} == set(project["license-files"])


def test_every_dependency_with_semantic_versions_has_an_upper_bound():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    extras = project["optional-dependencies"]
    used = [
        line
        for name in ("distributed", "geoparquet", "labels", "openvino", "plot", "s3", "task")
        for line in extras[name]
    ]
    for line in [*project["dependencies"], *used]:
        dated = re.search(r">=20\d\d\.", line) is not None
        assert dated != ("<" in line or "==" in line), line


@pytest.mark.parametrize("script", ["lowest", "newest"])
def test_the_tests_that_other_versions_run_are_there(script):
    named = re.findall(r"tests/[\w/]*\w(?:\.py)?", (ROOT / ".ci" / script).read_text())
    assert len(named) > 5
    assert [name for name in named if not (ROOT / name).exists()] == []


@pytest.mark.slow
def test_every_promise_of_the_reliability_page_names_tests_that_are_collected():
    promised = set(re.findall(r"`(tests/[\w/.]+(?:::test_\w+)?)`", (ROOT / "docs" / "reliability.md").read_text()))
    assert promised
    call = [sys.executable, "-m", "pytest", "--collect-only", "-q", "-p", "no:cacheprovider", *sorted(promised)]
    done = subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT)
    assert done.returncode == 0, done.stdout
