from __future__ import annotations

import json
import random
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from pathlib import Path

import numpy as np
import pytest
from checks import checked, layers, read
from offline import Validator
from s3 import s3_server
from scenes import settings_of, write_items, write_model
from strict_api import Fault, strict_api

from stac_cloudmask.errors import ConfigError, WriteError
from stac_cloudmask.pipeline.publish import LINK_EVERY, LINK_SHARE, Listing, Publication
from stac_cloudmask.pipeline.run import plan, read_ahead, run
from stac_cloudmask.retry import RetryPolicy
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.search import load_items
from tests.stac.range_server import serve

TESTS = Path(__file__).parent
COLLECTION = "simulated-sentinel-2-l2a-cloudmask"
SERVED = "https://masks.example.org"
HASTY = RetryPolicy(seconds=0.3, pause=0.1)


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("source"), 4)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def go(sources, out, model, *, retry_seconds=45.0, **options):
    settings = settings_of(model, retry_seconds=retry_seconds)
    return list(run(load_items(map(str, sources)), settings=settings, out=str(out), **options))


def statuses(results):
    return [result.status for result in results]


def names(sources):
    return {f"{path.stem}_cloudmask" for path in sources}


def remote(sources, site):
    return [f"{site.url}/{path.relative_to(path.parents[2])}" for path in sources]


def test_every_item_gets_a_result_and_an_item_that_comes_twice_is_done_once(sources, model, tmp_path):
    results = go([sources[0], tmp_path / "nowhere.json", sources[1], sources[0]], tmp_path / "out", model)
    assert [(result.item_id, result.status) for result in results] == [
        ("scene-0000", "done"),
        (str(tmp_path / "nowhere.json"), "failed"),
        ("scene-0001", "done"),
    ]
    assert checked(tmp_path / "out") == names(sources[:2])


def test_items_of_one_id_do_not_replace_each_other_in_a_collection_of_ones_own(sources, model, tmp_path):
    paths = [sources[0], tmp_path / "other.json"]
    body = read(sources[0])
    body |= {"collection": "elsewhere", "properties": body["properties"] | {"s2:processing_baseline": "05.12"}}
    body["assets"] = {key: one | {"href": str(sources[0].parent / one["href"])} for key, one in body["assets"].items()}
    paths[1].write_text(json.dumps(body))
    settings = settings_of(model, collection_config='{"id": "ours"}')
    results = list(run(load_items(map(str, paths)), settings=settings, out=str(tmp_path / "out")))
    assert sorted(statuses(results)) == ["done", "failed"]
    assert "into another catalog" in next(result.error for result in results if result.error)
    assert [result.error for result in go(paths, tmp_path / "both", model)] == [None, None]


def test_a_note_that_makes_masks_doubtful_is_logged_once(sources, model, tmp_path, caplog):
    for number, path in enumerate(sources[:2]):
        body = read(path)
        body["properties"] = {name: value for name, value in body["properties"].items() if not name.startswith("view:")}
        body["assets"] = {key: one | {"href": str(path.parent / one["href"])} for key, one in body["assets"].items()}
        (tmp_path / f"{number}.json").write_text(json.dumps(body))
    results = go([tmp_path / "0.json", tmp_path / "1.json"], tmp_path / "out", model)
    assert all(any("sun's direction is unknown" in note for note in result.notes) for result in results)
    (said,) = [record.getMessage() for record in caplog.records if "sun's direction" in record.getMessage()]
    assert said.startswith("item scene-0000: the sun's direction is unknown")


def test_the_report_of_a_run_tells_of_every_item(sources, model, tmp_path):
    results = go([tmp_path / "nowhere.json", *sources[:2]], tmp_path / "out", model)
    report = read(tmp_path / "out" / "run.json")
    assert report["finished"] is True
    assert report["counts"] == {"failed": 1, "done": 2}
    assert [item["item_id"] for item in report["items"]] == [result.item_id for result in results]
    assert report["items"][0]["kind"] == "input"
    assert report["items"][1]["seconds"]["infer"] > 0
    assert report["settings"]["merge"] == "calibrated"


def test_a_dry_run_says_what_would_be_done_and_writes_nothing(sources, model, tmp_path):
    go(sources[:1], tmp_path / "out", model)
    before = {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")}
    refs = [*map(str, sources[:2]), str(tmp_path / "nowhere.json"), str(sources[1])]
    planned = list(plan(load_items(refs), settings=settings_of(model), out=str(tmp_path / "out")))
    assert statuses(planned) == ["up-to-date", "planned", "failed"]
    assert {path: path.stat().st_mtime_ns for path in tmp_path.rglob("*")} == before
    assert statuses(plan([], settings=settings_of(model), out=str(tmp_path / "none"))) == []
    assert not (tmp_path / "none").exists()


def test_a_run_that_is_stopped_leaves_what_it_did_listed(sources, model, tmp_path):
    with closing(run(load_items(map(str, sources)), settings=settings_of(model), out=str(tmp_path))) as stream:
        next(stream)
        next(stream)
    assert checked(tmp_path) == names(sources[:2])
    report = read(tmp_path / "run.json")
    assert (report["finished"], report["counts"]) == (False, {"done": 2})
    assert statuses(go(sources, tmp_path, model)) == ["up-to-date", "up-to-date", "done", "done"]


def test_a_search_that_breaks_off_leaves_what_was_done_listed(sources, model, tmp_path):
    def broken():
        yield from load_items([str(sources[0])])
        raise ConfigError("page 2 is broken")

    with pytest.raises(ConfigError, match="page 2"):
        list(run(broken(), settings=settings_of(model), out=str(tmp_path)))
    assert checked(tmp_path) == names(sources[:1])


RUN = """
import sys
from pathlib import Path
from scenes import settings_of
import stac_cloudmask as scm
model, out, *items = sys.argv[1:]
print("ready", flush=True)
sys.stdin.readline()
results = scm.process(items, out=out, settings=settings_of(Path(model)))
sys.exit(any(result.status == "failed" for result in results))
"""


def test_two_runs_into_one_catalog_at_once_keep_each_others_items(sources, model, tmp_path, valid):
    def started(items):
        command = [sys.executable, "-c", RUN, str(model), str(tmp_path), *map(str, items)]
        return subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=TESTS)

    with started(sources[:3]) as one, started(sources[1:]) as other:
        for process in (one, other):
            assert process.stdout.readline() == "ready\n"
        for process in (one, other):
            process.stdin.write("go\n")
            process.stdin.flush()
        assert [one.wait(timeout=120), other.wait(timeout=120)] == [0, 0]
    assert checked(tmp_path, valid) == names(sources)


@pytest.fixture(scope="module")
def valid(shared):
    return Validator(shared / "data" / "schemas")


def overloaded(_, __, ___, chance=random.Random(7)):  # noqa: B008, S311
    """503 to 20 % and 403 to 5 % of all requests."""
    value = chance.random()
    return 503 if value < 0.2 else 403 if value < 0.25 else None


@pytest.mark.slow
def test_an_overloaded_server_changes_no_bit(sources, model, tmp_path):
    go(sources, tmp_path / "local", model)
    with serve(sources[0].parents[2], overloaded) as site:
        results = go(remote(sources, site), tmp_path / "remote", model)
        assert site.statuses[503] + site.statuses[403] > 0
    assert statuses(results) == ["done"] * len(sources)
    for name in checked(tmp_path / "local"):
        here, there = (tmp_path / place / COLLECTION / name for place in ("local", "remote"))
        np.testing.assert_equal(layers(there), layers(here))


def test_what_the_infrastructure_fails_is_told_apart_from_bad_input(sources, model, tmp_path):
    with serve(sources[0].parents[2], lambda _, __, path: 503 if path.endswith("red.tif") else None) as site:
        (result,) = go(remote(sources[:1], site), tmp_path, model, retry_seconds=0)
    assert (result.status, result.kind) == ("failed", "infrastructure")
    assert "asset 'red'" in result.error
    assert checked_is_empty(tmp_path)


def checked_is_empty(out):
    return not (out / COLLECTION).exists() and not (out / "catalog.json").exists()


def test_masks_go_to_a_bucket(sources, model):
    with s3_server() as bucket:
        assert statuses(go(sources[:2], f"{bucket}/masks", model)) == ["done"] * 2
        assert statuses(go(sources[:2], f"{bucket}/masks", model)) == ["up-to-date"] * 2
        catalog = OutputCatalog(f"{bucket}/masks")
        assert {item_id for _, item_id in catalog.listed()} == names(sources[:2])
        (document,) = catalog._store.sizes("models")
        body = catalog.item(COLLECTION, "scene-0000_cloudmask")
        assert f"{bucket}/masks/models/{document}" in [link["href"] for link in body["links"]]


def test_two_runs_at_once_into_one_bucket_keep_each_others_items(sources, model):
    with s3_server() as bucket, ThreadPoolExecutor(2) as pool:
        out = f"{bucket}/masks"
        runs = [pool.submit(go, part, out, model) for part in (sources[:3], sources[1:])]
        assert {status for done in runs for status in statuses(done.result())} <= {"done", "up-to-date"}
        catalog = OutputCatalog(out)
        assert sorted(item_id for _, item_id in catalog.listed()) == sorted(names(sources))
        assert all(catalog.state(*pair) for pair in catalog.listed())


class CountingCatalog:
    """Notes what is listed when; listing fails as often as it is told to."""

    def __init__(self, failures=0):
        self.batches, self.failures = [], failures

    def ids(self, href):
        return tuple(href.split("/"))

    def link(self, hrefs):
        if self.failures:
            self.failures -= 1
            raise WriteError("the store is busy")
        self.batches.append(len(list(hrefs)))


def test_the_first_item_is_listed_at_once_and_batches_grow_with_the_collection():
    catalog = CountingCatalog()
    with closing(Listing(catalog)) as listing:
        for number in range(2000):
            listing.add(f"c/{number}")
    assert catalog.batches[0] == 1
    batches = catalog.batches[1:-1]
    assert sum(catalog.batches) == 2000
    assert min(batches) == LINK_EVERY
    listed = np.cumsum(catalog.batches)
    assert all(batch >= before // LINK_SHARE for batch, before in zip(batches, listed, strict=False))
    assert listed.sum() < 2 * LINK_SHARE * 2000


def test_a_store_that_is_busy_gets_its_list_later():
    catalog = CountingCatalog(failures=2)
    with closing(Listing(catalog)) as listing:
        for number in range(3 * LINK_EVERY):
            listing.add(f"c/{number}")
    assert catalog.batches == [1 + 2 * LINK_EVERY, LINK_EVERY - 1]


def test_a_store_that_stays_busy_is_an_error_after_the_report_is_written(sources, model, tmp_path, monkeypatch):
    def busy(catalog, hrefs):
        raise WriteError("the store is busy")

    monkeypatch.setattr(OutputCatalog, "link", busy)
    with pytest.raises(WriteError, match="busy"):
        go(sources[:1], tmp_path, model)
    report = read(tmp_path / "run.json")
    assert (report["finished"], report["counts"]) == (True, {"done": 1})


def publication(to, **changes):
    roots = {"/": "https://sources.example.org"}
    return Publication(**{"to": to, "asset_root": SERVED, "source_roots": roots, "retry": HASTY} | changes)


def test_each_item_is_published_as_soon_as_it_is_done(sources, model, tmp_path, valid):
    with strict_api() as api:
        stream = run(
            load_items(map(str, sources[:2])),
            settings=settings_of(model),
            out=str(tmp_path),
            publication=publication(api.url, headers={"X-Api-Key": "s3cr3t"}),
        )
        first = next(stream)
        assert set(api.items) == {(COLLECTION, "scene-0000_cloudmask")}
        assert first.published == f"{api.url}/collections/{COLLECTION}/items/scene-0000_cloudmask"
        assert statuses(stream) == ["done"]
        assert {sent["X-Api-Key"] for sent in api.headers} == {"s3cr3t"}
        body = api.items[COLLECTION, "scene-0001_cloudmask"]
        valid(body)
        models = [link["href"] for link in body["links"] if "mlm:name" in link]
        assert [href.startswith(f"{SERVED}/models/tiny-") for href in models] == [True]
        assert body["assets"]["cloud_mask"]["processing:expression"]["expression"] == models[0]
        assert api.collections[COLLECTION]["extent"] == read(tmp_path / COLLECTION / "collection.json")["extent"]
    assert "s3cr3t" not in (tmp_path / "run.json").read_text()


def test_what_cannot_be_published_fails_and_is_published_by_the_next_run(sources, model, tmp_path):
    with strict_api() as api:
        api.faults = [Fault("PUT", 400, text="no such thing")]
        first = go(sources[:2], tmp_path, model, publication=publication(api.url))
        assert statuses(first) == ["failed", "done"]
        assert "masked, but not published" in first[0].error
        assert "no such thing" in first[0].error
        assert checked(tmp_path) == names(sources[:2])
        again = go(sources[:2], tmp_path, model, publication=publication(api.url))
        assert statuses(again) == ["up-to-date"] * 2
        assert {name for _, name in api.items} == names(sources[:2])


def test_masks_are_copied_to_another_store_with_their_models(sources, model, tmp_path, valid):
    results = go(sources[:2], tmp_path / "out", model, publication=publication(str(tmp_path / "copy")))
    assert [result.published.startswith(str(tmp_path / "copy")) for result in results] == [True] * 2
    assert checked(tmp_path / "copy", valid) == names(sources[:2])


def test_headers_of_a_publication_are_not_shown():
    assert "s3cr3t" not in repr(publication("https://x.org", headers={"Authorization": "s3cr3t"}))


def test_an_address_that_nothing_can_be_published_to_ends_the_run_before_it_starts(sources, model, tmp_path):
    with pytest.raises(ConfigError, match="nosuch"):
        go(sources, tmp_path, model, publication=publication("nosuch://x/y"))
    assert checked_is_empty(tmp_path)


def test_entries_are_read_ahead_in_order_and_counted_before_the_first_is_done():
    counts = []
    known = threading.Event()

    def counted(count):
        counts.append(count)
        known.set()

    entries = read_ahead(iter(range(5)), counted=counted)
    assert next(entries) == 0
    assert known.wait(timeout=30)
    assert list(entries) == [1, 2, 3, 4]
    assert counts == [5]


def test_an_error_of_what_is_read_ahead_comes_after_what_was_before_it():
    def source():
        yield 1
        raise ValueError("page 2")

    entries = read_ahead(source(), counted=lambda _: None)
    assert next(entries) == 1
    with pytest.raises(ValueError, match="page 2"):
        next(entries)
