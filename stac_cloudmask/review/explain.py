"""Explain why a pixel has its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Final

from stac_cloudmask.core.calibrated import RULES
from stac_cloudmask.core.classes import CLASSES, SCL_CLASSES, CloudClass, Scl
from stac_cloudmask.core.merge import CLOUD_VOTES
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA, Vote
from stac_cloudmask.errors import StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.review.layers import MASK, MASK_VOTES, Product, mask_item_of
from stac_cloudmask.stac.assets import OWN, VOTES
from stac_cloudmask.stac.mask_item import SUFFIX, output_id
from stac_cloudmask.stac.metadata import number
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.warp import read_pixel

if TYPE_CHECKING:
    import pystac

CERTAIN: Final = f"a mean cloud probability of {RULES.certain} % over 60 to 80 m, or trusted cloud of SCL"
HINTED: Final = (
    f"the model finds more than {RULES.hint} % of cloud in {100 * RULES.support:g} % of what lies within "
    f"{RULES.around:g} m, or thin cloud veils the ground"
)
VEILED: Final = f"the model finds more than {RULES.cirrus} % of cloud, or thin cloud veils the ground"
NAMES: Final = {info.code: info.name for info in CLASSES}


@dataclass(frozen=True, kw_only=True)
class PixelRecord:
    """The published values of one pixel; None if not published.

    Attributes:
        code: Its class.
        votes: The votes.
        scl: The product's class.
        improved_scl: The class in the scene classification that was made with the mask.
        cloud: Cloud probability in percent, rounded up.
        shadow: The same for cloud shadow.
        merge: Policy and parameters, by the names of the item.
        product: Meaning of the classes of SCL.
    """

    code: CloudClass
    votes: Vote | None
    scl: int | None
    improved_scl: int | None
    cloud: int | None
    shadow: int | None
    merge: Mapping[str, float | str | None]
    product: Product


def reasons(facts: PixelRecord) -> tuple[str, ...]:
    """Return the steps from the sources' votes to the class of a pixel."""
    if facts.code == CloudClass.NODATA:
        return ("no data: a band has no data here, or SCL says so",)
    decided = () if facts.votes is None else _policy(facts, facts.votes)
    return (*_product(facts), *_models(facts), *decided, *_replaced(facts))


def _scl_name(code: int) -> str:
    return f"{code} ({SCL_CLASSES[code].title.lower() if code < len(SCL_CLASSES) else 'unknown'})"


def _product(facts: PixelRecord) -> Iterator[str]:
    cloud, shadow = "cloud", "cloud shadow"
    if facts.scl is not None:
        known = dict.fromkeys(facts.product.shadow_codes, shadow) | dict.fromkeys(facts.product.cloud_codes, cloud)
        vote = f"a vote for {known[facts.scl]}" if facts.scl in known else "no vote"
        yield f"SCL is {_scl_name(facts.scl)}: {vote}"
    elif facts.votes is not None and facts.votes & (Vote.PRODUCT_CLOUD | Vote.PRODUCT_SHADOW):
        yield f"SCL votes for {cloud if facts.votes & Vote.PRODUCT_CLOUD else shadow}"


def _models(facts: PixelRecord) -> Iterator[str]:
    for name, percent, bit, setting in (
        ("cloud", facts.cloud, Vote.CLOUD_MODEL, "cloud_thr"),
        ("cloud shadow", facts.shadow, Vote.SHADOW_MODEL, "shadow_thr"),
    ):
        threshold = 100 * float(facts.merge.get(setting) or 0)
        if percent is not None:
            above, vote = ("above", "a vote") if percent > round(threshold) else ("not above", "no vote")
            yield f"the probability of {name} is {percent} %, {above} the threshold of {threshold:g} %: {vote}"
        elif facts.votes is not None:
            above = "above" if facts.votes & bit else "not above"
            yield f"the model's probability of {name} is {above} {threshold:g} %"


def _policy(facts: PixelRecord, votes: Vote) -> Iterator[str]:
    """Yield how the policy decided on the votes."""
    is_calibrated = facts.merge.get("policy") == "calibrated"
    if votes & Vote.REMOVED:
        yield from (f"removed: {why}" for why in (_removals(facts, votes) if is_calibrated else [_too_small(facts)]))
    if votes & Vote.ADDED:
        is_cloud = facts.code == CloudClass.CLOUD
        name, setting = ("cloud", "cloud_buffer") if is_cloud else ("cloud shadow", "shadow_buffer")
        yield f"added: {name} is within {facts.merge.get(setting) or 0:g} m"
    elif not votes:
        yield "no source flags it: clear"
    elif facts.code != CloudClass.CLEAR and not is_calibrated:
        yield f"policy {facts.merge.get('policy')}: any vote counts, cloud before shadow"
    elif facts.code == CloudClass.CLOUD:
        by_model = f"its object is certain somewhere, by {CERTAIN}"
        yield f"cloud: {by_model if votes & Vote.CLOUD_MODEL else _scl_counts(facts, 'where')}"
    elif facts.code == CloudClass.CLOUD_SHADOW:
        yield f"shadow: {_lit(facts, dark=True)}"
        if votes & CLOUD_VOTES:
            yield "its votes for cloud are dropped, as the shadow probability exceeds the cloud probability"


def _scl_counts(facts: PixelRecord, where: str) -> str:
    if facts.scl == Scl.CIRRUS:
        return f"thin cirrus of SCL counts {where} {VEILED}"
    return f"a cloud of SCL is trusted {where} {HINTED}"


def _removals(facts: PixelRecord, votes: Vote) -> Iterator[str]:
    """Yield possible reasons for removed votes; the survey of the whole scene, which decided, is not stored."""
    if votes & Vote.CLOUD_MODEL:
        yield f"no part of the model's cloud is certain, by {CERTAIN}"
    elif votes & Vote.PRODUCT_CLOUD:
        yield _scl_counts(facts, "only where")
    is_hinted = facts.shadow is not None and facts.shadow > RULES.hint
    if votes & Vote.PRODUCT_SHADOW and not votes & Vote.SHADOW_MODEL and not is_hinted:
        yield f"shadow of SCL counts only where the model finds more than {RULES.hint} % of shadow"
    if votes & Vote.SHADOW_MODEL or (votes & Vote.PRODUCT_SHADOW and (is_hinted or facts.shadow is None)):
        yield _lit(facts, dark=False)
    if facts.merge.get("min_area"):
        yield f"or {_too_small(facts)}"


def _too_small(facts: PixelRecord) -> str:
    return f"its object is smaller than {facts.merge.get('min_area') or 0:g} m2"


def _lit(facts: PixelRecord, *, dark: bool) -> str:
    """Return the evidence of sun and near infrared for shadow (``dark``) or against it."""
    azimuth, elevation, edge = (facts.merge.get(name) for name in ("sun_azimuth", "sun_elevation", "shadow_edge"))
    parts = []
    if azimuth is not None and elevation is not None:
        sun = f"with the sun at azimuth {azimuth:.0f} and elevation {elevation:.0f} degrees"
        parts.append(f"{'a' if dark else 'no'} cloud that was found can cast it here {sun}")
    if edge is not None:
        product = facts.votes is not None and bool(facts.votes & Vote.PRODUCT_SHADOW)
        sure = 1.0 if product or not facts.shadow else facts.shadow / 100
        level = f"{max(0, 100 - (100 - 100 * float(edge)) / sure):.0f} % of what lit ground nearby has"
        parts.append(f"its near infrared is {'at most' if dark else 'more than'} {level}")
    if not parts:
        return "votes for shadow count, as neither sun nor near infrared is known" if dark else "cloud is close"
    return (" and " if dark else ", or ").join(parts)


def _replaced(facts: PixelRecord) -> Iterator[str]:
    """Yield the class that replaces the product's in the scene classification made with the mask."""
    if facts.improved_scl is not None and facts.scl not in {None, facts.improved_scl}:
        says = NAMES[facts.code].replace("_", " ")
        yield f"SCL {_scl_name(facts.scl or 0)} -> {_scl_name(facts.improved_scl)}, since the mask calls it {says}"


OPTIONS: Final = {
    MASK_VOTES: "--votes",
    "cloud_probability": "--probabilities",
    "shadow_probability": "--probabilities",
}
"""Option that keeps an asset, by its key."""


@dataclass(frozen=True, kw_only=True)
class Explanation:
    """The explanation of one pixel of a mask.

    Attributes:
        item_id: Id of the mask's item.
        lon: Longitude that was asked for, in degrees.
        lat: Latitude.
        row: Row of the pixel, from the top.
        col: Column, from the left.
        class_name: Its class.
        scl: The product's class here; None if the item does not carry the product's mask.
        cloud_probability: Percent, rounded up; None where it was not published.
        shadow_probability: The same for cloud shadow.
        votes: Names of the votes that are set; None if they were not published.
        reasons: The chain from what the sources found to the class, in sentences, and what ``--scl`` replaced.
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
        """Return plain values for JSON."""
        return asdict(self)


def explain(item: str | pystac.Item, lon: float, lat: float, *, catalog: str | None = None) -> Explanation:
    """Explain why the mask has its class at a point.

    Args:
        item: A mask's item: href, path, item, or id in ``catalog``; the source's id will do there, too.
        lon: Longitude in degrees, WGS 84.
        lat: Latitude.
        catalog: Output catalog or STAC API in which an id is looked up.

    Raises:
        ConfigError: The item is not a mask, or the point is outside.
        ReadError: The mask cannot be read.
    """
    if isinstance(item, str) and catalog is not None and not item.endswith((SUFFIX, ".json")):
        item = output_id(item)
    found = mask_item_of(item, catalog=catalog)
    pixel = read_pixel(found, MASK, lon, lat)
    if pixel.value not in NAMES:
        raise UnsupportedItemError(f"item {found.id!r}: {MASK} holds {pixel.value}, which is not a class")
    product = Product.of(found.properties)
    own = OPTIONS if product.key in {None, SCL} else (*OPTIONS, SCL)
    known = {key: read_pixel(found, key, lon, lat).value for key in own if key in found.assets}
    missing = [f"no {key}: process the item with {option}" for key, option in OPTIONS.items() if key not in known]
    scl, without = _scl(found, product, lon, lat)
    votes = Vote(known[MASK_VOTES] % VOTES_NODATA) if MASK_VOTES in known else None
    facts = PixelRecord(
        code=CloudClass(pixel.value),
        votes=votes,
        scl=scl,
        improved_scl=known.get(SCL),
        cloud=_percent(known.get("cloud_probability")),
        shadow=_percent(known.get("shadow_probability")),
        merge=_merge(found),
        product=product,
    )
    return Explanation(
        item_id=found.id,
        lon=lon,
        lat=lat,
        row=pixel.row,
        col=pixel.col,
        class_name=NAMES[pixel.value],
        scl=scl,
        cloud_probability=facts.cloud,
        shadow_probability=facts.shadow,
        votes=None if votes is None else tuple(name for bit, (name, _) in enumerate(VOTES) if votes >> bit & 1),
        reasons=reasons(facts),
        missing=(*missing, *without),
    )


def _merge(item: pystac.Item) -> dict[str, float | str | None]:
    """Return the policy and its parameters, which are numbers."""
    stated = item.properties.get(f"{OWN}merge")
    fields = stated if isinstance(stated, dict) else {}
    return {name: number(value) for name, value in fields.items()} | {"policy": str(fields.get("policy"))}


def _percent(value: int | None) -> int | None:
    return None if value == PERCENT_NODATA else value


def _scl(item: pystac.Item, product: Product, lon: float, lat: float) -> tuple[int | None, tuple[str, ...]]:
    """Return the product's class, or why it is unknown."""
    if product.key is None:
        return None, ()
    if product.key not in item.assets:
        return None, (f"no {product.key}: the item was made with --mask-only",)
    try:
        return read_pixel(item, product.key, lon, lat).value, ()
    except StacCloudmaskError as error:
        return None, (f"no {product.key}: {error}",)
