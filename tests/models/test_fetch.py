from __future__ import annotations

import hashlib
import io
import json
from dataclasses import replace
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest
from rich.console import Console
from typer.testing import CliRunner

from stac_cloudmask.cli import console
from stac_cloudmask.cli.app import app
from stac_cloudmask.errors import ChecksumError, ModelError, WriteError
from stac_cloudmask.models.registry import catalog_folder, find_model
from stac_cloudmask.models.weights import cached_path, default_cache, fetch_model, is_here, locate, weights_sha256
from tests.loopback import running

WEIGHTS = b"\x08\x08weights" * 5000
POINTER = b"version https://git-lfs.github.com/spec/v1\noid sha256:45de808b\nsize 56973507\n"


HALF = len(WEIGHTS) // 2


class Weights(BaseHTTPRequestHandler):
    """/right /wrong /long /pointer /page /missing /busy /truncated /flaky /breaks /breaks-whole /breaks-shifted

    Those that break give the first half once; then ``breaks`` gives parts, ``breaks-whole`` does not, and
    ``breaks-shifted`` gives others than it is asked for.
    """

    asked: dict[str, int] = {}  # noqa: RUF012  (one server per test)
    ranges: list[str | None] = []  # noqa: RUF012
    sent = 0

    def do_GET(self):
        asked = self.asked[self.path] = self.asked.get(self.path, 0) + 1
        self.ranges.append(self.headers.get("Range"))
        name = self.path.strip("/")
        errors = {"missing": 404, "busy": 429 if asked == 1 else 0, "flaky": 503 if asked == 1 else 0}
        if code := errors.get(name):
            self.send_error(code)
            return
        wrong = {"wrong": WEIGHTS[::-1], "long": WEIGHTS * 9, "pointer": POINTER, "page": b"<!doctype html><p>Sign in"}
        body = wrong.get(name, WEIGHTS)
        start = self.begin(name, body)
        cut = name == "truncated" or (name.startswith("breaks") and asked == 1)
        Weights.sent += self.wfile.write(body[start : len(body) // 2 if cut else None])

    def begin(self, name, body):
        """Send the head; the first byte that is to follow."""
        start = int((self.headers.get("Range") or "bytes=0-")[6:-1])
        start = 0 if name in ("truncated", "breaks-whole") else start
        if start >= len(body):
            self.send_error(416)
            return len(body)
        self.send_response(206 if start else 200)
        if start:
            shift = 1 if name == "breaks-shifted" else 0
            self.send_header("Content-Range", f"bytes {start + shift}-{len(body) - 1}/{len(body)}")
        self.send_header("Content-Length", str(len(body) - start))
        self.end_headers()
        return start

    def log_message(self, *_):
        pass


@pytest.fixture
def server():
    Weights.asked, Weights.ranges, Weights.sent = {}, [], 0
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
    told = []
    path = fetch_model(spec, cache=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == WEIGHTS
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
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


def test_a_download_that_stays_cut_off_is_tried_three_times_and_keeps_what_came(spec, tmp_path):
    cut = replace(spec, href=spec.href.replace("right", "truncated"))
    with pytest.raises(ModelError, match=f"{HALF} bytes are kept"):
        fetch_model(cut, cache=tmp_path, pause=0)
    [kept] = files(tmp_path)
    assert kept.name.endswith(".part")
    assert not is_here(cut, tmp_path)
    assert Weights.asked == {"/truncated": 3}


def test_a_later_command_goes_on_where_the_last_one_broke_off(spec, tmp_path):
    with pytest.raises(ModelError):
        fetch_model(replace(spec, href=spec.href.replace("right", "truncated")), cache=tmp_path, pause=0)
    [part] = files(tmp_path)
    part.rename(part.with_name(part.name.replace("truncated", "right")))
    Weights.ranges, Weights.sent, told = [], 0, []
    path = fetch_model(spec, cache=tmp_path, progress=lambda done, total: told.append((done, total)))
    assert path.read_bytes() == WEIGHTS
    assert (Weights.ranges, Weights.sent) == ([f"bytes={HALF}-"], len(WEIGHTS) - HALF)
    assert told[0][0] > HALF
    assert told[-1] == (len(WEIGHTS), len(WEIGHTS))
    assert files(tmp_path) == [path]


@pytest.mark.parametrize(
    ("name", "ranges"),
    [
        ("breaks", [None, f"bytes={HALF}-"]),
        ("breaks-whole", [None, f"bytes={HALF}-"]),
        ("breaks-shifted", [None, f"bytes={HALF}-", None]),
    ],
)
def test_a_download_that_breaks_off_once_is_whole_whatever_the_server_makes_of_ranges(spec, tmp_path, name, ranges):
    broken = replace(spec, href=spec.href.replace("right", name))
    assert fetch_model(broken, cache=tmp_path, pause=0).read_bytes() == WEIGHTS
    assert Weights.ranges == ranges


@pytest.mark.parametrize("rest", [WEIGHTS[:HALF][::-1], WEIGHTS + b"more"])
def test_what_an_earlier_attempt_left_of_something_else_is_thrown_away(spec, tmp_path, rest):
    target = cached_path(spec, tmp_path)
    target.parent.mkdir(parents=True)
    target.with_name(f"{target.name}.part").write_bytes(rest)
    assert fetch_model(spec, cache=tmp_path, pause=0).read_bytes() == WEIGHTS
    assert files(tmp_path) == [target]


@pytest.mark.parametrize("name", ["flaky", "busy"])
def test_a_server_that_fails_once_is_asked_again(spec, tmp_path, name):
    flaky = replace(spec, href=spec.href.replace("right", name))
    assert fetch_model(flaky, cache=tmp_path, pause=0).read_bytes() == WEIGHTS


def test_a_server_that_refuses_is_not_asked_again(spec, tmp_path):
    with pytest.raises(ModelError, match="404"):
        fetch_model(replace(spec, href=spec.href.replace("right", "missing")), cache=tmp_path)
    assert Weights.asked == {"/missing": 1}


def test_a_server_that_is_not_there_is_a_model_error(spec, tmp_path):
    with pytest.raises(ModelError, match="farmvibes-shadow"):
        fetch_model(replace(spec, href="http://127.0.0.1:1/x.onnx"), cache=tmp_path, pause=0)


def test_weights_that_went_bad_in_the_cache_are_fetched_again(spec, tmp_path):
    fetch_model(spec, cache=tmp_path).write_bytes(b"bad")
    assert fetch_model(spec, cache=tmp_path).read_bytes() == WEIGHTS


def test_a_cache_that_cannot_be_written_is_a_write_error(spec, tmp_path):
    (tmp_path / "file").write_text("")
    with pytest.raises(WriteError, match="cannot be kept"):
        fetch_model(spec, cache=tmp_path / "file")


def test_weights_without_a_checksum_are_not_downloaded(spec, tmp_path):
    with pytest.raises(ModelError, match="could not be trusted"):
        fetch_model(replace(spec, sha256=None), cache=tmp_path)


def test_bundled_weights_need_no_fetching(tmp_path):
    spec = find_model("ukis-csmask-4b-l2a")
    assert fetch_model(spec, cache=tmp_path) == locate(spec)


def test_the_cache_keeps_releases_apart(spec):
    assert cached_path(spec) != cached_path(replace(spec, sha256="0" * 64))
    assert cached_path(spec).is_relative_to(default_cache())


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
