"""Stand-ins for the work on an item, for tests of who carries it out; workers import them from here."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from stac_cloudmask.models import session
from stac_cloudmask.pipeline.result import Result
from stac_cloudmask.pipeline.run import fitted, work


def nothing(body, settings, out, sharing):
    return Result(item_id=body["id"], status="done")


def threads(body, settings, out, sharing):
    return Result(item_id=body["id"], status="done", seconds={"threads": fitted(settings, sharing).threads})


def fail(body, settings, out, sharing):
    raise RuntimeError("the worker has no such package; https://x.org/?sig=SECRET")


def die(body, settings, out, sharing):
    os.kill(os.getpid(), signal.SIGKILL)


def wait(body, settings, out, sharing):
    """Note that the task runs, then wait until the file ``go`` is there."""
    (Path(out) / f"{body['id']}.running").touch()
    while not (Path(out) / "go").exists():
        time.sleep(0.01)
    return Result(item_id=body["id"], status="done")


def sessions(body, settings, out, sharing):
    """How many sessions this process has opened, by process."""
    work(body, settings, out, sharing)
    return Result(item_id=body["id"], status="done", seconds={str(os.getpid()): len(session._sessions)})
