"""The assets of a mask: their descriptions, file names, renders and schemas."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any, Final

from stac_cloudmask.core.classes import CLASSES, SCL_CLASSES, ClassInfo, CloudClass

Json = dict[str, Any]

COG: Final = "image/tiff; application=geotiff; profile=cloud-optimized"
OWN: Final = "stac_cloudmask:"
"""Prefix of this package's own fields."""
STAC_EXTENSIONS: Final = "https://stac-extensions.github.io"
SCHEMAS: Final[Mapping[str, str]] = {
    "classification:": f"{STAC_EXTENSIONS}/classification/v2.0.0/schema.json",
    "eo:": f"{STAC_EXTENSIONS}/eo/v2.0.0/schema.json",
    "file:": f"{STAC_EXTENSIONS}/file/v2.1.0/schema.json",
    "grid:": f"{STAC_EXTENSIONS}/grid/v1.1.0/schema.json",
    "mgrs:": f"{STAC_EXTENSIONS}/mgrs/v1.0.0/schema.json",
    "processing:": f"{STAC_EXTENSIONS}/processing/v1.2.0/schema.json",
    "proj:": f"{STAC_EXTENSIONS}/projection/v2.0.0/schema.json",
    "raster:": f"{STAC_EXTENSIONS}/raster/v2.0.0/schema.json",
    "renders": f"{STAC_EXTENSIONS}/render/v2.0.0/schema.json",
    "s2:": f"{STAC_EXTENSIONS}/sentinel-2/v1.0.0/schema.json",
    "sat:": f"{STAC_EXTENSIONS}/sat/v1.1.0/schema.json",
    "view:": f"{STAC_EXTENSIONS}/view/v1.1.0/schema.json",
}
"""Schema by the prefix (or name) of its fields, for fields that this package writes or whose newest schema it knows."""
FOREIGN: Final[Mapping[str, str]] = {
    "authentication": "auth:", "alternate-assets": "alternate", "eopf-stac-extension": "eopf:",
}  # fmt: skip
"""Field prefixes of other schemas, where they differ from the schema's name."""

CLASS_TABLES: Final[Mapping[str, tuple[ClassInfo, ...]]] = {"cloud_mask": CLASSES, "scl": SCL_CLASSES}
"""Classes of the class maps, by asset key."""
VOTES: Final = (
    ("product_cloud", "The product's own mask says cloud."),
    ("product_shadow", "The product's own mask says cloud shadow."),
    ("cloud_model", "The cloud model says cloud."),
    ("shadow_model", "The shadow model says cloud shadow."),
    ("removed", "The merge policy or the clean-up took it away."),
    ("added", "A buffer added it, or it is a bright hole in cloud."),
)
"""Name and meaning of the bits of ``mask_votes``, lowest first."""


def class_list(classes: Iterable[ClassInfo] = CLASSES) -> list[Json]:
    """Return ``classification:classes``."""
    names = ("name", "title", "description", "color_hint")
    return [
        {"value": int(info.code)}
        | {name: getattr(info, name) for name in names}
        | ({"nodata": True} if info.name in {"nodata", "no_data"} else {})
        for info in classes
    ]


def _bitfields() -> list[Json]:
    classes = [{"value": 0, "name": "no"}, {"value": 1, "name": "yes"}]
    return [
        {"name": name, "description": meaning, "offset": offset, "length": 1, "classes": classes}
        for offset, (name, meaning) in enumerate(VOTES)
    ]


def _raster(key: str, title: str, description: str, roles: tuple[str, ...], extra: Json) -> Json:
    named = {"type": COG, "title": title, "description": description, "roles": ["metadata", *roles]}
    values = {"data_type": "uint8", "bands": [{"name": key, "description": title}], "raster:sampling": "area"}
    return named | values | extra


def _probability(model: str, subject: str) -> Json:
    """Return the description of a model's probabilities."""
    title, description = f"{subject} probability", f"The {model} model's probability in whole percents."
    values = {"nodata": 255, "unit": "%"}
    return _raster(f"{model}_probability", title, description, (subject.lower(),), values)


def _sidecars(key: str, title: str) -> dict[str, Json]:
    """Return the sidecar files that give QGIS and GDAL the names and colors of a class map."""
    return {
        f"{key}_qgis": {"type": "application/xml", "title": f"Style for QGIS: {title}", "roles": ["style"]},
        f"{key}_gdal": {"type": "application/xml", "title": f"Class names for GDAL: {title}", "roles": ["metadata"]},
    }


ASSETS: Final[Mapping[str, Json]] = {
    "cloud_mask": _raster(
        "cloud_mask",
        "Cloud and cloud-shadow mask",
        "Clear surface, cloud and cloud shadow; percentages are of the pixels with data.",
        ("cloud", "cloud-shadow"),
        {"nodata": int(CloudClass.NODATA), "classification:classes": class_list()},
    ),
    "scl": _raster(
        "scl",
        "Scene classification with the improved mask",
        "ESA's scene classification (SCL) with cloud and cloud shadow put right.",
        ("cloud", "cloud-shadow", "snow-ice"),
        {"nodata": 0, "classification:classes": class_list(SCL_CLASSES)},
    ),
    "cloud_probability": _probability("cloud", "Cloud"),
    "shadow_probability": _probability("shadow", "Cloud-shadow"),
    "mask_votes": _raster(
        "mask_votes",
        "Votes behind the mask",
        "Which source said what, as bit fields.",
        ("cloud", "cloud-shadow"),
        {"nodata": 255, "classification:bitfields": _bitfields()},
    ),
    "thumbnail": {"type": "image/png", "title": "Quicklook of the mask", "roles": ["thumbnail", "overview"]},
    **_sidecars("cloud_mask", "cloud and cloud-shadow mask"),
    **_sidecars("scl", "scene classification"),
}
"""Description of every asset by key."""

FILE_ENDINGS: Final[Mapping[str, str]] = {"_qgis": ".qml", "_gdal": ".tif.aux.xml", "thumbnail": "thumbnail.png"}


def file_name_of(key: str) -> str:
    """Return the file name of one of the mask's own assets, beside the item."""
    ending = next((ending for ending in FILE_ENDINGS if key.endswith(ending)), None)
    return f"{key}.tif" if ending is None else f"{key.removesuffix(ending)}{FILE_ENDINGS[ending]}"


def renders(keys: Iterable[str] = ASSETS) -> Json:
    """Return the renders of the assets; classes that are not painted are transparent."""
    looks: dict[str, Json] = {
        key: {"colormap": {str(int(info.code)): list(info.rgba) for info in classes}}
        for key, classes in CLASS_TABLES.items()
    }
    percent = {"rescale": [[0, 100]], "colormap_name": "viridis"}
    looks |= {"cloud_probability": percent, "shadow_probability": percent}
    looks |= {"mask_votes": {"rescale": [[0, 2 ** len(VOTES) - 1]], "colormap_name": "turbo"}}
    return {
        key: {"title": ASSETS[key]["title"], "assets": [key], "nodata": ASSETS[key]["nodata"]}
        | look
        | {"resampling": "nearest", "minmax_zoom": [7, 14]}
        for key, look in looks.items()
        if key in keys
    }


def extensions_of(*bodies: Mapping[str, Any], declared: Iterable[str] = ()) -> list[str]:
    """Return the schemas of all fields in these bodies.

    Args:
        bodies: Properties and assets.
        declared: Schemas that the source declares; those of fields that are used and not in `SCHEMAS` are kept.
    """
    names = (name.partition(":") for body in bodies for name in _names(body))
    used = {head + colon for head, colon, _ in names}  # "eo:", "renders"
    schemas = [schema for prefix, schema in SCHEMAS.items() if prefix in used]
    for schema in map(str, declared):
        name = schema.rstrip("/").split("/")[-3:][0]
        prefix = FOREIGN.get(name, f"{name}:")
        if prefix in used and prefix not in SCHEMAS:
            schemas.append(schema)
    return schemas


def _names(value: object) -> set[str]:
    """Return the names of all fields in JSON."""
    if isinstance(value, Mapping):
        return set(value).union(*map(_names, value.values()))
    return set().union(*map(_names, value)) if isinstance(value, list) else set()
