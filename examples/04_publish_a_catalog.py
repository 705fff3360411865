"""Publish a catalog of masks to a STAC API, and once more: running it again repairs and updates.

Writes into output/publish_a_catalog. The API is a toy with the four requests that publishing needs; give the URL of
your own, and a token in TOKEN: python examples/04_publish_a_catalog.py https://stac.example.org
"""

from __future__ import annotations

import json
import os
import sys
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import stac_cloudmask as scm
from stac_cloudmask.pipeline.publish import publish
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

OUT = Path("output/publish_a_catalog")
HELD: dict[str, bytes] = {}  # what the API holds, by path


class ToyApi(BaseHTTPRequestHandler):
    """GET what is there, POST to create, PUT to replace."""

    def _answer(self) -> None:
        body = self.rfile.read(int(self.headers.get("Content-Length", 0)))
        path = f"{self.path}/{json.loads(body)['id']}" if self.command == "POST" else self.path
        status = (409 if path in HELD else 201) if self.command == "POST" else (200 if path in HELD else 404)
        if body and status in {200, 201}:
            HELD[path] = body
        print(f"  {self.command:<4} {path} -> {status}")
        content = HELD.get(path, b"{}")
        self.send_response(status)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        self.wfile.write(content)

    do_GET = do_POST = do_PUT = _answer  # noqa: N815  (the names that http.server calls)

    def log_message(self, *_: object) -> None:
        """Say nothing more."""


def main() -> None:
    """Make masks, then publish them."""
    scenes = [write_simulated_item(OUT / "scenes", Recipe(height=192, width=192, seed=seed)) for seed in range(2)]
    scm.process(scenes, out=OUT / "masks")

    server = ThreadingHTTPServer(("127.0.0.1", 0), ToyApi)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    api = sys.argv[1] if len(sys.argv) > 1 else f"http://127.0.0.1:{server.server_port}"
    headers = {"Authorization": f"Bearer {os.environ['TOKEN']}"} if "TOKEN" in os.environ else {}
    for attempt in ("first", "second"):
        print(attempt, "time:")
        sent = publish(
            OUT / "masks",
            to=api,
            headers=headers,
            asset_root="https://data.example.org/masks",
            source_roots={str(OUT / "scenes"): "https://data.example.org/scenes"},
        )
        for result in sent:
            print(result.status, result.item_id, result.error or result.output)


if __name__ == "__main__":
    main()
