"""The result of an item and its display in notebooks, the time of its stages, and package versions."""

from __future__ import annotations

import logging
import traceback
from base64 import b64encode
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from html import escape
from importlib.metadata import distributions, version
from pathlib import Path
from time import perf_counter
from typing import Final, Literal

from stac_cloudmask.errors import OutsideAreaError, StacCloudmaskError, redact

logger = logging.getLogger(__name__)

VERSION: Final = version("stac-cloudmask")


def software() -> dict[str, str]:
    """Return the versions, by name, of the installed packages that affect pixels and probabilities."""
    names = ("numpy", "scipy", "onnxruntime", "rasterio", "stackstac", "odc-stac")
    return {name: version(name) for name in names if any(distributions(name=name))}


Status = Literal["done", "up-to-date", "skipped", "failed", "planned"]
Kind = Literal["input", "infrastructure", "unexpected"]

NOTEBOOK_SIDE: Final = 260
"""Longest side of a picture in a notebook, in pixels."""


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
        product_cover: Cloud cover in percent that the source item states, if it does; None for an area of it.
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
        """Return HTML for a notebook: thumbnail if it is local, status, cover and error; nothing is fetched."""
        thumbnail = Path(self.output or "").parent / "thumbnail.png"
        pictures = {"": thumbnail.read_bytes()} if self.output and thumbnail.is_file() else {}
        lines = (self.status, cover_text(self.cover), self.error, *self.notes, self.output)
        return notebook_html(self.item_id, pictures, lines)


Progress = Callable[[str, int, int], None]
"""A function called with a stage, how much of it is done, and its total."""


class Stopwatch:
    """A stopwatch for wall seconds by stage, with a function that is called with the progress of each."""

    def __init__(self, progress: Progress | None = None) -> None:
        self.seconds: dict[str, float] = {}
        self.progress = progress or (lambda *_: None)

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Add the time that the block takes."""
        start = perf_counter()
        try:
            yield
        finally:
            self.seconds[name] = round(self.seconds.get(name, 0.0) + perf_counter() - start, 3)


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


def cover_text(cover: Mapping[str, float]) -> str:
    """Return the percentages of the valid pixels by class name, and the percentage that is valid, as text."""
    shares = [f"{name.replace('_', ' ')} {percent:.1f} %" for name, percent in cover.items() if name != "nodata"]
    valid = f" of valid pixels, {100 - cover['nodata']:.1f} % valid" if "nodata" in cover else ""
    return ", ".join(shares) + valid


def notebook_html(title: str, pictures: Mapping[str, bytes], lines: Iterable[str | None] = ()) -> str:
    """Return HTML with a title, a row of PNG pictures by caption and some lines, and a legend of the classes below."""
    from stac_cloudmask.core.classes import CLASSES  # noqa: PLC0415  (keeps --help fast)

    width = f"max-width:{NOTEBOOK_SIDE}px"
    parts = [
        f'<figure style="margin:4px 0"><img alt="{escape(caption) or "Mask over the scene"}" '
        f'style="{width};max-height:{NOTEBOOK_SIDE}px" src="data:image/png;base64,{b64encode(png).decode("ascii")}">'
        f'<figcaption style="font-size:90%;{width}">{escape(caption)}</figcaption></figure>'
        for caption, png in pictures.items()
    ]
    if words := "<br>".join(escape(line) for line in lines if line):
        parts.append(f'<div style="font-size:90%;overflow-wrap:anywhere">{words}</div>')
    squares = [
        f'<span style="display:inline-block;width:.8em;height:.8em;background:rgb{info.rgb}"></span> {info.title}'
        for info in CLASSES
        if info.painted
    ]
    legend = f'<div style="font-size:90%">{" &emsp; ".join(squares)}</div>' if pictures else ""
    row = "display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start"
    return f'<div><code>{escape(title)}</code><div style="{row}">{"".join(parts)}</div></div>{legend}'
