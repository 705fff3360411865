from __future__ import annotations

import json
import os
import pty
import re
import signal
import subprocess
import sys
from dataclasses import fields
from pathlib import Path

import pytest
from checks import checked, read
from scenes import SIDE, write_items, write_model
from strict_api import strict_api

from stac_cloudmask import __version__
from stac_cloudmask.cli.console import plural
from stac_cloudmask.cli.options import PANELS
from stac_cloudmask.config import Settings
from stac_cloudmask.pipeline.result import Estimate

COMMAND = [sys.executable, "-c", "from stac_cloudmask.cli.app import main; main()"]
ANSI = re.compile(r"\x1b\[")
COLOR = re.compile(r"\x1b\[[0-9;]*3[0-9]m")


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("source"), 3)


@pytest.fixture(scope="module")
def small(tmp_path_factory):
    """Options for a small model."""
    model = str(write_model(tmp_path_factory.mktemp("model")))
    return ["--cloud-model", model, "--shadow-model", model, "--threads", "1"]


def test_done_and_up_to_date_are_exit_code_0_with_a_line_for_each_item(cli, sources, small, tmp_path):
    for status in ("done", "up-to-date"):
        code, out, err = cli("process", *sources[:2], "--out", tmp_path, *small)
        assert (code, err) == (0, "")
        lines = out.splitlines()
        assert [line.split()[:2] for line in lines] == [[status, "scene-0000"], [status, "scene-0001"]]
        assert all(line.endswith(f"scene-000{n}_cloudmask.json") for n, line in enumerate(lines))
    assert checked(tmp_path) == {"scene-0000_cloudmask", "scene-0001_cloudmask"}


def test_a_failed_item_is_exit_code_1_with_one_line_that_says_why(cli, sources, small, tmp_path):
    code, out, err = cli("process", tmp_path / "nowhere.json", sources[0], "--out", tmp_path / "out", *small)
    assert (code, err) == (1, "")
    failed, done = out.splitlines()
    assert failed.startswith(f"failed      {tmp_path}/nowhere.json  there is no file")
    assert done.startswith("done        scene-0000  ")


WRONG = {
    "no items": (["process", "--out", "OUT"], "name items"),
    "ids without a catalog": (["process", "scene-0000", "--out", "OUT"], "needs a catalog"),
    "two engines": (["process", "x.json", "--out", "OUT", "--workers", "1", "--scheduler", "tcp://x:1"], "one of"),
    "a threshold": (["process", "x.json", "--out", "OUT", "--cloud-thr", "0.123"], "whole percents"),
    "an address to write to": (["process", "x.json", "--out", "https://example.org/masks"], "cannot be written to"),
    "a header": (["process", "x.json", "--out", "OUT", "--publish", "https://x.org", "--header", "s3cr3t"], "number 1"),
    "nowhere to search": (["search"], "--catalog"),
    "a folder without a catalog to publish": (["publish", "nothere", "--to", "copy"], "nothere is not a folder"),
    "a folder without a catalog to export": (["export", ".", "x.ndjson"], "has no catalog.json"),
    "a report of a web address": (["report", "https://example.org/masks", "--out", "OUT"], "not read from a web"),
    "an export of a web address": (["export", "https://example.org/masks", "x.ndjson"], "not read from a web address"),
    "an evaluation of a web address": (
        ["evaluate", "https://example.org/masks", "--reference", "labels.tif"],
        "not read from a web address",
    ),
    "a root without a URL": (["publish", ".", "--to", "copy", "--source-root", "/data"], "LOCAL=URL"),
    "opposites": (["publish", ".", "--to", "https://x.org", "--attach", "--detach"], "opposites"),
    "a collection": (
        ["process", "x.json", "--out", "OUT", "--collection-config", "none.json"],
        "none.json cannot be read as JSON",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_wrong_command_is_exit_code_2_with_one_line(cli, tmp_path, monkeypatch, case):
    monkeypatch.chdir(tmp_path)
    args, told = WRONG[case]
    code, out, err = cli(*args)
    if case == "ids without a catalog":  # one of many refs may be wrong; it fails, and others go on
        assert (code, told in out) == (1, True)
        return
    assert (code, out) == (2, "")
    assert err.startswith("error: ")
    assert told in err
    assert err.count("\n") == 1
    assert "s3cr3t" not in err
    assert not (tmp_path / "OUT").exists()


@pytest.mark.parametrize("args", [["process", "x.json"], ["process", "--merge", "best"], ["no-such-command"]], ids=str)
def test_options_that_do_not_exist_are_exit_code_2(cli, args):
    code, out, err = cli(*args)
    assert (code, out) == (2, "")
    assert "Usage" in err


def test_a_model_that_does_not_exist_names_those_that_do(cli, sources, tmp_path):
    code, out, err = cli("process", sources[0], "--out", tmp_path, "--cloud-model", "best")
    assert (code, out) == (1, "")
    assert err.startswith("error: no model 'best'; there are ukis-csmask-4b-l2a")


def test_an_output_that_cannot_be_written_is_exit_code_1_before_anything_is_read(cli, sources, small, tmp_path):
    (tmp_path / "out").write_text("a file")
    code, out, err = cli("process", *sources, "--out", tmp_path / "out", *small)
    assert (code, out) == (1, "")
    assert "needs a writable directory" in err


def test_json_is_one_object_a_line(cli, sources, small, tmp_path):
    code, out, err = cli("process", tmp_path / "nowhere.json", sources[0], "--out", tmp_path / "out", "--json", *small)
    assert (code, err) == (1, "")
    failed, done = map(json.loads, out.splitlines())
    assert (failed["status"], failed["kind"]) == ("failed", "input")
    assert (done["status"], done["item_id"]) == ("done", "scene-0000")
    assert done["cover"]["cloud"] > 0
    assert Path(done["output"]).exists()


@pytest.mark.parametrize(("count", "said"), [(0, "0 items"), (1, "1 item"), (2, "2 items")])
def test_a_noun_agrees_with_its_count(count, said):
    assert plural(count, "item") == said


def test_a_dry_run_says_what_each_item_and_all_would_cost_and_writes_nothing(cli, sources, small, tmp_path):
    arguments = ["process", *sources, tmp_path / "nowhere.json", "--out", tmp_path / "out", "--dry-run", *small]
    code, out, err = cli(*arguments, "--workers", "2")
    assert code == 1
    *planned, failed = out.splitlines()
    assert [line.split()[:2] for line in planned] == [["planned", f"scene-000{number}"] for number in range(3)]
    for words in ("Mpx", "kB to read", "windows (computed"):
        assert all(words in line for line in planned)
    assert failed.startswith("failed")
    assert re.search(r"^total: 3 items to process, 0\.0 Mpx, \S+ kB to read$", err, re.MULTILINE)
    assert not (tmp_path / "out").exists()


def test_a_terminal_without_unicode_gets_escapes(sources, small, tmp_path):
    out = tmp_path / "Überflug"
    command = [*COMMAND, "process", str(sources[0]), "--out", str(out), *small]
    ascii_only = os.environ | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(command, capture_output=True, text=True, env=ascii_only, timeout=120, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert r"\xdcberflug" in done.stdout
    assert next(out.rglob("cloud_mask.tif"))


def test_an_estimate_is_an_object_in_json(cli, sources, small, tmp_path):
    code, out, err = cli("process", sources[0], "--out", tmp_path, "--dry-run", "--json", *small)
    assert (code, err) == (0, "")
    estimate = json.loads(out)["estimate"]
    assert set(estimate) == {field.name for field in fields(Estimate)}
    assert estimate["pixels"] == SIDE**2
    assert min(estimate.values()) > 0


def test_verbose_shows_where_an_error_came_from(cli, sources, tmp_path):
    args = ("process", sources[0], "--out", tmp_path, "--cloud-model", "best")
    assert "Traceback" not in cli(*args)[2]
    assert "Traceback" in cli("--verbose", *args)[2]


def test_a_search_of_a_catalog_is_processed(cli, sources, small, tmp_path):
    where = ["--catalog", sources[0].parents[2], "--collection", "simulated-sentinel-2-l2a"]
    code, out, _ = cli("search", *where, "--max-items", "2")
    assert (code, [line.split()[0] for line in out.splitlines()]) == (0, ["scene-0000", "scene-0001"])
    code, out, _ = cli("search", *where, "--json")
    assert [json.loads(line)["id"] for line in out.splitlines()] == ["scene-0000", "scene-0001", "scene-0002"]
    code, _, _ = cli("process", *where, "--max-items", "2", "--out", tmp_path, *small)
    assert (code, checked(tmp_path)) == (0, {"scene-0000_cloudmask", "scene-0001_cloudmask"})
    code, _, _ = cli("process", "scene-0002", *where, "--out", tmp_path, *small)
    assert (code, len(checked(tmp_path))) == (0, 3)


def test_a_search_that_finds_nothing_says_so(cli, sources, small, tmp_path):
    where = ["--catalog", sources[0].parents[2], "--bbox", "46", "11", "47", "12"]
    for command in (("process", *where, "--out", tmp_path, *small), ("search", *where)):
        code, out, err = cli(*command)
        assert (code, out) == (1, "")
        assert "no items found: bbox is west south east north, here longitude 46 to 47, latitude 11 to 12" in err


@pytest.mark.filterwarnings("always::stac_cloudmask.errors.StacCloudmaskWarning")
def test_of_two_named_products_of_one_id_one_is_masked_or_both_under_their_own_ids(cli, sources, small, tmp_path):
    body = json.loads(sources[0].read_text())
    paths = [tmp_path / "old.json", tmp_path / "new.json"]
    for path, baseline in zip(paths, ("04.00", "05.10"), strict=True):
        for asset in body["assets"].values():
            asset["href"] = str(sources[0].parent / asset["href"])
        body["properties"]["s2:processing_baseline"] = baseline
        path.write_text(json.dumps(body))
    _, out, err = cli("process", *paths, "--out", tmp_path / "one", "--dry-run", *small)
    assert len(out.splitlines()) == 1
    assert "2 products of this id" in err
    _, out, _ = cli("process", *paths, "--out", tmp_path / "both", "--versions", "all", "--dry-run", *small)
    assert [line.split()[1] for line in out.splitlines()] == ["scene-0000_N0400", "scene-0000_N0510"]


def test_a_catalog_of_masks_has_nothing_to_mask_and_a_named_mask_is_refused(cli, sources, small, tmp_path):
    assert cli("process", sources[0], "--out", tmp_path, *small)[0] == 0
    code, out, err = cli("process", "--catalog", tmp_path, "--out", tmp_path, *small)
    assert (code, out) == (1, "")
    assert "left out masks of stac_cloudmask among the items found: 1" in err
    assert "no items found" in err
    mask = next(tmp_path.glob("*/scene-0000_cloudmask/*.json"))
    for extra in ([], ["--dry-run"]):
        code, out, _ = cli("process", mask, "--out", tmp_path, *extra, *small)
        assert code == 1
        assert "is a mask of stac_cloudmask already" in out


def test_items_are_published_with_secret_headers(cli, sources, small, tmp_path, monkeypatch):
    monkeypatch.setenv("CLOUDMASK_HEADERS", "Authorization: Bearer s3cr3t\nX-Other: 1")
    with strict_api() as api:
        more = [
            "--publish",
            api.url,
            "--asset-root",
            "https://masks.example.org",
            "--source-root",
            "/=https://s.example.org",
        ]
        code, out, err = cli("process", sources[0], "--out", tmp_path, *more, *small)
    assert (code, err) == (0, "")
    assert "s3cr3t" not in out
    assert [name for _, name in api.items] == ["scene-0000_cloudmask"]
    assert {(sent["Authorization"], sent["X-Other"]) for sent in api.headers} == {("Bearer s3cr3t", "1")}


def test_ids_from_outside_cannot_steer_a_terminal(cli, sources, small, tmp_path):
    body = read(sources[0]) | {"id": "a\x1b]0;title\x07b"}
    (tmp_path / "hostile.json").write_text(json.dumps(body))
    code, out, _ = cli("process", tmp_path / "hostile.json", "--out", tmp_path / "out", *small)
    assert code == 1
    assert "\x1b" not in out
    assert "\\x1b" in out


@pytest.fixture
def interruptible():
    """Ctrl-C works in processes that the test starts, also where the tests themselves run in the background."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.mark.usefixtures("interruptible")
@pytest.mark.parametrize("case", [(signal.SIGTERM,), (signal.SIGINT, "--workers", "1")], ids=str)
def test_a_run_that_is_stopped_is_exit_code_130_and_lists_what_was_done(sources, small, tmp_path, case):
    stop, *engine = case
    items = [str(sources[n % 3]) for n in range(3)]
    command = [
        *COMMAND,
        "process",
        *items,
        *many(tmp_path, sources[0]),
        "--out",
        str(tmp_path / "out"),
        *engine,
        *small,
    ]
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True}
    with subprocess.Popen(command, **pipes, start_new_session=True) as run:
        first = run.stdout.readline()
        os.killpg(run.pid, stop)  # as a terminal does it: the workers get it, too
        _, err = run.communicate(timeout=60)
    assert run.returncode == 130
    assert first.startswith("done")
    assert err == "stopped; run the same command again to finish the rest\n"
    listed = checked(tmp_path / "out")
    assert f"{first.split()[1]}_cloudmask" in listed
    assert len(listed) < 43
    assert read(tmp_path / "out" / "run.json")["finished"] is False


def many(folder, source, count=40):
    """More items than can be done before a signal comes: one scene under other ids."""
    body = read(source)
    for asset in body["assets"].values():
        asset["href"] = str(source.parent / asset["href"])
    paths = [folder / f"more-{number}.json" for number in range(count)]
    for path in paths:
        path.write_text(json.dumps(body | {"id": path.stem}))
    return [str(path) for path in paths]


def on_terminal(command, *, stdout=subprocess.PIPE, **env):
    """What a command writes to a terminal that is its stderr, and to its stdout; None for that is the terminal, too."""
    ours, theirs = pty.openpty()
    shown = bytearray()
    plain = {name: value for name, value in os.environ.items() if name != "NO_COLOR"}
    with subprocess.Popen(command, stdout=stdout or theirs, stderr=theirs, env=plain | {"TERM": "xterm"} | env) as run:
        os.close(theirs)
        try:
            while part := os.read(ours, 4096):
                shown += part
        except OSError:  # how Linux says that the other end is closed
            pass
        out = run.stdout.read().decode() if run.stdout else ""
    os.close(ours)
    return shown.decode(), out


def test_a_terminal_gets_bars_and_a_pipe_gets_none(sources, small, tmp_path):
    command = [*COMMAND, "process", *map(str, sources), "--out", str(tmp_path), *small]
    shown, out = on_terminal(command, COLUMNS="140")
    assert COLOR.search(shown)
    for words in ("3 done", "3/3", "/min"):
        assert words in shown
    assert not ANSI.search(out)
    assert len(out.splitlines()) == 3
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    assert done.stderr == ""
    assert not ANSI.search(done.stdout)


def test_no_color_is_obeyed(sources, small, tmp_path):
    command = [*COMMAND, "process", str(sources[0]), "--out", str(tmp_path), *small]
    shown, _ = on_terminal(command, NO_COLOR="1")
    assert "1 done" in shown
    assert not COLOR.search(shown)


COMMANDS = ["search", "process", "publish", "evaluate", "report", "demo", "models", "models list", "models check"]


@pytest.mark.parametrize("command", COMMANDS)
def test_every_command_has_help_that_shows_how_it_is_called(cli, command):
    code, out, err = cli(*command.split(), "--help")
    assert (code, err) == (0, "")
    assert f"stac-cloudmask {command}" in out


def test_every_setting_has_an_option(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "250")
    _, out, _ = cli("process", "--help")
    renamed = {"private_hosts": "allow_host", "local_roots": "allow_folder", "area": "clip"}
    for name in Settings.__dataclass_fields__:
        assert f"--{renamed.get(name, name).replace('_', '-')} " in out


def test_the_help_of_process_fits_two_screens_and_says_first_what_matters(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "100")
    lines = cli("process", "--help")[1].splitlines()
    assert len(lines) <= 100
    assert "<bool>" not in "".join(lines)
    assert "".join(lines).isascii()
    start = lines.index("Main options:")
    shown = [line.split()[0] for line in lines[start:] if line.startswith("  --")][:10]
    assert shown == [f"--{name.replace('_', '-')}" for name in PANELS["Main options"].split()]


@pytest.mark.parametrize(
    "command",
    [
        ("publish", "{empty}", "--to", "http://127.0.0.1:9"),
        ("export", "{empty}", "{empty}/x.ndjson"),
        ("report", "{empty}"),
        ("report", "{tiff}"),
        ("evaluate", "{empty}", "--reference", "a"),
        ("process", "{tiff}", "--out", "{empty}/out"),
        ("process", "{empty}", "--out", "{empty}/out"),
        ("process", "{catalog}", "--out", "{empty}/out"),
        ("process", "--catalog", "{tiff}", "--out", "{empty}/out"),
        ("process", "x", "--catalog", "{tiff}", "--out", "{empty}/out"),
        ("process", "{tiff}", "--out", "{empty}/out", "--collection-config", "{tiff}"),
        ("explain", "{tiff}", "1", "1"),
        ("explain", "{empty}", "1", "1"),
        ("explain", "{catalog}", "1", "1"),
        ("publish", "{catalog}", "--to", "{empty}/copy"),
        ("export", "{catalog}", "{empty}/x.ndjson"),
        ("search", "--catalog", "{empty}"),
        ("search", "--catalog", "{tiff}"),
    ],
)
def test_wrong_words_get_one_line_that_helps(cli, sources, tmp_path, command):
    tiff, catalog = sources[0].with_name("red.tif"), sources[0].parents[2] / "catalog.json"
    code, out, err = cli(*(word.format(empty=tmp_path, tiff=tiff, catalog=catalog) for word in command))
    assert code in {1, 2}
    assert len((out + err).splitlines()) == 1
    assert "codec" not in out + err
    helps = (
        "give the folder", "is not a folder", "is a GeoTIFF", "is a folder", "there is no file", "catalog is given by",
        "not a catalog that `process --out` wrote", "it is not text",
    )  # fmt: skip
    assert any(words in out + err for words in helps)


def test_a_path_on_a_narrow_terminal_stays_on_its_line(sources, small, tmp_path):
    command = [*COMMAND, "process", str(sources[0]), "--out", str(tmp_path / ("long" * 30)), *small]
    shown, _ = on_terminal(command, stdout=None, COLUMNS="60")
    (written,) = tmp_path.glob("long*/*/*/*_cloudmask.json")
    assert shown.count(str(written)) == shown.count("scene-0000_cloudmask.json") == 1


def test_a_command_without_arguments_explains_itself(cli):
    for args in ([], ["process"], ["models"]):
        code, out, err = cli(*args)
        assert code == 2
        assert "Usage: " in out + err
        assert "--help" in out + err


def test_west_and_south_are_no_options(cli, sources, small, tmp_path):
    cli("process", sources[0], "--out", tmp_path, *small)
    code, _, err = cli("explain", "scene-0000", "--catalog", tmp_path, "-113.5", "-51.3")
    assert code == 2
    assert "longitude -113.5, latitude -51.3 is outside" in err


def test_the_version_is_told(cli):
    assert cli("--version") == (0, f"{__version__}\n", "")


def test_shells_can_complete(tmp_path):
    program = Path(sys.executable).with_name("stac-cloudmask")
    for words, expected in (("pro", "process"), ("process --mer", "--merge"), ("process --merge u", "union")):
        line = f"stac-cloudmask {words}"
        env = {"_STAC_CLOUDMASK_COMPLETE": "complete_bash", "COMP_WORDS": line, "COMP_CWORD": str(line.count(" "))}
        done = subprocess.run([program], env=os.environ | env, capture_output=True, text=True, check=False)
        assert expected in done.stdout.split()


def test_models_are_listed_with_what_users_choose_them_by(cli, monkeypatch):
    monkeypatch.setenv("COLUMNS", "200")
    code, out, _ = cli("models", "list")
    assert code == 0
    for words in ("ukis-csmask-4b-l2a", "cloud+shadow", "Apache-2.0", "farmvibes-cloud-5", "farmvibes-shadow", "MIT"):
        assert words in out
    _, out, _ = cli("models", "list", "--json")
    models = [json.loads(line) for line in out.splitlines()]
    assert len(models) == 9
    assert [model["name"] for model in models if model["weights_here"]][:2] == [
        "ukis-csmask-4b-l2a",
        "ukis-csmask-6b-l2a",
    ]


def test_a_model_is_shown_whole(cli):
    code, out, _ = cli("models", "show", "ukis-csmask-4b-l2a", "--json")
    assert code == 0
    assert json.loads(out)["bands"] == ["blue", "green", "red", "nir"]
    code, out, _ = cli("models", "show", "ukis-csmask-4b-l2a")
    assert (code, "blue, green, red, nir" in out) == (0, True)


def test_a_model_is_checked(cli, tmp_path):
    model = write_model(tmp_path)
    assert cli("models", "check", model)[0] == 0
    model.with_suffix(".onnx").write_bytes(b"no model")
    code, out, _ = cli("models", "check", model)
    assert code == 1
    assert "error: " in out


def test_the_demo_runs_offline_and_scores_the_mask(cli, tmp_path):
    code, out, _ = cli("demo", "--out", tmp_path, "--size", "256", "--json")
    assert code == 0
    assert json.loads(out)["result"]["status"] == "done"
    assert len(checked(tmp_path / "masks")) == 1
