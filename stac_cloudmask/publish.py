"""An output catalog, published a second time: to a STAC API, or to another directory or object store."""

from __future__ import annotations

import logging
import warnings
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ReadError, StacCloudmaskError, StacCloudmaskWarning, WriteError
from stac_cloudmask.results import Kind, Result
from stac_cloudmask.stac.api import StacApi
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.collection import Entry
from stac_cloudmask.stac.hrefs import is_remote, redact
from stac_cloudmask.stac.layout import moved

if TYPE_CHECKING:
    from collections.abc import Container, Iterable, Iterator, Mapping

    from stac_cloudmask.stac.api import Patience

    Json = dict[str, Any]
    Ids = tuple[str, str]

logger = logging.getLogger(__name__)

LINK_EVERY: Final = 25
"""Items after which the target's collection is brought up to date."""
GIVE_UP: Final = 3
"""Items in a row that a server may fail to take before the others are not tried any more."""


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
    if not to.startswith(("https://", "http://")):
        yield from _to_store(catalog, ids, OutputCatalog(to))
        return
    if asset_root is None and not is_remote(catalog.root):
        warnings.warn(
            f"{source}: assets are published by their path on this machine; asset_root=URL says where they are served",
            StacCloudmaskWarning,
            stacklevel=2,
        )
    with StacApi(to, headers=headers, patience=patience) as api:
        for collection_id, group in groupby(ids, key=lambda pair: pair[0]):
            items = _Served(catalog, collection_id, asset_root)
            yield from _to_api(items, [item_id for _, item_id in group], api, create=create_collections)


class _Served:
    """The items of one collection with asset hrefs that others can read."""

    def __init__(self, catalog: OutputCatalog, collection_id: str, asset_root: str | None) -> None:
        self.collection_id = collection_id
        self._catalog = catalog
        self._root = asset_root

    def collection(self) -> Json:
        body = self._catalog.collection(self.collection_id)
        if body is None:
            raise ReadError(f"{self._catalog.out}: collection {self.collection_id!r} is listed and not there")
        return body

    def item(self, item_id: str) -> Json:
        body = self._catalog.item(self.collection_id, item_id)
        if body is None:
            raise ReadError(f"{self._catalog.href(self.collection_id, item_id)} is listed and not there")
        if self._root is None:
            return body
        here, there = f"{self._catalog.root}/", f"{self._root.rstrip('/')}/"
        return body | {part: moved(body[part], {here: there}) for part in ("links", "assets")}


def _to_api(items: _Served, item_ids: Iterable[str], api: StacApi, *, create: bool) -> Iterator[Result]:
    entries: list[Entry] = []
    try:
        api.ensure_collection(items.collection(), create=create)
    except StacCloudmaskError as error:
        yield from (_failed(item_id, error) for item_id in item_ids)
        return
    in_a_row = 0
    for item_id in item_ids:
        try:
            if in_a_row >= GIVE_UP:
                raise WriteError(f"not tried, as the API failed {GIVE_UP} times in a row; publish again later")
            body = items.item(item_id)
            api.put_item(body)
        except StacCloudmaskError as error:
            in_a_row += isinstance(error, WriteError) and error.retryable
            yield _failed(item_id, error)
            continue
        in_a_row = 0
        entries.append(Entry.of(body))
        yield Result(item_id=item_id, status="done", output=api.item_href(items.collection_id, item_id))
    _cover(api, items.collection_id, entries)


def _cover(api: StacApi, collection_id: str, entries: list[Entry]) -> None:
    """Widen the collection's extent; the items are there and are found without."""
    if not entries:
        return
    try:
        api.cover(collection_id, entries)
    except StacCloudmaskError as error:
        logger.warning("the extent of collection %r was left as it is: %s", collection_id, error)


def _to_store(catalog: OutputCatalog, ids: Iterable[Ids], target: OutputCatalog) -> Iterator[Result]:
    unlisted: list[str] = []
    try:
        for pair in ids:
            result = _copied(catalog, pair, target)
            if result.output is not None:
                unlisted.append(result.output)
            if len(unlisted) >= LINK_EVERY:
                target.link(unlisted)
                unlisted.clear()
            yield result
    finally:
        target.link(unlisted)


def _copied(catalog: OutputCatalog, pair: Ids, target: OutputCatalog) -> Result:
    fingerprint = catalog.state(*pair)
    if fingerprint is not None and target.state(*pair) == fingerprint:
        return Result(item_id=pair[1], status="up-to-date", output=target.href(*pair))
    try:
        return Result(item_id=pair[1], status="done", output=catalog.copy_item(*pair, target))
    except StacCloudmaskError as error:
        return _failed(pair[1], error)


def _failed(item_id: str, error: StacCloudmaskError) -> Result:
    kind: Kind = "infrastructure" if error.retryable else "input"
    return Result(item_id=item_id, status="failed", error=redact(str(error)), kind=kind)
