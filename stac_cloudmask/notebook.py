"""What a notebook shows of datasets and results: small pictures with their numbers, as HTML."""

from __future__ import annotations

import io
from base64 import b64encode
from html import escape
from pathlib import Path
from typing import TYPE_CHECKING, Final

import xarray as xr
from PIL import Image

from stac_cloudmask.core.classes import CLASSES
from stac_cloudmask.look import look_at
from stac_cloudmask.plotting import plot
from stac_cloudmask.stac.hrefs import is_remote

if TYPE_CHECKING:
    from collections.abc import Mapping

    import numpy as np
    from matplotlib.figure import Figure
    from numpy.typing import NDArray

    from stac_cloudmask.results import Result

SIDE: Final = 260
"""Longest side of each picture, in pixels."""
LARGEST: Final = 2_000_000
"""Bytes of a thumbnail that a notebook is made to hold."""


@xr.register_dataset_accessor("cloudmask")  # type: ignore[no-untyped-call]  # xarray has no types for it
class CloudmaskAccessor:
    """``dataset.cloudmask``: what ``cloud_mask`` has returned, to be looked at."""

    def __init__(self, dataset: xr.Dataset) -> None:
        self._dataset = dataset

    def plot(self, *, width: float = 12.0) -> Figure:
        """Draw scene, product's mask and improved mask, see ``stac_cloudmask.plot``."""
        return plot(self._dataset, width=width)

    def _repr_html_(self) -> str:
        look = look_at(self._dataset, side=SIDE)
        covers = look.covers
        figures = [
            _figure(_png(picture), f"{title} {_numbers(covers.get(title, {}))}")
            for title, picture in look.pictures.items()
        ]
        return _block(look.title, figures) + _legend()


def result_html(result: Result) -> str:
    """A result as HTML: thumbnail, where it is on this machine, status, cover, and what went wrong; never fetches."""
    lines = [result.status, _numbers(result.cover), result.error or "", *result.notes, result.output or ""]
    words = "<br>".join(escape(line) for line in lines if line)
    thumbnail = _thumbnail(result.output)
    figures = [] if thumbnail is None else [_figure(thumbnail, "")]
    legend = _legend() if figures else ""
    return (
        _block(result.item_id, [*figures, f'<div style="font-size:90%;overflow-wrap:anywhere">{words}</div>']) + legend
    )


def _thumbnail(output: str | None) -> bytes | None:
    if output is None or is_remote(output):
        return None
    path = Path(output).with_name("thumbnail.png")
    return path.read_bytes() if path.is_file() and path.stat().st_size <= LARGEST else None


def _png(picture: NDArray[np.uint8]) -> bytes:
    image = Image.fromarray(picture)
    image.thumbnail((SIDE, SIDE), Image.Resampling.BOX)
    buffer = io.BytesIO()
    image.save(buffer, format="PNG")
    return buffer.getvalue()


def _numbers(cover: Mapping[str, float]) -> str:
    return ", ".join(f"{name.replace('_', ' ')} {percent:.1f} %" for name, percent in cover.items())


def _block(title: str, parts: list[str]) -> str:
    return (
        f'<div><code>{escape(title)}</code><div style="display:flex;flex-wrap:wrap;gap:12px;align-items:flex-start">'
        f"{''.join(parts)}</div></div>"
    )


def _figure(png: bytes, caption: str) -> str:
    data = b64encode(png).decode("ascii")
    return (
        f'<figure style="margin:4px 0"><img alt="{escape(caption) or "Mask over the scene"}" '
        f'style="max-width:{SIDE}px;max-height:{SIDE}px" src="data:image/png;base64,{data}">'
        f'<figcaption style="font-size:90%;max-width:{SIDE}px">{escape(caption)}</figcaption></figure>'
    )


def _legend() -> str:
    squares = [
        f'<span style="display:inline-block;width:.8em;height:.8em;background:rgb{info.overlay}"></span> {info.title}'
        for info in CLASSES
        if info.overlay is not None
    ]
    return f'<div style="font-size:90%">{" &emsp; ".join(squares)}</div>'
