"""A real STAC API on this machine: PostgreSQL with PostGIS, pgSTAC and stac-fastapi-pgstac (see .ci/servers)."""

from __future__ import annotations

import os
import shutil
import socket
import subprocess
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path

import httpx2
import pytest

LIFETIME = "1200"
"""Seconds after which a server stops by itself, if nobody is left to stop it."""
CACHE = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
PYTHON = Path(os.environ.get("STAC_CLOUDMASK_PGSTAC") or CACHE / "stac-cloudmask" / "pgstac") / "bin"


@dataclass(frozen=True)
class PgStac:
    """The address of the API, and the database for clients of its own (the environment that they take)."""

    url: str
    database: dict[str, str]


@contextmanager
def pgstac_server() -> Iterator[PgStac]:
    """Start an empty API; skip where its parts are missing, fail if CI=true."""
    extensions = sorted(Path("/usr/share/postgresql").glob("*/extension/postgis.control"))
    if not extensions or not (PYTHON / "pypgstac").exists():
        reason = "needs PostGIS and stac-fastapi-pgstac, which .ci/servers installs"
        (pytest.fail if os.environ.get("CI") == "true" else pytest.skip)(reason)
    programs = Path("/usr/lib/postgresql") / extensions[-1].parts[-3] / "bin"
    with _folder() as folder, _postgres(programs, folder) as database:
        subprocess.run([PYTHON / "pypgstac", "migrate"], env=os.environ | database, check=True, capture_output=True)
        with _api(database, folder) as url:
            yield PgStac(url, database)


@contextmanager
def _folder() -> Iterator[Path]:
    """A folder that belongs to whom PostgreSQL runs as, as it refuses to be root."""
    folder = Path(tempfile.mkdtemp(prefix="pgstac-", dir="/tmp"))  # a socket's path must be short
    if os.getuid() == 0:
        shutil.chown(folder, "postgres", "postgres")
    try:
        yield folder
    finally:
        shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _postgres(programs: Path, folder: Path) -> Iterator[dict[str, str]]:
    port = free_port()
    identity = {"user": "postgres", "group": "postgres", "extra_groups": []} if os.getuid() == 0 else {}
    data = folder / "data"
    initdb = [programs / "initdb", "-D", data, "-U", "postgres", "-A", "trust", "-E", "UTF8", "--locale=C.UTF-8", "-N"]
    subprocess.run(initdb, check=True, capture_output=True, cwd=folder, **identity)
    options = {"listen_addresses": "127.0.0.1", "port": port, "unix_socket_directories": folder, "fsync": "off"}
    settings = [part for name, value in options.items() for part in ("-c", f"{name}={value}")]
    command = ["timeout", "--signal=INT", LIFETIME, programs / "postgres", "-D", data, *settings]
    database = {"PGHOST": "127.0.0.1", "PGPORT": str(port), "PGUSER": "postgres", "PGPASSWORD": "x"}
    with (folder / "log").open("w") as log:
        running = subprocess.Popen(command, cwd=folder, stdout=log, stderr=log, **identity)
    with _stopped(running):
        _wait(lambda: _succeeds([programs / "createdb", "pgstac"], database))
        yield database | {"PGDATABASE": "pgstac"}


@contextmanager
def _api(database: dict[str, str], folder: Path) -> Iterator[str]:
    port = free_port()
    url = f"http://127.0.0.1:{port}"
    app = ["stac_fastapi.pgstac.app:create_app", "--factory", "--host", "127.0.0.1", "--port", str(port)]
    environment = os.environ | database | {"ENABLE_TRANSACTIONS_EXTENSIONS": "true"}
    with tempfile.TemporaryFile() as log:
        command = ["timeout", LIFETIME, PYTHON / "uvicorn", *app]
        running = subprocess.Popen(command, env=environment, cwd=folder, stdout=log, stderr=log)
        with _stopped(running):
            _wait(lambda: _answers(url))
            yield url


@contextmanager
def _stopped(running: subprocess.Popen) -> Iterator[None]:
    """Stop a server at the end; ``timeout`` passes the signal on to it."""
    with running:
        try:
            yield
        finally:
            running.terminate()
            running.wait(timeout=60)


def _succeeds(command: list[object], environment: dict[str, str]) -> bool:
    return subprocess.run(command, env=os.environ | environment, capture_output=True, check=False).returncode == 0


def _answers(url: str) -> bool:
    try:
        return httpx2.get(f"{url}/_mgmt/ping", timeout=5).is_success
    except httpx2.TransportError:
        return False


def _wait(ready: Callable[[], bool]) -> None:
    end = time.monotonic() + 60
    while not ready():
        if time.monotonic() > end:
            raise TimeoutError("the server did not start within a minute")
        time.sleep(0.05)


def free_port() -> int:
    """A port of 127.0.0.1 that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])
