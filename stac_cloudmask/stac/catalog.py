"""The output catalog: its layout and what is written to it."""

from __future__ import annotations

import hashlib
import json
import logging
from itertools import groupby
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ReadError, UnsupportedItemError, WriteError
from stac_cloudmask.stac.assets import ASSETS
from stac_cloudmask.stac.collection import ITEM_TYPE, Entry, new_catalog, new_collection, with_child, with_entries
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.item import OWN, file_facts
from stac_cloudmask.stac.static import parsed
from stac_cloudmask.stac.store import open_store

if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = dict[str, Any]
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager
    from pathlib import Path

    import pystac

CATALOG: Final = "catalog.json"
ABOVE: Final = "../../"
"""The catalog's folder as seen from an item."""
DIGEST: Final = 12
"""Hex digits that tell documents of one name apart."""


def item_name(collection_id: str, item_id: str) -> str:
    """The name of an item in the store; an id that could be a path is refused here at the latest."""
    checked = safe_id(item_id)
    return f"{safe_id(collection_id, what='collection')}/{checked}/{checked}.json"


def document_name(folder: str, stem: str, body: Json) -> str:
    """The name of a document that items refer to; it tells the content, which never changes under that name."""
    digest = hashlib.sha256(json.dumps(body, sort_keys=True).encode()).hexdigest()[:DIGEST]
    return f"{safe_id(folder, what='folder')}/{safe_id(f'{stem}-{digest}.json', what='file')}"


def own_files(body: Json) -> dict[str, str]:
    """Names of the files that lie beside an item, by asset key."""
    found = {key: str(asset.get("href")) for key, asset in body.get("assets", {}).items()}
    return {key: file_name(href) for key, href in found.items() if href.startswith("./")}


def file_name(href: str) -> str:
    """The name of a file beside an item."""
    return safe_id(href.removeprefix("./"), what="file")


def documents(body: Json) -> list[str]:
    """Names of the documents of its own catalog that an item was made from."""
    names = [href.removeprefix(ABOVE) for href in hrefs(body, "derived_from") if href.startswith(ABOVE)]
    return ["/".join(safe_id(part, what="file") for part in name.split("/")) for name in names]


def is_document(name: str, body: Json) -> bool:
    """Whether a document lies under the name that tells its content; any other name could be that of something else."""
    folder, _, file = name.rpartition("/")
    stem = file[: -len("-.json") - DIGEST]
    return name == document_name(folder, stem, body)


def is_item(body: Json) -> bool:
    """Whether JSON is as much of an item as this package relies on, and can be written again."""
    properties, assets, links = (body.get(name) for name in ("properties", "assets", "links"))
    return (
        isinstance(body.get("id"), str)
        and isinstance(properties, dict)
        and isinstance(assets, dict)
        and all(isinstance(asset, dict) and isinstance(asset.get("href"), str) for asset in assets.values())
        and isinstance(links, list)
        and all(isinstance(link, dict) and isinstance(link.get("href"), str) and "rel" in link for link in links)
        and _is_text(body)
    )


def is_itself(body: Json, collection_id: str, item_id: str) -> bool:
    """Whether an item is the one that its place says: published, it would replace the one that it says it is."""
    return (body["id"], body.get("collection")) == (item_id, collection_id)


def _is_text(body: Json) -> bool:
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # not finite, half a character, or too deep
        return False
    return True


def hrefs(body: Json, rel: str) -> list[str]:
    """Hrefs of the links of one relation; what is no link is none."""
    links = body.get("links")
    return [
        str(link["href"])
        for link in (links if isinstance(links, list) else [])
        if isinstance(link, dict) and link.get("rel") == rel and "href" in link
    ]


def absolute(body: Json, *, root: str, collection_id: str, item_id: str) -> Json:
    """An item whose links and assets lead to the same places from anywhere; ``root`` is the catalog's folder.

    Raises:
        UnsupportedItemError: It names a file of its own by something that could lead elsewhere.
    """
    own_files(body)
    places = {ABOVE: f"{root}/", "../": f"{root}/{collection_id}/", "./": f"{root}/{collection_id}/{item_id}/"}
    return body | {part: moved(body[part], places) for part in ("links", "assets")}


def moved(value: Any, places: Mapping[str, str]) -> Any:  # noqa: ANN401  (any JSON)
    """JSON in which every text that starts like a key starts like its value instead; the first key that fits counts."""
    if isinstance(value, dict):
        return {key: moved(inner, places) for key, inner in value.items()}
    if isinstance(value, list):
        return [moved(inner, places) for inner in value]
    start = next((start for start in places if isinstance(value, str) and value.startswith(start)), None)
    return value if start is None else places[start] + value.removeprefix(start)


logger = logging.getLogger(__name__)


class OutputCatalog:
    """A static catalog at a path or URL that masks are written to.

    Laid out as ``catalog.json``, ``COLLECTION/collection.json``, ``COLLECTION/ITEM/ITEM.json`` and the item's files
    beside it. Files come before the item that names them and items before the collection that lists them, so whatever
    can be found is whole. Any number of runs may write to one catalog at the same time.
    """

    def __init__(self, out: str | Path) -> None:
        self.out = str(out)
        self._store = open_store(out)

    @property
    def root(self) -> str:
        """Absolute href of the catalog's folder."""
        return self._store.href(CATALOG).removesuffix(f"/{CATALOG}")

    def href(self, collection_id: str, item_id: str) -> str:
        """Absolute href of an item, whether it is there or not."""
        return self._store.href(item_name(collection_id, item_id))

    def ids(self, href: str) -> tuple[str, str]:
        """Ids of collection and item of an href that ``href`` or ``write_item`` gave.

        Raises:
            WriteError: It lies outside of this catalog.
        """
        collection_id, item_id, _ = ("", "", *href.split("/"))[-3:]
        if href != self.href(collection_id, item_id):
            raise WriteError(f"{href} is no item of {self.out}; link takes what write_item returned")
        return collection_id, item_id

    def state(self, collection_id: str, item_id: str) -> str | None:
        """Fingerprint of an item that is there with all its own files in the size that it states; else None."""
        body = self.stored(collection_id, item_id)
        if body is None:
            return None
        fingerprint = body.get("properties", {}).get(f"{OWN}fingerprint")
        return fingerprint if isinstance(fingerprint, str) else None

    def stored(self, collection_id: str, item_id: str) -> Json | None:
        """The JSON of an item that is there whole, as it lies there; else None."""
        body = self._read(collection_id, item_id)
        return body if body is not None and self._is_whole(collection_id, item_id, body) else None

    def fetch(self, collection_id: str, item_id: str, name: str, target: Path) -> None:
        """Copy a file of an item to a local path.

        Raises:
            ReadError: There is no such file.
        """
        self._store.get(f"{collection_id}/{item_id}/{safe_id(name, what='file')}", target)

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
        name = item_name(str(item.collection_id), item.id)
        folder = name.rpartition("/")[0]
        body = item.to_dict(include_self_link=False, transform_hrefs=False)
        names = {key: file_name(body["assets"][key]["href"]) for key in files}
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
        for collection_id, names in groupby(sorted(map(self.ids, hrefs)), key=lambda ids: ids[0]):
            entries = [entry for _, item_id in names if (entry := self._entry(collection_id, item_id)) is not None]
            if entries:
                self._list(collection_id, entries)

    def listed(self) -> Iterator[tuple[str, str]]:
        """Ids of collection and item of everything that the catalog lists."""
        root = self._store.read_json(CATALOG) or {"links": []}
        for child in hrefs(root, "child"):
            collection_id = child.removeprefix("./").removesuffix("/collection.json")
            for href in hrefs(self.collection(collection_id) or {"links": []}, "item"):
                yield collection_id, href.removeprefix("./").partition("/")[0]

    def items(self) -> Iterator[Json]:
        """The JSON of every item that the catalog lists, see ``item``; one that is not there is left out and logged."""
        for collection_id, item_id in self.listed():
            body = self.item(collection_id, item_id)
            if body is None or not is_itself(body, collection_id, item_id):
                logger.warning("%s is listed and not there, or is another item", self.href(collection_id, item_id))
            else:
                yield body

    def item(self, collection_id: str, item_id: str) -> Json | None:
        """The JSON of an item, every href made absolute, its own href as ``self`` link; None if it is not there."""
        body = self._read(collection_id, item_id)
        if body is None:
            return None
        whole = absolute(body, root=self.root, collection_id=collection_id, item_id=item_id)
        own = {"rel": "self", "href": self.href(collection_id, item_id), "type": ITEM_TYPE}
        return whole | {"links": [*whole["links"], own]}

    def copy_item(self, collection_id: str, item_id: str, target: OutputCatalog) -> str:
        """Copy an item and its own files to another catalog; the href it has there, for ``target.link``.

        Raises:
            ReadError: A file is missing or is not what the item says.
            UnsupportedItemError: It is no valid item.
            WriteError: The target cannot be written.
        """
        where = self.href(collection_id, item_id)
        body = self._read(collection_id, item_id)
        itself = body is not None and is_itself(body, collection_id, item_id)
        if body is None or not itself or not self._is_whole(collection_id, item_id, body):
            raise ReadError(f"{where} is not there whole, or is another item; process its source again")
        Entry.of(body)  # what could not be listed is not copied
        for name in documents(body):
            document = self._store.read_json(name)
            if document is None or not is_document(name, document):
                raise ReadError(f"{self._store.href(name)} is not there; process the source of {where} again")
            target._keep(name, document)
        with target.workdir() as work:
            files = {key: work / name for key, name in own_files(body).items()}
            for key, path in files.items():
                self._store.get(f"{collection_id}/{item_id}/{path.name}", path)
                if file_facts(path).checksum != body["assets"][key].get("file:checksum"):
                    raise ReadError(
                        f"{where}: asset {key!r} is not the file that was written; process its source again"
                    )
            return target.write_item(parsed(body, href=None), files)

    def collection(self, collection_id: str) -> Json | None:
        """The JSON of a collection as it lies there; None if it is not."""
        return self._store.read_json(f"{safe_id(collection_id, what='collection')}/collection.json")

    def _read(self, collection_id: str, item_id: str) -> Json | None:
        body = self._store.read_json(item_name(collection_id, item_id))
        return body if body is not None and is_item(body) else None

    def write_json(self, name: str, body: Json) -> None:
        """Write a JSON file of another kind, as the report of a run, at the root."""
        self._store.put({safe_id(name, what="file"): body})

    def write_document(self, folder: str, stem: str, body: Json) -> str:
        """Keep a document that items refer to, under a name that tells its content, so that it never changes.

        Args:
            folder: At the root of the catalog.
            stem: What its name starts with.
            body: Written if it is not there yet.

        Returns:
            Its href as seen from an item of this catalog.
        """
        name = document_name(folder, stem, body)
        self._keep(name, body)
        return f"{ABOVE}{name}"

    def _keep(self, name: str, body: Json) -> None:
        if self._store.read_json(name) != body:
            self._store.put({name: body})

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
        body = self._read(collection_id, item_id)
        try:
            if body is not None and self._is_whole(collection_id, item_id, body):
                return Entry.of(body)
        except UnsupportedItemError as error:
            logger.warning("%s", error)
        logger.warning("%s is not there whole and is not listed", self.href(collection_id, item_id))
        return None

    def _is_whole(self, collection_id: str, item_id: str, body: Json) -> bool:
        sizes = self._store.sizes(f"{collection_id}/{item_id}")
        stated = {name: body["assets"][key].get("file:size") for key, name in own_files(body).items()}
        return bool(stated) and stated.items() <= sizes.items()
