"""Rasters spoilt at random, through a whole run from item to published mask."""

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
from rasterio.transform import Affine

from fuzz import canaries, tiny
from fuzz.spoil import spoilt_bytes
from stac_cloudmask.config import Settings
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.pipeline.item import process_item
from stac_cloudmask.stac.parse import parse_item

Spoil = Callable[[Path, random.Random], None]


def _noise(path: Path, chance: random.Random) -> None:
    path.write_bytes(spoilt_bytes(path.read_bytes(), chance))


def _tiles(path: Path, chance: random.Random) -> None:
    path.write_bytes(spoilt_bytes(path.read_bytes(), chance, header=10**9))


def _cut(path: Path, chance: random.Random) -> None:
    content = path.read_bytes()
    path.write_bytes(content[: chance.randrange(len(content))])


def _tags(path: Path, chance: random.Random) -> None:
    """An absurd value in one of the fields of the TIFF directory: sizes, tiles, bits, samples, compression."""
    content = bytearray(path.read_bytes())
    start = int.from_bytes(content[4:8], "little")
    count = int.from_bytes(content[start : start + 2], "little")
    entry = start + 2 + 12 * chance.randrange(count)
    value = chance.choice([0, 1, 3, 7, 2**16 - 1, 2**31 - 1, 2**32 - 1, 100_000, chance.randrange(2**32)])
    content[entry + 8 : entry + 12] = value.to_bytes(4, "little")
    if chance.random() < 0.3:
        content[entry + 2 : entry + 4] = chance.randrange(20).to_bytes(2, "little")
    path.write_bytes(bytes(content))


def _other_type(path: Path, chance: random.Random) -> None:
    pixels, gsd = tiny.pixels_of(path.stem)
    kind = chance.choice(["float32", "float64", "int16", "int32", "uint8", "uint16", "uint32", "complex64"])
    other = pixels.astype(kind)
    if kind.startswith("float"):
        other[::7], other[1::7], other[2::7] = np.nan, np.inf, -np.inf
    tiny.write_raster(path, other, gsd)


def _many_bands(path: Path, chance: random.Random) -> None:
    pixels, gsd = tiny.pixels_of(path.stem)
    tiny.write_raster(path, np.stack([pixels] * chance.choice([2, 4, 200])), gsd)


def _constant(path: Path, chance: random.Random) -> None:
    pixels, gsd = tiny.pixels_of(path.stem)
    most = np.iinfo(pixels.dtype).max
    tiny.write_raster(path, np.full_like(pixels, chance.choice([0, 1, most, most - 1])), gsd)


def _other_size(path: Path, chance: random.Random) -> None:
    pixels, gsd = tiny.pixels_of(path.stem)
    height, width = chance.choice([(1, 1), (96, 95), (7, 96), (48, 48), (33, 200)])
    tiny.write_raster(path, np.resize(pixels, (height, width)), gsd)


def _other_place(path: Path, chance: random.Random) -> None:
    pixels, gsd = tiny.pixels_of(path.stem)
    moved = Affine(gsd, 0, tiny.LEFT, 0, -gsd, tiny.TOP)
    profile: list[dict[str, Any]] = [
        {"crs": "EPSG:4326"},
        {"crs": None},
        {"crs": "EPSG:32634"},
        {"crs": "EPSG:2263"},
        {"transform": moved * Affine.rotation(10)},
        {"transform": moved * Affine.translation(0.5, 0)},
        {"transform": moved * Affine.scale(1, 2)},
        {"transform": moved * Affine.scale(1, -1)},
        {"transform": Affine.identity()},
        {"nodata": 5},
        {"nodata": None},
    ]
    tiny.write_raster(path, pixels, gsd, **chance.choice(profile))


def _other_layout(path: Path, chance: random.Random) -> None:
    """Good files all of them, laid out in unusual ways."""
    pixels, gsd = tiny.pixels_of(path.stem)
    layouts: list[dict[str, Any]] = [
        {"tiled": False, "blockysize": 1},
        {"tiled": False, "blockysize": 96},
        {"blockxsize": 16, "blockysize": 512},
        {"BIGTIFF": "YES"},
        {"compress": "lzw", "predictor": 2},
        {"compress": None, "SPARSE_OK": True},
        {"ENDIANNESS": "BIG"},
    ]
    layout = dict(chance.choice(layouts))
    if layout.get("tiled") is False:
        layout |= {"blockxsize": None}
    tiny.write_raster(path, pixels, gsd, **{key: value for key, value in layout.items() if value is not None})


def _stranger(path: Path, chance: random.Random) -> None:
    contents = [b"", b"II*\0", b"<html>503</html>", b"\0" * 5000, b"<VRTDataset rasterXSize='1' rasterYSize='1'/>"]
    path.write_bytes(chance.choice(contents))


def _gone(path: Path, chance: random.Random) -> None:
    path.unlink()
    if chance.random() < 0.5:
        path.mkdir()


def _nothing(path: Path, chance: random.Random) -> None:
    """A good scene must be processed."""


KINDS: Final[dict[str, Spoil]] = {
    "noise in the header": _noise,
    "noise anywhere": _tiles,
    "cut short": _cut,
    "absurd TIFF fields": _tags,
    "another data type, NaN, inf": _other_type,
    "many bands": _many_bands,
    "all nodata or saturated": _constant,
    "another size": _other_size,
    "another place or nodata": _other_place,
    "another layout": _other_layout,
    "no raster at all": _stranger,
    "missing": _gone,
    "not spoilt": _nothing,
}
OFTEN: Final = ("noise in the header", "noise anywhere", "cut short", "absurd TIFF fields")


@dataclass(frozen=True)
class Workshop:
    """A folder in which scenes are made, spoilt and masked."""

    root: Path

    @cached_property
    def good(self) -> Path:
        """Where the good scene and the model lie."""
        folder = self.root / "good"
        folder.mkdir()
        tiny.write_scene(folder)
        tiny.write_model(folder)
        return folder

    def case(self, seed: int) -> str:
        """Try one scene; what came of it, in a word.

        Raises:
            Exception: A promise was broken.
        """
        chance = random.Random(seed)
        scene, out = self.root / "scene", self.root / "out"
        for folder in (scene, out):
            shutil.rmtree(folder, ignore_errors=True)
        shutil.copytree(self.good, scene)
        names = [name for name in KINDS if chance.random() < 0.5 or name not in OFTEN] + [*OFTEN] * 3
        kind = chance.choice(names)
        for path in chance.sample([scene / f"{key}.tif" for key in (*tiny.BANDS, "scl")], chance.choice([1, 1, 3])):
            KINDS[kind](path, chance)
        before = tree(self.root, out)
        try:
            word = self._masked(scene, out, chance)
        except StacCloudmaskError as error:
            canaries.check_error(error)
            if kind == "not spoilt":
                raise AssertionError("a good scene was refused") from error
            if list(out.rglob("*.tif")) or list(out.rglob("*_cloudmask.json")):
                raise AssertionError("a failed item left files behind") from error
            word = type(error).__name__
        if tree(self.root, out) != before:
            raise AssertionError("something outside of the output was changed")
        return word

    def _masked(self, scene: Path, out: Path, chance: random.Random) -> str:
        body = tiny.item_body(chance, title=chance.choice(canaries.TEXTS))
        item = parse_item(body, origin=str(scene / "item.json"))
        result = process_item(item, settings=_settings(self.good / "tiny.json", chance), out=str(out))
        text = json.dumps(result.to_dict(), allow_nan=False)
        canaries.check(text, "result")
        _check_output(Path(str(result.output)))
        return "processed"


def _settings(model: Path, chance: random.Random) -> Settings:
    return Settings(
        cloud_model=(str(model),),
        shadow_model=str(model),
        loader=chance.choice(["stackstac", "odc"]),
        merge=chance.choice(["calibrated", "union", "farmvibes"]),
        in_memory=chance.random() < 0.3,
        votes=chance.random() < 0.2,
        probabilities=chance.random() < 0.2,
        missing_scl=chance.choice(["fail", "model-only"]),
        resolution=chance.choice([None, None, 20.0]),
        threads=1,
    )


def _check_output(item: Path) -> None:
    text = item.read_text()
    canaries.check(text, "output item")
    body = json.loads(text)
    stated = {entry["value"]: entry["count"] for entry in body["assets"]["cloud_mask"]["classification:classes"]}
    with rasterio.open(item.parent / "cloud_mask.tif") as file:
        codes, counts = np.unique(file.read(1), return_counts=True)
        found = dict(zip(codes.tolist(), counts.tolist(), strict=True))
        if list(file.shape) != body["properties"]["proj:shape"]:
            raise AssertionError("the mask is not of the stated size")
    if {code: count for code, count in stated.items() if count} != found or not found.keys() <= {0, 1, 2, 255}:
        raise AssertionError(f"the item states {stated}, the mask holds {found}")


def tree(root: Path, but: Path) -> dict[str, int]:
    """Files below a folder with their times, without those below ``but``."""
    return {
        str(path): path.stat().st_mtime_ns
        for path in sorted(root.rglob("*"))
        if path.is_file() and not path.is_relative_to(but)
    }
