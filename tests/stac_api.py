"""A small real STAC API on 127.0.0.1: landing page, collections, items, and search by POST and GET with paging."""

from __future__ import annotations

import json
from collections import Counter
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import datetime
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import TYPE_CHECKING, Any
from urllib.parse import parse_qs, quote, urlencode

from shapely.geometry import box, shape

from tests.loopback import running

if TYPE_CHECKING:
    from collections.abc import Callable, Iterator

CONFORMS = [
    "https://api.stacspec.org/v1.0.0/core",
    "https://api.stacspec.org/v1.0.0/collections",
    "https://api.stacspec.org/v1.0.0/item-search",
]
QUERY = "https://api.stacspec.org/v1.0.0/item-search#query"
Json = dict[str, Any]


@dataclass
class Api:
    """What is served, and how.

    Attributes:
        items: Item dicts; each must have a collection.
        page: Most items on a page, whatever is asked for.
        query: Whether it filters by ``query``.
        post: Whether it searches by POST, too.
        most: Most items that may be asked for at once; more are a status 502, as behind gateways.
        fault: From number and path of a request to a status given instead of an answer, a URL to redirect to, or None.
        asked: How often each path was asked for.
    """

    items: list[Json]
    page: int = 100
    query: bool = True
    post: bool = True
    most: int = 10_000
    fault: Callable[[int, str], int | str | None] = lambda *_: None
    asked: Counter[str] = field(default_factory=Counter)
    url: str = ""

    def collection(self, name: str) -> Json:
        return {
            "type": "Collection",
            "stac_version": "1.0.0",
            "id": name,
            "description": name,
            "license": "other",
            "extent": {"spatial": {"bbox": [[-180, -90, 180, 90]]}, "temporal": {"interval": [[None, None]]}},
            "links": [
                {"rel": "root", "href": f"{self.url}/"},
                {"rel": "self", "href": f"{self.url}/collections/{name}"},
                {"rel": "items", "href": f"{self.url}/collections/{name}/items"},
            ],
        }

    def landing(self) -> Json:
        search = {"rel": "search", "href": f"{self.url}/search", "type": "application/geo+json", "method": "GET"}
        return {
            "type": "Catalog",
            "stac_version": "1.0.0",
            "id": "test",
            "description": "test",
            "conformsTo": [*CONFORMS, *([QUERY] if self.query else [])],
            "links": [
                {"rel": "self", "href": f"{self.url}/"},
                {"rel": "data", "href": f"{self.url}/collections"},
                search,
                *([search | {"method": "POST"}] if self.post else []),
            ],
        }

    def served(self, item: Json) -> Json:
        href = f"{self.url}/collections/{item['collection']}/items/{quote(item['id'])}"
        links = [{"rel": "self", "href": href}, {"rel": "root", "href": f"{self.url}/"}]
        links += [{"rel": "collection", "href": f"{self.url}/collections/{item['collection']}"}]
        return item | {"links": item.get("links", links)}

    def search(self, asked: Json, method: str) -> Json:
        found = [item for item in self.items if matches(item, asked if self.query else asked | {"query": {}})]
        first, count = int(asked.get("token", 0)), min(int(asked.get("limit", 10)), self.page)
        links = []
        if first + count < len(found):
            after = asked | {"token": first + count}
            if method == "POST":
                links = [{"rel": "next", "method": "POST", "href": f"{self.url}/search", "body": after}]
            else:
                links = [{"rel": "next", "method": "GET", "href": f"{self.url}/search?{urlencode(as_get(after))}"}]
        shown = [self.served(item) for item in found[first : first + count]]
        return {"type": "FeatureCollection", "features": shown, "links": links}


def matches(item: Json, asked: Json) -> bool:
    """Whether an item matches a search, as the API specification has it."""
    first, _, last = (asked.get("datetime") or "../..").partition("/")
    taken = datetime.fromisoformat(item["properties"]["datetime"])
    cover = item["properties"].get("eo:cloud_cover")
    query = dict(asked.get("query") or {})
    limits = query.pop("eo:cloud_cover", {})
    area = asked.get("intersects")
    return (
        item["collection"] in (asked.get("collections") or [item["collection"]])
        and item["id"] in (asked.get("ids") or [item["id"]])
        and (first == ".." or taken >= datetime.fromisoformat(first))
        and (last == ".." or taken <= datetime.fromisoformat(last or first))
        and (not asked.get("bbox") or shape(item["geometry"]).intersects(box(*map(float, asked["bbox"]))))
        and (not area or shape(item["geometry"]).intersects(shape(json.loads(area) if isinstance(area, str) else area)))
        and all(item["properties"].get(name) in rule.get("in", [rule.get("eq")]) for name, rule in query.items())
        and ("lte" not in limits or (cover is not None and cover <= limits["lte"]))
    )


def as_get(asked: Json) -> Json:
    """A search's parameters as they stand in a URL."""
    plain = {key: ",".join(map(str, value)) if isinstance(value, list) else value for key, value in asked.items()}
    return {key: json.dumps(value) if isinstance(value, dict) else value for key, value in plain.items()}


def from_get(query: str) -> Json:
    asked: Json = {key: values[0] for key, values in parse_qs(query).items()}
    for key in ("collections", "ids", "bbox"):
        if key in asked:
            asked[key] = asked[key].split(",")
    return asked | ({"query": json.loads(asked["query"])} if "query" in asked else {})


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    disable_nagle_algorithm = True

    def do_GET(self):
        self.answer({})

    def do_POST(self):
        self.answer(json.loads(self.rfile.read(int(self.headers["Content-Length"]))))

    def answer(self, asked):
        api: Api = self.server.api
        path, _, query = self.path.partition("?")
        api.asked[path] += 1
        fault = api.fault(sum(api.asked.values()), path)
        parts = path.strip("/").split("/")
        if isinstance(fault, str):
            return self.put(302, {}, Location=fault)
        if fault is not None:
            return self.put(fault, {})
        self.put(*self.found(api, parts, from_get(query) if self.command == "GET" else asked))
        return None

    def found(self, api, parts, asked):
        """Status and body of an answer without faults."""
        searched = parts == ["search"] and (self.command == "GET" or api.post)
        listed = parts[0] == "collections" and parts[2:] == ["items"]
        items = [item for item in api.items if parts == ["collections", item["collection"], "items", item["id"]]]
        if searched or listed:
            if int(asked.get("limit", 10)) > api.most:
                return 502, {"message": "Internal server error"}
            return 200, api.search(asked | ({"collections": [parts[1]]} if listed else {}), self.command)
        if parts == [""]:
            return 200, api.landing()
        if parts[0] == "collections" and len(parts) == 2:
            return 200, api.collection(parts[1])
        return (200, api.served(items[0])) if items else (404, {})

    def put(self, status, body, **headers):
        content = json.dumps(body).encode()
        self.send_response(status)
        for name, value in {"Content-Type": "application/json", "Content-Length": len(content), **headers}.items():
            self.send_header(name, str(value))
        self.end_headers()
        self.wfile.write(content)

    def log_message(self, *_):
        pass


@contextmanager
def serve_api(api: Api) -> Iterator[Api]:
    """Serve an API for as long as the block lasts."""
    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    server.daemon_threads = True
    server.api = api
    with running(server) as api.url:
        yield api
