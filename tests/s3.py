"""A real S3 endpoint on this machine, by moto's server."""

from __future__ import annotations

import logging
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager, nullcontext

import pytest
from moto.moto_server.werkzeug_app import DomainDispatcherApplication, MotoRequestHandler, create_backend_app
from s3fs import S3FileSystem
from werkzeug.serving import make_server

from tests.loopback import running


def one_write_at_a_time(app):
    """A WSGI app whose PUTs wait for each other: moto checks a condition and writes in two steps, S3 in one."""
    turn = threading.Lock()

    def answer(environ, start_response):
        with turn if environ["REQUEST_METHOD"] == "PUT" else nullcontext():
            return app(environ, start_response)

    return answer


@contextmanager
def s3_server() -> Iterator[str]:
    """Run the server, with everything that reads the environment led to it; gives the URL of an empty bucket."""
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    app = one_write_at_a_time(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, app, threaded=True, request_handler=MotoRequestHandler)
    with running(server) as url, pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", url)
        patch.setenv("AWS_ACCESS_KEY_ID", "test")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "test")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        S3FileSystem.clear_instance_cache()
        bucket = f"masks-{uuid.uuid4().hex[:8]}"  # moto keeps its buckets as long as the process lives
        S3FileSystem().mkdir(bucket)
        yield f"s3://{bucket}"
        S3FileSystem.clear_instance_cache()
