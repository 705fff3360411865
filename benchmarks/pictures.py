"""Render the pictures of docs/accuracy.md: RGB, SCL, the improved mask and its votes, of real scenes.

python benchmarks/pictures.py [--data ../shared/data] [--out docs/img]
"""

from __future__ import annotations

import argparse
import io
import warnings
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

import numpy as np
import rasterio
from accuracy import DATA, scenes
from PIL import Image, ImageDraw, ImageFont

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.votes import Vote
from stac_cloudmask.errors import StacCloudmaskWarning
from stac_cloudmask.pipeline.mask import make_mask
from stac_cloudmask.stac.bands import resolve

if TYPE_CHECKING:
    from collections.abc import Iterable

    import pystac
    from numpy.typing import NDArray

    from stac_cloudmask.pipeline.mask import Mask

    Rgb = NDArray[np.uint8]
    Color = tuple[int, int, int]

OUT: Final = Path(__file__).resolve().parents[1] / "docs" / "img"
SHOWN: Final = (
    "ireland_20221005", "alberta_20200411", "alberta16_20200501", "exeter_20240602", "exeter_20240816",
    "alberta_20200625", "S2A_33TWL_20230818_0_L2A", "S2A_29RKH_20200219_0_L2A", "bolzano_20220612", "cloudn_chip2",
)  # fmt: skip
"""The scenes of the page, by item id."""
SIDE: Final = 480
"""Longest side of a panel in pixels."""
MOST_BYTES: Final = 200_000
BAR: Final = 26
"""Height of a line of text in pixels."""
TEXT: Final = 18
"""Size of the text in pixels, where it fits."""
GAP: Final = 14
"""Pixels between the words of a legend, with those between a word and its square."""

SCL_COLORS: Final[tuple[Color, ...]] = (
    (0, 0, 0), (255, 0, 0), (60, 60, 60), (110, 60, 20), (30, 140, 40), (230, 210, 90), (30, 60, 220),
    (128, 128, 128), (190, 190, 190), (255, 255, 255), (110, 200, 255), (255, 150, 255),
)  # fmt: skip
"""As Sen2Cor paints its classes."""
SCL_LEGEND: Final = {"3 shadow": 3, "4 plants": 4, "5 soil": 5, "6 water": 6, "8, 9 cloud": 9, "10 cirrus": 10}
MASK_COLORS: Final[dict[str, Color]] = {info.title.lower(): info.rgb for info in CLASSES if info.painted}
VOTE_COLORS: Final[dict[str, Color]] = {
    "cloud: both": (255, 255, 255),
    "model": (255, 175, 60),
    "product": (110, 200, 255),
    "shadow: both": (150, 110, 230),
    "model ": (120, 70, 30),
    "product ": (40, 60, 130),
    "removed": (215, 45, 45),
    "added": (250, 235, 80),
}
"""Who voted: the product's mask, the model, or both; then what the policy took away and the buffer added."""


def main() -> None:
    """Write a picture for every scene."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument(
        "--data", type=Path, nargs="+", default=[DATA / "hard", DATA], help="folders with a catalog.json"
    )
    parser.add_argument("--out", type=Path, default=OUT, help="folder for the pictures")
    given = parser.parse_args()
    warnings.simplefilter("ignore", StacCloudmaskWarning)
    given.out.mkdir(parents=True, exist_ok=True)
    for item in (item for folder in given.data for item in scenes(folder)):
        if item.id not in SHOWN:
            continue
        picture = encoded(draw(item))
        (given.out / f"{item.id}.webp").write_bytes(picture)
        print(f"{item.id}.webp: {len(picture) / 1000:.0f} kB")


def draw(item: pystac.Item) -> Image.Image:
    """Four panels, two by two, each with a title and the legend of its colors."""
    has_scl = any(key.lower() == "scl" for key in item.assets)
    mask = make_mask(item, settings=Settings(missing_scl="fail" if has_scl else "model-only"))
    scene = true_color(item)
    product = mask.evidence.product
    scl = np.zeros(mask.grid.shape, np.uint8) if product is None else product.classes(0, mask.grid.height)
    legend = {name: SCL_COLORS[code] for name, code in SCL_LEGEND.items()}
    height, width = mask.grid.shape
    panels = [
        panel(f"{item.id}, {width} x {height} pixels of {mask.grid.gsd:g} m", scene, {}),
        panel("SCL" if has_scl else "no SCL", np.array(SCL_COLORS, np.uint8)[scl], legend if has_scl else {}),
        panel("improved", over(scene, mask), MASK_COLORS),
        panel("votes", votes_of(mask), VOTE_COLORS),
    ]
    width, height = panels[0].size
    sheet = Image.new("RGB", (2 * width + 4, 2 * height + 4), "white")
    for i, one in enumerate(panels):
        sheet.paste(one, ((i % 2) * (width + 4), (i // 2) * (height + 4)))
    return sheet


def true_color(item: pystac.Item) -> Rgb:
    """Red, green and blue up to the 99th percentile, brightened."""
    sources = resolve(item, ("red", "green", "blue"), want_scl=False).bands
    dn = np.stack([read(source.href) for source in sources]).astype(np.float32)
    dn = np.maximum(dn + np.array([source.offset.dn for source in sources])[:, None, None], 0)
    white = np.percentile(dn[:, dn.all(axis=0)], 99)
    return (255 * np.clip(dn / white, 0, 1) ** 0.6).astype(np.uint8).transpose(1, 2, 0)


def read(href: str) -> NDArray[Any]:
    """The first band."""
    with rasterio.open(href) as source:
        return source.read(1)


def over(scene: Rgb, mask: Mask) -> Rgb:
    """The scene, tinted by class."""
    out = scene.copy()
    for code, color in zip((CloudClass.CLOUD, CloudClass.CLOUD_SHADOW), MASK_COLORS.values(), strict=True):
        where = mask.decision.class_map == code
        out[where] = 0.45 * out[where] + 0.55 * np.array(color)
    out[mask.decision.class_map == CloudClass.NODATA] = 0
    return out


def votes_of(mask: Mask) -> Rgb:
    """One color for who voted; removed and added votes have their own. Clear ground is dark."""
    votes, code = mask.decision.votes, mask.decision.class_map
    both, model, product, shadow_both, shadow_model, shadow_product, removed, added = VOTE_COLORS.values()
    out = np.full((*votes.shape, 3), 30, np.uint8)
    for first, second, colors, where in (
        (Vote.PRODUCT_CLOUD, Vote.CLOUD_MODEL, (product, model, both), code != CloudClass.CLOUD_SHADOW),
        (Vote.PRODUCT_SHADOW, Vote.SHADOW_MODEL, (shadow_product, shadow_model, shadow_both), code != CloudClass.CLOUD),
    ):
        for bits, color in zip((first, second, first | second), colors, strict=True):
            out[where & ((votes & int(first | second)) == int(bits))] = color
    out[(votes & int(Vote.REMOVED)) > 0] = removed
    out[(votes & int(Vote.ADDED)) > 0] = added
    out[code == CloudClass.NODATA] = 0
    return out


def panel(title: str, pixels: Rgb, legend: dict[str, Color]) -> Image.Image:
    """An image of at most `SIDE` pixels with a title above and a legend below."""
    image = Image.fromarray(pixels)
    scale = SIDE / max(image.size)
    size = (round(image.width * scale), round(image.height * scale))
    how = Image.Resampling.LANCZOS if not legend else Image.Resampling.NEAREST
    sheet = Image.new("RGB", (size[0], size[1] + 2 * BAR), "white")
    sheet.paste(image.resize(size, how), (0, BAR))
    pen = ImageDraw.Draw(sheet)
    pen.text((3, 3), title, fill="black", font=fitting([title], size[0]))
    font = fitting(legend, size[0])
    left, side = 3.0, font.size * 0.7
    for name, color in legend.items():
        top = size[1] + BAR + 3 + 0.3 * font.size
        pen.rectangle((left, top, left + side, top + side), fill=color, outline="black")
        pen.text((left + side + 4, size[1] + BAR + 3), name, fill="black", font=font)
        left += side + GAP + pen.textlength(name, font=font)
    return sheet


def fitting(words: Iterable[str], width: int) -> ImageFont.FreeTypeFont:
    """The largest font in which words with colored squares before them fit in a line."""
    fonts = (cast("ImageFont.FreeTypeFont", ImageFont.load_default(size)) for size in range(TEXT, 8, -1))
    return next(f for f in fonts if sum(f.getlength(word) + 0.7 * f.size + GAP for word in words) <= width)


def encoded(image: Image.Image) -> bytes:
    """WebP in the best quality that stays small."""
    for quality in (90, 80, 70, 60, 50, 40, 30, 20):
        buffer = io.BytesIO()
        image.save(buffer, "WEBP", quality=quality, method=6)
        if buffer.tell() < MOST_BYTES:
            break
    return buffer.getvalue()


if __name__ == "__main__":
    main()
