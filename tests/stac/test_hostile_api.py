from __future__ import annotations

import json
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.stac.search import search
from tests.loopback import running

ITEM = {
    "type": "Feature",
    "id": "i",
    "properties": {"datetime": "2024-01-01T00:00:00Z"},
    "assets": {},
    "links": [],
    "geometry": None,
}
SEARCH = ["https://api.stacspec.org/v1.0.0/core", "https://api.stacspec.org/v1.0.0/item-search"]


@contextmanager
def api(landing, page):
    """A STAC API whose landing page is changed, and whose every search gives one page; ``URL`` in both is its own."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            body = page if "search" in self.path else good | landing if isinstance(landing, dict) else landing
            content = json.dumps(body).replace("URL", url).encode()
            self.send_response(200)
            self.send_header("content-length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def do_POST(self):
            self.rfile.read(int(self.headers["content-length"]))
            self.do_GET()

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    url = f"http://127.0.0.1:{server.server_port}"
    good = {"type": "Catalog", "stac_version": "1.0.0", "id": "c", "description": "c", "conformsTo": SEARCH}
    good["links"] = [{"rel": "search", "href": "URL/search", "type": "application/geo+json"}]
    with running(server):
        yield url


def page(**changes):
    return {"type": "FeatureCollection", "features": [ITEM], "links": [], **changes}


@pytest.mark.parametrize("how", ["GET", "POST"])
def test_pages_that_lead_around_in_circles_come_to_an_end(how):
    link = {"rel": "next", "href": "URL/search?token=1", "method": how, "body": {"token": 1}}
    with api({}, page(links=[link])) as url, pytest.raises(StacCloudmaskError, match="the same page repeatedly"):
        list(search(url))


@pytest.mark.parametrize(
    "hostile",
    [
        page(links=[{"href": "URL/search?2"}]),
        page(links=[{"rel": "next"}]),
        page(links=[5]),
        page(links=5),
        page(links=[{"rel": "next", "href": 5}]),
        page(links=[{"rel": "next", "href": "file:///etc/passwd"}]),
        page(links=[{"rel": "next", "href": "http://169.254.169.254/latest"}]),
        page(links=[{"rel": "next", "href": "URL/search?2", "method": 5}]),
        page(links=[{"rel": "next", "href": "URL/search?2", "method": "POST", "body": 5, "merge": True}]),
        page(links=[{"rel": "next", "href": "URL/search?2", "headers": {"a\n": "b\r\n"}}]),
        page(features=[5]),
        page(features=[[]]),
        page(features=5),
        page(features={"a": 1}),
        [],
        5,
        None,
    ],
)
def test_a_page_of_junk_is_refused_by_name(hostile):
    with api({}, hostile) as url, pytest.raises(StacCloudmaskError):
        list(search(url, max_items=5))


@pytest.mark.filterwarnings("ignore::pystac_client.warnings.MissingLink")
@pytest.mark.parametrize(
    "landing",
    [
        {"conformsTo": 5},
        {"conformsTo": [5]},
        {"id": 5},
        {"stac_version": 7},
        {"stac_extensions": 5},
        {"type": "Collection"},
        {"links": [{"rel": "search"}]},
        {"links": [{"rel": "search", "href": 5}]},
        {"links": [{"rel": "search", "href": "file:///etc/passwd"}]},
        {"links": [{"rel": "search", "href": "http://10.0.0.1/search"}]},
    ],
)
def test_a_landing_page_of_junk_is_refused_by_name_or_searched(landing):
    with api(landing, page()) as url:
        try:
            found = list(search(url, max_items=5))
        except StacCloudmaskError:
            return
        assert [item.id for item in found] == ["i"]
