"""Validation of STAC JSON against the stored schemas; a schema that is not stored is an error, never a download."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from pystac.stac_io import DefaultStacIO, StacIO
from pystac.validation import validate_dict
from pystac.validation.stac_validator import JsonSchemaSTACValidator


class NoNetwork(DefaultStacIO):
    """Reads and writes files; whatever would go out fails loudly."""

    def read_text_from_href(self, href: str) -> str:
        if "://" in href:
            raise AssertionError(f"the test must not fetch {href}")
        return super().read_text_from_href(href)


class Validator:
    """Validates items, collections and catalogs against the schemas below ``root``, laid out as HOST/PATH."""

    def __init__(self, root: Path) -> None:
        self._validator = JsonSchemaSTACValidator()
        for path in root.rglob("*.json"):
            uri = f"https://{path.relative_to(root).as_posix()}"
            self._validator.schema_cache.setdefault(uri, json.loads(path.read_text()))

    def __call__(self, body: dict) -> list[str]:
        """Raise if ``body`` is invalid; the schemas it was held against."""
        schemas = validate_dict(body, validator=self._validator)
        assert schemas, "nothing was validated"
        return schemas


@contextmanager
def no_network() -> Iterator[None]:
    """Any attempt to open a connection, by pystac or by a socket, is an error."""

    def refuse(self: socket.socket, address: object) -> None:
        raise AssertionError(f"the test must not connect to {address}")

    kept = StacIO._default_io
    connect, socket.socket.connect = socket.socket.connect, refuse
    StacIO.set_default(NoNetwork)
    try:
        yield
    finally:
        socket.socket.connect = connect
        StacIO._default_io = kept
