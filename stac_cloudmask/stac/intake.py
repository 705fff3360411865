"""Items from strangers, made into items that can be relied on and that read nothing by themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final
from urllib.parse import urlsplit

import pystac

from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, absolute, check_href, is_remote, redact

if TYPE_CHECKING:
    from collections.abc import Iterator, Mapping

    from stac_cloudmask.stac.documents import Json

DROPPED: Final = frozenset({"root", "parent", "self"})
"""Relations that pystac would follow behind our back, or that are set anew."""


def items_in(body: Json, href: str, *, rule: HrefRule = DEFAULT_RULE) -> Iterator[pystac.Item]:
    """The items of a document: itself, or those of a FeatureCollection or payload.

    Raises:
        UnsupportedItemError: The document, or one in it, is no item.
    """
    if isinstance(body.get("features"), list):
        for feature in body["features"]:
            yield make_item(feature, origin=own_href(feature, href, rule), rule=rule)
    else:
        yield make_item(body, origin=href, rule=rule)


def own_href(body: object, found: str, rule: HrefRule) -> str:
    """Where an item that came with others lives: its self link, if whoever gave it may name that, else ``found``."""
    links = body.get("links") if isinstance(body, dict) else None
    for link in links if isinstance(links, list) else []:
        if _is_link(link) and link["rel"] == "self" and is_remote(link["href"]) >= is_remote(found):
            try:
                return check_href(link["href"], base=found, rule=rule)
            except UnsupportedItemError:
                break
    return found


def make_item(
    body: object, *, origin: str | None, collection: str | None = None, rule: HrefRule = DEFAULT_RULE
) -> pystac.Item:
    """An item whose hrefs are absolute, whose self href is ``origin``, and which never reads anything by itself.

    Hrefs that the rule refuses stay as they are: a band with one is an error when it is resolved.

    Args:
        body: The item's JSON, which is not changed.
        origin: Where it was read from, which decides what its hrefs may lead to; None if it was made in memory.
        collection: Id of the collection that lists it, for an item that does not say.
        rule: Which hrefs may be read.

    Raises:
        UnsupportedItemError: It is no item.
    """
    place = "memory" if origin is None else redact(origin)
    kept = _checked(body, place)
    kept["links"] = [_link(link, origin) for link in kept["links"]]
    kept["assets"] = {
        key: asset | {"href": _href(asset["href"], origin, rule)} for key, asset in kept["assets"].items()
    }
    kept["collection"] = kept.get("collection") or collection
    return parsed(kept, href=origin)


def parsed(body: Json, *, href: str | None) -> pystac.Item:
    """What pystac makes of an item's JSON, whose hrefs stay as they are.

    Args:
        body: The item's JSON.
        href: Its self href; None for none.

    Raises:
        UnsupportedItemError: It makes nothing of it.
    """
    try:
        item = pystac.Item.from_dict(body, href=href, migrate=False)
        _ = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    except (
        pystac.STACError,
        pystac.STACTypeError,
        ValueError,
        TypeError,
        AttributeError,
        KeyError,
        OverflowError,
        RecursionError,
    ) as error:
        place = "memory" if href is None else redact(href)
        raise UnsupportedItemError(f"item {str(body.get('id'))[:80]!r} of {place} is no valid item: {error}") from None
    return item


def _checked(body: object, place: str) -> Json:
    """A shallow copy of an item's JSON that has all that pystac takes for granted."""
    if not isinstance(body, dict) or body.get("type") != "Feature":
        kind = body.get("type") if isinstance(body, dict) else type(body).__name__
        raise UnsupportedItemError(f"{place} holds no item but {str(kind)[:40]!r}; a catalog goes to catalog=")
    found = {"stac_version": "1.0.0", "links": [], "stac_extensions": [], **body}
    wrong = [
        name
        for name, kind in (("id", str), ("properties", dict), ("assets", dict), ("links", list))
        if not isinstance(found.get(name), kind)
    ]
    assets = found.get("assets")
    if isinstance(assets, dict):
        wrong += [f"assets.{key}" for key, asset in assets.items() if not _is_asset(asset)]
    if not isinstance(found.get("collection"), str | None):
        wrong.append("collection")
    if wrong:
        raise UnsupportedItemError(f"item {str(body.get('id'))[:80]!r} of {place} has no valid {', '.join(wrong)}")
    found["links"] = [link for link in found["links"] if _is_link(link) and link["rel"] not in DROPPED]
    return found


def _is_asset(asset: object) -> bool:
    return isinstance(asset, dict) and _parses(asset.get("href"))


def _is_link(link: object) -> bool:
    return isinstance(link, dict) and isinstance(link.get("rel"), str) and _parses(link.get("href"))


def _parses(href: object) -> bool:
    if not isinstance(href, str) or not href:
        return False
    try:
        urlsplit(href)
    except ValueError:
        return False
    return True


def _link(link: Mapping[str, Any], origin: str | None) -> Json:
    return {**link, "href": absolute(link["href"], origin)}


def _href(href: str, origin: str | None, rule: HrefRule) -> str:
    try:
        return check_href(href, base=origin, rule=rule)
    except UnsupportedItemError:
        return href
