"""The output catalog: its layout and what is written to it."""

from __future__ import annotations

import hashlib
import json
import logging
from collections.abc import Mapping
from importlib.util import find_spec
from itertools import groupby
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.errors import ConfigError, PublishError, ReadError, UnsupportedItemError, WriteError
from stac_cloudmask.stac.assets import ASSETS, OWN, file_name_of
from stac_cloudmask.stac.collection import (
    configured,
    covering,
    item_href,
    listing,
    new_catalog,
    new_collection,
    new_page,
    require_place_and_time,
    with_asset,
    with_child,
    write_geoparquet,
)
from stac_cloudmask.stac.hrefs import is_remote, safe_id
from stac_cloudmask.stac.item import ITEM_TYPE, JSON_TYPE, file_facts
from stac_cloudmask.stac.static import parsed
from stac_cloudmask.stac.store import open_store

if TYPE_CHECKING:
    Json = dict[str, Any]
    from collections.abc import Iterable, Iterator
    from contextlib import AbstractContextManager

    import pystac

CATALOG: Final = "catalog.json"
TABLE: Final = "items.parquet"
PARQUET: Final = "application/vnd.apache.parquet"
NO_CONFIG: Final[Mapping[str, Any]] = MappingProxyType({})
NO_ROOTS: Final[Mapping[str, str]] = MappingProxyType({})
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
    """Hrefs of the links of one relation; what is not a link is left out."""
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


def followable(body: Json, roots: Mapping[str, str]) -> Json:
    """An item with hrefs that others can follow.

    A local file goes by the longest of ``roots`` that it lies below, else by an alternate href of its own. Relative
    hrefs, which move along, stay.

    Raises:
        PublishError: An href leads to a file of this machine that nobody else could read.
    """
    places = {f"{local}/": f"{url}/" for local, url in sorted(roots.items(), key=lambda pair: -len(pair[0]))}
    assets = {key: _followable_asset(asset, roots) for key, asset in moved(body["assets"], places).items()}
    links = moved(body["links"], places)
    local = [(f"asset {key!r}", asset["href"]) for key, asset in assets.items()]
    local += [(f"link {link['rel']!r}", link["href"]) for link in links if link["rel"] != "self"]
    for what, href in local:
        if not (is_remote(href) or href.startswith((".", *roots.values()))):
            raise PublishError(
                f"item {body['id']!r}: {what} is {href}, which only this machine can read; --asset-root says where the "
                "catalog is served, --source-root LOCAL=URL where the source's files are"
            )
    return body | {"assets": assets, "links": [link for link in links if _may_leave(link, roots)]}


def _followable_asset(asset: Json, roots: Mapping[str, str]) -> Json:
    """An asset by an alternate href that others can follow, where its own leads to a file of this machine."""
    if "alternate" not in asset:
        return asset
    kept = {name: other for name, other in asset["alternate"].items() if is_remote(other["href"])}
    stays = is_remote(asset["href"]) or asset["href"].startswith((".", *roots.values()))
    href = asset["href"] if stays else next((other["href"] for other in kept.values()), asset["href"])
    return asset | {"href": href, "alternate": kept}


def _may_leave(link: Json, roots: Mapping[str, str]) -> bool:
    """A link to the item itself is only of use where others can follow it."""
    return link["rel"] != "self" or is_remote(link["href"]) or link["href"].startswith(tuple(roots.values()))


def existing_catalog(place: str | Path) -> OutputCatalog:
    """The output catalog in a folder, which may also be named by its ``catalog.json``.

    Raises:
        ConfigError: There is none; says where one is, if that is near.
    """
    folder = str(place).rstrip("/").removesuffix(f"/{CATALOG}")
    folder = "." if folder == CATALOG else folder
    catalog = OutputCatalog(folder)
    if catalog.exists():
        return catalog
    if is_remote(folder):
        raise ConfigError(f"{folder} has no {CATALOG}: it is not a catalog that `process --out` wrote")
    path = Path(folder)
    near = next((path for path in (path.parent, *sorted(path.glob("*"))) if (path / CATALOG).is_file()), None)
    why = f"has no {CATALOG}" if path.is_dir() else "is not a folder"
    hint = f"; {near} has one" if near is not None else "; give the folder that `process --out` wrote"
    raise ConfigError(f"{folder} {why}{hint}")


logger = logging.getLogger(__name__)


class OutputCatalog:
    """A static catalog at a path or URL that masks are written to.

    Laid out as ``catalog.json``, ``COLLECTION/collection.json``, ``COLLECTION/ITEM/ITEM.json`` and the item's files
    beside it. Files come before the item that names them and items before the collection that lists them, so whatever
    can be found is whole. Any number of runs may write to one catalog at the same time.
    """

    def __init__(self, out: str | Path, *, config: Mapping[str, Any] = NO_CONFIG) -> None:
        """Open the catalog at ``out``; ``config`` is what the owner of its collections says of them."""
        self.out = str(out)
        self._store = open_store(out)
        self._config = config

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
            raise WriteError(f"{href} is not an item of {self.out}; link takes what write_item returned")
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
        if is_remote(self.root):  # others can follow it; a path of this machine they cannot
            body["links"].append(_self_link(self._store.href(name)))
        names = {key: file_name(body["assets"][key]["href"]) for key in files}
        self._store.put({f"{folder}/{names[key]}": path for key, path in files.items()} | {name: body})
        stale = {*map(file_name_of, ASSETS)} - set(names.values())
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
            bodies = [body for _, item_id in names if (body := self._listable(collection_id, item_id)) is not None]
            if bodies:
                self._list(collection_id, bodies)

    def listed(self) -> Iterator[tuple[str, str]]:
        """Ids of collection and item of everything that the catalog lists."""
        root = self._store.read_json(CATALOG) or {"links": []}
        for child in hrefs(root, "child"):
            collection_id = child.removeprefix("./").removesuffix("/collection.json")
            for href in self._listed(collection_id):
                yield collection_id, href.removeprefix("./").partition("/")[0]

    def items(self, roots: Mapping[str, str] | None = None) -> Iterator[Json]:
        """The JSON of every item that the catalog lists, see ``item``; one that is not there is left out and logged.

        Args:
            roots: Where others find local files, see `followable`; None lets local hrefs stay.

        Raises:
            PublishError: An item names files that others cannot read.
        """
        for collection_id, item_id in self.listed():
            body = self.item(collection_id, item_id)
            if body is None or not is_itself(body, collection_id, item_id):
                logger.warning("%s is listed and not there, or is another item", self.href(collection_id, item_id))
            else:
                yield body if roots is None else followable(body, roots)

    def item(self, collection_id: str, item_id: str) -> Json | None:
        """The JSON of an item, every href made absolute, its own href as ``self`` link; None if it is not there."""
        body = self._read(collection_id, item_id)
        if body is None:
            return None
        whole = absolute(body, root=self.root, collection_id=collection_id, item_id=item_id)
        links = [link for link in whole["links"] if link["rel"] != "self"]
        return whole | {"links": [*links, _self_link(self.href(collection_id, item_id))]}

    def exists(self) -> bool:
        """Whether there is a catalog already."""
        return self._store.read_json(CATALOG) is not None

    def roots(self, asset_root: str | None, source_roots: Mapping[str, str] = NO_ROOTS) -> dict[str, str]:
        """Where others find what lies below local folders, for `followable`."""
        sources = {
            Path(local).absolute().as_posix().rstrip("/"): url.rstrip("/") for local, url in source_roots.items()
        }
        return sources | ({self.root: asset_root.rstrip("/")} if asset_root else {})

    def copy_item(
        self, collection_id: str, item_id: str, target: OutputCatalog, *, roots: Mapping[str, str] | None = None
    ) -> str:
        """Copy an item and its own files to another catalog; the href it has there, for ``target.link``.

        Args:
            collection_id: Its collection.
            item_id: Its id.
            target: The other catalog.
            roots: Where others find the source's local files, see `followable`; None lets local hrefs stay.

        Raises:
            ReadError: A file is missing or is not what the item says.
            UnsupportedItemError: It is not a valid item.
            WriteError: The target cannot be written.
        """
        where = self.href(collection_id, item_id)
        body = self._read(collection_id, item_id)
        itself = body is not None and is_itself(body, collection_id, item_id)
        if body is None or not itself or not self._is_whole(collection_id, item_id, body):
            raise ReadError(f"{where} is not there whole, or is another item; process its source again")
        require_place_and_time(body)  # what could not be listed is not copied
        body = body | {"links": [link for link in body["links"] if link["rel"] != "self"]}
        if roots is not None:
            body = followable(body, self.roots(None, roots))
        for name in documents(body):
            document = self._store.read_json(name)
            if document is None or not is_document(name, document):
                raise ReadError(f"{self._store.href(name)} is not there; process the source of {where} again")
            target._keep(name, document)
        with target.workdir() as work:
            files = {key: work / name for key, name in own_files(body).items()}
            for key, path in files.items():
                self._store.get(f"{collection_id}/{item_id}/{path.name}", path)
                stated = body["assets"][key].get("file:checksum")
                if stated is not None and file_facts(path).checksum != stated:
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

    def mirror(self, collection_ids: Iterable[str]) -> None:
        """Write all items of collections once more, as one table beside each, where rustac is installed.

        Items whose fields differ in their types make no table; the log says so.
        """
        for collection_id in collection_ids if find_spec("rustac") else ():
            try:
                with self.workdir() as work:
                    write_geoparquet(self._rows(collection_id), work / TABLE)
                    self._store.put({f"{collection_id}/{TABLE}": work / TABLE})
                self._store.update_json(f"{collection_id}/collection.json", _with_table)
            except WriteError as error:
                logger.warning("collection %r has no %s of its present items: %s", collection_id, TABLE, error)

    def _rows(self, collection_id: str) -> Iterator[Json]:
        """The items of a collection, their hrefs as seen from the collection."""
        for href in self._listed(collection_id):
            item_id = href.removeprefix("./").partition("/")[0]
            body = self._read(collection_id, item_id)
            if body is not None:
                places = {ABOVE: "../", "../": "./", "./": f"./{item_id}/"}
                yield body | {part: moved(body[part], places) for part in ("links", "assets")}

    def _listed(self, collection_id: str) -> list[str]:
        """Hrefs of the items that a collection and its pages list, each once."""
        collection = self.collection(collection_id) or {"links": []}
        found = hrefs(collection, "item")
        for page in hrefs(collection, "child"):
            body = self._store.read_json(f"{collection_id}/{safe_id(page.removeprefix('./'), what='page')}")
            found += hrefs(body or {}, "item")
        return list(dict.fromkeys(found))

    def _list(self, collection_id: str, bodies: list[Json]) -> None:
        known = set(self._listed(collection_id))
        left = [href for href in map(item_href, bodies) if href not in known]

        def widened(found: Json | None) -> Json:
            body = configured(found or new_collection(collection_id), self._config)
            return self._with_self(listing(covering(body, bodies), left), name)

        name = f"{collection_id}/collection.json"
        self._store.update_json(name, widened)
        collection = self.collection(collection_id)
        if collection is None:
            raise WriteError(f"{self.out}: collection {collection_id!r} vanished while it was written")
        self._list_on_pages(collection, [href for href in left if href not in set(hrefs(collection, "item"))])
        self._store.update_json(
            CATALOG,
            lambda found: self._with_self(
                with_child(found or new_catalog(), f"./{name}", collection["title"]), CATALOG
            ),
        )

    def _with_self(self, body: Json, name: str) -> Json:
        """A catalog or collection with its own href, where others can follow that."""
        link = {"rel": "self", "href": self._store.href(name), "type": JSON_TYPE}
        return body if link in body["links"] or not is_remote(self.root) else body | {"links": [*body["links"], link]}

    def _list_on_pages(self, collection: Json, left: list[str]) -> None:
        """List what has no room in the collection's own file, so that no file grows without an end."""
        number = max(2, len(hrefs(collection, "child")) + 1)
        while left:
            left, number = self._list_on_page(collection, left, number), number + 1

    def _list_on_page(self, collection: Json, left: list[str], number: int) -> list[str]:
        """List items on one page; those that it had no room for."""
        page, name = new_page(collection, number), f"items-{number}.json"
        full_name = f"{collection['id']}/{name}"
        self._store.update_json(full_name, lambda found: listing(found or page, left))
        self._store.update_json(
            f"{collection['id']}/collection.json",
            lambda found: with_child(found or collection, f"./{name}", page["title"]),
        )
        there = set(hrefs(self._store.read_json(full_name) or {}, "item"))
        return [href for href in left if href not in there]

    def _listable(self, collection_id: str, item_id: str) -> Json | None:
        body = self._read(collection_id, item_id)
        try:
            if body is not None and self._is_whole(collection_id, item_id, body):
                require_place_and_time(body)
                return body
        except UnsupportedItemError as error:
            logger.warning("%s", error)
        logger.warning("%s is not there whole and is not listed", self.href(collection_id, item_id))
        return None

    def _is_whole(self, collection_id: str, item_id: str, body: Json) -> bool:
        sizes = self._store.sizes(f"{collection_id}/{item_id}")
        files = own_files(body)
        return bool(files) and all(
            name in sizes and body["assets"][key].get("file:size", sizes[name]) == sizes[name]
            for key, name in files.items()
        )


def _self_link(href: str) -> Json:
    return {"rel": "self", "href": href, "type": ITEM_TYPE}


def _with_table(found: Json | None) -> Json:
    table = {"href": f"./{TABLE}", "type": PARQUET, "title": "All items as a table", "roles": ["collection-mirror"]}
    return with_asset(found or {}, "items", table)
