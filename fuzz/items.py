"""Items and settings spoilt at random, through everything that happens before a file is opened."""

from __future__ import annotations

import json
import os
import random
from dataclasses import fields
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, get_args

import pystac

from fuzz import canaries
from fuzz.spoil import JUNK, spoil
from stac_cloudmask.config import BoaOffset, Loader, Merge, MissingScl, Runtime, Settings
from stac_cloudmask.core.grid import Grid
from stac_cloudmask.errors import StacCloudmaskError
from stac_cloudmask.pipeline.item import plan_item
from stac_cloudmask.pipeline.mask import href_rule, resolve_sources
from stac_cloudmask.stac.hrefs import is_remote
from stac_cloudmask.stac.mask_item import MaskFacts, ModelUse, mask_item
from stac_cloudmask.stac.parse import Failure, items_in, parse_item
from stac_cloudmask.stac.search import Query

if TYPE_CHECKING:
    from stac_cloudmask.stac.bands import Sources

ORIGINS: Final = ("https://stac.example.com/c/items/i", "s3://bucket/c/i.json", "/data/items/i.json", None)
MODELS: Final = ("ukis-csmask-4b-l2a", "ukis-csmask-6b-l2a")
INTERVALS: Final = ("2020-01-01T00:00:00Z/..", "../2021-01-01T00:00:00Z", "2020-06-01T00:00:00Z", None)
GOOD: Final[dict[str, tuple[Any, ...]]] = {
    "cloud_model": ((MODELS[0],), MODELS, (MODELS[0], MODELS[0])),
    "shadow_model": MODELS,
    "cloud_thr": (None, 0.0, 0.3, 1.0),
    "shadow_thr": (None, 0.2, 0.99),
    "merge": get_args(Merge),
    "loader": get_args(Loader),
    "missing_scl": get_args(MissingScl),
    "boa_offset": get_args(BoaOffset),
    "provider": get_args(Runtime),
    "buffer": (None, 0.0, 120.0),
    "min_area": (None, 0.0, 5000.0),
    "hole_area": (None, 0.0, 5000.0),
    "resolution": (None, 10.0, 20.0, 60.0),
    "scl_cloud": ((8, 9, 10), (9,), ()),
    "scl_shadow": ((3,), (2, 3)),
    "mask_only": (False, True),
    "private_hosts": ((), ("10.0.0.1",)),
    "local_roots": (None, (), ("/data",)),
    "threads": (None, 1, 2),
}
"""Values that work, by setting; those of settings that are not listed stay as they are."""


def load_bodies(folder: Path) -> list[str]:
    """The JSON of all items in a folder, of any provider, with secrets in their hrefs."""
    contents = [json.loads(path.read_text()) for path in sorted(folder.glob("*.json"))]
    features = [feature for body in contents for feature in body.get("features", [body])]
    return [json.dumps(canaries.sign_hrefs(feature)) for feature in features]


def settings_of(chance: random.Random) -> Settings:
    """Settings of which most work and some cannot.

    Raises:
        ConfigError: They cannot.
    """
    chosen = {name: chance.choice(values) for name, values in GOOD.items() if chance.random() < 0.3}
    if chance.random() < 0.15:
        name = chance.choice([field.name for field in fields(Settings)])
        chosen[name] = chance.choice([*JUNK, *canaries.TEXTS, ("x",), (1, 8), 0.123, 1e-9, -5.0])
    return Settings(**chosen)


def case(bodies: list[str], seed: int) -> str:
    """Try one item with one choice of settings; what came of it, in a word.

    Raises:
        Exception: A promise was broken.
    """
    chance = random.Random(seed)
    try:
        return _tried(bodies, chance)
    except StacCloudmaskError as error:
        canaries.check_error(error)
        json.dumps(str(error))
        return type(error).__name__


def _tried(bodies: list[str], chance: random.Random) -> str:
    body = json.loads(chance.choice(bodies))
    if chance.random() < 0.9:
        spoil(body, chance)
    if chance.random() < 0.15:
        canaries.plant(body, chance)
    settings = settings_of(chance)
    origin = chance.choice(ORIGINS)
    document = body if chance.random() < 0.8 else {"type": "FeatureCollection", "features": [body]}
    rule = href_rule(settings)
    item = parse_item(body, origin=None, rule=rule) if origin is None else next(items_in(document, origin, rule=rule))
    if isinstance(item, Failure):
        raise item.error
    _searched(item, chance)
    plan = plan_item(item, settings=settings)
    sources = resolve_sources(item, settings=settings)
    _check_sources(sources, origin)
    made = mask_item(item, _facts(sources, plan.fingerprint, settings, chance))
    _check_item(made, item, origin)
    return "processed"


def _searched(item: pystac.Item, chance: random.Random) -> None:
    wanted = Query(
        bbox=chance.choice([None, (0, 0, 1, 1), (170, -20, -170, 80)]),
        datetime=chance.choice(INTERVALS),
        max_cloud_cover=chance.choice([None, 0, 50]),
    )
    if wanted.matches(item) not in {True, False}:
        raise AssertionError("a filter gives True or False")


def _check_sources(sources: Sources, origin: str | None) -> None:
    every = [*sources.bands, *([sources.scl] if sources.scl else [])]
    for source in every:
        if origin is not None and is_remote(origin) and not is_remote(source.href):
            raise AssertionError(f"a remote item reads the local file {source.href}")
        if not abs(source.offset.dn) <= 10_000 or not 1e-6 <= source.scale <= 1:
            raise AssertionError(f"offset {source.offset.dn} and scale {source.scale} are absurd")


def _facts(sources: Sources, fingerprint: str, settings: Settings, chance: random.Random) -> MaskFacts:
    side = chance.choice([1, 100, 10980])
    grid = Grid(epsg=32633, left=300000, top=5000040, gsd=10, height=side, width=side)
    share = chance.randint(0, side * side)
    file = {"file:size": 1234, "file:checksum": "1220" + "ab" * 32}
    return MaskFacts(
        settings=settings,
        sources=sources,
        source_id=sources.item_id,
        collection_id="made-up-cloudmask",
        models=(ModelUse(name="m", roles=("cloud",), sha256="ab" * 32, href=chance.choice(canaries.TEXTS[1:3])),),
        grid=grid,
        counts={0: share, 1: side * side - share, 2: 0, 255: 0},
        files={"cloud_mask": file},
        parameters={},
        fingerprint=fingerprint,
        created="2026-01-01T00:00:00Z",
        software={"stac_cloudmask": "1.0.0"},
        lineage="Made up.",
        notes=(),
        seconds={},
    )


def _check_item(made: dict[str, Any], source: pystac.Item, origin: str | None) -> None:
    text = json.dumps(made, allow_nan=False)
    canaries.check(text, "output item")
    text.encode()
    for name in (made["id"], made["collection"]):
        if os.sep in name or name.startswith("."):
            raise AssertionError(f"id {name!r} leads out of the catalog")
    for key, asset in made["assets"].items():
        own = asset["href"] == "./cloud_mask.tif"
        if not own and not is_remote(asset["href"]) and origin is not None and is_remote(origin):
            raise AssertionError(f"asset {key!r} of a remote item leads to the local {asset['href']}")
    if pystac.Item.from_dict(json.loads(text), migrate=False).id != f"{source.id}_cloudmask":
        raise AssertionError("the output item does not carry its source's id")
