"""Parse the JSON of items, which may be untrusted."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeVar
from urllib.parse import urlsplit

import pystac
import shapely
from shapely.geometry import shape

from stac_cloudmask.errors import StacCloudmaskError, UnsupportedItemError, redact
from stac_cloudmask.stac.connection import Json
from stac_cloudmask.stac.geometry import MALFORMED, bbox_of, footprint
from stac_cloudmask.stac.hrefs import DEFAULT_RULE, HrefRule, absolute, check_href, is_remote
from stac_cloudmask.stac.metadata import utc

MEMBERS: Final = {"id": str, "properties": dict, "assets": dict, "links": list, "collection": str | None}
"""Required members of an item, and their types."""

DROPPED: Final = frozenset({"root", "parent", "self"})
"""Link relations that pystac would follow by itself, or that are set here."""


@dataclass(frozen=True, kw_only=True)
class Failure:
    """A requested or listed item that could not be loaded.

    Attributes:
        ref: Reference as requested or listed, without secrets.
        error: The error.
    """

    ref: str
    error: StacCloudmaskError


Found = pystac.Item | Failure
Other = TypeVar("Other", bound="str | None")


def items_in(body: Json, href: str, *, rule: HrefRule = DEFAULT_RULE) -> Iterator[Found]:
    """Yield the items of a document: itself, or those of a FeatureCollection or payload.

    Raises:
        UnsupportedItemError: The document is not an item.
    """
    features = body.get("features")
    if isinstance(features, list):
        for feature in features:
            yield listed_item(feature, href, rule)
    else:
        yield parse_item(body, origin=href, rule=rule)


def listed_item(feature: object, found: str, rule: HrefRule) -> Found:
    """Return one of several items of a document, which may fail on its own; see `own_href`."""
    name = str(feature.get("id"))[:80] if isinstance(feature, dict) else str(feature)[:40]
    try:
        return parse_item(feature, origin=own_href(feature, found, rule), rule=rule)
    except StacCloudmaskError as error:
        return Failure(ref=redact(name), error=error)


def own_href(body: object, found: str | None, rule: HrefRule) -> str | None:
    """Return the location of one of several items of a document: its self link, otherwise ``found``, the document's.

    The link does not affect trust: the item is local or remote like ``found``; None is the user's own input.
    """
    link = next(iter(links_of(body, "self")), None)
    if link is None or (found is not None and is_remote(link) != is_remote(found)):
        return found
    return _allowed(link, found, rule, otherwise=found)


def parse_item(
    body: object, *, origin: str | None, collection: str | None = None, rule: HrefRule = DEFAULT_RULE
) -> pystac.Item:
    """Return an item with absolute hrefs, times in UTC and a footprint within -180 to 180 degrees.

    The item reads no files by itself. Hrefs that the rule refuses are kept: a band with one is an error when it is
    resolved.

    Args:
        body: The item's JSON, which is not changed.
        origin: Where it was read from, which decides what its hrefs may lead to; None if it was made in memory.
        collection: Id of the collection that lists it, for an item that does not say.
        rule: Which hrefs may be read.

    Raises:
        UnsupportedItemError: The document is not an item.
    """
    place = "memory" if origin is None else redact(origin)
    kept = _checked(body, place)
    canonical = [href for href in links_of(body, "self") if is_remote(href) and not is_remote(origin or "")]
    kept["links"] = [link | {"href": absolute(link["href"], origin)} for link in kept["links"]]
    kept["links"] += [{"rel": "canonical", "href": href, "type": "application/geo+json"} for href in canonical]
    kept["assets"] = {
        key: asset | {"href": _allowed(href := asset["href"], origin, rule, otherwise=href)}
        for key, asset in kept["assets"].items()
    }
    kept["collection"] = kept.get("collection") or collection
    kept["properties"] = _in_utc(kept, place)
    return parsed(kept | _placed(kept), href=origin)


def parsed(body: Json, *, href: str | None) -> pystac.Item:
    """Parse an item's JSON with pystac; hrefs are not changed.

    Args:
        body: The item's JSON.
        href: Its self href, if any.

    Raises:
        UnsupportedItemError: pystac cannot parse it.
    """
    try:
        item = pystac.Item.from_dict(body, href=href, migrate=False)
        _ = item.common_metadata.start_datetime, item.common_metadata.end_datetime
    except (pystac.STACError, pystac.STACTypeError, *MALFORMED) as error:
        place = "memory" if href is None else redact(href)
        raise UnsupportedItemError(f"item {_shown(body)} of {place} is not a valid item: {error}") from None
    return item


def _shown(body: Mapping[str, object]) -> str:
    return repr(str(body.get("id"))[:80])


def _checked(body: object, place: str) -> Json:
    """Return a shallow copy of an item's JSON with all members that pystac requires, without assets that are null."""
    if not isinstance(body, dict) or body.get("type") != "Feature":
        kind = body.get("type") if isinstance(body, dict) else type(body).__name__
        raise UnsupportedItemError(
            f"{place} holds {str(kind)[:40]!r} rather than an item; a catalog is given by --catalog, in Python catalog="
        )
    found = {"stac_version": "1.0.0", "links": [], "stac_extensions": [], **body}
    if wrong := wrong_members(found):
        raise UnsupportedItemError(f"item {_shown(body)} of {place} has no valid {', '.join(wrong)}")
    found["links"] = [link for link in found["links"] if is_link(link) and link["rel"] not in DROPPED]
    found["assets"] = {key: asset for key, asset in found["assets"].items() if is_asset(asset)}
    return found


def wrong_members(body: Json) -> list[str]:
    """Return the names of an item's members that are missing or of another type than STAC's."""
    return [name for name, kind in MEMBERS.items() if not isinstance(body.get(name), kind)]


def _in_utc(body: Json, place: str) -> Json:
    properties = dict(body["properties"])
    names = ("datetime", "start_datetime", "end_datetime")
    for name in (name for name in names if properties.get(name) is not None):
        try:
            properties[name] = utc(properties[name], last=name.startswith("end"))
        except (ValueError, TypeError, AttributeError, OverflowError):
            raise UnsupportedItemError(
                f"item {_shown(body)} of {place}: {name} {str(properties[name])[:40]!r} is not a time such as "
                "2023-08-18T10:08:08Z; correct the item"
            ) from None
    return properties


def _placed(body: Json) -> Json:
    """Return geometry and bbox of an item that states no geometry, or one that crosses the antimeridian."""
    stated, bbox = body.get("geometry"), body.get("bbox")
    lies = footprint(stated, bbox)
    box = bbox_of(lies)
    if lies.is_empty or (stated and box[0] <= box[2] and shapely.equals_exact(lies, shape(stated))):
        return {}
    return {"geometry": json.loads(shapely.to_geojson(lies)), "bbox": box}


def is_asset(asset: object) -> bool:
    """Return whether JSON is an asset with an href that can be parsed."""
    return isinstance(asset, dict) and _parses(asset.get("href"))


def is_link(link: object) -> bool:
    """Return whether JSON is a link with a relation and an href that can be parsed."""
    return isinstance(link, dict) and isinstance(link.get("rel"), str) and _parses(link.get("href"))


def _parses(href: object) -> bool:
    try:
        return isinstance(href, str) and href != "" and bool(urlsplit(href))
    except ValueError:
        return False


def _allowed(href: str, base: str | None, rule: HrefRule, *, otherwise: Other) -> str | Other:
    try:
        return check_href(href, base=base, rule=rule)
    except UnsupportedItemError:
        return otherwise


def links_of(body: object, rel: str) -> list[str]:
    """Return the hrefs of the links of one relation."""
    return [link["href"] for link in _links(body, rel) if is_link(link)]


def link_of(body: object, rel: str) -> Json | None:
    """Return the first link of a relation, whatever its target."""
    return next(iter(_links(body, rel)), None)


def _links(body: object, rel: str) -> list[Json]:
    links = body.get("links") if isinstance(body, dict) else None
    listed = links if isinstance(links, list) else []
    return [link for link in listed if isinstance(link, dict) and link.get("rel") == rel]
