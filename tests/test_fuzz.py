"""A short run of what `python -m fuzz.run` does for long; the same seeds are the same cases."""

from __future__ import annotations

import json

import pytest

from fuzz import canaries, run
from fuzz.run import cases, judged


@pytest.fixture(scope="module")
def case_of(shared, tmp_path_factory):
    def make(kind):
        return cases(kind, tmp_path_factory.mktemp(kind), shared / "data" / "items")

    return make


@pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")  # rasterio logs GDAL's broken text
@pytest.mark.parametrize(
    ("kind", "seeds"),
    [
        ("items", range(150)),
        ("models", range(60)),
        ("rasters", range(6)),
        ("catalogs", range(15)),
        pytest.param("items", range(150, 1500), marks=pytest.mark.slow),
        pytest.param("models", range(60, 600), marks=pytest.mark.slow),
        pytest.param("rasters", range(6, 60), marks=pytest.mark.slow),
        pytest.param("catalogs", range(15, 150), marks=pytest.mark.slow),
    ],
    ids=str,
)
def test_what_is_spoilt_is_processed_rightly_or_refused_by_name(case_of, kind, seeds):
    case = case_of(kind)
    outcomes = [judged(case, seed) for seed in seeds]
    assert [(seed, broken) for seed, (_, broken) in enumerate(outcomes) if broken] == []
    assert len({word for word, _ in outcomes}) > 1, "some are processed and some refused"
    assert any(word == "processed" for word, _ in outcomes)


def test_a_broken_promise_is_told_with_its_seed():
    def leaky(seed):
        canaries.check(f"the token is {canaries.CANARY}", f"output {seed}")

    outcome, broken = judged(leaky, 5)
    assert outcome == "LeakError"
    assert "a secret is in the output 5" in broken


def test_a_run_counts_every_case(capsys, tmp_path, shared):
    figures = tmp_path / "figures.json"
    folder = str(shared / "data" / "items")
    counts = ["--inputs", "20", "--models", "0", "--rasters", "0", "--catalogs", "0"]
    assert run.main([*counts, "--items", folder, "--json", str(figures)]) == 0
    assert json.loads(figures.read_text())["items"]["tried"] == 20
    assert "| items | 20 |" in capsys.readouterr().out
