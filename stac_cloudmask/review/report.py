"""The report: one self-contained HTML file that shows the masks of a catalog.

Items are not trusted: whatever they hold is text on the page. Pixels are packed, and unpacked by the page's script.
"""

from __future__ import annotations

import hashlib
import io
import json
import os
import zlib
from base64 import b64encode
from collections.abc import Callable, Iterator, Mapping
from datetime import UTC, datetime
from functools import partial
from html import escape
from importlib.resources import files
from pathlib import Path
from string import Template
from typing import Final, NamedTuple
from urllib.parse import quote

import numpy as np
from PIL import Image

from stac_cloudmask.core.classes import ADDED, CLASSES, MISSED, RAMP, SCL_CLASSES, CloudClass
from stac_cloudmask.core.grid import Grid, Window
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.errors import ConfigError, StacCloudmaskError, redact
from stac_cloudmask.pipeline.result import VERSION
from stac_cloudmask.review.layers import MASK_VOTES, U8, MaskLayers, painted
from stac_cloudmask.stac.assets import OWN, Json
from stac_cloudmask.stac.catalog import OutputCatalog, existing_catalog
from stac_cloudmask.stac.hrefs import is_remote, unsigned
from stac_cloudmask.stac.mask_item import class_counts, cover_of
from stac_cloudmask.stac.metadata import number
from stac_cloudmask.stac.store import whole_file
from stac_cloudmask.stac.warp import Views

Link = Callable[[str], str | None]
"""A function that returns a reference that a browser may follow for an href, or None."""

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
FOREIGN_FAULTS: Final = (StacCloudmaskError, ValueError, TypeError, AttributeError, LookupError, ArithmeticError)
"""Exceptions for an item that this package did not write."""


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
        file.writelines(_page(masks, listed, partial(link_to, catalog=masks.root, page=target.parent), progress))
    return target


def _page(
    masks: OutputCatalog, listed: list[tuple[str, str]], link: Link, progress: Callable[[int, int], None]
) -> Iterator[str]:
    """Yield the page in parts: the start, a block of data for each item, and the end."""
    folder, views = files("stac_cloudmask.review") / "template", Views()
    parts = (folder.joinpath(f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS)
    script = f'(() => {{\n"use strict";\n{"".join(parts)}}})();\n'
    colors = {info.name: f"#{info.color_hint}" for info in CLASSES}
    style = Template(folder.joinpath("report.css").read_text(encoding="utf-8")).substitute(colors)
    head, tail = folder.joinpath("report.html").read_text(encoding="utf-8").split(DATA)
    name, policy = redact(masks.root).rstrip("/").rpartition("/")[2], _policy(style, script)
    yield Template(head).substitute(title=escape(f"Cloud masks: {name}"), policy=policy, style=style)
    index, room = [], min(max(ALL_BYTES // len(listed), LEAST_BYTES), MOST_BYTES)
    for at, (collection_id, item_id) in enumerate(listed):
        entry, details = _item(masks, collection_id, item_id, views=views, link=link, room=room)
        index.append(entry)
        yield _block(f"item-{at}", details)
        progress(at + 1, len(listed))
    constants = {
        "made": datetime.now(UTC).strftime("%Y-%m-%d %H:%M UTC"),
        "version": VERSION,
        "step": PERCENT_STEP,
        "classes": [
            {"code": min(info.code, UNKNOWN), "title": info.title, "text": info.description, "color": info.rgb}
            for info in CLASSES
        ],
        "scl": [{"title": info.title, "color": info.rgb} for info in SCL_CLASSES],
        "colors": {"removed": MISSED, "added": ADDED, "ramp": RAMP},
    }
    yield _block("index", constants | {"name": name, "items": index})
    yield Template(tail).substitute(script=script)


def _policy(style: str, script: str) -> str:
    """Return the Content-Security-Policy that allows only this style and this script."""
    parts = {"style": style, "script": script}
    return POLICY.format(**{name: base64(hashlib.sha256(part.encode()).digest()) for name, part in parts.items()})


def _block(name: str, value: Json) -> str:
    return f'<script type="application/json" id="{name}">{script_json(value)}</script>\n'


def _item(
    masks: OutputCatalog, collection_id: str, item_id: str, *, views: Views, link: Link, room: int
) -> tuple[Json, Json]:
    """Return the data of an item for the list, and for its own view."""
    try:
        item = masks.item(collection_id, item_id)
        entry, layers = summary(item), MaskLayers.of(item, views)
        details: Json = {"facts": decisions(item), "links": links(item, link), "thresholds": thresholds(item)}
    except FOREIGN_FAULTS as error:
        why = f"{type(error).__name__}: {redact(str(error))[:300]}"
        return {"id": item_id, "collection": collection_id, "problem": why, "product": {}}, {"facts": [], "links": []}
    try:
        drawn, shown = pack(layers, room=room)
    except StacCloudmaskError as error:
        return entry | {"problem": str(error)[:300]}, details
    return drawn | entry, details | shown


def base64(data: bytes) -> str:
    """Return bytes encoded as text."""
    return b64encode(data).decode("ascii")


def script_json(value: object) -> str:
    """Return JSON that is safe inside a script element, whatever its texts contain."""
    encoded = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return encoded.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")


LONGEST: Final = 400
"""Maximum number of characters of a text."""
WORDING: Final = {
    "Thresholds": {"cloud_thr": "cloud {:.0%}", "shadow_thr": "shadow {:.0%}"},
    "Clean-up": {
        "cloud_buffer": "clouds dilated by {:g} m",
        "shadow_buffer": "shadows by {:g} m",
        "min_area": "objects below {:g} m2 removed",
        "hole_area": "holes below {:g} m2 filled",
    },
    "Sun": {"sun_azimuth": "azimuth {:.1f} degrees", "sun_elevation": "elevation {:.1f} degrees"},
}
"""Wording of the merge's parameters, by label."""


def text(value: object) -> str | None:
    """Return a text, truncated for display; None for anything else."""
    return value[:LONGEST] if isinstance(value, str) else None


def summary(item: Json) -> Json:
    """Return the list's entry of an item, in percent of the valid pixels; ``product`` only if the source states it.

    Args:
        item: JSON of the item.
    """
    properties = item["properties"]
    derived = (link for link in item["links"] if link.get("rel") == "derived_from" and "mlm:name" not in link)
    source: Json = next(derived, {})
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


def decisions(item: Json) -> list[tuple[str, str]]:
    """Return the provenance of the mask, as labels and texts."""
    properties = item["properties"]
    merge, models, offsets, software = (
        properties.get(name) or {}
        for name in (f"{OWN}merge", f"{OWN}models", f"{OWN}boa_offset", "processing:software")
    )
    version = software.get("stac_cloudmask")
    made = (text(properties.get("processing:datetime")), None if version is None else f"stac_cloudmask {version}")
    lines = {
        "Merge policy": merge.get("policy"),
        **{label: _joined(merge, wording) for label, wording in WORDING.items()},
        "Models": ", ".join(f"{model.get('name')} ({' and '.join(model.get('roles', ()))})" for model in models),
        "Product's mask": properties.get(f"{OWN}product_mask") or "none",
        "BOA offset": "; ".join(_offsets(offsets)),
        "Made": ", by ".join(filter(None, made)),
        "Lineage": properties.get("processing:lineage"),
    }
    return [(label, str(line)[:LONGEST]) for label, line in lines.items() if line]


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


def link_to(href: str, *, catalog: str, page: Path) -> str | None:
    """Return a reference that a browser may follow: http(s) or a file; None for everything else.

    A catalog's own files are relative, which allows moving the catalog with its page.

    Args:
        href: An href of an item.
        catalog: Absolute href of the catalog's folder.
        page: Folder of the page.
    """
    if href.startswith(("https://", "http://")):
        return unsigned(href)
    if is_remote(href) or not href.startswith("/"):
        return None
    if not is_remote(catalog) and Path(href).is_relative_to(catalog):
        return quote(os.path.relpath(href, page))
    return Path(href).as_uri()


def links(item: Json, link: Link) -> list[Json]:
    """Return item, source and assets: title, description, and ``href``, None if only ``shown`` can be displayed."""
    home = next(link for link in item["links"] if link.get("rel") == "self")
    derived = [link for link in item["links"] if link.get("rel") == "derived_from"]
    named = [
        ("Item JSON", "STAC item of the mask", home),
        *((text(source.get("title")) or "Derived from", "derived from", source) for source in derived),
        *((text(asset.get("title")) or key, f"asset {key}", asset) for key, asset in item["assets"].items()),
    ]
    found = ((title, what[:LONGEST], str(target.get("href"))) for title, what, target in named)
    return [{"title": title, "what": what, "href": link(h), "shown": redact(h)[:LONGEST]} for title, what, h in found]


PLANE_SIDE, LEAST_PLANE_SIDE = 1200, 512
"""Longest side of a drawn layer in pixels, if there is room for it, and if there is little."""
QUALITIES: Final = (
    (1200, 75), (1200, 60), (1024, 50), (800, 45), (640, 45), (512, 50), (448, 42), (384, 36), (320, 30), (256, 25),
)  # fmt: skip
"""Side and WebP quality of a picture, best first."""
LEAST_BYTES_PER_PIXEL: Final = 0.03
"""Number of bytes below which a WebP of a landscape is not tried."""
LEVEL: Final = 6
"""Compression level of zlib; 9 takes three times as long for 2 % fewer bytes."""
THUMB_SIDE: Final = 96
THUMB_BACKGROUND: Final = (128, 134, 140)
"""Background of a thumbnail without a picture: red, green, blue."""
PERCENT_STEP: Final = 5
"""Step in percent of the probabilities on the page."""
UNKNOWN: Final = 3
"""Code of nodata in two bits."""
TILE_SIDE: Final = 1024
"""Side in pixels of a tile of the mask at native resolution."""


class Plane(NamedTuple):
    """One layer.

    Attributes:
        name: ``mask``: two bits each for class and SCL's class (3 = none), then the votes of cloud model and shadow
            model, removed, added; ``scl``: codes; ``cloud`` and ``shadow``: probability in ``PERCENT_STEP`` percent,
            255 = nodata.
        factor: Mask pixels along the side of a pixel.
        pixels: ``(y, x)`` uint8.
    """

    name: str
    factor: int
    pixels: U8


def pack(layers: MaskLayers, *, room: int) -> tuple[Json, Json]:
    """Read and pack the layers of an item.

    Args:
        layers: Its layers.
        room: Bytes that all of it should stay within: two thirds for the layers, what is left for the picture, and
            then, if it fits, the mask at native resolution.

    Returns:
        For the list of items: the thumbnail, and what SCL covers in percent of the valid pixels where it was used. For
        the item's own view: the layers, their pixels one after the other as raw deflate, the scene as WebP if there is
        a picture, and, if the layers have fewer pixels than the mask and there is room, the layer ``mask`` at native
        resolution, row by row of tiles, each raw deflate.

    Raises:
        StacCloudmaskError: The mask cannot be read.
    """
    planes, data = _planes(layers, room * 2 // 3)
    grid, mask = layers.grid, planes[0]
    rgb = layers.picture(layers.coarse(min(PLANE_SIDE, max(mask.pixels.shape))))
    picture = b"" if rgb is None else webp_within(rgb, room - len(data))
    tiles = mask_tiles(layers, room - len(data) - len(picture)) if mask.factor > 1 else []
    codes = mask.pixels & np.uint8(UNKNOWN), mask.pixels >> 2 & np.uint8(UNKNOWN)
    classes, product = (np.where(code == UNKNOWN, CloudClass.NODATA, code).astype(np.uint8) for code in codes)
    has_product = bool((product != CloudClass.NODATA).any())
    entry: Json = {"thumb": base64(thumbnail(rgb, classes))}
    shown: Json = {
        "grid": {"code": grid.code, "left": grid.left, "top": grid.top, "gsd": grid.gsd, "shape": grid.shape},
        "planes": [{"name": one.name, "factor": one.factor, "shape": one.pixels.shape} for one in planes],
        "data": base64(data),
        "notes": layers.notes,
        "has_product": has_product,
        "has_votes": MASK_VOTES in layers.hrefs,
    }
    if has_product:
        cover = cover_of(class_counts(product))
        entry["product"] = {"cloud": cover["cloud"], "shadow": cover["cloud_shadow"], "by": "picture"}
    if picture:
        shown["picture"] = base64(picture)
    if tiles:
        shown["tiles"] = {"side": TILE_SIDE, "data": [base64(tile) for tile in tiles]}
    return entry, shown


def _planes(layers: MaskLayers, room: int) -> tuple[list[Plane], bytes]:
    """Return the layers at the finest resolution that fits; ragged scenes are shown with fewer pixels."""
    side = min(PLANE_SIDE, max(LEAST_PLANE_SIDE, int((6 * room) ** 0.5)))
    factor, fine = -(-max(layers.grid.shape) // side), 1
    while True:
        planes = list(_read(layers, factor, fine))
        data = _deflate(b"".join(plane.pixels.tobytes() for plane in planes))
        if len(data) <= room or factor >= max(layers.grid.shape):
            return planes, data
        if fine > 1:
            factor = max(factor + 1, int(factor * (len(data) / room) ** 0.5))
        fine = 2


def _read(layers: MaskLayers, factor: int, fine: int) -> Iterator[Plane]:
    grid, coarser = layers.grid.coarsen(factor), layers.grid.coarsen(factor).coarsen(fine)
    scl = layers.scl(grid)
    yield Plane("mask", factor, _mask_bytes(layers, grid, scl))
    small = scl if fine == 1 else layers.scl(coarser)
    if small is not None:
        yield Plane("scl", factor * fine, small)
    for name in ("cloud", "shadow"):
        percent = layers.percent(name, coarser)
        if percent is not None:
            steps = np.where(percent == PERCENT_NODATA, percent, percent // PERCENT_STEP).astype(np.uint8)
            yield Plane(name, factor * fine, steps)


def mask_tiles(layers: MaskLayers, room: int) -> list[bytes]:
    """Return the layer ``mask`` at native resolution in tiles; empty if they take more than ``room`` bytes."""
    tiles: list[bytes] = []
    grid = layers.grid
    for row in range(0, grid.height, TILE_SIDE):
        strip = grid.cut(Window(row, 0, min(TILE_SIDE, grid.height - row), grid.width))
        pixels = _mask_bytes(layers, strip, layers.scl(strip))
        tiles += [_deflate(pixels[:, col : col + TILE_SIDE].tobytes()) for col in range(0, grid.width, TILE_SIDE)]
        if sum(map(len, tiles)) > room:
            return []
    return tiles


def _mask_bytes(layers: MaskLayers, grid: Grid, scl: U8 | None) -> U8:
    """Pack class, SCL's class and votes of each pixel into one byte, see `Plane`."""
    votes = layers.votes(grid)
    product = layers.product_classes(scl, votes)
    known = np.full(grid.shape, UNKNOWN, np.uint8) if product is None else np.minimum(product, np.uint8(UNKNOWN))
    packed = np.minimum(layers.classes(grid), np.uint8(UNKNOWN)) | known << 2
    said: U8 = packed if votes is None else packed | (votes >> 2 & 15) << 4
    return said


def _deflate(data: bytes) -> bytes:
    """Return raw deflate, which browsers decode exactly; tracking protection may alter pixels read from a canvas."""
    return zlib.compress(data, LEVEL, -zlib.MAX_WBITS)


def webp_within(rgb: U8, room: int) -> bytes:
    """Return a picture ``(y, x, 3)`` as WebP, in the best quality that fits ``room`` bytes."""
    whole = Image.fromarray(rgb)
    for side, quality in QUALITIES:
        size = min(1.0, side / max(whole.size))
        if side > QUALITIES[-1][0] and whole.width * whole.height * size**2 * LEAST_BYTES_PER_PIXEL > room:
            continue
        data = _webp(whole, side, quality)
        if len(data) <= room:
            break
    return data


def thumbnail(rgb: U8 | None, classes: U8) -> bytes:
    """Return a picture overlaid with cloud and shadow as a small WebP.

    Args:
        rgb: ``(y, x, 3)``; None where there is no picture.
        classes: ``(y, x)`` codes of `CloudClass`, of the same extent.
    """
    return _webp(Image.fromarray(painted(classes, rgb, bare=THUMB_BACKGROUND)), THUMB_SIDE, 70)


def _webp(image: Image.Image, side: int, quality: int) -> bytes:
    """Return a picture as WebP, its longest side at most ``side`` pixels."""
    small, buffer = image.copy(), io.BytesIO()
    small.thumbnail((side, side), Image.Resampling.BOX)
    small.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()
