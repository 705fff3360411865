from __future__ import annotations

import json
import runpy
import sys
from pathlib import Path

import pytest

from stac_cloudmask.simulate import Recipe, write_simulated_item

ACCURACY = Path(__file__).resolve().parents[1] / "benchmarks" / "accuracy.py"
BANDS = ("blue", "green", "red", "nir")


@pytest.fixture(scope="module")
def catalog(tmp_path_factory):
    folder = tmp_path_factory.mktemp("catalog")
    write_simulated_item(folder, Recipe(height=128, width=128, bands=BANDS))
    write_simulated_item(folder, Recipe(height=128, width=128, seed=1, bands=BANDS, scl=False))
    return folder


def run(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", [str(ACCURACY), *map(str, arguments)])
    runpy.run_path(str(ACCURACY), run_name="__main__")


def test_the_accuracy_table_scores_every_mask_of_every_scene(monkeypatch, capsys, catalog, tmp_path):
    run(monkeypatch, "--data", catalog, "--json", tmp_path / "scores.json", "--pictures", tmp_path / "maps")
    rows = json.loads((tmp_path / "scores.json").read_text())
    assert [(row["scene"][4:16], row["class"]) for row in rows] == [
        (f"33TXK_00000{seed}", kind) for seed in (0, 1) for kind in ("cloud", "shadow")
    ]
    assert [len(row["masks"]) for row in rows] == [4, 4, 3, 3]
    assert all(0 <= one["f1"] <= 1 for row in rows for one in row["masks"].values())
    assert capsys.readouterr().out.count("| SIM_33TXK_") == 4
    assert len(list((tmp_path / "maps").glob("*.png"))) == 2


def test_a_folder_without_a_catalog_is_refused(monkeypatch, capsys, tmp_path):
    with pytest.raises(SystemExit):
        run(monkeypatch, "--data", tmp_path)
    assert "has no catalog.json" in capsys.readouterr().err
