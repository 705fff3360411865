"""How every test server runs: on 127.0.0.1, in a thread, until its block ends, however it ends."""

from __future__ import annotations

import threading
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from collections.abc import Iterator
    from http.server import HTTPServer

POLL_SECONDS = 0.01
"""How long a server may take to notice that it is to stop."""


@contextmanager
def running(server: HTTPServer) -> Iterator[str]:
    """Serve for as long as the block lasts; gives the URL."""
    thread = threading.Thread(target=server.serve_forever, args=(POLL_SECONDS,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
