"""The stac-task `Task`, and unwrapping of its payload from queue messages."""

from __future__ import annotations

import json
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import fields
from typing import Any, ClassVar, Final

import pystac

from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ReadError, StacCloudmaskError, UnsupportedItemError, redact
from stac_cloudmask.models.registry import WITHIN_CATALOG
from stac_cloudmask.pipeline.item import attempt
from stac_cloudmask.pipeline.mask import area_of
from stac_cloudmask.pipeline.result import VERSION
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.connection import Json, read_json
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, is_remote
from stac_cloudmask.stac.mask_item import DEFAULT_COLLECTION, ITEM_TYPE
from stac_cloudmask.stac.parse import links_of, own_href, parse_item

try:
    from stactask import Task
    from stactask.exceptions import InvalidInput
    from stactask.utils import find_collection
except ModuleNotFoundError as error:
    raise ModuleNotFoundError("the task needs an extra: pip install 'stac-cloudmask[task]'") from error

BAD_DATA, TRY_AGAIN = 65, 75
"""Exit codes of sysexits.h, EX_DATAERR and EX_TEMPFAIL; Python has their names on POSIX only."""
WRAPPERS: Final = ("Records", "Sns", "Message", "body")
"""Keys under which SQS and SNS messages keep their content."""
ENVELOPE: Final = "https://message.invalid/"
"""Assumed origin of the items of a message: remote, to keep them from referring to local files."""


def payload_of(event: Json) -> tuple[Json, str | None]:
    """Return a payload with ``features``, and the assumed origin of its items; None for the user's own input.

    Args:
        event: A payload, an item, an item collection, ``{"href": ...}`` or ``{"url": ...}`` of one of these; or a
            message of SNS or SQS with any of them inside, one or many.

    Raises:
        UnsupportedItemError: The input is none of these, or several messages ask for different processes.
        ReadError: A referenced document cannot be read.
    """
    base = None if _wrapper(event) is None else ENVELOPE
    payloads = [_payload(body, base=base) for body in _contents(event)]
    if not payloads:
        raise UnsupportedItemError("the message has no records")
    first = payloads[0]
    if any(payload.get("process") != first.get("process") for payload in payloads):
        raise UnsupportedItemError("the messages of this batch ask for different processes; set the batch size to 1")
    return first | {"features": [feature for payload in payloads for feature in payload["features"]]}, base


def _wrapper(body: Json) -> str | None:
    return next((name for name in WRAPPERS if name in body and "features" not in body), None)


def _contents(message: object) -> Iterator[Json]:
    """Yield the content of a message, however it is wrapped: SNS in SQS, SNS alone, raw delivery."""
    try:
        body = json.loads(message) if isinstance(message, str) else message
    except (ValueError, RecursionError):
        body = None
    if isinstance(body, list):
        for record in body:
            yield from _contents(record)
    elif not isinstance(body, dict):
        raise UnsupportedItemError("a record of the message has no JSON object as its body or Message")
    elif (wrapper := _wrapper(body)) is not None:
        yield from _contents(body[wrapper])
    else:
        yield body


def _payload(body: Json, *, base: str | None) -> Json:
    """Return a payload for the content of a message: the content, or the document that it refers to.

    An item without a self link gets the URL at which it was found.
    """
    href = body.get("href", body.get("url"))
    if href is not None and "type" not in body:
        if base is not None and not is_remote(str(href)):
            raise UnsupportedItemError("href is refused: a message may lead to a URL, not to files of this machine")
        body, where = read_json(str(href), base=base)
        links = body.get("links", [])
        if body.get("type") == "Feature" and isinstance(links, list) and not links_of(body, "self"):
            body = body | {"links": [*links, {"rel": "self", "href": where, "type": ITEM_TYPE}]}
    if body.get("type") == "Feature":
        return {"type": "FeatureCollection", "features": [body]}
    if isinstance(body.get("features"), list):
        return body
    found = ", ".join(sorted(body))[:200] or "nothing"
    raise UnsupportedItemError(f"the input is not an item, item collection, payload or message; it has {found}")


PARAMETERS: Final = frozenset({field.name for field in fields(Settings)} | {"out"})


class CloudMaskTask(Task):
    """A task that masks every item of a payload and returns the output items.

    Parameters are those of `Settings`, by name, and ``out``: the directory or ``s3://bucket/prefix`` of the output
    catalog. ``area`` may be a box (a list of west, south, east, north), GeoJSON or well-known text; items without data
    in it give no output item. Items that are up to date in ``out`` are kept. Without ``out`` the files are
    uploaded as the payload's ``upload_options`` say; with ``--no-upload`` they stay in the work directory.

    Input may be a payload, an item, an item collection, or an SNS or SQS message with any of these. For input
    without parameters, derive a class with ``defaults``.

    Raises:
        InvalidInput: The same input will fail again. Other errors may be temporary.
    """

    name = "stac-cloudmask"
    description = "Cloud and cloud-shadow masks for Sentinel-2 L2A items"
    version = VERSION
    defaults: ClassVar[Mapping[str, object]] = {}

    def __init__(self, payload: Json, *, base: str | None = None, **options: Any) -> None:  # noqa: ANN401  (Task's own)
        self._base = base
        super().__init__(payload, **options)
        self._sources = self._source_collections()

    @classmethod
    def handler(cls, payload: Json, **options: Any) -> Json:  # noqa: ANN401  (Task's own)
        """Process any supported input of a pipeline; this is also the handler of a Lambda function."""
        with _bad_input_told_apart():
            unwrapped, base = payload_of(payload)
        done: Json = super().handler(unwrapped, base=base, **options)
        return done

    @classmethod
    def cli(cls) -> None:
        """Run stac-task's command line; exit with EX_DATAERR for bad input and EX_TEMPFAIL for temporary errors."""
        try:
            super().cli()
        except (InvalidInput, StacCloudmaskError) as error:
            sys.stderr.write(f"error: {redact(str(error))}\n")
            sys.exit(BAD_DATA if isinstance(error, InvalidInput) else TRY_AGAIN)

    def validate(self) -> bool:
        """Reject a payload without items, or with parameters that cannot work.

        Raises:
            InvalidInput: The payload is not valid; the message says why.
        """
        if not self.payload.items_as_dicts:
            raise InvalidInput("the payload has no items")
        self._options()
        return True

    def process(self, **_: Any) -> list[Json]:  # noqa: ANN401  (Task's own)
        """Mask the items of the payload.

        Raises:
            InvalidInput: An item cannot be masked, and no item failed for a temporary reason.
            ReadError: An item failed for a temporary reason; with ``out`` the next attempt keeps finished items.
        """
        settings, out = self._options()
        with _bad_input_told_apart():
            catalog = OutputCatalog(out if out and self._upload else self._workdir / "masks")
            sources = self.payload.items_as_dicts
            items = [parse_item(body, origin=own_href(body, self._base, DEFAULT_RULE)) for body in sources]
            results = [attempt(item, settings=settings, out=catalog.out) for item in items]
            outputs = [result.output for result in results if result.output is not None]
            catalog.link(outputs)
        if failed := [result for result in results if result.status == "failed"]:
            error = InvalidInput if all(result.kind == "input" for result in failed) else ReadError
            raise error("; ".join(str(result.error) for result in failed))
        masks = [catalog.item(*catalog.ids(href)) for href in outputs]
        finished = [mask | {"collection": self._collection(mask)} for mask in masks]
        return finished if out or not self._upload else [self._uploaded(body) for body in finished]

    def assign_collections(self) -> None:
        """Keep the collections that `process` chose: those of the payload, but never the source's."""

    def _options(self) -> tuple[Settings, str | None]:
        if unknown := sorted({*self.defaults, *self.task_options} - PARAMETERS):
            known = ", ".join(sorted(PARAMETERS))
            raise InvalidInput(f"{self.name} has no parameter {', '.join(unknown)}; it has {known}")
        shared = {name: value for name, value in self.payload.workflow_options.items() if name in PARAMETERS}
        given: Json = {**self.defaults, **shared, **self.task_options}
        out = given.pop("out", None)
        with _bad_input_told_apart():
            return Settings(**{name: _plain(name, value) for name, value in given.items()}), str(out) if out else None

    def _source_collections(self) -> set[str | None]:
        """Return the collections of the sources, and those that the payload's patterns would assign to the sources."""
        items = self.payload.items_as_dicts
        matchers = [matcher for matcher in self.payload.collection_matchers if matcher.get("type") != "catch_all"]
        chosen = {find_collection(matchers or self.payload.collection_mapping, body) for body in items} - {None}
        return chosen | {body.get("collection") or DEFAULT_COLLECTION for body in items}

    def _collection(self, item: Json) -> str:
        """Return the collection that the payload's matchers assign to an output item, unless it is the sources'."""
        chosen = find_collection(self.payload.collection_matchers or self.payload.collection_mapping, item)
        if chosen in self._sources:
            self.logger.warning("%s: collection %r is that of the source and was not taken", item["id"], chosen)
            chosen = None
        return chosen or str(item["collection"])

    def _uploaded(self, body: Json) -> Json:
        """Return the item with its own files uploaded as ``upload_options`` say, and no href into the work directory.

        A model whose item is only in the work directory is identified by name and hash in ``stac_cloudmask:models``.
        """
        here = f"{self._workdir}/"
        assets = {key: _without(asset, "processing:expression", here) for key, asset in body["assets"].items()}
        links = [link for link in body["links"] if link["rel"] not in WITHIN_CATALOG and here not in link["href"]]
        links.append({"rel": "collection", "href": "../collection.json", "type": "application/json"})
        item = pystac.Item.from_dict(body | {"assets": assets, "links": links}, migrate=False)
        uploaded: Json = self.upload_local_item_assets_to_s3(item).to_dict(transform_hrefs=False)
        return uploaded


def _without(asset: Json, name: str, text: str) -> Json:
    """Return the asset without the fields that contain this text at any depth."""
    return {key: value for key, value in asset.items() if key != name or text not in json.dumps(value)}


def _plain(name: str, value: object) -> Any:  # noqa: ANN401  (Settings checks it)
    """Convert a JSON value for `Settings`: lists to tuples, one model to a tuple of one, offsets to text."""
    if name == "area":
        return area_of(bbox=value) if isinstance(value, list) else area_of(geometry=value)  # type: ignore[arg-type]
    if name == "cloud_model" and isinstance(value, str):
        return (value,)
    if name == "boa_offset" and isinstance(value, int):
        return str(value)
    return tuple(value) if isinstance(value, list) else value


@contextmanager
def _bad_input_told_apart() -> Iterator[None]:
    """Turn errors that will recur for the same input into InvalidInput, which Cirrus does not retry."""
    try:
        yield
    except StacCloudmaskError as error:
        if error.retryable:
            raise
        raise InvalidInput(str(error)) from error


if __name__ == "__main__":
    CloudMaskTask.cli()
