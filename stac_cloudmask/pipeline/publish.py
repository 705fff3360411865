"""Publish an output catalog to a STAC API, or to another directory or object store."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Protocol

from stac_cloudmask.errors import StacCloudmaskError, WriteError
from stac_cloudmask.pipeline.result import Result, failed
from stac_cloudmask.retry import DEFAULT_POLICY, RetryPolicy
from stac_cloudmask.stac.catalog import NOTHING, OutputCatalog, existing_catalog
from stac_cloudmask.stac.collection import place_and_time
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.mask_item import attached, detached, source_ids
from stac_cloudmask.stac.transactions import StacApi

if TYPE_CHECKING:
    Json = dict[str, Any]

How = Literal["items", "attach", "detach"]
"""Publish separate items; or add assets to, or remove them from, the target's source items."""

LINK_EVERY: Final = 25
"""Number of items after which the collection is updated; a killed run then leaves most of its work listed."""
GIVE_UP: Final = 3
"""Number of consecutive failures of a server after which the remaining items are skipped."""


class Target(Protocol):
    """A target to which items of a catalog are published one by one."""

    def put(self, collection_id: str, item_id: str) -> Result:
        """Publish an item and return its result; ``output`` is its new href."""
        ...


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
            ConfigError: An address or header cannot work.
            WriteError: At the end: the target's collection or catalog cannot be written.
        """
        if not self.to.startswith(("https://", "http://")):
            roots = self.source_roots if is_remote(self.to) else None
            with closing(_Copies(catalog, OutputCatalog(self.to), roots)) as copies:
                yield copies
            return
        served = catalog.roots(self.asset_root, self.source_roots)
        with StacApi(self.to, headers=self.headers, retry=self.retry) as api:
            if self.how == "items":
                with closing(_OnApi(catalog, api, served)) as items:
                    yield items
            else:
                yield _InSources(catalog, api, served, attach=self.how == "attach")


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


class _OnApi:
    """A STAC API as a target; its items get hrefs that other machines can follow."""

    def __init__(self, catalog: OutputCatalog, api: StacApi, roots: Mapping[str, str]) -> None:
        self._catalog, self._api, self._roots = catalog, api, roots
        self._published: dict[str, list[Json]] = {}
        self._in_a_row = 0

    def put(self, collection_id: str, item_id: str) -> Result:
        """See `Target`."""
        try:
            if self._in_a_row >= GIVE_UP:
                raise WriteError(f"not tried, as the API failed {GIVE_UP} times in a row; publish again later")
            body = self._catalog.item(collection_id, item_id, self._roots)
            place_and_time(body)  # an item without them has no extent that the collection could be widened to
            if collection_id not in self._published:
                collection = self._catalog.collection(collection_id)
                self._api.ensure_collection({name: value for name, value in collection.items() if name != "assets"})
                self._published[collection_id] = []
            self._api.put_item(body)
        except StacCloudmaskError as error:
            self._in_a_row += isinstance(error, WriteError) and error.retryable
            return failed(item_id, error)
        self._in_a_row = 0
        self._published[collection_id].append(body)
        return Result(item_id=item_id, status="done", output=self._api.item_href(collection_id, item_id))

    def close(self) -> None:
        """Widen the extents of the collections; searches find the items even without this."""
        for collection_id, items in self._published.items():
            self._api.cover(collection_id, items)


class _InSources:
    """The source items of an API as a target, to which the masks are added as assets."""

    def __init__(self, catalog: OutputCatalog, api: StacApi, roots: Mapping[str, str], *, attach: bool) -> None:
        self._catalog, self._api, self._roots = catalog, api, roots
        self._change = attached if attach else detached

    def put(self, collection_id: str, item_id: str) -> Result:
        """See `Target`; the source item must exist under the ids that it had when it was masked."""
        try:
            mask = self._catalog.item(collection_id, item_id, self._roots)
            ids = source_ids(mask)
            found = self._api.item(*ids)
            changed = self._change(found, mask)
            if changed == found:
                return Result(item_id=item_id, status="up-to-date", output=self._api.item_href(*ids))
            self._api.put_item(changed)
        except StacCloudmaskError as error:
            return failed(item_id, error)
        return Result(item_id=item_id, status="done", output=self._api.item_href(*ids))


class _Copies:
    """Another directory or object store as a target; ``roots`` is None if local hrefs may be kept."""

    def __init__(self, catalog: OutputCatalog, target: OutputCatalog, roots: Mapping[str, str] | None) -> None:
        self._catalog, self._target, self._roots = catalog, target, roots
        self._unlisted: list[str] = []

    def put(self, collection_id: str, item_id: str) -> Result:
        """See `Target`; an item that exists already is not copied again."""
        try:
            fingerprint = self._catalog.state(collection_id, item_id)
            done = fingerprint is not None and self._target.state(collection_id, item_id) == fingerprint
            if not done:
                self._catalog.copy_item(collection_id, item_id, self._target, roots=self._roots)
            href = self._target.href(collection_id, item_id)
        except StacCloudmaskError as error:
            return failed(item_id, error)
        self._unlisted.append(href)
        if len(self._unlisted) >= LINK_EVERY:
            self.close()
        return Result(item_id=item_id, status="up-to-date" if done else "done", output=href)

    def close(self) -> None:
        """List the copied items."""
        self._target.link(self._unlisted)
        self._unlisted.clear()
