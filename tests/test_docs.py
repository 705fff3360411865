from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest
from snippets import RUN, Visitor, runnable, snippets
from stand_ins import furnish, furnish_farmvibes, stand_ins

import stac_cloudmask

ROOT = Path(__file__).resolve().parents[1]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
MOST_NOT_RUN = 14


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with the scenes, and what stands in for the pages' addresses."""
    folder = tmp_path_factory.mktemp("stand-ins")
    with stand_ins(folder) as mapping:
        yield folder, mapping


@pytest.mark.slow
@pytest.mark.parametrize("page", runnable(iter(PAGES)), ids=lambda page: page.name)
def test_what_a_page_says_works(page, place, tmp_path, monkeypatch, request):
    folder, mapping = place
    furnish(tmp_path, folder / "scenes")
    if "s2.tif" in page.read_text():
        furnish_farmvibes(tmp_path, request.getfixturevalue("shared") / "data" / "parity")
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("TOKEN", "s3cr3t")
    visitor = Visitor(tmp_path, mapping)
    try:
        for snippet in runnable(iter([page]))[page]:
            visitor.do(snippet)
    finally:
        if "client" in visitor.names:
            visitor.names["client"].close()


def test_few_snippets_are_not_run_and_each_says_why():
    every = [snippet for page in PAGES for snippet in snippets(page)]
    excused = [snippet for snippet in every if snippet.excuse]
    assert all(snippet.language in RUN for snippet in excused)
    assert len(excused) <= MOST_NOT_RUN
    hidden = [str(s) for s in every if s.language not in RUN and ("$ " in s.text or s.language in {"bash", "sh"})]
    assert hidden == []


@pytest.fixture(scope="module")
def site(tmp_path_factory):
    folder = tmp_path_factory.mktemp("site")
    command = [sys.executable, "-m", "mkdocs", "build", "--strict", "--quiet", "--site-dir", str(folder)]
    ran = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False, env={**os.environ, "CI": ""})
    assert ran.returncode == 0, ran.stdout + ran.stderr
    return folder


@pytest.mark.slow
def test_the_site_has_every_public_name(site):
    page = (site / "reference" / "python" / "index.html").read_text()
    names = [name for name in stac_cloudmask.__all__ if not name.startswith("_")]
    assert [name for name in names if f'id="stac_cloudmask.{name}"' not in page] == []


@pytest.mark.slow
@pytest.mark.parametrize("text", ["stac-cloudmask process", "--missing-scl", "models fetch", "Exit code 0"])
def test_the_site_has_every_command(site, text):
    assert text in (site / "reference" / "cli" / "index.html").read_text()


@pytest.mark.slow
def test_the_site_asks_no_other_host_for_anything(site):
    page = (site / "index.html").read_text()
    loaded = [part.split('"')[0] for mark in ('src="', 'rel="stylesheet" href="') for part in page.split(mark)[1:]]
    assert loaded
    assert [href for href in loaded if href.startswith(("http:", "https:", "//"))] == []
