from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
from filelock import FileLock
from offline import Validator

EXAMPLES = Path(__file__).resolve().parents[1] / "examples"
NOTEBOOKS = sorted(path.name for path in EXAMPLES.glob("*.ipynb"))
REAL = "clear_share_of_a_place.ipynb"
SCENES = EXAMPLES.parents[1] / "shared" / "data" / "hard" / "hard-cases"
NUMBER = re.compile(r"\d+\.\d+")
NOWHERE = "http://127.0.0.1:9"
"""A proxy that is not there: whatever an example would fetch fails."""


def execute(name, folder):
    """Run an example in a folder, without a network."""
    offline = dict.fromkeys(("HTTP_PROXY", "HTTPS_PROXY", "http_proxy", "https_proxy"), NOWHERE)
    offline |= {"NO_PROXY": "127.0.0.1", "no_proxy": "127.0.0.1", "SCENES": str(SCENES)}
    environment = {**os.environ, **offline, "AWS_EC2_METADATA_DISABLED": "true", "HOME": str(folder)}
    command = [sys.executable, str(EXAMPLES / name)]
    if name.endswith(".ipynb"):
        shutil.copy(EXAMPLES / name, folder)
        command = [sys.executable, "-m", "jupyter", "execute", "--inplace", name]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, check=False)


@pytest.fixture(scope="session")
def ran(shared, tmp_path_factory):
    """Runs an example once for all workers, in a directory of its own: what it printed, and the directory."""
    base = tmp_path_factory.getbasetemp()
    every = (base.parent if "PYTEST_XDIST_WORKER" in os.environ else base) / "examples"
    every.mkdir(exist_ok=True)

    def run(name):
        folder, printed = every / name, every / f"{name}.txt"
        with FileLock(every / f"{name}.lock"):
            if not printed.exists():
                shutil.rmtree(folder, ignore_errors=True)
                folder.mkdir()
                done = execute(name, folder)
                assert done.returncode == 0, done.stderr
                printed.write_text(done.stdout)
        return printed.read_text(), folder

    return run


@pytest.mark.slow
@pytest.mark.parametrize("name", sorted(path.name for path in EXAMPLES.glob("*.py")))
def test_the_example_runs_offline_and_says_what_it_did(ran, name):
    assert ran(name)[0].strip()


def outputs(notebook):
    cells = [cell for cell in json.loads(notebook.read_text())["cells"] if cell["cell_type"] == "code"]
    return [output for cell in cells for output in cell["outputs"]]


@pytest.mark.slow
@pytest.mark.parametrize("name", NOTEBOOKS)
def test_the_notebook_runs_offline_and_shows_pictures(ran, name):
    made = outputs(ran(name)[1] / name)
    assert any("image/png" in output.get("data", {}) for output in made)
    assert [output["text"] for output in made if output.get("name") == "stderr"] == []


@pytest.mark.parametrize("name", sorted({*NOTEBOOKS} - {REAL}))
def test_the_notebook_is_kept_without_outputs(name):
    assert outputs(EXAMPLES / name) == []


@pytest.mark.slow
def test_the_notebook_on_real_scenes_is_kept_with_the_outputs_that_it_has(ran):
    kept, made = (outputs(path) for path in (EXAMPLES / REAL, ran(REAL)[1] / REAL))
    for one, other in zip(kept, made, strict=True):
        assert set(one["data"]) == set(other["data"])
        assert NUMBER.sub("#", "".join(one["data"]["text/plain"])) == NUMBER.sub(
            "#", "".join(other["data"]["text/plain"])
        )
        old, new = (list(map(float, NUMBER.findall("".join(found["data"]["text/plain"])))) for found in (one, other))
        assert old == pytest.approx(new, abs=2)  # percent; libraries move single pixels


@pytest.mark.slow
@pytest.mark.parametrize("name", ["01_mask_one_item.py", *NOTEBOOKS])
def test_a_second_run_in_the_same_folder_works(ran, name, tmp_path):
    folder = tmp_path / "again"  # as others read the first one
    shutil.copytree(ran(name)[1], folder)
    done = execute(name, folder)
    assert done.returncode == 0, done.stderr


@pytest.mark.slow
def test_the_users_own_model_fits_its_item_and_makes_a_mask(ran, shared):
    printed, folder = ran("03_bring_your_own_model.py")
    [line] = printed.splitlines()
    assert line.startswith("done SIM_")
    item = json.loads((folder / "output/bring_your_own_model/my-model/my-model.json").read_text())
    assert any("/mlm/" in schema for schema in Validator(shared / "data" / "schemas")(item))


@pytest.mark.slow
def test_one_item_is_masked_and_a_pixel_of_it_explained(ran):
    lines = ran("01_mask_one_item.py")[0].splitlines()
    assert lines[0].startswith("done SIM_")
    assert any(line.startswith("row 256, column 256: ") for line in lines)
    assert any(line.startswith(" - ") for line in lines)


@pytest.mark.slow
def test_a_season_over_dask_gives_a_better_composite_with_the_new_masks(ran):
    printed, folder = ran("02_season_with_dask.py")
    errors = {name: float(error) for name, error in re.findall(r"(\w+) +mean error ([\d.]+)", printed)}
    assert "'done': 6" in printed
    assert errors["improved"] < 0.5 * errors["SCL"] < 0.5 * errors["none"]
    assert (folder / "output/season_with_dask/composites.png").stat().st_size > 0


@pytest.mark.slow
def test_a_catalog_is_created_in_an_api_and_replaced_the_second_time(ran):
    first, second = ran("04_publish_a_catalog.py")[0].split("second time:")
    assert first.count("-> 201") == 3
    assert second.count("PUT") == second.count("done SIM_") == 2
    assert "POST" not in second
