"""Why one pixel of a published mask has its class."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from stac_cloudmask.core.classes import CLASSES, CloudClass
from stac_cloudmask.core.evidence import Vote
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.errors import ConfigError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.reasons import PixelFacts, reasons
from stac_cloudmask.stac.definitions import VOTES
from stac_cloudmask.stac.items import OWN, SUFFIX, output_id
from stac_cloudmask.stac.metadata import codes_in, number
from stac_cloudmask.stac.pixel import Pixel, read_pixel
from stac_cloudmask.stac.search import load_items
from stac_cloudmask.stac.walk import Failure

if TYPE_CHECKING:
    import pystac

MASK: Final = "cloud_mask"
OPTIONS: Final = {
    "mask_votes": "--votes",
    "cloud_probability": "--probabilities",
    "shadow_probability": "--probabilities",
}
"""What keeps an asset, by its key."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """One pixel of a mask.

    Attributes:
        item_id: Id of the mask's item.
        lon: Longitude that was asked for, in degrees.
        lat: Latitude.
        row: Row of the pixel, from the top.
        col: Column, from the left.
        class_name: Its class.
        scl: The product's class here; None where the item does not carry the product's mask.
        cloud_probability: Percent, rounded up; None where it was not published.
        shadow_probability: The same for cloud shadow.
        votes: Names of the votes that are set; None where they were not published.
        reasons: The chain from what the sources said to the class, in sentences.
        missing: What would tell more, and how to get it.
    """

    item_id: str
    lon: float
    lat: float
    row: int
    col: int
    class_name: str
    scl: int | None
    cloud_probability: int | None
    shadow_probability: int | None
    votes: tuple[str, ...] | None
    reasons: tuple[str, ...]
    missing: tuple[str, ...]

    def to_dict(self) -> dict[str, object]:
        """Plain values for JSON."""
        return asdict(self)


def explain(item: str | pystac.Item, lon: float, lat: float, *, catalog: str | None = None) -> Explanation:
    """Why the mask has its class at a point.

    Args:
        item: A mask's item: href, path, item, or id in ``catalog``; the source's id will do there, too.
        lon: Longitude in degrees, WGS 84.
        lat: Latitude.
        catalog: Where an id is looked up: an output catalog or a STAC API.

    Raises:
        ConfigError: It is no mask, or the point lies outside.
        ReadError: The mask cannot be read.
    """
    found = _mask_item(item, catalog)
    pixel = read_pixel(found, MASK, lon, lat)
    known = {key: read_pixel(found, key, lon, lat).value for key in OPTIONS if key in found.assets}
    missing = [f"no {key}: process the item with {option}" for key, option in OPTIONS.items() if key not in known]
    scl, without = _scl(found, lon, lat)
    votes = Vote(known["mask_votes"]) if "mask_votes" in known else None
    settings = _mapping(found.properties.get(f"{OWN}settings"))
    facts = PixelFacts(
        code=_code(found, pixel),
        votes=votes,
        scl=scl,
        cloud=_percent(known.get("cloud_probability")),
        shadow=_percent(known.get("shadow_probability")),
        merge=_merge(found),
        cloud_codes=codes_in(settings.get("scl_cloud")),
        shadow_codes=codes_in(settings.get("scl_shadow")),
    )
    return Explanation(
        item_id=found.id,
        lon=lon,
        lat=lat,
        row=pixel.row,
        col=pixel.col,
        class_name=next(info.name for info in CLASSES if info.code == facts.code),
        scl=scl,
        cloud_probability=facts.cloud,
        shadow_probability=facts.shadow,
        votes=None if votes is None else tuple(name for bit, (name, _) in enumerate(VOTES) if votes >> bit & 1),
        reasons=reasons(facts),
        missing=(*missing, *without),
    )


def _mask_item(item: str | pystac.Item, catalog: str | None) -> pystac.Item:
    if isinstance(item, str) and catalog is not None and not item.endswith((SUFFIX, ".json")):
        item = output_id(item)
    found = next(load_items([item], catalog=catalog))
    if isinstance(found, Failure):
        raise found.error
    if MASK not in found.assets:
        raise ConfigError(f"item {found.id!r} has no asset {MASK!r}: explain takes the item of a mask, not of a scene")
    return found


def _code(item: pystac.Item, pixel: Pixel) -> CloudClass:
    try:
        return CloudClass(pixel.value)
    except ValueError:
        raise UnsupportedItemError(f"item {item.id!r}: {MASK} holds {pixel.value}, which is no class") from None


def _mapping(value: object) -> Mapping[str, object]:
    return value if isinstance(value, dict) else {}


def _merge(item: pystac.Item) -> dict[str, float | str | None]:
    """Policy and parameters, which are numbers."""
    stated = _mapping(item.properties.get(f"{OWN}merge"))
    return {name: number(value) for name, value in stated.items()} | {"policy": str(stated.get("policy"))}


def _percent(value: int | None) -> int | None:
    return None if value == PERCENT_NODATA else value


def _scl(item: pystac.Item, lon: float, lat: float) -> tuple[int | None, tuple[str, ...]]:
    """The product's class, or why it is not known."""
    key = item.properties.get(f"{OWN}product_mask")
    if not isinstance(key, str):
        return None, ()
    if key not in item.assets:
        return None, (f"no {key}: the item was made with --mask-only",)
    try:
        return read_pixel(item, key, lon, lat).value, ()
    except StacCloudmaskError as error:
        return None, (f"no {key}: {error}",)
