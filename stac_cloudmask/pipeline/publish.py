"""Publish an output catalog to a STAC API, or to another directory or object store."""

from __future__ import annotations

import logging
from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, get_args

from stac_cloudmask.errors import ConfigError, StacCloudmaskError, WriteError
from stac_cloudmask.pipeline.result import Result, Status, failed
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy
from stac_cloudmask.stac.catalog import NOTHING, OutputCatalog, existing_catalog
from stac_cloudmask.stac.collection import place_and_time
from stac_cloudmask.stac.connection import Json
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.mask_item import attached, detached, source_ids
from stac_cloudmask.stac.transactions import StacApi

How = Literal["items", "attach", "detach"]
"""Publish separate items; or add assets to, or remove them from, the target's source items."""

LINK_EVERY: Final = 25
"""Number of items after which the collection is updated; a killed run then leaves most of its work listed."""
LINK_SHARE: Final = 20
"""A batch is at least this fraction of the items listed already: because a collection is rewritten for each batch, this
keeps the total time proportional to the number of items."""
GIVE_UP: Final = 3
"""Number of consecutive failures of a server after which the remaining items are skipped."""

logger = logging.getLogger(__name__)


class Listing:
    """The finished items of a catalog, which are listed in their collections in batches."""

    def __init__(self, catalog: OutputCatalog) -> None:
        self._catalog = catalog
        self._unlisted: list[str] = []
        self._collections: set[str] = set()
        self._listed = 0
        self._due = LINK_EVERY

    def add(self, href: str) -> None:
        """List an item of the catalog: the first of a collection immediately, others with the next batch."""
        self._unlisted.append(href)
        collection_id = self._catalog.ids(href)[0]
        if collection_id in self._collections and len(self._unlisted) < self._due:
            return
        self._collections.add(collection_id)
        try:
            self.close()
        except WriteError as error:
            logger.warning("%d items are to be listed later: %s", len(self._unlisted), error)
            self._due = len(self._unlisted) + LINK_EVERY

    def close(self) -> None:
        """List the items that wait.

        Raises:
            WriteError: A collection or the catalog cannot be written.
        """
        self._catalog.link(self._unlisted)
        self._listed += len(self._unlisted)
        self._unlisted.clear()
        self._due = max(LINK_EVERY, self._listed // LINK_SHARE)


@dataclass(frozen=True, kw_only=True)
class Publication:
    """The target and settings of a publication; see `publish`."""

    to: str
    how: How = "items"
    headers: Mapping[str, str] = field(default_factory=dict, repr=False)
    asset_root: str | None = None
    source_roots: Mapping[str, str] = field(default_factory=dict)
    retry: RetryPolicy = DEFAULT_POLICY

    @contextmanager
    def open(self, catalog: OutputCatalog) -> Iterator[Target]:
        """Open the target for items of a catalog, which are listed there by the end.

        Raises:
            ConfigError: An address or header cannot work, or the target cannot be changed like this.
            WriteError: At the end: the target's collection or catalog cannot be written.
        """
        is_api = self.to.startswith(("https://", "http://"))
        if self.how not in (get_args(How) if is_api else ("items",)):
            raise ConfigError(f"how={self.how!r}: masks are published as items, or attached or detached at a STAC API")
        if is_api:
            served = catalog.roots(self.asset_root, self.source_roots)
            with (
                StacApi(self.to, headers=self.headers, retry=self.retry) as api,
                closing(_Api(catalog, api, served, self.how)) as target,
            ):
                yield target
        else:
            store = OutputCatalog(self.to)
            with closing(Listing(store)) as listing:
                roots = self.source_roots if self.source_roots or is_remote(self.to) else None
                yield _Store(catalog, store, roots, listing)


def publish(
    source: str | Path,
    *,
    to: str,
    how: How = "items",
    headers: Mapping[str, str] = NOTHING,
    asset_root: str | None = None,
    source_roots: Mapping[str, str] = NOTHING,
    retry: RetryPolicy = DEFAULT_POLICY,
) -> Iterator[Result]:
    """Publish the items that a catalog lists; running it again repairs and updates without repeating work.

    Args:
        source: The output catalog: a directory or ``s3://...``.
        to: A STAC API with transactions (``https://...``), or another directory or ``s3://...``.
        how: ``attach`` adds the masks as assets to the source items that an API holds instead, which changes nothing
            else of them; ``detach`` takes them away again.
        headers: HTTP headers sent to the API with every request; they are never shown.
        asset_root: Where the files of ``source`` are served from, if others cannot read them where they lie. An API
            gets hrefs below it.
        source_roots: URLs at which local files of the source items are served, by local folder.
        retry: Retry settings for a busy API.

    Yields:
        The result of each item; ``output`` is its new href. A failed item does not stop the others.

    Raises:
        ConfigError: There is no catalog, or an address or header is not valid.
        WriteError: The target's collection or catalog cannot be written.
    """
    catalog = existing_catalog(source)
    publication = Publication(
        to=to, how=how, headers=headers, asset_root=asset_root, source_roots=source_roots, retry=retry
    )
    with publication.open(catalog) as target:
        for ids in list(catalog.listed()):
            yield target.put(*ids)


class _Api:
    """A STAC API as a target; its items get hrefs that other machines can follow."""

    def __init__(self, catalog: OutputCatalog, api: StacApi, roots: Mapping[str, str], how: How) -> None:
        self._catalog, self._api, self._roots, self._how = catalog, api, roots, how
        self._published: dict[str, list[Json]] = {}
        self._failures = 0

    def put(self, collection_id: str, item_id: str) -> Result:
        """Publish an item and return its result; ``output`` is its new href."""
        try:
            if self._failures >= GIVE_UP:
                raise WriteError(f"not tried, as the API failed {GIVE_UP} times in a row; publish again later")
            mask = self._catalog.item(collection_id, item_id, self._roots)
            status, href = self._add(mask) if self._how == "items" else self._change_source(mask)
        except StacCloudmaskError as error:
            self._failures += isinstance(error, WriteError) and error.retryable
            return failed(item_id, error)
        self._failures = 0
        return Result(item_id=item_id, status=status, output=href)

    def _add(self, mask: Json) -> tuple[Status, str]:
        """Create or replace the item of a mask, after its collection."""
        place_and_time(mask)  # an item without them has no extent that the collection could be widened to
        collection_id = mask["collection"]
        if collection_id not in self._published:
            collection = self._catalog.collection(collection_id)
            self._api.ensure_collection({name: value for name, value in collection.items() if name != "assets"})
            self._published[collection_id] = []
        self._api.put_item(mask)
        self._published[collection_id].append(mask)
        return "done", self._api.item_href(collection_id, mask["id"])

    def _change_source(self, mask: Json) -> tuple[Status, str]:
        """Change the source item, which must exist under the ids that it had when it was masked."""
        ids = source_ids(mask)
        found = self._api.item(*ids)
        changed = attached(found, mask) if self._how == "attach" else detached(found, mask)
        if changed != found:
            self._api.put_item(changed)
        return "up-to-date" if changed == found else "done", self._api.item_href(*ids)

    def close(self) -> None:
        """Widen the extents of the collections; searches find the items even without this."""
        for collection_id, items in self._published.items():
            self._api.cover(collection_id, items)


class _Store:
    """Another directory or object store as a target; ``roots`` is None if local hrefs may be kept."""

    def __init__(
        self, catalog: OutputCatalog, target: OutputCatalog, roots: Mapping[str, str] | None, listing: Listing
    ) -> None:
        self._catalog, self._target, self._roots, self._listing = catalog, target, roots, listing

    def put(self, collection_id: str, item_id: str) -> Result:
        """Copy an item unless it exists already, and return its result; ``output`` is its new href."""
        try:
            fingerprint = self._catalog.state(collection_id, item_id)
            done = fingerprint is not None and self._target.state(collection_id, item_id) == fingerprint
            if not done:
                self._catalog.copy_item(collection_id, item_id, self._target, roots=self._roots)
            href = self._target.href(collection_id, item_id)
        except StacCloudmaskError as error:
            return failed(item_id, error)
        self._listing.add(href)
        return Result(item_id=item_id, status="up-to-date" if done else "done", output=href)


Target = _Api | _Store
"""A target to which items of a catalog are published one by one."""
