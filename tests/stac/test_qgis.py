"""What the page "In QGIS" says, run where QGIS is installed (Debian: qgis, python3-qgis)."""

from __future__ import annotations

import csv
import json
import os
import shutil
import subprocess
from pathlib import Path

import pytest
from outputs import class_map, write_files

QGIS = shutil.which("qgis_process.bin") or shutil.which("qgis_process")
PYTHON = "/usr/bin/python3"
"""The Python that Debian's PyQGIS is for."""
LOOK = """
import json, sys
from qgis.core import QgsApplication, QgsRasterLayer
app = QgsApplication([], False)
app.initQgis()
layer = QgsRasterLayer(sys.argv[1], "mask")
found = layer.renderer().classes()  # a list of its own: they do not outlive it
classes = [(int(c.value), c.label, c.color.name(), c.color.alpha()) for c in found]
print(json.dumps([layer.bandName(1), layer.dataProvider().sourceNoDataValue(1), classes]), flush=True)
del found, layer
app.exitQgis()
"""

pytestmark = [
    pytest.mark.slow,
    pytest.mark.skipif(QGIS is None or not Path("/usr/lib/python3/dist-packages/qgis").exists(), reason="needs QGIS"),
]


def run(*command: object) -> str:
    environment = {"PATH": "/usr/bin:/bin", "HOME": os.environ["HOME"], "QT_QPA_PLATFORM": "offscreen"}
    done = subprocess.run([*map(str, command)], capture_output=True, text=True, check=False, env=environment)
    assert done.returncode == 0, done.stderr
    return done.stdout


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("mask")
    write_files(folder, class_map())
    return folder


def test_a_mask_opens_with_names_and_colors_and_clear_ground_is_transparent(folder):
    name, nodata, classes = json.loads(run(PYTHON, "-c", LOOK, folder / "cloud_mask.tif").splitlines()[-1])
    assert name == "Band 1: Cloud and cloud-shadow mask"
    assert nodata == 255
    assert classes == [
        [0, "Clear", "#c8c8be", 0],
        [1, "Cloud", "#ff6400", 255],
        [2, "Cloud shadow", "#508cff", 255],
    ]


def test_the_report_of_unique_values_counts_the_classes(folder):
    options = {"INPUT": folder / "cloud_mask.tif", "BAND": 1, "OUTPUT_TABLE": folder / "classes.csv"}
    run(QGIS, "run", "native:rasterlayeruniquevaluesreport", *(f"--{name}={value}" for name, value in options.items()))
    rows = csv.DictReader((folder / "classes.csv").read_text().splitlines())
    counts = {int(float(row["value"])): int(float(row["count"])) for row in rows}
    assert counts == {code: int((class_map() == code).sum()) for code in (0, 1, 2)}


def test_looking_at_a_mask_changes_no_file_that_its_item_knows_by_checksum(folder):
    before = (folder / "cloud_mask.tif").read_bytes()
    options = {"INPUT": folder / "cloud_mask.tif", "BAND": 1, "FIELD": "class", "OUTPUT": folder / "mask.gpkg"}
    run(QGIS, "run", "gdal:polygonize", *(f"--{name}={value}" for name, value in options.items()))
    assert (folder / "mask.gpkg").stat().st_size > 0
    assert (folder / "cloud_mask.tif").read_bytes() == before
