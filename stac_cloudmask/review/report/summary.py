"""Summarize an output item, which is not trusted, as plain values for the page."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote

from stac_cloudmask.errors import redact
from stac_cloudmask.stac.assets import OWN, unsigned
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.metadata import number

Json = Mapping[str, Any]

LONGEST: Final = 400
"""Maximum number of characters of a text."""
THRESHOLDS: Final = {"cloud_thr": "cloud {:.0%}", "shadow_thr": "shadow {:.0%}"}
SUN: Final = {"sun_azimuth": "azimuth {:.1f} degrees", "sun_elevation": "elevation {:.1f} degrees"}
CLEANUP: Final = {
    "cloud_buffer": "clouds dilated by {:g} m",
    "shadow_buffer": "shadows by {:g} m",
    "min_area": "objects below {:g} m2 removed",
    "hole_area": "holes below {:g} m2 filled",
}


def text(value: object) -> str | None:
    """Return a text, truncated for display; None for anything else."""
    return value[:LONGEST] if isinstance(value, str) else None


def summary(item: Json) -> dict[str, object]:
    """Return the list's entry of an item, in percent of the valid pixels; ``product`` only if the source states it.

    Args:
        item: JSON of the item.
    """
    properties, source = item["properties"], _source_link(item)
    cover = {"cloud": number(source.get("eo:cloud_cover")), "shadow": number(source.get("s2:cloud_shadow_percentage"))}
    stated = any(value is not None for value in cover.values())
    return {
        "id": text(item["id"]),
        "source": (text(source.get("title")) or "").removeprefix("Source item ") or None,
        "collection": text(item.get("collection")),
        "datetime": text(properties.get("datetime")) or text(properties.get("start_datetime")),
        "platform": text(properties.get("platform")),
        "cloud": number(properties.get("eo:cloud_cover")),
        "shadow": number(properties.get("s2:cloud_shadow_percentage")),
        "nodata": number(properties.get("s2:nodata_pixel_percentage")),
    } | ({"product": cover | {"by": "item"}} if stated else {})


def thresholds(item: Json) -> dict[str, float | None]:
    """Return the probabilities in percent above which models vote, and the buffers in meters."""
    merge = item["properties"].get(f"{OWN}merge") or {}
    share = {name: number(merge.get(f"{name}_thr")) for name in ("cloud", "shadow")}
    reach = {name: number(merge.get(name)) for name in ("cloud_buffer", "shadow_buffer")}
    return {name: None if value is None else round(100 * value, 6) for name, value in share.items()} | reach


def _source_link(item: Json) -> Json:
    links = [link for link in item["links"] if link.get("rel") == "derived_from" and "mlm:name" not in link]
    return links[0] if links else {}


def decisions(item: Json) -> list[tuple[str, str]]:
    """Return the provenance of the mask, as labels and texts."""
    properties = item["properties"]
    merge = properties.get(f"{OWN}merge") or {}
    models = properties.get(f"{OWN}models") or []
    lines = {
        "Merge policy": merge.get("policy"),
        "Thresholds": _joined(merge, THRESHOLDS),
        "Clean-up": _joined(merge, CLEANUP),
        "Sun": _joined(merge, SUN),
        "Models": ", ".join(f"{model.get('name')} ({' and '.join(model.get('roles', ()))})" for model in models),
        "Product's mask": properties.get(f"{OWN}product_mask") or "none",
        "BOA offset": "; ".join(_offsets(properties.get(f"{OWN}boa_offset") or {})),
        "Made": ", by ".join(filter(None, (text(properties.get("processing:datetime")), _software(properties)))),
        "Lineage": properties.get("processing:lineage"),
    }
    return [(label, str(line)[:LONGEST]) for label, line in lines.items() if line]


def _software(properties: Json) -> str | None:
    """Return this package and its version."""
    version = (properties.get("processing:software") or {}).get("stac_cloudmask")
    return None if version is None else f"stac_cloudmask {version}"


def _joined(fields: Json, wording: Mapping[str, str]) -> str:
    known = {name: number(fields.get(name)) for name in wording}
    return ", ".join(wording[name].format(value) for name, value in known.items() if value)


def _offsets(bands: Json) -> Iterator[str]:
    """Yield the BOA offsets, with the bands of equal offsets grouped."""
    alike: dict[str, list[str]] = {}
    for band, offset in bands.items():
        doubt = ", doubtful" if offset.get("doubtful") else ""
        alike.setdefault(f"{offset.get('offset')} ({offset.get('reason')}{doubt})", []).append(str(band))
    yield from (f"{', '.join(names)}: {how}" for how, names in alike.items())


@dataclass(frozen=True, kw_only=True)
class Places:
    """The references of the page: a catalog's own files are relative, which allows moving the catalog with its page.

    Attributes:
        catalog: Absolute href of the catalog's folder.
        page: Folder of the page.
    """

    catalog: str
    page: Path

    def link(self, href: str) -> str | None:
        """Return a reference that a browser may follow: http(s) or a file; None for everything else."""
        if href.startswith(("https://", "http://")):
            return unsigned(href)
        if is_remote(href) or not href.startswith("/"):
            return None
        if not is_remote(self.catalog) and Path(href).is_relative_to(self.catalog):
            return quote(os.path.relpath(href, self.page))
        return Path(href).as_uri()


def links(item: Json, places: Places) -> list[dict[str, object]]:
    """Return item, source and assets: title, description, and ``href``, None if only ``shown`` can be displayed."""
    home = next(link for link in item["links"] if link.get("rel") == "self")
    derived = [link for link in item["links"] if link.get("rel") == "derived_from"]
    named = [
        ("Item JSON", "STAC item of the mask", home),
        *((text(link.get("title")) or "Derived from", "derived from", link) for link in derived),
        *((text(asset.get("title")) or key, f"asset {key}", asset) for key, asset in item["assets"].items()),
    ]
    found = []
    for title, what, target in named:
        href = str(target.get("href"))
        shown = redact(href)[:LONGEST]
        found.append({"title": title, "what": what[:LONGEST], "href": places.link(href), "shown": shown})
    return found
