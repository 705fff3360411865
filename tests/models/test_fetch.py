from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pooch
import pytest
from rich.console import Console
from typer.testing import CliRunner

from stac_cloudmask.cli import console
from stac_cloudmask.cli.app import app
from stac_cloudmask.errors import ChecksumError, ModelError, WriteError
from stac_cloudmask.models.registry import (
    cached_path,
    catalog_folder,
    fetch_model,
    find_model,
    is_here,
    locate,
    weights_sha256,
)
from stac_cloudmask.retry import RetryPolicy
from tests.loopback import running

WEIGHTS = b"\x08\x08weights" * 5000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:45de808b\nsize 56973507\n"


BRIEF = RetryPolicy(seconds=0.2, pause=0.02)


class Weights(BaseHTTPRequestHandler):
    """/right /wrong /long /pointer /page /missing /busy /flaky, /truncated always and /breaks once after the half"""

    asked: dict[str, int] = {}  # noqa: RUF012  (one server per test)

    def do_GET(self):
        asked = self.asked[self.path] = self.asked.get(self.path, 0) + 1
        name = self.path.strip("/")
        errors = {"missing": 404, "busy": 429 if asked == 1 else 0, "flaky": 503 if asked == 1 else 0}
        if code := errors.get(name):
            self.send_error(code)
            return
        wrong = {"wrong": WEIGHTS[::-1], "long": WEIGHTS * 9, "pointer": POINTER, "page": b"<!doctype html><p>Sign in"}
        body = wrong.get(name, WEIGHTS)
        cut = name == "truncated" or (name == "breaks" and asked == 1)
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body[: len(body) // 2 if cut else None])

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Weights.asked = {}
    with running(ThreadingHTTPServer(("127.0.0.1", 0), Weights)) as url:
        yield url


@pytest.fixture
def spec(server):
    checksum = hashlib.sha256(WEIGHTS).hexdigest()
    seed = find_model("farmvibes-shadow")
    return replace(seed, href=f"{server}/right", sha256=checksum, file_size=len(WEIGHTS))


def files(folder):
    return [path for path in folder.rglob("*") if path.is_file()]


def test_right_weights_are_kept_and_asked_for_once(spec, tmp_path):
    path = fetch_model(spec, cache=tmp_path)
    assert path.read_bytes() == WEIGHTS
    assert locate(spec, tmp_path) == fetch_model(spec, cache=tmp_path) == path
    assert is_here(spec, tmp_path)
    assert Weights.asked == {"/right": 1}


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("wrong", "SHA-256"),
        ("long", "another file"),
        ("pointer", "Git LFS pointer"),
        ("page", "web page"),
    ],
)
def test_other_bytes_are_explained_and_leave_nothing_behind(spec, tmp_path, name, says):
    other = replace(spec, href=spec.href.replace("right", name))
    with pytest.raises(ChecksumError, match=says):
        fetch_model(other, cache=tmp_path)
    assert files(tmp_path) == []
    assert Weights.asked == {f"/{name}": 1}


def test_a_download_that_stays_cut_off_leaves_nothing_behind(spec, tmp_path):
    cut = replace(spec, href=spec.href.replace("right", "truncated"))
    with pytest.raises(ModelError, match="nothing was kept"):
        fetch_model(cut, cache=tmp_path, policy=BRIEF)
    assert files(tmp_path) == []
    assert Weights.asked["/truncated"] > 1


@pytest.mark.parametrize("name", ["flaky", "busy", "breaks"])
def test_a_server_that_fails_once_is_asked_again(spec, tmp_path, name):
    flaky = replace(spec, href=spec.href.replace("right", name))
    assert fetch_model(flaky, cache=tmp_path, policy=BRIEF).read_bytes() == WEIGHTS


def test_a_server_that_refuses_is_not_asked_again(spec, tmp_path):
    with pytest.raises(ModelError, match="404"):
        fetch_model(replace(spec, href=spec.href.replace("right", "missing")), cache=tmp_path)
    assert Weights.asked == {"/missing": 1}


def test_a_server_that_is_not_there_is_a_model_error(spec, tmp_path):
    with pytest.raises(ModelError, match="farmvibes-shadow"):
        fetch_model(replace(spec, href="http://127.0.0.1:1/x.onnx"), cache=tmp_path, policy=BRIEF)


def test_weights_that_went_bad_in_the_cache_are_fetched_again(spec, tmp_path):
    fetch_model(spec, cache=tmp_path).write_bytes(b"bad")
    assert fetch_model(spec, cache=tmp_path).read_bytes() == WEIGHTS


def test_a_cache_that_cannot_be_written_is_a_write_error(spec, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be kept"):
        fetch_model(spec, cache=tmp_path / "file")


def test_weights_without_a_checksum_are_not_downloaded(spec, tmp_path):
    with pytest.raises(ModelError, match="could not be verified"):
        fetch_model(replace(spec, sha256=None), cache=tmp_path)


def test_bundled_weights_need_no_fetching(tmp_path):
    spec = find_model("ukis-csmask-4b-l2a")
    assert fetch_model(spec, cache=tmp_path) == locate(spec)


def test_the_cache_keeps_releases_apart(spec):
    assert cached_path(spec) != cached_path(replace(spec, sha256="0" * 64))
    assert cached_path(spec).is_relative_to(pooch.os_cache("stac-cloudmask"))


def test_the_checksum_of_unpromised_weights_is_that_of_the_file(spec, tmp_path):
    path = tmp_path / "mine.onnx"
    path.write_bytes(WEIGHTS)
    mine = replace(spec, href=path.as_posix(), sha256=None)
    assert weights_sha256(mine) == weights_sha256(spec) == hashlib.sha256(WEIGHTS).hexdigest()


def test_the_command_shows_how_much_has_come(spec, tmp_path, monkeypatch):
    shown = io.StringIO()
    monkeypatch.setattr(console, "stderr", Console(file=shown, force_terminal=True, width=120))
    document = json.loads((catalog_folder() / "farmvibes-shadow/farmvibes-shadow.json").read_text())
    asset = {"href": spec.href, "file:size": spec.file_size, "file:checksum": f"1220{spec.sha256}"}
    document["assets"]["model"].update(asset)
    item = tmp_path / "item.json"
    item.write_text(json.dumps(document))
    done = CliRunner().invoke(app, ["models", "fetch", str(item), f"--model-cache={tmp_path / 'cache'}"])
    assert done.exit_code == 0
    assert done.stdout == f"farmvibes-shadow  {cached_path(spec, tmp_path / 'cache')}\n"
    assert "farmvibes-shadow" in shown.getvalue()
    assert "45.0/45.0 kB" in shown.getvalue()
