"""The user's part of the rule for hrefs, through the settings of a run and the command line."""

from __future__ import annotations

import json
import random
import sys

import pytest

import stac_cloudmask as scm
from fuzz import canaries, tiny
from stac_cloudmask.cli.app import main
from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError, StacCloudmaskWarning, UnsupportedItemError
from tests.stac.range_server import serve


@pytest.fixture(scope="module")
def scene(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scene")
    tiny.write_scene(folder)
    tiny.write_model(folder)
    body = tiny.item_body(random.Random(0), title="A scene")  # noqa: S311
    (folder / "item.json").write_text(json.dumps(body))
    return folder


def settings(scene, **options):
    model = str(scene / "tiny.json")
    return scm.Settings(cloud_model=(model,), shadow_model=model, **options)


def of_another_host(scene, folder, port):
    """The item on ``folder``'s server with its assets on ``localhost``, another name of this machine."""
    body = json.loads((scene / "item.json").read_text())
    for key, asset in body["assets"].items():
        asset["href"] = f"http://localhost:{port}/{key}.tif"
    (folder / "item.json").write_text(json.dumps(body))


def test_local_items_read_only_below_the_folders_that_the_user_names(scene, tmp_path):
    item = str(scene / "item.json")
    (fine,) = scm.process(item, out=tmp_path / "a", settings=settings(scene, local_roots=(str(scene),)))
    assert fine.status == "done"
    (refused,) = scm.process(item, out=tmp_path / "b", settings=settings(scene, local_roots=(str(tmp_path),)))
    assert refused.kind == "input"
    assert "outside of local_roots" in refused.error
    with pytest.raises(UnsupportedItemError, match="outside of local_roots"):
        scm.cloud_mask(item, settings=settings(scene, local_roots=()))


def test_a_remote_item_may_name_a_private_host_once_the_user_allows_it(scene, tmp_path):
    with serve(scene) as bands, serve(tmp_path) as catalog:
        of_another_host(scene, tmp_path, bands.url.rpartition(":")[2])
        item = f"{catalog.url}/item.json"
        (refused,) = scm.process(item, out=tmp_path / "out", settings=settings(scene))
        assert "'localhost' on a private network" in refused.error
        assert not bands.asked
        allowed = settings(scene, private_hosts=("localhost",))
        (fine,) = scm.process(item, out=tmp_path / "out", settings=allowed)
        assert fine.status == "done"


def command(monkeypatch, *arguments):
    monkeypatch.setattr(sys, "argv", ["stac-cloudmask", *arguments])
    with pytest.raises(SystemExit) as ended:
        main()
    return ended.value.code or 0


def test_the_command_line_has_both(scene, tmp_path, capsys, monkeypatch):
    model = ["--cloud-model", str(scene / "tiny.json"), "--shadow-model", str(scene / "tiny.json")]
    call = ["process", str(scene / "item.json"), "--out", str(tmp_path / "out"), *model]
    assert command(monkeypatch, *call, "--allow-folder", str(tmp_path)) == 1
    assert "outside of local_roots" in capsys.readouterr().out
    with serve(scene) as bands, serve(tmp_path) as catalog:
        of_another_host(scene, tmp_path, bands.url.rpartition(":")[2])
        call[1] = f"{catalog.url}/item.json"
        assert command(monkeypatch, *call, "--allow-host", "localhost") == 0
    assert capsys.readouterr().out.startswith("done")


@pytest.mark.parametrize("kind", [StacCloudmaskError, ConfigError, ReadError, StacCloudmaskWarning])
@pytest.mark.parametrize("text", canaries.TEXTS)
def test_no_error_or_warning_can_hold_a_secret(kind, text):
    error = kind(f"item 'x': {text} could not be read")
    assert canaries.CANARY not in str(error)
    assert canaries.CANARY not in repr(error)
    assert "could not be read" in str(error) or text.startswith("https")
