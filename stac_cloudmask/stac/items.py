"""The output item: what a mask is, what it was made from and how, as STAC 1.1."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Final

import pystac
from shapely.errors import ShapelyError
from shapely.geometry import shape

from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.errors import UnsupportedItemError
from stac_cloudmask.stac.definitions import ASSETS, class_list, extensions_of, renders
from stac_cloudmask.stac.facts import cover, timestamp
from stac_cloudmask.stac.fields import is_number
from stac_cloudmask.stac.hrefs import safe_id
from stac_cloudmask.stac.source import carried_assets, identity, license_links, self_href, unsigned

if TYPE_CHECKING:
    from stac_cloudmask.stac.facts import MaskFacts

    Json = dict[str, Any]

SUFFIX: Final = "cloudmask"
DEFAULT_COLLECTION: Final = "sentinel-2-l2a"
"""Taken for the source's collection where the source has none."""
OWN: Final = "stac_cloudmask:"
JSON_TYPE: Final = "application/json"
ITEM_TYPE: Final = "application/geo+json"


def output_id(source_id: str) -> str:
    """The id of the output item.

    Raises:
        UnsupportedItemError: The id could be taken for a path or would be refused by a STAC API.
    """
    return f"{safe_id(source_id)}_{SUFFIX}"


def output_collection(source_collection: str | None) -> str:
    """The id of the collection that the output item goes to.

    Raises:
        UnsupportedItemError: The id could be taken for a path or would be refused by a STAC API.
    """
    return f"{safe_id(source_collection or DEFAULT_COLLECTION, what='collection')}-{SUFFIX}"


def mask_item(source: pystac.Item, facts: MaskFacts) -> pystac.Item:
    """The item of a finished mask.

    Links to collection and catalog are relative, as is the href of every file that was written; everything that the
    source owns is referred to absolutely and unsigned. Nothing is fetched.

    Args:
        source: The item that the mask was made from, its asset hrefs absolute.
        facts: The mask and how it came about.

    Raises:
        UnsupportedItemError: The source's id or its collection's cannot name an output, or it has no footprint.
    """
    assets: dict[str, Json] = {}
    if not facts.mask_only:
        bands = {band.asset_key: band for band in facts.bands}
        assets = carried_assets(source, bands=bands, choice=str(facts.settings.get("boa_offset", "auto")))
    assets |= {key: _asset(key, facts) for key in ASSETS if key in facts.files}
    properties = _properties(source, facts)
    item: Json = {
        "type": "Feature",
        "stac_version": "1.1.0",
        "stac_extensions": extensions_of(properties, *assets.values()),
        "id": output_id(source.id),
        "collection": output_collection(source.collection_id),
        "geometry": _footprint(source),
        "bbox": _bbox(source),
        "properties": properties,
        "links": [*_structure(), *_provenance(source, facts), *license_links(source)],
        "assets": assets,
    }
    return pystac.Item.from_dict(item, preserve_dict=False, migrate=False)


def _footprint(source: pystac.Item) -> Json:
    geometry = source.geometry
    if not geometry:
        raise UnsupportedItemError(f"item {source.id!r} has no geometry; STAC APIs need a footprint to publish it")
    try:
        if _is_numeric(geometry) and not shape(geometry).is_empty:
            return geometry
    except (ValueError, TypeError, AttributeError, KeyError, IndexError, RecursionError, ShapelyError):
        pass
    raise UnsupportedItemError(f"item {source.id!r} has no valid geometry: {str(geometry)[:80]}; correct the item")


def _is_numeric(geometry: Json) -> bool:
    """Whether all coordinates are finite numbers: GEOS takes texts for numbers."""
    waiting = [part["coordinates"] for part in geometry.get("geometries", [geometry])]
    while waiting:
        part = waiting.pop()
        if isinstance(part, list | tuple):
            waiting.extend(part)
        elif not is_number(part):
            return False
    return True


def _bbox(source: pystac.Item) -> list[float]:
    """The source's bounding box; that of its footprint where it has none, or none that can be."""
    stated = source.bbox
    if isinstance(stated, list) and len(stated) in {4, 6} and all(map(is_number, stated)):
        return stated
    return list(shape(_footprint(source)).bounds)


def _properties(source: pystac.Item, facts: MaskFacts) -> Json:
    created = timestamp(facts.created)
    return {
        **identity(source),
        "title": f"Cloud and cloud-shadow mask for {source.id}",
        "created": created,
        "updated": created,
        "gsd": facts.grid.gsd,
        **_cover(facts),
        "processing:level": "L4" if facts.mask_only else "L2A",
        "processing:datetime": created,
        "processing:version": facts.version,
        "processing:lineage": facts.lineage,
        "processing:software": {"stac_cloudmask": facts.version, **facts.software},
        "version": facts.version,
        **_projection(facts),
        "proj:bbox": list(facts.grid.bounds),
        "renders": renders(),
        **_decisions(facts),
    }


def _cover(facts: MaskFacts) -> Json:
    """Cover over the valid pixels; the source's own values go to the link back to it."""
    total = max(1, sum(facts.counts.values()))
    stated = {
        "eo:cloud_cover": cover(facts.counts, CloudClass.CLOUD),
        "s2:cloud_shadow_percentage": cover(facts.counts, CloudClass.CLOUD_SHADOW),
        "s2:nodata_pixel_percentage": round(100 * (total - facts.valid) / total, 4),
    }
    return {name: value for name, value in stated.items() if value is not None}


def _projection(facts: MaskFacts) -> Json:
    grid = facts.grid
    return {"proj:code": grid.code, "proj:shape": list(grid.shape), "proj:transform": list(grid.transform)}


def _decisions(facts: MaskFacts) -> Json:
    """What was decided on the way, so that a mask can be understood and made again."""
    return {
        f"{OWN}fingerprint": facts.fingerprint,
        f"{OWN}merge": {"policy": facts.policy, **facts.parameters},
        f"{OWN}product_mask": facts.product_mask,
        f"{OWN}boa_offset": {
            band.asset_key: {"offset": band.offset.dn, "reason": band.offset.reason, "doubtful": band.offset.doubtful}
            for band in facts.bands
        },
        f"{OWN}models": [
            {"name": model.name, "roles": list(model.roles), "sha256": model.sha256} for model in facts.models
        ],
        f"{OWN}settings": dict(facts.settings),
    }


def _asset(key: str, facts: MaskFacts) -> Json:
    file = facts.files[key]
    asset: Json = {
        "href": f"./{file.name}",
        **ASSETS[key],
        "created": timestamp(facts.created),
        "file:size": file.size,
        "file:checksum": file.checksum,
    }
    if "bands" not in asset:
        return asset
    asset |= {"gsd": facts.grid.gsd, "raster:spatial_resolution": facts.grid.gsd, "processing:level": "L4"}
    models = [unsigned(model.href) for model in facts.models if model.href]
    if models:
        asset["processing:expression"] = {"format": "stac-mlm", "expression": models[0] if len(models) == 1 else models}
    if key == "cloud_mask":
        asset["classification:classes"] = class_list(facts.counts)
    return asset | _projection(facts)


def _structure() -> list[Json]:
    """Links of an item that lies at COLLECTION/ITEM/ITEM.json below its catalog."""
    return [
        {"rel": "root", "href": "../../catalog.json", "type": JSON_TYPE},
        {"rel": "parent", "href": "../collection.json", "type": JSON_TYPE},
        {"rel": "collection", "href": "../collection.json", "type": JSON_TYPE},
    ]


def _provenance(source: pystac.Item, facts: MaskFacts) -> list[Json]:
    links: list[Json] = []
    href = self_href(source)
    if href:
        link = {"rel": "derived_from", "href": href, "type": ITEM_TYPE, "title": f"Source item {source.id}"}
        stated = ("eo:cloud_cover", "s2:cloud_shadow_percentage")
        links.append(link | {name: value for name in stated if is_number(value := source.properties.get(name))})
    links += [
        {
            "rel": "derived_from",
            "href": unsigned(model.href),
            "type": ITEM_TYPE,
            "title": f"Model {model.name}",
            "mlm:name": model.name,
            "processing:level": "L4",
        }
        for model in facts.models
        if model.href
    ]
    return links
