"""An output catalog, published a second time: to a STAC API, or to another directory or object store."""

from __future__ import annotations

import logging
import warnings
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, Final, Protocol

from stac_cloudmask.errors import ReadError, StacCloudmaskError, StacCloudmaskWarning, WriteError
from stac_cloudmask.pipeline.result import Kind, Result
from stac_cloudmask.stac.catalog import OutputCatalog, is_itself, moved
from stac_cloudmask.stac.collection import Entry
from stac_cloudmask.stac.hrefs import is_remote, redact
from stac_cloudmask.stac.transactions import StacApi

if TYPE_CHECKING:
    from collections.abc import Container, Iterator, Mapping

    from stac_cloudmask.stac.transactions import Patience

    Json = dict[str, Any]

logger = logging.getLogger(__name__)

LINK_EVERY: Final = 25
"""Items after which the target's collection is brought up to date."""
GIVE_UP: Final = 3
"""Items in a row that a server may fail to take before the others are not tried any more."""


class Target(Protocol):
    """Where items of a catalog are published, one by one."""

    def put(self, collection_id: str, item_id: str) -> Result:
        """What became of an item; ``output`` is its new href. Its collection must be in the catalog already."""
        ...


def publish(
    source: str,
    *,
    to: str,
    headers: Mapping[str, str] | None = None,
    create_collections: bool = True,
    asset_root: str | None = None,
    only: Container[str] | None = None,
    patience: Patience | None = None,
) -> Iterator[Result]:
    """Publish the items that a catalog lists; running it again repairs and updates, and does nothing twice.

    Args:
        source: The output catalog: a directory or ``s3://...``.
        to: A STAC API with transactions (``https://...``), or another directory or ``s3://...``.
        headers: Sent to the API with every request; shown nowhere.
        create_collections: Whether the API's missing collections may be created.
        asset_root: Where the files of ``source`` are served from, if others cannot read them where they lie. An API
            gets hrefs below it.
        only: Hrefs of the items to publish; None means all.
        patience: How an API is asked again when it is busy.

    Yields:
        What became of each item; ``output`` is its new href. A failed item does not stop the others.

    Raises:
        ConfigError: An address or header cannot work.
        WriteError: The target's collection or catalog cannot be written.
    """
    catalog = OutputCatalog(source)
    ids = [pair for pair in catalog.listed() if only is None or catalog.href(*pair) in only]
    with open_target(
        catalog,
        to=to,
        headers=headers,
        create_collections=create_collections,
        asset_root=asset_root,
        patience=patience,
    ) as target:
        for pair in ids:
            yield target.put(*pair)


@contextmanager
def open_target(
    catalog: OutputCatalog,
    *,
    to: str,
    headers: Mapping[str, str] | None = None,
    create_collections: bool = True,
    asset_root: str | None = None,
    patience: Patience | None = None,
) -> Iterator[Target]:
    """Where to publish items of a catalog, for as long as the block lasts; see ``publish``.

    Raises:
        ConfigError: An address or header cannot work.
        WriteError: At the end: the target's collection or catalog cannot be written.
    """
    if not to.startswith(("https://", "http://")):
        copies = _Copies(catalog, OutputCatalog(to))
        try:
            yield copies
        finally:
            copies.link()
        return
    if asset_root is None and not is_remote(catalog.root):
        warnings.warn(
            f"{catalog.out}: assets are published by their path on this machine; asset_root=URL says where they are "
            "served",
            StacCloudmaskWarning,
            stacklevel=4,
        )
    with StacApi(to, headers=headers, patience=patience) as api:
        served = _OnApi(catalog, api, create=create_collections, root=asset_root)
        try:
            yield served
        finally:
            served.cover()


class _OnApi:
    """A STAC API; assets are referred to where others can read them, below ``root`` if that is given."""

    def __init__(self, catalog: OutputCatalog, api: StacApi, *, create: bool, root: str | None) -> None:
        self._catalog, self._api, self._create, self._root = catalog, api, create, root
        self._entries: dict[str, list[Entry]] = {}
        self._refused: dict[str, StacCloudmaskError] = {}
        self._in_a_row = 0

    def put(self, collection_id: str, item_id: str) -> Result:
        """See ``Target``."""
        try:
            if self._in_a_row >= GIVE_UP:
                raise WriteError(f"not tried, as the API failed {GIVE_UP} times in a row; publish again later")
            self._ensure(collection_id)
            body = self._item(collection_id, item_id)
            entry = Entry.of(body)
            self._api.put_item(body)
        except StacCloudmaskError as error:
            self._in_a_row += isinstance(error, WriteError) and error.retryable
            return _failed(item_id, error)
        self._in_a_row = 0
        self._entries[collection_id].append(entry)
        return Result(item_id=item_id, status="done", output=self._api.item_href(collection_id, item_id))

    def cover(self) -> None:
        """Widen the extents of the collections; the items are there and are found without."""
        for collection_id, entries in self._entries.items():
            try:
                self._api.cover(collection_id, entries)
            except StacCloudmaskError as error:
                logger.warning("the extent of collection %r was left as it is: %s", collection_id, error)

    def _ensure(self, collection_id: str) -> None:
        """Make sure, once, that a collection is there."""
        if collection_id in self._refused:
            raise self._refused[collection_id]
        if collection_id in self._entries:
            return
        body = self._catalog.collection(collection_id)
        if body is None:
            raise ReadError(f"{self._catalog.out}: collection {collection_id!r} is not there")
        try:
            self._api.ensure_collection(body, create=self._create)
        except StacCloudmaskError as error:
            if not error.retryable:
                self._refused[collection_id] = error
            raise
        self._entries[collection_id] = []

    def _item(self, collection_id: str, item_id: str) -> Json:
        body = self._catalog.item(collection_id, item_id)
        if body is None or not is_itself(body, collection_id, item_id):
            raise ReadError(f"{self._catalog.href(collection_id, item_id)} is listed and not there, or is another item")
        if self._root is None:
            return body
        served = {f"{self._catalog.root}/": f"{self._root.rstrip('/')}/"}
        return body | {part: moved(body[part], served) for part in ("links", "assets")}


class _Copies:
    """Another directory or object store."""

    def __init__(self, catalog: OutputCatalog, target: OutputCatalog) -> None:
        self._catalog, self._target = catalog, target
        self._unlisted: list[str] = []

    def put(self, collection_id: str, item_id: str) -> Result:
        """See ``Target``; what lies there already is not copied again."""
        result = self._copied(collection_id, item_id)
        if result.output is not None:
            self._unlisted.append(result.output)
        if len(self._unlisted) >= LINK_EVERY:
            self.link()
        return result

    def link(self) -> None:
        """List what was copied."""
        self._target.link(self._unlisted)
        self._unlisted.clear()

    def _copied(self, collection_id: str, item_id: str) -> Result:
        fingerprint = self._catalog.state(collection_id, item_id)
        if fingerprint is not None and self._target.state(collection_id, item_id) == fingerprint:
            there = self._target.href(collection_id, item_id)
            return Result(item_id=item_id, status="up-to-date", output=there)
        try:
            copied = self._catalog.copy_item(collection_id, item_id, self._target)
        except StacCloudmaskError as error:
            return _failed(item_id, error)
        return Result(item_id=item_id, status="done", output=copied)


def _failed(item_id: str, error: StacCloudmaskError) -> Result:
    kind: Kind = "infrastructure" if error.retryable else "input"
    return Result(item_id=item_id, status="failed", error=redact(str(error)), kind=kind)
