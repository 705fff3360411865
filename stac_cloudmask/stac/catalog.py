"""The output catalog: items and their files in a store, and the collections that list them."""

from __future__ import annotations

import logging
from itertools import groupby
from typing import TYPE_CHECKING, Any

from stac_cloudmask.errors import WriteError
from stac_cloudmask.stac.collection import Entry, new_catalog, new_collection, with_child, with_entries
from stac_cloudmask.stac.definitions import ASSETS
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.items import OWN
from stac_cloudmask.stac.store import open_store

if TYPE_CHECKING:
    from collections.abc import Iterable, Iterator, Mapping
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pystac

    Json = dict[str, Any]

logger = logging.getLogger(__name__)

CATALOG = "catalog.json"


class OutputCatalog:
    """A static catalog at a path or URL that masks are written to.

    Laid out as ``catalog.json``, ``COLLECTION/collection.json``, ``COLLECTION/ITEM/ITEM.json`` and the item's files
    beside it. Files come before the item that names them and items before the collection that lists them, so whatever
    can be found is whole. Any number of runs may write to one catalog at the same time.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = str(out)
        self._store = open_store(out)

    def href(self, collection_id: str, item_id: str) -> str:
        """Absolute href of an item, whether it is there or not."""
        return self._store.href(_item_name(collection_id, item_id))

    def state(self, collection_id: str, item_id: str) -> str | None:
        """Fingerprint of an item that is there with all its own files in the size that it states; else None."""
        body = self._store.read_json(_item_name(collection_id, item_id))
        if body is None or not self._is_whole(collection_id, item_id, body):
            return None
        fingerprint = body.get("properties", {}).get(f"{OWN}fingerprint")
        return fingerprint if isinstance(fingerprint, str) else None

    def workdir(self) -> AbstractContextManager[Path]:
        """A folder for the files of one item before ``write_item`` takes them; it cleans up after killed runs, too."""
        return self._store.workdir()

    def write_item(self, item: pystac.Item, files: Mapping[str, Path]) -> str:
        """Write an item's files and then the item; files that it had before and has no more are removed.

        Args:
            item: From ``mask_item``.
            files: The local file of every asset of its own, by asset key; they are moved, not copied.

        Returns:
            The absolute href of the item, for ``link``.

        Raises:
            WriteError: The output cannot be written; an item that was there before may be incomplete, and ``state``
                then says so.
        """
        name = _item_name(str(item.collection_id), item.id)
        folder = name.rpartition("/")[0]
        body = item.to_dict(include_self_link=False, transform_hrefs=False)
        names = {key: _file_name(body["assets"][key]["href"]) for key in files}
        self._store.put({f"{folder}/{names[key]}": path for key, path in files.items()} | {name: body})
        stale = {f"{key}.tif" for key in ASSETS} - set(names.values())
        for left in stale & set(self._store.sizes(folder)):
            self._store.remove(f"{folder}/{left}")
        return self._store.href(name)

    def link(self, hrefs: Iterable[str]) -> None:
        """List items in their collections, and these in the catalog; what is listed already stays as it is.

        Args:
            hrefs: Of items in this catalog, as ``write_item`` and ``href`` give them. One that is not there whole is
                left out with a warning in the log: nothing that is listed dangles.

        Raises:
            WriteError: A collection or the catalog cannot be written, or an href lies outside of this catalog.
        """
        for collection_id, names in groupby(sorted(map(self._ids, hrefs)), key=lambda ids: ids[0]):
            entries = [entry for _, item_id in names if (entry := self._entry(collection_id, item_id)) is not None]
            if entries:
                self._list(collection_id, entries)

    def items(self) -> Iterator[Json]:
        """The JSON of every item that the catalog lists, asset hrefs made absolute, with its href as ``self`` link."""
        root = self._store.read_json(CATALOG) or {"links": []}
        for child in _hrefs(root, "child"):
            collection_id = child.removeprefix("./").removesuffix("/collection.json")
            collection = self._store.read_json(f"{safe_id(collection_id)}/collection.json") or {"links": []}
            for href in _hrefs(collection, "item"):
                item_id = href.removeprefix("./").partition("/")[0]
                body = self._store.read_json(_item_name(collection_id, item_id))
                if body is None:
                    logger.warning("%s lists item %r, which is not there", self.href(collection_id, item_id), item_id)
                else:
                    yield self._absolute(collection_id, body)

    def collection(self, collection_id: str) -> Json | None:
        """The JSON of a collection as it lies there; None if it is not."""
        return self._store.read_json(f"{safe_id(collection_id, what='collection')}/collection.json")

    def write_json(self, name: str, body: Json) -> None:
        """Write a JSON file of another kind, as the report of a run, at the root."""
        self._store.put({safe_id(name, what="file"): body})

    def _list(self, collection_id: str, entries: list[Entry]) -> None:
        self._store.update_json(
            f"{collection_id}/collection.json",
            lambda found: with_entries(found or new_collection(collection_id), entries),
        )
        collection = self._store.read_json(f"{collection_id}/collection.json")
        if collection is None:
            raise WriteError(f"{self.out}: collection {collection_id!r} vanished while it was written")
        self._store.update_json(CATALOG, lambda found: with_child(found or new_catalog(), collection))

    def _entry(self, collection_id: str, item_id: str) -> Entry | None:
        body = self._store.read_json(_item_name(collection_id, item_id))
        if body is None or not self._is_whole(collection_id, item_id, body):
            logger.warning("%s is not there whole and is not listed", self.href(collection_id, item_id))
            return None
        return Entry.of(body)

    def _is_whole(self, collection_id: str, item_id: str, body: Json) -> bool:
        sizes = self._store.sizes(f"{collection_id}/{item_id}")
        own = [asset for asset in body.get("assets", {}).values() if str(asset.get("href")).startswith("./")]
        stated = {_file_name(asset["href"]): asset.get("file:size") for asset in own}
        return bool(stated) and stated.items() <= sizes.items()

    def _ids(self, href: str) -> tuple[str, str]:
        collection_id, item_id, _ = ("", "", *href.split("/"))[-3:]
        if href != self.href(collection_id, item_id):
            raise WriteError(f"{href} is no item of {self.out}; link takes what write_item returned")
        return collection_id, item_id

    def _absolute(self, collection_id: str, body: Json) -> Json:
        home = self.href(collection_id, body["id"])
        folder = home.rpartition("/")[0]
        for asset in body["assets"].values():
            if asset["href"].startswith("./"):
                asset["href"] = f"{folder}/{_file_name(asset['href'])}"
        body["links"] = [*body["links"], {"rel": "self", "href": home, "type": "application/geo+json"}]
        return body


def _item_name(collection_id: str, item_id: str) -> str:
    """The name of an item in the store; an id that could be a path is refused here at the latest."""
    checked = safe_id(item_id)
    return f"{safe_id(collection_id, what='collection')}/{checked}/{checked}.json"


def _file_name(href: str) -> str:
    return safe_id(href.removeprefix("./"), what="file")


def _hrefs(body: Json, rel: str) -> list[str]:
    return [str(link["href"]) for link in body["links"] if link.get("rel") == rel]
