from __future__ import annotations

import os
import subprocess
import sys
import threading
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest
from azurite import azure_container
from disks import room_for_files_of
from filelock import FileLock
from s3 import s3_server

from stac_cloudmask.errors import ConfigError, WriteError
from stac_cloudmask.stac.store import WORK, LocalStore, open_store
from tests.loopback import running


@pytest.fixture(scope="module")
def bucket():
    with s3_server() as url:
        yield url


@pytest.fixture(scope="module")
def container():
    with azure_container() as url:
        yield url


AZURE = pytest.param("azure", marks=pytest.mark.slow)


@pytest.fixture(params=["directory", "s3", "memory", AZURE])
def store(request, tmp_path):
    if request.param == "memory":
        return open_store("memory:///")
    if request.param == "directory":
        return open_store(tmp_path / "out")
    place = request.getfixturevalue({"s3": "bucket", "azure": "container"}[request.param])
    return open_store(f"{place}/{tmp_path.name}")


def file(folder, name="a.bin", content=b"abc"):
    path = folder / name
    path.write_bytes(content)
    return path


def test_what_was_put_is_there_and_local_files_can_be_moved(store, tmp_path):
    store.put({"c/i/a.tif": file(tmp_path), "c/i/i.json": {"x": [1, 2]}})
    assert store.read_json("c/i/i.json") == {"x": [1, 2]}
    sizes = store.sizes("c/i")
    assert sizes["a.tif"] == 3
    assert set(sizes) == {"a.tif", "i.json"}


def test_what_is_not_there_is_none_and_empty(store):
    assert store.read_json("no/such.json") is None
    assert store.sizes("no") == {}
    store.remove("no/such.json")


def test_a_file_that_is_no_json_reads_as_none(store, tmp_path):
    store.put({"a.json": file(tmp_path, content=b'{"half": ')})
    assert store.read_json("a.json") is None


def test_removed_files_are_gone(store, tmp_path):
    store.put({"c/a.tif": file(tmp_path)})
    store.remove("c/a.tif")
    assert store.sizes("c") == {}


def test_overwriting_replaces(store, tmp_path):
    store.put({"a.tif": file(tmp_path, content=b"long content")})
    store.put({"a.tif": file(tmp_path, content=b"new")})
    assert store.sizes("")["a.tif"] == 3


def test_a_workdir_is_a_local_folder_that_goes_away(store):
    with store.workdir() as work:
        (work / "x").write_text("x")
    assert not work.exists()


def counted(found):
    return {"n": sorted({*(found or {"n": []})["n"], threading.get_ident()})}


@pytest.mark.parametrize("store", ["directory", "s3", "memory", AZURE], indirect=True)
def test_changes_by_many_at_once_are_all_kept(store):
    barrier = threading.Barrier(8)
    seen = []

    def change():
        barrier.wait()
        seen.append(threading.get_ident())
        store.update_json("shared.json", counted)
        barrier.wait()

    threads = [threading.Thread(target=change) for _ in range(8)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert store.read_json("shared.json")["n"] == sorted(seen)


def test_a_change_that_changes_nothing_writes_nothing(tmp_path):
    store = LocalStore(tmp_path)
    store.update_json("a.json", lambda _: {"x": 1})
    before = (tmp_path / "a.json").stat().st_ino
    store.update_json("a.json", lambda found: found)
    assert (tmp_path / "a.json").stat().st_ino == before


def test_a_change_by_others_in_between_is_not_lost(tmp_path, bucket):
    store = open_store(f"{bucket}/{tmp_path.name}")
    others = []

    def change(found):
        if not others:
            others.append(True)
            open_store(f"{bucket}/{tmp_path.name}").put({"a.json": {"n": ["theirs"]}})
        return {"n": sorted({*(found or {"n": []})["n"], "ours"})}

    store.update_json("a.json", change)
    assert store.read_json("a.json") == {"n": ["ours", "theirs"]}


@contextmanager
def unconditional_store():
    """An S3 without conditional writes, as some makes are; the first write of "ours" is lost to somebody else's."""
    held, lost = {}, []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.answer(200 if self.path in held else 404, held.get(self.path, b""))

        def do_PUT(self):
            body = self.rfile.read(int(self.headers["content-length"]))
            if "if-match" in self.headers or "if-none-match" in self.headers:
                self.answer(501, b"<Error><Code>NotImplemented</Code></Error>")
                return
            if b"ours" in body and not lost:
                lost.append(body)
                body = b'{"n": ["theirs"]}'
            held[self.path] = body
            self.answer(200, b"")

        def answer(self, status, body):
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.send_header("etag", '"1"')
            self.send_header("last-modified", "Sun, 29 Nov 2026 00:00:00 GMT")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *args):
            """Keep quiet."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        yield "s3://any/out"
    assert lost


def test_a_lost_update_of_a_store_without_conditions_is_made_again(bucket):
    with unconditional_store() as place:
        store = open_store(place)
        store.update_json("a.json", lambda found: {"n": sorted({*(found or {"n": []})["n"], "ours"})})
        assert store.read_json("a.json") == {"n": ["ours", "theirs"]}


def test_a_shared_file_that_is_no_json_is_not_written_over(tmp_path):
    (tmp_path / "collection.json").write_text("precious, but broken")
    with pytest.raises(WriteError, match=r"collection\.json.*not a JSON object"):
        LocalStore(tmp_path).update_json("collection.json", lambda _: {})
    assert (tmp_path / "collection.json").read_text() == "precious, but broken"


def test_web_addresses_and_unknown_stores_are_refused():
    with pytest.raises(ConfigError, match="web address"):
        open_store("https://example.org/out")
    with pytest.raises(ConfigError, match="nosuch"):
        open_store("nosuch://bucket/out")


def test_a_bucket_that_is_not_there_is_an_error_that_names_it(bucket):
    with pytest.raises(WriteError, match="s3://nobucket/out"):
        open_store("s3://nobucket/out").put({"a.json": {}})


@pytest.mark.slow
def test_an_endpoint_that_is_not_there_is_an_error_that_names_the_place(bucket, monkeypatch):
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    with pytest.raises(WriteError, match=rf"{bucket}/out.*127\.0\.0\.1:9"):
        open_store(f"{bucket}/out").put({"a.json": {}})


def test_a_path_below_a_file_is_an_error_that_names_the_directory(tmp_path):
    file(tmp_path, "out")
    with pytest.raises(WriteError, match=rf"{tmp_path}/out"):
        LocalStore(tmp_path / "out").put({"a.json": {}})
    with pytest.raises(WriteError, match=rf"{tmp_path}/out"), LocalStore(tmp_path / "out").workdir():
        pass


def test_a_full_disk_is_an_error_that_names_the_directory_and_leaves_the_old_file(tmp_path):
    store = LocalStore(tmp_path / "out")
    store.put({"a.json": {"old": True}})
    with room_for_files_of(100), pytest.raises(WriteError, match=rf"{tmp_path}/out.*too large"):
        store.put({"a.json": {"new": "x" * 1000}})
    assert store.read_json("a.json") == {"old": True}
    assert list((tmp_path / "out" / WORK).glob("run-*")) == []


def test_a_directory_that_may_not_be_written_is_an_error_that_names_it(tmp_path):
    code = (
        "import os, sys; from stac_cloudmask.stac.store import LocalStore; from pathlib import Path\n"
        "os.setuid(65534) if os.getuid() == 0 else None\n"
        "LocalStore(Path(sys.argv[1])).put({'a.json': {}})"
    )
    tmp_path.chmod(0o555)
    done = subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True, check=False)
    tmp_path.chmod(0o755)
    assert done.returncode == 1
    assert f"WriteError: {tmp_path}" in done.stderr


def abandoned_run(out: Path) -> Path:
    """The folder of a run that was killed while it worked."""
    code = (
        "import os, signal, sys; from stac_cloudmask.stac.store import LocalStore; from pathlib import Path\n"
        "with LocalStore(Path(sys.argv[1])).workdir() as work:\n"
        "    (work / 'half.tif').write_bytes(b'half')\n"
        "    print(work, flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGKILL)"
    )
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=False)
    assert done.returncode == -9, done.stderr
    return Path(done.stdout.strip())


def test_what_a_killed_run_left_is_cleaned_up_by_the_next_and_live_runs_keep_theirs(tmp_path):
    left = abandoned_run(tmp_path)
    assert (left / "half.tif").exists()
    store = LocalStore(tmp_path)
    with store.workdir() as mine, store.workdir() as other:
        assert mine.exists()
        assert other.exists()
        assert not left.exists()


def test_what_users_keep_beside_temporary_folders_is_left_alone(tmp_path):
    (tmp_path / WORK / "mine").mkdir(parents=True)
    os.utime(tmp_path / WORK / "mine", (0, 0))
    with LocalStore(tmp_path).workdir():
        assert (tmp_path / WORK / "mine").exists()


def test_a_finished_run_leaves_no_temporary_file(tmp_path):
    LocalStore(tmp_path).put({"a.json": {}})
    assert {path.name for path in (tmp_path / WORK).iterdir()} <= {"lock"}


def test_a_lock_that_another_run_holds_is_waited_for(tmp_path):
    store = LocalStore(tmp_path)
    store.put({"a.json": {"n": 0}})
    with FileLock(tmp_path / WORK / "lock"):
        waiting = threading.Thread(target=store.update_json, args=("a.json", lambda found: {"n": found["n"] + 1}))
        waiting.start()
        waiting.join(0.2)
        assert waiting.is_alive()
        assert store.read_json("a.json") == {"n": 0}
    waiting.join(10)
    assert store.read_json("a.json") == {"n": 1}
