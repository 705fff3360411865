"""The masks as a stac-task `Task`, for Cirrus and other pipelines (extra ``task``)."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import fields
from typing import TYPE_CHECKING, Any, ClassVar, Final

import pystac
from stactask import Task
from stactask.exceptions import InvalidInput
from stactask.utils import find_collection

from stac_cloudmask.config import Settings
from stac_cloudmask.errors import ConfigError, ReadError, StacCloudmaskError
from stac_cloudmask.events import payload_of
from stac_cloudmask.run import attempt
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, redact
from stac_cloudmask.stac.intake import make_item, own_href
from stac_cloudmask.stac.items import DEFAULT_COLLECTION, output_collection, output_id
from stac_cloudmask.versions import VERSION

if TYPE_CHECKING:
    from stac_cloudmask.results import Result

Json = dict[str, Any]

OF_RUNS: Final = frozenset({"temporal", "temporal_dates"})
"""Settings that need many dates, which a payload seldom has."""
PARAMETERS: Final = frozenset({field.name for field in fields(Settings)} - OF_RUNS | {"out"})
HIERARCHY: Final = frozenset({"root", "parent", "self", "collection"})


class CloudMaskTask(Task):
    """Masks every item of a payload and gives the output items.

    Parameters are those of `Settings`, by name, and ``out``: the directory or ``s3://bucket/prefix`` of the output
    catalog. Items that are up to date there are not made again. Without ``out`` the files are uploaded as the
    payload's ``upload_options`` say; with ``--no-upload`` they stay in the work directory.

    Input may be a payload, an item, an item collection, or an SNS or SQS message with any of these. For input that
    brings no parameters, derive a class with ``defaults``.

    Raises:
        InvalidInput: The same input will fail again. Other errors may pass.
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
        """Process whatever a pipeline hands over; this is also the handler of a Lambda function."""
        with _bad_input_told_apart():
            unwrapped, base = payload_of(payload)
        done: Json = super().handler(unwrapped, base=base, **options)
        return done

    @classmethod
    def cli(cls) -> None:
        """The command line of stac-task; it exits with EX_DATAERR for bad input and EX_TEMPFAIL for what may pass."""
        try:
            super().cli()
        except (InvalidInput, StacCloudmaskError) as error:
            sys.stderr.write(f"error: {redact(str(error))}\n")
            sys.exit(os.EX_DATAERR if isinstance(error, InvalidInput) else os.EX_TEMPFAIL)

    def validate(self) -> bool:
        """Refuse a payload without items, or with parameters that cannot work.

        Raises:
            InvalidInput: Says what is wrong.
        """
        if not self.payload.items_as_dicts:
            raise InvalidInput("the payload has no items")
        self._options()
        return True

    def process(self, **_: Any) -> list[Json]:  # noqa: ANN401  (Task's own)
        """Mask the items of the payload.

        Raises:
            InvalidInput: An item cannot be masked, and none failed for a reason that may pass.
            ReadError: An item failed for a reason that may pass; with ``out`` the next attempt keeps what was done.
        """
        settings, out = self._options()
        with _bad_input_told_apart():
            catalog = OutputCatalog(out if out and self._upload else self._workdir / "masks")
            items = [self._item(body) for body in self.payload.items_as_dicts]
            results = [attempt(item, settings=settings, out=catalog.out) for item in items]
            catalog.link([result.output for result in results if result.output is not None])
        _refuse_failures(results)
        finished = [self._finished(catalog, item) for item in items]
        return finished if out or not self._upload else [self._uploaded(body) for body in finished]

    def assign_collections(self) -> None:
        """Let the payload choose collections, but never the source's: a mask is not one of its own source's kind."""
        for item in self.payload["features"]:
            item["collection"] = self._collection(item)

    def _options(self) -> tuple[Settings, str | None]:
        own = {**self.defaults, **self.task_options}
        unknown = sorted(set(own) - PARAMETERS)
        if unknown:
            known = ", ".join(sorted(PARAMETERS))
            raise InvalidInput(f"{self.name} has no parameter {', '.join(unknown)}; it has {known}")
        shared = {name: value for name, value in self.payload.workflow_options.items() if name in PARAMETERS}
        given: Json = {**self.defaults, **shared, **self.task_options}
        out = given.pop("out", None)
        try:
            return Settings(**{name: _plain(name, value) for name, value in given.items()}), str(out) if out else None
        except (ConfigError, TypeError) as error:
            raise InvalidInput(f"{self.name}: {error}") from error

    def _item(self, body: Json) -> pystac.Item:
        """An item of the payload; what it may name depends on where it is from: its self link, else the message."""
        return make_item(body, origin=own_href(body, self._base or "", DEFAULT_RULE) or None)

    def _finished(self, catalog: OutputCatalog, item: pystac.Item) -> Json:
        body = catalog.item(output_collection(item.collection_id), output_id(item.id))
        if body is None:
            raise ReadError(f"{catalog.out}: the mask of item {item.id!r} vanished after it was written")
        return body | {"collection": self._collection(body)}

    def _source_collections(self) -> set[str | None]:
        """Where the sources are, and where the payload would put them by a pattern that was written for them."""
        items = self.payload.items_as_dicts
        matchers = [matcher for matcher in self.payload.collection_matchers if matcher.get("type") != "catch_all"]
        chosen = {find_collection(matchers or self.payload.collection_mapping, body) for body in items} - {None}
        return chosen | {body.get("collection") or DEFAULT_COLLECTION for body in items}

    def _collection(self, item: Json) -> str:
        """What the payload's matchers say for an output item, unless that is where the sources belong."""
        chosen = find_collection(self.payload.collection_matchers or self.payload.collection_mapping, item)
        if chosen in self._sources:
            self.logger.warning("%s: collection %r is that of the source and was not taken", item["id"], chosen)
            chosen = None
        return chosen or str(item["collection"])

    def _uploaded(self, body: Json) -> Json:
        """The item with its own files where ``upload_options`` want them, and nothing that leads to the work directory.

        A model whose item only lies there is still told by its name and hash in ``stac_cloudmask:models``.
        """
        here = f"{self._workdir}/"
        own = [key for key, asset in body["assets"].items() if asset["href"].startswith(here)]
        assets = {key: _without(asset, "processing:expression", here) for key, asset in body["assets"].items()}
        links = [link for link in body["links"] if link["rel"] not in HIERARCHY and here not in link["href"]]
        links.append({"rel": "collection", "href": "../collection.json", "type": "application/json"})
        item = pystac.Item.from_dict(body | {"assets": assets, "links": links}, migrate=False)
        uploaded: Json = self.upload_item_assets_to_s3(item, assets=own).to_dict(transform_hrefs=False)
        return uploaded


def _without(asset: Json, name: str, text: str) -> Json:
    """The asset without a field that has this text anywhere in it."""
    return {key: value for key, value in asset.items() if key != name or text not in json.dumps(value)}


def _plain(name: str, value: object) -> Any:  # noqa: ANN401  (Settings checks it)
    """A value of JSON as `Settings` has it: tuples for lists, one model as a tuple of one, offsets as text."""
    if isinstance(getattr(Settings, name), bool) and not isinstance(value, bool):
        raise ConfigError(f"{name} is true or false, got {value!r}")
    if name == "cloud_model" and isinstance(value, str):
        return (value,)
    if name == "boa_offset" and isinstance(value, int):
        return str(value)
    return tuple(value) if isinstance(value, list) else value


@contextmanager
def _bad_input_told_apart() -> Iterator[None]:
    """Errors that the same input will give again become InvalidInput, which Cirrus does not try again."""
    try:
        yield
    except StacCloudmaskError as error:
        if error.retryable:
            raise
        raise InvalidInput(redact(str(error))) from error


def _refuse_failures(results: Sequence[Result]) -> None:
    failed = [result for result in results if result.status == "failed"]
    if not failed:
        return
    told = "; ".join(str(result.error) for result in failed)
    if all(result.kind == "input" for result in failed):
        raise InvalidInput(told)
    raise ReadError(told)


if __name__ == "__main__":
    CloudMaskTask.cli()
