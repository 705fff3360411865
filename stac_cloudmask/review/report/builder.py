"""Write the HTML report."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Iterator
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final

from stac_cloudmask.core.classes import ADDED, CLASSES, MISSED, RAMP, SCL_CLASSES
from stac_cloudmask.errors import ConfigError, StacCloudmaskError, redact
from stac_cloudmask.pipeline.result import VERSION
from stac_cloudmask.review.layers import MaskLayers
from stac_cloudmask.review.report.planes import STEP, UNKNOWN, base64, pack, script_json
from stac_cloudmask.review.report.summary import Places, decisions, links, summary, thresholds
from stac_cloudmask.stac.catalog import OutputCatalog, existing_catalog
from stac_cloudmask.stac.store import whole_file
from stac_cloudmask.stac.warp import Views

SCRIPTS: Final = ("dom", "model", "paint", "stage", "list", "timeline", "inspect", "main")
"""Parts of the script, in order of their dependencies."""
POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: embedded pictures, this style and this script; no requests and no other code."""
DATA: Final = "<!-- data -->"
"""Placeholder of the items in the template."""
LEAST_BYTES, MOST_BYTES, ALL_BYTES = 66_000, 6_000_000, 33_000_000
"""Minimum and maximum bytes of an item's pixels, and bytes of all items; as text in the page they take a third more."""
BROKEN: Final = (StacCloudmaskError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""Exceptions for an item that this package did not write."""

Json = dict[str, Any]


def build_report(
    catalog: str | Path, out_file: str | Path, *, progress: Callable[[int, int], None] = lambda *_: None
) -> Path:
    """Write one self-contained HTML file that shows all masks of a catalog and needs no network.

    Pictures are read from the bands of the items. Unreadable layers are left out, with a note on the page.

    Args:
        catalog: An output catalog of this package, a path or URL.
        out_file: The file; it appears whole or not at all.
        progress: Called with how many items are done, of how many.

    Returns:
        The absolute path of the file.

    Raises:
        ConfigError: The catalog lists no items.
        WriteError: The file cannot be written.
    """
    masks, target = existing_catalog(catalog), Path(out_file).absolute()
    listed = sorted(set(masks.listed()))
    if not listed:
        raise ConfigError(f"{catalog}: no mask is listed here; make some with: stac-cloudmask process ... --out DIR")
    with whole_file(target) as temporary, temporary.open("w", encoding="utf-8") as file:
        file.writelines(_page(masks, listed, Places(catalog=masks.root, page=target.parent), progress))
    return target


def _page(
    masks: OutputCatalog, listed: list[tuple[str, str]], places: Places, progress: Callable[[int, int], None]
) -> Iterator[str]:
    """Yield the page in parts: the start, a block of data for each item, and the end."""
    folder, views = files("stac_cloudmask.review.report") / "template", Views()
    parts = (folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{"".join(parts)}}})();\n'
    colors = {info.name: f"#{info.color_hint}" for info in CLASSES}
    style = Template(folder.joinpath("report.css").read_text(encoding="utf-8")).substitute(colors)
    head, tail = folder.joinpath("report.html").read_text(encoding="utf-8").split(DATA)
    name, policy = redact(masks.root).rstrip("/").rpartition("/")[2], _policy(style, script)
    yield Template(head).substitute(title=escape(f"Cloud masks: {name}"), policy=policy, style=style)
    index, room = [], min(max(ALL_BYTES // len(listed), LEAST_BYTES), MOST_BYTES)
    for number, (collection_id, item_id) in enumerate(listed):
        entry, pixels = _item(masks, collection_id, item_id, views=views, places=places, room=room)
        index.append(entry)
        yield _block(f"item-{number}", pixels)
        progress(number + 1, len(listed))
    yield _block("index", _constants() | {"name": name, "items": index})
    yield Template(tail).substitute(script=script)


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy that allows only this style and this script."""
    style, script = (
        b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii") for text in (style, script)
    )
    return POLICY.format(style=style, script=script)


def _block(name: str, value: Json) -> str:
    return f'<script type="application/json" id="{name}">{script_json(value)}</script>\n'


def _constants() -> Json:
    classes = [
        {"code": min(info.code, UNKNOWN), "title": info.title, "text": info.description, "color": info.rgb}
        for info in CLASSES
    ]
    return {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": VERSION,
        "step": STEP,
        "classes": classes,
        "scl": [{"title": info.title, "color": info.rgb} for info in SCL_CLASSES],
        "colors": {"removed": MISSED, "added": ADDED, "ramp": RAMP},
    }


def _item(
    masks: OutputCatalog, collection_id: str, item_id: str, *, views: Views, places: Places, room: int
) -> tuple[Json, Json]:
    """Return the data of an item for the list, and for its own view."""
    try:
        item = masks.item(collection_id, item_id)
        entry, layers = summary(item), MaskLayers.of(item, views)
        details: Json = {"facts": decisions(item), "links": links(item, places), "thresholds": thresholds(item)}
    except BROKEN as error:
        why = f"{type(error).__name__}: {redact(str(error))[:300]}"
        return {"id": item_id, "collection": collection_id, "problem": why, "product": {}}, {"facts": [], "links": []}
    try:
        packed = pack(layers, room=room)
    except StacCloudmaskError as error:
        return entry | {"problem": str(error)[:300]}, details
    if packed.product is not None and "product" not in entry:
        cloud, shadow = packed.product["cloud"], packed.product["cloud_shadow"]
        entry["product"] = {"cloud": cloud, "shadow": shadow, "by": "picture"}
    return entry | {"thumb": base64(packed.thumbnail)}, details | packed.shown
