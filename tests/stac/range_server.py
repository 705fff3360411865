"""A real HTTP server on 127.0.0.1 for files with byte ranges, which fails in the ways that real ones do."""

from __future__ import annotations

import re
import threading
import time
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING
from uuid import uuid4

from tests.loopback import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from pathlib import Path

    Fault = Callable[[int, str, str], int | str | None]


def healthy(number: int, method: str, path: str) -> None:
    """No fault, ever."""


@dataclass
class Site:
    """A folder that is served, and what is to go wrong.

    Attributes:
        root: The folder.
        fault: From number, method and path of a request to what happens instead of an answer: a status code; ``cut``,
            the body stops half-way; ``reset``, the connection does; ``late``, the answer takes ``pause`` seconds;
            ``slow``, the body comes in eight parts ``pause`` seconds apart; ``long`` and ``short``, the header states
            100 bytes more or less than there are; a URL, the answer redirects there; or None.
        pause: Seconds, see ``fault``.
        etag: Given with every file; None for none.
        extra: Headers of every answer.
        asked: How often each path was asked for.
        logins: The ``Authorization`` of each request.
        given: Bytes given of each path.
        statuses: How often each status was given.
        prefix: In front of every path and no other site's, so that what GDAL remembers of an earlier server, which may
            have had the same port, is not taken for this one's.
    """

    root: Path
    fault: Fault = healthy
    pause: float = 0.05
    etag: str | None = None
    extra: dict[str, str] = field(default_factory=dict)
    asked: Counter[str] = field(default_factory=Counter)
    logins: list[str | None] = field(default_factory=list)
    given: Counter[str] = field(default_factory=Counter)
    statuses: Counter[int] = field(default_factory=Counter)
    prefix: str = field(default_factory=lambda: f"/{uuid4().hex}")
    url: str = ""
    lock: threading.Lock = field(default_factory=threading.Lock)


class Handler(BaseHTTPRequestHandler):
    """Answers for ``self.server.site``."""

    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_HEAD(self):
        self.answer(body=False)

    def do_GET(self):
        self.answer(body=True)

    def answer(self, *, body):
        site = self.server.site
        path = self.path.partition("?")[0].removeprefix(site.prefix)
        with site.lock:
            site.asked[path] += 1
            site.logins.append(self.headers.get("Authorization"))
            fault = site.fault(sum(site.asked.values()), self.command, path)
        file = site.root / path.lstrip("/")
        time.sleep(site.pause if fault == "late" else 0)
        if fault == "reset":
            self.close_connection = True
            return None
        if isinstance(fault, str) and "://" in fault:
            return self.start(302, {"Location": fault, "Content-Length": "0"})
        if isinstance(fault, int) or not file.is_file():
            return self.start(fault if isinstance(fault, int) else 404, {"Content-Length": "0"})
        size = file.stat().st_size
        match = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        first, last = (int(match[1]), int(match[2] or size - 1)) if match else (0, size - 1)
        with file.open("rb") as stream:
            stream.seek(first)
            part = stream.read(min(last, size - 1) + 1 - first)
        stated = max(len(part) + {"long": 100, "short": -100}.get(fault, 0), 0)
        headers = {"Content-Length": str(stated), "Accept-Ranges": "bytes"}
        if site.etag is not None:
            headers["ETag"] = site.etag
        if match:
            headers["Content-Range"] = f"bytes {first}-{first + len(part) - 1}/{size}"
        self.start(206 if match else 200, headers)
        if body:
            with site.lock:
                site.given[path] += len(part)
            self.give(part[: len(part) // 2] if fault == "cut" else part, pause=site.pause if fault == "slow" else 0)
            self.close_connection |= fault in ("cut", "long", "short")
        return None

    def give(self, part, *, pause):
        step = max(1, len(part) // 8 if pause else len(part))
        for start in range(0, len(part), step):
            self.wfile.write(part[start : start + step])
            self.wfile.flush()
            time.sleep(pause)

    def start(self, status, headers):
        with self.server.site.lock:
            self.server.site.statuses[status] += 1
        self.send_response(status)
        for name, value in {**headers, **self.server.site.extra}.items():
            self.send_header(name, value)
        self.end_headers()

    def log_message(self, *_):
        pass


class Server(ThreadingHTTPServer):
    daemon_threads = True

    def handle_error(self, request, client_address):
        """Clients that hang up are no news."""


@contextmanager
def serve(root: Path, fault: Fault = healthy) -> Iterator[Site]:
    """Serve a folder for as long as the block lasts."""
    site = Site(root, fault)
    server = Server(("127.0.0.1", 0), Handler)
    server.site = site
    with running(server) as origin:
        site.url = f"{origin}{site.prefix}"
        yield site
