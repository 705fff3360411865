"""The assets that a mask can have, as item and collection describe them."""

from __future__ import annotations

from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Final

from stac_cloudmask.core.classes import CLASSES, CloudClass

if TYPE_CHECKING:
    from collections.abc import Mapping

COG: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
EXTENSIONS: Final = MappingProxyType(
    {
        "classification:": "https://stac-extensions.github.io/classification/v2.0.0/schema.json",
        "eo:": "https://stac-extensions.github.io/eo/v2.0.0/schema.json",
        "file:": "https://stac-extensions.github.io/file/v2.1.0/schema.json",
        "grid:": "https://stac-extensions.github.io/grid/v1.1.0/schema.json",
        "processing:": "https://stac-extensions.github.io/processing/v1.2.0/schema.json",
        "proj:": "https://stac-extensions.github.io/projection/v2.0.0/schema.json",
        "raster:": "https://stac-extensions.github.io/raster/v2.0.0/schema.json",
        "renders": "https://stac-extensions.github.io/render/v2.0.0/schema.json",
        "s2:": "https://stac-extensions.github.io/sentinel-2/v1.0.0/schema.json",
        "version": "https://stac-extensions.github.io/version/v1.2.0/schema.json",
        "view:": "https://stac-extensions.github.io/view/v1.0.0/schema.json",
    }
)
"""Schema by the prefix (or name) of the fields that it defines."""

VOTES: Final = (
    ("product_cloud", "The product's own mask says cloud."),
    ("product_shadow", "The product's own mask says cloud shadow."),
    ("cloud_model", "The cloud model says cloud."),
    ("shadow_model", "The shadow model says cloud shadow."),
    ("removed", "The merge policy or the clean-up took it away."),
    ("added", "The buffer added it."),
    ("bright", "Many dates tell of a bright surface: cloud no more, as the product has it."),
)
"""Name and meaning of the bits of ``mask_votes``, lowest first."""


def class_list(counts: Mapping[int, int] | None = None) -> list[dict[str, Any]]:
    """``classification:classes``; with counts of pixels also each class's count and percentage of all pixels."""
    total = max(1, sum(counts.values())) if counts is not None else 1
    listed = []
    for info in CLASSES:
        entry: dict[str, Any] = {
            "value": int(info.code),
            "name": info.name,
            "title": info.title,
            "description": info.description,
            "color_hint": info.color_hint,
        }
        if info.code == CloudClass.NODATA:
            entry["nodata"] = True
        if counts is not None:
            count = counts.get(int(info.code), 0)
            entry |= {"count": count, "percentage": round(100 * count / total, 6)}
        listed.append(entry)
    return listed


def _bitfields() -> list[dict[str, Any]]:
    return [
        {
            "name": name,
            "description": meaning,
            "offset": offset,
            "length": 1,
            "classes": [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}],
        }
        for offset, (name, meaning) in enumerate(VOTES)
    ]


def _raster(
    key: str, *, title: str, description: str, roles: tuple[str, ...], extra: Mapping[str, Any]
) -> dict[str, Any]:
    return {
        "type": COG,
        "title": title,
        "description": description,
        "roles": ["data", *roles],
        "data_type": "uint8",
        "bands": [{"name": key, "description": title}],
        "raster:sampling": "area",
        **extra,
    }


ASSETS: Final[Mapping[str, Mapping[str, Any]]] = MappingProxyType(
    {
        "cloud_mask": _raster(
            "cloud_mask",
            title="Cloud and cloud-shadow mask",
            description="Class map of clear surface, cloud and cloud shadow.",
            roles=("data-mask", "cloud", "cloud-shadow"),
            extra={"nodata": int(CloudClass.NODATA), "classification:classes": class_list()},
        ),
        "cloud_probability": _raster(
            "cloud_probability",
            title="Cloud probability",
            description="The cloud model's probability in whole percents.",
            roles=("cloud",),
            extra={"nodata": 255, "unit": "%"},
        ),
        "shadow_probability": _raster(
            "shadow_probability",
            title="Cloud-shadow probability",
            description="The shadow model's probability in whole percents.",
            roles=("cloud-shadow",),
            extra={"nodata": 255, "unit": "%"},
        ),
        "mask_votes": _raster(
            "mask_votes",
            title="Votes behind the mask",
            description="Which source said what, as bit fields; pixels without data have no bit set.",
            roles=("cloud", "cloud-shadow"),
            extra={"classification:bitfields": _bitfields()},
        ),
        "thumbnail": {"type": "image/png", "title": "Quicklook of the mask", "roles": ["thumbnail", "overview"]},
    }
)
"""Description of every asset by key."""


def renders() -> dict[str, Any]:
    """How a map shows the mask: clear and nodata let the ground through, as a colour table in a TIFF cannot."""
    return {
        "cloud_mask": {
            "title": "Cloud and cloud-shadow mask",
            "assets": ["cloud_mask"],
            "nodata": int(CloudClass.NODATA),
            "colormap": {str(int(info.code)): list(info.rgba) for info in CLASSES},
            "resampling": "nearest",
            "minmax_zoom": [7, 14],
        }
    }


def extensions_of(*mappings: Mapping[str, Any]) -> list[str]:
    """The schemas of all fields in these mappings and in the bands within them."""
    names = {name for mapping in mappings for name in _field_names(mapping)}
    return [
        schema
        for prefix, schema in EXTENSIONS.items()
        if any(name == prefix or (prefix.endswith(":") and name.startswith(prefix)) for name in names)
    ]


def _field_names(mapping: Mapping[str, Any]) -> set[str]:
    bands = mapping.get("bands", [])
    return set(mapping).union(*(band.keys() for band in bands)) if bands else set(mapping)
