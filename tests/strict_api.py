"""A STAC API on this machine that answers transactions as pgSTAC does, and fails on request as servers do."""

from __future__ import annotations

import json
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

from tests.loopback import running


@dataclass
class Fault:
    """An answer given instead of the right one, once: to a method, with a status, headers and a text."""

    method: str
    status: int
    headers: dict[str, str] = field(default_factory=dict)
    text: str = ""
    drop: bool = False


@dataclass
class StrictApi:
    """What the server holds and what it was asked."""

    url: str = ""
    collections: dict[str, dict] = field(default_factory=dict)
    items: dict[tuple[str, str], dict] = field(default_factory=dict)
    faults: list[Fault] = field(default_factory=list)
    requests: list[tuple[str, str]] = field(default_factory=list)
    headers: list[dict[str, str]] = field(default_factory=list)

    def answer(self, method: str, parts: list[str], body: dict | None) -> tuple[int, dict]:  # noqa: PLR0911
        match (method, *parts):
            case ("POST", "collections"):
                return self._create(self.collections, body["id"], body)
            case ("GET", "collections", name) if name in self.collections:
                return 200, self.collections[name]
            case ("PUT", "collections", name) if name in self.collections:
                self.collections[name] = body
                return 200, body
            case ("GET", "collections", name, "items", identifier) if (name, identifier) in self.items:
                return 200, self.items[name, identifier]
            case ("POST", "collections", name, "items"):
                if name not in self.collections:
                    return 500, {"detail": "no partition of relation items"}
                return self._create(self.items, (name, body["id"]), body)
            case ("PUT", "collections", name, "items", identifier) if (name, identifier) in self.items:
                self.items[name, identifier] = body
                return 200, body
        return 404, {"code": "NotFoundError"}

    @staticmethod
    def _create(held: dict, key: object, body: dict) -> tuple[int, dict]:
        if key in held:
            return 409, {"code": "ConflictError", "description": ""}
        held[key] = body
        return 201, body


@contextmanager
def strict_api() -> Iterator[StrictApi]:
    """Serve on 127.0.0.1 until the end of the block."""
    api = StrictApi()

    class Handler(BaseHTTPRequestHandler):
        def handle_any(self) -> None:
            length = int(self.headers.get("content-length") or 0)
            body = json.loads(self.rfile.read(length)) if length else None
            api.requests.append((self.command, self.path))
            api.headers.append(dict(self.headers))
            fault = next((f for f in api.faults if f.method == self.command), None)
            if fault is not None:
                api.faults.remove(fault)
                if fault.drop:
                    self.close_connection = True
                    return
                self.reply(fault.status, fault.text.encode(), fault.headers)
                return
            status, answer = api.answer(self.command, [part for part in self.path.split("/") if part], body)
            self.reply(status, json.dumps(answer).encode(), {"content-type": "application/json"})

        do_GET = do_POST = do_PUT = handle_any  # noqa: N815

        def reply(self, status: int, text: bytes, headers: dict[str, str]) -> None:
            self.send_response(status)
            for name, value in headers.items():
                self.send_header(name, value)
            self.send_header("content-length", str(len(text)))
            self.end_headers()
            self.wfile.write(text)

        def log_message(self, *args: object) -> None:
            """Keep quiet."""

    with running(ThreadingHTTPServer(("127.0.0.1", 0), Handler)) as api.url:
        yield api
