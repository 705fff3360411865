"""Mask one item, look at what came out, and ask why a pixel is what it is.

The item is simulated; give the path or URL of your own instead: python examples/01_mask_one_item.py path/to/item.json
Runs anywhere and offline, and writes into output/mask_one_item.
"""

from __future__ import annotations

import sys
from pathlib import Path

import pystac
import rasterio

import stac_cloudmask as scm
from stac_cloudmask.review.explain import explain
from stac_cloudmask.simulate.scene import Recipe, write_simulated_item

OUT = Path("output/mask_one_item")


def main() -> None:
    """Mask, read back, explain."""
    source = sys.argv[1] if len(sys.argv) > 1 else str(write_simulated_item(OUT, Recipe(height=512, width=512)))

    # 1. An item in, an item out; votes and probabilities are kept so that it can be explained
    (result,) = scm.process(source, out=OUT / "masks", settings=scm.Settings(votes=True, probabilities=True))
    if result.output is None:
        sys.exit(result.error)
    print(result.status, result.item_id)

    # 2. The output is an ordinary STAC item: classes with their share, and where the mask came from
    item = pystac.Item.from_file(result.output)
    for kind in item.assets["cloud_mask"].extra_fields["classification:classes"]:
        print(f"{kind['value']:>3} {kind['name']:<13} {kind.get('percentage', 0):5.1f} %")
    print("the product's own cloud cover:", f"{result.product_cover:.1f} %" if result.product_cover else "not stated")
    print("made by:", [link.title for link in item.links if link.rel == "derived_from"])

    # 3. The mask is an ordinary GeoTIFF
    with rasterio.open(item.assets["cloud_mask"].get_absolute_href()) as file:
        print(f"{file.width} x {file.height} pixels of {file.res[0]:g} m in {file.crs}")

    # 4. Why is the middle of the scene what it is?
    west, south, east, north = item.bbox
    why = explain(item, (west + east) / 2, (south + north) / 2)
    print(f"row {why.row}, column {why.col}: {why.class_name}")
    for reason in why.reasons:
        print(" -", reason)


if __name__ == "__main__":
    main()
