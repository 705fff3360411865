"""Catalogs of masks that others made, spoilt at random, through every command that reads one."""

from __future__ import annotations

import json
import random
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final

import numpy as np
import rasterio

from fuzz import canaries, tiny
from fuzz.rasters import tree
from fuzz.spoil import spoil, spoilt_bytes
from stac_cloudmask.config import Settings
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.pipeline.item import process_item
from stac_cloudmask.pipeline.publish import publish
from stac_cloudmask.review.evaluate import evaluate
from stac_cloudmask.review.explain import explain
from stac_cloudmask.review.report import build_report
from stac_cloudmask.review.show import preview
from stac_cloudmask.stac.catalog import OutputCatalog
from stac_cloudmask.stac.collection import write_ndjson
from stac_cloudmask.stac.parse import parse_item

PATHS: Final = (
    "../../catalog.json",
    "../../mine/collection.json",
    "../../../outside.json",
    "/etc/hostname",
    "./../x.tif",
)
"""Where the links and assets of an item may try to lead."""
MIDDLE: Final = (12.46282, 45.12155)
"""Longitude and latitude of a pixel of the tiny scene."""


def _report(out: Path, work: Path) -> None:
    build_report(out, work / "report.html")


def _evaluate(out: Path, _: Path) -> None:
    evaluate(out, references=["scl"])


def _publish(out: Path, work: Path) -> None:
    mine = OutputCatalog(work / "copy")
    before = [path.read_bytes() for path in sorted((work / "copy" / "mine").rglob("*.json"))]
    list(publish(str(out), to=str(work / "copy")))
    after = [path.read_bytes() for path in sorted((work / "copy" / "mine").rglob("*.json"))]
    if before != after or "mine" not in {collection for collection, _ in mine.listed()}:
        raise AssertionError("a catalog of others changed what was there")


def _export(out: Path, work: Path) -> None:
    write_ndjson(OutputCatalog(out).items(), work / "items.ndjson")


def _explain(out: Path, _: Path) -> None:
    explain(str(_item_path(out)), *MIDDLE)


def _look(out: Path, _: Path) -> None:
    preview(str(_item_path(out)), side=64)


READERS: Final[tuple[Callable[[Path, Path], None], ...]] = (_report, _evaluate, _publish, _export, _explain, _look)


def _item_path(out: Path) -> Path:
    return next(path for path in sorted(out.glob("*/*/*.json")))


@dataclass(frozen=True)
class Exhibition:
    """A catalog of one mask, spoilt anew for each case and given to one of its readers.

    Attributes:
        root: Folder for all of it.
    """

    root: Path

    @cached_property
    def good(self) -> Path:
        """The catalog before it is spoilt; beside it, ``mine`` is one that it may be published to."""
        scene, chance = self.root / "scene", random.Random(0)
        scene.mkdir()
        tiny.write_scene(scene)
        model = str(tiny.write_model(scene))
        item = parse_item(tiny.item_body(chance, title="tiny"), origin=str(scene / "item.json"))
        settings = Settings(cloud_model=(model,), shadow_model=model, probabilities=True, votes=True, threads=1)
        for out, collection in ((self.root / "good", "sentinel-2-l2a"), (self.root / "copy", "mine")):
            made = process_item(item, settings=settings, out=str(out))
            if collection == "mine":
                _rename(Path(str(made.output)), out / "mine" / "theirs" / "theirs.json")
                OutputCatalog(out).link([str(out / "mine" / "theirs" / "theirs.json")])
            else:
                OutputCatalog(out).link([str(made.output)])
        return self.root / "good"

    def case(self, seed: int) -> str:
        """Spoil the catalog, and give it to one of its readers; what came of it, in a word.

        Raises:
            Exception: A promise was broken.
        """
        chance = random.Random(seed)
        good, work = self.good, self.root / "work"
        shutil.rmtree(work, ignore_errors=True)
        shutil.copytree(good, work / "out")
        shutil.copytree(self.root / "copy", work / "copy")
        _spoil(work / "out", chance)
        before = tree(self.root, work / "copy")
        try:
            chance.choice(READERS)(work / "out", work)
            word = "processed"
        except StacCloudmaskError as error:
            canaries.check_error(error)
            word = type(error).__name__
        after = tree(self.root, work / "copy")
        written = {str(work / name) for name in ("report.html", "items.ndjson", "out/.stac_cloudmask/lock")}
        if changed := {path for path, _ in after.items() ^ before.items()} - written:
            raise AssertionError(f"what is no output was changed: {changed}")
        return word


def _rename(item: Path, target: Path) -> None:
    """Make an item one of another collection and id."""
    body = json.loads(item.read_text())
    shutil.move(item.parent, target.parent)
    (target.parent / item.name).unlink()
    target.write_text(json.dumps(body | {"id": "theirs", "collection": "mine"}))


def _spoil(out: Path, chance: random.Random) -> None:
    """Spoil the item, and sometimes what lists it or the file of an asset."""
    item = _item_path(out)
    path = chance.choice([item] * 8 + [out / "catalog.json", item.parents[1] / "collection.json"])
    body: Any = json.loads(path.read_text())
    if chance.random() < 0.8:
        spoil(body, chance)
    if chance.random() < 0.15:
        canaries.plant(body, chance)
    if chance.random() < 0.1:
        body |= {"id": "theirs", "collection": "mine"}
    if chance.random() < 0.3:
        places = [place for place in _hrefs(body) if isinstance(place, dict)]
        for place in chance.sample(places, min(2, len(places))):
            place["href"] = chance.choice(PATHS)
    path.write_text(json.dumps(body))
    if chance.random() < 0.3:
        raster = item.parent / chance.choice(["cloud_mask.tif", "mask_votes.tif", "cloud_probability.tif"])
        SPOILS[chance.choice(list(SPOILS))](raster, chance)


def _hrefs(body: Any) -> list[Any]:
    """What has an href, or could have."""
    links, assets = body.get("links"), body.get("assets")
    return [*(links if isinstance(links, list) else []), *(assets.values() if isinstance(assets, dict) else [])]


def _cut(path: Path, chance: random.Random) -> None:
    path.write_bytes(spoilt_bytes(path.read_bytes(), chance))


def _values(path: Path, chance: random.Random) -> None:
    kind = chance.choice(["uint8", "uint16", "int16", "float32"])
    tiny.write_raster(path, np.full((tiny.SIDE, tiny.SIDE), chance.choice([3, 77, 254]), kind), 10.0, nodata=None)


def _elsewhere(path: Path, chance: random.Random) -> None:
    """A good file whose metadata send GDAL to another one for its overviews."""
    with rasterio.open(path, "r+", IGNORE_COG_LAYOUT_BREAK="YES") as file:
        file.update_tags(ns="OVERVIEWS", OVERVIEW_FILE=chance.choice(["/etc/hostname", str(path.parents[2] / "x.vrt")]))


def _vrt(path: Path, _: random.Random) -> None:
    source = "<SourceFilename>/etc/hostname</SourceFilename>"
    band = f'<VRTRasterBand dataType="Byte" band="1"><SimpleSource>{source}</SimpleSource></VRTRasterBand>'
    path.write_text(f'<VRTDataset rasterXSize="{tiny.SIDE}" rasterYSize="{tiny.SIDE}">{band}</VRTDataset>')


SPOILS: Final = {"bytes": _cut, "values": _values, "overviews elsewhere": _elsewhere, "a VRT": _vrt}
