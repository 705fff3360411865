"""Write the HTML report."""

from __future__ import annotations

import hashlib
from base64 import b64encode
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Any, Final, TextIO

from stac_cloudmask.core.classes import CLASSES, SCL_CLASSES
from stac_cloudmask.errors import ConfigError, StacCloudmaskError
from stac_cloudmask.pipeline.result import VERSION
from stac_cloudmask.review.layers import MASK_VOTES, MaskLayers
from stac_cloudmask.review.report.planes import STEP, UNKNOWN, base64, pack, script_json
from stac_cloudmask.review.report.summary import Places, decisions, links, summary, thresholds
from stac_cloudmask.stac.catalog import OutputCatalog, existing_catalog
from stac_cloudmask.stac.hrefs import redact
from stac_cloudmask.stac.store import whole_file
from stac_cloudmask.stac.warp import Views

SCRIPTS: Final = ("dom", "model", "paint", "stage", "list", "timeline", "inspect", "main")
"""Parts of the script, in the order in which they depend on each other."""
POLICY: Final = (
    "default-src 'none'; img-src data:; style-src 'sha256-{style}'; script-src 'sha256-{script}'; base-uri 'none'; "
    "form-action 'none'; require-trusted-types-for 'script'"
)
"""Content-Security-Policy: pictures in the file, this style and this script; no request, no other code."""
DATA: Final = "<!-- data -->"
"""Where the items go in the template."""


@dataclass(frozen=True)
class Page:
    """The page around the items."""

    template: Template
    style: str
    script: str
    tail: str

    def head(self, *, title: str) -> str:
        """All that comes before the items."""
        policy = POLICY.format(style=_sha256(self.style), script=_sha256(self.script))
        return self.template.substitute(title=escape(title), policy=policy, style=self.style)

    @staticmethod
    def data(name: str, json: str) -> str:
        """A block of data; ``json`` must have no ``<``."""
        return f'<script type="application/json" id="{name}">{json}</script>\n'


def load_page() -> Page:
    """The page as it ships with the package."""
    folder = files("stac_cloudmask.review.report") / "template"
    parts = (folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{"".join(parts)}}})();\n'
    colors = {info.name: f"#{info.color_hint}" for info in CLASSES}
    style = Template(folder.joinpath("report.css").read_text(encoding="utf-8")).substitute(colors)
    head, tail = folder.joinpath("report.html").read_text(encoding="utf-8").split(DATA)
    return Page(Template(head), style, script, Template(tail).substitute(script=script))


def _sha256(text: str) -> str:
    """As a Content-Security-Policy wants the hash of an element's text."""
    return b64encode(hashlib.sha256(text.encode("utf-8")).digest()).decode("ascii")


Json = dict[str, Any]

LEAST_BYTES, MOST_BYTES, ALL_BYTES = 66_000, 6_000_000, 33_000_000
"""Bytes of the pixels of an item, at least and at most, and of all items; as text in the page they are a third more."""
BROKEN: Final = (StacCloudmaskError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""What comes of an item that is not what this package writes."""


def build_report(
    catalog: str | Path, out_file: str | Path, *, progress: Callable[[int, int], None] | None = None
) -> Path:
    """Write one HTML file to look at all masks of a catalog; it needs nothing else and no network.

    Pictures are read from the bands that the items refer to. What cannot be read is left out, with a note on the page.

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
        _write(file, masks, listed, target, progress or (lambda *_: None))
    return target


def _write(
    file: TextIO,
    masks: OutputCatalog,
    listed: list[tuple[str, str]],
    target: Path,
    progress: Callable[[int, int], None],
) -> None:
    page, views = load_page(), Views()
    places = Places(catalog=masks.root, page=target.parent)
    file.write(page.head(title=f"Cloud masks: {_name(masks)}"))
    index, room = [], min(max(ALL_BYTES // len(listed), LEAST_BYTES), MOST_BYTES)
    for number, name in enumerate(listed):
        entry, pixels = _item(masks, name, views=views, places=places, room=room)
        index.append(entry)
        file.write(Page.data(f"item-{number}", script_json(pixels)))
        progress(number + 1, len(listed))
    file.write(Page.data("index", script_json({**_constants(masks), "items": index})))
    file.write(page.tail)


def _constants(masks: OutputCatalog) -> Json:
    classes = [
        {"code": min(info.code, UNKNOWN), "title": info.title, "text": info.description, "color": info.rgb}
        for info in CLASSES
    ]
    return {
        "name": _name(masks),
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": VERSION,
        "step": STEP,
        "classes": classes,
        "scl": [{"title": info.title, "color": info.rgb} for info in SCL_CLASSES],
    }


def _name(masks: OutputCatalog) -> str:
    """The last part of the catalog's path or URL."""
    return redact(masks.root).rstrip("/").rpartition("/")[2]


def _item(
    masks: OutputCatalog, listed: tuple[str, str], *, views: Views, places: Places, room: int
) -> tuple[Json, Json]:
    """What the list needs of an item, and what its own view needs."""
    collection_id, item_id = listed
    try:
        item = masks.item(collection_id, item_id)
        entry, layers = summary(item), MaskLayers.of(item, views)
        details: Json = {"facts": decisions(item), "links": links(item, places), "thresholds": thresholds(item)}
    except BROKEN as error:
        return _broken(collection_id, item_id, f"{type(error).__name__}: {redact(str(error))[:300]}")
    try:
        packed = pack(layers, room=room)
    except StacCloudmaskError as error:
        return entry | {"problem": str(error)[:300]}, details
    counted = {} if packed.product is None else {"product": _counted(packed.product)}
    seen = packed.to_dict(layers.grid, layers.notes) | {"has_votes": MASK_VOTES in layers.hrefs}
    return {"thumb": base64(packed.thumbnail)} | counted | entry, details | seen


def _broken(collection_id: str, item_id: str, why: str) -> tuple[Json, Json]:
    return {"id": item_id, "collection": collection_id, "problem": why, "product": {}}, {"facts": [], "links": []}


def _counted(shares: Mapping[str, float]) -> Json:
    """Cloud and shadow of SCL, for items whose source does not state them."""
    return {"cloud": shares["cloud"], "shadow": shares["cloud_shadow"], "by": "picture"}
