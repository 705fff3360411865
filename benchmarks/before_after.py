"""Render the picture of the README: a cut of a real scene, the product's own mask on it, and the improved one.

python benchmarks/before_after.py [--data ../shared/data] [--out docs/img/before_after.webp]
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Final

import numpy as np
from accuracy import DATA, scenes
from pictures import MASK_COLORS, OUT, encoded, over, panel, true_color
from PIL import Image

from stac_cloudmask.config import Settings
from stac_cloudmask.core.classes import CloudClass
from stac_cloudmask.pipeline.mask import make_mask

SCENE: Final = "alberta_20200720"
CUT: Final = np.s_[60:420, 190:550]
"""Rows and columns, 30 m each."""


def main() -> None:
    """Write the picture."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data", type=Path, default=DATA, help="folder with a catalog.json")
    parser.add_argument("--out", type=Path, default=OUT / "before_after.webp", help="file to write")
    given = parser.parse_args()
    picture = encoded(draw(given.data))
    given.out.parent.mkdir(parents=True, exist_ok=True)
    given.out.write_bytes(picture)
    print(f"{given.out.name}: {len(picture) / 1000:.0f} kB")


def draw(data: Path) -> Image.Image:
    """Three panels in a row: the scene, its SCL, the improved mask."""
    (item,) = [item for item in scenes(data) if item.id == SCENE]
    mask = make_mask(item, settings=Settings())
    product = mask.evidence.product
    if product is None:
        raise ValueError(f"{SCENE} has no SCL")
    classes = product.classes(0, mask.grid.height)
    before = np.full(classes.shape, CloudClass.CLEAR, np.uint8)
    before[np.isin(classes, product.shadow_codes)] = CloudClass.CLOUD_SHADOW
    before[np.isin(classes, product.cloud_codes)] = CloudClass.CLOUD
    before[classes == 0] = CloudClass.NODATA
    own = replace(mask, decision=replace(mask.decision, class_map=before))
    scene = true_color(item)
    panels = [
        panel("Sentinel-2 L2A, 20 July 2020", scene[CUT], {}),
        panel("the product's own mask (SCL)", over(scene, own)[CUT], MASK_COLORS),
        panel("stac_cloudmask", over(scene, mask)[CUT], MASK_COLORS),
    ]
    width, height = panels[0].size
    sheet = Image.new("RGB", (3 * width + 8, height), "white")
    for number, one in enumerate(panels):
        sheet.paste(one, (number * (width + 4), 0))
    return sheet


if __name__ == "__main__":
    main()
