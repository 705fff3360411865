"""The output catalog: its layout, writing, listing and reading."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Callable, Iterable, Iterator, Mapping
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import Any, Final

from stac_cloudmask.errors import ConfigError, PublishError, ReadError, UnsupportedItemError, WriteError
from stac_cloudmask.stac import collection as collections
from stac_cloudmask.stac.assets import ASSETS, OWN, Json, file_name_of
from stac_cloudmask.stac.hrefs import is_remote, safe_id
from stac_cloudmask.stac.mask_item import ITEM_TYPE, JSON_TYPE, SUFFIX, file_fields, mapped
from stac_cloudmask.stac.parse import is_asset, is_link, links_of, wrong_members
from stac_cloudmask.stac.store import TYPES, open_store

CATALOG: Final = "catalog.json"
REPORT: Final = "run.json"
"""Name of a run's report in the catalog's folder; a run without masks writes only this."""
TABLE: Final = "items.parquet"
NOTHING: Final[Mapping[str, Any]] = MappingProxyType({})
ABOVE: Final = "../../"
"""Relative href from an item to the catalog's folder."""
DIGEST: Final = 12
"""Number of hex digits that distinguish documents of the same name."""


def item_name(collection_id: str, item_id: str) -> str:
    """Return the name of an item in the store; ids that could be paths are rejected."""
    checked = safe_id(item_id)
    return f"{safe_id(collection_id, what='collection')}/{checked}/{checked}.json"


def _ending(document: Json) -> str:
    """Return the suffix of a document's name, a hash of its content."""
    return f"-{hashlib.sha256(json.dumps(document, sort_keys=True).encode()).hexdigest()[:DIGEST]}.json"


def own_files(body: Json) -> dict[str, str]:
    """Return the names of an item's own files, which are beside it, by asset key.

    Raises:
        UnsupportedItemError: A name could refer to another folder.
    """
    hrefs = {key: asset["href"] for key, asset in body["assets"].items() if asset["href"].startswith("./")}
    return {key: safe_id(href.removeprefix("./"), what="file") for key, href in hrefs.items()}


def documents(body: Json) -> list[str]:
    """Return the names of the documents in its own catalog that an item was derived from."""
    names = [href.removeprefix(ABOVE) for href in links_of(body, "derived_from") if href.startswith(ABOVE)]
    return ["/".join(safe_id(part, what="file") for part in name.split("/")) for name in names]


def is_item(body: Json) -> bool:
    """Return whether JSON is an item with all members that this package relies on, and can be serialized."""
    if wrong_members(body) or not all(map(is_asset, body["assets"].values())) or not all(map(is_link, body["links"])):
        return False
    try:
        json.dumps(body, allow_nan=False, ensure_ascii=False).encode()
    except (ValueError, RecursionError):  # not finite, an unpaired surrogate, or too deeply nested
        return False
    return True


def _moved_hrefs(body: Json, places: Mapping[str, str]) -> Json:
    """Return an item with prefixes of its hrefs replaced: keys by their values; the first matching key counts."""

    def moved(text: object) -> object:
        start = next((start for start in places if isinstance(text, str) and text.startswith(start)), None)
        return text if start is None else places[start] + str(text).removeprefix(start)

    return body | {part: mapped(body[part], moved) for part in ("links", "assets")}


def followable(body: Json, roots: Mapping[str, str]) -> Json:
    """Return an item with hrefs that other machines can follow.

    The href of a local file is replaced by the longest matching entry of ``roots``, otherwise by its alternate href.
    Relative hrefs stay, as they move with the item.

    Raises:
        PublishError: An href refers to a local file that other machines cannot read.
    """

    def leads(href: str) -> bool:
        return is_remote(href) or href.startswith((".", *roots.values()))

    places = {f"{local}/": f"{url}/" for local, url in sorted(roots.items(), key=lambda pair: -len(pair[0]))}
    whole = _moved_hrefs(body, places)
    assets = {key: asset | _shared(asset, leads) for key, asset in whole["assets"].items()}
    links = [link for link in whole["links"] if link["rel"] != "self" or leads(link["href"])]
    hrefs = [(f"asset {key!r}", asset["href"]) for key, asset in assets.items()]
    hrefs += [(f"link {link['rel']!r}", link["href"]) for link in links]
    for what, href in hrefs:
        if not leads(href):
            raise PublishError(
                f"item {body['id']!r}: {what} is {href}, which only this machine can read; --asset-root says where the "
                "catalog is served, --source-root LOCAL=URL where the source's files are"
            )
    return body | {"assets": assets, "links": links}


def _shared(asset: Json, leads: Callable[[str], bool]) -> Json:
    """Return the href of an asset, or an alternate one that other machines can follow, and its remote alternates."""
    if "alternate" not in asset:
        return {}
    kept = {name: other for name, other in asset["alternate"].items() if is_remote(other["href"])}
    hrefs = [asset["href"], *(other["href"] for other in kept.values())]
    return {"href": next(filter(leads, hrefs), asset["href"]), "alternate": kept}


def existing_catalog(place: str | Path) -> OutputCatalog:
    """Open an existing output catalog by its folder or its ``catalog.json``.

    Raises:
        ConfigError: There is no catalog; the message names one nearby, if any.
    """
    folder = str(place).rstrip("/").removesuffix(f"/{CATALOG}")
    folder = "." if folder == CATALOG else folder
    if folder.startswith(("http://", "https://")):
        raise ConfigError(f"{folder}: masks are not read from a web address; give a local copy, or s3://bucket/prefix")
    catalog = OutputCatalog(folder)
    if catalog.exists():
        return catalog
    if is_remote(folder):
        raise ConfigError(f"{folder} has no {CATALOG}: it is not a catalog that `process --out` wrote")
    path = Path(folder)
    if (path / REPORT).is_file():
        raise ConfigError(f"{folder} has no masks, as the last run made none; its {REPORT} says why, item by item")
    near = next((path for path in (path.parent, *sorted(path.glob("*"))) if (path / CATALOG).is_file()), None)
    why = f"has no {CATALOG}" if path.is_dir() else "is not a folder"
    hint = f"; {near} has one" if near is not None else "; give the folder that `process --out` wrote"
    raise ConfigError(f"{folder} {why}{hint}")


logger = logging.getLogger(__name__)


class OutputCatalog:
    """A static catalog at a path or URL that masks are written to.

    The layout is ``catalog.json``, ``COLLECTION/collection.json``, ``COLLECTION/ITEM/ITEM.json`` and the item's files
    beside it. Files are written before their item, and items before the collection that lists them: readers never
    find anything incomplete. Any number of runs may write to one catalog at the same time.
    """

    def __init__(self, out: str | Path, *, config: Mapping[str, Any] = NOTHING) -> None:
        """Open the catalog at ``out``; ``config`` holds the owner's fields for its collections."""
        self.out = str(out)
        if not self.out:
            raise ConfigError("the name of a catalog's folder is empty; the current folder is .")
        self._store = open_store(out)
        self._config = config
        self.root = self._store.href("").rstrip("/")
        """The absolute href of the catalog's folder."""
        self.workdir = self._store.workdir
        """Makes a folder for an item's files until ``write_item`` moves them; remnants of killed runs are removed."""

    def href(self, collection_id: str, item_id: str) -> str:
        """Return the absolute href of an item, whether or not it exists."""
        return self._store.href(item_name(collection_id, item_id))

    def ids(self, href: str) -> tuple[str, str]:
        """Return the ids of collection and item of an href that ``href`` or ``write_item`` returned.

        Raises:
            WriteError: The href is outside this catalog.
        """
        collection_id, item_id, _ = ("", "", *href.split("/"))[-3:]
        if href != self.href(collection_id, item_id):
            raise WriteError(f"{href} is not an item of {self.out}; link takes what write_item returned")
        return collection_id, item_id

    def state(self, collection_id: str, item_id: str) -> str | None:
        """Return the fingerprint of a complete item, see `stored`; otherwise None."""
        body = self.stored(collection_id, item_id)
        return None if body is None else body["properties"].get(f"{OWN}fingerprint")

    def stored(self, collection_id: str, item_id: str) -> Json | None:
        """Return the JSON of an item if it exists with all its own files in their stated sizes; otherwise None."""
        body = self._read(collection_id, item_id)
        if body is None:
            return None
        sizes = self._store.sizes(f"{collection_id}/{item_id}")
        files = own_files(body)
        stated = [(name, body["assets"][key].get("file:size")) for key, name in files.items()]
        whole = all(name in sizes and size in (None, sizes[name]) for name, size in stated)
        return body if files and whole else None

    def write_item(self, item: Json, files: Mapping[str, Path]) -> str:
        """Write an item's files and then the item; files that it no longer has are removed.

        Args:
            item: The JSON of an item from ``mask_item``.
            files: Local files of all its own assets, by asset key; they are moved, not copied.

        Returns:
            The absolute href of the item, for ``link``.

        Raises:
            WriteError: The output cannot be written; an earlier version of the item may be incomplete, for which
                ``state`` returns None.
        """
        name = item_name(item["collection"], item["id"])
        folder = name.rpartition("/")[0]
        links = [link for link in item["links"] if link["rel"] != "self"]
        if is_remote(self.root):  # other machines can follow a URL, but not a local path
            links.append(_self_link(self._store.href(name)))
        names = own_files(item)
        self._store.put(
            {f"{folder}/{names[key]}": path for key, path in files.items()} | {name: item | {"links": links}}
        )
        stale = {*map(file_name_of, ASSETS)} - set(names.values())
        for left in stale & self._store.sizes(folder).keys():
            self._store.remove(f"{folder}/{left}")
        return self._store.href(name)

    def link(self, hrefs: Iterable[str]) -> None:
        """List items in their collections, and these in the catalog; existing links stay.

        Args:
            hrefs: Hrefs of items in this catalog, from ``write_item`` or ``href``. An incomplete item is left out with
                a warning in the log: no link is broken.

        Raises:
            WriteError: A collection or the catalog cannot be written, or an href is outside this catalog.
        """
        for collection_id, names in groupby(sorted(map(self.ids, hrefs)), key=lambda ids: ids[0]):
            bodies = []
            for _, item_id in names:
                try:
                    bodies.append(self._listable(collection_id, item_id))
                except (ReadError, UnsupportedItemError) as error:
                    logger.warning("%s; it is not listed", error)
            if bodies:
                self._list(collection_id, bodies)

    def listed(self) -> Iterator[tuple[str, str]]:
        """Yield the ids of collection and item of every listed item."""
        for child in links_of(self._store.read_json(CATALOG), "child"):
            collection_id = child.removeprefix("./").removesuffix("/collection.json")
            for href in self._listed(collection_id):
                item_id = href.removeprefix("./").partition("/")[0]
                if not item_id.endswith(SUFFIX):
                    raise ConfigError(f"{self.out} lists {href}: it is not a catalog that `process --out` wrote")
                yield collection_id, item_id

    def items(self, roots: Mapping[str, str] | None = None) -> Iterator[Json]:
        """Yield every item that the catalog lists, see `item`; missing items are logged.

        Raises:
            PublishError: An item refers to files that other machines cannot read.
        """
        for ids in self.listed():
            try:
                yield self.item(*ids, roots)
            except ReadError as error:
                logger.warning("%s", error)

    def item(self, collection_id: str, item_id: str, roots: Mapping[str, str] | None = None) -> Json:
        """Return the JSON of an item, every href made absolute, its own href as ``self`` link.

        Args:
            collection_id: Its collection.
            item_id: Its id.
            roots: Published locations of local files, see `followable`; None keeps local hrefs.

        Raises:
            ReadError: The item does not exist.
            PublishError: It refers to files that other machines cannot read.
        """
        href = self.href(collection_id, item_id)
        body = self._read(collection_id, item_id)
        if body is None:
            raise ReadError(f"{href} is listed, but does not exist or is another item")
        own_files(body)  # rejects names that could refer to other folders
        folder = f"{self.root}/{collection_id}"
        whole = _moved_hrefs(body, {ABOVE: f"{self.root}/", "../": f"{folder}/", "./": f"{folder}/{item_id}/"})
        whole["links"] = [*(link for link in whole["links"] if link["rel"] != "self"), _self_link(href)]
        return whole if roots is None else followable(whole, roots)

    def exists(self) -> bool:
        """Return whether the catalog exists."""
        return self._store.read_json(CATALOG) is not None

    def roots(self, asset_root: str | None, source_roots: Mapping[str, str] = NOTHING) -> dict[str, str]:
        """Return the published locations of local folders, for `followable`."""
        urls = ((Path(local).absolute().as_posix().rstrip("/"), url.rstrip("/")) for local, url in source_roots.items())
        return dict(urls) | ({self.root: asset_root.rstrip("/")} if asset_root else {})

    def copy_item(
        self, collection_id: str, item_id: str, target: OutputCatalog, *, roots: Mapping[str, str] | None = None
    ) -> None:
        """Copy an item and its own files to another catalog; ``target.link`` then lists it.

        Args:
            collection_id: Its collection.
            item_id: Its id.
            target: The other catalog.
            roots: Published locations of the source's local files, see `followable`; None keeps local hrefs.

        Raises:
            ReadError: A file is missing or differs from what the item states.
            UnsupportedItemError: It is not a valid item.
            WriteError: The target cannot be written.
        """
        where = self.href(collection_id, item_id)
        body = self._listable(collection_id, item_id)
        if roots is not None:
            body = followable(body, self.roots(None, roots))
        for name in documents(body):
            document = self._store.read_json(name)
            if document is None or not name.endswith(_ending(document)):
                raise ReadError(f"{self._store.href(name)} does not exist; process the source of {where} again")
            target._keep(name, document)
        with target.workdir() as work:
            files = {key: work / name for key, name in own_files(body).items()}
            for key, path in files.items():
                self._store.get(f"{collection_id}/{item_id}/{path.name}", path)
                stated = body["assets"][key].get("file:checksum")
                if stated not in (None, file_fields(path)["file:checksum"]):
                    raise ReadError(
                        f"{where}: asset {key!r} is not the file that was written; process its source again"
                    )
            target.write_item(body, files)

    def collection(self, collection_id: str) -> Json:
        """Return the JSON of a collection as stored.

        Raises:
            ReadError: The collection does not exist.
        """
        name = f"{safe_id(collection_id, what='collection')}/collection.json"
        body = self._store.read_json(name)
        if body is None:
            raise ReadError(f"{self._store.href(name)} does not exist")
        return body

    def _read(self, collection_id: str, item_id: str) -> Json | None:
        """Return the JSON at an item's place, if it is this item: one with other ids would replace those elsewhere."""
        body = self._store.read_json(item_name(collection_id, item_id))
        if body is None or not is_item(body) or (body["id"], body.get("collection")) != (item_id, collection_id):
            return None
        return body

    def write_json(self, name: str, body: Json) -> None:
        """Write another JSON file, such as the report of a run, at the root."""
        self._store.put({safe_id(name, what="file"): body})

    def write_document(self, folder: str, stem: str, body: Json) -> str:
        """Store a document that items refer to, under a name with a hash of its content.

        Args:
            folder: Folder at the root of the catalog.
            stem: Start of its name.
            body: Content, which is written unless it exists.

        Returns:
            Its href relative to an item of this catalog.
        """
        name = f"{safe_id(folder, what='folder')}/{safe_id(f'{stem}{_ending(body)}', what='file')}"
        self._keep(name, body)
        return f"{ABOVE}{name}"

    def _keep(self, name: str, body: Json) -> None:
        if self._store.read_json(name) != body:
            self._store.put({name: body})

    def mirror(self, collection_ids: Iterable[str]) -> None:
        """Write a table of all items beside each collection, if rustac is installed.

        If the types of a field differ between items, a warning is logged and no table is written.
        """
        for collection_id in collection_ids if find_spec("rustac") else ():
            try:
                with self.workdir() as work:
                    collections.write_geoparquet(self._rows(collection_id), work / TABLE)
                    self._store.put({f"{collection_id}/{TABLE}": work / TABLE})
                self._store.update_json(f"{collection_id}/collection.json", _with_table)
            except WriteError as error:
                logger.warning("collection %r has no %s of its present items: %s", collection_id, TABLE, error)

    def _rows(self, collection_id: str) -> Iterator[Json]:
        """Yield the items of a collection, with hrefs relative to the collection."""
        for href in self._listed(collection_id):
            item_id = href.removeprefix("./").partition("/")[0]
            body = self._read(collection_id, item_id)
            if body is not None:
                yield _moved_hrefs(body, {ABOVE: "../", "../": "./", "./": f"./{item_id}/"})

    def _listed(self, collection_id: str) -> list[str]:
        """Return the hrefs of the items that a collection and its pages list, each once."""
        collection = self._store.read_json(f"{collection_id}/collection.json")
        found = links_of(collection, "item")
        for page in links_of(collection, "child"):
            name = safe_id(page.removeprefix("./"), what="page")
            found += links_of(self._store.read_json(f"{collection_id}/{name}"), "item")
        return list(dict.fromkeys(found))

    def _list(self, collection_id: str, bodies: list[Json]) -> None:
        known = set(self._listed(collection_id))
        left = [href for href in map(collections.item_href, bodies) if href not in known]
        home = f"{collection_id}/collection.json"

        def widened(found: Json | None) -> Json:
            body = collections.configured(found or collections.new_collection(collection_id), self._config)
            return self._with_self(collections.listing(collections.covering(body, bodies), left), home)

        def with_collection(found: Json | None) -> Json:
            wider = collections.with_child(found or collections.new_catalog(), f"./{home}", collection["title"])
            return self._with_self(wider, CATALOG)

        collection = self._store.update_json(home, widened)
        left = _unlisted(left, collection)
        number = max(2, len(links_of(collection, "child")) + 1)
        while left:
            left, number = self._list_on_page(collection, left, number), number + 1
        self._store.update_json(CATALOG, with_collection)

    def _with_self(self, body: Json, name: str) -> Json:
        """Return a catalog or collection with a self link, if other machines can follow it."""
        link = {"rel": "self", "href": self._store.href(name), "type": JSON_TYPE}
        return body if link in body["links"] or not is_remote(self.root) else body | {"links": [*body["links"], link]}

    def _list_on_page(self, collection: Json, left: list[str], number: int) -> list[str]:
        """List items on a page, which limits the size of files; return the items that did not fit."""
        page, name = collections.new_page(collection, number), f"items-{number}.json"
        folder = collection["id"]
        listed = self._store.update_json(f"{folder}/{name}", lambda found: collections.listing(found or page, left))
        self._store.update_json(
            f"{folder}/collection.json",
            lambda found: collections.with_child(found or collection, f"./{name}", page["title"]),
        )
        return _unlisted(left, listed)

    def _listable(self, collection_id: str, item_id: str) -> Json:
        """Return the JSON of a complete item with a bounding box and a time.

        Raises:
            ReadError: The item is incomplete.
            UnsupportedItemError: It has no bounding box or no time.
        """
        body = self.stored(collection_id, item_id)
        if body is None:
            where = self.href(collection_id, item_id)
            raise ReadError(f"{where} is incomplete or is another item; process its source again")
        collections.place_and_time(body)  # raises
        return body


def _unlisted(hrefs: list[str], body: Json) -> list[str]:
    """Return the hrefs of items that a collection or page does not list."""
    listed = set(links_of(body, "item"))
    return [href for href in hrefs if href not in listed]


def _self_link(href: str) -> Json:
    return {"rel": "self", "href": href, "type": ITEM_TYPE}


def _with_table(found: Json | None) -> Json:
    body = found or {}
    table = {
        "href": f"./{TABLE}",
        "type": TYPES[".parquet"],
        "title": "All items as a table",
        "roles": ["collection-mirror"],
    }
    return body | {"assets": {**body.get("assets", {}), "items": table}}
