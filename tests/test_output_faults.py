"""Disks that fill up, permissions that vanish and clocks that jump while a mask is written."""

from __future__ import annotations

import json
import os
import random
import subprocess
import time
from contextlib import contextmanager, suppress

import pytest
from disks import room_for_files_of

from fuzz import tiny
from stac_cloudmask.config import Settings
from stac_cloudmask.errors import WriteError
from stac_cloudmask.pipeline.item import process_item
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.parse import parse_item
from stac_cloudmask.stac.store import WORK


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    """A folder with a small scene, its item and a model."""
    folder = tmp_path_factory.mktemp("scene")
    tiny.write_scene(folder)
    tiny.write_model(folder)
    (folder / "item.json").write_text(json.dumps(tiny.item_body(random.Random(0), title="A scene")))  # noqa: S311
    return folder


def process(scene, out, **options):
    item = parse_item(json.loads((scene / "item.json").read_text()), origin=str(scene / "item.json"))
    model = str(scene / "tiny.json")
    chosen = Settings(cloud_model=(model,), shadow_model=model, votes=True, threads=1)
    return process_item(item, settings=chosen, out=str(out), **options)


def state(out):
    return OutputCatalog(out).state("sentinel-2-l2a-cloudmask", "S2_tiny_cloudmask")


@contextmanager
def file_system(folder, size):
    """A file system of that size at ``folder``; needs to be root of a machine that lets it mount."""
    folder.mkdir()
    mount = ["mount", "-t", "tmpfs", "-o", f"size={size}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, check=False).returncode:
        yield False
        return
    try:
        yield True
    finally:
        subprocess.run(["umount", str(folder)], check=True)  # noqa: S607


def fill(path):
    """Take all the room that there is."""
    with path.open("wb", buffering=0) as file, suppress(OSError):
        while file.write(b"x" * 4096):
            pass


@pytest.mark.parametrize("room", [0, 4096, 8192, 16384])
def test_a_full_disk_leaves_nothing_half_and_the_next_run_completes(scene, tmp_path, room):
    with file_system(tmp_path / "disk", "256k") as mounted:
        out = tmp_path / "disk" / "out"
        filler = tmp_path / "disk" / "filler"
        if mounted:
            fill(filler)
            os.truncate(filler, filler.stat().st_size - room)
            with pytest.raises(WriteError, match="disk"):
                process(scene, out)
        else:
            with room_for_files_of(room // 16), pytest.raises(WriteError, match="disk"):
                process(scene, out)
        assert state(out) is None
        assert list(out.rglob("*_cloudmask.json")) == []
        filler.unlink(missing_ok=True)
        assert process(scene, out).status == "done"
        assert state(out) is not None


@pytest.mark.parametrize("lost_at", ["merge", "write"])
def test_permissions_lost_while_a_mask_is_made_are_named_and_the_next_run_completes(scene, tmp_path, lost_at):
    out = tmp_path / "disk" / "out"

    def allow(*, writing):
        if os.getuid() == 0:  # whom no mode of a folder stops
            subprocess.run(["chattr", "-R", "-i" if writing else "+i", str(out)], check=True)  # noqa: S607
        else:
            for folder in (out, out / WORK, *(out / WORK).glob("run-*"), *(out / WORK).glob("run-*/files")):
                folder.chmod(0o755 if writing else 0o555)

    def lose(stage, done, total):
        if stage == lost_at and done == 0:
            allow(writing=False)

    try:
        with pytest.raises(WriteError, match="disk") as caught:
            process(scene, out, progress=lose)
    finally:
        allow(writing=True)
    assert caught.value.retryable
    assert state(out) is None
    assert process(scene, out).status == "done"


@pytest.mark.parametrize("jump", [-20 * 365 * 86400, 20 * 365 * 86400])
def test_a_clock_that_jumps_breaks_neither_runs_nor_what_is_up_to_date(scene, tmp_path, monkeypatch, jump):
    first = process(scene, tmp_path)
    before = state(tmp_path)
    for path in tmp_path.rglob("*"):
        os.utime(path, (time.time() + jump, time.time() + jump))
    now = time.time
    monkeypatch.setattr(time, "time", lambda: now() - jump)
    with OutputCatalog(tmp_path).workdir() as alive:
        assert process(scene, tmp_path).status == "up-to-date"
        assert alive.is_dir()
        OutputCatalog(tmp_path).link([first.output])
        OutputCatalog(tmp_path).link([first.output])
    assert state(tmp_path) == before
