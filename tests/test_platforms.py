"""The main job where what only Linux or only POSIX has is not there; this is no run on macOS or Windows."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]

NO_PROC = """
import os, sys

for name in [name for name in dir(os) if name.startswith("EX_")]:
    delattr(os, name)

def by_psutil():
    "Whether psutil asks, which has another way on each system."
    frame = sys._getframe(2)
    while frame is not None and not frame.f_globals.get("__name__", "").startswith("psutil"):
        frame = frame.f_back
    return frame is not None

def refuse(event, arguments):
    if event in {"open", "os.listdir", "os.scandir"} and str(arguments[0]).startswith("/proc") and not by_psutil():
        raise FileNotFoundError(2, "this system has no such file", str(arguments[0]))

sys.addaudithook(refuse)
"""

NO_POSIX = """
import sys

sys.modules |= dict.fromkeys(("fcntl", "resource", "pwd", "grp", "termios"))  # to import one is an ImportError
"""

MAIN_JOB = """
import sys
from pathlib import Path
import stac_cloudmask as scm
from stac_cloudmask.review.report import build_report
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

out = Path(sys.argv[1])
settings = scm.Settings(loader=sys.argv[2])
item = write_simulated_item(out / "source", Recipe(height=128, width=128, seed=11))
[first], [again] = (scm.process(item, out=out / "masks", settings=settings) for _ in range(2))
build_report(out / "masks", out / "report.html")
[sent] = scm.publish(out / "masks", to=str(out / "copy"))
mask = scm.cloud_mask(item.as_uri(), settings=settings)
print(first.status, again.status, sent.status, sorted(set(mask.cloud_mask.values.ravel().tolist()) - {255}))
"""


def run(code, *arguments):
    call = [sys.executable, "-c", code, *map(str, arguments)]
    return subprocess.run(call, capture_output=True, text=True, check=False, cwd=ROOT)


@pytest.mark.parametrize("hidden", [NO_PROC, NO_PROC + NO_POSIX], ids=["as on macOS", "as on Windows"])
def test_an_item_is_masked_and_published_where_linux_or_posix_is_not(tmp_path, hidden):
    done = run(hidden + MAIN_JOB, tmp_path / "a folder", "odc")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["done", "up-to-date", "done"]


def test_an_item_is_masked_and_published_where_stackstac_is_not(tmp_path):
    done = run("import sys; sys.modules['stackstac'] = None" + MAIN_JOB, tmp_path, "odc")
    assert done.returncode == 0, done.stderr
    assert done.stdout.split()[:3] == ["done", "up-to-date", "done"]


@pytest.mark.parametrize("code", ["import fcntl", "import resource", "open('/proc/self/stat')", "os.EX_OK"])
def test_what_is_hidden_is_not_there(code):
    assert run(f"{NO_PROC}{NO_POSIX}\n{code}").returncode == 1
    assert run(f"import os\n{code}").returncode == 0
