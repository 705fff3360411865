"""How an output catalog is laid out: the names of its files, and the hrefs between them."""

from __future__ import annotations

import hashlib
import json
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.stac.hrefs import safe_id

if TYPE_CHECKING:
    from collections.abc import Mapping

    Json = dict[str, Any]

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
