"""Why a pixel has its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from stac_cloudmask.core.calibrated import SCL_CIRRUS
from stac_cloudmask.core.classes import CLASSES, SCL_CLASSES, CloudClass
from stac_cloudmask.core.merge import CLOUD_VOTES
from stac_cloudmask.core.policy import RULES
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA, Vote
from stac_cloudmask.errors import ConfigError, StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.review.layers import MASK
from stac_cloudmask.stac.assets import OWN, VOTES
from stac_cloudmask.stac.item import SUFFIX, output_id
from stac_cloudmask.stac.metadata import codes_in, number
from stac_cloudmask.stac.search import load_items
from stac_cloudmask.stac.static import Failure
from stac_cloudmask.stac.warp import Pixel, read_pixel

if TYPE_CHECKING:
    import pystac

CERTAIN: Final = f"a mean cloud probability of {RULES.certain} % over {RULES.cell:g} m, or trusted cloud of SCL"
HINTED: Final = (
    f"the model finds more than {RULES.hint} % of cloud in {100 * RULES.support:g} % of what lies within "
    f"{RULES.around:g} m, or thin cloud veils the ground"
)
VEILED: Final = f"the model finds more than {RULES.cirrus} % of cloud, or thin cloud veils the ground"


@dataclass(frozen=True, kw_only=True)
class PixelRecord:
    """All that is published of one pixel; None where it is not.

    Attributes:
        code: Its class.
        votes: Who said what.
        scl: The product's class.
        cloud: Cloud probability in percent, rounded up.
        shadow: The same for cloud shadow.
        merge: Policy and parameters, by the names of the item.
        cloud_codes: Product classes that vote cloud.
        shadow_codes: Product classes that vote shadow.
    """

    code: CloudClass
    votes: Vote | None
    scl: int | None
    cloud: int | None
    shadow: int | None
    merge: Mapping[str, float | str | None]
    cloud_codes: tuple[int, ...]
    shadow_codes: tuple[int, ...]


def reasons(facts: PixelRecord) -> tuple[str, ...]:
    """The chain from what the sources said to the class of a pixel."""
    if facts.code == CloudClass.NODATA:
        return ("no data: a band has no data here, or SCL says so",)
    said = [*_product(facts), *_models(facts)]
    if facts.votes is None:
        return tuple(said)
    return (*said, *(_calibrated(facts) if facts.merge.get("policy") == "calibrated" else _simple(facts)))


def _product(facts: PixelRecord) -> Iterator[str]:
    if facts.scl is not None:
        vote = "no vote"
        if facts.scl in facts.cloud_codes:
            vote = "a vote for cloud"
        elif facts.scl in facts.shadow_codes:
            vote = "a vote for cloud shadow"
        name = SCL_CLASSES[facts.scl].title.lower() if facts.scl < len(SCL_CLASSES) else "unknown"
        yield f"SCL is {facts.scl} ({name}): {vote}"
    elif facts.votes is not None and facts.votes & Vote.PRODUCT_CLOUD:
        yield "SCL votes for cloud"
    elif facts.votes is not None and facts.votes & Vote.PRODUCT_SHADOW:
        yield "SCL votes for cloud shadow"


def _models(facts: PixelRecord) -> Iterator[str]:
    for name, percent, bit, setting in (
        ("cloud", facts.cloud, Vote.CLOUD_MODEL, "cloud_thr"),
        ("cloud shadow", facts.shadow, Vote.SHADOW_MODEL, "shadow_thr"),
    ):
        threshold = f"{100 * float(facts.merge.get(setting) or 0):g} %"
        if percent is not None:
            above = percent > round(100 * float(facts.merge.get(setting) or 0))
            verb = "above the threshold of" if above else "not above the threshold of"
            yield f"the probability of {name} is {percent} %, {verb} {threshold}: {'a' if above else 'no'} vote"
        elif facts.votes is not None:
            voted = bool(facts.votes & bit)
            yield f"the model's probability of {name} is {'above' if voted else 'not above'} {threshold}"


def _simple(facts: PixelRecord) -> Iterator[str]:
    votes = facts.votes or Vote(0)
    if votes & Vote.BUFFER:
        yield _buffer(facts)
    elif facts.code != CloudClass.CLEAR:
        yield f"policy {facts.merge.get('policy')}: any vote counts, cloud before shadow"
    elif votes & Vote.REMOVED:
        yield f"removed: its object is smaller than {facts.merge.get('min_area') or 0:g} m2"
    else:
        yield "no source flags it: clear"


def _calibrated(facts: PixelRecord) -> Iterator[str]:
    votes = facts.votes or Vote(0)
    if votes & Vote.REMOVED:
        yield from (f"removed: {why}" for why in _removals(facts, votes))
    if votes & Vote.BUFFER:
        yield _buffer(facts)
    elif facts.code == CloudClass.CLOUD:
        yield _cloud(facts, votes)
    elif facts.code == CloudClass.CLOUD_SHADOW:
        yield f"shadow: {_lit(facts, dark=True)}"
        if votes & CLOUD_VOTES:
            yield "its votes for cloud are dropped, as the shadow probability exceeds the cloud probability"
    elif not votes:
        yield "no source flags it: clear"


def _cloud(facts: PixelRecord, votes: Vote) -> str:
    if votes & Vote.CLOUD_MODEL:
        return f"cloud: its object is certain somewhere, by {CERTAIN}"
    if facts.scl == SCL_CIRRUS:
        return f"cloud: thin cirrus of SCL counts where {VEILED}"
    return f"cloud: a cloud of SCL is trusted where {HINTED}"


def _removals(facts: PixelRecord, votes: Vote) -> Iterator[str]:
    """What can have removed votes; the survey of the whole scene, which decided, is not kept."""
    if votes & Vote.CLOUD_MODEL:
        yield f"no part of the model's cloud is certain, by {CERTAIN}"
    elif votes & Vote.PRODUCT_CLOUD and facts.scl == SCL_CIRRUS:
        yield f"thin cirrus of SCL counts only where {VEILED}"
    elif votes & Vote.PRODUCT_CLOUD:
        yield f"a cloud of SCL is trusted only where {HINTED}"
    if votes & Vote.SHADOW_MODEL:
        yield _lit(facts, dark=False)
    elif votes & Vote.PRODUCT_SHADOW:
        yield from _product_shadow(facts)
    if facts.merge.get("min_area"):
        yield f"or its object is smaller than {facts.merge['min_area']:g} m2"


def _product_shadow(facts: PixelRecord) -> Iterator[str]:
    if facts.shadow is None or facts.shadow <= RULES.hint:
        yield f"shadow of SCL counts only where the model finds more than {RULES.hint} % of shadow"
    if facts.shadow is None or facts.shadow > RULES.hint:
        yield _lit(facts, dark=False)


def _lit(facts: PixelRecord, *, dark: bool) -> str:
    """What sun and near infrared say for shadow (``dark``) or against it."""
    azimuth, elevation, edge = (facts.merge.get(name) for name in ("sun_azimuth", "sun_elevation", "shadow_edge"))
    parts = []
    if azimuth is not None and elevation is not None:
        sun = f"with the sun at azimuth {azimuth:.0f} and elevation {elevation:.0f} degrees"
        parts.append(f"{'a' if dark else 'no'} cloud that was found can cast it here {sun}")
    if edge is not None:
        level = f"{100 * float(edge):.0f} % of what lit ground nearby has"
        parts.append(f"its near infrared is {'at most' if dark else 'more than'} {level}")
    if not parts:
        return "votes for shadow count, as neither sun nor near infrared is known" if dark else "cloud is close"
    return (" and " if dark else ", or ").join(parts)


def _buffer(facts: PixelRecord) -> str:
    name, setting = ("cloud", "cloud_buffer") if facts.code == CloudClass.CLOUD else ("cloud shadow", "shadow_buffer")
    return f"added: {name} lies within {facts.merge.get(setting) or 0:g} m"


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
        ConfigError: It is not a mask, or the point lies outside.
        ReadError: The mask cannot be read.
    """
    found = _mask_item(item, catalog)
    pixel = read_pixel(found, MASK, lon, lat)
    known = {key: read_pixel(found, key, lon, lat).value for key in OPTIONS if key in found.assets}
    missing = [f"no {key}: process the item with {option}" for key, option in OPTIONS.items() if key not in known]
    scl, without = _scl(found, lon, lat)
    votes = Vote(known["mask_votes"] % VOTES_NODATA) if "mask_votes" in known else None
    settings = _mapping(found.properties.get(f"{OWN}settings"))
    facts = PixelRecord(
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
        raise UnsupportedItemError(f"item {item.id!r}: {MASK} holds {pixel.value}, which is not a class") from None


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
