"""Explain why a pixel has its class."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import asdict, dataclass
from typing import Final

import pystac

from stac_cloudmask.core.classes import SCL_CLASSES, Scl
from stac_cloudmask.core.merge_calibrated import RULES
from stac_cloudmask.core.predict import PERCENT_NODATA
from stac_cloudmask.core.votes import VOTES_NODATA, Vote
from stac_cloudmask.errors import StacCloudmaskError, UnsupportedItemError
from stac_cloudmask.review.layers import CLASS_NAMES, MASK, MASK_VOTES, Product, mask_item_of
from stac_cloudmask.stac.assets import OWN
from stac_cloudmask.stac.mask_item import SUFFIX, output_id
from stac_cloudmask.stac.metadata import number
from stac_cloudmask.stac.providers import SCL
from stac_cloudmask.stac.warp import read_pixel

CERTAIN: Final = f"a mean cloud probability of {RULES.certain} % over 60 to 80 m, or trusted cloud of SCL"
HINTED: Final = (
    f"the model finds more than {RULES.hint} % of cloud in {100 * RULES.support:g} % of what lies within "
    f"{RULES.around:g} m, thin cloud veils the ground, or it is bright beside certain cloud"
)
THIN: Final = f"the model finds more than {RULES.cirrus} % of cloud, or thin cloud veils the ground"
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
        improved_scl: The class in the scene classification that was made with the mask; None if there is none.
        cloud_probability: Percent, rounded up; None where it was not published.
        shadow_probability: The same for cloud shadow.
        votes: Names of the votes that are set; None if they were not published.
        missing: What would tell more, and how to get it.
        merge: Policy and parameters of the merge, by their names in the item.
        product: Meaning of the classes of SCL.
    """

    item_id: str
    lon: float
    lat: float
    row: int
    col: int
    class_name: str
    scl: int | None
    improved_scl: int | None
    cloud_probability: int | None
    shadow_probability: int | None
    votes: tuple[str, ...] | None
    missing: tuple[str, ...]
    merge: Mapping[str, float | str | None]
    product: Product

    @property
    def reasons(self) -> tuple[str, ...]:
        """The chain from what the sources found to the class, in sentences, and what ``--scl`` replaced."""
        if self.class_name == "nodata":
            return ("no data: a band has no data here, or SCL says so",)
        decided = () if self.votes is None else _policy(self, self.votes)
        return (*_product(self), *_models(self), *decided, *_replaced(self))

    def to_dict(self) -> dict[str, object]:
        """Return plain values for JSON."""
        left_out = {"improved_scl", "missing", "merge", "product"}
        shown = {name: value for name, value in asdict(self).items() if name not in left_out}
        return shown | {"reasons": self.reasons, "missing": self.missing}


def _scl_name(code: int) -> str:
    return f"{code} ({SCL_CLASSES[code].title.lower() if code < len(SCL_CLASSES) else 'unknown'})"


def _product(pixel: Explanation) -> Iterator[str]:
    cloud, shadow = "cloud", "cloud shadow"
    if pixel.scl is not None:
        known = dict.fromkeys(pixel.product.shadow_codes, shadow) | dict.fromkeys(pixel.product.cloud_codes, cloud)
        vote = f"a vote for {known[pixel.scl]}" if pixel.scl in known else "no vote"
        yield f"SCL is {_scl_name(pixel.scl)}: {vote}"
    elif pixel.votes is not None and not {"product_cloud", "product_shadow"}.isdisjoint(pixel.votes):
        yield f"SCL votes for {cloud if 'product_cloud' in pixel.votes else shadow}"


def _models(pixel: Explanation) -> Iterator[str]:
    for name, percent, vote, setting in (
        ("cloud", pixel.cloud_probability, "cloud_model", "cloud_thr"),
        ("cloud shadow", pixel.shadow_probability, "shadow_model", "shadow_thr"),
    ):
        threshold = 100 * float(pixel.merge.get(setting) or 0)
        if percent is not None:
            above, counts = ("above", "a vote") if percent > round(threshold) else ("not above", "no vote")
            yield f"the probability of {name} is {percent} %, {above} the threshold of {threshold:g} %: {counts}"
        elif pixel.votes is not None:
            above = "above" if vote in pixel.votes else "not above"
            yield f"the model's probability of {name} is {above} {threshold:g} %"


def _policy(pixel: Explanation, votes: tuple[str, ...]) -> Iterator[str]:
    """Yield how the policy decided on the votes."""
    is_calibrated = pixel.merge.get("policy") == "calibrated"
    if "removed" in votes:
        yield from (f"removed: {why}" for why in (_removals(pixel, votes) if is_calibrated else [_too_small(pixel)]))
    if "added" in votes:
        name = pixel.class_name.replace("_", " ")
        buffer = pixel.merge.get("cloud_buffer" if name == "cloud" else "shadow_buffer") or 0
        hole = ", or all around it and as bright" if is_calibrated and name == "cloud" else ""
        yield f"added: {name} is within {buffer:g} m{hole}"
    elif not votes:
        yield "no source flags it: clear"
    elif pixel.class_name != "clear" and not is_calibrated:
        yield f"policy {pixel.merge.get('policy')}: any vote counts, cloud before shadow"
    elif pixel.class_name == "cloud":
        by_model = f"its object is certain somewhere, by {CERTAIN}"
        yield f"cloud: {by_model if 'cloud_model' in votes else _scl_counts(pixel, 'where')}"
    elif pixel.class_name == "cloud_shadow":
        yield f"shadow: {_lit(pixel, dark=True)}"
        if "product_cloud" in votes or "cloud_model" in votes:
            yield "its votes for cloud are dropped, as the shadow probability exceeds the cloud probability"


def _scl_counts(pixel: Explanation, where: str) -> str:
    if pixel.scl == Scl.CIRRUS:
        return f"thin cirrus of SCL counts {where} {THIN}"
    return f"a cloud of SCL is trusted {where} {HINTED}"


def _removals(pixel: Explanation, votes: tuple[str, ...]) -> Iterator[str]:
    """Yield possible reasons for removed votes; the survey of the whole scene, which decided, is not stored."""
    if "cloud_model" in votes:
        yield f"no part of the model's cloud is certain, by {CERTAIN}"
    elif "product_cloud" in votes:
        yield _scl_counts(pixel, "only where")
    percent = pixel.shadow_probability
    is_hinted = percent is not None and percent > RULES.hint
    if "product_shadow" in votes and "shadow_model" not in votes and not is_hinted:
        yield f"shadow of SCL counts only where the model finds more than {RULES.hint} % of shadow"
    if "shadow_model" in votes or ("product_shadow" in votes and (is_hinted or percent is None)):
        yield _lit(pixel, dark=False)
    if pixel.merge.get("min_area"):
        yield f"or {_too_small(pixel)}"


def _too_small(pixel: Explanation) -> str:
    return f"its object is smaller than {pixel.merge.get('min_area') or 0:g} m2"


def _lit(pixel: Explanation, *, dark: bool) -> str:
    """Return the evidence of sun and near infrared for shadow (``dark``) or against it."""
    azimuth, elevation, edge = (pixel.merge.get(name) for name in ("sun_azimuth", "sun_elevation", "shadow_edge"))
    parts = []
    if azimuth is not None and elevation is not None:
        sun = f"with the sun at azimuth {azimuth:.0f} and elevation {elevation:.0f} degrees"
        parts.append(f"{'a' if dark else 'no'} cloud that was found can cast it here {sun}")
    if edge is not None:
        sure = 1.0 if "product_shadow" in (pixel.votes or ()) else (pixel.shadow_probability or 100) / 100
        level = f"{max(0, 100 - (100 - 100 * float(edge)) / sure):.0f} % of what lit ground nearby has"
        parts.append(f"its near infrared is {'at most' if dark else 'more than'} {level}")
    if not parts:
        return "votes for shadow count, as neither sun nor near infrared is known" if dark else "cloud is close"
    return (" and " if dark else ", or ").join(parts)


def _replaced(pixel: Explanation) -> Iterator[str]:
    """Yield the class that replaces the product's in the scene classification made with the mask."""
    if pixel.improved_scl is not None and pixel.scl not in {None, pixel.improved_scl}:
        says = pixel.class_name.replace("_", " ")
        yield f"SCL {_scl_name(pixel.scl or 0)} -> {_scl_name(pixel.improved_scl)}, since the mask calls it {says}"


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
    at = read_pixel(found, MASK, lon, lat)
    if at.value not in CLASS_NAMES:
        raise UnsupportedItemError(f"item {found.id!r}: {MASK} holds {at.value}, which is not a class")
    product = Product.of(found.properties)
    own = OPTIONS if product.key in {None, SCL} else (*OPTIONS, SCL)
    known = {key: read_pixel(found, key, lon, lat).value for key in own if key in found.assets}
    percents = {key: value for key, value in known.items() if value != PERCENT_NODATA}
    missing = [f"no {key}: process the item with {option}" for key, option in OPTIONS.items() if key not in known]
    scl = None
    if product.key is not None and product.key not in found.assets:
        missing.append(f"no {product.key}: the item was made with --mask-only")
    elif product.key is not None:
        try:
            scl = read_pixel(found, product.key, lon, lat).value
        except StacCloudmaskError as error:
            missing.append(f"no {product.key}: {error}")
    votes = Vote(known.get(MASK_VOTES, 0) % VOTES_NODATA)
    stated = found.properties.get(f"{OWN}merge")
    merge = stated if isinstance(stated, dict) else {}
    return Explanation(
        item_id=found.id,
        lon=lon,
        lat=lat,
        row=at.row,
        col=at.col,
        class_name=CLASS_NAMES[at.value],
        scl=scl,
        improved_scl=known.get(SCL),
        cloud_probability=percents.get("cloud_probability"),
        shadow_probability=percents.get("shadow_probability"),
        votes=tuple(str(vote.name).lower() for vote in votes) if MASK_VOTES in known else None,
        missing=tuple(missing),
        merge={name: number(value) for name, value in merge.items()} | {"policy": str(merge.get("policy"))},
        product=product,
    )
