"""An output catalog, published a second time: to a STAC API, or to another directory or object store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from stac_cloudmask.errors import ReadError, StacCloudmaskError, WriteError
from stac_cloudmask.pipeline.result import Kind, Result
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy
from stac_cloudmask.stac.catalog import NO_ROOTS, OutputCatalog, existing_catalog, followable, is_itself
from stac_cloudmask.stac.collection import require_place_and_time
from stac_cloudmask.stac.hrefs import is_remote, redact
from stac_cloudmask.stac.item import attached, detached, source_ids
from stac_cloudmask.stac.transactions import StacApi

if TYPE_CHECKING:
    Json = dict[str, Any]

logger = logging.getLogger(__name__)

How = Literal["items", "attach", "detach"]
"""Items of their own; or assets added to, or taken from, the source items of the target."""

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
    source: str | Path,
    *,
    to: str,
    how: How = "items",
    headers: Mapping[str, str] | None = None,
    asset_root: str | None = None,
    source_roots: Mapping[str, str] = NO_ROOTS,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> Iterator[Result]:
    """Publish the items that a catalog lists; running it again repairs and updates, and does nothing twice.

    Args:
        source: The output catalog: a directory or ``s3://...``.
        to: A STAC API with transactions (``https://...``), or another directory or ``s3://...``.
        how: ``attach`` adds the masks as assets to the source items that an API holds instead, which changes nothing
            else of them; ``detach`` takes them away again.
        headers: Sent to the API with every request; shown nowhere.
        asset_root: Where the files of ``source`` are served from, if others cannot read them where they lie. An API
            gets hrefs below it.
        source_roots: Where local files of the source items are served from: URLs by local folder.
        retry: How long a busy API is asked again.

    Yields:
        What became of each item; ``output`` is its new href. A failed item does not stop the others.

    Raises:
        ConfigError: There is no catalog, or an address or header cannot work.
        WriteError: The target's collection or catalog cannot be written.
    """
    catalog = existing_catalog(source)
    with open_target(
        catalog,
        to=to,
        how=how,
        headers=headers,
        asset_root=asset_root,
        source_roots=source_roots,
        retry=retry,
    ) as target:
        for pair in list(catalog.listed()):
            yield target.put(*pair)


@contextmanager
def open_target(
    catalog: OutputCatalog,
    *,
    to: str,
    how: How = "items",
    headers: Mapping[str, str] | None = None,
    asset_root: str | None = None,
    source_roots: Mapping[str, str] = NO_ROOTS,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> Iterator[Target]:
    """Where to publish items of a catalog, for as long as the block lasts; see ``publish``.

    Raises:
        ConfigError: An address or header cannot work.
        WriteError: At the end: the target's collection or catalog cannot be written.
    """
    if not to.startswith(("https://", "http://")):
        copies = _Copies(catalog, OutputCatalog(to), source_roots if is_remote(to) else None)
        try:
            yield copies
        finally:
            copies.link()
        return
    roots = catalog.roots(asset_root, source_roots)
    with StacApi(to, headers=headers, retry=retry) as api:
        if how != "items":
            yield _InSources(catalog, api, roots, how)
            return
        served = _OnApi(catalog, api, roots)
        try:
            yield served
        finally:
            served.cover()


class _OnApi:
    """A STAC API; assets are referred to where others can read them."""

    def __init__(self, catalog: OutputCatalog, api: StacApi, roots: Mapping[str, str]) -> None:
        self._catalog, self._api, self._roots = catalog, api, roots
        self._published: dict[str, list[Json]] = {}
        self._refused: dict[str, StacCloudmaskError] = {}
        self._in_a_row = 0

    def put(self, collection_id: str, item_id: str) -> Result:
        """See ``Target``."""
        try:
            if self._in_a_row >= GIVE_UP:
                raise WriteError(f"not tried, as the API failed {GIVE_UP} times in a row; publish again later")
            body = _item(self._catalog, collection_id, item_id, self._roots)
            require_place_and_time(body)
            self._ensure(collection_id)
            self._api.put_item(body)
        except StacCloudmaskError as error:
            self._in_a_row += isinstance(error, WriteError) and error.retryable
            return _failed(item_id, error)
        self._in_a_row = 0
        self._published[collection_id].append(body)
        return Result(item_id=item_id, status="done", output=self._api.item_href(collection_id, item_id))

    def cover(self) -> None:
        """Widen the extents of the collections; the items are there and are found without."""
        for collection_id, items in self._published.items():
            try:
                self._api.cover(collection_id, items)
            except StacCloudmaskError as error:
                logger.warning("the extent of collection %r was left as it is: %s", collection_id, error)

    def _ensure(self, collection_id: str) -> None:
        """Make sure, once, that a collection is there."""
        if collection_id in self._refused:
            raise self._refused[collection_id]
        if collection_id in self._published:
            return
        body = self._catalog.collection(collection_id)
        if body is None:
            raise ReadError(f"{self._catalog.out}: collection {collection_id!r} is not there")
        try:
            self._api.ensure_collection({name: value for name, value in body.items() if name != "assets"})
        except StacCloudmaskError as error:
            if not error.retryable:
                self._refused[collection_id] = error
            raise
        self._published[collection_id] = []


class _InSources:
    """The source items that an API holds, with the masks as assets of theirs."""

    def __init__(self, catalog: OutputCatalog, api: StacApi, roots: Mapping[str, str], how: How) -> None:
        self._catalog, self._api, self._roots, self._how = catalog, api, roots, how

    def put(self, collection_id: str, item_id: str) -> Result:
        """See ``Target``; the source item must be there, under the ids that it had when it was masked."""
        try:
            mask = _item(self._catalog, collection_id, item_id, self._roots)
            ids = source_ids(mask)
            found = self._api.item(*ids)
            changed = attached(found, mask) if self._how == "attach" else detached(found, mask)
            if changed == found:
                return Result(item_id=item_id, status="up-to-date", output=self._api.item_href(*ids))
            self._api.put_item(changed)
        except StacCloudmaskError as error:
            return _failed(item_id, error)
        return Result(item_id=item_id, status="done", output=self._api.item_href(*ids))


class _Copies:
    """Another directory or object store; ``roots`` is None where local hrefs may stay."""

    def __init__(self, catalog: OutputCatalog, target: OutputCatalog, roots: Mapping[str, str] | None) -> None:
        self._catalog, self._target, self._roots = catalog, target, roots
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
            copied = self._catalog.copy_item(collection_id, item_id, self._target, roots=self._roots)
        except StacCloudmaskError as error:
            return _failed(item_id, error)
        return Result(item_id=item_id, status="done", output=copied)


def _item(catalog: OutputCatalog, collection_id: str, item_id: str, roots: Mapping[str, str]) -> Json:
    body = catalog.item(collection_id, item_id)
    if body is None or not is_itself(body, collection_id, item_id):
        raise ReadError(f"{catalog.href(collection_id, item_id)} is listed and not there, or is another item")
    return followable(body, roots)


def _failed(item_id: str, error: StacCloudmaskError) -> Result:
    kind: Kind = "infrastructure" if error.retryable else "input"
    return Result(item_id=item_id, status="failed", error=redact(str(error)), kind=kind)
