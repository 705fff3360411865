"""The result of an item, its display in notebooks, and package versions."""

from __future__ import annotations

import logging
import traceback
from base64 import b64encode
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from functools import cache
from html import escape
from importlib.metadata import distributions, version
from pathlib import Path
from types import MappingProxyType
from typing import Final, Literal

from stac_cloudmask.core.classes import CLASSES
from stac_cloudmask.errors import OutsideAreaError, StacCloudmaskError, redact
from stac_cloudmask.stac.hrefs import is_remote

logger = logging.getLogger(__name__)

VERSION: Final = version("stac-cloudmask")


@cache
def software() -> Mapping[str, str]:
    """Return the versions, by name, of the installed packages that affect pixels and probabilities."""
    names = ("numpy", "scipy", "onnxruntime", "rasterio", "stackstac", "odc-stac")
    return MappingProxyType({name: version(name) for name in names if any(distributions(name=name))})


Status = Literal["done", "up-to-date", "skipped", "failed", "planned"]
Kind = Literal["input", "infrastructure", "unexpected"]

PICTURE_SIDE: Final = 260
"""Longest side of a picture in a notebook, in pixels."""
LARGEST: Final = 2_000_000
"""Maximum size in bytes of a thumbnail embedded in a notebook."""


@dataclass(frozen=True, kw_only=True)
class Estimate:
    """The estimated effort of a mask.

    Attributes:
        pixels: Pixels of the mask.
        bytes: Bytes to read: from the item or the disk, else from the headers of the files. None if unknown.
        windows: Windows that the models would run on, at most: windows without data are skipped.
        computed: Pixels of these windows, counted for each model that computes them.
    """

    pixels: int
    bytes: int | None
    windows: int
    computed: int


@dataclass(frozen=True, kw_only=True)
class Result:
    """The outcome of one item.

    Attributes:
        item_id: Id of the source item, as it was found or asked for.
        status: ``done``: a mask was made; ``up-to-date``: the same mask existed already; ``skipped``: it has no
            data in the area, see ``notes``; ``failed``: see ``error``; ``planned``: a dry run would make a mask.
        output: Href of the output item, where there is one.
        cover: Percent of the valid pixels by class name, and ``nodata`` in percent of all pixels.
        product_cover: Cloud cover in percent that the source item states, if it does.
        error: One line: what, where, what was found and what would help.
        kind: ``input``: the same input will fail again; ``infrastructure``: it may succeed later; ``unexpected``: a
            fault of this package or of one that it uses.
        notes: Decisions made during processing that the user may want to know.
        published: Href of the published item.
        seconds: Wall time by stage.
        estimate: What the mask would take, where it is ``planned``.
    """

    item_id: str
    status: Status
    output: str | None = None
    cover: Mapping[str, float] = field(default_factory=dict)
    product_cover: float | None = None
    error: str | None = None
    kind: Kind | None = None
    notes: tuple[str, ...] = ()
    published: str | None = None
    seconds: Mapping[str, float] = field(default_factory=dict)
    estimate: Estimate | None = None

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        return asdict(self)

    def _repr_html_(self) -> str:
        """Return HTML for a notebook."""
        return result_html(self)


def failed(item_id: str, error: Exception) -> Result:
    """Return the result of an item that failed with an error; the message always names the item."""
    text = redact(str(error))
    if isinstance(error, OutsideAreaError):
        logger.info("skipped: %s", text)
        return Result(item_id=item_id, status="skipped", notes=(text,))
    kind: Kind = "unexpected"
    if isinstance(error, StacCloudmaskError):
        kind = "infrastructure" if error.retryable else "input"
    else:
        logger.debug("item %r", item_id, exc_info=error)
        place = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{Path(place.filename).name}:{place.lineno}"
        text = f"item {item_id!r}: unexpected {type(error).__name__} in {where}: {text}; please report it"
    text = text if item_id in text else f"item {item_id!r}: {text}"
    return Result(item_id=item_id, status="failed", error=text, kind=kind)


def result_html(result: Result) -> str:
    """Return a result as HTML: thumbnail if it is local, status, cover and error; nothing is fetched."""
    lines = [result.status, numbers_html(result.cover), result.error or "", *result.notes, result.output or ""]
    words = "<br>".join(escape(line) for line in lines if line)
    thumbnail = _thumbnail(result.output)
    figures = [] if thumbnail is None else [figure_html(thumbnail, "")]
    legend = legend_html() if figures else ""
    return (
        block_html(result.item_id, [*figures, f'<div style="font-size:90%;overflow-wrap:anywhere">{words}</div>'])
        + legend
    )


def _thumbnail(output: str | None) -> bytes | None:
    if output is None or is_remote(output):
        return None
    path = Path(output).with_name("thumbnail.png")
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None


def numbers_html(cover: Mapping[str, float]) -> str:
    """Return the percentages of the valid pixels by class name, and the percentage that is valid, as text."""
    shares = [f"{name.replace('_', ' ')} {percent:.1f} %" for name, percent in cover.items() if name != "nodata"]
    valid = f" of valid pixels, {100 - cover['nodata']:.1f} % valid" if "nodata" in cover else ""
    return ", ".join(shares) + valid


def block_html(title: str, parts: list[str]) -> str:
    """Return a titled row of parts."""
    return (
        f'<div><code>{escape(title)}</code><div style="display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start">'
        f"{''.join(parts)}</div></div>"
    )


def figure_html(png: bytes, caption: str) -> str:
    """Return a picture with its caption, embedded in the page."""
    data = b64encode(png).decode("ascii")
    return (
        f'<figure style="margin:4px 0"><img alt="{escape(caption) or "Mask over the scene"}" '
        f'style="max-width:{PICTURE_SIDE}px;max-height:{PICTURE_SIDE}px" src="data:image/png;base64,{data}">'
        f'<figcaption style="font-size:90%;max-width:{PICTURE_SIDE}px">{escape(caption)}</figcaption></figure>'
    )


def legend_html() -> str:
    """Return a legend of the classes."""
    squares = [
        f'<span style="display:inline-block;width:.8em;height:.8em;background:rgb{info.rgb}"></span> {info.title}'
        for info in CLASSES
        if info.painted
    ]
    return f'<div style="font-size:90%">{" &emsp; ".join(squares)}</div>'
