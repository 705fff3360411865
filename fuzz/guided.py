"""Let coverage guide what is spoilt: `python -m fuzz.guided PARSER [options of libFuzzer]` (needs atheris)."""

from __future__ import annotations

import json
import sys
import tempfile
import warnings
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Final

import atheris

with atheris.instrument_imports(include=["stac_cloudmask"]):
    from fuzz import tiny
    from fuzz.items import load_bodies
    from fuzz.run import ITEMS
    from stac_cloudmask.core.grid import Grid
    from stac_cloudmask.errors import StacCloudmaskError, redact
    from stac_cloudmask.models.graph import load_graph
    from stac_cloudmask.models.spec import read_model_item
    from stac_cloudmask.stac.bands import resolve
    from stac_cloudmask.stac.connection import read_json
    from stac_cloudmask.stac.hrefs import check_href, is_remote
    from stac_cloudmask.stac.parse import Failure, items_in
    from stac_cloudmask.stac.warp import Meaning, read_labels

LONGEST: Final = 12_000
"""Bytes of an input: shorter ones are tried oftener."""
REMOTE: Final = "https://stac.example.com/c/items/i"
GRID: Final = Grid(epsg=tiny.EPSG, left=tiny.LEFT, top=tiny.TOP, gsd=10, height=tiny.SIDE, width=tiny.SIDE)
LABELS: Final = (
    b'{"type":"Feature","geometry":{"type":"Point","coordinates":[12.4,45.1]},"properties":{"class":"cloud"}}'
)
FOLDER: Final = Path(tempfile.mkdtemp(prefix="guided-"))


def _item(data: bytes) -> None:
    path = FOLDER / "item.json"
    path.write_bytes(data)
    body, _ = read_json(str(path))
    for item in items_in(body, REMOTE):
        if isinstance(item, Failure):
            raise item.error
        sources = resolve(item, ["red", "nir"])
        if not all(is_remote(source.href) for source in sources.bands):
            raise AssertionError("a remote item reads local files")


def _href(data: bytes) -> None:
    text = data.decode("utf-8", "surrogateescape")
    if redact(redact(text)) != redact(text):
        raise AssertionError("redaction is not done at once")
    if not is_remote(check_href(text, base=REMOTE)):
        raise AssertionError("a remote item reads local files")


def _model(data: bytes) -> None:
    path = FOLDER / "model.json"
    path.write_bytes(data)
    read_model_item(path)


def _graph(data: bytes) -> None:
    path = FOLDER / "tiny.onnx"
    path.write_bytes(data)
    load_graph(path, SPEC)


def _labels(data: bytes) -> None:
    path = FOLDER / "labels.geojson"
    path.write_bytes(data)
    read_labels(str(path), GRID, Meaning(values={"cloud": 1}, otherwise=0))


SPEC: Final = read_model_item(tiny.write_model(FOLDER))
PARSERS: Final[dict[str, tuple[Callable[[bytes], None], list[bytes]]]] = {
    "item": (_item, [body.encode() for body in load_bodies(ITEMS) if len(body) < LONGEST]),
    "href": (_href, [b"./B02.tif", b"http://[::ffff:7f00:1]/a?sig=x", b"s3://me:x@bucket/a", b"token=x; Bearer y"]),
    "model": (_model, [json.dumps(tiny.model_body()).encode()]),
    "graph": (_graph, [(FOLDER / "tiny.onnx").read_bytes()]),
    "labels": (_labels, [LABELS]),
}
"""What takes bytes of strangers, and good ones to start from."""


def main() -> None:
    """Run one parser until libFuzzer stops it, or a promise is broken."""
    name, *options = sys.argv[1:]
    parser, seeds = PARSERS[name]
    corpus = FOLDER / "corpus"
    corpus.mkdir()
    for number, seed in enumerate(seeds):
        (corpus / str(number)).write_bytes(seed)

    def attempt(data: bytes) -> None:
        with suppress(StacCloudmaskError):
            parser(data)

    warnings.simplefilter("ignore")
    limits = [f"-max_len={LONGEST}", "-rss_limit_mb=4096", "-timeout=20", f"-artifact_prefix={FOLDER}/"]
    atheris.Setup([sys.argv[0], str(corpus), *limits, *options], attempt)
    atheris.Fuzz()


if __name__ == "__main__":
    main()
