from __future__ import annotations

import subprocess
import sys
from datetime import UTC, datetime
from functools import partial
from multiprocessing import resource_tracker
from pathlib import Path

import numpy as np
import psutil
import pystac
import pytest
import tasks
from checks import checked, layers, read
from dask.system import CPU_COUNT
from scenes import settings_of, write_items, write_model

import stac_cloudmask as scm
from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ConfigError, ReadError
from stac_cloudmask.models import session
from stac_cloudmask.pipeline.run import IN_FLIGHT, LEAST_IN_FLIGHT, local_client, on_dask, open_engine, run
from stac_cloudmask.stac.search import load_items

WORKERS = 2


@pytest.fixture(scope="module")
def cluster():
    distributed = pytest.importorskip("distributed")
    with distributed.LocalCluster(n_workers=WORKERS, threads_per_worker=1, dashboard_address="127.0.0.1:0") as cluster:
        yield cluster


@pytest.fixture(scope="module")
def client(cluster):
    with cluster.get_client() as client:
        yield client


@pytest.fixture(scope="module")
def sources(tmp_path_factory):
    return write_items(tmp_path_factory.mktemp("source"), 6)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    return write_model(tmp_path_factory.mktemp("model"))


def numbered(count):
    for number in range(count):
        yield pystac.Item(f"item-{number}", None, None, datetime(2024, 1, 1, tzinfo=UTC), {})


def results_of(client, task, items, out="out", settings=None):
    return on_dask(items, settings or Settings(), str(out), client=client, task=task)


def test_an_existing_cluster_makes_the_same_catalog_as_this_process(cluster, sources, model, tmp_path):
    scm.process(sources, out=tmp_path / "here", settings=settings_of(model))
    with open_engine(scheduler=cluster.scheduler_address) as engine:
        found = load_items(map(str, sources))
        results = list(run(found, settings=settings_of(model), out=str(tmp_path / "there"), engine=engine))
    assert [result.status for result in results] == ["done"] * len(sources)
    names = checked(tmp_path / "there")
    assert names == checked(tmp_path / "here")
    for name in names:
        folder = Path("simulated-sentinel-2-l2a-cloudmask") / name
        np.testing.assert_equal(layers(tmp_path / "there" / folder), layers(tmp_path / "here" / folder))
    assert read(tmp_path / "there" / "run.json")["counts"] == {"done": len(sources)}


def test_a_client_of_the_users_own_serves_too(client, sources, model, tmp_path):
    results = scm.process(sources[:2], out=tmp_path, settings=settings_of(model), client=client)
    assert {result.status for result in results} == {"done"}
    again = scm.process(sources[:2], out=tmp_path, settings=settings_of(model), client=client)
    assert {result.status for result in again} == {"up-to-date"}


def test_a_failed_item_is_a_result_among_the_others(client, sources, model, tmp_path):
    body = read(sources[0])
    del body["assets"]["nir"]
    spoilt = pystac.Item.from_dict(body | {"id": "spoilt"}, migrate=False)
    spoilt.set_self_href(str(sources[0]))
    results = scm.process([spoilt, sources[1]], out=tmp_path, settings=settings_of(model), client=client)
    assert {result.item_id: result.status for result in results} == {"spoilt": "failed", "scene-0001": "done"}
    assert "'nir'" in next(result.error for result in results if result.error)


def test_paths_hold_wherever_a_worker_runs(client, sources, tmp_path, monkeypatch):
    write_model(tmp_path / "model")
    monkeypatch.chdir(tmp_path)
    settings = settings_of(Path("model/tiny.json"))
    (result,) = scm.process(sources[0], out="out", settings=settings, client=client)
    assert result.output.startswith(str(tmp_path / "out"))
    assert Path(result.output).exists()


def test_few_tasks_are_known_at_a_time_however_many_items_there_are(client):
    taken = received = most = 0

    def counted():
        nonlocal taken, most
        for item in numbered(200):
            taken += 1
            most = max(most, taken - received)
            yield item

    for _ in results_of(client, tasks.nothing, counted()):
        received += 1
    assert received == 200
    assert most == max(LEAST_IN_FLIGHT, IN_FLIGHT * WORKERS)


def test_results_come_while_others_still_run(client, tmp_path):
    (tmp_path / "go").touch()
    stream = results_of(client, tasks.wait, numbered(40), tmp_path)
    first = next(stream)
    assert first.status == "done"
    assert len(list(tmp_path.glob("*.running"))) < 40
    assert len(list(stream)) == 39


def test_tasks_of_one_machine_share_its_cpus(client):
    found = {result.seconds["threads"] for result in results_of(client, tasks.threads, numbered(8))}
    assert found == {max(1, CPU_COUNT // WORKERS)}
    chosen = results_of(client, tasks.threads, numbered(1), settings=Settings(threads=7))
    assert next(chosen).seconds["threads"] == 7


def test_a_worker_opens_a_model_once(client, sources, tmp_path):
    settings = settings_of(write_model(tmp_path / "model"))
    before = client.run(opened)
    items = [found for found in load_items(map(str, sources)) if isinstance(found, pystac.Item)]
    list(results_of(client, tasks.sessions, items, tmp_path / "out", settings=settings))
    after = client.run(opened)
    assert sum(after.values()) - sum(before.values()) <= WORKERS


def opened():
    """Sessions of this process; a worker runs it."""
    return len(session._sessions)


def test_what_a_cluster_throws_is_a_failed_item_without_secrets(client):
    (failed,) = results_of(client, tasks.fail, numbered(1))
    assert (failed.item_id, failed.status, failed.kind) == ("item-0", "failed", "infrastructure")
    assert "no such package" in failed.error
    assert "SECRET" not in failed.error


def test_a_search_that_breaks_off_finishes_what_was_found(client):
    def broken():
        yield from numbered(5)
        raise ReadError("page 2 of the search cannot be read")

    stream = results_of(client, tasks.nothing, broken())
    assert [next(stream).status for _ in range(5)] == ["done"] * 5
    with pytest.raises(ReadError, match="page 2"):
        next(stream)


def test_stopping_early_leaves_nothing_on_the_cluster(client, tmp_path):
    stream = results_of(client, tasks.wait, numbered(100), tmp_path)
    (tmp_path / "go").touch()
    next(stream)
    (tmp_path / "go").unlink()
    stream.close()
    (tmp_path / "go").touch()
    assert [result.status for result in results_of(client, tasks.nothing, numbered(2))] == ["done", "done"]
    assert client.futures == {}


@pytest.mark.parametrize("given", [{"workers": 1, "scheduler": "x"}, {"workers": 0}, {"scheduler": "nonsense://"}])
def test_an_engine_that_cannot_be_had_is_a_wrong_command(given):
    with pytest.raises(ConfigError), open_engine(**given):
        pass


def test_workers_of_our_own_are_gone_afterwards(sources, model, tmp_path, caplog):
    resource_tracker.ensure_running()  # it stays, whoever is the first to need it
    before = set(psutil.Process().children())
    results = scm.process(sources[:3], out=tmp_path, settings=settings_of(model), workers=1)
    assert {result.status for result in results} == {"done"}
    assert checked(tmp_path) == {f"{path.stem}_cloudmask" for path in sources[:3]}
    assert set(psutil.Process().children()) <= before  # a browser's own children come and go
    assert [record.message for record in caplog.records if record.name.startswith("stac_cloudmask")] == []


def test_a_script_without_a_main_guard_gets_one_line(sources, model, tmp_path):
    script = tmp_path / "script.py"
    code = f"""
import sys
sys.path.insert(0, {str(Path(__file__).parent)!r})
from pathlib import Path
from scenes import settings_of
import stac_cloudmask as scm
settings = settings_of(Path({str(model)!r}))
try:
    scm.process({str(sources[0])!r}, out={str(tmp_path / "out")!r}, settings=settings, workers=2)
except scm.StacCloudmaskError as error:
    print(f"{{type(error).__name__}}: {{error}}")
"""
    script.write_text(code)
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=300, check=False)
    [line] = done.stdout.splitlines()
    assert line.startswith("ConfigError: ")
    assert '`if __name__ == "__main__":`' in line
    assert done.stderr == ""


def test_a_cluster_that_goes_away_is_said_and_leaves_what_was_done_listed(sources, model, tmp_path):
    distributed = pytest.importorskip("distributed")

    cluster = distributed.LocalCluster(
        n_workers=1, threads_per_worker=1, dashboard_address="127.0.0.1:0", processes=False
    )
    with cluster, distributed.Client(cluster, set_as_default=False) as client:
        found = load_items(map(str, sources))
        stream = run(found, settings=settings_of(model), out=str(tmp_path), engine=partial(on_dask, client=client))
        assert next(stream).status == "done"
        cluster.close()
        with pytest.raises(ReadError, match=r"cluster is gone.*run the same command again"):
            list(stream)
    assert "scene-0000_cloudmask" in checked(tmp_path)


def _callbacks(dask_worker):
    return set(dask_worker.periodic_callbacks)


def test_workers_of_a_local_cluster_are_not_profiled_which_can_hang_python_3_11(client):
    with local_client(1) as own:
        [names] = own.run(_callbacks).values()
    [profiled, _] = client.run(_callbacks).values()
    assert profiled - names == {"profile", "profile-cycle"}
