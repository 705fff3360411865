"""Pixels as bytes and text for a page."""

from __future__ import annotations

import io
import json
import zlib
from base64 import b64encode
from typing import TYPE_CHECKING, Final

import numpy as np
from PIL import Image

from stac_cloudmask.core.classes import CLASSES

if TYPE_CHECKING:
    from numpy.typing import NDArray

    U8 = NDArray[np.uint8]

PICTURES: Final = ((512, 70), (512, 50), (448, 42), (384, 36), (320, 30), (256, 25))
"""Side and WebP quality of a picture, best first."""
LEVEL: Final = 6
"""Of zlib; 9 takes three times as long for 2 % less."""
THUMB_SIDE: Final = 96
OPACITY: Final = 0.6
"""Of the mask over a thumbnail."""
BARE: Final = (128, 134, 140)
"""What a thumbnail shows where there is no picture: red, green, blue."""


def deflate(data: bytes) -> bytes:
    """Raw deflate, which browsers undo exactly; pixels read back from a canvas may be altered against tracking."""
    packer = zlib.compressobj(LEVEL, zlib.DEFLATED, -zlib.MAX_WBITS, zlib.DEF_MEM_LEVEL)
    return packer.compress(data) + packer.flush()


def picture(rgb: U8, room: int) -> bytes:
    """A picture ``(y, x, 3)`` as WebP, as good as ``room`` bytes allow."""
    for side, quality in PICTURES:
        small = Image.fromarray(rgb)
        small.thumbnail((side, side), Image.Resampling.BOX)
        data = _webp(small, quality)
        if len(data) <= room:
            return data
    return data


def thumbnail(rgb: U8 | None, classes: U8) -> bytes:
    """Cloud and shadow over a picture as a small WebP.

    Args:
        rgb: ``(y, x, 3)``; None where there is no picture.
        classes: ``(y, x)`` codes of the same extent; any code without overlay color lets the picture through.
    """
    table = np.zeros((256, 4), np.uint8)
    for info in CLASSES:
        if info.overlay is not None:
            table[info.code] = (*info.overlay, round(255 * OPACITY))
    above = Image.fromarray(table[classes])
    above.thumbnail((THUMB_SIDE, THUMB_SIDE), Image.Resampling.BOX)
    if rgb is None:
        below = Image.new("RGBA", above.size, BARE)
    else:
        below = Image.fromarray(rgb).resize(above.size, Image.Resampling.BOX).convert("RGBA")
    return _webp(Image.alpha_composite(below, above).convert("RGB"), 70)


def _webp(image: Image.Image, quality: int) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, format="WEBP", quality=quality, method=4)
    return buffer.getvalue()


def base64(data: bytes) -> str:
    """Bytes as text."""
    return b64encode(data).decode("ascii")


def script_json(value: object) -> str:
    """JSON that stays data inside a script element, whatever its texts are."""
    text = json.dumps(value, ensure_ascii=True, allow_nan=False, separators=(",", ":"))
    return text.replace("&", "\\u0026").replace("<", "\\u003c").replace(">", "\\u003e")
